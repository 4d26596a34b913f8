"""What the numbers of a table must be, in memory and in a file alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPLITS = ("valid", "test")
TIMES = ("seconds", "validation_seconds")
COSTS = (*TIMES, "parameters", "flops", "latency")
ARRAYS = (*SPLITS, *COSTS)

Array = NDArray[Any]


def check_epochs(epochs: Sequence[Any]) -> None:
    """Numbers of epochs are positive integers, ascending.

    Raises:
        ValueError: they are not.
    """
    integers = all(isinstance(epoch, int) and not isinstance(epoch, bool) for epoch in epochs)
    if not integers or list(epochs) != sorted(set(epochs)) or (epochs and not 1 <= epochs[0] <= epochs[-1] < 2**31):
        raise ValueError(f"epochs must be positive and ascending integers, got {epochs}")


def check_rows(rows: Array, sequences: int, num_rows: int) -> None:
    """The row of each sequence is one of the table's, or -1, and at least one sequence has a row.

    Raises:
        ValueError: the array is of another type or shape, or holds another number.
    """
    if rows.dtype.kind != "i" or rows.shape != (sequences,):
        raise ValueError(f"rows must be of shape ({sequences},), of int32; got shape {rows.shape}, of {rows.dtype}")
    if rows.min() < -1 or rows.max() >= num_rows:
        wrong = rows[(rows < -1) | (rows >= num_rows)][0]
        raise ValueError(f"rows must be in [-1, {num_rows}), the rows of the other arrays; it holds {wrong}")
    if rows.max() < 0:
        raise ValueError("rows must be at least 0 for some sequence; it holds -1 alone")


def check_array(name: str, array: Array, epochs: Sequence[int], valid: Array) -> None:
    """One array of a task: accuracies in [0, 1], or costs that are finite and not negative, NaN where unknown.

    The clock of a search adds up the seconds, so they must be known wherever a validation accuracy is.

    Args:
        name: one of `ARRAYS`.
        array: the array.
        epochs: the recorded numbers of epochs.
        valid: the validation accuracies of the task, which the shape must match.

    Raises:
        ValueError: the array is of another type or shape, or holds another number.
    """
    if name == "valid" and (array.ndim != 3 or array.shape[2] != max(1, len(epochs))):
        wanted = f"(rows, seeds, {max(1, len(epochs))})"
        raise ValueError(f"valid must be of shape {wanted} for epochs {tuple(epochs)}, got {array.shape}")
    shapes = [valid.shape] if name in SPLITS else [valid.shape[:1]]
    if name == "seconds":
        shapes.append(valid.shape[:2])
    if array.shape not in shapes:
        raise ValueError(f"{name} of shape {array.shape} does not match valid of shape {valid.shape}")
    if array.dtype.kind not in ("f" if name in SPLITS else "fiu"):
        raise ValueError(f"{name} must hold floats, got {array.dtype}")
    most, allowed = (1.0, "in [0, 1]") if name in SPLITS else (np.finfo(np.float64).max, "positive and finite")
    wrong = (array < 0) | (array > most)
    if wrong.any():
        raise ValueError(f"{name} must be {allowed}, NaN where unknown; it holds {array[wrong][0]}")
    if name == "valid" and np.isnan(array).all():
        raise ValueError("valid must hold an accuracy; it holds NaN alone")
    if name in TIMES:
        unknown = _unknown(array) & ~_unknown(valid)
        if unknown.any():
            raise ValueError(f"{name} must be known wherever valid is; it holds NaN in row {unknown.argmax()}")


def _unknown(array: Array) -> NDArray[np.bool_]:
    """bool[R]: the rows that are NaN throughout."""
    return np.asarray(np.isnan(array).reshape(len(array), -1).all(axis=1))
