"""Objectives: functions from evaluations to rewards."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from nas_gym.evaluators.evaluator import Evaluations
from nas_gym.settings import unknown
from nas_gym.types import Floats

UNKNOWN = float(np.finfo(np.float32).max)  # the bound of what has none that is known


class Objective(ABC):
    """Maps evaluations to rewards; failed evaluations get the worst reward.

    Attributes:
        name: name in reports.
        worst: the reward of failed trials and of penalised illegal choices.
    """

    name: str
    worst: float | tuple[float, ...]

    @property
    def dimensions(self) -> int | None:
        """The length of vector rewards; None for scalar rewards."""
        return None

    def zeros(self, n: int) -> Floats:
        """The rewards of n steps that do not complete an architecture, float64[n], or float64[n, dimensions]."""
        return np.zeros(n if self.dimensions is None else (n, self.dimensions))

    def bounds(self) -> tuple[Floats, Floats]:
        """The least and the largest rewards of any step, float64[dimensions] each; the ends of float32 if unknown."""
        return np.full(self.dimensions or 1, -UNKNOWN), np.full(self.dimensions or 1, UNKNOWN)

    @abstractmethod
    def values(self, evaluations: Evaluations) -> Floats:
        """The rewards of B evaluations that have not failed, float64[B], or float64[B, dimensions]."""

    def __call__(self, evaluations: Evaluations) -> Floats:
        """Rewards, float64[B], or float64[B, dimensions].

        Raises:
            ValueError: the evaluations lack a metric.
        """
        if not evaluations.failed.any():
            return self.values(evaluations)
        rewards, sound = self.zeros(len(evaluations)), ~evaluations.failed
        rewards[~sound] = self.worst
        if sound.any():
            rewards[sound] = self.values(evaluations.rows(sound))
        return rewards


@dataclass(frozen=True)
class AccuracyObjective(Objective):
    """A function of the accuracy alone.

    Attributes:
        name: name in reports.
        transform: float64[B] accuracies in [0, 1] -> float64[B] rewards.
        worst: the reward of failed trials and of penalised illegal choices.
    """

    name: str
    transform: Callable[[Floats], Floats]
    worst: float = 0.0

    def values(self, evaluations: Evaluations) -> Floats:
        return self.transform(evaluations.accuracy)


def _accuracy(accuracy: Floats) -> Floats:
    return accuracy


def _cubed(accuracy: Floats) -> Floats:
    return accuracy**3


def _tan(accuracy: Floats) -> Floats:
    # Capped just below 1, where the tangent has its pole.
    return np.tan(np.minimum(accuracy, 0.9999) * np.pi / 2)


@dataclass(frozen=True)
class LikelihoodObjective(Objective):
    """exp(-loss): the geometric mean of the probabilities that a network gives to the right answers, in (0, 1].

    Of few examples, or of networks that are trained little, the loss is a steadier score than the accuracy, since it
    counts by how much an answer is right. Failed trials have the likelihood 0.
    """

    name = "likelihood"
    worst = 0.0

    def values(self, evaluations: Evaluations) -> Floats:
        return np.exp(-_column(evaluations, "loss"))


@dataclass(frozen=True)
class SoftConstraint(Objective):
    """accuracy * (metric / target) ** exponent (Tan et al. 2019, "MnasNet", equations 2 and 3).

    With -0.07 on both sides of the target, as in the paper, twice the latency needs 5 % more accuracy, relatively, for
    the same reward. With ``exponent=-1, exponent_below=0``, its hard variant, there is no gain from a metric below the
    target.

    Attributes:
        metric: the metric to keep low, such as ``latency``, ``flops`` or ``parameters``.
        target: target value of the metric.
        exponent: exponent above the target (Tan et al. 2019, section 3.1: beta = -0.07).
        exponent_below: exponent up to the target (alpha); None takes `exponent`.

    Raises:
        ValueError: the target is not positive, or an exponent is positive.
    """

    name = "soft-constraint"
    worst = 0.0
    metric: str
    target: float
    exponent: float = -0.07
    exponent_below: float | None = None

    def __post_init__(self) -> None:
        if not _is_number(self.target) or not self.target > 0:
            raise ValueError(f"target must be a positive number, got {self.target!r}")
        for name in ("exponent", "exponent_below"):
            value = getattr(self, name)
            if not (name == "exponent_below" and value is None) and not (_is_number(value) and value <= 0):
                raise ValueError(f"{name} must be a number that is not positive, got {value!r}")

    def values(self, evaluations: Evaluations) -> Floats:
        metric = _column(evaluations, self.metric)
        if not (metric > 0).all():
            raise ValueError(f"metric {self.metric!r} must be positive to compare with a target, got {metric.min()}")
        below = self.exponent if self.exponent_below is None else self.exponent_below
        ratio = metric / self.target
        return evaluations.accuracy * ratio ** np.where(ratio > 1, self.exponent, below)


@dataclass(frozen=True)
class LinearObjective(Objective):
    """A weighted sum of the columns of an evaluation, for several objectives with scalar rewards.

    Attributes:
        weights: a factor for each column, ``accuracy`` or a metric; negative for metrics to minimise.
        worst: the reward of failed trials and of penalised illegal choices, lower than all others.

    Raises:
        ValueError: there are no weights, or they are not numbers.
    """

    name = "linear"
    weights: Mapping[str, float]
    worst: float

    def __post_init__(self) -> None:
        _check_weights(self.weights)
        if not _is_number(self.worst):
            raise ValueError(f"worst must be a number, got {self.worst!r}")

    def values(self, evaluations: Evaluations) -> Floats:
        total = np.zeros(len(evaluations))
        for name, weight in self.weights.items():
            total += weight * _column(evaluations, name)
        return total


@dataclass(frozen=True)
class VectorObjective(Objective):
    """Vector rewards with one weighted column each, for multi-objective agents.

    Attributes:
        weights: a factor for each column, ``accuracy`` or a metric, in the order of the rewards; negative for metrics
            to minimise.
        worst: the rewards of failed trials and of penalised illegal choices, lower than all others.

    Raises:
        ValueError: there are no weights, `worst` has another length, or they are not numbers.
    """

    name = "vector"
    weights: Mapping[str, float]
    worst: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_weights(self.weights)
        given: Any = self.worst
        if not isinstance(given, Sequence) or len(given) != len(self.weights) or not all(map(_is_number, given)):
            raise ValueError(f"worst must be {len(self.weights)} numbers, one for each weight, got {given!r}")
        object.__setattr__(self, "worst", tuple(map(float, given)))

    @property
    def dimensions(self) -> int:
        return len(self.weights)

    def bounds(self) -> tuple[Floats, Floats]:
        """As in every objective. Metrics are taken not to be negative; `worst` is below all of them."""
        largest = [weight if name == "accuracy" else UNKNOWN * (weight > 0) for name, weight in self.weights.items()]
        ends = np.array([np.zeros(len(largest)), self.worst, np.maximum(largest, 0.0)])
        return ends.min(axis=0), ends.max(axis=0)

    def values(self, evaluations: Evaluations) -> Floats:
        return np.stack([weight * _column(evaluations, name) for name, weight in self.weights.items()], axis=1)


def _column(evaluations: Evaluations, name: str) -> Floats:
    """The accuracy or a metric, float64[B]."""
    columns = {"accuracy": evaluations.accuracy, **evaluations.metrics}
    if name not in columns:
        raise ValueError(f"the objective needs the metric {name!r}, but the evaluator reports {', '.join(columns)}")
    return columns[name]


def _check_weights(weights: Any) -> None:
    if not isinstance(weights, Mapping) or not weights or not all(map(_is_number, weights.values())):
        raise ValueError(f"weights must map columns, such as accuracy, to numbers, got {weights!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "accuracy": partial(AccuracyObjective, "accuracy", _accuracy),
    "accuracy-cubed": partial(AccuracyObjective, "accuracy-cubed", _cubed),  # Zoph & Le 2017, section 4.1
    "accuracy-tan": partial(AccuracyObjective, "accuracy-tan", _tan),  # Cai et al. 2018 (EAS), section 4
    "likelihood": LikelihoodObjective,
    "soft-constraint": SoftConstraint,
    "linear": LinearObjective,
    "vector": VectorObjective,
}


def make_objective(spec: Objective | str | Mapping[str, Any]) -> Objective:
    """Makes an objective.

    Args:
        spec: an objective, the name of one, or a mapping of ``name`` and its fields:
            ``{"name": "soft-constraint", "metric": "latency", "target": 0.01}``.

    Raises:
        ValueError: the name or a field is unknown, or a value is out of range.
    """
    if isinstance(spec, Objective):
        return spec
    fields: dict[str, Any] = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = fields.pop("name", None)
    if name not in OBJECTIVES:
        raise ValueError(unknown("objective", name, OBJECTIVES))
    try:
        return OBJECTIVES[name](**fields)
    except TypeError as error:
        known = ", ".join(inspect.signature(OBJECTIVES[name]).parameters)
        raise ValueError(f"objective {name!r} takes {known}; got {fields}") from error
