"""An environment of several tasks that share one search space; each episode is on one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from numpy.typing import NDArray

from nas_gym.envs.checks import one_of
from nas_gym.envs.construction import ConstructionEnv
from nas_gym.evaluators import (
    DEFAULT_SCHEDULE,
    Evaluator,
    MultiTaskEvaluator,
    MultiTaskSchedule,
    Schedule,
    make_evaluator,
    make_schedule,
)
from nas_gym.registration import ENTRY_POINT, ENVIRONMENTS, environment_spec
from nas_gym.spaces import SearchSpace, make_space

OBSERVATIONS = ("onehot", "tokens", "float-tokens", "dict")


class MultiTaskEnv(ConstructionEnv):
    """Builds architectures of one search space for many tasks, a different one in each episode.

    ## Description

    Each episode is an episode of the environment `base` on a task that is drawn when it starts. The observation
    includes the task. In this way a policy is trained on many tasks at once, and can be transferred to a new one.

    ## Action Space

    That of the base, `Discrete(A)`, with its masks in `info["action_mask"]` and from `action_masks()`.

    ## Observation Space

    With T decisions of at most A choices, and K tasks:

    - `observation="onehot"`: `Box(0, 1, (T * A + K,), float32)`: the base's observation, then the task, one-hot.
    - `observation="tokens"`: `Box` of T + 1 int64: the choices so far, -1 where undecided; then the task's index.
    - `observation="float-tokens"`: the same numbers as float32.
    - `observation="dict"`: `Dict(observation=Box(0, 1, (T * A,), float32), task=Discrete(K))`.

    ## Starting State

    All decisions are undecided. The task is drawn from `np_random`, which the seed seeds, uniformly or by `weights`.
    `reset(options={"task": name})` selects the task of this episode instead, without drawing a random number. It can be
    combined with the options `"architecture"` and `"fidelity"` of the base.

    ## Rewards

    As in the base, from the evaluator of the episode's task. Each task has its own evaluator and schedule, also with
    shared weights. Rewards of different tasks are not comparable.

    ## Episode End

    As in the base.

    ## Information

    As in the base, and after `reset` and every step:

    - `task`: int, the index of the episode's task among `tasks`.

    `evaluation` also contains it as `task`, as a float.

    ## Arguments

    - `base`: the id of a construction environment, whose arguments (`space`, `evaluator`, ...) are the defaults here.
    - `tasks`: names of tasks of the base's table or of `nas_gym.tasks`. All must share one search space.
    - `weights`: the relative probability of each task; None draws uniformly. A task of weight 0 is only used if it is
      selected by `options["task"]`.
    - `observation`: `"onehot"`, `"tokens"`, `"float-tokens"` or `"dict"`.
    - `evaluator`: a name; a `MultiTaskEvaluator`, which contains one evaluator per task; or a stateless evaluator for
      all tasks.
    - `schedule`: as in the base, for each task; or a `MultiTaskSchedule`, which contains its own evaluators.
    - all other arguments of the base, except `task`.

    Invalid arguments raise a ValueError that names the argument.

    ## References

    Wong et al. 2018, "Transfer Learning with Neural AutoML": a controller trained on many tasks at once.

    ## Version History

    - v0: initial version.
    """

    def __init__(
        self,
        base: str,
        tasks: Sequence[str],
        *,
        weights: Sequence[float] | None = None,
        observation: str = "onehot",
        **arguments: Any,
    ) -> None:
        one_of("observation", observation, OBSERVATIONS)
        self.tasks = _checked_tasks(tasks)
        self._cumulative = _cumulative(weights, len(self.tasks))
        if "task" in arguments:
            raise ValueError(f"tasks takes the names of all tasks; got also task={arguments['task']!r}")
        given = {**base_arguments(base), **arguments}
        choosing = {name: given.pop(name, None) for name in ("space", "evaluator", "evaluator_kwargs", "table")}
        schedule = _schedule(self.tasks, given.pop("schedule", DEFAULT_SCHEDULE), **choosing)
        form = "onehot" if observation == "dict" else observation
        super().__init__(schedule.evaluator.space, schedule=schedule, observation=form, **given)
        self.schedule: MultiTaskSchedule = schedule
        self.evaluators = schedule.evaluator.evaluators
        self.observation = observation
        self.observation_space = self._observations(self.observation_space)
        self._task_rows = np.eye(len(self.tasks), dtype=np.float32)
        self._task = 0

    def _observations(self, decided: Box) -> Any:
        count = len(self.tasks)
        if self.observation == "dict":
            return Dict({"observation": decided, "task": Discrete(count)})
        if self.observation != "onehot":
            low, high = np.append(decided.low, 0), np.append(decided.high, count - 1)
            return Box(low.astype(decided.dtype), high.astype(decided.dtype), dtype=decided.dtype)
        return Box(0.0, 1.0, (decided.shape[0] + count,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode; see the class for `options`.

        Raises:
            ValueError: `options["task"]` is not one of the tasks, or another option is invalid.
        """
        decided, info = super().reset(seed=seed, options=options)
        return self.observe(decided, np.int64(self._task)), info

    def _begin(self, options: Mapping[str, Any]) -> None:
        chosen = self.chosen_task(options)
        super()._begin(options)
        self._task = int(self.task_of(self.np_random.random())) if chosen is None else chosen

    def chosen_task(self, options: Mapping[str, Any]) -> int | None:
        """The index of the task `options["task"]`; None if the option is not given.

        Raises:
            ValueError: it is not one of the tasks.
        """
        if options.get("task") is None:
            return None
        one_of("options['task']", options["task"], self.tasks)
        return self.tasks.index(options["task"])

    def task_of(self, share: Any) -> Any:
        """Maps uniform random numbers in [0, 1) to indices of tasks, by the weights."""
        return np.searchsorted(self._cumulative, share, side="right")

    def observe(self, decided: NDArray[Any], task: np.int64 | NDArray[np.int64]) -> Any:
        """Combines the base's observations [..., n] with their tasks [...]."""
        if self.observation == "dict":
            return {"observation": decided, "task": task}
        told = self._task_rows[task] if self.observation == "onehot" else np.asarray(task)[..., None]
        return np.concatenate([decided, told.astype(decided.dtype, copy=False)], axis=-1)

    def _step(self, choice: int) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        decided, *rest = super()._step(choice)
        return (self.observe(decided, np.int64(self._task)), *rest)

    def _scorer(self) -> Schedule:
        return self.schedule.schedules[self.tasks[self._task]]

    def _info(self, invalid: bool) -> dict[str, Any]:
        return {**super()._info(invalid), "task": self._task}

    def _end(
        self, reward: Any, evaluation: dict[str, float], invalid: bool
    ) -> tuple[NDArray[Any], Any, bool, bool, dict[str, Any]]:
        return super()._end(reward, {**evaluation, "task": float(self._task)}, invalid)


