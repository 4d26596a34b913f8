"""What the controller adds to a search with shared weights, judged by the very same weights.

For each seed a whole run (`nas-gym train --retrain-epochs 0`) is made, or taken up where it was left. Then, with the
weights that it ended with, which are trained no further:

- its last 100 trials and 100 architectures drawn uniformly are scored once more, on all validation images;
- the other agents search for as many trials, each from its own start. A trial is scored on the same number of images
  for all of them, which takes nearly all of the time.

Reported, over the seeds and with Student's 95 % intervals: the differences to uniform draws, of the mean score of the
last 100 trials of each agent and of the score of its best trial; and the processor seconds of each search.

    python benchmarks/search_quality.py --seeds 5 --folder runs/quality
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import tyro
from numpy.typing import NDArray
from scipy import stats

import nas_gym  # noqa: F401  # registers the environments
from nas_gym.agents import SearchResult, agent_class, make_agent
from nas_gym.agents.registry import batch_size_of, load_hyperparameters
from nas_gym.evaluators import make_objective
from nas_gym.evaluators.shared_weights import SharedWeightEvaluator
from nas_gym.experiments.cli.app import Pairs
from nas_gym.experiments.run.config import RunConfig
from nas_gym.experiments.run.pairs import parse_pairs
from nas_gym.experiments.run.run import Run
from nas_gym.spaces import Tokens

LAST = 100
Floats = NDArray[np.float64]


def scores(evaluator: SharedWeightEvaluator, tokens: Tokens) -> Floats:
    """The objective of architectures on all validation images, float64[B]."""
    settings = evaluator.settings
    evaluator.settings = dataclasses.replace(settings, score_images=None)
    try:
        return make_objective(evaluator.objective)(evaluator.evaluate(tokens))
    finally:
        evaluator.settings = settings


def search(agent: str, env_id: str, evaluator: SharedWeightEvaluator, seed: int, trials: int) -> SearchResult:
    """A search by another agent, with weights that are not trained."""
    settings = load_hyperparameters(agent, env_id, decisions=evaluator.space.length, trials=trials)
    env = gym.make_vec(
        env_id,
        num_envs=batch_size_of(agent_class(agent), settings),
        evaluator=evaluator,
        schedule={"name": "uniform", "warmup_steps": 0},
    )
    return make_agent(agent, env, seed, settings).learn(trials)


def gains(result: SearchResult, evaluator: SharedWeightEvaluator, uniform: Floats) -> tuple[float, float]:
    """How far the last trials, and the best one, are above uniform draws."""
    last, best = result.tokens[-LAST:], result.tokens[[result.best_trial]]
    return float(scores(evaluator, last).mean() - uniform.mean()), float(scores(evaluator, best)[0] - uniform.mean())


def interval(values: list[float]) -> str:
    """Mean and Student's 95 % interval."""
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    return f"{np.mean(values):+.4f} [{low:+.4f}, {high:+.4f}]"


def main(
    task: str | None = None,
    trials: int = 300,
    seeds: int = 5,
    first_seed: int = 0,
    env: str = "NAS-Cell-v0",
    agent: str = "reinforce",
    params: Pairs = (),
    others: tuple[str, ...] = ("regularized-evolution", "local-search", "random"),
    folder: Path = Path("runs/quality"),
) -> None:
    """Runs what is missing and prints the table.

    Args:
        task: name of the task; the environment's own by default.
        trials: of each search.
        seeds: how many runs.
        first_seed: the seed of the first of them.
        env: the environment.
        agent: the agent of the runs.
        params: its hyperparameters, where they differ.
        others: agents that search with the runs' weights.
        folder: where the runs are kept, in folders ``seed0``, ``seed1``, ...
    """
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in (agent, *others)}
    for seed in range(first_seed, first_seed + seeds):
        path = folder / f"seed{seed}"
        asked = {"env": env, "agent": agent, "task": task, "trials": trials, "hyperparameters": parse_pairs(params)}
        config = RunConfig(**asked, seed=seed, retrain_epochs=0)
        run = Run(path, None if (path / "config.yaml").exists() else config)
        run.execute()
        evaluator = run.problem.evaluator.unwrapped
        assert isinstance(evaluator, SharedWeightEvaluator)
        uniform = scores(evaluator, evaluator.space.sample(np.random.default_rng([seed, 1]), LAST))
        for name in found:
            start = time.process_time()
            result = search(name, env, evaluator, seed, trials) if name != agent else run.agent.result
            seconds = time.process_time() - start if name != agent else np.nan
            found[name].append((*gains(result, evaluator, uniform), seconds))
            print(f"seed {seed} {name}: {found[name][-1]}", flush=True)
    print("| agent | last 100 trials - uniform | best trial - uniform | processor seconds |\n|---|---|---|---|")
    for name, rows in found.items():
        last, best, spent = (list(column) for column in zip(*rows, strict=True))
        print(f"| {name} | {interval(last)} | {interval(best)} | {np.mean(spent):.0f} |")


if __name__ == "__main__":
    tyro.cli(main)
