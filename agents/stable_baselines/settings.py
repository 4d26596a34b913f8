"""The hyperparameters of the algorithms of Stable-Baselines3 and sb3-contrib."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import LinearSchedule

from nas_gym.agents.agent import NUM_ENVS

RENAMED = {"batch_size": "minibatch_size"}  # in every agent, `batch_size` counts architectures
GIVEN = {
    *("self", "policy", "env", "seed", "device", "_init_setup_model"),  # by the agent
    *("n_steps", "train_freq"),  # by `batch_size`; but see `settings_of`
    *("verbose", "tensorboard_log", "stats_window_size"),  # the agent's user logs
    *("use_sde", "sde_sample_freq"),  # continuous actions
    *("rollout_buffer_class", "rollout_buffer_kwargs", "replay_buffer_class", "replay_buffer_kwargs"),
    "optimize_memory_usage",
}
SCHEDULES = {"learning_rate", "clip_range", "clip_range_vf"}
SHARES = {"gamma", "gae_lambda", "tau", "exploration_fraction", "exploration_initial_eps", "exploration_final_eps"}
FROM_ZERO = {"learning_starts"}
FROM_MINUS_ONE = {"gradient_steps"}  # -1: as many as there were decisions since the last update


@dataclass(frozen=True)
class SB3Hyperparameters:
    """What the agents add to the arguments of Stable-Baselines3's and sb3-contrib's constructors.

    Those arguments are the other fields, under their own names, with two exceptions: ``minibatch_size`` is their
    ``batch_size``; their ``n_steps`` of a rollout and ``train_freq`` are left out for `batch_size`. ``learning_rate``,
    ``clip_range`` and ``clip_range_vf`` may be schedules in RL Zoo's notation: ``lin_3e-4`` falls from 3e-4 to 0.

    Attributes:
        batch_size: architectures that an update waits for: a rollout, or what is played between two trainings.
        schedule_trials: trials over which schedules and exploration run down; from then on they stay at their end.
    """

    batch_size: int = NUM_ENVS
    schedule_trials: int = 150

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check(field.name, getattr(self, field.name), field.type)

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = {field.name for field in dataclasses.fields(self)} - {"batch_size", "schedule_trials"}
        originals = {ours: theirs for theirs, ours in RENAMED.items()}
        arguments = {originals.get(name, name): getattr(self, name) for name in names}
        for name in SCHEDULES & names:
            if isinstance(arguments[name], str):
                arguments[name] = LinearSchedule(_slope(name, arguments[name]), 0.0, 1.0)
        arguments["policy_kwargs"] = copy.deepcopy(dict(self.policy_kwargs or {}))  # type: ignore[attr-defined]
        activation = arguments["policy_kwargs"].get("activation_fn")
        if activation is not None:
            arguments["policy_kwargs"]["activation_fn"] = _activation(activation)
        return arguments


def settings_of(algorithm: type[BaseAlgorithm], *extra: str) -> type[Any]:
    """The dataclass of an algorithm's hyperparameters: its constructor's arguments, with its own defaults."""
    parameters = inspect.signature(algorithm).parameters
    fields = [
        (RENAMED.get(name, name), parameter.annotation, dataclasses.field(default=parameter.default))
        for name, parameter in parameters.items()
        if name in extra or name not in GIVEN
    ]
    return dataclasses.make_dataclass(
        f"{algorithm.__name__}Hyperparameters", fields, bases=(SB3Hyperparameters,), frozen=True
    )


def _check(name: str, value: Any, annotation: Any) -> None:
    """Refuses what is not of the annotated kind, or out of range."""
    kinds = get_args(annotation) or (annotation,)

    def number(least: float = 0.0, most: float = math.inf) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most

    if name in SCHEDULES and isinstance(value, str):
        _slope(name, value)
        return
    if name == "policy_kwargs":
        wanted, good = "a mapping", isinstance(value, Mapping)
        if good:
            _activation(value.get("activation_fn", "Tanh"))
    elif bool in kinds:
        wanted, good = "true or false", isinstance(value, bool)
    elif name in SHARES:
        wanted, good = "in [0, 1]", number(most=1.0)
    elif float in kinds:
        wanted, good = "a number that is not negative", number() and value < math.inf
    else:
        least = 0 if name in FROM_ZERO else -1 if name in FROM_MINUS_ONE else 1
        wanted, good = f"an integer of at least {least}", isinstance(value, int) and number(least)
    if type(None) in kinds:
        wanted, good = f"{wanted}, or None", good or value is None
    if not good:
        raise ValueError(f"{name} must be {wanted}, got {value!r}")


def _slope(name: str, text: str) -> float:
    """Where a schedule such as lin_3e-4 starts."""
    kind, _, start = text.partition("_")
    try:
        found = float(start)
    except ValueError:
        found = -1.0
    if kind != "lin" or not 0 <= found < math.inf:
        raise ValueError(f"{name} must be a number, or a linear schedule such as 'lin_3e-4'; got {text!r}")
    return found


def _activation(name: Any) -> type[torch.nn.Module]:
    found = getattr(torch.nn, name, None) if isinstance(name, str) else None
    if not isinstance(found, type) or not issubclass(found, torch.nn.Module):
        raise ValueError(f"policy_kwargs.activation_fn must be a name in torch.nn, such as 'Tanh'; got {name!r}")
    return found
