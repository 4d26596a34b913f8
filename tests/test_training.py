"""The training loop of child networks against formulas, against itself alone, and against its own failures."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_tasks import toy_task

from nas_gym.evaluators.resumable import Training
from nas_gym.evaluators.training import (
    TrainingCurve,
    TrainingSettings,
    cosine,
    fit,
    memory_reason,
    mixed_precision,
    score,
)
from nas_gym.files import load_tensors, save_tensors
from nas_gym.networks import Network, NetworkSettings, make_network
from nas_gym.spaces import make_space
from nas_gym.tasks import Augmentation, ImageTask

SPACE = make_space("bench201")
CELLS = [
    "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|nor_conv_1x1~1|avg_pool_3x3~2|",
    "|nor_conv_1x1~0|+|skip_connect~0|nor_conv_3x3~1|+|nor_conv_1x1~0|none~1|skip_connect~2|",
    "|skip_connect~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|none~0|nor_conv_3x3~1|skip_connect~2|",
]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def network(cell: int = 0, seed: int = 0) -> Network:
    return make_network(SPACE.parse(CELLS[cell]), (1, 6, 6), 3, NetworkSettings(4, 1, 1), seed=seed)


def weights(model: Network) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(value, right[key]) for key, value in left.items())


def same_curves(left: TrainingCurve, right: TrainingCurve) -> bool:
    return (
        left.accuracy.keys() == right.accuracy.keys()
        and all(np.array_equal(curve, right.accuracy[name]) for name, curve in left.accuracy.items())
        and np.array_equal(left.loss, right.loss)
        and (left.failed, left.reason) == (right.failed, right.reason)
    )


def movement(before: dict[str, Tensor], model: Network) -> float:
    """Norm of the change of the parameters."""
    return math.sqrt(sum(float((p.detach() - before[key]).square().sum()) for key, p in model.named_parameters()))


# ------------------------------------------------------------------ going on


def test_a_training_goes_on_from_a_file_to_the_bit(tmp_path: Path) -> None:
    task = dataclasses.replace(toy_task(), augmentation=Augmentation(padding=1, flip=True))
    settings = TrainingSettings(epochs=4, batch_size=16, drop_path=0.5)
    whole = network()
    (curve,) = fit([whole], task, settings, seeds=[3])
    first = Training(network(), task, settings, seed=3)
    first.advance(2)
    save_tensors(tmp_path / "checkpoint.pt", first.state_dict())
    first.advance(3)  # does not change what was saved
    again = Training(network(seed=1), task, settings, seed=9)
    again.load_state_dict(load_tensors(tmp_path / "checkpoint.pt"))
    assert again.epochs == 2
    again.advance(4)
    assert same(weights(again.network), weights(whole))
    assert same_curves(again.curve, curve)
    assert again.curve.seconds > 0


# ------------------------------------------------------------------ what it learns


@pytest.mark.slow
def test_networks_learn_what_is_easy() -> None:
    models = [network(cell) for cell in range(3)]
    task = toy_task(300, augmentation=Augmentation(padding=1))
    curves = fit(models, task, TrainingSettings(epochs=15, batch_size=20), seeds=(0, 1, 2))
    for model, curve in zip(models, curves, strict=True):
        assert not curve.failed
        assert curve.accuracy["valid"][-1] > 0.8  # of 30 images; by chance a third
        assert curve.loss[-1] < 0.5 * curve.loss[0]
        assert curve.accuracy["valid"][-1] == score(model, task, task.valid)
        assert score(model, task, task.test) > 0.8


def test_networks_together_are_each_as_if_alone() -> None:
    settings = TrainingSettings(epochs=3, batch_size=16, drop_path=0.3, label_smoothing=0.1)
    task, seeds = toy_task(), (3, 4, 3)
    together = [network(cell, seed=cell) for cell in range(3)]
    torch.manual_seed(0)
    curves = fit(together, task, settings, seeds=seeds)
    for cell, seed in enumerate(seeds):
        alone = network(cell, seed=cell)
        torch.manual_seed(100 + cell)  # the global random state is of no account
        (curve,) = fit([alone], task, settings, seeds=(seed,))
        assert same(weights(alone), weights(together[cell]))
        assert same_curves(curve, curves[cell])
    other = network(0)
    fit([other], task, settings, seeds=(5,))
    assert not same(weights(other), weights(together[0]))


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    fit([network()], toy_task(), TrainingSettings(epochs=1, batch_size=16, drop_path=0.5), seeds=(0,))
    assert torch.equal(before, torch.get_rng_state())


# ------------------------------------------------------------------ the schedule and the loss, by formula


def test_cosine_equals_torchs() -> None:
    assert cosine(0.3, 0.1, 0) == pytest.approx(0.3)
    assert cosine(0.3, 0.1, 0.5) == pytest.approx(0.2)
    assert cosine(0.3, 0.1, 1) == pytest.approx(0.1)
    optimiser = torch.optim.SGD([torch.zeros(1)], 0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 17, eta_min=0.1)
    for step in range(18):
        assert cosine(0.3, 0.1, step / 17) == pytest.approx(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()


def test_clipped_steps_have_the_length_of_the_learning_rate() -> None:
    """With one batch an epoch, no momentum and a tiny clip, each epoch moves the weights by its rate x clip."""
    model, task, epochs, clip = network(), toy_task(), 5, 1e-2
    settings = TrainingSettings(
        epochs, len(task.train), learning_rate=0.1, momentum=0, weight_decay=0, gradient_clip=clip, drop_path=0.4
    )
    lengths, probabilities = [], []
    before, forward = weights(model), model.run

    def run(images: Tensor, tokens: Any) -> Any:
        nonlocal before
        if not model.training:  # scored, once an epoch
            lengths.append(movement(before, model))
            probabilities.append(model.drop_path.probability)
            before = weights(model)
        return forward(images, tokens)

    model.run = run  # type: ignore[method-assign]
    fit([model], task, settings, seeds=(0,))
    rates = [0.05 * (1 + math.cos(math.pi * step / epochs)) for step in range(epochs)]
    np.testing.assert_allclose(lengths, [rate * clip for rate in rates], rtol=1e-3)
    np.testing.assert_allclose(probabilities, [0.4 * step / epochs for step in range(epochs)])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_by_hand(smoothing: float) -> None:
    """Cross-entropy with smoothed labels, and the auxiliary classifier's with its weight."""
    space, task = make_space("cell:darts"), toy_task()
    architecture = space.architecture(space.sample(np.random.default_rng(0), 1)[0])
    model = make_network(architecture, (1, 6, 6), 3, NetworkSettings(4, 1, 1, auxiliary=True))
    with torch.no_grad():
        outputs = copy.deepcopy(model).train().logits(task.normalise(task.train.inputs))
    expected = 0.0
    for logits, weight in zip(outputs, (1.0, 0.7), strict=True):
        assert logits is not None
        probabilities = logits.double().exp() / logits.double().exp().sum(dim=1, keepdim=True)
        wanted = (1 - smoothing) * np.eye(3)[task.train.targets] + smoothing / 3
        expected -= weight * float((torch.from_numpy(wanted) * probabilities.log()).sum(dim=1).mean())
    settings = TrainingSettings(
        1, len(task.train), augment=False, label_smoothing=smoothing, auxiliary_weight=0.7, record=()
    )
    (curve,) = fit([model], task, settings, seeds=(0,))
    assert curve.loss.tolist() == [pytest.approx(expected, rel=1e-5)]