def base_arguments(base: str) -> dict[str, Any]:
    """The registered arguments of a construction environment, without its task.

    Raises:
        ValueError: `base` is not the id of a construction environment.
    """
    try:
        spec = environment_spec(base)
    except (ValueError, AttributeError):
        spec = None
    if spec is None or spec.entry_point != ENTRY_POINT:
        known = ", ".join(spec.id for spec in ENVIRONMENTS if spec.entry_point == ENTRY_POINT)
        raise ValueError(f"base must be the id of a construction environment, such as {known}; got {base!r}")
    return {name: value for name, value in spec.kwargs.items() if name != "task"}


def _checked_tasks(tasks: Any) -> tuple[str, ...]:
    good = isinstance(tasks, Sequence) and not isinstance(tasks, str) and all(isinstance(task, str) for task in tasks)
    if not good or not tasks or len(set(tasks)) < len(tasks):
        raise ValueError(f"tasks must be a list of different names of tasks, at least one; got {tasks!r}")
    return tuple(tasks)


def _cumulative(weights: Any, count: int) -> NDArray[np.float64]:
    """The cumulative probabilities of the tasks, float64[count]."""
    given = np.asarray(np.ones(count) if weights is None else weights)
    good = given.shape == (count,) and given.dtype.kind in "iuf" and np.isfinite(given).all()
    if not good or (given < 0).any() or not given.any():
        raise ValueError(f"weights must be {count} numbers, none negative and not all 0, or None; got {weights!r}")
    total = given.astype(np.float64).cumsum()
    cumulative: NDArray[np.float64] = total / total[-1]
    return cumulative


def _schedule(
    tasks: tuple[str, ...],
    schedule: Schedule | str | Mapping[str, Any],
    *,
    space: SearchSpace | str | Mapping[str, Any],
    evaluator: Evaluator | str,
    evaluator_kwargs: Mapping[str, Any] | None,
    table: str | None,
) -> MultiTaskSchedule:
    """Makes a schedule with its own evaluator for each task."""
    if isinstance(schedule, MultiTaskSchedule):
        _check_own(tasks, "schedule", schedule.evaluator)
        return schedule
    if isinstance(schedule, Schedule):
        raise ValueError(f"schedule must be a name, a mapping or a MultiTaskSchedule, got {schedule!r}")
    if isinstance(evaluator, MultiTaskEvaluator) and table is None:
        _check_own(tasks, "evaluator", evaluator)
        evaluators = evaluator.evaluators
    elif isinstance(evaluator, Evaluator) and evaluator.stateful and table is None:
        raise ValueError(f"evaluator must be a name or a MultiTaskEvaluator, or have no state; got {evaluator!r}")
    else:
        made = make_space(space)
        evaluators = {task: make_evaluator(evaluator, made, task, evaluator_kwargs, table) for task in tasks}
    MultiTaskEvaluator(evaluators)  # raises if the spaces differ
    return MultiTaskSchedule({task: make_schedule(schedule, evaluators[task]) for task in tasks})


def _check_own(tasks: tuple[str, ...], argument: str, evaluator: MultiTaskEvaluator) -> None:
    if tuple(evaluator.evaluators) != tasks:
        raise ValueError(f"{argument} must be for the tasks {', '.join(tasks)}; got {', '.join(evaluator.evaluators)}")
