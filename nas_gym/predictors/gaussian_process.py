"""A Gaussian process over the decisions of an architecture."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from nas_gym.predictors.encodings import kernel
from nas_gym.predictors.predictor import Predictor
from nas_gym.spaces import Tokens
from nas_gym.types import Floats

BLOCK = 4096
"""Architectures that are predicted at once, so that the kernel of a large pool is never held as a whole."""


@dataclass(frozen=True)
class GaussianProcessSettings:
    """Settings of the Gaussian process.

    Attributes:
        lengths: of the kernel, in decisions: the candidates that the likelihood chooses from.
        noises: the variances of the noise that it chooses from, where that of the values is 1. The smallest keeps the
            covariance well conditioned.
    """

    lengths: tuple[float, ...] = (0.7, 1.2, 2.0, 3.5, 6.0, 10.0)
    noises: tuple[float, ...] = (0.02, 0.1, 0.3, 1.0)

    def __post_init__(self) -> None:
        for name in ("lengths", "noises"):
            values = getattr(self, name)
            try:
                values = tuple(map(float, values))
                fits = bool(values) and all(0 < value < math.inf for value in values)
            except (TypeError, ValueError):
                fits = False
            if not fits:
                raise ValueError(f"{name} must be positive numbers, at least one, got {getattr(self, name)!r}")
            object.__setattr__(self, name, values)


class GaussianProcess(Predictor):
    """Gaussian process regression with the kernel exp(-d / length), where d decisions of two architectures differ.

    The prior variance of the standardised values is 1. `fit` chooses length and noise from a grid by the marginal
    likelihood (Rasmussen & Williams 2006, "Gaussian Processes for Machine Learning", equation 2.30); `update` keeps
    them. A fit takes of the order of n³ operations for each pair of the grid, an update for one, and a prediction n² an
    architecture.

    The predicted deviation is that of the function, without the noise: 0 where there is nothing left to learn.

    Attributes:
        length: of the kernel.
        noise: its variance, in units of the standardised values.
        likelihood: the logarithm of the marginal likelihood of the standardised values.
    """

    Settings = GaussianProcessSettings
    settings: GaussianProcessSettings

    def fit_standardised(self, tokens: Tokens, values: Floats) -> None:
        distances = _distances(tokens, tokens)
        grid = itertools.product(self.settings.lengths, self.settings.noises)
        fits = [(_likelihood(distances, values, *pair), pair) for pair in grid]
        self.length, self.noise = max(fits, key=lambda fit: fit[0])[1]
        self.update_standardised(tokens, values)

    def update_standardised(self, tokens: Tokens, values: Floats) -> None:
        self._tokens = np.array(tokens)
        lower = _cholesky(_distances(tokens, tokens), self.length, self.noise)
        self._whitening = np.linalg.inv(lower)  # of a covariance whose smallest eigenvalue is at least the noise
        self._weights = self._whitening.T @ (self._whitening @ values)
        self.likelihood = _log_density(lower, self._whitening @ values)

    def predict_standardised(self, tokens: Tokens) -> tuple[Floats, Floats]:
        mean, variance = np.empty((2, len(tokens)))
        for start in range(0, len(tokens), BLOCK):
            rows = slice(start, start + BLOCK)
            shared = np.exp(-_distances(tokens[rows], self._tokens) / self.length)
            mean[rows] = shared @ self._weights
            variance[rows] = 1 - ((shared @ self._whitening.T) ** 2).sum(axis=1)
        return mean, np.sqrt(np.maximum(variance, 0.0))


def _distances(first: Tokens, second: Tokens) -> Floats:
    """How many decisions differ, float64[N, M]."""
    return first.shape[1] - kernel(first, second, pairs=False)


def _cholesky(distances: Floats, length: float, noise: float) -> Floats:
    """The lower triangular factor of the values' covariance."""
    return np.linalg.cholesky(np.exp(-distances / length) + noise * np.eye(len(distances)))


def _likelihood(distances: Floats, values: Floats, length: float, noise: float) -> float:
    lower = _cholesky(distances, length, noise)
    return _log_density(lower, np.linalg.solve(lower, values))


def _log_density(lower: Floats, whitened: Floats) -> float:
    """The logarithm of the density of values under the covariance ``lower @ lower.T``, which `whitened` has divided."""
    normaliser = np.log(np.diag(lower)).sum() + 0.5 * len(lower) * math.log(2 * math.pi)
    return float(-0.5 * whitened @ whitened - normaliser)
