"""Wrappers of the scalar environment for clients with other conventions; see also `vector_wrappers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Space
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from nas_gym.evaluators import Evaluations
from nas_gym.evaluators.objective import VectorObjective

Environment = gymnasium.Env[Any, Any]


class MaskedObservation(gymnasium.ObservationWrapper[dict[str, NDArray[Any]], Any, Any], RecordConstructorArgs):
    """Adds the mask of legal choices to the observation: a Dict of ``observation`` and ``action_mask``, bool[A].

    These are the keys of PettingZoo's convention; TorchRL's `ActionMask` reads ``action_mask``, which must be boolean.
    Other clients use other keys: RLlib's action-masking module reads ``observations`` and ``action_mask``, Tianshou's
    policies ``obs`` and ``mask``.

    Args:
        env: a construction environment, wrapped or not.
        observation_key: the key of the observation.
        mask_key: the key of the mask.

    Raises:
        ValueError: the environment has no masks, or the keys are equal.
    """

    def __init__(self, env: Environment, observation_key: str = "observation", mask_key: str = "action_mask") -> None:
        RecordConstructorArgs.__init__(self, observation_key=observation_key, mask_key=mask_key)
        gymnasium.ObservationWrapper.__init__(self, env)
        self.observation_space: Space[Any] = masked_space(
            env, env.observation_space, env.action_space, observation_key, mask_key
        )
        self._keys = observation_key, mask_key

    def observation(self, observation: Any) -> dict[str, NDArray[Any]]:
        """The observation together with the current mask."""
        return dict(zip(self._keys, (observation, self._masks()), strict=True))

    def _masks(self) -> NDArray[np.bool_]:
        masks: NDArray[np.bool_] = self.unwrapped.action_masks()  # type: ignore[attr-defined]
        return masks


class VectorReward(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Vector rewards following MO-Gymnasium's convention: `reward_space`, `reward_dim`, float32[d] rewards.

    At the end of an episode the reward consists of columns of ``info["evaluation"]``; before, it is zero. Clients read
    `reward_space` and `reward_dim` from the wrapper or from the unwrapped environment, so both have them.

    Args:
        env: a construction environment, wrapped or not.
        weights: a factor for each column, in the order of the rewards: ``{"accuracy": 1, "parameters": -1e-6}``
            rewards accuracy and penalises millions of parameters.
        worst: the rewards of failed evaluations and of penalised illegal choices, one per objective. For a metric
            with a negative weight it must be below all values that occur.

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
        announce_rewards(self, env, len(weights))

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's `step`, with float32[d] as reward."""
        observation, _, terminated, truncated, info = self.env.step(action)
        rewards = np.zeros(self.reward_dim, dtype=np.float32)
        if terminated:
            columns = {name: np.array([value]) for name, value in info["evaluation"].items()}
            rewards = vector_rewards(self._objective, columns)[0]
        return observation, rewards, terminated, truncated, info


def vector_rewards(objective: VectorObjective, columns: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float32]:
    """Computes rewards float32[B, d] from columns of evaluations, float64[B] each."""
    metrics = {name: column for name, column in columns.items() if name not in ("accuracy", "failed")}
    return objective(Evaluations(columns["accuracy"], metrics, columns["failed"] != 0)).astype(np.float32)


def masked_space(env: Any, observations: Space[Any], actions: Any, observation_key: str, mask_key: str) -> Dict:
    """The space of one environment's observations with masks.

    Raises:
        ValueError: the environment has no masks, or the keys are equal.
    """
    if not hasattr(env.unwrapped, "action_masks"):
        raise ValueError(f"env must have action_masks(), as construction environments do; got {env!r}")
    if observation_key == mask_key:
        raise ValueError(f"observation_key and mask_key must differ, got {observation_key!r} for both")
    return Dict({observation_key: observations, mask_key: Box(0, 1, (int(actions.n),), np.bool_)})


def announce_rewards(wrapper: Any, env: Any, dimensions: int) -> None:
    """Sets the attributes that tell clients about vector rewards, on a wrapper and on the unwrapped environment."""
    for holder in (wrapper, env.unwrapped):
        holder.reward_space = Box(-np.inf, np.inf, (dimensions,), np.float32)
        holder.reward_dim = dimensions
