"""Shared weights: scoring is pure, training is SGD, the state is complete, and no architecture harms another."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_tasks import toy_task

from nas_gym.evaluators import Evaluations, make_evaluator, make_objective
from nas_gym.evaluators.shared_weights import SharedWeightEvaluator, SharedWeightSettings
from nas_gym.evaluators.task_evaluator import choose_device
from nas_gym.networks.network import ArchitectureNorm
from nas_gym.spaces import SearchSpace, Tokens, make_space
from nas_gym.tasks import ImageTask, make_task

SPACES = ["bench201", "cell:enas"]
SMALL: dict[str, Any] = {"channels": 4, "batch_size": 16, "device": "cpu"}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class Forbidden:
    """A test split that may not be looked at."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the test split was asked for its {name}")

    __len__ = __getitem__ = __iter__ = __getattr__  # type: ignore[assignment]


def evaluator(name: str = "bench201", seed: int = 0, **settings: Any) -> SharedWeightEvaluator:
    made = SharedWeightEvaluator(make_space(name), toy_task(48, 45), seed=seed, **{**SMALL, **settings})
    object.__setattr__(made.task, "test", Forbidden())
    return made


def draw(space: SearchSpace, n: int, seed: int = 0) -> Tokens:
    return space.sample(np.random.default_rng(seed), n)


def trained(name: str = "bench201", steps: int = 3, **settings: Any) -> SharedWeightEvaluator:
    made = evaluator(name, **settings)
    for step in range(steps):
        made.update(draw(made.space, 3, seed=step))
    return made


def tensors(state: Any) -> list[Tensor]:
    """All tensors of a state, in order; numbers as tensors too."""
    if isinstance(state, dict):
        return [tensor for key in sorted(state, key=str) for tensor in tensors(state[key])]
    return [torch.as_tensor(state)]


def same_state(left: Any, right: Any) -> bool:
    pairs = list(zip(tensors(left), tensors(right), strict=True))
    return all(torch.equal(a.nan_to_num(nan=-1e9), b.nan_to_num(nan=-1e9)) for a, b in pairs)


def same(left: Evaluations, right: Evaluations) -> bool:
    return (
        np.array_equal(left.accuracy, right.accuracy)
        and np.array_equal(left.metrics["loss"], right.metrics["loss"], equal_nan=True)
        and np.array_equal(left.failed, right.failed)
        and left.reasons == right.reasons
    )


# ------------------------------------------------------------------ scoring


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("settings", [{"score_batch": 100}, {"score_batch": 20}, {"score_images": None}])
def test_scores_are_those_of_each_architecture_alone(name: str, settings: dict[str, Any]) -> None:
    made = trained(name, **settings)
    tokens = draw(made.space, 7)
    scores = made.evaluate(tokens)
    chunks = 3 if settings.get("score_batch") == 20 else 1
    for row, architecture in enumerate(tokens):
        with torch.no_grad():
            logits = torch.cat(
                [
                    made.supernet(made.task.normalise(part), architecture[None])[0].double()
                    for part in made.task.valid.inputs.tensor_split(chunks)
                ]
            )
        right = logits.argmax(dim=1) == made.task.valid.targets
        losses = logits.logsumexp(dim=1) - logits.gather(1, made.task.valid.targets[:, None])[:, 0]
        assert scores.accuracy[row] == pytest.approx(float(right.double().mean()))
        assert scores.metrics["loss"][row] == pytest.approx(float(losses.mean()), rel=1e-5)
    assert not scores.failed.any()
    assert scores.reasons == ("",) * 7
    assert scores.accuracy.dtype == np.float64


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_scoring_changes_nothing(name: str) -> None:
    made = trained(name, score_images=20)
    before, random_state = copy.deepcopy(made.state_dict()), torch.get_rng_state()
    tokens = draw(made.space, 6)
    given = tokens.copy()
    first = made.evaluate(tokens)
    made.evaluate(draw(made.space, 9, seed=5))
    assert same(first, made.evaluate(tokens))
    assert same_state(before, made.state_dict())
    assert torch.equal(random_state, torch.get_rng_state())
    assert np.array_equal(tokens, given)
    # Nor does it change what comes after.
    other = trained(name, score_images=20)
    assert made.update(tokens) == other.update(tokens)
    assert same_state(made.state_dict(), other.state_dict())


