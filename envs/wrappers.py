"""Wrappers that put masks and vector rewards where other libraries look for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Space
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from nas_gym.envs import vector_wrappers
from nas_gym.envs.wrapping import announce_rewards, masked_space, vector_rewards
from nas_gym.evaluators.objective import VectorObjective

Environment = gymnasium.Env[Any, Any]


class MaskedObservation(gymnasium.ObservationWrapper[dict[str, NDArray[Any]], Any, Any], RecordConstructorArgs):
    """Adds the mask of legal choices to the observation: a Dict of the observation and the mask, [A].

    By default these are ``observation`` and ``action_mask``, bool, as in PettingZoo. `for_rllib`, `for_tianshou` and
    `for_torchrl` make what these clients read.

    Args:
        env: a construction environment, wrapped or not.
        observation_key: the key of the observation.
        mask_key: the key of the mask.
        mask_dtype: the type of the mask: ``"bool"``, ``"int8"`` or ``"float32"``, among others.

    Raises:
        ValueError: the environment has no masks, or is a vector environment, or the keys are equal.
    """

    def __init__(
        self,
        env: Environment,
        observation_key: str = "observation",
        mask_key: str = "action_mask",
        mask_dtype: str = "bool",
    ) -> None:
        if isinstance(env, VectorEnv):
            raise ValueError("env is a vector environment; nas_gym.envs.vector_wrappers.MaskedObservation wraps those")
        RecordConstructorArgs.__init__(self, observation_key=observation_key, mask_key=mask_key, mask_dtype=mask_dtype)
        gymnasium.ObservationWrapper.__init__(self, env)
        self.observation_space: Space[Any] = masked_space(
            env, env.observation_space, env.action_space, observation_key, mask_key, mask_dtype
        )
        self._keys, self._dtype = (observation_key, mask_key), mask_dtype

    @classmethod
    def for_rllib(cls, env: Any) -> Any:
        """The form of RLlib's action-masking modules: ``observations``, and ``action_mask`` as float32.

        Args:
            env: a construction environment, or a native vector environment, which gets its own wrapper.
        """
        return _masked(cls, env, "observations", "action_mask", "float32")

    @classmethod
    def for_tianshou(cls, env: Any) -> Any:
        """The form of Tianshou's DQN and its relatives: ``obs``, and ``mask`` as bool; see `for_rllib`."""
        return _masked(cls, env, "obs", "mask", "bool")

    @classmethod
    def for_torchrl(cls, env: Any) -> Any:
        """The form of TorchRL's `ActionMask`: ``observation``, and ``action_mask`` as bool; see `for_rllib`."""
        return _masked(cls, env, "observation", "action_mask", "bool")

    def observation(self, observation: Any) -> dict[str, NDArray[Any]]:
        """The observation together with the current mask."""
        masks: NDArray[np.bool_] = self.unwrapped.action_masks()  # type: ignore[attr-defined]
        return dict(zip(self._keys, (observation, masks.astype(self._dtype)), strict=True))


def _masked(scalar: type[MaskedObservation], env: Any, *form: str) -> Any:
    """The wrapper of an environment, or of a vector of them."""
    return vector_wrappers.MaskedObservation(env, *form) if isinstance(env, VectorEnv) else scalar(env, *form)


class VectorReward(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Vector rewards following MO-Gymnasium's convention: `reward_space`, `reward_dim`, float32[d] rewards.

    At the end of an episode the reward consists of columns of ``info["evaluation"]``; before, it is zero. Clients read
    `reward_space` and `reward_dim` from the wrapper or from the unwrapped environment, so both have them.

    Args:
        env: a construction environment, wrapped or not.
        weights: a factor for each column, in the order of the rewards: ``{"accuracy": 1, "parameters": -1e-6}``
            rewards accuracy and penalises millions of parameters.
        worst: the rewards of failed evaluations and of penalised illegal choices, one per objective. For a metric
            with a negative weight it must be below all values that occur; it is then the bound of `reward_space`.

    Raises:
        ValueError: there is no objective, or `worst` has another length; at the end of an episode, if the evaluation
            lacks a column.
    """

    reward_space: Space[Any]
    reward_dim: int

    def __init__(self, env: Environment, weights: Mapping[str, float], worst: Sequence[float]) -> None:
        RecordConstructorArgs.__init__(self, weights=dict(weights), worst=list(worst))
        gymnasium.Wrapper.__init__(self, env)
        self._objective = VectorObjective(weights, tuple(worst))
        announce_rewards(self, env, self._objective)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's `step`, with float32[d] as reward."""
        observation, _, terminated, truncated, info = self.env.step(action)
        rewards = np.zeros(self.reward_dim, dtype=np.float32)
        if terminated:
            columns = {name: np.array([value]) for name, value in info["evaluation"].items()}
            rewards = vector_rewards(self._objective, columns)[0]
        return observation, rewards, terminated, truncated, info
