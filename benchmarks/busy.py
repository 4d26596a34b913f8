"""How much slower is a training beside other programs: one busy loop on every core?

    python benchmarks/busy.py [--steps 60]

Each row is a process of its own that trains a supernet of ENAS cells and then one network from scratch, alone and then
beside the busy loops; the rows differ in OpenMP's settings, which it reads when torch is loaded. The first row is what
the package does by itself. A program with a fair share of each core takes twice as long.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import tyro

SETTINGS: dict[str, dict[str, str]] = {
    "default": {},
    "spinning": {"OMP_WAIT_POLICY": "ACTIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}

TRAINING = """
import json, sys, time
import numpy as np
from nas_gym.evaluators.shared_weights import SharedWeightEvaluator
from nas_gym.evaluators.training import TrainingSettings, fit
from nas_gym.networks import NetworkSettings, make_network
from nas_gym.spaces import make_space
from nas_gym.tasks import make_task

steps, space = int(sys.argv[1]), make_space("cell:enas")
evaluator = SharedWeightEvaluator(space, "digits", seed=0, device="cpu", channels=16)
tokens = space.sample(np.random.default_rng(0), steps)
task = make_task("digits", train_limit=64 * steps)

def supernet():
    for row in range(steps):
        evaluator.update(tokens[row : row + 1])

def child():
    network = make_network(space.architecture(tokens[0]), task.image_shape, task.num_classes, NetworkSettings(16), 0)
    fit([network], task, TrainingSettings(epochs=1, record=()), seeds=[0])

seconds = []
for work in (supernet, child):
    evaluator.update(tokens[:1])
    start = time.perf_counter()
    work()
    seconds.append(time.perf_counter() - start)
print(json.dumps(seconds))
"""


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """So many processes that only compute."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def seconds(steps: int, variables: dict[str, str]) -> list[float]:
    """Wall-clock time of the supernet's training and of the network's."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-c", TRAINING, str(steps)]
    done = subprocess.run(command, env=plain | variables, stdout=subprocess.PIPE, text=True, check=True)
    found: list[float] = json.loads(done.stdout)
    return found


def main(steps: int = 60, settings: tuple[str, ...] = tuple(SETTINGS)) -> None:
    """Prints the table.

    Args:
        steps: of each training.
        settings: names of `SETTINGS`.
    """
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, {steps} steps: seconds alone, beside {cores} busy loops, ratio")
    print(f"{'OpenMP':<12} {'supernet':>24} {'one network':>24}")
    for name in settings:
        alone = seconds(steps, SETTINGS[name])
        with busy_loops(cores):
            beside = seconds(steps, SETTINGS[name])
        columns = [f"{a:>8.2f} {b:>8.2f} {b / a:>6.2f}" for a, b in zip(alone, beside, strict=True)]
        print(f"{name:<12} {' '.join(columns)}", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
