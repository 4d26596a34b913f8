"""BOGCN: Bayesian optimisation with a graph convolutional network, for one objective or several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_gym.agents.predictor_based.bayesian import Bayesian, BayesianHyperparameters
from nas_gym.agents.predictor_based.objectives import Known, PredictorPerObjective, by_fronts, by_gain
from nas_gym.predictors import Predictor
from nas_gym.spaces import Tokens
from nas_gym.types import Floats


@dataclass(frozen=True)
class BOGCNHyperparameters(BayesianHyperparameters):
    """Settings of BOGCN, by default the paper's (Shi et al. 2020, "BONAS", and their code).

    Attributes:
        batch_size: 100 architectures a round, which share weights there.
        warm_up: 100 random architectures.
        refit_every: 100 trials; in between, the regression is updated each round.
        target: normal scores, where the paper takes the logit of accuracies, which rewards need not be.
        predictor: a graph convolutional network with a Bayesian regression; of each objective, if there are several.
        predictor_settings: 100 epochs with a learning rate of 1e-3, a global node, and a loss that weighs by value.
        exploration: so many deviations are added to what is predicted of several objectives.
        pool_parents: 10 of the best trials; the paper draws parents by a tournament of 10 in a population of 30.
        known: for several objectives: ``module:function`` for each that needs no trial, such as the number of
            parameters, and an empty text for those that are predicted; () predicts all. The function maps a search
            space and tokens int64[B, T] to exactly the rewards float64[B] that a trial would be given.
    """

    batch_size: int = 100
    warm_up: int = 100
    refit_every: int = 100
    predictor: str = "gcn"
    predictor_settings: Mapping[str, Any] = field(
        default_factory=lambda: {
            "epochs": 100,
            "learning_rate": 1e-3,
            "global_node": True,
            "exponential_weight": True,
        }
    )
    exploration: float = 1.0
    pool_parents: int = 10
    known: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.known, list):  # as YAML and JSON have it
            object.__setattr__(self, "known", tuple(self.known))
        self._check("known", "texts, one for each objective", _are_texts)


class BOGCN(Bayesian):
    """Tries the candidates of the highest expected improvement, by a Bayesian regression on a network's embeddings.

    Where rewards are vectors, there is a predictor for each objective, and the candidates on the Pareto front of
    optimistic predictions are tried: those first that would add most to the hypervolume of the trials.

    Sources: Shi et al. 2020, "Bridging the Gap between Sample-based and One-shot Neural Architecture Search with
    BONAS"; for several objectives, Shi et al. 2019, "Multi-objective Neural Architecture Search via Predictive
    Network Performance Optimization".

    Raises:
        ValueError: `known` has not one entry for each objective, or names no function.
    """

    Hyperparameters = BOGCNHyperparameters
    hyperparameters: BOGCNHyperparameters
    vector_rewards = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.problem.reward_dimensions is not None:
            self.rewards = np.empty((0, self.problem.reward_dimensions))

    def _make_predictor(self) -> Predictor:
        known, objectives = self.hyperparameters.known, self.problem.reward_dimensions
        if known and len(known) != objectives:
            raise ValueError(
                f"known must have an entry for each of {objectives or 'several'} objectives, got {known!r}"
            )
        if objectives is None:
            return super()._make_predictor()
        places = known or ("",) * objectives
        parts = [Known(self.space, place) if place else super(BOGCN, self)._make_predictor() for place in places]
        return PredictorPerObjective(self.space, parts)

    def best(self, n: int) -> Tokens:
        """The n best trials so far; of several objectives, those of the first Pareto fronts."""
        if self.rewards.ndim == 1:
            return super().best(n)
        found: Tokens = self.tokens[np.concatenate(by_fronts(self.rewards))[:n]]
        return found

    def _targets(self, rewards: Floats) -> Floats:
        if rewards.ndim == 1:
            return super()._targets(rewards)
        known = self.hyperparameters.known or ("",) * rewards.shape[1]
        columns = zip(known, rewards.T, strict=True)
        return np.stack([column if place else super(BOGCN, self)._targets(column) for place, column in columns], axis=1)

    def _choose(self, n: int) -> list[NDArray[np.int64]]:
        if self.rewards.ndim == 1:
            return super()._choose(n)
        pool = self._pool()
        mean, deviation = self.predictor.predict(pool)
        points = mean + self.hyperparameters.exploration * deviation
        taken: list[NDArray[np.int64]] = []
        for front in by_fronts(points):
            if len(taken) == n:
                break
            new = front[[self._form(pool[row]) not in self._seen for row in front]]
            taken += self._take(pool[new[by_gain(points[new], self.values, n)]], n - len(taken))
        return taken


def _are_texts(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(place, str) for place in value)
