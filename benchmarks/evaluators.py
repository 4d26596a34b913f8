"""What cheap evaluators are worth: how well they rank architectures, and the processor seconds that they take.

There are three truths. `table`: architectures of NAS-Bench-201 drawn uniformly, with their validation accuracies in the
bundled table on Fashion-MNIST. `glyphs`: cells of `cell:enas` trained on the task `glyphs` by `cell_truth.py`. `cells`:
fewer trainings of such cells, on Fashion-MNIST, by `short_trainings.py`. Zero-cost proxies have the networks and images
of the trainings, and score one architecture at a time. Supernets have all images of the task, and are trained by the
default schedule first; the time of that is divided among the architectures to score.

    OMP_NUM_THREADS=1 python benchmarks/evaluators.py

Every score is written as it is known: killed at any moment, the same command goes on. A supernet's training starts
anew. `--again shared-weights` forgets the results of an evaluator, for example because its settings have changed.
"""

from __future__ import annotations

import csv
import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cell_truth
import numpy as np
import short_trainings
import torch
import tyro
from numpy.typing import NDArray
from rich.progress import track
from scipy import stats

from nas_gym.evaluators import Evaluator, make_objective, make_schedule
from nas_gym.evaluators.config import EVALUATORS
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.evaluators.zero_cost import PROXIES
from nas_gym.spaces import SearchSpace, Tokens, make_space
from nas_gym.tables.builder import BuildSettings
from nas_gym.tasks import Task, make_task

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Interval = tuple[float, float, float]  # a value, and the bounds of its 95 % interval

RESAMPLES = 1000
BEST = 0.1  # the share of the architectures that count as the best
FEWEST = 20  # of the best that say anything
SUPERNET_NETWORK = {"channels": 8, "cells_per_stage": 1, "reductions": 1, "stem_stride": 2}
SUPERNETS: dict[str, dict[str, Any]] = {"shared-weights": {}, "hypernetwork": {}}  # settings that are not the defaults


@dataclass
class Truth:
    """Architectures whose accuracies are known.

    Attributes:
        name: of the truth.
        space: the search space.
        tokens: int64[n, T].
        accuracy: float64[n], of their trainings.
        task: what they were trained on.
        network: fields of `NetworkSettings`, of the networks trained.
        whole: the task with all its images, and fields of `NetworkSettings`: for supernets, which need more of both.
        trainings: shorter trainings that are known too: by name the seconds of an architecture, and float64[n].
    """

    name: str
    space: SearchSpace
    tokens: Tokens
    accuracy: Floats
    task: Task
    network: dict[str, Any]
    whole: tuple[Task, dict[str, Any]]
    trainings: dict[str, tuple[float, Floats]] = field(default_factory=dict)


def table(architectures: int = 500) -> Truth:
    """NAS-Bench-201 on Fashion-MNIST, with the first epochs of the same trainings."""
    space, build = make_space("bench201"), BuildSettings()
    tokens = space.sample(np.random.default_rng(0), architectures)
    known = TabularEvaluator(space)
    full = known.evaluate(tokens)
    seconds, epochs = float(full.metrics["seconds"].mean()), build.training.epochs
    trainings = {
        f"{count} of the {epochs} epochs": (
            seconds * count / epochs,
            known.evaluate(tokens, fidelity=count / epochs).accuracy,
        )
        for count in (1, 3)
    }
    network = {"channels": build.network.channels, "reductions": build.network.reductions, "stem_stride": 1}
    whole = make_task(build.task), SUPERNET_NETWORK
    return Truth("table", space, tokens, full.accuracy, build.make_task(), network, whole, trainings)


def cells() -> Truth:
    """Cells on Fashion-MNIST, with the means of two full trainings, and a short one of each."""
    space = make_space("cell:enas")
    tokens = space.sample(np.random.default_rng(0), 60)
    known, numbers = short_trainings.Results(Path("docs/evaluators/trainings.csv")), range(len(tokens))
    full, again, short = (
        np.array([known.curves[kind, number][-1] for number in numbers]) for kind in ("full", "full again", "short")
    )
    seconds = float(np.mean([known.seconds["short", number] for number in numbers]))
    trainings = {
        f"another training, {short_trainings.SHORT_EPOCHS} of {short_trainings.EPOCHS} epochs": (seconds, short)
    }
    task = short_trainings.from_scratch(0, 1).proxy
    whole = make_task("fashion-mnist"), SUPERNET_NETWORK
    return Truth("cells", space, tokens, (full + again) / 2, task, short_trainings.NETWORK, whole, trainings)


