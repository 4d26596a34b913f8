"""The policy of agents that have none: what the architectures that they hold do after the same choices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nas_gym.spaces import SearchSpace, Tokens

from .agent import Floats


def prefix_policy(space: SearchSpace, held: Tokens, tokens: Tokens, positions: NDArray[np.int64]) -> Floats:
    """The share of each choice among the architectures that begin alike; uniform over sequences where none does.

    Args:
        space: the search space.
        held: int64[M, T], the architectures that the agent holds.
        tokens: int64[B, T]; only columns before a row's position are read.
        positions: int64[B], the decision to be taken in each row.

    Returns:
        float64[B, A], as `Agent.policy` has it.
    """
    probabilities = np.zeros((len(tokens), space.num_choices))
    for row, position in enumerate(positions.tolist()):
        alike = (held[:, :position] == tokens[row, :position]).all(axis=1)
        if alike.any():
            weights = np.bincount(held[alike, position], minlength=space.num_choices).astype(np.float64)
        else:
            weights = space.weights(tokens[row : row + 1], position)[0]
        probabilities[row] = weights / weights.sum()
    return probabilities
