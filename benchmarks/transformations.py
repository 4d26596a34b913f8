"""What growing networks by EAS brings: against random growth, and against training from scratch.

    python benchmarks/transformations.py --task fashion-mnist --seeds 5

For each seed, EAS and random transformations grow the same trained start network, through the environment, with the
same number of networks and the same training of each. Reported for the start network and for the best one of either:
its parameters, its validation accuracy in the search, and its test accuracy, looked up when the search is over, of the
very weights that the search has trained. Then, over the seeds, the mean difference between EAS and random in both, with
Student's 95 % interval.

Last, what inheriting weights saves: the best architecture of EAS is trained from scratch, with the start network's
learning rate, and once more from the weights that it inherited, with the search's. Told is after how many epochs, and
seconds of the processor, each comes for the first time to the validation accuracy that training from scratch ends with.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
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
from nas_gym.tasks import Task, make_task

AGENTS = ("eas", "random")


def search(
    agent: str, seed: int, space: TransformationSpace, task: Task, trials: int, settings: dict[str, Any]
) -> tuple[MorphismEvaluator, Tokens, float]:
    """The evaluator after a search, the best architecture that was found, and the seconds that it took."""
    evaluator = MorphismEvaluator(space, task, seed=seed, **settings)
    envs = TransformationVectorEnv(10, space=space, evaluator=evaluator)
    started = time.perf_counter()
    result = make_agent(agent, envs, seed).learn(trials)
    return evaluator, result.tokens[result.best_trial], time.perf_counter() - started


def facts(evaluator: MorphismEvaluator, tokens: Tokens) -> tuple[float, float, float]:
    """Parameters, validation and test accuracy of a network with the weights of the search."""
    found = evaluator.evaluate(tokens[None])
    network: Any = evaluator.trained_network(tokens)
    test = score(network, evaluator.task, evaluator.task.test)
    return float(found.metrics["parameters"][0]), float(found.accuracy[0]), test


def reaching(evaluator: MorphismEvaluator, tokens: Tokens, epochs: int, seed: int) -> tuple[float, list[str]]:
    """The accuracy that training from scratch ends with, and when that and the heir come to it, in words."""
    fresh: Any = evaluator.new_network(evaluator.space.architecture(tokens), evaluator.task, seed)
    heir: Any = evaluator.grown_network(tokens)
    target, told = 0.0, []
    for network in (fresh, heir):
        settings = evaluator.settings.training(start=network is fresh)
        settings = dataclasses.replace(settings, epochs=epochs, record_all_epochs=True)
        (curve,) = fit([network], evaluator.task, settings, seeds=[seed], clock=time.process_time)
        accuracies = curve.accuracy["valid"]
        target = target or float(accuracies[-1])
        reached = np.flatnonzero(accuracies >= target)
        if len(reached):
            needed = int(reached[0]) + 1
            told.append(f"{needed} epochs, {curve.seconds * needed / epochs:.1f} s")
        else:
            told.append(f"not in {epochs} epochs, best {accuracies.max():.4f}")
    return target, told


def interval(differences: Sequence[float]) -> str:
    """The mean with Student's 95 % interval."""
    mean = float(np.mean(differences))
    if len(differences) < 2:
        return f"{mean:+.4f} (one seed: no interval)"
    low, high = stats.t.interval(0.95, len(differences) - 1, mean, stats.sem(differences))
    return f"{mean:+.4f}, 95 % interval [{low:+.4f}, {high:+.4f}], {len(differences)} seeds"


def main(
    task: str = "fashion-mnist",
    seeds: int = 1,
    first_seed: int = 0,
    trials: int = 40,
    image_size: int | None = 14,
    train_images: int | None = 2000,
    valid_images: int | None = 1000,
    epochs: int = 2,
    start_epochs: int = 10,
    scratch_epochs: int = 20,
    max_parameters: int = 300_000,
    max_transformations: int = 25,
    threads: int = 1,
) -> None:
    """Prints the tables.

    Args:
        task: an image task.
        seeds: how many, each of a search of either agent.
        first_seed: the first of them.
        trials: networks a search.
        image_size: pixels to which images are resized; None leaves them.
        train_images: the number of training images; None takes them all.
        valid_images: the number of validation images; None takes them all.
        epochs: of training for each grown network.
        start_epochs: of training for the start network.
        scratch_epochs: of the two trainings at the end; 0 leaves them out.
        max_parameters: of a network.
        max_transformations: of a network.
        threads: of torch.
    """
    torch.set_num_threads(threads)
    settings = {"epochs": epochs, "start_epochs": start_epochs}
    found: dict[str, list[tuple[float, float, float]]] = {agent: [] for agent in AGENTS}
    print(f"{task}: {trials} networks a search, {epochs} epochs each; test accuracy of the weights of the search")
    print(f"{'seed':>4} {'network':<8} {'parameters':>10} {'valid':>7} {'test':>7} {'seconds':>8}")
    for seed in range(first_seed, first_seed + seeds):
        data = make_task(task, seed=seed, image_size=image_size, train_limit=train_images, valid_limit=valid_images)
        space = TransformationSpace(
            image_shape=data.image_shape,
            num_classes=data.num_classes,
            max_parameters=max_parameters,
            max_transformations=max_transformations,
        )
        start = np.full(space.length, space.stop)
        for agent in AGENTS:
            evaluator, best, seconds = search(agent, seed, space, data, trials, settings)
            if agent == AGENTS[0]:
                show(seed, "start", facts(evaluator, start))
            found[agent].append(facts(evaluator, best))
            show(seed, agent, found[agent][-1], seconds)
            if agent == "eas" and scratch_epochs:
                target, (scratch, heir) = reaching(evaluator, best, scratch_epochs, seed)
                print(f"     to {target:.4f}: from scratch {scratch}; with inherited weights {heir}", flush=True)
    for column, name in ((1, "validation"), (2, "test")):
        differences = [eas[column] - random[column] for eas, random in zip(found["eas"], found["random"], strict=True)]
        print(f"eas - random, {name} accuracy: {interval(differences)}")


def show(seed: int, name: str, row: tuple[float, float, float], seconds: float | None = None) -> None:
    """Prints a row of the table."""
    parameters, valid, test = row
    clock = "" if seconds is None else f"{seconds:8.1f}"
    print(f"{seed:4d} {name:<8} {parameters:10,.0f} {valid:7.4f} {test:7.4f} {clock}", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
