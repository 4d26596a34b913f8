"""Learning curves: features by hand, predictions against known laws, and stopping against its own rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm

from nas_gym.evaluators import Evaluations, Evaluator, FunctionEvaluator, make_evaluator
from nas_gym.evaluators.cost import CostEvaluator
from nas_gym.evaluators.learning_curve import (
    REGRESSORS,
    EarlyStoppingEvaluator,
    LearningCurvePredictor,
    architecture_features,
    curve_features,
)
from nas_gym.experiments.run.config import RunConfig
from nas_gym.experiments.run.run import Run
from nas_gym.experiments.run.trials import read_trials
from nas_gym.spaces import Tokens, make_space

SPACE = make_space("bench201")
EPOCHS = 6


NOISE = np.random.default_rng(0).standard_normal((SPACE.size, EPOCHS))


class Curves(FunctionEvaluator):
    """Accuracies that rise to a final one, which the sum of the tokens tells up to noise; it counts the epochs."""

    fidelities = tuple((epoch + 1) / EPOCHS for epoch in range(EPOCHS))

    def __init__(self, fails: bool = False) -> None:
        super().__init__(SPACE)
        self.fails, self.asked = fails, 0

    def curves(self, tokens: Tokens) -> np.ndarray:
        noise = NOISE[SPACE.index(tokens)]
        final = 0.4 + 0.01 * tokens.sum(axis=1) + 0.03 * noise[:, -1]
        rise = 1 - 0.5 ** np.arange(1, EPOCHS)
        return np.column_stack([final[:, None] * rise + 0.01 * noise[:, :-1], final])

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        self.asked += len(tokens)
        epochs = EPOCHS if fidelity is None else round(fidelity * EPOCHS)
        failed = (tokens[:, 0] == 0) & self.fails & (epochs >= 2)
        metrics = {"epochs": np.full(len(tokens), float(epochs)), "flops": np.where(failed, np.nan, 1e6)}
        return Evaluations(np.where(failed, 0.0, self.curves(tokens)[:, epochs - 1]), metrics, failed)


def draw(n: int, seed: int = 0) -> Tokens:
    return SPACE.sample(np.random.default_rng(seed), n)


def stopping(evaluator: Evaluator | None = None, **settings: Any) -> EarlyStoppingEvaluator:
    small = {"complete": 40, "candidates": 3, "folds": 5, **settings}
    return EarlyStoppingEvaluator(evaluator or Curves(), **small)


# ------------------------------------------------------------------ features


def test_choices_are_counted_by_kind() -> None:
    architecture = SPACE.parse("|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|skip_connect~2|")
    tokens = np.array([architecture.tokens])
    found = architecture_features(SPACE, tokens, {"parameters": np.array([np.e - 1]), "seconds": np.array([7.0])})
    # By name: avg_pool_3x3, none, nor_conv_1x1, nor_conv_3x3, skip_connect; then the logarithm of the parameters.
    assert found.tolist() == [[0.0, 3.0, 0.0, 2.0, 1.0, 1.0]]


@pytest.mark.parametrize("name", ["cell:enas", "chain:stop", "macro", "bench101"])
def test_counts_of_every_space_are_those_of_a_loop(name) -> None:
    space = make_space(name)
    tokens = space.sample(np.random.default_rng(0), 5)
    found = architecture_features(space, tokens, {})
    for row, counts in zip(tokens, found, strict=True):
        taken: dict[tuple[str, str], int] = {}
        for decision, token in zip(space.decisions, row, strict=True):
            key = decision.kind, decision.choices[token]
            taken[key] = taken.get(key, 0) + 1
        assert sorted(taken.values()) == sorted(counts[counts > 0].tolist())
        assert counts.sum() == space.length


def test_curves_and_their_differences() -> None:
    curve = np.array([[0.1, 0.4, 0.6, 0.7]])
    assert curve_features(curve[:, :1]).tolist() == [[0.1]]
    np.testing.assert_allclose(curve_features(curve[:, :2]), [[0.1, 0.4, 0.3]])
    np.testing.assert_allclose(curve_features(curve), [[0.1, 0.4, 0.6, 0.7, 0.3, 0.2, 0.1, -0.1, -0.1]])


# ------------------------------------------------------------------ prediction


def test_least_squares_finds_a_linear_law() -> None:
    """The final accuracy is linear in what is known after two epochs, up to noise of a known deviation."""
    rng = np.random.default_rng(0)
    features, partial = rng.random((400, 3)), rng.random((400, 2))
    noise = 0.01 * rng.standard_normal(400)
    final = 0.2 + 0.1 * features[:, 0] + 0.3 * (partial[:, 1] - partial[:, 0]) + 0.2 * partial[:, 0] + noise
    curves = np.column_stack([partial, final])
    predictor = LearningCurvePredictor("least-squares")
    predictor.fit(features[:200], curves[:200])
    predicted, deviation = predictor.predict(features[200:], curves[200:, :2])
    assert deviation == pytest.approx(0.01, rel=0.15)
    assert np.std(predicted - final[200:]) == pytest.approx(0.01, rel=0.15)
    # After one epoch the second is not known: its part of the variance, 0.3 / sqrt(12), is left over.
    assert predictor.deviations[0] == pytest.approx(np.hypot(0.01, 0.3 / np.sqrt(12)), rel=0.15)
    assert predictor.deviations.shape == (2,)


@pytest.mark.slow
@pytest.mark.parametrize("regressor", REGRESSORS)
def test_every_regressor_beats_the_mean_and_knows_its_error(regressor) -> None:
    tokens = draw(260)
    curves = Curves().curves(tokens)
    features = architecture_features(SPACE, tokens, {})
    predictor = LearningCurvePredictor(regressor, candidates=4, folds=5)
    predictor.fit(features[:80], curves[:80])
    for epochs in (1, EPOCHS - 1):
        predicted, deviation = predictor.predict(features[80:], curves[80:, :epochs])
        error = np.sqrt(np.mean((predicted - curves[80:, -1]) ** 2))
        assert error < 0.5 * curves[80:, -1].std()
        assert 0.6 * error < deviation < 1.7 * error
    again = LearningCurvePredictor(regressor, candidates=4, folds=5)
    again.fit(features[:80], curves[:80])
    assert again.deviations.tolist() == predictor.deviations.tolist()


@pytest.mark.slow
def test_the_search_for_hyperparameters_helps() -> None:
    """Of more draws of the same stream the best cannot be worse, for the first epoch's regressor."""
    tokens = draw(60)
    features, curves = architecture_features(SPACE, tokens, {}), Curves().curves(tokens)[:, [0, -1]]
    deviations = []
    for candidates in (1, 4, 16):
        predictor = LearningCurvePredictor("nu-svr", candidates=candidates, folds=5)
        predictor.fit(features, curves)
        deviations.append(predictor.deviations[0])
    assert deviations == sorted(deviations, reverse=True)
    assert deviations[-1] < deviations[0]


