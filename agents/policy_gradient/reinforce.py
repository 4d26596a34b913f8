"""REINFORCE with an LSTM controller: the agent of Zoph & Le 2017 and of ENAS, and its variants."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nas_gym.agents.policy_gradient.agent import PolicyGradientAgent
from nas_gym.agents.policy_gradient.memory import MovingAverage, PriorityQueue
from nas_gym.agents.policy_gradient.settings import ControllerHyperparameters
from nas_gym.envs.problem import Env
from nas_gym.spaces import SearchSpace, Tokens
from nas_gym.types import Floats

BASELINES = ("none", "moving-average", "leave-one-out", "critic")


@dataclass(frozen=True)
class ReinforceHyperparameters(ControllerHyperparameters):
    """Defaults are those of ENAS micro, as those of `ControllerHyperparameters`.

    Attributes:
        entropy_weight: the entropy of an episode, summed over its decisions, joins its reward with this weight
            (ENAS: 1e-4).
        baseline: what rewards are compared with. ``"moving-average"``: of rewards (Zoph & Le 2017, section 3.2; ENAS);
            ``"leave-one-out"``: the mean of the batch's other rewards (Kool et al. 2019, "Buy 4 REINFORCE samples, get
            a baseline for free"); ``"critic"``: a value learned for each decision (Sutton et al. 2000; Mnih et al.
            2016); ``"none"`` (Williams 1992).
        baseline_decay: of the moving average, an episode at a time (ENAS: 0.99).
        replay_size: K, the best architectures so far, all different, whose likelihood each update raises (Abolafia et
            al. 2018, "Neural Program Synthesis with Priority Queue Training", section 4: 10); 0 replays none.
        replay_weight: of their mean log-likelihood in the objective (Abolafia et al. search it by task).
    """

    entropy_weight: float = 1e-4
    baseline: str = "moving-average"
    baseline_decay: float = 0.99
    replay_size: int = 0
    replay_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("baseline_decay", "in [0, 1)", lambda v: 0 <= v < 1)
        self._check("entropy_weight replay_weight", "finite and not negative", lambda v: 0 <= v < math.inf)
        self._check("replay_size", "an integer, not negative", lambda v: isinstance(v, int) and v >= 0)
        self._check("baseline", f"one of {', '.join(BASELINES)}", lambda v: v in BASELINES)
        if self.baseline == "leave-one-out" and self.batch_size < 2:
            raise ValueError(f"batch_size must be at least 2 for the baseline 'leave-one-out', got {self.batch_size}")


class Reinforce(PolicyGradientAgent):
    """A controller, an LSTM or softmaxes, trained by the policy gradient.

    Sources: Williams 1992; Zoph & Le 2017, section 3.2; Pham et al. 2018 (ENAS), section 2.2. With R an episode's
    reward, transformed as `reward` says, H the sum of its decisions' entropies (no gradient flows through it, as in
    ENAS's code), w its weight, and b the baseline, the loss is

        - mean over episodes of the sum over decisions of (R + w H - b) * log pi(choice).

    The moving average takes in R + w H of the update's episodes first, as ENAS's does.
    """

    Hyperparameters = ReinforceHyperparameters
    hyperparameters: ReinforceHyperparameters

    def __init__(
        self,
        env: Env | str,
        seed: int | Sequence[int] = 0,
        hyperparameters: Mapping[str, Any] | ReinforceHyperparameters | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(env, seed, hyperparameters, device)
        seeds = len(self.generators)
        self.average = MovingAverage(self.hyperparameters.baseline_decay, seeds)
        self.queue = PriorityQueue(seeds, self.hyperparameters.replay_size, self.space.length)

    def _update(self, tokens: Tokens, rewards: Floats) -> dict[str, Floats]:
        settings = self.hyperparameters
        self.queue.update(tokens, rewards)
        log_probs, entropies, features, best = self._evaluate(tokens)
        entropy = entropies.detach().sum(2).double().cpu().numpy()
        returns = self._transformed(rewards) + settings.entropy_weight * entropy
        baseline, values = self._baseline(returns, features)
        advantages = returns[..., None] - baseline
        weights = torch.from_numpy(advantages).to(log_probs)
        loss = -(weights * log_probs).sum(2).mean(1)
        total = loss - settings.replay_weight * best
        if values is not None:
            total = total + (torch.from_numpy(returns).to(values)[..., None] - values).square().mean((1, 2))
        grad_norm = self._step(total)
        self.updates += 1
        ones = np.ones(len(rewards))
        return {
            "train/policy_loss": loss.detach().double().cpu().numpy(),
            "train/entropy_loss": -entropy.mean(axis=1) / self.space.length,  # a decision's, as in SB3
            "train/baseline": baseline.mean(axis=(1, 2)),
            "train/grad_norm": grad_norm.double().cpu().numpy(),  # before clipping
            "train/advantage_std": advantages.std(axis=(1, 2)),
            "train/n_updates": self.updates * ones,
        }

    def _grow(self, space: SearchSpace) -> None:
        super()._grow(space)
        # What was best at a smaller stage may be illegal at this one.
        self.queue = PriorityQueue(*self.queue.rewards.shape, space.length)

    def _evaluate(self, tokens: Tokens) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Scores the episodes, and in the same pass the queue, of which it returns only the mean log-likelihood [S]."""
        n, filled = tokens.shape[1], self.queue.rewards > -np.inf
        # Places that are not filled yet hold no legal sequence: the first episode stands in, with weight zero.
        replayed = np.where(filled[..., None], self.queue.tokens, tokens[:, :1])
        scored = torch.from_numpy(np.concatenate([tokens, replayed], axis=1)).to(self.device)
        log_probs, entropies, features = self.controller.evaluate(scored)
        shares = torch.from_numpy(filled / np.maximum(filled.sum(axis=1, keepdims=True), 1)).to(log_probs)
        best = (log_probs[:, n:].sum(2) * shares).sum(1)
        return log_probs[:, :n], entropies[:, :n], features[:, :n], best

    def _baseline(self, returns: Floats, features: torch.Tensor) -> tuple[Floats, torch.Tensor | None]:
        """What returns [S, n] are compared with, [S, n or 1, T or 1], and the critic's values, if it is asked."""
        kind, n = self.hyperparameters.baseline, returns.shape[1]
        if kind == "moving-average":
            return self.average.update(returns)[:, None, None], None
        if kind == "leave-one-out":
            others = (returns.sum(axis=1, keepdims=True) - returns) / max(n - 1, 1)
            return (others if n > 1 else returns)[..., None], None
        if kind == "critic":
            # The policy's features are lent: the critic's error does not change them.
            values = self._values(features.detach())
            return values.detach().double().cpu().numpy(), values
        return np.zeros((len(returns), 1, 1)), None

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "average": [torch.from_numpy(self.average.total), self.average.weight],
            "queue": [torch.from_numpy(self.queue.tokens), torch.from_numpy(self.queue.rewards)],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        total, self.average.weight = state["average"]
        self.average.total = total.numpy()
        self.queue.tokens, self.queue.rewards = (array.numpy() for array in state["queue"])
