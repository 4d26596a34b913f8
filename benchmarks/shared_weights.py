"""How well do shared weights rank architectures, for which training?

Each setting trains a supernet once for each seed, and scores uniform architectures whose accuracies after trainings of
their own are known: the bundled table of NAS-Bench-201 on Fashion-MNIST, or cells of ENAS on characters. Three scores
are compared: the accuracy, the likelihood exp(-loss), and the mean of the two. Reported are medians over the seeds:
Spearman's and Kendall's correlation with the truth, Spearman's within the truth's best tenth, the percentile in the
truth of the best by score (the share of architectures that are worse), and processor seconds.

Every training is written as it ends: killed at any moment, the same command goes on.

    OMP_NUM_THREADS=1 python benchmarks/shared_weights.py --seeds 5
"""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from rich.progress import track
from scipy import stats

from nas_gym.evaluators import Evaluations, make_evaluator, make_objective, make_schedule
from nas_gym.evaluators.shared_weights import SharedWeightEvaluator
from nas_gym.spaces import Tokens, make_space
from nas_gym.types import Floats

OF_FOUR = {"learning_rate": 0.3, "schedule": {"name": "uniform", "warmup_steps": 1200, "architectures_per_step": 4}}
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {"schedule": {}},
    "4,000 steps": {"schedule": {"warmup_steps": 4000}},
    "200 steps": {"schedule": {"warmup_steps": 200}},
    "affine": {"affine": True, "schedule": {}},
    "10,000 steps": {"schedule": {"warmup_steps": 10_000}},
    "1,200 steps of four": OF_FOUR,
    "2,400 steps of four": {**OF_FOUR, "schedule": {**OF_FOUR["schedule"], "warmup_steps": 2400}},
    "4,800 steps of four": {**OF_FOUR, "schedule": {**OF_FOUR["schedule"], "warmup_steps": 4800}},
    "1,200 steps of four, learning rate 0.05": {**OF_FOUR, "learning_rate": 0.05},
    "fair, 1,000 steps of five": {"learning_rate": 0.3, "schedule": {"name": "fair", "warmup_steps": 1000}},
    "few-shot": {"learning_rate": 0.3, "schedule": {"name": "few-shot", "warmup_steps": 1000, "split": "edge_0_3"}},
}
"""Arguments of the evaluator, and beside them `schedule`, those of the schedule."""

SCORES = ("accuracy", "likelihood", "mean")
CORRELATIONS = ("spearman", "kendall", "best_tenth", "percentile")
COLUMNS = ("training", "scoring", *(f"{kind}_{score}" for score in SCORES for kind in CORRELATIONS), "agreement")


def measure(name: str, truth: str, seed: int, architectures: int) -> dict[str, float]:
    """Trains a supernet by a setting, and compares its scores with the truth."""
    settings = dict(SETTINGS[name])
    named = settings.pop("schedule")
    space, task, tokens, known = TRUTHS[truth](architectures)
    evaluator = SharedWeightEvaluator(make_space(space), task, seed=seed, device="cpu", **settings)
    schedule = make_schedule({"seed": seed, **named}, evaluator)
    start = time.process_time()
    for _ in schedule.prepare():
        pass
    trained = time.process_time()
    scores = schedule.score(tokens)
    scored = time.process_time()
    return {
        "training": trained - start,
        "scoring": scored - trained,
        **compared(scores, known),
        "agreement": schedule.quality()["weights/agreement"],
    }


def compared(scores: Evaluations, truth: Floats) -> dict[str, float]:
    """How well scores rank: rank correlations, those within the best tenth, and the percentile of the best by score."""
    found, top = {}, truth >= np.quantile(truth, 0.9)
    likelihood = make_objective("likelihood")(scores)
    for name, score in zip(SCORES, (scores.accuracy, likelihood, (scores.accuracy + likelihood) / 2), strict=True):
        found |= {
            f"spearman_{name}": float(stats.spearmanr(score, truth).statistic),
            f"kendall_{name}": float(stats.kendalltau(score, truth).statistic),
            f"best_tenth_{name}": float(stats.spearmanr(score[top], truth[top]).statistic),
            f"percentile_{name}": 100 * float(np.mean(truth < truth[np.argmax(score)])),
        }
    return found