def test_predictions_are_accuracies() -> None:
    predictor = LearningCurvePredictor("least-squares", folds=5)
    x = np.linspace(0.1, 0.5, 20)
    predictor.fit(np.zeros((20, 1)), np.column_stack([x, 2 * x]))
    predicted, _ = predictor.predict(np.zeros((2, 1)), np.array([[0.9], [-0.9]]))
    assert predicted.tolist() == [1.0, 0.0]


# ------------------------------------------------------------------ stopping


@pytest.mark.slow
def test_stopping_follows_its_rule() -> None:
    """Played again by hand: one architecture at a time, every prediction and every stop."""
    evaluator = stopping(threshold=0.1)
    first, rest = draw(40), draw(60, seed=1)
    before = evaluator.evaluate(first)
    assert not before.metrics["stopped"].any()
    assert np.isnan(before.metrics["predicted"]).all()
    assert before.accuracy.tolist() == Curves().evaluate(first).accuracy.tolist()
    features = lambda rows: architecture_features(SPACE, rows, {"flops": np.full(len(rows), 1e6)})  # noqa: E731
    unique = list(dict.fromkeys(map(tuple, first.tolist())))
    assert len(unique) == 40
    predictor = LearningCurvePredictor("nu-svr", candidates=3, folds=5)
    predictor.fit(features(first), Curves().curves(first))
    best = before.accuracy.max()
    for row in rest:
        tokens = row[None]
        curve = Curves().curves(tokens)
        told = evaluator.evaluate(tokens)
        for epochs in range(1, EPOCHS + 1):
            if epochs == EPOCHS:
                wanted, stopped = curve[0, -1], 0.0
                best = max(best, wanted)
                break
            predicted, deviation = predictor.predict(features(tokens), curve[:, :epochs])
            if norm.sf((best - predicted[0]) / deviation) < 0.1:
                wanted, stopped = predicted[0], 1.0
                break
        assert told.accuracy.tolist() == [wanted]
        assert told.metrics["stopped"].tolist() == [stopped]
        assert told.metrics["epochs"].tolist() == [epochs]
        assert told.metrics["predicted"].tolist() == predicted.tolist()
        assert evaluator.best == best


