"""Means of a few accuracies, and differences of such means, with 95 % confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class MeanInterval:
    """The mean of accuracies with Student's 95 % confidence interval, clipped to [0, 1].

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
        """The mean and its interval from one accuracy per training."""
        mean = float(np.mean(accuracies))
        if len(accuracies) < 2:
            return cls(mean, None, None)
        from scipy import stats

        half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(accuracies) - 1) * stats.sem(accuracies))
        return cls(mean, max(mean - half, 0.0), min(mean + half, 1.0))

    def __str__(self) -> str:
        return f"{self.mean:.4f}" if self.low is None else f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class Difference:
    """One mean accuracy minus another, with its 95 % confidence interval.

    Attributes:
        value: the difference.
        low: lower bound; None where the accuracies do not vary.
        high: upper bound; None where the accuracies do not vary.
    """

    value: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float]) -> Difference:
        """The difference of the means of two independent samples, with Welch's interval (Welch 1947).

        The two may vary differently: trainings of one network as their seeds do, architectures drawn at random as
        architectures and seeds do together.

        Args:
            ours: accuracies; a single one is taken for exact, as that of a table is.
            theirs: at least two accuracies.
        """
        value, variances = float(np.mean(ours) - np.mean(theirs)), []
        for sample in (ours, theirs):
            if len(sample) > 1:
                variances.append((float(np.var(sample, ddof=1)) / len(sample), len(sample) - 1))
        variance = sum(part for part, _ in variances)
        if variance == 0:
            return cls(value, None, None)
        from scipy import stats

        freedom = variance**2 / sum(part**2 / freedom for part, freedom in variances)
        half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)) * math.sqrt(variance)
        return cls(value, value - half, value + half)

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval lies on that side of 0; 0 where it does not."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)

    def __str__(self) -> str:
        """In percentage points."""
        bounds = "" if self.low is None or self.high is None else f" [{100 * self.low:+.2f}, {100 * self.high:+.2f}]"
        return f"{100 * self.value:+.2f} points{bounds}"
