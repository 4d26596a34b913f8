"""A store of evaluations in a file, so that later searches reuse them."""

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

from nas_gym.evaluators.evaluator import Evaluations, Evaluator, concatenate
from nas_gym.spaces import SearchSpace, Tokens, make_space

APPLICATION = 0x4E415347  # "NASG", the application id of these SQLite files
FORMAT = 1
PATIENCE = 600.0  # seconds that a process waits for the write lock
MACHINE_FAILURES = ("out of memory", "worker lost", "raised")
"""Reasons of failures that may not occur on another machine, and that are not stored."""

SCHEMA = f"""
CREATE TABLE evaluator (
    id INTEGER PRIMARY KEY,
    space TEXT NOT NULL,        -- SearchSpace.to_dict() as JSON
    fingerprint TEXT NOT NULL,  -- Evaluator.fingerprint() as JSON
    UNIQUE (space, fingerprint)
);
CREATE TABLE evaluation (
    evaluator INTEGER NOT NULL REFERENCES evaluator (id),
    tokens TEXT NOT NULL,       -- the choices, separated by spaces
    fidelity REAL NOT NULL,     -- the share of the full budget
    accuracy REAL,              -- NULL if it is NaN
    metrics TEXT NOT NULL,      -- numbers by name, as JSON; null if NaN
    reason TEXT,                -- why it failed; NULL if it did not
    PRIMARY KEY (evaluator, tokens, fidelity)
) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {FORMAT};
"""


@dataclass(frozen=True)
class StoredSeries:
    """Summary of the stored evaluations of one evaluator.

    Attributes:
        number: its number for `EvaluationStore.read` and `write`.
        space: the search space, as returned by `SearchSpace.to_dict`.
        fingerprint: the fingerprint of the evaluator, including its seed.
        evaluations: number of evaluations.
        failed: number of failed evaluations.
    """

    number: int
    space: dict[str, Any]
    fingerprint: dict[str, Any]
    evaluations: int
    failed: int


