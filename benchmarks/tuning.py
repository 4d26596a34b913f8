"""Looks for an agent's settings on tables and seeds that no leaderboard reports, with the same effort for every agent.

    python benchmarks/tuning.py reinforce [--on mean] [--criterion anytime] [--candidates 40] [--processes 2]

The first candidate is the agent as it is shipped; the others are drawn at random from the agent's grid, whose bounds
come from first trials on the same tables. The best of them are scored again with more seeds, of their own. A score is
the mean over the tasks of the interquartile mean over the seeds of the normalised best reward after `--trials` trials,
or of another `--criterion`.

One training of a graph network says little about which of the best architectures is better, and so on these tables
agents differ little. `--on mean` looks for settings on the mean of the four tasks, in which what an architecture is
worth stands out from the luck of its training, as it does in tables of larger data sets; `--on all` on the four tasks
and on their mean. Interquartile means tell good agents apart only before they have found the best: with `--criterion
anytime` a score is a mean, after a fifth of the trials, after half of them and after all.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium as gym
import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from scipy import stats

from nas_gym.agents import Reinforce, SearchResult, agent_class, load_hyperparameters
from nas_gym.agents.registry import batch_size_of
from nas_gym.evaluators import Evaluations, Evaluator
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.spaces import Tokens, make_space

ENVIRONMENT = "NAS-BenchGraph-v0"
TASKS = ("arxiv", "computers", "cs", "photo")
"""Leaderboards report others: cora, citeseer, physics, proteins."""
FIRST_SEED = 1000

Floats = NDArray[np.float64]

POLICY_GRADIENT: dict[str, list[Any]] = {
    "batch_size": [2, 3, 5, 10],
    "reward": ["raw", "rank"],
    "revisits": [True, False, False],
}
LSTM: dict[str, list[Any]] = {
    "learning_rate": [0.01, 0.02, 0.05, 0.1],
    "hidden_size": [32],
    "tanh_constant": [2.5, None],
}
SOFTMAXES: dict[str, list[Any]] = {
    "lstm": [False],
    "learning_rate": [0.1, 0.2, 0.5, 1.0, 2.0, 4.0],
}
CLIPPED: dict[str, list[Any]] = {
    "minibatch_size": [2, 5, 10],
    "epochs": [2, 4, 8],
    "entropy_weight": [0.0, 1e-3, 1e-2],
    "target_kl": [0.03, 0.1, 0.3],
}
REPLAY: dict[str, list[Any]] = {
    "baseline": ["moving-average", "leave-one-out", "critic"],
    "baseline_decay": [0.9],
    "replay_size": [0, 1, 2, 5, 10],
    "replay_weight": [1.0, 3.0, 10.0],
    "entropy_weight": [0.0, 1e-2, 3e-2],
}
MODEL: dict[str, list[Any]] = {
    "predictor": ["gaussian-process"],
    "warm_up": [5, 10],
    "batch_size": [1, 2],
    "exploration": [0.5, 1.0, 1.5],
    "pool_parents": [10],
    "pool_random": [1000],
}
"""Narrowed after a first sweep, in which the ensemble, exploration of 2 and smaller pools came out behind."""
GRIDS: dict[str, dict[str, list[Any]]] = {
    "bayesian": {
        **MODEL,
        "predictor": ["gaussian-process", "ensemble"],
        "acquisition": ["expected-improvement", "upper-confidence-bound"],
    },
    "dyna": {
        **MODEL,
        "learning_rate": [0.1, 0.3],
        "temperature": [0.05, 0.1],
        "final_temperature": [0.02, 0.05],
        "greedy_share": [0.5, 1.0],
    },
    "reinforce": {**POLICY_GRADIENT, **LSTM, **REPLAY},
    "reinforce:softmaxes": {
        **POLICY_GRADIENT,
        **REPLAY,
        **SOFTMAXES,
    },
    "ppo": {**POLICY_GRADIENT, **LSTM, **CLIPPED},
    "ppo:softmaxes": {**POLICY_GRADIENT, **SOFTMAXES, **CLIPPED},
    "regularized-evolution": {"population_size": [5, 10, 15, 20, 30, 40, 50], "sample_size": [2, 3, 5, 10, 15, 20]},
    "tournament": {
        "population_size": [5, 10, 20, 30, 40],
        "sample_size": [2, 3, 5],
        "crossover_probability": [0.0, 0.2, 0.5, 0.8],
    },
    "nsga2": {
        "population_size": [5, 10, 20, 30],
        "sample_size": [2, 3, 5],
        "crossover_probability": [0.2, 0.5, 0.9],
        "generation_size": [1, 5, 20],
    },
    "tpe": {
        "candidates": [4, 16, 64],
        "random_share": [0.0, 0.2],
        "bandwidth_factor": [0.5, 1.0, 3.0],
        "good_share": [0.05, 0.1, 0.15, 0.25],
        "min_points": [None, 3, 10],
    },
    "mcts": {
        "selection": ["puct", "puct", "uct"],
        "exploration": [0.02, 0.05, 0.1, 0.2, 0.5, 1.0],
        "reward": ["raw", "rank", "rank"],
        "prior": ["uniform", "uniform", "softmaxes"],
    },
    "mcts:predictor": {
        "selection": ["puct"],
        "exploration": [0.1, 0.3, 1.0],
        "reward": ["rank"],
        "predictor": ["bayesian-linear"],
        "completions": [32, 128],
    },
    "gflownet": {
        "learning_rate": [0.005, 0.01, 0.02, 0.05],
        "beta": [1.0, 4.0],
        "final_beta": [4.0, 10.0, 30.0, 100.0],
        "replay_size": [10, 30],
        "epochs": [2, 4],
    },
}


class MeanEvaluator(Evaluator):
    """The mean over tasks of the normalised score, in each of which 0 is the mean architecture and 1 the best.

    Args:
        tasks: of NAS-Bench-Graph, of equal operations.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(make_space("bench_graph"))
        self.tables = [TabularEvaluator(self.space, table="nas-bench-graph", task=task) for task in tasks]
        sequences = np.indices(self.space.choice_counts).reshape(self.space.length, -1).T
        scores = [table.normalised_score(table.evaluate(self._legal(sequences)).accuracy) for table in self.tables]
        self.optimum = float(np.mean(scores, axis=0).max())

    def _legal(self, sequences: Tokens) -> Tokens:
        steps = [
            self.space.legal(sequences, t)[np.arange(len(sequences)), column] for t, column in enumerate(sequences.T)
        ]
        return sequences[np.all(steps, axis=0)]

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        del fidelity, parents
        scores = [table.normalised_score(table.evaluate(tokens).accuracy) for table in self.tables]
        return Evaluations(np.mean(scores, axis=0))

    def normalised_score(self, rewards: Sequence[float]) -> Floats:
        """Of the mean: 0 is the mean architecture, and 1 the best."""
        return np.asarray(rewards) / self.optimum


