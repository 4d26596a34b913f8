"""Network morphisms: the function is kept, by random networks and by the papers' own equations; nothing is copied."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nas_gym.evaluators.training import TrainingSettings, fit, score
from nas_gym.networks import Network
from nas_gym.networks.layers import LayerNetwork
from nas_gym.networks.morphism import Morphism, deeper, plan, transform, wider
from nas_gym.spaces.layer_space import Action, Deepen, LayerSpace, Stop, Widen
from nas_gym.spaces.layers import (
    DENSENET,
    PLAIN,
    Convolution,
    DenseConvolution,
    FullyConnected,
    GlobalPool,
    Layer,
    Layers,
    Pool,
    Weighted,
)
from nas_gym.tasks import make_task

SHAPE, CLASSES = (2, 9, 8), 5
SPACES = {
    "plain": LayerSpace(image_shape=SHAPE, num_classes=CLASSES, widths=(16, 24, 32, 48, 64, 96), depth=3),
    "densenet": LayerSpace(DENSENET, SHAPE, CLASSES, kernels=(3,), depth=5),
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomised(layers: Layers, seed: int = 0) -> LayerNetwork:
    """A network whose batch norm does something too, in evaluation, with weights of either sign."""
    network = LayerNetwork(layers, SHAPE, CLASSES, seed=seed)
    generator = seeded(seed)
    for name, tensor in network.state_dict().items():
        if tensor.ndim == 1:
            drawn = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(drawn + 0.5 if name.endswith("var") else 2 * drawn - 0.7)
    return network.eval()


def batch(seed: int = 0, number: int = 12) -> Tensor:
    return torch.randn(number, *SHAPE, generator=seeded(seed + 1000))


@torch.no_grad()
def outputs(network: LayerNetwork, images: Tensor, training: bool = False) -> Tensor:
    """In training mode with statistics that stay where they are."""
    mode, held = network.training, {name: tensor.clone() for name, tensor in network.state_dict().items()}
    logits = network.train(training)(images)
    network.load_state_dict(held)
    network.train(mode)
    return cast(Tensor, logits)


SPATIAL = st.one_of(
    st.builds(Convolution, st.sampled_from((1, 3, 5)), st.integers(1, 8)),
    st.builds(DenseConvolution, st.sampled_from((1, 3)), st.integers(1, 4)),
    st.builds(Pool, st.sampled_from(("max", "avg")), st.integers(2, 3), st.integers(1, 2)),
)


@st.composite
def sequences(draw: st.DrawFn) -> Layers:
    """Convolutions first; no more pools than the images are large enough for."""
    layers: list[Layer] = [draw(st.builds(Convolution, st.sampled_from((1, 3)), st.integers(1, 8)))]
    for layer in draw(st.lists(SPATIAL, max_size=6)):
        if not isinstance(layer, Pool) or sum(isinstance(other, Pool) for other in layers) < 2:
            layers.append(layer)
    layers += [GlobalPool()] if draw(st.booleans()) else []
    return Layers((*layers, *(FullyConnected(draw(st.integers(1, 9))) for _ in range(draw(st.integers(0, 2))))))


@st.composite
def wider_morphisms(draw: st.DrawFn) -> tuple[LayerNetwork, Morphism]:
    layers, seed = draw(sequences()), draw(st.integers(0, 2**16))
    parent = randomised(layers, seed)
    index = draw(st.sampled_from([i for i, layer in enumerate(layers) if isinstance(layer, Weighted)]))
    width = cast(Weighted, layers.layers[index]).width
    return parent, wider(parent, index, draw(st.integers(width + 1, 3 * width + 2)), generator=seeded(seed))


@st.composite
def deeper_morphisms(draw: st.DrawFn) -> tuple[LayerNetwork, Morphism]:
    layers, seed = draw(sequences()), draw(st.integers(0, 2**16))
    parent = randomised(layers, seed)
    index = draw(st.integers(1, len(layers)))
    shape = layers.shapes(SHAPE)[index]
    new: list[Weighted] = []
    if not any(isinstance(layer, GlobalPool | FullyConnected) for layer in layers.layers[:index]):
        new += [Convolution(draw(st.sampled_from((1, 3, 5))), shape[0]), DenseConvolution(3, draw(st.integers(1, 6)))]
    if all(isinstance(layer, FullyConnected) for layer in layers.layers[index:]):
        new += [FullyConnected(math.prod(shape))]
    if not new:
        new, index = [Convolution(3, cast(Convolution, layers.layers[0]).width)], 1
    return parent, deeper(parent, index, draw(st.sampled_from(new)), generator=seeded(seed))


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(wider_morphisms(), st.integers(0, 9))
def test_wider_keeps_the_function(pair: tuple[LayerNetwork, Morphism], seed: int) -> None:
    parent, morphism = pair
    child = morphism.network(parent, generator=seeded())
    assert child.layers == morphism.layers != parent.layers
    assert sum(p.numel() for p in child.parameters()) == child.layers.parameters(SHAPE, CLASSES)
    close(outputs(parent, batch(seed)), outputs(child, batch(seed)))
    # In training mode as exactly as numbers have digits: batch norm blows up the rounding of nearly constant channels.
    child = morphism.network(parent.double(), generator=seeded())
    images = batch(seed).double()
    close(outputs(parent, images, training=True), outputs(child, images, training=True), 1e-8)


@pytest.mark.slow
@settings(deadline=None, max_examples=40, derandomize=True)
@given(deeper_morphisms(), st.integers(0, 9))
def test_deeper_keeps_the_function(pair: tuple[LayerNetwork, Morphism], seed: int) -> None:
    parent, morphism = pair
    bare = morphism.network(parent, generator=seeded())
    close(outputs(parent, batch(seed)), outputs(bare, batch(seed)))
    images = batch(seed).double()
    bare = morphism.network(parent.double(), generator=seeded())
    close(outputs(parent, images), outputs(bare, images), 1e-6)
    child = morphism.network(parent, generator=seeded(), images=images)
    assert not child.training
    close(outputs(parent, images), outputs(child, images), 1e-8)
    close(outputs(parent, batch(seed + 1).double()), outputs(child, batch(seed + 1).double()), 1e-8)
    close(outputs(parent, images, training=True), outputs(child, images, training=True), 1e-8)


@pytest.mark.parametrize("layer", [Convolution(3, 16), DenseConvolution(3, 8)])
def test_a_deeper_network_in_training_is_equal_on_its_own_batch_alone(layer: Weighted) -> None:
    parent = randomised(PLAIN)
    morphism = deeper(parent, 1, layer, generator=seeded())
    child = morphism.network(parent, generator=seeded(), images=batch(0))
    differences = [
        float((outputs(parent, batch(i), training=True) - outputs(child, batch(i), training=True)).abs().max())
        for i in (0, 1)
    ]
    assert differences[0] < 1e-5 < 1e-3 < differences[1]
    bare = morphism.network(parent, generator=seeded())
    assert (outputs(parent, batch(), training=True) - outputs(bare, batch(), training=True)).abs().max() > 1e-2


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("seed", range(3))
def test_whole_episodes_keep_the_function(name: str, seed: int) -> None:
    """Random legal actions one after another, each with its batch norm set by images."""
    space, rng, generator = SPACES[name], np.random.default_rng(seed), seeded(seed)
    first = network = randomised(space.start, seed)
    kinds = set[type[Action]]()
    for _ in range(9):
        action = space.actions[rng.choice(np.flatnonzero(space.legal(network.layers)[:-1]))]
        network = transform(network, action, space, generator=generator, images=batch(seed))
        kinds.add(type(action))
    assert kinds == {Widen, Deepen}
    assert sum(p.numel() for p in network.parameters()) == space.parameters(network.layers)
    close(outputs(first, batch(seed + 1)), outputs(network, batch(seed + 1)))


def test_wider_is_the_papers_equations() -> None:
    """Chen et al. 2016, Net2WiderNet, entry by entry, on fully connected layers."""
    parent = randomised(Layers((FullyConnected(4), FullyConnected(5))))
    child = wider(parent, 0, 9, generator=seeded(3)).network(parent, generator=seeded())
    old, new = parent.state_dict(), child.state_dict()
    rows = [
        next(i for i in range(4) if torch.equal(old["body.0.linear.weight"][i], row))
        for row in new["body.0.linear.weight"]
    ]
    assert rows[:4] == [0, 1, 2, 3]
    for j, g in enumerate(rows):
        assert new["body.0.linear.bias"][j] == old["body.0.linear.bias"][g]
        for k in range(5):
            expected = old["body.1.linear.weight"][k, g] / rows.count(g)
            assert float(new["body.1.linear.weight"][k, j]) == pytest.approx(float(expected), rel=1e-6)


def test_the_repeated_channels_are_drawn() -> None:
    parent = randomised(PLAIN)
    name = "body.0.convolution.weight"
    choices = []
    for seed in (0, 0, 1):
        origin = wider(parent, 0, 64, generator=seeded(seed)).origins[name]
        assert origin.rows is not None
        assert origin.rows.index[:16].tolist() == list(range(16))
        choices.append(origin.rows.index.tolist())
    assert choices[0] == choices[1] != choices[2]
    assert len(set(choices[0][16:])) > 8


def test_a_new_dense_layer_repeats_channels_and_splits_what_reads_them() -> None:
    parent = randomised(DENSENET)
    child = deeper(parent, 2, DenseConvolution(3, 6), generator=seeded()).network(parent, generator=seeded())
    given_to, given_by = (network.features(batch(), depth) for network, depth in ((parent, 2), (child, 3)))
    close(given_to, given_by[:, :24])
    repeated = [[i for i in range(24) if torch.allclose(given_to[:, i], new)] for new in given_by[:, 24:].unbind(1)]
    assert all(repeated)
    counts = [1 + sum(j in sources for sources in repeated) for j in range(24)]
    old, new = (network.state_dict() for network in (parent, child))
    name = "bottleneck.convolution.weight"
    for j in range(24):
        close(old[f"body.2.{name}"][:, j], counts[j] * new[f"body.3.{name}"][:, j])


# ------------------------------------------------------------------ whose tensors

CHANGED: list[tuple[Layers, Action, set[str]]] = [
    (PLAIN, Widen(0), {"body.0", "body.2.convolution"}),
    (PLAIN, Widen(4), {"body.4", "body.6.linear.weight"}),
    (PLAIN, Widen(6), {"body.6", "classifier.weight"}),
    (PLAIN, Deepen(1, 0, 3), {"body.3"}),
    (PLAIN, Deepen(3, 0, None), {"body.7"}),
    (DENSENET, Widen(7), {"body.7", "body.8.bottleneck.convolution", "classifier.weight"}),
    (DENSENET, Deepen(0, 1, 3), {"body.2", "body.3.bottleneck.conv", "body.4.bottleneck.conv", "body.5.conv"}),
]


def storages(network: LayerNetwork) -> dict[str, int]:
    return {name: tensor.untyped_storage().data_ptr() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize(("start", "action", "changed"), CHANGED)
def test_tensors_that_are_left_alone_are_shared(start: Layers, action: Action, changed: set[str]) -> None:
    space = LayerSpace(start, SHAPE, CLASSES)
    parent = randomised(start)
    before = {name: tensor.clone() for name, tensor in parent.state_dict().items()}
    child = transform(parent, action, space, generator=seeded(), noise=1e-2, images=batch())
    theirs = set(storages(parent).values())
    own = {name for name, storage in storages(child).items() if storage not in theirs}
    counters = {name for name in storages(child) if name.endswith("num_batches_tracked")}
    expected = {name for name in storages(child) if name.startswith(tuple(changed))}
    assert own - counters == expected - counters
    assert not (own & counters) - expected
    # Neither the transformation nor an evaluation changes the parent; a clone has nothing of it.
    child.eval()(batch())
    assert all(torch.equal(tensor, before[name]) for name, tensor in parent.state_dict().items())
    assert not parent.training
    clone = transform(parent, action, space, generator=seeded(), noise=1e-2, images=batch(), clone=True)
    assert not set(storages(clone).values()) & set(storages(parent).values())
    for name, tensor in child.state_dict().items():
        assert torch.equal(tensor, clone.state_dict()[name])


def test_training_a_clone_leaves_the_parent_as_it_is() -> None:
    space = SPACES["plain"]
    parent = randomised(PLAIN)
    before = outputs(parent, batch())
    for action in (Widen(0), Stop()):
        clone = transform(parent, action, space, generator=seeded(), clone=True)
        optimiser = torch.optim.SGD(clone.parameters(), 0.1)
        clone.train()(batch()).square().sum().backward()
        optimiser.step()
        assert not torch.equal(outputs(clone, batch()), before)
        assert torch.equal(outputs(parent, batch()), before)
    assert transform(parent, Stop(), space, generator=seeded()) is parent


def test_a_plan_can_be_carried_out_more_than_once() -> None:
    parent = randomised(PLAIN)
    morphism = deeper(parent, 1, Convolution(3, 16), generator=seeded())
    first, second = (morphism.network(parent, generator=seeded(), noise=0.1) for _ in range(2))
    new = [name for name in storages(first) if name.startswith("body.1.")]
    assert len(new) == 6
    for name in new:
        assert storages(first)[name] != storages(second)[name]
        assert torch.equal(first.state_dict()[name], second.state_dict()[name])


# ------------------------------------------------------------------ noise


@pytest.mark.parametrize("action", [Widen(0), Widen(6), Deepen(0, 0, 3), Deepen(3, 0, None)])
def test_noise_is_small_and_only_on_what_is_new(action: Widen | Deepen) -> None:
    space, parent = SPACES["plain"], randomised(PLAIN)
    plain, noisy = (transform(parent, action, space, generator=seeded(), noise=noise) for noise in (0.0, 1e-2))
    for name, tensor in plain.state_dict().items():
        difference = noisy.state_dict()[name] - tensor
        if tensor.ndim < 2 or not difference.any():
            continue
        index = int(name.split(".")[1])
        if isinstance(action, Widen):
            assert index == action.layer
            old = cast(Weighted, PLAIN.layers[index]).width
            assert not difference[:old].any()
            assert difference[old:].all()
            difference = difference[old:]
        assert float(difference.std()) == pytest.approx(1e-2 * float(tensor.std()), rel=0.2)
    change = (outputs(noisy, batch()) - outputs(plain, batch())).abs().max()
    assert 0 < change < 0.3


def test_noise_makes_equal_channels_different() -> None:
    parent = randomised(PLAIN)
    for noise, distinct in ((0.0, 16), (1e-2, 64)):
        child = wider(parent, 0, 64, generator=seeded()).network(parent, generator=seeded(), noise=noise)
        assert len(child.state_dict()["body.0.convolution.weight"].flatten(1).unique(dim=0)) == distinct


# ------------------------------------------------------------------ momentum


def trained(network: LayerNetwork, steps: int) -> torch.optim.SGD:
    optimiser = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=1e-3)
    for step in range(steps):
        step_on(network, optimiser, batch(step))
    return optimiser


def step_on(network: LayerNetwork, optimiser: torch.optim.SGD, images: Tensor) -> None:
    optimiser.zero_grad()
    network.train()(images.to(network.classifier.weight)).logsumexp(dim=1).sum().backward()
    optimiser.step()


def child_with_momentum(
    parent: LayerNetwork, optimiser: torch.optim.SGD, morphism: Morphism
) -> tuple[LayerNetwork, torch.optim.SGD]:
    child = morphism.network(parent, generator=seeded()).clone()
    carried = torch.optim.SGD(child.parameters(), 0.1)
    carried.load_state_dict(morphism.optimiser_state(optimiser.state_dict(), parent, child))
    return child, carried


MORPHISMS: dict[str, Callable[[LayerNetwork], Morphism]] = {
    "wider": lambda parent: wider(parent, 0, 20, generator=seeded()),
    "wider dense": lambda parent: wider(parent, 1, 5, generator=seeded()),
    "wider flat": lambda parent: wider(parent, 4, 17, generator=seeded()),
    "deeper": lambda parent: deeper(parent, 1, Convolution(3, 8), generator=seeded()),
    "deeper dense": lambda parent: deeper(parent, 1, DenseConvolution(3, 4), generator=seeded()),
}
MIXED = Layers((Convolution(3, 8), DenseConvolution(3, 3), Pool("max"), Convolution(1, 5), FullyConnected(6)))


@pytest.mark.parametrize("name", MORPHISMS)
def test_momentum_alone_moves_the_child_as_it_moves_its_parent(name: str) -> None:
    """Without a gradient, to step and then to transform is to transform and then to step; weight decay goes along."""
    parent = randomised(MIXED).double()
    optimiser = trained(parent, 3)
    morphism = MORPHISMS[name](parent)
    child, carried = child_with_momentum(parent, optimiser, morphism)
    start = {key: tensor.clone() for key, tensor in child.state_dict().items()}
    assert carried.param_groups[0]["lr"] == 0.05
    assert carried.param_groups[0]["nesterov"]
    for network, steps in ((parent, optimiser), (child, carried)):
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        steps.step()
    expected = morphism.network(parent, generator=seeded()).state_dict()
    for key, tensor in child.named_parameters():
        if key in morphism.fresh:  # at rest: weight decay alone is what its first step sees
            close(carried.state[tensor]["momentum_buffer"], 1e-3 * morphism.fresh[key].double(), 1e-9)
        else:
            close(tensor.detach(), expected[key], 1e-12)
            assert not torch.equal(expected[key], start[key])


def test_a_step_of_the_wider_net_with_its_momentum() -> None:
    """With a gradient: of repeated rows it is a share of the parent's, of repeated columns all of it."""
    parent = randomised(MIXED).double()
    optimiser = trained(parent, 3)
    morphism = wider(parent, 0, 20, generator=seeded())
    child, carried = child_with_momentum(parent, optimiser, morphism)
    first, second = "body.0.convolution.weight", "body.1.bottleneck.convolution.weight"
    replicas = morphism.origins[first].rows
    assert replicas is not None
    index = replicas.index
    counts = torch.bincount(index)[index].double()
    old = {name: parent.get_parameter(name) for name in (first, second)}
    weights = {name: parameter.detach().clone() for name, parameter in old.items()}
    velocity = {name: optimiser.state[parameter]["momentum_buffer"].clone() for name, parameter in old.items()}
    step_on(parent, optimiser, batch(7))
    step_on(child, carried, batch(7))
    gradient = {name: cast(Tensor, parameter.grad) for name, parameter in old.items()}

    def stepped(weight: Tensor, grad: Tensor, momentum: Tensor) -> tuple[Tensor, Tensor]:
        grad = grad + 1e-3 * weight
        momentum = 0.9 * momentum + grad
        return weight - 0.05 * (grad + 0.9 * momentum), momentum

    by_row, by_column = counts.view(-1, 1, 1, 1), counts.view(-1, 1, 1)
    expected = {
        first: stepped(weights[first][index], gradient[first][index] / by_row, velocity[first][index]),
        second: stepped(
            weights[second][:, index] / by_column, gradient[second][:, index], velocity[second][:, index] / by_column
        ),
    }
    for name, (weight, momentum) in expected.items():
        close(child.get_parameter(name).detach(), weight, 1e-9)
        close(carried.state[child.get_parameter(name)]["momentum_buffer"], momentum, 1e-9)
    # Without noise, channels that repeat one another stay equal.
    close(child.get_parameter(first).detach(), child.get_parameter(first).detach()[index], 1e-12)


