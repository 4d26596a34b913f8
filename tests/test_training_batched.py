"""Networks trained together against each trained alone: equal up to rounding, and none the other's business."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from weakref import WeakSet

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_tasks import toy_task

from nas_gym.evaluators import training
from nas_gym.evaluators.training import TrainingCurve, TrainingSettings, fit
from nas_gym.networks import Network, NetworkBatch, NetworkSettings, can_batch, make_network
from nas_gym.spaces import CellSpace, SearchSpace, make_space
from nas_gym.tasks import Augmentation, ImageTask, Task

SPACES: dict[str, SearchSpace] = {
    **{name: make_space(name) for name in ("bench201", "cell:enas", "cell:nasnet", "cell:darts", "size")},
    "concat": CellSpace(nodes=2, operations=("conv_1x1", "none"), combine=("concat", "add")),
}
NETWORK = NetworkSettings(channels=8, reductions=1)
SETTINGS = TrainingSettings(
    epochs=1, batch_size=16, weight_decay=0, drop_path=0.3, label_smoothing=0.1, record=("valid", "test")
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def batched_task() -> Task:
    """Of another shape than the default, and with all augmentations."""
    return toy_task(48, shape=(2, 7, 7), augmentation=Augmentation(1, True, 2))


def make(name: str, count: int = 5, settings: NetworkSettings = NETWORK, rng: int = 0) -> list[Network]:
    """Different architectures with different weights, the first one twice."""
    space = SPACES[name]
    tokens = space.sample(np.random.default_rng(rng), count)
    tokens[-1] = tokens[0]
    return [make_network(space.architecture(row), (2, 7, 7), 3, settings, seed) for seed, row in enumerate(tokens)]


def alone(networks: Sequence[Network], settings: TrainingSettings = SETTINGS) -> list[TrainingCurve]:
    curves = [fit([network], batched_task(), settings, seeds=[10 + row])[0] for row, network in enumerate(networks)]
    assert all(curve.together == 1 for curve in curves)
    return curves


def together(networks: Sequence[Network], settings: TrainingSettings = SETTINGS) -> list[TrainingCurve]:
    return fit(networks, batched_task(), settings, seeds=range(10, 10 + len(networks)), batched=True)


def weights(network: Network) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


@pytest.fixture
def double_precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where rounding errors turn no ReLU on or off, so that equal is equal."""
    normalise = ImageTask.normalise
    monkeypatch.setattr(ImageTask, "normalise", lambda self, images: normalise(self, images).double())
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def check_equal(
    ours: Sequence[Network], curves: Sequence[TrainingCurve], theirs: Sequence[Network], expected: list[TrainingCurve]
) -> None:
    for found, wanted in zip(curves, expected, strict=True):
        np.testing.assert_allclose(found.loss, wanted.loss, rtol=1e-9)
        assert found.accuracy.keys() == wanted.accuracy.keys()
        for name, accuracies in wanted.accuracy.items():
            np.testing.assert_array_equal(found.accuracy[name], accuracies)
        assert (found.failed, found.reason) == (wanted.failed, wanted.reason)
    for network, other in zip(ours, theirs, strict=True):
        assert network.state_dict().keys() == other.state_dict().keys()
        for key, value in other.state_dict().items():
            torch.testing.assert_close(network.state_dict()[key], value, rtol=1e-9, atol=1e-9)


# ------------------------------------------------------------------ equal to training alone


@pytest.mark.slow
@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", SPACES)
def test_three_steps_are_those_of_each_alone(name: str) -> None:
    """Order of images, augmentation, dropped paths, clipping, weights, momentum and statistics are each one's own."""
    ours, theirs = make(name), make(name)
    before = [weights(network) for network in ours]
    curves = together(ours)
    assert [curve.together for curve in curves] == [5] * 5
    assert all(curve.seconds > 0 for curve in curves)
    check_equal(ours, curves, theirs, alone(theirs))
    biases = [network.state_dict()["head.linear.bias"] for network in ours]
    assert not any(torch.equal(bias, old["head.linear.bias"]) for bias, old in zip(biases, before, strict=True))
    assert not torch.allclose(biases[0], biases[-1]), "two of one architecture"


