"""Episodes per second of the LSTM controller: sampling, playing through the environment, and the update.

    python benchmarks/controller.py [--env NAS-Bench201-v0] [--threads 2]

The evaluator is a constant, so that nothing else is timed. As many environments as episodes an update run at once.
"""

from __future__ import annotations

import argparse
import statistics
import time

import gymnasium as gym
import torch

from nas_gym.agents import Reinforce, load_hyperparameters


def episodes_per_second(env_id: str, batch_size: int, repeats: int, episodes: int) -> list[float]:
    """The rate of each repeat, after a warm-up of one batch."""
    env = gym.make_vec(env_id, num_envs=batch_size, evaluator="constant")
    agent = Reinforce(env, hyperparameters=load_hyperparameters("reinforce", env_id, {"batch_size": batch_size}))
    agent.learn(batch_size)
    updates = max(1, episodes // batch_size)
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        agent.learn(updates * batch_size)
        rates.append(updates * batch_size / (time.perf_counter() - start))
    assert agent.updates == 1 + repeats * updates
    return rates


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="NAS-Bench201-v0")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[10, 64, 256, 1024])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--episodes", type=int, default=4096, help="a repeat")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{arguments.env}, torch {torch.__version__}, {arguments.threads} threads, {arguments.repeats} repeats")
    print(f"{'batch':>6} {'episodes/s':>12} {'slowest':>10} {'fastest':>10}")
    for batch_size in arguments.batch_sizes:
        rates = episodes_per_second(arguments.env, batch_size, arguments.repeats, arguments.episodes)
        print(f"{batch_size:>6} {statistics.median(rates):>12,.0f} {min(rates):>10,.0f} {max(rates):>10,.0f}")


if __name__ == "__main__":
    main()
