"""Evolves a Pareto front of graph neural networks, accuracy against latency, with NSGA-II.

Takes seconds on a CPU; needs the package nas-bench-graph.
"""

from __future__ import annotations

import gymnasium as gym

import nas_gym  # noqa: F401  # registers the environments
from nas_gym.agents import NSGA2, RandomSearch

REFERENCE = {"accuracy": 0.6, "latency": 0.02}  # what is worse in either does not count


def main(trials: int = 300, seed: int = 0) -> dict[str, float]:
    """Returns the hypervolumes of the fronts of NSGA-II and of random search."""
    objective = {"name": "vector", "weights": {"accuracy": 1.0, "latency": -1.0}, "worst": [0.0, -1.0]}
    env = gym.make_vec("NAS-BenchGraph-v0", num_envs=10, objective=objective)
    result = NSGA2(env, seed=seed).learn(trials)
    front = result.pareto_front("accuracy", "latency")
    for trial in front[result.metrics["latency"][front].argsort()]:
        accuracy, latency = (result.metrics[name][trial] for name in ("accuracy", "latency"))
        print(f"{accuracy:.4f} {1000 * latency:5.2f} ms  {result.space.architecture(result.tokens[trial])}")
    chance = RandomSearch(gym.make_vec("NAS-BenchGraph-v0", num_envs=10), seed=seed).learn(trials)
    volumes = {"nsga2": result.hypervolume(REFERENCE), "random": chance.hypervolume(REFERENCE)}
    print(", ".join(f"hypervolume of {name} {volume:.6f}" for name, volume in volumes.items()))
    return volumes


if __name__ == "__main__":
    main()
