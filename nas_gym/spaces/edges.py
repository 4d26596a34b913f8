"""Spaces whose operations stand on the edges of a cell: an architecture as one operation an edge, and back.

Differentiable search weighs all operations of each edge. An `Edges` says which edges and operations those are, and
which architecture is meant by weights of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import numpy as np

from nas_gym.spaces.bench201 import Bench201Space
from nas_gym.spaces.cell import ADD, CELLS, CellSpace
from nas_gym.spaces.graph import NONE, SKIP
from nas_gym.spaces.space import SearchSpace, Tokens
from nas_gym.types import Floats

SLOTS = 2  # operands of a node in cells of the kind of DARTS


class Edges(ABC):
    """The E edges of a space and the O operations that stand on them.

    Attributes:
        space: the space.
        names: E names, with the cell's in front where there are several: ``"normal/edge_0_2"``.
        operations: O names.
    """

    space: SearchSpace
    names: tuple[str, ...]
    operations: tuple[str, ...]

    @abstractmethod
    def weights(self, tokens: Tokens) -> Floats:
        """Of architectures int64[B, T]: 1 for the operation that stands on an edge, float64[B, E, O]."""

    @abstractmethod
    def tokens(self, weights: Floats) -> Tokens:
        """The architecture int64[T] that is meant by weights float64[E, O]."""

    @property
    def shape(self) -> tuple[int, int]:
        """E and O."""
        return len(self.names), len(self.operations)

    @cached_property
    def cells(self) -> tuple[str, ...]:
        """The cell of each edge; empty names where there is one cell."""
        return tuple(name.rpartition("/")[0] for name in self.names)

    def tokens_with_skips(self, weights: Floats, most: int | None) -> Tokens:
        """As `tokens`, with at most so many identities a cell: the weakest make way (Chen et al. 2019, P-DARTS)."""
        if most is None or SKIP not in self.operations:
            return self.tokens(weights)
        skip, left = self.operations.index(SKIP), weights.copy()
        while True:
            found = self.tokens(left)
            skips = self.weights(found[None])[0, :, skip] > 0
            for cell in dict.fromkeys(self.cells):
                edges = np.flatnonzero(skips & (np.array(self.cells) == cell))
                if len(edges) > most:
                    left[edges[np.argmin(left[edges, skip])], skip] = -np.inf
                    break
            else:
                return found


class Bench201Edges(Edges):
    """NAS-Bench-201's cell, whose decisions are its edges: the strongest operation of each edge is taken."""

    def __init__(self, space: Bench201Space) -> None:
        self.space = space
        self.names = tuple(decision.name for decision in space.decisions)
        self.operations = space.operations

    def weights(self, tokens: Tokens) -> Floats:
        chosen: Floats = np.eye(len(self.operations))[tokens]
        return chosen

    def tokens(self, weights: Floats) -> Tokens:
        strongest: Tokens = np.argmax(weights, axis=1)
        return strongest


class CellEdges(Edges):
    """Cells of the kind of DARTS, whose nodes read two of the states before them.

    Every state before a node has an edge to it, and `none` is an operation besides the space's. Of each node the two
    edges are kept whose strongest other operation is the strongest (Liu et al. 2019, section 2.4).
    """

    space: CellSpace

    def __init__(self, space: CellSpace) -> None:
        self.space = space
        self.operations = (NONE, *space.operations)
        self.triples = [
            (cell, source, node)
            for cell in range(len(CELLS))
            for node in range(space.nodes)
            for source in range(node + 2)
        ]
        self.names = tuple(f"{CELLS[cell]}/edge_{source}_{node + 2}" for cell, source, node in self.triples)

    def weights(self, tokens: Tokens) -> Floats:
        chosen, rows = np.zeros((len(tokens), *self.shape)), np.arange(len(tokens))
        nodes = self._by_node(tokens)
        numbers = {triple: edge for edge, triple in enumerate(self.triples)}
        first = np.array([[numbers[cell, 0, node] for node in range(self.space.nodes)] for cell in range(len(CELLS))])
        for slot in range(SLOTS):
            edges = first + nodes[..., slot]
            chosen[rows[:, None, None], edges, 1 + nodes[..., SLOTS + slot]] = 1.0
        return chosen

    def tokens(self, weights: Floats) -> Tokens:
        strength, operation = weights[:, 1:].max(axis=1), weights[:, 1:].argmax(axis=1)
        nodes = np.empty((len(CELLS), self.space.nodes, 2 * SLOTS), dtype=np.int64)
        for cell in range(len(CELLS)):
            for node in range(self.space.nodes):
                edges = np.array([edge for edge, (c, _, n) in enumerate(self.triples) if (c, n) == (cell, node)])
                kept = np.sort(np.argsort(-strength[edges], kind="stable")[:SLOTS])
                nodes[cell, node] = [*kept, *operation[edges[kept]]]
        return nodes.reshape(-1)

    def _by_node(self, tokens: Tokens) -> Tokens:
        """int64[B, cells, nodes, 4]: two states, their two operations."""
        return tokens.reshape(len(tokens), len(CELLS), self.space.nodes, 2 * SLOTS)


def edges_of(space: SearchSpace) -> Edges:
    """The edges of a space.

    Raises:
        ValueError: its operations do not stand on edges that are all there before the search.
    """
    if isinstance(space, Bench201Space):
        return Bench201Edges(space)
    if isinstance(space, CellSpace) and space.distinct_inputs and space.output == "all" and space.combine == (ADD,):
        return CellEdges(space)
    raise ValueError(
        f"space {space} cannot be relaxed: spaces 'bench201' and 'cell:darts' can, and cells like the latter "
        "(distinct_inputs, output='all', combine=('add',))"
    )
