"""What every agent is: it asks for architectures, is told their rewards, and learns through an environment."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import gymnasium as gym
import numpy as np
import yaml
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from nas_gym.files import load_tensors, replacing
from nas_gym.spaces import UNDECIDED, Architecture, SearchSpace, Tokens, TransformationSpace, draw, make_space

from .pareto import hypervolume, nondominated, signs

Floats = NDArray[np.float64]
Env = gym.Env[Any, Any] | VectorEnv[Any, Any, Any]

AGENTS: dict[str, str] = {
    "random": "nas_gym.agents.random_search:RandomSearch",
    "reinforce": "nas_gym.agents.reinforce:Reinforce",
    "ppo": "nas_gym.agents.ppo:PPO",
    "multitask": "nas_gym.agents.multitask:MultiTask",
    "local-search": "nas_gym.agents.local_search:LocalSearch",
    "regularized-evolution": "nas_gym.agents.regularized_evolution:RegularizedEvolution",
    "tournament": "nas_gym.agents.tournament_evolution:TournamentEvolution",
    "successive-halving": "nas_gym.agents.successive_halving:SuccessiveHalving",
    "eas": "nas_gym.agents.eas:EAS",
    "sb3:ppo": "nas_gym.agents.stable_baselines:SB3PPO",
    "sb3:a2c": "nas_gym.agents.stable_baselines:SB3A2C",
    "sb3:dqn": "nas_gym.agents.stable_baselines:SB3DQN",
    "sb3:maskable-ppo": "nas_gym.agents.stable_baselines:SB3MaskablePPO",
    "sb3:recurrent-ppo": "nas_gym.agents.stable_baselines:SB3RecurrentPPO",
    "sb3:trpo": "nas_gym.agents.stable_baselines:SB3TRPO",
    "sb3:qrdqn": "nas_gym.agents.stable_baselines:SB3QRDQN",
}

NUM_ENVS = 10
"""Sub-environments of an agent that is given an environment's id: ENAS's controller batch."""


@dataclass
class SearchResult:
    """The history of a search: n trials in the order in which they were asked for.

    Attributes:
        space: the search space.
        tokens: int64[n, T].
        rewards: float64[n].
        metrics: float64[n] by name: ``accuracy``, ``failed`` and whatever else the evaluator tells; NaN where untold.
            ``fidelity`` is the share of the full budget that a trial was evaluated with; untold, it is 1.
    """

    space: SearchSpace
    tokens: Tokens
    rewards: Floats
    metrics: dict[str, Floats] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def fidelities(self) -> Floats:
        """The share of the full budget that each trial was evaluated with, float64[n] in (0, 1]."""
        return np.nan_to_num(self.metrics.get("fidelity", np.ones(len(self))), nan=1.0)

    @property
    def best_trial(self) -> int:
        """The trial of the highest reward among those of the highest fidelity, the first of them on ties.

        Raises:
            ValueError: there is no trial yet.
        """
        if not len(self):
            raise ValueError("a search without trials has no best architecture")
        comparable = self.fidelities == self.fidelities.max()
        return int(np.where(comparable, self.rewards, -np.inf).argmax())

    @property
    def best(self) -> Architecture:
        """The architecture of `best_trial`.

        Raises:
            ValueError: there is no trial yet.
        """
        return self.space.architecture(self.tokens[self.best_trial])

    @property
    def best_reward(self) -> float:
        """The reward of `best_trial`; -inf without trials."""
        return float(self.rewards[self.best_trial]) if len(self) else -np.inf

    @property
    def unique_architectures(self) -> int:
        """How many different sequences were tried."""
        return len(np.unique(self.tokens, axis=0))

    def pareto_front(self, *names: str) -> NDArray[np.int64]:
        """The trials that no other one dominates: none is as good in all of several respects and better in one.

        Of ``accuracy`` and ``reward`` more is better, of every other metric less. Trials count that have not failed,
        are told all of these, and were evaluated with the highest fidelity. Where several are equal in all of these,
        the first stands for them.

        Args:
            *names: metrics, or ``reward``: ``pareto_front("accuracy", "latency")``.

        Returns:
            Their numbers, int64[front], ascending.

        Raises:
            ValueError: no name, or one of no metric.
        """
        comparable, points = self._points(names)
        different = np.sort(np.unique(points, axis=0, return_index=True)[1])
        front: NDArray[np.int64] = comparable[different[nondominated(points[different])]]
        return front

    def hypervolume(self, reference: Mapping[str, float]) -> float:
        """The volume between the Pareto front and a reference point: the larger, the better the front.

        Args:
            reference: the worst that counts, by the names of `pareto_front`: ``{"accuracy": 0.1, "latency": 0.05}``.

        Raises:
            ValueError: no name, or one of no metric.
        """
        _, points = self._points(tuple(reference))
        return hypervolume(points, signs(tuple(reference)) * list(reference.values()))

    def _points(self, names: Sequence[str]) -> tuple[NDArray[np.int64], Floats]:
        """The trials that compare, and their columns, turned so that more is better, float64[trials, names]."""
        if not names:
            raise ValueError("a Pareto front needs at least one metric, such as 'accuracy'")
        points = np.column_stack([self._column(name) for name in names]) * signs(names)
        sound = np.isfinite(points).all(axis=1) & ~(self.metrics.get("failed", np.zeros(len(self))) > 0)
        comparable = np.flatnonzero(sound & (self.fidelities == self.fidelities.max(initial=0.0)))
        return comparable, points[comparable]

    def _column(self, name: str) -> Floats:
        columns = {"reward": self.rewards, **self.metrics}
        if name not in columns:
            raise ValueError(f"the trials have no metric {name!r}; known: {', '.join(columns)}")
        return columns[name]

    def rows(self, index: slice | NDArray[np.int64] | NDArray[np.bool_]) -> SearchResult:
        """The trials at `index`."""
        metrics = {name: column[index] for name, column in self.metrics.items()}
        return SearchResult(self.space, self.tokens[index], self.rewards[index], metrics)


def joined(space: SearchSpace, parts: list[SearchResult]) -> SearchResult:
    """One history behind the other."""
    names = dict.fromkeys(name for part in parts for name in part.metrics)
    return SearchResult(
        space,
        np.concatenate([np.empty((0, space.length), dtype=np.int64), *(part.tokens for part in parts)]),
        np.concatenate([np.empty(0), *(part.rewards for part in parts)]),
        {
            name: np.concatenate([part.metrics.get(name, np.full(len(part), np.nan)) for part in parts])
            for name in names
        },
    )


@dataclass
class Budget:
    """What a search may spend: trials and, as benchmarks on tables have it, simulated time.

    The simulated time is what the trials would have taken one after another, by the evaluator's metric ``seconds``.
    The trial that would end beyond the budget is cut, as in the searches of Dong & Yang 2020 ("NAS-Bench-201", 20,000
    seconds); those of NATS-Bench (Dong et al. 2021) keep it.

    Attributes:
        trials: those left.
        seconds: the simulated time in all; None sets no limit.
        clock: the simulated time that has passed.

    Raises:
        ValueError: trials or seconds is negative.
    """

    trials: int
    seconds: float | None = None
    clock: float = 0.0

    def __post_init__(self) -> None:
        if self.trials < 0:
            raise ValueError(f"trials must not be negative, got {self.trials}")
        if self.seconds is not None and not self.seconds >= 0:
            raise ValueError(f"seconds must not be negative, got {self.seconds}")

    @property
    def spent(self) -> bool:
        """Whether there is nothing left for another trial."""
        return self.trials == 0 or (self.seconds is not None and self.clock >= self.seconds)

    def take(self, trials: SearchResult) -> SearchResult:
        """Spends on these trials, in their order, and returns those that the budget allows.

        Raises:
            ValueError: there is a limit of seconds, and the evaluator does not tell them.
        """
        trials = trials.rows(slice(self.trials))
        if self.seconds is not None:
            # From the last sum on, one by one: the same to the bit however the trials fall into batches.
            clocks = np.cumsum([self.clock, *simulated_seconds(trials.metrics)])[1:]
            trials, self.clock = trials.rows(slice(int((clocks <= self.seconds).sum()))), float(clocks[-1])
        self.trials -= len(trials)
        return trials


def simulated_seconds(metrics: Mapping[str, Floats]) -> Floats:
    """What each trial would have taken, float64[n], by the metric ``seconds``; 0 where it is untold.

    Raises:
        ValueError: there is no such metric.
    """
    if "seconds" not in metrics:
        raise ValueError(
            "a budget of simulated seconds needs an evaluator with the metric 'seconds', such as a table that has the "
            f"seconds of an epoch; the metrics here are {', '.join(metrics) or 'none'}"
        )
    return np.nan_to_num(metrics["seconds"], nan=0.0)


class Callback:
    """What `Agent.learn` calls around every batch of trials. Both methods do nothing until they are overridden."""

    def before_trials(self, agent: Agent) -> None:
        """Called before the agent asks for the next batch: the moment to run training that is due beforehand."""

    def after_trials(self, agent: Agent, trials: SearchResult, statistics: dict[str, float]) -> bool | None:
        """Called after the agent has learned from a batch, and so the moment to log and to save.

        Args:
            agent: the agent; `agent.result` is the whole history.
            trials: the new trials alone.
            statistics: what the agent's `tell` returned, by TensorBoard tag.

        Returns:
            False to stop the search here.
        """
        return True


class Agent(ABC):
    """A search algorithm: `ask` proposes architectures, `tell` learns from their rewards, `learn` plays the two.

    Args:
        env: an environment's id (`NUM_ENVS` of them are made, as a vector environment), a construction environment,
            or a vector of them.
        seed: of the agent's own random state; global ones are neither read nor changed.
        hyperparameters: an instance of the agent's `Hyperparameters`, or a mapping of the fields that differ from the
            agent's settings for this environment (`load_hyperparameters`).
        device: where the agent's networks run.

    Attributes:
        env: the environment.
        space: its search space.
        rng: the agent's numpy generator.
        reset_options: the options of the episodes that the architectures last asked for are to be played in, [n] each
            by the option's name: ``fidelity``, the share of the full budget to evaluate with, or ``task``. Empty, and
            it stays so in most agents, leaves all to the environment.

    Raises:
        ValueError: the environment has no search space, or rewards that are vectors; a hyperparameter is unknown or out
            of range.
    """

    name: ClassVar[str]
    Hyperparameters: ClassVar[type[Any]]

    def __init__(
        self,
        env: Env | str,
        seed: int = 0,
        hyperparameters: Mapping[str, Any] | Any = None,
        device: str = "cpu",
    ) -> None:
        self.env: Env = gym.make_vec(env, num_envs=NUM_ENVS) if isinstance(env, str) else env
        self.space = _search_space(self.env)
        _check_rewards(self.env)
        if not isinstance(hyperparameters, self.Hyperparameters):
            spec = self.env.spec
            hyperparameters = load_hyperparameters(self.name, spec.id if spec else None, hyperparameters)
        self.hyperparameters = hyperparameters
        self.device = device
        self.rng = np.random.default_rng(seed)
        self.reset_options: Mapping[str, NDArray[Any]] = {}
        self._history: list[SearchResult] = []

    # ------------------------------------------------------------------ search

    @property
    def open_space(self) -> SearchSpace:
        """The part of the space that is open to the next trials: all of it, unless it changes in a search."""
        return self.open_at(self.trials)

    def open_at(self, trial: int) -> SearchSpace:
        """The part of the space that is open to a trial, counted from 0, that those recorded so far lead up to.

        A space may grow with the trials. With the environment's `restart_after`, trials grow out of the best before.
        """
        space = self.space.at_trial(trial)
        restart_after = attribute(self.env, "restart_after")
        if restart_after is None or trial < restart_after:
            return space
        assert isinstance(space, TransformationSpace)
        known = self.result.rows(slice(trial - trial % restart_after))
        return space.growing_from_best(known.tokens, known.rewards)

    @abstractmethod
    def ask(self, n: int) -> Tokens:
        """Proposes n architectures, int64[n, T], legal and filled."""

    @abstractmethod
    def tell(self, tokens: Tokens, rewards: Floats) -> dict[str, float]:
        """Learns from the rewards float64[n] of the architectures int64[n, T].

        Returns:
            Scalars to log by their TensorBoard tag (``train/policy_loss``), empty if nothing was updated.
        """

    def learn(self, trials: int, callback: Callback | None = None, seconds: float | None = None) -> SearchResult:
        """Searches through the environment, a batch of `num_envs` trials at a time.

        Where the last batch would overrun the budget, its trials of higher index are played but neither told to the
        agent nor recorded. Called again, the search goes on.

        Args:
            trials: how many trials to add, at most.
            callback: called around every batch; may stop the search.
            seconds: how much simulated time to add, at most (see `Budget`); None sets no limit.

        Returns:
            The whole history, earlier calls included.

        Raises:
            ValueError: trials or seconds is negative; with seconds, the evaluator does not tell them.
        """
        budget = Budget(trials, seconds)
        callback = callback or Callback()
        num_envs = self.env.num_envs if isinstance(self.env, VectorEnv) else 1
        while not budget.spent:
            callback.before_trials(self)
            tokens = self.ask(num_envs)
            new = budget.take(SearchResult(self.space, tokens, *play(self.env, tokens, self.reset_options)))
            if not len(new) or not self.record(new, callback):
                break
        return self.result

    def record(self, new: SearchResult, callback: Callback) -> bool:
        """Learns from trials that have ended, and adds them to the history; False if the callback stops the search."""
        statistics = self.tell(new.tokens, new.rewards)
        self._history.append(new)
        return callback.after_trials(self, new, statistics) is not False

    @classmethod
    def learn_seeds(
        cls,
        make_env: Callable[[int], Env],
        seeds: Sequence[int],
        trials: int,
        hyperparameters: Any,
        device: str = "cpu",
    ) -> list[SearchResult]:
        """Searches once from each seed; here one search after another, in some agents all in one program.

        Args:
            make_env: makes an environment of so many sub-environments.
            seeds: of the searches.
            trials: of each search.
            hyperparameters: an instance of the agent's `Hyperparameters`.
            device: where the agent's networks run.

        Returns:
            The history of each search, equal to that of an agent of its seed alone, `num_envs` of it at a time:
            the agent's ``batch_size``, or 1 where it has none.
        """
        env = make_env(getattr(hyperparameters, "batch_size", 1))
        return [cls(env, seed, hyperparameters, device).learn(trials) for seed in seeds]

    @property
    def trials(self) -> int:
        """How many trials `learn` has recorded."""
        return sum(map(len, self._history))

    @property
    def result(self) -> SearchResult:
        """All trials so far."""
        self._history = [joined(self.space, self._history)]
        return self._history[0]

    # ------------------------------------------------------------------ play

    @abstractmethod
    def policy(self, tokens: Tokens, positions: NDArray[np.int64]) -> Floats:
        """The probabilities float64[B, A] of the next choice after prefixes.

        Args:
            tokens: int64[B, T]; only columns before a row's position are read.
            positions: int64[B], the decision to be taken in each row.
        """

    def act(
        self, observation: NDArray[Any], action_mask: NDArray[Any] | None = None, deterministic: bool = False
    ) -> NDArray[np.int64]:
        """Chooses the next action from what the environment shows, in either form, ``"onehot"`` or ``"tokens"``.

        Args:
            observation: one observation, or a batch [B, ...].
            action_mask: [A] or [B, A], nonzero where legal; without it, what the space finds legal.
            deterministic: take the likeliest legal action instead of drawing one.

        Returns:
            int64, 0-dimensional for one observation, or [B]. An episode that is over gets action 0.

        Raises:
            ValueError: the observation is of neither form, or a mask forbids everything.
        """
        tokens = self._tokens(np.asarray(observation))
        single = tokens.ndim == 1
        tokens = np.atleast_2d(tokens)
        positions = (tokens != UNDECIDED).sum(axis=1)
        playing = positions < self.space.length
        actions = np.zeros(len(tokens), dtype=np.int64)
        tokens, positions = tokens[playing], positions[playing]
        if len(tokens):
            legal = self.space.legal(tokens, positions)
            if action_mask is not None:
                legal &= np.atleast_2d(np.asarray(action_mask, dtype=bool))[playing]
            if not legal.any(axis=1).all():
                raise ValueError(f"action_mask leaves no legal action: {action_mask!r}")
            # A legal choice may underflow to zero; a tiny share keeps it possible.
            weights = np.where(legal, self.policy(tokens, positions) + np.finfo(np.float64).tiny, 0.0)
            actions[playing] = weights.argmax(axis=1) if deterministic else draw(weights, self.rng)
        return actions[0] if single else actions

    def _tokens(self, observation: NDArray[Any]) -> Tokens:
        """int64[..., T] of an observation of either form, -1 where undecided."""
        length, choices = self.space.length, self.space.num_choices
        if np.issubdtype(observation.dtype, np.floating) and observation.shape[-1:] == (length * choices,):
            onehot = observation.reshape(*observation.shape[:-1], length, choices)
            return np.where(onehot.any(axis=-1), onehot.argmax(axis=-1), UNDECIDED)
        if np.issubdtype(observation.dtype, np.integer) and observation.shape[-1:] == (length,):
            return observation.astype(np.int64)
        raise ValueError(
            f"observation must be one-hot, floats of shape (..., {length * choices}), or tokens, integers of shape "
            f"(..., {length}); got {observation.dtype} of shape {observation.shape}"
        )

    # ------------------------------------------------------------------ keeping

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to go on exactly from here: tensors, numbers, strings, lists and dicts."""
        import torch

        result = self.result
        return {
            # The generator's state holds 128-bit integers, which only text keeps everywhere.
            "rng": json.dumps(self.rng.bit_generator.state),
            "tokens": torch.from_numpy(result.tokens),
            "rewards": torch.from_numpy(result.rewards),
            "metrics": {name: torch.from_numpy(column) for name, column in result.metrics.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to where `state_dict` was taken."""
        self.rng.bit_generator.state = json.loads(state["rng"])
        metrics = {name: column.numpy() for name, column in state["metrics"].items()}
        self._history = [SearchResult(self.space, state["tokens"].numpy(), state["rewards"].numpy(), metrics)]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the agent to a file, which at any moment holds either all of it or what was there before."""
        import torch

        record = {
            "agent": self.name,
            "hyperparameters": _plain(dataclasses.asdict(self.hyperparameters)),
            "space": _plain(self.space.to_dict()),
            "state": self.state_dict(),
        }
        with replacing(Path(path)) as temporary:
            torch.save(record, temporary)

    @classmethod
    def load(cls, path: str | os.PathLike[str], env: Env | str, device: str = "cpu") -> Self:
        """Reads what `save` wrote; called on `Agent` itself it makes whichever agent the file holds.

        Raises:
            ValueError: the file is corrupted, holds no agent or another one, or one of another space than the
                environment's.
        """
        record = read_record(path)
        found = agent_class(record["agent"])
        if not issubclass(found, cls):
            raise ValueError(f"{os.fspath(path)!r} holds an agent {record['agent']!r}, not {cls.name!r}")
        agent = found(env, hyperparameters=record["hyperparameters"], device=device)
        if make_space(record["space"]) != agent.space:
            raise ValueError(f"{os.fspath(path)!r} is of the space {record['space']}, the environment of {agent.space}")
        agent.load_state_dict(record["state"])
        return agent


def read_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `Agent.save` wrote: ``agent``, ``hyperparameters``, ``space`` and ``state``.

    Raises:
        ValueError: the file is corrupted, or holds something else.
    """
    record = load_tensors(path)
    if not isinstance(record, dict) or not record.keys() >= {"agent", "hyperparameters", "space", "state"}:
        raise ValueError(f"{os.fspath(path)!r} holds no saved agent")
    return record


def _plain(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    return json.loads(json.dumps(value))


def _search_space(env: Env) -> SearchSpace:
    if not isinstance(env, gym.Env | VectorEnv):
        raise ValueError(f"env must be an environment's id, an environment or a vector environment; got {env!r}")
    space = attribute(env, "search_space")
    if not isinstance(space, SearchSpace):
        raise ValueError(f"env must be a construction environment, with a `search_space`; got {env!r}")
    return space


def _check_rewards(env: Env) -> None:
    dimensions = attribute(env, "reward_dim")
    if dimensions is not None:
        raise ValueError(
            f"the rewards of env are vectors of {dimensions} numbers; agents here learn from one: give the environment "
            "the objective 'linear', which weighs them, or 'soft-constraint'"
        )


def attribute(env: Env, name: str) -> Any:
    """What the environment calls so, behind all wrappers and in any form of vector; None without it."""
    if isinstance(env.unwrapped, gym.vector.SyncVectorEnv | gym.vector.AsyncVectorEnv):
        return env.unwrapped.get_attr(name)[0]
    return getattr(env.unwrapped, name, None)


# ---------------------------------------------------------------------- playing given architectures


WHOLE: dict[str, Any] = {"architecture": ()}
"""Options of a reset from which on a whole sequence is played, wherever the environment would start."""


def play(
    env: Env, tokens: Tokens, options: Mapping[str, NDArray[Any]] | None = None
) -> tuple[Floats, dict[str, Floats]]:
    """Builds given architectures in an environment, one decision a step.

    The sub-environments of a vector need not be in step: each takes the next architecture when its episode ends. One
    that finds none left repeats the last until the others are done; what it earns is discarded.

    Args:
        env: a construction environment, or a vector of them in any autoreset mode.
        tokens: int64[n, T], legal and filled.
        options: of the episodes' resets, [n] each by name, such as ``{"fidelity": float64[n]}``.

    Returns:
        The rewards float64[n], and the columns of ``info["evaluation"]``, float64[n] each, NaN where untold.
    """
    names, columns = list(options or {}), [np.asarray(column).tolist() for column in (options or {}).values()]
    each = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return _play_vector(env, tokens, each) if isinstance(env, VectorEnv) else _play_scalar(env, tokens, each)


def _play_scalar(
    env: gym.Env[Any, Any], tokens: Tokens, options: list[dict[str, Any]]
) -> tuple[Floats, dict[str, Floats]]:
    rewards = np.zeros(len(tokens))
    columns: dict[str, Floats] = {}
    for row, sequence in enumerate(tokens):
        env.reset(options={**WHOLE, **(options[row] if options else {})})
        for token in sequence:
            _, reward, terminated, truncated, info = env.step(token)
            rewards[row] += float(reward)
            if terminated or truncated:
                break
        for name, value in info["evaluation"].items():
            columns.setdefault(name, np.full(len(tokens), np.nan))[row] = value
    return rewards, columns


def _play_vector(
    env: VectorEnv[Any, Any, Any], tokens: Tokens, options: list[dict[str, Any]]
) -> tuple[Floats, dict[str, Floats]]:
    n = len(tokens)
    mode = env.metadata["autoreset_mode"]
    rewards, columns = np.zeros(n), dict[str, Floats]()
    row = np.arange(env.num_envs)  # the architecture that each sub-environment plays
    queued, unfinished = env.num_envs, n
    position, earned = np.zeros_like(row), np.zeros(env.num_envs)
    resetting = np.zeros(env.num_envs, dtype=bool)  # in NEXT_STEP mode, the step that answers with a reset
    restarts = attribute(env, "restart_after") is not None
    env.reset(options=WHOLE)
    if options:
        _reset_at(env, np.ones_like(resetting), [options[index] for index in np.minimum(row, n - 1)])
    while unfinished:
        _, reward, terminated, truncated, infos = env.step(tokens[np.minimum(row, n - 1), position])
        earned += reward
        position[~resetting] += 1
        done = terminated | truncated
        resetting = done & (mode == AutoresetMode.NEXT_STEP)
        if not done.any():
            continue
        evaluation = (infos["final_info"] if mode == AutoresetMode.SAME_STEP else infos)["evaluation"]
        counted = np.flatnonzero(done & (row < n))
        rewards[row[counted]] = earned[counted]
        for name, column in evaluation.items():
            if not name.startswith("_"):
                told = counted[evaluation.get(f"_{name}", done)[counted]]
                columns.setdefault(name, np.full(n, np.nan))[row[told]] = column[told]
        unfinished -= len(counted)
        ended = int(done.sum())
        row[done] = np.arange(queued, queued + ended)
        queued += ended
        position[done], earned[done] = 0, 0.0
        if unfinished and options:
            _reset_at(env, done, [options[index] for index in np.minimum(row, n - 1)])
            resetting[:] = False
        elif unfinished and (restarts or mode == AutoresetMode.DISABLED):
            env.reset(options={**WHOLE, "reset_mask": done})
            resetting[:] = False
    return rewards, columns


def _reset_at(env: VectorEnv[Any, Any, Any], mask: NDArray[np.bool_], options: list[dict[str, Any]]) -> None:
    """Resets the masked sub-environments, each with its own options; those that have the same, at once."""
    left = mask.copy()
    while left.any():
        shared = options[int(left.argmax())]
        alike = left & np.array([own == shared for own in options])
        env.reset(options={**WHOLE, "reset_mask": alike, **shared})
        left &= ~alike


# ---------------------------------------------------------------------- by name


def agent_class(name: str) -> type[Agent]:
    """The class of an agent.

    Raises:
        ValueError: an unknown name.
    """
    if name not in AGENTS:
        raise ValueError(f"unknown agent {name!r}; known: {', '.join(AGENTS)}")
    module, _, attribute = AGENTS[name].partition(":")
    found: type[Agent] = getattr(importlib.import_module(module), attribute)
    return found


def make_agent(
    name: str,
    env: Env | str,
    seed: int = 0,
    hyperparameters: Mapping[str, Any] | Any = None,
    device: str = "cpu",
) -> Agent:
    """Makes an agent by name; see `Agent` for the arguments.

    Raises:
        ValueError: an unknown name, environment or hyperparameter.
    """
    return agent_class(name)(env, seed, hyperparameters, device)


def load_hyperparameters(agent: str, env_id: str | None = None, overrides: Mapping[str, Any] | None = None) -> Any:
    """The settings of an agent for an environment, from ``hyperparameters/<agent>.yaml``, a colon read as a hyphen.

    The file maps environment ids, and ``default`` for all others, to the fields that differ from the defaults of
    the agent's `Hyperparameters`.

    Args:
        agent: name of the agent.
        env_id: the environment's id; None takes ``default``.
        overrides: fields that take precedence over the file's.

    Returns:
        An instance of the agent's `Hyperparameters`.

    Raises:
        ValueError: an unknown agent or field, or a value out of range.
    """
    made = agent_class(agent).Hyperparameters
    path = Path(__file__).parent / "hyperparameters" / f"{agent.replace(':', '-')}.yaml"
    settings = yaml.safe_load(path.read_text())
    values = {**settings[env_id if env_id in settings else "default"], **(overrides or {})}
    known = {known.name for known in dataclasses.fields(made)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"agent {agent!r} has no hyperparameter {unknown}; known: {', '.join(sorted(known))}")
    return made(**values)
