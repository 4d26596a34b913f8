"""What an evaluator is asked to be: parsed once, from Python, YAML and the command line alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nas_gym.evaluators.evaluator import Evaluator, FunctionEvaluator
from nas_gym.registry import Registry
from nas_gym.spaces import SearchSpace

EVALUATORS: Registry[type[Evaluator]] = Registry(
    "evaluator",
    {
        "constant": FunctionEvaluator,
        "from-scratch": "nas_gym.evaluators.from_scratch:FromScratchEvaluator",
        "hypernetwork": "nas_gym.evaluators.hypernetwork:HypernetworkEvaluator",
        "morphism": "nas_gym.evaluators.morphism:MorphismEvaluator",
        "relaxed": "nas_gym.evaluators.relaxed:RelaxedEvaluator",
        "shared-weights": "nas_gym.evaluators.shared_weights:SharedWeightEvaluator",
        "table": "nas_gym.evaluators.tabular:TabularEvaluator",
        "zero-cost": "nas_gym.evaluators.zero_cost:ZeroCostEvaluator",
    },
)
"""The classes of evaluators by name. They are called with a search space, and by keyword with the rest."""

TABLE = "table"
TRAINING = ("seed", "device", "data_dir", "download")  # arguments of every evaluator that trains


def register_evaluator(name: str, evaluator: type[Evaluator] | str) -> None:
    """Makes an evaluator known by a name, to environments, suites and the command line.

    Args:
        name: the name.
        evaluator: the class, called with a search space and, by keyword, with its settings (and ``task``, where its
            `uses_task` says so); or where it is found, ``module:Class``.

    Raises:
        ValueError: the name is empty, or the place is not of that form.
    """
    EVALUATORS.register(name, evaluator)


@dataclass(frozen=True)
class EvaluatorConfig:
    """An evaluator by name, with its settings.

    Attributes:
        name: one of `EVALUATORS`, or where a class stands, ``module:Class``.
        task: the name of the task, for evaluators that use one.
        settings: arguments of the evaluator.
        cost: arguments of `CostEvaluator`, which then reports what networks cost, and limits it; None leaves it out.
        early_stopping: arguments of `EarlyStoppingEvaluator`, which then stops trainings that will hardly be the best;
            None leaves it out.

    Raises:
        ValueError: a field is not of its type.
    """

    name: str
    task: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, Any] | None = None
    early_stopping: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ValueError(f"evaluator must be a name or an Evaluator, got {self.name!r}")
        for name in ("settings", "cost", "early_stopping"):
            value = getattr(self, name)
            if not isinstance(value, Mapping) and not (value is None and name != "settings"):
                raise ValueError(f"{name} must map settings to values, got {value!r}")

    @classmethod
    def parse(
        cls,
        evaluator: str,
        task: str | None = None,
        kwargs: Mapping[str, Any] | None = None,
        table: Any = None,
    ) -> EvaluatorConfig:
        """Reads the arguments of an environment.

        Args:
            evaluator: a name.
            task: the name of the task.
            kwargs: the evaluator's arguments, and beside them ``cost`` and ``early_stopping``.
            table: of a table, which then is the evaluator; the other arguments are those of the table's evaluator.
        """
        settings = dict(kwargs or {})
        if table is not None:
            evaluator, settings = TABLE, {**settings, "table": table}
        return cls(
            evaluator,
            task,
            cost=settings.pop("cost", None),
            early_stopping=settings.pop("early_stopping", None),
            settings=settings,
        )

    @property
    def kind(self) -> type[Evaluator]:
        """The evaluator's class.

        Raises:
            ValueError: there is none of that name, or it is not a class of evaluators.
        """
        kind = EVALUATORS[self.name]
        if not isinstance(kind, type) or not issubclass(kind, Evaluator):
            raise ValueError(f"evaluator {self.name!r} must be a subclass of Evaluator, got {kind!r}")
        return kind

    def with_defaults(self, **training: Any) -> EvaluatorConfig:
        """With these for the settings that are not given, where the evaluator trains networks; else as it is."""
        if not self.kind.trains:
            return self
        return dataclasses.replace(self, settings={**training, **self.settings})

    def with_cost(self, metric: str) -> EvaluatorConfig:
        """With a metric among those of `CostEvaluator`, where it trains networks; tables report what they have."""
        if not self.kind.trains:
            return self
        cost = dict(self.cost or {})
        measured = dict.fromkeys((*cost.get("metrics", ("parameters", "flops")), metric))
        return dataclasses.replace(self, cost={**cost, "metrics": list(measured)})

    def kwargs(self) -> dict[str, Any]:
        """The arguments of an environment that `parse` makes this of."""
        extra = {name: getattr(self, name) for name in ("cost", "early_stopping") if getattr(self, name) is not None}
        return {
            "evaluator": self.name,
            "task": self.task,
            "evaluator_kwargs": {**self.settings, **extra},
            "table": None,
        }

    def make(self, space: SearchSpace) -> Evaluator:
        """Makes the evaluator of a search space.

        Raises:
            ValueError: there is none of that name, or it does not take these settings.
        """
        arguments = {**self.settings, "task": self.task} if self.kind.uses_task else dict(self.settings)
        evaluator = self.kind(space, **arguments)
        if self.cost is not None:
            evaluator = _with_costs(evaluator, self.cost)
        return evaluator if self.early_stopping is None else _with_early_stopping(evaluator, self.early_stopping)


def make_evaluator(
    spec: Evaluator | str,
    space: SearchSpace,
    task: str | None = None,
    kwargs: Mapping[str, Any] | None = None,
    table: Any = None,
) -> Evaluator:
    """Makes an evaluator, as environments do; an evaluator that is one already is checked and returned.

    Args:
        spec: an evaluator, or the name of one.
        space: the search space.
        task: see `EvaluatorConfig.parse`.
        kwargs: see `EvaluatorConfig.parse`.
        table: see `EvaluatorConfig.parse`.

    Raises:
        ValueError: an unknown name, or an evaluator of another space.
    """
    if isinstance(spec, Evaluator) and table is None:
        if spec.space != space:
            raise ValueError(f"the evaluator is of space {spec.space!r}, the environment of {space!r}")
        if kwargs:
            raise ValueError(f"evaluator_kwargs {sorted(kwargs)} need an evaluator's name, not an evaluator")
        return spec
    name = TABLE if isinstance(spec, Evaluator) else spec
    return EvaluatorConfig.parse(name, task, kwargs, table).make(space)


def _with_costs(evaluator: Evaluator, arguments: Mapping[str, Any]) -> Evaluator:
    from nas_gym.evaluators.cost import CostEvaluator

    try:
        return CostEvaluator(evaluator, **arguments)
    except TypeError as error:
        raise ValueError(f"cost must map some of metrics, limits, latency; got {arguments!r}") from error


def _with_early_stopping(evaluator: Evaluator, arguments: Mapping[str, Any]) -> Evaluator:
    from nas_gym.evaluators.learning_curve import EarlyStoppingEvaluator

    return EarlyStoppingEvaluator(evaluator, **arguments)
