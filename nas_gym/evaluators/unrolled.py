"""The gradient of a mixture through one step of the weights: DARTS of second order (Liu et al. 2019, section 2.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Loss = Callable[[Tensor], Tensor]
"""From a mixture to the loss of the weights as they are."""

PERTURBATION = 0.01
"""The norm of the perturbation of the weights in the finite difference (footnote 2)."""


@dataclass(frozen=True)
class Unrolling:
    """The step of SGD that is looked ahead.

    Attributes:
        weights: the parameters; they are changed in place, and are what they were in the end.
        momentum_buffers: one for each of them; None where there is none yet.
        learning_rate: of the step.
        momentum: of the step.
        weight_decay: of the step.
    """

    weights: Sequence[Tensor]
    momentum_buffers: Sequence[Tensor | None]
    learning_rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0

    def gradient(self, mixture: Tensor, training_loss: Loss, held_out_loss: Loss) -> tuple[Tensor, Tensor]:
        """Of the held-out loss after the step, with respect to the mixture that both losses depend on.

        The step is w' = w - rate (momentum * buffer + dL_train/dw + decay * w), and the gradient
        dL_held-out(w', a)/da - rate * d^2 L_train/(da dw) * dL_held-out/dw', whose second term is a finite difference
        of two gradients at w +- e dL_held-out/dw' (equations 7 and 8).

        Args:
            mixture: that needs a gradient.
            training_loss: of the training batch.
            held_out_loss: of the held-out batch.

        Returns:
            The held-out loss after the step, and the gradient.
        """
        rate, before = self.learning_rate, [weight.detach().clone() for weight in self.weights]
        try:
            self._move(_gradients(training_loss(mixture), self.weights))
            loss = held_out_loss(mixture)
            direct, *ahead = _gradients(loss, [mixture, *self.weights])
            size = PERTURBATION / max(float(torch.cat([part.flatten() for part in ahead]).norm()), 1e-12)
            differences = []
            for sign in (1.0, -1.0):
                self._set(before, ahead, sign * size)
                differences += _gradients(training_loss(mixture), [mixture])
        finally:
            self._set(before)
        plus, minus = differences
        return loss.detach(), direct - rate * (plus - minus) / (2 * size)

    @torch.no_grad()
    def _move(self, gradients: Sequence[Tensor]) -> None:
        for weight, gradient, buffer in zip(self.weights, gradients, self.momentum_buffers, strict=True):
            step = gradient + self.weight_decay * weight
            weight -= self.learning_rate * (step if buffer is None else step + self.momentum * buffer)

    @torch.no_grad()
    def _set(self, values: Sequence[Tensor], direction: Sequence[Tensor] | None = None, size: float = 0.0) -> None:
        for number, (weight, value) in enumerate(zip(self.weights, values, strict=True)):
            weight.copy_(value if direction is None else value + size * direction[number])


def _gradients(loss: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """With zeros for what the loss does not depend on."""
    return list(torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True))
