"""What it costs that a record can be trusted: the lock, the checksums and the flushes to the disk of a run.

Each run is made twice in a row, with and without them, in an order that alternates, and the ratio of the two times is
taken. The first kind of run is a search on a table, where a trial costs next to nothing; the second is a search with
shared weights, shorter than that of `nas-gym train`, so that what happens once per run weighs more than it does there.

    python benchmarks/record.py
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import tyro
from rich.console import Console
from scipy import stats

from nas_gym.experiments.run.config import RunConfig
from nas_gym.experiments.run.record import TrialRecord
from nas_gym.experiments.run.run import Run

SUPERNET = {"evaluator_kwargs": {"score_images": 250}, "schedule": {"name": "interleaved", "warmup_steps": 50}}


@contextlib.contextmanager
def unlocked(folder: Path) -> Iterator[None]:
    """Makes the folder, as a lock does, and locks nothing."""
    folder.mkdir()
    yield


@contextlib.contextmanager
def unprotected() -> Iterator[None]:
    """Runs take no lock, compute no checksums and wait for no disk."""
    with (
        mock.patch("nas_gym.experiments.run.run.FolderLock", unlocked),
        mock.patch("nas_gym.experiments.run.record.checksum", return_value=""),
        mock.patch("nas_gym.files.checksum", return_value=""),
        mock.patch("nas_gym.files._sync"),
        mock.patch.object(TrialRecord, "sync"),
    ):
        yield


def seconds(config: RunConfig, protected: bool) -> float:
    """Wall-clock seconds of a run in a new folder."""
    with tempfile.TemporaryDirectory(dir=".") as folder, contextlib.nullcontext() if protected else unprotected():
        run = Run(Path(folder) / "run", config, Console(quiet=True))
        start = time.perf_counter()
        run.execute()
        return time.perf_counter() - start


def ratios(config: RunConfig, pairs: int) -> list[float]:
    """Time with protection divided by time without it, of each pair of runs."""
    found = []
    for pair in range(pairs):
        protected_first = pair % 2 == 0
        first, second = seconds(config, protected_first), seconds(config, not protected_first)
        found.append(first / second if protected_first else second / first)
    return found


def main(pairs: int = 10, trials: int = 10_000, image_trials: int = 60) -> None:
    """Prints the ratios.

    Args:
        pairs: of runs, of each kind.
        trials: of a search on a table.
        image_trials: of a search with shared weights.
    """
    table = RunConfig(env="NAS-Bench201-v0", agent="reinforce", trials=trials)
    images = RunConfig(task="digits", trials=image_trials, retrain_epochs=0, env_kwargs=SUPERNET)
    for name, config in ((f"table, {trials} trials", table), (f"shared weights, {image_trials} trials", images)):
        seconds(config, True)  # imports, and fills caches
        found = ratios(config, pairs)
        low, high = stats.t.interval(0.95, pairs - 1, np.mean(found), stats.sem(found))
        print(f"{name}: {np.median(found):.4f} in the median, mean {np.mean(found):.4f} [{low:.4f}, {high:.4f}]")


if __name__ == "__main__":
    tyro.cli(main)
