"""How well shared weights rank: by their agreement with themselves, and with a table where one is known."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_gym.evaluators.evaluator import Evaluator
from nas_gym.evaluators.objective import make_objective
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.tables import DEFAULTS, open_table

ARCHITECTURES = 100


class RankingQuality:
    """Measures how an evaluator with shared weights ranks architectures that are drawn uniformly, always the same.

    Args:
        evaluator: the evaluator; one whose scores cannot be halved is not measured.
        seed: of the draw.
    """

    def __init__(self, evaluator: Evaluator, seed: int) -> None:
        self.evaluator, self.seed = evaluator, seed
        self._known: dict[int, dict[str, float]] = {}  # by optimiser steps: the latest only

    def measure(self) -> dict[str, float]:
        """Spearman's rank correlations, as far as they are known.

        Returns:
            ``weights/agreement``: of the rewards on one half of the scoring examples with those on the other.
            ``weights/rank_correlation``: of the rewards with the default table of the space, where that is of the
            evaluator's task.
        """
        evaluator: Any = self.evaluator.unwrapped
        if not hasattr(evaluator, "halves"):
            return {}
        if evaluator.steps not in self._known:
            self._known = {evaluator.steps: self._measure(evaluator)}
        return self._known[evaluator.steps]

    def _measure(self, evaluator: Any) -> dict[str, float]:
        tokens = evaluator.space.sample(np.random.default_rng([self.seed, ARCHITECTURES]), ARCHITECTURES)
        objective = make_objective(evaluator.objective)
        first, second = (objective(half) for half in evaluator.halves(tokens))
        found = {"weights/agreement": rank_correlation(first, second)}
        table = known_table(evaluator)
        if table is not None:
            found["weights/rank_correlation"] = rank_correlation(first + second, table.evaluate(tokens).accuracy)
        return found


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Spearman's, with mean ranks of ties; 0 where one of them is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks


def known_table(evaluator: Evaluator) -> TabularEvaluator | None:
    """The default table of an evaluator's space, if it holds that very space on the evaluator's task."""
    space, task = evaluator.space, getattr(getattr(evaluator, "task", None), "name", None)
    if space.name not in DEFAULTS:
        return None
    table = open_table(DEFAULTS[space.name], task)
    return TabularEvaluator(space, table=table, task=task) if task in table.tasks and table.space == space else None
