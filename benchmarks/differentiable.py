"""Gradients, reinforcement learning and evolution on shared weights: the same seconds, and a known truth.

NAS-Bench-201's space on Fashion-MNIST. Every search gets the same processor seconds of one thread. Differentiable
agents train a relaxed network for them, in steps whose number is planned from the time that a few of them take, and end
with the cell of the last trial. The others get a supernet, trained by the default schedule for two thirds of the time,
search with its frozen weights in the rest, and end with the best trial. What a search ends with is looked up in the
bundled table: its accuracy after a training of its own, and the share of all cells that are worse.

Every search is written as it ends: killed at any moment, the same command goes on. When all are there, the tables are
printed and the picture is drawn.

    OMP_NUM_THREADS=1 python benchmarks/differentiable.py --seeds 10
    OMP_NUM_THREADS=1 python benchmarks/differentiable.py --steps-only
"""

from __future__ import annotations

import csv
import resource
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from rich.progress import track
from scipy import stats

from nas_gym.agents import Agent, Callback, SearchResult, make_agent
from nas_gym.envs.problem import make_vector
from nas_gym.evaluators import Schedule
from nas_gym.evaluators.relaxed import RelaxedEvaluator
from nas_gym.evaluators.shared_weights import SharedWeightEvaluator
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.spaces import make_space

TASK = "fashion-mnist"
ENVIRONMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "bench201": ("NAS-Bench201-v0", {}),
    "cell:darts": ("NAS-Cell-v0", {"space": "cell:darts"}),
}
"""Of each space the id and further arguments."""
TRIALS = 12  # of a differentiable search
WARM_UP = 2 / 3  # share of the seconds in which the supernet of the others is trained
MANY = 10**6  # trials: more than there is time for
BATCH = 10  # trials of the others between two looks at the clock
SHOWN = 0.74, 0.845  # accuracies shown: cells without a path from input to output, at 0.1, lie below
FREE = ("none", "skip_connect", "avg_pool_3x3")  # operations without weights

RELAXED: dict[str, tuple[str, dict[str, Any]]] = {
    "darts, first order": ("darts", {}),
    "darts, second order": ("darts", {"order": 2}),
    "snas": ("snas", {}),
    "gdas": ("gdas", {}),
    "drnas": ("drnas", {}),
    "rsps": ("rsps", {"candidates": 25}),
}
REMEDIES: dict[str, tuple[str, dict[str, Any]]] = {
    "darts, early stopping": ("darts", {"early_stopping": True}),
    "darts, random perturbation": ("darts", {"perturbation": "random"}),
    "darts, adversarial perturbation": ("darts", {"perturbation": "adversarial"}),
    "darts, fair": ("darts", {"fair": True, "learning_rate": 0.06}),
    "darts, at most two skips": ("darts", {"max_skips": 2}),
    "darts, selection by removal": ("darts", {"selection": "removal"}),
}
SHARED: dict[str, tuple[str, dict[str, Any]]] = {
    "reinforce": ("reinforce", {}),
    "dyna": ("dyna", {}),
    "regularized evolution": ("regularized-evolution", {}),
    "random search": ("random", {}),
}
COLUMNS = ("method", "seed", "seconds", "steps", "tokens")


class Clock(Callback):
    """Notes after each batch of trials the processor seconds so far and the cell that the search would end with."""

    def __init__(self, start: float, seconds: float, ends_with_best: bool) -> None:
        self.start, self.seconds, self.ends_with_best = start, seconds, ends_with_best
        self.rows: list[tuple[float, str]] = []

    def after_trials(self, agent: Agent, trials: SearchResult, statistics: dict[str, float]) -> bool:
        result = agent.result
        cell = result.tokens[result.best_trial if self.ends_with_best else -1]
        self.rows.append((time.process_time() - self.start, "".join(map(str, cell))))
        return self.rows[-1][0] < self.seconds


def relaxed_search(
    agent: str, settings: dict[str, Any], seed: int, seconds: float, space: str = "bench201"
) -> tuple[list[tuple[float, str]], int]:
    """What a differentiable search would have ended with after each trial, and the steps between two trials."""
    steps = planned_steps(agent, settings, seed, seconds, space)
    made = _relaxed(agent, {**settings, "steps_per_trial": steps, "horizon": TRIALS}, seed, space)
    clock = Clock(time.process_time(), float("inf"), ends_with_best=False)
    made.learn(TRIALS, clock)
    return clock.rows, steps


def planned_steps(agent: str, settings: dict[str, Any], seed: int, seconds: float, space: str) -> int:
    """Steps between two of `TRIALS` trials that take so many seconds in all."""
    few = 5
    made = _relaxed(agent, {**settings, "steps_per_trial": few}, seed, space)
    made.learn(1)  # what is slow the first time
    start = time.process_time()
    for _ in made.prepare():
        pass
    trained = time.process_time()
    made.learn(1)
    step, trial = (trained - start) / few, time.process_time() - trained
    return max(1, round((seconds / TRIALS - trial) / step))


