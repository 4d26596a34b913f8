"""What policy gradients keep of the past: moving averages, ranks, the best architectures."""

from __future__ import annotations

import numpy as np

from nas_gym.spaces import UNDECIDED, Tokens
from nas_gym.types import Floats


class MovingAverage:
    """Exponential moving averages whose start at zero is corrected for, as Adam's moments are.

    After values x_1 ... x_n with decay d one is ``sum_i d^(n-i) x_i / sum_i d^(n-i)``.

    Args:
        decay: d.
        size: S, how many.
    """

    def __init__(self, decay: float, size: int = 1) -> None:
        self.decay, self.total, self.weight = decay, np.zeros(size), 0.0

    def update(self, values: Floats) -> Floats:
        """Takes in float64[S, n], one after another, and returns the new averages float64[S]."""
        n = values.shape[1]
        kept = self.decay ** np.arange(n - 1, -1, -1)
        self.total = self.decay**n * self.total + (values * kept).sum(axis=1)
        self.weight = self.decay**n * self.weight + float(kept.sum())
        average: Floats = self.total / self.weight
        return average


class PriorityQueue:
    """The best architectures so far, all different.

    Args:
        size: S, how many queues there are.
        capacity: K, how many each holds.
        length: T, decisions of an architecture.
    """

    def __init__(self, size: int, capacity: int, length: int) -> None:
        self.tokens = np.full((size, capacity, length), UNDECIDED, dtype=np.int64)
        self.rewards = np.full((size, capacity), -np.inf)

    def update(self, tokens: Tokens, rewards: Floats) -> None:
        """Takes in int64[S, n, T] of rewards float64[S, n]."""
        capacity = self.rewards.shape[1]
        if not capacity:
            return
        rewards = np.concatenate([self.rewards, rewards], axis=1)
        order = np.argsort(-rewards, axis=1, kind="stable")
        rewards = np.take_along_axis(rewards, order, axis=1)
        tokens = np.take_along_axis(np.concatenate([self.tokens, tokens], axis=1), order[..., None], axis=1)
        equal = (tokens[:, :, None] == tokens[:, None]).all(axis=-1)
        repeated = np.tril(equal, -1).any(axis=2)
        rewards[repeated] = -np.inf
        order = np.argsort(repeated, axis=1, kind="stable")[:, :capacity]
        self.rewards = np.take_along_axis(rewards, order, axis=1)
        self.tokens = np.take_along_axis(tokens, order[..., None], axis=1)


class Ranks:
    """The share of all values so far that are lower, equal ones counted half.

    Args:
        size: S, how many series there are.
    """

    def __init__(self, size: int = 1) -> None:
        # Sorted, all but the latest of n values: these are about sqrt(n), so that an update does not sort all of them.
        self._most, self._latest = np.empty((size, 0)), np.empty((size, 0))

    def __len__(self) -> int:
        """How many values there are in each series."""
        return self._most.shape[1] + self._latest.shape[1]

    @property
    def sorted(self) -> Floats:
        """All values so far, float64[S, n]."""
        return np.sort(np.concatenate([self._most, self._latest], axis=1), axis=1)

    @sorted.setter
    def sorted(self, values: Floats) -> None:
        self._most, self._latest = values, values[:, :0]

    def update(self, values: Floats) -> Floats:
        """Takes in float64[S, n] and returns their ranks, in [0, 1], among all values with them."""
        self._latest = np.sort(np.concatenate([self._latest, values], axis=1), axis=1)
        if self._latest.shape[1] ** 2 > self._most.shape[1]:
            self.sorted = self.sorted
        return self.of(values)

    def of(self, values: Floats) -> Floats:
        """The ranks of float64[S, n], which have been taken in before."""
        counts = [
            [np.searchsorted(row, new, side) for row, new in zip(part, values, strict=True)]
            for part in (self._most, self._latest)
            for side in ("left", "right")
        ]
        ranks: Floats = np.sum(counts, axis=0) / (2 * len(self))
        return ranks
