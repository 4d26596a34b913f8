"""Scores architectures with weights that all of them share (Pham et al. 2018, ENAS)."""

from __future__ import annotations

import copy
import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nas_gym.evaluators.evaluator import Evaluations, logger
from nas_gym.evaluators.task_evaluator import TaskEvaluator
from nas_gym.evaluators.threads import fitting_threads
from nas_gym.evaluators.training import check_optimiser, cosine, memory_reason, mixed_precision, repeated
from nas_gym.networks import Network, NetworkSettings, make_network, make_supernet
from nas_gym.networks.few_shot import FewShotNetwork
from nas_gym.networks.network import ArchitectureNorm
from nas_gym.settings import check_fields
from nas_gym.spaces import Architecture, SearchSpace, Tokens
from nas_gym.tasks import Split, Task

COSINE_STEPS = 2000  # of the first cosine, where no schedule plans any


@dataclass(frozen=True)
class SharedWeightSettings:
    """The proxy network, its training and its scoring; the defaults suit two CPU cores.

    Attributes:
        channels: of the first stage (ENAS: 36 on a GPU).
        cells_per_stage: N (ENAS: 5 on a GPU).
        reductions: how often the resolution is halved (ENAS: 2).
        stem_stride: of the first convolution; None takes 2 from 16 pixels on.
        affine: whether batch norm has a scale and a shift, which all architectures then share (NATS-Bench's one-shot
            configuration: no).
        batch_size: training examples per step.
        learning_rate: at the start of the cosine (ENAS, section 3.2: 0.05, for one architecture a step; gradients are
            averaged over those of a step, so several need several times as much).
        final_learning_rate: at the end of the cosine (ENAS, section 3.2: 0.0005).
        cosine_steps: steps of the first cosine; each restart is twice as long (ENAS: 10 epochs, doubling). None takes
            the steps that the schedule plans, its warm-up.
        momentum: of SGD, Nesterov's form (ENAS, section 3.2).
        weight_decay: L2 penalty (ENAS, section 3.2: 1e-4; NATS-Bench's one-shot configuration: 5e-4).
        gradient_clip: largest norm of the gradient (ENAS's published configuration: 5).
        augment: whether the task's augmentation is applied to training examples.
        score_images: number of validation examples that an architecture is scored on; None uses all of them. A number
            draws one minibatch, as ENAS does, the same for all architectures until the weights change.
        score_batch: number of examples that share batch-norm statistics in scoring.
        architectures_at_once: architectures scored in one forward pass; None uses 64 on CUDA and 8 on CPUs, whose
            caches larger batches overflow.
    """

    channels: int = 8
    cells_per_stage: int = 1
    reductions: int = 1
    stem_stride: int | None = None
    affine: bool = False
    batch_size: int = 64
    learning_rate: float = 0.1
    final_learning_rate: float = 0.0005
    cosine_steps: int | None = None
    momentum: float = 0.9
    weight_decay: float = 5e-4
    gradient_clip: float = 5.0
    augment: bool = False
    score_images: int | None = 1000
    score_batch: int = 250
    architectures_at_once: int | None = None

    def __post_init__(self) -> None:
        check_fields(self, "batch_size score_batch", "at least 1", lambda v: v >= 1)
        optional = "cosine_steps score_images architectures_at_once"
        check_fields(self, optional, "at least 1, or None", lambda v: v is None or v >= 1)
        check_fields(self, "final_learning_rate", "finite and not negative", lambda v: 0 <= v < math.inf)
        check_optimiser(self)

    def network(self, input_shape: tuple[int, ...]) -> NetworkSettings:
        """The macro architecture for a task's `input_shape`."""
        large = min(input_shape[1:], default=0) >= 16
        stride = (2 if large else 1) if self.stem_stride is None else self.stem_stride
        return NetworkSettings(self.channels, self.cells_per_stage, self.reductions, stride)


