"""Does the controller find better architectures than chance does, judged by the very same weights?

For each seed a whole run (`nas-gym train --retrain-epochs 0`) is made, or taken up where it was left. Then its last 100
trials and 100 architectures drawn uniformly are scored once more with the weights that the run ended with, so that
the progress of the weights themselves plays no part. Reported: the difference of the two means, by seed, and over the
seeds its mean with Student's 95 % interval.

    python benchmarks/search_quality.py --task fashion-mnist --trials 300 --seeds 5 --folder runs/quality
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tyro
from scipy import stats

from nas_gym.experiments.run.config import RunConfig
from nas_gym.experiments.run.run import Run


def differences(run: Run, trials: int = 100) -> tuple[float, float]:
    """Mean accuracy of the last trials of a finished run, and of as many random ones, with its last weights."""
    evaluator = run.problem.evaluator
    last = run.agent.result.tokens[-trials:]
    uniform = evaluator.space.sample(np.random.default_rng([run.config.seed, 1]), trials)
    return tuple(float(evaluator.evaluate(tokens).accuracy.mean()) for tokens in (last, uniform))  # type: ignore[return-value]


def main(
    task: str = "digits",
    trials: int = 300,
    seeds: int = 5,
    first_seed: int = 0,
    env: str = "NAS-Cell-v0",
    agent: str = "reinforce",
    folder: Path = Path("runs/quality"),
) -> None:
    """Runs what is missing and prints the table.

    Args:
        task: name of the task.
        trials: of each run.
        seeds: how many runs.
        first_seed: the seed of the first of them.
        env: the environment.
        agent: the agent.
        folder: where the runs are kept.
    """
    gains = []
    print(f"{env}, {agent}, {task}, {trials} trials: mean validation accuracy with the weights at the end")
    print("seed  last 100  random 100  difference")
    for seed in range(first_seed, first_seed + seeds):
        path = folder / f"{env}_{agent}_{task}_{trials}_seed{seed}"
        config = RunConfig(env=env, agent=agent, task=task, trials=trials, seed=seed, retrain_epochs=0)
        run = Run(path, None if (path / "config.yaml").exists() else config)
        run.execute()
        last, uniform = differences(run)
        gains.append(last - uniform)
        print(f"{seed:4d}  {last:8.4f}  {uniform:10.4f}  {gains[-1]:+10.4f}", flush=True)
    if len(gains) > 1:
        low, high = stats.t.interval(0.95, len(gains) - 1, np.mean(gains), stats.sem(gains))
        print(f"mean difference {np.mean(gains):+.4f}, 95 % interval [{low:+.4f}, {high:+.4f}], {len(gains)} seeds")


if __name__ == "__main__":
    tyro.cli(main)
