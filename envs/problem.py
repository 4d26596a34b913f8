"""One typed view of an environment, whatever its form and its wrappers: what agents and experiments read of it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from nas_gym.evaluators import Evaluator, Schedule
from nas_gym.registration import environment_spec
from nas_gym.spaces import SearchSpace

Env = gym.Env[Any, Any] | VectorEnv[Any, Any, Any]


def make_vector(id: str, num_envs: int, **arguments: Any) -> VectorEnv[Any, Any, Any]:
    """As `gymnasium.make_vec`, in the autoreset mode SAME_STEP, which takes no step without a decision.

    Raises:
        ValueError: there is no such environment, or an argument is invalid.
    """
    native = environment_spec(id).vector_entry_point is not None
    mode = {"autoreset_mode": AutoresetMode.SAME_STEP.value} if native else {}
    made: VectorEnv[Any, Any, Any] = gym.make_vec(id, num_envs, **{**mode, **arguments})
    return made


class Problem:
    """The search problem behind an environment.

    Args:
        env: an environment of this package, scalar or native vector, behind any wrappers, or a vector of scalar ones.

    Attributes:
        env: the environment.
        space: the search space.
        schedule: scores finished architectures, and trains shared weights.
        tasks: the names of the tasks of an environment of many tasks; () where there is only one.
        restart_after: the number of episodes after which the next ones start from the best of them; None where
            episodes always start alike.
        reward_dimensions: how many numbers a reward is; None where it is a single number.

    Raises:
        ValueError: the environment has no search space.
    """

    def __init__(self, env: Env) -> None:
        if not isinstance(env, gym.Env | VectorEnv):
            raise ValueError(f"env must be an environment's id, an environment or a vector environment; got {env!r}")
        self.env = env
        space = self._read("search_space")
        if not isinstance(space, SearchSpace):
            raise ValueError(f"env must be a construction environment, with a `search_space`; got {env!r}")
        self.space: SearchSpace = space
        self.schedule: Schedule = self._read("schedule")
        self.tasks: tuple[str, ...] = tuple(self._read("tasks") or ())
        self.restart_after: int | None = self._read("restart_after")
        self.reward_dimensions: int | None = self._read("reward_dim")

    @property
    def evaluator(self) -> Evaluator:
        """What evaluates architectures, as it is now: an experiment may have wrapped it."""
        return self.schedule.evaluator

    @property
    def num_envs(self) -> int:
        """How many episodes are played side by side."""
        return self.env.num_envs if isinstance(self.env, VectorEnv) else 1

    @property
    def id(self) -> str | None:
        """The environment's id; None where it was not made by one."""
        return self.env.spec.id if self.env.spec else None

    @property
    def task_names(self) -> tuple[str, ...]:
        """The names of the tasks; of an environment of one task that of its evaluator."""
        if self.tasks:
            return self.tasks
        task = getattr(self.evaluator.unwrapped, "task", "task")
        return (task if isinstance(task, str) else task.name,)

    def _read(self, name: str) -> Any:
        """An attribute of the environment behind all wrappers; None where it has none."""
        env = self.env.unwrapped
        if isinstance(env, SyncVectorEnv | AsyncVectorEnv):
            try:
                return env.get_attr(name)[0]
            except AttributeError:
                return None
        return getattr(env, name, None)
