"""Benchmark tables: what every architecture of a space is worth on each task, in one small file of arrays.

A table is a .npz file, read without pickle. Its members:

- ``metadata``: a string, JSON: the ``format`` (1), the ``space``, the ``tasks`` with the ``epochs`` recorded, the
  ``provenance`` (how the table was made, from what, under which licence), and the ``sha256`` of every other member.
- ``rows``: int32[product of choice counts], the row of each sequence by its `SearchSpace.index`; -1 where a sequence is
  illegal or the table does not have it. Architectures that compute the same may share a row.
- ``<task>/<name>`` for the fields of `TaskTable`.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_gym.files import replacing
from nas_gym.spaces import SearchSpace, Tokens, make_space

FORMAT = 1
SPLITS = ("valid", "test")
COSTS = ("seconds", "validation_seconds", "parameters", "flops", "latency")
ARRAYS = (*SPLITS, *COSTS)

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class TaskTable:
    """What is known of R architectures on one task, of S trainings each, after E numbers of epochs.

    Attributes:
        valid: accuracy on the validation split, float[R, S, E] in [0, 1]; NaN where a training is missing. It is
            kept as it is given; float32 is enough for any accuracy.
        test: the same on the test split.
        epochs: the E numbers of epochs, ascending; empty where they are unknown, and then E is 1.
        seconds: of one epoch of training, float[R] or float[R, S].
        validation_seconds: of the validation that follows training, once, float[R].
        parameters: number of trainable numbers, [R].
        flops: floating-point operations of one forward, [R].
        latency: seconds of one forward, [R].

    Raises:
        ValueError: shapes do not agree, accuracies are outside [0, 1], or costs are negative.
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
        epochs = tuple(int(epoch) for epoch in self.epochs)
        object.__setattr__(self, "epochs", epochs)
        if list(epochs) != sorted(set(epochs)) or (epochs and epochs[0] < 1):
            raise ValueError(f"epochs must be positive and ascending, got {epochs}")
        if self.valid.ndim != 3 or self.valid.shape[2] != max(1, len(epochs)):
            wanted = f"(rows, seeds, {max(1, len(epochs))})"
            raise ValueError(f"valid must be of shape {wanted} for epochs {epochs}, got {self.valid.shape}")
        shapes = {name: {self.valid.shape} for name in SPLITS}
        shapes |= {name: {self.valid.shape[:1]} for name in COSTS}
        shapes["seconds"].add(self.valid.shape[:2])
        for name, array in self.arrays.items():
            if array.shape not in shapes[name]:
                raise ValueError(f"{name} has shape {array.shape}, beside valid of shape {self.valid.shape}")
            if array.dtype.kind not in ("f" if name in SPLITS else "fiu"):
                raise ValueError(f"{name} must hold floats, got {array.dtype}")
            if (array < 0).any() or (name in SPLITS and (array > 1).any()):
                raise ValueError(f"{name} must be {'in [0, 1]' if name in SPLITS else 'positive'}, NaN where unknown")

    @property
    def arrays(self) -> dict[str, Array]:
        """The arrays that are there, by name."""
        return {name: getattr(self, name) for name in ARRAYS if getattr(self, name) is not None}


