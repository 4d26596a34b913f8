"""Chains of convolutions with skip connections, of fixed or chosen depth (Zoph & Le 2017)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nas_gym.spaces.architecture import Architecture
from nas_gym.spaces.graph import CONCAT, INPUT, OUTPUT, ArchitectureGraph, GraphBuilder, Node
from nas_gym.spaces.space import Decision, SearchSpace, Tokens

CONTINUE, STOP, ABSENT = "continue", "stop", "absent"


@dataclass(frozen=True)
class Convolution:
    """A decoded layer: the earlier layers that it reads (none: the image), its filters and its (height, width) stride.

    `height` and `width` are those of a filter, `filters` is the number of filters.
    """

    inputs: tuple[int, ...]
    height: int
    width: int
    stride: tuple[int, int]
    filters: int


@dataclass(frozen=True)
class ChainSpace(SearchSpace):
    """Convolutional layers with chosen filter shapes and numbers, and skip connections from any earlier layers.

    Source: Zoph & Le 2017, sections 3.1 to 3.3 and 4.1. A layer's decisions, in the paper's order: a skip bit for each
    earlier layer (the anchor decisions of section 3.3), filter height, filter width, stride height and stride width if
    there is a choice of strides, number of filters. A layer reads the concatenation of the layers that it is connected
    to, or the image if there are none; the classifier reads the concatenation of the layers that no layer reads. Maps
    of unequal size are padded with zeros.

    With ``depth="stop"`` the depth is chosen too: each layer except the first is preceded by a decision of kind
    ``"stop"``; after ``"stop"``, all further decisions have ``"absent"`` as their only legal choice. Sampling is
    uniform over architectures, nearly all of which have the maximum depth. With ``depth="schedule"`` the decisions are
    the same, but the depth grows during the search (section 4.1): `at_trial` allows a single depth, so the stop
    decisions are forced.

    Args:
        layers: the number of layers; with ``depth="stop"`` and ``"schedule"`` the maximum.
        depth: ``"fixed"``, ``"stop"`` or ``"schedule"``.
        start: with a schedule, the number of layers of the first stage (section 4.1: 6).
        growth: with a schedule, the number of layers added in each stage (section 4.1: 2).
        every: with a schedule, the number of trials per stage (section 4.1: 1,600).
        exactly: with a schedule, the only depth that is allowed; None for all.
        heights: the filter heights to choose from.
        widths: the filter widths.
        strides: the strides, the same for both axes; a single stride is not a decision.
        filters: the numbers of filters.

    Raises:
        ValueError: there is no layer, the depth or the schedule is invalid, or there is nothing to choose from.
    """

    layers: int = 6
    depth: Literal["fixed", "stop", "schedule"] = "fixed"
    heights: tuple[int, ...] = (1, 3, 5, 7)
    widths: tuple[int, ...] = (1, 3, 5, 7)
    strides: tuple[int, ...] = (1,)
    filters: tuple[int, ...] = (24, 36, 48, 64)
    start: int = 6
    growth: int = 2
    every: int = 1600
    exactly: int | None = None

    name = "chain"

    def __post_init__(self) -> None:
        if not isinstance(self.layers, int) or self.layers < 1:
            raise ValueError(f"layers must be at least 1, got {self.layers!r}")
        if self.depth not in ("fixed", "stop", "schedule"):
            raise ValueError(f"depth must be 'fixed', 'stop' or 'schedule', got {self.depth!r}")
        for name in ("start", "growth", "every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.depth == "schedule" and self.start > self.layers:
            raise ValueError(f"start must be at most layers {self.layers}, got {self.start}")
        if self.exactly is not None and self.exactly not in self._stages:
            raise ValueError(f"exactly must be None or a depth of the schedule {self._stages}, got {self.exactly}")
        for name in ("heights", "widths", "strides", "filters"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise ValueError(f"{name} must hold positive integers, got {values!r}")

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        shape = {"filter_height": self.heights, "filter_width": self.widths}
        if len(self.strides) > 1:
            shape |= {"stride_height": self.strides, "stride_width": self.strides}
        shape |= {"filters": self.filters}
        decisions = []
        for layer in range(self.layers):
            absent = (ABSENT,) if self.depth != "fixed" and layer > 0 else ()
            if absent:
                decisions.append(Decision(f"layer_{layer}/stop", "stop", layer, (CONTINUE, STOP, ABSENT)))
            for source in range(layer):
                targets = (None, source, None)[: 2 + len(absent)]
                choices = ("none", "connect", *absent)
                decisions.append(Decision(f"layer_{layer}/skip_{source}", "skip", layer, choices, targets))
            decisions += [
                Decision(f"layer_{layer}/{kind}", kind, layer, (*map(str, values), *absent))
                for kind, values in shape.items()
            ]
        return tuple(decisions)

    @property
    def size(self) -> int:
        return self._variants(0) * self._completions[1]

    @cached_property
    def _stages(self) -> tuple[int, ...]:
        """The depths of the schedule, in order; empty without a schedule."""
        if self.depth != "schedule":
            return ()
        return (*range(self.start, self.layers, self.growth), self.layers)

    @cached_property
    def _depths(self) -> frozenset[int]:
        """The numbers of layers that an architecture may have."""
        if self.exactly is not None:
            return frozenset({self.exactly})
        by_depth = {"fixed": (self.layers,), "stop": range(1, self.layers + 1), "schedule": self._stages}
        return frozenset(by_depth[self.depth])

    def at_trial(self, trial: int) -> ChainSpace:
        """With a schedule, the architectures with the depth of that trial's stage; otherwise the space itself."""
        if self.depth != "schedule":
            return self
        stage = min(trial // self.every, len(self._stages) - 1)
        return self._at_depth(self._stages[stage])

    def _at_depth(self, depth: int) -> ChainSpace:
        # Cached, because a space caches what it derives from its decisions.
        if depth not in self._parts:
            self._parts[depth] = dataclasses.replace(self, exactly=depth)
        return self._parts[depth]

    @cached_property
    def _parts(self) -> dict[int, ChainSpace]:
        return {}

    def _variants(self, layer: int) -> int:
        """The number of variants of a layer."""
        variants: int = 2**layer * len(self.heights) * len(self.widths) * len(self.strides) ** 2 * len(self.filters)
        return variants

    @cached_property
    def _completions(self) -> tuple[int, ...]:
        """For k from 0 to the maximum, the number of ways to complete a network with k layers, including stopping."""
        counts = [int(self.layers in self._depths)]
        for layer in range(self.layers - 1, -1, -1):
            counts.append(int(layer in self._depths) + self._variants(layer) * counts[-1])
        return tuple(reversed(counts))

    def weights(self, tokens: Tokens, position: int) -> NDArray[np.float64]:
        if self.prefix_free:
            return super().weights(tokens, position)
        present: NDArray[np.float64] = self._live[position]
        governing = self._governing[position]
        if governing < 0:
            return np.broadcast_to(present, (len(tokens), self.num_choices))
        ended = tokens[:, governing] > 0
        weights: NDArray[np.float64] = np.where(ended[:, None], self._dead[position], present)
        return weights

    def legal(self, tokens: Tokens, position: int | NDArray[np.int64]) -> NDArray[np.bool_]:
        if self.prefix_free or isinstance(position, int | np.integer):
            return super().legal(tokens, position)
        governing = self._governing[position]
        ended = (tokens[np.arange(len(tokens)), governing] > 0) & (governing >= 0)
        return self._masks[np.where(ended, position + self.length, position)]

    @cached_property
    def _masks(self) -> NDArray[np.bool_]:
        """bool[2T, A], the legal choices at each decision before a stop, and then after one."""
        return np.concatenate([self._live, self._dead]) > 0

    @cached_property
    def dependent(self) -> NDArray[np.bool_]:
        return (self.stop_choices >= 0) & (self.depth == "schedule")  # where to stop depends on the trial

    @cached_property
    def _governing(self) -> NDArray[np.int64]:
        """int64[T], the last stop decision before each position, -1 for none; the layer exists after `continue`."""
        latest, governing = -1, []
        for column, decision in enumerate(self.decisions):
            governing.append(latest)
            latest = column if decision.kind == "stop" else latest
        return np.array(governing)

    @cached_property
    def _live(self) -> NDArray[np.float64]:
        """float64[T, A], the weights before a stop."""
        live = np.array(self._widths)
        live[self.absent_choices >= 0, self.absent_choices[self.absent_choices >= 0]] = 0
        for column, decision in enumerate(self.decisions):
            if decision.kind == "stop":
                live[column, :2] = self._continue_or_stop(decision.group)
        return live

    def _continue_or_stop(self, layers: int) -> tuple[float, float]:
        """The weights of continuing and of stopping, for a network that has `layers` layers."""
        ways = self._completions[layers]
        if ways == 0:  # unreachable: beyond the maximum depth
            return 0.0, 1.0
        # The counts overflow float64, their ratio does not. It must not round to 0: the choice would become illegal.
        stop = Fraction(int(layers in self._depths), ways)
        return float(1 - stop), max(float(stop), float(np.finfo(np.float64).tiny)) if stop else 0.0

    @cached_property
    def _dead(self) -> NDArray[np.float64]:
        """float64[T, A], the weights after a stop."""
        dead: NDArray[np.bool_] = self.absent_choices[:, None] == np.arange(self.num_choices)
        return dead.astype(np.float64)

    def depths(self, tokens: Tokens) -> NDArray[np.int64]:
        """The number of layers of each architecture, int64[B] for tokens int64[B, T]."""
        if self.depth == "fixed":
            return np.full(len(tokens), self.layers)
        depths: NDArray[np.int64] = 1 + (tokens[:, self.stop_choices >= 0] == 0).sum(axis=1)
        return depths

    def skips(self, tokens: Tokens) -> NDArray[np.bool_]:
        """Which earlier layers (last axis) each layer reads, bool[B, layers, layers] for tokens int64[B, T]."""
        targets, sources = np.tril_indices(self.layers, -1)
        columns = [self.columns[f"layer_{t}/skip_{s}"] for t, s in zip(targets, sources, strict=True)]
        read = np.zeros((len(tokens), self.layers, self.layers), dtype=bool)
        read[:, targets, sources] = tokens[:, columns] == 1
        return read

    def decode(self, tokens: Sequence[int] | Tokens) -> tuple[Convolution, ...]:
        """Decodes the layers of one architecture."""
        row = np.asarray(tokens)
        reads = self.skips(row[None])[0]

        def value(layer: int, kind: str, values: tuple[int, ...]) -> int:
            column = self.columns.get(f"layer_{layer}/{kind}")
            return values[0] if column is None else values[row[column]]

        return tuple(
            Convolution(
                tuple(np.flatnonzero(reads[layer]).tolist()),
                value(layer, "filter_height", self.heights),
                value(layer, "filter_width", self.widths),
                (value(layer, "stride_height", self.strides), value(layer, "stride_width", self.strides)),
                value(layer, "filters", self.filters),
            )
            for layer in range(int(self.depths(row[None])[0]))
        )

    def graph(self, architecture: Architecture) -> ArchitectureGraph:
        """One node per layer, such as ``conv_3x5_36`` or ``conv_3x5_36/2x1`` with strides, and per concatenation."""
        builder = GraphBuilder()
        add = builder.add
        add(Node("input", INPUT))

        def joined(name: str, sources: list[int]) -> int:
            return sources[0] if len(sources) == 1 else add(Node(name, CONCAT), *sources)

        layers = self.decode(architecture.tokens)
        outputs: list[int] = []
        for index, layer in enumerate(layers):
            source = joined(f"layer_{index}/concat", [outputs[i] for i in layer.inputs] or [0])
            label = f"conv_{layer.height}x{layer.width}_{layer.filters}"
            if layer.stride != (1, 1):
                label += "/{}x{}".format(*layer.stride)
            node = Node(f"layer_{index}", label, decision=f"layer_{index}/filters")
            outputs.append(add(node, source))
        read = {source for layer in layers for source in layer.inputs}
        ends = [output for index, output in enumerate(outputs) if index not in read]
        add(Node("output", OUTPUT), joined("concat", ends))
        return builder.build()
