"""When shared weights train, and on which architectures: a schedule is a file here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nas_gym.evaluators.evaluator import Evaluator, Schedule
from nas_gym.evaluators.schedules.enas import EnasSchedule
from nas_gym.evaluators.schedules.fair import FairSchedule
from nas_gym.evaluators.schedules.few_shot import FewShotSchedule
from nas_gym.evaluators.schedules.interleaved import InterleavedSchedule
from nas_gym.evaluators.schedules.sandwich import SandwichSchedule
from nas_gym.evaluators.schedules.settings import ScheduleSettings
from nas_gym.evaluators.schedules.uniform import UniformSchedule
from nas_gym.settings import check_seed, from_mapping, unknown

SCHEDULES: dict[str, Callable[[Evaluator, ScheduleSettings, int], Schedule]] = {
    "enas": EnasSchedule,
    "fair": FairSchedule,
    "few-shot": FewShotSchedule,
    "interleaved": InterleavedSchedule,
    "sandwich": SandwichSchedule,
    "uniform": UniformSchedule,
}

DEFAULT_SCHEDULE = "uniform"
"""The schedule where none is named."""

__all__ = [
    "DEFAULT_SCHEDULE",
    "SCHEDULES",
    "EnasSchedule",
    "FairSchedule",
    "FewShotSchedule",
    "InterleavedSchedule",
    "SandwichSchedule",
    "ScheduleSettings",
    "UniformSchedule",
    "make_schedule",
]


def make_schedule(spec: Schedule | str | Mapping[str, Any], evaluator: Evaluator) -> Schedule:
    """Makes the schedule of an evaluator.

    Args:
        spec: a schedule; one of the names in `SCHEDULES`; or a mapping with ``name``, ``seed`` and the fields of
            `ScheduleSettings`. An evaluator that `update` does not train, or that an agent trains, is never trained,
            whatever the name.
        evaluator: what it trains and scores with.

    Raises:
        ValueError: an unknown name or field, or a schedule that the space or the evaluator does not admit.
    """
    if isinstance(spec, Schedule):
        return spec
    fields: dict[str, Any] = {"name": spec} if isinstance(spec, str) else dict(spec)
    name, seed = fields.pop("name", DEFAULT_SCHEDULE), fields.pop("seed", 0)
    if name not in SCHEDULES:
        raise ValueError(unknown("schedule", name, SCHEDULES))
    check_seed(seed, "seed of the schedule")
    settings = from_mapping(ScheduleSettings, fields, f"schedule {name!r}", "field")
    scheduled = evaluator.has_shared_weights and not evaluator.unwrapped.relaxed
    return SCHEDULES[name](evaluator, settings, seed) if scheduled else Schedule(evaluator)
