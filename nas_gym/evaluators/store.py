"""A store of evaluations in a file: what was paid for once is never paid for again."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas_gym.evaluators.evaluator import Evaluations, Evaluator, joined
from nas_gym.spaces import SearchSpace, Tokens, make_space

APPLICATION = 0x4E415347  # "NASG", by which SQLite files of this kind are known
FORMAT = 1
PATIENCE = 600.0  # seconds that a process waits for its turn to write
MACHINE_FAILURES = ("out of memory", "worker lost")
"""Reasons of failures that another machine may not have, and that are not stored."""

SCHEMA = f"""
CREATE TABLE evaluator (
    id INTEGER PRIMARY KEY,
    space TEXT NOT NULL,        -- SearchSpace.to_dict() as JSON
    fingerprint TEXT NOT NULL,  -- Evaluator.fingerprint() as JSON
    UNIQUE (space, fingerprint)
);
CREATE TABLE evaluation (
    evaluator INTEGER NOT NULL REFERENCES evaluator (id),
    tokens TEXT NOT NULL,       -- the choices, apart by spaces
    fidelity REAL NOT NULL,     -- the share of the full budget
    accuracy REAL,              -- NULL where it is not a number
    metrics TEXT NOT NULL,      -- numbers by name, as JSON; null where one is not a number
    reason TEXT,                -- why it failed; NULL where it did not
    PRIMARY KEY (evaluator, tokens, fidelity)
) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {FORMAT};
"""


@dataclass(frozen=True)
class StoredSeries:
    """What a store holds of one evaluator.

    Attributes:
        number: by which `EvaluationStore.read` and `write` know it.
        space: the search space, as `SearchSpace.to_dict` gives it.
        fingerprint: of the evaluator, its seed included.
        evaluations: how many there are.
        failed: how many of them failed.
    """

    number: int
    space: dict[str, Any]
    fingerprint: dict[str, Any]
    evaluations: int
    failed: int


class EvaluationStore:
    """Evaluations in an SQLite file, shared by any number of processes and threads of one machine.

    An evaluation is known by the search space, the evaluator's fingerprint, the architecture's choices, and the
    fidelity. The first one that is written stays; others of the same key change nothing. A row is there as a whole or
    not at all: a process that is killed leaves what it has written. (A power cut may take what was written in the last
    half minute or so, but nothing older, and the file stays sound.)

    The file is in SQLite's WAL mode, which no network file system supports: processes on other machines give their
    evaluations to one that has it, as the workers of a `DistributedEvaluator` do.

    Args:
        path: the file; made, with its folder, if it is not there.

    Raises:
        ValueError: the file is something else, or of a later format.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._local = threading.local()
        if not self.path.exists():
            self._create()
        self._connection()  # complains of a file that is none

    def __reduce__(self) -> tuple[type[EvaluationStore], tuple[Path]]:
        return EvaluationStore, (self.path,)

    def _create(self) -> None:
        """Makes the file under another name, then gives it its own: no other process ever sees half of it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{self.path.name}.", dir=self.path.parent) as folder:
            made = Path(folder) / "store"
            connection = sqlite3.connect(made)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(SCHEMA)
            connection.close()
            with contextlib.suppress(FileExistsError):  # another process was first
                os.link(made, self.path)

    def _connection(self) -> sqlite3.Connection:
        """One a thread and process. One that a fork has inherited is of no use, but must not be closed there either."""
        connections: dict[int, sqlite3.Connection] = self._local.__dict__.setdefault("connections", {})
        if os.getpid() not in connections:
            connections[os.getpid()] = self._opened()
        return connections[os.getpid()]

    def _opened(self) -> sqlite3.Connection:
        # Read and write, but never create: a store that was deleted meanwhile is not begun anew without its tables.
        connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=rw", uri=True, timeout=PATIENCE)
        connection.isolation_level = None  # transactions begin where they are told to
        try:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            connection.execute("PRAGMA synchronous = NORMAL")
        except sqlite3.DatabaseError as error:
            connection.close()
            raise ValueError(f"{str(self.path)!r} is no store of evaluations: {error}") from error
        if application != APPLICATION or version > FORMAT:
            connection.close()
            kind = "no store of evaluations" if application != APPLICATION else f"of format {version}"
            raise ValueError(f"{str(self.path)!r} is {kind}; this version reads stores up to format {FORMAT}")
        return connection

    def close(self) -> None:
        """Closes this thread's connection; it is opened again when it is needed."""
        connection = self._local.__dict__.get("connections", {}).pop(os.getpid(), None)
        if connection is not None:
            connection.close()

    # ------------------------------------------------------------------ keys and rows

    def series(self, space: SearchSpace, fingerprint: Mapping[str, Any]) -> int:
        """The number of an evaluator's evaluations, new if there are none yet.

        Args:
            space: the search space.
            fingerprint: what `Evaluator.fingerprint` tells.

        Raises:
            ValueError: the fingerprint is not JSON-able.
        """
        key = _json(space.to_dict()), _json(fingerprint)
        connection = self._connection()
        connection.execute("INSERT OR IGNORE INTO evaluator (space, fingerprint) VALUES (?, ?)", key)
        (number,) = connection.execute("SELECT id FROM evaluator WHERE space = ? AND fingerprint = ?", key).fetchone()
        return int(number)

    def read(self, series: int, tokens: Tokens, fidelity: float = 1.0) -> list[Evaluations | None]:
        """What is known of each of the architectures int64[B, T]: a batch of one, or None.

        Args:
            series: as `series` gives it.
            tokens: legal, filled sequences.
            fidelity: the share of the full budget.
        """
        query = "SELECT accuracy, metrics, reason FROM evaluation WHERE evaluator = ? AND tokens = ? AND fidelity = ?"
        execute = self._connection().execute
        rows = (execute(query, (series, text, fidelity)).fetchone() for text in _texts(tokens))
        return [None if row is None else _evaluation(*row) for row in rows]

    def write(self, series: int, tokens: Tokens, evaluations: Evaluations, fidelity: float = 1.0) -> None:
        """Keeps the evaluations of int64[B, T], all or none; those whose failure is the machine's are left out.

        Args:
            series: as `series` gives it.
            tokens: legal, filled sequences.
            evaluations: of these.
            fidelity: the share of the full budget.
        """
        rows = [
            (series, text, fidelity, *_columns(evaluations, row))
            for row, text in enumerate(_texts(tokens))
            if not any(failure in evaluations.reasons[row] for failure in MACHINE_FAILURES)
        ]
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        with connection:  # commits, or rolls back
            connection.executemany("INSERT OR IGNORE INTO evaluation VALUES (?, ?, ?, ?, ?, ?)", rows)

    # ------------------------------------------------------------------ all of it

    def __len__(self) -> int:
        """How many evaluations there are."""
        (count,) = self._connection().execute("SELECT count(*) FROM evaluation").fetchone()
        return int(count)

    def all_series(self) -> list[StoredSeries]:
        """What the store holds, an item an evaluator."""
        found = self._connection().execute(
            "SELECT id, space, fingerprint, count(tokens), count(reason) FROM evaluator "
            "LEFT JOIN evaluation ON evaluator = id GROUP BY id ORDER BY id"
        )
        return [
            StoredSeries(number, json.loads(space), json.loads(fingerprint), evaluations, failed)
            for number, space, fingerprint, evaluations, failed in found
        ]

    def all_evaluations(self, series: int) -> Iterator[tuple[tuple[int, ...], float, Evaluations]]:
        """The choices, the fidelity and the evaluation, a batch of one, of all that is held of one evaluator."""
        found = self._connection().execute(
            "SELECT tokens, fidelity, accuracy, metrics, reason FROM evaluation WHERE evaluator = ?", (series,)
        )
        for text, fidelity, *columns in found:
            yield tuple(map(int, text.split())), fidelity, _evaluation(*columns)

    def export(self, series: int, path: str | os.PathLike[str]) -> int:
        """Writes what is held of one evaluator as a CSV file with a header; returns how many evaluations these are.

        Numbers are as Python writes them, which reads back to the bit; NaN, and what is untold, is nothing.
        """
        (found,) = (one for one in self.all_series() if one.number == series)
        space = make_space(found.space)
        rows = [
            {
                "architecture": space.format(tokens),
                "tokens": " ".join(map(str, tokens)),
                "fidelity": fidelity,
                **{name: _number(column[0]) for name, column in evaluation.columns().items()},
                "reason": evaluation.reasons[0],
            }
            for tokens, fidelity, evaluation in self.all_evaluations(series)
        ]
        with Path(path).open("w", newline="") as file:
            writer = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        return len(rows)


