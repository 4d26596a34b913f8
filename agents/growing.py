"""Arrays that grow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Growing:
    """Rows that others are appended to, each at a cost that does not depend on how many there are.

    Args:
        rows: the first ones, [n, ...].
    """

    def __init__(self, rows: NDArray[Any]) -> None:
        self._buffer, self._count = rows, len(rows)

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> NDArray[Any]:
        """All rows so far, a view that must not be written to."""
        return self._buffer[: self._count]

    def extend(self, new: NDArray[Any]) -> None:
        """Appends rows [n, ...]."""
        count = self._count + len(new)
        if count > len(self._buffer):
            buffer = np.empty((2 * count, *self._buffer.shape[1:]), dtype=self._buffer.dtype)
            buffer[: self._count] = self.rows
            self._buffer = buffer
        self._buffer[self._count : count] = new
        self._count = count
