"""Proposals of architectures, and the trials that they become."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_gym.spaces import Tokens
from nas_gym.types import Bools, Floats

Index = slice | NDArray[np.int64] | NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Proposal:
    """Architectures that an agent wants to be tried, with the identities by which it knows their trials.

    Attributes:
        ids: int64[n], different for all proposals of an agent.
        tokens: int64[n, T], legal and filled.
        fidelities: float64[n], the share of the full budget that each is to be evaluated with; None evaluates in full.
        tasks: n names, the task that each is to be evaluated on; None leaves it to the environment.
        parents: int64[n, T], the architectures whose weights the children inherit; None leaves it to the evaluator.
    """

    ids: NDArray[np.int64]
    tokens: Tokens
    fidelities: Floats | None = None
    tasks: NDArray[np.str_] | None = None
    parents: Tokens | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def options(self) -> list[dict[str, Any]]:
        """The options of each episode's reset, as the environments read them; empty where there are none."""
        columns: dict[str, list[Any]] = {}
        if self.fidelities is not None:
            columns["fidelity"] = self.fidelities.tolist()
        if self.tasks is not None:
            columns["task"] = self.tasks.tolist()
        if self.parents is not None:
            columns["parent"] = [tuple(row) for row in self.parents.tolist()]
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def rows(self, index: Index) -> Proposal:
        """The proposals at `index`."""
        return self._each(lambda name: getattr(self, name)[index])

    @staticmethod
    def concatenate(parts: Sequence[Proposal]) -> Proposal:
        """Proposals of one agent as one, one behind the other."""
        return parts[0]._each(lambda name: np.concatenate([getattr(part, name) for part in parts]))

    def _each(self, column: Callable[[str], NDArray[Any]]) -> Proposal:
        """A proposal of columns by their names, those that this one has."""
        names = [field.name for field in dataclasses.fields(Proposal) if getattr(self, field.name) is not None]
        return Proposal(**{name: column(name) for name in names})


@dataclass(frozen=True, eq=False)
class Trials:
    """Proposals that have been evaluated.

    Attributes:
        ids: int64[n], those of the proposals; -1 where no agent has proposed them.
        tokens: int64[n, T].
        rewards: float64[n]; float64[n, k] where the environment's rewards are vectors.
        metrics: float64[n] by name: ``accuracy``, ``failed`` and whatever else the evaluator reports; NaN where it does
            not. ``fidelity`` is the share of the full budget, ``task`` the number of the task in the environment.
    """

    ids: NDArray[np.int64]
    tokens: Tokens
    rewards: Floats
    metrics: dict[str, Floats] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def failed(self) -> Bools:
        """Which of them failed, bool[n]: their networks diverged, ran out of memory, or were not legal."""
        failed: Bools = self.metrics.get("failed", np.zeros(len(self))) > 0
        return failed

    def rows(self, index: Index) -> Trials:
        """The trials at `index`."""
        metrics = {name: column[index] for name, column in self.metrics.items()}
        return Trials(self.ids[index], self.tokens[index], self.rewards[index], metrics)
