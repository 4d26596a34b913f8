"""What the settings of a run come to: those that its configuration leaves to defaults, and those that follow from it.

config.yaml holds them behind the configuration, so that a run can be understood from that file alone.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from nas_gym.agents import Agent
from nas_gym.evaluators import Evaluator, MultiTaskSchedule, Schedule
from nas_gym.experiments.run.config import RunConfig

CHANGING = ("device", "versions")  # they may differ when a run goes on


def resolve(config: RunConfig, agent: Agent) -> dict[str, Any]:
    """All settings of a run, in the types of JSON.

    Args:
        config: what the run is asked to do.
        agent: what it searches with, in the environment as the configuration makes it.
    """
    problem = agent.problem
    env: Any = agent.env.unwrapped
    found = {
        "num_envs": problem.num_envs,
        "hyperparameters": dataclasses.asdict(agent.hyperparameters),
        "space": problem.space.to_dict(),
        "objective": _objective(getattr(env, "objective", None)),
        "evaluator": _evaluator(problem.evaluator),
        "schedule": _schedule(problem.schedule),
        "comparison": _comparison(config, problem.evaluator.unwrapped),
    }
    plain: dict[str, Any] = json.loads(json.dumps(_lasting(found), default=str))
    return plain


def _lasting(value: Any) -> Any:
    """A value without what may change when a run goes on."""
    if not isinstance(value, Mapping):
        return value
    return {key: _lasting(inner) for key, inner in value.items() if key not in CHANGING}


def _objective(objective: Any) -> dict[str, Any]:
    fields = dataclasses.fields(objective) if dataclasses.is_dataclass(objective) else ()
    values = {field.name: getattr(objective, field.name) for field in fields}
    return {"name": getattr(objective, "name", None), **{k: v for k, v in values.items() if not callable(v)}}


def _evaluator(evaluator: Evaluator) -> dict[str, Any]:
    try:
        return evaluator.fingerprint()
    except ValueError:  # latency is measured, or another package's evaluator does not tell
        inner = getattr(evaluator, "evaluator", None)
        own = {name: list(getattr(evaluator, name)) for name in ("metrics",) if hasattr(evaluator, name)}
        return {"evaluator": type(evaluator).__name__, **own, **({} if inner is None else {"of": _evaluator(inner)})}


def _schedule(schedule: Schedule) -> dict[str, Any] | None:
    """None where nothing is trained by a schedule."""
    if isinstance(schedule, MultiTaskSchedule):
        return _schedule(next(iter(schedule.schedules.values())))
    settings = getattr(schedule, "settings", None)
    return None if settings is None else {"name": type(schedule).__name__, **dataclasses.asdict(settings)}


def _comparison(config: RunConfig, evaluator: Any) -> dict[str, Any] | None:
    """How networks are trained in the end; None where none are."""
    if config.retrain_epochs == 0 or not evaluator.trains or not hasattr(evaluator, "task"):
        return None
    from nas_gym.experiments.run.trainings import default_training

    training, examples = default_training(len(evaluator.task.train), config.retrain_epochs)
    return {**dataclasses.asdict(training), "examples": examples}
