"""Scores architectures by training them from scratch, on a proxy of the task (Zoph & Le 2017; Zoph et al. 2018)."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np

from nas_gym.evaluators.cost import count_parameters
from nas_gym.evaluators.evaluator import Evaluations
from nas_gym.evaluators.resumable import Training
from nas_gym.evaluators.task_evaluator import TaskEvaluator
from nas_gym.evaluators.training import TrainingCurve, TrainingSettings, fit
from nas_gym.networks import Network, NetworkSettings, make_network
from nas_gym.networks.layers import LayerNetwork
from nas_gym.networks.network import as_image_shape
from nas_gym.spaces import Architecture, SearchSpace, Tokens
from nas_gym.spaces.transformation import TransformationSpace
from nas_gym.tasks import ImageTask, Task
from nas_gym.types import Floats

Key = tuple[int, ...]
SCORES = ("last", "best", "best-of-last-5")


@dataclass(frozen=True)
class FromScratchSettings:
    """The proxy that architectures are trained on, and how. The defaults suit a CPU.

    Attributes:
        image_size: side in pixels that images are resized to; None keeps their size.
        train_images: number of training examples, taken from the start of the split, where `make_task` balances the
            classes; None uses all.
        score_images: number of validation examples, likewise; None uses all.
        cutout: side in pixels of the square that augmentation cuts out (DeVries & Taylor 2017: 16 of 32 pixels on
            CIFAR-10); None keeps the task's. It needs `training.augment`.
        network: the macro architecture, or a mapping of fields of `NetworkSettings`. `auxiliary` adds NASNet's
            auxiliary classifier, whose loss is weighted by `training.auxiliary_weight`.
        training: epochs, SGD on a cosine, and the regularisation of the papers (ScheduledDropPath, label smoothing), or
            a mapping of fields of `TrainingSettings`.
        score: the accuracy of the ``"last"`` epoch, of the ``"best"``, or the ``"best-of-last-5"``; with the objective
            ``"accuracy-cubed"`` the latter is the reward of Zoph & Le (2017, section 4.1).
    """

    image_size: int | None = None
    train_images: int | None = None
    score_images: int | None = None
    cutout: int | None = None
    network: NetworkSettings = field(default_factory=lambda: NetworkSettings(channels=8))
    training: TrainingSettings = field(default_factory=lambda: TrainingSettings(epochs=5))
    score: str = "last"

    def __post_init__(self) -> None:
        for name in ("network", "training"):
            default = self.__dataclass_fields__[name].default_factory()  # type: ignore[operator]
            object.__setattr__(self, name, completed(name, getattr(self, name), default))
        for name in ("image_size", "train_images", "score_images"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, or None, got {value!r}")
        if self.score not in SCORES:
            raise ValueError(f"score must be one of {', '.join(map(repr, SCORES))}; got {self.score!r}")
        if self.training.record != ("valid",) or not self.training.record_all_epochs:
            raise ValueError("training must record 'valid' after all epochs: a reward has no other split to look at")

    def proxy(self, task: Task) -> Task:
        """The task that architectures are trained and scored on; its statistics are those of its own train split.

        Raises:
            ValueError: `image_size` or `cutout` is set and the task is not one of images.
        """
        task = task.with_splits(
            task.train.take(slice(self.train_images)),
            task.valid.take(slice(self.score_images)),
            task.test.take(slice(self.score_images)),
        )
        if self.image_size is None and self.cutout is None:
            return task
        if not isinstance(task, ImageTask):
            raise ValueError(f"image_size and cutout must be None, for task {task.name!r} is not one of images")
        if self.image_size is not None:
            task = task.resized((self.image_size, self.image_size))
        if self.cutout is not None:
            task = dataclasses.replace(task, augmentation=dataclasses.replace(task.augmentation, cutout=self.cutout))
        return task


def completed(name: str, value: Any, default: Any) -> Any:
    """A nested settings object, or the default with the fields of a mapping replaced."""
    if not isinstance(value, Mapping):
        if type(value) is not type(default):
            raise ValueError(f"{name} must be a {type(default).__name__} or a mapping of its fields, got {value!r}")
        return value
    known = default.__dataclass_fields__
    if unknown := sorted(set(value) - set(known)):
        raise ValueError(f"{name} has no field {unknown}; fields: {', '.join(known)}")
    return dataclasses.replace(default, **value)


def network_of(architecture: Architecture, task: Task, settings: NetworkSettings, seed: int) -> Network:
    """The network of an architecture of any space for a task, with random weights."""
    if isinstance(architecture.space, TransformationSpace):
        layers = architecture.space.network(np.array(architecture.tokens))
        # Not a Network, but it is trained and scored in the same way.
        return cast(Network, LayerNetwork(layers, as_image_shape(task.input_shape), task.num_outputs, seed=seed))
    return make_network(architecture, task.input_shape, task.num_outputs, settings, seed)


class FromScratchEvaluator(TaskEvaluator):
    """Trains every architecture from random weights on a proxy of the task, and scores it on the validation split.

    An evaluation depends on the architecture and the seed alone; the seed of the initial weights, of the order of the
    examples and of all other random numbers is the same for every architecture. Fidelities are fractions of the
    epochs: fidelity 0.4 trains the first two of five epochs of the full schedule. The training is kept and continues
    from there when a higher fidelity is requested.

    The metrics are ``epochs`` and ``parameters``. A network that diverges or does not fit into memory is a failed
    evaluation. On CUDA, networks are trained in mixed precision, and together where `can_batch` allows it.

    Args:
        space: the search space.
        task: the task, or its name.
        paused: number of trainings kept in memory to be continued at a higher fidelity; the least recent are dropped.
        arguments: those of `TaskEvaluator`; the settings are fields of `FromScratchSettings`.

    Raises:
        ValueError: an unknown task, device or setting, or a space without networks.
    """

    name = "from-scratch"
    Settings = FromScratchSettings
    settings: FromScratchSettings

    def __init__(self, space: SearchSpace, task: Task | str = "digits", *, paused: int = 64, **arguments: Any) -> None:
        if paused < 0:
            raise ValueError(f"paused must not be negative, got {paused!r}")
        super().__init__(space, task, **arguments)
        self.paused = paused
        epochs = self.settings.training.epochs
        self.fidelities = tuple(epoch / epochs for epoch in range(1, epochs + 1)) if epochs > 1 else ()
        self._paused: OrderedDict[Key, Training] = OrderedDict()
        self.new_network(space.architecture(space.sample(np.random.default_rng(0), 1)[0]), self.proxy, 0)  # complains

    @cached_property
    def proxy(self) -> Task:
        """The task that networks are trained and scored on."""
        return self.settings.proxy(self.task)

    def new_network(self, architecture: Architecture, task: Task, seed: int) -> Network:
        """The network of an architecture for a task, with random weights."""
        return network_of(architecture, task, self.settings.network, seed)

    # ------------------------------------------------------------------ scoring

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        """Trains int64[B, T] for a fraction of the epochs; repeated architectures are trained once."""
        del parents
        self.space.check(tokens)
        share, full = self.nearest_fidelity(fidelity), self.settings.training.epochs
        epochs = full if share is None else round(share * full)
        keys = [tuple(row) for row in tokens.tolist()]
        trained = self._trained(list(dict.fromkeys(keys)), epochs)
        curves = [trained[key][0] for key in keys]
        valid = [curve.accuracy.get("valid", np.empty(0))[:epochs] for curve in curves]
        failed = [len(column) < epochs for column in valid]
        return Evaluations(
            np.array([0.0 if fails else self._score(column) for column, fails in zip(valid, failed, strict=True)]),
            {
                "epochs": np.array([min(len(curve.loss), epochs) for curve in curves], dtype=np.float64),
                "parameters": np.array([trained[key][1] for key in keys], dtype=np.float64),
            },
            np.array(failed, dtype=bool),
            tuple(curve.reason if fails else "" for curve, fails in zip(curves, failed, strict=True)),
        )

    def _score(self, accuracy: Floats) -> float:
        """The score of a curve float64[epochs]."""
        counted = {"last": accuracy[-1:], "best": accuracy, "best-of-last-5": accuracy[-5:]}
        return float(counted[self.settings.score].max())

    def _trained(self, keys: Sequence[Key], epochs: int) -> dict[Key, tuple[TrainingCurve, int]]:
        """The curve of each architecture after at least `epochs` epochs, and its number of parameters."""
        settings, seed, full = self.settings.training, self.seed, epochs == self.settings.training.epochs
        trainings = {key: self._paused.pop(key) for key in keys if key in self._paused}
        networks = {
            key: self.new_network(self.space.architecture(key), self.proxy, seed)
            for key in keys
            if key not in trainings
        }
        found: dict[Key, tuple[TrainingCurve, int]] = {}
        if full:  # trainings that are never paused can be batched
            curves = fit(list(networks.values()), self.proxy, settings, seeds=[seed] * len(networks))
            for (key, network), curve in zip(networks.items(), curves, strict=True):
                found[key] = curve, count_parameters(network)
        else:
            trainings |= {key: Training(net, self.proxy, settings, seed=seed) for key, net in networks.items()}
        for key, training in trainings.items():
            training.advance(epochs)
            found[key] = training.curve, count_parameters(training.network)
            if not full:
                self._pause(key, training)
        return found

    def _pause(self, key: Key, training: Training) -> None:
        self._paused[key] = training
        while len(self._paused) > self.paused:
            self._paused.popitem(last=False)
