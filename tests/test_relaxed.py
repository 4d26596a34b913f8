"""Edges of spaces, networks under weights of all operations, and the evaluator that trains them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from network_checks import images
from torch import Tensor, nn

from nas_gym.evaluators.cost import count_flops
from nas_gym.evaluators.relaxed import RelaxedEvaluator
from nas_gym.evaluators.unrolled import Unrolling
from nas_gym.networks import Network, NetworkSettings, make_network
from nas_gym.networks.relaxed import make_relaxed
from nas_gym.spaces import Architecture, Bench201Space, CellSpace, SearchSpace, make_space
from nas_gym.spaces.edges import edges_of

torch.set_num_threads(1)
BENCH, DARTS = make_space("bench201"), make_space("cell:darts")
SMALL = CellSpace(nodes=3, operations=("sep_conv_3x3", "skip_connect"), distinct_inputs=True, output="all")
SPACES = pytest.mark.parametrize("space", [BENCH, DARTS, SMALL], ids=["bench201", "cell:darts", "small"])


def evaluator(space: SearchSpace = BENCH, **settings: Any) -> RelaxedEvaluator:
    tiny = {"channels": 4, "batch_size": 16, "score_images": 40, "task_kwargs": {"train_limit": 101}}
    return RelaxedEvaluator(space, "digits", device="cpu", **{**tiny, **settings})


def mixture(space: SearchSpace, seed: int = 0) -> np.ndarray:
    edges, operations = edges_of(space).shape
    return np.random.default_rng(seed).dirichlet(np.ones(operations), edges)


# ------------------------------------------------------------------ edges


@SPACES
def test_architectures_are_one_hot_on_edges(space) -> None:
    edges, tokens = edges_of(space), space.sample(np.random.default_rng(0), 50)
    weights = edges.weights(tokens)
    assert weights.shape == (50, *edges.shape)
    assert set(np.unique(weights)) == {0.0, 1.0}
    assert (weights.sum(axis=2) <= 1).all()
    for row, own in zip(tokens, weights, strict=True):
        assert (edges.tokens(own) == row).all()
    assert len(set(edges.names)) == len(edges.names)


def test_the_edges_of_a_cell_by_its_decisions() -> None:
    """Read from the decoded nodes, which know nothing of edges."""
    edges = edges_of(DARTS)
    for tokens in DARTS.sample(np.random.default_rng(1), 20):
        expected = set()
        for cell, nodes in DARTS.cells(tokens).items():
            for number, node in enumerate(nodes):
                for source, operation in zip(node.inputs, node.operations, strict=True):
                    expected.add((f"{cell}/edge_{source}_{number + 2}", operation))
        found = {
            (edges.names[edge], edges.operations[operation])
            for edge, operation in np.argwhere(edges.weights(tokens[None])[0])
        }
        assert found == expected


@pytest.mark.parametrize("seed", range(20))
def test_a_node_keeps_its_two_strongest_edges(seed) -> None:
    """By brute force over all pairs; `none` is never an operation of the cell, however strong."""
    edges, weights = edges_of(DARTS), np.random.default_rng(seed).random((28, 8))
    cells = DARTS.cells(edges.tokens(weights))
    for cell, nodes in cells.items():
        for number, node in enumerate(nodes):
            strongest = {
                source: max(
                    (weights[edges.names.index(f"{cell}/edge_{source}_{number + 2}"), o], o) for o in range(1, 8)
                )
                for source in range(number + 2)
            }
            best = sorted(strongest, key=lambda source: -strongest[source][0])[:2]
            assert node.inputs == tuple(sorted(best))
            assert node.operations == tuple(edges.operations[strongest[source][1]] for source in sorted(best))


def test_bench201_takes_the_strongest_with_none() -> None:
    weights = mixture(BENCH, 3)
    assert (edges_of(BENCH).tokens(weights) == weights.argmax(axis=1)).all()


@pytest.mark.parametrize("most", [0, 1, 2])
@SPACES
def test_skips_are_limited(space, most) -> None:
    edges, rng = edges_of(space), np.random.default_rng(0)
    skip = edges.operations.index("skip_connect")
    for _ in range(20):
        weights = rng.random(edges.shape)
        weights[:, skip] += 0.5
        found = edges.tokens_with_skips(weights, most)
        space.check(found[None])
        skips = edges.weights(found[None])[0, :, skip]
        for cell in set(edges.cells):
            assert skips[np.array(edges.cells) == cell].sum() <= most
        assert (edges.tokens_with_skips(weights, None) == edges.tokens(weights)).all()


def test_the_weakest_skip_makes_way() -> None:
    weights = np.full((6, 5), 0.1)
    weights[:, 1] = [0.9, 0.3, 0.8, 0.7, 0.6, 0.5]
    weights[:, 3] = 0.2
    assert edges_of(BENCH).tokens_with_skips(weights, 4).tolist() == [1, 3, 1, 1, 1, 3]


@pytest.mark.parametrize("name", ["cell:enas", "cell:nasnet", "macro", "chain"])
def test_other_spaces_cannot_be_relaxed(name) -> None:
    with pytest.raises(ValueError, match="cannot be relaxed: spaces 'bench201' and 'cell:darts' can"):
        edges_of(make_space(name))


# ------------------------------------------------------------------ networks


def own_network(relaxed: Network, architecture: Architecture) -> Network:
    """The architecture's own network, with the weights of the relaxed one, edge by edge."""
    network = make_network(architecture, (1, 8, 8), 10, relaxed.settings, seed=1)
    weights = dict(relaxed.named_parameters())
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(weights[edge_name(architecture, name)][tuple(map(slice, parameter.shape))])
    return network


