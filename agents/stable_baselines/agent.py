"""Algorithms of Stable-Baselines3 and sb3-contrib as agents.

The policies, buffers, schedules and updates are theirs; the loop around them is ours. Their loop steps an environment
and may stop in the middle of an episode; an agent proposes whole architectures, learns from their rewards, and can be
saved in between. So a rollout consists of whole episodes, `batch_size` of them. Where all episodes of a space have the
same length, an agent arrives at the same parameters, to the bit, as the algorithm's own ``learn`` with rollouts of that
length.
"""

from __future__ import annotations

import copy
import json
import random
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger

from nas_gym.agents.policy import PolicyAgent
from nas_gym.agents.stable_baselines.settings import SB3Hyperparameters
from nas_gym.agents.trial import Proposal, Trials
from nas_gym.envs.problem import Env
from nas_gym.spaces import UNDECIDED, Tokens
from nas_gym.types import Floats

Columns = dict[str, NDArray[Any]]


@dataclass
class Rollout:
    """One architecture as it was decided, L decisions long.

    Attributes:
        tokens: int64[T].
        columns: what the algorithm noted at each decision, [L, ...] by name: ``observations``, ``actions``...
    """

    tokens: Tokens
    columns: Columns

    def __len__(self) -> int:
        return len(self.columns["actions"])


