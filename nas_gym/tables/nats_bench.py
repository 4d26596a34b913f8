"""Imports the official folders of NATS-Bench as tables."""

from __future__ import annotations

import bz2
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_gym.pickles import read_plain_dict
from nas_gym.spaces import Bench201Space, SearchSpace, SizeSpace
from nas_gym.tables.checks import SPLITS
from nas_gym.tables.importers import assign_rows
from nas_gym.tables.table import Table, TaskTable, save_table

SUFFIX = ".pickle.pbz2"
DETAILED = 12  # longer schedules, in epochs, are imported with their last epoch only, shorter ones with all


@dataclass(frozen=True)
class _Source:
    """The source of a task's numbers: (data set, split) of its validation and of its test accuracies."""

    valid: tuple[str, str]
    test: tuple[str, str]


NATS_TASKS = {
    # Validation accuracies on CIFAR-10 are of networks trained on half of it, test accuracies of others trained on all.
    "cifar10": _Source(("cifar10-valid", "x-valid"), ("cifar10", "ori-test")),
    "cifar100": _Source(("cifar100", "x-valid"), ("cifar100", "x-test")),
    "imagenet16-120": _Source(("ImageNet16-120", "x-valid"), ("ImageNet16-120", "x-test")),
}


def import_nats_bench(
    source: Path,
    out: Path,
    *,
    partial: bool = False,
    track: Callable[[Sequence[Path]], Iterable[Path]] = iter,
) -> Table:
    """Makes a table from an official folder of NATS-Bench (``NATS-tss-...-simple`` or ``NATS-sss-...-simple``).

    Source: Dong et al. 2021, "NATS-Bench"; https://github.com/D-X-Y/NATS-Bench, MIT. The folder's pickles are read
    one by one, restricted to plain data. Architectures were trained with schedules of several lengths; the table
    records the curve of the 12-epoch schedule, and the last epoch of longer ones. Epochs up to 12 and beyond are
    therefore not from one training. Validation and test splits are those of the official API's ``valid`` and ``test``;
    the seconds of the epochs and of one validation add up to its `simulate_train_eval`. Flops are twice the
    multiply-adds that it reports.

    Args:
        source: the folder.
        out: the table to write.
        partial: whether files of architectures may be missing; these will be failed evaluations.
        track: wraps the list of files, to show progress.

    Returns:
        The new table.

    Raises:
        ValueError: the folder is not such a folder, files are missing, or a file is damaged; the message names it.
    """
    meta = source / f"meta{SUFFIX}"
    if not meta.is_file():
        raise ValueError(f"{source} is not a NATS-Bench folder: it has no {meta.name}")
    texts = _read_nats(meta).get("meta_archs")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts) or not texts:
        raise ValueError(f"{meta} holds no list of architectures")
    space: SearchSpace = Bench201Space() if "|" in texts[0] else SizeSpace()
    files = sorted(path for path in source.iterdir() if re.fullmatch(rf"\d{{6}}{re.escape(SUFFIX)}", path.name))
    numbers = [int(path.name[:6]) for path in files]
    if not files or numbers[-1] >= len(texts):
        raise ValueError(f"{source} has no files of architectures, or more than its {meta.name} lists, {len(texts):,}")
    indices = np.array([space.index(np.array([space.parse(texts[number]).tokens]))[0] for number in numbers])
    rows = assign_rows(space, indices, partial, str(source))
    columns = {task: _Columns(len(files)) for task in NATS_TASKS}
    for row, path in enumerate(track(files)):
        content = _read_nats(path)
        try:
            for schedule in content.values():
                if schedule["arch_str"] != texts[numbers[row]]:
                    raise ValueError(f"it is of {schedule['arch_str']}, not of {texts[numbers[row]]}")
            for task, where in NATS_TASKS.items():
                columns[task].fill(row, {int(key): content[key]["all_results"] for key in content}, where)
        except (KeyError, TypeError, AttributeError, ValueError, ZeroDivisionError) as error:
            raise ValueError(f"{path} is not a NATS-Bench record: {type(error).__name__}: {error}") from error
    provenance = {
        "source": f"NATS-Bench, {source.name}; Dong et al. 2021, https://github.com/D-X-Y/NATS-Bench",
        "licence": "MIT",
        "contents": f"the curve of the schedule of up to {DETAILED} epochs, the end of longer ones",
        "architectures": f"{len(files):,} of {len(texts):,}",
    }
    save_table(out, space, rows, {task: column.table() for task, column in columns.items()}, provenance)
    return Table(out)


