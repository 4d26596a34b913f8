"""What networks are trained and scored on, held whole on a device.

Names can be read from `nas_gym.tasks.names` without importing torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nas_gym.tasks.names import TASKS, register_task

if TYPE_CHECKING:
    from nas_gym.tasks.image_task import Augmentation, ImageTask
    from nas_gym.tasks.images import make_task
    from nas_gym.tasks.task import Split, Task

_HOMES = {
    "Augmentation": "image_task",
    "ImageTask": "image_task",
    "Split": "task",
    "Task": "task",
    "make_task": "images",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


__all__ = ["TASKS", "Augmentation", "ImageTask", "Split", "Task", "make_task", "register_task"]
