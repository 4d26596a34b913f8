"""What evaluators need of a task: three splits, and how networks read, learn and are scored on their examples."""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor

Reduction = Literal["mean", "none"]


@dataclass(frozen=True, eq=False)
class Split:
    """Examples, as a task stores them.

    Args:
        inputs: of any dtype and shape ``[n, ...]``: images, tokens, indices of something the task holds.
        targets: of any dtype and shape ``[n, ...]``.

    Raises:
        ValueError: different numbers of inputs and targets, or two devices.
    """

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if self.targets.shape[:1] != self.inputs.shape[:1]:
            raise ValueError(f"targets must be one for each of {len(self.inputs)} inputs; got {describe(self.targets)}")
        if self.inputs.device != self.targets.device:
            raise ValueError(f"inputs are on {self.inputs.device}, targets on {self.targets.device}; use one device")

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, indices: Tensor | slice) -> Split:
        """The examples at `indices` (int64 ``[k]``), in that order, or those of a slice."""
        return Split(self.inputs[indices], self.targets[indices])

    def to(self, device: torch.device | str) -> Split:
        """This split on `device`."""
        return Split(self.inputs.to(device), self.targets.to(device))

    def split(self, size: int) -> list[Split]:
        """Consecutive parts of `size` examples; the last may be smaller."""
        pairs = zip(torch.split(self.inputs, size), torch.split(self.targets, size), strict=True)
        return [Split(*part) for part in pairs]

    def tensor_split(self, parts: int) -> list[Split]:
        """So many consecutive parts, whose sizes differ by at most 1."""
        pairs = zip(self.inputs.tensor_split(parts), self.targets.tensor_split(parts), strict=True)
        return [Split(*part) for part in pairs]


@dataclass(frozen=True, eq=False)
class Task(ABC):
    """What networks are trained and scored on, whole on one device.

    Evaluators know a task by this class alone. A subclass is a dataclass; it says what networks are given, what they
    minimise and how they are scored.

    Args:
        name: the name that `nas_gym.tasks.make_task` knows it by.
        train: what weights are trained on.
        valid: what architectures are scored on.
        test: what is looked up once a search is over.
    """

    name: str
    train: Split
    valid: Split
    test: Split

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example as networks are given it."""

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """How many numbers a network gives for one prediction."""

    @abstractmethod
    def inputs(self, batch: Split) -> Tensor:
        """What networks are given for n examples: ``[n, *input_shape]``."""

    def augment(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """Randomly changes what networks are given in training; not at all by default.

        Args:
            inputs: ``[n, *input_shape]``, from `inputs`.
            generator: the only source of randomness.
        """
        del generator
        return inputs

    def order(self, generator: torch.Generator) -> Tensor:
        """The order in which an epoch of training goes through the train split: int64 ``[n]``, random by default."""
        return torch.randperm(len(self.train), generator=generator, device=self.device)

    @abstractmethod
    def loss(
        self, outputs: Tensor, targets: Tensor, *, reduction: Reduction = "mean", label_smoothing: float = 0.0
    ) -> Tensor:
        """What training minimises.

        Args:
            outputs: of networks, float ``[n, ...]``.
            targets: of the same examples, ``[n, ...]``.
            reduction: ``"mean"`` over the examples, float ``[]``; or ``"none"``, float ``[n]``.
            label_smoothing: share of a target that is spread evenly over all classes.

        Raises:
            ValueError: `label_smoothing` is not 0 and targets are not classes.
        """

    @abstractmethod
    def measure(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What `score` takes the mean of: a bool or a number for each example, ``[n]``.

        Args:
            outputs: of networks, float ``[n, ...]``.
            targets: of the same examples, ``[n, ...]``.
        """

    @abstractmethod
    def score(self, mean: float) -> float:
        """From the mean of `measure` over a split to a score in [0, 1]; higher is better."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """All that training and scoring depend on, in JSON's types: the train and valid splits, and how they are used.

        The test split is left out.
        """

    @property
    def device(self) -> torch.device:
        """Where all splits are."""
        return self.train.inputs.device

    def to(self, device: torch.device | str) -> Self:
        """This task on `device`."""
        return dataclasses.replace(
            self, train=self.train.to(device), valid=self.valid.to(device), test=self.test.to(device)
        )

    def with_splits(self, train: Split, valid: Split, test: Split) -> Self:
        """The task on other splits of its kind. What it derives from the train split is derived anew."""
        return dataclasses.replace(self, train=train, valid=valid, test=test)

    def with_validation_in_training(self) -> Self:
        """The task for a final training: train and valid are merged as train, valid is empty."""
        parts = self.train, self.valid
        train = Split(torch.cat([part.inputs for part in parts]), torch.cat([part.targets for part in parts]))
        return self.with_splits(train, train.take(slice(0)), self.test)


def digest(*splits: Split) -> str:
    """SHA-256 of the shapes and the content of splits, in hexadecimal digits."""
    hashed = hashlib.sha256()
    for split in splits:
        for tensor in (split.inputs, split.targets):
            hashed.update(repr(tuple(tensor.shape)).encode())
            hashed.update(tensor.cpu().numpy().tobytes())
    return hashed.hexdigest()


def describe(tensor: Tensor) -> str:
    """Dtype, shape and device, for error messages."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)} on {tensor.device}"
