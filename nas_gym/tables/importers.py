"""Imports benchmarks as tables: CSV files for any space, and the official folders of NATS-Bench."""

from __future__ import annotations

import bz2
import csv
import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_gym.pickles import read_plain_dict
from nas_gym.spaces import Bench201Space, SearchSpace, SizeSpace, make_space
from nas_gym.spaces.space import SpaceSpec
from nas_gym.tables.table import COSTS, SPLITS, Table, TaskTable, save_table

QUANTITIES = (*SPLITS, *COSTS)

# ---------------------------------------------------------------------- CSV


def import_csv(
    source: Path,
    out: Path,
    space: SpaceSpec,
    *,
    architecture: Sequence[str] = ("architecture",),
    tasks: Mapping[str, Mapping[str, str]] | None = None,
    percent: bool = False,
    epochs: int | None = None,
    partial: bool = False,
    licence: str = "unknown",
) -> Table:
    """Makes a table from a CSV file with a header and one line per architecture.

    Args:
        source: the CSV file.
        out: the table to write.
        space: the search space; all its sequences are enumerated.
        architecture: the column with the architecture as text, as read by `SearchSpace.parse`; or one column per
            decision, in order, with the name of the choice.
        tasks: for each task, the column of each quantity: ``valid``, and optionally ``test``, ``seconds`` (per epoch),
            ``validation_seconds``, ``parameters``, ``flops``, ``latency``. By default, all columns named
            ``<task>_<quantity>``.
        percent: whether accuracies are in [0, 100] instead of [0, 1].
        epochs: the number of epochs after which the accuracies were measured, if known.
        partial: whether legal architectures may be missing; they will be failed evaluations.
        licence: the licence of the data.

    Returns:
        The new table.

    Raises:
        ValueError: a column is unknown; an architecture is unknown, duplicate or missing; a cell is not a number or out
            of range; a line differs in length from the header. The message gives the row.
    """
    space = make_space(space)
    with _Lines(source) as lines:
        tasks = tasks or _columns_by_name(lines.header)
        if not tasks:
            raise ValueError(f"{source} has no column named TASK_valid: give the tasks; columns: {lines.header}")
        wanted = {task: {name: lines.column(column) for name, column in names.items()} for task, names in tasks.items()}
        for task, names in tasks.items():
            if "valid" not in names or set(names) - set(QUANTITIES):
                raise ValueError(f"task {task!r} takes 'valid' and of {', '.join(QUANTITIES[1:])}; got {dict(names)}")
        read_index = _architectures(space, lines, architecture)
        found: dict[int, int] = {}  # index -> line
        cells: list[list[str]] = []
        for line in lines:
            index = read_index(line)
            if index in found:
                raise lines.error(f"its architecture is already in row {found[index]}")
            found[index] = lines.number
            cells.append(line)
    rows = _rows(space, np.fromiter(found, dtype=np.int64), partial, str(source))
    numbers = list(found.values())
    scale = 100.0 if percent else 1.0
    read = {}
    for task, places in wanted.items():
        columns: dict[str, Any] = {}
        for name, place in places.items():
            accuracy = name in SPLITS
            column = _numbers(source, numbers, [line[place] for line in cells], scale if accuracy else math.inf)
            columns[name] = (column / scale)[:, None, None] if accuracy else column
        read[task] = TaskTable(epochs=() if epochs is None else (epochs,), **columns)
    provenance = {
        "source": f"{source.name}, imported from CSV",
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "licence": licence,
    }
    save_table(out, space, rows, read, provenance)
    return Table(out)


