"""The Gymnasium face of the domain."""

from __future__ import annotations

from .construction import ConstructionEnv
from .construction_vector import ConstructionVectorEnv
from .sampling import masked_sample
from .transformation import TransformationEnv
from .transformation_vector import TransformationVectorEnv
from .wrappers import MaskedObservation, VectorReward

__all__ = [
    "ConstructionEnv",
    "ConstructionVectorEnv",
    "MaskedObservation",
    "TransformationEnv",
    "TransformationVectorEnv",
    "VectorReward",
    "masked_sample",
]
