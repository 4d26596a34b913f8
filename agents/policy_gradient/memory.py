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
        self.sorted = np.empty((size, 0))

    def update(self, values: Floats) -> Floats:
        """Takes in float64[S, n] and returns their ranks, in [0, 1], among all values with them."""
        self.sorted = np.sort(np.concatenate([self.sorted, values], axis=1), axis=1)
        return self.of(values)

    def of(self, values: Floats) -> Floats:
        """The ranks of float64[S, n], which have been taken in before."""
        below, upto = (
            np.array([np.searchsorted(row, new, side) for row, new in zip(self.sorted, values, strict=True)])
            for side in ("left", "right")
        )
        ranks: Floats = (below + upto) / (2 * self.sorted.shape[1])
        return ranks
