"""What every agent is: it proposes architectures and learns from their trials in an environment."""

from __future__ import annotations

import dataclasses
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nas_gym.agents.budget import Budget
from nas_gym.agents.callback import Callback
from nas_gym.agents.play import play
from nas_gym.agents.registry import agent_class, agent_name, batch_size_of, load_hyperparameters
from nas_gym.agents.result import History, SearchResult
from nas_gym.agents.trial import Proposal, Trials
from nas_gym.envs.problem import Env, Problem, make_vector
from nas_gym.files import load_tensors, save_tensors
from nas_gym.settings import check_seed
from nas_gym.spaces import SearchSpace, Tokens, TransformationSpace, saved_space
from nas_gym.types import Floats

NUM_ENVS = 10
"""Sub-environments of an agent that is given an environment's id: ENAS's controller batch."""


class Agent(ABC):
    """A search algorithm: `ask` proposes architectures, `tell` learns from their trials, `learn` plays the two.

    A subclass has a dataclass of `Hyperparameters`, `ask` and `tell`; where it keeps anything between the two, also
    `state_dict` and `load_state_dict`. The class attributes say what it is.

    Args:
        env: an environment's id (`NUM_ENVS` of them are made, as a vector environment), a construction environment,
            or a vector of them.
        seed: of the agent's own random state; global ones are neither read nor changed.
        hyperparameters: an instance of the agent's `Hyperparameters`, or a mapping of the fields that differ from the
            agent's settings for this environment (`load_hyperparameters`).
        device: where the agent's networks run.

    Attributes:
        env: the environment.
        problem: the view of it that agents use.
        space: its search space.
        rng: the agent's numpy generator.
        updates: how often it has learned; agents that count it are held to `staleness`.
        batch_size: trials that a search proposes at once by default; the hyperparameter of that name
            where there is one.
        staleness: how many updates may lie between a proposal and its trial in a search that does not wait
            (asynchronous search); None sets no limit, and 0 means that the agent needs the trials of each batch
            before it proposes the next.
        needs_fidelities: whether it needs an evaluator that can spend a share of its budget on an architecture.
        vector_rewards: whether it learns from rewards that are vectors.
        relaxed: whether it trains a relaxed network, which the environment's evaluator must then hold.

    Raises:
        ValueError: the environment has no search space, vector rewards for an agent that does not learn from them, or
            an evaluator that is not for the agent; a hyperparameter is unknown or out of range.
    """

    Hyperparameters: ClassVar[type[Any]]
    batch_size: int = 1
    staleness: ClassVar[int | None] = 0
    needs_fidelities: ClassVar[bool] = False
    vector_rewards: ClassVar[bool] = False
    relaxed: ClassVar[bool] = False

    def __init__(
        self,
        env: Env | str,
        seed: int = 0,
        hyperparameters: Mapping[str, Any] | Any = None,
        device: str = "cpu",
    ) -> None:
        check_seed(seed)
        self.problem = Problem(make_vector(env, NUM_ENVS) if isinstance(env, str) else env)
        self._check_rewards()
        self._check_evaluator()
        self.space = self.problem.space
        if not isinstance(hyperparameters, self.Hyperparameters):
            hyperparameters = load_hyperparameters(
                type(self), self.problem.id, hyperparameters, decisions=self.space.length
            )
        self.hyperparameters = hyperparameters
        self.batch_size = batch_size_of(type(self), hyperparameters)
        self.device = device
        self.rng = np.random.default_rng(seed)
        self.updates = 0
        self._proposed = 0
        self._history = History(self.space)

    def _check_rewards(self) -> None:
        dimensions = self.problem.reward_dimensions
        if dimensions is not None and not self.vector_rewards:
            raise ValueError(
                f"the rewards of env are vectors of {dimensions} numbers; {type(self).__name__} learns from one: give "
                "the environment the objective 'linear', which weighs them, or 'soft-constraint'"
            )

    def _check_evaluator(self) -> None:
        evaluator = self.problem.evaluator.unwrapped
        if self.relaxed and not evaluator.relaxed:
            raise ValueError(
                f"agent {self.name!r} trains a relaxed network itself: give the environment evaluator='relaxed', in "
                f"space 'bench201' or 'cell:darts'; got {type(evaluator).__name__}"
            )
        if evaluator.relaxed and not self.relaxed:
            raise ValueError(
                f"evaluator 'relaxed' is trained by differentiable agents alone, such as 'darts'; agent {self.name!r} "
                "plays the evaluator 'shared-weights'"
            )

    @property
    def env(self) -> Env:
        """The environment."""
        return self.problem.env

    @property
    def name(self) -> str:
        """The name that the agent is registered by; of one that is not, where its class stands."""
        return agent_name(type(self))

    # ------------------------------------------------------------------ search

    @abstractmethod
    def ask(self, n: int) -> Proposal:
        """Proposes n architectures, by `propose`."""

    @abstractmethod
    def tell(self, trials: Trials) -> dict[str, float]:
        """Learns from trials, those of its own proposals or of others, in any order.

        Returns:
            Scalars to log by their TensorBoard tag (``train/policy_loss``), empty if nothing was updated.
        """

    def propose(
        self,
        tokens: Tokens,
        *,
        fidelities: Floats | None = None,
        tasks: NDArray[np.str_] | None = None,
        parents: Tokens | None = None,
    ) -> Proposal:
        """Gives architectures int64[n, T] their identities; see `Proposal` for the arguments."""
        ids = np.arange(self._proposed, self._proposed + len(tokens))
        self._proposed += len(tokens)
        return Proposal(ids, tokens, fidelities, tasks, parents)

    def prepare(self) -> Iterator[dict[str, float]]:
        """Does the training that the agent itself needs before its next proposal, a step an item.

        `ask` runs it to its end; a run that wants to save itself in between iterates over it first.
        """
        return iter(())

    def withdraw(self) -> None:  # noqa: B027  # most agents keep nothing of them
        """Gives up all proposals without a trial so far: none will come."""

    def learn(self, trials: int, callback: Callback | None = None, seconds: float | None = None) -> SearchResult:
        """Searches through the environment, a batch of `num_envs` trials at a time.

        Where the last batch would overrun the budget, its trials of higher index are played but neither learned
        from nor recorded. Called again, the search goes on.

        Args:
            trials: how many trials to add, at most.
            callback: called around every batch; may stop the search.
            seconds: how much simulated time to add, at most (see `Budget`); None sets no limit.

        Returns:
            The whole history, earlier calls included.

        Raises:
            ValueError: trials or seconds is negative; with seconds, the evaluator does not report them.
        """
        budget = Budget(trials, seconds)
        callback = callback or Callback()
        self.withdraw()
        while not budget.spent:
            callback.before_trials(self)
            proposal = self.ask(self.problem.num_envs)
            callback.proposed(self, proposal)
            new = budget.take(play(self.env, proposal))
            if not len(new) or not self.record(new, callback):
                break
        return self.result

    def record(self, new: Trials, callback: Callback) -> bool:
        """Learns from trials that have ended, and adds them to the history; False if the callback stops the search."""
        statistics = self.tell(new)
        recorded = SearchResult(self.space, new.tokens, new.rewards, new.metrics)
        self._history.append(recorded)
        return callback.after_trials(self, recorded, statistics) is not False

    # ------------------------------------------------------------------ history

    @property
    def trials(self) -> int:
        """How many trials `learn` has recorded."""
        return len(self._history)

    @property
    def result(self) -> SearchResult:
        """All trials so far."""
        return self._history.result

    @property
    def current_space(self) -> SearchSpace:
        """The part of the space that is open to the next trials: all of it, unless it changes in a search."""
        return self.space_at(self.trials)

    def space_at(self, trial: int) -> SearchSpace:
        """The part of the space that is open to a trial, counted from 0, that those recorded so far lead up to.

        A space may grow with the trials. With the environment's `restart_after`, trials grow out of the best before.
        """
        space, restart_after = self.space.at_trial(trial), self.problem.restart_after
        if restart_after is None or trial < restart_after:
            return space
        assert isinstance(space, TransformationSpace)
        known = self.result.rows(slice(trial - trial % restart_after))
        return space.growing_from_best(known.tokens, known.rewards)

    # ------------------------------------------------------------------ saving

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to go on exactly from here: tensors, numbers, strings, lists and dicts."""
        import torch

        result = self.result
        return {
            # The generator's state holds 128-bit integers, which only text keeps everywhere.
            "rng": json.dumps(self.rng.bit_generator.state),
            "proposed": self._proposed,
            "tokens": torch.from_numpy(result.tokens),
            "rewards": torch.from_numpy(result.rewards),
            "metrics": {name: torch.from_numpy(column) for name, column in result.metrics.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to where `state_dict` was taken.

        Raises:
            ValueError: its trials are none of this space.
        """
        self.rng.bit_generator.state = json.loads(state["rng"])
        self._proposed = int(state["proposed"])
        metrics = {name: column.numpy() for name, column in state["metrics"].items()}
        history = SearchResult(self.space, state["tokens"].numpy(), state["rewards"].numpy(), metrics)
        _check_history(history)
        self._history = History(self.space)
        self._history.append(history)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the agent to a file, which at any moment holds either all of it or what was there before."""
        record = {
            "agent": self.name,
            "hyperparameters": _plain(dataclasses.asdict(self.hyperparameters)),
            "space": _plain(self.space.to_dict()),
            "state": self.state_dict(),
        }
        save_tensors(Path(path), record)

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
            raise ValueError(f"{os.fspath(path)!r} holds an agent {record['agent']!r}, not {agent_name(cls)!r}")
        agent = found(env, hyperparameters=record["hyperparameters"], device=device)
        if saved_space(record["space"]) != agent.space:
            raise ValueError(f"{os.fspath(path)!r} is of the space {record['space']}, the environment of {agent.space}")
        try:
            agent.load_state_dict(record["state"])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{os.fspath(path)!r} holds no sound state of an agent {agent.name!r}: {error}") from error
        return agent

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        env: Env | str,
        seed: int = 0,
        hyperparameters: Mapping[str, Any] | Any = None,
        device: str = "cpu",
        mode: str = "all",
    ) -> Self:
        """Makes an agent that goes on to a new task with what a saved one has learned.

        Args:
            path: what `save` wrote.
            env: an environment of the new task.
            seed: see `Agent`.
            hyperparameters: see `Agent`.
            device: see `Agent`.
            mode: what is learned on the new task.

        Raises:
            ValueError: the agent does not transfer; or as the agents that do say.
        """
        raise ValueError(f"agent {agent_name(cls)!r} does not transfer to new tasks; 'multitask' and 'dyna' do")


def read_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `Agent.save` wrote: ``agent``, ``hyperparameters``, ``space`` and ``state``.

    Raises:
        ValueError: the file is corrupted, or holds something else.
    """
    record = load_tensors(path)
    if not isinstance(record, dict) or not record.keys() >= {"agent", "hyperparameters", "space", "state"}:
        raise ValueError(f"{os.fspath(path)!r} holds no saved agent")
    return record


def _check_history(history: SearchResult) -> None:
    history.space.check(history.tokens)
    for name, column in {"reward": history.rewards, **history.metrics}.items():
        if len(column) != len(history.tokens):
            raise ValueError(f"{len(history.tokens)} trials cannot have {len(column)} values of {name!r}")
        if column.dtype != np.float64:
            raise ValueError(f"{name!r} must be float64, got {column.dtype}")
    if not np.isfinite(history.rewards).all():
        raise ValueError("rewards must be finite")


def _plain(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    return json.loads(json.dumps(value))


def make_agent(
    name: str,
    env: Env | str,
    seed: int = 0,
    hyperparameters: Mapping[str, Any] | Any = None,
    device: str = "cpu",
) -> Agent:
    """Makes an agent by name, or by where its class stands, ``module:Class``; see `Agent` for the arguments.

    Raises:
        ValueError: an unknown name, environment or hyperparameter.
    """
    return agent_class(name)(env, seed, hyperparameters, device)
