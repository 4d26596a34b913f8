"""Architectures in, evaluations out. Evaluators that need torch are imported when they are made."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from nas_gym.evaluators.distributed import DistributedEvaluator
from nas_gym.evaluators.evaluator import Evaluations, Evaluator, FunctionEvaluator, Schedule
from nas_gym.evaluators.multitask import MultiTaskEvaluator, MultiTaskSchedule
from nas_gym.evaluators.objective import OBJECTIVES, AccuracyObjective, Objective, make_objective
from nas_gym.evaluators.schedule import SCHEDULES, ScheduleSettings, make_schedule
from nas_gym.evaluators.store import EvaluationStore, StoredEvaluator
from nas_gym.spaces import SearchSpace

EVALUATORS: dict[str, str] = {
    "constant": "nas_gym.evaluators.evaluator:FunctionEvaluator",
    "from-scratch": "nas_gym.evaluators.from_scratch:FromScratchEvaluator",
    "morphism": "nas_gym.evaluators.morphism:MorphismEvaluator",
    "shared-weights": "nas_gym.evaluators.shared_weights:SharedWeightEvaluator",
    "table": "nas_gym.evaluators.tabular:TabularEvaluator",
}

TRAINERS = frozenset({"from-scratch", "shared-weights", "morphism"})
"""Evaluators that train networks on a task: they take `task`, `seed`, `device`, `data_dir` and `download`."""


def make_evaluator(
    spec: Evaluator | str, space: SearchSpace, task: str | None = None, kwargs: Mapping[str, Any] | None = None
) -> Evaluator:
    """Makes an evaluator.

    Args:
        spec: an evaluator, or the name of one.
        space: the search space.
        task: the name of the task, for evaluators that train on one or look it up.
        kwargs: further arguments of the evaluator. With ``cost``, a mapping of the arguments of `CostEvaluator`, the
            evaluator also tells what networks cost, and limits it; with ``early_stopping``, a mapping of the arguments
            of `EarlyStoppingEvaluator`, trainings are stopped that will hardly be the best.

    Raises:
        ValueError: an unknown name, or an evaluator of another space.
    """
    if isinstance(spec, Evaluator):
        if spec.space != space:
            raise ValueError(f"the evaluator is of space {spec.space!r}, the environment of {space!r}")
        if kwargs:
            raise ValueError(f"evaluator_kwargs {sorted(kwargs)} need an evaluator's name, not an evaluator")
        return spec
    if spec not in EVALUATORS:
        raise ValueError(f"unknown evaluator {spec!r}; known: {', '.join(EVALUATORS)}")
    module, _, name = EVALUATORS[spec].partition(":")
    evaluator = getattr(importlib.import_module(module), name)
    arguments = dict(kwargs or {})
    if spec in TRAINERS or spec == "table":
        arguments["task"] = task
    cost, early_stopping = arguments.pop("cost", None), arguments.pop("early_stopping", None)
    made: Evaluator = evaluator(space, **arguments)
    if cost is not None:
        made = _with_costs(made, cost)
    return made if early_stopping is None else _with_early_stopping(made, early_stopping)


def _with_costs(evaluator: Evaluator, arguments: Mapping[str, Any]) -> Evaluator:
    from nas_gym.evaluators.cost import CostEvaluator

    try:
        return CostEvaluator(evaluator, **arguments)
    except TypeError as error:
        raise ValueError(f"cost must map some of metrics, limits, latency; got {arguments!r}") from error


def _with_early_stopping(evaluator: Evaluator, arguments: Any) -> Evaluator:
    from nas_gym.evaluators.learning_curve import EarlyStoppingEvaluator

    if not isinstance(arguments, Mapping):
        raise ValueError(f"early_stopping must map settings of EarlyStoppingEvaluator to values, got {arguments!r}")
    return EarlyStoppingEvaluator(evaluator, **arguments)


__all__ = [
    "EVALUATORS",
    "OBJECTIVES",
    "SCHEDULES",
    "TRAINERS",
    "AccuracyObjective",
    "DistributedEvaluator",
    "EvaluationStore",
    "Evaluations",
    "Evaluator",
    "FunctionEvaluator",
    "MultiTaskEvaluator",
    "MultiTaskSchedule",
    "Objective",
    "Schedule",
    "ScheduleSettings",
    "StoredEvaluator",
    "make_evaluator",
    "make_objective",
    "make_schedule",
]
