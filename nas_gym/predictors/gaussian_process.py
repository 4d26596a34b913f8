"""A Gaussian process over the decisions of an architecture."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from nas_gym.predictors.encodings import counts, one_hot
from nas_gym.predictors.predictor import StandardisedPredictor
from nas_gym.spaces import Tokens
from nas_gym.types import Floats

SMALLEST = np.finfo(np.float64).tiny  # of positive numbers
BLOCK = 4096
"""Architectures that are predicted at once, so that the kernel of a large pool is never held as a whole."""


@dataclass(frozen=True)
class GaussianProcessSettings:
    """Settings of the Gaussian process.

    Attributes:
        counts: weights of the choices' counts in the distance of two architectures, which the likelihood chooses from;
            0 compares decisions alone. Over four tables of NAS-Bench-Graph a weight of 1 raises the rank correlation of
            predictions from 30 values from 0.39 to 0.48, and from 100 values from 0.62 to 0.67. Where the same choices
            are worth more in one place than in another, it misleads.
        lengths: of the kernel, in decisions: the candidates that it chooses from.
        noises: the variances of the noise that it chooses from, where that of the values is 1. The smallest keeps the
            covariance well conditioned.
    """

    counts: tuple[float, ...] = (0.0, 0.3, 1.0)
    lengths: tuple[float, ...] = (0.7, 1.2, 2.0, 3.5, 6.0, 10.0, 16.0)
    noises: tuple[float, ...] = (0.02, 0.1, 0.3, 1.0)

    def __post_init__(self) -> None:
        for name, least in (("counts", 0.0), ("lengths", SMALLEST), ("noises", SMALLEST)):
            values = getattr(self, name)
            try:
                values = tuple(map(float, values))
                fits = bool(values) and all(least <= value < math.inf for value in values)
            except (TypeError, ValueError):
                fits = False
            if not fits:
                wanted = "positive numbers" if least else "numbers, not negative"
                raise ValueError(f"{name} must be {wanted}, at least one, got {getattr(self, name)!r}")
            object.__setattr__(self, name, values)


class GaussianProcess(StandardisedPredictor):
    """Gaussian process regression on which choices an architecture takes, and how often.

    The kernel is exp(-d / length). The distance d is the number of decisions that differ, and `weight` times half the
    squared distance of the choices' counts: so architectures are close, too, that take the same choices elsewhere. In
    other words, it is the squared exponential kernel on both encodings, `one_hot` and `counts`. The prior variance of
    the standardised values is 1. `fit` chooses weight, length and noise from a grid by the marginal likelihood
    (Rasmussen & Williams 2006, "Gaussian Processes for Machine Learning", equation 2.30); `update` keeps them. A fit
    takes of the order of n³ operations for each point of the grid, an update for one, and a prediction n² an
    architecture.

    The predicted deviation is that of the function, without the noise: 0 where there is nothing left to learn.

    Attributes:
        weight: of the choices' counts.
        length: of the kernel.
        noise: its variance, in units of the standardised values.
        likelihood: the logarithm of the marginal likelihood of the standardised values.
    """

    Settings = GaussianProcessSettings
    settings: GaussianProcessSettings

    def fit_standardised(self, tokens: Tokens, values: Floats) -> None:
        expected, features = self._prior(tokens)
        linear, best = features @ features.T, -np.inf
        for weight in self.settings.counts:
            encoded = self._encode(tokens, weight)
            distances = _distances(encoded, encoded)
            for length, noise in itertools.product(self.settings.lengths, self.settings.noises):
                likelihood = _likelihood(distances, linear, values - expected, length, noise)
                if likelihood > best:
                    best, self.weight, self.length, self.noise = likelihood, weight, length, noise
        self.update_standardised(tokens, values)

    def update_standardised(self, tokens: Tokens, values: Floats) -> None:
        self._encoded, (expected, self._features) = self._encode(tokens, self.weight), self._prior(tokens)
        distances, linear = _distances(self._encoded, self._encoded), self._features @ self._features.T
        lower = _cholesky(distances, linear, self.length, self.noise)
        self._whitening = np.linalg.inv(lower)  # of a covariance whose smallest eigenvalue is at least the noise
        self._weights = self._whitening.T @ (self._whitening @ (values - expected))
        self.likelihood = _log_density(lower, self._whitening @ (values - expected))

    def predict_standardised(self, tokens: Tokens) -> tuple[Floats, Floats]:
        mean, variance = np.empty((2, len(tokens)))
        for start in range(0, len(tokens), BLOCK):
            rows = slice(start, start + BLOCK)
            expected, features = self._prior(tokens[rows])
            shared = np.exp(-_distances(self._encode(tokens[rows], self.weight), self._encoded) / self.length)
            shared += features @ self._features.T
            mean[rows] = expected + shared @ self._weights
            variance[rows] = 1 + (features**2).sum(axis=1) - ((shared @ self._whitening.T) ** 2).sum(axis=1)
        return mean, np.sqrt(np.maximum(variance, 0.0))

    def _prior(self, tokens: Tokens) -> tuple[Floats, Floats]:
        """The prior mean, float64[B], and features, float64[B, S], with weights that are standard normal a priori.

        Here there is nothing of the kind.
        """
        return np.zeros(len(tokens)), np.empty((len(tokens), 0))

    def _encode(self, tokens: Tokens, weight: float) -> Floats:
        """float64[B, F], of which half the squared distance is d."""
        columns = [one_hot(self.space, tokens)]
        if weight:
            columns.append(math.sqrt(weight) * counts(self.space, tokens))
        return np.concatenate(columns, axis=1).astype(np.float64)


def _distances(first: Floats, second: Floats) -> Floats:
    """Half the squared distances of encodings, float64[N, M]."""
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)
    distances: Floats = 0.5 * squares - first @ second.T
    return distances


def _cholesky(distances: Floats, linear: Floats, length: float, noise: float) -> Floats:
    """The lower triangular factor of the values' covariance, of which `linear` is that of the prior's features."""
    covariance = np.exp(-distances / length) + linear + noise * np.eye(len(distances))
    lower: Floats = np.linalg.cholesky(covariance).astype(np.float64)
    return lower


def _likelihood(distances: Floats, linear: Floats, values: Floats, length: float, noise: float) -> float:
    lower = _cholesky(distances, linear, length, noise)
    whitened: Floats = np.linalg.solve(lower, values).astype(np.float64)
    return _log_density(lower, whitened)


def _log_density(lower: Floats, whitened: Floats) -> float:
    """The logarithm of the density of values under the covariance ``lower @ lower.T``, which `whitened` has divided."""
    normaliser = np.log(np.diag(lower)).sum() + 0.5 * len(lower) * math.log(2 * math.pi)
    return float(-0.5 * whitened @ whitened - normaliser)