@pytest.mark.slow
@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(
    "settings",
    [NetworkSettings(4, 1, 2), NetworkSettings(4, 2, 0), NetworkSettings(4, 1, 1, stem_stride=2)],
    ids=["deep", "flat", "strided"],
)
@pytest.mark.parametrize("name", ["bench201", "cell:enas", "size"])
def test_other_macro_architectures_too(name: str, settings: NetworkSettings) -> None:
    ours, theirs = make(name, 3, settings, rng=1), make(name, 3, settings, rng=1)
    check_equal(ours, together(ours), theirs, alone(theirs))


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_in_single_precision_too(name: str) -> None:
    """Here a rounding error may turn a ReLU on or off: two steps, and what differs is small beside what was learnt."""
    settings = dataclasses.replace(SETTINGS, batch_size=24)
    ours, theirs = make(name), make(name)
    before = [weights(network) for network in ours]
    for found, wanted in zip(together(ours, settings), alone(theirs, settings), strict=True):
        np.testing.assert_allclose(found.loss, wanted.loss, rtol=1e-3)
        for split, accuracies in wanted.accuracy.items():
            np.testing.assert_allclose(found.accuracy[split], accuracies, atol=1.01 / 30)  # an image
    for network, other, old in zip(ours, theirs, before, strict=True):
        difference, movement = 0.0, 0.0
        found_weights = weights(network)
        for key, value in other.named_parameters():
            difference += float((found_weights[key] - value.detach()).square().sum())
            movement += float((value.detach() - old[key]).square().sum())
        assert math.sqrt(difference) < 0.02 * math.sqrt(movement)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bench201", "cell:nasnet", "size"])
