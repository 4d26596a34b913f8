"""The training of one network, which can be paused, saved and resumed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from nas_gym.evaluators.training import TrainingRun, TrainingSettings, memory_reason, nothing
from nas_gym.networks import Network
from nas_gym.tasks import Task


class Training:
    """The training of one network, which can be paused and saved after any epoch; it ends as that of `fit`, to the bit.

    Args:
        network: moved to the task's device.
        task: the task.
        settings: schedule and regularisation of the complete training.
        seed: of the order of the examples, the augmentation and the dropped paths.
        on_step: called after each step, to report progress.

    Attributes:
        network: the network.
        curve: its curve so far.
    """

    def __init__(
        self,
        network: Network,
        task: Task,
        settings: TrainingSettings,
        *,
        seed: int,
        on_step: Callable[[], None] | None = None,
    ) -> None:
        self.network = network
        self._run = TrainingRun([network], [seed], task, settings, on_step or nothing, time.perf_counter)
        (self.curve,) = self._run.curves

    @property
    def epochs(self) -> int:
        """How many are done."""
        return self._run.epochs

    @property
    def steps(self) -> int:
        """How many are done."""
        return self._run.steps

    def advance(self, epochs: int) -> None:
        """Continues until `epochs` epochs are done in total."""
        try:
            self._run.train(epochs)
        except (RuntimeError, MemoryError) as error:
            self._run.fail(0, memory_reason(error))

    def state_dict(self) -> dict[str, Any]:
        """Where it stands after an epoch, with the weights; tensors are not copied."""
        accuracy = {name: column.tolist() for name, column in self.curve.accuracy.items()}
        curve = {**vars(self.curve), "accuracy": accuracy, "loss": self.curve.loss.tolist()}
        return {"network": self.network.state_dict(), "curve": curve, **self._run.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to where `state_dict` was taken."""
        accuracy = {name: np.array(column) for name, column in state["curve"]["accuracy"].items()}
        vars(self.curve).update(state["curve"], accuracy=accuracy, loss=np.array(state["curve"]["loss"]))
        self.network.load_state_dict(state["network"])
        self._run.load_state_dict(state)
