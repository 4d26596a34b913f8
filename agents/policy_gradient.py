"""What the agents have in common that train a controller by the policy gradient."""

from __future__ import annotations

import copy
import dataclasses
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from nas_gym.spaces import SearchSpace, Tokens

from .agent import Agent, Env, Floats, SearchResult, attribute, joined, play
from .controllers import ChoiceBias, Controller, IndependentSoftmaxes, LSTMController

FORM = ("hidden_size", "layers", "tanh_constant", "operation_tanh_reduction", "temperature", "choice_bias")
"""Hyperparameters that the LSTM controller takes as they are."""
REWARDS = ("raw", "cubed", "tan", "rank")
DRAWS = 4  # candidates drawn for each architecture that is wanted, once some have been refused
ROUNDS = 16  # of such draws; what is lacking then comes twice


@dataclass(frozen=True)
class ControllerHyperparameters:
    """The controller and its optimiser. Defaults are those of ENAS micro (Pham et al. 2018, section 3.2 and appendix,
    and the authors' code), but for `adam_epsilon` and `max_grad_norm`.

    Attributes:
        lstm: False takes independent softmaxes in place of the LSTM (Dong & Yang 2020, section 4: REINFORCE).
        hidden_size: units of the LSTM (ENAS: 64; Zoph & Le 2017: 35; ENAS recurrent: 100).
        layers: layers of the LSTM (ENAS: 1; Zoph & Le 2017: 2).
        learning_rate: of Adam (ENAS micro: 3.5e-3; macro 1e-3; Zoph & Le 2017: 6e-4).
        adam_beta1: ENAS's code: 0, no momentum.
        adam_epsilon: Adam's own (Kingma & Ba 2015: 1e-8). ENAS's code has 1e-3, which smothers the small gradients of
            rewards that differ by a few hundredths: over 300 trials the controller then hardly leaves uniform sampling.
        batch_size: an update takes all episodes told since the last one, as soon as they are this many
            (ENAS micro: 10; macro: 20).
        tanh_constant: the LSTM's logits are bounded to plus or minus this by a tanh (ENAS micro: 1.10; macro: 1.5;
            recurrent: 2.5); None leaves them unbounded.
        operation_tanh_reduction: the bound of decisions that do not point is divided by this (ENAS micro: 2.5).
        temperature: the LSTM's logits are divided by this before the tanh (ENAS micro: None; recurrent: 5.0).
        max_grad_norm: the gradient's norm is clipped to this; None does not clip. ENAS's code leaves the controller
            unclipped and clips its children at 5.0; NNI's ENAS trainer clips the controller at 5.0.
        choice_bias: priors on choices. ENAS micro's, for its two separable convolutions: a learned bias that starts at
            10 in both cells, and in the normal cell 0.25 added to them and taken from the other operations. It is made
            for thousands of updates, and so not the default: it saturates the tanh.
        reward: what is learned from: ``"raw"`` rewards; ``"cubed"`` (Zoph & Le 2017, section 4.1); ``"tan"``, the
            tangent of reward times pi / 2 (Cai et al. 2018, section 4.1); ``"rank"``, the share of all rewards so far
            that are lower, in [0, 1] (fitness shaping: Wierstra et al. 2014, "Natural Evolution Strategies").
        revisits: False proposes no architecture twice, as long as others are left: what was tried is drawn again, from
            distributions that grow flatter with each refusal (local search without revisits: White et al. 2021).
    """

    lstm: bool = True
    hidden_size: int = 64
    layers: int = 1
    learning_rate: float = 3.5e-3
    adam_beta1: float = 0.0
    adam_epsilon: float = 1e-8
    batch_size: int = 10
    tanh_constant: float | None = 1.10
    operation_tanh_reduction: float = 2.5
    temperature: float | None = None
    max_grad_norm: float | None = 5.0
    choice_bias: tuple[ChoiceBias, ...] = ()
    reward: str = "raw"
    revisits: bool = True

    def __post_init__(self) -> None:
        self._check("lstm revisits", "true or false", lambda v: isinstance(v, bool))
        self._check("hidden_size layers batch_size", "a positive integer", lambda v: isinstance(v, int) and v > 0)
        self._check("learning_rate adam_epsilon operation_tanh_reduction", "positive", lambda v: 0 < v < math.inf)
        bounds = "tanh_constant temperature max_grad_norm"
        self._check(bounds, "positive or None", lambda v: v is None or 0 < v < math.inf)
        self._check("adam_beta1", "in [0, 1)", lambda v: 0 <= v < 1)
        self._check("reward", f"one of {', '.join(REWARDS)}", lambda v: v in REWARDS)
        try:
            biases = tuple(ChoiceBias(**bias) if isinstance(bias, Mapping) else bias for bias in self.choice_bias)
        except TypeError as error:
            raise ValueError(f"choice_bias takes pattern, initial and fixed; got {self.choice_bias!r}") from error
        object.__setattr__(self, "choice_bias", biases)

    def _check(self, names: str, wanted: str, fits: Callable[[Any], bool]) -> None:
        types = {known.name: known.type for known in dataclasses.fields(self)}
        for name in names.split():
            value = getattr(self, name)
            wrong = isinstance(value, bool) and types[name] != "bool"
            wrong |= isinstance(value, str) and types[name] != "str"
            if wrong or not fits(value):
                raise ValueError(f"{name} must be {wanted}, got {value!r}")