@pytest.mark.slow
def test_order_company_and_repetition_do_not_matter() -> None:
    made = trained("cell:enas")
    tokens = draw(made.space, 8)
    scores = made.evaluate(tokens)
    order = np.random.default_rng(1).permutation(np.repeat(np.arange(8), 3))
    shuffled = made.evaluate(tokens[order])
    assert same(shuffled, scores.rows(order))
    for row in range(8):
        alone = made.evaluate(tokens[row : row + 1])
        assert alone.accuracy[0] == scores.accuracy[row]
        np.testing.assert_allclose(alone.metrics["loss"], scores.metrics["loss"][row], rtol=1e-5)
    made.settings = dataclasses.replace(made.settings, architectures_at_once=3)
    in_parts = made.evaluate(tokens)
    assert np.array_equal(in_parts.accuracy, scores.accuracy)
    np.testing.assert_allclose(in_parts.metrics["loss"], scores.metrics["loss"], rtol=1e-5)


@pytest.mark.slow
def test_a_minibatch_is_the_same_for_all_until_the_weights_change() -> None:
    made, whole = trained(score_images=20), trained(score_images=None)
    tokens = draw(made.space, 40)
    scores, all_scores = made.evaluate(tokens), whole.evaluate(tokens)
    np.testing.assert_allclose(scores.accuracy * 20, (scores.accuracy * 20).round(), atol=1e-9)
    np.testing.assert_allclose(all_scores.accuracy * 45, (all_scores.accuracy * 45).round(), atol=1e-9)
    assert same(scores, made.evaluate(tokens))
    assert not np.array_equal(scores.accuracy, all_scores.accuracy)
    made.steps += 1  # the same weights, another minibatch
    assert not np.array_equal(scores.metrics["loss"], made.evaluate(tokens).metrics["loss"])
    for enough in (45, 46, 10**6):
        assert same(trained(score_images=enough).evaluate(tokens), all_scores)


def test_illegal_architectures_are_refused() -> None:
    made = evaluator()
    with pytest.raises(ValueError, match=r"tokens\[1, 2\] = 5 is not legal"):
        made.evaluate(np.array([[0] * 6, [0, 0, 5, 0, 0, 0]]))


# ------------------------------------------------------------------ training


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_training_follows_from_the_seed(name: str) -> None:
    first, again, other = trained(name), trained(name), trained(name, seed=1)
    assert same_state(first.state_dict(), again.state_dict())
    assert not same_state(first.state_dict(), other.state_dict())
    assert not same_state(first.state_dict()["supernet"], evaluator(name).state_dict()["supernet"])
    torch.manual_seed(7)
    random_state = torch.get_rng_state()
    assert first.update(draw(first.space, 2)) == again.update(draw(first.space, 2))
    assert torch.equal(random_state, torch.get_rng_state())


def test_updates_are_nesterov_steps_on_the_mean_gradient() -> None:
    """Two steps on the whole train split, by the formulas."""
    sgd = {"learning_rate": 0.05, "momentum": 0.8, "weight_decay": 0.02, "gradient_clip": 0.5, "cosine_steps": 4}
    made = evaluator(batch_size=48, affine=True, **sgd)
    twin = evaluator(affine=True).supernet.train()
    velocity = {key: torch.zeros_like(p) for key, p in twin.named_parameters()}
    images, labels = made.task.normalise(made.task.train.inputs), made.task.train.targets
    for step, rate in enumerate((0.05, 0.0005 + 0.0495 * (1 + 2**-0.5) / 2)):
        tokens = draw(made.space, 3, seed=step) % 4 + 1  # no `none`, so that whatever is chosen has a gradient
        twin.zero_grad()
        losses = []
        for architecture in tokens:
            logits = twin(images, architecture[None])[0]
            losses.append((logits.logsumexp(dim=1) - logits.gather(1, labels[:, None])[:, 0]).mean())
        loss = torch.stack(losses).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        used = {key: p for key, p in twin.named_parameters() if p.grad is not None}
        norm = torch.stack([p.grad.square().sum() for p in used.values()]).sum().sqrt()  # type: ignore[union-attr]
        with torch.no_grad():
            for key, p in used.items():
                gradient = p.grad * min(1.0, float(0.5 / norm)) + 0.02 * p
                velocity[key] = 0.8 * velocity[key] + gradient
                p -= rate * (gradient + 0.8 * velocity[key])
        logged = made.update(tokens)
        assert logged["weights/loss"] == pytest.approx(float(loss.detach()), rel=1e-4)
        assert logged["weights/learning_rate"] == pytest.approx(rate)
        assert logged["weights/skipped"] == 0
    for key, p in twin.named_parameters():
        torch.testing.assert_close(dict(made.supernet.named_parameters())[key], p, rtol=1e-3, atol=1e-5)


