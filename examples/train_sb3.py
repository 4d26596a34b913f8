"""Trains sb3-contrib's MaskablePPO by its own loop: the environments are ordinary ones, with `action_masks`.

The same algorithm as an agent of this package, which can be compared and resumed like any other, is `sb3:maskable-ppo`
(docs/agents/stable_baselines.md). Takes seconds on a CPU.
"""

from __future__ import annotations

import gymnasium as gym
from sb3_contrib import MaskablePPO
from stable_baselines3.common.callbacks import BaseCallback

import nas_gym  # noqa: F401  # registers the environments


class Best(BaseCallback):
    """Keeps the best architecture, which stands in the information of an episode's last step."""

    accuracy, architecture = 0.0, None

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "architecture" in info and info["evaluation"]["accuracy"] > self.accuracy:
                self.accuracy, self.architecture = info["evaluation"]["accuracy"], info["architecture"]
        return True


def main(trials: int = 300, seed: int = 0) -> float:
    """Returns the validation accuracy of the best architecture."""
    env = gym.make("NAS-Bench201-v0")
    space = env.unwrapped.search_space
    best = Best()
    settings = {"n_steps": 10 * space.length, "batch_size": 20, "learning_rate": 1e-3, "gamma": 1.0}
    MaskablePPO("MlpPolicy", env, seed=seed, **settings).learn(trials * space.length, best)
    print(f"best of {trials} trials: {space.architecture(best.architecture)}")
    print(f"its validation accuracy is {best.accuracy:.4f}")
    return best.accuracy


if __name__ == "__main__":
    main()
