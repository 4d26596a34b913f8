"""Benchmark tables: the accuracy of every architecture of a space on each task, in one small file of arrays.

A table is a .npz file, read without pickle. Its members are:

- ``metadata``: a JSON string with the ``format`` (1), the ``space``, the ``tasks`` with their recorded ``epochs``, the
  ``provenance`` (how and from what the table was made, and its licence), and the ``sha256`` of every other member.
- ``rows``: int32[product of choice counts], the row of each sequence by its `SearchSpace.index`; -1 if a sequence is
  illegal or not in the table. Architectures that compute the same function may share a row.
- ``<task>/<name>`` for the fields of `TaskTable`.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import zipfile
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_gym.files import replacing
from nas_gym.notebook import facts, table
from nas_gym.spaces import SearchSpace, Tokens, saved_space
from nas_gym.tables.checks import ARRAYS, Array, check_array, check_epochs, check_rows

FORMAT = 1
MEMBER_BYTES = 2**30
"""The largest array that is read from a file: a small file may claim to hold far more than memory does."""


@dataclass(frozen=True, kw_only=True)
class TaskTable:
    """The data of R architectures on one task, with S trainings each, after E numbers of epochs.

    Attributes:
        valid: accuracy on the validation split, float[R, S, E] in [0, 1]; NaN for missing trainings. The data type is
            kept; float32 is enough for any accuracy.
        test: the same on the test split.
        epochs: the E numbers of epochs, ascending; empty if unknown, in which case E is 1.
        seconds: seconds per epoch of training, float[R] or float[R, S].
        validation_seconds: seconds of the validation after training, float[R].
        parameters: number of trainable parameters, [R].
        flops: floating-point operations of one forward pass, [R].
        latency: seconds of one forward pass, [R].

    Raises:
        ValueError: shapes do not match, accuracies are outside [0, 1], costs are negative or infinite, or seconds are
            unknown where an accuracy is known.
    """

    valid: Array
    test: Array | None = None
    epochs: tuple[int, ...] = ()
    seconds: Array | None = None
    validation_seconds: Array | None = None
    parameters: Array | None = None
    flops: Array | None = None
    latency: Array | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "epochs", tuple(int(epoch) for epoch in self.epochs))
        check_epochs(self.epochs)
        for name, array in self.arrays.items():
            check_array(name, array, self.epochs, self.valid)

    @property
    def arrays(self) -> dict[str, Array]:
        """The arrays that are not None, by name."""
        return {name: getattr(self, name) for name in ARRAYS if getattr(self, name) is not None}


class Table:
    """A table in a file. Opening it reads the metadata; each array is read and checked in full on first use.

    Checked are the checksum and every number (see `TaskTable`). An array is decompressed and hashed as a whole anyway,
    which takes longer than to look at its numbers.

    Args:
        path: the file.

    Attributes:
        path: the file.
        space: the search space.
        epochs: for each task, the numbers of epochs after which accuracies are recorded; empty if unknown.
        provenance: how and from what the table was made, and its licence.

    Raises:
        ValueError: the file is not a table. So do all methods if an array is damaged or holds what no table may.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        text = str(self._member("metadata"))
        try:
            metadata = json.loads(text)
            if metadata["format"] != FORMAT:
                raise ValueError(f"its format is {metadata['format']!r}; this version reads {FORMAT}")
            self.space = saved_space(metadata["space"])
            self._sequences = math.prod(self.space.choice_counts.tolist())
            self.epochs = {task: tuple(record["epochs"]) for task, record in metadata["tasks"].items()}
            self.provenance: dict[str, Any] = dict(metadata["provenance"])
            self._sha256: dict[str, str] = dict(metadata["sha256"])
            self._check_names()
        except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise ValueError(f"{self.path} lacks the metadata of a table: {type(error).__name__}: {error}") from error
        self._read: dict[str, Array] = {}

    def _repr_html_(self) -> str:
        """What is in it, for Jupyter."""
        about = facts(self.path.stem, {"space": self.space.name, "rows": self.num_rows})
        arrays = [[name for name in ARRAYS if f"{task}/{name}" in self._sha256] for task in self.tasks]
        rows = [
            (task, ", ".join(map(str, self.epochs[task])), ", ".join(names))
            for task, names in zip(self.tasks, arrays, strict=True)
        ]
        return about + table(("task", "epochs", "arrays"), rows)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(self.epochs)

    @property
    def rows(self) -> NDArray[np.int32]:
        """int32[product of choice counts], the row of each sequence by its index, -1 if there is none."""
        return self._array("rows")

    @property
    def num_rows(self) -> int:
        """R, the number of rows."""
        return len(self._array(f"{self.tasks[0]}/valid"))

    @property
    def checksum(self) -> str:
        """SHA-256 of the checksums of all arrays, equal for tables with equal content."""
        return hashlib.sha256(json.dumps(self._sha256, sort_keys=True).encode()).hexdigest()

    def array(self, task: str, name: str) -> Array | None:
        """A field of the task's `TaskTable`; None if the table does not have it.

        Raises:
            ValueError: the task is unknown, or the file is damaged.
        """
        if task not in self.epochs:
            raise ValueError(f"task {task!r} is not in table {self.path}; tasks: {', '.join(self.epochs)}")
        key = f"{task}/{name}"
        return self._array(key) if key in self._sha256 else None

    def task(self, task: str) -> TaskTable:
        """All arrays of a task.

        Raises:
            ValueError: the task is unknown, or the file is damaged.
        """
        arrays: dict[str, Any] = {name: self.array(task, name) for name in ARRAYS}
        return TaskTable(epochs=self.epochs[task], **arrays)

    def verify(self) -> None:
        """Reads all arrays and verifies their checksums.

        Raises:
            ValueError: an array is damaged or missing.
        """
        for key in self._sha256:
            self._array(key)

    def _array(self, key: str) -> Array:
        if key not in self._read:
            array = self._member(key)
            if _checksum(array) != self._sha256.get(key):
                raise ValueError(f"{self.path}: array {key!r} does not match its checksum; the file is damaged")
            self._check(key, array)
            array.setflags(write=False)
            self._read[key] = array
        return self._read[key]

    def _check_names(self) -> None:
        """Whether the metadata name epochs and arrays that a table may have."""
        if not self.epochs:
            raise ValueError("it names no task")
        for epochs in self.epochs.values():
            check_epochs(epochs)
        needed = {"rows", *(f"{task}/valid" for task in self.epochs)}
        known = {"rows", *(f"{task}/{name}" for task in self.epochs for name in ARRAYS)}
        if lacking := sorted(needed - set(self._sha256)):
            raise ValueError(f"it has no array {lacking[0]!r}")
        if unknown := sorted(set(self._sha256) - known):
            raise ValueError(f"it has an array {unknown[0]!r}, which no table has")

    def _check(self, key: str, array: Array) -> None:
        """Whether the numbers make sense: whoever wrote them can have written the right checksum."""
        task, _, name = key.rpartition("/")
        first = f"{self.tasks[0]}/valid"
        num_rows = None if key == first else self.num_rows
        valid = array if name in ("rows", "valid") else self._array(f"{task}/valid")
        try:
            if key == "rows":
                check_rows(array, self._sequences, self.num_rows)
                return
            check_array(name, array, self.epochs[task], valid)
            if num_rows not in (None, len(array)):
                raise ValueError(f"it has {len(array)} rows, {first!r} has {num_rows}")
        except ValueError as error:
            raise ValueError(f"{self.path}: array {key!r} is not one of a table: {error}") from error

    def _member(self, key: str) -> Array:
        with self.path.open("rb") as file:
            try:
                with zipfile.ZipFile(file) as archive:
                    member = archive.getinfo(f"{key}.npy")
                    if member.file_size > MEMBER_BYTES:
                        raise ValueError(f"it is of {member.file_size:,} bytes; up to {MEMBER_BYTES:,} are read")
                    array: Array = np.lib.format.read_array(io.BytesIO(archive.read(member)), allow_pickle=False)
            except Exception as error:  # whatever zipfile, the decompressors and numpy make of damaged bytes
                raise ValueError(f"{self.path}: array {key!r} cannot be read: {error}") from error
        return array