@cache
def evaluator(on: str) -> MeanEvaluator:
    """The tasks that settings are looked for on, opened once: one of them, or their mean."""
    return MeanEvaluator(TASKS if on == "mean" else (on,))


def draw(grid: dict[str, list[Any]], rng: np.random.Generator, agent: str) -> dict[str, Any]:
    """Settings from a grid that the agent takes."""
    while True:
        settings = {name: values[int(rng.integers(len(values)))] for name, values in grid.items()}
        try:
            load_hyperparameters(agent, ENVIRONMENT, settings)
        except ValueError:
            continue
        return settings


def learn_seeds(
    agent: str, evaluator: Evaluator, seeds: Sequence[int], trials: int, settings: Any, env_id: str = ENVIRONMENT
) -> list[SearchResult]:
    """Searches once from each seed: REINFORCE in one program, other agents one search after another.

    Args:
        agent: its name.
        evaluator: of the architectures.
        seeds: of the searches.
        trials: of each search.
        settings: an instance of the agent's `Hyperparameters`.
        env_id: the environment.

    Returns:
        The history of each search, equal to that of an agent of its seed alone, with a batch for each update.
    """
    made = agent_class(agent)
    together = issubclass(made, Reinforce)
    num_envs = batch_size_of(made, settings) * (len(seeds) if together else 1)
    env = gym.make_vec(env_id, num_envs=num_envs, evaluator=evaluator)
    if together:
        return Reinforce(env, seeds, settings).learn_each(trials)
    return [made(env, seed, settings).learn(trials) for seed in seeds]


