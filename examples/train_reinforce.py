"""Searches a convolutional cell on handwritten digits by REINFORCE, then trains the best one from scratch.

Takes a few minutes on two CPU cores; writes best_cell.png.
"""

from __future__ import annotations

import gymnasium as gym

import nas_gym  # noqa: F401  # registers the environments
from nas_gym.agents import Agent, Callback, Reinforce, SearchResult
from nas_gym.envs.rendering import save_picture
from nas_gym.evaluators.training import TrainingSettings, fit
from nas_gym.networks import NetworkSettings, make_network
from nas_gym.tasks import make_task


class Progress(Callback):
    """Prints a line for every batch of trials."""

    def after_trials(self, agent: Agent, trials: SearchResult, statistics: dict[str, float]) -> None:
        best = agent.result.best_reward
        print(f"{agent.trials:4d} trials: mean reward {trials.rewards.mean():.3f}, best so far {best:.3f}")


def main(trials: int = 300, warmup_steps: int = 200, channels: int = 8, epochs: int = 20) -> float:
    """Returns the test accuracy of the best cell."""
    task = make_task("digits", seed=0)
    env = gym.make_vec(
        "NAS-Cell-v0",
        num_envs=10,
        task="digits",
        evaluator_kwargs={"channels": channels},
        schedule={"name": "interleaved", "warmup_steps": warmup_steps},
    )
    print("training shared weights ...")
    result = Reinforce(env, seed=0).learn(trials, Progress())
    print(f"best of {trials} trials, {result.unique_architectures} of them different: {result.best}")
    save_picture(result.best, "best_cell.png")

    network = make_network(result.best, task.image_shape, task.num_classes, NetworkSettings(channels), seed=0)
    settings = TrainingSettings(epochs=epochs, record=("test",), record_all_epochs=False)
    (curve,) = fit([network], task.with_validation_in_training(), settings, seeds=[0])
    accuracy = float(curve.accuracy["test"][-1])
    print(f"trained from scratch, its test accuracy is {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main()