def test_one_step_by_hand() -> None:
    """SGD with Nesterov's momentum and weight decay, two steps on the whole split."""
    model, task = network(), toy_task()
    settings = TrainingSettings(2, len(task.train), 0.1, 0.9, 0.01, gradient_clip=1e9, augment=False, record=())
    reference = copy.deepcopy(model).train()
    velocity = {key: torch.zeros_like(p) for key, p in reference.named_parameters()}
    for rate in (0.1, 0.05):
        reference.zero_grad()
        logits = reference(task.normalise(task.train.inputs))
        (logits.logsumexp(dim=1) - logits.gather(1, task.train.targets[:, None])[:, 0]).mean().backward()
        with torch.no_grad():
            for key, p in reference.named_parameters():
                if p.grad is not None:
                    gradient = p.grad + 0.01 * p
                    velocity[key] = 0.9 * velocity[key] + gradient
                    p -= rate * (gradient + 0.9 * velocity[key])
    fit([model], task, settings, seeds=(0,))
    for key, p in reference.named_parameters():
        torch.testing.assert_close(dict(model.named_parameters())[key], p, rtol=1e-3, atol=1e-5)


def test_every_image_is_seen_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    task, seen = toy_task(60), []
    normalise = ImageTask.normalise

    def spy(self: ImageTask, images: Tensor) -> Tensor:
        seen.append(images)
        return normalise(self, images)

    monkeypatch.setattr(ImageTask, "normalise", spy)
    fit([network()], task, TrainingSettings(epochs=2, batch_size=20, record=()), seeds=(0,))
    assert [len(batch) for batch in seen] == [20] * 6
    for epoch in (seen[:3], seen[3:]):
        rows = torch.cat(epoch).flatten(1)
        assert torch.equal(rows.unique(dim=0), task.train.inputs.flatten(1).unique(dim=0))
    assert not torch.equal(seen[0], seen[3])
    seen.clear()
    fit([network()], task, TrainingSettings(epochs=1, batch_size=25, record=()), seeds=(0,))
    assert [len(batch) for batch in seen] == [25, 25], "a last, smaller batch is left out"
    seen.clear()
    fit([network()], task, TrainingSettings(epochs=1, batch_size=100, record=()), seeds=(0,))
    assert [len(batch) for batch in seen] == [60], "unless it is the only one"


