"""What a transfer benchmark is asked to do."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas_gym.envs.multitask import base_arguments
from nas_gym.envs.problem import Env, make_vector
from nas_gym.evaluators import EvaluatorConfig
from nas_gym.experiments.benchmark.suite import RANDOM, SUITES
from nas_gym.files import read_mapping
from nas_gym.settings import from_mapping
from nas_gym.tables import open_table

MULTI_TASK = "NAS-MultiTask-v0"
SCRATCH, TRANSFER = "from scratch", "transfer"
RECALL, NO_RECALL = "transfer, recalling", "transfer, nothing recalled"
DYNA_SCRATCH, DYNA = "dyna from scratch", "dyna, transfer"
COPY, COPY_MEAN = "copy", "copy by mean rank"


@dataclass(frozen=True)
class Entry:
    """A row of the tables.

    Attributes:
        mode: of `MultiTask.transfer` or `Dyna.from_pretrained`; None where nothing is learned.
        changes: hyperparameters that differ, in pretraining and transfer.
        agent: who searches on the task left out; who learns the others is always `multitask`.
    """

    mode: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    agent: str = "multitask"


ENTRIES: dict[str, Entry] = {
    SCRATCH: Entry("scratch"),
    TRANSFER: Entry("all"),
    "transfer, embedding only": Entry("embedding"),
    RECALL: Entry("all", {"warm_start_size": 10}),
    # Recalled architectures hide what the policy has learned, so the ablations do without them.
    NO_RECALL: Entry("all", {"warm_start_size": 0}),
    f"{NO_RECALL}, no task embedding": Entry("all", {"warm_start_size": 0, "task_embedding": False}),
    f"{NO_RECALL}, no skip": Entry("all", {"warm_start_size": 0, "skip": False}),
    f"{NO_RECALL}, no per-task normalisation": Entry("all", {"warm_start_size": 0, "per_task_normalisation": False}),
    DYNA_SCRATCH: Entry("scratch", agent="dyna"),
    DYNA: Entry("all", agent="dyna"),
    COPY: Entry(),
    COPY_MEAN: Entry(),
    RANDOM: Entry(),
}


@dataclass(frozen=True)
class TransferSuite:
    """A transfer benchmark.

    Attributes:
        base: id of the environment of each task.
        tasks: names; each is left out in turn.
        arguments: further ones of the environment, such as ``table``, or ``evaluator`` and ``evaluator_kwargs``.
        seeds: searches of each entry on each task, with seeds 0 to `seeds` - 1.
        source_trials: of pretraining, on each of the other tasks.
        trials: on the task left out.
        entries: labels of `ENTRIES`.
        pretraining: hyperparameters that differ from the agent's settings for `NAS-MultiTask-v0`.
        hyperparameters: those that differ from its settings for `base`, on the task left out.

    Raises:
        ValueError: fewer than two tasks, an unknown entry, no entry from scratch, or numbers below 1.
    """

    base: str
    tasks: tuple[str, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 50
    source_trials: int = 300
    trials: int = 150
    entries: tuple[str, ...] = tuple(ENTRIES)
    pretraining: Mapping[str, Any] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("tasks", "entries"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("seeds", "source_trials", "trials"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        if len(set(self.tasks)) < max(len(self.tasks), 2):
            raise ValueError(f"tasks must be at least two, all different; got {', '.join(self.tasks) or 'none'}")
        if unknown := [label for label in self.entries if label not in ENTRIES]:
            raise ValueError(f"unknown entries {unknown}; known: {', '.join(ENTRIES)}")
        if SCRATCH not in self.entries:
            raise ValueError(f"entries must have {SCRATCH!r}, which the others are compared with; got {self.entries}")

    def make_env(self, tasks: Sequence[str], num_envs: int, seed: int = 0) -> Env:
        """The tasks, so many episodes at a time; what is trained on them is of the seed."""
        arguments = dict(self.arguments)
        if self.trains:
            arguments["evaluator_kwargs"] = {**arguments.get("evaluator_kwargs", {}), "seed": seed}
        return make_vector(MULTI_TASK, num_envs, base=self.base, tasks=tuple(tasks), **arguments)

    @property
    def trains(self) -> bool:
        """Whether tasks are trained on, and so have a state that belongs to a seed."""
        given = {**base_arguments(self.base), **self.arguments}
        return EvaluatorConfig.parse(
            given["evaluator"], kwargs=given.get("evaluator_kwargs"), table=given.get("table")
        ).kind.trains

    def sources(self, target: str) -> tuple[str, ...]:
        """The tasks that are not left out."""
        return tuple(task for task in self.tasks if task != target)

    def to_dict(self) -> dict[str, Any]:
        """What the suite is made of."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


def make_transfer_suite(spec: str | os.PathLike[str], **overrides: Any) -> TransferSuite | None:
    """Reads a suite that has the key ``transfer``, under which are the fields of `TransferSuite`.

    Args:
        spec: the name of a suite, or the path of a YAML file.
        **overrides: fields that take precedence, and ``table``, whose tasks then are the suite's; None leaves what is
            there.

    Returns:
        None if it is a suite of another kind, or none at all.

    Raises:
        ValueError: something in it is not understood.
    """
    path = SUITES / f"{spec}.yaml"
    path = path if path.is_file() else Path(spec)
    if not path.is_file() or "transfer" not in (values := read_mapping(path)):
        return None
    fields = {**values["transfer"], **{key: value for key, value in overrides.items() if value is not None}}
    table = fields.pop("table", None)
    if table is not None:
        fields["tasks"], fields["arguments"] = open_table(table).tasks, {"table": str(table)}
        fields |= {key: value for key, value in values.get("with_table", {}).items() if overrides.get(key) is None}
    return from_mapping(TransferSuite, fields, "a transfer suite", "field")
