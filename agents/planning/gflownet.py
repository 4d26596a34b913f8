"""GFlowNet: a sampler that finds architectures in proportion to a power of their rewards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nas_gym.agents.growing import Growing
from nas_gym.agents.policy_gradient.agent import PolicyGradientAgent
from nas_gym.agents.policy_gradient.settings import ControllerHyperparameters
from nas_gym.agents.trial import Trials
from nas_gym.spaces import Tokens
from nas_gym.types import Floats

SMALLEST = 1e-6  # rewards are raised to this, so that they have a logarithm


@dataclass(frozen=True)
class GFlowNetHyperparameters(ControllerHyperparameters):
    """The controller's fields and defaults are those of `ControllerHyperparameters`, but for Adam's learning rate and
    momentum, and unbounded logits: a tanh would keep the policy from what it is to learn.

    Attributes:
        learning_rate: of the controller (Malkin et al. 2022, appendix: 1e-3).
        flow_learning_rate: of log Z (Malkin et al. 2022, appendix: 0.1): it has further to go than a weight.
        adam_beta1: Adam's own (Kingma & Ba 2015: 0.9).
        tanh_constant: None leaves the logits unbounded.
        beta: the power of the rewards, "inverse temperature", at the start (Bengio et al. 2021: 1 and more, by task).
        final_beta: the power after `annealing_trials`; between them it changes geometrically.
        annealing_trials: see `final_beta`.
        replay_size: trials drawn from all so far that join the new ones in an update (Shen et al. 2023, "Towards
            Understanding and Improving GFlowNet Training", replay half of the batch and more).
        epochs: steps of the optimiser in an update, each with trials of its own from the past.
    """

    learning_rate: float = 1e-3
    flow_learning_rate: float = 0.1
    adam_beta1: float = 0.9
    tanh_constant: float | None = None
    beta: float = 1.0
    final_beta: float = 1.0
    annealing_trials: int = 1000
    replay_size: int = 10
    epochs: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("flow_learning_rate beta final_beta", "positive", lambda v: 0 < v < math.inf)
        self._check("annealing_trials epochs", "a positive integer", lambda v: isinstance(v, int) and v > 0)
        self._check("replay_size", "an integer, not negative", lambda v: isinstance(v, int) and v >= 0)


class GFlowNet(PolicyGradientAgent):
    """A controller, an LSTM or softmaxes, trained by trajectory balance to sample in proportion to R^beta.

    A sequence of decisions is built in one way only, so that the backward policy is certain and the loss of a sequence

        (log Z + sum over decisions of log pi(choice) - beta log R)^2.

    Where it is zero for all sequences, each is sampled with the probability R^beta / Z, and Z is the sum of R^beta over
    the whole space. The loss is as good for sequences that another policy has sampled: trials are replayed, and those
    of others are learned from. R is the reward as `reward` transforms it; a rank is that among all trials so far.

    Sources: Bengio et al. 2021, "Flow Network based Generative Models for Non-Iterative Diverse Candidate Generation";
    Malkin et al. 2022, "Trajectory Balance: Improved Credit Assignment in GFlowNets", section 3.
    """

    staleness = None  # off-policy: trials may be of any earlier policy
    Hyperparameters = GFlowNetHyperparameters
    hyperparameters: GFlowNetHyperparameters

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.seeds != 1:
            raise ValueError(f"seed must be one integer for the agent {self.name!r}, got {self.seeds} of them")
        self._memory = Growing(np.empty((0, self.space.length), dtype=np.int64)), Growing(np.empty(0))

    def _make_critic(self) -> torch.nn.Parameter:
        """Log Z, the value of the empty sequence; it starts at the size of the space: exact where all rewards are 1."""
        return torch.nn.Parameter(torch.full((1, 1), math.log(self.space.size), device=self.device))

    def _make_optimizer(self) -> torch.optim.Adam:
        optimizer = super()._make_optimizer()
        group = optimizer.param_groups[0]
        flow = {**group, "params": [self.critic], "lr": self.hyperparameters.flow_learning_rate}
        group["params"] = [parameter for parameter in group["params"] if parameter is not self.critic]
        optimizer.add_param_group(flow)
        return optimizer

    @property
    def log_z(self) -> float:
        """The learned logarithm of the sum of R^beta over the space."""
        return float(self.critic.detach())

    @property
    def beta(self) -> float:
        """The power of the rewards at the trials told so far."""
        settings = self.hyperparameters
        share = min(len(self.ranks) / settings.annealing_trials, 1.0)
        return float(settings.beta * (settings.final_beta / settings.beta) ** share)

    def _keep(self, trials: Trials) -> None:
        super()._keep(trials)
        for memory, new in zip(self._memory, (trials.tokens, trials.rewards), strict=True):
            memory.extend(new)
        self.ranks.update(trials.rewards[None])

    def _update(self, tokens: Tokens, rewards: Floats) -> dict[str, Floats]:
        settings, (known, earned) = self.hyperparameters, self._replayed()
        for _ in range(settings.epochs):
            again = self.rng.integers(len(earned), size=settings.replay_size)
            batch = np.concatenate([tokens[0], known[again]]), np.concatenate([rewards[0], earned[again]])
            losses = self._losses(*batch)
            norm = self._step(losses.mean()[None])
        self.updates += 1
        return {
            "train/loss": losses.detach().mean()[None].double().cpu().numpy(),
            "train/log_z": np.array([self.log_z]),
            "train/beta": np.array([self.beta]),
            "train/grad_norm": norm.double().cpu().numpy(),
            "train/n_updates": np.array([float(self.updates)]),
        }

    def _replayed(self) -> tuple[Tokens, Floats]:
        """The trials so far, but those of other stages of the space, which no policy of this one could build."""
        tokens, rewards = (memory.rows for memory in self._memory)
        space, rows = self.controller.space, np.arange(len(tokens))
        if space.prefix_free:
            return tokens, rewards
        legal = np.all([space.legal(tokens, t)[rows, tokens[:, t]] for t in range(space.length)], axis=0)
        return tokens[legal], rewards[legal]

    def _losses(self, tokens: Tokens, rewards: Floats) -> torch.Tensor:
        """The loss of each sequence, float[n], of int64[n, T] and float64[n]."""
        log_probs, _, _ = self.controller.evaluate(torch.from_numpy(tokens)[None].to(self.device))
        target = self.beta * np.log(np.maximum(self._transformed(rewards[None]), SMALLEST))
        return (self.critic[0, 0] + log_probs.sum(2) - torch.from_numpy(target).to(log_probs))[0].square()

    def _transformed(self, rewards: Floats) -> Floats:
        """As in other agents, but a rank is that among all trials that have been told."""
        return self.ranks.of(rewards) if self.hyperparameters.reward == "rank" else super()._transformed(rewards)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "memory": [torch.from_numpy(memory.rows.copy()) for memory in self._memory]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        tokens, rewards = state["memory"]
        self._memory = Growing(tokens.numpy()), Growing(rewards.numpy())
