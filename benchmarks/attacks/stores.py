"""Damaged, locked, read-only and deleted stores: is a wrong evaluation ever answered, or one lost in silence?"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.attacks.outcome import Attack, Outcome
from benchmarks.attacks.trial import count, cut, flip_bit
from nas_gym.evaluators import Evaluations, EvaluationStore, Evaluator, StoredEvaluator
from nas_gym.evaluators.store_file import digest
from nas_gym.spaces import Bench201Space, Tokens

SPACE = Bench201Space()
STORED, ASKED = 60, 80  # architectures that are in the store, and that are asked for
NOBODY = 65534


class Known(Evaluator):
    """An evaluator whose answers follow from the tokens; every seventh architecture fails."""

    fidelities = (0.5, 1.0)

    def fingerprint(self) -> dict[str, Any]:
        return {"evaluator": "known"}

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        del parents
        index = self.space.index(tokens)
        failed = index % 7 == 0
        accuracy = np.where(failed, 0.0, index / 15625 * (fidelity or 1.0))
        reasons = tuple("diverged" if fails else "" for fails in failed)
        return Evaluations(accuracy, {"seconds": np.sqrt(index)}, failed, reasons)


def tokens() -> Tokens:
    """What is asked of a store, without repetitions."""
    return SPACE.enumerate()[:: 15625 // ASKED][:ASKED]


def save_small(path: Path) -> None:
    """Writes a store of evaluations at two fidelities."""
    stored = StoredEvaluator(Known(SPACE), path)
    stored.evaluate(tokens()[:STORED])
    stored.evaluate(tokens()[:STORED], fidelity=0.5)
    stored.store.close()


def plain(evaluations: Evaluations) -> list[Any]:
    """Evaluations as plain values."""
    return [[column.tobytes() for column in evaluations.columns().values()], evaluations.reasons]


def search(path: Path) -> list[Any]:
    """What a search gets that asks for more than the store holds; what the store lacks is evaluated."""
    with contextlib.closing(EvaluationStore(path, timeout=0.1)) as store:
        stored = StoredEvaluator(Known(SPACE), store)
        return [plain(stored.evaluate(tokens(), fidelity=fidelity)) for fidelity in (None, 0.5)]


def listing(path: Path) -> list[Any]:
    """All that a store says it holds."""
    with contextlib.closing(EvaluationStore(path, timeout=0.1)) as store:
        return [
            (series.number, series.fingerprint, series.evaluations, series.failed, choices, fidelity, plain(evaluation))
            for series in store.all_series()
            for choices, fidelity, evaluation in store.all_evaluations(series.number)
        ]


# ------------------------------------------------------------------ damage


def damaged(change: Callable[[bytes, np.random.Generator], tuple[bytes, str]], attack: str, tries: int) -> Attack:
    """Searches with, or lists, stores of which `change` has damaged the bytes."""

    def run(folder: Path, rng: np.random.Generator) -> Outcome:
        path, outcome = folder / "small.sqlite", Outcome(attack)
        save_small(path)
        data, expected = path.read_bytes(), {search: search(folder / "other.sqlite"), listing: listing(path)}
        for number in range(tries):
            for leftover in folder.glob("small.sqlite*"):
                leftover.unlink()
            content, what = change(data, rng)
            path.write_bytes(content)
            use = (search, listing)[number % 2]
            count(outcome, f"{use.__name__}, {what}", lambda use=use: use(path), path.name, expected[use])  # type: ignore[misc]
        return outcome

    return run


def flips(folder: Path, rng: np.random.Generator, *, tries: int = 400) -> Outcome:
    """Flips one bit anywhere in the file."""
    return damaged(flip_bit, "store: one bit flipped", tries)(folder, rng)


def truncations(folder: Path, rng: np.random.Generator, *, tries: int = 100) -> Outcome:
    """Cuts the file off."""
    return damaged(cut, "store: cut off", tries)(folder, rng)


CHANGES = {
    "an accuracy is another": "UPDATE evaluation SET accuracy = 0.25",
    "an accuracy is a text": "UPDATE evaluation SET accuracy = 'high'",
    "a metric is another": "UPDATE evaluation SET metrics = '{\"seconds\": 1.0}'",
    "metrics are not JSON": "UPDATE evaluation SET metrics = '{'",
    "a failure is another": "UPDATE evaluation SET reason = 'bad luck'",
    "a checksum is missing": "UPDATE evaluation SET checksum = NULL",
    "rows of another fidelity": "UPDATE evaluation SET fidelity = 3 - fidelity * 2",
    "the rows of another evaluator": 'UPDATE evaluator SET fingerprint = \'{"evaluator": "other"}\'',
    "an evaluator of another number": "UPDATE evaluator SET id = 2",
    "no table of evaluations": "DROP TABLE evaluation",
    "no table of evaluators": "DROP TABLE evaluator",
    "another application": "PRAGMA application_id = 7",
    "a later format": "PRAGMA user_version = 9",
    "no format": "PRAGMA user_version = 0",
    "an earlier format": "PRAGMA user_version = 1",
}
SENSELESS: dict[str, tuple[Any, ...]] = {
    "an infinite accuracy": (1.0, np.inf, "{}", None),
    "an accuracy of no number": (1.0, "high", "{}", None),
    "metrics that are not JSON": (1.0, 0.5, "{", None),
    "metrics in a list": (1.0, 0.5, "[1]", None),
    "a metric that is a text": (1.0, 0.5, '{"seconds": "long"}', None),
    "metrics nested deeply": (1.0, 0.5, "[" * 100_000, None),
    "a reason that is a number": (1.0, 0.5, "{}", b"1"),
}


def changed_rows(folder: Path, rng: np.random.Generator) -> Outcome:
    """Changes a store with SQLite, without the checksums; and with them, to what no evaluation is."""
    del rng
    path, outcome = folder / "small.sqlite", Outcome("store: rows changed by hand")
    for what, statement in CHANGES.items():
        path.unlink(missing_ok=True)
        save_small(path)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(statement)
        count(outcome, what, lambda: [search(path), listing(path)], path.name)
    for what, columns in SENSELESS.items():
        path.unlink(missing_ok=True)
        save_small(path)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            (key,) = connection.execute("SELECT checksum FROM evaluator").fetchone()
            choices = " ".join(map(str, tokens()[0]))
            row = (choices, *columns)
            connection.execute("DELETE FROM evaluation")
            connection.execute("INSERT INTO evaluation VALUES (1, ?, ?, ?, ?, ?, ?)", (*row, digest(key, *row)))
        count(outcome, what, lambda: search(path), path.name)
    return outcome


# ------------------------------------------------------------------ locks, permissions, deletion


def locked(folder: Path, rng: np.random.Generator) -> Outcome:
    """Uses a store while another connection holds its write lock, or all of it, beyond the timeout."""
    del rng
    path, outcome = folder / "small.sqlite", Outcome("store: locked", note="beyond the timeout")
    save_small(path)
    expected = search(folder / "other.sqlite")
    for mode in ("normal", "exclusive"):
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA locking_mode = {mode}")
            connection.execute("BEGIN EXCLUSIVE")
            count(outcome, f"a lock in mode {mode}", lambda: search(path), "still locked by", expected)
    return outcome


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """As a user for whom permissions count: root is not one."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def read_only(folder: Path, rng: np.random.Generator) -> Outcome:
    """Searches with a store of which the file, the folder or both cannot be written; nothing is lost by it."""
    del rng, folder  # whose parents a user without privileges cannot enter
    outcome = Outcome("store: read-only")
    for writable in ("folder", "file", "none"):
        with tempfile.TemporaryDirectory() as made:
            path = Path(made) / "small.sqlite"
            save_small(path)
            expected = search(Path(made) / "other.sqlite")
            path.chmod(0o666 if writable == "file" else 0o444)
            Path(made).chmod(0o777 if writable == "folder" else 0o555)
            with unprivileged():
                count(outcome, f"writable: {writable}", lambda path=path: search(path), path.name, expected)  # type: ignore[misc]
            Path(made).chmod(0o755)
            outcome.lost += len(listing(path)) != 2 * STORED
    return outcome


