"""The hierarchical space of Liu et al. 2018: a cell of motifs of primitive operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nas_gym.spaces.architecture import Architecture
from nas_gym.spaces.graph import CONCAT, INPUT, NONE, OUTPUT, SKIP, ArchitectureGraph, GraphBuilder, Node
from nas_gym.spaces.space import Decision, SearchSpace, Tokens

PRIMITIVES = ("conv_1x1", "depthwise_conv_3x3", "sep_conv_3x3", "max_pool_3x3", "avg_pool_3x3", SKIP)

Motif = tuple[tuple[int, int, str], ...]
"""The edges of a motif that are not `none`: (source, target, primitive), by target and source."""


@dataclass(frozen=True)
class HierarchicalCell:
    """A decoded cell.

    Attributes:
        motifs: the second-level motifs.
        edges: the edges of the cell that are not `none`: (source, target, index of a motif), by target and source.
    """

    motifs: tuple[Motif, ...]
    edges: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class HierarchicalSpace(SearchSpace):
    """Three levels: primitives, motifs with primitives as edges, and a cell with motifs as edges. Edges may be absent.

    Source: Liu et al. 2018, "Hierarchical Representations for Efficient Architecture Search", sections 2 and 4.1: six
    primitives and `none`, six motifs of four nodes, a cell of five nodes. Motifs and the cell are complete directed
    acyclic graphs from their first to their last node; a node concatenates the results of its edges. A motif may be
    used on several edges of the cell, each time with its own weights.

    All sequences are legal. A motif without a path from its first to its last node is zero, like an edge `none`. Nodes
    without a live edge are zero too and are left out of concatenations. If the cell is zero, its output has no
    incoming edge, and the network predicts the same for all images.

    The decisions are an operation for each edge of the first motif, then of the others, then a motif for each edge of
    the cell. Motifs are groups, and the edges of the cell point to them.

    Args:
        motifs: number of motifs.
        motif_nodes: number of nodes of a motif.
        cell_nodes: number of nodes of the cell.
        primitives: names of the primitives, without `none`.

    Raises:
        ValueError: a number is out of range, or the primitives are empty or contain `none`.
    """

    motifs: int = 6
    motif_nodes: int = 4
    cell_nodes: int = 5
    primitives: tuple[str, ...] = PRIMITIVES

    name = "hierarchical"

    def __post_init__(self) -> None:
        for name, least in (("motifs", 1), ("motif_nodes", 2), ("cell_nodes", 2)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be at least {least}, got {value!r}")
        if not self.primitives or NONE in self.primitives:
            raise ValueError(f"primitives must name operations, {NONE!r} not among them, got {self.primitives!r}")

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        operations = (NONE, *self.primitives)
        decisions = [
            Decision(f"motif_{motif}/edge_{source}_{target}", "operation", motif, operations)
            for motif in range(self.motifs)
            for source, target in _edges(self.motif_nodes)
        ]
        motifs = (NONE, *(f"motif_{motif}" for motif in range(self.motifs)))
        targets = (None, *range(self.motifs))
        # The groups of the cell's nodes follow those of the motifs.
        decisions += [
            Decision(f"cell/edge_{source}_{target}", "motif", self.motifs - 1 + target, motifs, targets)
            for source, target in _edges(self.cell_nodes)
        ]
        return tuple(decisions)

    @property
    def size(self) -> int:
        in_motifs = self.motifs * len(_edges(self.motif_nodes))
        size: int = (1 + len(self.primitives)) ** in_motifs * (1 + self.motifs) ** len(_edges(self.cell_nodes))
        return size

    def decode(self, tokens: Sequence[int] | Tokens) -> HierarchicalCell:
        """Decodes the motifs and the cell of one architecture."""
        row = np.asarray(tokens).tolist()
        inside, across = _edges(self.motif_nodes), _edges(self.cell_nodes)
        split = self.motifs * len(inside)
        motifs = [zip(inside, row[start : start + len(inside)], strict=True) for start in range(0, split, len(inside))]
        return HierarchicalCell(
            tuple(tuple((*edge, self.primitives[token - 1]) for edge, token in motif if token) for motif in motifs),
            tuple((*edge, token - 1) for edge, token in zip(across, row[split:], strict=True) if token),
        )

    def graph(self, architecture: Architecture) -> ArchitectureGraph:
        """The cell with every motif expanded: one node per primitive whose input is not zero."""
        cell = self.decode(architecture.tokens)
        builder = GraphBuilder()
        add = builder.add
        add(Node("input", INPUT))

        def joined(name: str, sources: list[int]) -> int | None:
            return add(Node(name, CONCAT), *sources) if len(sources) > 1 else next(iter(sources), None)

        def instance(motif: int, source: int, prefix: str) -> int | None:
            """Expands a motif that reads a node; returns the node of its output, None if it is zero."""
            values: list[int | None] = [source]
            for node in range(1, self.motif_nodes):
                operands = []
                for origin, target, primitive in cell.motifs[motif]:
                    value = values[origin] if target == node else None
                    if value is not None:
                        edge = f"edge_{origin}_{node}"
                        operation = Node(f"{prefix}/{edge}", primitive, decision=f"motif_{motif}/{edge}")
                        operands.append(add(operation, value))
                values.append(joined(f"{prefix}/node_{node}", operands))
            return values[-1]

        values: list[int | None] = [0]
        for node in range(1, self.cell_nodes):
            results = []
            for origin, target, motif in cell.edges:
                value = values[origin] if target == node else None
                result = None if value is None else instance(motif, value, f"edge_{origin}_{node}")
                if result is not None:
                    results.append(result)
            values.append(joined(f"node_{node}", results))
        add(Node("output", OUTPUT), *([] if values[-1] is None else [values[-1]]))
        return builder.build()


def _edges(nodes: int) -> tuple[tuple[int, int], ...]:
    """(source, target) of all edges of the complete directed acyclic graph, by target and source."""
    return tuple((source, target) for target in range(1, nodes) for source in range(target))
