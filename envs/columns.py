"""Columns of the infos of vector environments, as Gymnasium lays them out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_gym.types import Bools


def column(name: str, value: Any, present: Bools) -> tuple[tuple[str, Any], tuple[str, Bools]]:
    """A column of Gymnasium's vector infos, with the mask of the rows that have it."""
    return (name, value), (f"_{name}", present.copy())


def only(values: NDArray[Any], mask: Bools) -> NDArray[Any]:
    """A copy with zeros where the mask is False, as Gymnasium's vector infos have for absent rows."""
    if mask.all():
        return values.copy()
    present = np.zeros(values.shape, dtype=values.dtype)
    present[mask] = values[mask]
    return present
