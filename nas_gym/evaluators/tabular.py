"""An evaluator that looks architectures up in a benchmark table."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_gym.evaluators.evaluator import Evaluations, Evaluator
from nas_gym.settings import check_seed, did_you_mean
from nas_gym.spaces import SearchSpace, Tokens
from nas_gym.tables import DEFAULTS, Table, open_table
from nas_gym.types import Floats

NOISE = ("mean", "seed")


class TabularEvaluator(Evaluator):
    """Looks up validation accuracies in a table, with one index and one gather for a batch of any size.

    The metrics are ``epochs``, ``seconds`` (the time of the training: the seconds per epoch times the epochs, plus one
    validation if the table has it), ``parameters``, ``flops`` and ``latency``, as far as the table has them. The
    running sum of ``seconds`` is the clock of a search with a budget of simulated time (Dong & Yang 2020,
    "NAS-Bench-201": 20,000 seconds). An architecture that is not in the table is a failed evaluation.

    Args:
        space: a search space of the same kind as the table's. The table's own space is used, since its fields may
            differ (NAS-Bench-Graph has a space with fewer operations for the task ``"proteins"``).
        table: a table, its path, or its name; by default that of the kind of space.
        task: one of the table's tasks; optional if there is only one.
        epochs: the number of epochs after which an architecture is scored, one of the recorded numbers; the last by
            default.
        noise: ``"mean"`` over the recorded trainings, or ``"seed"``: one of them, drawn for each row of the table.
        seed: seed of that draw. The evaluator is still pure: with the same seed, an architecture always has the same
            accuracy. Use a different seed for each run.

    Attributes:
        table: the table.
        task: name of the task.
        epochs: the number of epochs of an evaluation of full fidelity; None if unknown.
        fidelities: the recorded numbers of epochs up to `epochs`, as shares of it; () if there is only one.
        random: mean accuracy of all legal sequences, the expected accuracy of uniform sampling.
        optimum: the highest accuracy.
        worst: the lowest accuracy.

    Raises:
        ValueError: the table or task is unknown, the table is of another kind of space, or the epochs are not recorded.
    """

    uses_task = True

    def __init__(
        self,
        space: SearchSpace,
        *,
        table: Table | str | os.PathLike[str] | None = None,
        task: str | None = None,
        epochs: int | None = None,
        noise: str = "mean",
        seed: int = 0,
    ) -> None:
        if table is None:
            if space.name not in DEFAULTS:
                raise ValueError(f"space {space.name!r} has no table of its own: give `table`, a path")
            table = DEFAULTS[space.name]
        self.table = table if isinstance(table, Table) else open_table(table, task)
        if type(self.table.space) is not type(space):
            raise ValueError(f"table {self.table.path} is of the space {self.table.space}, not of {space}")
        super().__init__(self.table.space)
        check_seed(seed)
        if task is None and len(self.table.tasks) == 1:
            (task,) = self.table.tasks
        if task is None or task not in self.table.tasks:
            raise ValueError(
                f"task {task!r} is not in table {self.table.path}; tasks: {', '.join(self.table.tasks)}"
                + did_you_mean(task, self.table.tasks)
            )
        recorded = self.table.epochs[task]
        if epochs is not None and epochs not in recorded:
            known = ", ".join(map(str, recorded)) or "none"
            raise ValueError(f"epochs {epochs!r} are not recorded for task {task!r}; recorded: {known}")
        if noise not in NOISE:
            raise ValueError(f"noise must be one of {', '.join(map(repr, NOISE))}; got {noise!r}")
        self.task, self.noise, self.seed = task, noise, seed
        self._recorded = np.array(recorded)
        self._last = len(recorded) - 1 if recorded else 0
        self._full = recorded.index(epochs) if epochs is not None else self._last
        self.epochs = recorded[self._full] if recorded else None
        if self._full > 0:
            self.fidelities = tuple(count / recorded[self._full] for count in recorded[: self._full + 1])
        self._draws: Floats | None = (
            np.random.default_rng(seed).random(self.table.num_rows) if noise == "seed" else None
        )
        self._known: dict[int, tuple[Floats, dict[str, Floats]]] = {}

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        """Looks up int64[B, T].

        Args:
            tokens: legal, complete sequences.
            fidelity: a share of `epochs` in (0, 1]; the nearest recorded number is taken.
            parents: ignored.
        """
        del parents
        accuracies, costs = self._columns(self._full if fidelity is None else self._nearest(fidelity))
        index = self.space.index(tokens)
        accuracy = accuracies[index]
        metrics = {name: cost[index] for name, cost in costs.items()}
        failed = np.isnan(accuracy)
        if not failed.any():
            return Evaluations(accuracy, metrics)
        self.space.check(tokens)
        reasons = tuple("the table does not have it" if missing else "" for missing in failed)
        return Evaluations(np.where(failed, 0.0, accuracy), metrics, failed, reasons)

    def fingerprint(self) -> dict[str, Any]:
        drawn = {"seed": self.seed} if self.noise == "seed" else {}
        settings = {"task": self.task, "epochs": self.epochs, "noise": self.noise, **drawn}
        return {"evaluator": "table", "table": self.table.checksum, **settings}

    def test(self, tokens: Tokens, epochs: int | None = None) -> Floats:
        """The test accuracies float64[B] of int64[B, T], for reports after the search.

        Args:
            tokens: legal, complete sequences.
            epochs: number of epochs; the last recorded by default.

        Returns:
            Means over the trainings, regardless of `noise`; NaN for architectures that are not in the table.

        Raises:
            ValueError: tokens are illegal, the epochs are not recorded, or the table has no test accuracies.
        """
        self.space.check(tokens)
        if epochs is not None and epochs not in self._recorded:
            raise ValueError(f"epochs {epochs!r} are not recorded for {self.task!r}; recorded: {self._recorded}")
        column = self._last if epochs is None else int(np.flatnonzero(self._recorded == epochs)[0])
        found: Floats = self._means("test", column)[self.space.index(tokens)]
        return found

    # ------------------------------------------------------------------ reports

    @property
    def random(self) -> float:
        return self.reference()[0]

    @property
    def optimum(self) -> float:
        return self.reference()[1]

    @property
    def worst(self) -> float:
        return self.reference()[2]

    def reference(self, split: str = "valid") -> tuple[float, float, float]:
        """Mean, maximum and minimum over all legal sequences: ``"valid"`` after `epochs`, ``"test"`` at the end.

        Raises:
            ValueError: the table does not have the split.
        """
        means = self._means(split, self._full if split == "valid" else self._last)
        return float(np.nanmean(means)), float(np.nanmax(means)), float(np.nanmin(means))

    def normalised_score(self, accuracy: Any, split: str = "valid") -> Any:
        """(accuracy - random) / (optimum - random): 0 for uniform sampling, 1 for the best architecture.

        Args:
            accuracy: a number or an array; for the split ``"valid"`` after `epochs`, for ``"test"`` after the last.
            split: ``"valid"`` or ``"test"``.
        """
        random, optimum, _ = self.reference(split)
        return (np.asarray(accuracy) - random) / (optimum - random)

    def normalised_regret(self, accuracy: Any, split: str = "valid") -> Any:
        """(optimum - accuracy) / (optimum - worst), in [0, 1]; the arguments are those of `normalised_score`."""
        _, optimum, worst = self.reference(split)
        return (optimum - np.asarray(accuracy)) / (optimum - worst)

    def rank(self, tokens: Tokens) -> NDArray[np.int64]:
        """The ranks int64[B] of int64[B, T] by mean validation accuracy among the rows of the table; 1 is the best.

        Equal accuracies share the better rank; architectures that are not in the table come last.

        Raises:
            ValueError: tokens are illegal.
        """
        self.space.check(tokens)
        accuracy = self._means("valid", self._full)[self.space.index(tokens)]
        better: NDArray[np.int64] = np.searchsorted(self._descending, -accuracy, side="left")
        return better + 1

    @cached_property
    def _descending(self) -> Floats:
        negative = -_mean(self._trainings("valid", self._full))
        return np.sort(negative[~np.isnan(negative)])

    # ------------------------------------------------------------------ columns by index

    def _nearest(self, fidelity: float) -> int:
        if not 0 < fidelity <= 1:
            raise ValueError(f"fidelity must be in (0, 1], got {fidelity!r}")
        if self.epochs is None:
            return self._full
        return int(np.argmin(np.abs(self._recorded - fidelity * self.epochs)))

    def _columns(self, column: int) -> tuple[Floats, dict[str, Floats]]:
        """Accuracies and metrics by index, for one column of epochs, float64[product of choice counts]."""
        if column not in self._known:
            costs = {name: self._by_index(cost) for name, cost in self._costs(column).items()}
            self._known[column] = self._by_index(self._reduced(self._trainings("valid", column))), costs
        return self._known[column]

    def _costs(self, column: int) -> dict[str, Floats]:
        """Metrics by row."""
        costs: dict[str, Floats] = {}
        seconds = self.table.array(self.task, "seconds")
        if self.epochs is not None:
            epochs = float(self._recorded[column])
            costs["epochs"] = np.full(self.table.num_rows, epochs)
            if seconds is not None:
                validation = self.table.array(self.task, "validation_seconds")
                training = self._reduced(seconds) if seconds.ndim == 2 else seconds
                costs["seconds"] = epochs * training + (0.0 if validation is None else validation)
        for name in ("parameters", "flops", "latency"):
            cost = self.table.array(self.task, name)
            if cost is not None:
                costs[name] = cost
        return costs

    def _means(self, split: str, column: int) -> Floats:
        return self._by_index(_mean(self._trainings(split, column)))

    def _trainings(self, split: str, column: int) -> Floats:
        """float64[rows, seeds] for one column of epochs."""
        array = self.table.array(self.task, split)
        if array is None:
            raise ValueError(f"table {self.table.path} has no {split} accuracies for task {self.task!r}")
        return array[:, :, column].astype(np.float64)

    def _by_index(self, by_row: Any) -> Floats:
        """Converts a column by row to one by index, NaN if there is no row."""
        indexed: Floats = np.append(np.asarray(by_row, dtype=np.float64), np.nan)[self.table.rows]
        return indexed

    def _reduced(self, trainings: Floats) -> Floats:
        """Reduces float64[rows, seeds] to float64[rows] according to `noise`."""
        if self._draws is None:
            return _mean(trainings)
        missing = np.isnan(trainings)
        place = (self._draws * (~missing).sum(axis=1)).astype(np.int64)  # among the existing trainings
        chosen = np.argsort(missing, axis=1, kind="stable")[np.arange(len(place)), place]
        drawn: Floats = trainings[np.arange(len(place)), chosen]
        return drawn


def _mean(trainings: Floats) -> Floats:
    """The mean over existing trainings, NaN if there is none."""
    known = ~np.isnan(trainings)
    total = np.where(known, trainings, 0.0).sum(axis=1)
    return np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)
