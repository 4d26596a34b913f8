"""The macro space of ENAS: a chain of layers, each with one operation and skip connections from earlier layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nas_gym.spaces.architecture import Architecture
from nas_gym.spaces.graph import CONCAT, INPUT, OUTPUT, ArchitectureGraph, Node
from nas_gym.spaces.space import Decision, SearchSpace, Tokens

OPERATIONS = ("conv_3x3", "sep_conv_3x3", "conv_5x5", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3")
SKIP_CHOICES = ("none", "connect")


@dataclass(frozen=True)
class MacroLayer:
    """A decoded layer: its operation, and the earlier layers whose outputs are joined to its own."""

    operation: str
    skips: tuple[int, ...]


@dataclass(frozen=True)
class MacroSpace(SearchSpace):
    """Layer k applies its operation to the output of layer k - 1 and joins the outputs of any earlier layers.

    Source: Pham et al. 2018 (ENAS), section 2.3: 6 operations, any set of earlier layers, 6^L * 2^(L (L - 1) / 2)
    networks of L layers, about 1.6 * 10^29 for L = 12. The wiring is that of the authors' code: the operation always
    reads the previous layer, and skips are joined to its result. (The paper's final network concatenates them and
    restores the width with a 1x1 convolution; with shared weights, and in the networks here, they are added and
    normalised.) A layer's decisions are its operation, then a skip bit for each earlier layer.

    Args:
        layers: number of layers.
        operations: names of the operations.

    Raises:
        ValueError: there is no layer or no operation.
    """

    layers: int = 12
    operations: tuple[str, ...] = OPERATIONS

    name = "macro"

    def __post_init__(self) -> None:
        if not isinstance(self.layers, int) or self.layers < 1:
            raise ValueError(f"layers must be at least 1, got {self.layers!r}")
        if not self.operations:
            raise ValueError(f"operations must name at least one operation, got {self.operations!r}")

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        decisions = []
        for layer in range(self.layers):
            decisions.append(Decision(f"layer_{layer}/operation", "operation", layer, self.operations))
            decisions += [
                Decision(f"layer_{layer}/skip_{source}", "skip", layer, SKIP_CHOICES, (None, source))
                for source in range(layer)
            ]
        return tuple(decisions)

    @property
    def size(self) -> int:
        size: int = len(self.operations) ** self.layers * 2 ** (self.layers * (self.layers - 1) // 2)
        return size

    @cached_property
    def operation_columns(self) -> NDArray[np.int64]:
        """int64[layers], the column of each layer's operation in the tokens."""
        layers = np.arange(self.layers)
        return np.asarray(layers + layers * (layers - 1) // 2)

    def skips(self, tokens: Tokens) -> NDArray[np.bool_]:
        """Which earlier layers (last axis) each layer joins, bool[B, layers, layers] for tokens int64[B, T]."""
        targets, sources = np.tril_indices(self.layers, -1)
        joined = np.zeros((len(tokens), self.layers, self.layers), dtype=bool)
        joined[:, targets, sources] = tokens[:, self.operation_columns[targets] + 1 + sources] == 1
        return joined

    def decode(self, tokens: Sequence[int] | Tokens) -> tuple[MacroLayer, ...]:
        """Decodes the layers of one architecture."""
        row = np.asarray(tokens)
        skips = self.skips(row[None])[0]
        return tuple(
            MacroLayer(self.operations[row[column]], tuple(np.flatnonzero(joined).tolist()))
            for column, joined in zip(self.operation_columns, skips, strict=True)
        )

    def graph(self, architecture: Architecture) -> ArchitectureGraph:
        """One node per operation, followed by a concatenation if its layer has skips."""
        nodes, edges, outputs = [Node("input", INPUT)], [], [0]
        for index, layer in enumerate(self.decode(architecture.tokens)):
            name = f"layer_{index}/operation"
            nodes.append(Node(name, layer.operation, decision=name))
            edges.append((outputs[-1], len(nodes) - 1))
            if layer.skips:
                nodes.append(Node(f"layer_{index}", CONCAT))
                joined = [len(nodes) - 2, *(outputs[1 + source] for source in layer.skips)]
                edges += [(source, len(nodes) - 1) for source in joined]
            outputs.append(len(nodes) - 1)
        nodes.append(Node("output", OUTPUT))
        edges.append((outputs[-1], len(nodes) - 1))
        return ArchitectureGraph(tuple(nodes), tuple(edges))
