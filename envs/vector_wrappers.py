"""The wrappers of `wrappers`, for native vector environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Space
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from nas_gym.envs.wrapping import announce_rewards, masked_space, vector_rewards
from nas_gym.evaluators.objective import VectorObjective

Vector = VectorEnv[Any, Any, Any]
Step = tuple[Any, Any, Any, Any, dict[str, Any]]


class ModeWrapper(VectorWrapper):
    """A wrapper that has an attribute `autoreset_mode`, as the environment has, where TorchRL reads it."""

    @property
    def autoreset_mode(self) -> AutoresetMode:
        """The mode of the environment."""
        mode: AutoresetMode = self.metadata["autoreset_mode"]
        return mode


class MaskedObservation(ModeWrapper, RecordConstructorArgs):
    """Adds the masks of legal choices to the observations: a dict of the observations and the masks, [N, A].

    In SAME_STEP, ``infos["final_obs"]`` is such a dict too. `nas_gym.envs.MaskedObservation.for_rllib(envs)` and its
    relatives make the form of a client.

    Args:
        envs: a native vector environment, wrapped or not.
        observation_key: as for the scalar wrapper, like the others.
        mask_key: the key of the masks.
        mask_dtype: the type of the masks.

    Raises:
        ValueError: the environment has no masks, or the keys are equal.
    """

    def __init__(
        self,
        envs: Vector,
        observation_key: str = "observation",
        mask_key: str = "action_mask",
        mask_dtype: str = "bool",
    ) -> None:
        RecordConstructorArgs.__init__(self, observation_key=observation_key, mask_key=mask_key, mask_dtype=mask_dtype)
        VectorWrapper.__init__(self, envs)
        self.single_observation_space = masked_space(
            envs, envs.single_observation_space, envs.single_action_space, observation_key, mask_key, mask_dtype
        )
        self.observation_space = batch_space(self.single_observation_space, envs.num_envs)
        self._keys, self._dtype = (observation_key, mask_key), mask_dtype

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """As the environment's `reset`, with masks in the observations."""
        observations, infos = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        return self._masked(observations, self.unwrapped.action_masks()), infos  # type: ignore[attr-defined]

    def step(self, actions: Any) -> Step:
        """As the environment's `step`, with masks in the observations."""
        observations, rewards, terminations, truncations, infos = self.env.step(actions)
        if "final_obs" in infos:
            infos = {**infos, "final_obs": self._masked(infos["final_obs"], infos["final_info"]["action_mask"])}
        return self._masked(observations, infos["action_mask"]), rewards, terminations, truncations, infos

    def _masked(self, observations: Any, masks: NDArray[Any]) -> dict[str, NDArray[Any]]:
        return dict(zip(self._keys, (observations, masks.astype(self._dtype)), strict=True))


class VectorReward(ModeWrapper, RecordConstructorArgs):
    """Vector rewards, float32[N, d]; `reward_space` and `reward_dim` are those of a single environment.

    Args:
        envs: a native vector environment, wrapped or not.
        weights: as for the scalar wrapper.
        worst: as for the scalar wrapper.

    Raises:
        ValueError: as for the scalar wrapper.
    """

    reward_space: Space[Any]
    reward_dim: int

    def __init__(self, envs: Vector, weights: Mapping[str, float], worst: Sequence[float]) -> None:
        RecordConstructorArgs.__init__(self, weights=dict(weights), worst=list(worst))
        VectorWrapper.__init__(self, envs)
        self._objective = VectorObjective(weights, tuple(worst))
        announce_rewards(self, envs, self._objective)

    def step(self, actions: Any) -> Step:
        """As the environment's `step`, with float32[N, d] as rewards."""
        observations, _, terminations, truncations, infos = self.env.step(actions)
        rewards = np.zeros((self.num_envs, self.reward_dim), dtype=np.float32)
        if terminations.any():
            same_step = self.autoreset_mode is AutoresetMode.SAME_STEP
            evaluation = (infos["final_info"] if same_step else infos)["evaluation"]
            columns = {name: column[terminations] for name, column in evaluation.items() if not name.startswith("_")}
            rewards[terminations] = vector_rewards(self._objective, columns)
        return observations, rewards, terminations, truncations, infos
