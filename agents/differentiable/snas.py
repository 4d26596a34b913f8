"""Stochastic neural architecture search (Xie et al. 2019): concrete samples of operations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nas_gym.agents.differentiable.agent import DifferentiableAgent, DifferentiableHyperparameters, as_array


@dataclass(frozen=True)
class SNASHyperparameters(DifferentiableHyperparameters):
    """Those of Xie et al. 2019, appendix, and of the authors' code.

    Attributes:
        initial_mean: of the logarithms of the parameters.
        initial_deviation: of them.
        temperature: of the concrete distribution at the start.
        final_temperature: at the horizon; it falls linearly.
        resource_weight: of the logarithm of the cell's operations, as a share of all of them (the authors: 1.5e-3 to
            1e-2); 0 leaves it out.
    """

    initial_mean: float = 1.0
    initial_deviation: float = 0.01
    temperature: float = 1.0
    final_temperature: float = 0.03
    resource_weight: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("temperature final_temperature", "positive", lambda v: 0 < v < math.inf)
        self._check("resource_weight", "finite and not negative", lambda v: 0 <= v < math.inf)


class SNAS(DifferentiableAgent):
    """Draws almost one operation an edge; the weights and the parameters descend the same loss in one step.

    Source: Xie et al. 2019, "SNAS: Stochastic Neural Architecture Search", sections 2.2 (the concrete distribution) and
    2.4 (resource constraint). Both learn from the part of the train split that is not held out.
    """

    Hyperparameters = SNASHyperparameters
    hyperparameters: SNASHyperparameters

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._costs = torch.ones(self.edges.shape, dtype=torch.float64)
        if self.hyperparameters.resource_weight:
            flops = torch.from_numpy(self.evaluator.edge_flops())
            self._costs = (flops + 1e-3 * flops.mean()) / flops.amax(dim=1).sum()

    @property
    def temperature(self) -> float:
        """Of the concrete distribution now."""
        first, last = self.hyperparameters.temperature, self.hyperparameters.final_temperature
        return first + self.progress * (last - first)

    def mixture(self) -> Tensor:
        return concrete(self.parameters, self.gumbel(), self.temperature)

    def train(self) -> dict[str, float]:
        mixture, settings = self.mixture(), self.hyperparameters
        statistics, gradient = self.evaluator.relaxed_step(as_array(mixture))
        cost = (mixture * self._costs).sum()
        penalty = settings.resource_weight * cost.log() if settings.resource_weight else None
        self.descend(mixture, gradient, penalty)
        return {**statistics, "train/resources": float(cost.detach())}


def concrete(log_weights: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """A sample of the concrete distribution, whose largest entry is a draw from the weights (Maddison et al. 2017).

    Args:
        log_weights: float64[..., O], not normalised.
        noise: standard Gumbel, float64[..., O].
        temperature: a sample is the nearer to one-hot the lower it is.
    """
    return torch.softmax((log_weights + noise) / temperature, dim=-1)
