"""The one training loop for child networks, and what it shares with the training of shared weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nas_gym.evaluators.threads import fitting_threads
from nas_gym.networks import Network, NetworkBatch, can_batch
from nas_gym.networks.bank import join
from nas_gym.settings import check_fields
from nas_gym.tasks import Split, Task
from nas_gym.types import Floats


@dataclass(frozen=True)
class TrainingSettings:
    """How a child network is trained from scratch.

    Attributes:
        epochs: passes over the training split.
        batch_size: examples per step; a smaller last batch is dropped.
        learning_rate: at the start of its cosine to 0 (NAS-Bench-201, table 1: 0.1 with batches of 256).
        momentum: of SGD, Nesterov's form (NAS-Bench-201, table 1).
        weight_decay: L2 penalty (NAS-Bench-201, table 1: 5e-4; DARTS, section 3.1.2: 3e-4).
        gradient_clip: largest norm of a network's gradient (DARTS, section 3.1.2: 5).
        label_smoothing: (NASNet, appendix A.2: 0.1 on ImageNet).
        augment: whether the task's augmentation is applied.
        drop_path: final probability of ScheduledDropPath, raised linearly from 0 (DARTS, section 3.1.2: 0.2).
        auxiliary_weight: of the auxiliary classifier's loss, where the network has one (DARTS: 0.4).
        record: the splits that networks are scored on.
        record_all_epochs: whether they are scored after every epoch, or only after the last.
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
        check_fields(self, "epochs batch_size", "at least 1", lambda v: v >= 1)
        check_optimiser(self)
        check_fields(self, "drop_path label_smoothing", "in [0, 1)", lambda v: 0 <= v < 1)
        check_fields(self, "auxiliary_weight", "finite and not negative", lambda v: 0 <= v < math.inf)
        if unknown := set(self.record) - {"train", "valid", "test"}:
            raise ValueError(f"record names splits among train, valid, test; got {sorted(unknown)}")


def check_optimiser(settings: Any) -> None:
    """Complains of settings of SGD that are out of range; `gradient_clip` may be infinite, which clips nothing.

    Args:
        settings: a dataclass that has `learning_rate`, `momentum`, `weight_decay`, and perhaps `gradient_clip`.

    Raises:
        ValueError: one of them is.
    """
    check_fields(settings, "learning_rate weight_decay", "finite and not negative", lambda v: 0 <= v < math.inf)
    check_fields(settings, "momentum", "in [0, 1)", lambda v: 0 <= v < 1)
    if hasattr(settings, "gradient_clip"):
        check_fields(settings, "gradient_clip", "positive", lambda v: v > 0)


@dataclass
class TrainingCurve:
    """The training of one network.

    Attributes:
        accuracy: the task's score (the accuracy, for images) by recorded split, float64[recorded epochs].
        loss: mean training loss, float64[epochs].
        seconds: time spent on training, without scoring; networks trained together get equal shares.
        failed: whether training diverged or ran out of memory; the curves end there.
        reason: of the failure; empty otherwise.
        together: number of networks that were trained together, this one included.
    """

    accuracy: dict[str, Floats] = field(default_factory=dict)
    loss: Floats = field(default_factory=lambda: np.empty(0))
    seconds: float = 0.0
    failed: bool = False
    reason: str = ""
    together: int = 1


