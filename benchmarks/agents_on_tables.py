"""The agents' table of the README: every agent on NAS-Bench-Graph, normalised best validation accuracy.

python benchmarks/agents_on_tables.py [--task cora] [--seeds 50] [--trials 150]
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import tyro
from scipy import stats

from nas_gym.agents import AGENTS, make_agent
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.spaces import make_space

BATCHED = {"random", "reinforce"}  # the others go on from one trial to the next
SETTINGS = {"regularized-evolution": {"population_size": 30, "sample_size": 10}}


def main(task: str = "cora", seeds: int = 50, trials: int = 150) -> None:
    """Prints the interquartile mean over the seeds, with its 95 % bootstrap interval.

    Args:
        task: of NAS-Bench-Graph.
        seeds: runs of each agent.
        trials: architectures a run.
    """
    evaluator = TabularEvaluator(make_space("bench_graph"), table="nas-bench-graph", task=task)
    print(f"NAS-Bench-Graph, {task}, {trials} trials, {seeds} seeds: 0 is a random architecture, 1 the table's best")
    for name in [name for name in AGENTS if name != "eas"]:  # on tables it has nothing to grow
        if name in BATCHED:
            env = gym.make_vec("NAS-BenchGraph-v0", num_envs=10, evaluator=evaluator)
        else:
            env = gym.make("NAS-BenchGraph-v0", evaluator=evaluator, disable_env_checker=True)
        rewards = [make_agent(name, env, s, SETTINGS.get(name)).learn(trials).best_reward for s in range(seeds)]
        scores = evaluator.normalised_score(np.array(rewards))
        low, high = stats.bootstrap((scores,), _iqm, n_resamples=2000, random_state=0).confidence_interval
        print(f"{name:22s} {_iqm(scores):.3f} [{low:.3f}, {high:.3f}]", flush=True)


def _iqm(sample: np.ndarray, axis: int = -1) -> np.ndarray:
    return stats.trim_mean(sample, 0.25, axis=axis)


if __name__ == "__main__":
    tyro.cli(main)
