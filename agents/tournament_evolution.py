"""Tournament evolution: the best of a tournament reproduces, the worst of one dies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_gym.spaces import Tokens

from .agent import Agent, Floats
from .prefixes import prefix_policy


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
        for name in ("population_size", "sample_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 2:
                raise ValueError(f"{name} must be an integer of at least 2, got {value!r}")
        if self.sample_size > self.population_size:
            raise ValueError(
                f"sample_size must be at most population_size {self.population_size}, got {self.sample_size}"
            )
        probability = self.crossover_probability
        if isinstance(probability, bool | str) or not 0 <= probability <= 1:
            raise ValueError(f"crossover_probability must be in [0, 1], got {probability!r}")


class TournamentEvolution(Agent):
    """Crosses and mutates tournament winners; with each child the loser of a tournament dies, never the best.

    The first `population_size` architectures are drawn uniformly. A child has one parent, in which one decision is
    changed, or two, each the best of a tournament, from which it takes its decisions at random; a child that is like
    one of its two parents is mutated, since nothing is to be learned from trying it again. Once the population is full,
    a child that comes joins it, and the worst of a tournament leaves it. Asked for several at once, it draws the
    parents from what it has been told so far.

    Sources: Real et al. 2017, "Large-Scale Evolution of Image Classifiers", section 3.1: tournaments in which the best
    reproduces and the worst dies ("non-aging evolution" in Real et al. 2019). Xie & Yuille 2017, "Genetic CNN", section
    3.2: crossover.
    """

    name = "tournament"
    Hyperparameters = TournamentEvolutionHyperparameters
    hyperparameters: TournamentEvolutionHyperparameters

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._asked = 0
        self._population: Tokens = np.empty((0, self.space.length), dtype=np.int64)
        self._rewards: Floats = np.empty(0)

    def ask(self, n: int) -> Tokens:
        """Draws what the first population lacks, and children."""
        settings, alive = self.hyperparameters, len(self._population)
        lacking = n if not alive else max(0, min(n, settings.population_size - self._asked))
        self._asked += n
        first = self.open_space.sample(self.rng, lacking)
        return np.concatenate([first, self._children(n - lacking)]) if lacking < n else first

    def _children(self, n: int) -> Tokens:
        mothers, fathers = self._population[self._winners(n)], self._population[self._winners(n)]
        crossed = self.rng.random(n) < self.hyperparameters.crossover_probability
        children = mothers.copy()
        children[crossed] = self.open_space.crossover(mothers[crossed], fathers[crossed], self.rng)
        known = (children == mothers).all(axis=1) | (children == fathers).all(axis=1)
        children[known] = self.open_space.mutate(children[known], self.rng)
        return children

    def _winners(self, n: int) -> NDArray[np.int64]:
        samples = self._samples(n)
        best: NDArray[np.int64] = samples[np.arange(n), self._rewards[samples].argmax(axis=1)]
        return best

    def _samples(self, n: int) -> NDArray[np.int64]:
        """The members of n tournaments, int64[n, sample size], all of one being different."""
        shuffled: NDArray[np.int64] = self.rng.random((n, len(self._population))).argsort(axis=1)
        return shuffled[:, : self.hyperparameters.sample_size]

    def tell(self, tokens: Tokens, rewards: Floats) -> dict[str, float]:
        """Takes the architectures in, one after another; of a population that has grown too large, a loser leaves."""
        for row, reward in zip(tokens, rewards, strict=True):
            self._population = np.concatenate([self._population, row[None]])
            self._rewards = np.append(self._rewards, reward)
            if len(self._population) > self.hyperparameters.population_size:
                sample = self._samples(1)[0]
                loser = sample[self._rewards[sample].argmin()]
                self._population = np.delete(self._population, loser, axis=0)
                self._rewards = np.delete(self._rewards, loser)
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
