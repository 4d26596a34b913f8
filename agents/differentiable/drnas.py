"""Search by mixtures that are drawn from Dirichlet distributions (Chen et al. 2021, DrNAS)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nas_gym.agents.differentiable.agent import DifferentiableAgent


class DrNAS(DifferentiableAgent):
    """Learns the concentrations of a Dirichlet distribution of mixtures for each edge, by the pathwise gradient.

    The concentrations are ELU(parameters) + 1; weight decay of the parameters draws them to 1. The progressive
    scheme of partial channels is left out.

    Source: Chen et al. 2021, "DrNAS: Dirichlet Neural Architecture Search", section 3.1; the values are those of the
    authors' code for NAS-Bench-201, which has the learning rate and decay of DARTS.
    """

    def concentrations(self) -> Tensor:
        """float64[E, O]."""
        return F.elu(self.parameters) + 1

    def mixture(self) -> Tensor:
        with torch.random.fork_rng(devices=[]):  # distributions take no generator
            torch.manual_seed(int(self.rng.integers(2**63)))
            drawn: Tensor = torch.distributions.Dirichlet(self.concentrations()).rsample()
        return drawn