def fit(
    networks: Sequence[Network],
    task: Task,
    settings: TrainingSettings,
    *,
    seeds: Sequence[int],
    on_step: Callable[[], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    batched: bool | None = None,
) -> list[TrainingCurve]:
    """Trains independent networks on the training split, each as if it were alone.

    Args:
        networks: one architecture each; moved to the task's device.
        task: the task.
        settings: schedule and regularisation.
        seeds: one per network, of the order of the examples, the augmentation and the dropped paths.
        on_step: called after each step of each network, to report progress; an exception from it ends the training.
        clock: gives the time in seconds.
        batched: whether networks are trained together, as one program, where `can_batch` allows it. Results equal
            those of training each network alone up to rounding. If memory is exhausted, the two halves are trained
            again from the start, one after the other, and so on. None batches on CUDA only.

    Returns:
        A curve for each network. A failed network keeps the weights it had when it failed, or meaningless ones if it
        was trained together with others; the others continue.

    Raises:
        ValueError: the numbers of seeds and of networks differ.
    """
    if len(networks) != len(seeds):
        raise ValueError(f"seeds must be one for each of the {len(networks)} networks, got {len(seeds)}")
    if batched is None:
        batched = task.device.type == "cuda"
    together = len(networks) if batched and networks and can_batch(networks) else 1
    make_run = partial(TrainingRun, task=task, settings=settings, on_step=on_step or nothing, clock=clock)
    groups = [slice(first, first + together) for first in range(0, len(networks), together)]
    return [curve for group in groups for curve in _train(make_run, networks[group], seeds[group])]


def nothing() -> None:
    """Does nothing after a step."""


def _train(
    make_run: Callable[[Sequence[Network], Sequence[int]], TrainingRun],
    networks: Sequence[Network],
    seeds: Sequence[int],
) -> list[TrainingCurve]:
    """Trains networks together, or in halves if memory is exhausted; a single network then fails."""
    run = make_run(networks, seeds)
    try:
        run.train()
        return run.curves
    except (RuntimeError, MemoryError) as error:
        reason = memory_reason(error)
    if len(networks) == 1:
        run.fail(0, reason)
        return run.curves
    del run  # and with it the memory
    middle = len(networks) // 2
    halves = slice(middle), slice(middle, None)
    return [curve for half in halves for curve in _train(make_run, networks[half], seeds[half])]


class TrainingRun:
    """The training of one network or of several together: optimiser, random generators, curves."""

    def __init__(
        self,
        networks: Sequence[Network],
        seeds: Sequence[int],
        task: Task,
        settings: TrainingSettings,
        on_step: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self.networks, self.task, self.settings, self.on_step, self.clock = networks, task, settings, on_step, clock
        self.generators = [torch.Generator(task.device).manual_seed(seed) for seed in seeds]
        self.curves = [TrainingCurve(together=len(networks)) for _ in networks]
        self.batches = max(len(task.train) // settings.batch_size, 1)
        self.epochs, self.steps, self.total_steps = 0, 0, self.batches * settings.epochs

    def train(self, epochs: int | None = None) -> None:
        """Continues until `epochs` of the settings' epochs are done; None trains them all.

        Raises:
            RuntimeError, MemoryError: memory is exhausted; several networks trained together are then unchanged.
        """
        if self.steps == 0:
            self._start()
        last = self.settings.epochs if epochs is None else epochs
        with self._threads():
            for epoch in range(self.epochs + 1, last + 1):
                if not all(curve.failed for curve in self.curves):
                    self._train_epoch()
                if self.settings.record_all_epochs or epoch == self.settings.epochs:
                    self._record()
                self.epochs = epoch
        if isinstance(self.model, NetworkBatch):
            self.model.give_back()
            for network in self.networks:
                network.to(self.task.device)

    def _threads(self) -> AbstractContextManager[None]:
        network = self.networks[0]
        if not isinstance(network, Network):
            return nullcontext()
        images = len(self.networks) * self.settings.batch_size
        return fitting_threads(images * network.settings.map_size(self.task.input_shape), self.task.device)

    def _start(self) -> None:
        self.model = self._model()
        self.optimiser = torch.optim.SGD(
            self.model.parameters(),
            self.settings.learning_rate,
            momentum=self.settings.momentum,
            weight_decay=self.settings.weight_decay,
            nesterov=self.settings.momentum > 0,
            foreach=True,
        )

    def _model(self) -> Network | NetworkBatch:
        if len(self.networks) > 1:
            return NetworkBatch(self.networks, self.generators, self.task.device)
        network = self.networks[0].to(self.task.device)
        network.drop_path.generator = self.generators[0]
        return network

    def _train_epoch(self) -> None:
        device, start = self.task.device, self.clock()
        orders = [self.task.order(generator) for generator in self.generators]
        order = torch.stack(orders)[:, : self.batches * self.settings.batch_size]
        total = torch.zeros(len(self.networks), device=device)
        alive = [number for number, curve in enumerate(self.curves) if not curve.failed]
        try:
            self.model.train()
            for batch in order.chunk(self.batches, dim=1):
                total += self._step(self.task.train.take(batch.flatten()))
                for _ in alive:
                    self.on_step()
            losses = total.tolist()
        finally:
            seconds = (self.clock() - start) / len(self.networks)
            for number in alive:
                self.curves[number].seconds += seconds
        for number in alive:
            loss = losses[number] / self.batches
            if not math.isfinite(loss):
                self.fail(number, "diverged: the training loss is not finite")
            self.curves[number].loss = np.append(self.curves[number].loss, loss)

    def _step(self, batch: Split) -> Tensor:
        """One step of each network on its own examples, network by network; returns the losses, float[networks]."""
        progress = self.steps / self.total_steps
        self.optimiser.param_groups[0]["lr"] = cosine(self.settings.learning_rate, 0.0, progress)
        self.model.drop_path.probability = self.settings.drop_path * progress
        inputs = self.task.inputs(batch)
        if self.settings.augment:
            own = inputs.chunk(len(self.networks))
            inputs = join([self.task.augment(*each) for each in zip(own, self.generators, strict=True)])
        with mixed_precision(self.task.device):
            outputs, auxiliary = self.model.logits(inputs)
            losses = self._losses(outputs, batch.targets)
            if auxiliary is not None:
                losses = losses + self.settings.auxiliary_weight * self._losses(auxiliary, batch.targets)
        self.optimiser.zero_grad(set_to_none=True)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        norms = self._clip()
        self.optimiser.step()
        self.steps += 1
        # A gradient that is not finite spoils the weights, and after the last step no later loss would show it.
        return torch.where(norms.isfinite(), losses.detach(), torch.nan)

    def _losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        losses = self.task.loss(
            outputs.float(),
            targets,
            # The mean of a single network is the task's own: published results keep their last bit.
            reduction="mean" if len(self.networks) == 1 else "none",
            label_smoothing=self.settings.label_smoothing,
        )
        return losses.view(len(self.networks), -1).mean(dim=1)

    def _clip(self) -> Tensor:
        """Clips each network's gradient; returns the norms before clipping, float[networks]."""
        if isinstance(self.model, NetworkBatch):
            return self.model.clip_gradients(self.settings.gradient_clip)
        return nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip, foreach=True)

    def _record(self) -> None:
        if all(curve.failed for curve in self.curves):
            return
        splits = {name: getattr(self.task, name) for name in self.settings.record}
        # Together, no more examples are scored at once than are trained on.
        size = 500 if len(self.networks) == 1 else self.settings.batch_size
        scores = {name: score_each(self.model, self.task, split, size) for name, split in splits.items()}
        for name, each in scores.items():
            for curve, accuracy in zip(self.curves, each, strict=True):
                if not curve.failed:
                    curve.accuracy[name] = np.append(curve.accuracy.get(name, np.empty(0)), accuracy)

    def state_dict(self) -> dict[str, Any]:
        """Of a single network that has begun: the optimiser's, the generator's, and the progress."""
        momentum, generator = self.optimiser.state_dict()["state"], self.generators[0].get_state()
        return {"momentum": momentum, "generator": generator, "epochs": self.epochs, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to where `state_dict` was taken."""
        self._start()
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state["momentum"]})
        self.generators[0].set_state(state["generator"])
        self.epochs, self.steps = state["epochs"], state["steps"]

    def fail(self, number: int, reason: str) -> None:
        """Marks a network as failed."""
        self.curves[number].failed, self.curves[number].reason = True, reason
        self.networks[number].zero_grad(set_to_none=True)


def score(network: Network, task: Task, split: Split, batch_size: int = 500) -> float:
    """The task's score of a network on a split, in [0, 1]; for images, the accuracy."""
    return score_each(network, task, split, batch_size)[0]


def score_each(model: Network | NetworkBatch, task: Task, split: Split, batch_size: int) -> list[float]:
    """The scores of each of a batch of networks, or of a single network, on a split."""
    model.eval()
    networks = len(model.networks) if isinstance(model, NetworkBatch) else 1
    totals = torch.zeros(networks, dtype=torch.float64, device=task.device)
    with torch.no_grad(), mixed_precision(task.device):
        for batch in split.split(batch_size):
            outputs = model(task.inputs(batch))
            if isinstance(model, NetworkBatch):
                outputs = outputs.flatten(0, 1)
            totals += task.measure(outputs, repeated(batch.targets, networks)).view(networks, -1).sum(dim=1)
    return [task.score(total / len(split)) for total in totals.tolist()]


def repeated(targets: Tensor, networks: int) -> Tensor:
    """The same targets ``[n, ...]`` for each of several networks: ``[networks * n, ...]``, networks first."""
    return targets.expand(networks, *targets.shape).flatten(0, 1)


def cosine(highest: float, lowest: float, progress: float) -> float:
    """Cosine annealing from `highest` at progress 0 to `lowest` at 1 (Loshchilov & Hutter 2017, equation 5)."""
    return lowest + (highest - lowest) * (1 + math.cos(math.pi * progress)) / 2


def mixed_precision(device: torch.device) -> torch.autocast:
    """bfloat16 on CUDA, full precision elsewhere."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def memory_reason(error: Exception) -> str:
    """The reason to report for an error of exhausted memory.

    Raises:
        Exception: the error itself, if it is any other error.
    """
    # PyTorch has a class of its own for this on CUDA alone; its CPU allocator, cuDNN and cuBLAS raise bare ones.
    bare = "can't allocate memory", "STATUS_ALLOC_FAILED", "CUDA error: out of memory"
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in bare):
        return "out of memory"
    raise error
