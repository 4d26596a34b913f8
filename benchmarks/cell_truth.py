"""Cells trained in full on the characters of `glyphs`: a truth by which cheap evaluators can be judged.

The cells are drawn uniformly from the space of NAS-Cell-v0. Each is trained with several seeds on the train split and
scored on the validation split; the reliability of a cell's mean says what correlation a perfect evaluator could reach.
The accuracy on the test split is kept beside, and must not be used to choose anything.

Every training is written as it ends: killed at any moment, the same command goes on. Seconds are processor time of one
thread.

    OMP_NUM_THREADS=1 python benchmarks/cell_truth.py

Other benchmarks read the result:

    from benchmarks.cell_truth import read_truth

    truth = read_truth()  # truth.tokens, truth.valid
"""

from __future__ import annotations

import csv
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from rich.progress import track
from scipy import stats

from nas_gym.evaluators.cost import count_flops, count_parameters
from nas_gym.evaluators.training import TrainingSettings, fit
from nas_gym.networks import Network, NetworkSettings, make_network
from nas_gym.spaces import Tokens, make_space
from nas_gym.tasks import ImageTask, make_task

Floats = NDArray[np.float64]

FILE = Path(__file__).parents[1] / "docs" / "evaluators" / "cells.csv"
COLUMNS = ("cell", "seed", "valid", "test", "seconds", "parameters", "flops", "architecture")
SPACE = make_space("cell:enas")
MOST = 1000  # cells
TASK = "glyphs"
NETWORK = NetworkSettings(channels=8, cells_per_stage=1, reductions=1, stem_stride=2)
TRAINING = TrainingSettings(
    epochs=7, batch_size=128, learning_rate=0.1, record=("valid", "test"), record_all_epochs=False
)


@dataclass(frozen=True)
class Truth:
    """The cells that were trained with every seed.

    Attributes:
        tokens: int64 ``[cells, T]``.
        valid: accuracy on the validation split, float64 ``[cells, seeds]``.
        test: accuracy on the test split, likewise; for reports alone.
        seconds: of processor time, likewise.
        parameters: float64 ``[cells]``.
        flops: of one image, float64 ``[cells]``.
    """

    tokens: Tokens
    valid: Floats
    test: Floats
    seconds: Floats
    parameters: Floats
    flops: Floats


def read_truth(path: Path = FILE) -> Truth:
    """Reads what this script has written."""
    with path.open(newline="") as file:
        rows = {(int(row["cell"]), int(row["seed"])): row for row in csv.DictReader(file)}
    seeds = sorted({seed for _, seed in rows})
    cells = sorted(cell for cell in {cell for cell, _ in rows} if all((cell, seed) in rows for seed in seeds))

    def column(name: str) -> Floats:
        return np.array([[float(rows[cell, seed][name]) for seed in seeds] for cell in cells])

    tokens = np.array([SPACE.parse(rows[cell, seeds[0]]["architecture"]).tokens for cell in cells])
    costs = (column(name)[:, 0] for name in ("parameters", "flops"))
    return Truth(tokens, *(column(name) for name in ("valid", "test", "seconds")), *costs)


def network(task: ImageTask, row: Tokens, seed: int) -> Network:
    """The network of a cell, with random weights."""
    return make_network(SPACE.architecture(row), task.input_shape, task.num_outputs, NETWORK, seed)


