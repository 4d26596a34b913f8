"""The record of trials: trials.csv holds results only, timings.csv the clocks."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nas_gym.agents import SearchResult
from nas_gym.files import write_text
from nas_gym.spaces import SearchSpace


def trial_rows(trials: SearchResult, first: int) -> list[dict[str, str]]:
    """The rows of trials.csv: numbers as Python writes them, which reads back to the bit; NaN as nothing."""
    return [
        {
            "trial": str(first + row),
            "tokens": " ".join(map(str, trials.tokens[row].tolist())),
            "reward": repr(float(trials.rewards[row])),
            **{
                name: "" if math.isnan(column[row]) else repr(float(column[row]))
                for name, column in trials.metrics.items()
            },
        }
        for row in range(len(trials))
    ]


def read_trials(path: Path, space: SearchSpace) -> SearchResult:
    """Reads trials.csv; a last line that was cut off in the middle is passed over.

    Raises:
        ValueError: a line is not of the file's form.
    """
    try:
        names, *lines = list(csv.reader(_whole_lines(path))) or [[]]
        rows = [dict(zip(names, line, strict=True)) for line in lines]
        tokens = np.array([[int(token) for token in row["tokens"].split()] for row in rows], dtype=np.int64)
        metrics = {
            name: np.array([float(row[name] or "nan") for row in rows])
            for name in names
            if name not in ("trial", "tokens", "reward")
        }
        rewards = np.array([float(row["reward"]) for row in rows])
        tokens = tokens.reshape(len(rows), space.length)
        space.check(tokens)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is no record of trials in space {space.name!r}: {error}") from error
    return SearchResult(space, tokens, rewards, metrics)


def _whole_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    text = path.read_text()
    return text[: text.rfind("\n") + 1].splitlines(keepends=True)


def cut_rows(path: Path, rows: int) -> None:
    """Keeps the header and the first rows of a table; without rows it goes."""
    lines = _whole_lines(path)
    if rows:
        write_text(path, "".join(lines[: rows + 1]))
    else:
        path.unlink(missing_ok=True)


def last_clock(path: Path) -> float:
    """The seconds of the last line of timings.csv; 0 without one."""
    lines = _whole_lines(path)
    return float(lines[-1].split(",")[1]) if len(lines) > 1 else 0.0


def append_rows(path: Path, rows: list[dict[str, str]]) -> None:
    """Appends rows, or begins a table with them; a column that comes up later is empty in the rows before."""
    names = _column_names(path)
    new = [name for name in rows[0] if name not in names]
    if new and names:
        rows = [*csv.DictReader(_whole_lines(path)), *rows]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [*names, *new], restval="", lineterminator="\n")
    if new:
        writer.writeheader()
    writer.writerows(rows)
    if new and names:
        write_text(path, buffer.getvalue())
        return
    with path.open("a") as file:
        file.write(buffer.getvalue())


def _column_names(path: Path) -> list[str]:
    if not path.exists():
        return []
    with path.open() as file:
        return file.readline().strip().split(",")


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of equal keys as a CSV file."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
