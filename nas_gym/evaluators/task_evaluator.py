"""What evaluators have in common that train networks on a task."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any, ClassVar

import torch

import nas_gym
from nas_gym.evaluators.evaluator import Evaluator
from nas_gym.spaces import SearchSpace
from nas_gym.tasks import Task, make_task


class TaskEvaluator(Evaluator):
    """An evaluator that trains networks on a task.

    Args:
        space: the search space.
        task: the task, or its name.
        seed: of all randomness, and of the split of a task given by name.
        device: ``"auto"`` takes CUDA if there is one.
        data_dir: where a task given by name is looked for.
        download: whether a task given by name may be downloaded.
        settings: fields of the evaluator's `Settings`.

    Attributes:
        task: the task, on the device.

    Raises:
        ValueError: an unknown task, device or setting.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[Any]]

    def __init__(
        self,
        space: SearchSpace,
        task: Task | str = "digits",
        *,
        seed: int = 0,
        device: str = "auto",
        data_dir: str | None = None,
        download: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(space)
        known = [field.name for field in dataclasses.fields(self.Settings)]
        if unknown := sorted(set(settings) - set(known)):
            raise ValueError(f"{self.name} has no setting {unknown}; settings: {', '.join(known)}")
        self.settings, self.seed, self.device = self.Settings(**settings), seed, choose_device(device)
        if isinstance(task, str):
            task = make_task(task, seed=seed, data_dir=data_dir, download=download)
        self.task = task.to(self.device)
        # A CPU trains one network after another: each result can be kept as soon as it is there.
        self.part_size = 1 if self.device.type == "cpu" else None

    def fingerprint(self) -> dict[str, Any]:
        """The settings, the seed, the images, the kind of device, and the versions of what computes.

        Rounding, which differs between processors and with the number of threads, is not told apart.
        """
        return {
            "evaluator": self.name,
            "settings": dataclasses.asdict(self.settings),
            "seed": self.seed,
            "task": task_fingerprint(self.task),
            "device": self.device.type,
            "versions": {"nas_gym": nas_gym.__version__, "torch": torch.__version__},
        }


def task_fingerprint(task: Task) -> dict[str, Any]:
    """What training and scoring see of a task: its images, and so their split, their size and any limit on them."""
    digest = hashlib.sha256()
    for tensor in (task.train.images, task.train.labels, task.valid.images, task.valid.labels):
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.cpu().numpy().tobytes())
    return {
        "name": task.name,
        "classes": len(task.classes),
        "images": digest.hexdigest(),
        "normalisation": [task.mean, task.std],
        "augmentation": dataclasses.asdict(task.augmentation),
    }


def choose_device(device: str) -> torch.device:
    """``"auto"`` becomes CUDA if there is one, else the CPU.

    Raises:
        ValueError: an unknown device, or one that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()  # fails on devices that only stand for one
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} is not to be had: {error}; use 'auto', 'cpu' or 'cuda'") from error
    return chosen
