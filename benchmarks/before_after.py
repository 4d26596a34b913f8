"""Steps of training in two checkouts of the package, in alternation: how much faster is one than the other?

    git worktree add --detach ../before main
    python benchmarks/before_after.py --before ../before

One process for each checkout; they take turns, step by step, so that what else the machine does meets both alike. Times
are processor time of one thread. Printed are means over the steps of the shortest of `rounds` times, and their ratio. A
`step` is an update of shared weights on a number of architectures, 64 images of Fashion-MNIST; a `fit` is the training
of one network on 640 images; a `relaxed` step is one of all operations of all edges, under as many mixtures.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import tyro

WORKER = """
import json, sys, time
import numpy as np, torch
from nas_gym.evaluators.training import TrainingSettings, fit
from nas_gym.networks import NetworkSettings, make_network
from nas_gym.spaces import make_space
from nas_gym.tasks import make_task

torch.set_num_threads(1)
what, name, count, steps = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
space, task = make_space(name), make_task("fashion-mnist", train_limit=640 if what == "fit" else None)
tokens = space.sample(np.random.default_rng(0), steps * count)
if what == "relaxed":  # older checkouts have none
    from nas_gym.evaluators.relaxed import RelaxedEvaluator as Evaluator
else:
    from nas_gym.evaluators.shared_weights import SharedWeightEvaluator as Evaluator
evaluator = Evaluator(space, task, seed=0, device="cpu")

def step(index):
    evaluator.update(tokens[index * count : (index + 1) * count])

def relaxed(index):
    edges, operations = evaluator.edges.shape
    for mixture in np.random.default_rng(index).dirichlet(np.ones(operations), (count, edges)):
        evaluator.relaxed_step(mixture)

def train(index):
    fit([network], task, TrainingSettings(epochs=1, record=()), seeds=[0])

for line in sys.stdin:
    index = int(line)
    if what == "fit":
        settings = NetworkSettings(8, reductions=1, stem_stride=2)
        network = make_network(space.architecture(tokens[index]), task.input_shape, 10, settings, 0)
    start = time.thread_time()
    {"step": step, "relaxed": relaxed, "fit": train}[what](index)
    print(time.thread_time() - start, flush=True)
"""

WORK = (
    "step cell:enas 1",
    "step cell:enas 4",
    "step bench201 1",
    "step bench201 4",
    "relaxed bench201 1",
    "relaxed cell:darts 1",
    "fit cell:enas 1",
    "fit bench201 1",
)


def worker(checkout: Path, work: str, steps: int) -> subprocess.Popen[str]:
    """A process that does the piece of work whose number it reads, and writes the seconds."""
    variables = os.environ | {"PYTHONPATH": str(checkout.resolve()), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WORKER, *work.split(), str(steps)]
    return subprocess.Popen(command, env=variables, cwd=checkout, text=True, stdin=-1, stdout=-1)


def main(before: Path, after: Path = Path(), work: tuple[str, ...] = WORK, steps: int = 8, rounds: int = 3) -> None:
    """Prints the table.

    Args:
        before: folder of a checkout.
        after: of another.
        work: what is measured: `step`, `relaxed` or `fit`, a space, and the number of architectures of a step.
        steps: how many different ones.
        rounds: how often each is measured.
    """
    print(f"{'milliseconds':<20} {'before':>8} {'after':>8} {'ratio':>6}")
    for name in work:
        workers = [worker(folder, name, steps) for folder in (before, after)]
        times = np.zeros((2, rounds + 1, steps))
        for turn in np.ndindex(rounds + 1, steps):
            for each in (0, 1) if sum(turn) % 2 else (1, 0):
                process = workers[each]
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(f"{turn[1]}\n")
                process.stdin.flush()
                times[each][turn] = float(process.stdout.readline())
        for process in workers:
            process.communicate()
        first, second = 1000 * times[:, 1:].min(axis=1).mean(axis=1)  # the first round warms up
        print(f"{name:<20} {first:>8.1f} {second:>8.1f} {first / second:>6.2f}", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
