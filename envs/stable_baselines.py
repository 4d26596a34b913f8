"""The native vector environment as a `VecEnv` of Stable-Baselines3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from nas_gym.envs.construction_vector import ConstructionVectorEnv
from nas_gym.envs.problem import make_vector

METHODS = ("action_masks", "render")


def make_sb3_vec(
    id: str,
    n_envs: int = 1,
    *,
    wrapper: Callable[[VectorEnv[Any, Any, Any]], VectorEnv[Any, Any, Any]] | None = None,
    **arguments: Any,
) -> VecEnv:
    """The native vector form of an environment for Stable-Baselines3, as its ``make_vec_env`` makes scalar ones.

    Args:
        id: the environment's id.
        n_envs: the number of sub-environments.
        wrapper: wraps the native vector environment, such as `nas_gym.envs.vector_wrappers.MaskedObservation`.
        **arguments: those of the environment.

    Returns:
        A `SB3VecEnv` in a `VecMonitor`, from which algorithms log the rewards and lengths of episodes.

    Raises:
        ValueError: there is no such environment, or an argument is invalid.
    """
    envs = make_vector(id, n_envs, **arguments)
    return VecMonitor(SB3VecEnv(wrapper(envs) if wrapper else envs))


class SB3VecEnv(VecEnv):
    """A `ConstructionVectorEnv`, wrapped or not, for the algorithms of Stable-Baselines3 and sb3-contrib.

    Rollouts equal those of a `DummyVecEnv` of scalar environments. For speed with thousands of sub-environments, the
    ``infos`` of running episodes contain only ``invalid_action``, and only if it is true; masks are available from
    ``env_method("action_masks")``, which MaskablePPO calls. At the end of an episode the info is complete.

    Args:
        envs: a native vector environment, as `gymnasium.make_vec` makes it. Episodes begin in the step in which the
            last ones have ended, whatever its autoreset mode; SAME_STEP, which `make_sb3_vec` asks for, is the fastest.

    Raises:
        ValueError: `envs` is another kind of vector environment.
    """

    def __init__(self, envs: VectorEnv[Any, Any, Any]) -> None:
        native = envs.unwrapped
        if not isinstance(native, ConstructionVectorEnv):
            raise ValueError(f"envs must be a ConstructionVectorEnv, as gymnasium.make_vec makes it; got {envs!r}")
        self.envs: Any = envs
        self._native = native
        self._same_step = native.autoreset_mode is AutoresetMode.SAME_STEP
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
        observations: NDArray[Any]
        observations, infos = self.envs.reset(seed=self._seeds, options=options)
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = _rows(infos, np.arange(self.num_envs))
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        observations, rewards, terminations, truncations, columns = self.envs.step(self._actions)
        dones = terminations | truncations
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row in np.flatnonzero(columns["invalid_action"]).tolist():
            infos[row]["invalid_action"] = True
        if dones.any():
            if self._same_step:
                final_observations, final_columns = columns["final_obs"], columns["final_info"]
            else:
                final_observations, final_columns = observations, columns
                observations, columns = self.envs.reset(options={"reset_mask": dones})
            rows = np.flatnonzero(dones)
            last, first = _rows(final_columns, rows), _rows(columns, rows)
            for index, row in enumerate(rows.tolist()):
                infos[row] = last[index]
                infos[row]["TimeLimit.truncated"] = bool(truncations[row] and not terminations[row])
                infos[row]["terminal_observation"] = _at(final_observations, row)
                self.reset_infos[row] = first[index]
        return observations, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        self.envs.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute of the vector environment, repeated for each requested sub-environment."""
        value = getattr(self.envs if hasattr(self.envs, attr_name) else self._native, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets an attribute of the vector environment, which all sub-environments share.

        Raises:
            ValueError: `indices` are not all sub-environments.
        """
        if sorted(self._get_indices(indices)) != list(range(self.num_envs)):
            raise ValueError(f"attribute {attr_name!r} can only be set for all sub-environments at once")
        setattr(self._native, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """The results of ``"action_masks"`` or ``"render"`` for the requested sub-environments.

        Raises:
            AttributeError: for any other method.
        """
        if method_name not in METHODS:
            raise AttributeError(f"sub-environments have the methods {', '.join(METHODS)}; got {method_name!r}")
        results = getattr(self._native, method_name)(*method_args, **method_kwargs)
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
