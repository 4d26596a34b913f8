"""Networks of NAS-Bench-101 cells against a slow reference: one architecture, one vertex at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from network_checks import supernet_with_random_weights
from torch import Tensor

from nas_gym.evaluators.shared_weights import SharedWeightEvaluator
from nas_gym.networks import Network, NetworkSettings, make_network, make_supernet
from nas_gym.networks.bench101 import vertex_channels
from nas_gym.spaces import Bench101Space, Tokens
from nas_gym.tasks import make_task

SPACE = Bench101Space()
TEXT = "connect conv_3x3 | none connect conv_1x1 | connect none connect max_pool_3x3"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def supernet(space: Bench101Space, size: int, settings: NetworkSettings) -> Network:
    return supernet_with_random_weights(space, settings, size, in_channels=2, classes=4)


def slow_widths(matrix: list[list[int]], channels: int) -> list[int]:
    """As section 2.3 tells: the output's channels shared out, others as wide as the widest that they lead to."""
    last = len(matrix) - 1
    ends = [v for v in range(1, last) if matrix[v][last]]
    widths = [0] * last + [channels]
    for rank, vertex in enumerate(ends):
        widths[vertex] = channels // len(ends) + (rank < channels % len(ends))
    for vertex in reversed(range(1, last)):
        if vertex not in ends:
            widths[vertex] = max(widths[v] for v in range(vertex + 1, last) if matrix[vertex][v])
    return widths


def unit(state: dict[str, Tensor], prefix: str, x: Tensor, width: int, stride: int = 1) -> Tensor:
    """Convolution, batch norm and ReLU with the first weights of a layer."""
    convolution, norm = ("0", "1") if prefix == "stem" else ("convolution", "norm")
    weight = state[f"{prefix}.{convolution}.weight"][:width, : x.shape[1]]
    scale, shift = (state[f"{prefix}.{norm}.{name}"][:width] for name in ("weight", "bias"))
    x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
    return F.relu(F.batch_norm(x, None, None, scale, shift, training=True))


def reference(network: Network, images: Tensor, row: Tokens) -> Tensor:
    space, settings, state = network.space, network.settings, network.state_dict()
    assert isinstance(space, Bench101Space)
    cell = space.decode(row)
    last, vertices = len(cell.vertices) - 1, cell.vertices
    channels = settings.channels
    x = unit(state, "stem", images, channels, settings.stem_stride)
    for stack in range(settings.reductions + 1):
        if stack:
            x, channels = F.max_pool2d(x, 2, ceil_mode=True), 2 * channels
        for index in range(settings.cells_per_stage):
            prefix = f"cells.{stack * settings.cells_per_stage + index}"
            widths = slow_widths([list(line) for line in cell.matrix], channels)
            outputs = [x]
            for i in range(1, last + 1):
                width = widths[i]
                inner = [outputs[j] for j in range(1, i) if cell.matrix[j][i]]
                total = torch.zeros(len(x), width, *x.shape[2:])
                if i == last and inner:
                    total = torch.cat(inner, dim=1)
                elif inner:
                    total = torch.stack([output[:, :width] for output in inner]).sum(dim=0)
                if cell.matrix[0][i]:
                    total = total + unit(state, f"{prefix}.projections.{vertices[i]}", x, width)
                if i == last:
                    outputs.append(total)
                elif cell.operations[i] == "max_pool_3x3":
                    outputs.append(F.max_pool2d(total, 3, 1, 1))
                else:
                    choice = space.operations.index(cell.operations[i])
                    outputs.append(unit(state, f"{prefix}.operations.{vertices[i]}_{choice}", total, width))
            x = outputs[-1]
    return F.linear(x.mean(dim=(2, 3)), state["head.linear.weight"], state["head.linear.bias"])