def deleted(folder: Path, rng: np.random.Generator) -> Outcome:
    """Deletes, moves or replaces a store while it is open."""
    del rng
    outcome = Outcome("store: deleted while open")
    for what in ("deleted", "moved", "replaced"):
        path = folder / f"{what}.sqlite"
        save_small(path)
        stored = StoredEvaluator(Known(SPACE), path)
        path.rename(folder / "elsewhere")
        if what == "deleted":
            (folder / "elsewhere").unlink()
        elif what == "replaced":
            save_small(path)
        count(outcome, what, lambda stored=stored: plain(stored.evaluate(tokens())), path.name)  # type: ignore[misc]
        stored.store.close()
    return outcome


def downgrade(path: Path) -> None:
    """Makes a store of format 1, as earlier versions wrote them, of one of format 2."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for table in ("evaluator", "evaluation"):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN checksum")
        connection.execute("PRAGMA user_version = 1")


def upgraded(folder: Path, rng: np.random.Generator) -> Outcome:
    """Opens stores of format 1; one of them has a row that makes no sense, beside which no other may be lost."""
    del rng
    outcome = Outcome("store: of format 1")
    for what, statement in {"whole": "", "damaged": "UPDATE evaluation SET metrics = '{' WHERE fidelity = 0.5"}.items():
        path = folder / f"{what}.sqlite"
        save_small(path)
        expected = listing(path)
        downgrade(path)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(statement)
        count(outcome, what, lambda path=path: listing(path), path.name, expected)  # type: ignore[misc]
        store = EvaluationStore(path)
        outcome.lost += len(store) != 2 * STORED
        store.close()
    return outcome


ATTACKS: list[Attack] = [flips, truncations, changed_rows, locked, read_only, deleted, upgraded]
