"""What evaluators have in common that train networks on a task."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch

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
