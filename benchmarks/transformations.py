"""What growing networks by EAS brings: against random growth, and against training from scratch.

    python benchmarks/transformations.py

For each seed, EAS and random transformations grow the same trained start network, through the environment, with the
same number of networks and the same training of each. Half-way both start anew from the best network that they have
found, with its weights. Reported for the start network and for the best one of either:
its parameters, its validation accuracy in the search, and its test accuracy, looked up when the search is over, of the
very weights that the search has trained. Then, over the seeds, means and mean differences, with Student's 95 %
intervals.

Last, what inheriting weights saves. The best architecture of EAS is trained from scratch, with the start network's
learning rate; and once more from the weights that it inherited from the start network, with the search's learning rate,
for a third of the epochs. Told is after how many epochs, and seconds of the processor, each comes for the first time to
the validation accuracy that training from scratch ends with. What the start network has cost is not counted: its
training serves all networks of a search.

Searches run side by side, each in a process of its own with one thread.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import tyro
from scipy import stats

from nas_gym.agents import make_agent
from nas_gym.envs.transformation_vector import TransformationVectorEnv
from nas_gym.evaluators.morphism import MorphismEvaluator
from nas_gym.evaluators.training import fit, score
from nas_gym.spaces import Tokens, TransformationSpace
from nas_gym.tasks import make_task

AGENTS = ("eas", "random")


@dataclass(frozen=True)
class Protocol:
    """What each search may spend.

    Attributes:
        task: an image task.
        trials: networks a search.
        image_size: pixels to which images are resized; None leaves them.
        train_images: the number of training images; None takes them all.
        valid_images: the number of validation images; None takes them all.
        epochs: of training for each grown network.
        learning_rate: of that training. (After 2 epochs at 0.02 grown networks were no better than the start.)
        start_epochs: of training for the start network. (After 10 it is far from what it can reach.)
        restart_after: networks after which the next ones grow out of the best so far; None never.
        scratch_epochs: of the training from scratch at the end; 0 leaves it out.
        max_parameters: of a network.
        max_transformations: of a network.
    """

    task: str = "fashion-mnist"
    trials: int = 40
    image_size: int | None = 14
    train_images: int | None = 2000
    valid_images: int | None = 2000
    epochs: int = 6
    learning_rate: float = 0.01
    start_epochs: int = 40
    restart_after: int | None = 20
    scratch_epochs: int = 30
    max_parameters: int = 150_000
    max_transformations: int = 50


@dataclass(frozen=True)
class Network:
    """What is reported of a network, with the weights of the search."""

    parameters: float
    valid: float
    test: float


@dataclass(frozen=True)
class Reached:
    """When a training came to an accuracy, None and all its seconds if it did not; and the best that it came to."""

    epochs: int | None
    seconds: float
    best: float


@dataclass(frozen=True)
class Search:
    """What came of a search.

    Attributes:
        start: the start network.
        best: the best one found.
        seconds: of the search, by the clock.
        target: the validation accuracy that training the best from scratch ends with; None if it was not trained so.
        scratch: when that training came to it.
        heir: when training from inherited weights did.
    """

    start: Network
    best: Network
    seconds: float
    target: float | None = None
    scratch: Reached | None = None
    heir: Reached | None = None


def search(agent: str, seed: int, protocol: Protocol) -> Search:
    """Searches, and looks up what was found."""
    torch.set_num_threads(1)
    task = make_task(
        protocol.task,
        seed=seed,
        image_size=protocol.image_size,
        train_limit=protocol.train_images,
        valid_limit=protocol.valid_images,
    )
    space = TransformationSpace(
        image_shape=task.image_shape,
        num_classes=task.num_classes,
        max_parameters=protocol.max_parameters,
        max_transformations=protocol.max_transformations,
    )
    settings = {name: getattr(protocol, name) for name in ("epochs", "learning_rate", "start_epochs")}
    evaluator = MorphismEvaluator(space, task, seed=seed, inherit="nearest", **settings)
    envs = TransformationVectorEnv(10, space=space, evaluator=evaluator, restart_after=protocol.restart_after)
    started = time.perf_counter()
    result = make_agent(agent, envs, seed).learn(protocol.trials)
    seconds = time.perf_counter() - started
    best = result.tokens[result.best_trial]
    found = Search(network(evaluator, np.full(space.length, space.stop)), network(evaluator, best), seconds)
    if agent != AGENTS[0] or not protocol.scratch_epochs:
        return found
    # Its start network is trained again, to the same weights: so the heir inherits from that one alone.
    heirs = MorphismEvaluator(space, task, seed=seed, inherit="start", **settings)
    target, scratch, heir = reaching(heirs, best, protocol.scratch_epochs, seed)
    return dataclasses.replace(found, target=target, scratch=scratch, heir=heir)


def network(evaluator: MorphismEvaluator, tokens: Tokens) -> Network:
    """Parameters, validation and test accuracy with the weights of the search."""
    found = evaluator.evaluate(tokens[None])
    trained: Any = evaluator.trained_network(tokens)
    test = score(trained, evaluator.task, evaluator.task.test)
    return Network(float(found.metrics["parameters"][0]), float(found.accuracy[0]), test)


def reaching(evaluator: MorphismEvaluator, tokens: Tokens, epochs: int, seed: int) -> tuple[float, Reached, Reached]:
    """The accuracy that training from scratch ends with, and when that and the heir come to it."""
    fresh: Any = evaluator.new_network(evaluator.space.architecture(tokens), evaluator.task, seed)
    heir: Any = evaluator.grown_network(tokens)
    curves = []
    for trained, length in ((fresh, epochs), (heir, max(1, epochs // 3))):
        settings = evaluator.settings.training(start=trained is fresh)
        settings = dataclasses.replace(settings, epochs=length, record_all_epochs=True)
        curves += fit([trained], evaluator.task, settings, seeds=[seed], clock=time.process_time)
    target = float(curves[0].accuracy["valid"][-1])
    reached = []
    for curve in curves:
        accuracies = curve.accuracy["valid"]
        first = np.flatnonzero(accuracies >= target)
        needed = int(first[0]) + 1 if len(first) else None
        seconds = curve.seconds * (needed or len(accuracies)) / len(accuracies)
        reached.append(Reached(needed, seconds, float(accuracies.max())))
    return target, reached[0], reached[1]


# ---------------------------------------------------------------------- report


def interval(values: Sequence[float], form: str = "+.4f") -> str:
    """The mean with Student's 95 % interval."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:{form}} (one seed: no interval)"
    low, high = stats.t.interval(0.95, len(values) - 1, mean, stats.sem(values))
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def show(seed: int, name: str, row: Network, seconds: float | None = None) -> None:
    """Prints a row of the table."""
    clock = "" if seconds is None else f"{seconds:8.1f}"
    print(f"{seed:4d} {name:<8} {row.parameters:10,.0f} {row.valid:7.4f} {row.test:7.4f} {clock}", flush=True)


