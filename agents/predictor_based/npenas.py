"""NPENAS: evolution whose children are picked by a neural predictor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nas_gym.agents.predictor_based.bayesian import Bayesian, BayesianHyperparameters
from nas_gym.spaces import Tokens
from nas_gym.types import Floats


@dataclass(frozen=True)
class NPENASHyperparameters(BayesianHyperparameters):
    """Settings of NPENAS, by default the paper's (Wei et al. 2022, and their code).

    Attributes:
        batch_size: 10 architectures a generation.
        refit_every: 10 trials: the predictor is trained anew for each generation.
        target: the rewards as they are.
        predictor: ``gcn``, which stands in for the paper's graph isomorphism network.
        predictor_settings: 300 epochs with a learning rate of 5e-3, which falls by half a cosine.
        acquisition: the predicted mean, whatever is given.
        pool_random: uniform samples among the children (the paper has none: one hardly matters).
        pool_parents: 10 of the best trials.
        pool_mutants: 10 of each, 100 children in all.
    """

    batch_size: int = 10
    target: str = "raw"
    predictor: str = "gcn"
    predictor_settings: Mapping[str, Any] = field(
        default_factory=lambda: {"epochs": 300, "learning_rate": 5e-3, "cosine": True}
    )
    pool_random: int = 1
    pool_parents: int = 10
    pool_mutants: int = 10


class NPENAS(Bayesian):
    """Tries those children of the best trials of which the predictor expects most. It explores by mutation alone.

    Source: Wei et al. 2022, "NPENAS: Neural Predictor Guided Evolution for Neural Architecture Search": the variant
    NPENAS-NP.
    """

    Hyperparameters = NPENASHyperparameters
    hyperparameters: NPENASHyperparameters

    def _scores(self, pool: Tokens) -> Floats:
        return self.predictor.predict(pool)[0]