# ------------------------------------------------------------------ records


@pytest.mark.parametrize("every", [True, False])
@pytest.mark.parametrize("record", [(), ("valid",), ("train", "valid", "test")])
def test_records(record: tuple[str, ...], every: bool) -> None:
    model, task = network(), toy_task()
    settings = TrainingSettings(3, 16, record=record, record_all_epochs=every)
    (curve,) = fit([model], task, settings, seeds=(0,))
    assert set(curve.accuracy) == set(record)
    assert len(curve.loss) == 3
    assert curve.seconds > 0
    for name, accuracies in curve.accuracy.items():
        assert len(accuracies) == (3 if every else 1)
        split = getattr(task, name)
        with torch.no_grad():
            right = model.eval()(task.normalise(split.inputs)).argmax(dim=1) == split.targets
        assert accuracies[-1] == pytest.approx(right.double().mean())


def test_the_test_split_is_not_touched_unless_asked_for() -> None:
    class Forbidden:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"the test split was asked for its {name}")

        __len__ = __getattr__  # type: ignore[assignment]

    task = toy_task()
    object.__setattr__(task, "test", Forbidden())
    settings = TrainingSettings(1, 16, record=("train", "valid"))
    fit([network()], task, settings, seeds=(0,))
    with pytest.raises(AssertionError, match="the test split was asked for"):
        fit([network()], task, TrainingSettings(1, 16, record=("test",)), seeds=(0,))


def test_scores_do_not_depend_on_batches() -> None:
    model, task = network(), toy_task()
    fit([model], task, TrainingSettings(2, 16), seeds=(0,))
    assert len({score(model, task, task.valid, size) for size in (1, 7, 500)}) == 1


# ------------------------------------------------------------------ failures


SETTINGS = TrainingSettings(epochs=3, batch_size=20)


