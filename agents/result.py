"""The history of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nas_gym.agents.pareto import hypervolume, nondominated, signs
from nas_gym.agents.trial import Index
from nas_gym.notebook import table
from nas_gym.spaces import Architecture, SearchSpace, Tokens
from nas_gym.types import Floats


@dataclass
class SearchResult:
    """The history of a search: n trials in the order in which they were asked for.

    Attributes:
        space: the search space.
        tokens: int64[n, T].
        rewards: float64[n]; float64[n, k] where they are vectors.
        metrics: float64[n] by name: ``accuracy``, ``failed`` and whatever else the evaluator reports; NaN where it does
            not.
            ``fidelity`` is the share of the full budget that a trial was evaluated with; where it is missing, it is 1.
    """

    space: SearchSpace
    tokens: Tokens
    rewards: Floats
    metrics: dict[str, Floats] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rewards)

    def __str__(self) -> str:
        """A summary: how many trials, and the best of them."""
        lines = [f"{len(self)} trials of {self.space.name}, {self.unique_architectures} of them different"]
        for row in self._leaders(1):
            architecture = row.pop("architecture")
            lines += ["best: " + ", ".join(f"{name} {value}" for name, value in row.items()), architecture]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The same with five trials, for Jupyter."""
        rows = self._leaders(5)
        return f"<p>{str(self).splitlines()[0]}</p>" + table(rows[0] if rows else (), [row.values() for row in rows])

    def _leaders(self, n: int) -> list[dict[str, str]]:
        """The best n different trials as text by column; of rewards that are vectors, some of those not dominated."""
        if self.rewards.ndim > 1:
            order = np.flatnonzero(nondominated(self.rewards))
        else:
            order = np.lexsort((-self.rewards, -self.fidelities))
        _, first = np.unique(self.tokens[order], axis=0, return_index=True)
        return [
            {
                "trial": str(trial),
                "reward": np.array2string(self.rewards[trial], precision=4),
                **{name: f"{column[trial]:.4g}" for name, column in self.metrics.items()},
                "architecture": str(self.space.architecture(self.tokens[trial])),
            }
            for trial in order[np.sort(first)][:n]
        ]

    @property
    def fidelities(self) -> Floats:
        """The share of the full budget that each trial was evaluated with, float64[n] in (0, 1]."""
        return np.nan_to_num(self.metrics.get("fidelity", np.ones(len(self))), nan=1.0)

    @property
    def best_trial(self) -> int:
        """The trial of the highest reward among those of the highest fidelity, the first of them on ties.

        Raises:
            ValueError: there is no trial yet, or rewards are vectors.
        """
        if not len(self):
            raise ValueError("a search without trials has no best architecture")
        if self.rewards.ndim > 1:
            raise ValueError("of rewards that are vectors none is the best: ask for `pareto_front`")
        comparable = self.fidelities == self.fidelities.max()
        return int(np.where(comparable, self.rewards, -np.inf).argmax())

    @property
    def best(self) -> Architecture:
        """The architecture of `best_trial`.

        Raises:
            ValueError: there is no trial yet.
        """
        return self.space.architecture(self.tokens[self.best_trial])

    @property
    def best_reward(self) -> float:
        """The reward of `best_trial`; -inf without trials."""
        return float(self.rewards[self.best_trial]) if len(self) else -np.inf

    @property
    def unique_architectures(self) -> int:
        """How many different sequences were tried."""
        return len(np.unique(self.tokens, axis=0))

    def pareto_front(self, *names: str) -> NDArray[np.int64]:
        """The trials that no other one dominates: none is as good in all of several respects and better in one.

        Of ``accuracy`` and ``reward`` more is better, of every other metric less. Trials count that have not failed,
        have all of these, and were evaluated with the highest fidelity. Where several are equal in all of these,
        the first stands for them.

        Args:
            *names: metrics, or ``reward``: ``pareto_front("accuracy", "latency")``.

        Returns:
            Their numbers, int64[front], ascending.

        Raises:
            ValueError: no name, or one of no metric.
        """
        comparable, points = self._points(names)
        different = np.sort(np.unique(points, axis=0, return_index=True)[1])
        front: NDArray[np.int64] = comparable[different[nondominated(points[different])]]
        return front

    def hypervolume(self, reference: Mapping[str, float]) -> float:
        """The volume between the Pareto front and a reference point: the larger, the better the front.

        Args:
            reference: the worst that counts, by the names of `pareto_front`: ``{"accuracy": 0.1, "latency": 0.05}``.

        Raises:
            ValueError: no name, or one of no metric.
        """
        _, points = self._points(tuple(reference))
        return hypervolume(points, signs(tuple(reference)) * list(reference.values()))

    def _points(self, names: Sequence[str]) -> tuple[NDArray[np.int64], Floats]:
        """The trials that compare, and their columns, turned so that more is better, float64[trials, names]."""
        if not names:
            raise ValueError("a Pareto front needs at least one metric, such as 'accuracy'")
        points = np.column_stack([self._column(name) for name in names]) * signs(names)
        sound = np.isfinite(points).all(axis=1) & ~(self.metrics.get("failed", np.zeros(len(self))) > 0)
        comparable = np.flatnonzero(sound & (self.fidelities == self.fidelities.max(initial=0.0)))
        return comparable, points[comparable]

    def _column(self, name: str) -> Floats:
        columns = {"reward": self.rewards, **self.metrics}
        if name not in columns:
            raise ValueError(f"the trials have no metric {name!r}; known: {', '.join(columns)}")
        return columns[name]

    def rows(self, index: Index) -> SearchResult:
        """The trials at `index`."""
        metrics = {name: column[index] for name, column in self.metrics.items()}
        return SearchResult(self.space, self.tokens[index], self.rewards[index], metrics)


class History:
    """The trials of a search, batch by batch.

    Args:
        space: the search space.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._parts: list[SearchResult] = []
        self._trials = 0

    def __len__(self) -> int:
        return self._trials

    def append(self, trials: SearchResult) -> None:
        """Adds a batch."""
        self._parts.append(trials)
        self._trials += len(trials)

    @property
    def result(self) -> SearchResult:
        """All trials so far."""
        self._parts = [concatenate(self._space, self._parts)]
        return self._parts[0]


def concatenate(space: SearchSpace, parts: list[SearchResult]) -> SearchResult:
    """One history behind the other."""
    parts = [part for part in parts if len(part)]  # without a trial it is not known how long rewards are
    names = dict.fromkeys(name for part in parts for name in part.metrics)
    return SearchResult(
        space,
        np.concatenate([np.empty((0, space.length), dtype=np.int64), *(part.tokens for part in parts)]),
        np.concatenate([part.rewards for part in parts] or [np.empty(0)]),
        {
            name: np.concatenate([part.metrics.get(name, np.full(len(part), np.nan)) for part in parts])
            for name in names
        },
    )