def _relaxed(agent: str, settings: dict[str, Any], seed: int, space: str) -> Agent:
    id, arguments = ENVIRONMENTS[space]
    evaluator = RelaxedEvaluator(make_space(space), TASK, seed=seed, device="cpu")
    env = gym.make(id, evaluator=evaluator, objective="likelihood", **arguments)
    return make_agent(agent, env, seed, settings)


def shared_searches(
    names: Sequence[str], seed: int, seconds: float, space_name: str = "bench201"
) -> Iterator[tuple[str, list[tuple[float, str]], int]]:
    """The same of searches with one supernet, which is trained once and counts for each of them."""
    space, few = make_space(space_name), 20
    id, arguments = ENVIRONMENTS[space_name]
    trained_for(SharedWeightEvaluator(space, TASK, seed=seed, device="cpu"), few, seed)  # what is slow the first time
    step = trained_for(SharedWeightEvaluator(space, TASK, seed=seed, device="cpu"), few, seed) / few
    steps = round(WARM_UP * seconds / step)
    evaluator = SharedWeightEvaluator(space, TASK, seed=seed, device="cpu")
    trained, schedule = trained_for(evaluator, steps, seed), Schedule(evaluator)
    for name in names:
        agent, settings = SHARED[name]
        env = make_vector(id, BATCH, evaluator=evaluator, schedule=schedule, objective="likelihood", **arguments)
        made = make_agent(agent, env, seed, settings)
        clock = Clock(time.process_time() - trained, seconds, ends_with_best=True)
        made.learn(min(space.size, MANY), clock)
        yield name, clock.rows, steps


def trained_for(evaluator: SharedWeightEvaluator, steps: int, seed: int) -> float:
    """The processor seconds of a warm-up of uniform architectures, one a step."""
    rng, start = np.random.default_rng(seed), time.process_time()
    evaluator.plan_updates(steps)
    for _ in range(steps):
        evaluator.update(evaluator.space.sample(rng, 1))
    return time.process_time() - start


# ---------------------------------------------------------------------- results


def read(path: Path) -> dict[tuple[str, int], list[dict[str, str]]]:
    """The rows of each search that is whole, by method and seed."""
    found: dict[tuple[str, int], list[dict[str, str]]] = {}
    if path.exists():
        with path.open() as file:
            for row in csv.DictReader(file):
                found.setdefault((row["method"], int(row["seed"])), []).append(row)
    return found


def write(path: Path, method: str, seed: int, rows: Iterable[tuple[float, str]], steps: int) -> None:
    """Adds a search, in one piece."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "" if path.exists() else ",".join(COLUMNS) + "\n"
    text += "".join(f'"{method}",{seed},{seconds:.2f},{steps},{tokens}\n' for seconds, tokens in rows)
    with path.open("a") as file:
        file.write(text)


def report(path: Path, picture: Path) -> None:
    """Prints the table, and draws the accuracy of what the searches would end with against seconds."""
    table = TabularEvaluator(make_space("bench201"))
    everything = table.evaluate(np.array(list(np.ndindex(*[5] * 6)))).accuracy
    operations = np.array(make_space("bench201").operations)

    def truth(row: dict[str, str]) -> float:
        return float(table.evaluate(np.array([[int(token) for token in row["tokens"]]])).accuracy[0])

    searches = read(path)
    print(f"all cells: mean {everything.mean():.4f}, best {everything.max():.4f}")
    print("| method | seeds | accuracy | percentile | operations without weights, of 6 | steps | seconds |")
    print("|---|---|---|---|---|---|---|")
    curves = {}
    for method in (*RELAXED, *REMEDIES, *SHARED):
        own = [rows for (name, _), rows in searches.items() if name == method]
        if not own:
            continue
        ends = [rows[-1] for rows in own]
        accuracy = np.array([truth(row) for row in ends])
        percentile = np.array([100 * np.mean(everything < value) for value in accuracy])
        free = np.array([np.isin(operations[[int(t) for t in row["tokens"]]], FREE).sum() for row in ends])
        steps = np.mean([int(row["steps"]) for row in ends]) * (TRIALS if method not in SHARED else 1)
        seconds = np.mean([float(row["seconds"]) for row in ends])
        print(
            f"| {method} | {len(own)} | {interval(accuracy, 4)} | {interval(percentile, 0)} | {free.mean():.1f} | "
            f"{steps:,.0f} | {seconds:.0f} |"
        )
        curves[method] = [[(float(row["seconds"]), truth(row)) for row in rows] for rows in own]
    draw(curves, picture, float(everything.mean()))


def interval(sample: np.ndarray, digits: int) -> str:
    """The mean, with Student's 95 % interval."""
    half = stats.sem(sample) * stats.t.ppf(0.975, len(sample) - 1) if len(sample) > 1 else np.nan
    return f"{sample.mean():.{digits}f} [{sample.mean() - half:.{digits}f}, {sample.mean() + half:.{digits}f}]"


