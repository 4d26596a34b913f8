"""What the runs of a benchmark came to, trial by trial."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_gym.agents.pareto import COSTS
from nas_gym.agents.result import SearchResult
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.experiments.benchmark.jobs import run_folder
from nas_gym.experiments.benchmark.suite import Environment, Suite, open_evaluator
from nas_gym.experiments.run.record import RECORD, read_rows
from nas_gym.files import read_json
from nas_gym.spaces import Tokens
from nas_gym.types import Floats


@dataclass(frozen=True)
class RunResult:
    """A finished run, trial by trial, each with the incumbent: the best architecture so far, by what the search saw.

    Attributes:
        environment: what was played.
        label: of the agent.
        seed: of the run.
        score: what the run is scored by after each trial, float64[trials]: `validation_score`, or where the suite
            measures what is played, the mean of `played` over the last tenth of the trials.
        played: the normalised validation accuracy of each trial itself, float64[trials]: 0 is the mean architecture and
            1 the table's best; that of the worst where a trial has failed.
        validation: the incumbent's validation accuracy of full training, float64[trials].
        validation_score: that, normalised so that 0 is the mean architecture and 1 the table's best.
        test: the incumbent's test accuracy, float64[trials]; None where the table has none.
        test_score: that, normalised among test accuracies.
        simulated_seconds: what the trainings so far would have taken, float64[trials]; None where the table does not
            tell.
        unique_architectures: how many different sequences were tried.
        failed: how many trials failed.
        wall_seconds: from the run's start to its end.
        cpu_seconds: of processor time, whatever else the machine did.
        entropy: of the policy at the end, in nats; None for an agent without one.
        finished: when it ended, in ISO 8601, UTC.
        version: of nas_gym.
        cost: the metric of `COSTS` that the table has; None where it has none.
        points: validation accuracy and cost of the trials of full training that did not fail, float64[n, 2].
        tokens: their architectures, int64[n, T].
    """

    environment: Environment
    label: str
    seed: int
    score: Floats
    played: Floats
    validation: Floats
    validation_score: Floats
    test: Floats | None
    test_score: Floats | None
    simulated_seconds: Floats | None
    unique_architectures: int
    failed: int
    wall_seconds: float
    cpu_seconds: float
    finished: str
    version: str
    entropy: float | None = None
    cost: str | None = None
    points: Floats | None = None
    tokens: Tokens | None = None

    def row(self) -> dict[str, Any]:
        """The run's line in results.csv; nothing where a number is not known."""
        return {
            "environment": self.environment.id,
            "task": self.environment.task,
            "agent": self.label,
            "seed": self.seed,
            "trials": len(self.validation),
            "score": float(self.score[-1]),
            "area_under_curve": float(self.played.mean()),
            "entropy": self.entropy,
            "validation_accuracy": float(self.validation[-1]),
            "test_accuracy": None if self.test is None else float(self.test[-1]),
            "validation_score": float(self.validation_score[-1]),
            "test_score": None if self.test_score is None else float(self.test_score[-1]),
            "unique_architectures": self.unique_architectures,
            "failed_trials": self.failed,
            "simulated_seconds": None if self.simulated_seconds is None else float(self.simulated_seconds[-1]),
            "wall_seconds": round(self.wall_seconds, 4),
            "cpu_seconds": round(self.cpu_seconds, 4),
        }

    def after(self, share: float) -> float:
        """The score when this share of the trials was over, at least one."""
        return float(self.score[max(int(share * len(self.score)), 1) - 1])

    def trials_to(self, score: float) -> float:
        """The trials until the best architecture had this normalised validation accuracy; infinity if none had."""
        reached = self.validation_score >= score
        return float(reached.argmax() + 1) if reached.any() else math.inf


def read_results(suite: Suite, out: Path) -> list[RunResult]:
    """Reads the finished runs of a suite."""
    folders = {(env, entry.label, seed): run_folder(out, env, entry, seed) for env, entry, seed in suite.runs()}
    return [
        _read_result(suite.measure, folder, *key) for key, folder in folders.items() if (folder / "run.json").exists()
    ]


def _read_result(measure: str, folder: Path, environment: Environment, label: str, seed: int) -> RunResult:
    evaluator = open_evaluator(environment)
    trials = read_rows(folder / RECORD).trials(evaluator.space).result
    best = trials.tokens[incumbents(trials)]
    validation = evaluator.evaluate(best).accuracy
    tested = evaluator.table.array(environment.task, "test") is not None
    score = evaluator.normalised_score(validation)
    if np.isnan(score[-1]):
        raise ValueError(
            f"{str(folder)!r} has no score: every trial failed, or all architectures of {environment} are equal"
        )
    test = evaluator.test(best) if tested else None
    played = _played(evaluator, trials)
    seconds = trials.metrics.get("seconds")
    cost = next((name for name in COSTS if name in trials.metrics), None)
    points, sound = (None, None) if cost is None else _points(trials, cost)
    record = read_json(folder / "run.json")
    return RunResult(
        environment,
        label,
        seed,
        score=score if measure == "best" else _recent_mean(played),
        played=played,
        validation=validation,
        validation_score=score,
        test=test,
        test_score=None if test is None else evaluator.normalised_score(test, "test"),
        simulated_seconds=None if seconds is None else np.cumsum(np.nan_to_num(seconds)),
        unique_architectures=trials.unique_architectures,
        failed=int(trials.metrics["failed"].sum()),
        wall_seconds=record["wall_seconds"],
        cpu_seconds=record["cpu_seconds"],
        finished=record["finished"],
        version=record["nas_gym"],
        entropy=record.get("entropy"),
        cost=cost,
        points=points,
        tokens=None if sound is None else trials.tokens[sound],
    )


def _played(evaluator: TabularEvaluator, trials: SearchResult) -> Floats:
    """The normalised validation accuracy of full training of each trial; that of the worst where there is none."""
    worst = evaluator.normalised_score(np.array([evaluator.reference()[2]]))
    scores: Floats = evaluator.normalised_score(evaluator.evaluate(trials.tokens).accuracy)
    return np.where(np.isnan(scores), worst, scores)


def _recent_mean(values: Floats) -> Floats:
    """The mean over the last tenth of all values, or over those that there are, up to each, float64[n]."""
    window = max(len(values) // 10, 1)
    sums = np.cumsum(values)
    recent: Floats = sums.copy()
    recent[window:] -= sums[:-window]
    return recent / np.minimum(np.arange(1, len(values) + 1), window)


def _points(trials: SearchResult, cost: str) -> tuple[Floats, NDArray[np.bool_]]:
    """Accuracy and cost of the trials that count, and which those are."""
    points: Floats = np.column_stack([trials.metrics["accuracy"], trials.metrics[cost]])
    sound = np.isfinite(points).all(axis=1) & ~(trials.metrics["failed"] > 0) & (trials.fidelities == 1)
    return points[sound], sound


def incumbents(trials: SearchResult) -> NDArray[np.int64]:
    """The best trial so far, int64[n]: the highest reward among those of the highest fidelity, the first on ties."""
    best, found = 0, []
    for trial, key in enumerate(keys := list(zip(trials.fidelities, trials.rewards, strict=True))):
        best = trial if key > keys[best] else best
        found.append(best)
    return np.array(found, dtype=np.int64)
