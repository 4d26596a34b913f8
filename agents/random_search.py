"""Random search: the floor that every other agent has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas_gym.spaces import Tokens

from .agent import Agent, Floats


@dataclass(frozen=True)
class RandomSearchHyperparameters:
    """Random search has none."""


class RandomSearch(Agent):
    """Draws architectures uniformly from all legal sequences, with repetition.

    Source: Bergstra & Bengio 2012; as a baseline of architecture search, Li & Talwalkar 2019.
    """

    name = "random"
    Hyperparameters = RandomSearchHyperparameters

    def ask(self, n: int) -> Tokens:
        """Draws n architectures."""
        return self.open_space.sample(self.rng, n)

    def tell(self, tokens: Tokens, rewards: Floats) -> dict[str, float]:
        """Learns nothing."""
        del tokens, rewards
        return {}

    def policy(self, tokens: Tokens, positions: NDArray[np.int64]) -> Floats:
        """Each choice by the number of legal sequences that it leads to."""
        probabilities = np.zeros((len(tokens), self.space.num_choices))
        for position in np.unique(positions):
            rows = positions == position
            weights = self.open_space.weights(tokens[rows], int(position))
            probabilities[rows] = weights / weights.sum(axis=1, keepdims=True)
        return probabilities
