"""The trials of a run as its users read them: from the record, and exported as trials.csv and timings.csv."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nas_gym.agents import SearchResult
from nas_gym.experiments.run.config import changes_since, read_config, read_space
from nas_gym.experiments.run.record import RECORD, RecordedTrials, read_rows
from nas_gym.files import write_text


def read_recorded(folder: Path) -> RecordedTrials:
    """Reads the trials of a run, finished or not, from its record.

    Raises:
        ValueError: the folder holds no run, its record is damaged, or config.yaml has changed since.
    """
    config, space = read_config(folder), read_space(folder)
    rows = read_rows(folder / RECORD)
    if changed := changes_since(rows.origin, config):
        raise ValueError(changed_config(folder, changed))
    return rows.trials(space)


def read_trials(folder: Path) -> SearchResult:
    """Reads the trials of a run; see `read_recorded`."""
    return read_recorded(folder).result


def best_trials(result: SearchResult, top: int) -> list[int]:
    """Indices of the best trials of the highest fidelity, without architectures that compute the same function.

    Args:
        result: of the search.
        top: maximum number of trials.

    Raises:
        ValueError: all trials have failed.
    """
    sound = ~(result.metrics.get("failed", np.zeros(len(result))) > 0) & np.isfinite(result.rewards)
    sound &= result.fidelities == result.fidelities[sound].max(initial=0.0)
    found: dict[str, int] = {}
    for trial in np.argsort(-result.rewards, kind="stable").tolist():
        if sound[trial] and len(found) < top:
            found.setdefault(result.space.canonical(result.space.architecture(result.tokens[trial])), trial)
    if not found:
        raise ValueError("the run has no best trial: all have failed")
    return list(found.values())


def changed_config(folder: Path, changes: Sequence[str]) -> str:
    """What is said of a run whose configuration was changed."""
    return (
        f"config.yaml of {str(folder)!r} is not the one that its trials were made with ({'; '.join(changes)}): undo "
        "the change, or start another run in a folder of its own"
    )


def export_trials(folder: Path) -> None:
    """Writes trials.csv, results only, and timings.csv, the clocks, from the record; nothing reads them back."""
    recorded = read_recorded(folder)
    seconds = enumerate(recorded.seconds.tolist())
    if len(recorded.result):
        write_text(folder / "trials.csv", csv_text(trial_rows(recorded.result)))
        write_text(folder / "timings.csv", csv_text({"trial": trial, "seconds": f"{s:.3f}"} for trial, s in seconds))


def trial_rows(trials: SearchResult) -> Iterator[dict[str, str]]:
    """The rows of trials.csv: numbers as Python writes them, which reads back to the bit; NaN as nothing."""
    for row in range(len(trials)):
        yield {
            "trial": str(row),
            "tokens": " ".join(map(str, trials.tokens[row].tolist())),
            "reward": repr(float(trials.rewards[row])),
            **{
                name: "" if math.isnan(column[row]) else repr(float(column[row]))
                for name, column in trials.metrics.items()
            },
        }


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows of equal keys, one at least, as a CSV file."""
    rows, buffer = iter(rows), io.StringIO()
    first = next(rows)
    writer = csv.DictWriter(buffer, first, lineterminator="\n")
    writer.writeheader()
    writer.writerow(first)
    writer.writerows(rows)
    return buffer.getvalue()