def fit_with(spoil: Callable[[Network], None], settings: TrainingSettings = SETTINGS) -> TrainingCurve:
    """The curve of a spoilt network between two good ones, which are to finish as if alone."""
    task, models = toy_task(), [network(cell) for cell in range(3)]
    spoil(models[1])
    curves = fit(models, task, settings, seeds=(0, 1, 2))
    for cell in (0, 2):
        alone = network(cell)
        (curve,) = fit([alone], task, settings, seeds=(cell,))
        assert same_curves(curve, curves[cell])
        assert same(weights(alone), weights(models[cell]))
        assert not curve.failed
        assert curve.reason == ""
    assert all(parameter.grad is None for parameter in models[1].parameters()), "a failure frees its gradients"
    return curves[1]


def test_a_network_that_diverges_fails_alone() -> None:
    def spoil(model: Network) -> None:
        with torch.no_grad():
            model.head.linear.weight.fill_(torch.nan)  # type: ignore[union-attr, operator]

    curve = fit_with(spoil)
    assert curve.failed
    assert curve.reason == "diverged: the training loss is not finite"
    assert curve.accuracy == {}
    assert len(curve.loss) == 1


def test_a_learning_rate_without_measure_is_a_failure() -> None:
    settings = TrainingSettings(epochs=3, batch_size=10, learning_rate=1e20, gradient_clip=1e20)
    curves = fit([network(0), network(1)], toy_task(), settings, seeds=(0, 1))
    assert all(curve.failed and curve.reason.startswith("diverged") for curve in curves)


def test_a_gradient_that_is_not_finite_in_the_very_last_step_is_a_failure() -> None:
    """Its loss is still finite, its weights are not."""

    def spoil(model: Network) -> None:
        model.head.linear.weight.register_hook(lambda gradient: gradient * torch.nan)  # type: ignore[union-attr]

    curve = fit_with(spoil, TrainingSettings(epochs=1, batch_size=60))
    assert curve.failed
    assert curve.reason.startswith("diverged")
    assert curve.accuracy == {}


def allocator_error() -> RuntimeError:
    """What this machine's allocator really raises."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    return caught.value


EXHAUSTED: list[Callable[[], Exception]] = [
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    allocator_error,
    MemoryError,
    lambda: RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
]


@pytest.mark.slow
@pytest.mark.parametrize("error", EXHAUSTED, ids=["cuda", "cpu", "python", "cudnn"])
@pytest.mark.parametrize("when", ["training", "scoring"])
def test_exhausted_memory_is_a_failure(error: Callable[[], Exception], when: str) -> None:
    def spoil(model: Network) -> None:
        forward, calls = model.run, 0

        def run(images: Tensor, tokens: Any) -> Any:
            nonlocal calls
            calls += model.training == (when == "training")
            if calls == (5 if when == "training" else 2):  # in the second epoch
                raise error()
            return forward(images, tokens)

        model.run = run  # type: ignore[method-assign]

    curve = fit_with(spoil)
    assert curve.failed
    assert curve.reason == "out of memory"
    assert len(curve.accuracy["valid"]) == 1
    assert len(curve.loss) == (1 if when == "training" else 2)


def test_other_errors_are_not_swallowed() -> None:
    def run(images: Tensor, tokens: Any) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    model = network()
    model.run = run  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        fit([model], toy_task(), SETTINGS, seeds=(0,))
    with pytest.raises(RuntimeError, match="sizes"):
        memory_reason(RuntimeError("sizes do not match"))


def test_networks_and_seeds_go_in_pairs() -> None:
    with pytest.raises(ValueError, match="seeds must be one for each of the 2 networks, got 1"):
        fit([network(), network()], toy_task(), SETTINGS, seeds=(0,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"drop_path": 1.0}, r"drop_path must be in \[0, 1\), got 1.0"),
        ({"drop_path": -0.1}, r"drop_path must be in \[0, 1\), got -0.1"),
        ({"record": ("valid", "dev")}, r"record names splits among train, valid, test; got \['dev'\]"),
    ],
)
def test_settings_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**arguments)


def test_processors_compute_in_full_precision() -> None:
    with mixed_precision(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
