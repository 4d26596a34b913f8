"""What a search has found against random architectures and networks made by hand, and what that shows.

Three things keep the comparison honest.

- The found architecture is chosen by validation accuracy, among the best few of the search, in trainings that are not
  counted afterwards: the luck of the training that has won is not part of its result.
- The test split is evaluated once, when all trainings are over.
- Trainings have different seeds, so that the accuracies of a group are independent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from nas_gym.experiments.intervals import Difference, MeanInterval
from nas_gym.experiments.run.trials import csv_text

ROLES = ("found", "random", "reference", "candidate")
"""The architecture that was chosen; those drawn uniformly; networks made by hand; and what was chosen from."""


@dataclass(frozen=True)
class Row:
    """One training, or one architecture of a table.

    Attributes:
        role: one of `ROLES`.
        name: of the network: trial 12, random 3, mobile.
        architecture: as one line of text; of a network made by hand its width.
        seed: of the training; None in a table.
        valid_accuracy: None if the training failed.
        test_accuracy: after all trainings; a failed training counts as 0.
        parameters: None if unknown, like the other costs.
        flops: of one input.
        latency: seconds per batch, as `measure_latency` measures it.
        seconds: of the training.
    """

    role: str
    name: str
    architecture: str
    seed: int | None
    valid_accuracy: float | None
    test_accuracy: float
    parameters: float | None = None
    flops: float | None = None
    latency: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Group:
    """The rows that are compared as one: trainings of one network, or architectures drawn at random."""

    role: str
    name: str
    rows: tuple[Row, ...]

    @property
    def test(self) -> MeanInterval:
        """The mean test accuracy."""
        return MeanInterval.of(self.test_accuracies)

    @property
    def test_accuracies(self) -> list[float]:
        """One for each row."""
        return [row.test_accuracy for row in self.rows]

    @property
    def valid_accuracy(self) -> float:
        """The mean validation accuracy; a failed training counts as 0."""
        return fmean(row.valid_accuracy or 0.0 for row in self.rows)

    def cost(self, name: str) -> float | None:
        """The mean of ``parameters``, ``flops`` or ``latency``; None if unknown."""
        costs = [getattr(row, name) for row in self.rows]
        return None if None in costs else fmean(costs)


@dataclass(frozen=True)
class Comparison:
    """A finished comparison.

    Attributes:
        source: ``"training"`` or ``"table"``.
        winner: the trial of the found architecture.
        rows: of all trainings, or of all architectures looked up.
        cost: what accuracy stands against: ``parameters``, ``flops`` or ``latency``.
        training: how networks were trained; empty for a table.
    """

    source: str
    winner: int
    rows: tuple[Row, ...]
    cost: str = "parameters"
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def groups(self) -> list[Group]:
        """The found architecture, the random ones, and each network made by hand."""
        groups: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            if row.role != "candidate":
                groups.setdefault((row.role, row.name if row.role == "reference" else row.role), []).append(row)
        return [Group(role, name, tuple(rows)) for (role, name), rows in groups.items()]

    @property
    def found(self) -> Group:
        """The found architecture."""
        return next(group for group in self.groups if group.role == "found")

    def group(self, role: str) -> Group | None:
        """The group of a role; of networks made by hand the best by validation accuracy."""
        own = [group for group in self.groups if group.role == role]
        return max(own, key=lambda group: group.valid_accuracy, default=None)

    def difference(self, role: str) -> Difference | None:
        """Test accuracy of the found architecture minus that of a group; None where there is nothing to compare."""
        other = self.group(role)
        if other is None or len(other.rows) < 2:
            return None
        return Difference.of(self.found.test_accuracies, other.test_accuracies)

    @property
    def conclusion(self) -> str:
        """One sentence: what is shown, and what is not."""
        random, reference = self.group("random"), self.group("reference")
        parts = []
        if random is not None and (difference := self.difference("random")) is not None:
            ours, theirs = self.found.cost(self.cost), random.cost(self.cost)
            costs = f", with {ours / theirs:.2g} times their {self.cost}" if ours and theirs else ""
            parts.append(_verdict(difference, "architectures drawn at random, on average") + costs)
        if reference is not None and (difference := self.difference("reference")) is not None:
            parts.append(_verdict(difference, f"the {reference.name} network, the best of those made by hand"))
        return f"The found architecture is {'; it is '.join(parts)}." if parts else "Nothing could be compared."

    def summary(self) -> dict[str, Any]:
        """What best.json holds of it: all but the measured times, which are not the same twice."""
        groups = [
            {
                "role": group.role,
                "name": group.name,
                "networks": len({row.name for row in group.rows}),
                "trainings": len(group.rows),
                "valid_accuracy": group.valid_accuracy,
                "test_accuracy": dataclasses.asdict(group.test),
                "parameters": group.cost("parameters"),
                "flops": group.cost("flops"),
            }
            for group in self.groups
        ]
        differences = {role: self.difference(role) for role in ("random", "reference")}
        return {
            "source": self.source,
            "cost": self.cost,
            "training": dict(self.training),
            "groups": groups,
            "differences": {role: dataclasses.asdict(each) for role, each in differences.items() if each is not None},
            "conclusion": self.conclusion,
        }

    def table(self) -> list[list[str]]:
        """The groups for people to read, a line each, below `HEADINGS`."""
        return [
            [
                f"{len(group.rows)} random" if group.role == "random" else group.name,
                f"{group.valid_accuracy:.4f}",
                _plus_minus(group.test),
                *(amount(name, group.cost(name)) for name in ("parameters", "flops", "latency")),
            ]
            for group in self.groups
        ]

    def csv(self) -> str:
        """The content of comparison.csv."""
        return csv_text(
            [{name: "" if value is None else value for name, value in vars(row).items()} for row in self.rows]
        )


HEADINGS = ("", "validation", "test accuracy", "parameters", "flops", "latency")
PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def amount(name: str, value: float | None) -> str:
    """A cost in three digits."""
    if value is None:
        return "-"
    if name == "latency":
        return f"{1000 * value:.3g} ms"
    scale, prefix = next((pair for pair in PREFIXES if value >= pair[0]), (1.0, ""))
    return f"{value / scale:.3g}{prefix}" if prefix else f"{value:,.0f}"


def _plus_minus(mean: MeanInterval) -> str:
    if mean.low is None or mean.high is None:
        return f"{mean.mean:.4f}"
    return f"{mean.mean:.4f} ± {max(mean.high - mean.mean, mean.mean - mean.low):.4f}"


def _verdict(difference: Difference, against: str) -> str:
    words = {1: "more accurate than", -1: "less accurate than", 0: "not shown to be more or less accurate than"}
    return f"{words[difference.sign]} {against}"