class Ranks:
    """The share of all values so far that are lower, equal ones counted half.

    Args:
        size: S, how many series there are.
    """

    def __init__(self, size: int = 1) -> None:
        self.sorted = np.empty((size, 0))

    def update(self, values: Floats) -> Floats:
        """Takes in float64[S, n] and returns their ranks, in [0, 1], among all values with them."""
        self.sorted = np.sort(np.concatenate([self.sorted, values], axis=1), axis=1)
        below, upto = (
            np.array([np.searchsorted(row, new, side) for row, new in zip(self.sorted, values, strict=True)])
            for side in ("left", "right")
        )
        ranks: Floats = (below + upto) / (2 * self.sorted.shape[1])
        return ranks


class PolicyGradientAgent(Agent):
    """Samples architectures from a controller, and updates it on each batch of rewards.

    Args:
        env: see `Agent`.
        seed: see `Agent`. Several seeds are as many agents in one program: `ask_each` and `tell_each` serve them all,
            and what one of them is told and proposes is what it would be alone.
        hyperparameters: see `Agent`.
        device: see `Agent`.
    """

    Hyperparameters: ClassVar[type[Any]] = ControllerHyperparameters

    def __init__(
        self,
        env: Env | str,
        seed: int | Sequence[int] = 0,
        hyperparameters: Mapping[str, Any] | Any = None,
        device: str = "cpu",
    ) -> None:
        seeds = [seed] if isinstance(seed, int) else list(seed)
        super().__init__(env, seeds[0], hyperparameters, device)
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.controller = self._make_controller().to(device)
        self.critic = self._make_critic()
        self.optimizer = self._make_optimizer()
        self.ranks = Ranks(len(seeds))
        self.updates = 0
        self._pending: list[tuple[Tokens, Floats]] = []
        self._tried: list[set[bytes]] = [set() for _ in seeds]

    def _make_controller(self) -> Controller:
        settings: ControllerHyperparameters = self.hyperparameters
        if not settings.lstm:
            return IndependentSoftmaxes(self.space, generators=self.generators)
        return LSTMController(
            self.space,
            generators=self.generators,
            **{name: getattr(settings, name) for name in FORM},
        )

    def _make_critic(self) -> torch.nn.Parameter:
        # It starts at zero, and so needs no randomness.
        size = self.controller.policies, self.controller.feature_size + 1
        return torch.nn.Parameter(torch.zeros(size, device=self.device))

    def _make_optimizer(self) -> torch.optim.Adam:
        settings: ControllerHyperparameters = self.hyperparameters
        return torch.optim.Adam(
            [*self.controller.parameters(), self.critic],
            lr=settings.learning_rate,
            betas=(settings.adam_beta1, 0.999),
            eps=settings.adam_epsilon,
            fused=True,
        )

    # ------------------------------------------------------------------ ask and tell

    def ask(self, n: int) -> Tokens:
        """Samples n architectures from the controller."""
        tokens: Tokens = self.ask_each(n)[0]
        return tokens

    def tell(self, tokens: Tokens, rewards: Floats) -> dict[str, float]:
        """Keeps the episodes until there are `batch_size` of them, then makes one update on all that it keeps.

        So an update is on-policy whatever the number of environments: no parameter has changed since these
        episodes were sampled.
        """
        return {name: float(value[0]) for name, value in self.tell_each(tokens[None], rewards[None]).items()}

    def ask_each(self, n: int) -> Tokens:
        """Samples n architectures from the controller of each seed, int64[S, n, T]."""
        space = self.open_space
        if space != self.controller.space:
            # Episodes that were sampled at a smaller stage of a space that grows are learned from under its masks.
            if self._pending:
                self._update_on_pending()
            self._grow(space)
        if self.hyperparameters.revisits:
            return self.controller.sample(n, self.generators).cpu().numpy()
        return self._sample_untried(n)

    def tell_each(self, tokens: Tokens, rewards: Floats) -> dict[str, Floats]:
        """Tells the agent of each seed its rewards, float64[S, n].

        Returns:
            Scalars to log, float64[S] by tag; empty if nothing was updated.
        """
        self._pending.append((tokens, rewards))
        if sum(kept.shape[1] for _, kept in self._pending) < self.hyperparameters.batch_size:
            return {}
        return self._update_on_pending()

    def _update_on_pending(self) -> dict[str, Floats]:
        episodes, self._pending = self._pending, []
        tokens, rewards = (np.concatenate(column, axis=1) for column in zip(*episodes, strict=True))
        return self._update(tokens, rewards)

    def _grow(self, space: SearchSpace) -> None:
        """Goes over to another stage of a space that grows."""
        self.controller.space = space

    @abstractmethod
    def _update(self, tokens: Tokens, rewards: Floats) -> dict[str, Floats]:
        """Learns from a batch of episodes, int64[S, n, T] and float64[S, n], and returns what `tell_each` does."""

    def _sample_untried(self, n: int) -> Tokens:
        """n architectures a seed that it has not proposed yet, int64[S, n, T]."""
        found: list[list[NDArray[np.int64]]] = [[] for _ in self.generators]
        for attempt in range(ROUNDS + 1):
            lacking = [len(rows) < n for rows in found]
            if not any(lacking):
                break
            generators = [
                generator if lacks else None for generator, lacks in zip(self.generators, lacking, strict=True)
            ]
            # The first two rounds follow the policy; where it has nothing new left, flatter ones reach around it.
            temperature = 2.0 ** max(attempt - 1, 0)
            drawn = (
                self.controller.sample(DRAWS * n if attempt else n, generators, temperature=temperature).cpu().numpy()
            )
            for rows, candidates, tried, lacks in zip(found, drawn, self._tried, lacking, strict=True):
                if lacks:
                    _take_new(rows, candidates, tried, n, again=attempt == ROUNDS)
        return np.array(found)

    # ------------------------------------------------------------------ learning

    def learn_each(self, trials: int) -> list[SearchResult]:
        """Searches by the agent of each seed, all in one program: `Agent.learn` for many, without its history.

        The sub-environments of the environment are shared out among the seeds.

        Args:
            trials: of each seed.

        Returns:
            What each seed has tried.

        Raises:
            ValueError: the evaluator is stateful, or the space changes with the trials: then searches are not
                independent.
        """
        if attribute(self.env, "schedule").evaluator.stateful:
            raise ValueError("evaluator must not be stateful for searches that share it")
        if self.open_space != self.space.at_trial(trials) or attribute(self.env, "restart_after") is not None:
            raise ValueError(f"space {self.space.name!r} changes with the trials of one search, not of many at once")
        assert isinstance(self.env, VectorEnv)
        seeds = len(self.generators)
        n = max(self.env.num_envs // seeds, 1)
        histories: list[list[SearchResult]] = [[] for _ in range(seeds)]
        for first in range(0, trials, n):
            tokens = self.ask_each(n)
            rows = tokens.reshape(-1, self.space.length)
            options = {name: np.tile(column, seeds) for name, column in self.reset_options.items()}
            whole = SearchResult(self.space, rows, *play(self.env, rows, options))
            kept = min(n, trials - first)
            for seed, history in enumerate(histories):
                history.append(whole.rows(slice(seed * n, seed * n + kept)))
            self.tell_each(tokens[:, :kept], whole.rewards.reshape(-1, n)[:, :kept])
        return [joined(self.space, history) for history in histories]

    def _transformed(self, rewards: Floats) -> Floats:
        """What is learned from, float64[S, n]."""
        kind = self.hyperparameters.reward
        if kind == "rank":
            return self.ranks.update(rewards)
        if kind == "tan":
            # At a reward of 1 the tangent has its pole.
            tangents: Floats = np.tan(np.clip(rewards, -1, 1 - 1e-3) * np.pi / 2)
            return tangents
        return rewards**3 if kind == "cubed" else rewards

    def _values(self, features: torch.Tensor) -> torch.Tensor:
        """The critic's values [S, n, T] of features [S, n, T, F]: a linear function a seed."""
        weights, bias = torch.split(self.critic, [self.controller.feature_size, 1], dim=1)
        values: torch.Tensor = torch.einsum("sntf,sf->snt", features, weights) + bias[..., None]
        return values

    def _step(self, loss: torch.Tensor) -> torch.Tensor:
        """One step of the optimiser on the losses [S]; returns the gradients' norms [S] before clipping."""
        self.optimizer.zero_grad()
        loss.sum().backward()  # type: ignore[no-untyped-call]
        # A seed's norm is its own: that of its rows in all parameters.
        learned = [*self.controller.parameters(), self.critic]
        gradients = [p.grad.flatten(1) for p in learned if p.grad is not None and p.grad.numel()]
        norms = torch.stack([gradient.square().sum(dim=1) for gradient in gradients]).sum(dim=0).sqrt()
        bound = self.hyperparameters.max_grad_norm
        if bound is not None:
            scales = (bound / (norms + 1e-6)).clamp(max=1.0)[:, None]
            for gradient in gradients:
                gradient.mul_(scales)
        self.optimizer.step()
        return norms

    # ------------------------------------------------------------------ play

    def policy(self, tokens: Tokens, positions: NDArray[np.int64]) -> Floats:
        """The controller's probabilities."""
        prefixes, steps = (torch.from_numpy(array).to(self.device)[None] for array in (tokens, positions))
        return self.controller.next_distribution(prefixes, steps)[0].double().cpu().numpy()

    # ------------------------------------------------------------------ keeping

    def state_dict(self) -> dict[str, Any]:
        """Parameters, optimiser, pending episodes, what was tried and random states, beside the history."""
        return {
            **super().state_dict(),
            # Copies: both would go on changing with the agent.
            "controller": copy.deepcopy(self.controller.state_dict()),
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "generators": [generator.get_state() for generator in self.generators],
            "critic": self.critic.detach().clone(),
            "ranks": torch.from_numpy(self.ranks.sorted),
            "updates": self.updates,
            "pending": [[torch.from_numpy(tokens), torch.from_numpy(rewards)] for tokens, rewards in self._pending],
            "tried": [tried_tensor(rows) for rows in self._tried],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to where `state_dict` was taken."""
        super().load_state_dict(state)
        self.controller.load_state_dict(state["controller"])
        self.optimizer.load_state_dict(state["optimizer"])
        for generator, kept in zip(self.generators, state["generators"], strict=True):
            generator.set_state(kept)
        with torch.no_grad():
            self.critic.copy_(state["critic"])
        self.ranks.sorted = state["ranks"].numpy()
        self.updates = int(state["updates"])
        self._pending = [(tokens.numpy(), rewards.numpy()) for tokens, rewards in state["pending"]]
        self._tried = [{row.tobytes() for row in rows.numpy()} for rows in state["tried"]]
        self.controller.space = self.open_at(self.trials - sum(kept.shape[1] for _, kept in self._pending))


def _take_new(rows: list[NDArray[np.int64]], candidates: Tokens, tried: set[bytes], n: int, again: bool) -> None:
    """Moves what is new among the candidates to the rows, until there are n; where `again`, what is not new too."""
    for candidate in candidates:
        if len(rows) == n:
            return
        key = candidate.tobytes()
        if again or key not in tried:
            tried.add(key)
            rows.append(candidate)


def tried_tensor(rows: set[bytes]) -> torch.Tensor:
    """Sequences as int64[n, T], in an order that does not depend on the process."""
    return torch.from_numpy(np.array([np.frombuffer(row, dtype=np.int64) for row in sorted(rows)], dtype=np.int64))
