"""The trainings of a comparison: the architectures found, random ones and networks made by hand, all alike.

Each training is done for good when its file is there, so that a run that is killed goes on with the next. On a CPU each
has a thread of its own, as many at once as there are cores, so that its result does not depend on their number.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from nas_gym.evaluators.cost import count_flops, count_parameters, measure_latency
from nas_gym.evaluators.training import TrainingSettings, fit, score
from nas_gym.experiments.run.comparison_result import Row
from nas_gym.experiments.run.progress import Interrupted, Progress
from nas_gym.experiments.run.weights import load_weights, save_weights
from nas_gym.files import read_json, write_json
from nas_gym.networks import Network
from nas_gym.tasks import Task

Item = TypeVar("Item")
Result = TypeVar("Result")

STEPS = 300
"""Optimiser steps of a training, unless epochs are given."""


@dataclass(frozen=True)
class Contestant:
    """A network to be trained once.

    Attributes:
        role: see `Row`.
        name: see `Row`.
        text: its architecture as one line.
        seed: of its weights and of its training.
        make: makes it for a task, with random weights of a seed.
        about: what its file of weights says of it.
    """

    role: str
    name: str
    text: str
    seed: int
    make: Callable[[Task, int], Network]
    about: Mapping[str, str] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """A name for its files."""
        return f"{self.name}_seed{self.seed}".replace(" ", "")


def default_training(images: int, epochs: int | None) -> tuple[TrainingSettings, int]:
    """How networks are trained on a split of so many examples, and on how many of them.

    Large batches cost little more than small ones, and make trainings less noisy; but a small split is trained on in
    smaller ones, so that an epoch has about 16 steps, down to batches of 8.
    """
    batch = 128
    while batch > 8 and images < 16 * batch:
        batch //= 2
    steps = max(images // batch, 1)
    if epochs is None:
        epochs = min(max(round(STEPS / steps), 2), 60)
        images = min(images, max(STEPS // epochs, 1) * batch) if epochs == 2 else images
    rate = 0.1 if batch == 128 else 0.05
    return TrainingSettings(epochs=epochs, batch_size=batch, learning_rate=rate, record_all_epochs=False), images


class Trainings:
    """Trains networks in a folder, and evaluates them.

    Args:
        folder: for the results and the weights.
        task: what networks are trained on: all of its train split, or as much of it as `default_training` says.
        epochs: passes over the train split; None leaves them to `default_training`.
        progress: the bars to show.
        stop: turns non-empty when the run is to stop.

    Attributes:
        task: what is trained on.
        settings: how.
    """

    def __init__(self, folder: Path, task: Task, epochs: int | None, progress: Progress, stop: list[int]) -> None:
        self.folder, self.progress, self.stop = folder, progress, stop
        self.settings, images = default_training(len(task.train), epochs)
        self.task = task.with_splits(task.train.take(slice(images)), task.valid, task.test)
        self.steps = max(images // self.settings.batch_size, 1) * self.settings.epochs
        self.bar = progress.add_task("comparing", total=None)
        self._seeding = threading.Lock()  # initial weights are drawn from the global random state
        folder.mkdir(exist_ok=True)

    def expect(self, trainings: int) -> None:
        """Sets how many trainings the progress bar stands for."""
        self.progress.update(self.bar, total=trainings * self.steps)

    @property
    def description(self) -> dict[str, Any]:
        """The facts of the training, for reports."""
        return {
            "epochs": self.settings.epochs,
            "images": len(self.task.train),
            "batch_size": self.settings.batch_size,
            "learning_rate": self.settings.learning_rate,
        }

    # ------------------------------------------------------------------ training

    def train(self, contestants: Sequence[Contestant]) -> list[dict[str, Any]]:
        """Trains those that have no result yet; returns the results of all.

        Raises:
            Interrupted: the run was asked to stop.
            ValueError: a result is damaged.
        """
        wanted = [each for each in contestants if not self._is_done(each)]
        self.progress.advance(self.bar, self.steps * (len(contestants) - len(wanted)))
        self._each(self._train_one, wanted)
        return [read_json(self._result(each)) for each in contestants]

    def _is_done(self, contestant: Contestant) -> bool:
        path = self._result(contestant)
        return path.exists() and bool(read_json(path)["of"] == self._identity(contestant))

    def _identity(self, contestant: Contestant) -> dict[str, Any]:
        """What a training follows from, within a run."""
        return {"network": contestant.text, "seed": contestant.seed, **self.description}

    def _train_one(self, contestant: Contestant) -> None:
        network = self.network(contestant)
        (curve,) = fit([network], self.task, self.settings, seeds=[contestant.seed], on_step=self._on_step)
        save_weights(network, self.weights(contestant), contestant.about)
        write_json(
            self._result(contestant),  # last: it marks the training as done
            {
                "of": self._identity(contestant),
                "valid_accuracy": None if curve.failed else float(curve.accuracy["valid"][-1]),
                "failed": curve.reason or None,
                "seconds": curve.seconds,
            },
        )

    def _on_step(self) -> None:
        self.progress.advance(self.bar)
        if self.stop:
            raise Interrupted

    # ------------------------------------------------------------------ evaluation

    def rows(self, contestants: Sequence[Contestant], results: Sequence[dict[str, Any]]) -> list[Row]:
        """Evaluates trained networks on the test split, and measures what they cost."""

        def test(pair: tuple[Contestant, dict[str, Any]]) -> float:
            contestant, result = pair
            if result["failed"] is not None:
                return 0.0
            if self.stop:
                raise Interrupted
            return score(self.trained(contestant), self.task, self.task.test)

        accuracies = self._each(test, list(zip(contestants, results, strict=True)))
        costs = {each.text: self._costs(each) for each in contestants}
        return [
            Row(
                each.role,
                each.name,
                each.text,
                each.seed,
                result["valid_accuracy"],
                accuracy,
                **costs[each.text],
                seconds=result["seconds"],
            )
            for each, result, accuracy in zip(contestants, results, accuracies, strict=True)
        ]

    def _costs(self, contestant: Contestant) -> dict[str, float]:
        network, shape = self.network(contestant), self.task.input_shape
        parameters: dict[str, float] = {"parameters": count_parameters(network)}
        if len(shape) != 3:  # no images
            return parameters
        network.to(self.task.device)
        return {**parameters, "flops": count_flops(network, shape), "latency": measure_latency(network, shape)}

    # ------------------------------------------------------------------ networks and files

    def network(self, contestant: Contestant) -> Network:
        """The network, with random weights."""
        with self._seeding:
            return contestant.make(self.task, contestant.seed)

    def trained(self, contestant: Contestant) -> Network:
        """The network with its trained weights, on the task's device."""
        network = self.network(contestant)
        network.load_state_dict(load_weights(self.weights(contestant)))
        return network.to(self.task.device)

    def weights(self, contestant: Contestant) -> Path:
        """The file of the weights of a training."""
        return self.folder / f"{contestant.file_name}.safetensors"

    def _result(self, contestant: Contestant) -> Path:
        return self.folder / f"{contestant.file_name}.json"

    # ------------------------------------------------------------------ cores

    def _each(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """The function of each item, on a CPU of as many at once as there are cores, with a thread each."""
        if self.task.device.type != "cpu":
            return [function(item) for item in items]

        def on_one_thread(item: Item) -> Result:
            torch.set_num_threads(1)  # of this thread
            return function(item)

        before = torch.get_num_threads()
        with ThreadPoolExecutor(_cores()) as pool:
            futures = [pool.submit(on_one_thread, item) for item in items]
            try:
                for future in as_completed(futures):
                    future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
                torch.set_num_threads(before)
        return [future.result() for future in futures]


def _cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
