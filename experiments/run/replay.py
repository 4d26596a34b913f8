"""Going on with a deterministic run: it is played again from its seed, and trials on record are not evaluated again."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from nas_gym.agents import SearchResult
from nas_gym.evaluators import Evaluations, Evaluator, MultiTaskSchedule, Schedule
from nas_gym.evaluators.evaluator import concatenate
from nas_gym.spaces import Tokens


class RecordedEvaluator(Evaluator):
    """Answers what is on record from the record, and asks the evaluator for the rest only.

    Args:
        rows: the trials on record.
        evaluator: a deterministic evaluator.
    """

    def __init__(self, rows: SearchResult, evaluator: Evaluator) -> None:
        super().__init__(evaluator.space)
        self.rows, self.evaluator = rows, evaluator
        self.fidelities = evaluator.fidelities
        keys = zip((row.tobytes() for row in rows.tokens), rows.fidelities.tolist(), strict=True)
        self._index = {key: index for index, key in enumerate(keys)}

    @property
    def unwrapped(self) -> Evaluator:
        return self.evaluator.unwrapped

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        share = 1.0 if fidelity is None else fidelity
        found = np.array([self._index.get((row.tobytes(), share), -1) for row in tokens], dtype=np.int64)
        recorded = self._on_record(found[found >= 0])
        if (found >= 0).all():
            return recorded
        fresh = self.evaluator.evaluate(tokens[found < 0], fidelity=fidelity, parents=parents)
        # Where each row stands once the fresh ones follow those on record.
        order = np.argsort(np.argsort(found < 0, kind="stable"))
        return concatenate([recorded, fresh]).rows(order)

    def _on_record(self, index: NDArray[np.int64]) -> Evaluations:
        # The schedule that asks adds the fidelity, the environment the task.
        known = self.rows.metrics.items()
        columns = {name: column[index] for name, column in known if name not in ("fidelity", "task")}
        accuracy, failed = columns.pop("accuracy"), columns.pop("failed") > 0
        return Evaluations(accuracy, columns, failed, ("on record",) * len(index))


def answer_from_record(schedule: Schedule, rows: SearchResult) -> None:
    """Has a schedule ask its evaluator only for what is not on record; with many tasks, each has its own record."""
    if not len(rows):
        return
    if not isinstance(schedule, MultiTaskSchedule):
        schedule.evaluator = RecordedEvaluator(rows, schedule.evaluator)
        return
    for number, own in enumerate(schedule.schedules.values()):
        trials = rows.rows(rows.metrics["task"] == number)
        # A metric that no trial of a task has is one of other tasks.
        metrics = {name: column for name, column in trials.metrics.items() if not np.isnan(column).all()}
        answer_from_record(own, dataclasses.replace(trials, metrics=metrics))