class _Lines:
    """The lines of a CSV file as cells; `number` is the row of the last line read, the header being row 1."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 1

    def __enter__(self) -> _Lines:
        self._file = self.path.open(newline="", encoding="utf-8-sig")
        self._reader = csv.reader(self._file, strict=True)
        self.header = self._next() or []
        if len(set(self.header)) != len(self.header) or not self.header:
            self._file.close()
            raise ValueError(f"{self.path} has no header with distinct names: {self.header}")
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[list[str]]:
        while (line := self._next()) is not None:
            self.number += 1
            if not line:
                continue
            if len(line) != len(self.header):
                raise self.error(f"it has {len(line)} cells, the header has {len(self.header)}; is the file cut short?")
            yield line

    def _next(self) -> list[str] | None:
        try:
            return next(self._reader, None)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{self.path}, row {self._reader.line_num}: {error}") from error

    def column(self, name: str) -> int:
        """The index of a column."""
        if name not in self.header:
            raise ValueError(f"{self.path} has no column {name!r}; columns: {', '.join(self.header)}")
        return self.header.index(name)

    def error(self, message: str) -> ValueError:
        """An error about the last line."""
        return ValueError(f"{self.path}, row {self.number}: {message}")


def _columns_by_name(header: Sequence[str]) -> dict[str, dict[str, str]]:
    """The tasks with a column ``<task>_valid``, and their columns ``<task>_<quantity>``."""
    tasks = [name.removesuffix("_valid") for name in header if name.endswith("_valid")]
    return {task: {q: f"{task}_{q}" for q in QUANTITIES if f"{task}_{q}" in header} for task in tasks}


def _architectures(space: SearchSpace, lines: _Lines, columns: Sequence[str]) -> Callable[[Sequence[str]], int]:
    """Returns a function that reads the index of a line's architecture."""
    places = [lines.column(name) for name in columns]
    if len(places) == 1:
        tokens = space.enumerate()
        texts = {space.format(row): index for row, index in zip(tokens, space.index(tokens).tolist(), strict=True)}

        def from_text(line: Sequence[str]) -> int:
            text = line[places[0]]
            if text in texts:
                return int(texts[text])
            try:
                return int(space.index(np.array([space.parse(text).tokens]))[0])
            except ValueError as error:
                raise lines.error(f"unknown architecture: {error}") from error

        return from_text
    if len(places) != space.length:
        raise ValueError(
            f"architecture must name one column, or one for each of the {space.length} decisions of space "
            f"{space.name!r} ({', '.join(decision.name for decision in space.decisions)}); got {list(columns)}"
        )

    def from_choices(line: Sequence[str]) -> int:
        row = []
        for decision, place in zip(space.decisions, places, strict=True):
            if line[place] not in decision.choices:
                choices = ", ".join(decision.choices)
                raise lines.error(f"{line[place]!r} is not a choice of {decision.name!r}; choices: {choices}")
            row.append(decision.choices.index(line[place]))
        tokens = np.array([row])
        try:
            space.check(tokens)
        except ValueError as error:
            raise lines.error(f"unknown architecture: {error}") from error
        return int(space.index(tokens)[0])

    return from_choices


def _numbers(source: Path, numbers: Sequence[int], cells: Sequence[str], highest: float) -> NDArray[np.float64]:
    column = np.empty(len(cells))
    for row, cell in enumerate(cells):
        try:
            column[row] = float(cell)
        except ValueError:
            raise ValueError(f"{source}, row {numbers[row]}: {cell!r} is not a number") from None
        if not 0 <= column[row] <= highest or column[row] == math.inf:
            hint = "; accuracies in percent are imported with percent" if highest == 1 < column[row] <= 100 else ""
            raise ValueError(f"{source}, row {numbers[row]}: {cell} is not in [0, {highest:g}]{hint}")
    return column


def _rows(space: SearchSpace, indices: NDArray[np.int64], partial: bool, source: str) -> NDArray[np.int32]:
    """Assigns a row to each of the sequences with these indices, in this order."""
    rows = np.full(math.prod(space.choice_counts.tolist()), -1, dtype=np.int32)
    rows[indices] = np.arange(len(indices))
    if not partial and len(indices) < space.size:
        tokens = space.enumerate()
        first = space.format(tokens[np.argmax(rows[space.index(tokens)] < 0)])
        raise ValueError(
            f"{source} lacks {space.size - len(indices):,} of {space.size:,} architectures, the first of them {first}; "
            f"with partial they will be failed evaluations"
        )
    return rows


# ---------------------------------------------------------------------- NATS-Bench

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
    rows = _rows(space, indices, partial, str(source))
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
