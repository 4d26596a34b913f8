"""What the agents have in common that train a controller by the policy gradient."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from nas_gym.agents.controllers.controller import Controller
from nas_gym.agents.controllers.lstm import LSTMController
from nas_gym.agents.controllers.softmaxes import IndependentSoftmaxes
from nas_gym.agents.play import play
from nas_gym.agents.policy import PolicyAgent
from nas_gym.agents.policy_gradient.memory import Ranks
from nas_gym.agents.policy_gradient.settings import CONTROLLER_FIELDS, ControllerHyperparameters
from nas_gym.agents.result import SearchResult, concatenate
from nas_gym.agents.trial import Proposal, Trials
from nas_gym.envs.problem import Env
from nas_gym.spaces import SearchSpace, Tokens
from nas_gym.types import Floats

DRAWS = 4  # candidates drawn for each architecture that is wanted, once some have been refused
ROUNDS = 16  # of such draws; what is lacking then comes twice


class PolicyGradientAgent(PolicyAgent):
    """Samples architectures from a controller, and updates it on each batch of rewards.

    Args:
        env: see `Agent`.
        seed: see `Agent`. Several seeds are S agents in one program: a proposal of n is then one of S * n rows, those
            of the first seed first, and each agent proposes what it would propose alone.
        hyperparameters: see `Agent`.
        device: see `Agent`.
    """

    Hyperparameters: ClassVar[type[Any]] = ControllerHyperparameters
    # A policy gradient is that of the policy that has sampled, and a bias if it is not (Mnih et al. 2016, "Asynchronous
    # Methods for Deep Reinforcement Learning", accept it); the difference of one update is small.
    staleness: ClassVar[int | None] = 1

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
        self._pending: list[tuple[Tokens, Floats]] = []
        self._tried: list[set[bytes]] = [set() for _ in seeds]

    def _make_controller(self) -> Controller:
        settings: ControllerHyperparameters = self.hyperparameters
        if not settings.lstm:
            return IndependentSoftmaxes(self.space, generators=self.generators)
        return LSTMController(
            self.space,
            generators=self.generators,
            **{name: getattr(settings, name) for name in CONTROLLER_FIELDS},
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

    @property
    def seeds(self) -> int:
        """S, how many agents this is."""
        return len(self.generators)

    def ask(self, n: int) -> Proposal:
        """Samples n architectures from the controller of each seed."""
        return self.propose(self._sample(n).reshape(-1, self.space.length))

    def tell(self, trials: Trials) -> dict[str, float]:
        """Keeps the episodes until there are `batch_size` of them, then makes one update on all that it keeps.

        So an update is on-policy whatever the number of environments: no parameter has changed since these
        episodes were sampled.

        Returns:
            Scalars to log, their means over seeds; empty if nothing was updated.
        """
        self._keep(trials)
        if sum(kept.shape[1] for _, kept in self._pending) < self.hyperparameters.batch_size:
            return {}
        return means(self._update_on_pending())

    def _keep(self, trials: Trials) -> None:
        """Has the next update take in these trials, as many of each seed."""
        tokens = trials.tokens.reshape(self.seeds, -1, self.space.length)
        self._pending.append((tokens, trials.rewards.reshape(self.seeds, -1)))

    def _sample(self, n: int) -> Tokens:
        """n architectures of each seed, int64[S, n, T]."""
        space = self.current_space
        if space != self.controller.space:
            # Episodes that were sampled at a smaller stage of a space that grows are learned from under its masks.
            if self._pending:
                self._update_on_pending()
            self._grow(space)
        if self.hyperparameters.revisits:
            return self.controller.sample(n, self.generators).cpu().numpy()
        return self._sample_untried(n)

    def _update_on_pending(self) -> dict[str, Floats]:
        episodes, self._pending = self._pending, []
        tokens, rewards = (np.concatenate(column, axis=1) for column in zip(*episodes, strict=True))
        return self._update(tokens, rewards)

    def _grow(self, space: SearchSpace) -> None:
        """Goes over to another stage of a space that grows."""
        self.controller.space = space

    @abstractmethod
    def _update(self, tokens: Tokens, rewards: Floats) -> dict[str, Floats]:
        """Learns from a batch of episodes, int64[S, n, T] and float64[S, n]; scalars to log, float64[S] by tag."""

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
                    none_left = len(tried) >= self.controller.space.size
                    _take_new(rows, candidates, tried, n, again=attempt == ROUNDS or none_left)
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
        if self.problem.evaluator.stateful:
            raise ValueError("evaluator must not be stateful for searches that share it")
        if self.current_space != self.space.at_trial(trials) or self.problem.restart_after is not None:
            raise ValueError(f"space {self.space.name!r} changes with the trials of one search, not of many at once")
        n = max(self.problem.num_envs // self.seeds, 1)
        histories: list[list[SearchResult]] = [[] for _ in range(self.seeds)]
        for first in range(0, trials, n):
            whole = play(self.env, self.ask(n))
            rows = np.arange(len(whole)).reshape(self.seeds, n)[:, : trials - first]
            for own, history in zip(rows, histories, strict=True):
                part = whole.rows(own)
                history.append(SearchResult(self.space, part.tokens, part.rewards, part.metrics))
            self.tell(whole.rows(rows.flatten()))
        return [concatenate(self.space, history) for history in histories]

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
        """Parameters, optimiser, pending episodes, what was tried, random states and the history."""
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
        self.controller.space = self.space_at(self.trials - sum(kept.shape[1] for _, kept in self._pending))


def means(statistics: Mapping[str, Floats]) -> dict[str, float]:
    """The means over seeds of scalars to log."""
    return {tag: float(value.mean()) for tag, value in statistics.items()}


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
