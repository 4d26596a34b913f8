"""Checks of what is handed to vector environments."""

from __future__ import annotations

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import ArrayLike, NDArray


def checked_actions(actions: ArrayLike, num_envs: int, num_choices: int) -> NDArray[np.int64]:
    """The actions as int64[num_envs].

    Raises:
        ValueError: they are not integers in [0, num_choices) of shape (num_envs,).
    """
    given = np.asarray(actions)
    if given.shape != (num_envs,) or given.dtype.kind not in "iu":
        raise ValueError(f"actions must be integers of shape ({num_envs},), got {given.dtype} of shape {given.shape}")
    checked = given.astype(np.int64, copy=False)
    # Interpreted as unsigned, negative numbers are huge.
    if checked.view(np.uint64).max() >= num_choices:
        row = int(np.argmax((checked < 0) | (checked >= num_choices)))
        raise ValueError(f"actions must be in [0, {num_choices}), got actions[{row}] = {given[row]}")
    return checked


def checked_mode(mode: AutoresetMode | str) -> AutoresetMode:
    """The autoreset mode of a value.

    Raises:
        ValueError: it is none.
    """
    try:
        return AutoresetMode(mode)
    except ValueError:
        known = ", ".join(repr(known.value) for known in AutoresetMode)
        raise ValueError(f"autoreset_mode must be an AutoresetMode or one of {known}; got {mode!r}") from None
