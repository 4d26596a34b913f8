"""REINFORCE with an LSTM controller: the agent of Zoph & Le 2017 and of ENAS."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nas_gym.spaces import Tokens

from .agent import Agent, Env, Floats
from .controllers import ChoiceBias, LSTMController


@dataclass(frozen=True)
class ReinforceHyperparameters:
    """Defaults are those of ENAS micro (Pham et al. 2018, section 3.2 and appendix, and the authors' code), but for
    `adam_epsilon` and `max_grad_norm`.

    Attributes:
        hidden_size: units of the LSTM (ENAS: 64; Zoph & Le 2017: 35; ENAS recurrent: 100).
        layers: layers of the LSTM (ENAS: 1; Zoph & Le 2017: 2).
        learning_rate: of Adam (ENAS micro: 3.5e-3; macro 1e-3; Zoph & Le 2017: 6e-4).
        adam_beta1: ENAS's code: 0, no momentum.
        adam_epsilon: Adam's own (Kingma & Ba 2015: 1e-8). ENAS's code has 1e-3, which smothers the small gradients of
            rewards that differ by a few hundredths: over 300 trials the controller then hardly leaves uniform sampling.
        batch_size: an update takes all episodes told since the last one, as soon as they are this many
            (ENAS micro: 10; macro: 20).
        entropy_weight: the entropy of an episode, summed over its decisions, joins its reward with this weight
            (ENAS: 1e-4).
        baseline_decay: of the moving average that rewards are compared with, an episode at a time (ENAS: 0.99).
        tanh_constant: logits are bounded to plus or minus this by a tanh (ENAS micro: 1.10; macro: 1.5; recurrent:
            2.5); None leaves them unbounded.
        operation_tanh_reduction: the bound of decisions that do not point is divided by this (ENAS micro: 2.5).
        temperature: logits are divided by this before the tanh (ENAS micro: None; recurrent: 5.0).
        max_grad_norm: the gradient's norm is clipped to this; None does not clip. ENAS's code leaves the controller
            unclipped and clips its children at 5.0; NNI's ENAS trainer clips the controller at 5.0.
        choice_bias: priors on choices. ENAS micro's, for its two separable convolutions: a learned bias that starts at
            10 in both cells, and in the normal cell 0.25 added to them and taken from the other operations. It is made
            for thousands of updates, and so not the default: it saturates the tanh.
    """

    hidden_size: int = 64
    layers: int = 1
    learning_rate: float = 3.5e-3
    adam_beta1: float = 0.0
    adam_epsilon: float = 1e-8
    batch_size: int = 10
    entropy_weight: float = 1e-4
    baseline_decay: float = 0.99
    tanh_constant: float | None = 1.10
    operation_tanh_reduction: float = 2.5
    temperature: float | None = None
    max_grad_norm: float | None = 5.0
    choice_bias: tuple[ChoiceBias, ...] = ()

    def __post_init__(self) -> None:
        def check(names: str, wanted: str, fits: Callable[[Any], bool]) -> None:
            for name in names.split():
                value = getattr(self, name)
                if isinstance(value, bool | str) or not fits(value):
                    raise ValueError(f"{name} must be {wanted}, got {value!r}")

        check("hidden_size layers batch_size", "a positive integer", lambda v: isinstance(v, int) and v > 0)
        check("learning_rate adam_epsilon operation_tanh_reduction", "positive", lambda v: 0 < v < math.inf)
        check("tanh_constant temperature max_grad_norm", "positive or None", lambda v: v is None or 0 < v < math.inf)
        check("adam_beta1 baseline_decay", "in [0, 1)", lambda v: 0 <= v < 1)
        check("entropy_weight", "finite and not negative", lambda v: 0 <= v < math.inf)
        try:
            biases = tuple(ChoiceBias(**bias) if isinstance(bias, Mapping) else bias for bias in self.choice_bias)
        except TypeError as error:
            raise ValueError(f"choice_bias takes pattern, initial and fixed; got {self.choice_bias!r}") from error
        object.__setattr__(self, "choice_bias", biases)


@dataclass
class MovingAverage:
    """An exponential moving average whose start at zero is corrected for, as Adam's moments are.

    After values x_1 ... x_n with decay d it is ``sum_i d^(n-i) x_i / sum_i d^(n-i)``.
    """

    decay: float
    total: float = 0.0
    weight: float = 0.0

    def update(self, values: Floats) -> float:
        """Takes in float64[n], one after another, and returns the new average."""
        kept = self.decay ** np.arange(len(values) - 1, -1, -1)
        self.total = self.decay ** len(values) * self.total + float(kept @ values)
        self.weight = self.decay ** len(values) * self.weight + float(kept.sum())
        return self.total / self.weight


class Reinforce(Agent):
    """An LSTM controller trained by the policy gradient, with a moving average of rewards as baseline.

    Sources: Williams 1992; Zoph & Le 2017, section 3.2; Pham et al. 2018 (ENAS), section 2.2. With R an episode's
    reward, H the sum of its decisions' entropies (no gradient flows through it, as in ENAS's code), w its weight, and b
    the bias-corrected moving average of R + w H, which takes in the episodes of the update first, as ENAS's does, the
    loss is

        - mean over episodes of (R + w H - b) * sum over decisions of log pi(choice).
    """

    name = "reinforce"
    Hyperparameters = ReinforceHyperparameters
    hyperparameters: ReinforceHyperparameters

    def __init__(
        self,
        env: Env | str,
        seed: int = 0,
        hyperparameters: Mapping[str, Any] | ReinforceHyperparameters | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(env, seed, hyperparameters, device)
        settings = self.hyperparameters
        self.generator = torch.Generator().manual_seed(seed)
        self.controller = LSTMController(
            self.space,
            generator=self.generator,
            hidden_size=settings.hidden_size,
            layers=settings.layers,
            tanh_constant=settings.tanh_constant,
            operation_tanh_reduction=settings.operation_tanh_reduction,
            temperature=settings.temperature,
            choice_bias=settings.choice_bias,
        ).to(device)
        self.optimizer = torch.optim.Adam(
            self.controller.parameters(),
            lr=settings.learning_rate,
            betas=(settings.adam_beta1, 0.999),
            eps=settings.adam_epsilon,
        )
        self.baseline = MovingAverage(settings.baseline_decay)
        self.updates = 0
        self._pending: list[tuple[Tokens, Floats]] = []

    def ask(self, n: int) -> Tokens:
        """Samples n architectures from the controller."""
        space = self.open_space
        if space != self.controller.space:
            # Episodes that were sampled at a smaller stage of a space that grows are learned from under its masks.
            if self._pending:
                self._update_on_pending()
            self.controller.space = space
        return self.controller.sample(n, self.generator)[0].cpu().numpy()

    def tell(self, tokens: Tokens, rewards: Floats) -> dict[str, float]:
        """Keeps the episodes until there are `batch_size` of them, then makes one update on all that it keeps.

        So an update is on-policy whatever the number of environments: no parameter has changed since these
        episodes were sampled.
        """
        self._pending.append((tokens, rewards))
        if sum(len(kept) for _, kept in self._pending) < self.hyperparameters.batch_size:
            return {}
        return self._update_on_pending()

    def _update_on_pending(self) -> dict[str, float]:
        episodes, self._pending = self._pending, []
        return self._update(*(np.concatenate(column) for column in zip(*episodes, strict=True)))

    def _update(self, tokens: Tokens, rewards: Floats) -> dict[str, float]:
        log_probs, entropies, _ = self.controller.evaluate(torch.from_numpy(tokens).to(self.device))
        entropy = entropies.detach().sum(1).double().cpu().numpy()
        returns = rewards + self.hyperparameters.entropy_weight * entropy
        baseline = self.baseline.update(returns)
        advantages = returns - baseline
        loss = -(torch.from_numpy(advantages).to(log_probs) * log_probs.sum(1)).mean()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        grad_norm = torch.nn.utils.clip_grad_norm_(
            self.controller.parameters(), self.hyperparameters.max_grad_norm or math.inf
        )
        self.optimizer.step()
        self.updates += 1
        return {
            "train/policy_loss": loss.item(),
            "train/entropy_loss": -float(entropy.mean()) / self.space.length,  # a decision's, as in SB3
            "train/baseline": baseline,
            "train/grad_norm": grad_norm.item(),  # before clipping
            "train/advantage_std": float(advantages.std()),
            "train/n_updates": float(self.updates),
        }

    def policy(self, tokens: Tokens, positions: NDArray[np.int64]) -> Floats:
        """The controller's probabilities."""
        prefixes, steps = (torch.from_numpy(array).to(self.device) for array in (tokens, positions))
        return self.controller.next_distribution(prefixes, steps).double().cpu().numpy()

    def state_dict(self) -> dict[str, Any]:
        """Parameters, optimiser, baseline, pending episodes and random states, beside the history."""
        return {
            **super().state_dict(),
            # Copies: both would go on changing with the agent.
            "controller": copy.deepcopy(self.controller.state_dict()),
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "generator": self.generator.get_state(),
            "baseline": [self.baseline.total, self.baseline.weight],
            "updates": self.updates,
            "pending": [[torch.from_numpy(tokens), torch.from_numpy(rewards)] for tokens, rewards in self._pending],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to where `state_dict` was taken."""
        super().load_state_dict(state)
        self.controller.load_state_dict(state["controller"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.baseline.total, self.baseline.weight = state["baseline"]
        self.updates = int(state["updates"])
        self._pending = [(tokens.numpy(), rewards.numpy()) for tokens, rewards in state["pending"]]
        self.controller.space = self.space.at_trial(self.trials - sum(len(kept) for _, kept in self._pending))