def test_only_what_the_architectures_use_is_trained() -> None:
    made = evaluator()
    before = copy.deepcopy(made.state_dict()["supernet"])
    made.update(np.array([[2, 0, 0, 2, 0, 1], [1, 1, 2, 0, 0, 1]]))
    changed = {key for key, value in made.state_dict()["supernet"].items() if not torch.equal(value, before[key])}
    edges = {key.split("choices.")[1][0] for key in changed if ".edges." in key}
    assert edges == {"2"}, "no 3x3 convolution was chosen"
    assert changed


def test_the_learning_rate_restarts_as_in_torch() -> None:
    made = evaluator(cosine_steps=3, learning_rate=0.2, final_learning_rate=0.01)
    optimiser = torch.optim.SGD([torch.zeros(1)], 0.2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimiser, T_0=3, T_mult=2, eta_min=0.01)
    for _ in range(3 + 6 + 12 + 2):
        rate = made.update(draw(made.space, 1))["weights/learning_rate"]
        assert rate == pytest.approx(schedule.get_last_lr()[0])
        assert made.optimiser.param_groups[0]["lr"] == rate
        optimiser.step()
        schedule.step()


def test_an_epoch_sees_every_image_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    normalise = ImageTask.normalise

    def spy(self: ImageTask, images: Tensor) -> Tensor:
        seen.append(images)
        return normalise(self, images)

    monkeypatch.setattr(ImageTask, "normalise", spy)
    made = evaluator(batch_size=12)
    for _ in range(8):
        made.update(draw(made.space, 1))
    epochs = [torch.cat(seen[:4]).flatten(1), torch.cat(seen[4:]).flatten(1)]
    for epoch in epochs:
        assert torch.equal(epoch.unique(dim=0), made.task.train.inputs.flatten(1).unique(dim=0))
    assert not torch.equal(*epochs)
    large = evaluator(batch_size=500)
    seen.clear()
    large.update(draw(made.space, 1))
    assert [len(images) for images in seen] == [48]


def test_the_test_split_is_forbidden_here() -> None:
    made = evaluator()
    with pytest.raises(AssertionError, match="the test split was asked for its inputs"):
        made.task.test.inputs  # noqa: B018
    made.update(draw(made.space, 1))
    made.evaluate(draw(made.space, 1))


@pytest.mark.parametrize("name", SPACES)
def test_normalisation_is_affine_only_if_asked(name: str) -> None:
    def norms(**settings: Any) -> list[Tensor]:
        modules = trained(name, **settings).supernet.modules()
        return [parameter for each in modules if isinstance(each, ArchitectureNorm) for parameter in each.parameters()]

    assert all(torch.equal(norm, norm.round()) for norm in norms()), "scales of 1, shifts of 0"
    assert any(not torch.equal(norm, norm.round()) for norm in norms(affine=True))


# ------------------------------------------------------------------ state


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_a_saved_evaluator_goes_on_exactly(name: str, steps: int, tmp_path: Path) -> None:
    """Also when the copy was made with other weights and had trained itself."""
    first, second = trained(name, steps, score_images=20), trained(name, 2, score_images=20)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert same_state(first.state_dict(), second.state_dict())
    for step in range(3):
        tokens = draw(first.space, 3, seed=50 + step)
        assert first.update(tokens) == second.update(tokens)
        assert same(first.evaluate(tokens), second.evaluate(tokens))
    assert same_state(first.state_dict(), second.state_dict())


def test_a_state_is_a_snapshot() -> None:
    """Neither training on nor training a second evaluator from it changes a state that was taken."""
    first, second = trained(), evaluator()
    state = first.state_dict()
    kept = copy.deepcopy(state)
    second.load_state_dict(state)
    first.update(draw(first.space, 4, seed=8))
    second.update(draw(first.space, 4, seed=9))
    assert same_state(state, kept)
    first.load_state_dict(state)
    assert same_state(first.state_dict(), kept)


