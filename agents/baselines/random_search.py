"""Random search: the floor that every other agent has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas_gym.agents.policy import PolicyAgent
from nas_gym.agents.trial import Proposal, Trials
from nas_gym.spaces import Tokens
from nas_gym.types import Floats


@dataclass(frozen=True)
class RandomSearchHyperparameters:
    """Random search has none."""


class RandomSearch(PolicyAgent):
    """Draws architectures uniformly from all legal sequences, with repetition.

    Source: Bergstra & Bengio 2012; as a baseline of architecture search, Li & Talwalkar 2019.
    """

    Hyperparameters = RandomSearchHyperparameters
    staleness = None

    def ask(self, n: int) -> Proposal:
        """Draws n architectures."""
        return self.propose(self.current_space.sample(self.rng, n))

    def tell(self, trials: Trials) -> dict[str, float]:
        """Learns nothing."""
        del trials
        return {}

    def policy(self, tokens: Tokens, positions: NDArray[np.int64]) -> Floats:
        """Each choice by the number of legal sequences that it leads to."""
        probabilities = np.zeros((len(tokens), self.space.num_choices))
        for position in np.unique(positions):
            rows = positions == position
            weights = self.current_space.weights(tokens[rows], int(position))
            probabilities[rows] = weights / weights.sum(axis=1, keepdims=True)
        return probabilities
