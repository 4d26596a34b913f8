"""The Gymnasium face of the domain."""

from __future__ import annotations

from .construction import ConstructionEnv
from .construction_vector import ConstructionVectorEnv

__all__ = ["ConstructionEnv", "ConstructionVectorEnv"]
