"""Values by their ranks alone, as a normal distribution would have them."""

from __future__ import annotations

import functools
from statistics import NormalDist

import numpy as np

from nas_gym.types import Floats


def normal_scores(values: Floats) -> Floats:
    """The quantiles of the standard normal distribution at the ranks of values.

    A predictor of normal scores is the same for every increasing function of the values, and no outlier decides it.
    Of n values, the one of rank r, counted from 1, is at the quantile (r - 1/2) / n; equal ones share their mean rank.

    Source: Hazen's plotting position; for Gaussian processes over ranks, Salinas et al. 2020, "A Quantile-based
    Approach for Hyperparameter Transfer Learning".

    Args:
        values: float64[n].

    Returns:
        float64[n].
    """
    ordered = np.sort(values)
    ranks = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")  # twice, minus one
    scores: Floats = _quantiles(len(values))[ranks - 1]
    return scores


@functools.lru_cache
def _quantiles(n: int) -> Floats:
    """Those at 1 / 2n, 2 / 2n, ..., float64[2n - 1]."""
    return np.array([NormalDist().inv_cdf(half / (2 * n)) for half in range(1, 2 * n)])
