"""Processes that write to one store at once, and are killed in the midst of it: is anything lost or doubled?

    python benchmarks/store.py [--processes 8] [--writes 10000] [--kills 40]

Each process writes evaluations of its own, one at a time, and notes after each that it is written. Now and then one of
them gets SIGKILL, and another takes its place where the note says. In the end every row that was noted must be in the
store, with its numbers, and every row once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from nas_gym.evaluators import Evaluations, EvaluationStore
from nas_gym.spaces import Tokens, make_space

SPACE = make_space("cell:darts")


def architectures(writer: int, writes: int) -> Tokens:
    """What a process writes; 1e18 architectures are enough for all to be different."""
    return SPACE.sample(np.random.default_rng(writer), writes)


def accuracies(writer: int, writes: int) -> np.ndarray:
    """The accuracies of these."""
    return np.random.default_rng([writer, 1]).random(writes)


def write(path: Path, note: Path, writer: int, writes: int) -> None:
    """What a process does: goes on from its note."""
    store = EvaluationStore(path)
    series = store.series(SPACE, {"benchmark": "store"})
    tokens, accuracy = architectures(writer, writes), accuracies(writer, writes)
    with note.open("r+b", buffering=0) as file:
        for row in range(int.from_bytes(file.read(8), "little"), writes):
            store.write(series, tokens[row, None], Evaluations(accuracy[row, None], {"row": np.array([float(row)])}))
            file.seek(0)
            file.write((row + 1).to_bytes(8, "little"))


@dataclass
class Writer:
    """A process, and those that take its place."""

    path: Path
    note: Path
    number: int
    writes: int

    def __post_init__(self) -> None:
        self.note.write_bytes(bytes(8))
        self.start()

    def start(self) -> None:
        """Starts the process, where the one before was killed."""
        self.begun = self.noted
        command = [sys.executable, __file__, "--child", self.path, self.note, self.number, self.writes]
        self.process = subprocess.Popen([str(word) for word in command])

    @property
    def noted(self) -> int:
        """How many writes the process knows to be done."""
        return int.from_bytes(self.note.read_bytes(), "little")


def kill_one(writers: list[Writer], rng: np.random.Generator) -> int | None:
    """Kills a process that is at work, and starts another in its place; how many rows it had noted."""
    working = [
        writer for writer in writers if writer.begun < writer.noted < writer.writes and writer.process.poll() is None
    ]
    if not working:
        return None
    writer = working[rng.integers(len(working))]
    writer.process.send_signal(signal.SIGKILL)
    writer.process.wait()
    noted = writer.noted
    writer.start()
    return noted


def check(path: Path, processes: int, writes: int) -> tuple[int, int]:
    """How many rows of those that were written are not in the store as they should be, and how many there are."""
    store = EvaluationStore(path)
    (series,) = store.all_series()
    wrong = 0
    for writer in range(processes):
        rows = store.read(series.number, architectures(writer, writes))
        expected = accuracies(writer, writes)
        for row, found in enumerate(rows):
            wrong += found is None or found.accuracy[0] != expected[row] or found.metrics["row"][0] != row
    return wrong, len(store)


def main(processes: int = 8, writes: int = 10_000, kills: int = 40, seed: int = 0) -> None:
    """Writes, kills and counts.

    Args:
        processes: that write at once.
        writes: of each.
        kills: how many processes are killed.
        seed: of who is killed when.
    """
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        path, killed = Path(folder) / "store.sqlite", list[int]()
        start = time.perf_counter()
        writers = [Writer(path, Path(folder) / f"note{number}", number, writes) for number in range(processes)]
        while any(writer.process.poll() is None for writer in writers):
            time.sleep(rng.uniform(0.02, 0.15))
            if len(killed) < kills and (noted := kill_one(writers, rng)) is not None:
                killed.append(noted)
        elapsed = time.perf_counter() - start
        assert all(writer.process.returncode == 0 and writer.noted == writes for writer in writers)
        wrong, rows = check(path, processes, writes)
        size = path.stat().st_size
    total = processes * writes
    print(f"{processes} processes, {writes:,} writes each, {len(killed)} SIGKILLs after {killed} rows")
    print(f"{elapsed:.1f} s, {total / elapsed:,.0f} writes/s, {size / total:.0f} bytes a row")
    print(f"rows: {rows:,} of {total:,}; lost or wrong: {wrong}; doubled: {rows - total + wrong}")
    sys.exit(int(wrong > 0 or rows != total))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if sys.argv[1:2] == ["--child"]:
        write(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
    else:
        tyro.cli(main)