def _json(value: Mapping[str, Any]) -> str:
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a fingerprint must hold what JSON has, finite numbers included; got {value!r}") from error


def _texts(tokens: Tokens) -> list[str]:
    return [" ".join(map(str, row)) for row in tokens.tolist()]


def _columns(evaluations: Evaluations, row: int) -> tuple[float | None, str, str | None]:
    """The accuracy, the metrics and the reason as the file has them: numbers to the bit."""
    metrics = {name: _number(column[row]) for name, column in evaluations.metrics.items()}
    reason = evaluations.reasons[row] if evaluations.failed[row] else None
    return _number(evaluations.accuracy[row]), json.dumps(metrics), reason


def _number(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)


def _evaluation(accuracy: float | None, metrics: str, reason: str | None) -> Evaluations:
    columns = {"accuracy": accuracy, **json.loads(metrics)}
    numbers = {name: np.array([np.nan if value is None else value]) for name, value in columns.items()}
    failed = np.array([reason is not None])
    return Evaluations(numbers.pop("accuracy"), numbers, failed, (reason or "",))


class StoredEvaluator(Evaluator):
    """Answers from a store what is in it; has the rest evaluated, and stores that before it answers.

    What it answers is what the evaluator would answer, to the bit. So an architecture is known by its choices and not
    by what it computes: of two that compute the same, each is trained from random weights of its own.

    Args:
        evaluator: one whose results follow from its settings.
        store: the store, or its path.

    Attributes:
        evaluator: what evaluates.
        store: the store.
        found: how many architectures it has answered from the store.
        evaluated: how many it has had evaluated.

    Raises:
        ValueError: the evaluator is stateful, or has no fingerprint; the file is no store.
    """

    def __init__(self, evaluator: Evaluator, store: EvaluationStore | str | os.PathLike[str]) -> None:
        super().__init__(evaluator.space)
        if evaluator.stateful:
            raise ValueError(
                f"{type(evaluator.unwrapped).__name__} is stateful, what it has trained or seen before changes its "
                "results: a store takes evaluators whose results follow from their settings alone"
            )
        self.evaluator = evaluator
        self.fidelities, self.workers = evaluator.fidelities, evaluator.workers
        fingerprint = evaluator.fingerprint()
        self.store = store if isinstance(store, EvaluationStore) else EvaluationStore(store)
        self._series = self.store.series(self.space, fingerprint)
        self.found = self.evaluated = 0

    @property
    def unwrapped(self) -> Evaluator:
        return self.evaluator.unwrapped

    def fingerprint(self) -> dict[str, Any]:
        return self.evaluator.fingerprint()

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        """As the evaluator's; with `parents`, of whom the store does not know, nothing is looked up or kept."""
        if parents is not None or not len(tokens):
            return self.evaluator.evaluate(tokens, fidelity=fidelity, parents=parents)
        share, texts = self._share(fidelity), _texts(tokens)
        known = dict(zip(texts, self.store.read(self._series, tokens, share), strict=True))
        absent = [row for row, text in enumerate(texts) if known[text] is None]
        if absent:
            unique = tokens[absent][np.sort(np.unique(tokens[absent], axis=0, return_index=True)[1])]
            for part, evaluations in self.evaluator.evaluate_in_parts(unique, fidelity=fidelity):
                self.store.write(self._series, part, evaluations, share)
                known |= {text: evaluations.rows(slice(row, row + 1)) for row, text in enumerate(_texts(part))}
            self.evaluated += len(unique)
        self.found += len(tokens) - len(absent)
        return joined([evaluation for text in texts if (evaluation := known[text]) is not None])

    def begin(self, tokens: Tokens, *, fidelity: float | None = None) -> Future[Any]:
        """Begins what is not in the store."""
        evaluator: Evaluator = self.evaluator
        (known,) = self.store.read(self._series, tokens, self._share(fidelity))
        return evaluator.begin(tokens, fidelity=fidelity) if known is None else super().begin(tokens)

    def _share(self, fidelity: float | None) -> float:
        """The share of the full budget that is spent when asked for this one."""
        return (self.nearest_fidelity(fidelity) or 1.0) if self.fidelities else 1.0
