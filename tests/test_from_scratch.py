"""Training from scratch as an evaluator: the table builder's trainings, from the architecture and the seed alone."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from toy_tasks import toy_task

from nas_gym.evaluators import make_evaluator
from nas_gym.evaluators.cost import count_parameters
from nas_gym.evaluators.from_scratch import FromScratchEvaluator, FromScratchSettings
from nas_gym.evaluators.resumable import Training
from nas_gym.evaluators.training import TrainingSettings, fit
from nas_gym.networks import NetworkSettings
from nas_gym.spaces import Tokens, make_space
from nas_gym.tables.builder import BuildSettings, train_classes
from nas_gym.tasks import make_task

SPACE = make_space("bench201")
SMALL: dict[str, Any] = {
    "device": "cpu",
    "network": {"channels": 4, "reductions": 1},
    "training": {"epochs": 4, "batch_size": 20, "drop_path": 0.2, "label_smoothing": 0.1},
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def evaluator(**changes: Any) -> FromScratchEvaluator:
    return FromScratchEvaluator(SPACE, toy_task(60, 45, signal=0.3), **{**SMALL, **changes})


def draw(n: int, seed: int = 0) -> Tokens:
    return SPACE.sample(np.random.default_rng(seed), n)


def curve_by_fit(made: FromScratchEvaluator, row: np.ndarray, seed: int = 0) -> np.ndarray:
    """The validation accuracies of the whole training, by `fit`."""
    network = made.new_network(SPACE.architecture(row), made.proxy, seed)
    (curve,) = fit([network], made.proxy, made.settings.training, seeds=[seed])
    return curve.accuracy["valid"]


# ------------------------------------------------------------------ what is trained


@pytest.mark.slow
def test_it_trains_as_the_table_builder_does() -> None:
    """The same proxy gives the same bits: a table is what this evaluator says, looked up."""
    build = BuildSettings(
        task="digits",
        image_size=6,
        train_images=120,
        score_images=100,
        network=NetworkSettings(channels=4),
        training=TrainingSettings(epochs=3, batch_size=20, learning_rate=0.03, augment=False, record=("valid", "test")),
    )
    tokens = draw(3)
    rows, _ = train_classes(SPACE, tokens, build.make_task(), build, seeds=[5, 5, 5])
    made = make_evaluator(
        "from-scratch",
        SPACE,
        "digits",
        {
            "device": "cpu",
            "seed": 0,
            "image_size": 6,
            "train_images": 120,
            "score_images": 100,
            "network": {"channels": 4},
            "training": {"epochs": 3, "batch_size": 20, "learning_rate": 0.03, "augment": False},
        },
    )
    made.seed = 5  # of the trainings; the split is that of seed 0
    for epoch, share in enumerate(made.fidelities, start=1):
        scored = made.evaluate(tokens, fidelity=share)
        assert scored.accuracy.tolist() == [row[f"valid_{epoch}"] for row in rows]
        assert scored.metrics["parameters"].tolist() == [row["parameters"] for row in rows]
        assert scored.metrics["epochs"].tolist() == [epoch] * 3


def test_a_proxy_is_the_task_of_that_size() -> None:
    """Applied to a whole task it gives what `make_task` makes of the same limits."""
    settings = FromScratchSettings(image_size=5, train_images=70, score_images=40, cutout=3)
    made = settings.proxy(make_task("digits", seed=2))
    wanted = make_task("digits", seed=2, image_size=5, train_limit=70, valid_limit=40)
    for name in ("train", "valid"):
        assert torch.equal(getattr(made, name).inputs, getattr(wanted, name).inputs)
        assert torch.equal(getattr(made, name).targets, getattr(wanted, name).targets)
    assert (made.mean, made.std) == (wanted.mean, wanted.std)
    assert made.augmentation == dataclasses.replace(wanted.augmentation, cutout=3)
    untouched = FromScratchSettings().proxy(make_task("digits", seed=2))
    assert len(untouched.train) == len(make_task("digits", seed=2).train)


@pytest.mark.slow
@pytest.mark.parametrize("score", ["last", "best", "best-of-last-5"])
def test_the_score_is_of_the_curve(score) -> None:
    made = evaluator(score=score, training={"epochs": 7, "batch_size": 20, "learning_rate": 0.2})
    tokens = draw(4, seed=1)
    curves = [curve_by_fit(made, row) for row in tokens]
    wanted = {"last": lambda c: c[-1], "best": max, "best-of-last-5": lambda c: max(c[2:])}[score]
    assert made.evaluate(tokens).accuracy.tolist() == [wanted(curve) for curve in curves]
    assert len({(curve[-1], max(curve), max(curve[2:])) for curve in curves if curve[-1] < max(curve)}) > 0


def test_zoph_and_le_s_reward() -> None:
    """The best of the last five epochs, cubed, through an environment."""
    made = evaluator(score="best-of-last-5")
    env = gym.make("NAS-Bench201-v0", evaluator=made, objective="accuracy-cubed")
    env.reset(seed=0)
    tokens = draw(1)[0]
    for token in tokens:
        _, reward, _, _, info = env.step(int(token))
    assert reward == made.evaluate(tokens[None]).accuracy[0] ** 3
    assert info["evaluation"]["epochs"] == 4


@pytest.mark.slow
def test_every_regularisation_matters() -> None:
    """Each option changes what is trained, so none is read by nobody."""
    # Cells of NASNet's kind have an auxiliary classifier and paths to drop.
    space = make_space({"name": "cell", "nodes": 2})
    tokens = space.sample(np.random.default_rng(0), 2)
    plain: dict[str, Any] = {
        "device": "cpu",
        "network": {"channels": 4, "reductions": 1},
        "training": {"epochs": 2, "batch_size": 10, "learning_rate": 0.1},
    }

    def losses(**changes: Any) -> list[list[float]]:
        merged = {
            key: {**value, **changes.pop(key, {})} if isinstance(value, dict) else value for key, value in plain.items()
        }
        made = FromScratchEvaluator(space, toy_task(60, 45, signal=0.3), **{**merged, **changes})
        networks = [made.new_network(space.architecture(row), made.proxy, 0) for row in tokens]
        return [c.loss.tolist() for c in fit(networks, made.proxy, made.settings.training, seeds=[0] * len(networks))]

    variants = [
        losses(),
        losses(cutout=4),
        losses(training={"augment": False}),
        losses(training={"drop_path": 0.5}),
        losses(training={"label_smoothing": 0.2}),
        losses(network={"auxiliary": True}),
        losses(train_images=30),
        losses(image_size=5),
    ]
    assert all(a != b for i, a in enumerate(variants) for b in variants[:i])


# ------------------------------------------------------------------ determinism


@pytest.mark.slow
def test_an_evaluation_follows_from_the_architecture_and_the_seed() -> None:
    tokens = draw(4)
    together = evaluator(seed=3).evaluate(tokens)
    made = evaluator(seed=3)
    with torch.random.fork_rng():
        torch.manual_seed(17)
        np.random.seed(17)
        alone = [made.evaluate(row[None]).accuracy[0] for row in tokens[::-1]][::-1]
        assert torch.initial_seed() == 17
    assert together.accuracy.tolist() == alone
    assert evaluator(seed=4).evaluate(tokens).accuracy.tolist() != alone
    twice = made.evaluate(tokens[[0, 1, 0]]).accuracy
    assert twice.tolist() == [alone[0], alone[1], alone[0]]


@pytest.mark.slow
@pytest.mark.parametrize("order", [[1, 2, 3, 4], [2, 4, 1, 3], [4], [3, 3, 2]], ids=str)
@pytest.mark.parametrize("paused", [0, 1, 64])
def test_a_fidelity_is_the_beginning_of_the_curve(order, paused) -> None:
    """Whatever was asked before, and whether trainings were kept or had to start anew."""
    made = evaluator(paused=paused)
    tokens = draw(3)
    curves = np.array([curve_by_fit(made, row) for row in tokens])
    assert made.fidelities == (0.25, 0.5, 0.75, 1.0)
    for epochs in order:
        scored = made.evaluate(tokens, fidelity=epochs / 4)
        assert scored.accuracy.tolist() == curves[:, epochs - 1].tolist()
        assert scored.metrics["epochs"].tolist() == [epochs] * 3
        assert len(made._paused) <= paused


def test_a_training_goes_on_where_it_was_left(monkeypatch) -> None:
    """Four fidelities one after another cost as many epochs as one evaluation in full."""
    epochs = []
    advance = Training.advance

    def counted(self: Training, until: int) -> None:
        before = len(self.curve.loss)
        advance(self, until)
        epochs.append(len(self.curve.loss) - before)

    monkeypatch.setattr(Training, "advance", counted)
    made = evaluator()
    for share in made.fidelities:
        made.evaluate(draw(3), fidelity=share)
    assert sum(epochs) == 12
    made.evaluate(draw(3), fidelity=0.5)
    assert sum(epochs) == 18, "finished trainings are not kept"


def test_training_that_is_left_and_taken_up_is_that_of_fit() -> None:
    made = evaluator()
    row = draw(1)[0]
    network = made.new_network(SPACE.architecture(row), made.proxy, 0)
    training = Training(network, made.proxy, made.settings.training, seed=0)
    for epochs in (1, 3, 3, 4):
        training.advance(epochs)
        assert len(training.curve.loss) == epochs
    other = made.new_network(SPACE.architecture(row), made.proxy, 0)
    (curve,) = fit([other], made.proxy, made.settings.training, seeds=[0])
    assert training.curve.loss.tolist() == curve.loss.tolist()
    assert training.curve.accuracy["valid"].tolist() == curve.accuracy["valid"].tolist()
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), other.state_dict().values(), strict=True)
    )


# ------------------------------------------------------------------ failures and refusals


def test_a_child_that_diverges_is_a_failed_trial() -> None:
    made = evaluator(training={"epochs": 3, "batch_size": 20, "learning_rate": 1e30, "gradient_clip": 1e30})
    tokens = SPACE.parse("|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_3x3~2|").tokens
    for share in (1 / 3, 1):
        scored = made.evaluate(np.array([tokens]), fidelity=share)
        assert scored.failed.tolist() == [True]
        assert scored.accuracy.tolist() == [0.0]
        assert "diverged" in scored.reasons[0]
        assert scored.metrics["epochs"].tolist() == [1.0]


def test_a_failure_to_come_is_not_told_before(monkeypatch) -> None:
    made = evaluator()
    tokens = draw(1)
    made.evaluate(tokens, fidelity=0.5)
    (training,) = made._paused.values()
    training._run.fail(0, "out of memory")  # in the third epoch, say
    assert not made.evaluate(tokens, fidelity=0.25).failed[0]
    scored = made.evaluate(tokens)
    assert scored.failed[0]
    assert scored.reasons == ("out of memory",)
    assert scored.metrics["epochs"].tolist() == [2.0]


def test_out_of_memory_is_a_failed_trial(monkeypatch) -> None:
    def step(self: Any, batch: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr("nas_gym.evaluators.training.TrainingRun._step", step)
    for share in (None, 0.25):
        scored = evaluator().evaluate(draw(2), fidelity=share)
        assert scored.failed.all()
        assert scored.reasons == ("out of memory",) * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score": "mean"}, "score must be one of 'last', 'best', 'best-of-last-5'; got 'mean'"),
        ({"network": {"width": 3}}, r"network has no field \['width'\]; fields: channels"),
        ({"network": 3}, "network must be a NetworkSettings or a mapping of its fields, got 3"),
        ({"training": {"epochs": 0}}, "epochs must be at least 1, got 0"),
        ({"training": {"record": ("test",)}}, "training must record 'valid'"),
        ({"training": {"record_all_epochs": False}}, "training must record 'valid' after all epochs"),
        ({"train_images": 0}, "train_images must be at least 1, or None, got 0"),
        ({"paused": -1}, "paused must not be negative, got -1"),
        ({"epochs": 3}, r"from-scratch has no setting \['epochs'\]; settings: image_size"),
        ({"network": {"reductions": 4}}, "cannot be reduced 16 times"),
    ],
)
def test_bad_settings(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        evaluator(**settings)


def test_a_space_without_networks_is_refused() -> None:
    with pytest.raises(ValueError, match="space 'bench_graph' has no image networks"):
        FromScratchEvaluator(make_space("bench_graph"), toy_task(60, 45, signal=0.3), device="cpu")


def test_fidelities_are_refused_where_there_is_one_epoch() -> None:
    made = evaluator(training={"epochs": 1})
    assert made.fidelities == ()
    with pytest.raises(ValueError, match="fidelity must be 1 or None"):
        made.evaluate(draw(1), fidelity=0.5)


def test_the_test_split_is_not_looked_at(monkeypatch) -> None:
    made = evaluator()
    looked = []
    monkeypatch.setattr(
        "nas_gym.evaluators.training.score_each",
        lambda model, task, split, size: looked.append(split) or [0.0],
    )
    made.evaluate(draw(2))
    assert looked
    assert all(split is made.proxy.valid for split in looked)


def test_networks_of_layers_are_trained_too() -> None:
    """The spaces of transformations have networks of another kind."""
    space = make_space("transformation")
    made = FromScratchEvaluator(space, "digits", device="cpu", train_images=40, score_images=50, training={"epochs": 1})
    tokens = space.sample(np.random.default_rng(0), 1)
    scored = made.evaluate(tokens)
    network = made.new_network(space.architecture(tokens[0]), made.proxy, 0)
    assert scored.metrics["parameters"].tolist() == [count_parameters(network)]
    assert not scored.failed.any()


def test_the_fingerprint_tells_settings_apart() -> None:
    """All that changes a result, and nothing else."""
    made = [
        evaluator(),
        evaluator(seed=1),
        evaluator(score="best"),
        evaluator(train_images=30),
        evaluator(network={"channels": 4, "reductions": 0}),
        evaluator(training={**SMALL["training"], "epochs": 5}),
    ]
    texts = [json.dumps(one.fingerprint(), sort_keys=True) for one in made]
    assert len(set(texts)) == len(texts)
    assert json.dumps(evaluator(paused=1).fingerprint(), sort_keys=True) == texts[0]
