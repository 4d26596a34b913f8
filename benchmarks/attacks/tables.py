"""Damaged and hostile tables: is a wrong number ever played, and does every error name the file?"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.attacks.outcome import Attack, Outcome
from benchmarks.attacks.trial import count, cut, flip_bit
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.spaces import Bench201Space
from nas_gym.tables import TaskTable, open_table, save_table
from nas_gym.tables.table import _checksum

SPACE = Bench201Space(nodes=3, operations=("none", "skip_connect", "nor_conv_3x3"))  # 27 sequences
TASKS = ("curves", "plain")
CHANGES = dict[str, Any]


def save_small(path: Path) -> None:
    """Writes a table of two tasks, one of them with every array that a table can have."""
    rng = np.random.default_rng(0)
    valid = rng.random((27, 2, 3)).astype(np.float32)
    valid[3, 1] = np.nan
    curves = TaskTable(
        valid=valid,
        test=rng.random((27, 2, 3)).astype(np.float32),
        epochs=(1, 4, 12),
        seconds=rng.random((27, 2)),
        validation_seconds=rng.random(27),
        parameters=rng.integers(1, 1000, 27),
        flops=rng.random(27) * 1e9,
        latency=rng.random(27),
    )
    rows = np.arange(27)
    rows[5] = -1
    save_table(path, SPACE, rows, dict(zip(TASKS, (curves, TaskTable(valid=valid[:, :, :1])), strict=True)), {})


def play(path: Path) -> list[Any]:
    """All that a table answers, as plain values: every task, architecture and epoch, by the mean and by a seed."""
    table, tokens = open_table(path), SPACE.enumerate()
    answers: list[Any] = [table.tasks]
    for task in table.tasks:
        for noise in ("mean", "seed"):
            evaluator = TabularEvaluator(SPACE, table=table, task=task, noise=noise)
            for fidelity in evaluator.fidelities or (None,):
                found = evaluator.evaluate(tokens, fidelity=fidelity)
                answers.append([column.tobytes() for column in found.columns().values()])
        answers.append(evaluator.reference())
        if table.array(task, "test") is not None:
            answers.append(evaluator.test(tokens).tobytes())
    return answers


def damaged(change: Callable[[bytes, np.random.Generator], tuple[bytes, str]], attack: str, tries: int) -> Attack:
    """Reads tables of which `change` has damaged the bytes."""

    def run(folder: Path, rng: np.random.Generator) -> Outcome:
        path, outcome = folder / "small.npz", Outcome(attack)
        save_small(path)
        expected, data = play(path), path.read_bytes()
        for _ in range(tries):
            content, what = change(data, rng)
            path.write_bytes(content)
            count(outcome, what, lambda: play(path), path.name, expected)
        return outcome

    return run


def flips(folder: Path, rng: np.random.Generator, *, tries: int = 300) -> Outcome:
    """Flips one bit anywhere in the file."""
    return damaged(flip_bit, "table: one bit flipped", tries)(folder, rng)


def truncations(folder: Path, rng: np.random.Generator, *, tries: int = 100) -> Outcome:
    """Cuts the file off."""
    return damaged(cut, "table: cut off", tries)(folder, rng)


# ------------------------------------------------------------------ content that makes no sense


def members(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The metadata and the arrays of a table."""
    with np.load(path) as content:
        arrays = {key: content[key] for key in content.files}
    return json.loads(str(arrays.pop("metadata"))), arrays


def rewrite(path: Path, metadata: Any, arrays: dict[str, np.ndarray]) -> None:
    """Writes a table as somebody does who knows the format: with the right checksums."""
    if isinstance(metadata, dict):
        metadata["sha256"] = {key: _checksum(array) for key, array in arrays.items()} | metadata.get("more", {})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, array in {"metadata": np.array(json.dumps(metadata)), **arrays}.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=True)
            archive.writestr(f"{key}.npy", content.getvalue())