# ------------------------------------------------------------------ failures


def poisoned(name: str, position: int, choice: int) -> SharedWeightEvaluator:
    """The convolution of one choice of the last cell is not a number."""
    made = trained(name)
    network: Any = made.supernet
    banks = network.blocks[-1].edges if name == "bench201" else network.cells[-1].operations
    with torch.no_grad():
        next(iter(banks[position].choices[str(choice)].parameters())).fill_(torch.nan)
    return made


@pytest.mark.slow
def test_a_child_that_is_not_a_number_fails_alone() -> None:
    """Every node of a cell reaches its output, so exactly the architectures that chose the operation fail."""
    healthy, made = trained("cell:enas"), poisoned("cell:enas", position=0, choice=1)
    tokens = draw(made.space, 24)
    users = tokens[:, 2] == 1
    assert 0 < users.sum() < 24
    expected, scores = healthy.evaluate(tokens), made.evaluate(tokens)
    assert np.array_equal(scores.failed, users)
    assert scores.reasons == tuple("diverged: the validation loss is not finite" if user else "" for user in users)
    assert (scores.accuracy[users] == 0).all()
    assert np.isnan(scores.metrics["loss"][users]).all()
    assert np.array_equal(scores.accuracy[~users], expected.accuracy[~users])
    assert np.array_equal(scores.metrics["loss"][~users], expected.metrics["loss"][~users])
    for name in ("accuracy", "accuracy-cubed", "accuracy-tan"):
        objective = make_objective(name)
        assert (objective(scores)[users] == objective.worst).all()
        assert (objective(scores)[~users] == objective(expected)[~users]).all()


def test_what_no_path_reads_does_no_harm() -> None:
    """The poisoned edge 0-1 is dead where both edges out of node 1 are `none`."""
    made = poisoned("bench201", position=0, choice=3)
    live, dead, unused = [3, 1, 1, 1, 1, 1], [3, 1, 0, 1, 0, 1], [2, 1, 1, 1, 1, 1]
    assert made.evaluate(np.array([live, dead, unused])).failed.tolist() == [True, False, False]


def test_a_loss_beyond_float32_is_a_divergence_not_exhausted_memory() -> None:
    made = trained()
    with torch.no_grad():
        made.supernet.head.linear.bias.copy_(torch.tensor([3e38, -3e38, 0.0]))  # type: ignore[union-attr, operator]
    scores = made.evaluate(draw(made.space, 2))
    assert scores.failed.all()
    assert set(scores.reasons) == {"diverged: the validation loss is not finite"}
    assert np.isnan(scores.metrics["loss"]).all()


def test_a_step_that_is_not_finite_is_skipped() -> None:
    made = poisoned("bench201", position=0, choice=3)
    before = made.state_dict()
    user, other = np.array([[3, 1, 1, 1, 1, 1]]), np.array([[2, 1, 1, 1, 1, 1]])
    assert made.update(np.concatenate([user, other]))["weights/skipped"] == 1
    after = made.state_dict()
    assert same_state(before["supernet"], after["supernet"])
    assert same_state(before["momentum"], after["momentum"])
    assert after["steps"] == before["steps"] + 1
    logged = made.update(other)
    assert logged["weights/skipped"] == 0
    assert np.isfinite(logged["weights/loss"])
    assert not made.evaluate(other).failed.any()