@pytest.mark.slow
def test_it_saves_and_keeps_the_best() -> None:
    tokens = draw(400)
    full = Curves().evaluate(tokens).accuracy
    evaluator = stopping(threshold=0.01, candidates=20)
    scored = [evaluator.evaluate(tokens[first : first + 20]) for first in range(0, 400, 20)]
    accuracy = np.concatenate([part.accuracy for part in scored])
    epochs = np.concatenate([part.metrics["epochs"] for part in scored])
    stopped = np.concatenate([part.metrics["stopped"] for part in scored]) > 0
    assert evaluator.best == full.max()
    assert accuracy.argmax() == full.argmax()
    assert accuracy[~stopped].tolist() == full[~stopped].tolist()
    assert evaluator.saved == pytest.approx(1 - epochs.mean() / EPOCHS)
    assert evaluator.saved > 0.4
    assert evaluator.evaluator.asked == epochs.sum(), "every epoch that was spared was not asked for"
    assert np.abs(accuracy[stopped] - full[stopped]).mean() < 0.03


@pytest.mark.slow
@pytest.mark.parametrize(("threshold", "stops"), [(0.0, False), (1.0, True)])
def test_the_extreme_thresholds(threshold, stops) -> None:
    evaluator = stopping(threshold=threshold)
    evaluator.evaluate(draw(40))
    scored = evaluator.evaluate(draw(30, seed=1))
    assert (scored.metrics["stopped"] == stops).all()
    assert (scored.metrics["epochs"] == (1 if stops else EPOCHS)).all()


@pytest.mark.slow
def test_a_higher_threshold_saves_more() -> None:
    saved = []
    for threshold in (0.01, 0.1, 0.4):
        evaluator = stopping(threshold=threshold)
        evaluator.evaluate(draw(40))
        evaluator.evaluate(draw(100, seed=1))
        saved.append(evaluator.saved)
    assert saved == sorted(saved)
    assert saved[0] < saved[-1]


@pytest.mark.slow
def test_a_batch_is_cut_where_the_predictor_has_learnt_enough() -> None:
    tokens = draw(70)
    whole, parts = stopping(), stopping()
    together = whole.evaluate(tokens)
    apart = [parts.evaluate(tokens[:40]), parts.evaluate(tokens[40:])]
    assert together.accuracy.tolist() == [*apart[0].accuracy, *apart[1].accuracy]
    assert together.metrics["stopped"][40:].any()


def test_failures_are_no_curves() -> None:
    evaluator = stopping(Curves(fails=True))
    tokens = draw(40)
    scored = evaluator.evaluate(tokens)
    assert (scored.failed == (tokens[:, 0] == 0)).all()
    assert scored.failed.sum() > 3
    assert (scored.metrics["epochs"][scored.failed] == 2).all()
    assert evaluator.predictor is None, "too few have been complete"
    evaluator.evaluate(draw(60, seed=1))
    assert evaluator.predictor is not None
    more = evaluator.evaluate(draw(60, seed=2))
    assert more.metrics["stopped"].any()
    assert not (more.failed & (more.metrics["stopped"] > 0)).any()
    assert len(evaluator._complete) >= 40


def test_repeated_architectures_are_learnt_once() -> None:
    evaluator = stopping()
    for _ in range(3):
        evaluator.evaluate(draw(20))
    assert evaluator.predictor is None
    evaluator.evaluate(draw(20, seed=1))
    assert evaluator.predictor is not None


def test_lower_fidelities_are_passed_on() -> None:
    evaluator = stopping()
    assert evaluator.fidelities == Curves.fidelities
    scored = evaluator.evaluate(draw(5), fidelity=0.5)
    assert scored.accuracy.tolist() == Curves().evaluate(draw(5), fidelity=0.5).accuracy.tolist()
    assert "stopped" not in scored.metrics
    assert evaluator.saved == 0.0


def test_nothing_is_asked_for_nothing() -> None:
    assert len(stopping().evaluate(draw(0))) == 0