def edge_name(architecture: Architecture, name: str) -> str:
    """Of a parameter of a cell's network, the name in the relaxed network."""
    parts = name.split(".")
    if not isinstance(architecture.space, CellSpace) or "operations" not in parts:
        return name
    kind = "normal" if parts[1] in ("0", "2") else "reduction"  # one normal cell, a reduction, a normal cell
    node, slot = divmod(int(parts[3]), 2)
    operations = architecture.space.operations
    source = architecture.space.cells(architecture.tokens)[kind][node].inputs[slot]
    choice = int(parts[5]) % len(operations)
    return ".".join([*parts[:3], f"edge_{source}_{node + 2}", "choices", str(choice + 1), *parts[6:]])


@SPACES
def test_a_one_hot_mixture_is_the_network_of_the_architecture(space) -> None:
    """By its batch statistics, since a relaxed network has no others."""
    relaxed = make_relaxed(space, (1, 8, 8), 10, NetworkSettings(4, 1, 1))
    for tokens in space.sample(np.random.default_rng(2), 4):
        own = own_network(relaxed, space.architecture(tokens)).train()
        weights = torch.from_numpy(edges_of(space).weights(tokens[None])).float()
        with torch.no_grad():
            expected = own(images())
            torch.testing.assert_close(relaxed(images(), weights)[0], expected, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(relaxed(images(), tokens[None])[0], expected, rtol=1e-6, atol=1e-6)


@SPACES
def test_nothing_but_weights_is_kept(space) -> None:
    """No statistics of batch norm, which a pass under a perturbed mixture could move."""
    assert list(make_relaxed(space, (1, 8, 8), 10).buffers()) == []


def test_a_mixture_without_weight_is_no_error() -> None:
    relaxed = make_relaxed(DARTS, (1, 8, 8), 10, NetworkSettings(4, 1, 1))
    assert relaxed(images(), torch.zeros(2, 28, 8)).isfinite().all()
    with pytest.raises(ValueError, match=r"a mixture must be float \[B, 28, 8\], got float32 \[1, 32, 7\]"):
        relaxed(images(), torch.zeros(1, 32, 7))


# ------------------------------------------------------------------ the unrolled gradient


class Toy(nn.Module):
    """Tanh units between two layers, of which a mixture weighs three kinds."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Parameter(torch.randn(3, 5, 4, dtype=torch.float64))
        self.last = nn.Parameter(torch.randn(5, 2, dtype=torch.float64))

    def loss(self, weights: tuple[Tensor, Tensor], mixture: Tensor, x: Tensor, y: Tensor) -> Tensor:
        first, last = weights
        hidden = sum(mixture[k] * torch.tanh(x @ first[k].T) for k in range(3))
        return nn.functional.cross_entropy(hidden @ last, y)


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        yield (
            torch.randn(8, 4, dtype=torch.float64, generator=generator),
            torch.randint(0, 2, (8,), generator=generator),
        )


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 3e-2)])
def test_second_order_is_autograd_through_the_step(momentum, decay) -> None:
    toy, rate = Toy(), 0.1
    weights = [toy.first, toy.last]
    buffers = [torch.full_like(weight, 0.3) for weight in weights] if momentum else [None, None]
    train, held_out = batches()
    mixture = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64, requires_grad=True)
    before = [weight.detach().clone() for weight in weights]
    loss, found = Unrolling(weights, buffers, rate, momentum, decay).gradient(
        mixture, lambda m: toy.loss(tuple(weights), m, *train), lambda m: toy.loss(tuple(weights), m, *held_out)
    )
    assert all(torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))
    gradients = torch.autograd.grad(toy.loss(tuple(weights), mixture, *train), weights, create_graph=True)
    stepped = tuple(
        weight - rate * (gradient + decay * weight + (0 if buffer is None else momentum * buffer))
        for weight, gradient, buffer in zip(weights, gradients, buffers, strict=True)
    )
    exact = toy.loss(stepped, mixture, *held_out)
    (expected,) = torch.autograd.grad(exact, mixture)
    torch.testing.assert_close(loss, exact.detach())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5])
def test_the_fixed_point_of_the_toy(rate) -> None:
    """L_val = aw - 2a + 1 and L_train = w^2 - 2aw + a^2 meet at a = w = 2 / (1 + 2 rate): Liu et al. 2019, figure 2."""
    mixture = torch.tensor([1.5], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    step = Unrolling([weight], [None], rate)
    for _ in range(1500):
        _, gradient = step.gradient(
            mixture,
            lambda a: (weight**2 - 2 * a * weight + a**2).sum(),
            lambda a: (a * weight - 2 * a + 1).sum(),
        )
        with torch.no_grad():
            weight.copy_(mixture)  # argmin of the training loss
            mixture -= 0.05 * gradient
    assert mixture.item() == pytest.approx(2 / (1 + 2 * rate), abs=1e-6)


# ------------------------------------------------------------------ the evaluator


def test_the_halves_of_the_train_split() -> None:
    made = evaluator(held_out=0.25)
    halves, train = made.halves_of_train, made.task.train
    assert (len(halves["train"]), len(halves["held-out"])) == (76, 25)
    whole = torch.cat([halves["train"].inputs, halves["held-out"].inputs]).flatten(1)
    assert sorted(map(tuple, whole.tolist())) == sorted(map(tuple, train.inputs.flatten(1).tolist()))
    assert made.steps_per_epoch == 4


@pytest.mark.parametrize("unrolled", [False, True])
def test_a_gradient_changes_nothing(unrolled) -> None:
    made = evaluator()
    made.relaxed_step(mixture(BENCH))  # so that there is momentum
    before = made.state_dict()
    first = made.mixture_gradient(mixture(BENCH), unrolled=unrolled)
    again = made.mixture_gradient(mixture(BENCH), unrolled=unrolled)
    assert first[0] == again[0]
    assert (first[1] == again[1]).all()
    after = made.state_dict()
    assert after["steps"] == before["steps"] == 1
    for name, weight in before["supernet"].items():
        assert torch.equal(weight, after["supernet"][name]), name


@pytest.mark.parametrize("half", ["train", "held-out"])
@pytest.mark.parametrize("space", [BENCH, SMALL], ids=["bench201", "small"])
def test_the_gradient_of_a_mixture_by_differences(space, half) -> None:
    """Of the network in double precision, with steps so short that hardly a unit switches off or on."""
    made, weights = evaluator(space), torch.from_numpy(mixture(space))
    _, gradient = made.mixture_gradient(weights.numpy(), half)
    network, batch = made.supernet.double(), made._next_batch(half)
    inputs, differences = made.task.inputs(batch).double(), np.empty(weights.shape)
    with torch.no_grad():
        for place in np.ndindex(*weights.shape):
            losses = []
            for step in (1e-8, -1e-8):
                moved = weights.clone()
                moved[place] += step
                losses.append(float(made.task.loss(network(inputs, moved[None])[0], batch.targets)))
            differences[place] = (losses[0] - losses[1]) / 2e-8
    assert np.linalg.norm(gradient - differences) < 0.05 * np.linalg.norm(differences)


def test_a_step_trains_and_tells_the_gradient_before_it() -> None:
    made, weights = evaluator(), mixture(BENCH)
    _, expected = made.mixture_gradient(weights, "train")
    logged, gradient = made.relaxed_step(weights)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)
    losses = [logged["weights/loss"], *(made.relaxed_step(weights)[0]["weights/loss"] for _ in range(30))]
    assert np.mean(losses[-5:]) < losses[0] - 0.1


def test_operations_without_weight_are_not_trained() -> None:
    made, tokens = evaluator(), np.array([[3, 2, 3, 2, 3, 2]])
    before = made.state_dict()["supernet"]
    _, gradient = made.relaxed_step(edges_of(BENCH).weights(tokens)[0])
    assert ((gradient != 0) == (edges_of(BENCH).weights(tokens)[0] > 0)).all()
    changed = {name for name, weight in made.state_dict()["supernet"].items() if not torch.equal(weight, before[name])}
    in_edges = {name for name in changed if ".edges." in name}
    assert in_edges
    assert all(int(name.split(".")[5]) == tokens[0, int(name.split(".")[3])] for name in in_edges)


def test_a_step_that_is_not_finite_is_skipped() -> None:
    made = evaluator()
    before = made.state_dict()["supernet"]
    logged, gradient = made.relaxed_step(np.full((6, 5), np.inf))
    assert logged["weights/skipped"] == 1.0
    assert (gradient == 0).all()
    assert all(torch.equal(weight, before[name]) for name, weight in made.state_dict()["supernet"].items())


@pytest.mark.parametrize("unrolled", [False, True])
def test_a_gradient_that_runs_out_of_memory_is_left_out(unrolled, monkeypatch) -> None:
    made = evaluator()
    before = made.state_dict()["supernet"]

    def exhausted(*arguments: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(made.supernet, "forward", exhausted)
    loss, gradient = made.mixture_gradient(mixture(BENCH), unrolled=unrolled)
    assert np.isnan(loss)
    assert (gradient == 0).all()
    assert all(torch.equal(weight, before[name]) for name, weight in made.state_dict()["supernet"].items())


def test_it_goes_on_from_a_state() -> None:
    whole, resumed = evaluator(), evaluator()
    whole.plan_updates(6)
    resumed.plan_updates(6)
    for _ in range(3):
        whole.relaxed_step(mixture(BENCH))
    resumed.load_state_dict(whole.state_dict())
    for seed in range(3):
        assert whole.relaxed_step(mixture(BENCH, seed))[0] == resumed.relaxed_step(mixture(BENCH, seed))[0]
    tokens = BENCH.sample(np.random.default_rng(0), 4)
    assert (whole.evaluate(tokens).accuracy == resumed.evaluate(tokens).accuracy).all()


@pytest.mark.parametrize("space", [BENCH, SMALL], ids=["bench201", "small"])
def test_flops_of_edges_add_up_to_those_of_networks(space) -> None:
    made, edges = evaluator(space), edges_of(space)
    flops, tokens = made.edge_flops(), space.sample(np.random.default_rng(0), 6)
    shape = made.task.input_shape
    own = [count_flops(made.new_network(space.architecture(row), made.task, 0), shape) for row in tokens]
    by_edges = [(weights * flops).sum() for weights in edges.weights(tokens)]
    rest = np.array(own) - np.array(by_edges)
    assert (rest == rest[0]).all()  # of the stem, the cells' inputs, the classifier
    assert rest[0] > 0


def test_losses_are_those_of_the_network() -> None:
    made, tokens = evaluator(), BENCH.sample(np.random.default_rng(0), 3)
    batch = made.halves_of_train["held-out"].take(slice(made.settings.score_batch))
    with torch.no_grad():
        outputs = made.supernet(made.task.inputs(batch), tokens)
    expected = [float(made.task.loss(each, batch.targets)) for each in outputs]
    np.testing.assert_allclose(made.relaxed_losses(edges_of(BENCH).weights(tokens)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"), [({"held_out": 1.0}, "held_out must be a share in"), ({"held_out": 0}, "held_out must be")]
)
def test_settings_are_checked(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        evaluator(**settings)


def test_a_custom_bench201() -> None:
    space = Bench201Space(nodes=3, operations=("nor_conv_3x3", "skip_connect"))
    assert evaluator(space).edge_flops().shape == (3, 2)
    assert (evaluator(space).edge_flops()[:, 0] > 0).all()
