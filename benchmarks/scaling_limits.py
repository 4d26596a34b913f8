"""What takes how long in the process of a search, and grows with its trials and its workers: measured, not simulated.

    python benchmarks/scaling_limits.py [--parts store record loop wait ray]

- store: evaluations written one by one and looked up in a store of so many rows.
- record: trials noted and recorded one by one in a record of so many; then reading all of it and exporting trials.csv,
  which a run does in at most a twentieth of its time, and the checkpoint that an asynchronous one writes once a minute.
- loop: an asynchronous random search with its record, its scalars and its store, trials a second, by workers.
- wait: looking for what has ended among the evaluations of so many workers.
- ray: evaluations that take no time, by a few workers on this machine.

Times are of the processor, since others may be using it.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from rich.progress import Progress

from nas_gym.agents import Proposal, SearchResult, make_agent
from nas_gym.evaluators import (
    DistributedEvaluator,
    Evaluations,
    EvaluationStore,
    Evaluator,
    FunctionEvaluator,
    SimulatedCluster,
    StoredEvaluator,
)
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.evaluators.waiting import first_ended
from nas_gym.experiments.run.asynchronous import learn_asynchronously
from nas_gym.experiments.run.checkpoint import Checkpoint
from nas_gym.experiments.run.config import CONFIG, RunConfig, config_text, origin_of
from nas_gym.experiments.run.record import TrialRecord, read_rows
from nas_gym.experiments.run.recorder import Recorder
from nas_gym.experiments.run.trials import csv_text, trial_rows
from nas_gym.files import write_text
from nas_gym.spaces import make_space

CELLS = make_space("cell:darts")  # large enough for a million different architectures
TABLE = TabularEvaluator(make_space("bench201"))
ONE_BY_ONE = 500


def spent(action: Callable[[], object]) -> float:
    """Seconds of processor time."""
    begun = time.process_time()
    action()
    return time.process_time() - begun


def store(sizes: tuple[int, ...], folder: Path) -> None:
    """Prints rates of a store."""
    file = EvaluationStore(folder / "store.sqlite")
    series = file.series(CELLS, {"benchmark": "scaling"})
    rng, rows = np.random.default_rng(0), 0
    print(f"{'rows in the store':>20}{'writes/s':>12}{'look-ups/s':>12}{'bytes a row':>14}")
    for size in sizes:
        while rows < size:
            tokens = CELLS.sample(rng, min(10_000, size - rows))
            file.write(series, tokens, Evaluations(rng.random(len(tokens)), {"seconds": rng.random(len(tokens))}))
            rows += len(tokens)
        more = CELLS.sample(rng, ONE_BY_ONE)
        write = spent(lambda: [file.write(series, row[None], Evaluations(np.full(1, 0.5))) for row in more])  # noqa: B023
        read = spent(lambda: [file.read(series, row[None]) for row in more])  # noqa: B023
        size_of_file = (folder / "store.sqlite").stat().st_size / rows
        print(f"{size:20,}{ONE_BY_ONE / write:12,.0f}{ONE_BY_ONE / read:12,.0f}{size_of_file:14,.0f}", flush=True)


def record(sizes: tuple[int, ...], folder: Path) -> None:
    """Prints rates of a record."""
    rng = np.random.default_rng(0)
    columns = ("trials on record", "trials/s", "s to read", "s to export", "s a checkpoint", "bytes a trial")
    print("".join(f"{name:>18}" for name in columns))
    agent = make_agent("random", gym.make_vec("NAS-Cell-v0", num_envs=1, space=CELLS, evaluator="constant"))
    for size in sizes:
        known = SearchResult(CELLS, CELLS.sample(rng, size), rng.random(size), {"accuracy": rng.random(size)})
        TrialRecord.create(folder, {"space": CELLS.to_dict()}, known)
        opened = TrialRecord(folder)
        new = SearchResult(CELLS, CELLS.sample(rng, ONE_BY_ONE), rng.random(ONE_BY_ONE), {})

        def add(opened: TrialRecord = opened, new: SearchResult = new) -> None:
            for row in range(ONE_BY_ONE):
                one = slice(row, row + 1)
                opened.begin(Proposal(np.arange(1), new.tokens[one]))
                opened.add(new.rows(one), 0.0)

        adding = spent(add)
        agent.load_state_dict({**agent.state_dict(), **history(known)})
        checkpoint = Checkpoint(folder, opened)
        saving = spent(lambda: checkpoint.save({"agent": agent}))  # noqa: B023
        opened.close()
        reading = spent(lambda: read_rows(folder / "trials.db"))
        exporting = spent(lambda: write_text(folder / "trials.csv", csv_text(trial_rows(known))))  # noqa: B023
        bytes_each = (folder / "trials.db").stat().st_size / size
        numbers = f"{ONE_BY_ONE / adding:18,.0f}{reading:18.2f}{exporting:18.2f}{saving:18.2f}{bytes_each:18,.0f}"
        print(f"{size:18,}{numbers}", flush=True)


def history(trials: SearchResult) -> dict[str, Any]:
    """The trials in the state of an agent."""
    metrics = {name: torch.from_numpy(column) for name, column in trials.metrics.items()}
    return {"tokens": torch.from_numpy(trials.tokens), "rewards": torch.from_numpy(trials.rewards), "metrics": metrics}


def loop(workers: tuple[int, ...], trials: int) -> None:
    """Prints rates of a whole search on a simulated cluster."""
    print(f"{'workers':>20}{'trials/s alone':>16}{'with record':>14}{'and store':>12}")
    for count in workers:
        rates = []
        for kept, stored in ((False, False), (True, False), (True, True)):
            with tempfile.TemporaryDirectory() as name, Progress(disable=True) as progress:
                folder, evaluator = Path(name), SimulatedCluster(TABLE, count)
                used: Evaluator = StoredEvaluator(evaluator, folder / "store.sqlite") if stored else evaluator
                agent = make_agent("random", gym.make_vec("NAS-Bench201-v0", num_envs=1, evaluator=used))
                recorder = None
                if kept:
                    config = RunConfig(env="NAS-Bench201-v0", agent="random", trials=trials)
                    (folder / CONFIG).write_text(config_text(config))
                    TrialRecord.create(folder, origin_of(config, agent.space))
                    recorder = Recorder(folder, config, agent, TrialRecord(folder), progress=progress, stop=[])
                    recorder.restore()
                time_spent = spent(lambda: learn_asynchronously(agent, trials, recorder))  # noqa: B023
                if recorder is not None:
                    recorder.close()
                rates.append(trials / time_spent)
        print(f"{count:20,}{rates[0]:16,.0f}{rates[1]:14,.0f}{rates[2]:12,.0f}", flush=True)


def wait(workers: tuple[int, ...]) -> None:
    """Prints what it takes to look at the evaluations that run."""
    print(f"{'workers':>20}{'ms a look':>12}")
    for count in workers:
        futures = [Future[None]() for _ in range(count)]
        futures[-1].set_result(None)
        each = spent(lambda: [first_ended(futures, lambda: None) for _ in range(100)]) / 100  # noqa: B023
        print(f"{count:20,}{1000 * each:12.2f}", flush=True)


def make() -> Evaluator:
    """Takes no time."""
    return FunctionEvaluator(make_space("bench201"))


def ray(workers: tuple[int, ...], trials: int) -> None:
    """Prints what Ray takes in the process of the search, and what its waiting threads take a worker."""
    tokens = TABLE.space.enumerate()
    print(f"{'workers':>20}{'ms of the driver a trial':>26}")
    for count in workers:
        with DistributedEvaluator(make, count, cpus=0.1) as evaluator:
            evaluator.evaluate(tokens[: 4 * count])
            time_spent = spent(lambda: evaluator.evaluate(tokens[-trials:]))
        print(f"{count:20,}{1000 * time_spent / trials:26.2f}", flush=True)


def main(
    parts: tuple[str, ...] = ("store", "record", "loop", "wait", "ray"),
    sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000),
    workers: tuple[int, ...] = (10, 100, 1000),
    trials: int = 1000,
) -> None:
    """Prints a table a part.

    Args:
        parts: to measure.
        sizes: of stores and records.
        workers: their numbers; for Ray, 1 and 4.
        trials: of a search.
    """
    logging.getLogger("nas_gym").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        measured: dict[str, Callable[[], None]] = {
            "store": lambda: store(sizes, Path(folder)),
            "record": lambda: record(sizes, Path(folder)),
            "loop": lambda: loop(workers, trials),
            "wait": lambda: wait(workers),
            "ray": lambda: ray((1, 4), trials),
        }
        for part in parts:
            measured[part]()


if __name__ == "__main__":
    tyro.cli(main)
