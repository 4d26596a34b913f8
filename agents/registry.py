"""Agents and their settings by name. Nothing is imported until it is asked for.

The agents of this package are the files of ``hyperparameters/``, each of which names a class; others are registered by
`register_agent`, or are named by where they stand, ``module:Class``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from nas_gym.registry import Registry
from nas_gym.settings import did_you_mean, field_names, from_mapping

if TYPE_CHECKING:
    from nas_gym.agents.agent import Agent

FOLDER = Path(__file__).parent / "hyperparameters"
AGENT = "agent"  # the key of a file under which the class stands
REQUIRES = "requires"  # the key of the module of another package without which the agent does not exist
DEFAULT = "default"  # the settings of environments without settings of their own
PAPER = "paper"  # those of the paper: the defaults of the dataclass
HORIZON = "horizon"  # a hyperparameter, of agents with schedules: the trials of the search, where these are known
TRIALS = 150  # of the benchmarks' protocol


@functools.cache
def shipped() -> dict[str, dict[str, Any]]:
    """The files of ``hyperparameters/`` by the names of their agents: random search first, folders with a colon.

    Agents of a library that is not installed are left out.
    """
    paths = sorted(FOLDER.rglob("*.yaml"), key=lambda path: (path.stem != "random", path.parent != FOLDER, path))
    files = {
        ":".join(path.relative_to(FOLDER).with_suffix("").parts): yaml.safe_load(path.read_text()) for path in paths
    }
    required = {name: file.pop(REQUIRES, None) for name, file in files.items()}
    return {name: file for name, file in files.items() if not required[name] or find_spec(required[name])}


AGENTS: Registry[type[Agent]] = Registry("agent", {name: file[AGENT] for name, file in shipped().items()})
"""The classes of agents by name."""


def register_agent(
    name: str, agent: type[Agent] | str, settings: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Makes an agent known by a name, to `make_agent`, suites and the command line.

    Args:
        name: the name.
        agent: the class, or where it is found, ``module:Class``.
        settings: by environment id, and ``default`` for all others: hyperparameters that differ from the defaults of
            the agent's `Hyperparameters`.

    Raises:
        ValueError: the name is empty, or the place is not of that form.
    """
    AGENTS.register(name, agent)
    _registered[name] = settings or {}


_registered: dict[str, Mapping[str, Mapping[str, Any]]] = {}


def agent_class(name: str) -> type[Agent]:
    """The class of an agent.

    Args:
        name: one of `AGENTS`, or where the class stands, ``module:Class``.

    Raises:
        ValueError: there is none.
    """
    found = AGENTS[name]
    if not isinstance(found, type) or not hasattr(found, "Hyperparameters"):
        raise ValueError(f"{name!r} is no agent: it must be a class with `Hyperparameters`, got {found!r}")
    return found


def agent_name(agent: type[Agent]) -> str:
    """The name that a class is registered by; of one that is not, where it stands, ``module:Class``."""
    return AGENTS.name_of(agent) or f"{agent.__module__}:{agent.__qualname__}"


def batch_size_of(agent: type[Agent], hyperparameters: Any) -> int:
    """How many trials an agent of these hyperparameters proposes at once by default."""
    size: int = getattr(hyperparameters, "batch_size", agent.batch_size)
    return size


def load_hyperparameters(
    agent: str | type[Agent],
    env_id: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    decisions: int | None = None,
    trials: int | None = None,
) -> Any:
    """The settings of an agent for an environment, from its file in ``hyperparameters/``.

    The file maps environment ids, ``default`` for all others and ``paper`` to the fields that differ from the defaults
    of the agent's `Hyperparameters`. ``default`` may be a list of such mappings for budgets of different size, of which
    the first counts whose ``max_trials`` and ``max_decisions``, where it has them, are not exceeded. An agent without
    a file has the dataclass's defaults.

    Args:
        agent: an agent, or its name.
        env_id: the environment's id; None takes ``default``.
        overrides: fields that take precedence over the file's, and ``preset``, the key of the file to start from, such
            as ``"paper"``, whatever the environment.
        decisions: of an architecture in the environment; None if unknown.
        trials: of the search; None if unknown, which counts as `TRIALS`. It is the `horizon` of agents that have this
            hyperparameter, unless that is given.

    Returns:
        An instance of the agent's `Hyperparameters`.

    Raises:
        ValueError: an unknown agent, preset or field, or a value out of range.
    """
    made = agent_class(agent) if isinstance(agent, str) else agent
    name = agent_name(made)
    presets = {PAPER: {}, DEFAULT: {}, **shipped().get(name, {}), **_registered.get(name, {})}
    presets.pop(AGENT, None)
    given = dict(overrides or {})
    preset = given.pop("preset", env_id if env_id in presets else DEFAULT)
    if preset not in presets:
        raise ValueError(
            f"agent {name!r} has no preset {preset!r}; known: {', '.join(presets)}{did_you_mean(preset, presets)}"
        )
    settings = _for_budget(presets[preset], {"max_trials": trials or TRIALS, "max_decisions": decisions or 0})
    if HORIZON in field_names(made.Hyperparameters) and trials is not None:
        settings.setdefault(HORIZON, trials)
    return from_mapping(made.Hyperparameters, {**settings, **given}, f"agent {name!r}", "hyperparameter")


def _for_budget(preset: Mapping[str, Any] | Sequence[Mapping[str, Any]], used: Mapping[str, int]) -> dict[str, Any]:
    """The settings of a preset for a search that uses so many trials and decisions."""
    for settings in [preset] if isinstance(preset, Mapping) else preset:
        if all(used[bound] <= settings.get(bound, used[bound]) for bound in used):
            return {name: value for name, value in settings.items() if name not in used}
    raise ValueError(f"no settings for {used}: the last ones of a list must have no bounds")
