"""Imports CSV files as tables, for any space."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_gym.spaces import SearchSpace, make_space
from nas_gym.spaces.space import SpaceSpec
from nas_gym.tables.checks import COSTS, SPLITS
from nas_gym.tables.table import Table, TaskTable, save_table

QUANTITIES = (*SPLITS, *COSTS)
Column = str | Mapping[int, str]  # by epochs


def import_csv(
    source: Path,
    out: Path,
    space: SpaceSpec,
    *,
    architecture: Sequence[str] = ("architecture",),
    tasks: Mapping[str, Mapping[str, Column]] | None = None,
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
            ``validation_seconds``, ``parameters``, ``flops``, ``latency``. Learning curves are given as
            ``{"valid": {4: "early", 12: "late"}, "test": {12: "test"}}``, a column for each number of epochs, the last
            of which ``test`` must have if there is one. By default, all columns named ``<task>_<quantity>``.
        percent: whether accuracies are in [0, 100] instead of [0, 1]; then one of them must be over 1.
        epochs: the number of epochs after which accuracies in a single column were measured, if known.
        partial: whether legal architectures may be missing; they will be failed evaluations.
        licence: the licence of the data.

    Returns:
        The new table.

    Raises:
        ValueError: a column is unknown, or the epochs are not as above; an architecture is unknown, duplicate or
            missing; a cell is not a number or out of range; a line differs in length from the header. The message gives
            the row.
    """
    space = make_space(space)
    with _Lines(source) as lines:
        tasks = tasks or _columns_by_name(lines.header)
        if not tasks:
            raise ValueError(f"{source} has no column named TASK_valid: give the tasks; columns: {lines.header}")
        curves = {task: _curves(task, names, epochs) for task, names in tasks.items()}
        places = {
            column: lines.column(column)
            for _, of in curves.values()
            for curve in of.values()
            for column in curve
            if column
        }
        read_index = _architectures(space, lines, architecture)
        found: dict[int, int] = {}  # index -> line
        cells: list[list[str]] = []
        for line in lines:
            index = read_index(line)
            if index in found:
                raise lines.error(f"its architecture is already in row {found[index]}")
            found[index] = lines.number
            cells.append(line)
    rows = assign_rows(space, np.fromiter(found, dtype=np.int64), partial, str(source))
    numbers = list(found.values())
    scale = 100.0 if percent else 1.0
    read = {}
    missing = np.full(len(cells), np.nan)
    for task, (recorded, of) in curves.items():
        arrays: dict[str, Any] = {}
        for name, curve in of.items():
            limit = scale if name in SPLITS else math.inf
            columns = [
                missing
                if column is None
                else _numbers(source, numbers, [line[places[column]] for line in cells], limit)
                for column in curve
            ]
            arrays[name] = np.stack(columns, axis=1)[:, None] / scale if name in SPLITS else columns[0]
        read[task] = TaskTable(epochs=recorded, **arrays)
    highest = max(np.nanmax(table.valid, initial=0.0) for table in read.values())
    if percent and 0 < highest <= 0.01:
        raise ValueError(f"{source}: no accuracy is over {highest * 100:g}, so they are fractions: leave out percent")
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


Curves = dict[str, list[str | None]]


def _curves(task: str, names: Mapping[str, Column], epochs: int | None) -> tuple[tuple[int, ...], Curves]:
    """The recorded epochs, () if unknown, and the column of each quantity after each of them, None if there is none."""
    if "valid" not in names or set(names) - set(QUANTITIES):
        raise ValueError(f"task {task!r} takes 'valid' and of {', '.join(QUANTITIES[1:])}; got {dict(names)}")
    unknown = epochs is None and all(isinstance(of, str) for of in names.values())
    curves = {name: {epochs or 0: of} if isinstance(of, str) else of for name, of in names.items()}
    valid, test = curves["valid"].keys(), curves.get("test", curves["valid"]).keys()
    if (
        not all(unknown or (type(number) is int and number > 0) for number in (*valid, *test))
        or not valid >= test >= {max(valid, default=0)}
        or not all(isinstance(names[name], str) for name in names if name in COSTS)
    ):
        raise ValueError(
            f"task {task!r}: epochs must be positive integers, of 'valid' and 'test' alone, and those of 'test' among "
            f"those of 'valid', with the last of them; got {dict(names)}, and epochs {epochs} for a single column"
        )
    recorded = sorted(valid)
    columns = {
        name: [curve.get(number) for number in (recorded if name in SPLITS else curve)]
        for name, curve in curves.items()
    }
    return () if unknown else tuple(recorded), columns


def _columns_by_name(header: Sequence[str]) -> dict[str, dict[str, Column]]:
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


def assign_rows(space: SearchSpace, indices: NDArray[np.int64], partial: bool, source: str) -> NDArray[np.int32]:
    """Assigns a row to each of the sequences with these indices, in this order.

    Raises:
        ValueError: legal sequences are missing, and `partial` does not allow it; the message names `source`.
    """
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