class Table:
    """A table in a file. Opening it reads the metadata; each array is read, and its checksum compared, when asked for.

    Args:
        path: the file.

    Attributes:
        path: the file.
        space: the search space.
        epochs: by task, the numbers of epochs after which accuracies are recorded; empty where they are unknown.
        provenance: how the table was made, from what, under which licence.

    Raises:
        ValueError: the file is no such table.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        text = str(self._member("metadata"))
        try:
            metadata = json.loads(text)
            if metadata["format"] != FORMAT:
                raise ValueError(f"its format is {metadata['format']!r}; this version reads {FORMAT}")
            self.space = make_space(metadata["space"])
            self.epochs = {task: tuple(record["epochs"]) for task, record in metadata["tasks"].items()}
            self.provenance: dict[str, Any] = metadata["provenance"]
            self._sha256: dict[str, str] = metadata["sha256"]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{self.path} has not the metadata of a table: {type(error).__name__}: {error}") from error
        self._read: dict[str, Array] = {}

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(self.epochs)

    @property
    def rows(self) -> NDArray[np.int32]:
        """int32[product of choice counts], the row of each sequence by its index, -1 where there is none."""
        return self._array("rows")

    @property
    def num_rows(self) -> int:
        """R, the number of rows."""
        return len(self._array(f"{self.tasks[0]}/valid"))

    @property
    def checksum(self) -> str:
        """SHA-256 of the checksums of all arrays: equal for tables of equal content."""
        return hashlib.sha256(json.dumps(self._sha256, sort_keys=True).encode()).hexdigest()

    def array(self, task: str, name: str) -> Array | None:
        """A field of the task's `TaskTable`, None where the table does not have it.

        Raises:
            ValueError: an unknown task, or a damaged file.
        """
        if task not in self.epochs:
            raise ValueError(f"task {task!r} is not in table {self.path}; tasks: {', '.join(self.epochs)}")
        key = f"{task}/{name}"
        return self._array(key) if key in self._sha256 else None

    def task(self, task: str) -> TaskTable:
        """All arrays of a task.

        Raises:
            ValueError: an unknown task, or a damaged file.
        """
        arrays: dict[str, Any] = {name: self.array(task, name) for name in ARRAYS}
        return TaskTable(epochs=self.epochs[task], **arrays)

    def verify(self) -> None:
        """Reads everything.

        Raises:
            ValueError: an array is damaged or missing.
        """
        for key in self._sha256:
            self._array(key)

    def _array(self, key: str) -> Array:
        if key not in self._read:
            array = self._member(key)
            if _checksum(array) != self._sha256.get(key):
                raise ValueError(f"{self.path}: array {key!r} is not what its checksum says; the file is damaged")
            array.setflags(write=False)
            self._read[key] = array
        return self._read[key]

    def _member(self, key: str) -> Array:
        with self.path.open("rb") as file:
            try:
                with zipfile.ZipFile(file) as archive:
                    array: Array = np.lib.format.read_array(io.BytesIO(archive.read(f"{key}.npy")), allow_pickle=False)
            # A damaged file may send zipfile to a place before its start, or make it believe in encryption.
            except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, ValueError, OSError, RuntimeError) as error:
                raise ValueError(f"{self.path}: array {key!r} cannot be read: {error}") from error
        return array


def save_table(
    path: str | os.PathLike[str],
    space: SearchSpace,
    rows: Array,
    tasks: Mapping[str, TaskTable],
    provenance: Mapping[str, Any],
) -> None:
    """Writes a table. The file appears whole or not at all; equal arguments give equal bytes.

    Args:
        path: the file, by custom .npz.
        space: the search space.
        rows: int32[product of choice counts], the row of each sequence by its index, -1 where there is none.
        tasks: what is known, by task; all of the same number of rows.
        provenance: how it was made, from what, under which licence, as JSON has it.

    Raises:
        ValueError: there is no task, or rows do not fit the space or the tasks.
    """
    if not tasks:
        raise ValueError("a table needs at least one task")
    counts = {name: len(task.valid) for name, task in tasks.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"the tasks of a table must have one number of rows, got {counts}")
    rows, (num_rows, *_) = np.asarray(rows, dtype=np.int32), counts.values()
    sequences = math.prod(space.choice_counts.tolist())
    if rows.shape != (sequences,) or rows.min() < -1 or rows.max() >= num_rows:
        raise ValueError(f"rows must be of shape ({sequences},), in [-1, {num_rows}); got shape {rows.shape}")
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
            member = zipfile.ZipInfo(f"{key}.npy")  # dated 1980: the same arrays are the same bytes
            archive.writestr(member, content.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)


def class_rows(
    space: SearchSpace, identity: Callable[[Tokens], Hashable] | None = None
) -> tuple[NDArray[np.int32], Tokens]:
    """One row for each class of architectures that compute the same.

    Args:
        space: the search space; all its sequences are enumerated.
        identity: int64[T] -> what is equal for the sequences of a class; by default the space's `canonical`.

    Returns:
        The row of each sequence by its index, int32[product of choice counts], -1 where illegal; and the first sequence
        of each class in the order of indices, int64[number of classes, T].
    """
    tokens = space.enumerate()
    classes: dict[Hashable, int] = {}
    if identity is None:
        identity = lambda sequence: space.canonical(space.architecture(sequence))  # noqa: E731
    found = [classes.setdefault(identity(sequence), len(classes)) for sequence in tokens]
    rows = np.full(math.prod(space.choice_counts.tolist()), -1, dtype=np.int32)
    rows[space.index(tokens)] = found
    return rows, tokens[np.unique(found, return_index=True)[1]]
