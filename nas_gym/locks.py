"""A folder has one writer at a time."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
import weakref
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

LOCK = "lock.json"
HEARTBEAT = 5.0  # seconds between two signs of life


class FolderLockedError(ValueError):
    """Another process is writing to the folder."""


class FolderLock:
    """Gives one process the right to write to a folder, for as long as a ``with`` block runs.

    The kernel holds the lock, by `flock`, and frees it when the process ends, however it ends. Its file says which
    process on which machine has it, and that process touches the file every `HEARTBEAT` seconds: on a file system that
    several machines share without sharing the kernel's locks, a file that is touched belongs to a process that lives,
    and one that is not was left behind.

    Args:
        folder: the folder; made if it does not exist.

    Raises:
        FolderLockedError: on entering, when another process, or another lock of this one, has the folder.
    """

    _held: ClassVar[weakref.WeakSet[FolderLock]] = weakref.WeakSet()

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = Path(folder), Path(folder) / LOCK
        self._file: int | None = None
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            locked = _lock(file)
            holder = _read(file)
            if not locked or (holder and holder.get("machine") != machine() and _is_touched(file)):
                raise FolderLockedError(_in_use(self.folder, holder))
            _write(file, {"process": os.getpid(), "machine": machine(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"})
        except BaseException:
            os.close(file)
            raise
        self._file = file
        self._held.add(self)
        threading.Thread(target=self._beat, args=(file,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        file, self._file = self._file, None
        if file is not None:
            _write(file, {})
            _unlock(file)
            os.close(file)

    def _beat(self, file: int) -> None:
        while not self._ended.wait(HEARTBEAT):
            os.utime(file)

    @classmethod
    def _close_in_child(cls) -> None:
        """A forked process must not keep the lock when this one ends."""
        for lock in cls._held:
            if lock._file is not None:
                os.close(lock._file)
                lock._file = None


os.register_at_fork(after_in_child=FolderLock._close_in_child)


def is_in_use(folder: Path) -> bool:
    """Whether a process is writing to a folder, or was within a minute if it was killed; this only looks."""
    try:
        found = (folder / LOCK).stat()
    except FileNotFoundError:
        return False
    return found.st_size > len("{}") and time.time() - found.st_mtime < 60


def machine() -> str:
    """The name of this machine."""
    return platform.node()


def _lock(file: int) -> bool:
    """Whether the kernel gives the lock, or has none for this file system."""
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks on this file system: what is left is the heartbeat
        holder = _read(file)
        return not (holder and _is_touched(file))
    return True


def _unlock(file: int) -> None:
    """Frees the lock, though a forked process may still have the file open."""
    import fcntl

    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_UN)


def _is_touched(file: int) -> bool:
    """Whether somebody touches the file: watched, since the clocks of two machines may differ."""
    first = os.fstat(file).st_mtime_ns
    end = time.monotonic() + 2 * HEARTBEAT + 1
    while time.monotonic() < end:
        time.sleep(HEARTBEAT / 10)
        if os.fstat(file).st_mtime_ns != first:
            return True
    return False


def _read(file: int) -> dict[str, Any]:
    try:
        holder = json.loads(os.pread(file, 4096, 0) or b"{}")
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _write(file: int, holder: dict[str, Any]) -> None:
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(holder).encode(), 0)


def _in_use(folder: Path, holder: dict[str, Any]) -> str:
    known = {"process": "unknown", "machine": "unknown", "since": "an unknown time", **holder}
    return (
        f"{str(folder)!r} is in use: process {known['process']} on machine {known['machine']} has been writing to it "
        f"since {known['since']}; wait until it ends, or stop it"
    )