def test_in_mixed_precision_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What CUDA computes with, on the CPU."""
    monkeypatch.setattr(training, "mixed_precision", lambda device: torch.autocast("cpu", dtype=torch.bfloat16))
    settings = dataclasses.replace(SETTINGS, batch_size=24)
    ours, theirs = make(name), make(name)
    for found, wanted in zip(together(ours, settings), alone(theirs, settings), strict=True):
        np.testing.assert_allclose(found.loss, wanted.loss, rtol=0.03)
        assert not found.failed


@pytest.mark.slow
@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", ["bench201", "cell:enas"])
def test_weight_decay_of_what_the_output_reads(name: str) -> None:
    """A weight that the output does not read stays as it is alone, and shrinks in company; it matters to neither."""
    settings = TrainingSettings(epochs=2, batch_size=16, weight_decay=0.01, augment=False)
    ours, theirs = make(name), make(name)
    before = [weights(network) for network in ours]
    curves, expected = together(ours, settings), alone(theirs, settings)
    read = 0
    for network, other, old, found, wanted in zip(ours, theirs, before, curves, expected, strict=True):
        np.testing.assert_allclose(found.loss, wanted.loss, rtol=1e-9)
        np.testing.assert_array_equal(found.accuracy["valid"], wanted.accuracy["valid"])
        for key, value in other.named_parameters():
            if not torch.equal(value, old[key]):
                torch.testing.assert_close(network.get_parameter(key), value, rtol=1e-9, atol=1e-9)
                read += 1
    assert read > 0.7 * sum(len(list(network.parameters())) for network in ours)


@pytest.mark.slow
def test_they_learn_what_is_easy() -> None:
    curves = together(make("bench201"), TrainingSettings(epochs=12, batch_size=16, augment=False))
    for curve in curves:
        assert len(curve.accuracy["valid"]) == len(curve.loss) == 12
    assert np.median([curve.accuracy["valid"][-1] for curve in curves]) > 0.9


@pytest.mark.slow
def test_each_network_has_its_own_clip() -> None:
    """With a tiny clip, and neither momentum nor decay, a step moves each by learning rate x clip."""
    settings = TrainingSettings(1, 48, 0.1, momentum=0, weight_decay=0, gradient_clip=1e-2, record=())
    networks = make("cell:enas")
    before = [weights(network) for network in networks]
    together(networks, settings)
    for network, old in zip(networks, before, strict=True):
        moved = sum(float((p.detach() - old[key]).square().sum()) for key, p in network.named_parameters())
        assert math.sqrt(moved) == pytest.approx(0.1 * 1e-2, rel=1e-3)


def test_the_others_do_not_matter_to_the_bit() -> None:
    """Another seed, and other weights, of one network change nothing for the rest."""
    first, second = make("bench201"), make("bench201")
    with torch.no_grad():
        second[2].head.linear.weight.mul_(3)  # type: ignore[union-attr, operator]
    task = batched_task()
    fit(first, task, SETTINGS, seeds=(0, 1, 2, 3, 4), batched=True)
    fit(second, task, SETTINGS, seeds=(0, 1, 7, 3, 4), batched=True)
    for row, (network, other) in enumerate(zip(first, second, strict=True)):
        pairs = zip(network.state_dict().values(), other.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) == (row != 2)


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    together(make("size", 2))
    assert torch.equal(before, torch.get_rng_state())


def test_steps_are_told_for_each_network() -> None:
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    fit(make("size", 3), batched_task(), SETTINGS, seeds=(0, 1, 2), on_step=count, batched=True)
    assert steps == 3 * 3


# ------------------------------------------------------------------ what cannot be together


def test_on_a_cpu_they_are_trained_one_after_another_unless_asked() -> None:
    ours, theirs = make("bench201", 3), make("bench201", 3)
    curves = fit(ours, batched_task(), SETTINGS, seeds=(10, 11, 12))
    assert [curve.together for curve in curves] == [1, 1, 1]
    alone(theirs)
    for network, other in zip(ours, theirs, strict=True):
        assert all(torch.equal(value, other.state_dict()[key]) for key, value in network.state_dict().items())


def of(name: str, settings: NetworkSettings = NETWORK, classes: int = 3) -> Network:
    space = make_space(name)
    architecture = space.architecture(space.sample(np.random.default_rng(0), 1)[0])
    return make_network(architecture, (2, 7, 7), classes, settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pair", "possible"),
    [
        (lambda: (of("bench201"), of("bench201")), True),
        (lambda: (of("bench201"), of("size")), False),
        (lambda: (of("bench201"), of("bench201", NetworkSettings(4, 1, 1))), False),
        (lambda: (of("bench201"), of("bench201", classes=4)), False),
        (lambda: (of("cell:enas"), of("cell:darts")), False),
        (lambda: [of("cell:enas", NetworkSettings(4, reductions=1, auxiliary=True)) for _ in range(2)], False),
        (lambda: (of("macro"), of("macro")), False),
    ],
    ids=["same", "spaces", "settings", "classes", "cells", "auxiliary", "macro"],
)
def test_what_can_be_batched(pair: Callable[[], Sequence[Network]], possible: bool) -> None:
    networks = pair()
    assert can_batch(networks) == possible
    if len({network.num_classes for network in networks}) == 1:
        curves = together(networks)
        assert [curve.together for curve in curves] == ([2, 2] if possible else [1, 1])
        if not possible:
            for found, expected in zip(curves, alone(pair()), strict=True):
                np.testing.assert_array_equal(found.loss, expected.loss)


def test_no_networks() -> None:
    assert fit([], batched_task(), SETTINGS, seeds=[], batched=True) == []


# ------------------------------------------------------------------ failures


@pytest.mark.slow
def test_a_network_that_diverges_fails_alone() -> None:
    settings = TrainingSettings(epochs=3, batch_size=16)
    ours, theirs = make("bench201"), make("bench201")
    with torch.no_grad():
        ours[1].head.linear.weight.fill_(torch.nan)  # type: ignore[union-attr, operator]
    curves, expected = together(ours, settings), together(theirs, settings)
    assert curves[1].failed
    assert curves[1].reason == "diverged: the training loss is not finite"
    assert curves[1].accuracy == {}
    assert len(curves[1].loss) == 1
    for row in (0, 2, 3, 4):
        np.testing.assert_array_equal(curves[row].loss, expected[row].loss)
        np.testing.assert_array_equal(curves[row].accuracy["valid"], expected[row].accuracy["valid"])
        assert not curves[row].failed
        assert all(torch.equal(v, theirs[row].state_dict()[key]) for key, v in ours[row].state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cell:enas", "size"])
def test_what_is_not_a_number_does_not_cross_over(name: str) -> None:
    """Neither by the zeros that stand where a network has less than another."""
    ours, theirs = make(name), make(name)
    with torch.no_grad():
        ours[1].stem[0].weight.fill_(torch.inf)  # type: ignore[index]
    curves, expected = together(ours), together(theirs)
    assert [curve.failed for curve in curves] == [False, True, False, False, False]
    for row in (0, 2, 3, 4):
        np.testing.assert_array_equal(curves[row].loss, expected[row].loss)


def test_when_all_diverge_training_ends() -> None:
    settings = TrainingSettings(epochs=3, batch_size=16, learning_rate=1e20, gradient_clip=1e20)
    curves = together(make("bench201", 2), settings)
    assert all(curve.failed and len(curve.loss) == 1 for curve in curves)


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 3])
def test_where_memory_is_exhausted_halves_are_trained(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the start: what was trained before the memory was exhausted leaves no trace."""
    logits, calls, alive = NetworkBatch.logits, [], WeakSet[NetworkBatch]()

    def scarce(self: NetworkBatch, images: Tensor) -> tuple[Tensor, None]:
        alive.add(self)
        assert set(alive) == {self}, "what did not fit has been freed"
        calls.append(len(self.networks))
        if len(self.networks) > 2 and calls.count(len(self.networks)) >= step:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return logits(self, images)

    ours, theirs = make("bench201"), make("bench201")
    expected = [*together(theirs[:2])]
    expected += fit(theirs[2:3], batched_task(), SETTINGS, seeds=[12])
    expected += fit(theirs[3:], batched_task(), SETTINGS, seeds=[13, 14], batched=True)
    monkeypatch.setattr(NetworkBatch, "logits", scarce)
    curves = together(ours)
    assert [curve.together for curve in curves] == [2, 2, 1, 2, 2]
    assert calls.count(5) == calls.count(3) == step
    for found, wanted, network, other in zip(curves, expected, ours, theirs, strict=True):
        np.testing.assert_array_equal(found.loss, wanted.loss)
        assert not found.failed
        assert all(torch.equal(value, other.state_dict()[key]) for key, value in network.state_dict().items())


def test_other_errors_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: NetworkBatch, images: Tensor) -> tuple[Tensor, None]:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(NetworkBatch, "logits", broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        together(make("size", 2))
