"""Architectures as graphs for predictors: adjacency and operations, padded, and the paths from input to output."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nas_gym.spaces import SearchSpace, Tokens
from nas_gym.spaces.graph import INPUT, NONE, OUTPUT, SUM, ArchitectureGraph
from nas_gym.types import Bools

KEPT = 2**14
"""Architectures whose graphs and paths are kept, those used last: a search meets many of its candidates again."""

PADDING, UNKNOWN, GLOBAL = 0, 1, 2
"""The symbols of what is no node, of a node that no fitted architecture has, and of the global node."""

Path = tuple[str, ...]


@dataclass(frozen=True)
class GraphBatch:
    """B graphs of up to N nodes; smaller ones are padded.

    Attributes:
        adjacency: float32[B, N, N], how many edges lead from node j to node i, in row i and column j.
        symbols: int64[B, N], what each node does; `PADDING` where there is none.
        outputs: bool[B, N], the nodes whose values are the architecture's: those of the operation ``output``, or the
            global node where there is one.
    """

    adjacency: NDArray[np.float32]
    symbols: NDArray[np.int64]
    outputs: Bools

    @property
    def nodes(self) -> Bools:
        """Where there is a node, bool[B, N]."""
        real: Bools = self.symbols != PADDING
        return real


class GraphEncoding:
    """Encodes architectures as contracted graphs, so that those that compute the same are the same up to their order.

    There is a symbol for each operation in each part of the architecture.

    Args:
        space: the search space.
        tokens: int64[n, T], architectures whose operations get symbols of their own; others become `UNKNOWN`.
        global_node: whether a further node reads all others (Shi et al. 2020, "Bridging the Gap between Sample-based
            and One-shot Neural Architecture Search with BONAS").

    Attributes:
        symbols: how many there are.
    """

    def __init__(self, space: SearchSpace, tokens: Tokens, *, global_node: bool = False) -> None:
        self._space, self._global = space, global_node
        seen = {label for row in tokens for label in _graph(space, row.tobytes())[0]}
        self._symbol = {label: GLOBAL + 1 + rank for rank, label in enumerate(sorted(seen))}
        self.symbols = GLOBAL + 1 + len(seen)

    def encode(self, tokens: Tokens, nodes: int = 0) -> GraphBatch:
        """Encodes int64[B, T], padded to the largest of these graphs, or to `nodes` if that is more."""
        graphs = [_graph(self._space, row.tobytes()) for row in np.ascontiguousarray(tokens)]
        size = max([nodes, *(len(labels) + self._global for labels, _, _ in graphs)])
        adjacency = np.zeros((len(graphs), size, size), dtype=np.float32)
        symbols = np.full((len(graphs), size), PADDING)
        outputs = np.zeros((len(graphs), size), dtype=bool)
        for row, (labels, edges, ends) in enumerate(graphs):
            count = len(labels)
            symbols[row, :count] = [self._symbol.get(label, UNKNOWN) for label in labels]
            np.add.at(adjacency[row], (edges[:, 1], edges[:, 0]), 1.0)
            if self._global:
                symbols[row, count] = GLOBAL
                adjacency[row, count, :count] = 1.0
                outputs[row, count] = True
            else:
                outputs[row, ends] = True
        return GraphBatch(adjacency, symbols, outputs)


@lru_cache(maxsize=KEPT)
def _graph(space: SearchSpace, row: bytes) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64]]:
    """The labels of the nodes, the edges int64[E, 2] from source to target, and the indices of the outputs."""
    graph = _built(space, row).contracted()
    labels = tuple(
        f"{node.cluster}:{node.operation}" + f":{node.name}" * (node.operation == INPUT) for node in graph.nodes
    )
    ends = [index for index, node in enumerate(graph.nodes) if node.operation == OUTPUT]
    return labels, np.array(graph.edges, dtype=np.int64).reshape(-1, 2), np.array(ends, dtype=np.int64)


def _built(space: SearchSpace, row: bytes) -> ArchitectureGraph:
    """The graph of legal choices: predictors check what they are given (`Predictor.predict`)."""
    return space.graph(space.architecture(np.frombuffer(row, dtype=np.int64), checked=True))


class PathEncoding:
    """Encodes architectures by the paths from an input to an output, each the sequence of its operations.

    There is a column for each path that one of the fitted architectures has. Sums are no operations, and there is no
    path through ``none``. Where there are too many, long paths are left out first, which few architectures share.

    Source: White et al. 2021, "BANANAS": the path encoding and its truncation.

    Args:
        space: the search space.
        tokens: int64[n, T], the fitted architectures.
        largest: the number of columns at most.

    Attributes:
        paths: that of each column: shortest first.
    """

    def __init__(self, space: SearchSpace, tokens: Tokens, *, largest: int = 1000) -> None:
        self._space, self._largest = space, largest
        known = {path for row in tokens for path in _paths(space, row.tobytes(), largest)}
        self.paths: list[Path] = sorted(known, key=_by_length)[:largest]
        self._column = {path: column for column, path in enumerate(self.paths)}

    def encode(self, tokens: Tokens) -> NDArray[np.float32]:
        """Encodes int64[B, T] as float32[B, paths]: 1 where an architecture has the path."""
        encoded = np.zeros((len(tokens), len(self.paths)), dtype=np.float32)
        for row, choices in enumerate(np.ascontiguousarray(tokens)):
            paths = _paths(self._space, choices.tobytes(), self._largest)
            encoded[row, [self._column[path] for path in paths if path in self._column]] = 1.0
        return encoded


@lru_cache(maxsize=KEPT)
def _paths(space: SearchSpace, row: bytes, largest: int) -> tuple[Path, ...]:
    """The paths of an architecture. No node passes on more than `largest`: there may be exponentially many."""
    graph = _built(space, row)
    through: list[set[Path]] = []
    found: set[Path] = set()
    for node, sources in zip(graph.nodes, graph.predecessors(), strict=True):
        paths = {path for source in sources for path in through[source]}
        if node.operation == INPUT:
            paths = {()}
        elif node.operation == NONE:
            paths = set()
        elif node.operation == OUTPUT:
            found |= paths
        elif node.operation != SUM:
            paths = {(*path, f"{node.cluster}:{node.operation}") for path in paths}
        through.append(paths if len(paths) <= largest else set(sorted(paths, key=_by_length)[:largest]))
    return tuple(sorted(found, key=_by_length)[:largest])


def _by_length(path: Path) -> tuple[int, Path]:
    return len(path), path
