"""The one table of environments: an id, and the search space, evaluator and task behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium

ENTRY_POINT = "nas_gym.envs.construction:ConstructionEnv"
VECTOR_ENTRY_POINT = "nas_gym.envs.construction_vector:ConstructionVectorEnv"


@dataclass(frozen=True, slots=True)
class EnvironmentSpec:
    """One registered environment; the fields are defaults that `gymnasium.make` may override.

    Attributes:
        id: Gymnasium's id, with its version.
        space: a preset of `nas_gym.spaces`.
        evaluator: a name of `nas_gym.evaluators`.
        task: a name of `nas_gym.tasks`.
        description: one line for lists.
    """

    id: str
    space: str
    evaluator: str
    task: str
    description: str

    @property
    def kwargs(self) -> dict[str, Any]:
        """The environment's keyword arguments, all JSON-able."""
        return {"space": self.space, "evaluator": self.evaluator, "task": self.task}


ENVIRONMENTS: tuple[EnvironmentSpec, ...] = (
    EnvironmentSpec(
        id="NAS-Cell-v0",
        space="cell:enas",
        evaluator="shared-weights",
        task="digits",
        description="A normal and a reduction cell of a convolutional network, as in ENAS micro.",
    ),
    EnvironmentSpec(
        id="NAS-Bench201-v0",
        space="bench201",
        evaluator="shared-weights",
        task="digits",
        description="The six edges of a NAS-Bench-201 cell.",
    ),
)


def register_all() -> None:
    """Registers every environment of the table with Gymnasium; those that are registered already stay."""
    for spec in ENVIRONMENTS:
        if spec.id not in gymnasium.registry:
            gymnasium.register(
                id=spec.id, entry_point=ENTRY_POINT, vector_entry_point=VECTOR_ENTRY_POINT, kwargs=spec.kwargs
            )
