"""Statistics of benchmark runs: point estimates of agents with bootstrap confidence intervals.

The measures are those of Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice":
interquartile mean, median, optimality gap, probability of improvement and performance profile of normalised scores.
Intervals are percentile intervals of a stratified bootstrap, which resamples the runs of each task with replacement:
the tasks are fixed, the seeds are a sample.

The runs of an agent are a list of tasks, each a float64[runs] of scores: 1 is the optimum, higher is better. Measures
that compare scores refuse NaN, which any comparison would count as a loss; means show it as NaN.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Runs = Sequence[Floats]

CONFIDENCE = 0.95
RESAMPLES = 2000  # as in Agarwal et al.'s examples; bounds vary by less than a tenth of the interval
SEED = 0  # of every bootstrap, so that equal runs give equal intervals


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic and its 95 % bootstrap interval.

    Attributes:
        value: of the observed runs.
        low: lower bound; NaN if a task has only one run.
        high: upper bound; NaN if a task has only one run.
    """

    value: float
    low: float
    high: float

    def above(self, threshold: float) -> bool:
        """Whether the whole interval lies above a threshold; False without an interval."""
        return self.low > threshold

    def below(self, threshold: float) -> bool:
        """Whether the whole interval lies below a threshold; False without an interval."""
        return self.high < threshold


# ---------------------------------------------------------------------- one agent


def interquartile_mean(*runs: Any, axis: int = -1) -> Any:
    """The mean of the middle half of all runs, tasks pooled."""
    return stats.trim_mean(np.concatenate(runs, axis=axis), 0.25, axis=axis)


def median(*runs: Any, axis: int = -1) -> Any:
    """The median over tasks of the mean over a task's runs."""
    return np.median([np.mean(task, axis=axis) for task in runs], axis=0)


def mean(*runs: Any, axis: int = -1) -> Any:
    """The mean of all runs, tasks pooled."""
    return np.mean(np.concatenate(runs, axis=axis), axis=axis)


def pooled_median(*runs: Any, axis: int = -1) -> Any:
    """The median of all runs, tasks pooled."""
    return np.median(np.concatenate(runs, axis=axis), axis=axis)


def optimality_gap(*runs: Any, axis: int = -1) -> Any:
    """The mean shortfall of all runs from 1, tasks pooled; scores above 1 count as 1."""
    return np.mean(1.0 - np.minimum(np.concatenate(runs, axis=axis), 1.0), axis=axis)


def estimate(statistic: Callable[..., Any], runs: Runs) -> Estimate:
    """A statistic of an agent's runs with its interval.

    Args:
        statistic: `interquartile_mean`, `median`, `optimality_gap`, or another function that takes one array per task
            and the keyword `axis`.
        runs: of the agent.
    """
    low, high = _interval(statistic, runs)
    return Estimate(float(statistic(*runs)), float(low), float(high))


def curve(runs: Runs, resamples: int = 500) -> tuple[Floats, Floats, Floats]:
    """The interquartile mean at each of P points of a search, with pointwise bounds.

    Args:
        runs: float64[runs, P] per task.
        resamples: of the bootstrap; bands in a figure need fewer than numbers in a table.

    Returns:
        Value, lower and upper bound, float64[P] each.
    """
    low, high = _interval(interquartile_mean, runs, axis=0, resamples=resamples)
    return interquartile_mean(*runs, axis=0), low, high


def _interval(
    statistic: Callable[..., Any], runs: Runs, *, axis: int = -1, resamples: int = RESAMPLES
) -> tuple[Any, Any]:
    if min(task.shape[axis] for task in runs) < 2:
        unknown = np.full_like(statistic(*runs, axis=axis), np.nan)
        return unknown, unknown
    found = stats.bootstrap(
        tuple(runs),
        statistic,
        n_resamples=resamples,
        batch=250,
        vectorized=True,
        axis=axis,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(SEED),
    )
    return found.confidence_interval.low, found.confidence_interval.high


def performance_profile(runs: Runs, thresholds: Floats) -> tuple[Floats, Floats, Floats]:
    """The share of runs whose score exceeds each threshold, averaged over tasks, with pointwise bounds.

    Args:
        runs: of the agent.
        thresholds: float64[P].

    Returns:
        Share, lower and upper bound, float64[P] each.

    Raises:
        ValueError: a score is NaN.
    """
    _check_comparable(runs)
    rng = np.random.default_rng(SEED)
    shares = [(task[:, None] > thresholds).mean(axis=0) for task in runs]
    # The number of resampled runs above a threshold is binomial.
    drawn = [
        rng.binomial(len(task), share, (RESAMPLES, len(share))) / len(task)
        for task, share in zip(runs, shares, strict=True)
    ]
    low, high = _bounds(np.mean(drawn, axis=0)) if _enough(runs) else (np.full_like(thresholds, np.nan),) * 2
    return np.mean(shares, axis=0), low, high


# ---------------------------------------------------------------------- two agents


def difference(statistic: Callable[..., Any], first: Runs, second: Runs) -> Estimate:
    """The first agent's statistic minus the second's, on the same tasks in the same order."""

    def gap(*runs: Any, axis: int = -1) -> Any:
        return statistic(*runs[: len(first)], axis=axis) - statistic(*runs[len(first) :], axis=axis)

    return estimate(gap, [*first, *second])


def probability_of_improvement(first: Runs, second: Runs) -> Estimate:
    """The probability that a run of the first agent beats one of the second on the same task, averaged over tasks.

    On each task this is the Mann-Whitney U statistic divided by the number of pairs; ties count half.

    Raises:
        ValueError: a score is NaN.
    """
    _check_comparable([*first, *second])
    values, drawn = [], []
    for task, (ours, theirs) in enumerate(zip(first, second, strict=True)):
        wins = (ours[:, None] > theirs) + 0.5 * (ours[:, None] == theirs)
        values.append(wins.mean())
        # A resample only weights each run by how often it is drawn.
        drawn.append(((_shares(len(ours), task, 0) @ wins) * _shares(len(theirs), task, 1)).sum(axis=1))
    low, high = _bounds(np.mean(drawn, axis=0)) if _enough([*first, *second]) else (np.nan, np.nan)
    return Estimate(float(np.mean(values)), float(low), float(high))


@functools.cache
def _shares(n: int, *stream: int) -> Floats:
    """The weight of each of n runs in each bootstrap resample, float64[RESAMPLES, n]; streams are independent."""
    return np.random.default_rng([SEED, *stream]).multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n


def _bounds(drawn: Floats) -> tuple[Any, Any]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return low, high


def _check_comparable(runs: Runs) -> None:
    for task in runs:
        if np.isnan(task).any():
            raise ValueError(
                f"scores must not be NaN, which compares with nothing; got {np.isnan(task).sum()} of {len(task)}"
            )


def _enough(runs: Runs) -> bool:
    return min(map(len, runs)) > 1
