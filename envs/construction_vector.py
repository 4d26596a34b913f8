"""Native vector form of the construction environment, in numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from nas_gym.envs.checks import (
    check_positive,
    checked_actions,
    checked_mode,
    checked_reset_mask,
    checked_seed,
    parent_of,
    starting_prefix,
)
from nas_gym.envs.columns import column, only, rows_of
from nas_gym.envs.construction import ConstructionEnv, announce_vector_rewards, reward_type
from nas_gym.envs.episode_options import EpisodeOptions
from nas_gym.evaluators import Schedule
from nas_gym.spaces import UNDECIDED, SearchSpace, Tokens
from nas_gym.types import Bools

Step = tuple[NDArray[Any], NDArray[np.float64], Bools, Bools, dict[str, Any]]


class ConstructionVectorEnv(VectorEnv[NDArray[Any], ArrayLike, NDArray[Any]]):
    """N copies of a `ConstructionEnv` that share one evaluator and are stepped together.

    Equal, step for step, to `gymnasium.vector.SyncVectorEnv` of N scalar environments, with two differences. The
    architectures completed in the same step are evaluated as one batch (one per fidelity). And in SAME_STEP,
    `infos["final_obs"]` is one array with a row for each sub-environment (zero where `infos["_final_obs"]` is False)
    instead of an array of objects. As in `SyncVectorEnv`, `infos["final_info"]` holds columns:
    `infos["final_info"]["architecture"]` is int64[N, T].

    All returned arrays are copies.

    Args:
        num_envs: N, at least 1.
        autoreset_mode: how the next episode starts, an `AutoresetMode` or its value. NEXT_STEP, Gymnasium's own
            default: in the next step, which ignores the action and has the reward 0. SAME_STEP: in the same step.
            DISABLED: only by `reset(options={"reset_mask": ...})`, which takes bool[N].
        max_episode_steps: the number of steps after which an episode is truncated, as by
            `gymnasium.wrappers.TimeLimit`; None for no limit.
        **arguments: those of `ConstructionEnv`, except the render mode ``"human"``, whose window shows one
            environment.

    Raises:
        ValueError: an argument is invalid.
    """

    scalar: ClassVar[type[ConstructionEnv]] = ConstructionEnv  # the scalar environment
    reward_dim: int | None = None
    restart_after: int | None = None

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        **arguments: Any,
    ) -> None:
        check_positive("num_envs", num_envs)
        if max_episode_steps is not None:
            check_positive("max_episode_steps", max_episode_steps)
        self._single = single = self.scalar(**arguments)
        if single.render_mode == "human":
            raise ValueError("render_mode 'human' shows one environment; a vector of them takes 'ansi' or 'rgb_array'")
        self.num_envs = num_envs
        self.autoreset_mode = checked_mode(autoreset_mode)
        modes = [mode for mode in single.metadata["render_modes"] if mode != "human"]
        self.metadata = {**single.metadata, "render_modes": modes, "autoreset_mode": self.autoreset_mode}
        self.render_mode = single.render_mode
        self.search_space, self.evaluator = single.search_space, single.evaluator
        self.schedule, self.objective = single.schedule, single.objective
        announce_vector_rewards(self, self.objective)
        self.single_action_space, self.single_observation_space = single.action_space, single.observation_space
        self.action_space = batch_space(single.action_space, num_envs)
        self.observation_space = batch_space(single.observation_space, num_envs)

        self._length, self._width = self.search_space.length, self.search_space.num_choices
        self._penalise = single.on_invalid == "penalise"
        self._stops = self.search_space.stop_choices
        self._may_stop: list[bool] = (self._stops >= 0).tolist()
        # Where episodes end at different times, rows are read and written apart: in small integers they stay in cache.
        size = np.min_scalar_type(-self._width) if any(self._may_stop) else np.int64
        self._tokens: NDArray[np.signedinteger] = np.full((num_envs, self._length), UNDECIDED, size)
        filled = np.where(np.tri(self._length) > 0, UNDECIDED, self.search_space.absent_choices)
        self._filled = filled.astype(size)  # [T, T], the decisions after a stop at each decision
        self._onehot: NDArray[np.float32] | None = None
        self._dtype: Any = np.float32
        if single.observation in ("tokens", "float-tokens"):
            self._dtype = self.single_observation_space.dtype
        else:
            self._onehot = np.zeros((num_envs, self._length * self._width), dtype=np.float32)
        # The next decision of each sub-environment, T at the end of an episode; a single number while in lockstep.
        self._position: int | NDArray[np.int64] = self._length
        self._options = EpisodeOptions(self._tokens.shape)
        self._started = False
        self._max_steps, self._elapsed = max_episode_steps, np.zeros(num_envs, dtype=np.int64)
        self._shown: Tokens | None = None  # what is rendered; None for the current decisions
        self._rows = np.arange(num_envs)
        self._cells = self._rows * (self._length * self._width)  # the offset of each row of the one-hot array
        # Masks by position, the last one for ended episodes; all False where they depend on the prefix.
        self._dependent = np.append(self.search_space.dependent, False)
        self._known: Bools = ~np.repeat(self._dependent[:, None], self._width, axis=1)
        for position in np.flatnonzero(~self._dependent[:-1]).tolist():
            self._known[position] = self.search_space.legal(self._decided([0]), position)
        batches = {row.tobytes(): np.tile(row, (num_envs, 1)) for row in self._known}
        self._known_batches = [batches[row.tobytes()] for row in self._known]
        # Every choice below the bound is legal.
        self._known_bounds = [int(np.argmin(np.append(row, False))) for row in self._known]
        self._masks = self._current_masks()
        self._first_mask: Bools = self.search_space.legal(self._decided([0]), 0)[0]
        # Until a large block has been freed once, glibc returns the memory of freed arrays to the system, and every
        # copy that a step returns causes page faults: 4,096 environments with one-hot observations then make 0.6 times
        # as many steps per second, 65,536 with tokens half as many.
        np.empty(2**25 - 2**16, dtype=np.uint8)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Starts episodes, in all sub-environments or in those of `options["reset_mask"]`.

        Args:
            seed: an int, or one for each sub-environment; the (first) one seeds `np_random`, but the environment draws
                no random numbers.
            options: ``"reset_mask"``: bool[N], with at least one True. ``"architecture"``: the prefix that the episodes
                start from, as for `ConstructionEnv`. ``"fidelity"``: the share of the full budget with which the
                architectures of these episodes are evaluated, also as for `ConstructionEnv`.

        Returns:
            Observations of all sub-environments, and the information of those that were reset.

        Raises:
            ValueError: the seeds, the mask or the prefix are invalid, or the fidelity is not supported.
            ResetNeeded: the first reset has a mask.
        """
        super().reset(seed=checked_seed(seed, self.num_envs))
        mask = checked_reset_mask(options, self.num_envs, self._started)
        prefix = starting_prefix(self.open_space, options)
        self._begin(mask, options or {})
        self._clear(mask, prefix)
        self._move_to(np.where(mask, len(prefix), self._position))
        self._started, self._shown = True, None
        infos, rows = self._infos(np.zeros(self.num_envs, dtype=bool)), rows_of(mask)
        return self._observe(), {key: only(values, rows) for key, values in infos.items()}

    def step(self, actions: ArrayLike) -> Step:
        """Takes the current decision in each sub-environment.

        Args:
            actions: integers in [0, A), of shape (N,).

        Returns:
            Observations, rewards float64[N] (float32[N, k] for vector rewards), terminations bool[N], truncations
            bool[N], and infos.

        Raises:
            ValueError: the actions have another shape, type or range.
            ResetNeeded: before the first reset, or after the end of an episode under DISABLED.
        """
        choices, invalid = self._choices(checked_actions(actions, self.num_envs, self._width))
        waiting = np.asarray(self._position == np.int64(self._length))
        terminations = self._advance(choices, invalid)
        truncations = self._truncations(waiting)
        rewards = self.objective.zeros(self.num_envs).astype(reward_type(self.objective), copy=False)
        ended, self._shown = terminations | truncations, None
        if not ended.any():
            return self._observe(), rewards, terminations, truncations, self._infos(invalid)
        ending = {}
        if terminations.any():
            ending = self._score(terminations, terminations & invalid & self._penalise, rewards)
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            if self.render_mode is not None:
                self._shown = self._decided().copy()
            infos = self._restart_at_once(ended, invalid, ending)
            return self._observe(), rewards, terminations, truncations, infos
        step = self._observe(), rewards, terminations, truncations, {**self._infos(invalid), **ending}
        if truncations.any():  # now they wait for a reset, like those that have terminated
            self._move_to(np.where(truncations, self._length, self._position))
        return step

    @property
    def open_space(self) -> SearchSpace:
        """As `ConstructionEnv.open_space`, at the time of a decision."""
        return self.search_space.at_trial(self.schedule.trials)

    def action_masks(self) -> Bools:
        """The choices that are legal next, bool[N, A]; all True for ended episodes."""
        return self._masks.copy()

    def render(self) -> tuple[Any, ...]:
        """The result of `ConstructionEnv.render` for each sub-environment.

        After a step in which an episode has ended, what it has ended with, also where the next one has begun.
        """
        shown = self._decided() if self._shown is None else self._shown
        return tuple(self._single.draw(tokens) for tokens in shown.copy())

    def state_dict(self) -> dict[str, Any]:
        """The state that affects future episodes, apart from the schedule's; empty here."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state returned by `state_dict`."""

    # ------------------------------------------------------------------ transitions

    def _truncations(self, waiting: Bools) -> Bools:
        """Which episodes are truncated in this step, which has only reset those that were waiting."""
        if self._max_steps is None:
            return np.zeros(self.num_envs, dtype=bool)
        self._elapsed += ~waiting
        truncations: Bools = ~waiting & (self._elapsed >= self._max_steps)
        return truncations

    def _choices(self, actions: NDArray[np.int64]) -> tuple[NDArray[np.int64], Bools]:
        """Maps actions to legal choices; also returns which actions were illegal."""
        # If all actions are below the bound, they are legal.
        position = self._position
        if isinstance(position, int) and actions.max() < self._known_bounds[position]:
            return actions, np.zeros(self.num_envs, dtype=bool)
        invalid = ~self._masks[self._rows, actions]
        if invalid.any():
            masks = self._masks[invalid]
            ranks = actions[invalid] % masks.sum(axis=1)
            actions = actions.copy()
            actions[invalid] = np.argmax(masks.cumsum(axis=1) > ranks[:, None], axis=1)
        return actions, invalid

    def _advance(self, choices: NDArray[np.int64], invalid: Bools) -> Bools:
        """Takes the decisions and starts waiting episodes; returns which episodes end in this step."""
        position = self._position
        if isinstance(position, int) and position == self._length:
            everyone = np.ones(self.num_envs, dtype=bool)
            self._check_waiting(everyone)
            self._begin(everyone, {})
            self._clear(everyone)
            self._move_to(0)
            return ~everyone
        if isinstance(position, int) and not self._breaks_step(position, choices, invalid):
            self._tokens[:, position] = choices
            if self._onehot is not None:
                self._onehot.reshape(-1)[position * self._width :][self._cells + choices] = 1.0
            self._move_to(position + 1)
            return np.full(self.num_envs, position + 1 == self._length)
        return self._advance_apart(choices, invalid)

    def _advance_apart(self, choices: NDArray[np.int64], invalid: Bools) -> Bools:
        """`_advance` if the sub-environments are at different decisions, before or after the step."""
        positions = np.broadcast_to(self._position, self.num_envs).copy()
        waiting = positions == self._length
        if waiting.any():
            self._check_waiting(waiting)
            self._begin(waiting, {})
            self._clear(waiting)
            positions[waiting] = 0
        penalised = invalid & self._penalise
        playing = rows_of(~(waiting | penalised))
        rows, at, taken = self._rows[playing], positions[playing], choices[playing]
        self._tokens.reshape(-1)[rows * self._length + at] = taken
        if self._onehot is not None:
            self._onehot.reshape(-1)[self._cells[rows] + at * self._width + taken] = 1.0
        stopped = taken == self._stops[at]
        if stopped.any():
            self._complete(rows[stopped], at[stopped])
        positions[playing] = np.where(stopped, self._length, at + 1)
        positions[penalised] = self._length
        self._move_to(positions)
        terminations: Bools = positions == self._length
        return terminations

    def _breaks_step(self, position: int, choices: NDArray[np.int64], invalid: Bools) -> bool:
        """Whether sub-environments in lockstep may be at different decisions after this step."""
        stops = self._may_stop[position] and bool((choices == self._stops[position]).any())
        return stops or (self._penalise and bool(invalid.any()))

    def _complete(self, rows: NDArray[np.int64], stops: NDArray[np.int64]) -> None:
        """Fills the decisions after stops at the decisions `stops`."""
        self._tokens[rows] = tokens = np.maximum(self._tokens[rows], self._filled[stops])
        if self._onehot is not None:
            self._onehot[rows] = self.search_space.one_hot(tokens).reshape(len(rows), -1)

    def _score(self, ended: Bools, penalised: Bools, rewards: NDArray[np.float64]) -> dict[str, Any]:
        """Evaluates the completed architectures; writes the rewards and returns the final information."""
        scored = ended & ~penalised
        columns = {"accuracy": np.zeros(self.num_envs), "failed": penalised.astype(np.float64)}
        present: dict[str, Bools] = {"accuracy": ended, "failed": ended}
        if self._penalise:
            rewards[penalised] = self.objective.worst
        for together, fidelity in self._batches(scored):
            rows = rows_of(together)
            parents = self._options.parents_of(together)
            evaluations = self._scorer(together).score(np.array(self._decided(rows)), fidelity, parents)
            rewards[rows] = self.objective(evaluations)
            for name, values in evaluations.columns().items():
                columns.setdefault(name, np.zeros(self.num_envs))[rows] = values
                present[name] = together if name not in present else present[name] | together
        evaluation = {key: value for name in columns for key, value in column(name, columns[name], present[name])}
        architecture = only(self._tokens, rows_of(ended), np.int64)
        return dict((*column("architecture", architecture, ended), *column("evaluation", evaluation, ended)))

    def _batches(self, scored: Bools) -> list[tuple[Bools, float | None]]:
        """Which sub-environments are evaluated together, and with which share of the full budget."""
        return self._options.batches(scored)

    def _scorer(self, together: Bools) -> Schedule:
        """The schedule that scores the architectures of these sub-environments."""
        return self.schedule

    def _begin(self, mask: Bools, options: Mapping[str, Any]) -> None:
        """Sets the state of new episodes of the masked sub-environments, other than their decisions."""
        self._elapsed[mask] = 0
        fidelity = self.evaluator.nearest_fidelity(options.get("fidelity"))
        self._options.start(mask, fidelity, parent_of(self.search_space, options))

    def _restart_at_once(self, ended: Bools, invalid: Bools, ending: dict[str, Any]) -> dict[str, Any]:
        """Starts the next episodes in the same step; the final results of the ended ones go into `final_*`."""
        rows = rows_of(ended)
        final_info = {key: only(values, rows) for key, values in self._infos(invalid).items()}
        if isinstance(rows, slice):
            final_obs = self._observed.astype(self._dtype, copy=False)  # new arrays cost less than a copy
            self._tokens = np.full_like(self._tokens, UNDECIDED)
            if self._onehot is not None:
                self._onehot = np.zeros(self._onehot.shape, dtype=np.float32)
            self._move_to(0)
        else:  # the masks of running episodes are up to date
            final_obs = only(self._observed, rows, self._dtype)
            self._clear(ended)
            if isinstance(self._position, int):  # some are truncated, at the same decision as the others
                self._position, self._masks = np.full(self.num_envs, self._position), self._masks.copy()
            self._position[rows] = 0
            self._masks[rows] = self._first_mask
        self._begin(ended, {})
        final = (*column("final_obs", final_obs, ended), *column("final_info", {**final_info, **ending}, ended))
        return {**self._infos(invalid & ~ended), **dict(final)}

    def _clear(self, mask: Bools, prefix: list[int] | None = None) -> None:
        """Resets the decisions of the masked sub-environments to the choices of `prefix`."""
        rows = rows_of(mask)
        start: Any = UNDECIDED
        if prefix:
            start = np.array(prefix + [UNDECIDED] * (self._length - len(prefix)))
        self._tokens[rows] = start
        if self._onehot is not None:
            self._onehot[rows] = self.search_space.one_hot(start).reshape(-1) if prefix else 0.0

    def _move_to(self, position: int | NDArray[np.int64]) -> None:
        if not isinstance(position, int) and (position == position[0]).all():
            position = int(position[0])
        self._position = position
        self._masks = self._current_masks()

    def _current_masks(self) -> Bools:
        """bool[N, A], for internal use only: in lockstep it may be a shared constant."""
        position = self._position
        if isinstance(position, int):
            known = not self._dependent[position]
            return self._known_batches[position] if known else self.open_space.legal(self._decided(), position)
        masks = self._known.take(position, axis=0)
        rows = np.flatnonzero(self._dependent[position])
        if len(rows):
            masks[rows] = self.open_space.legal(self._decided(rows), position[rows])
        return masks

    # ------------------------------------------------------------------ outputs

    @property
    def _observed(self) -> NDArray[Any]:
        return self._tokens if self._onehot is None else self._onehot

    def _decided(self, rows: Any = slice(None)) -> Tokens:
        """The decisions of some sub-environments, int64[B, T], for internal use only: it may be a view."""
        return np.asarray(self._tokens[rows], dtype=np.int64)

    def _observe(self) -> NDArray[Any]:
        return self._observed.astype(self._dtype)

    def _infos(self, invalid: Bools) -> dict[str, Any]:
        """The information of every sub-environment after every step."""
        return {
            "action_mask": self._masks.view(np.int8).copy(),
            "_action_mask": np.ones(self.num_envs, dtype=bool),
            "invalid_action": invalid,
            "_invalid_action": np.ones(self.num_envs, dtype=bool),
        }

    # ------------------------------------------------------------------ inputs

    def _check_waiting(self, waiting: Bools) -> None:
        if not self._started or self.autoreset_mode is not AutoresetMode.NEXT_STEP:
            raise ResetNeeded(f"no episode is running in sub-environments {np.flatnonzero(waiting).tolist()}: reset()")
