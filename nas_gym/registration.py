"""The table of environments: for each id, its search space, evaluator and task."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

ENTRY_POINT = "nas_gym.envs.construction:ConstructionEnv"
VECTOR_ENTRY_POINT = "nas_gym.envs.construction_vector:ConstructionVectorEnv"
TRANSFORMATION: dict[str, Any] = {
    "entry_point": "nas_gym.envs.transformation:TransformationEnv",
    "vector_entry_point": "nas_gym.envs.transformation_vector:TransformationVectorEnv",
}
MULTI_TASK: dict[str, Any] = {
    "entry_point": "nas_gym.envs.multitask:MultiTaskEnv",
    "vector_entry_point": "nas_gym.envs.multitask_vector:MultiTaskVectorEnv",
}


@dataclass(frozen=True, slots=True)
class EnvironmentSpec:
    """One registered environment; the fields are defaults that `gymnasium.make` may override.

    Attributes:
        id: Gymnasium's id, including the version.
        space: a preset of `nas_gym.spaces`.
        evaluator: a name of `nas_gym.evaluators`.
        task: a name of `nas_gym.tasks`, or None; evaluators that do not train ignore it.
        description: a one-line description.
        entry_point: the environment's class, as ``module:name``.
        vector_entry_point: the class of its native vector form.
        base: for a multi-task environment, the id of the single-task environment whose space and evaluator it has.
        tasks: for a multi-task environment, the names of its tasks.
    """

    id: str
    space: str
    evaluator: str
    task: str | None
    description: str
    entry_point: str = ENTRY_POINT
    vector_entry_point: str = VECTOR_ENTRY_POINT
    base: str | None = None
    tasks: tuple[str, ...] = ()

    @property
    def kwargs(self) -> dict[str, Any]:
        """The environment's keyword arguments, all JSON-serialisable."""
        if self.base is not None:
            return {"base": self.base, "tasks": list(self.tasks)}
        return {"space": self.space, "evaluator": self.evaluator, "task": self.task}


ENVIRONMENTS: tuple[EnvironmentSpec, ...] = (
    EnvironmentSpec(
        id="NAS-Cell-v0",
        space="cell:enas",
        evaluator="shared-weights",
        task="glyphs",
        description="A normal and a reduction cell of a convolutional network, as in ENAS micro.",
    ),
    EnvironmentSpec(
        id="NAS-Bench201-v0",
        space="bench201",
        evaluator="table",
        task="fashion-mnist",
        description="The six edges of a NAS-Bench-201 cell.",
    ),
    EnvironmentSpec(
        id="NAS-Chain-v0",
        space="chain:stop",
        evaluator="shared-weights",
        task="digits",
        description="A chain of up to 15 convolutions with skip connections and a choice of depth, after Zoph & Le.",
    ),
    EnvironmentSpec(
        id="NAS-Macro-v0",
        space="macro",
        evaluator="shared-weights",
        task="digits",
        description="Twelve layers, each with an operation and a skip bit for each earlier layer, as in ENAS macro.",
    ),
    EnvironmentSpec(
        id="NAS-Size-v0",
        space="size",
        evaluator="shared-weights",
        task="digits",
        description="The widths of the five stages of a fixed network, as in NATS-Bench.",
    ),
    EnvironmentSpec(
        id="NAS-Bench101-v0",
        space="bench101",
        evaluator="shared-weights",
        task="digits",
        description="A NAS-Bench-101 cell: a graph of seven vertices and at most nine edges.",
    ),
    EnvironmentSpec(
        id="NAS-Hierarchical-v0",
        space="hierarchical",
        evaluator="shared-weights",
        task="digits",
        description="Motifs of primitive operations, and a cell of motifs.",
    ),
    EnvironmentSpec(
        id="NAS-BenchGraph-v0",
        space="bench_graph",
        evaluator="table",
        task="cora",
        description="The wiring and the operations of a NAS-Bench-Graph graph neural network.",
    ),
    EnvironmentSpec(
        id="NAS-Mobile-v0",
        space="mobile",
        evaluator="shared-weights",
        task="digits",
        description="Kernel, expansion, depth and squeeze-excite of the stages of a mobile network.",
    ),
    EnvironmentSpec(
        id="NAS-Transform-v0",
        space="transformation",
        evaluator="morphism",
        task="digits",
        description="A small trained network, made wider and deeper by transformations that keep its function.",
        **TRANSFORMATION,
    ),
    EnvironmentSpec(
        id="NAS-Transform-Dense-v0",
        space="transformation:densenet",
        evaluator="morphism",
        task="digits",
        description="A small trained DenseNet, made wider and deeper by transformations that keep its function.",
        **TRANSFORMATION,
    ),
    EnvironmentSpec(
        id="NAS-MultiTask-v0",
        space="bench_graph",
        evaluator="table",
        task=None,
        description="Many tasks in one search space, a different one in each episode: those of NAS-Bench-Graph.",
        base="NAS-BenchGraph-v0",
        tasks=("cora", "citeseer", "pubmed", "cs", "physics", "photo", "computers", "arxiv"),
        **MULTI_TASK,
    ),
)


def environment_spec(id: str) -> EnvSpec:
    """Gymnasium's record of an environment.

    Args:
        id: the id, or ``module:ID``, where importing the module registers the environment. Environments of installed
            packages are found too (see `nas_gym.registry`).

    Raises:
        ValueError: there is no such environment, or the module cannot be imported.
    """
    from nas_gym.registry import register_installed  # not needed to register

    module, _, name = id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        elif name not in gymnasium.registry:
            from nas_gym.registry import register_installed  # not needed where all ids are this package's

            register_installed()
        return gymnasium.spec(name)
    except ImportError as error:
        raise ValueError(f"environment {id!r} is not found: {error}") from error
    except gymnasium.error.Error as error:
        from nas_gym.settings import unknown  # not needed to register

        raise ValueError(unknown("environment", id, [spec.id for spec in ENVIRONMENTS])) from error


def environment_specs() -> list[EnvSpec]:
    """Gymnasium's records of all environments of this package's classes, those of other packages included."""
    from nas_gym.registry import register_installed

    register_installed()
    classes = {spec.entry_point for spec in ENVIRONMENTS}
    return [spec for spec in gymnasium.registry.values() if spec.entry_point in classes]


def register_all() -> None:
    """Registers every environment of the table with Gymnasium, unless it is registered already."""
    for spec in ENVIRONMENTS:
        if spec.id not in gymnasium.registry:
            gymnasium.register(
                id=spec.id,
                entry_point=spec.entry_point,
                vector_entry_point=spec.vector_entry_point,
                kwargs=spec.kwargs,
            )