class SharedWeightEvaluator(TaskEvaluator):
    """One supernet holds the weights of every architecture; `update` trains it, `evaluate` scores with it.

    All randomness is derived from the seed and the number of steps done, so the state consists of the weights, the
    momentum and the number of steps.

    Args:
        space: the search space.
        task: the task, or its name.
        arguments: those of `TaskEvaluator`; the settings are fields of `SharedWeightSettings`.

    Raises:
        ValueError: an unknown task, device or setting, or a space without networks.
    """

    name = "shared-weights"
    Settings = SharedWeightSettings
    stateful = True
    objective = "likelihood"
    nesterov = True
    settings: SharedWeightSettings

    def __init__(self, space: SearchSpace, task: Task | str = "digits", **arguments: Any) -> None:
        super().__init__(space, task, **arguments)
        self._one = self.make_supernet()
        for module in self._one.modules():
            if isinstance(module, ArchitectureNorm):
                module.affine = self.settings.affine
                module.requires_grad_(self.settings.affine)
        self._one.to(self.device)
        self.split_at: int | None = None
        self.steps, self.planned_steps = 0, 0
        self._order = -1, torch.empty(0)  # of the epoch of that number
        self._use(self._one)

    def _use(self, supernet: nn.Module) -> None:
        """Trains and scores with this from now on; the momentum starts at zero."""
        self.supernet = supernet
        self.weights = list(supernet.parameters())
        self.optimiser = torch.optim.SGD(
            self.weights,
            self.settings.learning_rate,
            momentum=self.settings.momentum,
            weight_decay=self.settings.weight_decay,
            nesterov=self.nesterov and self.settings.momentum > 0,
            foreach=True,
        )

    def make_supernet(self) -> nn.Module:
        """From inputs float[N, ...] and tokens int64[B, T] to outputs float[B, N, ...]; initialised by the seed."""
        settings = self.settings.network(self.task.input_shape)
        return make_supernet(self.space, self.task.input_shape, self.task.num_outputs, settings, self.seed)

    # ------------------------------------------------------------------ training

    def plan_updates(self, steps: int) -> None:
        self.planned_steps = steps

    def split(self, position: int) -> None:
        """Copies the weights into a supernet for each choice of the decision at `position` (Zhao et al. 2021)."""
        self.split_at = position
        self._use(FewShotNetwork(self._one, self.space, position))

    def update(self, tokens: Tokens) -> dict[str, float]:
        """One step of SGD on the mean loss of the M architectures on one minibatch of the train split.

        A step whose gradient is not finite, or that runs out of memory, is skipped, so that one architecture cannot
        spoil the shared weights.
        """
        batch = self._training_batch()
        inputs = self.task.inputs(batch)
        if self.settings.augment:
            inputs = self.task.augment(inputs, self._generator("augmentation", self.steps))
        self.optimiser.param_groups[0]["lr"] = rate = self._learning_rate()
        try:
            with self._threads(len(inputs)):
                loss, accuracy, finite = self._descend(inputs, batch.targets, tokens)
        except (RuntimeError, MemoryError) as error:
            logger.warning("a step of the shared weights is skipped: %s", memory_reason(error))
            loss, accuracy, finite = math.nan, math.nan, False
        self.steps += 1
        return {
            "weights/loss": loss,
            "weights/accuracy": accuracy,
            "weights/learning_rate": rate,
            "weights/skipped": float(not finite),
        }

    def _descend(self, inputs: Tensor, targets: Tensor, tokens: Tokens) -> tuple[float, float, bool]:
        """Takes the step if its gradient is finite; returns the mean loss, the score, and whether it did."""
        if not self.supernet.training:  # a walk through hundreds of modules
            self.supernet.train()
        with mixed_precision(self.device):
            outputs = self.supernet(inputs, tokens).float().flatten(0, 1)
        expected = repeated(targets, len(tokens))
        loss = self.task.loss(outputs, expected)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.weights, self.settings.gradient_clip, foreach=True)
        measured = self.task.measure(outputs.detach(), expected).float().mean()
        # Read at once: each reading waits for the device.
        mean, length, right = torch.stack([loss.detach(), norm, measured]).tolist()
        if finite := math.isfinite(length):
            self.optimiser.step()
        return mean, self.task.score(right), finite

    def _training_batch(self) -> Split:
        """The minibatch of this step; the order of an epoch is derived from the seed and the epoch's number."""
        train, size = self.task.train, min(self.settings.batch_size, len(self.task.train))
        epoch, position = divmod(self.steps, len(train) // size)
        if epoch != self._order[0]:
            self._order = epoch, self.task.order(self._generator("order", epoch))
        return train.take(self._order[1][position * size : (position + 1) * size])

    def _generator(self, purpose: str, number: int) -> torch.Generator:
        seed = np.random.SeedSequence([self.seed, *purpose.encode(), number]).generate_state(1, np.uint64)
        return torch.Generator(self.device).manual_seed(int(seed[0] >> 1))

    def _learning_rate(self) -> float:
        period, done = self.settings.cosine_steps or self.planned_steps or COSINE_STEPS, self.steps
        while done >= period:
            done, period = done - period, 2 * period
        return cosine(self.settings.learning_rate, self.settings.final_learning_rate, done / period)

    # ------------------------------------------------------------------ scoring

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        """The task's score and the metric ``loss`` of the current weights; for images accuracy and cross-entropy."""
        del fidelity, parents
        return self._scored(tokens, self._scoring_split())

    def halves(self, tokens: Tokens) -> tuple[Evaluations, Evaluations]:
        """As `evaluate`, on two halves of the scoring examples: how far they agree tells how noisy a score is."""
        first, second = self._scoring_split().tensor_split(2)
        return self._scored(tokens, first), self._scored(tokens, second)

    def _scored(self, tokens: Tokens, split: Split) -> Evaluations:
        self.space.check(tokens)
        if len(tokens) == 0:
            return Evaluations(np.empty(0), {"loss": np.empty(0)})
        # Repeated architectures are scored once.
        unique, inverse = np.unique(tokens, axis=0, return_inverse=True)
        at_once = self.settings.architectures_at_once or (64 if self.device.type == "cuda" else 8)
        scored = [self._score(unique[first : first + at_once], split) for first in range(0, len(unique), at_once)]
        accuracy, loss = (np.concatenate(column)[inverse.reshape(-1)] for column in zip(*scored, strict=True))
        failed = ~np.isfinite(loss)
        reasons = tuple(_failure(value) for value in loss)
        return Evaluations(np.where(failed, 0.0, accuracy), {"loss": np.where(failed, np.nan, loss)}, failed, reasons)

    def _score(self, tokens: Tokens, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Scores and losses of architectures in one forward pass; an infinite loss stands for exhausted memory."""
        try:
            return self._forward_scores(tokens, split)
        except (RuntimeError, MemoryError) as error:
            memory_reason(error)
        if len(tokens) == 1:
            return np.zeros(1), np.full(1, np.inf)
        halves = [self._score(part, split) for part in np.array_split(tokens, 2)]
        accuracy, loss = zip(*halves, strict=True)
        return np.concatenate(accuracy), np.concatenate(loss)

    def _threads(self, examples: int) -> AbstractContextManager[None]:
        shape = self.task.input_shape
        return fitting_threads(examples * self.settings.network(shape).map_size(shape), self.device)

    @torch.no_grad()
    def _forward_scores(self, tokens: Tokens, split: Split) -> tuple[np.ndarray, np.ndarray]:
        totals = torch.zeros(len(tokens), dtype=torch.float64, device=self.device)
        loss = torch.zeros_like(totals)
        self.supernet.eval()
        # Chunks of equal size, since each is normalised by its own statistics.
        chunks = math.ceil(len(split) / self.settings.score_batch)
        for batch in split.tensor_split(chunks):
            with mixed_precision(self.device), self._threads(len(batch)):
                outputs = self.supernet(self.task.inputs(batch), tokens).float().flatten(0, 1)
            targets = repeated(batch.targets, len(tokens))
            totals += self.task.measure(outputs, targets).view(len(tokens), -1).sum(dim=1)
            losses = self.task.loss(outputs, targets, reduction="none")
            loss += losses.double().view(len(tokens), -1).sum(dim=1)
        # Infinity stands for exhausted memory, so a loss that overflows float32 becomes NaN.
        loss = torch.where(loss.isfinite(), loss / len(split), torch.nan)
        scores = [self.task.score(total / len(split)) for total in totals.tolist()]
        return np.array(scores), loss.cpu().numpy()

    def _scoring_split(self) -> Split:
        valid, wanted = self.task.valid, self.settings.score_images
        if wanted is None or wanted >= len(valid):
            return valid
        order = torch.randperm(len(valid), generator=self._generator("scoring", self.steps), device=self.device)
        return valid.take(order[:wanted])

    def new_network(self, architecture: Architecture, task: Task, seed: int) -> Network:
        """A separate network of an architecture, of the supernet's size, with random weights."""
        settings = self.settings.network(task.input_shape)
        return make_network(architecture, task.input_shape, task.num_outputs, settings, seed)

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        # Copies: the tensors themselves change with the next update.
        return {
            "steps": self.steps,
            "split_at": -1 if self.split_at is None else self.split_at,
            "supernet": copy.deepcopy(self.supernet.state_dict()),
            "momentum": copy.deepcopy(self.optimiser.state_dict()["state"]),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, position = int(state["steps"]), int(state["split_at"])
        if position < 0:
            self.split_at = None
            self._use(self._one)
        elif position != self.split_at:
            self.split(position)
        self.supernet.load_state_dict(state["supernet"])
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": copy.deepcopy(state["momentum"])})


def _failure(loss: float) -> str:
    if math.isfinite(loss):
        return ""
    return "out of memory" if loss == math.inf else "diverged: the validation loss is not finite"