def overwrite_shape(path: Path) -> None:
    """Has the header of one array claim far more numbers than there are."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    header = io.BytesIO()
    described = {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
    np.lib.format.write_array_header_1_0(header, described)
    contents["curves/latency.npy"] = header.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)


def put(array: np.ndarray, value: float) -> np.ndarray:
    """The array with another first number."""
    changed = array.copy()
    changed.flat[0] = value
    return changed


def hostile_arrays(arrays: dict[str, np.ndarray]) -> Iterator[tuple[str, CHANGES]]:
    """Arrays with numbers, shapes and types that no table may have, each with the others as they are."""
    rows, valid, plain = arrays["rows"], arrays["curves/valid"], arrays["plain/valid"]
    for key in ("curves/valid", "curves/test", "plain/valid"):
        for value in (5.0, -3.0, np.inf, -np.inf):
            yield f"{key} holds {value}", {key: put(arrays[key], value)}
    for value in (-5, 27, 2**31 - 1, -(2**31)):
        yield f"rows holds {value}", {"rows": put(rows, value)}
    yield "rows of another length", {"rows": rows[:-1]}
    yield "rows of two dimensions", {"rows": rows[None]}
    yield "rows of floats", {"rows": rows.astype(np.float64)}
    yield "rows of texts", {"rows": rows.astype(str)}
    yield "no sequence has a row", {"rows": np.full_like(rows, -1)}
    yield "valid lacks a column", {"curves/valid": valid[:, :, :2]}
    yield "valid lacks rows", {"curves/valid": valid[:9]}
    yield "one task lacks rows", {"plain/valid": plain[:9]}
    yield "valid has no seeds", {"curves/valid": valid[:, :0]}
    yield "valid has no rows", {"curves/valid": valid[:0], "plain/valid": plain[:0]}
    yield "valid is a number", {"curves/valid": np.float32(0.5)}
    yield "valid of integers", {"curves/valid": np.ones((27, 2, 3), dtype=np.int64)}
    yield "valid of complex numbers", {"curves/valid": valid.astype(np.complex64)}
    yield "valid of texts", {"plain/valid": np.full((27, 2, 1), "0.5")}
    yield "valid is NaN alone", {"curves/valid": np.full_like(valid, np.nan)}
    yield "test lacks a column", {"curves/test": arrays["curves/test"][:, :, :2]}
    for name in ("seconds", "validation_seconds", "parameters", "flops", "latency"):
        key = f"curves/{name}"
        yield f"{name} is negative", {key: put(arrays[key], -1)}
        yield f"{name} lacks rows", {key: arrays[key][:9]}
        yield f"{name} is infinite", {key: put(arrays[key].astype(np.float64), np.inf)}
        yield f"{name} of texts", {key: arrays[key].astype(str)}
    yield "seconds are NaN", {"curves/seconds": np.full((27, 2), np.nan)}
    yield "validation_seconds are NaN", {"curves/validation_seconds": np.full(27, np.nan)}


def hostile_metadata() -> Iterator[tuple[str, CHANGES]]:
    """Metadata that no table may have, each with the rest as it is."""
    for epochs in ([0, 4, 12], [-1, 4, 12], [12, 4, 1], [1, 1, 1], [1, 4], [1.5, 4, 12], ["1", "4", "12"], 3, None):
        yield f"epochs {epochs}", {"tasks": {"curves": {"epochs": epochs}, "plain": {"epochs": []}}}
    yield "an epoch of 400 digits", {"tasks": {"curves": {"epochs": [1, 4, 10**400]}, "plain": {"epochs": []}}}
    yield "no tasks", {"tasks": {}}
    yield "tasks in a list", {"tasks": ["curves", "plain"]}
    yield "a task without arrays", {"tasks": {"curves": {"epochs": [1, 4, 12]}, "absent": {"epochs": []}}}
    yield "another space", {"space": "bench201"}
    yield "operations that are a number", {"space": {**SPACE.to_dict(), "operations": 5}}
    yield "no space", {"space": None}
    yield "an array that no table has", {"more": {"curves/pictures": "0"}}
    yield "another format", {"format": 2}


def hostile(folder: Path, rng: np.random.Generator) -> Outcome:
    """Tables with the right checksums whose content makes no sense; all are to be refused."""
    del rng
    path, outcome = folder / "small.npz", Outcome("table: right checksums, senseless content")
    save_small(path)
    metadata, arrays = members(path)
    for what, change in hostile_arrays(arrays):
        rewrite(path, dict(metadata), {**arrays, **change})
        count(outcome, what, lambda: play(path), path.name)
    for what, change in hostile_metadata():
        rewrite(path, {**metadata, **change}, arrays)
        count(outcome, what, lambda: play(path), path.name)
    rewrite(path, ["metadata"], arrays)
    count(outcome, "metadata in a list", lambda: play(path), path.name)
    rewrite(path, dict(metadata), {**arrays, "curves/valid": np.array([print], dtype=object)})
    count(outcome, "a pickle", lambda: play(path), path.name)
    rewrite(path, dict(metadata), arrays)
    overwrite_shape(path)
    count(outcome, "an array that claims 8 TB", lambda: play(path), path.name)
    return outcome


ATTACKS: list[Attack] = [flips, truncations, hostile]
