"""Columns of the infos of vector environments, as Gymnasium lays them out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nas_gym.types import Bools, Integers

Rows = slice | Integers
"""An index of rows: `slice(None)` for all, which numpy copies fastest, or their numbers."""


def column(name: str, value: Any, present: Bools) -> tuple[tuple[str, Any], tuple[str, Bools]]:
    """A column of Gymnasium's vector infos, with the mask of the rows that have it."""
    return (name, value), (f"_{name}", present.copy())


def rows_of(mask: Bools) -> Rows:
    """The rows where the mask is True."""
    return slice(None) if mask.all() else np.flatnonzero(mask)


def only(values: NDArray[Any], rows: Rows, dtype: DTypeLike | None = None) -> NDArray[Any]:
    """A copy with zeros in all other rows, as Gymnasium's vector infos have for absent rows."""
    dtype = values.dtype if dtype is None else dtype
    if isinstance(rows, slice):
        return values.astype(dtype)
    present = np.zeros(values.shape, dtype)
    present[rows] = values[rows]
    return present
