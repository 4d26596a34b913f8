"""Cells of DARTS's space that searches find on Fashion-MNIST, trained from scratch beside random and hand-made ones.

The searches are those of `benchmarks/differentiable.py`, in the space `cell:darts`: every one gets the same processor
seconds of one thread. What it ends with is trained from random weights as in the comparison of `nas-gym train`, and so
are cells drawn uniformly, and networks made by hand that have at most the parameters of the median random cell. Test
accuracies are evaluated when a training is over, and nothing is chosen by them.

Every search and every training is written as it ends: killed at any moment, the same command goes on.

    OMP_NUM_THREADS=1 python benchmarks/derived_cells.py --seeds 3
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from rich.progress import track
from scipy import stats

from benchmarks.differentiable import RELAXED, SHARED, TASK, interval, read, relaxed_search, shared_searches, write
from nas_gym.evaluators.cost import count_flops, count_parameters
from nas_gym.evaluators.shared_weights import SharedWeightEvaluator
from nas_gym.evaluators.training import fit, score
from nas_gym.experiments.run.comparison import references
from nas_gym.experiments.run.trainings import default_training
from nas_gym.networks import Network
from nas_gym.spaces import make_space
from nas_gym.tasks import Task, make_task

Floats = NDArray[np.float64]
SPACE = "cell:darts"
RANDOM = "drawn uniformly"
FREE = ("skip_connect", "max_pool", "avg_pool")  # operations without weights
COLUMNS = ("method", "seed", "network", "valid", "test", "parameters", "flops", "seconds")


def searched(seeds: Sequence[int], seconds: float, path: Path) -> dict[tuple[str, int], str]:
    """What each search ends with, as digits, by method and seed; missing searches are made."""
    for seed in track(seeds, "searches"):
        for method, (agent, settings) in RELAXED.items():
            if (method, seed) not in read(path):
                write(path, method, seed, *relaxed_search(agent, settings, seed, seconds, SPACE))
        missing = [method for method in SHARED if (method, seed) not in read(path)]
        if missing:
            for method, rows, steps in shared_searches(missing, seed, seconds, SPACE):
                write(path, method, seed, rows, steps)
    return {key: rows[-1]["tokens"] for key, rows in read(path).items() if key[1] in seeds}


class Results:
    """A CSV file with a line for each training."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text() if path.exists() else ""
        lines = text[: text.rfind("\n") + 1] or ",".join(COLUMNS) + "\n"  # without a line that was being written
        path.write_text(lines)
        self.rows = {(row["method"], int(row["seed"])): row for row in csv.DictReader(lines.splitlines())}

    def train(self, method: str, seed: int, text: str, make: Callable[[Task, int], Network], task: Task) -> None:
        """Trains a network, unless it has been, and writes what came of it."""
        if (method, seed) in self.rows:
            return
        settings, images = default_training(len(task.train), None)
        part = task.with_splits(task.train.take(slice(images)), task.valid, task.test)
        network, start = make(task, seed), time.process_time()
        (curve,) = fit([network], part, settings, seeds=[seed])
        valid = 0.0 if curve.failed else float(curve.accuracy["valid"][-1])
        test = 0.0 if curve.failed else score(network, task, task.test)
        cost = str(count_parameters(network)), str(count_flops(network, task.input_shape))
        seconds = f"{time.process_time() - start:.1f}"
        row = (method, str(seed), text, f"{valid:.4f}", f"{test:.4f}", *cost, seconds)
        with self.path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(row)
        self.rows[method, seed] = dict(zip(COLUMNS, row, strict=True))

    def column(self, method: str, name: str) -> Floats:
        """What the trainings of a method have in a column."""
        return np.array([float(row[name]) for (of, _), row in self.rows.items() if of == method])


def report(results: Results) -> None:
    """Prints a Markdown table: means with Student's, differences with Welch's 95 % intervals, operations of `FREE`."""
    head = "network", "trainings", "test accuracy", "minus random, points", "free, of 16", "parameters", "flops"
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    chance = results.column(RANDOM, "test")
    for method in dict.fromkeys(of for of, _ in results.rows):
        test = results.column(method, "test")
        gain = "" if method == RANDOM else difference(test, chance)
        cells = [row["network"] for (of, _), row in results.rows.items() if of == method]
        free = np.mean([sum(cell.count(operation) for operation in FREE) for cell in cells])
        counted = "" if "by hand" in method else f"{free:.1f}"
        parameters, flops = (results.column(method, name).mean() / 1000 for name in ("parameters", "flops"))
        costs = f"{parameters:.1f}k | {flops:,.0f}k"
        print(f"| {method} | {len(test)} | {interval(test, 4)} | {gain} | {counted} | {costs} |")


def difference(ours: Floats, theirs: Floats) -> str:
    """The difference of the means in points, with its interval."""
    gain = f"{100 * (ours.mean() - theirs.mean()):+.2f}"
    if min(len(ours), len(theirs)) < 2:
        return gain
    low, high = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    return f"{gain} [{100 * low:+.2f}, {100 * high:+.2f}]"


def main(
    seeds: int = 3,
    seconds: float = 120.0,
    random_cells: int = 10,
    folder: Path = Path("docs/differentiable"),
) -> None:
    """Makes what is missing and prints the table.

    Args:
        seeds: searches of each method, and trainings of each network made by hand.
        seconds: of processor time, of each search.
        random_cells: cells drawn uniformly.
        folder: for the searches and the trainings.
    """
    torch.set_num_threads(1)
    space, task, results = make_space(SPACE), make_task(TASK), Results(folder / "cells.csv")
    evaluator = SharedWeightEvaluator(space, TASK, device="cpu")
    networks: list[tuple[str, int, str, Callable[[Task, int], Network]]] = []

    def cell(method: str, seed: int, tokens: Sequence[int]) -> None:
        architecture = space.architecture(tokens)
        networks.append((method, seed, str(architecture), partial(evaluator.new_network, architecture)))

    for (method, seed), digits in searched(range(seeds), seconds, folder / "cell_searches.csv").items():
        cell(method, seed, [int(digit) for digit in digits])
    drawn = space.sample(np.random.default_rng(0), random_cells)
    for number, tokens in enumerate(drawn):
        cell(RANDOM, number, tokens)
    sizes = [count_parameters(evaluator.new_network(space.architecture(row), task, 0)) for row in drawn]
    median = space.architecture(drawn[np.argsort(sizes)[len(sizes) // 2]])
    for name, text, make in references(evaluator, median, task, "parameters"):
        networks += [(f"{name}, by hand", seed, text, make) for seed in range(seeds)]
    for method, seed, text, make in track(networks, "trainings"):
        results.train(method, seed, text, make, task)
    report(results)


if __name__ == "__main__":
    tyro.cli(main)