class EvaluationStore:
    """Evaluations in an SQLite file, shared by any number of processes and threads of one machine.

    The key of an evaluation consists of the search space, the evaluator's fingerprint, the architecture's choices and
    the fidelity. The first evaluation written for a key is kept; later ones are ignored. Rows are written atomically: a
    process that is killed leaves what it has written. (A power cut may lose the last half minute or so, but nothing
    older, and the file stays intact.)

    The file uses SQLite's WAL mode, which does not work on network file systems: processes on other machines must send
    their evaluations to one with access to the file, as the workers of a `DistributedEvaluator` do.

    Args:
        path: the file; created, with its folder, if it does not exist.

    Raises:
        ValueError: the file is not an evaluation store, or has a later format.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._local = threading.local()
        if not self.path.exists():
            self._create()
        self._connection()  # raises if the file is not a store

    def __reduce__(self) -> tuple[type[EvaluationStore], tuple[Path]]:
        return EvaluationStore, (self.path,)

    def _create(self) -> None:
        """Creates the file under a temporary name and links it, so that no other process sees an incomplete file."""
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
        """One connection per thread and process. A connection inherited by a fork must be neither used nor closed."""
        connections: dict[int, sqlite3.Connection] = self._local.__dict__.setdefault("connections", {})
        if os.getpid() not in connections:
            connections[os.getpid()] = self._opened()
        return connections[os.getpid()]

    def _opened(self) -> sqlite3.Connection:
        # Read and write, but never create: a deleted store must not be recreated without its tables.
        connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=rw", uri=True, timeout=PATIENCE)
        connection.isolation_level = None  # transactions are started explicitly
        try:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            connection.execute("PRAGMA synchronous = NORMAL")
        except sqlite3.DatabaseError as error:
            connection.close()
            raise ValueError(f"{str(self.path)!r} is not an evaluation store: {error}") from error
        if application != APPLICATION or version > FORMAT:
            connection.close()
            kind = "not an evaluation store" if application != APPLICATION else f"of format {version}"
            raise ValueError(f"{str(self.path)!r} is {kind}; this version reads stores up to format {FORMAT}")
        return connection

    def close(self) -> None:
        """Closes this thread's connection; it is reopened when needed."""
        connection = self._local.__dict__.get("connections", {}).pop(os.getpid(), None)
        if connection is not None:
            connection.close()

    # ------------------------------------------------------------------ keys and rows

    def series(self, space: SearchSpace, fingerprint: Mapping[str, Any]) -> int:
        """The number of an evaluator's series of evaluations; creates the series if it does not exist.

        Args:
            space: the search space.
            fingerprint: the result of `Evaluator.fingerprint`.

        Raises:
            ValueError: the fingerprint is not JSON-serialisable.
        """
        key = _json(space.to_dict()), _json(fingerprint)
        connection = self._connection()
        connection.execute("INSERT OR IGNORE INTO evaluator (space, fingerprint) VALUES (?, ?)", key)
        (number,) = connection.execute("SELECT id FROM evaluator WHERE space = ? AND fingerprint = ?", key).fetchone()
        return int(number)

    def read(self, series: int, tokens: Tokens, fidelity: float = 1.0) -> list[Evaluations | None]:
        """The stored evaluation of each of the architectures int64[B, T], as a batch of one, or None.

        Args:
            series: the result of `series`.
            tokens: legal, complete sequences.
            fidelity: the share of the full budget.
        """
        query = "SELECT accuracy, metrics, reason FROM evaluation WHERE evaluator = ? AND tokens = ? AND fidelity = ?"
        execute = self._connection().execute
        rows = (execute(query, (series, text, fidelity)).fetchone() for text in _texts(tokens))
        return [None if row is None else _evaluation(*row) for row in rows]

    def write(self, series: int, tokens: Tokens, evaluations: Evaluations, fidelity: float = 1.0) -> None:
        """Stores the evaluations of int64[B, T] atomically, without failures that are due to the machine.

        Args:
            series: the result of `series`.
            tokens: legal, complete sequences.
            evaluations: their evaluations.
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

    # ------------------------------------------------------------------ content

    def __len__(self) -> int:
        """The number of evaluations."""
        (count,) = self._connection().execute("SELECT count(*) FROM evaluation").fetchone()
        return int(count)

    def all_series(self) -> list[StoredSeries]:
        """The content of the store, one item per evaluator."""
        found = self._connection().execute(
            "SELECT id, space, fingerprint, count(tokens), count(reason) FROM evaluator "
            "LEFT JOIN evaluation ON evaluator = id GROUP BY id ORDER BY id"
        )
        return [
            StoredSeries(number, json.loads(space), json.loads(fingerprint), evaluations, failed)
            for number, space, fingerprint, evaluations, failed in found
        ]

    def all_evaluations(self, series: int) -> Iterator[tuple[tuple[int, ...], float, Evaluations]]:
        """Iterates over one evaluator's evaluations: choices, fidelity, and the evaluation as a batch of one."""
        found = self._connection().execute(
            "SELECT tokens, fidelity, accuracy, metrics, reason FROM evaluation WHERE evaluator = ?", (series,)
        )
        for text, fidelity, *columns in found:
            yield tuple(map(int, text.split())), fidelity, _evaluation(*columns)

    def export(self, series: int, path: str | os.PathLike[str]) -> int:
        """Writes one evaluator's evaluations to a CSV file with a header; returns the number of evaluations.

        Numbers are written by `repr`, so they read back exactly; NaN and missing values are empty.
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
        raise ValueError(f"a fingerprint must be JSON-serialisable, with finite numbers; got {value!r}") from error


def _texts(tokens: Tokens) -> list[str]:
    return [" ".join(map(str, row)) for row in tokens.tolist()]


def _columns(evaluations: Evaluations, row: int) -> tuple[float | None, str, str | None]:
    """The accuracy, the metrics and the reason in the form of the file; numbers are exact."""
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
    """Looks evaluations up in a store; evaluates the missing ones and stores them before returning.

    Results are bit-identical to those of the wrapped evaluator. Therefore the key of an architecture is its choices,
    not the function that it computes: two architectures that compute the same start from different random weights.

    Args:
        evaluator: an evaluator whose results depend only on its settings.
        store: the store, or its path.

    Attributes:
        evaluator: the wrapped evaluator.
        store: the store.
        found: number of architectures answered from the store.
        evaluated: number of architectures that were evaluated.

    Raises:
        ValueError: the evaluator is stateful or has no fingerprint, or the file is not a store.
    """

    def __init__(self, evaluator: Evaluator, store: EvaluationStore | str | os.PathLike[str]) -> None:
        super().__init__(evaluator.space)
        if evaluator.stateful:
            raise ValueError(
                f"{type(evaluator.unwrapped).__name__} is stateful: its results depend on earlier calls, but a "
                "store needs evaluators whose results depend only on their settings"
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
        """Evaluates through the store; with `parents`, which are not part of the key, the store is not used."""
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
        return concatenate([evaluation for text in texts if (evaluation := known[text]) is not None])

    def begin(self, tokens: Tokens, *, fidelity: float | None = None) -> Future[Any]:
        """Starts an evaluation that is not in the store."""
        evaluator: Evaluator = self.evaluator
        (known,) = self.store.read(self._series, tokens, self._share(fidelity))
        return evaluator.begin(tokens, fidelity=fidelity) if known is None else super().begin(tokens)

    def _share(self, fidelity: float | None) -> float:
        """The share of the full budget that is spent for a requested fidelity."""
        return (self.nearest_fidelity(fidelity) or 1.0) if self.fidelities else 1.0
