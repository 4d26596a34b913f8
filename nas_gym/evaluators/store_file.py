"""The SQLite file of an evaluation store: how it is made, upgraded, opened, waited for and found to be damaged."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

logger = logging.getLogger("nas_gym")

APPLICATION = 0x4E415347  # "NASG", the application id of these SQLite files
FORMAT = 2
TIMEOUT = 600.0  # seconds to wait for other processes, by default
PATIENCE = 2.0  # seconds of waiting after which it is told

SCHEMA = f"""
CREATE TABLE evaluator (
    id INTEGER PRIMARY KEY,
    space TEXT NOT NULL,        -- SearchSpace.to_dict() as JSON
    fingerprint TEXT NOT NULL,  -- Evaluator.fingerprint() as JSON
    checksum BLOB,              -- of the columns before
    UNIQUE (space, fingerprint)
);
CREATE TABLE evaluation (
    evaluator INTEGER NOT NULL REFERENCES evaluator (id),
    tokens TEXT NOT NULL,       -- the choices, separated by spaces
    fidelity REAL NOT NULL,     -- the share of the full budget
    accuracy REAL,              -- NULL if it is NaN
    metrics TEXT NOT NULL,      -- numbers by name, as JSON; null if NaN
    reason TEXT,                -- why it failed; NULL if it did not
    checksum BLOB,              -- of the evaluator's checksum and the columns after `evaluator`
    PRIMARY KEY (evaluator, tokens, fidelity)
) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {FORMAT};
"""

UPGRADE = (  # from format 1, which has no checksums
    "ALTER TABLE evaluator ADD COLUMN checksum BLOB",
    "ALTER TABLE evaluation ADD COLUMN checksum BLOB",
    "UPDATE evaluator SET checksum = digest(id, space, fingerprint)",
    "UPDATE evaluation SET checksum = digest((SELECT checksum FROM evaluator WHERE id = evaluation.evaluator), "
    "tokens, fidelity, accuracy, metrics, reason)",
    f"PRAGMA user_version = {FORMAT}",
)

ADVICE = {
    sqlite3.SQLITE_CORRUPT: "it is damaged; restore a copy, or move it away to begin a new one",
    sqlite3.SQLITE_NOTADB: "it is damaged or not an evaluation store; restore a copy, or choose another file",
    sqlite3.SQLITE_FULL: "the disk is full; free some space and start again: what was stored before is kept",
    sqlite3.SQLITE_CANTOPEN: "check the path, and the permissions of the file and its folder",
    sqlite3.SQLITE_READONLY: "it cannot be written; check the permissions of the file and its folder",
    sqlite3.SQLITE_IOERR: "the disk or file system failed; WAL mode needs a local one",
}

T = TypeVar("T")


def digest(*values: Any) -> bytes:
    """The checksum of the columns of a row. SQLite keeps no sign of zero, so that neither does this."""
    plain = [value + 0.0 if isinstance(value, float) else value for value in values]
    return hashlib.blake2b(repr(plain).encode(), digest_size=8).digest()


class StoreFile:
    """The file of a store, with a connection for each thread and process.

    Args:
        path: the file; created, with its folder, if it does not exist.
        timeout: seconds to wait while other processes have the file locked.

    Attributes:
        path: the file.
        timeout: see above.
        read_only: whether it has turned out that the file cannot be written.

    Raises:
        ValueError: the file is not an evaluation store, is damaged, or has a later format.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self.path, self.timeout, self.read_only = path, timeout, False
        self._local = threading.local()
        try:
            if not path.exists():
                self._create()
            self._identity = self._found()
        except (OSError, sqlite3.Error) as error:
            raise ValueError(f"store {str(path)!r} cannot be made: {error}") from error
        self.run(lambda connection: None)  # raises if the file is not a store

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

    # ------------------------------------------------------------------ use

    def run(self, action: Callable[[sqlite3.Connection], T]) -> T:
        """Calls `action` with this thread's connection, and again while another process has the file locked.

        Raises:
            ValueError: the file stays locked, is damaged, was deleted, or SQLite finds something else wrong with it.
        """
        start, told = time.monotonic(), False
        while True:
            try:
                result = action(self._connection())
                self._check_identity()
                return result
            except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter of a damaged text, or message
                self._check_identity()
                if _code(error) != sqlite3.SQLITE_BUSY:
                    raise ValueError(f"store {str(self.path)!r}: {error}; {self._advice(error)}") from error
                if time.monotonic() - start >= self.timeout:
                    raise ValueError(
                        f"store {str(self.path)!r} is still locked by {self._holders()} after {self.timeout:g} s; wait "
                        "for it or end it, or give a longer timeout (store_timeout of a run)"
                    ) from error
                if not told:
                    told = True
                    logger.warning(
                        "store %s is locked by %s; waiting for it, up to %g s",
                        self.path,
                        self._holders(),
                        self.timeout,
                    )

    def write(self, action: Callable[[sqlite3.Connection], object]) -> bool:
        """As `run`, in a transaction, which is rolled back if something is raised.

        Returns:
            Whether it was written: a file that cannot be is read on, which is logged once.
        """

        def transaction(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            with connection:  # commits, or rolls back
                action(connection)

        if self.read_only:
            return False
        try:
            self.run(transaction)
        except ValueError as error:
            if not isinstance(error.__cause__, sqlite3.Error) or _code(error.__cause__) != sqlite3.SQLITE_READONLY:
                raise
            self._tell_read_only()
            return False
        return True

    def close(self) -> None:
        """Closes this thread's connection; it is reopened when needed."""
        connection = self._local.__dict__.get("connections", {}).pop(os.getpid(), None)
        if connection is not None:
            connection.close()

    # ------------------------------------------------------------------ connections

    def _connection(self) -> sqlite3.Connection:
        """One connection per thread and process. A connection inherited by a fork must be neither used nor closed."""
        connections: dict[int, sqlite3.Connection] = self._local.__dict__.setdefault("connections", {})
        if os.getpid() not in connections:
            connections[os.getpid()] = self._opened()
        return connections[os.getpid()]

    def _opened(self) -> sqlite3.Connection:
        self._check_identity()
        try:
            return self._checked("mode=rw")  # never create: a deleted store must not be recreated without its tables
        except sqlite3.Error as error:
            if _code(error) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                raise
        # In a folder without write permission, a file in WAL mode can only be read as one that nobody changes.
        connection = self._checked("mode=ro&immutable=1")
        self._tell_read_only()
        return connection

    def _checked(self, mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?{mode}", uri=True, timeout=min(PATIENCE, self.timeout)
        )
        connection.isolation_level = None  # transactions are started explicitly
        try:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if application != APPLICATION:
                raise ValueError(f"{str(self.path)!r} is not an evaluation store; choose another file")
            if not 1 <= version <= FORMAT:
                raise ValueError(
                    f"{str(self.path)!r} is of format {version}; this version reads stores of format 1 to {FORMAT}"
                )
            connection.execute("PRAGMA synchronous = NORMAL")
            if version < FORMAT:
                self._upgrade(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _upgrade(self, connection: sqlite3.Connection) -> None:
        """Gives the rows of a file of format 1 checksums, in one transaction: all of them, or the file stays."""
        connection.create_function("digest", -1, digest, deterministic=True)
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if _code(error) != sqlite3.SQLITE_READONLY:
                raise
            raise ValueError(
                f"{str(self.path)!r} is of format 1 and must be upgraded, but cannot be written; make it and its "
                "folder writable, or use a copy"
            ) from error
        with connection:
            if connection.execute("PRAGMA user_version").fetchone() != (FORMAT,):  # another process was first
                for statement in UPGRADE:
                    connection.execute(statement)

    # ------------------------------------------------------------------ what is wrong

    def _found(self) -> tuple[int, int]:
        found = self.path.stat()
        return found.st_dev, found.st_ino

    def _check_identity(self) -> None:
        """An open file outlives its name: SQLite would go on writing into what nobody will find."""
        try:
            identity = self._found()
        except OSError as error:
            raise ValueError(
                f"store {str(self.path)!r} was deleted or moved while open: {error}; restore it"
            ) from error
        if identity != self._identity:
            raise ValueError(f"store {str(self.path)!r} was replaced by another file while open; start again to use it")

    def _tell_read_only(self) -> None:
        if not self.read_only:
            self.read_only = True
            logger.warning("store %s cannot be written: it is read, but new evaluations are not kept", self.path)

    def _advice(self, error: Exception) -> str:
        return ADVICE.get(_code(error), "it may be damaged; restore a copy, or move it away to begin a new one")

    def _holders(self) -> str:
        """The processes that hold locks of the file, where the system tells."""
        inodes = {
            str(path.stat().st_ino) for path in (self.path, Path(f"{self.path}-shm"), Path(f"{self.path}-wal"))
            if path.exists()
        }  # fmt: skip
        try:
            locks = [line.replace("-> ", "").split() for line in Path("/proc/locks").read_text().splitlines()]
        except OSError:
            locks = []
        held = {
            lock[4] for lock in locks if len(lock) > 5 and lock[3] == "WRITE" and lock[5].split(":")[-1] in inodes
        } - {str(os.getpid())}
        return f"process {', '.join(sorted(held))}" if held else "another process"


def _code(error: Exception) -> int:
    """The primary code of SQLite's error; that of a general error if it comes from Python's module."""
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF
