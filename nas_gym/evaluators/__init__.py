"""Architectures in, evaluations out. Evaluators that need torch are imported when they are made."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from nas_gym.evaluators.evaluator import Evaluations, Evaluator, FunctionEvaluator, Schedule
from nas_gym.evaluators.objective import OBJECTIVES, Objective, make_objective
from nas_gym.evaluators.schedule import SCHEDULES, ScheduleSettings, make_schedule
from nas_gym.spaces import SearchSpace

EVALUATORS: dict[str, str] = {
    "constant": "nas_gym.evaluators.evaluator:FunctionEvaluator",
    "morphism": "nas_gym.evaluators.morphism:MorphismEvaluator",
    "shared-weights": "nas_gym.evaluators.shared_weights:SharedWeightEvaluator",
    "table": "nas_gym.evaluators.tabular:TabularEvaluator",
}

TRAINERS = frozenset({"shared-weights", "morphism"})
"""Evaluators that train networks on a task: they take `task`, `seed`, `device`, `data_dir` and `download`."""


def make_evaluator(
    spec: Evaluator | str, space: SearchSpace, task: str | None = None, kwargs: Mapping[str, Any] | None = None
) -> Evaluator:
    """Makes an evaluator.

    Args:
        spec: an evaluator, or the name of one.
        space: the search space.
        task: the name of the task, for evaluators that train on one or look it up.
        kwargs: further arguments of the evaluator.

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
    made: Evaluator = evaluator(space, **arguments)
    return made


__all__ = [
    "EVALUATORS",
    "OBJECTIVES",
    "SCHEDULES",
    "TRAINERS",
    "Evaluations",
    "Evaluator",
    "FunctionEvaluator",
    "Objective",
    "Schedule",
    "ScheduleSettings",
    "make_evaluator",
    "make_objective",
    "make_schedule",
]
