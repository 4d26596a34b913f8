"""Adapter from the native vector environment to Stable-Baselines3's `VecEnv`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from nas_gym.envs.construction_vector import ConstructionVectorEnv

METHODS = ("action_masks", "render")


class SB3VecEnv(VecEnv):
    """A `ConstructionVectorEnv` for the algorithms of Stable-Baselines3 and sb3-contrib.

    Rollouts equal those of a `DummyVecEnv` of scalar environments. For speed with thousands of sub-environments, the
    ``infos`` of running episodes contain only ``invalid_action``, and only if it is true; masks are available from
    ``env_method("action_masks")``, which MaskablePPO calls. At the end of an episode the info is complete.

    Args:
        envs: a native vector environment with autoreset in the same step, as made by `gymnasium.make_vec`.

    Raises:
        ValueError: `envs` is another kind of vector environment, or has another autoreset mode.
    """

    def __init__(self, envs: gymnasium.vector.VectorEnv[Any, Any, Any]) -> None:
        if not isinstance(envs, ConstructionVectorEnv):
            raise ValueError(f"envs must be a ConstructionVectorEnv, as gymnasium.make_vec makes it; got {envs!r}")
        if envs.autoreset_mode is not AutoresetMode.SAME_STEP:
            raise ValueError(f"envs must have autoreset_mode 'SameStep', got {envs.autoreset_mode.value!r}")
        self.envs = envs
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        self._actions: NDArray[Any] = np.zeros(envs.num_envs, dtype=np.int64)

    def reset(self) -> NDArray[Any]:
        """Starts all episodes with the seeds and options that were set before.

        Raises:
            ValueError: the options differ between sub-environments.
        """
        options = self._options[0]
        if any(other != options for other in self._options):
            raise ValueError("options must be the same for all sub-environments")
        observations, infos = self.envs.reset(seed=self._seeds, options=options)
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = _rows(infos, np.arange(self.num_envs))
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        observations, rewards, terminations, _, columns = self.envs.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row in np.flatnonzero(columns["invalid_action"]).tolist():
            infos[row]["invalid_action"] = True
        if terminations.any():
            self._tell_endings(np.flatnonzero(terminations), columns, infos)
        return observations, rewards.astype(np.float32), terminations, infos

    def _tell_endings(self, rows: NDArray[np.int64], columns: dict[str, Any], infos: list[dict[str, Any]]) -> None:
        last, first = _rows(columns["final_info"], rows), _rows(columns, rows)
        for index, row in enumerate(rows.tolist()):
            infos[row] = last[index]
            infos[row]["TimeLimit.truncated"] = False
            infos[row]["terminal_observation"] = _at(columns["final_obs"], row)
            self.reset_infos[row] = first[index]

    def close(self) -> None:
        self.envs.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute of the vector environment, repeated for each requested sub-environment."""
        value = getattr(self.envs, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets an attribute of the vector environment, which all sub-environments share.

        Raises:
            ValueError: `indices` are not all sub-environments.
        """
        if sorted(self._get_indices(indices)) != list(range(self.num_envs)):
            raise ValueError(f"attribute {attr_name!r} can only be set for all sub-environments at once")
        setattr(self.envs, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """The results of ``"action_masks"`` or ``"render"`` for the requested sub-environments.

        Raises:
            AttributeError: for any other method.
        """
        if method_name not in METHODS:
            raise AttributeError(f"sub-environments have the methods {', '.join(METHODS)}; got {method_name!r}")
        results = getattr(self.envs, method_name)(*method_args, **method_kwargs)
        return [results[index] for index in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        return list(self.envs.render()) if self.render_mode == "rgb_array" else [None] * self.num_envs


def _at(observations: Any, row: int) -> Any:
    """The observation of one sub-environment."""
    if isinstance(observations, dict):
        return {key: part[row] for key, part in observations.items()}
    return observations[row]


def _rows(columns: dict[str, Any], rows: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Extracts the infos of some sub-environments from the columns of vector infos."""
    infos: list[dict[str, Any]] = [{} for _ in rows]
    for name, column in columns.items():
        present = columns.get(f"_{name}")
        if present is None or name.startswith("final_"):
            continue
        nested = isinstance(column, dict)
        values = _rows(column, rows) if nested else list(column[rows]) if column.ndim > 1 else column[rows].tolist()
        for info, value, there in zip(infos, values, present[rows].tolist(), strict=True):
            if there:
                info[name] = value
    return infos
