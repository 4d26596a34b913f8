"""Predictors of rewards that are vectors, and the choice from a predicted Pareto front."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np

from nas_gym.agents.pareto import hypervolume, nondominated
from nas_gym.predictors import Predictor
from nas_gym.spaces import SearchSpace, Tokens
from nas_gym.types import Floats, Integers


class PredictorPerObjective(Predictor):
    """A predictor for each column of values float64[n, k], whose means and deviations are float64[B, k].

    Args:
        space: the search space.
        parts: a predictor for each objective.
    """

    def __init__(self, space: SearchSpace, parts: Sequence[Predictor]) -> None:
        super().__init__(space)
        self.parts = parts

    def fit(self, tokens: Tokens, values: Floats) -> Self:
        for part, column in zip(self.parts, values.T, strict=True):
            part.fit(tokens, column)
        return self

    def update(self, tokens: Tokens, values: Floats) -> Self:
        for part, column in zip(self.parts, values.T, strict=True):
            part.update(tokens, column)
        return self

    def predict(self, tokens: Tokens) -> tuple[Floats, Floats]:
        means, deviations = zip(*(part.predict(tokens) for part in self.parts), strict=True)
        return np.stack(means, axis=1), np.stack(deviations, axis=1)


class Known(Predictor):
    """Values that need no trial, with a deviation of 0.

    Args:
        space: the search space.
        place: ``module:function``, of a function from a search space and tokens int64[B, T] to values float64[B].

    Raises:
        ValueError: there is no such function.
    """

    def __init__(self, space: SearchSpace, place: str) -> None:
        super().__init__(space)
        module, _, name = place.partition(":")
        try:
            self.function: Callable[[SearchSpace, Tokens], Floats] = getattr(importlib.import_module(module), name)
        except (AttributeError, ImportError, ValueError) as error:
            raise ValueError(f"known must name functions, 'module:function', got {place!r}: {error}") from error

    def fit(self, tokens: Tokens, values: Floats) -> Self:
        return self

    def update(self, tokens: Tokens, values: Floats) -> Self:
        return self

    def predict(self, tokens: Tokens) -> tuple[Floats, Floats]:
        values = np.asarray(self.function(self.space, tokens), dtype=np.float64)
        return values, np.zeros(len(tokens))


def by_fronts(points: Floats) -> list[Integers]:
    """The rows of float64[n, k] by Pareto fronts: what nothing dominates, then what only these do, and so on."""
    fronts: list[Integers] = []
    left = np.arange(len(points))
    while len(left):
        front = nondominated(points[left])
        fronts.append(left[front])
        left = left[~front]
    return fronts


def by_gain(points: Floats, known: Floats, n: int) -> Integers:
    """n rows of points, or all: each next one adds most to the hypervolume of those before it and what is known.

    Volumes are measured from the worst known value of each objective, less a tenth of its range.

    Args:
        points: float64[m, k].
        known: float64[l, k], at least one.
        n: how many.
    """
    reference = known.min(axis=0) - 0.1 * np.ptp(known, axis=0) - np.finfo(np.float64).eps
    front, order = known[nondominated(known)], np.empty(0, dtype=np.int64)
    left = np.arange(len(points))
    while len(left) and len(order) < n:
        volumes = [hypervolume(np.vstack([front, points[row]]), reference) for row in left]
        best = int(np.argmax(volumes))
        order, front = np.append(order, left[best]), np.vstack([front, points[left[best]]])
        left = np.delete(left, best)
    return order