def glyphs() -> Truth:
    """Cells on glyphs, with the means of their trainings."""
    known = cell_truth.read_truth()
    task, network = make_task(cell_truth.TASK), dataclasses.asdict(cell_truth.NETWORK)
    del network["auxiliary"]
    accuracy = known.valid.mean(axis=1)
    return Truth("glyphs", cell_truth.SPACE, known.tokens, accuracy, task, network, (task, network))


TRUTHS: dict[str, Callable[[], Truth]] = {"table": table, "glyphs": glyphs, "cells": cells}


# ---------------------------------------------------------------------- scores


class Scores:
    """A CSV file with a line for each score: truth, evaluator, the architecture's tokens, seconds, value.

    The line of a supernet's training has no tokens and no value.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text() if path.exists() else ""
        self.rows = [tuple(row) for row in csv.reader(text[: text.rfind("\n") + 1].splitlines())]

    def add(self, *row: Any) -> None:
        """Appends a line."""
        self.rows.append(tuple(map(str, row)))
        with self.path.open("a") as file:
            csv.writer(file, lineterminator="\n").writerow(self.rows[-1])

    def forget(self, evaluator: str) -> None:
        """Removes all lines of an evaluator."""
        self.rows = [row for row in self.rows if row[1] != evaluator]
        with self.path.open("w") as file:
            csv.writer(file, lineterminator="\n").writerows(self.rows)

    def of(self, truth: str, evaluator: str) -> dict[str, tuple[float, float]]:
        """Seconds and values by tokens, as `key` writes them."""
        found = [row[2:] for row in self.rows if row[:2] == (truth, evaluator)]
        return {tokens: (float(seconds), float(value or "nan")) for tokens, seconds, value in found}


def key(row: Tokens) -> str:
    """The tokens int64[T] of an architecture as text."""
    return " ".join(map(str, row.tolist()))


def score_proxy(scores: Scores, truth: Truth, proxy: str) -> None:
    """Scores what is missing."""
    known = scores.of(truth.name, proxy)
    missing = [row for row in np.unique(truth.tokens, axis=0) if key(row) not in known]
    if not missing:
        return
    evaluator = made(truth.space, "zero-cost", truth.task, proxy=proxy, network=truth.network)
    for row in track(missing, f"{truth.name}: {proxy}"):
        start = time.process_time()
        value = evaluator.evaluate(row[None]).metrics[proxy][0]
        scores.add(truth.name, proxy, key(row), f"{time.process_time() - start:.4f}", value)


def score_supernet(scores: Scores, truth: Truth, name: str, settings: Mapping[str, Any]) -> None:
    """Trains a supernet by the default schedule, and scores all with it, by the default reward."""
    tokens, known = np.unique(truth.tokens, axis=0), scores.of(truth.name, name)
    if all(key(row) in known for row in tokens):
        return
    task, network = truth.whole
    evaluator = made(truth.space, name, task, **network, **settings)
    schedule, start = make_schedule({"seed": 1}, evaluator), time.process_time()
    for _ in schedule.prepare():
        pass
    trained = time.process_time()
    values = make_objective(evaluator.objective)(evaluator.evaluate(tokens))
    seconds = (time.process_time() - trained) / len(values)
    scores.add(truth.name, name, "", f"{trained - start:.4f}", "")
    for row, value in zip(tokens, values, strict=True):
        scores.add(truth.name, name, key(row), f"{seconds:.4f}", value)


def made(space: SearchSpace, name: str, task: Task, **settings: Any) -> Evaluator:
    """An evaluator by name."""
    return EVALUATORS[name](space, task=task, device="cpu", **settings)  # type: ignore[call-arg]


# ---------------------------------------------------------------------- the report


@dataclass
class Row:
    """An evaluator.

    Attributes:
        name: what it is.
        seconds: of an architecture.
        told: float64[n], its scores.
    """

    name: str
    seconds: float
    told: Floats


def rows(scores: Scores, truth: Truth) -> list[Row]:
    """What is compared: the evaluators that have scored all architectures."""
    found = [Row(name, seconds, told) for name, (seconds, told) in truth.trainings.items()]
    for name in (*SUPERNETS, *PROXIES):
        known = scores.of(truth.name, name)
        training, _ = known.pop("", (0.0, 0.0))
        if any(key(row) not in known for row in truth.tokens):
            continue
        seconds, told = np.array([known[key(row)] for row in truth.tokens]).T
        # What could not be scored is worse than all that could.
        told = np.where(np.isnan(told), np.nanmin(told) - 1, told)
        found.append(Row(name, training / len(told) + float(seconds.mean()), told))
    return found


def spearman(told: Floats, accuracy: Floats) -> Floats:
    """Spearman's rank correlation along the last axis, 0 where all are equal."""
    ranks = [stats.rankdata(values, axis=-1) for values in (told, accuracy)]
    first, second = (rank - rank.mean(axis=-1, keepdims=True) for rank in ranks)
    spread = np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))
    found: Floats = (first * second).sum(axis=-1) / np.where(spread == 0, 1, spread)
    return found


