"""Tasks of every kind by name."""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path
from typing import Any

from nas_gym.tasks.images import make_task
from nas_gym.tasks.names import FOLDER, REGISTERED, TASKS
from nas_gym.tasks.task import Task


def named_task(
    name: str, *, seed: int = 0, data_dir: str | Path | None = None, download: bool = False, **options: Any
) -> Task:
    """Makes a task, on the CPU: one of images (see `make_task`), or one that others have registered.

    Args:
        name: a name of `TASKS`, or where a function stands that makes the task, ``module:function``.
        seed: fixes the split into train and valid.
        data_dir: where data sets are looked for.
        download: whether a data set that is not found may be downloaded.
        options: further arguments of what makes the task, such as ``image_size`` or ``allow_duplicates`` of
            `make_task`.

    Raises:
        ValueError: an unknown name or option, or something that makes no task.
        FileNotFoundError: a data set is not found.
    """
    whole, colon, _ = name.partition(":")
    place = bool(colon) and whole not in TASKS and not name.startswith(FOLDER)
    make = REGISTERED[name] if name in REGISTERED or place else partial(make_task, name)
    arguments = {"seed": seed, "data_dir": data_dir, "download": download, **options}
    if options:
        try:
            inspect.signature(make).bind(**arguments)
        except TypeError as error:
            raise ValueError(f"task {name!r} cannot be made with the options {options}: {error}") from error
    task = make(**arguments)
    if not isinstance(task, Task):
        raise ValueError(f"task {name!r} must be made as a nas_gym.tasks.Task, got {task!r}")
    return task
