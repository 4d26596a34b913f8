"""Opening time, memory and look-ups per second of benchmark tables, beside the package nats_bench on the same data.

    python benchmarks/table.py [table.npz ...] [--nats-bench NATS-tss-v1_0-3ffb9-simple]

Each table, by default those that need no path, is opened in a process of its own, on a task of it: opening counts until
the first architecture is answered, memory is what the process has grown by then and after a million look-ups. With
`--nats-bench`, a folder of the topology space, whole or in part, is imported; the package answers the same
architectures, and all answers are compared. Its first look-up reads a file, warm ones find the architecture in memory.
The package, which nothing else needs, comes with `pip install -e ".[nats-bench]"`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.tables import TABLES, open_table
from nas_gym.tables.nats_bench import import_nats_bench

BATCHES = (1, 1_000, 10_000, 100_000)


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def seconds(call: Callable[[], object], least: float = 0.3) -> float:
    """The fastest of repeated calls."""
    fastest, end = float("inf"), time.perf_counter() + least
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        fastest = min(fastest, time.perf_counter() - start)
    return fastest


def measure(name: str, task: str) -> None:
    """Prints a line for one task of one table."""
    space = open_table(name, task).space  # a first call may convert a package's files into the cache
    tokens = space.sample(np.random.default_rng(0), max(BATCHES))
    before, start = resident(), time.perf_counter()
    evaluator = TabularEvaluator(space, table=name, task=task)
    evaluator.evaluate(tokens[:1])
    opening, grown = time.perf_counter() - start, resident() - before
    rates = [batch / seconds(lambda n=batch: evaluator.evaluate(tokens[:n])) / 1e6 for batch in BATCHES]  # type: ignore[misc]
    most = resident() - before
    shown = "".join(f"{rate:10.2f}" for rate in rates)
    print(f"{name[-28:]:30}{task:16}{1e3 * opening:8.1f}{grown / 2**20:8.1f}{most / 2**20:8.1f}{shown}", flush=True)


def compare(folder: Path) -> None:
    """Prints the look-ups per second of the package nats_bench and of a table imported from the same folder."""
    from nats_bench import create

    api = create(str(folder), "tss", fast_mode=True, verbose=False)
    with tempfile.TemporaryDirectory() as scratch:
        table = import_nats_bench(folder, Path(scratch) / "table.npz", partial=True)
        evaluator = TabularEvaluator(table.space, table=table, task="cifar100", epochs=12)
        known = table.space.enumerate()
        known = known[table.rows[table.space.index(known)] >= 0][:100]
        ours = evaluator.evaluate(known)
        texts = [table.space.format(row) for row in known]

        def look_up(text: str) -> float:
            accuracy: float = api.get_more_info(text, "cifar100", hp="12", is_random=False)["valid-accuracy"]
            return accuracy / 100

        start = time.perf_counter()
        theirs = [look_up(text) for text in texts]
        cold = len(texts) / (time.perf_counter() - start)
        np.testing.assert_allclose(ours.accuracy, theirs, rtol=1e-6)
        batch = np.tile(known, (100_000 // len(known), 1))
        rows = {
            "nats_bench, first look-up of an architecture": cold,
            "nats_bench, warm": 1 / seconds(lambda: look_up(texts[0])),
            "this table, one at a time": 1 / seconds(lambda: evaluator.evaluate(known[:1])),
            "this table, in batches of 100,000": len(batch) / seconds(lambda: evaluator.evaluate(batch)),
        }
        print(f"\n{folder.name}: {len(known)} architectures, equal answers; look-ups per second")
        for what, rate in rows.items():
            print(f"{what:50}{rate:16,.0f}")


def main(
    tables: Annotated[tuple[str, ...], tyro.conf.Positional] = TABLES,
    nats_bench: Path | None = None,
    task: Annotated[str | None, tyro.conf.arg(help="measures this one table and task in this process")] = None,
) -> None:
    """Prints the figures."""
    if task is not None:
        return measure(tables[0], task)
    rates = "".join(f"{f'by {batch:,}':>10}" for batch in BATCHES)
    print(f"{'table':30}{'task':16}{'open ms':>8}{'MiB':>8}{'at most':>8}{rates}  (million look-ups/s, by batch)")
    for name in tables:
        for each in open_table(name).tasks:
            subprocess.run([sys.executable, __file__, name, "--task", each], check=True)
    if nats_bench is not None:
        compare(nats_bench)


if __name__ == "__main__":
    tyro.cli(main)
