"""What a multi-task agent remembers of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from nas_gym.agents.policy_gradient.agent import tried_tensor
from nas_gym.agents.policy_gradient.memory import MovingAverage, PriorityQueue, Ranks
from nas_gym.spaces import Tokens
from nas_gym.types import Floats


class RunningMoments:
    """Moving mean and variance of S series, corrected for their start as Adam's are.

    Args:
        size: S.
        decay: a value's weight at the next one.
    """

    def __init__(self, size: int, decay: float) -> None:
        self.size = size
        self.averages = MovingAverage(decay, 2 * size)  # of values, then of their squares

    @property
    def mean(self) -> Floats:
        """float64[S]."""
        mean: Floats = self.averages.total[: self.size] / self.averages.weight
        return mean

    @property
    def variance(self) -> Floats:
        """float64[S]."""
        squares = self.averages.total[self.size :] / self.averages.weight
        variance: Floats = np.maximum(squares - self.mean**2, 0.0)
        return variance

    def update(self, values: Floats) -> None:
        """Takes in float64[S, n], one after another."""
        self.averages.update(np.concatenate([values, values**2]))

    def start_like(self, others: Sequence[RunningMoments], weight: float) -> None:
        """Starts at the mean of others' means and variances, as if they had come from so many values."""
        mean = np.mean([other.mean for other in others], axis=0)
        variance = np.mean([other.variance for other in others], axis=0)
        self.averages.total, self.averages.weight = weight * np.concatenate([mean, variance + mean**2]), weight

    def normalised(self, values: Floats) -> Floats:
        """float64[S, n] minus the means, over the standard deviations."""
        normalised: Floats = (values - self.mean[:, None]) / (np.sqrt(self.variance)[:, None] + 1e-8)
        return normalised


class TaskMemory:
    """What the agents of S seeds remember of a task.

    Attributes:
        moments: of what is learned from.
        ranks: of the rewards.
        queue: the best architectures.
        tokens: int64[S, n, T], all architectures that were tried.
        rewards: float64[S, n], theirs.
        tried: of each seed, the architectures proposed.
    """

    def __init__(self, size: int, length: int, *, moment_decay: float, replay_size: int) -> None:
        self.moments = RunningMoments(size, moment_decay)
        self.ranks = Ranks(size)
        self.queue = PriorityQueue(size, replay_size, length)
        self.tokens, self.rewards = np.empty((size, 0, length), dtype=np.int64), np.empty((size, 0))
        self.tried: list[set[bytes]] = [set() for _ in range(size)]

    def take_in(self, tokens: Tokens, rewards: Floats) -> None:
        """Remembers int64[S, n, T] of rewards float64[S, n]."""
        self.queue.update(tokens, rewards)
        self.tokens = np.concatenate([self.tokens, tokens], axis=1)
        self.rewards = np.concatenate([self.rewards, rewards], axis=1)

    def ranked(self, seed: int, tokens: Tokens, likelihood: Floats) -> Floats:
        """Ranks float64[n] in [0, 1] of int64[n, T] for one seed: by reward where it was tried, else by likelihood."""
        ranks = {
            row.tobytes(): rank for row, rank in zip(self.tokens[seed], relative_ranks(self.rewards[seed]), strict=True)
        }
        supposed = relative_ranks(likelihood)
        return np.array([ranks.get(row.tobytes(), rank) for row, rank in zip(tokens, supposed, strict=True)])

    def state_dict(self) -> dict[str, Any]:
        """All of it, as tensors and numbers."""
        arrays = {"moments": self.moments.averages.total, "ranks": self.ranks.sorted}
        trials = {"tokens": self.tokens, "rewards": self.rewards}
        queue = {"queue_tokens": self.queue.tokens, "queue_rewards": self.queue.rewards}
        tensors = {name: torch.from_numpy(array.copy()) for name, array in {**arrays, **trials, **queue}.items()}
        return {**tensors, "weight": self.moments.averages.weight, "tried": [tried_tensor(rows) for rows in self.tried]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to where `state_dict` was taken."""
        self.moments.averages.total, self.moments.averages.weight = state["moments"].numpy(), state["weight"]
        self.ranks.sorted = state["ranks"].numpy()
        self.tokens, self.rewards = state["tokens"].numpy(), state["rewards"].numpy()
        self.queue.tokens, self.queue.rewards = state["queue_tokens"].numpy(), state["queue_rewards"].numpy()
        self.tried = [{row.tobytes() for row in rows.numpy()} for rows in state["tried"]]


def relative_ranks(values: Floats) -> Floats:
    """The share of the values float64[n] that are lower, equal ones counted half."""
    ranks: Floats = Ranks().update(values[None])[0]
    return ranks
