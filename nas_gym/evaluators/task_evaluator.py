"""The base class of evaluators that train networks on a task."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

import nas_gym
from nas_gym.evaluators.evaluator import Evaluator
from nas_gym.settings import check_seed, did_you_mean
from nas_gym.spaces import SearchSpace
from nas_gym.tasks import Task
from nas_gym.tasks.named import named_task


class TaskEvaluator(Evaluator):
    """An evaluator that trains networks on a task.

    Args:
        space: the search space.
        task: the task, or its name.
        seed: of all random numbers, and of the split of a task given by name.
        device: ``"auto"`` uses CUDA if available.
        data_dir: where the data of a task given by name is.
        download: whether it may be downloaded.
        task_kwargs: further arguments of `make_task` for a task given by name, such as ``image_size`` or
            ``allow_duplicates``.
        settings: fields of the evaluator's `Settings`.

    Attributes:
        task: the task, on the device.

    Raises:
        ValueError: an unknown task, device or setting.
    """

    trains = True
    uses_task = True
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
        task_kwargs: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(space)
        check_seed(seed)
        known = [field.name for field in dataclasses.fields(self.Settings)]
        if wrong := sorted(set(settings) - set(known)):
            hint = did_you_mean(wrong[0], known)
            raise ValueError(f"{self.name} has no setting {wrong}; settings: {', '.join(known)}{hint}")
        self.settings, self.seed, self.device = self.Settings(**settings), seed, choose_device(device)
        if isinstance(task, str):
            task = named_task(task, seed=seed, data_dir=data_dir, download=download, **_options(task_kwargs))
        self.task = task.to(self.device)
        # A CPU trains one network after another, so each result can be stored as soon as it is known.
        self.part_size = 1 if self.device.type == "cpu" else None

    def fingerprint(self) -> dict[str, Any]:
        """The settings, the seed, the task, the kind of device, and the versions of what computes.

        Rounding, which depends on the processor and the number of threads, is not part of it.
        """
        return {
            "evaluator": self.name,
            "settings": dataclasses.asdict(self.settings),
            "seed": self.seed,
            "task": self.task.fingerprint(),
            "device": self.device.type,
            "versions": {"nas_gym": nas_gym.__version__, "torch": torch.__version__},
        }


def _options(task_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    reserved = ("name", "seed", "device", "data_dir", "download")
    if not isinstance(task_kwargs, Mapping | None) or any(name in reserved for name in task_kwargs or ()):
        raise ValueError(
            f"task_kwargs must map arguments of make_task to values, without {', '.join(reserved)}; got {task_kwargs!r}"
        )
    return dict(task_kwargs or {})


def choose_device(device: str) -> torch.device:
    """The device of a name; ``"auto"`` is CUDA if available, else the CPU.

    Raises:
        ValueError: an unknown or unavailable device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()  # fails on devices that only stand for one
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} is not available: {error}; use 'auto', 'cpu' or 'cuda'") from error
    return chosen
