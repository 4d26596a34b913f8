"""The networks that a start network can grow into, as sequences of transformations that end with a stop."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_gym.spaces.architecture import Architecture
from nas_gym.spaces.graph import ArchitectureGraph
from nas_gym.spaces.layer_arrays import Networks
from nas_gym.spaces.layer_space import Action, Deepen, LayerSpace, Stop, Widen
from nas_gym.spaces.layers import DENSENET, PLAIN, Layers, Shape
from nas_gym.spaces.space import UNDECIDED, Decision, SearchSpace, Tokens

STARTS: dict[str, Layers] = {"plain": PLAIN, "densenet": DENSENET}


@dataclass(frozen=True)
class TransformationSpace(SearchSpace):
    """A start network made wider and deeper, one action at a time.

    Source: Cai et al. 2018, "Efficient Architecture Search by Network Transformation". All decisions have the same
    choices, the actions of a `LayerSpace`: ``widen_2`` widens layer 2 to the next width in its list, ``deepen_0_1_3x3``
    inserts a 3x3 convolution into block 0 after its layer 1, and ``stop`` leaves the network as it is; only ``stop`` is
    legal after it. Which actions are legal depends on the network that the earlier actions have made. Sampling is
    uniform over the legal actions of each decision, not over sequences, which are too many to count: `size` is an upper
    bound.

    Args:
        start: the first network: ``"plain"``, ``"densenet"``, or the JSON of a `Layers`.
        image_shape: (channels, height, width) of the images, for counting parameters.
        num_classes: number of logits, for counting parameters.
        kernels: kernel sizes of new convolutions.
        widths: widths of convolutions, increasing.
        units: widths of fully connected layers, increasing.
        growths: growth rates of dense convolutions, increasing.
        depth: maximum number of layers per block.
        max_parameters: maximum number of parameters of a network.
        max_transformations: maximum number of actions, T.
        prefix: choices with which all sequences begin, fewer than T and without a stop: the part of the space that
            grows from one network. They count towards T.

    Raises:
        ValueError: the start is unknown, `max_transformations` is not positive, the prefix is not legal, or
            `LayerSpace` refuses an argument.
    """

    start: str = "plain"
    image_shape: Shape = LayerSpace.image_shape
    num_classes: int = LayerSpace.num_classes
    kernels: tuple[int, ...] = LayerSpace.kernels
    widths: tuple[int, ...] = LayerSpace.widths
    units: tuple[int, ...] = LayerSpace.units
    growths: tuple[int, ...] = LayerSpace.growths
    depth: int = LayerSpace.depth
    max_parameters: int = LayerSpace.max_parameters
    max_transformations: int = 64
    prefix: tuple[int, ...] = ()

    name = "transformation"

    def __post_init__(self) -> None:
        steps = self.max_transformations
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise ValueError(f"max_transformations must be a positive integer, got {steps!r}")
        _ = self.layer_space  # validates the other arguments
        network = self.layer_space.start
        for choice in self.prefix:
            if not 0 <= choice < self.stop or len(self.prefix) >= steps or not self.legal_actions(network)[choice]:
                raise ValueError(
                    f"prefix must be fewer than {steps} choices that are legal in this order and do not stop; got "
                    f"{self.prefix!r}"
                )
            network = self.layer_space.apply(network, self.actions[choice])

    @cached_property
    def layer_space(self) -> LayerSpace:
        """The networks and the actions on them."""
        if self.start not in STARTS and not self.start.lstrip().startswith("{"):
            raise ValueError(f"start must be one of {', '.join(STARTS)}, or the JSON of layers; got {self.start!r}")
        return LayerSpace(
            STARTS[self.start] if self.start in STARTS else Layers.from_json(self.start),
            self.image_shape,
            self.num_classes,
            self.kernels,
            self.widths,
            self.units,
            self.growths,
            self.depth,
            self.max_parameters,
        )

    @property
    def actions(self) -> tuple[Action, ...]:
        """The action of each choice; the last one stops."""
        return self.layer_space.actions

    @cached_property
    def stop(self) -> int:
        """The choice that stops."""
        return len(self.actions) - 1

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        words = tuple(map(_word, self.actions))
        return tuple(
            Decision(f"transformation_{step}", "transformation", step, words)
            for step in range(self.max_transformations)
        )

    @property
    def size(self) -> int:
        """An upper bound: the number of sequences if every action were always legal."""
        return sum(self.stop**step for step in range(self.max_transformations - len(self.prefix) + 1))

    @cached_property
    def stop_choices(self) -> NDArray[np.int64]:
        return np.full(self.length, self.stop)

    @cached_property
    def absent_choices(self) -> NDArray[np.int64]:
        """As `stop_choices`: decisions after a stop are filled with stops."""
        return self.stop_choices

    # ------------------------------------------------------------------ networks

    def taken(self, tokens: Sequence[int] | Tokens) -> tuple[int, ...]:
        """The choices before the first stop or undecided position."""
        taken = []
        for choice in tokens:
            if choice in (self.stop, UNDECIDED):
                break
            taken.append(int(choice))
        return tuple(taken)

    def history(self, tokens: Sequence[int] | Tokens) -> list[Layers]:
        """The start network, and the network after each action; illegal actions leave it unchanged."""
        taken = np.array(self.taken(tokens), dtype=np.int64)
        networks = [self.reached(taken[None, :step]) for step in range(len(taken) + 1)]
        return self.layer_space.arrays.decode(np.concatenate(networks, axis=1))

    def network(self, tokens: Sequence[int] | Tokens) -> Layers:
        """The network after all actions."""
        taken = np.array(self.taken(tokens), dtype=np.int64)
        return self.layer_space.arrays.decode(self.reached(taken[None]))[0]

    def filled(self, tokens: Tokens) -> Tokens:
        """Replaces undecided positions of int64[..., T] by stops, which leaves the networks as they are."""
        return np.where(tokens == UNDECIDED, self.stop, tokens)

    def weights(self, tokens: Tokens, position: int) -> NDArray[np.float64]:
        """1 for legal choices, 0 for others, after prefixes of tokens int64[B, T]."""
        prefixes = np.asarray(tokens)[:, :position]
        can_have_stopped = position >= max(len(self.prefix), 1)
        stopped = prefixes[:, -1] == self.stop if can_have_stopped else np.zeros(len(prefixes), dtype=bool)
        weights = np.zeros((len(prefixes), self.num_choices))
        weights[stopped, self.stop] = 1.0
        if not stopped.all():
            legal = self._forced(self._legal(self.reached(prefixes)), position)
            weights[~stopped] = legal[~stopped]
        return weights

    def legal_next(self, networks: Networks, position: int | NDArray[np.int64]) -> NDArray[np.bool_]:
        """The choices that are legal for networks at a decision, the same for all or int64[B]: bool[B, A].

        The networks have not been stopped.
        """
        return self._forced(self.layer_space.arrays.legal(networks), position)

    def _forced(self, legal: NDArray[np.bool_], position: int | NDArray[np.int64]) -> NDArray[np.bool_]:
        """Legal choices at a decision, of which the prefix leaves one."""
        positions = np.broadcast_to(position, len(legal))
        forced = np.flatnonzero(positions < len(self.prefix))
        if len(forced):
            legal = legal.copy()
            legal[forced] = np.array(self.prefix)[positions[forced], None] == np.arange(self.num_choices)
        return legal

    def reached(self, prefixes: Tokens) -> Networks:
        """The networks after choices int64[B, n], with their layers as `LayerArrays` has them; read-only.

        Illegal choices leave a network unchanged, as do all choices after a stop or an undecided position.
        """
        arrays = self.layer_space.arrays
        # Decisions are mostly asked for one after the other: the networks of the last call are the start of this one.
        known, networks = self._last.get("reached", (prefixes[:, :0], arrays.start))
        steps = known.shape[1]
        if not np.array_equal(known, prefixes[:, :steps]):
            steps = 0
        if steps == 0:
            networks = np.repeat(arrays.start, len(prefixes), axis=1)
        running = np.logical_and.accumulate((prefixes != self.stop) & (prefixes != UNDECIDED), axis=1)
        for step in range(steps, prefixes.shape[1]):
            choices = np.where(running[:, step], prefixes[:, step], self.stop)
            allowed = self._legal(networks)[np.arange(len(choices)), choices]
            networks = arrays.grown(networks, np.where(allowed, choices, self.stop))
        networks.setflags(write=False)
        self._last["reached"] = prefixes.copy(), networks
        return networks

    def _legal(self, networks: Networks) -> NDArray[np.bool_]:
        """The legal actions of networks that were reached; those of the last call are known."""
        known, legal = self._last.get("legal", (None, None))
        if known is not networks or legal is None:
            legal = self.layer_space.arrays.legal(networks)
            self._last["legal"] = networks, legal
        return legal

    @cached_property
    def _last(self) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        return {}

    def can_grow(self, tokens: Sequence[int] | Tokens) -> bool:
        """Whether another action than stop is possible after these actions."""
        taken = self.taken(tokens)
        return len(taken) < self.length and bool(self.legal_actions(self.network(taken))[: self.stop].any())

    def growing_from_best(self, tokens: Tokens, values: NDArray[np.float64]) -> TransformationSpace:
        """The part of the space that grows from the best of several networks that can still grow.

        Args:
            tokens: int64[n, T], the networks.
            values: float64[n]; ties go to the first. If no network can grow, the space itself is returned.
        """
        for row in np.argsort(-values, kind="stable"):
            if self.can_grow(tokens[row]):
                return self._part(self.taken(tokens[row]))
        return self

    def _part(self, prefix: tuple[int, ...]) -> TransformationSpace:
        # Cached, because a space caches what it derives from its fields.
        if prefix not in self._parts:
            self._parts[prefix] = part = dataclasses.replace(self, prefix=prefix)
            vars(part).update(layer_space=self.layer_space)
        return self._parts[prefix]

    @cached_property
    def _parts(self) -> dict[tuple[int, ...], TransformationSpace]:
        return {self.prefix: self}

    def legal_actions(self, layers: Layers) -> NDArray[np.bool_]:
        """Which actions are legal for a network, bool[A]."""
        return self.layer_space.legal(layers)

    # ------------------------------------------------------------------ representations

    def graph(self, architecture: Architecture) -> ArchitectureGraph:
        """The graph of the grown network: one node per layer."""
        return self.network(architecture.tokens).graph()

    def format(self, tokens: Sequence[int] | Tokens) -> str:
        """The names of the actions up to the first stop; `parse` reads them back."""
        taken = self.taken(tokens)
        words = [*taken, self.stop] if len(taken) < self.length else taken
        return " ".join(self.decisions[0].choices[choice] for choice in words)

    def parse(self, text: str) -> Architecture:
        words = text.split()
        return super().parse(" ".join([*words, *["stop"] * (self.length - len(words))]))


def _word(action: Action) -> str:
    match action:
        case Widen(layer):
            return f"widen_{layer}"
        case Deepen(block, position, None):
            return f"deepen_{block}_{position}"
        case Deepen(block, position, kernel):
            return f"deepen_{block}_{position}_{kernel}x{kernel}"
        case Stop():
            return "stop"