def allocator_error() -> RuntimeError:
    """What this machine's allocator really raises."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    return caught.value


def limit(
    made: SharedWeightEvaluator, most: int, error: Callable[[], Exception], monster: Tokens | None = None
) -> list[int]:
    """Lets the supernet raise for more than `most` architectures, or for one; returns the sizes that it was given."""
    forward, sizes = made.supernet.forward, []

    def limited(images: Tensor, tokens: Tokens) -> Tensor:
        sizes.append(len(tokens))
        if len(tokens) > most or (monster is not None and (tokens == monster).all(axis=1).any()):
            raise error()
        return forward(images, tokens)

    made.supernet.forward = limited  # type: ignore[method-assign, assignment]
    return sizes


EXHAUSTED: list[Callable[[], Exception]] = [
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    allocator_error,
    MemoryError,
]


@pytest.mark.parametrize("error", EXHAUSTED, ids=["cuda", "cpu", "python"])
def test_exhausted_memory_halves_the_batch(error: Callable[[], Exception]) -> None:
    made = trained()
    tokens = draw(made.space, 9)
    expected = made.evaluate(tokens)
    sizes = limit(made, 2, error)
    scores = made.evaluate(tokens)
    assert max(sizes) == 8
    assert sum(size for size in sizes if size <= 2) == 9
    assert np.array_equal(scores.accuracy, expected.accuracy)
    np.testing.assert_allclose(scores.metrics["loss"], expected.metrics["loss"], rtol=1e-5)
    assert not scores.failed.any()


@pytest.mark.parametrize("error", EXHAUSTED, ids=["cuda", "cpu", "python"])
def test_an_architecture_that_is_too_large_alone_fails_alone(error: Callable[[], Exception]) -> None:
    made = trained()
    tokens = draw(made.space, 9)
    expected = made.evaluate(tokens)
    limit(made, 100, error, monster=tokens[4])
    scores = made.evaluate(tokens)
    assert np.flatnonzero(scores.failed).tolist() == [4]
    assert scores.reasons[4] == "out of memory"
    rest = np.arange(9) != 4
    assert np.array_equal(scores.accuracy[rest], expected.accuracy[rest])
    assert make_objective("accuracy")(scores)[4] == 0


def test_other_errors_are_not_swallowed() -> None:
    made = trained()
    limit(made, 0, lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        made.evaluate(draw(made.space, 4))


# ------------------------------------------------------------------ arguments


@pytest.mark.parametrize(
    ("field", "value"),
    [("batch_size", 0), ("cosine_steps", 0), ("score_batch", 0), ("architectures_at_once", 0), ("score_images", 0)],
)
def test_settings_are_checked(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"{field} must be at least 1.*got {value}"):
        SharedWeightSettings(**{field: value})
    with pytest.raises(ValueError, match=rf"{field} must be at least 1.*got {value}"):
        evaluator(**{field: value})


def test_unknown_settings_are_named() -> None:
    with pytest.raises(ValueError, match=r"shared-weights has no setting \['epochs', 'width'\]; settings: channels,"):
        evaluator(width=3, epochs=1)
    with pytest.raises(ValueError, match=r"channels must be at least 2, got 1"):
        evaluator(channels=1)


@pytest.mark.parametrize("device", ["abacus", "cpu:x", "cuda:9999"])
def test_devices_that_are_not_there(device: str) -> None:
    with pytest.raises(ValueError, match=rf"device '{device}' is not available: .*; use 'auto', 'cpu' or 'cuda'"):
        evaluator(device=device)


def test_auto_takes_what_there_is() -> None:
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(("size", "stride"), [(8, 1), (15, 1), (16, 2), (32, 2)])
def test_large_images_get_a_stem_of_stride_2(size: int, stride: int) -> None:
    assert SharedWeightSettings().network((1, size, size)).stem_stride == stride
    assert SharedWeightSettings(stem_stride=1).network((1, size, size)).stem_stride == 1


def test_it_is_made_by_name() -> None:
    made = make_evaluator("shared-weights", make_space("bench201"), "digits", {"channels": 4, "device": "cpu"})
    assert isinstance(made, SharedWeightEvaluator)
    assert made.stateful
    assert made.task.name == "digits"
    assert copy.deepcopy(made) is made


# ------------------------------------------------------------------ it learns


@pytest.mark.slow
def test_some_hundred_updates_on_digits_lift_architectures_well_above_chance() -> None:
    made = SharedWeightEvaluator(make_space("bench201"), make_task("digits"), device="cpu")
    tokens = draw(made.space, 32, seed=1)
    untrained = made.evaluate(tokens).accuracy.mean()
    rng = np.random.default_rng(0)
    for _ in range(300):
        made.update(made.space.sample(rng, 4))
    scores = made.evaluate(tokens)
    assert untrained < 0.25
    assert scores.accuracy.mean() > 0.5
    assert scores.accuracy.max() > 0.85
    # Cells without a path from input to output tell nothing of an image, whatever the weights.
    severed = made.evaluate(np.zeros((1, 6), dtype=np.int64))
    assert abs(severed.accuracy[0] - 0.1) < 0.05
