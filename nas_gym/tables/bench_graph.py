"""NAS-Bench-Graph (Qin et al. 2022): converts the tables of the package nas-bench-graph, one table per space."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections import Counter
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_gym.pickles import read_plain_dict
from nas_gym.spaces import BenchGraphSpace, Tokens
from nas_gym.spaces.bench_graph import OPERATIONS, PROTEINS_OPERATIONS, SKIP_WORD
from nas_gym.tables.table import FORMAT, Table, TaskTable, class_rows, save_table

BENCH_GRAPH = "nas-bench-graph"
PACKAGE = "nas_bench_graph"
TASKS = ("cora", "citeseer", "pubmed", "cs", "physics", "photo", "computers", "arxiv")
PROTEINS = "proteins"  # has its own space, with five operations


def open_bench_graph(task: str | None = None) -> Table:
    """Opens the table of `task`: that of proteins, or that of the eight other tasks (the default).

    The first call reads the package's pickles, restricted to plain data, and caches the converted table in the folder
    given by the environment variable NAS_GYM_CACHE, or in ~/.cache/nas_gym.

    Raises:
        ValueError: the task is unknown, the package is not installed, or its files are not as expected.
    """
    if task not in (None, *TASKS, PROTEINS):
        raise ValueError(f"task {task!r} is not in NAS-Bench-Graph; tasks: {', '.join((*TASKS, PROTEINS))}")
    try:
        version = importlib.metadata.version(BENCH_GRAPH)
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(f"the table {BENCH_GRAPH!r} needs the package: pip install {BENCH_GRAPH}") from None
    part = PROTEINS if task == PROTEINS else "all"
    path = cache_folder() / f"{BENCH_GRAPH}-{version}-{part}-{FORMAT}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        convert(path, version, *((PROTEINS_OPERATIONS, (PROTEINS,)) if task == PROTEINS else (OPERATIONS, TASKS)))
    return Table(path)


def cache_folder() -> Path:
    """The folder of converted tables."""
    return Path(os.environ.get("NAS_GYM_CACHE") or Path.home() / ".cache" / "nas_gym")


def convert(path: Path, version: str, operations: tuple[str, ...], tasks: tuple[str, ...]) -> None:
    """Writes the table of the tasks whose space has these operations."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0]) / "light"
    space = BenchGraphSpace(operations=operations)
    rows, classes = class_rows(space, lambda sequence: identity(space, sequence))
    read = {}
    for task in tasks:
        bench = folder / f"{task}.bench"
        read[task] = _task_table(bench, read_plain_dict(bench, "a NAS-Bench-Graph table"), space, rows, len(classes))
    provenance = {
        "name": f"NAS-Bench-Graph, {'proteins' if tasks == (PROTEINS,) else 'all tasks but proteins'}",
        "source": f"Python package {BENCH_GRAPH} {version}; Qin et al. 2022, https://arxiv.org/abs/2206.09166",
        "licence": "Apache-2.0",
        "contents": "Means over three seeds; accuracies, and of proteins ROC-AUC.",
    }
    save_table(path, space, rows, read, provenance)


def identity(space: BenchGraphSpace, sequence: Tokens) -> Hashable:
    """A key that is equal for sequences with the same `Arch.valid_hash` in the benchmark; like `canonical`, but fast.

    The operations form a tree: each node has its name, how often the output reads it, and the operations that read it.
    """
    network = space.decode(sequence)
    value = [0]  # the node whose output each node passes on: itself, or through skips an earlier node or the input
    for node, (source, operation) in enumerate(zip(network.links, network.operations, strict=True), start=1):
        value.append(value[source] if operation == SKIP_WORD else node)
    outputs = Counter(value[end] for end in range(1, space.nodes + 1) if end not in network.links)
    readers: list[list[Any]] = [[] for _ in value]
    for node in range(space.nodes, 0, -1):
        if value[node] == node:
            tree = (network.operations[node - 1], outputs[node], tuple(sorted(readers[node])))
            readers[value[network.links[node - 1]]].append(tree)
    return tuple(sorted(readers[0]))


def _task_table(
    path: Path,
    records: Mapping[int, Mapping[str, float]],
    space: BenchGraphSpace,
    rows: NDArray[np.int32],
    num_rows: int,
) -> TaskTable:
    """Arranges a file's records, keyed by hash, in rows.

    A hash has five decimal digits: the link list, and for each node the index of its operation in the full list.
    """
    names = ("valid_perf", "perf", "latency", "para")
    try:
        digits = np.array([[key // 10**place % 10 for place in range(4, -1, -1)] for key in records])
        columns = np.array([[record[name] for name in names] for record in records.values()], dtype=np.float64)
        place = np.array([space.operations.index(name) if name in space.operations else -1 for name in OPERATIONS])
        tokens = np.concatenate([digits[:, :1], place[digits[:, 1:]]], axis=1)
        space.check(tokens)
        order = rows[space.index(tokens)]
        if len(order) != num_rows or not np.array_equal(np.sort(order), np.arange(num_rows)):
            raise ValueError(f"it has {len(order)} architectures; {num_rows} different ones are expected")
        valid, test, latency, millions = columns[np.argsort(order)].T
        return TaskTable(
            valid=valid[:, None, None],
            test=test[:, None, None],
            parameters=np.rint(millions * 1e6).astype(np.int64),
            latency=latency,
        )
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a NAS-Bench-Graph table: {error}") from error
