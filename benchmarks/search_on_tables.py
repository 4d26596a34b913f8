"""Many short searches on a table, played through the environment, beside those of a plain simulation.

    nas-gym table import csv nas_bench_201_12_epochs.csv --out table.npz --space bench201 --percent --epochs 12
    python benchmarks/search_on_tables.py table.npz [--runs 500] [--trials 150] [--tasks cifar10] [--agents TPE]

Without a table it takes that of NAS-Bench201-v0 itself. Printed is the interquartile mean over the runs of the best
validation accuracy, in percent, with a 95 % interval by bootstrap.
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import tyro
from numpy.typing import NDArray
from scipy import stats

from nas_gym.agents import make_agent
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.spaces import make_space
from nas_gym.tables import DEFAULTS, open_table

AGENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "random search": ("random", {}),
    "regularized evolution (10, 3)": ("regularized-evolution", {"population_size": 10, "sample_size": 3}),
    "regularized evolution (30, 10)": ("regularized-evolution", {"population_size": 30, "sample_size": 10}),
    "local search": ("local-search", {}),
    "NSGA-II": ("nsga2", {}),
    "TPE": ("tpe", {}),
    "Monte Carlo tree search": ("mcts", {}),
    "GFlowNet": ("gflownet", {}),
}
# Of a plain simulation on NAS-Bench-201's accuracies after 12 epochs, 150 trials, 200 runs.
REFERENCE = {
    "random search": (83.88, 59.47, 36.31),
    "regularized evolution (10, 3)": (84.57, 60.97, 37.80),
    "regularized evolution (30, 10)": (84.79, 61.23, 38.19),
    "local search": (84.89, 61.30, 38.49),
}
REFERENCE_TASKS = ("cifar10", "cifar100", "imagenet16")


def best_rewards(agent: str, seeds: NDArray[np.int64], table: str, task: str, trials: int) -> list[float]:
    """The best reward of a search for each seed."""
    evaluator = TabularEvaluator(make_space("bench201"), table=table, task=task)
    env = gym.make("NAS-Bench201-v0", evaluator=evaluator, disable_env_checker=True)
    name, hyperparameters = AGENTS[agent]
    return [make_agent(name, env, int(seed), hyperparameters).learn(trials).best_reward for seed in seeds]


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
    print(f"{table}: interquartile mean of {runs} runs of {trials} trials, best validation accuracy in percent")
    print(
        f"{'agent':32} {'task':12} {'IQM':>6}  {'95 % interval':15} {'reference':>9} {'difference':>10} {'trials/s':>9}"
    )
    with ProcessPoolExecutor(processes) as pool:
        for agent in agents:
            for task in tasks or open_table(table).tasks:
                play = partial(best_rewards, agent, table=table, task=task, trials=trials)
                start = time.perf_counter()
                parts = pool.map(play, np.array_split(np.arange(runs), processes))
                best = 100 * np.concatenate([np.array(part) for part in parts])
                rate = runs * trials / (time.perf_counter() - start)
                _report(agent, task, best, rate)


def _report(agent: str, task: str, best: NDArray[np.float64], rate: float) -> None:
    found = float(interquartile_mean(best))
    interval = stats.bootstrap(
        (best,), interquartile_mean, method="percentile", n_resamples=2000, rng=np.random.default_rng(0)
    ).confidence_interval
    known = ""
    if task in REFERENCE_TASKS and agent in REFERENCE:
        reference = REFERENCE[agent][REFERENCE_TASKS.index(task)]
        known = f"{reference:10.2f}{found - reference:+11.2f}"
    shown = f"[{interval.low:.2f}, {interval.high:.2f}]"
    print(f"{agent:32}{task:16}{found:6.2f}  {shown:15}{known:21}{rate:10,.0f}", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
