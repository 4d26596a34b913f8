"""From evaluations to rewards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nas_gym.evaluators.evaluator import Evaluations, Floats


@dataclass(frozen=True)
class Objective:
    """A reward for each evaluation, and the worst one for those that failed.

    Attributes:
        name: for reports.
        transform: float64[B] accuracies in [0, 1] -> float64[B] rewards.
        worst: the reward of failed trials and of penalised illegal choices.
    """

    name: str
    transform: Callable[[Floats], Floats]
    worst: float = 0.0

    def __call__(self, evaluations: Evaluations) -> Floats:
        """Rewards, float64[B]."""
        return np.where(evaluations.failed, self.worst, self.transform(evaluations.accuracy))


def _accuracy(accuracy: Floats) -> Floats:
    return accuracy


def _cubed(accuracy: Floats) -> Floats:
    return accuracy**3


def _tan(accuracy: Floats) -> Floats:
    # Capped just under 1, where the tangent has its pole.
    return np.tan(np.minimum(accuracy, 0.9999) * np.pi / 2)


OBJECTIVES: dict[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective("accuracy", _accuracy),
        Objective("accuracy-cubed", _cubed),  # Zoph & Le 2017, section 4.1
        Objective("accuracy-tan", _tan),  # Cai et al. 2018 (EAS), section 4
    )
}


def make_objective(spec: Objective | str) -> Objective:
    """Makes an objective from its name.

    Raises:
        ValueError: an unknown name.
    """
    if isinstance(spec, Objective):
        return spec
    if spec not in OBJECTIVES:
        raise ValueError(f"unknown objective {spec!r}; known: {', '.join(OBJECTIVES)}")
    return OBJECTIVES[spec]