def final(best: Floats) -> float:
    """The interquartile mean over searches, float64[searches, trials], of the best after all trials."""
    return float(stats.trim_mean(best[:, -1], 0.25))


def anytime(best: Floats) -> float:
    """The mean over searches, float64[searches, trials], of the best after a fifth, half and all of the trials."""
    trials = best.shape[1]
    return float(best[:, [trials // 5 - 1, trials // 2 - 1, trials - 1]].mean())


CRITERIA = {"final": final, "anytime": anytime}


def score(
    agent: str, settings: dict[str, Any], on: str, criterion: str, trials: int, first_seed: int, seeds: int
) -> float:
    """The mean over the tasks of what a criterion says of the normalised best rewards."""
    torch.set_num_threads(1)
    made = load_hyperparameters(agent, ENVIRONMENT, settings, trials=trials)
    scores = []
    for task in {"each": TASKS, "all": (*TASKS, "mean")}.get(on, (on,)):
        table = evaluator(task)
        results = learn_seeds(agent, table, range(first_seed, first_seed + seeds), trials, made)
        best = [np.maximum.accumulate(table.normalised_score(result.rewards)) for result in results]
        scores.append(CRITERIA[criterion](np.array(best)))
    return float(np.mean(scores))


def main(
    agent: Annotated[str, tyro.conf.Positional],
    on: Literal["each", "mean", "all"] = "each",
    criterion: Literal["final", "anytime"] = "final",
    trials: int = 150,
    candidates: int = 40,
    seeds: int = 16,
    finalists: int = 6,
    final_seeds: int = 48,
    processes: int = 1,
    out: Path = Path("docs/tuning"),
) -> None:
    """Runs the sweep of an agent.

    Args:
        agent: one of the grids, such as reinforce or reinforce:softmaxes.
        on: each of the four tasks, the mean of them, or both.
        criterion: what is compared: one of `CRITERIA`.
        trials: of each search.
        candidates: settings tried; a grid that has fewer is tried whole.
        seeds: searches of a candidate on each task.
        finalists: how many of the best candidates are scored again.
        final_seeds: searches of a finalist on each task.
        processes: that share the candidates.
        out: the folder of the record, a CSV file an agent.
    """
    name, rng = agent.partition(":")[0], np.random.default_rng(0)
    tried: list[dict[str, Any]] = [{}]
    for _ in range(100 * candidates):  # a small grid may hold fewer
        drawn = draw(GRIDS[agent], rng, name)
        if drawn not in tried and len(tried) < candidates:
            tried.append(drawn)
    with ProcessPoolExecutor(processes) as pool:

        def scores_of(rows: list[int], first_seed: int, count: int) -> dict[int, float]:
            running = {
                row: pool.submit(score, name, tried[row], on, criterion, trials, first_seed, count) for row in rows
            }
            found = {}
            for row, future in running.items():
                found[row] = future.result()
                print(f"{found[row]:.4f} {json.dumps(tried[row])}", flush=True)
            return found

        first = scores_of(list(range(len(tried))), FIRST_SEED, seeds)
        ranking = sorted(first, key=lambda row: -first[row])
        final = scores_of(ranking[:finalists], FIRST_SEED + seeds, final_seeds)
    ranking = [*sorted(final, key=lambda row: -final[row]), *ranking[finalists:]]
    out.mkdir(parents=True, exist_ok=True)
    variant = [
        *([on] if on != "each" else []),
        *([criterion] if criterion != "final" else []),
        *([str(trials)] if trials != 150 else []),
    ]
    with (out / f"{'-'.join([agent.replace(':', '-'), *variant])}.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([f"score of {final_seeds} seeds", f"score of {seeds} seeds", *GRIDS[agent]])
        for row in ranking:
            shipped = dataclasses.asdict(load_hyperparameters(name, ENVIRONMENT, tried[row]))
            again = f"{final[row]:.4f}" if row in final else ""
            writer.writerow([again, f"{first[row]:.4f}", *(shipped[key] for key in GRIDS[agent])])


if __name__ == "__main__":
    tyro.cli(main)