def show_saving(found: Search) -> None:
    """Prints when the best network came to its accuracy."""
    if found.target is None or found.scratch is None or found.heir is None:
        return
    words = []
    for name, when in (("from scratch", found.scratch), ("with inherited weights", found.heir)):
        needed = f"{when.epochs} epochs, {when.seconds:.1f} s" if when.epochs else f"not in {when.seconds:.1f} s"
        words.append(f"{name} {needed}, best {when.best:.4f}")
    print(f"     to {found.target:.4f}: {'; '.join(words)}", flush=True)


def summarise(eas: Sequence[Search], random: Sequence[Search]) -> None:
    """Prints the means over the seeds."""
    print(f"means with Student's 95 % intervals, {len(eas)} seeds:")
    for split in ("valid", "test"):
        start, grown, drawn = (
            np.array([getattr(row, split) for row in rows])
            for rows in ([one.start for one in eas], [one.best for one in eas], [one.best for one in random])
        )
        for name, values in (("start", start), ("eas", grown), ("random", drawn)):
            print(f"  {split} accuracy of {name}: {interval(values, '.4f')}")
        print(f"  {split} accuracy, eas - start {interval(grown - start)}, eas - random {interval(grown - drawn)}")
    pairs = [(one.scratch, one.heir) for one in eas if one.scratch is not None and one.heir is not None]
    if not pairs:
        return
    both = [(scratch, heir) for scratch, heir in pairs if scratch.epochs and heir.epochs]
    within = f"{len(both)} of {len(pairs)} came to the accuracy of training from scratch in a third of its epochs"
    print(f"with inherited weights {within}")
    if both:
        epochs = [heir.epochs / scratch.epochs for scratch, heir in both]  # type: ignore[operator]
        seconds = [heir.seconds / scratch.seconds for scratch, heir in both]
        print(f"  and took {interval(epochs, '.3f')} of its epochs and {interval(seconds, '.3f')} of its seconds")


def main(protocol: Protocol, seeds: int = 5, first_seed: int = 0, processes: int = 2) -> None:
    """Prints the tables.

    Args:
        protocol: what each search may spend.
        seeds: how many, each of a search of either agent.
        first_seed: the first of them.
        processes: searches side by side.
    """
    started = time.perf_counter()
    numbers = range(first_seed, first_seed + seeds)
    print(f"{protocol}\n{'seed':>4} {'network':<8} {'parameters':>10} {'valid':>7} {'test':>7} {'seconds':>8}")
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        # All are handed over before the first is waited for.
        running = {(agent, seed): pool.submit(search, agent, seed, protocol) for agent in AGENTS for seed in numbers}
        found = {agent: [running[agent, seed].result() for seed in numbers] for agent in AGENTS}
    for seed, eas, random in zip(numbers, found["eas"], found["random"], strict=True):
        show(seed, "start", eas.start)
        show(seed, "eas", eas.best, eas.seconds)
        show(seed, "random", random.best, random.seconds)
        show_saving(eas)
    summarise(found["eas"], found["random"])
    print(f"{time.perf_counter() - started:.0f} s with {processes} processes")


if __name__ == "__main__":
    tyro.cli(main)
