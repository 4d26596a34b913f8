"""Native vector form of the transformation environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas_gym.envs.checks import checked_reset_mask
from nas_gym.envs.construction_vector import ConstructionVectorEnv, Step
from nas_gym.envs.transformation import TransformationEnv
from nas_gym.spaces import UNDECIDED, TransformationSpace
from nas_gym.types import Bools


class TransformationVectorEnv(ConstructionVectorEnv):
    """N copies of a `TransformationEnv` that share one evaluator and are stepped together.

    Equal, step for step, to `gymnasium.vector.SyncVectorEnv` of N scalar environments if evaluations do not depend on
    earlier ones, with three differences. As in `ConstructionVectorEnv`, the networks to be trained in the same step are
    one batch, including the intermediate networks of ``reward="gain"``; and `infos["final_obs"]` is one array, or a
    dict of arrays with the observation ``"dict"``. For `restart_after`, the sub-environments count their episodes
    together, and episodes that start in the same step start from the same network.

    Args:
        num_envs: N, at least 1.
        **arguments: `autoreset_mode` and `max_episode_steps` as for `ConstructionVectorEnv`, and those of
            `TransformationEnv`, except the render mode ``"human"``.

    Raises:
        ValueError: an argument is invalid.
    """

    scalar = TransformationEnv
    _single: TransformationEnv
    search_space: TransformationSpace

    def __init__(self, num_envs: int = 1, **arguments: Any) -> None:
        super().__init__(num_envs, **arguments)
        self._onehot = None  # the one-hot actions are never observed
        # The current networks, and how many transformations have made them.
        self._networks = self.search_space.reached(self._decided()[:, :0]).copy()
        self._taken = np.zeros(num_envs, dtype=np.int64)
        self.restarts, self.restart_after = self._single.restarts, self._single.restart_after
        # If rewards are gains: the objectives of the current networks and of the start network.
        self._values, self._start_value = np.zeros(num_envs), 0.0
        self._gains = np.zeros(num_envs)  # rewards of the last step

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """As `ConstructionVectorEnv.reset`."""
        observations, infos = super().reset(seed=seed, options=self.restarts.options(options))
        if self._single.reward == "gain":
            mask = checked_reset_mask(options, self.num_envs, self._started)
            first = self._decided(int(np.argmax(mask)))  # all that were reset start from the same network
            start = np.full_like(first, UNDECIDED)
            start[: len(self.restarts.prefix)] = self.restarts.prefix
            values = self._single.values(np.stack([start, first]))
            self._start_value, self._values[mask] = float(values[0]), values[1]
        return observations, infos

    def step(self, actions: ArrayLike) -> Step:
        """As `ConstructionVectorEnv.step`."""
        observations, rewards, terminations, truncations, infos = super().step(actions)
        if self._single.reward == "gain":
            rewards = self._gains.copy()
        return observations, rewards, terminations, truncations, infos

    def _advance(self, choices: NDArray[np.int64], invalid: Bools) -> Bools:
        waiting = np.broadcast_to(self._position == np.int64(self._length), self.num_envs).copy()
        if waiting.any():
            self._check_waiting(waiting)
        taken = np.where(waiting | (invalid & self._penalise), self.search_space.stop, choices)
        self._networks = self.search_space.layer_space.arrays.grown(self._networks, taken)
        self._taken += taken != self.search_space.stop
        ended = super()._advance(choices, invalid)
        if self._single.reward == "gain":
            penalised = ended & invalid & self._penalise
            values = np.where(penalised, self.objective.worst, self._values)
            scored = ~(waiting | penalised)
            if scored.any():
                values[scored] = self._single.values(self._decided(scored))
            self._gains = np.where(waiting, 0.0, values - self._values)
            self._values = values
        self._start(waiting)
        return ended

    def _score(self, ended: Bools, penalised: Bools, rewards: NDArray[np.float64]) -> dict[str, Any]:
        ending = super()._score(ended, penalised, rewards)
        if self.restart_after is not None:
            for row in np.flatnonzero(ended):
                self.restarts.count(self._decided(row), float(rewards[row]))
            if np.isfinite(self.restarts.value):
                self._start_value = self.restarts.value
        return ending

    def _start(self, mask: Bools) -> None:
        """Moves the masked sub-environments from the space's start network to the one from which episodes start now."""
        prefix = self.restarts.prefix
        if prefix and mask.any():
            self._tokens[mask, : len(prefix)] = prefix
            self._place(mask, prefix)
            self._move_to(np.where(mask, len(prefix), self._position))
        self._values[mask] = self._start_value

    def _clear(self, mask: Bools, prefix: list[int] | None = None) -> None:
        super()._clear(mask, prefix)
        self._place(mask, prefix or [])

    def _place(self, mask: Bools, prefix: Sequence[int]) -> None:
        """Gives the masked sub-environments the network that the actions of a prefix make."""
        self._networks[:, mask] = self.search_space.reached(np.array([prefix], dtype=np.int64))
        self._taken[mask] = len(prefix)

    def _current_masks(self) -> Bools:
        position = np.asarray(self._position)
        if (position == self._length).all():
            return np.ones((self.num_envs, self._width), dtype=bool)
        masks = self.search_space.legal_next(self._networks, position)
        masks[np.broadcast_to(position == self._length, self.num_envs)] = True
        return masks

    def _restart_at_once(self, ended: Bools, invalid: Bools, ending: dict[str, Any]) -> dict[str, Any]:
        rows = np.flatnonzero(ended)
        final = self._single.observe(self._networks[:, rows], self._taken[rows], self._decided(rows))

        def of_all(part: NDArray[Any]) -> NDArray[Any]:
            spread = np.zeros((self.num_envs, *part.shape[1:]), dtype=part.dtype)
            spread[rows] = part
            return spread

        self._place(ended, ())
        infos = super()._restart_at_once(ended, invalid, ending)
        self._start(ended)
        shown = {key: of_all(part) for key, part in final.items()} if isinstance(final, dict) else of_all(final)
        return {**infos, **self._infos(invalid & ~ended), "final_obs": shown}

    def _observe(self) -> Any:
        return self._single.observe(self._networks, self._taken, self._decided())

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """As `ConstructionVectorEnv.state_dict`: the network from which episodes start."""
        return self.restarts.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As `ConstructionVectorEnv.load_state_dict`."""
        self.restarts.load_state_dict(state)
