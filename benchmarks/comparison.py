"""Is what `nas-gym train` finds better than a random architecture, and than the best network made by hand?

Makes whole runs with different seeds, or takes them up where they were left, and prints what their comparisons say: for
each run the two differences of test accuracy in points, with their 95 % intervals (see docs/comparison.md), and the
seconds that it took; then, over the seeds, the mean differences with Student's 95 % interval.

    python benchmarks/comparison.py --seeds 5
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from scipy import stats

from nas_gym.experiments.cli.app import Pairs
from nas_gym.experiments.intervals import Difference
from nas_gym.experiments.run.config import RunConfig
from nas_gym.experiments.run.pairs import parse_pairs
from nas_gym.experiments.run.run import Run


def text(difference: Difference | None) -> str:
    """A difference in points, with its interval."""
    if difference is None:
        return "-"
    low, high = (100 * (bound or 0.0) for bound in (difference.low, difference.high))
    return f"{100 * difference.value:+.2f} [{low:+.2f}, {high:+.2f}]"


def interval(differences: list[float]) -> str:
    """The mean over the seeds in points, with Student's 95 % interval."""
    low, high = stats.t.interval(0.95, len(differences) - 1, np.mean(differences), stats.sem(differences))
    return f"{100 * np.mean(differences):+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"


def main(
    config: Annotated[RunConfig, tyro.conf.arg(name="")],
    seeds: int = 5,
    first_seed: int = 0,
    env_params: Pairs = (),
    params: Pairs = (),
    folder: Path = Path("runs/comparison"),
) -> None:
    """Runs what is missing and prints the table.

    Args:
        config: of the runs, but for their seeds; by default that of `nas-gym train`.
        seeds: how many runs.
        first_seed: the seed of the first of them.
        env_params: further arguments of the environment, such as evaluator:from-scratch.
        params: hyperparameters of the agent, where they differ.
        folder: where the runs are kept, in folders ``seed0``, ``seed1``, ...
    """
    config = dataclasses.replace(config, env_kwargs=parse_pairs(env_params), hyperparameters=parse_pairs(params))
    gains: dict[str, list[float]] = {"random": [], "reference": []}
    print("| seed | found | random | by hand | found - random | found - by hand | flops / random | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for seed in range(first_seed, first_seed + seeds):
        path, start = folder / f"seed{seed}", time.monotonic()
        begins = not (path / "config.yaml").exists()
        run = Run(path, dataclasses.replace(config, seed=seed) if begins else None, Console(quiet=True))
        run.execute()
        comparison = run.comparison
        if comparison is None:
            raise ValueError("a run without a comparison has nothing to show: leave out retrain_epochs")
        groups = {role: comparison.group(role) for role in gains}
        tests = [f"{group.test.mean:.4f}" if group else "-" for group in (comparison.found, *groups.values())]
        differences = {role: comparison.difference(role) for role in gains}
        for role, difference in differences.items():
            if difference is not None:
                gains[role].append(difference.value)
        ours, theirs = comparison.found.cost("flops"), groups["random"].cost("flops") if groups["random"] else None
        ratio = f"{ours / theirs:.2f}" if ours and theirs else "-"
        cells = [*tests, *map(text, differences.values()), ratio, f"{time.monotonic() - start:.0f}"]
        print(f"| {seed} | {' | '.join(cells)} |", flush=True)
    for role, values in gains.items():
        if len(values) > 1:
            print(f"found - {role}, mean over the seeds: {interval(values)}")


if __name__ == "__main__":
    tyro.cli(main)