def save_table(
    path: str | os.PathLike[str],
    space: SearchSpace,
    rows: Array,
    tasks: Mapping[str, TaskTable],
    provenance: Mapping[str, Any],
) -> None:
    """Writes a table atomically; equal arguments give equal bytes.

    Args:
        path: the file, conventionally with the suffix .npz.
        space: the search space.
        rows: int32[product of choice counts], the row of each sequence by its index, -1 if there is none.
        tasks: the data of each task, all with the same number of rows.
        provenance: how and from what the table was made, and its licence, as JSON-serialisable values.

    Raises:
        ValueError: there is no task, or the rows do not match the space or the tasks.
    """
    if not tasks:
        raise ValueError("a table needs at least one task")
    counts = {name: len(task.valid) for name, task in tasks.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"the tasks of a table must have the same number of rows, got {counts}")
    rows, (num_rows, *_) = np.asarray(rows, dtype=np.int32), counts.values()
    sequences = math.prod(space.choice_counts.tolist())
    check_rows(rows, sequences, num_rows)
    arrays = {"rows": rows} | {f"{name}/{key}": a for name, task in tasks.items() for key, a in task.arrays.items()}
    arrays = {key: np.ascontiguousarray(a, dtype=a.dtype.newbyteorder("<")) for key, a in arrays.items()}
    metadata = {
        "format": FORMAT,
        "space": space.to_dict(),
        "tasks": {name: {"epochs": task.epochs} for name, task in tasks.items()},
        "provenance": dict(provenance),
        "sha256": {key: _checksum(array) for key, array in arrays.items()},
    }
    _write(Path(path), {"metadata": np.array(json.dumps(metadata)), **arrays})


def _checksum(array: Array) -> str:
    described = f"{array.dtype.str} {array.shape} ".encode()
    return hashlib.sha256(described + array.tobytes()).hexdigest()


def _write(path: Path, arrays: Mapping[str, Array]) -> None:
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for key, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            member = zipfile.ZipInfo(f"{key}.npy")  # dated 1980, so that equal arrays give equal bytes
            archive.writestr(member, content.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)


def class_rows(
    space: SearchSpace, identity: Callable[[Tokens], Hashable] | None = None
) -> tuple[NDArray[np.int32], Tokens]:
    """Assigns one row to each class of architectures that compute the same function.

    Args:
        space: the search space; all its sequences are enumerated.
        identity: maps int64[T] to a key that is equal within a class; by default the space's `canonical`.

    Returns:
        The row of each sequence by its index, int32[product of choice counts], -1 if illegal; and the first sequence of
        each class by index, int64[number of classes, T].
    """
    tokens = space.enumerate()
    classes: dict[Hashable, int] = {}
    if identity is None:
        identity = lambda sequence: space.canonical(space.architecture(sequence))  # noqa: E731
    found = [classes.setdefault(identity(sequence), len(classes)) for sequence in tokens]
    rows = np.full(math.prod(space.choice_counts.tolist()), -1, dtype=np.int32)
    rows[space.index(tokens)] = found
    return rows, tokens[np.unique(found, return_index=True)[1]]