def bench201(architectures: int) -> tuple[str, str, Tokens, Floats]:
    """The space, the task, uniform architectures, and their accuracies in the bundled table."""
    space = make_space("bench201")
    tokens = space.sample(np.random.default_rng(0), architectures)
    return "bench201", "fashion-mnist", tokens, make_evaluator("table", space).evaluate(tokens).accuracy


def cells(architectures: int) -> tuple[str, str, Tokens, Floats]:
    """The cells that `benchmarks/cell_truth.py` has trained in full on characters: means over their seeds."""
    trained: dict[str, list[float]] = {}
    with CELLS.open() as file:
        for row in csv.DictReader(file):
            trained.setdefault(row["architecture"], []).append(float(row["valid"]))
    space, chosen = make_space("cell:enas"), list(trained)[:architectures]
    tokens = np.array([space.parse(text).tokens for text in chosen])
    return "cell:enas", "glyphs", tokens, np.array([np.mean(trained[text]) for text in chosen])


CELLS = Path("docs/evaluators/cells.csv")
TRUTHS = {"bench201": bench201, "cells": cells}


class Results:
    """A CSV file with a line for each training."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, dict[tuple[str, str, int], dict[str, float]]()
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text() if path.exists() else ""
        for row in csv.DictReader(text[: text.rfind("\n") + 1].splitlines()):
            key = row.pop("truth"), row.pop("setting"), int(row.pop("seed"))
            self.rows[key] = {name: float(value) for name, value in row.items()}
        if not self.rows:
            path.write_text(",".join(["truth", "setting", "seed", *COLUMNS]) + "\n")

    def add(self, truth: str, setting: str, seed: int, row: dict[str, float]) -> None:
        """Appends a line."""
        self.rows[truth, setting, seed] = row
        with self.path.open("a") as file:
            cells = [f"{row[name]:.5g}" for name in COLUMNS]
            csv.writer(file, lineterminator="\n").writerow([truth, setting, seed, *cells])


def report(results: Results, truth: str, names: list[str], seeds: range) -> None:
    """Prints the medians over the seeds, in Markdown; of three numbers, by accuracy, likelihood and their mean."""
    print(f"| {truth} | training | scoring | Spearman | Kendall | best tenth | percentile of the best | agreement |")
    print("|---|---|---|---|---|---|---|---|")
    for name in names:
        rows = [results.rows[truth, name, seed] for seed in seeds]
        median = {column: float(np.median([row[column] for row in rows])) for column in COLUMNS}
        threes = [
            " / ".join(f"{median[f'{kind}_{score}']:.{0 if kind == 'percentile' else 2}f}" for score in SCORES)
            for kind in CORRELATIONS
        ]
        seconds = [f"{median[column]:.0f} s" for column in ("training", "scoring")]
        print(f"| {name} | {' | '.join([*seconds, *threes])} | {median['agreement']:.2f} |")


def main(
    settings: tuple[str, ...] = tuple(SETTINGS),
    truth: str = "bench201",
    seeds: int = 5,
    first_seed: int = 0,
    architectures: int = 1000,
    file: Path = Path("docs/evaluators/shared_weights.csv"),
) -> None:
    """Trains what is missing and prints the table.

    Args:
        settings: names of `SETTINGS`.
        truth: one of `TRUTHS`.
        seeds: how many supernets of each setting.
        first_seed: the seed of the first of them.
        architectures: how many are compared, at most.
        file: where the measurements are kept.
    """
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    results, wanted = Results(file), range(first_seed, first_seed + seeds)
    missing = [(name, seed) for seed in wanted for name in settings if (truth, name, seed) not in results.rows]
    for name, seed in track(missing, "supernets"):
        results.add(truth, name, seed, measure(name, truth, seed, architectures))
    report(results, truth, list(settings), wanted)


if __name__ == "__main__":
    tyro.cli(main)
