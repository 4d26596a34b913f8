"""Search by one sampled operation an edge, with the gradient of a softened draw (Dong & Yang 2019, GDAS)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from nas_gym.agents.differentiable.agent import DifferentiableAgent, DifferentiableHyperparameters
from nas_gym.agents.differentiable.snas import concrete


@dataclass(frozen=True)
class GDASHyperparameters(DifferentiableHyperparameters):
    """Those of Dong & Yang 2019, section 4.1.

    Attributes:
        temperature: of the softened draw at the start.
        final_temperature: at the horizon; it falls linearly.
    """

    temperature: float = 10.0
    final_temperature: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("temperature final_temperature", "positive", lambda v: 0 < v < math.inf)


class GDAS(DifferentiableAgent):
    """Runs one operation an edge, drawn from the softmax of the parameters: a step costs as much as one architecture.

    Forward, the draw is one-hot. Backward, the drawn operation's weight has the gradient of its softened weight, and
    the others, which were not run, have none.

    Source: Dong & Yang 2019, "Searching for a Robust Neural Architecture in Four GPU Hours", section 3.2.
    """

    Hyperparameters = GDASHyperparameters
    hyperparameters: GDASHyperparameters

    def mixture(self) -> Tensor:
        settings = self.hyperparameters
        temperature = settings.temperature + self.progress * (settings.final_temperature - settings.temperature)
        soft = concrete(self.parameters, self.gumbel(), temperature)
        hard = F.one_hot(soft.argmax(dim=1), soft.shape[1]).double()
        return hard * (1 + (soft - soft.detach()))
