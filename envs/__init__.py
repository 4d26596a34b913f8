"""Gymnasium environments."""

from __future__ import annotations

from nas_gym.envs import vector_wrappers
from nas_gym.envs.construction import ConstructionEnv
from nas_gym.envs.construction_vector import ConstructionVectorEnv
from nas_gym.envs.multitask import MultiTaskEnv
from nas_gym.envs.multitask_vector import MultiTaskVectorEnv
from nas_gym.envs.sampling import masked_sample
from nas_gym.envs.transformation import TransformationEnv
from nas_gym.envs.transformation_vector import TransformationVectorEnv
from nas_gym.envs.wrappers import MaskedObservation, VectorReward

__all__ = [
    "ConstructionEnv",
    "ConstructionVectorEnv",
    "MaskedObservation",
    "MultiTaskEnv",
    "MultiTaskVectorEnv",
    "TransformationEnv",
    "TransformationVectorEnv",
    "VectorReward",
    "masked_sample",
    "vector_wrappers",
]
