"""N transformation environments at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import ArrayLike, NDArray

from nas_gym.spaces import UNDECIDED

from .construction_vector import Bools, ConstructionVectorEnv, Step, _only
from .transformation import TransformationEnv


class TransformationVectorEnv(ConstructionVectorEnv):
    """N copies of a `TransformationEnv` that share one evaluator, stepped together.

    Step for step equal to `gymnasium.vector.SyncVectorEnv` of N scalar environments, where an evaluation does not
    depend on those before, and with the same two differences as `ConstructionVectorEnv`: networks that are to be
    trained in one step are one batch, those on the way included that ``reward="gain"`` asks for; and
    `infos["final_obs"]` is one array.

    Args:
        num_envs: N, at least 1.
        autoreset_mode: as for `ConstructionVectorEnv`.
        **arguments: those of `TransformationEnv`, but for the render mode ``"human"``.

    Raises:
        ValueError: an argument is not understood.
    """

    scalar = TransformationEnv
    _single: TransformationEnv

    def __init__(
        self, num_envs: int = 1, *, autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP, **arguments: Any
    ) -> None:
        super().__init__(num_envs, autoreset_mode=autoreset_mode, **arguments)
        self._onehot = None  # of the actions: nobody is shown it
        self._values = np.zeros(num_envs)  # of the networks as they are, where rewards are gains
        self._start_value = 0.0
        self._gains = np.zeros(num_envs)  # of the last step

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """As `ConstructionVectorEnv.reset`."""
        observations, infos = super().reset(seed=seed, options=options)
        if self._single.reward == "gain":
            mask = self._checked_reset_mask(options)
            first = self._tokens[int(np.argmax(mask))]  # all that were reset stand where this one does
            values = self._single.values(np.stack([np.full_like(first, UNDECIDED), first]))
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
        ended = super()._advance(choices, invalid)
        if self._single.reward == "gain":
            penalised = ended & invalid & self._penalise
            values = np.where(penalised, self.objective.worst, self._values)
            scored = ~(waiting | penalised)
            if scored.any():
                values[scored] = self._single.values(self._tokens[scored])
            self._gains = np.where(waiting, 0.0, values - self._values)
            self._values = np.where(ended | waiting, self._start_value, values)
        return ended

    def _restart_at_once(self, ended: Bools, invalid: Bools, ending: dict[str, Any]) -> dict[str, Any]:
        final = self._observe()
        return {**super()._restart_at_once(ended, invalid, ending), "final_obs": _only(final, ended)}

    def _observe(self) -> NDArray[Any]:
        return np.stack([self._single.observe(tokens) for tokens in self._tokens])
