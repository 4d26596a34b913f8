"""Plans graph neural networks by Monte Carlo tree search, which begins each one where earlier ones were good.

Takes seconds on a CPU; needs the package nas-bench-graph.
"""

from __future__ import annotations

import gymnasium as gym

import nas_gym  # noqa: F401  # registers the environments
from nas_gym.agents import MCTS


def main(trials: int = 300, seed: int = 0) -> float:
    """Returns the share of the last fifty trials that begin like the best one."""
    env = gym.make_vec("NAS-BenchGraph-v0", num_envs=1, task="cora")
    result = MCTS(env, seed=seed).learn(trials)
    print(result)
    first = result.space.decisions[0]
    chosen = result.tokens[:, 0]
    for start in range(0, trials, 50):
        shares = [(chosen[start : start + 50] == choice).mean() for choice in range(len(first.choices))]
        shown = ", ".join(f"{name} {share:.2f}" for name, share in zip(first.choices, shares, strict=True))
        print(f"{first.name} of the trials from {start}: {shown}")
    return float((chosen[-50:] == chosen[result.best_trial]).mean())


if __name__ == "__main__":
    main()
