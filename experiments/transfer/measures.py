"""What searches on a new task came to, measured against those from scratch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nas_gym.envs.problem import Problem
from nas_gym.evaluators import MultiTaskEvaluator
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.experiments.transfer.suite import TransferSuite
from nas_gym.types import Floats

WINDOW = 10  # trials that are averaged


@dataclass(frozen=True)
class Measures:
    """What the searches of an entry on a task came to, float64[S] each.

    A level is what the searches from scratch come to in the end, in the median. Where a search does not come to it,
    the trials are one more than it had.

    Attributes:
        jumpstart: mean score of the first `WINDOW` trials.
        asymptote: score of the best trial.
        last: mean score of the last `WINDOW` trials.
        trials_to_best: until the best so far is as good as that from scratch.
        trials_to_mean: until the mean of `WINDOW` trials is.
    """

    jumpstart: Floats
    asymptote: Floats
    last: Floats
    trials_to_best: Floats
    trials_to_mean: Floats


def measures(rewards: Floats, scratch: Floats, score: Callable[[Floats], Floats]) -> Measures:
    """Measures searches, float64[S, n], against those from scratch, float64[S', n].

    Args:
        rewards: of the searches.
        scratch: of those from scratch.
        score: turns rewards into scores, an increasing linear function.
    """
    best, mean = running_best(rewards), running_mean(rewards)
    levels = [float(np.median(curve(scratch)[:, -1])) for curve in (running_best, running_mean)]
    return Measures(
        jumpstart=score(rewards[:, :WINDOW].mean(axis=1)),
        asymptote=score(best[:, -1]),
        last=score(mean[:, -1]),
        trials_to_best=trials_to(best, levels[0]),
        trials_to_mean=trials_to(mean, levels[1]),
    )


def running_best(rewards: Floats) -> Floats:
    """The best so far, float64[S, n]."""
    best: Floats = np.maximum.accumulate(rewards, axis=1)
    return best


def running_mean(rewards: Floats) -> Floats:
    """The mean of the last `WINDOW` trials, float64[S, n]; -inf before there are so many."""
    window = min(WINDOW, rewards.shape[1])
    means = np.lib.stride_tricks.sliding_window_view(rewards, window, axis=1).mean(axis=2)
    return np.pad(means, ((0, 0), (window - 1, 0)), constant_values=-np.inf)


def trials_to(curves: Floats, level: float) -> Floats:
    """The first trial, counted from 1, at which each curve is at the level; n + 1 where it never is."""
    reached = curves >= level - 1e-12
    trials: Floats = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, curves.shape[1] + 1).astype(np.float64)
    return trials


def scores_of(suite: TransferSuite, target: str) -> Callable[[Floats], Floats]:
    """What rewards are worth: on a table, 0 the mean architecture and 1 the best; else the reward itself."""
    together = Problem(suite.make_env([target], 1)).evaluator
    assert isinstance(together, MultiTaskEvaluator)
    evaluator = together.evaluators[target].unwrapped
    if isinstance(evaluator, TabularEvaluator):
        return evaluator.normalised_score
    return lambda rewards: rewards
