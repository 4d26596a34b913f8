"""Algorithms of Stable-Baselines3 and sb3-contrib as agents.

The policies, buffers, schedules and updates are theirs. What is ours is the loop around them: theirs steps an
environment and stops where it happens to be; an agent proposes whole architectures, is told rewards, and can be saved
in between. So a rollout consists of whole episodes, `batch_size` of them. Where all episodes of a space are of one
length, an agent comes to the same parameters, to the bit, as the algorithm's own ``learn`` in rollouts of that length.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import math
import random
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import numpy as np
import sb3_contrib
import stable_baselines3
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import LinearSchedule

from nas_gym.spaces import UNDECIDED, Tokens

from .agent import NUM_ENVS, Agent, Env, Floats

Columns = dict[str, NDArray[Any]]

# ---------------------------------------------------------------------- hyperparameters

RENAMED = {"batch_size": "minibatch_size"}  # in every agent, `batch_size` counts architectures
GIVEN = {
    *("self", "policy", "env", "seed", "device", "_init_setup_model"),  # by the agent
    *("n_steps", "train_freq"),  # by `batch_size`; but see `_settings`
    *("verbose", "tensorboard_log", "stats_window_size"),  # the agent's user logs
    *("use_sde", "sde_sample_freq"),  # continuous actions
    *("rollout_buffer_class", "rollout_buffer_kwargs", "replay_buffer_class", "replay_buffer_kwargs"),
    "optimize_memory_usage",
}
SCHEDULES = {"learning_rate", "clip_range", "clip_range_vf"}
SHARES = {"gamma", "gae_lambda", "tau", "exploration_fraction", "exploration_initial_eps", "exploration_final_eps"}
FROM_ZERO = {"learning_starts"}
FROM_MINUS_ONE = {"gradient_steps"}  # -1: as many as there were decisions since the last update


@dataclass(frozen=True)
class SB3Hyperparameters:
    """What the agents add to the arguments of Stable-Baselines3's and sb3-contrib's constructors.

    Those arguments are the other fields, under their own names, with two exceptions: ``minibatch_size`` is their
    ``batch_size``; their ``n_steps`` of a rollout and ``train_freq`` are left out for `batch_size`. ``learning_rate``,
    ``clip_range`` and ``clip_range_vf`` may be schedules in RL Zoo's notation: ``lin_3e-4`` falls from 3e-4 to 0.

    Attributes:
        batch_size: architectures that an update waits for: a rollout, or what is played between two trainings.
        schedule_trials: trials over which schedules and exploration run down; from then on they stay at their end.
    """

    batch_size: int = NUM_ENVS
    schedule_trials: int = 150

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check(field.name, getattr(self, field.name), field.type)

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = {field.name for field in dataclasses.fields(self)} - {"batch_size", "schedule_trials"}
        originals = {ours: theirs for theirs, ours in RENAMED.items()}
        arguments = {originals.get(name, name): getattr(self, name) for name in names}
        for name in SCHEDULES & names:
            if isinstance(arguments[name], str):
                arguments[name] = LinearSchedule(_slope(name, arguments[name]), 0.0, 1.0)
        arguments["policy_kwargs"] = copy.deepcopy(dict(self.policy_kwargs or {}))  # type: ignore[attr-defined]
        activation = arguments["policy_kwargs"].get("activation_fn")
        if activation is not None:
            arguments["policy_kwargs"]["activation_fn"] = _activation(activation)
        return arguments


def _settings(algorithm: type[BaseAlgorithm], *extra: str) -> type[Any]:
    """The dataclass of an algorithm's hyperparameters: its constructor's arguments, with its own defaults."""
    parameters = inspect.signature(algorithm).parameters
    fields = [
        (RENAMED.get(name, name), parameter.annotation, dataclasses.field(default=parameter.default))
        for name, parameter in parameters.items()
        if name in extra or name not in GIVEN
    ]
    return dataclasses.make_dataclass(
        f"{algorithm.__name__}Hyperparameters", fields, bases=(SB3Hyperparameters,), frozen=True
    )


def _check(name: str, value: Any, annotation: Any) -> None:
    """Refuses what is not of the annotated kind, or out of range."""
    kinds = get_args(annotation) or (annotation,)

    def number(least: float = 0.0, most: float = math.inf) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most

    if name in SCHEDULES and isinstance(value, str):
        _slope(name, value)
        return
    if name == "policy_kwargs":
        wanted, good = "a mapping", isinstance(value, Mapping)
        if good:
            _activation(value.get("activation_fn", "Tanh"))
    elif bool in kinds:
        wanted, good = "true or false", isinstance(value, bool)
    elif name in SHARES:
        wanted, good = "in [0, 1]", number(most=1.0)
    elif float in kinds:
        wanted, good = "a number that is not negative", number() and value < math.inf
    else:
        least = 0 if name in FROM_ZERO else -1 if name in FROM_MINUS_ONE else 1
        wanted, good = f"an integer of at least {least}", isinstance(value, int) and number(least)
    if type(None) in kinds:
        wanted, good = f"{wanted}, or None", good or value is None
    if not good:
        raise ValueError(f"{name} must be {wanted}, got {value!r}")


def _slope(name: str, text: str) -> float:
    """Where a schedule such as lin_3e-4 starts."""
    kind, _, start = text.partition("_")
    try:
        found = float(start)
    except ValueError:
        found = -1.0
    if kind != "lin" or not 0 <= found < math.inf:
        raise ValueError(f"{name} must be a number, or a linear schedule such as 'lin_3e-4'; got {text!r}")
    return found


def _activation(name: Any) -> type[torch.nn.Module]:
    found = getattr(torch.nn, name, None) if isinstance(name, str) else None
    if not isinstance(found, type) or not issubclass(found, torch.nn.Module):
        raise ValueError(f"policy_kwargs.activation_fn must be a name in torch.nn, such as 'Tanh'; got {name!r}")
    return found


# ---------------------------------------------------------------------- what the algorithms have in common


@dataclass
class Episode:
    """One architecture as it was decided, L decisions long.

    Attributes:
        tokens: int64[T].
        columns: what the algorithm noted at each decision, [L, ...] by name: ``observations``, ``actions``...
    """

    tokens: Tokens
    columns: Columns

    def __len__(self) -> int:
        return len(self.columns["actions"])


class SB3Agent(Agent):
    """An algorithm of Stable-Baselines3 or sb3-contrib.

    Its actions are all A choices of the environment; one that is illegal becomes the legal choice of rank
    ``action % number of legal choices``, as in an environment with ``on_invalid="remap"``, and is learned from as the
    action that it was. Those that know masks never take one.

    `tell` learns from what `ask` has given since the last update; other architectures are passed over, because they
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
        self._asked: list[Episode] = []
        self._told: list[tuple[Episode, float]] = []

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

    def ask(self, n: int) -> Tokens:
        """Plays n episodes in lockstep, without a reward."""
        self.model.policy.set_training_mode(False)
        with self._lent_generators():
            episodes = self._play(n)
        self._asked += episodes
        return np.array([episode.tokens for episode in episodes]).reshape(n, self.space.length)

    def _play(self, n: int) -> list[Episode]:
        space = self.open_space
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
            choices = _executed(legal)[np.arange(n), columns["actions"]]
            tokens[playing, position] = choices[playing]
            lengths += playing
            stopped = playing & (choices == space.stop_choices[position])
            tokens[stopped, position + 1 :] = space.absent_choices[position + 1 :]
            playing &= ~stopped
            if not playing.any():
                break
        columns = {name: np.stack([step[name] for step in steps], axis=1) for name in steps[0]} if n else {}
        return [
            Episode(tokens[row], {name: column[row, :length] for name, column in columns.items()})
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

    def tell(self, tokens: Tokens, rewards: Floats) -> dict[str, float]:
        """Keeps the episodes until there are `batch_size` of them, then makes an update on all that it keeps."""
        for row, reward in zip(tokens, rewards, strict=True):
            found = next((i for i, asked in enumerate(self._asked) if np.array_equal(asked.tokens, row)), None)
            if found is not None:
                self._told.append((self._asked.pop(found), float(reward)))
        decisions = sum(len(episode) for episode, _ in self._told)
        # Of a single decision, advantages have no standard deviation.
        if len(self._told) < self.hyperparameters.batch_size or decisions < 2:
            return {}
        told, self._told, self._asked = self._told, [], []
        with self._lent_generators():
            self._update(told, decisions)
        logger = self.model.logger
        statistics = {tag: float(value) for tag, value in logger.name_to_value.items()}
        logger.dump()  # which empties it
        return statistics

    @abstractmethod
    def _update(self, told: list[tuple[Episode, float]], decisions: int) -> None:
        """Learns from episodes and their rewards, of so many decisions in all."""

    def _progress(self) -> None:
        """Moves the schedules on to where the model's steps are."""
        horizon = self.hyperparameters.schedule_trials * self.space.length
        self.model._current_progress_remaining = max(0.0, 1.0 - float(self.model.num_timesteps) / float(horizon))

    # ------------------------------------------------------------------ play

    def policy(self, tokens: Tokens, positions: NDArray[np.int64]) -> Floats:
        """The probabilities of what the algorithm's actions become, illegal ones included."""
        prefixes = np.where(np.arange(self.space.length) < positions[:, None], tokens, UNDECIDED)
        legal = self.open_space.legal(prefixes, positions)
        self.model.policy.set_training_mode(False)
        with torch.no_grad():
            raw = self._probabilities(prefixes, positions, legal)
        probabilities = np.zeros_like(raw)
        np.add.at(probabilities, (np.arange(len(raw))[:, None], _executed(legal)), raw)
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
        """Parameters, optimiser, counters, episodes that wait, and random states, beside the history."""
        # Copies: parameters and moments go on changing with the agent.
        return {
            **super().state_dict(),
            "policy": copy.deepcopy(self.model.policy.state_dict()),
            "optimizer": copy.deepcopy(self.model.policy.optimizer.state_dict()),
            "counters": {name: getattr(self.model, name) for name in self.COUNTERS},
            "generators": copy.deepcopy(self._generators),
            "action_generator": json.dumps(self.model.action_space.np_random.bit_generator.state),
            "asked": [_episode_state(episode) for episode in self._asked],
            "told": [[_episode_state(episode), reward] for episode, reward in self._told],
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
        self._asked = [_episode(kept) for kept in state["asked"]]
        self._told = [(_episode(kept), float(reward)) for kept, reward in state["told"]]


def _executed(legal: NDArray[np.bool_]) -> NDArray[np.int64]:
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


def _episode_state(episode: Episode) -> dict[str, torch.Tensor]:
    columns = {"tokens": episode.tokens, **episode.columns}
    return {name: torch.from_numpy(np.ascontiguousarray(column)) for name, column in columns.items()}


def _episode(state: Mapping[str, torch.Tensor]) -> Episode:
    columns = {name: tensor.numpy() for name, tensor in state.items()}
    return Episode(columns.pop("tokens"), columns)


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


# ---------------------------------------------------------------------- on-policy


class SB3OnPolicyAgent(SB3Agent):
    """An algorithm that learns from each rollout once, and by its policy alone."""

    def _rollout_arguments(self) -> dict[str, Any]:
        return {"n_steps": self.hyperparameters.batch_size * self.space.length}

    def _step(self, observations: NDArray[Any], legal: NDArray[np.bool_], memory: Any) -> tuple[Columns, Any]:
        with torch.no_grad():
            found = self.model.policy(self._tensor(observations))
        return self._columns(*found), None

    @staticmethod
    def _columns(actions: torch.Tensor, values: torch.Tensor, log_probs: torch.Tensor) -> Columns:
        columns = {"actions": actions, "values": values.flatten(), "log_probs": log_probs}
        return {name: column.cpu().numpy() for name, column in columns.items()}

    def _update(self, told: list[tuple[Episode, float]], decisions: int) -> None:
        model = self.model
        # One episode behind the other, as one sub-environment would have played them. The algorithms read the
        # rollouts of several in the same order, one sub-environment after the other.
        model.rollout_buffer = buffer = self._make_buffer(decisions)
        for episode, reward in told:
            for step in range(len(episode)):
                at = {name: column[step : step + 1] for name, column in episode.columns.items()}
                buffer.add(
                    at["observations"],
                    at["actions"][:, None],
                    np.array([reward if step == len(episode) - 1 else 0.0]),
                    np.array([step == 0]),
                    torch.from_numpy(at["values"]),
                    torch.from_numpy(at["log_probs"]),
                    **self._extras(at),
                )
        buffer.compute_returns_and_advantage(torch.zeros(1), np.ones(1))
        model.num_timesteps += decisions
        self._progress()
        self._train(decisions)

    def _train(self, decisions: int) -> None:
        size = getattr(self.model, "batch_size", None)
        if size is not None:
            # A last minibatch of one would have no standard deviation of advantages, and spoil the network.
            self.model.batch_size = next(b for b in range(size, size + decisions + 2) if decisions % b != 1)
        self.model.train()
        if size is not None:
            self.model.batch_size = size

    def _make_buffer(self, size: int) -> Any:
        model = self.model
        return type(model.rollout_buffer)(
            size,
            model.observation_space,
            model.action_space,
            device=model.device,
            gae_lambda=model.gae_lambda,
            gamma=model.gamma,
        )

    def _extras(self, at: Columns) -> dict[str, Any]:
        """Further arguments of the buffer's `add`, from the columns of one decision."""
        return {}

    def _probabilities(self, prefixes: Tokens, positions: NDArray[np.int64], legal: NDArray[np.bool_]) -> Floats:
        return _probs(self.model.policy.get_distribution(self._tensor(self._observe(prefixes))))


def _probs(distribution: Any) -> Floats:
    found: Floats = distribution.distribution.probs.double().cpu().numpy()
    return found


class SB3PPO(SB3OnPolicyAgent):
    """Proximal policy optimisation of Stable-Baselines3: clipped steps, several passes over each rollout.

    Source: Schulman et al. 2017, "Proximal Policy Optimization Algorithms"; Raffin et al. 2021, "Stable-Baselines3".
    """

    name = "sb3:ppo"
    algorithm = stable_baselines3.PPO
    Hyperparameters = _settings(stable_baselines3.PPO)


class SB3A2C(SB3OnPolicyAgent):
    """Advantage actor-critic of Stable-Baselines3: one gradient step a rollout.

    Source: Mnih et al. 2016, "Asynchronous Methods for Deep Reinforcement Learning", here synchronous; Raffin et al.
    2021, "Stable-Baselines3".
    """

    name = "sb3:a2c"
    algorithm = stable_baselines3.A2C
    Hyperparameters = _settings(stable_baselines3.A2C)


class SB3TRPO(SB3OnPolicyAgent):
    """Trust region policy optimisation of sb3-contrib: natural gradient steps of bounded divergence.

    Source: Schulman et al. 2015, "Trust Region Policy Optimization"; Raffin et al. 2021, "Stable-Baselines3".
    """

    name = "sb3:trpo"
    algorithm = sb3_contrib.TRPO
    Hyperparameters = _settings(sb3_contrib.TRPO)


class SB3MaskablePPO(SB3OnPolicyAgent):
    """Proximal policy optimisation of sb3-contrib over legal choices only.

    Source: Huang & Ontanon 2022, "A Closer Look at Invalid Action Masking in Policy Gradient Algorithms"; Schulman et
    al. 2017.
    """

    name = "sb3:maskable-ppo"
    algorithm = sb3_contrib.MaskablePPO
    Hyperparameters = _settings(sb3_contrib.MaskablePPO)

    def _step(self, observations: NDArray[Any], legal: NDArray[np.bool_], memory: Any) -> tuple[Columns, Any]:
        with torch.no_grad():
            found = self.model.policy(self._tensor(observations), action_masks=legal)
        return {**self._columns(*found), "action_masks": legal}, None

    def _extras(self, at: Columns) -> dict[str, Any]:
        return {"action_masks": at["action_masks"]}

    def _probabilities(self, prefixes: Tokens, positions: NDArray[np.int64], legal: NDArray[np.bool_]) -> Floats:
        observations = self._tensor(self._observe(prefixes))
        return _probs(self.model.policy.get_distribution(observations, action_masks=legal))


STATES = ("hidden_pi", "cell_pi", "hidden_vf", "cell_vf")


class SB3RecurrentPPO(SB3OnPolicyAgent):
    """Proximal policy optimisation of sb3-contrib with an LSTM, which remembers the decisions so far.

    Source: Schulman et al. 2017; Raffin et al. 2021, "Stable-Baselines3".
    """

    name = "sb3:recurrent-ppo"
    algorithm = sb3_contrib.RecurrentPPO
    policy_name = "MlpLstmPolicy"
    Hyperparameters = _settings(sb3_contrib.RecurrentPPO)

    def _step(self, observations: NDArray[Any], legal: NDArray[np.bool_], memory: Any) -> tuple[Columns, Any]:
        n = len(observations)
        states = self._no_memory(n) if memory is None else memory
        starts = torch.full((n,), float(memory is None), device=self.model.device)
        with torch.no_grad():
            *found, following = self.model.policy(self._tensor(observations), states, starts)
        # Noted as they were before the step: what the update starts from.
        before = zip(STATES, (*states.pi, *states.vf), strict=True)
        noted = {name: state.transpose(0, 1).cpu().numpy().copy() for name, state in before}
        return {**self._columns(*found), **noted}, following

    def _no_memory(self, n: int) -> RNNStates:
        lstm = self.model.policy.lstm_actor
        pi, vf = (
            tuple(torch.zeros(lstm.num_layers, n, lstm.hidden_size, device=self.model.device) for _ in range(2))
            for _ in range(2)
        )
        return RNNStates(pi, vf)

    def _make_buffer(self, size: int) -> Any:
        model = self.model
        lstm = model.policy.lstm_actor
        return type(model.rollout_buffer)(
            size,
            model.observation_space,
            model.action_space,
            (size, lstm.num_layers, 1, lstm.hidden_size),
            device=model.device,
            gae_lambda=model.gae_lambda,
            gamma=model.gamma,
        )

    def _extras(self, at: Columns) -> dict[str, Any]:
        hidden_pi, cell_pi, hidden_vf, cell_vf = (torch.from_numpy(at[name]).transpose(0, 1) for name in STATES)
        return {"lstm_states": RNNStates((hidden_pi, cell_pi), (hidden_vf, cell_vf))}

    def _probabilities(self, prefixes: Tokens, positions: NDArray[np.int64], legal: NDArray[np.bool_]) -> Floats:
        """Decides again what the prefixes have decided, for the memory of it."""
        found = np.zeros(legal.shape)
        states = self._no_memory(len(prefixes)).pi
        for position in range(int(positions.max(initial=-1)) + 1):
            seen = np.where(np.arange(self.space.length) < position, prefixes, UNDECIDED)
            starts = torch.full((len(prefixes),), float(position == 0), device=self.model.device)
            distribution, states = self.model.policy.get_distribution(self._tensor(self._observe(seen)), states, starts)
            here = positions == position
            found[here] = _probs(distribution)[here]
        return found


# ---------------------------------------------------------------------- off-policy


class SB3OffPolicyAgent(SB3Agent):
    """An algorithm that learns the value of actions from a memory of all decisions, and explores by chance."""

    COUNTERS = (*SB3Agent.COUNTERS, "_n_calls", "exploration_rate")

    def _rollout_arguments(self) -> dict[str, Any]:
        return {"train_freq": self.hyperparameters.batch_size * self.space.length}

    def _step(self, observations: NDArray[Any], legal: NDArray[np.bool_], memory: Any) -> tuple[Columns, Any]:
        model = self.model
        model._last_obs = observations
        actions, _ = model._sample_action(model.learning_starts, None, len(observations))
        return {"actions": actions.astype(np.int64)}, None

    def _count(self, steps: int) -> None:
        self.model.num_timesteps += steps
        self._progress()
        for _ in range(steps):
            self.model._on_step()

    def _update(self, told: list[tuple[Episode, float]], decisions: int) -> None:
        model = self.model
        for episode, reward in told:
            observations = episode.columns["observations"]
            following = np.concatenate([observations[1:], self._observe(episode.tokens[None])])
            for step, action in enumerate(episode.columns["actions"]):
                last = step == len(episode) - 1
                earned, done = np.array([reward if last else 0.0]), np.array([last])
                model.replay_buffer.add(
                    observations[step : step + 1], following[step : step + 1], action, earned, done, [{}]
                )
        if model.num_timesteps > model.learning_starts:
            steps = model.gradient_steps if model.gradient_steps >= 0 else decisions
            if steps:
                model.train(batch_size=model.batch_size, gradient_steps=steps)

    def _probabilities(self, prefixes: Tokens, positions: NDArray[np.int64], legal: NDArray[np.bool_]) -> Floats:
        """Greedy but for the exploration rate, as the algorithm predicts; while it only explores, uniform."""
        model, choices = self.model, self.space.num_choices
        rate = 1.0 if model.num_timesteps < model.learning_starts else model.exploration_rate
        best = model.policy._predict(self._tensor(self._observe(prefixes)), deterministic=True).cpu().numpy()
        greedy = best.reshape(-1, 1) == np.arange(choices)
        return np.asarray(rate / choices + (1 - rate) * greedy, dtype=np.float64)

    REPLAY: ClassVar[tuple[str, ...]] = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")

    def state_dict(self) -> dict[str, Any]:
        """The replay buffer as well."""
        buffer = self.model.replay_buffer
        filled = buffer.buffer_size if buffer.full else buffer.pos
        replay = {name: torch.from_numpy(getattr(buffer, name)[:filled].copy()) for name in self.REPLAY}
        return {**super().state_dict(), "replay": {"pos": buffer.pos, "full": buffer.full, **replay}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        buffer = self.model.replay_buffer
        buffer.pos, buffer.full = int(state["replay"]["pos"]), bool(state["replay"]["full"])
        for name in self.REPLAY:
            getattr(buffer, name)[: len(state["replay"][name])] = state["replay"][name].numpy()


class SB3DQN(SB3OffPolicyAgent):
    """Deep Q-learning of Stable-Baselines3: the value of every choice, learned from replayed decisions.

    Source: Mnih et al. 2015, "Human-level control through deep reinforcement learning"; Raffin et al. 2021,
    "Stable-Baselines3".
    """

    name = "sb3:dqn"
    algorithm = stable_baselines3.DQN
    Hyperparameters = _settings(stable_baselines3.DQN, "n_steps")


class SB3QRDQN(SB3OffPolicyAgent):
    """Quantile-regression DQN of sb3-contrib: the distribution of the value of every choice.

    Source: Dabney et al. 2018, "Distributional Reinforcement Learning with Quantile Regression"; Raffin et al. 2021,
    "Stable-Baselines3".
    """

    name = "sb3:qrdqn"
    algorithm = sb3_contrib.QRDQN
    Hyperparameters = _settings(sb3_contrib.QRDQN, "n_steps")
