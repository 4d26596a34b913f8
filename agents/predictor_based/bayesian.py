"""Bayesian optimisation: any predictor, any acquisition function."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nas_gym.agents.predictor_based.agent import PredictorAgent, PredictorHyperparameters
from nas_gym.predictors import ACQUISITIONS, Predictor, acquire, make_predictor
from nas_gym.spaces import Tokens
from nas_gym.types import Floats


@dataclass(frozen=True)
class BayesianHyperparameters(PredictorHyperparameters):
    """Settings of Bayesian optimisation; none is of one paper.

    Attributes:
        predictor: one of `PREDICTORS`, or where a class stands, ``module:Class``.
        predictor_settings: its settings, where they differ from its own.
        acquisition: one of `ACQUISITIONS`.
        exploration: the weight of the deviation in the upper confidence bound.
        pool_random: uniform samples among the candidates.
        pool_parents: trials, the best, whose mutants are candidates, too.
        pool_mutants: of each of them, with one decision changed.
    """

    predictor: str = "gaussian-process"
    predictor_settings: Mapping[str, Any] = field(default_factory=dict)
    acquisition: str = "expected-improvement"
    exploration: float = 2.0
    pool_random: int = 1000
    pool_parents: int = 5
    pool_mutants: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("acquisition", f"one of {', '.join(ACQUISITIONS)}", lambda v: v in ACQUISITIONS)
        self._check("exploration", "finite and not negative", lambda v: 0 <= v < math.inf)
        self._check("pool_random", "a positive integer", lambda v: v > 0)
        self._check("pool_parents pool_mutants", "an integer, not negative", lambda v: v >= 0)
        if not isinstance(self.predictor_settings, Mapping):
            raise ValueError(f"predictor_settings must be a mapping, got {self.predictor_settings!r}")


class Bayesian(PredictorAgent):
    """Tries the candidates that a predictor's acquisition function finds best.

    Candidates are uniform samples and mutants of the best trials so far.

    Source: Jones et al. 1998, "Efficient Global Optimization of Expensive Black-Box Functions"; the mutants are those
    of White et al. 2021, "BANANAS".
    """

    Hyperparameters = BayesianHyperparameters
    hyperparameters: BayesianHyperparameters

    def _make_predictor(self) -> Predictor:
        return make_predictor(self.hyperparameters.predictor, self.space, **self.hyperparameters.predictor_settings)

    def _pool(self) -> Tokens:
        settings = self.hyperparameters
        drawn = self.current_space.sample(self.rng, settings.pool_random)
        parents = np.repeat(self.best(settings.pool_parents), settings.pool_mutants, axis=0)
        return np.concatenate([drawn, self.current_space.mutate(parents, self.rng)])

    def _scores(self, pool: Tokens) -> Floats:
        settings = self.hyperparameters
        return acquire(
            settings.acquisition,
            *self.predictor.predict(pool),
            best=float(self.values.max()),
            weight=settings.exploration,
            rng=self.rng,
        )
