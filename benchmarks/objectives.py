"""What searches find under different objectives: accuracy, latency, and the hypervolume of their Pareto fronts.

    python benchmarks/objectives.py [--task cora] [--target 0.001] [--seeds 50] [--agent regularized-evolution]

On NAS-Bench-Graph, whose table has a measured latency. With every objective the agent searches once from each seed; its
best trial is that of the highest reward. The hypervolume is that of all trials of a search, between accuracy and
latency, beyond an accuracy of 0.7 and 7 ms. `--picture FILE.png` draws the first search with the soft constraint.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from scipy import stats

import nas_gym  # noqa: F401  # registers the environments
from nas_gym.agents import SearchResult, make_agent
from nas_gym.experiments.plotting import pareto_picture, write_figures

REFERENCE = {"accuracy": 0.7, "latency": 0.007}
Row = tuple[str, Any, dict[str, Any]]


def rows(target: float) -> list[Row]:
    """What stands in the table: a name, the objective, and arguments of the evaluator."""
    soft = {"name": "soft-constraint", "metric": "latency", "target": target}
    linear = {"name": "linear", "weights": {"accuracy": 1.0, "latency": -20.0}, "worst": -1.0}
    return [
        ("`accuracy`", "accuracy", {}),
        ("`soft-constraint`", soft, {}),
        ("`soft-constraint`, exponents 0 and -1", {**soft, "exponent": -1.0, "exponent_below": 0.0}, {}),
        ("`linear`, 20 of accuracy a second", linear, {}),
        ("`accuracy` with a limit", "accuracy", {"cost": {"metrics": [], "limits": {"latency": target}}}),
    ]


def search(agent: str, task: str, objective: Any, evaluator_kwargs: dict[str, Any], seed: int) -> SearchResult:
    """150 trials, one at a time."""
    arguments = {"task": task, "objective": objective, "evaluator_kwargs": evaluator_kwargs}
    return make_agent(agent, gym.make_vec("NAS-BenchGraph-v0", num_envs=1, **arguments), seed).learn(150)


def main(
    agent: str = "regularized-evolution",
    task: str = "cora",
    target: float = 0.001,
    seeds: int = 50,
    picture: Path | None = None,
) -> None:
    """Prints a Markdown table."""
    logging.getLogger("nas_gym").setLevel(logging.ERROR)  # it tells every trial that is over the limit
    print(f"| objective | accuracy | latency, ms | at most {1000 * target:g} ms | hypervolume x 1000, 95 % interval |")
    print("|---|---|---|---|---|")
    for name, objective, evaluator_kwargs in rows(target):
        results = [search(agent, task, objective, evaluator_kwargs, seed) for seed in range(seeds)]
        sound = [result.metrics for result in results if not result.metrics["failed"][result.best_trial]]
        best = [result.best_trial for result in results if not result.metrics["failed"][result.best_trial]]
        accuracy, latency = (
            np.array([metrics[column][row] for metrics, row in zip(sound, best, strict=True)])
            for column in ("accuracy", "latency")
        )
        volumes = [1000 * result.hypervolume(REFERENCE) for result in results]
        bounds = stats.bootstrap(
            (volumes,), np.mean, method="percentile", rng=np.random.default_rng(0)
        ).confidence_interval
        kept = f"{(latency <= target).sum()} of {seeds}"
        print(
            f"| {name} | {accuracy.mean():.4f} | {1000 * latency.mean():.2f} | {kept} | {np.mean(volumes):.3f} "
            f"[{bounds.low:.3f}, {bounds.high:.3f}] |",
            flush=True,
        )
    if picture is not None:
        drawn = pareto_picture(search(agent, task, *rows(target)[1][1:], 0), "latency")
        with tempfile.TemporaryDirectory() as folder:
            write_figures([drawn], Path(folder))
            shutil.copy(Path(folder) / f"{drawn.name}.png", picture)


if __name__ == "__main__":
    tyro.cli(main)
