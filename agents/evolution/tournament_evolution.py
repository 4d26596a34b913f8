"""Tournament evolution: the best of a tournament reproduces, the worst of one dies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nas_gym.agents.evolution.population import PopulationAgent, check_population
from nas_gym.spaces import Tokens
from nas_gym.types import Floats


@dataclass(frozen=True)
class TournamentEvolutionHyperparameters:
    """Of Real et al. 2017, whose tournaments are pairs, and of the genetic algorithm of Xie & Yuille 2017.

    Attributes:
        population_size: architectures alive (Xie & Yuille 2017: 20; Real et al. 2017: 1,000, on 250 machines).
        sample_size: how many of these, all different, meet in a tournament (Real et al. 2017: 2).
        crossover_probability: of a child, to have two parents (Xie & Yuille 2017: 0.2; Real et al. 2017: 0).
    """

    population_size: int = 20
    sample_size: int = 2
    crossover_probability: float = 0.2

    def __post_init__(self) -> None:
        check_population(self.population_size, self.sample_size, least=2)
        probability = self.crossover_probability
        if isinstance(probability, bool | str) or not 0 <= probability <= 1:
            raise ValueError(f"crossover_probability must be in [0, 1], got {probability!r}")


class TournamentEvolution(PopulationAgent):
    """Crosses and mutates tournament winners; with each child the loser of a tournament dies, never the best.

    A child has one parent, in which one decision is changed, or two, each the best of a tournament, from which it takes
    its decisions at random; a child that is like one of its two parents is mutated, since nothing is to be learned from
    trying it again. Once the population is full, a child that comes joins it, and the worst of a tournament leaves it.

    Sources: Real et al. 2017, "Large-Scale Evolution of Image Classifiers", section 3.1: tournaments in which the best
    reproduces and the worst dies ("non-aging evolution" in Real et al. 2019). Xie & Yuille 2017, "Genetic CNN", section
    3.2: crossover.
    """

    Hyperparameters = TournamentEvolutionHyperparameters
    hyperparameters: TournamentEvolutionHyperparameters

    def _children(self, n: int) -> Tokens:
        mothers, fathers = self._winners(n), self._winners(n)
        crossed = self.rng.random(n) < self.hyperparameters.crossover_probability
        children = mothers.copy()
        children[crossed] = self.current_space.crossover(mothers[crossed], fathers[crossed], self.rng)
        known = (children == mothers).all(axis=1) | (children == fathers).all(axis=1)
        children[known] = self.current_space.mutate(children[known], self.rng)
        return children

    def _join(self, tokens: Tokens, rewards: Floats) -> None:
        """One after another; of a population that has grown too large, a loser leaves."""
        for row, reward in zip(tokens, rewards, strict=True):
            self._population = np.concatenate([self._population, row[None]])
            self._rewards = np.append(self._rewards, reward)
            if len(self._population) > self.hyperparameters.population_size:
                members = self._tournaments(1)[0]
                loser = members[self._rewards[members].argmin()]
                self._population = np.delete(self._population, loser, axis=0)
                self._rewards = np.delete(self._rewards, loser)
