"""The tasks by name. Free of torch, so that a command line can list them at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nas_gym.registry import Registry

if TYPE_CHECKING:
    from nas_gym.tasks.task import Task

TASKS: dict[str, str] = {
    "digits": "1,797 grey handwritten digits of 8x8 pixels, bundled with scikit-learn",
    "glyphs": "11,160 grey digits and letters of 16x16 pixels on clutter, from fonts; 1,216 classes, 0-61 by default",
    "fashion-mnist": "70,000 grey articles of clothing of 28x28 pixels, 10 classes (Xiao et al. 2017)",
    "mnist": "70,000 grey handwritten digits of 28x28 pixels (LeCun et al. 1998)",
    "kmnist": "70,000 grey cursive Japanese characters of 28x28 pixels, 10 classes (Clanuwat et al. 2018)",
    "cifar10": "60,000 colour photographs of 32x32 pixels, 10 classes (Krizhevsky 2009)",
    "cifar100": "60,000 colour photographs of 32x32 pixels, 100 classes (Krizhevsky 2009)",
    "svhn": "99,289 colour house-number digits of 32x32 pixels (Netzer et al. 2011)",
    "NAME:CLASSES": "some classes of one of these, by number: fashion-mnist:0-4, digits:1,3,7-9",
    "folder:PATH": "your own images: PATH/<class>/*, or PATH/train/<class>/* and PATH/test/<class>/*",
}
FOLDER = "folder:"

REGISTERED: Registry[Callable[..., Task]] = Registry("task", {})
"""What makes the tasks that others have registered."""


def register_task(name: str, make: Callable[..., Task] | str, description: str = "") -> None:
    """Makes a task known by a name, to evaluators, environments and the command line.

    Args:
        name: the name.
        make: a function that makes the task, or where it is found, ``module:function``. It is called with ``seed``, of
            the split into train and valid, ``data_dir`` and ``download``, and returns the task on the CPU.
        description: one line for lists.

    Raises:
        ValueError: the name is empty, or the place is not of that form.
    """
    REGISTERED.register(name, make)
    TASKS[name] = description
