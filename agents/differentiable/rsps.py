"""Random search with parameter sharing (Li & Talwalkar 2019): the floor of differentiable search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nas_gym.agents.differentiable.agent import RelaxedAgent, RelaxedHyperparameters
from nas_gym.spaces import Tokens


@dataclass(frozen=True)
class RSPSHyperparameters(RelaxedHyperparameters):
    """Those of NATS-Bench's one-shot configuration.

    Attributes:
        candidates: uniform architectures of which each trial is the best.
    """

    candidates: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("candidates", "a positive integer", lambda v: v > 0)


class RSPS(RelaxedAgent):
    """Trains the weights on a uniform architecture a step; proposes the best of uniform ones by the held-out loss.

    Source: Li & Talwalkar 2019, "Random Search and Reproducibility for Neural Architecture Search", section 3.2.
    """

    Hyperparameters = RSPSHyperparameters
    hyperparameters: RSPSHyperparameters

    def train(self) -> dict[str, float]:
        tokens = self.space.sample(self.rng, 1)
        return self.evaluator.relaxed_step(self.edges.weights(tokens)[0])[0]

    def derive(self) -> Tokens:
        tokens = self.space.sample(self.rng, self.hyperparameters.candidates)
        best: Tokens = tokens[np.argmin(self.evaluator.relaxed_losses(self.edges.weights(tokens)))]
        return best
