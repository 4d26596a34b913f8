"""Grows a small network on handwritten digits by EAS, and shows what it has grown into.

Takes about a minute on a CPU; writes growth.png, the start network beside the best one found.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from PIL import Image

import nas_gym  # noqa: F401  # registers the environments
from nas_gym.agents import EAS, Agent, Callback, SearchResult
from nas_gym.envs.transformation import growth_picture


class Progress(Callback):
    """Prints a line for every batch of networks."""

    def after_trials(self, agent: Agent, trials: SearchResult, statistics: dict[str, float]) -> None:
        accuracies, best = trials.metrics["accuracy"], agent.result.metrics["accuracy"].max()
        print(f"{agent.trials:4d} networks: mean accuracy {accuracies.mean():.3f}, best so far {best:.3f}")


def main(trials: int = 40, start_epochs: int = 10, epochs: int = 2, max_parameters: int = 300_000) -> float:
    """Returns the validation accuracy of the best network."""
    env = gym.make_vec(
        "NAS-Transform-v0",
        num_envs=10,
        task="digits",
        space={"name": "transformation", "image_shape": (1, 8, 8), "max_parameters": max_parameters},
        evaluator_kwargs={"start_epochs": start_epochs, "epochs": epochs},
    )
    space = env.unwrapped.search_space
    stop = np.full((1, space.length), space.stop)
    start = env.unwrapped.evaluator.evaluate(stop)
    print(f"the start network, {start.metrics['parameters'][0]:,.0f} parameters: accuracy {start.accuracy[0]:.3f}")

    result = EAS(env, seed=0).learn(trials, Progress())
    accuracy, parameters = (result.metrics[name][result.best_trial] for name in ("accuracy", "parameters"))
    grown = space.network(result.best.tokens)
    print(f"best of {trials} networks, {parameters:,.0f} parameters: {grown}")
    Image.fromarray(growth_picture(space.layer_space.start, grown)).save("growth.png")
    print(f"its validation accuracy is {accuracy:.3f}")
    return float(accuracy)


if __name__ == "__main__":
    main()
