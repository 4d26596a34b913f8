"""Acquisition functions: how promising an architecture is, by the mean and the deviation of its predicted value.

All take and return float64[B], for values that are to be high.
"""

from __future__ import annotations

import math

import numpy as np

from nas_gym.predictors.predictor import Predictor
from nas_gym.spaces import Tokens
from nas_gym.types import Floats

ACQUISITIONS = ("expected-improvement", "upper-confidence-bound", "thompson")
"""The names that `acquire` takes."""

_erf = np.vectorize(math.erf, otypes=[np.float64])


def expected_improvement(mean: Floats, deviation: Floats, best: float) -> Floats:
    """The expectation of max(value - best, 0), for normally distributed values.

    Source: Jones et al. 1998, "Efficient Global Optimization of Expensive Black-Box Functions", equation 15.
    """
    gain, spread = mean - best, np.maximum(deviation, 1e-12)
    scaled = np.clip(gain / spread, -40.0, 40.0)  # beyond which the density is 0 and the distribution 0 or 1
    density = np.exp(-0.5 * scaled**2) / math.sqrt(2 * math.pi)
    below = 0.5 * (1 + _erf(scaled / math.sqrt(2)))
    improvement: Floats = gain * below + spread * density
    return np.maximum(improvement, 0.0)


def upper_confidence_bound(mean: Floats, deviation: Floats, weight: float) -> Floats:
    """The mean and so many deviations more.

    Source: Srinivas et al. 2010, "Gaussian Process Optimization in the Bandit Setting", equation 6.
    """
    return mean + weight * deviation


def thompson_sample(mean: Floats, deviation: Floats, rng: np.random.Generator) -> Floats:
    """A draw of each value, independent of the others.

    Source: White et al. 2021, "BANANAS": independent Thompson sampling.
    """
    return rng.normal(mean, deviation)


def acquire(
    name: str, mean: Floats, deviation: Floats, *, best: float, weight: float, rng: np.random.Generator
) -> Floats:
    """The acquisition function of that name.

    Args:
        name: one of `ACQUISITIONS`.
        mean: of the predicted values, float64[B].
        deviation: of the predicted values, float64[B].
        best: the highest value so far, for expected improvement.
        weight: of the deviation, for the upper confidence bound.
        rng: for Thompson sampling.

    Returns:
        float64[B], to be maximised.

    Raises:
        ValueError: the name is unknown.
    """
    if name == "expected-improvement":
        return expected_improvement(mean, deviation, best)
    if name == "upper-confidence-bound":
        return upper_confidence_bound(mean, deviation, weight)
    if name == "thompson":
        return thompson_sample(mean, deviation, rng)
    raise ValueError(f"unknown acquisition {name!r}; known: {', '.join(ACQUISITIONS)}")


def believe(predictor: Predictor, tokens: Tokens, values: Floats, pending: Tokens) -> Floats:
    """Updates a fitted predictor as if trials that have not ended had earned what it predicts.

    So the next architectures are chosen elsewhere. For a Gaussian process the mean stays what it was, and the
    deviation becomes what it will be.

    Sources: Ginsbourger et al. 2010, "Kriging Is Well-Suited to Parallelize Optimization" (the kriging
    believer); Desautels et al. 2014, "Parallelizing Exploration-Exploitation Tradeoffs".

    Args:
        predictor: fitted to the trials that have ended.
        tokens: int64[n, T], those trials.
        values: float64[n], theirs.
        pending: int64[m, T], architectures whose trials have not ended.

    Returns:
        All values, float64[n + m], those believed last.
    """
    if not len(pending):
        return values
    believed = np.concatenate([values, predictor.predict(pending)[0]])
    predictor.update(np.concatenate([tokens, pending]), believed)
    return believed
