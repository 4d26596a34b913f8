"""Benchmark tables: the file format, the bundled tables, importers for other formats, and the table builder."""

from __future__ import annotations

import os
from pathlib import Path

from nas_gym.settings import did_you_mean
from nas_gym.tables.bench_graph import BENCH_GRAPH, open_bench_graph
from nas_gym.tables.table import Table, TaskTable, class_rows, save_table

BUNDLED: dict[str, str] = {"bench201-fashion-mnist": "bench201-fashion-mnist.npz"}
"""Tables that are part of the package: name, and file in the folder ``data``."""

DEFAULTS: dict[str, str] = {"bench201": "bench201-fashion-mnist", "bench_graph": BENCH_GRAPH}
"""The default table of each kind of search space (`SearchSpace.name`)."""

TABLES: tuple[str, ...] = (*BUNDLED, BENCH_GRAPH)
"""The names of all tables that can be opened without a path."""


def open_table(table: str | os.PathLike[str], task: str | None = None) -> Table:
    """Opens a table by its name (`TABLES`) or its path.

    Args:
        table: name or path.
        task: the task to look up, for names that stand for tables of several spaces (``"nas-bench-graph"``).

    Raises:
        ValueError: there is no such table, or the file is not a table.
    """
    if table == BENCH_GRAPH:
        return open_bench_graph(task)
    if table in BUNDLED:
        return Table(Path(__file__).parent / "data" / BUNDLED[str(table)])
    if not Path(table).is_file():
        raise ValueError(
            f"table {os.fspath(table)!r} is neither a file nor one of {', '.join(TABLES)}" + did_you_mean(table, TABLES)
        )
    return Table(table)


__all__ = ["BUNDLED", "DEFAULTS", "TABLES", "Table", "TaskTable", "class_rows", "open_table", "save_table"]
