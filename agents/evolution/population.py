"""What the evolutionary agents have in common: a population, drawn uniformly at first, and tournaments in it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_gym.agents.agent import Agent
from nas_gym.agents.trial import Proposal, Trials
from nas_gym.spaces import Tokens
from nas_gym.types import Floats


class PopulationAgent(Agent):
    """Draws its first `population_size` architectures uniformly, and breeds all others.

    Asked for several at once, it draws the parents from the trials so far. Its hyperparameters have
    `population_size` and `sample_size`.
    """

    staleness = None  # parents are taken from the trials so far, whichever they are

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._asked = 0
        self._population: Tokens = np.empty((0, self.space.length), dtype=np.int64)  # oldest first
        self._rewards: Floats = np.empty(0)

    def ask(self, n: int) -> Proposal:
        """Draws what the first population lacks, and children."""
        wanted: int = self.hyperparameters.population_size
        lacking = n if not len(self._population) else max(0, min(n, wanted - self._asked))
        self._asked += n
        first = self.current_space.sample(self.rng, lacking)
        return self.propose(np.concatenate([first, self._children(n - lacking)]) if lacking < n else first)

    @abstractmethod
    def _children(self, n: int) -> Tokens:
        """Breeds n architectures of the population, int64[n, T]."""

    @abstractmethod
    def _join(self, tokens: Tokens, rewards: Floats) -> None:
        """Takes int64[n, T] with rewards float64[n] into the population; decides who dies."""

    def tell(self, trials: Trials) -> dict[str, float]:
        """Takes the architectures into the population."""
        self._join(trials.tokens, trials.rewards)
        return {"train/population_reward": float(self._rewards.mean())} if len(self._rewards) else {}

    def _tournaments(self, n: int) -> NDArray[np.int64]:
        """The members of n tournaments, int64[n, sample size], all of one being different."""
        shuffled: NDArray[np.int64] = self.rng.random((n, len(self._population))).argsort(axis=1)
        return shuffled[:, : self.hyperparameters.sample_size]

    def _winners(self, n: int) -> Tokens:
        """The best of each of n tournaments, int64[n, T]."""
        members = self._tournaments(n)
        winners: Tokens = self._population[members[np.arange(n), self._rewards[members].argmax(axis=1)]]
        return winners

    def state_dict(self) -> dict[str, Any]:
        import torch

        population = {"tokens": torch.from_numpy(self._population), "rewards": torch.from_numpy(self._rewards)}
        return {**super().state_dict(), "asked": self._asked, "population": population}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._asked = state["asked"]
        self._population = state["population"]["tokens"].numpy()
        self._rewards = state["population"]["rewards"].numpy()


def check_population(population_size: int, sample_size: int, least: int) -> None:
    """Checks the hyperparameters that all populations have.

    Raises:
        ValueError: one of them is no integer of at least `least`, or the sample is larger than the population.
    """
    for name, value in (("population_size", population_size), ("sample_size", sample_size)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    if sample_size > population_size:
        raise ValueError(f"sample_size must be at most population_size {population_size}, got {sample_size}")
