"""Regularized evolution: tournaments in a population whose oldest member dies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_gym.spaces import Tokens

from .agent import Agent, Floats
from .prefixes import prefix_policy


@dataclass(frozen=True)
class RegularizedEvolutionHyperparameters:
    """Defaults are those of Real et al. 2019.

    Attributes:
        population_size: architectures alive (Real et al. 2019, section "Methods": 100; Dong & Yang 2020, for
            NAS-Bench-201: 10).
        sample_size: how many of these, all different, compete to become a parent (Real et al. 2019: 25; Dong & Yang
            2020: 3). Drawn with
            replacement, the selection would be weaker.
    """

    population_size: int = 100
    sample_size: int = 25

    def __post_init__(self) -> None:
        for name in ("population_size", "sample_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        if self.sample_size > self.population_size:
            raise ValueError(
                f"sample_size must be at most population_size {self.population_size}, got {self.sample_size}"
            )


class RegularizedEvolution(Agent):
    """Mutates the best of a random sample of the population, whose oldest member makes place for the child.

    The first `population_size` architectures are drawn uniformly. Asked for several at once, it draws the parents from
    what it has been told so far.

    Source: Real et al. 2019, "Regularized Evolution for Image Classifier Architecture Search", algorithm 1.
    """

    name = "regularized-evolution"
    Hyperparameters = RegularizedEvolutionHyperparameters

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._asked = 0
        self._population: Tokens = np.empty((0, self.space.length), dtype=np.int64)  # oldest first
        self._rewards: Floats = np.empty(0)

    def ask(self, n: int) -> Tokens:
        """Draws what the first population lacks, and children."""
        settings: RegularizedEvolutionHyperparameters = self.hyperparameters
        lacking = n if not len(self._population) else max(0, min(n, settings.population_size - self._asked))
        self._asked += n
        first = self.open_space.sample(self.rng, lacking)
        if lacking == n:
            return first
        shuffled = self.rng.random((n - lacking, len(self._population))).argsort(axis=1)
        sample = shuffled[:, : settings.sample_size]
        winners = sample[np.arange(n - lacking), self._rewards[sample].argmax(axis=1)]
        return np.concatenate([first, self.open_space.mutate(self._population[winners], self.rng)])

    def tell(self, tokens: Tokens, rewards: Floats) -> dict[str, float]:
        """Takes the architectures into the population; the oldest beyond its size die."""
        alive: int = self.hyperparameters.population_size
        self._population = np.concatenate([self._population, tokens])[-alive:]
        self._rewards = np.concatenate([self._rewards, rewards])[-alive:]
        return {"train/population_reward": float(self._rewards.mean())} if len(self._rewards) else {}

    def policy(self, tokens: Tokens, positions: NDArray[np.int64]) -> Floats:
        """Each choice by its share in the population."""
        return prefix_policy(self.space, self._population, tokens, positions)

    def state_dict(self) -> dict[str, Any]:
        import torch

        population = {"tokens": torch.from_numpy(self._population), "rewards": torch.from_numpy(self._rewards)}
        return {**super().state_dict(), "asked": self._asked, "population": population}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._asked = state["asked"]
        self._population = state["population"]["tokens"].numpy()
        self._rewards = state["population"]["rewards"].numpy()
