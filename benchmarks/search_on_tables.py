"""Many short searches on a table, played through the environment, beside those of a plain simulation.

    nas-gym table import csv nas_bench_201_12_epochs.csv --out table.npz --space bench201 --percent --epochs 12
    python benchmarks/search_on_tables.py table.npz [--runs 500] [--trials 150] [--tasks cifar10] [--agents dyna]

Without a table it takes that of NAS-Bench201-v0 itself. Printed is the best validation accuracy over the runs, in
percent: its interquartile mean, and its mean with a 95 % interval by bootstrap; then, of the score in which 0 is the
mean architecture and 1 the best, the mean after a fifth of the trials, after half of them and after all, the share of
the runs that come within 0.001 of the best, and the median of the trials that this takes (the budget where it does
not).
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from scipy import stats

from nas_gym.agents import agent_class, load_hyperparameters, make_agent
from nas_gym.agents.registry import batch_size_of
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.spaces import make_space
from nas_gym.tables import DEFAULTS, open_table

ENVIRONMENT = "NAS-Bench201-v0"
AGENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "random search": ("random", {}),
    "regularized evolution (10, 3)": ("regularized-evolution", {"population_size": 10, "sample_size": 3}),
    "regularized evolution (30, 10)": ("regularized-evolution", {"population_size": 30, "sample_size": 10}),
    "local search": ("local-search", {}),
    "NSGA-II": ("nsga2", {}),
    "TPE": ("tpe", {}),
    "Monte Carlo tree search": ("mcts", {}),
    "GFlowNet": ("gflownet", {}),
    "reinforce": ("reinforce", {}),
    "bayesian": ("bayesian", {}),
    "PPO": ("ppo", {}),
    "dyna": ("dyna", {}),
    "dyna, preset policy": ("dyna", {"preset": "policy"}),
}
CLOSE = 1e-3  # to the best architecture of the table, in the normalised score
# Of a plain simulation on NAS-Bench-201's accuracies after 12 epochs, 150 trials, 200 runs.
REFERENCE = {
    "random search": (83.88, 59.47, 36.31),
    "regularized evolution (10, 3)": (84.57, 60.97, 37.80),
    "regularized evolution (30, 10)": (84.79, 61.23, 38.19),
    "local search": (84.89, 61.30, 38.49),
}
REFERENCE_TASKS = ("cifar10", "cifar100", "imagenet16")


def best_so_far(agent: str, seeds: NDArray[np.int64], table: str, task: str, trials: int) -> NDArray[np.float64]:
    """The best reward of a search after each trial, float64[seeds, trials]."""
    torch.set_num_threads(1)
    evaluator = TabularEvaluator(make_space("bench201"), table=table, task=task)
    name, hyperparameters = AGENTS[agent]
    settings = load_hyperparameters(name, ENVIRONMENT, hyperparameters, trials=trials)
    env = gym.make_vec(ENVIRONMENT, num_envs=batch_size_of(agent_class(name), settings), evaluator=evaluator)
    rewards = [make_agent(name, env, int(seed), settings).learn(trials).rewards for seed in seeds]
    found: NDArray[np.float64] = np.maximum.accumulate(rewards, axis=1)
    return found


def interquartile_mean(sample: NDArray[np.float64], axis: int = -1) -> Any:
    """The mean of the middle half."""
    return stats.trim_mean(sample, 0.25, axis=axis)


def main(
    table: Annotated[str | None, tyro.conf.Positional] = None,
    runs: int = 500,
    trials: int = 150,
    tasks: tuple[str, ...] = (),
    agents: tuple[str, ...] = tuple(AGENTS),
    processes: int = 1,
) -> None:
    """Runs the searches and prints the table.

    Args:
        table: path or name of a table of the space bench201.
        runs: searches of each agent, on each task.
        trials: architectures a search.
        tasks: of the table; all by default.
        agents: rows of the table that is printed; all by default.
        processes: that share the runs.
    """
    table = table or DEFAULTS["bench201"]
    print(f"{table}: {runs} runs of {trials} trials, best validation accuracy in percent")
    print(
        f"{'agent':32}{'task':12} {'IQM':>6} {'reference':>9} {'mean':>6} {'95 % interval':15} {'score at':>17} "
        f"{'close':>6} {'trials':>6} {'trials/s':>8}"
    )
    with ProcessPoolExecutor(processes) as pool:
        for agent in agents:
            for task in tasks or open_table(table).tasks:
                play = partial(best_so_far, agent, table=table, task=task, trials=trials)
                start = time.perf_counter()
                best = np.concatenate(list(pool.map(play, np.array_split(np.arange(runs), processes))))
                rate = runs * trials / (time.perf_counter() - start)
                _report(agent, task, best, TabularEvaluator(make_space("bench201"), table=table, task=task), rate)


def _report(
    agent: str, task: str, best: NDArray[np.float64], evaluator: TabularEvaluator, trials_per_second: float
) -> None:
    last, trials = 100 * best[:, -1], best.shape[1]
    interval = stats.bootstrap(
        (last,), np.mean, method="percentile", n_resamples=2000, rng=np.random.default_rng(0)
    ).confidence_interval
    known = ""
    if task in REFERENCE_TASKS and agent in REFERENCE:
        known = f"{REFERENCE[agent][REFERENCE_TASKS.index(task)]:.2f}"
    scores = evaluator.normalised_score(best.flatten()).reshape(best.shape)
    at = " ".join(f"{scores[:, max(count, 1) - 1].mean():.3f}" for count in (trials // 5, trials // 2, trials))
    close = scores >= 1 - CLOSE
    needed = np.where(close.any(axis=1), close.argmax(axis=1) + 1, trials)
    print(
        f"{agent:32}{task:12} {float(interquartile_mean(last)):6.2f} {known:>9} {last.mean():6.2f} "
        f"[{interval.low:.2f}, {interval.high:.2f}]  {at:>17} {close.any(axis=1).mean():6.2f} "
        f"{np.median(needed):6.0f} {trials_per_second:8,.0f}",
        flush=True,
    )


if __name__ == "__main__":
    tyro.cli(main)
