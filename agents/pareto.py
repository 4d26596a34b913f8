"""What is best when several things matter: the Pareto front and its hypervolume.

Points are float64[n, k], a row for each of n candidates; larger is better in every column.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

BENEFITS = ("accuracy", "reward")
"""Columns of a search of which more is better; of all others, which are costs, less is."""

COSTS = ("latency", "parameters", "flops")
"""Metrics that accuracy is held against in reports: the first that is available."""


def signs(names: Sequence[str]) -> Floats:
    """What columns are multiplied with so that larger is better: 1 for benefits, -1 for costs."""
    return np.array([1.0 if name in BENEFITS else -1.0 for name in names])


def nondominated(points: Floats) -> NDArray[np.bool_]:
    """Which points no other one dominates, bool[n]: none is as good in every column and better in one.

    Of equal points all are, or none.
    """
    candidates, inverse = np.unique(points, axis=0, return_inverse=True)
    left = np.ones(len(candidates), dtype=bool)
    for row in np.argsort(-candidates.sum(axis=1)):  # what is good in all columns dominates the most
        if left[row]:
            left &= (candidates > candidates[row]).any(axis=1)
            left[row] = True
    front: NDArray[np.bool_] = left[inverse.reshape(-1)]
    return front


def hypervolume(points: Floats, reference: ArrayLike) -> float:
    """The volume of what the points dominate beyond a reference point (Zitzler & Thiele 1999), exactly.

    By slices: sorted by the last column, every two neighbours bound a slice of the volume, whose base is a hypervolume
    of one column less (Knowles 2002). That is fast for two columns, and for fronts of some hundred points with three
    or four.

    Args:
        points: float64[n, k]; those that are not better than the reference in every column add nothing.
        reference: float64[k].
    """
    gains = points - np.asarray(reference, dtype=np.float64)
    return _volume(gains[(gains > 0).all(axis=1)])


def _volume(gains: Floats) -> float:
    """The hypervolume of positive points beyond 0."""
    if not len(gains):
        return 0.0
    gains = gains[nondominated(gains)]
    gains = gains[np.argsort(-gains[:, -1], kind="stable")]
    thickness = gains[:, -1] - np.append(gains[1:, -1], 0.0)
    if gains.shape[1] == 1:
        return float(gains[0, 0])
    if gains.shape[1] == 2:
        return float(thickness @ np.maximum.accumulate(gains[:, 0]))
    slices = np.flatnonzero(thickness)
    return float(sum(thickness[row] * _volume(gains[: row + 1, :-1]) for row in slices))
