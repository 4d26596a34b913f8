"""Teaches one controller seven tasks of NAS-Bench-Graph, and goes on with it to the eighth.

Takes seconds on a CPU; needs the package nas-bench-graph.
"""

from __future__ import annotations

import gymnasium as gym

import nas_gym  # noqa: F401  # registers the environments
from nas_gym.agents import Agent, MultiTask, make_agent
from nas_gym.tables.bench_graph import TASKS


def main(new_task: str = "photo", source_trials: int = 300, trials: int = 50) -> float:
    """Returns by how much the first ten trials on the new task are better than from scratch, in the mean."""
    sources = [task for task in TASKS if task != new_task]
    env = gym.make_vec("NAS-MultiTask-v0", num_envs=10 * len(sources), base="NAS-BenchGraph-v0", tasks=sources)
    agent = make_agent("multitask", env, seed=0)
    learned = agent.learn(source_trials * len(sources))
    print(f"{len(learned)} trials on {', '.join(agent.tasks)}")
    agent.save("pretrained.pt")

    means = {}
    env = gym.make_vec("NAS-BenchGraph-v0", num_envs=10, task=new_task)
    agents: dict[str, Agent] = {
        "from scratch": MultiTask(env, seed=0),
        "transfer": MultiTask.from_pretrained("pretrained.pt", env, seed=0),
    }
    for name, agent in agents.items():
        result = agent.learn(trials)
        means[name] = float(result.rewards[:10].mean())
        print(
            f"{new_task}, {name}: the first ten architectures have a mean accuracy of {means[name]:.4f}, "
            f"the best of {trials} has {result.best_reward:.4f}"
        )
    return means["transfer"] - means["from scratch"]


if __name__ == "__main__":
    main()
