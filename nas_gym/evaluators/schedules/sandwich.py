"""The sandwich rule: every step trains the largest, the smallest and two random architectures (Yu & Huang)."""

from __future__ import annotations

import numpy as np

from nas_gym.evaluators.evaluator import Evaluator
from nas_gym.evaluators.schedules.settings import ScheduleSettings
from nas_gym.evaluators.schedules.uniform import UniformSchedule
from nas_gym.spaces import SearchSpace, Tokens

RANDOM = 2
"""Architectures drawn at random beside the two extremes (Yu et al. 2020, "BigNAS", section 3.1: n = 2)."""


class SandwichSchedule(UniformSchedule):
    """A warm-up whose steps hold the largest, the smallest and two random architectures; then the weights are frozen.

    Source: Yu & Huang 2019, "Universally Slimmable Networks and Improved Training Techniques", section 3.2. All four
    learn the labels: the largest does not teach the others (its section 3.3, "inplace distillation").

    Raises:
        ValueError: the choices of the space are not sizes.
    """

    def __init__(self, evaluator: Evaluator, settings: ScheduleSettings, seed: int = 0) -> None:
        if not evaluator.space.ordered:
            raise ValueError(
                f"schedule 'sandwich' trains the smallest and the largest architecture, and the choices of space "
                f"{evaluator.space.name!r} are not sizes; spaces whose choices are: mobile, size"
            )
        super().__init__(evaluator, settings, seed)
        self.extremes = extremes(evaluator.space)

    def candidates(self, n: int) -> Tokens:
        del n
        return np.concatenate([self.extremes, super().candidates(RANDOM)])


def extremes(space: SearchSpace) -> Tokens:
    """The largest and the smallest architecture of an ordered space, int64[2, T]."""
    tokens = np.full((2, space.length), -1, dtype=np.int64)
    for position, decision in enumerate(space.decisions):
        for row, legal in enumerate(space.legal(tokens, position)):
            choices = np.flatnonzero(legal)
            # Where a choice is no number, as `absent`, it is the only one that is legal.
            sizes = [float(decision.choices[choice]) for choice in choices] if len(choices) > 1 else [0.0]
            tokens[row, position] = choices[np.argmin(sizes) if row else np.argmax(sizes)]
    return tokens