def _read_nats(path: Path) -> dict[Any, Any]:
    try:
        data = bz2.decompress(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not a complete bz2 file: {error}") from error
    return read_plain_dict(path, "a NATS-Bench file", data)


Results = Mapping[tuple[str, int], Mapping[str, Any]]  # by data set and seed


@dataclass
class _Columns:
    """The columns of a task while the files are read."""

    num_rows: int
    accuracies: dict[tuple[str, int, int], NDArray[np.float32]] = field(default_factory=dict)  # split, seed, epoch
    costs: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def fill(self, row: int, schedules: Mapping[int, Results], where: _Source) -> None:
        """Adds the results of one file, keyed by the epochs of the schedule."""
        dataset, split = where.valid
        recorded = 0
        for length in sorted(schedules):
            epochs = range(recorded + 1, length + 1) if length <= DETAILED else (length,)
            recorded = length
            for name in SPLITS:
                wanted, evaluated = getattr(where, name)
                for (found, seed), result in schedules[length].items():
                    if found == wanted:
                        for epoch in epochs:
                            accuracy = float(result["eval_acc1es"][f"{evaluated}@{epoch - 1}"]) / 100
                            self._column((name, seed, epoch))[row] = accuracy
        results = {
            (length, seed): result
            for length in sorted(schedules)
            for (found, seed), result in schedules[length].items()
            if found == dataset
        }
        times = [time for result in results.values() for time in result["train_times"].values()]
        validation = [
            time
            for result in results.values()
            for key, time in result["eval_times"].items()
            if key.startswith(f"{split}@")
        ]
        latencies = [time for result in results.values() for time in result["latency"] if time > 0]
        reported = {
            "seconds": math.fsum(times) / len(times),
            "validation_seconds": math.fsum(validation) / len(validation),
            "parameters": _agreed(results, "params") * 1e6,
            "flops": _agreed(results, "flop") * 2e6,
            "latency": math.fsum(latencies) / len(latencies) if latencies else math.nan,
        }
        for name, cost in reported.items():
            self.costs.setdefault(name, np.full(self.num_rows, np.nan))[row] = cost

    def _column(self, key: tuple[str, int, int]) -> NDArray[np.float32]:
        if key not in self.accuracies:
            self.accuracies[key] = np.full(self.num_rows, np.nan, dtype=np.float32)
        return self.accuracies[key]

    def table(self) -> TaskTable:
        """The table of all results."""
        seeds = sorted({seed for _, seed, _ in self.accuracies})
        epochs = tuple(sorted({epoch for _, _, epoch in self.accuracies}))
        valid, test = (
            np.stack([np.stack([self._column((name, s, e)) for e in epochs], axis=1) for s in seeds], axis=1)
            for name in SPLITS
        )
        costs = {**self.costs, "parameters": np.rint(self.costs["parameters"]), "flops": np.rint(self.costs["flops"])}
        return TaskTable(valid=valid, test=test, epochs=epochs, **costs)


def _agreed(results: Mapping[tuple[int, int], Mapping[str, Any]], key: str) -> float:
    """A count in millions. Early trainings recorded wrong counts; if seeds differ, that of seed 888 is correct."""
    counts = {seed: float(result[key]) for (_, seed), result in results.items()}
    if len({f"{count:.5f}" for count in counts.values()}) > 1:
        return counts[888]
    return next(iter(counts.values()))
