"""What nas_gym does when processes die, disks fill and files rot: makes the table of docs/reliability.md.

    python benchmarks/faults.py [--seed 0] [--only runs tables] [--out docs/reliability.csv]

Takes several minutes. Each attack works in a temporary folder of its own; all random choices follow from the seed.
"""

from __future__ import annotations

import csv
import importlib
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.attacks.outcome import Outcome

PARTS = ("runs", "workers", "tables", "stores", "images", "actions")
COLUMNS = ("attack", "tries", "unharmed", "refused", "silent", "lost", "tracebacks", "hung")


def row(outcome: Outcome) -> list[str]:
    """An outcome as the table has it."""
    return [str(getattr(outcome, name)) for name in COLUMNS]


def main(seed: int = 0, only: tuple[str, ...] = PARTS, out: Path | None = None) -> None:
    """Runs the attacks, and prints the table.

    Args:
        seed: of all random choices.
        only: the parts to attack.
        out: a CSV file for the table.
    """
    rows, harmed = [], False
    print(f"| {' | '.join(COLUMNS)} |\n|---{'|---:' * (len(COLUMNS) - 1)}|")
    for part in only:
        module = importlib.import_module(f"benchmarks.attacks.{part}")
        for number, attack in enumerate(module.ATTACKS):
            began = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                outcome = attack(Path(folder), np.random.default_rng([seed, PARTS.index(part), number]))
            rows.append(row(outcome))
            print(f"| {' | '.join(rows[-1])} |", flush=True)
            print(f"{time.perf_counter() - began:.0f} s {outcome.note}", *outcome.examples, sep="\n  ", file=sys.stderr)
            harmed |= not outcome.survived
    if out is not None:
        with out.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    sys.exit(harmed)


if __name__ == "__main__":
    tyro.cli(main)