def test_other_optimisers_are_refused() -> None:
    parent = randomised(MIXED)
    morphism = wider(parent, 0, 20, generator=seeded())
    child = morphism.network(parent, generator=seeded()).clone()
    adam = torch.optim.Adam(parent.parameters())
    parent(batch()).sum().backward()
    adam.step()
    with pytest.raises(ValueError, match=r"that of SGD, with momentum_buffer alone; got \['exp_avg', "):
        morphism.optimiser_state(adam.state_dict(), parent, child)
    groups = torch.optim.SGD([{"params": [p]} for p in parent.parameters()], 0.1)
    with pytest.raises(ValueError, match="one group of parameters, got 16"):
        morphism.optimiser_state(groups.state_dict(), parent, child)
    fresh = torch.optim.SGD(parent.parameters(), 0.1, momentum=0.9)
    assert morphism.optimiser_state(fresh.state_dict(), parent, child)["state"] == {}


# ------------------------------------------------------------------ training, seeds, errors


def test_networks_are_trained_by_the_one_loop() -> None:
    task = make_task("digits", train_limit=320, valid_limit=100)
    space = LayerSpace(image_shape=task.image_shape, num_classes=task.num_classes)
    training = TrainingSettings(epochs=3, batch_size=32, augment=False)

    def accuracies(seed: int) -> tuple[Sequence[float], LayerNetwork]:
        network = LayerNetwork(PLAIN, task.image_shape, task.num_classes, seed=seed)
        (curve,) = fit([cast(Network, network)], task, training, seeds=[0])
        assert not curve.failed, curve.reason
        return curve.accuracy["valid"].tolist(), network

    first, network = accuracies(0)
    assert first == accuracies(0)[0]
    assert first[-1] > 0.5
    child = transform(network, Widen(2), space, generator=seeded(), noise=1e-2, clone=True)
    inherited = score(cast(Network, child), task, task.valid)
    assert inherited == pytest.approx(first[-1], abs=0.03)
    (curve,) = fit([cast(Network, child)], task, training, seeds=[1])
    assert curve.accuracy["valid"][-1] > first[0]


