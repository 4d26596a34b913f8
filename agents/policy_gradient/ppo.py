"""Proximal policy optimisation of a controller: masked, recurrent, over whole episodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas_gym.agents.policy_gradient.agent import PolicyGradientAgent
from nas_gym.agents.policy_gradient.settings import ControllerHyperparameters
from nas_gym.envs.problem import Env
from nas_gym.spaces import Tokens
from nas_gym.types import Floats


@dataclass(frozen=True)
class PPOHyperparameters(ControllerHyperparameters):
    """Defaults are those of NASNet (Zoph et al. 2018, section 4), where it states them, and of Schulman et al. 2017.

    Attributes:
        hidden_size: units of the LSTM (NASNet: 100).
        learning_rate: of Adam (NASNet: 3.5e-4).
        adam_beta1: Adam's own (Kingma & Ba 2015: 0.9).
        batch_size: episodes of an update (NASNet: 20).
        epochs: passes over the batch (Schulman et al. 2017, table 3: 10; for Atari, table 5: 3).
        minibatch_size: episodes of a gradient step; episodes stay whole, and a last, smaller minibatch counts too.
        clip_range: of the probability ratio (Schulman et al. 2017, section 6.1: 0.2).
        discount: of rewards a decision later (1: an episode's reward is its last).
        gae_lambda: of generalised advantage estimation (Schulman et al. 2017, table 3: 0.95).
        value_weight: of the critic's squared error in the loss (Schulman et al. 2017, equation 9; table 5: 1;
            Stable-Baselines3: 0.5).
        entropy_weight: of the mean entropy of a decision in the objective (NASNet: 1e-5; Schulman et al. 2017: 0.01).
        final_entropy_weight: what that weight has come to after `entropy_trials`, linearly.
        entropy_trials: None keeps the weight.
        normalise_advantages: to mean 0 and standard deviation 1 in a minibatch (Andrychowicz et al. 2021, "What
            matters for on-policy deep actor-critic methods", section 3.3).
        target_kl: the update ends once the mean divergence from the policy that sampled has passed this; None never
            ends it (OpenAI Spinning Up's PPO: 0.01 to 0.05).
    """

    hidden_size: int = 100
    learning_rate: float = 3.5e-4
    adam_beta1: float = 0.9
    batch_size: int = 20
    epochs: int = 10
    minibatch_size: int = 10
    clip_range: float = 0.2
    discount: float = 1.0
    gae_lambda: float = 0.95
    value_weight: float = 0.5
    entropy_weight: float = 1e-5
    final_entropy_weight: float = 0.0
    entropy_trials: int | None = None
    normalise_advantages: bool = True
    target_kl: float | None = 0.03

    def __post_init__(self) -> None:
        super().__post_init__()
        positive = "epochs minibatch_size"
        self._check(positive, "a positive integer", lambda v: isinstance(v, int) and v > 0)
        self._check(
            "entropy_trials", "a positive integer or None", lambda v: v is None or (isinstance(v, int) and v > 0)
        )
        self._check("clip_range", "positive", lambda v: 0 < v < math.inf)
        self._check("target_kl", "positive or None", lambda v: v is None or 0 < v < math.inf)
        self._check("discount gae_lambda", "in [0, 1]", lambda v: 0 <= v <= 1)
        weights = "value_weight entropy_weight final_entropy_weight"
        self._check(weights, "finite and not negative", lambda v: 0 <= v < math.inf)
        self._check("normalise_advantages", "true or false", lambda v: isinstance(v, bool))


def advantages_and_returns(
    rewards: Floats, values: Floats, discount: float, gae_lambda: float
) -> tuple[Floats, Floats]:
    """Generalised advantage estimation over episodes that earn their reward at the end.

    Source: Schulman et al. 2016, "High-Dimensional Continuous Control Using Generalized Advantage Estimation",
    equation 16.

    Args:
        rewards: float64[n], of the last decision of each episode.
        values: float64[n, T], the critic's before each decision.
        discount: gamma.
        gae_lambda: lambda.

    Returns:
        Advantages and the returns that the critic is to learn, both float64[n, T].
    """
    earned = np.zeros_like(values)
    earned[:, -1] = rewards
    following = np.pad(values[:, 1:], ((0, 0), (0, 1)))
    errors = earned + discount * following - values
    advantages = np.zeros_like(values)
    running = np.zeros(len(values))
    for t in reversed(range(values.shape[1])):
        running = errors[:, t] + discount * gae_lambda * running
        advantages[:, t] = running
    return advantages, advantages + values


def clipped(ratio: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """PPO's clipped surrogate objective, which is to rise (Schulman et al. 2017, equation 7).

    Args:
        ratio: the new probabilities over the old ones, float[...].
        advantages: float[...], of a shape that goes with it.
        clip_range: epsilon.
    """
    return torch.minimum(ratio * advantages, ratio.clamp(1 - clip_range, 1 + clip_range) * advantages)


class PPO(PolicyGradientAgent):
    """The LSTM controller with a value head, trained by proximal policy optimisation under the masks.

    Minibatches keep episodes whole, so that the recurrent policy is always scored from its start.

    Source: Schulman et al. 2017, "Proximal Policy Optimization Algorithms", equations 7 and 9, algorithm 1; for
    architectures Zoph et al. 2018 (NASNet), section 4.
    """

    Hyperparameters = PPOHyperparameters
    hyperparameters: PPOHyperparameters

    def __init__(
        self,
        env: Env | str,
        seed: int = 0,
        hyperparameters: Mapping[str, Any] | PPOHyperparameters | None = None,
        device: str = "cpu",
    ) -> None:
        if not isinstance(seed, int):  # each seed would end its updates at a divergence of its own
            raise ValueError(f"seed must be one integer for the agent 'ppo', got {seed!r}")
        super().__init__(env, seed, hyperparameters, device)
        self.episodes = 0  # that updates have used

    def _update(self, tokens: Tokens, rewards: Floats) -> dict[str, Floats]:
        settings = self.hyperparameters
        self.episodes += tokens.shape[1]
        episodes = torch.from_numpy(tokens).to(self.device)
        with torch.no_grad():
            old_log_probs, _, features = self.controller.evaluate(episodes)
            values = self._values(features)[0].double().cpu().numpy()
        advantages, returns = advantages_and_returns(
            self._transformed(rewards)[0], values, settings.discount, settings.gae_lambda
        )
        batch = [
            episodes,
            old_log_probs,
            *(torch.from_numpy(part).to(old_log_probs)[None] for part in (advantages, returns)),
        ]
        steps: list[dict[str, float]] = []
        for _ in range(settings.epochs):
            order = torch.randperm(tokens.shape[1], generator=self.generators[0]).to(self.device)
            for chosen in torch.split(order, settings.minibatch_size):
                steps.append(self._minibatch(*(part[:, chosen] for part in batch)))
            if settings.target_kl is not None and steps[-1]["train/approx_kl"] > settings.target_kl:
                break
        self.updates += len(steps)
        statistics = {name: np.array([np.mean([step[name] for step in steps])]) for name in steps[0]}
        unexplained = float(np.var(returns - values)) / max(float(np.var(returns)), 1e-12)
        return {
            **statistics,
            "train/explained_variance": np.array([1 - unexplained]),
            "train/n_updates": np.array([float(self.updates)]),
        }

    def _minibatch(
        self, tokens: Tensor, old_log_probs: Tensor, advantages: Tensor, returns: Tensor
    ) -> dict[str, float]:
        """One gradient step on whole episodes, each argument [1, m, T]."""
        settings = self.hyperparameters
        log_probs, entropies, features = self.controller.evaluate(tokens)
        if settings.normalise_advantages:
            advantages = (advantages - advantages.mean()) / (advantages.std(correction=0) + 1e-8)
        log_ratio = log_probs - old_log_probs
        ratio = log_ratio.exp()
        policy_loss = -clipped(ratio, advantages, settings.clip_range).mean()
        value_loss = (returns - self._values(features)).square().mean()
        entropy = entropies.mean()
        loss = policy_loss + settings.value_weight * value_loss - self._entropy_weight() * entropy
        grad_norm = self._step(loss)
        return {
            "train/policy_gradient_loss": policy_loss.item(),
            "train/value_loss": value_loss.item(),
            "train/entropy_loss": -entropy.item(),
            # The estimator of low variance: Schulman 2020, "Approximating KL Divergence".
            "train/approx_kl": (ratio - 1 - log_ratio).mean().item(),
            "train/clip_fraction": ((ratio - 1).abs() > settings.clip_range).double().mean().item(),
            "train/grad_norm": grad_norm.item(),
        }

    def _entropy_weight(self) -> float:
        settings = self.hyperparameters
        progress = min(self.episodes / settings.entropy_trials, 1.0) if settings.entropy_trials else 0.0
        return settings.entropy_weight + progress * (settings.final_entropy_weight - settings.entropy_weight)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "episodes": self.episodes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.episodes = int(state["episodes"])
