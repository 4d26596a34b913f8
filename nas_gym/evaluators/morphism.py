"""Scores networks that inherit the weights of the networks they have grown from (Cai et al. 2018, EAS)."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nas_gym.evaluators.evaluator import Evaluations
from nas_gym.evaluators.task_evaluator import TaskEvaluator
from nas_gym.evaluators.training import TrainingCurve, TrainingSettings, check_optimiser, fit, memory_reason
from nas_gym.evaluators.weight_store import WeightStore
from nas_gym.networks.layers import LayerNetwork, channels_last
from nas_gym.networks.morphism import transform
from nas_gym.networks.network import as_image_shape
from nas_gym.settings import check_fields
from nas_gym.spaces import Architecture, SearchSpace, Tokens
from nas_gym.spaces.layer_space import Widen
from nas_gym.spaces.layers import Layers
from nas_gym.spaces.transformation import TransformationSpace
from nas_gym.tasks import Task

INHERIT = ("start", "nearest")


@dataclass(frozen=True)
class MorphismSettings:
    """How networks are grown and trained; the numbers of epochs and of images suit a CPU.

    Attributes:
        inherit: whose weights a network inherits. ``"start"``: those of the start network, so that all networks have
            had the same training, and scores compare. ``"nearest"``: those of its nearest ancestor that was evaluated,
            so that training adds up along the way, as in the second stage of Cai et al. 2018.
        start_epochs: passes over the training images for the start network, from random weights.
        start_learning_rate: of these passes, at the start of its cosine to 0.
        epochs: passes for a network that has grown (Cai et al. 2018, section "Experiments": 20).
        learning_rate: of these, at the start of its cosine to 0 (Cai et al. 2018: 0.02).
        batch_size: images a step (Cai et al. 2018: 64).
        momentum: of SGD, Nesterov's form (Cai et al. 2018: 0.9).
        weight_decay: L2 penalty (Cai et al. 2018: 1e-4).
        augment: whether training images are augmented as the task has it.
        wider_noise: of new channels, in standard deviations of the layer's weights (EAS's published code: 1e-2).
        deeper_noise: of new layers, likewise (EAS's published code: 1e-3).
        identity_images: training images whose statistics set the batch norm of a new layer (EAS's published code: 64).
            They are shown to all layers before it, which is most of the time that growing a large network takes. With 8
            the logits of a deeper network for digits differ from its parent's, in training mode, by up to 2.4 % of
            their standard deviation; with 64 by up to 1.3 %, with none by up to 21 %.
        train_images: the number of training images, balanced over the classes; None takes them all.
    """

    inherit: str = "start"
    start_epochs: int = 10
    start_learning_rate: float = 0.05
    epochs: int = 3
    learning_rate: float = 0.02
    batch_size: int = 64
    momentum: float = 0.9
    weight_decay: float = 1e-4
    augment: bool = True
    wider_noise: float = 1e-2
    deeper_noise: float = 1e-3
    identity_images: int = 8
    train_images: int | None = None

    def __post_init__(self) -> None:
        if self.inherit not in INHERIT:
            raise ValueError(f"inherit must be one of {', '.join(map(repr, INHERIT))}; got {self.inherit!r}")
        check_fields(self, "start_epochs epochs batch_size identity_images", "at least 1", lambda v: v >= 1)
        check_optimiser(self)
        numbers = "start_learning_rate wider_noise deeper_noise"
        check_fields(self, numbers, "finite and not negative", lambda v: 0 <= v < math.inf)
        if self.train_images is not None and self.train_images < self.batch_size:
            raise ValueError(f"train_images must be a batch of {self.batch_size} or more, got {self.train_images}")

    def training(self, *, start: bool) -> TrainingSettings:
        """That of the start network, or that of a grown one."""
        return TrainingSettings(
            epochs=self.start_epochs if start else self.epochs,
            learning_rate=self.start_learning_rate if start else self.learning_rate,
            batch_size=self.batch_size,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            augment=self.augment,
            record_all_epochs=False,
        )


@dataclass(frozen=True)
class Visit:
    """The record of an evaluated network.

    Attributes:
        ancestor: the network whose weights it inherited; None for the start network.
        actions: choices that lead from the ancestor to the network.
        accuracy: on the validation split; 0 if it failed.
        epochs: passes over the training images behind its weights, including those of its ancestors.
        reason: why it failed; empty if it did not.
    """

    ancestor: Layers | None
    actions: tuple[int, ...]
    accuracy: float = 0.0
    epochs: int = 0
    reason: str = ""


class MorphismEvaluator(TaskEvaluator):
    """Grows networks out of networks that it has trained, trains them on, and scores them on the validation split.

    The start network is trained from random weights. A network that has grown inherits its weights or, depending on
    `inherit`, those of the last evaluated network on the way. The transformations preserve the function of that
    ancestor; the network is then trained for a few epochs at a small learning rate.

    A network is evaluated once: however it is reached later, it keeps its weights and its score. Scores therefore
    depend on the seed and on the networks evaluated before, so the evaluator is stateful although `update` does
    nothing. Weights depend on the ancestry alone: the state holds ancestries and scores, and missing weights are
    trained again.

    Args:
        space: what the start network can grow into.
        task: the task, or its name.
        memory: bytes of weights kept in memory; the least recently used ones are moved to files.
        weights_dir: where these files are, in a folder that is deleted with the evaluator; None uses the system's
            folder for temporary files.
        arguments: those of `TaskEvaluator`; the settings are fields of `MorphismSettings`.

    Raises:
        ValueError: a space of other architectures, an unknown task, device or setting, or inputs that are not images
            or too small for the start network.
    """

    name = "morphism"
    Settings = MorphismSettings
    stateful = True
    space: TransformationSpace
    settings: MorphismSettings

    def __init__(
        self,
        space: SearchSpace,
        task: Task | str = "digits",
        *,
        memory: int = 2**29,
        weights_dir: str | None = None,
        **arguments: Any,
    ) -> None:
        if not isinstance(space, TransformationSpace):
            raise ValueError(f"space must be a TransformationSpace, such as 'transformation'; got {space!r}")
        super().__init__(space, task, **arguments)
        self.start = space.layer_space.start
        self._image_shape = as_image_shape(self.task.input_shape)
        self.start.shapes(self._image_shape)  # complains of images that are too small
        train = self.task.train.take(slice(self.settings.train_images))
        self._proxy = dataclasses.replace(self.task, train=train)
        self._identity_images = self.task.inputs(self.task.train.take(slice(self.settings.identity_images)))
        self._visits: dict[Layers, Visit] = {}
        self._weights = WeightStore(memory, weights_dir)

    # ------------------------------------------------------------------ scoring

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        """Accuracy, the number of ``parameters``, and the ``epochs`` behind the weights, including inherited ones.

        Networks that have not been evaluated yet are trained, all in one call of `fit`.

        Args:
            tokens: int64[B, T], the actions that make each network.
            fidelity: ignored.
            parents: int64[B, T], networks on the way whose weights are inherited, whatever `inherit` is. Those not yet
                evaluated are evaluated first.

        Raises:
            ValueError: illegal tokens, or a parent that does not lie on the way.
        """
        del fidelity
        self.space.check(tokens)
        self._visit({self.start: Visit(None, ())})
        if parents is not None:
            self.evaluate(parents)
        new: dict[Layers, Visit] = {}
        for row, actions in enumerate(tokens):
            history = self.space.history(actions)
            parent = None if parents is None else self.space.network(parents[row])
            if history[-1] not in self._visits:
                new.setdefault(history[-1], self._inheritance(history, self.space.taken(actions), parent))
        self._visit(new)
        return self._evaluations([self.space.network(actions) for actions in tokens])

    def _inheritance(self, history: Sequence[Layers], actions: tuple[int, ...], parent: Layers | None) -> Visit:
        """Which weights the last of the networks inherits, and the actions that lead from there to it."""
        ancestors = history[:1] if self.settings.inherit == "start" else history[:-1]
        if parent is not None:
            ancestors = history[:-1]
            if parent not in ancestors:
                raise ValueError(f"the parent {parent} does not lie on the way to {history[-1]}")
            ancestors = ancestors[: ancestors.index(parent) + 1]
        sound = [i for i, layers in enumerate(ancestors) if layers in self._visits and not self._visits[layers].reason]
        nearest = max(sound, default=0)
        return Visit(history[nearest], actions[nearest:])

    def _evaluations(self, networks: Sequence[Layers]) -> Evaluations:
        visits = [self._visits[layers] for layers in networks]
        parameters = [layers.parameters(self._image_shape, self.task.num_outputs) for layers in networks]
        return Evaluations(
            np.array([visit.accuracy for visit in visits], dtype=np.float64),
            {
                "parameters": np.array(parameters, dtype=np.float64),
                "epochs": np.array([visit.epochs for visit in visits], dtype=np.float64),
            },
            np.array([bool(visit.reason) for visit in visits], dtype=bool),
            tuple(visit.reason for visit in visits),
        )

    # ------------------------------------------------------------------ growing and training

    def _visit(self, new: Mapping[Layers, Visit]) -> None:
        """Grows and trains the networks that are new, and records the results."""
        new = {layers: visit for layers, visit in new.items() if layers not in self._visits}
        start = self._visits.get(self.start)
        if start is not None and start.reason:  # nothing to inherit
            failed = TrainingCurve(failed=True, reason=f"the start network has failed: {start.reason}")
            curves = dict.fromkeys(new, failed)
        else:
            curves = self._trained(new)
        for layers, visit in new.items():
            curve = curves[layers]
            inherited = 0 if visit.ancestor is None else self._visits[visit.ancestor].epochs
            epochs = self.settings.start_epochs if visit.ancestor is None else self.settings.epochs
            accuracy = 0.0 if curve.failed else float(curve.accuracy["valid"][-1])
            self._visits[layers] = dataclasses.replace(
                visit, accuracy=accuracy, epochs=inherited + epochs, reason=curve.reason
            )

    def _trained(self, new: Mapping[Layers, Visit]) -> dict[Layers, TrainingCurve]:
        """Grows and trains networks; stores the weights of those that do not fail."""
        networks: list[Any] = []
        curves: dict[Layers, TrainingCurve] = {}
        for layers, visit in new.items():
            try:
                networks.append(self._grown(layers, visit))
            except (RuntimeError, MemoryError) as error:
                curves[layers] = TrainingCurve(failed=True, reason=memory_reason(error))
        seeds = [self._seed("training", network.layers) for network in networks]
        training = self.settings.training(start=self.start in new)
        for network, curve in zip(networks, fit(networks, self._proxy, training, seeds=seeds), strict=True):
            curves[network.layers] = curve
            if not curve.failed:
                self._weights.put(_digest(network.layers), network.state_dict())
        return curves

    def _grown(self, layers: Layers, visit: Visit) -> LayerNetwork:
        """A network before its training, with tensors of its own: the ancestor's function, or random weights."""
        shape, outputs = self._image_shape, self.task.num_outputs
        if visit.ancestor is None:
            return LayerNetwork(layers, shape, outputs, seed=self._seed("weights", layers)).to(self.device)
        network = self._held(visit.ancestor)
        generator = torch.Generator().manual_seed(self._seed("growth", layers))
        for choice in visit.actions:
            action = self.space.actions[choice]
            noise = self.settings.wider_noise if isinstance(action, Widen) else self.settings.deeper_noise
            network = transform(
                network,
                action,
                self.space.layer_space,
                generator=generator,
                noise=noise,
                images=self._identity_images,
            )
        return network.clone()

    def _held(self, layers: Layers) -> LayerNetwork:
        """An evaluated network, not to be trained; missing weights are trained again."""
        name = _digest(layers)
        if name not in self._weights:
            self._trained({layers: self._visits[layers]})
        if name not in self._weights:
            raise MemoryError(f"the weights of {layers} could not be made again")
        tensors = {key: channels_last(tensor.to(self.device)) for key, tensor in self._weights.get(name).items()}
        return LayerNetwork(layers, self._image_shape, self.task.num_outputs, tensors=tensors)

    def _seed(self, purpose: str, layers: Layers) -> int:
        entropy = [self.seed, *purpose.encode(), *bytes.fromhex(_digest(layers))]
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)

    def trained_network(self, tokens: Tokens) -> LayerNetwork:
        """The network that the actions int64[T] make, with the weights that it was scored with.

        Raises:
            ValueError: it has not been evaluated, or has failed.
        """
        layers = self.space.network(tokens)
        if layers not in self._visits or self._visits[layers].reason:
            raise ValueError(f"tokens are of a network that has not been evaluated, or has failed: {layers}")
        return self._held(layers).clone()

    def grown_network(self, tokens: Tokens) -> LayerNetwork:
        """The network that the actions int64[T] make, with the weights that it inherits, before its training."""
        history = self.space.history(tokens)
        self._visit({self.start: Visit(None, ())})
        known = self._visits.get(history[-1])
        return self._grown(history[-1], known or self._inheritance(history, self.space.taken(tokens), None))

    def new_network(self, architecture: Architecture, task: Task, seed: int) -> LayerNetwork:
        """The network of an architecture with random weights, to be trained from scratch."""
        layers = self.space.network(architecture.tokens)
        return LayerNetwork(layers, as_image_shape(task.input_shape), task.num_outputs, seed=seed)

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        return {
            "visits": [
                {
                    "layers": layers.to_json(),
                    "ancestor": None if visit.ancestor is None else visit.ancestor.to_json(),
                    "actions": list(visit.actions),
                    "accuracy": visit.accuracy,
                    "epochs": visit.epochs,
                    "reason": visit.reason,
                }
                for layers, visit in self._visits.items()
            ]
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._weights.clear()
        self._visits = {
            Layers.from_json(visit["layers"]): Visit(
                None if visit["ancestor"] is None else Layers.from_json(visit["ancestor"]),
                tuple(visit["actions"]),
                float(visit["accuracy"]),
                int(visit["epochs"]),
                visit["reason"],
            )
            for visit in state["visits"]
        }


def _digest(layers: Layers) -> str:
    """A network's hash: 32 hexadecimal digits."""
    return hashlib.sha256(layers.to_json().encode()).hexdigest()[:32]
