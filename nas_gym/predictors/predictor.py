"""What every predictor is: fitted to the values of some architectures, it predicts those of others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from nas_gym.registry import Registry
from nas_gym.settings import from_mapping
from nas_gym.spaces import SearchSpace, Tokens
from nas_gym.types import Floats


@dataclass(frozen=True)
class NoSettings:
    """The settings of a predictor without any."""


class Predictor(ABC):
    """Predicts the values of architectures, such as accuracies or rewards; most are a `StandardisedPredictor`.

    Args:
        space: the search space.
        **settings: fields of the predictor's `Settings`.

    Attributes:
        space: the search space.
        settings: an instance of `Settings`.
        reliable: False where the last fit has shown that the predictions are not to be relied on.

    Raises:
        ValueError: a setting is unknown or out of range.
    """

    Settings: ClassVar[type[Any]] = NoSettings
    reliable: bool = True

    def __init__(self, space: SearchSpace, **settings: Any) -> None:
        self.space = space
        self.settings = from_mapping(self.Settings, settings, f"predictor {type(self).__name__}")

    @abstractmethod
    def fit(self, tokens: Tokens, values: Floats) -> Self:
        """Fits the predictor to these architectures alone; what it was fitted to before is forgotten.

        Args:
            tokens: int64[n, T], at least one architecture.
            values: float64[n], in any unit. Where they are all equal, their standard deviation is taken to be 1.

        Returns:
            The predictor itself.

        Raises:
            ValueError: the tokens are no architectures of the space, or there is not one finite value for each.
        """

    @abstractmethod
    def update(self, tokens: Tokens, values: Floats) -> Self:
        """Fits the predictor to these architectures, but keeps from the last fit what takes long to find.

        So a search may `fit` now and then, and `update` after each of its trials. Without a fit before it, this is one.

        Args:
            tokens: as in `fit`.
            values: as in `fit`.

        Returns:
            The predictor itself.

        Raises:
            ValueError: as `fit`.
        """

    @abstractmethod
    def predict(self, tokens: Tokens) -> tuple[Floats, Floats]:
        """Predicts the values of architectures.

        Args:
            tokens: int64[B, T].

        Returns:
            The mean, float64[B], and the standard deviation, float64[B], of the value that each architecture would be
            given, in the units of the values.

        Raises:
            ValueError: the predictor has not been fitted, or the tokens are no architectures of the space.
        """


class StandardisedPredictor(Predictor):
    """A predictor whose subclass sees values of mean 0 and standard deviation 1.

    A subclass implements `fit_standardised` and `predict_standardised`, where part of a fit is worth keeping also
    `update_standardised`, and names the dataclass of its `Settings`.
    """

    def __init__(self, space: SearchSpace, **settings: Any) -> None:
        super().__init__(space, **settings)
        self._mean, self._scale = 0.0, 0.0  # of the values; a scale of 0 stands for "not fitted"

    def fit(self, tokens: Tokens, values: Floats) -> Self:
        self._learn(tokens, values, self.fit_standardised)
        return self

    def update(self, tokens: Tokens, values: Floats) -> Self:
        self._learn(tokens, values, self.update_standardised if self._scale else self.fit_standardised)
        return self

    def _learn(self, tokens: Tokens, values: Floats, learn: Callable[[Tokens, Floats], None]) -> None:
        """Has `fit_standardised` or `update_standardised` learn from checked, standardised values."""
        tokens, values = self._checked(tokens), np.asarray(values, dtype=np.float64)
        if len(tokens) == 0 or values.shape != (len(tokens),) or not np.isfinite(values).all():
            raise ValueError(
                "a predictor needs at least one architecture and one finite value for each; "
                f"got {len(tokens)} architectures and values of shape {values.shape}: {values}"
            )
        mean, scale = float(values[0]), 1.0
        if values.min() < values.max():  # the mean of equal values may differ from them by rounding
            mean, scale = float(values.mean()), float(values.std())
        learn(tokens, (values - mean) / scale)
        self._mean, self._scale = mean, scale

    def predict(self, tokens: Tokens) -> tuple[Floats, Floats]:
        if not self._scale:
            raise ValueError(f"{type(self).__name__}.predict needs values to predict from: call fit before it")
        mean, deviation = self.predict_standardised(self._checked(tokens))
        return self._mean + self._scale * mean, self._scale * deviation

    @abstractmethod
    def fit_standardised(self, tokens: Tokens, values: Floats) -> None:
        """Fits the predictor to values of mean 0 and standard deviation 1 (0 where they are all equal).

        Args:
            tokens: int64[n, T], at least one architecture.
            values: float64[n].
        """

    def update_standardised(self, tokens: Tokens, values: Floats) -> None:
        """As `fit_standardised`, where the predictor has been fitted before; see `update`."""
        self.fit_standardised(tokens, values)

    @abstractmethod
    def predict_standardised(self, tokens: Tokens) -> tuple[Floats, Floats]:
        """As `predict`, in the units of `fit_standardised`.

        Args:
            tokens: int64[B, T].

        Returns:
            The mean, float64[B], and the standard deviation, float64[B].
        """

    def _checked(self, tokens: Tokens) -> Tokens:
        """Complete sequences of the space; those that a growing space does not allow yet are complete, too."""
        tokens = np.asarray(tokens)
        if tokens.ndim != 2 or tokens.shape[1] != self.space.length or not np.issubdtype(tokens.dtype, np.integer):
            raise ValueError(
                f"tokens of space {self.space.name!r} must be integers of shape (batch, {self.space.length}), "
                f"got {tokens.dtype} of shape {tokens.shape}"
            )
        outside = (tokens < 0) | (tokens >= self.space.choice_counts)
        if outside.any():
            row, position = np.argwhere(outside)[0].tolist()
            raise ValueError(
                f"tokens[{row}, {position}] = {tokens[row, position]} is no choice of decision "
                f"{self.space.decisions[position].name!r} of space {self.space.name!r}; its choices are 0 to "
                f"{self.space.choice_counts[position] - 1}"
            )
        return tokens


PREDICTORS: Registry[type[Predictor]] = Registry(
    "predictor",
    {
        "bayesian-linear": "nas_gym.predictors.bayesian_linear:BayesianLinear",
        "ensemble": "nas_gym.predictors.ensemble:Ensemble",
        "gates": "nas_gym.predictors.gates:GATES",
        "gaussian-process": "nas_gym.predictors.gaussian_process:GaussianProcess",
        "gcn": "nas_gym.predictors.gcn:GCN",
        "lstm": "nas_gym.predictors.lstm:LSTM",
        "mlp-ensemble": "nas_gym.predictors.mlp_ensemble:MLPEnsemble",
    },
)
"""The classes of predictors by name. They are called with a search space and, by keyword, with their settings."""


def register_predictor(name: str, predictor: type[Predictor] | str) -> None:
    """Makes a predictor known by a name, to `make_predictor` and what uses it.

    Args:
        name: the name.
        predictor: the class, or where it is found, ``module:Class``.

    Raises:
        ValueError: the name is empty, or the place is not of that form.
    """
    PREDICTORS.register(name, predictor)


def make_predictor(name: str, space: SearchSpace, **settings: Any) -> Predictor:
    """Makes a predictor that is yet to be fitted.

    Args:
        name: one of `PREDICTORS`, or where a class stands, ``module:Class``.
        space: the search space.
        **settings: fields of the predictor's `Settings`.

    Raises:
        ValueError: the name or a setting is unknown, or a setting is out of range.
    """
    made = PREDICTORS[name]
    if not isinstance(made, type) or not issubclass(made, Predictor):
        raise ValueError(f"{name!r} is no predictor: it must be a subclass of Predictor, got {made!r}")
    return made(space, **settings)
