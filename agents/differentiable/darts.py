"""Differentiable architecture search (Liu et al. 2019), and what was found to keep it from collapsing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas_gym.agents.differentiable.agent import DifferentiableAgent, DifferentiableHyperparameters, as_array
from nas_gym.agents.differentiable.early_stopping import EarlyStopping, largest_eigenvalue
from nas_gym.spaces import Tokens
from nas_gym.types import Floats

PERTURBATIONS = ("random", "adversarial")


@dataclass(frozen=True)
class DARTSHyperparameters(DifferentiableHyperparameters):
    """Those of Liu et al. 2019; the remedies are off by default.

    Attributes:
        order: 2 descends the held-out loss after one step of the weights (section 2.3); 1 leaves the step out.
        fair: sigmoids take the place of the softmax, so that operations do not compete (Chu et al. 2020, FairDARTS).
        fair_weight: of the loss that drives the sigmoids to 0 and 1.
        perturbation: the weights learn under a mixture that is changed at ``"random"``, or ``"adversarial"``, so that
            the loss is smooth in it (Chen & Hsieh 2020, SmoothDARTS); None leaves it as it is.
        first_perturbation: the largest change of a weight of the mixture at the start (the authors' code: 0.03).
        last_perturbation: at the horizon; it rises linearly (the authors' code: 0.3).
        perturbation_steps: of projected gradient ascent, each of 2 / steps of the largest change (their code: 7).
        early_stopping: the search stops when the largest eigenvalue of the held-out loss's Hessian rises (Zela et al.
            2020); it then proposes the cell from before the rise.
    """

    order: int = 1
    fair: bool = False
    fair_weight: float = 10.0
    perturbation: str | None = None
    first_perturbation: float = 0.03
    last_perturbation: float = 0.3
    perturbation_steps: int = 7
    early_stopping: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("order", "1 or 2", lambda v: v in (1, 2))
        names = "fair_weight first_perturbation last_perturbation"
        self._check(names, "finite and not negative", lambda v: 0 <= v < math.inf)
        wanted = f"None or one of {', '.join(PERTURBATIONS)}"
        self._check("perturbation", wanted, lambda v: v is None or v in PERTURBATIONS)
        self._check("perturbation_steps", "a positive integer", lambda v: v > 0)
        for name in ("fair", "early_stopping"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}")


class DARTS(DifferentiableAgent):
    """Weighs the operations of each edge by a softmax of parameters, which descend the loss of held-out examples.

    Source: Liu et al. 2019, "DARTS: Differentiable Architecture Search", algorithm 1. The parameters and the weights of
    the network learn from halves of the train split.

    Attributes:
        stopping: what is known of the curvature; None without early stopping.
    """

    Hyperparameters = DARTSHyperparameters
    hyperparameters: DARTSHyperparameters

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stopping = EarlyStopping() if self.hyperparameters.early_stopping else None

    def mixture(self) -> Tensor:
        return self._mixture_of(self.parameters)

    def _mixture_of(self, parameters: Tensor) -> Tensor:
        return torch.sigmoid(parameters) if self.hyperparameters.fair else torch.softmax(parameters, dim=1)

    def strengths(self) -> Floats:
        return as_array(self.mixture())

    # ------------------------------------------------------------------ a step

    def train(self) -> dict[str, float]:
        settings, mixture = self.hyperparameters, self.mixture()
        loss, gradient = self.evaluator.mixture_gradient(as_array(mixture), unrolled=settings.order == 2)
        self.descend(mixture, gradient, self._zero_one_loss(mixture) if settings.fair else None)
        statistics, _ = self.evaluator.relaxed_step(self._perturbed(self.strengths()))
        return {**statistics, "train/held_out_loss": loss}

    def _zero_one_loss(self, mixture: Tensor) -> Tensor:
        """FairDARTS, equation 5 of section 4.2: what is undecided costs."""
        return -self.hyperparameters.fair_weight * (mixture - 0.5).square().mean()

    def _perturbed(self, mixture: Floats) -> Floats:
        """SmoothDARTS, section 4: within a box around the mixture, at random or where the training loss is highest."""
        settings = self.hyperparameters
        if settings.perturbation is None:
            return mixture
        size = settings.first_perturbation + self.progress * (settings.last_perturbation - settings.first_perturbation)
        changed = mixture + self.rng.uniform(-size, size, mixture.shape)
        if settings.perturbation == "adversarial":
            for _ in range(settings.perturbation_steps):
                _, gradient = self.evaluator.mixture_gradient(changed, "train")
                step = 2 * size / settings.perturbation_steps * np.sign(gradient)
                changed = mixture + np.clip(changed + step - mixture, -size, size)
        return changed

    # ------------------------------------------------------------------ the cell

    def prepare(self) -> Any:
        """The steps that are left of the epoch; none where the search has stopped."""
        if self.stopping is not None and self.stopping.cell is not None:
            self._done = self.steps_per_trial
        return super().prepare()

    def derive(self) -> Tokens:
        if self.stopping is None:
            return super().derive()
        if self.stopping.cell is None:
            self.stopping.add(self._largest_eigenvalue(), super().derive())
        return self.stopping.cell if self.stopping.cell is not None else self.stopping.cells[-1]

    def _largest_eigenvalue(self) -> float:
        """Of the Hessian of the held-out loss by the parameters: that by the mixture, and the mixture's own."""
        parameters = self.parameters.detach().requires_grad_()
        mixture = self._mixture_of(parameters)
        _, gradient = self.evaluator.mixture_gradient(as_array(mixture))
        (slope,) = torch.autograd.grad(mixture, parameters, torch.from_numpy(gradient), create_graph=True)

        def product(vector: Floats) -> Floats:
            direction = torch.from_numpy(vector.reshape(self.edges.shape))
            change = torch.func.jvp(self._mixture_of, (parameters.detach(),), (direction,))[1]
            curvature = torch.from_numpy(self.evaluator.hessian_product(as_array(mixture), as_array(change)))
            (outer,) = torch.autograd.grad(mixture, parameters, curvature, retain_graph=True)
            (inner,) = torch.autograd.grad(slope, parameters, direction, retain_graph=True)
            return as_array(outer + inner).ravel()

        return largest_eigenvalue(product, parameters.numel())

    def state_dict(self) -> dict[str, Any]:
        stopping = {} if self.stopping is None else self.stopping.state_dict()
        return {**super().state_dict(), "stopping": stopping}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if self.stopping is not None:
            self.stopping.load_state_dict(state["stopping"])
