"""A policy gradient that learns mostly from episodes whose rewards a model predicts: Dyna, DyNA PPO."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nas_gym.agents.policy import PolicyAgent
from nas_gym.agents.policy_gradient.agent import PolicyGradientAgent
from nas_gym.agents.policy_gradient.ppo import PPO
from nas_gym.agents.policy_gradient.reinforce import Reinforce
from nas_gym.agents.predictor_based.agent import PredictorAgent, PredictorHyperparameters
from nas_gym.agents.registry import load_hyperparameters
from nas_gym.agents.trial import Trials
from nas_gym.predictors import Predictor, make_predictor, upper_confidence_bound
from nas_gym.spaces import Tokens
from nas_gym.types import Floats

LEARNERS: dict[str, type[PolicyGradientAgent]] = {"reinforce": Reinforce, "ppo": PPO}
POLICY: dict[str, Any] = {
    "preset": "paper",
    "lstm": False,
    "learning_rate": 0.3,
    "adam_beta1": 0.9,
    "max_grad_norm": None,
    "tanh_constant": None,
    "entropy_weight": 0.0,
}
OF_LEARNER: dict[str, dict[str, Any]] = {
    "reinforce": {"baseline": "leave-one-out"},
    "ppo": {"minibatch_size": 32, "epochs": 1, "normalise_advantages": False, "gae_lambda": 1.0, "target_kl": None},
}


@dataclass(frozen=True)
class DynaHyperparameters(PredictorHyperparameters):
    """Settings."""

    batch_size: int = 2
    horizon: int = 150
    predictor: str = "gaussian-process"
    predictor_settings: Mapping[str, Any] = field(default_factory=dict)
    learner: str = "reinforce"
    policy: Mapping[str, Any] = field(default_factory=dict)
    updates: int = 5
    episodes: int = 32
    exploration: float = 2.0
    temperature: float = 0.3
    final_temperature: float = 0.05
    draws: int = 64
    pool_random: int = 0
    pool_parents: int = 0
    pool_mutants: int = 20
    greedy: float = 0.5
    greedy_weight: float = 2.0


class Dyna(PredictorAgent, PolicyAgent):
    """Policy gradient on predicted rewards."""

    Hyperparameters = DynaHyperparameters
    hyperparameters: DynaHyperparameters

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings = self.hyperparameters
        given = {**POLICY, **OF_LEARNER[settings.learner], "batch_size": settings.batch_size, **settings.policy}
        seed = args[1] if len(args) > 1 else kwargs.get("seed", 0)
        made = load_hyperparameters(settings.learner, overrides=given)
        self.learner = LEARNERS[settings.learner](self.env, seed, made, self.device)
        self._since = 0

    def _make_predictor(self) -> Predictor:
        return make_predictor(self.hyperparameters.predictor, self.space, **self.hyperparameters.predictor_settings)

    def tell(self, trials: Trials) -> dict[str, float]:
        super().tell(trials)
        settings = self.hyperparameters
        self._since += len(trials)
        if len(self.rewards) < settings.warm_up or self._since < settings.batch_size:
            return {}
        self._since = 0
        self._update_predictor()
        for _ in range(settings.updates):
            statistics = self._play_in_model()
        return statistics

    def _play_in_model(self) -> dict[str, float]:
        tokens = self.learner.ask(self.hyperparameters.episodes).tokens
        with torch.no_grad():
            log_probs = self.learner.controller.evaluate(torch.from_numpy(tokens)[None].to(self.device))[0]
        surprise = -log_probs[0].sum(1).double().cpu().numpy()
        returns = self._bound(tokens, self.hyperparameters.exploration) + self.temperature * surprise
        return self.learner.tell(Trials(np.full(len(tokens), -1), tokens, returns))

    def _bound(self, tokens, weight):
        return upper_confidence_bound(*self.predictor.predict(tokens), weight)

    @property
    def temperature(self) -> float:
        s = self.hyperparameters
        progress = min(len(self.rewards) / s.horizon, 1.0)
        return s.temperature * (s.final_temperature / s.temperature) ** progress

    def _choose(self, n: int) -> list[NDArray[np.int64]]:
        drawn = self.learner.ask(self.hyperparameters.draws).tokens
        pool = self._pool(drawn)
        best = pool[np.argsort(-self._scores(pool), kind="stable")]
        k = math.ceil(n * self.hyperparameters.greedy)
        taken = self._take(best, k)
        taken += self._take(drawn, n - len(taken))
        return taken + self._take(best, n - len(taken))

    def _pool(self, drawn) -> Tokens:
        settings = self.hyperparameters
        parts = [drawn]
        if settings.pool_random:
            parts.append(self.current_space.sample(self.rng, settings.pool_random))
        if settings.pool_parents:
            parents = np.repeat(self.best(settings.pool_parents), settings.pool_mutants, axis=0)
            parts.append(self.current_space.mutate(parents, self.rng))
        return np.concatenate(parts)

    def _scores(self, pool: Tokens) -> Floats:
        return self._bound(pool, self.hyperparameters.greedy_weight)

    def policy(self, tokens: Tokens, positions: NDArray[np.int64]) -> Floats:
        return self.learner.policy(tokens, positions)
