"""How soon a new task of NAS-Bench-Graph could be solved by who knows the other seven: what transfer can hope for.

    python benchmarks/transfer_bounds.py [--seeds 50] [--out runs/benchmark-transfer-graph]

Counted are the trials until the best architecture is as good as the best of `multitask` after 150 trials from scratch,
as in docs/transfer_results.md. The searches have no policy. They try the architectures in an order:

- tables, mean rank: of the whole tables of the other tasks; nothing is learned on the new one;
- tables, linear: a Bayesian linear regression, anew after each trial on the new task, whose features are the scores of
  the architecture on the other tasks and its decisions; it starts at the mean of the tasks, and the next trial is where
  it predicts most;
- trials, linear: the same, but of each other task only the 300 trials are known with which `multitask` has learned it;
  its scores are those that a ridge regression on decisions and pairs of them tells of all architectures;
- scratch, linear: the same of the decisions alone, from a random architecture on. What of the others is no transfer.

`--out` is the folder of `nas-gym benchmark --suite transfer-graph`; what of its searches is missing is done.
"""

from __future__ import annotations

import dataclasses
from itertools import combinations
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray
from scipy import stats

from nas_gym.experiments.transfer.measures import running_best
from nas_gym.experiments.transfer.searches import pretrain, run_transfer
from nas_gym.experiments.transfer.suite import SCRATCH, TransferSuite, make_transfer_suite
from nas_gym.tables import open_table

Floats = NDArray[np.float64]

NOISE = 0.5  # standard deviation of a score that decisions do not tell; scores have 1
RIDGE = 5.0
KINDS = ("tables, mean rank", "tables, linear", "trials, linear", "scratch, linear")


def normal_scores(values: Floats) -> Floats:
    """Ranks as quantiles of the normal distribution, float64[n]."""
    scores: Floats = stats.norm.ppf((stats.rankdata(values) - 0.5) / len(values))
    return scores


class Graphs:
    """All architectures of a table: their accuracies on the tasks, and their decisions as features."""

    def __init__(self, suite: TransferSuite) -> None:
        table = open_table(suite.arguments["table"])
        space = table.space
        rows, sequences = np.unique(table.rows, return_index=True)
        tokens = np.stack(np.unravel_index(sequences[rows >= 0], tuple(space.choice_counts)), axis=1)
        self.row_of, self.counts = table.rows, tuple(space.choice_counts)
        self.accuracy = {task: np.nan_to_num(table.task(task).valid[:, 0, -1]).astype(float) for task in suite.tasks}
        onehot = [(tokens[:, t, None] == np.arange(n)).astype(float) for t, n in enumerate(self.counts)]
        self.decisions = np.hstack(onehot)
        pairs = [(a[:, :, None] * b[:, None, :]).reshape(len(a), -1) / 2 for a, b in combinations(onehot, 2)]
        self.interactions = np.hstack([self.decisions, np.ones((len(tokens), 1)), *pairs])

    def rows(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where architectures int64[n, T] stand, int64[n]."""
        found: NDArray[np.int64] = self.row_of[np.ravel_multi_index(tuple(tokens.T), self.counts)]
        return found

    def estimate(self, tokens: NDArray[np.int64], rewards: Floats) -> Floats:
        """What trials tell of all architectures, float64[R], standardised."""
        known, scores = self.interactions[self.rows(tokens)], normal_scores(rewards)
        weights = known.T @ np.linalg.solve(known @ known.T + RIDGE * np.eye(len(known)), scores)
        told = self.interactions @ weights
        return stats.zscore(told)


def linear_search(sources: list[Floats], graphs: Graphs, target: Floats, level: float, trials: int, seed: int) -> int:
    """Trials of a regression on the scores of the sources, float64[R] each, and the decisions, until the level."""
    features = np.column_stack([*sources, np.ones(len(target)), graphs.decisions])
    prior = np.zeros(features.shape[1])
    prior[: len(sources)] = 1 / max(len(sources), 1)
    # Without sources all start alike: so small a noise tells only which is first.
    noise = 1e-9 * np.random.default_rng(seed).random(len(target))
    weights, tried = prior, np.empty(0, dtype=np.int64)
    while len(tried) < trials:
        predicted = features @ weights + noise
        predicted[tried] = -np.inf
        tried = np.append(tried, predicted.argmax())
        if target[tried[-1]] >= level - 1e-12:
            return len(tried)
        known = features[tried]
        error = normal_scores(target[tried]) - known @ prior
        weights = prior + known.T @ np.linalg.solve(known @ known.T + NOISE**2 * np.eye(len(known)), error)
    return trials + 1


def mean_rank_search(sources: list[Floats], target: Floats, level: float) -> int:
    """Trials in the order of the mean rank of tables, until the level."""
    order = np.argsort(-np.mean([stats.rankdata(source) for source in sources], axis=0), kind="stable")
    return int(np.argmax(target[order] >= level - 1e-12)) + 1


def main(seeds: int = 50, out: Path = Path("runs/benchmark-transfer-graph")) -> None:
    """Prints a Markdown table of medians over the seeds."""
    made = make_transfer_suite("transfer-graph", seeds=seeds)
    assert made is not None
    suite = dataclasses.replace(made, entries=(SCRATCH,))
    scratch, graphs = run_transfer(suite, out), Graphs(suite)
    print(f"| task | {' | '.join(KINDS)} |\n|---{'|---' * len(KINDS)}|", flush=True)
    medians = []
    for task in suite.tasks:
        level = float(np.median(running_best(scratch[task, SCRATCH].rewards)[:, -1]))
        target, names = graphs.accuracy[task], suite.sources(task)
        memories = pretrain(suite, task, range(seeds), out, {}).memories
        tables = [normal_scores(graphs.accuracy[name]) for name in names]
        trials: dict[str, list[int]] = {kind: [] for kind in KINDS}
        trials[KINDS[0]].append(mean_rank_search(tables, target, level))
        trials[KINDS[1]].append(linear_search(tables, graphs, target, level, suite.trials, 0))
        for seed in range(seeds):
            told = [graphs.estimate(memory.tokens[seed], memory.rewards[seed]) for memory in memories]
            trials[KINDS[2]].append(linear_search(told, graphs, target, level, suite.trials, seed))
            trials[KINDS[3]].append(linear_search([], graphs, target, level, suite.trials, seed))
        medians.append([float(np.median(trials[kind])) for kind in KINDS])
        print(f"| {task} | {' | '.join(f'{median:g}' for median in medians[-1])} |", flush=True)
    print(f"| median of the tasks | {' | '.join(f'{median:g}' for median in np.median(medians, axis=0))} |")


if __name__ == "__main__":
    tyro.cli(main)
