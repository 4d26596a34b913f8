"""Regularized evolution: tournaments in a population whose oldest member dies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nas_gym.agents.evolution.population import PopulationAgent, check_population
from nas_gym.spaces import Tokens
from nas_gym.types import Floats


@dataclass(frozen=True)
class RegularizedEvolutionHyperparameters:
    """Defaults are those of Real et al. 2019.

    Attributes:
        population_size: architectures alive (Real et al. 2019, section "Methods": 100; Dong & Yang 2020, for
            NAS-Bench-201: 10).
        sample_size: how many of these, all different, compete to become a parent (Real et al. 2019: 25; Dong & Yang
            2020: 3). Drawn with replacement, the selection would be weaker.
    """

    population_size: int = 100
    sample_size: int = 25

    def __post_init__(self) -> None:
        check_population(self.population_size, self.sample_size, least=1)


class RegularizedEvolution(PopulationAgent):
    """Mutates the best of a random sample of the population, whose oldest member makes place for the child.

    Source: Real et al. 2019, "Regularized Evolution for Image Classifier Architecture Search", algorithm 1.
    """

    Hyperparameters = RegularizedEvolutionHyperparameters
    hyperparameters: RegularizedEvolutionHyperparameters

    def _children(self, n: int) -> Tokens:
        return self.current_space.mutate(self._winners(n), self.rng)

    def _join(self, tokens: Tokens, rewards: Floats) -> None:
        """The oldest beyond the population's size die."""
        alive = self.hyperparameters.population_size
        self._population = np.concatenate([self._population, tokens])[-alive:]
        self._rewards = np.concatenate([self._rewards, rewards])[-alive:]