def interval(statistic: Callable[[Indices], Floats], architectures: Indices) -> Interval:
    """A statistic of some architectures, and its 95 % interval by resampling them."""
    draws = np.random.default_rng(0).choice(architectures, (RESAMPLES, len(architectures)))
    low, high = np.quantile(statistic(draws), (0.025, 0.975))
    return float(statistic(architectures)), float(low), float(high)


def measured(row: Row, size: Floats, accuracy: Floats) -> tuple[Interval, Interval, float, Interval]:
    """Spearman's rank correlation, its gain over that of the `size`, Kendall's, and Spearman's among the best."""

    def correlation(chosen: Indices) -> Floats:
        return spearman(row.told[chosen], accuracy[chosen])

    def gain(chosen: Indices) -> Floats:
        return correlation(chosen) - spearman(size[chosen], accuracy[chosen])

    everything = np.arange(len(accuracy))
    best = np.argsort(-accuracy, kind="stable")[: round(BEST * len(accuracy))]
    tau = float(stats.kendalltau(row.told, accuracy).statistic)
    return interval(correlation, everything), interval(gain, everything), tau, interval(correlation, best)


def report(scores: Scores, truths: list[Truth], picture: Path) -> None:
    """Prints a table for each truth, in Markdown, and draws the picture."""
    points = []
    for truth in truths:
        compared = {row.name: row for row in rows(scores, truth)}
        print(f"\n{truth.name}: {len(truth.tokens)} architectures\n")
        print("| evaluator | seconds | Spearman | minus that of `parameters` | Kendall | Spearman in the best tenth |")
        print("|---|---|---|---|---|---|")
        for name, row in compared.items():
            whole, gain, tau, best = measured(row, compared["parameters"].told, truth.accuracy)
            few = round(BEST * len(truth.tokens)) < FEWEST
            columns = [text(whole), text(gain) if name != "parameters" else "", f"{tau:.2f}", "" if few else text(best)]
            print(f"| {name} | {row.seconds:.3f} | {' | '.join(columns)} |", flush=True)
            points.append((truth.name, name, whole))
    draw(points, picture)


def text(value: Interval) -> str:
    """A statistic and its interval."""
    return "{:.2f} [{:.2f}, {:.2f}]".format(*value)


def draw(points: list[tuple[str, str, Interval]], path: Path) -> None:
    """Spearman's rank correlation, an evaluator a line, a truth a panel."""
    from matplotlib.figure import Figure

    truths = list(dict.fromkeys(truth for truth, _, _ in points))
    figure = Figure((4.8 * len(truths), 4.2), layout="constrained")
    for axes, truth in zip(np.atleast_1d(figure.subplots(1, len(truths))), truths, strict=True):
        shown = [(name, value) for of, name, value in points if of == truth][::-1]
        values, low, high = np.array([value for _, value in shown]).T
        errors = [values - low, high - values]
        axes.errorbar(values, range(len(shown)), xerr=errors, fmt="o", capsize=3, color="#2563eb")
        axes.set_yticks(range(len(shown)), [name for name, _ in shown])
        axes.set_title(truth, fontsize=10)
        axes.set_xlabel("Spearman's rank correlation")
        axes.axvline(0, color="#7d828c", linewidth=1)
        axes.grid(axis="x", color="#e3e6eb")
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main(
    truths: tuple[str, ...] = tuple(TRUTHS),
    score: bool = True,
    again: tuple[str, ...] = (),
    folder: Path = Path("docs/evaluators"),
    picture: Path = Path("docs/pictures/evaluators.png"),
) -> None:
    """Scores what is missing, prints the tables and draws the picture.

    Args:
        truths: some of `TRUTHS`.
        score: whether what is missing is scored; otherwise only what is known is told.
        again: evaluators whose scores are forgotten first.
        folder: where the scores are kept.
        picture: where it is drawn.
    """
    torch.set_num_threads(1)
    scores = Scores(folder / "scores.csv")
    for evaluator in again:
        scores.forget(evaluator)
    known = [TRUTHS[name]() for name in truths]
    for truth in known if score else ():
        for proxy in PROXIES:
            score_proxy(scores, truth, proxy)
        for name, settings in SUPERNETS.items():
            score_supernet(scores, truth, name, settings)
    report(scores, known, picture)


if __name__ == "__main__":
    tyro.cli(main)
