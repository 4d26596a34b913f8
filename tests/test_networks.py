"""Supernets and single networks against a slow walk over one architecture, and against each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_gym.networks import Network, NetworkSettings, make_network, make_supernet
from nas_gym.networks.bank import DropPath
from nas_gym.networks.network import ArchitectureNorm
from nas_gym.networks.operations import FactorisedReduction, SubsampledReLU, Zero
from nas_gym.spaces import Bench201Space, CellSpace, SearchSpace, Tokens, make_space

PRESETS = ["cell:enas", "cell:nasnet", "cell:darts", "bench201"]
SETTINGS = NetworkSettings(channels=4, cells_per_stage=1, reductions=1)
CONCAT_ONLY = CellSpace(nodes=2, operations=("conv_1x1", "none"), combine=("concat",))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def supernet(space: SearchSpace, settings: NetworkSettings = SETTINGS, size: int = 8) -> Network:
    """In float64, with norms away from 1 and 0, so that a wrong one shows."""
    network = make_supernet(space, (2, size, size), 3, settings, seed=5)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return network.double()


def pictures(n: int = 3, size: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(n, 2, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def draw(space: SearchSpace, n: int, seed: int) -> Tokens:
    """Architectures, some of them twice and in no order."""
    rng = np.random.default_rng(seed)
    tokens = space.sample(rng, n)
    return tokens[rng.integers(n, size=n + 2)]


# ------------------------------------------------------------------ a second forward, one architecture at a time


def walk(module: nn.Module, x: Tensor) -> Tensor:
    """A module on the images of one architecture; norms and reductions by their formulas."""
    if isinstance(module, nn.Sequential):
        for part in module:
            x = walk(part, x)
        return x
    if isinstance(module, ArchitectureNorm):
        mean = x.mean(dim=(0, 2, 3), keepdim=True)
        variance = (x - mean).square().mean(dim=(0, 2, 3), keepdim=True)
        normal = (x - mean) / (variance + 1e-5).sqrt()
        return normal * module.weight[:, None, None] + module.bias[:, None, None]
    if isinstance(module, FactorisedReduction):
        x = F.pad(x.relu(), (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        halves = [
            F.conv2d(x[:, :, ::2, ::2], module.straight.weight),
            F.conv2d(x[:, :, 1::2, 1::2], module.shifted.weight),
        ]
        return walk(module.norm, torch.cat(halves, dim=1))
    if isinstance(module, SubsampledReLU):
        return x.relu()[:, :, :: module.stride, :: module.stride]
    assert isinstance(module, nn.ReLU | nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d | nn.Identity | Zero), type(module)
    out: Tensor = module(x)
    return out


def classify(network: Network, x: Tensor) -> Tensor:
    linear = network.head.linear  # type: ignore[union-attr]
    return x.relu().mean(dim=(2, 3)) @ linear.weight.T + linear.bias  # type: ignore[union-attr, operator]


def walk_cells(network: Network, space: CellSpace, x: Tensor, architecture: Tokens) -> Tensor:
    decoded = space.cells(architecture)
    before = previous = walk(network.stem, x)  # type: ignore[arg-type]
    for cell in network.cells:  # type: ignore[union-attr]
        kind = "reduction" if cell.reduces else "normal"
        states = [walk(cell.inputs[0], before), walk(cell.inputs[1], previous)]
        for node, choice in enumerate(decoded[kind]):
            operands = []
            for k, (source, name) in enumerate(zip(choice.inputs, choice.operations, strict=True)):
                index = space.operations.index(name)
                if kind == "reduction" and source < 2:
                    index += len(space.operations)
                operands.append(walk(cell.operations[2 * node + k].choices[str(index)], states[source]))
            if choice.combine == "add":
                states.append(operands[0] + operands[1])
            else:
                joint = cell.combines[node].choices[str(space.combine.index("concat"))]
                states.append(walk(joint, torch.cat(operands, dim=1)))
        read = {source for choice in decoded[kind] for source in choice.inputs}
        ends = [
            state if space.output == "all" or 2 + node not in read else torch.zeros_like(state)
            for node, state in enumerate(states[2:])
        ]
        before, previous = previous, torch.cat(ends, dim=1)
        shrink = 2 if kind == "reduction" else 1
        assert previous.shape[2:] == tuple(-(-length // shrink) for length in before.shape[2:])
    return classify(network, previous)


def walk_bench201(network: Network, space: Bench201Space, x: Tensor, architecture: Tokens) -> Tensor:
    x = walk(network.stem, x)  # type: ignore[arg-type]
    for block in network.blocks:  # type: ignore[union-attr]
        if hasattr(block, "shortcut"):
            x = walk(block.convolutions, x) + walk(block.shortcut, x)
            continue
        states = [x] + [torch.zeros_like(x) for _ in range(space.nodes - 1)]
        for (source, target), bank, choice in zip(space.edges, block.edges, architecture, strict=True):
            states[target] = states[target] + walk(bank.choices[str(choice)], states[source])
        x = states[-1]
    return classify(network, walk(network.norm_before_head, x))  # type: ignore[arg-type]


def one_by_one(network: Network, x: Tensor, tokens: Tokens) -> Tensor:
    forward: Callable[..., Tensor] = walk_cells if isinstance(network.space, CellSpace) else walk_bench201
    return torch.stack([forward(network, network.space, x, architecture) for architecture in tokens])


# ------------------------------------------------------------------ supernets


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", PRESETS)
def test_a_batch_equals_the_walk_over_each_architecture(name: str, training: bool) -> None:
    network = supernet(make_space(name)).train(training)
    for seed in range(3):
        tokens = draw(network.space, 10, seed)
        torch.testing.assert_close(
            network(pictures(), tokens), one_by_one(network, pictures(), tokens), rtol=1e-8, atol=1e-8
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("space", "settings", "size"),
    [
        (make_space("cell:enas"), NetworkSettings(4, 2, 2, 1), 7),
        (make_space("bench201"), NetworkSettings(4, 2, 2, 1), 7),
        (make_space("cell:darts"), NetworkSettings(3, 1, 2, 2), 9),
        (make_space("bench201"), NetworkSettings(2, 1, 0, 2), 5),
        (make_space("cell:enas"), NetworkSettings(2, 1, 0, 1), 5),
        (CONCAT_ONLY, NetworkSettings(4, 1, 1, 1), 8),
        (CellSpace(nodes=1, combine=("concat", "add")), NetworkSettings(4, 1, 1, 1), 8),
    ],
    ids=["enas", "bench201", "darts", "bench201-flat", "enas-flat", "concat", "one-node"],
)
def test_other_macro_architectures_too(space: SearchSpace, settings: NetworkSettings, size: int) -> None:
    network = supernet(space, settings, size)
    tokens, x = draw(space, 5, 1), pictures(size=size)
    torch.testing.assert_close(network(x, tokens), one_by_one(network, x, tokens), rtol=1e-8, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_batch_equals_each_alone_in_single_precision(name: str) -> None:
    network = make_supernet(make_space(name), (2, 8, 8), 3, SETTINGS).eval()
    with torch.no_grad():
        for seed in range(3):
            tokens, x = draw(network.space, 30, seed), pictures(5, seed=seed).float()
            together = network(x, tokens)
            assert together.shape == (32, 5, 3)
            alone = torch.cat([network(x, tokens[row : row + 1]) for row in range(len(tokens))])
            torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_gradients_of_a_batch_are_the_sum_of_each_alone(name: str) -> None:
    network, x = supernet(make_space(name)), pictures()
    tokens = draw(network.space, 6, 4)
    weights = torch.randn(len(tokens), 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(7))

    def gradients(logits: Tensor) -> dict[str, Tensor]:
        network.zero_grad()
        (logits * weights).sum().backward()
        return {key: p.grad.clone() for key, p in network.named_parameters() if p.grad is not None}

    expected = gradients(one_by_one(network, x, tokens))
    together = gradients(network(x, tokens))
    assert set(expected) <= set(together)
    for key, gradient in together.items():
        torch.testing.assert_close(gradient, expected.get(key, torch.zeros_like(gradient)), rtol=1e-6, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_architectures_do_not_see_each_other(name: str) -> None:
    """Neither their statistics nor what is not a number cross over, and images share statistics within one."""
    network = supernet(make_space(name))
    tokens, x = draw(network.space, 6, 8), pictures()
    before = network(x, tokens)
    changed = tokens.copy()
    changed[2] = network.space.sample(np.random.default_rng(99), 1)[0]
    rows = [row for row in range(len(tokens)) if row != 2]
    after = network(x, changed)
    torch.testing.assert_close(after[rows], before[rows], rtol=1e-9, atol=1e-9)
    assert not torch.allclose(after[2], before[2])
    other = x.clone()
    other[0] *= 3
    assert not torch.allclose(network(other, tokens)[:, 1:], before[:, 1:]), "norms are of the batch, not of an image"


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
def test_a_forward_leaves_no_trace(training: bool) -> None:
    network = make_supernet(make_space("cell:nasnet"), (2, 8, 8), 3, SETTINGS).train(training)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert not list(network.buffers())
    random_state = torch.get_rng_state()
    x = pictures().float()
    first = network(x, draw(network.space, 4, 0))
    network(x * 100, draw(network.space, 4, 1))
    again = network(x, draw(network.space, 4, 0))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_seeds_give_the_weights_and_leave_the_global_random_state_alone() -> None:
    space = make_space("bench201")
    torch.manual_seed(1)
    random_state = torch.get_rng_state()
    first, same, other = (make_supernet(space, (2, 8, 8), 3, SETTINGS, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), random_state)
    pairs = list(zip(first.parameters(), same.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert any(not torch.equal(a, c) for a, _, c in pairs)


# ------------------------------------------------------------------ networks of one architecture


def give_weights(network: Network, shared: Network) -> None:
    """Copies by name; of a convolution behind a concatenation, the columns of the states that are concatenated."""
    weights = dict(shared.named_parameters())
    for key, parameter in network.named_parameters():
        wanted = weights[key].detach()
        if wanted.shape != parameter.shape:
            assert isinstance(network.space, CellSpace)
            assert wanted.shape[0] == parameter.shape[0]
            number = int(key.split(".")[1]) if key.startswith("cells") else len(network.cells)  # type: ignore[arg-type]
            feeder = number - 2 if ".inputs.0" in key else number - 1
            cell = network.cells[feeder]  # type: ignore[index]
            decoded = network.space.cells(network.architecture.tokens)  # type: ignore[union-attr]
            choices = decoded["reduction" if cell.reduces else "normal"]
            read = {source for choice in choices for source in choice.inputs}
            loose = torch.tensor([2 + node not in read for node in range(network.space.nodes)])
            wanted = wanted[:, loose.repeat_interleave(wanted.shape[1] // len(loose))]
        with torch.no_grad():
            parameter.copy_(wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_network_of_its_own_equals_its_row_of_the_supernet(name: str) -> None:
    settings = NetworkSettings(4, 2, 1)
    shared = supernet(make_space(name), settings)
    tokens, x = shared.space.sample(np.random.default_rng(3), 5), pictures()
    expected = shared(x, tokens)
    for row, architecture in enumerate(tokens):
        network = make_network(shared.space.architecture(architecture), (2, 8, 8), 3, settings).double()
        assert dict(network.named_parameters()).keys() <= dict(shared.named_parameters()).keys()
        give_weights(network, shared)
        logits = network.train()(x)
        assert logits.shape == (3, 3)
        torch.testing.assert_close(logits, expected[row], rtol=1e-8, atol=1e-8)


def unread(network: Network) -> tuple[str, ...]:
    """Where a network of cells has parts that do not reach the classifier: inputs that no node of a cell reads."""
    decoded = network.space.cells(network.architecture.tokens)  # type: ignore[union-attr]
    cells = list(network.cells)  # type: ignore[arg-type]
    needed, idle = {len(cells) - 1}, []
    for number, cell in reversed(list(enumerate(cells))):
        if number not in needed:
            idle.append(f"cells.{number}.")
            continue
        read = {source for choice in decoded["reduction" if cell.reduces else "normal"] for source in choice.inputs}
        needed |= {max(number - 2 + k, -1) for k in (0, 1) if k in read}
        idle += [f"cells.{number}.inputs.{k}." for k in (0, 1) if k not in read]
    return tuple(idle)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_network_holds_only_what_its_architecture_uses(name: str) -> None:
    space = make_space(name)
    for architecture in space.sample(np.random.default_rng(4), 6):
        network = make_network(space.architecture(architecture), (2, 8, 8), 3, SETTINGS)
        banks = [module for key, module in network.named_modules() if key.endswith(".choices")]
        assert banks
        assert all(len(bank) == 1 for bank in banks)  # type: ignore[arg-type]
        if name != "bench201":
            network(pictures().float()).sum().backward()
            idle = {key for key, parameter in network.named_parameters() if parameter.grad is None}
            assert idle == {key for key, _ in network.named_parameters() if key.startswith(unread(network))}


def test_parameters_by_formula() -> None:
    space = Bench201Space()
    rng = np.random.default_rng(0)
    for architecture in space.sample(rng, 20):
        network = make_network(space.architecture(architecture), (3, 8, 8), 10, NetworkSettings(4, 2, 1))
        expected = 27 * 4 + 8 + (8 * 2 + 8 * 10 + 10)  # stem, norm and classifier
        expected += 9 * 4 * 8 + 16 + 9 * 8 * 8 + 16 + 4 * 8  # the residual block
        for channels, cells in ((4, 2), (8, 2)):
            for token in architecture:
                kernel = {"nor_conv_1x1": 1, "nor_conv_3x3": 9}.get(space.operations[token])
                expected += cells * (kernel * channels**2 + 2 * channels) if kernel else 0
        assert sum(p.numel() for p in network.parameters()) == expected


def test_running_statistics_serve_a_network_of_its_own_in_evaluation() -> None:
    space = make_space("bench201")
    cell = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|"
    network = make_network(space.parse(cell), (2, 8, 8), 3, SETTINGS)
    x = pictures(6).float()
    network.train()(x)
    network.eval()
    torch.testing.assert_close(network(x)[:2], network(x[:2]))


# ------------------------------------------------------------------ auxiliary head, drop path, errors


@pytest.mark.parametrize("name", ["cell:enas", "cell:darts"])
def test_the_auxiliary_head_works_in_training_alone(name: str) -> None:
    space = make_space(name)
    architecture = space.architecture(space.sample(np.random.default_rng(0), 1)[0])
    settings = NetworkSettings(4, 1, 2, auxiliary=True)
    network, x = make_network(architecture, (2, 8, 8), 3, settings), pictures().float()
    logits, auxiliary = network.train().logits(x)
    assert auxiliary is not None
    assert auxiliary.shape == logits.shape == (3, 3)
    assert not torch.equal(auxiliary, logits)
    assert network.auxiliary_cell == 3, "two thirds of normal, reduction, normal, reduction, normal"
    assert network.eval().logits(x)[1] is None
    assert make_network(architecture, (2, 8, 8), 3, SETTINGS).train().logits(x)[1] is None
    shared = make_supernet(space, (2, 8, 8), 3, settings).train()
    assert shared.logits(x, np.array([architecture.tokens]))[1] is None


def test_drop_path_keeps_the_expectation_and_follows_its_generator() -> None:
    drop, x = DropPath(), torch.full((4000, 2, 3, 3), 5.0)
    assert drop(x) is x
    drop.probability = 0.3
    assert drop.eval()(x) is x
    drop.train()

    def dropped(seed: int) -> Tensor:
        drop.generator = torch.Generator().manual_seed(seed)
        out: Tensor = drop(x)
        return out

    out = dropped(0)
    per_image = out.flatten(1)
    assert torch.equal(per_image, per_image[:, :1].expand_as(per_image)), "a path is dropped whole"
    torch.testing.assert_close(per_image[:, 0].unique(), torch.tensor([0.0, 5 / 0.7]))
    deviation = 5 * (0.3 / 0.7 / 4000) ** 0.5
    assert abs(float(out.mean()) - 5) < 4 * deviation
    random_state = torch.get_rng_state()
    assert torch.equal(out, dropped(0))
    assert not torch.equal(out, dropped(1))
    assert torch.equal(torch.get_rng_state(), random_state)


def test_drop_path_spares_identities() -> None:
    space = Bench201Space()
    x = pictures().float()

    def spread(cell: str) -> float:
        network = make_network(space.parse(cell), (2, 8, 8), 3, NetworkSettings(4, 1, 0)).train()
        network.drop_path.probability = 0.5
        outputs = []
        for seed in range(6):
            network.drop_path.generator = torch.Generator().manual_seed(seed)
            outputs.append(network(x).detach())
        return float(torch.stack(outputs).std(dim=0).max())

    assert spread("|skip_connect~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|skip_connect~2|") == 0
    assert spread("|nor_conv_1x1~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|skip_connect~2|") > 0.01


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(("size", "reductions", "stride"), [(3, 2, 1), (7, 2, 2), (1, 1, 1)])
def test_images_that_are_too_small(name: str, size: int, reductions: int, stride: int) -> None:
    space, settings = make_space(name), NetworkSettings(4, 1, reductions, stride)
    shrink = stride * 2**reductions
    for shape in ((2, size, size), (2, 32, size)):
        message = rf"images of {shape[1]}x{size} cannot be reduced {shrink} times"
        with pytest.raises(ValueError, match=message):
            make_supernet(space, shape, 3, settings)
        with pytest.raises(ValueError, match=message):
            make_network(space.architecture(space.sample(np.random.default_rng(0), 1)[0]), shape, 3, settings)


@pytest.mark.parametrize(
    ("field", "value", "least"),
    [("channels", 1, 2), ("cells_per_stage", 0, 1), ("reductions", -1, 0), ("stem_stride", 0, 1)],
)
def test_settings_are_checked(field: str, value: int, least: int) -> None:
    with pytest.raises(ValueError, match=rf"{field} must be at least {least}, got {value}"):
        NetworkSettings(**{field: value})


def test_tokens_are_for_supernets() -> None:
    space, x = Bench201Space(), pictures().float()
    tokens = space.sample(np.random.default_rng(0), 2)
    shared = make_supernet(space, (2, 8, 8), 3, SETTINGS)
    single = make_network(space.architecture(tokens[0]), (2, 8, 8), 3, SETTINGS)
    for network, argument in ((shared, None), (single, tokens)):
        with pytest.raises(ValueError, match=r"a supernet needs tokens, a network of one architecture takes none"):
            network(x, argument)