class SB3Agent(PolicyAgent):
    """An algorithm of Stable-Baselines3 or sb3-contrib.

    Its actions are all A choices of the environment; one that is illegal becomes the legal choice of rank
    ``action % number of legal choices``, as in an environment with ``on_invalid="remap"``, and is learned from as the
    action that it was. Those that know masks never take one.

    `tell` learns from what `ask` has proposed since the last update; other architectures are passed over, because they
    were not decided by the policy as it is.

    Attributes:
        model: the algorithm. ``agent.model.save(path)`` writes what its own ``load`` reads.
    """

    algorithm: ClassVar[type[BaseAlgorithm]]
    policy_name: ClassVar[str] = "MlpPolicy"
    hyperparameters: SB3Hyperparameters

    def __init__(
        self,
        env: Env | str,
        seed: int = 0,
        hyperparameters: Mapping[str, Any] | SB3Hyperparameters | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(env, seed, hyperparameters, device)
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed must be in [0, 2**32), which is what Stable-Baselines3 takes; got {seed!r}")
        self._onehot = not _shows_tokens(self.env, self.space.length)
        self._generators: list[Any] | None = None  # states; none until the model has seeded them
        with self._lent_generators():
            self.model: Any = self._make_model(seed)
        self._asked: dict[int, Rollout] = {}  # by the ids of their proposals
        self._reported: list[tuple[Rollout, float]] = []

    def _make_model(self, seed: int) -> Any:
        length, choices = self.space.length, self.space.num_choices
        arguments = {**self.hyperparameters.arguments(), **self._rollout_arguments()}
        try:
            # Without an environment, and set up once it knows its spaces: as a saved one is loaded.
            make: Any = self.algorithm
            model = make(self.policy_name, None, seed=seed, device=self.device, _init_setup_model=False, **arguments)
            model.observation_space = (
                Box(0.0, 1.0, (length * choices,), np.float32)
                if self._onehot
                else Box(UNDECIDED, choices - 1, (length,), np.int64)
            )
            model.action_space, model.n_envs = Discrete(choices), 1
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # small networks on a GPU; the device was asked for
                model._setup_model()
        except (AssertionError, TypeError, ValueError) as error:
            raise ValueError(f"{self.algorithm.__name__} refuses the hyperparameters {arguments}: {error}") from error
        model.set_logger(Logger(None, []))
        return model

    @abstractmethod
    def _rollout_arguments(self) -> dict[str, Any]:
        """The arguments by which the algorithm's own ``learn`` would go on in the rollouts of the agent."""

    @contextmanager
    def _lent_generators(self) -> Iterator[None]:
        """Inside, the global generators, from which Stable-Baselines3 draws, stand where the agent left them."""
        outside = _global_states(self.device)
        if self._generators is not None:
            _set_global_states(self._generators, self.device)
        try:
            yield
        finally:
            self._generators = _global_states(self.device)
            _set_global_states(outside, self.device)

    # ------------------------------------------------------------------ search

    def ask(self, n: int) -> Proposal:
        """Plays n episodes in lockstep, without a reward."""
        self.model.policy.set_training_mode(False)
        with self._lent_generators():
            episodes = self._play(n)
        tokens = np.array([episode.tokens for episode in episodes], dtype=np.int64)
        proposal = self.propose(tokens.reshape(n, self.space.length))
        self._asked.update(zip(proposal.ids.tolist(), episodes, strict=True))
        return proposal

    def _play(self, n: int) -> list[Rollout]:
        space = self.current_space
        tokens = np.full((n, space.length), UNDECIDED, dtype=np.int64)
        playing = np.ones(n, dtype=bool)
        lengths = np.zeros(n, dtype=np.int64)
        steps: list[Columns] = []
        memory = None
        for position in range(space.length):
            legal = space.legal(tokens, position)
            observations = self._observe(tokens)
            columns, memory = self._step(observations, legal, memory)
            self._count(int(playing.sum()))
            steps.append({"observations": observations, **columns})
            choices = executed(legal)[np.arange(n), columns["actions"]]
            tokens[playing, position] = choices[playing]
            lengths += playing
            stopped = playing & (choices == space.stop_choices[position])
            tokens[stopped, position + 1 :] = space.absent_choices[position + 1 :]
            playing &= ~stopped
            if not playing.any():
                break
        columns = {name: np.stack([step[name] for step in steps], axis=1) for name in steps[0]} if n else {}
        return [
            Rollout(tokens[row], {name: column[row, :length] for name, column in columns.items()})
            for row, length in enumerate(lengths.tolist())
        ]

    @abstractmethod
    def _step(self, observations: NDArray[Any], legal: NDArray[np.bool_], memory: Any) -> tuple[Columns, Any]:
        """Takes a decision in each of n episodes.

        Args:
            observations: [n, ...].
            legal: bool[n, A].
            memory: what the last step returned as such; None at first.

        Returns:
            Columns of n rows to note, ``actions`` int64[n] among them, and what the next step needs.
        """

    def _count(self, steps: int) -> None:
        """Told of the decisions that were just taken, in episodes that had not ended."""

    def withdraw(self) -> None:
        """Forgets the episodes without a reward so far."""
        self._asked.clear()

    def tell(self, trials: Trials) -> dict[str, float]:
        """Keeps the episodes until there are `batch_size` of them, then makes an update on all that it keeps."""
        for number, reward in zip(trials.ids.tolist(), trials.rewards.tolist(), strict=True):
            if number in self._asked:
                self._reported.append((self._asked.pop(number), reward))
        decisions = sum(len(episode) for episode, _ in self._reported)
        # Of a single decision, advantages have no standard deviation.
        if len(self._reported) < self.hyperparameters.batch_size or decisions < 2:
            return {}
        reported, self._reported = self._reported, []
        self._asked.clear()  # they come of a policy that is no more
        with self._lent_generators():
            self._update(reported, decisions)
        logger = self.model.logger
        statistics = {tag: float(value) for tag, value in logger.name_to_value.items()}
        logger.dump()  # which empties it
        return statistics

    @abstractmethod
    def _update(self, reported: list[tuple[Rollout, float]], decisions: int) -> None:
        """Learns from episodes and their rewards, of so many decisions in all."""

    def _progress(self) -> None:
        """Moves the schedules on to where the model's steps are."""
        horizon = self.hyperparameters.schedule_trials * self.space.length
        self.model._current_progress_remaining = max(0.0, 1.0 - float(self.model.num_timesteps) / float(horizon))

    # ------------------------------------------------------------------ play

    def policy(self, tokens: Tokens, positions: NDArray[np.int64]) -> Floats:
        """The probabilities of what the algorithm's actions become, illegal ones included."""
        prefixes = np.where(np.arange(self.space.length) < positions[:, None], tokens, UNDECIDED)
        legal = self.current_space.legal(prefixes, positions)
        self.model.policy.set_training_mode(False)
        with torch.no_grad():
            raw = self._probabilities(prefixes, positions, legal)
        probabilities = np.zeros_like(raw)
        np.add.at(probabilities, (np.arange(len(raw))[:, None], executed(legal)), raw)
        return probabilities

    @abstractmethod
    def _probabilities(self, prefixes: Tokens, positions: NDArray[np.int64], legal: NDArray[np.bool_]) -> Floats:
        """The probabilities float64[B, A] of actions after prefixes int64[B, T], undecided ones -1."""

    def _observe(self, tokens: Tokens) -> NDArray[Any]:
        return self.space.one_hot(tokens).reshape(len(tokens), -1) if self._onehot else tokens.copy()

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        return torch.as_tensor(array, device=self.model.device)

    # ------------------------------------------------------------------ keeping

    COUNTERS: ClassVar[tuple[str, ...]] = ("num_timesteps", "_n_updates", "_current_progress_remaining")

    def state_dict(self) -> dict[str, Any]:
        """Parameters, optimiser, counters, pending episodes, random states and the history."""
        # Copies: parameters and moments go on changing with the agent.
        return {
            **super().state_dict(),
            "policy": copy.deepcopy(self.model.policy.state_dict()),
            "optimizer": copy.deepcopy(self.model.policy.optimizer.state_dict()),
            "counters": {name: getattr(self.model, name) for name in self.COUNTERS},
            "generators": copy.deepcopy(self._generators),
            "action_generator": json.dumps(self.model.action_space.np_random.bit_generator.state),
            "asked": {number: _episode_state(episode) for number, episode in self._asked.items()},
            "reported": [[_episode_state(episode), reward] for episode, reward in self._reported],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to where `state_dict` was taken."""
        super().load_state_dict(state)
        self.model.policy.load_state_dict(state["policy"])
        self.model.policy.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        for name, value in state["counters"].items():
            setattr(self.model, name, value)
        self._generators = copy.deepcopy(state["generators"])
        self.model.action_space.np_random.bit_generator.state = json.loads(state["action_generator"])
        self._asked = {number: _episode(kept) for number, kept in state["asked"].items()}
        self._reported = [(_episode(kept), float(reward)) for kept, reward in state["reported"]]


def executed(legal: NDArray[np.bool_]) -> NDArray[np.int64]:
    """What each action becomes, int64[B, A]: itself, or the legal choice of rank ``action % number of legal ones``."""
    actions = np.arange(legal.shape[1])
    by_rank = np.argsort(~legal, axis=1, kind="stable")
    remapped = np.take_along_axis(by_rank, actions % legal.sum(axis=1, keepdims=True), axis=1)
    return np.where(legal, actions, remapped)


def _shows_tokens(env: Env, length: int) -> bool:
    """Whether the environment's observations are tokens; where a wrapper has changed them, one-hot is taken."""
    env = env.unwrapped
    observations = env.single_observation_space if isinstance(env, VectorEnv) else env.observation_space
    return (
        isinstance(observations, Box)
        and np.issubdtype(observations.dtype, np.integer)
        and observations.shape == (length,)
    )


def _episode_state(episode: Rollout) -> dict[str, torch.Tensor]:
    columns = {"tokens": episode.tokens, **episode.columns}
    return {name: torch.from_numpy(np.ascontiguousarray(column)) for name, column in columns.items()}


def _episode(state: Mapping[str, torch.Tensor]) -> Rollout:
    columns = {name: tensor.numpy() for name, tensor in state.items()}
    return Rollout(columns.pop("tokens"), columns)


def _global_states(device: str) -> list[Any]:
    """The states of torch's, numpy's and Python's global generators: tensors, numbers, strings and lists."""
    name, key, *rest = np.random.get_state()
    cuda = [torch.cuda.get_rng_state(device)] if torch.device(device).type == "cuda" else []
    numpy = [name, torch.from_numpy(np.asarray(key).astype(np.int64)), *rest]
    version, words, gauss = random.getstate()
    return [torch.get_rng_state(), numpy, [version, list(words), gauss], cuda]


def _set_global_states(states: list[Any], device: str) -> None:
    torch_state, (name, key, *rest), (version, words, gauss), cuda = states
    torch.set_rng_state(torch_state)
    np.random.set_state((name, key.numpy().astype(np.uint32), *rest))
    random.setstate((version, tuple(words), gauss))
    for state in cuda:
        torch.cuda.set_rng_state(state, device)
