"""The record of a run's trials: an SQLite file in which no row can change, vanish or be added unnoticed.

Each trial has a checksum over its own row and the checksum of the trial before it; the head of the file has one over
the number of trials, the last of these, and what the run was asked to do. A batch of trials and the head change in one
transaction. A process that is killed leaves all batches that it has written; a power cut may take those since the last
`sync`, but leaves the file whole.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sqlite3
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas_gym.agents import Proposal, SearchResult
from nas_gym.files import checksum, replacing
from nas_gym.spaces import SearchSpace, saved_space
from nas_gym.types import Floats

RECORD = "trials.db"
APPLICATION = 0x4E415452  # "NATR", the application id of these SQLite files
FORMAT = 1
RUNNING, STOPPED, COMPLETE, FAILED = "running", "stopped", "complete", "failed"
SCHEMA = f"""
CREATE TABLE head (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    origin TEXT NOT NULL,    -- what the run was asked to do, as JSON
    writer TEXT NOT NULL,    -- which opening of the file may write to it
    trials INTEGER NOT NULL,
    checkpoint INTEGER,      -- how many trials the last checkpoint knows; NULL if there is none
    checksum TEXT NOT NULL   -- of origin, trials, checkpoint and the last trial's checksum
);
CREATE TABLE trial (         -- those that have ended
    number INTEGER PRIMARY KEY,
    state TEXT NOT NULL,     -- {COMPLETE} or {FAILED}
    tokens TEXT NOT NULL,    -- the choices, separated by spaces
    reward REAL,             -- NULL if it is NaN
    metrics TEXT NOT NULL,   -- numbers by name, as JSON; null if NaN
    seconds REAL NOT NULL,   -- of the run's clock when it ended
    checksum TEXT NOT NULL   -- of the row and of the checksum before it
);
CREATE TABLE unfinished (    -- those that have not
    tokens TEXT NOT NULL,
    state TEXT NOT NULL      -- {RUNNING}; {STOPPED} if the run ended in the middle of it
);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {FORMAT};
"""
INSERT = "INSERT INTO trial VALUES (?, ?, ?, ?, ?, ?, ?)"


class DamagedRecordError(ValueError):
    """The record is not what was written.

    Attributes:
        sound: how many of its first trials are.
    """

    def __init__(self, path: Path, reason: str, sound: int = 0) -> None:
        super().__init__(
            f"{str(path)!r} is damaged: {reason}; its first {sound} trials are sound. Restore the file from a "
            "backup, or have these kept and the others evaluated again: nas-gym resume --repair"
        )
        self.sound = sound


@dataclass(frozen=True)
class RecordedTrials:
    """What a record holds.

    Attributes:
        result: the trials.
        seconds: of the run's clock at the end of each, float64[n].
    """

    result: SearchResult
    seconds: Floats


class TrialRecord:
    """The record of a run, open for writing.

    Args:
        folder: of the run.

    Attributes:
        origin: what the run was asked to do.
        checkpoint: how many trials the last checkpoint knows; None if there is none.

    Raises:
        FileNotFoundError: the folder has no record.
        DamagedRecordError: the file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / RECORD
        rows = read_rows(self.path)
        self.origin, self.checkpoint = rows.origin, rows.checkpoint
        self._recorded = rows.trials(saved_space(rows.origin["space"]))
        self._trials, self._last, self._writer = len(rows.rows), rows.last, uuid.uuid4().hex
        with _translated(self.path):
            self._connection = sqlite3.connect(_uri(self.path), uri=True, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute("UPDATE head SET writer = ?", (self._writer,))
            self._connection.execute("UPDATE unfinished SET state = ?", (STOPPED,))

    @classmethod
    def create(
        cls, folder: Path, origin: Mapping[str, Any], trials: SearchResult | None = None, seconds: Floats | float = 0.0
    ) -> None:
        """Writes a new record; whole or not at all.

        Args:
            folder: of the run.
            origin: what the run was asked to do, JSON-serialisable, with its search space under ``space``.
            trials: to begin with.
            seconds: of the run's clock at the end of each, float64[n], or of all.
        """
        rows = [] if trials is None else _rows(trials, 0, seconds, "")
        text = json.dumps(origin, sort_keys=True)
        with replacing(folder / RECORD) as temporary, _translated(folder / RECORD):
            connection = sqlite3.connect(temporary, isolation_level=None)
            connection.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN; {SCHEMA}")
            last = rows[-1][-1] if rows else ""
            head = 1, text, "", len(rows), None, _checksum(text, len(rows), None, last)
            connection.execute("INSERT INTO head VALUES (?, ?, ?, ?, ?, ?)", head)
            connection.executemany(INSERT, rows)
            connection.execute("COMMIT")
            connection.close()

    @property
    def recorded(self) -> RecordedTrials:
        """The trials that were there when the record was opened."""
        return self._recorded

    def begin(self, proposal: Proposal) -> None:
        """Notes trials that are about to run."""
        with self._transaction():
            rows = [(text, RUNNING) for text in _texts(proposal.tokens)]
            self._connection.executemany("INSERT INTO unfinished VALUES (?, ?)", rows)

    def add(self, trials: SearchResult, seconds: float) -> None:
        """Records trials that have ended, when the run's clock stands at so many seconds."""
        rows = _rows(trials, self._trials, seconds, self._last)
        with self._transaction():
            self._connection.executemany(INSERT, rows)
            self._connection.executemany(
                "DELETE FROM unfinished WHERE rowid = "
                "(SELECT min(rowid) FROM unfinished WHERE tokens = ? AND state = ?)",
                [(row[2], RUNNING) for row in rows],
            )
            self._write_head(self._trials + len(rows), rows[-1][-1])

    def note_checkpoint(self, trials: int) -> None:
        """Notes that a checkpoint has been written that knows so many trials."""
        self.checkpoint = trials
        with self._transaction():
            self._write_head(self._trials, self._last)

    def cut(self, trials: int) -> None:
        """Keeps the first trials, as many as given."""
        if trials >= self._trials:
            return
        with self._transaction():
            self._connection.execute("DELETE FROM trial WHERE number >= ?", (trials,))
            query = "SELECT checksum FROM trial WHERE number = ?"
            found = self._connection.execute(query, (trials - 1,)).fetchone()
            self._write_head(trials, found[0] if found else "")
        kept = slice(0, trials)
        self._recorded = RecordedTrials(self._recorded.result.rows(kept), self._recorded.seconds[kept])

    def stop(self) -> None:
        """Notes that the trials that are running will not end."""
        with self._transaction():
            self._connection.execute("UPDATE unfinished SET state = ?", (STOPPED,))

    def sync(self) -> None:
        """Returns when all that was recorded is on the disk."""
        with _translated(self.path):
            self._connection.execute("PRAGMA wal_checkpoint(FULL)")

    def close(self) -> None:
        """Leaves one file, unless somebody is reading it just now."""
        with contextlib.suppress(sqlite3.OperationalError):
            self._connection.execute("PRAGMA journal_mode = DELETE")
        self._connection.close()

    def _write_head(self, trials: int, last: str) -> None:
        checksum = _checksum(json.dumps(self.origin, sort_keys=True), trials, self.checkpoint, last)
        change = "UPDATE head SET trials = ?, checkpoint = ?, checksum = ? WHERE writer = ?"
        if self._connection.execute(change, (trials, self.checkpoint, checksum, self._writer)).rowcount != 1:
            raise ValueError(f"{str(self.path)!r} has been taken over by another process, and is left to it")
        self._trials, self._last = trials, last

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _translated(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            with self._connection:  # commits, or rolls back
                yield


# ---------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Rows:
    """The content of a record, checked.

    Attributes:
        origin: what the run was asked to do.
        checkpoint: how many trials the last checkpoint knows; None if there is none.
        rows: of the table of trials.
        last: the checksum of the last of them.
    """

    origin: dict[str, Any]
    checkpoint: int | None
    rows: list[tuple[Any, ...]]
    last: str

    def trials(self, space: SearchSpace) -> RecordedTrials:
        """The trials as arrays."""
        metrics = [json.loads(row[4]) for row in self.rows]
        names = dict.fromkeys(name for row in metrics for name in row)
        tokens = np.array([row[2].split() for row in self.rows], dtype=np.int64).reshape(len(self.rows), space.length)
        space.check(tokens)
        columns = {name: _floats([row.get(name) for row in metrics]) for name in names}
        result = SearchResult(space, tokens, _floats([row[3] for row in self.rows]), columns)
        return RecordedTrials(result, _floats([row[5] for row in self.rows]))


def read_rows(path: Path) -> Rows:
    """Reads a record and checks every row of it.

    Raises:
        FileNotFoundError: there is none.
        DamagedRecordError: it is damaged.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no record of trials at {str(path)!r}")
    head, rows, error = _content(path)
    last, sound = "", []
    for number, row in enumerate(rows):
        if row[0] != number or row[-1] != _checksum(*row[:-1], last):
            raise DamagedRecordError(path, f"the checksum of trial {number} is wrong", number)
        last = row[-1]
        sound.append(row)
    if error is not None:
        raise DamagedRecordError(path, error, len(sound))
    if head is None or (head[1], head[-1]) != (len(rows), _checksum(*head[:-1], last)):
        raise DamagedRecordError(path, "its head does not fit its trials", len(sound))
    return Rows(json.loads(head[0]), head[2], sound, last)


def _content(path: Path) -> tuple[tuple[Any, ...] | None, list[tuple[Any, ...]], str | None]:
    """The head and the trials of a record, as far as they can be read, and why not all can."""
    head, rows = None, []
    try:
        connection = sqlite3.connect(_uri(path), uri=True)
        try:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if (application, version) != (APPLICATION, FORMAT):
                return None, [], f"it is no record of trials of format {FORMAT}"
            # One transaction, so that trials that a running search adds meanwhile are left out of both.
            connection.execute("BEGIN")
            head = connection.execute("SELECT origin, trials, checkpoint, checksum FROM head").fetchone()
            for row in connection.execute("SELECT * FROM trial ORDER BY number"):
                rows.append(row)  # keeps those before the damage
        finally:
            connection.close()
    except sqlite3.Error as error:
        return head, rows, str(error)
    return head, rows, None


def repair(folder: Path, origin: Mapping[str, Any]) -> int:
    """Keeps the sound trials of a damaged record in a new one; the damaged file stays beside it.

    Returns:
        How many trials were kept.
    """
    path = folder / RECORD
    try:
        return len(read_rows(path).rows)
    except DamagedRecordError as error:
        head, found, _ = _content(path)
        rows = found[: error.sound]
    if head is not None and head[-1] == _checksum(*head[:-1], rows[-1][-1] if rows else ""):
        origin = json.loads(head[0])
    sound = Rows(dict(origin), None, rows, "").trials(saved_space(origin["space"]))
    os.replace(path, path.with_name("trials.damaged.db"))
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    TrialRecord.create(folder, origin, sound.result, sound.seconds)
    return len(rows)


# ---------------------------------------------------------------------- rows


def _rows(trials: SearchResult, first: int, seconds: Floats | float, last: str) -> list[tuple[Any, ...]]:
    """Rows of the table of trials that follow one of the checksum `last`."""
    clocks = np.broadcast_to(seconds, len(trials)).tolist()
    failed = trials.metrics.get("failed", np.zeros(len(trials))) > 0
    rows: list[tuple[Any, ...]] = []
    for number, text in enumerate(_texts(trials.tokens)):
        metrics = {name: _number(column[number]) for name, column in trials.metrics.items()}
        state = FAILED if failed[number] else COMPLETE
        row = first + number, state, text, _number(trials.rewards[number]), json.dumps(metrics), clocks[number]
        last = _checksum(*row, last)
        rows.append((*row, last))
    return rows


def _texts(tokens: Any) -> list[str]:
    return [" ".join(map(str, row)) for row in tokens.tolist()]


def _number(value: Any) -> float | None:
    return None if math.isnan(value) else float(value) + 0.0  # SQLite does not know -0.0


def _floats(values: Sequence[float | None]) -> Floats:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _checksum(*values: Any) -> str:
    return checksum(repr(values))


def _uri(path: Path) -> str:
    # A file that a killed process has left in the middle of a change is put right by whoever opens it, even to read it.
    # Where nothing can be written, there is no room either for what SQLite keeps beside a file.
    writable = os.access(path.parent, os.W_OK) and os.access(path, os.W_OK)
    return f"{path.absolute().as_uri()}?{'mode=rw' if writable else 'mode=ro&immutable=1'}"


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise OSError(f"{str(path)!r} cannot be used: {error}") from error
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{str(path)!r} is damaged: {error}") from error
