"""Scores architectures by the weights of a relaxed network, which an agent trains (Liu et al. 2019, DARTS)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from nas_gym.evaluators.cost import MultiplyAdds
from nas_gym.evaluators.evaluator import logger
from nas_gym.evaluators.shared_weights import SharedWeightEvaluator, SharedWeightSettings
from nas_gym.evaluators.training import memory_reason, mixed_precision
from nas_gym.evaluators.unrolled import Unrolling
from nas_gym.networks.relaxed import make_relaxed
from nas_gym.spaces.edges import edges_of
from nas_gym.tasks import Split
from nas_gym.types import Floats

Half = Literal["train", "held-out"]


@dataclass(frozen=True)
class RelaxedSettings(SharedWeightSettings):
    """Those of `SharedWeightSettings`, with the values of DARTS (Liu et al. 2019, appendix A.1.1) for SGD.

    Attributes:
        learning_rate: at the start of the cosine, over the steps that the agent plans.
        final_learning_rate: at its end (the authors' code).
        weight_decay: L2 penalty.
        held_out: share of the train split that the architecture's parameters learn from, and the weights do not.
    """

    learning_rate: float = 0.025
    final_learning_rate: float = 0.001
    weight_decay: float = 3e-4
    held_out: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must be a share in (0, 1), got {self.held_out!r}")


class RelaxedEvaluator(SharedWeightEvaluator):
    """A network under weights of all operations on all edges: a mixture, float64[E, O].

    A differentiable agent owns the mixture and what it is made of. The evaluator owns the weights of the network, the
    data and their halves: the weights learn from one half of the train split (`relaxed_step`), the agent from the other
    (`mixture_gradient`). Architectures are scored as with shared weights, on the validation split, and have no part in
    the training. Other agents would find weights that nobody trains.

    Args:
        space: a space with `edges_of`.
        task: the task, or its name.
        arguments: those of `TaskEvaluator`; the settings are fields of `RelaxedSettings`.

    Raises:
        ValueError: an unknown task, device or setting, or a space that cannot be relaxed.
    """

    name = "relaxed"
    Settings = RelaxedSettings
    relaxed = True
    nesterov = False  # as in the step that DARTS unrolls
    settings: RelaxedSettings

    def make_supernet(self) -> nn.Module:
        """From inputs float[N, ...] and a mixture float[B, E, O] to outputs float[B, N, ...]."""
        self.edges = edges_of(self.space)
        self._orders: dict[Half, tuple[int, Tensor]] = {}  # of the examples, with the number of the epoch
        settings = self.settings.network(self.task.input_shape)
        return make_relaxed(self.space, self.task.input_shape, self.task.num_outputs, settings, self.seed)

    @cached_property
    def halves_of_train(self) -> dict[Half, Split]:
        """The train split in two, by the seed."""
        train = self.task.train
        order = torch.randperm(len(train), generator=self._generator("halves", 0), device=self.device)
        held_out = round(self.settings.held_out * len(train))
        return {"train": train.take(order[held_out:]), "held-out": train.take(order[:held_out])}

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which the weights see each of their examples once."""
        half = self.halves_of_train["train"]
        return max(1, len(half) // min(self.settings.batch_size, len(half)))

    def relaxed_step(self, mixture: Floats) -> tuple[dict[str, float], Floats]:
        """One step of SGD of the weights, on the next minibatch of their half.

        A step whose gradient is not finite, or that runs out of memory, is skipped.

        Args:
            mixture: float64[E, O]. Operations of weight zero are not run, and have no gradient.

        Returns:
            Scalars to log, and the gradient of the loss by the mixture, before the step: float64[E, O], zeros where the
            step is skipped.
        """
        self.optimiser.param_groups[0]["lr"] = rate = self._learning_rate()
        weights = self._as_tensor(mixture)
        self.optimiser.zero_grad(set_to_none=True)
        try:
            loss = self._loss("train")(weights)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = float(nn.utils.clip_grad_norm_(self.weights, self.settings.gradient_clip, foreach=True))
        except (RuntimeError, MemoryError) as error:
            logger.warning("a step of the relaxed network is skipped: %s", memory_reason(error))
            loss, norm = torch.tensor(math.nan), math.nan
        if finite := math.isfinite(norm):
            self.optimiser.step()
        self.steps += 1
        logged = {"weights/loss": float(loss.detach()), "weights/learning_rate": rate, "weights/skipped": 1.0 - finite}
        return logged, _as_array(weights.grad, mixture.shape) if finite else np.zeros(mixture.shape)

    def mixture_gradient(
        self, mixture: Floats, half: Half = "held-out", *, unrolled: bool = False
    ) -> tuple[float, Floats]:
        """The gradient of the loss by the mixture, on the minibatch of a half that belongs to the next step.

        Nothing changes, so that calls between two steps are for the same minibatch.

        Args:
            mixture: float64[E, O].
            half: of the train split.
            unrolled: through one step of the weights (`Unrolling`), whose minibatch is that of the next step.

        Returns:
            The loss, and the gradient float64[E, O]; NaN and zeros where the memory does not suffice.
        """
        try:
            return self._mixture_gradient(mixture, half, unrolled)
        except (RuntimeError, MemoryError) as error:
            logger.warning("a gradient of the mixture is left out: %s", memory_reason(error))
            return math.nan, np.zeros(mixture.shape)

    def _mixture_gradient(self, mixture: Floats, half: Half, unrolled: bool) -> tuple[float, Floats]:
        weights = self._as_tensor(mixture)
        if not unrolled:
            loss = self._loss(half)(weights)
            (gradient,) = torch.autograd.grad(loss, [weights])
            return float(loss.detach()), _as_array(gradient, mixture.shape)
        parameters = [each for each in self.supernet.parameters() if each.requires_grad]
        buffers = [self.optimiser.state[each].get("momentum_buffer") for each in parameters]
        step = Unrolling(parameters, buffers, self._learning_rate(), self.settings.momentum, self.settings.weight_decay)
        loss, gradient = step.gradient(weights, self._loss("train"), self._loss(half))
        return float(loss), _as_array(gradient, mixture.shape)

    def hessian_product(self, mixture: Floats, direction: Floats) -> Floats:
        """The Hessian of the held-out loss by the mixture, times a direction float64[E, O], on the same minibatch."""
        weights = self._as_tensor(mixture)
        (gradient,) = torch.autograd.grad(self._loss("held-out")(weights), [weights], create_graph=True)
        (product,) = torch.autograd.grad(gradient, [weights], self._as_tensor(direction).detach())
        return _as_array(product, mixture.shape)

    @torch.no_grad()
    def relaxed_losses(self, mixtures: Floats) -> Floats:
        """Of mixtures float64[B, E, O] on `score_batch` examples of the held-out half, always the same: float64[B]."""
        batch = self.halves_of_train["held-out"].take(slice(self.settings.score_batch))
        inputs, losses = self.task.inputs(batch), []
        self.supernet.eval()
        for mixture in mixtures:
            with mixed_precision(self.device), self._threads(len(inputs)):
                outputs = self.supernet(inputs, self._as_tensor(mixture)[None].detach()).float()[0]
            losses.append(float(self.task.loss(outputs, batch.targets)))
        return np.array(losses)

    @torch.no_grad()
    def edge_flops(self) -> Floats:
        """Floating-point operations of each operation on each edge, of all cells together, float64[E, O]."""
        everything, images = np.ones(self.edges.shape), torch.zeros(1, *self.task.input_shape, device=self.device)
        self.supernet.eval()

        def multiply_adds(mixture: Floats) -> int:
            counter = MultiplyAdds()
            with counter:
                self.supernet(images, self._as_tensor(mixture)[None].detach())
            return counter.total

        total, counts = multiply_adds(everything), np.empty(self.edges.shape)
        for place in np.ndindex(*self.edges.shape):
            without = everything.copy()
            without[place] = 0.0
            counts[place] = 2 * (total - multiply_adds(without))
        return counts

    def _loss(self, half: Half) -> Callable[[Tensor], Tensor]:
        """The loss of the weights, as a function of a mixture float[E, O], on the minibatch of the next step."""
        batch = self._next_batch(half)
        inputs = self.task.inputs(batch)
        if self.settings.augment:
            inputs = self.task.augment(inputs, self._generator(f"augmentation {half}", self.steps))

        def loss(mixture: Tensor) -> Tensor:
            if not self.supernet.training:  # a walk through hundreds of modules
                self.supernet.train()
            with mixed_precision(self.device), self._threads(len(inputs)):
                outputs = self.supernet(inputs, mixture[None]).float()[0]
            return self.task.loss(outputs, batch.targets)

        return loss

    def _next_batch(self, half: Half) -> Split:
        """The minibatch of the next step; the order of an epoch is derived from the seed and the epoch's number."""
        split = self.halves_of_train[half]
        size = min(self.settings.batch_size, len(split))
        epoch, position = divmod(self.steps, len(split) // size)
        if self._orders.get(half, (-1,))[0] != epoch:
            generator = self._generator(f"order {half}", epoch)
            self._orders[half] = epoch, torch.randperm(len(split), generator=generator, device=self.device)
        return split.take(self._orders[half][1][position * size : (position + 1) * size])

    def _as_tensor(self, mixture: Floats) -> Tensor:
        parameter = next(self.supernet.parameters())
        return torch.from_numpy(mixture).to(parameter.device, parameter.dtype).requires_grad_()


def _as_array(gradient: Tensor | None, shape: tuple[int, ...]) -> Floats:
    return np.zeros(shape) if gradient is None else gradient.detach().cpu().double().numpy()
