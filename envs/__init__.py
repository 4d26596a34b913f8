"""Gymnasium environments."""

from __future__ import annotations

from .construction import ConstructionEnv
from .construction_vector import ConstructionVectorEnv
from .multitask import MultiTaskEnv
from .multitask_vector import MultiTaskVectorEnv
from .sampling import masked_sample
from .transformation import TransformationEnv
from .transformation_vector import TransformationVectorEnv
from .wrappers import MaskedObservation, VectorReward

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
]