def draw(curves: dict[str, list[list[tuple[float, float]]]], path: Path, chance: float) -> None:
    """Means over the seeds of what the searches would end with, against processor seconds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    groups = {"Methods": (*RELAXED, *SHARED), "DARTS and remedies": ("darts, first order", *REMEDIES)}
    for axes, (title, methods) in zip(panels, groups.items(), strict=True):
        for number, method in enumerate(m for m in methods if m in curves):
            at = np.linspace(0, max(rows[-1][0] for rows in curves[method]), 200)
            values = [
                [next((v for s, v in reversed(rows) if s <= moment), np.nan) for moment in at]
                for rows in curves[method]
            ]
            known = ~np.isnan(values).any(axis=0)
            style = "--" if method in SHARED else "-"
            axes.plot(at[known], np.mean(values, axis=0)[known], style, color=f"C{number % 10}", label=method)
        axes.axhline(chance, color="grey", linewidth=0.8, linestyle=":", label="mean of all cells")
        axes.set(title=title, xlabel="processor seconds")
        axes.legend(fontsize=7)
    panels[0].set(ylabel="accuracy of the cell, trained alone", ylim=SHOWN)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


# ---------------------------------------------------------------------- a step


def time_steps(spaces: Sequence[str] = ("bench201", "cell:darts"), repeats: int = 8) -> None:
    """Prints seconds and memory of a step of a relaxed network and of one of a single path."""
    print("| space | step | processor seconds, of one path = 1 | peak memory of the process, MB |")
    print("|---|---|---|---|")
    for name in spaces:
        evaluator = RelaxedEvaluator(make_space(name), TASK, device="cpu")
        edges, operations = evaluator.edges.shape
        rng = np.random.default_rng(0)
        dense = rng.dirichlet(np.ones(operations), edges)
        paths = evaluator.edges.weights(evaluator.space.sample(rng, 4 * repeats))
        steps = {
            "one path": lambda i: evaluator.relaxed_step(paths[i]),  # noqa: B023
            "all operations": lambda i: evaluator.relaxed_step(dense),  # noqa: B023
            "gradient of the mixture": lambda i: evaluator.mixture_gradient(dense),  # noqa: B023
            "the same, second order": lambda i: evaluator.mixture_gradient(dense, unrolled=True),  # noqa: B023
        }
        alone = 0.0
        for label, step in steps.items():
            step(0)
            start = time.process_time()
            for number in range(4 * repeats if label == "one path" else repeats):
                step(number)
            each = (time.process_time() - start) / (4 * repeats if label == "one path" else repeats)
            alone = alone or each
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"| `{name}` | {label} | {each:.3f}, {each / alone:.1f} | {memory:,.0f} |", flush=True)


def main(
    seeds: int = 10,
    first_seed: int = 0,
    seconds: float = 40.0,
    remedies: int = 5,
    out: Path = Path("docs/differentiable/searches.csv"),
    picture: Path = Path("docs/pictures/differentiable.png"),
    steps_only: bool = False,
) -> None:
    """Runs the searches that are missing and reports.

    Args:
        seeds: searches of each method.
        first_seed: the seed of the first.
        seconds: of processor time, of each search.
        remedies: seeds with the remedies of DARTS.
        out: where the searches are written.
        picture: where it is drawn.
        steps_only: print what a step costs instead.
    """
    torch.set_num_threads(1)
    if steps_only:
        time_steps()
        return
    every = range(first_seed, first_seed + seeds)
    for seed in track(every, "seeds"):
        search(RELAXED, seed, seconds, out)
        missing = [method for method in SHARED if (method, seed) not in read(out)]
        if missing:
            for method, rows, steps in shared_searches(missing, seed, seconds):
                write(out, method, seed, rows, steps)
    for seed in track(every[:remedies], "seeds of the remedies"):
        search(REMEDIES, seed, seconds, out)
    report(out, picture)


def search(methods: dict[str, tuple[str, dict[str, Any]]], seed: int, seconds: float, out: Path) -> None:
    """Runs the differentiable searches of a seed that are missing."""
    for method, (agent, settings) in methods.items():
        if (method, seed) not in read(out):
            write(out, method, seed, *relaxed_search(agent, settings, seed, seconds))


if __name__ == "__main__":
    tyro.cli(main)
