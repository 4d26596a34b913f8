"""The cell space of NAS-Bench-101 (Ying et al. 2019): a graph of labelled vertices with few edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nas_gym.spaces.architecture import Architecture
from nas_gym.spaces.graph import CONCAT, INPUT, OUTPUT, ArchitectureGraph, Node
from nas_gym.spaces.space import Decision, SearchSpace, Tokens

OPERATIONS = ("conv_3x3", "conv_1x1", "max_pool_3x3")
EDGE_CHOICES = ("none", "connect")
MOST_VERTICES = 7  # limits the size of tables that are indexed by the edges so far


@dataclass(frozen=True)
class Bench101Cell:
    """A decoded cell, pruned to the vertices between input and output.

    Attributes:
        vertices: the remaining vertices, numbered as before pruning; the input first, the output last.
        matrix: matrix[i][j] is 1 if there is an edge from the i-th to the j-th of them, else 0.
        operations: their operations; ``"input"`` for the first and ``"output"`` for the last.
    """

    vertices: tuple[int, ...]
    matrix: tuple[tuple[int, ...], ...]
    operations: tuple[str, ...]


@dataclass(frozen=True)
class Bench101Space(SearchSpace):
    """A directed acyclic graph of at most `vertices` vertices and `max_edges` edges, with operations on inner vertices.

    Source: Ying et al. 2019, "NAS-Bench-101", sections 2.1 and 2.2. A vertex sums its inputs. The output concatenates
    the inner vertices that lead to it (and adds the cell's input, if there is an edge between them); each edge from the
    cell's input is a 1x1 convolution. Vertex by vertex, the decisions are one bit for each earlier vertex, then the
    operation. The masks ensure that there are at most `max_edges` edges and that the output can be reached. Vertices
    that are not between input and output are legal and pruned: 139,359,042 sequences fall into 423,624 classes.

    Args:
        vertices: number of vertices, input and output included, 2 to 7.
        max_edges: maximum number of edges before pruning.
        operations: names of the operations on inner vertices.

    Raises:
        ValueError: a number is out of range, or there is no operation.
    """

    vertices: int = 7
    max_edges: int = 9
    operations: tuple[str, ...] = OPERATIONS

    name = "bench101"

    def __post_init__(self) -> None:
        if not isinstance(self.vertices, int) or not 2 <= self.vertices <= MOST_VERTICES:
            raise ValueError(f"vertices must be from 2 to {MOST_VERTICES}, got {self.vertices!r}")
        if not isinstance(self.max_edges, int) or self.max_edges < 1:
            raise ValueError(f"max_edges must be at least 1, got {self.max_edges!r}")
        if not self.operations:
            raise ValueError(f"operations must name at least one operation, got {self.operations!r}")

    @cached_property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(source, target) of each edge decision, in order."""
        return tuple((source, target) for target in range(1, self.vertices) for source in range(target))

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        decisions = []
        for vertex in range(1, self.vertices):
            decisions += [
                Decision(f"vertex_{vertex}/edge_{source}", "edge", vertex, EDGE_CHOICES, (None, source))
                for source in range(vertex)
            ]
            if vertex < self.vertices - 1:
                decisions.append(Decision(f"vertex_{vertex}/operation", "operation", vertex, self.operations))
        return tuple(decisions)

    @cached_property
    def edge_columns(self) -> NDArray[np.int64]:
        """int64[E], the column of each of `edges` in the tokens."""
        return np.array([column for column, decision in enumerate(self.decisions) if decision.kind == "edge"])

    @property
    def size(self) -> int:
        size: int = len(self.operations) ** (self.vertices - 2) * int(self._completions[0][0, 1])
        return size

    # ------------------------------------------------------------------ masks

    @cached_property
    def _completions(self) -> list[NDArray[np.int64]]:
        """For each number of decided edges, int64[max_edges + 2, 2**vertices]: the number of ways to decide the others.

        The state is the number of edges so far and the set of vertices that they make reachable from the input.
        """
        reachable = np.arange(2**self.vertices)
        final = np.zeros((self.max_edges + 2, 2**self.vertices), dtype=np.int64)
        final[:-1] = reachable >> (self.vertices - 1)
        counts = [final]
        for source, target in reversed(self.edges):
            following = counts[0]
            count = following.copy()
            count[:-1] += following[1:, _reach(reachable, source, target)]
            counts.insert(0, count)
        return counts

    @cached_property
    def _edge_weights(self) -> list[NDArray[np.float64]]:
        """For each edge decision, float64[S, A]: the weights in each state."""
        reachable = np.arange(2**self.vertices)
        tables = []
        for (source, target), following in zip(self.edges, self._completions[1:], strict=True):
            table = np.zeros((*following.shape, self.num_choices))
            table[..., 0] = following
            table[:-1, :, 1] = following[1:, _reach(reachable, source, target)]
            tables.append(table.reshape(-1, self.num_choices))
        return tables

    @cached_property
    def _states(self) -> NDArray[np.int32]:
        """int32[2**(E - 1)], the state after each prefix; bit i of the index is set if edge i exists."""
        states = np.ones(1, dtype=np.int64)
        for source, target in self.edges[:-1]:
            states = np.concatenate([states, _reach(states, source, target) + 2**self.vertices])
        known: NDArray[np.int64] = np.minimum(states, (self.max_edges + 2) * 2**self.vertices - 1)
        return known.astype(np.int32)

    @cached_property
    def _bits(self) -> NDArray[np.int64]:
        """int64[T], the factor of each decision's choice in the index of a prefix."""
        bits = np.zeros(self.length, dtype=np.int64)
        bits[self.edge_columns] = 2 ** np.arange(len(self.edges))
        return bits

    @cached_property
    def _edge_at(self) -> dict[int, int]:
        return {column: edge for edge, column in enumerate(self.edge_columns.tolist())}

    @cached_property
    def dependent(self) -> NDArray[np.bool_]:
        return self._bits > 0

    def weights(self, tokens: Tokens, position: int) -> NDArray[np.float64]:
        if position not in self._edge_at:
            return super().weights(tokens, position)
        states = self._states[tokens[:, :position] @ self._bits[:position]]
        weights: NDArray[np.float64] = self._edge_weights[self._edge_at[position]].take(states, axis=0)
        return weights

    # ------------------------------------------------------------------ cells

    def adjacency(self, tokens: Tokens) -> NDArray[np.bool_]:
        """Whether there is an edge from i to j before pruning, bool[B, vertices, vertices] for tokens int64[B, T]."""
        sources, targets = np.array(self.edges).T
        matrix = np.zeros((len(tokens), self.vertices, self.vertices), dtype=bool)
        matrix[:, sources, targets] = tokens[:, self.edge_columns] == 1
        return matrix

    def live(self, adjacency: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which vertices lie between input and output, bool[B, vertices]."""
        forward, backward = np.zeros((2, *adjacency.shape[:2]), dtype=bool)
        forward[:, 0] = backward[:, -1] = True
        for vertex in range(1, self.vertices):
            forward[:, vertex] = (forward & adjacency[:, :, vertex]).any(axis=1)
            backward[:, -1 - vertex] = (backward & adjacency[:, -1 - vertex]).any(axis=1)
        live: NDArray[np.bool_] = forward & backward
        return live

    def decode(self, tokens: Sequence[int] | Tokens) -> Bench101Cell:
        """Decodes one cell, pruned: the matrix and operations that are the keys of the benchmark's own tables."""
        row = np.asarray(tokens)
        adjacency = self.adjacency(row[None])
        vertices = np.flatnonzero(self.live(adjacency)[0])
        inner = {
            decision.group: self.operations[token]
            for decision, token in zip(self.decisions, row.tolist(), strict=True)
            if decision.kind == "operation"
        }
        return Bench101Cell(
            tuple(vertices.tolist()),
            tuple(map(tuple, adjacency[0][np.ix_(vertices, vertices)].astype(int).tolist())),
            tuple({0: INPUT, self.vertices - 1: OUTPUT, **inner}[vertex] for vertex in vertices.tolist()),
        )

    def graph(self, architecture: Architecture) -> ArchitectureGraph:
        """One node per vertex that is not pruned, and one for the concatenation before the output."""
        cell = self.decode(architecture.tokens)
        nodes = [Node(INPUT, INPUT)]
        for vertex, operation in zip(cell.vertices[1:-1], cell.operations[1:-1], strict=True):
            nodes.append(Node(f"vertex_{vertex}", operation, decision=f"vertex_{vertex}/operation"))
        last = len(nodes)
        edges = [(i, j) for j in range(1, last) for i in range(j) if cell.matrix[i][j]]
        ends = [i for i in range(1, last) if cell.matrix[i][last]]
        if ends:
            nodes.append(Node(CONCAT, CONCAT))
            edges += [(end, last) for end in ends]
            edges.append((last, last + 1))
        if cell.matrix[0][last]:
            edges.append((0, len(nodes)))
        nodes.append(Node(OUTPUT, OUTPUT))
        return ArchitectureGraph(tuple(nodes), tuple(edges))


def _reach(reachable: NDArray[np.int64], source: int, target: int) -> NDArray[np.int64]:
    """The sets of reachable vertices, as bits, after adding an edge."""
    return reachable | (reachable >> source & 1) << target
