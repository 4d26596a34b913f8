"""The Gymnasium face of the domain."""

from __future__ import annotations

from .construction import ConstructionEnv
from .construction_vector import ConstructionVectorEnv
from .sampling import masked_sample
from .wrappers import MaskedObservation, VectorReward

__all__ = ["ConstructionEnv", "ConstructionVectorEnv", "MaskedObservation", "VectorReward", "masked_sample"]
