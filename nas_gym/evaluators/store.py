"""A store of evaluations in a file, so that later searches reuse them."""

from __future__ import annotations

import csv
import json
import math
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas_gym.evaluators.evaluator import Evaluations, Evaluator, concatenate
from nas_gym.evaluators.store_file import TIMEOUT, StoreFile, digest
from nas_gym.spaces import SearchSpace, Tokens, make_space

UNKNOWN = 0
"""The number of an evaluator that a store does not know and, being read-only, cannot be told of."""

MACHINE_FAILURES = ("out of memory", "worker lost", "raised")
"""Reasons of failures that may not occur on another machine, and that are not stored."""


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

    Each row has a checksum, which is verified whenever the row is read. A file that cannot be written is read, and new
    evaluations are not kept, which is logged once. While another process has the file locked, this is logged, and
    waited for. Every other trouble with the file is a ValueError that names it, from any method.

    Args:
        path: the file; created, with its folder, if it does not exist. Files of format 1, which has no checksums, are
            upgraded in place.
        timeout: seconds to wait while another process has the file locked.

    Attributes:
        path: the file.
        timeout: see above.

    Raises:
        ValueError: the timeout is negative, or the file is not an evaluation store, is damaged, or has a later format.
    """

    def __init__(self, path: str | os.PathLike[str], timeout: float = TIMEOUT) -> None:
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0:
            raise ValueError(f"timeout must be a number of seconds of at least 0, got {timeout!r}")
        self.path, self.timeout = Path(path), timeout
        self._file = StoreFile(self.path, timeout)
        self._keys: dict[int, bytes] = {}
        try:
            self._check_structure("integrity_check(evaluator)")
            self._evaluators()
        except BaseException:
            self.close()
            raise

    def __reduce__(self) -> tuple[type[EvaluationStore], tuple[Path, float]]:
        return EvaluationStore, (self.path, self.timeout)

    def close(self) -> None:
        """Closes this thread's connection; it is reopened when needed."""
        self._file.close()

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
        if (number := self._number(key)) is None and self._file.write(lambda connection: _add(connection, key)):
            number = self._number(key)
        return UNKNOWN if number is None else number

    def _number(self, key: tuple[str, str]) -> int | None:
        found = self._fetch("SELECT id, checksum FROM evaluator WHERE space = ? AND fingerprint = ?", key)
        if not found:
            return None
        ((number, checksum),) = found
        self._compare(checksum, (number, *key), f"evaluator {number}")
        return int(number)

    def read(self, series: int, tokens: Tokens, fidelity: float = 1.0) -> list[Evaluations | None]:
        """The stored evaluation of each of the architectures int64[B, T], as a batch of one, or None.

        Args:
            series: the result of `series`.
            tokens: legal, complete sequences.
            fidelity: the share of the full budget.
        """
        query = (
            "SELECT tokens, fidelity, accuracy, metrics, reason, checksum FROM evaluation "
            "WHERE evaluator = ? AND tokens = ? AND fidelity = ?"
        )
        asked = [(text, float(fidelity)) for text in _texts(tokens)]
        found = self._file.run(
            lambda connection: [connection.execute(query, (series, *key)).fetchone() for key in asked]
        )
        for key, row in zip(asked, found, strict=True):
            if (
                row is not None and row[:2] != key
            ):  # beside a damaged row, SQLite may find another than it was asked for
                raise self._damaged(f"the evaluation of {key[0]!r} by evaluator {series}", f"is that of {row[:2]}")
        return [None if row is None else self._evaluation(series, row) for row in found]

    def write(self, series: int, tokens: Tokens, evaluations: Evaluations, fidelity: float = 1.0) -> None:
        """Stores the evaluations of int64[B, T] atomically, without failures that are due to the machine.

        Args:
            series: the result of `series`.
            tokens: legal, complete sequences.
            evaluations: their evaluations.
            fidelity: the share of the full budget.
        """
        if series == UNKNOWN:
            return
        rows = [
            (text, float(fidelity), *_columns(evaluations, row))
            for row, text in enumerate(_texts(tokens))
            if not any(failure in evaluations.reasons[row] for failure in MACHINE_FAILURES)
        ]
        key = self._key(series)
        signed = [(series, *row, digest(key, *row)) for row in rows]
        insert = "INSERT OR IGNORE INTO evaluation VALUES (?, ?, ?, ?, ?, ?, ?)"
        self._file.write(lambda connection: connection.executemany(insert, signed))

    # ------------------------------------------------------------------ checks

    def _fetch(self, query: str, arguments: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return self._file.run(lambda connection: connection.execute(query, arguments).fetchall())

    def _damaged(self, what: str, reason: str) -> ValueError:
        return ValueError(
            f"store {str(self.path)!r} is damaged: {what} {reason}; restore a copy, or move it away to begin a new one"
        )

    def _compare(self, checksum: Any, values: tuple[Any, ...], what: str) -> None:
        if checksum != digest(*values):
            raise self._damaged(what, "does not match its checksum")

    def _check_structure(self, check: str = "integrity_check") -> None:
        """Has SQLite look for damage between the rows, by which some of them may be passed over."""
        (found, *_), *_ = self._fetch(f"PRAGMA {check}")
        if found != "ok":
            raise self._damaged("its structure", f"is not whole: {found}")

    def _evaluators(self) -> list[tuple[int, str, str]]:
        """The number, space and fingerprint of each evaluator, as JSON."""
        found = self._fetch("SELECT id, space, fingerprint, checksum FROM evaluator ORDER BY id")
        for *row, checksum in found:
            self._compare(checksum, tuple(row), f"evaluator {row[0]}")
            self._keys[row[0]] = checksum
        return [(number, space, fingerprint) for number, space, fingerprint, _ in found]

    def _key(self, series: int) -> bytes:
        """The checksum of an evaluator, which those of its evaluations begin with."""
        if series not in self._keys:
            self._evaluators()
        if series not in self._keys:
            raise ValueError(f"store {str(self.path)!r} has no evaluator {series!r}; take a number from `series`")
        return self._keys[series]

    def _evaluation(self, series: int, row: tuple[Any, ...]) -> Evaluations:
        """What a row of tokens, fidelity, accuracy, metrics, reason and checksum holds, once it is checked."""
        *values, checksum = row
        tokens, fidelity, accuracy, metrics, reason = values
        what = f"the evaluation of {tokens!r} by evaluator {series}"
        self._compare(checksum, (self._key(series), *values), what)
        try:
            columns = {"accuracy": accuracy, **json.loads(metrics)}
            if not isinstance(fidelity, float) or not 0 < fidelity <= 1 or not isinstance(reason, str | None):
                raise ValueError(f"has the fidelity {fidelity!r} and the reason {reason!r}")
            if wrong := [value for value in columns.values() if not isinstance(value, float | int | None)]:
                raise ValueError(f"holds {wrong[0]!r} instead of a number")
            numbers = {name: np.array([np.nan if value is None else float(value)]) for name, value in columns.items()}
            return Evaluations(numbers.pop("accuracy"), numbers, np.array([reason is not None]), (reason or "",))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise self._damaged(what, str(error)) from error

    # ------------------------------------------------------------------ content

    def __len__(self) -> int:
        """The number of evaluations."""
        ((count,),) = self._fetch("SELECT count(*) FROM evaluation")
        return int(count)

    def all_series(self) -> list[StoredSeries]:
        """The content of the store, one item per evaluator."""
        self._check_structure()
        query = "SELECT evaluator, count(*), count(reason) FROM evaluation GROUP BY evaluator"
        counts = {number: tuple(of) for number, *of in self._fetch(query)}
        found = self._evaluators()
        if lost := sorted(set(counts) - {number for number, *_ in found}):
            raise self._damaged(f"evaluator {lost[0]}", "is missing, but has evaluations")
        try:
            return [
                StoredSeries(number, json.loads(space), json.loads(fingerprint), *counts.get(number, (0, 0)))
                for number, space, fingerprint in found
            ]
        except (TypeError, ValueError, RecursionError) as error:
            raise self._damaged("an evaluator", f"is not in JSON: {error}") from error

    def all_evaluations(self, series: int) -> Iterator[tuple[tuple[int, ...], float, Evaluations]]:
        """Iterates over one evaluator's evaluations: choices, fidelity, and the evaluation as a batch of one."""
        self._check_structure()
        query = "SELECT tokens, fidelity, accuracy, metrics, reason, checksum FROM evaluation WHERE evaluator = ?"
        for row in self._fetch(query, (series,)):
            evaluation = self._evaluation(series, row)
            yield tuple(map(int, row[0].split())), row[1], evaluation

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


def _add(connection: sqlite3.Connection, key: tuple[str, str]) -> None:
    """Adds an evaluator, unless another process has."""
    added = connection.execute("INSERT OR IGNORE INTO evaluator (space, fingerprint) VALUES (?, ?)", key)
    if added.rowcount:
        update = "UPDATE evaluator SET checksum = ? WHERE id = ?"
        connection.execute(update, (digest(added.lastrowid, *key), added.lastrowid))


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

    def wait(self, begun: Collection[Future[Any]], poll: Callable[[], None]) -> Collection[Future[Any]]:
        evaluator: Evaluator = self.evaluator
        return evaluator.wait(begun, poll)

    def _share(self, fidelity: float | None) -> float:
        """The share of the full budget that is spent for a requested fidelity."""
        return (self.nearest_fidelity(fidelity) or 1.0) if self.fidelities else 1.0
