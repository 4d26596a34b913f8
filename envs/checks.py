"""Checks of what is handed to environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from numpy.typing import ArrayLike, NDArray

from nas_gym.spaces import UNDECIDED, SearchSpace, Tokens
from nas_gym.types import Bools


def one_of(name: str, value: Any, known: tuple[Any, ...]) -> None:
    """Complains of an argument that is none of the known values.

    Raises:
        ValueError: it is not.
    """
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}; got {value!r}")


def check_positive(name: str, value: Any, least: int = 1) -> None:
    """Complains of what is not an integer of at least `least`.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")


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


def checked_seed(seed: int | Sequence[int | None] | None, num_envs: int) -> int | None:
    """The seed, or the first one of a list.

    Raises:
        ValueError: it is a list of another length than the number of sub-environments.
    """
    if seed is None or isinstance(seed, int):
        return seed
    if len(seed) != num_envs:
        raise ValueError(f"seed must be an int or a list of {num_envs}, got a list of {len(seed)}")
    return seed[0]


def checked_reset_mask(options: Mapping[str, Any] | None, num_envs: int, started: bool) -> Bools:
    """Which sub-environments `options["reset_mask"]` resets, bool[num_envs]; all of them without it.

    Raises:
        ValueError: it is not of this form, or resets none.
        ResetNeeded: it is given although they have not `started`: the first reset is of all.
    """
    mask = (options or {}).get("reset_mask")
    if mask is None:
        return np.ones(num_envs, dtype=bool)
    if not started:
        raise ResetNeeded("the first reset must be of all sub-environments, without a reset_mask")
    good = isinstance(mask, np.ndarray) and mask.shape == (num_envs,) and mask.dtype == np.bool_
    if not good or not mask.any():
        raise ValueError(f"options['reset_mask'] must be a bool[{num_envs}] with a True in it; got {mask!r}")
    checked: Bools = mask
    return checked


def starting_prefix(space: SearchSpace, options: Mapping[str, Any] | None) -> list[int]:
    """The choices of `options["architecture"]`, with which an episode starts; empty if the option is not given.

    Raises:
        ValueError: they are not fewer than T integers that are legal in this order.
    """
    prefix: Sequence[int] | None = (options or {}).get("architecture")
    if prefix is None or len(prefix) == 0:
        return []
    choices = np.asarray(prefix)
    if choices.ndim != 1 or choices.dtype.kind not in "iu" or len(choices) >= space.length:
        raise ValueError(
            f"options['architecture'] must be fewer than {space.length} integers, the first choices of an architecture "
            f"of space {space.name!r}; got {prefix!r}"
        )
    tokens = np.full((1, space.length), UNDECIDED, dtype=np.int64)
    for position, choice in enumerate(choices.tolist()):
        legal = np.flatnonzero(space.legal(tokens, position)[0]).tolist()
        if choice not in legal:
            raise ValueError(
                f"options['architecture'][{position}] = {choice} is not legal for decision "
                f"{space.decisions[position].name!r}; legal: {legal}"
            )
        if choice == space.stop_choices[position]:
            raise ValueError(
                f"options['architecture'][{position}] = {choice} stops at {space.decisions[position].name!r}, which "
                f"completes the architecture; an episode starts from a prefix that does not stop"
            )
        tokens[0, position] = choice
    decided: list[int] = choices.tolist()
    return decided


def parent_of(space: SearchSpace, options: Mapping[str, Any]) -> Tokens | None:
    """The architecture int64[1, T] that `options["parent"]` has an episode's architecture inherit from; None without.

    Raises:
        ValueError: it is no architecture of the space.
    """
    parent = options.get("parent")
    if parent is None:
        return None
    tokens = np.asarray(parent)
    if tokens.shape != (space.length,) or tokens.dtype.kind not in "iu":
        raise ValueError(f"options['parent'] must be {space.length} integers, an architecture; got {parent!r}")
    tokens = tokens.astype(np.int64)[None]
    space.check(tokens)
    return tokens
