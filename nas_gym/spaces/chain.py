"""Chains of convolutions with skip connections, of fixed or chosen depth (Zoph & Le 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nas_gym.spaces.graph import CONCAT, INPUT, OUTPUT, ArchitectureGraph, Node
from nas_gym.spaces.space import Architecture, Decision, SearchSpace, Tokens

CONTINUE, STOP, ABSENT = "continue", "stop", "absent"


@dataclass(frozen=True)
class Convolution:
    """One layer, decoded: the earlier layers that it reads (none: the image), its filters, its (height, width) stride.

    `height` and `width` are those of a filter, `filters` is their number.
    """

    inputs: tuple[int, ...]
    height: int
    width: int
    stride: tuple[int, int]
    filters: int


@dataclass(frozen=True)
class ChainSpace(SearchSpace):
    """Convolutional layers, each with its filter's shape and number, and skip connections from any earlier layers.

    Source: Zoph & Le 2017, sections 3.1 to 3.3 and 4.1. A layer's decisions, in the paper's order: a skip bit for each
    earlier layer (the anchor decisions of section 3.3), filter height, filter width, stride height and stride width if
    there is a choice of strides, number of filters. A layer reads the concatenation of the layers that it is connected
    to, the image if there are none; the classifier reads the concatenation of the layers that no layer reads. Maps
    of unequal size are padded with zeros.

    With ``depth="stop"`` the depth is chosen too: before each layer but the first, a decision of kind ``"stop"``;
    after ``"stop"`` the only legal choice of all that follows is ``"absent"``. Uniform sampling is over architectures,
    of which nearly all have the greatest depth.

    Args:
        layers: the number of layers, with ``depth="stop"`` the greatest.
        depth: ``"fixed"`` or ``"stop"``. (The paper's growing depth is a series of fixed ones.)
        heights: the filter heights to choose from.
        widths: the filter widths.
        strides: the strides, the same for both axes; with one alone they are no decisions.
        filters: the numbers of filters.

    Raises:
        ValueError: there is no layer, an unknown depth, or nothing to choose from.
    """

    layers: int = 6
    depth: Literal["fixed", "stop"] = "fixed"
    heights: tuple[int, ...] = (1, 3, 5, 7)
    widths: tuple[int, ...] = (1, 3, 5, 7)
    strides: tuple[int, ...] = (1,)
    filters: tuple[int, ...] = (24, 36, 48, 64)

    name = "chain"

    def __post_init__(self) -> None:
        if not isinstance(self.layers, int) or self.layers < 1:
            raise ValueError(f"layers must be at least 1, got {self.layers!r}")
        if self.depth not in ("fixed", "stop"):
            raise ValueError(f"depth must be 'fixed' or 'stop', got {self.depth!r}")
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
            absent = (ABSENT,) if self.depth == "stop" and layer > 0 else ()
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

    @cached_property
    def columns(self) -> dict[str, int]:
        """Where each decision stands in the tokens, by name."""
        return {decision.name: column for column, decision in enumerate(self.decisions)}

    @property
    def size(self) -> int:
        return self._variants(0) * (1 + self._completions[0] if self.depth == "stop" else self._completions[0])

    def _variants(self, layer: int) -> int:
        """In how many ways a layer can be made."""
        variants: int = 2**layer * len(self.heights) * len(self.widths) * len(self.strides) ** 2 * len(self.filters)
        return variants

    @cached_property
    def _completions(self) -> tuple[int, ...]:
        """For each layer in how many ways the later layers can be made: with stops, such that there is at least one."""
        counts = [0 if self.depth == "stop" else 1]
        for layer in range(self.layers - 1, 0, -1):
            counts.append(self._variants(layer) * (counts[-1] + (self.depth == "stop")))
        return tuple(reversed(counts))

    def weights(self, tokens: Tokens, position: int) -> NDArray[np.float64]:
        if self.prefix_free:
            return super().weights(tokens, position)
        present: NDArray[np.float64] = self._live[position]
        governing = self._governing[position]
        if governing < 0:
            return np.broadcast_to(present, (len(tokens), self.num_choices))
        ended = tokens[:, governing] != 0
        weights: NDArray[np.float64] = np.where(ended[:, None], self._dead[position], present)
        return weights

    @cached_property
    def prefix_free(self) -> bool:
        return self.depth == "fixed"

    @cached_property
    def _governing(self) -> NDArray[np.int64]:
        """int64[T], the last stop decision before each position, -1 for none: on `continue` the layer may be there."""
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
                # Counts overflow, their ratio does not; were it to vanish, the choice would no longer be legal.
                stop = Fraction(1, 1 + self._completions[decision.group - 1])
                live[column, :2] = float(1 - stop), max(float(stop), float(np.finfo(np.float64).tiny))
        return live

    @cached_property
    def _dead(self) -> NDArray[np.float64]:
        """float64[T, A], the weights after a stop."""
        dead: NDArray[np.bool_] = self.absent_choices[:, None] == np.arange(self.num_choices)
        return dead.astype(np.float64)

    def depths(self, tokens: Tokens) -> NDArray[np.int64]:
        """The number of layers of each architecture, int64[B] of tokens int64[B, T]."""
        if self.depth == "fixed":
            return np.full(len(tokens), self.layers)
        depths: NDArray[np.int64] = 1 + (tokens[:, self.stop_choices >= 0] == 0).sum(axis=1)
        return depths

    def skips(self, tokens: Tokens) -> NDArray[np.bool_]:
        """Which earlier layers (last axis) each layer reads: bool[B, layers, layers] of tokens int64[B, T]."""
        targets, sources = np.tril_indices(self.layers, -1)
        columns = [self.columns[f"layer_{t}/skip_{s}"] for t, s in zip(targets, sources, strict=True)]
        read = np.zeros((len(tokens), self.layers, self.layers), dtype=bool)
        read[:, targets, sources] = tokens[:, columns] == 1
        return read

    def decode(self, tokens: Sequence[int] | Tokens) -> tuple[Convolution, ...]:
        """The layers of one architecture, as many as it has."""
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
        """A node for each layer, such as ``conv_3x5_36`` or ``conv_3x5_36/2x1`` with strides, and for each joining."""
        nodes: list[Node] = [Node("input", INPUT)]
        edges: list[tuple[int, int]] = []

        def add(node: Node, sources: list[int]) -> int:
            nodes.append(node)
            edges.extend((source, len(nodes) - 1) for source in sources)
            return len(nodes) - 1

        def joined(name: str, sources: list[int]) -> int:
            return sources[0] if len(sources) == 1 else add(Node(name, CONCAT), sources)

        layers = self.decode(architecture.tokens)
        outputs: list[int] = []
        for index, layer in enumerate(layers):
            source = joined(f"layer_{index}/concat", [outputs[i] for i in layer.inputs] or [0])
            label = f"conv_{layer.height}x{layer.width}_{layer.filters}"
            if layer.stride != (1, 1):
                label += "/{}x{}".format(*layer.stride)
            node = Node(f"layer_{index}", label, decision=f"layer_{index}/filters")
            outputs.append(add(node, [source]))
        read = {source for layer in layers for source in layer.inputs}
        ends = [output for index, output in enumerate(outputs) if index not in read]
        add(Node("output", OUTPUT), [joined("concat", ends)])
        return ArchitectureGraph(tuple(nodes), tuple(edges))
