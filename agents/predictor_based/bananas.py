"""BANANAS: Bayesian optimisation with an ensemble of neural networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nas_gym.agents.predictor_based.bayesian import Bayesian, BayesianHyperparameters


@dataclass(frozen=True)
class BananasHyperparameters(BayesianHyperparameters):
    """Settings of BANANAS, by default the paper's (White et al. 2021, and their code).

    Attributes:
        batch_size: 10 architectures a round.
        refit_every: 10 trials: the ensemble is trained anew each round.
        target: the rewards as they are.
        predictor: an ensemble of multilayer perceptrons on the path encoding.
        predictor_settings: 5 members of 10 layers of 20, 150 epochs in batches of 32 with a learning rate of 0.01.
        acquisition: independent Thompson sampling.
        pool_random: uniform samples among the candidates (the paper has none: one hardly matters).
        pool_parents: 10 of the best trials.
        pool_mutants: 10 of each, 100 candidates in all.
    """

    batch_size: int = 10
    target: str = "raw"
    predictor: str = "mlp-ensemble"
    predictor_settings: Mapping[str, Any] = field(
        default_factory=lambda: {"layers": 10, "width": 20, "epochs": 150, "batch_size": 32, "learning_rate": 0.01}
    )
    acquisition: str = "thompson"
    pool_random: int = 1
    pool_parents: int = 10
    pool_mutants: int = 10


class Bananas(Bayesian):
    """Tries the mutants of the best trials of which independent Thompson sampling draws the highest values.

    Source: White et al. 2021, "BANANAS: Bayesian Optimization with Neural Architectures for Neural Architecture
    Search", algorithm 1.
    """

    Hyperparameters = BananasHyperparameters
    hyperparameters: BananasHyperparameters
