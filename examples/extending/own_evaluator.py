"""An evaluator of one's own: a score without training, the number of layers that have weights.

PYTHONPATH=examples/extending nas-gym train --env own_space:Own-v0 --env-params evaluator:own_evaluator:Depth
"""

from typing import Any

import numpy as np

from nas_gym.evaluators import Evaluations, Evaluator
from nas_gym.spaces import SearchSpace, Tokens


class Depth(Evaluator):
    """Scores an architecture by its share of decisions for a convolution.

    Args:
        space: the search space.
        penalty: what each pooling layer costs, given by ``evaluator_kwargs.penalty:0.1``.
    """

    def __init__(self, space: SearchSpace, penalty: float = 0.0) -> None:
        super().__init__(space)
        self.penalty = penalty

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        """Scores int64[B, T] as one batch."""
        words = [self.space.format(row) for row in tokens]
        layers = np.array([word.count("conv_") for word in words])
        pools = np.array([word.count("pool_") for word in words])
        score = (layers - self.penalty * pools) / self.space.length
        return Evaluations(np.clip(score, 0.0, 1.0), {"layers": layers.astype(np.float64)})

    def fingerprint(self) -> dict[str, Any]:
        """What the results depend on, for `--store`."""
        return {"evaluator": "own_evaluator:Depth", "penalty": self.penalty}
