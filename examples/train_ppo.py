"""Trains the LSTM controller by PPO on a table of NAS-Bench-201, and shows that it learns.

Takes seconds on a CPU.
"""

from __future__ import annotations

import gymnasium as gym

import nas_gym  # noqa: F401  # registers the environments
from nas_gym.agents import PPO, Agent, Callback, SearchResult


class Progress(Callback):
    """Prints a line for every fifty trials."""

    def after_trials(self, agent: Agent, trials: SearchResult, statistics: dict[str, float]) -> None:
        if agent.trials % 50 == 0:
            mean, best = agent.result.rewards[-50:].mean(), agent.result.best_reward
            print(f"{agent.trials:4d} trials: mean of the last 50 {mean:.4f}, best {best:.4f}")


def main(trials: int = 300, seed: int = 0) -> float:
    """Returns by how much the last fifty architectures are better than the first fifty, in the mean."""
    env = gym.make_vec("NAS-Bench201-v0", num_envs=10)
    agent = PPO(env, seed=seed, hyperparameters={"batch_size": 10, "entropy_weight": 0.01})
    result = agent.learn(trials, Progress())
    print(result)
    return float(result.rewards[-50:].mean() - result.rewards[:50].mean())


if __name__ == "__main__":
    main()
