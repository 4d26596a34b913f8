"""When to stop a differentiable search: before the loss gets sharp (Zela et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

from nas_gym.spaces import Tokens
from nas_gym.types import Floats

WINDOW = 5  # eigenvalues that are averaged (section 5.1, and the authors' code)
LAG = 4  # epochs between the two averages
RATIO = 1.3  # of the later to the earlier that stops the search
FIRST = 10  # epochs before it may stop


class EarlyStopping:
    """Stops when the largest eigenvalue has risen to `RATIO` times what it was; the cell from before is taken.

    Source: Zela et al. 2020, "Understanding and Robustifying Differentiable Architecture Search", section 5.1.

    Attributes:
        eigenvalues: the largest of each epoch.
        cells: the cell int64[T] of each epoch.
        cell: int64[T], the one that the search has stopped with; None while it goes on.
    """

    def __init__(self) -> None:
        self.eigenvalues: list[float] = []
        self.cells: list[Tokens] = []
        self.cell: Tokens | None = None

    def add(self, eigenvalue: float, cell: Tokens) -> None:
        """Adds an epoch."""
        self.eigenvalues.append(eigenvalue)
        self.cells.append(cell)
        if len(self.cells) < max(FIRST, WINDOW + LAG):
            return
        now, before = self.eigenvalues[-WINDOW:], self.eigenvalues[-WINDOW - LAG : -LAG]
        if np.mean(now) > RATIO * np.mean(before):
            self.cell = self.cells[-1 - LAG]

    def state_dict(self) -> dict[str, Any]:
        return {
            "eigenvalues": self.eigenvalues,
            "cells": [cell.tolist() for cell in self.cells],
            "stopped": self.cell is not None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.eigenvalues = [float(value) for value in state["eigenvalues"]]
        self.cells = [np.array(cell, dtype=np.int64) for cell in state["cells"]]
        self.cell = self.cells[-1 - LAG] if state["stopped"] else None


def largest_eigenvalue(product: Callable[[Floats], Floats], size: int) -> float:
    """Of a symmetric matrix, by Lanczos iteration.

    Args:
        product: the matrix times float64[size].
        size: of the matrix.
    """
    matrix = LinearOperator((size, size), matvec=lambda vector: product(vector.ravel()), dtype=np.float64)
    start = np.random.default_rng(0).normal(size=size)
    (found,) = eigsh(matrix, k=1, which="LA", v0=start, tol=0.01, return_eigenvectors=False)
    return float(found)