def train(path: Path, tokens: Tokens, seeds: int) -> None:
    """Trains what is missing: all cells with one seed, then with the next."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_text() if path.exists() else ""
    lines = text[: text.rfind("\n") + 1] or ",".join(COLUMNS) + "\n"  # without a line that was being written
    path.write_text(lines)
    done = {(int(row["cell"]), int(row["seed"])) for row in csv.DictReader(lines.splitlines())}
    missing = [(cell, seed) for seed in range(seeds) for cell in range(len(tokens)) if (cell, seed) not in done]
    task = make_task(TASK)
    for cell, seed in track(missing, "trainings"):
        trained = network(task, tokens[cell], seed)
        start = time.thread_time()
        (curve,) = fit([trained], task, TRAINING, seeds=[seed])
        seconds = time.thread_time() - start
        cost = count_parameters(trained), count_flops(trained, task.input_shape)
        scores = (curve.accuracy[name][-1] for name in TRAINING.record)
        text = SPACE.format(tokens[cell])
        row = (cell, seed, *(f"{score:.6f}" for score in scores), f"{seconds:.2f}", *cost, text)
        with path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(row)


@dataclass(frozen=True)
class Components:
    """What accuracies float64 [cells, seeds] vary by: a one-way analysis of variance.

    Attributes:
        spread: standard deviation between the cells' true accuracies.
        noise: standard deviation between the seeds of a cell.
        ratio: of the two, and its 95 % interval.
        reliability: of a cell's mean over its seeds, and its 95 % interval: the share of its variance that is true
            (Spearman-Brown); its square root is the highest correlation that any evaluator can be expected to have.
    """

    spread: float
    noise: float
    ratio: tuple[float, float, float]
    reliability: tuple[float, float, float]


def components(accuracies: Floats) -> Components:
    """The analysis; the intervals are those of normal distributions, by F (Searle 1971)."""
    cells, seeds = accuracies.shape
    between = seeds * accuracies.mean(axis=1).var(ddof=1)
    within = accuracies.var(axis=1, ddof=1).mean()
    quantiles = stats.f.ppf((0.975, 0.025), cells - 1, cells * (seeds - 1))
    values = (between / within, *(between / within / quantiles).tolist())
    ratio = tuple(float(np.sqrt(max(value - 1, 0) / seeds)) for value in values)
    reliability = tuple(float(max(1 - 1 / value, 0)) for value in values)
    spread = float(np.sqrt(max(between - within, 0) / seeds))
    return Components(spread, float(np.sqrt(within)), ratio, reliability)  # type: ignore[arg-type]


def report(truth: Truth) -> None:
    """Prints the components of the validation accuracies, and what else tells one cell from another."""
    found, means = components(truth.valid), truth.valid.mean(axis=1)
    print(f"{truth.valid.shape[0]} cells with {truth.valid.shape[1]} seeds, {truth.seconds.mean():.1f} s a training")
    print(f"validation accuracy of a cell: mean {means.mean():.1%}, from {means.min():.1%} to {means.max():.1%}")
    print(f"standard deviation between cells {found.spread:.2%}, between seeds {found.noise:.2%}")
    for name, values in (("their ratio", found.ratio), ("reliability of a cell's mean", found.reliability)):
        print("{}: {:.2f} [{:.2f}, {:.2f}]".format(name, *values))
    for name, cost in (("parameters", truth.parameters), ("flops", truth.flops)):
        print(f"rank correlation with {name}: {stats.spearmanr(cost, means).statistic:.2f}")


def draw(task: ImageTask, path: Path, rows: int = 6) -> None:
    """Draws some training images of every second class, a class a column."""
    from matplotlib.figure import Figure

    images = np.pad(task.train.inputs[:, 0].numpy(), ((0, 0), (1, 1), (1, 1)), constant_values=255)
    labels = task.train.targets.numpy()
    columns = [images[labels == number][:rows].reshape(-1, images.shape[2]) for number in range(0, task.num_classes, 2)]
    picture = np.concatenate(columns, axis=1)
    figure = Figure((picture.shape[1] / 40, picture.shape[0] / 40))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
    axes.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def main(cells: int = 60, seeds: int = 3, path: Path = FILE, picture: Path = Path("docs/pictures/glyphs.png")) -> None:
    """Draws the task, trains what is missing and prints the report.

    Args:
        cells: how many.
        seeds: trainings of each.
        path: where they are kept.
        picture: where images of the task are drawn.
    """
    torch.set_num_threads(1)
    draw(make_task(TASK), picture)
    drawn = SPACE.sample(np.random.default_rng(0), MOST)  # so that more cells can be trained later
    train(path, drawn[:cells], seeds)
    report(read_truth(path))


if __name__ == "__main__":
    tyro.cli(main)
