"""How many epochs early stopping saves on the bundled table's curves, and what it costs.

For each seed, architectures are drawn uniformly from NAS-Bench-201, none twice, and evaluated in their order, ten at a
time, with their learning curves on Fashion-MNIST out of the table: the first hundred in full, then under early stopping
(Baker et al. 2017). The same draws evaluated in full tell which one is the best, and what is lost: the best accuracy
that a search would have reported is that of an architecture trained to the end.

    OMP_NUM_THREADS=1 python benchmarks/early_stopping.py
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tyro
from scipy import stats

from nas_gym.evaluators import Evaluator, make_evaluator
from nas_gym.evaluators.evaluator import concatenate
from nas_gym.evaluators.learning_curve import EarlyStoppingEvaluator
from nas_gym.spaces import make_space

BATCH = 10


@dataclass
class Outcome:
    """Of one seed.

    Attributes:
        saved: the share of all epochs that was spared.
        saved_later: likewise, of the architectures after the first hundred.
        lost: the best accuracy of all less that of the architectures trained to the end, in points.
        rank_correlation: of the accuracies told, predictions among them, with the full ones (Spearman).
        seconds: of the evaluator's own computation.
    """

    saved: float
    saved_later: float
    lost: float
    rank_correlation: float
    seconds: float


def outcomes(
    table: Evaluator, seed: int, architectures: int, thresholds: Sequence[float], **settings: str
) -> list[Outcome]:
    """Plays one seed, with each threshold; what is learnt from the first architectures is the same for all."""
    everything = table.space.enumerate()
    tokens = everything[np.random.default_rng(seed).choice(len(everything), architectures, replace=False)]
    full = table.evaluate(tokens)
    start = time.process_time()
    first = EarlyStoppingEvaluator(table, seed=seed, **settings)
    complete = first.settings.complete
    before = first.evaluate(tokens[:complete])
    learning = time.process_time() - start
    found = []
    for threshold in thresholds:
        start = time.process_time()
        evaluator = copy.copy(first)
        evaluator.settings = dataclasses.replace(first.settings, threshold=threshold)
        batches = [evaluator.evaluate(tokens[row : row + BATCH]) for row in range(complete, architectures, BATCH)]
        later = concatenate(batches)
        seconds = learning + time.process_time() - start
        told = concatenate([before, later])
        found.append(
            Outcome(
                saved=evaluator.saved,
                saved_later=1 - later.metrics["epochs"].mean() / full.metrics["epochs"].max(),
                lost=100 * (full.accuracy.max() - evaluator.best),
                rank_correlation=stats.spearmanr(told.accuracy, full.accuracy).statistic,
                seconds=seconds,
            )
        )
    return found


def main(
    seeds: int = 50,
    architectures: int = 1000,
    thresholds: tuple[float, ...] = (0.001, 0.01, 0.05, 0.1, 0.2, 0.5),
    regressors: tuple[str, ...] = ("nu-svr", "least-squares", "random-forest"),
) -> None:
    """Prints the table, in Markdown.

    Args:
        seeds: how many.
        architectures: of each seed.
        thresholds: of the chance to beat the best so far, under which a training is stopped.
        regressors: that predict.
    """
    table = make_evaluator("table", make_space("bench201"), "fashion-mnist")
    print(f"{seeds} seeds of {architectures} architectures")
    print("| regressor | threshold | epochs saved | later | factor | best kept | lost, points | rank | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for regressor in regressors:
        every = [outcomes(table, seed, architectures, thresholds, regressor=regressor) for seed in range(seeds)]
        for threshold, found in zip(thresholds, zip(*every, strict=True), strict=True):
            lost = np.array([one.lost for one in found])
            means = {name: np.mean([getattr(one, name) for one in found]) for name in Outcome.__dataclass_fields__}
            print(
                f"| {regressor} | {threshold} | {means['saved']:.1%} | {means['saved_later']:.1%} "
                f"| {1 / (1 - means['saved_later']):.2f} | {(lost < 1e-9).sum()} of {seeds} "
                f"| {lost.mean():.3f}, at most {lost.max():.2f} | {means['rank_correlation']:.3f} "
                f"| {means['seconds']:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    tyro.cli(main)
