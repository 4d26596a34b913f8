"""Means over a few seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class MeanInterval:
    """The mean accuracy over seeds with Student's 95 % confidence interval, clipped to [0, 1].

    Attributes:
        mean: of the accuracies.
        low: lower bound; None for a single accuracy.
        high: upper bound; None for a single accuracy.
    """

    mean: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, accuracies: Sequence[float]) -> MeanInterval:
        """The mean and its interval from one accuracy per seed."""
        mean = float(np.mean(accuracies))
        if len(accuracies) < 2:
            return cls(mean, None, None)
        half = float(stats.t.ppf(0.975, len(accuracies) - 1) * stats.sem(accuracies))
        return cls(mean, max(mean - half, 0.0), min(mean + half, 1.0))

    def __str__(self) -> str:
        return f"{self.mean:.4f}" if self.low is None else f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"
