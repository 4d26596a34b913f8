"""Which operations an edge needs: those whose removal costs most (Wang et al. 2021, DARTS-PT)."""

from __future__ import annotations

import numpy as np

from nas_gym.evaluators.relaxed import RelaxedEvaluator
from nas_gym.types import Floats


def by_removal(evaluator: RelaxedEvaluator, mixture: Floats, rng: np.random.Generator) -> Floats:
    """By how much the loss rises when an operation of an edge is left out: float64[E, O].

    The edges come in random order, and each of them then holds its operation alone. A removed operation's weight is
    zero, and the others keep theirs. The paper trains the network for some epochs between two edges, and goes by
    accuracy; here a cell is derived after every epoch, so the network stays as it is, and the loss says more of few
    images.

    Source: Wang et al. 2021, "Rethinking Architecture Selection in Differentiable NAS", algorithm 1.

    Args:
        evaluator: the network.
        mixture: of the search, float64[E, O].
        rng: of the order.
    """
    current, costs = mixture.copy(), np.empty_like(mixture)
    for edge in rng.permutation(len(mixture)):
        without = np.repeat(current[None], mixture.shape[1], axis=0)
        operations = np.arange(mixture.shape[1])
        without[operations, edge, operations] = 0.0
        whole, *losses = evaluator.relaxed_losses(np.concatenate([current[None], without]))
        costs[edge] = np.array(losses) - whole
        current[edge] = np.arange(mixture.shape[1]) == np.argmax(costs[edge])
    return costs
