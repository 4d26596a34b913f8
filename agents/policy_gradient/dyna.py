"""A policy gradient that learns mostly from episodes played in a model of the reward: Dyna, DyNA PPO."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from nas_gym.agents.agent import read_record
from nas_gym.agents.policy import PolicyAgent
from nas_gym.agents.policy_gradient.agent import PolicyGradientAgent
from nas_gym.agents.policy_gradient.ppo import PPO
from nas_gym.agents.policy_gradient.reinforce import Reinforce
from nas_gym.agents.predictor_based.agent import PredictorAgent, PredictorHyperparameters, best
from nas_gym.agents.registry import load_hyperparameters
from nas_gym.agents.trial import Trials
from nas_gym.envs.problem import Env
from nas_gym.predictors import ACQUISITIONS, Predictor, acquire, make_predictor, upper_confidence_bound
from nas_gym.predictors.source_tasks import SourceTasks
from nas_gym.spaces import Tokens, saved_space
from nas_gym.types import Floats

LEARNERS: dict[str, type[PolicyGradientAgent]] = {"reinforce": Reinforce, "ppo": PPO}
LEARNER_SETTINGS: dict[str, dict[str, Any]] = {
    # Returns are compared with their mean; dividing them by their deviation would let the policy chase the model's
    # errors, once the episodes of a batch are nearly alike.
    "reinforce": {"baseline": "leave-one-out"},
    "ppo": {"epochs": 2, "minibatch_size": 32, "normalise_advantages": False, "target_kl": None},
}
SHARED_SETTINGS: dict[str, Any] = {
    "preset": "paper",
    "adam_beta1": 0.9,
    "max_grad_norm": None,
    "tanh_constant": None,
    "entropy_weight": 0.0,  # the return has the temperature's share of the entropy already
}


@dataclass(frozen=True)
class DynaHyperparameters(PredictorHyperparameters):
    """Defaults are ours; what DyNA PPO does otherwise is told.

    Attributes:
        batch_size: trials between two rounds in the model.
        horizon: trials of the search that `temperature` falls over; where it is not given, those of the run.
        predictor: the model of the reward, one of `PREDICTORS`. The ensemble picks its members by cross-validation, as
            Angermueller et al. 2020 do, from their pool of scikit-learn's regressors and neural networks.
        predictor_settings: its settings, where they differ from its own.
        learner: ``"reinforce"`` or ``"ppo"`` (Angermueller et al. 2020).
        lstm: the policy is the LSTM controller instead of independent softmaxes.
        hidden_size: units of the LSTM.
        learning_rate: of Adam (softmaxes: 0.3; the LSTM takes 0.02).
        learner_settings: other hyperparameters of the learner.
        updates: of the policy, before each batch of trials.
        episodes: played in the model for each.
        exploration: the weight of the predicted deviation in the return of such an episode.
        temperature: the weight of its entropy, the negative log-probability, at the start. (Angermueller et al. 2020
            take the density of similar proposals from the reward instead.)
        final_temperature: at the horizon and beyond; it falls geometrically.
        draws: episodes that the next trials are chosen from.
        pool_random: uniform samples that they are chosen from, too.
        pool_parents: and mutants of so many trials, the best.
        pool_mutants: of each of them.
        acquisition: what the best of all these is found by, one of `ACQUISITIONS`.
        greedy_share: of a batch, rounded up: the best of all these. The others are draws of the policy as they come.
    """

    batch_size: int = 2
    horizon: int = 150
    predictor: str = "ensemble"
    predictor_settings: Mapping[str, Any] = field(default_factory=dict)
    learner: str = "reinforce"
    lstm: bool = False
    hidden_size: int = 32
    learning_rate: float = 0.3
    learner_settings: Mapping[str, Any] = field(default_factory=dict)
    updates: int = 5
    episodes: int = 32
    exploration: float = 2.0
    temperature: float = 0.3
    final_temperature: float = 0.05
    draws: int = 64
    pool_random: int = 0
    pool_parents: int = 0
    pool_mutants: int = 20
    acquisition: str = "upper-confidence-bound"
    greedy_share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("horizon episodes draws", "a positive integer", lambda v: v > 0)
        counts = "updates pool_random pool_parents pool_mutants"
        self._check(counts, "an integer, not negative", lambda v: v >= 0)
        self._check("exploration", "finite and not negative", lambda v: 0 <= v < math.inf)
        self._check("temperature final_temperature", "positive", lambda v: 0 < v < math.inf)
        self._check("greedy_share", "in [0, 1]", lambda v: 0 <= v <= 1)
        self._check("acquisition", f"one of {', '.join(ACQUISITIONS)}", lambda v: v in ACQUISITIONS)
        self._check("learner", f"one of {', '.join(LEARNERS)}", lambda v: v in LEARNERS)
        for name in ("predictor_settings", "learner_settings"):
            if not isinstance(getattr(self, name), Mapping):
                raise ValueError(f"{name} must be a mapping, got {getattr(self, name)!r}")
        self.of_learner()

    def of_learner(self) -> Any:
        """The learner's own hyperparameters.

        Raises:
            ValueError: one of them is unknown or out of range.
        """
        own = {name: getattr(self, name) for name in ("lstm", "hidden_size", "learning_rate", "batch_size")}
        settings = {**SHARED_SETTINGS, **LEARNER_SETTINGS[self.learner], **own, **self.learner_settings}
        return load_hyperparameters(LEARNERS[self.learner], overrides=settings)


class Dyna(PredictorAgent, PolicyAgent):
    """A policy that practises in a model of the reward, and tries for real what it has come to.

    After a warm-up of random trials, a round goes: fit the model to all trials; update the policy on episodes that it
    plays in the model, whose return is mean + exploration * deviation - temperature * log-probability; draw episodes
    from it, and try the best of them by mean and deviation, and others as they come. Where no model is reliable, the
    round is that of the learner alone: it learns from the real rewards, and its draws are tried.

    Sources: Sutton 1991, "Dyna, an Integrated Architecture for Learning, Planning, and Reacting"; Angermueller et al.
    2020, "Model-based reinforcement learning for biological sequence design" (DyNA PPO), algorithm 1; the temperature
    is that of Haarnoja et al. 2017, "Reinforcement Learning with Deep Energy-Based Policies".

    Attributes:
        learner: the agent that holds the policy, and plays in the model.
        sources: of other tasks the architectures, int64[n, T], and their rewards, float64[n]; see `start_from`.
    """

    Hyperparameters = DynaHyperparameters
    hyperparameters: DynaHyperparameters

    def __init__(
        self,
        env: Env | str,
        seed: int = 0,
        hyperparameters: Mapping[str, Any] | DynaHyperparameters | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(env, seed, hyperparameters, device)
        learner = LEARNERS[self.hyperparameters.learner]
        self.learner = learner(self.env, seed, self.hyperparameters.of_learner(), device)
        self.sources: tuple[tuple[Tokens, Floats], ...] = ()
        self._new = 0  # trials since the last round

    # ------------------------------------------------------------------ transfer

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        env: Env | str,
        seed: int = 0,
        hyperparameters: Mapping[str, Any] | DynaHyperparameters | None = None,
        device: str = "cpu",
        mode: str = "all",
    ) -> Self:
        """Starts with a model of what a saved agent has tried on other tasks.

        The arguments are those of `Agent.from_pretrained`. Any agent's trials will do; those of `multitask` are told
        apart by task.

        Raises:
            ValueError: the file is corrupted, holds no trials, or is of another space; or the mode is not ``"all"`` or
                ``"scratch"``.
        """
        if mode not in ("all", "scratch"):
            raise ValueError(f"mode of dyna must be all or scratch, got {mode!r}")
        agent, record = cls(env, seed, hyperparameters, device), read_record(path)
        if saved_space(record["space"]) != agent.space:
            raise ValueError(f"{os.fspath(path)!r} is of the space {record['space']}, the environment of {agent.space}")
        if mode == "all":
            state = record["state"]
            tasks = [(task["tokens"][0], task["rewards"][0]) for task in state.get("memories", ())]
            tried = [(a.numpy(), b.numpy()) for a, b in tasks or [(state["tokens"], state["rewards"])] if len(a)]
            if not tried:
                raise ValueError(f"{os.fspath(path)!r} holds an agent without trials")
            agent.start_from(tried)
        return agent

    def start_from(self, sources: Sequence[tuple[Tokens, Floats]]) -> None:
        """Models the rewards by `SourceTasks`, whatever `predictor` says, from the first trial on.

        Args:
            sources: of each task the architectures, int64[n, T], and their rewards, float64[n].

        Raises:
            ValueError: there is no source, or its architectures are none of the space.
        """
        self.sources = tuple(sources)
        self.predictor = SourceTasks(self.space, self.sources)

    def _make_predictor(self) -> Predictor:
        return make_predictor(self.hyperparameters.predictor, self.space, **self.hyperparameters.predictor_settings)

    @property
    def temperature(self) -> float:
        """The weight of the entropy at the trials so far."""
        settings = self.hyperparameters
        progress = min(len(self.rewards) / settings.horizon, 1.0)
        return float(settings.temperature * (settings.final_temperature / settings.temperature) ** progress)

    # ------------------------------------------------------------------ learning

    def tell(self, trials: Trials) -> dict[str, float]:
        """Adds the trials, and once there are `batch_size` new ones, practises in the model, or learns from them."""
        super().tell(trials)
        settings = self.hyperparameters
        self._new += len(trials)
        if self._new < settings.batch_size or len(self.rewards) < (0 if self.sources else settings.warm_up):
            return {}
        recent, self._new = slice(len(self.rewards) - self._new, len(self.rewards)), 0
        self._update_predictor()
        statistics: dict[str, float] = {"train/model_is_reliable": float(self.predictor.reliable)}
        if not self.predictor.reliable:
            return statistics | self._learn(self.tokens[recent], self.values[recent])
        for _ in range(settings.updates):
            played = self.learner.ask(settings.episodes).tokens
            statistics |= self._learn(played, self._bounds(played))
        return statistics

    def _learn(self, tokens: Tokens, values: Floats) -> dict[str, float]:
        """One update of the policy on episodes that it has played, whose values are those of the model or real."""
        with torch.no_grad():
            log_probs, _, _ = self.learner.controller.evaluate(torch.from_numpy(tokens)[None].to(self.device))
        returns = values - self.temperature * log_probs[0].sum(1).double().cpu().numpy()
        return self.learner.tell(Trials(np.full(len(tokens), -1), tokens, returns))

    def _bounds(self, tokens: Tokens) -> Floats:
        return upper_confidence_bound(*self.predictor.predict(tokens), self.hyperparameters.exploration)

    # ------------------------------------------------------------------ choosing

    def _lacking(self, n: int) -> int:
        """With source tasks there is no warm-up: the first architectures are those that they predict to be best."""
        return 0 if self.sources else super()._lacking(n)

    def _choose(self, n: int) -> list[NDArray[np.int64]]:
        settings = self.hyperparameters
        drawn = self.learner.ask(settings.draws).tokens
        if not self.predictor.reliable:
            return self._take(drawn, n)
        pool = np.concatenate([drawn, self._pool()])
        best = pool[np.argsort(-self._scores(pool), kind="stable")]
        taken = self._take(best, math.ceil(n * settings.greedy_share))
        taken += self._take(drawn, n - len(taken))
        return taken + self._take(best, n - len(taken))

    def _pool(self) -> Tokens:
        """Candidates beside the policy's draws."""
        settings = self.hyperparameters
        known = [best(*source, settings.pool_parents) for source in self.sources]
        parents = np.repeat(self.best(settings.pool_parents), settings.pool_mutants, axis=0)
        drawn = self.current_space.sample(self.rng, settings.pool_random)
        return np.concatenate([*known, drawn, self.current_space.mutate(parents, self.rng)])

    def _scores(self, pool: Tokens) -> Floats:
        settings = self.hyperparameters
        return acquire(
            settings.acquisition,
            *self.predictor.predict(pool),
            best=float(self.values.max()) if len(self.values) else 0.0,
            weight=settings.exploration,
            rng=self.rng,
        )

    def policy(self, tokens: Tokens, positions: NDArray[np.int64]) -> Floats:
        """The learner's probabilities."""
        return self.learner.policy(tokens, positions)

    # ------------------------------------------------------------------ keeping

    def state_dict(self) -> dict[str, Any]:
        sources = [[torch.from_numpy(tokens), torch.from_numpy(rewards)] for tokens, rewards in self.sources]
        return {**super().state_dict(), "learner": self.learner.state_dict(), "new": self._new, "sources": sources}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if state["sources"]:
            self.start_from([(tokens.numpy(), rewards.numpy()) for tokens, rewards in state["sources"]])
        self.learner.load_state_dict(state["learner"])
        self._new = int(state["new"])
