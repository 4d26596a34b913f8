"""Architectures trained per second: together, each with weights of its own, against one after another.

    python benchmarks/training.py [--device cuda] [--together 100 400] [--steps 200]

The same architectures with the same seeds, in one process; the two take turns. What is trained is the table builder's
proxy, by default for as many steps, on random images. Time counts from finished networks to finished weights. As in the
builder, a CPU has one thread, and its own time counts, whatever else the machine does.
"""

from __future__ import annotations

import dataclasses
import platform
import statistics
import time

import numpy as np
import torch
import tyro

from nas_gym.evaluators.task_evaluator import choose_device
from nas_gym.evaluators.training import TrainingSettings, fit
from nas_gym.networks import make_network
from nas_gym.spaces import SearchSpace, make_space
from nas_gym.tables.builder import BuildSettings
from nas_gym.tasks import ImageTask, Split, Task

PROXY = BuildSettings()


def random_task(images: int, size: int, device: torch.device) -> Task:
    """Ten classes of noise, `size` pixels wide."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (images, 1, size, size), generator=generator).to(torch.uint8)
    split = Split(noise, torch.arange(images) % 10)
    task = ImageTask("noise", split, split, split, tuple("0123456789"), (0.5,), (0.3,))
    return task.to(device)


def architectures_per_second(
    space: SearchSpace, task: Task, settings: TrainingSettings, count: int, *, batched: bool
) -> tuple[float, int]:
    """The rate, and how many were trained together: fewer than all of them where memory did not suffice."""
    networks = [
        make_network(space.architecture(row), task.input_shape, task.num_outputs, PROXY.network, seed)
        for seed, row in enumerate(space.sample(np.random.default_rng(0), count))
    ]
    cuda = task.device.type == "cuda"
    clock = time.perf_counter if cuda else time.thread_time
    start = clock()
    curves = fit(networks, task, settings, seeds=range(count), batched=batched)
    if cuda:
        torch.cuda.synchronize()
    return count / (clock() - start), max(curve.together for curve in curves)


def main(
    space: str = "bench201",
    device: str = "auto",
    together: tuple[int, ...] = (10, 100, 400),
    singly: int = 8,
    steps: int = 200,
    repeats: int = 3,
) -> None:
    """Prints the figures, medians.

    Args:
        space: name of the space.
        device: auto takes CUDA if there is one.
        together: architectures trained at once.
        singly: architectures of the loop, the first of them.
        steps: of each training.
        repeats: of each measurement, after a warm-up of a few steps.
    """
    torch.set_num_threads(1)
    chosen, made = choose_device(device), make_space(space)
    batch_size, size = PROXY.training.batch_size, PROXY.image_size or 28
    settings = dataclasses.replace(PROXY.training, epochs=1, record=())
    task, short = (random_task(batch_size * number, size, chosen) for number in (steps, 3))
    cuda = chosen.type == "cuda"
    print(f"{torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine()}, torch", end=" ")
    print(f"{torch.__version__}; {space}, {steps} steps of {batch_size} images of {size}x{size}")
    print(f"{'architectures':>14} {'together':>9} {'batched/s':>10} {'singly/s':>10} {'ratio':>7}")
    for count in together:
        for batched, number in ((True, count), (False, 1)):
            architectures_per_second(made, short, settings, number, batched=batched)
        rates = []
        for _ in range(repeats):
            rate, at_once = architectures_per_second(made, task, settings, count, batched=True)
            rates.append((rate, architectures_per_second(made, task, settings, min(count, singly), batched=False)[0]))
        ours, alone = (statistics.median(column) for column in zip(*rates, strict=True))
        print(f"{count:>14} {at_once:>9} {ours:>10.3f} {alone:>10.3f} {ours / alone:>7.2f}", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