def test_initial_weights_are_the_seeds() -> None:
    state = torch.get_rng_state()
    networks = [LayerNetwork(DENSENET, SHAPE, CLASSES, seed=seed).state_dict() for seed in (1, 1, 2)]
    transform(randomised(PLAIN), Widen(0), SPACES["plain"], generator=seeded(), noise=0.1, images=batch())
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in networks[0].items():
        assert torch.equal(tensor, networks[1][name])
        assert tensor.ndim < 2 or not torch.equal(tensor, networks[2][name])
    wide = LayerNetwork(Layers((Convolution(3, 64), Convolution(3, 64))), SHAPE, 10).state_dict()
    assert float(wide["body.1.convolution.weight"].std()) == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.02)


BAD: list[tuple[Callable[[LayerNetwork], Any], str]] = [
    (lambda n: wider(n, 1, 5, generator=seeded()), "layer 1 of .* has no width"),
    (lambda n: wider(n, 9, 5, generator=seeded()), "layer 9 of .* has no width"),
    (lambda n: wider(n, 0, 16, generator=seeded()), "width must be greater than 16, that of layer 0; got 16"),
    (
        lambda n: deeper(n, 0, Convolution(3, 2), generator=seeded()),
        r"index must be in \[1, 7\], behind a layer; got 0",
    ),
    (lambda n: deeper(n, 1, Convolution(3, 8), generator=seeded()), "cannot be an identity: it is given 16 channels"),
    (lambda n: deeper(n, 7, FullyConnected(8), generator=seeded()), "cannot be an identity: it is given 64 channels"),
    (lambda n: deeper(n, 7, Convolution(3, 64), generator=seeded()), "cannot follow fully_connected_64"),
    (lambda n: plan(n, Widen(1), SPACES["plain"], generator=seeded()), "is not legal for .*: max_pool"),
    (lambda n: transform(n, Widen(0), SPACES["plain"], generator=seeded(), noise=-1.0), "noise must be at least 0"),
    (lambda n: LayerNetwork(PLAIN, (1, 3, 3), 10), "needs maps of at least 2 pixels"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_arguments_are_refused(call: Callable[[LayerNetwork], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(randomised(PLAIN))


def test_nothing_is_put_where_values_may_be_negative() -> None:
    network = randomised(Layers((Pool("avg"), Convolution(3, 4))))
    with pytest.raises(ValueError, match="no layer with weights stands before that"):
        deeper(network, 1, Convolution(3, 2), generator=seeded())
