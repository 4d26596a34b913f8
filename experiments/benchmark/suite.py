"""What a benchmark is asked to do: agents, environments, seeds and trials."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas_gym.agents.registry import AGENTS, agent_class
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.files import file_name, read_mapping
from nas_gym.registration import ENVIRONMENTS, environment_spec
from nas_gym.settings import check_known, did_you_mean, unknown
from nas_gym.spaces import make_space
from nas_gym.tables import DEFAULTS, open_table
from nas_gym.tables.bench_graph import BENCH_GRAPH, PROTEINS

RANDOM = "random"
NAME_BYTES = 255  # of a label, which becomes the name of a folder
SUITES = Path(__file__).parent / "suites"
MEASURES = ("best", "played")
"""What a run is scored by: the best architecture so far, or the mean of those that its policy plays."""


@dataclass(frozen=True)
class AgentEntry:
    """An agent as it stands in the leaderboard.

    Attributes:
        name: one of `AGENTS`, or where an agent's class stands, ``module:Class``.
        hyperparameters: where they differ from the agent's settings for the environment.
        label: what it is called; with different labels, an agent can stand in a table several times.

    Raises:
        ValueError: an unknown name, or a label that is empty or holds ``=`` or ``@``.
    """

    name: str
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    def __post_init__(self) -> None:
        agent_class(self.name)
        if not isinstance(self.hyperparameters, Mapping):
            raise ValueError(f"hyperparameters of {self.name!r} must be a mapping, got {self.hyperparameters!r}")
        if not self.label:
            object.__setattr__(self, "label", self._unlabelled)
        elif not isinstance(self.label, str) or (set("=@") & set(self.label) and self.label != self._unlabelled):
            raise ValueError(f"label must be text without = and @, got {self.label!r}")
        if not self.label.isprintable() or len(file_name(self.label).encode()) > NAME_BYTES:
            raise ValueError(
                f"label must be one line of up to {NAME_BYTES} bytes, got {self.label!r}: give a shorter one"
            )

    @property
    def _unlabelled(self) -> str:
        settings = ",".join(f"{key}:{json.dumps(value)}" for key, value in self.hyperparameters.items())
        return f"{self.name}@{settings}" if settings else self.name

    @property
    def text(self) -> str:
        """The entry as the command line takes it: ``LABEL=NAME@KEY:VALUE,...``."""
        return self._unlabelled if self.label == self._unlabelled else f"{self.label}={self._unlabelled}"


@dataclass(frozen=True)
class Environment:
    """A task of a table, in the environment that plays it.

    Attributes:
        id: of a registered environment.
        task: of the table.
        table: name or path of the table.
    """

    id: str
    task: str
    table: str

    def __str__(self) -> str:
        return f"{self.id}:{self.task}"


@dataclass(frozen=True)
class Suite:
    """A benchmark: each agent plays each environment with seeds 0 to `seeds` - 1.

    Attributes:
        agents: with different labels; random search is among them.
        environments: tasks of tables.
        seeds: runs of each agent in each environment.
        trials: architectures a run, at most.
        simulated_seconds: a run ends when its trainings would have taken this long; None sets no limit.
        measure: what a run is scored by, one of `MEASURES`.

    Raises:
        ValueError: labels or environments that stand twice, none at all, an unknown measure, or numbers below 1.
    """

    agents: tuple[AgentEntry, ...]
    environments: tuple[Environment, ...]
    seeds: int
    trials: int
    simulated_seconds: float | None = None
    measure: str = "best"

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise ValueError(unknown("measure", self.measure, MEASURES))
        for name in ("seeds", "trials"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        for what, keys in (
            ("agents", [file_name(entry.label) for entry in self.agents]),
            ("environments", [str(environment) for environment in self.environments]),
        ):
            if not keys or len(set(keys)) < len(keys):
                raise ValueError(
                    f"{what} must be some, all different (agents by label); got {', '.join(keys) or 'none'}"
                )

    def to_dict(self) -> dict[str, Any]:
        """What `make_suite` makes the suite of."""
        return {
            "agents": [dataclasses.asdict(entry) for entry in self.agents],
            "environments": [dataclasses.asdict(environment) for environment in self.environments],
            "seeds": self.seeds,
            "trials": self.trials,
            "simulated_seconds": self.simulated_seconds,
            "measure": self.measure,
        }

    def runs(self) -> Iterator[tuple[Environment, AgentEntry, int]]:
        """Every run: what it plays, who, and its seed."""
        for environment in self.environments:
            for entry in self.agents:
                for seed in range(self.seeds):
                    yield environment, entry, seed


def make_suite(spec: str | os.PathLike[str] | Mapping[str, Any], **overrides: Any) -> Suite:
    """Makes a suite of a mapping, or of a YAML file that holds one.

    Args:
        spec: the name of a suite, the path of a file, or the mapping itself, of ``agents`` (names, or mappings of
            the fields of `AgentEntry`; all of `AGENTS` by default), ``environments`` (``"ID"`` for all tasks of its
            table, ``"ID:TASK"``, or mappings of the fields of `Environment`; by default all that have a table that
            needs no path, and those that `table` fits, but for those in ``except``, as ``"ID:TASK"``), ``table`` (a
            path or a name), ``seeds``, ``trials``, ``simulated_seconds`` and ``measure``.
        **overrides: keys that take precedence; None leaves what is there.

    Raises:
        ValueError: there is no such suite, or something in it is not understood.
    """
    values = dict(spec) if isinstance(spec, Mapping) else _read_suite(spec)
    values |= {key: value for key, value in overrides.items() if value is not None}
    known = ("agents", "environments", "except", "table", "seeds", "trials", "simulated_seconds", "measure")
    check_known(values, known, "a suite", "key")
    agents = tuple(_made(AgentEntry, "name", entry) for entry in values.get("agents") or AGENTS)
    if RANDOM not in {entry.name for entry in agents}:  # the floor stands in every table
        agents = (AgentEntry(RANDOM), *agents)
    environments = _environments(values.get("environments") or (), values.get("table"))
    if not values.get("environments"):
        left_out = values.get("except") or ()
        environments = tuple(environment for environment in environments if str(environment) not in left_out)
    protocol: dict[str, Any] = {"seeds": 10, "trials": 150, "simulated_seconds": None, "measure": "best"}
    return Suite(agents, environments, **protocol | {key: values[key] for key in protocol if key in values})


def _read_suite(spec: str | os.PathLike[str]) -> dict[str, Any]:
    path = SUITES / f"{spec}.yaml"
    if not path.is_file():
        path = Path(spec)
    if not path.is_file():
        known = sorted(suite.stem for suite in SUITES.glob("*.yaml"))
        raise ValueError(
            f"suite {os.fspath(spec)!r} is neither a file nor one of {', '.join(known)}{did_you_mean(spec, known)}"
        )
    return read_mapping(path)


def _made(kind: type[Any], key: str, entry: Any) -> Any:
    if isinstance(entry, kind):
        return entry
    try:
        return kind(**(entry if isinstance(entry, Mapping) else {key: entry}))
    except TypeError as error:
        raise ValueError(f"{entry!r} is no entry of a suite: {error}") from error


def _environments(entries: Sequence[Any], table: str | None) -> tuple[Environment, ...]:
    """The tasks that the entries stand for, each in the environment that it is played in."""
    found = []
    for entry in entries or _environments_with_tables(table):
        if isinstance(entry, str):
            id, task = _id_and_task(entry)
            own = _table_of(id, table)
            if own is None:
                known = ", ".join(_environments_with_tables(table))
                raise ValueError(f"environment {id!r} has no table, give one; those with a table: {known}")
            found += [Environment(id, name, own) for name in ([task] if task else _tasks(own))]
        else:
            found.append(_made(Environment, "id", entry))
    for environment in found:
        open_evaluator(environment)  # complains of a wrong task or table before anything runs
    return tuple(found)


def _id_and_task(entry: str) -> tuple[str, str]:
    """``ID`` or ``ID:TASK``, where an id may itself be ``module:ID``; ids end with their version."""
    match = re.fullmatch(r"(.*?-v\d+)(?::(.*))?", entry)
    id, task = (match[1], match[2] or "") if match else (entry.partition(":")[0], entry.partition(":")[2])
    environment_spec(id)
    return id, task


def _table_of(id: str, table: str | None) -> str | None:
    """The table that an environment is played on: the one given, if it is of its kind of space, or its own."""
    arguments = environment_spec(id).kwargs
    if "space" not in arguments:
        return None
    space = make_space(arguments["space"])
    if table is not None and type(open_table(table).space) is type(space):
        return table
    own = arguments.get("table")
    return DEFAULTS.get(space.name) if own is None else str(own)


def _environments_with_tables(table: str | None) -> list[str]:
    """The ids of this package's environments of one task that are played on tables.

    Raises:
        ValueError: the table fits none of them.
    """
    ids = [spec.id for spec in ENVIRONMENTS if spec.base is None]
    if table is not None and not any(_table_of(id, table) == table for id in ids):
        raise ValueError(f"table {table!r} is of the space {open_table(table).space}, which no environment has")
    return [id for id in ids if _table_of(id, table) is not None]


def _tasks(table: str) -> tuple[str, ...]:
    tasks = open_table(table).tasks
    return (*tasks, PROTEINS) if table == BENCH_GRAPH else tasks


@functools.cache
def open_evaluator(environment: Environment) -> TabularEvaluator:
    """What scores the environment's architectures; a process opens it once."""
    space = make_space(environment_spec(environment.id).kwargs["space"])
    return TabularEvaluator(space, table=environment.table, task=environment.task)
