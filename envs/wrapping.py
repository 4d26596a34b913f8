"""What the wrappers of scalar and of vector environments have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Space
from numpy.typing import NDArray

from nas_gym.evaluators import Evaluations
from nas_gym.evaluators.objective import VectorObjective


def masked_space(
    env: Any, observations: Space[Any], actions: Any, observation_key: str, mask_key: str, mask_dtype: str
) -> Dict:
    """The space of one environment's observations with masks.

    Raises:
        ValueError: the environment has no masks, or the keys are equal.
    """
    if not hasattr(env.unwrapped, "action_masks"):
        raise ValueError(f"env must have action_masks(), as construction environments do; got {env!r}")
    if observation_key == mask_key:
        raise ValueError(f"observation_key and mask_key must differ, got {observation_key!r} for both")
    masks: Box = Box(0, 1, (int(actions.n),), np.dtype(mask_dtype).type)
    return Dict({observation_key: observations, mask_key: masks})


def announce_rewards(wrapper: Any, env: Any, objective: VectorObjective) -> None:
    """Sets the attributes that tell clients about vector rewards, on a wrapper and on the unwrapped environment."""
    low, high = (bound.astype(np.float32) for bound in objective.bounds())
    for holder in (wrapper, env.unwrapped):
        holder.reward_space = Box(low, high, dtype=np.float32)
        holder.reward_dim = objective.dimensions


def vector_rewards(objective: VectorObjective, columns: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float32]:
    """Computes rewards float32[B, d] from columns of evaluations, float64[B] each."""
    metrics = {name: column for name, column in columns.items() if name not in ("accuracy", "failed")}
    return objective(Evaluations(columns["accuracy"], metrics, columns["failed"] != 0)).astype(np.float32)