@pytest.mark.slow
@pytest.mark.parametrize("cut", [0, 20, 40, 80])
def test_a_restored_evaluator_goes_on_identically(cut) -> None:
    tokens = draw(120)
    whole, started, restored = stopping(), stopping(), stopping()
    for first in range(0, 120, 20):
        reference = whole.evaluate(tokens[first : first + 20])
        if first < cut:
            started.evaluate(tokens[first : first + 20])
            continue
        if first == cut:
            restored.load_state_dict(json.loads(json.dumps(started.state_dict())))
        again = restored.evaluate(tokens[first : first + 20])
        assert again.accuracy.tolist() == reference.accuracy.tolist()
        assert again.metrics["epochs"].tolist() == reference.metrics["epochs"].tolist()
    assert restored.state_dict() == whole.state_dict()
    assert restored.saved == whole.saved


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 1.5}, r"threshold must be a probability, in \[0, 1\], got 1.5"),
        ({"complete": 4}, "complete must be at least 5, got 4"),
        ({"folds": 1}, "folds must be at least 2, got 1"),
        ({"candidates": 0}, "candidates must be at least 1, got 0"),
        ({"regressor": "svr"}, "regressor must be one of 'nu-svr', 'random-forest', 'least-squares'; got 'svr'"),
        ({"limit": 3}, "early stopping has no setting 'limit'; known: candidates, complete"),
    ],
)
def test_bad_settings(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        stopping(**settings)


def test_an_evaluator_without_fidelities_is_refused() -> None:
    with pytest.raises(ValueError, match="evaluator must have fidelities; FunctionEvaluator has none"):
        EarlyStoppingEvaluator(FunctionEvaluator(SPACE))
    with pytest.raises(ValueError, match="early_stopping must map settings"):
        make_evaluator("table", SPACE, "fashion-mnist", {"early_stopping": True})


# ------------------------------------------------------------------ with what it is for


def test_on_the_bundled_table() -> None:
    settings = {"complete": 50, "candidates": 5, "folds": 5}
    evaluator = make_evaluator("table", SPACE, "fashion-mnist", {"early_stopping": settings})
    table = evaluator.unwrapped
    tokens = draw(150)
    scored = evaluator.evaluate(tokens)
    assert evaluator.saved > 0.2
    assert evaluator.best == table.evaluate(tokens).accuracy[scored.metrics["stopped"] == 0].max()
    spent = table.evaluate(tokens).metrics["seconds"] * scored.metrics["epochs"] / 5
    np.testing.assert_allclose(scored.metrics["seconds"], spent)


def test_with_costs() -> None:
    """Failing by a limit is failing; its missing metrics do no harm."""
    table = make_evaluator("table", SPACE, "fashion-mnist")
    limit = float(np.median(table.evaluate(draw(150)).metrics["flops"]))
    evaluator = stopping(CostEvaluator(table, metrics=(), limits={"flops": limit}))
    for seed in range(4):
        scored = evaluator.evaluate(draw(60, seed=seed))
    assert scored.failed.any()
    assert scored.metrics["stopped"].any()


@pytest.mark.slow
def test_from_scratch_trains_no_epoch_in_vain(monkeypatch) -> None:
    from nas_gym.evaluators import training

    torch.set_num_threads(1)
    epochs = []
    train = training.TrainingRun._train_epoch
    monkeypatch.setattr(training.TrainingRun, "_train_epoch", lambda run: epochs.append(1) or train(run))
    settings = {"complete": 6, "candidates": 1, "folds": 3, "threshold": 0.3, "regressor": "least-squares"}
    evaluator = make_evaluator(
        "from-scratch",
        SPACE,
        "digits",
        {
            "device": "cpu",
            "train_images": 60,
            "score_images": 60,
            "network": {"channels": 2, "reductions": 1},
            "training": {"epochs": 3, "batch_size": 30},
            "early_stopping": settings,
        },
    )
    scored = evaluator.evaluate(draw(12))
    assert sum(epochs) == scored.metrics["epochs"].sum()
    assert scored.metrics["stopped"].any()


@pytest.mark.slow
def test_a_run_is_taken_up_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search with early stopping, cut in the middle, ends as one that was not."""
    from rich.console import Console

    from nas_gym.experiments.run.progress import Interrupted
    from nas_gym.experiments.run.recorder import Recorder

    config = RunConfig(
        env="NAS-Bench201-v0",
        agent="regularized-evolution",
        trials=60,
        num_envs=5,
        env_kwargs={"evaluator_kwargs": {"early_stopping": {"complete": 20, "candidates": 2, "folds": 5}}},
    )
    Run(tmp_path / "whole", config, Console(quiet=True)).execute()

    class Stop(Recorder):
        def after_trials(self, agent: Any, trials: Any, statistics: Any) -> Any:
            self.stop.extend([2] if agent.trials == 35 else [])
            return super().after_trials(agent, trials, statistics)

    with monkeypatch.context() as patch:
        patch.setattr("nas_gym.experiments.run.run.Recorder", Stop)
        with pytest.raises(Interrupted):
            Run(tmp_path / "cut", config, Console(quiet=True)).execute()
    Run(tmp_path / "cut", console=Console(quiet=True)).execute()
    assert (tmp_path / "cut" / "trials.csv").read_bytes() == (tmp_path / "whole" / "trials.csv").read_bytes()
    result = read_trials(tmp_path / "whole")
    assert result.metrics["stopped"].any()
