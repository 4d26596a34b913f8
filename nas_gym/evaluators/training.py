"""The one training loop for child networks, and what it shares with the training of shared weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_gym.evaluators.evaluator import Floats
from nas_gym.networks import Network
from nas_gym.tasks import Split, Task


@dataclass(frozen=True)
class TrainingSettings:
    """How a child network is trained from scratch.

    Attributes:
        epochs: passes over the training split.
        batch_size: images a step; a last, smaller batch is left out.
        learning_rate: at the start of its cosine to 0 (NAS-Bench-201, table 1: 0.1 with batches of 256).
        momentum: of SGD, Nesterov's form (NAS-Bench-201, table 1).
        weight_decay: L2 penalty (NAS-Bench-201, table 1: 5e-4; DARTS, section 3.1.2: 3e-4).
        gradient_clip: largest norm of a network's gradient (DARTS, section 3.1.2: 5).
        label_smoothing: (NASNet, appendix A.2: 0.1 on ImageNet).
        augment: whether the task's augmentation is applied.
        drop_path: final probability of ScheduledDropPath, raised linearly from 0 (DARTS, section 3.1.2: 0.2).
        auxiliary_weight: of the auxiliary classifier's loss, where the network has one (DARTS: 0.4).
        record: the splits whose accuracy is recorded.
        record_all_epochs: after every epoch, or after the last alone.
    """

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    gradient_clip: float = 5.0
    label_smoothing: float = 0.0
    augment: bool = True
    drop_path: float = 0.0
    auxiliary_weight: float = 0.4
    record: tuple[str, ...] = ("valid",)
    record_all_epochs: bool = True

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path must be in [0, 1), got {self.drop_path}")
        if unknown := set(self.record) - {"train", "valid", "test"}:
            raise ValueError(f"record names splits among train, valid, test; got {sorted(unknown)}")


@dataclass
class TrainingCurve:
    """What became of one network.

    Attributes:
        accuracy: by recorded split, float64[recorded epochs].
        loss: mean training loss, float64[epochs].
        seconds: spent on this network's training, scoring apart.
        failed: whether it diverged or ran out of memory; its curves end there.
        reason: why.
    """

    accuracy: dict[str, Floats] = field(default_factory=dict)
    loss: Floats = field(default_factory=lambda: np.empty(0))
    seconds: float = 0.0
    failed: bool = False
    reason: str = ""


def fit(
    networks: Sequence[Network],
    task: Task,
    settings: TrainingSettings,
    *,
    seeds: Sequence[int],
    on_step: Callable[[], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[TrainingCurve]:
    """Trains independent networks on the training split, each as if it were alone.

    Args:
        networks: one architecture each; moved to the task's device.
        task: the task.
        settings: schedule and regularisation.
        seeds: of the order of the images, the augmentation and the dropped paths, one a network.
        on_step: called after each step of each network, for progress; what it raises ends the training.
        clock: what the seconds of the curves are read from.

    Returns:
        A curve for each network. A network that fails is left where it failed; the others go on.
    """
    runs = [
        _Run(network, task, settings, seed, on_step or _nothing, clock)
        for network, seed in zip(networks, seeds, strict=True)
    ]
    for epoch in range(1, settings.epochs + 1):
        for run in runs:
            run.train_epoch()
            if settings.record_all_epochs or epoch == settings.epochs:
                run.record()
    return [run.curve for run in runs]


def _nothing() -> None:
    pass


class _Run:
    """One network in training: its optimiser, its random numbers, its curve."""

    def __init__(
        self,
        network: Network,
        task: Task,
        settings: TrainingSettings,
        seed: int,
        on_step: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self.network, self.task, self.settings, self.seed = network.to(task.device), task, settings, seed
        self.optimiser = torch.optim.SGD(
            network.parameters(),
            settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.momentum > 0,
        )
        self.generator = torch.Generator(task.device).manual_seed(seed)
        network.drop_path.generator = self.generator
        self.on_step, self.clock = on_step, clock
        self.curve = TrainingCurve()
        self.batches = max(len(task.train) // settings.batch_size, 1)
        self.steps, self.total_steps = 0, self.batches * settings.epochs

    def train_epoch(self) -> None:
        if self.curve.failed:
            return
        start = self.clock()
        order = torch.randperm(len(self.task.train), generator=self.generator, device=self.task.device)
        total = torch.zeros((), device=self.task.device)
        try:
            self.network.train()
            for batch in order[: self.batches * self.settings.batch_size].chunk(self.batches):
                total += self._step(self.task.train.take(batch))
                self.on_step()
            loss = float(total) / self.batches
        except (RuntimeError, MemoryError) as error:
            self._fail(memory_reason(error))
            return
        finally:
            self.curve.seconds += self.clock() - start
        if not math.isfinite(loss):
            self._fail("diverged: the training loss is not finite")
        self.curve.loss = np.append(self.curve.loss, loss)

    def _step(self, batch: Split) -> Tensor:
        progress = self.steps / self.total_steps
        self.optimiser.param_groups[0]["lr"] = cosine(self.settings.learning_rate, 0.0, progress)
        self.network.drop_path.probability = self.settings.drop_path * progress
        images = self.task.normalise(batch.images)
        if self.settings.augment:
            images = self.task.augment(images, self.generator)
        with mixed_precision(self.task.device):
            logits, auxiliary = self.network.logits(images)
            loss = self._loss(logits, batch.labels)
            if auxiliary is not None:
                loss = loss + self.settings.auxiliary_weight * self._loss(auxiliary, batch.labels)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.gradient_clip)
        self.optimiser.step()
        self.steps += 1
        # A gradient that is not finite spoils the weights; after the last step no later loss would tell.
        return torch.where(norm.isfinite(), loss.detach(), torch.nan)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), labels, label_smoothing=self.settings.label_smoothing)

    def record(self) -> None:
        if self.curve.failed:
            return
        try:
            accuracies = {n: score(self.network, self.task, getattr(self.task, n)) for n in self.settings.record}
        except (RuntimeError, MemoryError) as error:
            self._fail(memory_reason(error))
            return
        for name, accuracy in accuracies.items():
            self.curve.accuracy[name] = np.append(self.curve.accuracy.get(name, np.empty(0)), accuracy)

    def _fail(self, reason: str) -> None:
        self.curve.failed, self.curve.reason = True, reason
        self.optimiser.zero_grad(set_to_none=True)


def score(network: Network, task: Task, split: Split, batch_size: int = 500) -> float:
    """The accuracy, in [0, 1], of a network of one architecture on a split."""
    network.eval()
    correct = 0
    with torch.no_grad(), mixed_precision(task.device):
        for images, labels in zip(
            torch.split(split.images, batch_size), torch.split(split.labels, batch_size), strict=True
        ):
            correct += int((network(task.normalise(images)).argmax(dim=-1) == labels).sum())
    return correct / len(split)


def cosine(highest: float, lowest: float, progress: float) -> float:
    """Cosine annealing from `highest` at progress 0 to `lowest` at 1 (Loshchilov & Hutter 2017, equation 5)."""
    return lowest + (highest - lowest) * (1 + math.cos(math.pi * progress)) / 2


def mixed_precision(device: torch.device) -> torch.autocast:
    """bfloat16 on CUDA, full precision elsewhere."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def memory_reason(error: Exception) -> str:
    """The reason to report if an error tells of exhausted memory.

    Raises:
        Exception: the error itself, if it tells of anything else.
    """
    # PyTorch has a class of its own for this on CUDA alone; its CPU allocator raises a bare RuntimeError.
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        return "out of memory"
    raise error
