"""Errors of an evaluator, as a run is asked to take them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from nas_gym.evaluators import Evaluations, EvaluationStore, FunctionEvaluator, GuardedEvaluator, StoredEvaluator
from nas_gym.experiments.run import Run, RunConfig, read_trials
from nas_gym.spaces import Bench201Space, Tokens

SPACE = Bench201Space()
TOKENS = SPACE.sample(np.random.default_rng(0), 8)
CONFIG = RunConfig(env="NAS-Bench201-v0", agent="random", trials=12, num_envs=4, env_kwargs={"evaluator": "constant"})


class Faulty(FunctionEvaluator):
    """Raises on some architectures, as often as `faults` says; its accuracies are the sums of the tokens.

    Attributes:
        asked: how often each was asked for.
    """

    def __init__(self, faults: dict[tuple[int, ...], int]) -> None:
        super().__init__(SPACE, lambda tokens: tokens.sum(axis=1) / 24, name="sums")
        self.left, self.asked = dict(faults), dict[tuple[int, ...], int]()

    def evaluate(self, tokens: Tokens, **given: Any) -> Evaluations:
        for row in map(tuple, tokens.tolist()):
            self.asked[row] = self.asked.get(row, 0) + 1
            if self.left.get(row, 0) > 0:
                self.left[row] -= 1
                raise RuntimeError(f"cannot build {row}")
        return super().evaluate(tokens, **given)


class Counting(Faulty):
    """Counts what it has evaluated, and its accuracies are the counts: a state that an error leaves half changed."""

    stateful = True
    count = 0

    def evaluate(self, tokens: Tokens, **given: Any) -> Evaluations:
        counts = []
        for row in tokens:
            self.count += 1
            counts.append(self.count / 100)
            super().evaluate(row[None])
        return Evaluations(np.array(counts))

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


def key(row: int) -> tuple[int, ...]:
    return tuple(TOKENS[row].tolist())


def test_only_the_architecture_with_the_error_fails() -> None:
    found = GuardedEvaluator(Faulty({key(2): 100})).evaluate(TOKENS)
    assert np.flatnonzero(found.failed).tolist() == [2]
    assert found.reasons[2] == f"raised RuntimeError: cannot build {key(2)}"
    expected = np.where(np.arange(8) == 2, 0.0, TOKENS.sum(axis=1) / 24)
    np.testing.assert_array_equal(found.accuracy, expected)


@pytest.mark.parametrize(("faults", "retries", "failed"), [(2, 1, False), (3, 1, True), (4, 3, False), (5, 3, True)])
def test_retries(faults: int, retries: int, failed: bool) -> None:
    """The first error is the batch's, the next one the architecture's own."""
    evaluator = Faulty({key(5): faults})
    found = GuardedEvaluator(evaluator, retries).evaluate(TOKENS)
    assert found.failed.tolist() == [failed and row == 5 for row in range(8)]
    assert evaluator.asked[key(5)] == 2 + retries


def test_an_error_leaves_no_trace_in_a_state() -> None:
    found = GuardedEvaluator(Counting({key(3): 2}), retries=1).evaluate(TOKENS)
    np.testing.assert_array_equal(found.accuracy, np.arange(1, 9) / 100)
    guarded = GuardedEvaluator(Counting({key(3): 9}))
    np.testing.assert_array_equal(guarded.evaluate(TOKENS).accuracy, np.array([1, 2, 3, 0, 4, 5, 6, 7]) / 100)
    assert guarded.state_dict() == {"count": 7}


def test_a_store_keeps_no_raised_error(tmp_path: Path) -> None:
    evaluator = Faulty({key(1): 2})
    stored = StoredEvaluator(GuardedEvaluator(evaluator), EvaluationStore(tmp_path / "store"))
    assert stored.evaluate(TOKENS).failed.any()
    assert not stored.evaluate(TOKENS).failed.any()


def run_with(folder: Path, faults: int, **changes: Any) -> Run:
    """A run whose evaluator raises on its sixth architecture, so many times."""
    run = Run(folder, dataclasses.replace(CONFIG, **changes), Console(quiet=True))
    rng = np.random.default_rng(0)
    sixth = np.concatenate([SPACE.sample(rng, 4) for _ in range(3)])[5]
    faulty = Faulty({tuple(sixth.tolist()): faults})
    guarded = run.problem.schedule.evaluator
    if isinstance(guarded, GuardedEvaluator):
        guarded.evaluator = faulty
    else:
        run.problem.schedule.evaluator = faulty
    return run


def test_a_run_fails_the_trial_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_with(tmp_path / "run", 9, on_error="fail").execute()
    trials = read_trials(tmp_path / "run")
    assert np.flatnonzero(trials.metrics["failed"]).tolist() == [5]
    assert (len(trials), trials.rewards[5]) == (12, 0.0)
    assert "failed trial (raised RuntimeError: cannot build" in caplog.text
    assert json.loads((tmp_path / "run" / "best.json").read_text())["best"]["trial"] != 5


def test_a_run_tries_again(tmp_path: Path) -> None:
    run_with(tmp_path / "retried", 3, on_error="retry", retries=2).execute()
    run_with(tmp_path / "whole", 0).execute()
    found, expected = ((tmp_path / name / "trials.csv").read_text() for name in ("retried", "whole"))
    assert found == expected


def test_a_run_stops_where_it_is_not_asked_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="cannot build"):
        run_with(tmp_path / "run", 1).execute()


def test_wrong_arguments_stop_before_the_search(tmp_path: Path) -> None:
    config = RunConfig(env="NAS-Bench201-v0", task="mars", on_error="fail")
    with pytest.raises(ValueError, match="mars"):
        Run(tmp_path / "run", config, Console(quiet=True))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("retries", [-1, 1.5, True])
def test_retries_are_a_number(retries: Any) -> None:
    with pytest.raises(ValueError, match=r"retries must be an integer that is not negative, got"):
        GuardedEvaluator(FunctionEvaluator(SPACE), retries)