def samples(space: Bench101Space, n: int) -> Tokens:
    """Random architectures, and the one that has an edge from input to output and nothing else."""
    tokens = space.sample(np.random.default_rng(0), n)
    bare = np.zeros_like(tokens[:1])
    bare[0, space.edge_columns[-(space.vertices - 1)]] = 1
    return np.concatenate([bare, tokens])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "settings"),
    [(8, NetworkSettings(7, 1, 2)), (7, NetworkSettings(5, 2, 1)), (14, NetworkSettings(11, 1, 1, stem_stride=2))],
)
def test_supernet_equals_the_reference(size: int, settings: NetworkSettings) -> None:
    network, tokens = supernet(SPACE, size, settings), samples(SPACE, 24)
    SPACE.check(tokens)
    images = torch.randn(6, 2, size, size, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        together = network.eval()(images, tokens)
        for row, logits in zip(tokens, together, strict=True):
            torch.testing.assert_close(network(images, row[None])[0], logits, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(reference(network, images, row), logits, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_network_of_its_own_equals_the_reference() -> None:
    images = torch.randn(6, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    for row in samples(SPACE, 12):
        network = make_network(SPACE.architecture(row), (2, 8, 8), 4, NetworkSettings(7, 1, 1))
        # The first channels of exact weights are all of them: the reference takes the same slices here.
        torch.testing.assert_close(network.train()(images), reference(network, images, row), rtol=1e-5, atol=1e-5)
        network(images).square().sum().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())


def test_widths_share_out_the_output() -> None:
    for row in samples(SPACE, 200):
        cell = SPACE.decode(row)
        edges, live = SPACE.adjacency(row[None]), list(cell.vertices)
        pruned = np.zeros_like(edges)
        pruned[np.ix_([0], live, live)] = edges[np.ix_([0], live, live)]
        widths = vertex_channels(pruned, 11)[0]
        assert widths[live].tolist() == slow_widths([list(line) for line in cell.matrix], 11)
        assert widths.sum() == widths[live].sum()


def test_a_network_has_exactly_its_parameters() -> None:
    space = Bench101Space(vertices=5)
    # Input to 1 and 3; 1 to 2; 2 to 3 and the output; 3 and the input to the output. The ends 2 and 3 have 4 and 3
    # channels of 7, and 1 has 4.
    architecture = space.parse(f"{TEXT} | connect none connect connect")
    network = make_network(architecture, (2, 8, 8), 10, NetworkSettings(7, 1, 0))

    def convolution(inputs: int, outputs: int, kernel: int) -> int:
        return inputs * outputs * kernel**2 + 2 * outputs

    projections = convolution(7, 4, 1) + convolution(7, 3, 1) + convolution(7, 7, 1)
    cell = projections + convolution(4, 4, 3) + convolution(4, 4, 1)
    expected = convolution(2, 7, 3) + cell + (7 + 1) * 10
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_pruned_vertices_do_nothing() -> None:
    space = Bench101Space(vertices=5)
    bare, dangling = (
        space.parse(f"{first} | none none max_pool_3x3 | none none none conv_3x3 | none connect none none")
        if first
        else space.parse(f"connect conv_3x3 | {second} | connect none connect conv_1x1 | none connect none none")
        for first, second in (("connect conv_3x3", ""), ("", "connect none conv_1x1"))
    )
    network = supernet(space, 8, NetworkSettings(6, 1, 0))
    images = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    logits = network(images, np.array([bare.tokens, dangling.tokens]))
    assert torch.equal(logits[0], logits[1])
    sizes = [
        sum(parameter.numel() for parameter in make_network(architecture, (2, 8, 8), 4).parameters())
        for architecture in (bare, dangling)
    ]
    assert sizes[0] == sizes[1]


def test_shared_weights_are_trained_and_scored() -> None:
    task = make_task("digits", train_limit=64, valid_limit=40)
    evaluator = SharedWeightEvaluator(SPACE, task, device="cpu", batch_size=16, affine=True)
    tokens = samples(SPACE, 4)
    weights = [parameter.clone() for parameter in evaluator.supernet.parameters()]
    log = evaluator.update(tokens)
    assert np.isfinite(log["weights/loss"])
    assert log["weights/skipped"] == 0
    changed = [not torch.equal(a, b) for a, b in zip(weights, evaluator.supernet.parameters(), strict=True)]
    assert sum(changed) > len(changed) / 4
    evaluations = evaluator.evaluate(tokens)
    assert not evaluations.failed.any()
    assert ((evaluations.accuracy >= 0) & (evaluations.accuracy <= 1)).all()
    np.testing.assert_array_equal(evaluations.accuracy, evaluator.evaluate(tokens).accuracy)


@pytest.mark.parametrize(
    ("space", "settings", "message"),
    [
        (SPACE, NetworkSettings(channels=4), "channels must be at least 5"),
        (SPACE, NetworkSettings(auxiliary=True), "have no auxiliary"),
        (Bench101Space(operations=("conv_9x9",)), NetworkSettings(), "no vertex operation"),
    ],
)
def test_bad_settings_are_refused(space: Bench101Space, settings: NetworkSettings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_supernet(space, (1, 8, 8), 10, settings)
