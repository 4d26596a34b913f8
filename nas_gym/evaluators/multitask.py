"""Several tasks at once: an evaluator for each, and a schedule for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nas_gym.evaluators.evaluator import Evaluations, Evaluator, Schedule
from nas_gym.spaces import Tokens


class MultiTaskEvaluator(Evaluator):
    """The evaluators of several tasks that share one search space.

    An environment asks the evaluator of the task that an episode is on. This one speaks for all of them: `evaluate`
    gives the mean over the tasks.

    Args:
        evaluators: one for each task, by its name.

    Attributes:
        evaluators: these, in the order of the tasks.
        stateful: whether any of them is.
        objective: theirs, if all have the same; else the accuracy.
        fidelities: those that all of them offer.

    Raises:
        ValueError: there is none, or their spaces differ.
    """

    def __init__(self, evaluators: Mapping[str, Evaluator]) -> None:
        if not evaluators:
            raise ValueError("evaluators must hold one for each task, got none")
        self.evaluators = dict(evaluators)
        (first, one), *others = self.evaluators.items()
        super().__init__(one.space)
        alike = [first, *(task for task, other in others if other.space == one.space)]
        for task, other in others:
            if task not in alike:
                raise ValueError(
                    f"tasks must share one search space: that of {task!r} is {other.space}, that of {first!r} "
                    f"{one.space}; of the tasks given, {', '.join(alike)} share the latter"
                )
        self.stateful = any(evaluator.stateful for evaluator in self.evaluators.values())
        objectives = {evaluator.unwrapped.objective for evaluator in self.evaluators.values()}
        self.objective = objectives.pop() if len(objectives) == 1 else Evaluator.objective
        common = set.intersection(*(set(evaluator.fidelities) for evaluator in self.evaluators.values()))
        self.fidelities = tuple(sorted(common)) if len(common) > 1 else ()

    @property
    def steps(self) -> int:
        """Optimiser steps of all tasks' shared weights together."""
        return sum(int(getattr(evaluator.unwrapped, "steps", 0)) for evaluator in self.evaluators.values())

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        """The means over the tasks; failed where one of them fails. The metrics are those that all tasks have."""
        each = [
            evaluator.evaluate(tokens, fidelity=fidelity, parents=parents) for evaluator in self.evaluators.values()
        ]
        return mean_over_tasks(each)

    def fingerprint(self) -> dict[str, Any]:
        tasks = {task: evaluator.fingerprint() for task, evaluator in self.evaluators.items()}
        return {"evaluator": "multitask", "tasks": tasks}

    def state_dict(self) -> dict[str, Any]:
        return {task: evaluator.state_dict() for task, evaluator in self.evaluators.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for task, evaluator in self.evaluators.items():
            evaluator.load_state_dict(state[task])


class MultiTaskSchedule(Schedule):
    """A schedule for each task. An environment scores what it finishes by that of the task, each with its own weights.

    Args:
        schedules: one for each task, by its name.

    Attributes:
        schedules: these, in the order of the tasks.
        evaluator: the evaluators of all.

    Raises:
        ValueError: there is none, or their spaces differ.
    """

    evaluator: MultiTaskEvaluator

    def __init__(self, schedules: Mapping[str, Schedule]) -> None:
        self.schedules = dict(schedules)
        super().__init__(MultiTaskEvaluator({task: schedule.evaluator for task, schedule in schedules.items()}))

    @property
    def trials(self) -> int:
        """Architectures scored so far, on all tasks."""
        return sum(schedule.trials for schedule in self.schedules.values())

    @property
    def statistics(self) -> dict[str, float]:
        """The statistics of every task, ``weights/loss`` as ``weights/digits/loss``."""
        each = [_of_task(task, schedule.statistics) for task, schedule in self.schedules.items()]
        return {name: value for statistics in each for name, value in statistics.items()}

    def quality(self) -> dict[str, float]:
        """That of every task."""
        each = [_of_task(task, schedule.quality()) for task, schedule in self.schedules.items()]
        return {name: value for found in each for name, value in found.items()}

    def prepare(self) -> Iterator[dict[str, float]]:
        """Does the training that is due on every task, one task after the other."""
        left = [float(getattr(schedule, "pending_steps", 0)) for schedule in self.schedules.values()]
        for number, (task, schedule) in enumerate(self.schedules.items(), start=1):
            for statistics in schedule.prepare():
                pending = statistics["pending_steps"] + sum(left[number:])
                yield {**_of_task(task, statistics), "pending_steps": pending}

    def score(self, tokens: Tokens, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        """Scores on every task, by its schedule; the means over the tasks, as `MultiTaskEvaluator.evaluate`."""
        return mean_over_tasks([schedule.score(tokens, fidelity, parents) for schedule in self.schedules.values()])

    def state_dict(self) -> dict[str, Any]:
        return {task: schedule.state_dict() for task, schedule in self.schedules.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for task, schedule in self.schedules.items():
            schedule.load_state_dict(state[task])


def mean_over_tasks(each: Sequence[Evaluations]) -> Evaluations:
    """The means of evaluations of the same architectures; failed where one of them is. The metrics that all have."""
    failed = np.any([one.failed for one in each], axis=0)
    accuracy = np.where(failed, 0.0, np.mean([one.accuracy for one in each], axis=0))
    names = [name for name in each[0].metrics if all(name in one.metrics for one in each)]
    metrics = {name: np.mean([one.metrics[name] for one in each], axis=0) for name in names}
    reasons = tuple("; ".join(filter(None, row)) for row in zip(*(one.reasons for one in each), strict=True))
    return Evaluations(accuracy, metrics, failed, reasons)


def _of_task(task: str, statistics: Mapping[str, float]) -> dict[str, float]:
    """Scalars to log, with the task in their tags."""
    tags = {name: name.partition("/") for name in statistics if "/" in name}
    return {f"{group}/{task}/{name}": statistics[tag] for tag, (group, _, name) in tags.items()}
