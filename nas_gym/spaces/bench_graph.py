"""The space of NAS-Bench-Graph (Qin et al. 2022): graph neural networks of four operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nas_gym.spaces.architecture import Architecture
from nas_gym.spaces.graph import CONCAT, INPUT, OUTPUT, SKIP, ArchitectureGraph, Node
from nas_gym.spaces.space import Decision, SearchSpace, Tokens

# The value that each node reads: 0 is the input, i the output of node i. One list per class of isomorphic lists.
LINKS = (
    (0, 0, 0, 0),
    (0, 0, 0, 1),
    (0, 0, 1, 1),
    (0, 0, 1, 2),
    (0, 0, 1, 3),
    (0, 1, 1, 1),
    (0, 1, 1, 2),
    (0, 1, 2, 2),
    (0, 1, 2, 3),
)
SKIP_WORD = "skip"
OPERATIONS = ("gat", "gcn", "gin", "cheb", "sage", "arma", "graph", "fc", SKIP_WORD)
PROTEINS_OPERATIONS = ("gcn", "sage", "arma", "fc", SKIP_WORD)


@dataclass(frozen=True)
class GraphNetwork:
    """A decoded architecture: the value that each node reads (0: the input, i: node i), and its operation."""

    links: tuple[int, ...]
    operations: tuple[str, ...]


@dataclass(frozen=True)
class BenchGraphSpace(SearchSpace):
    """A choice of nine link lists, then the operations of four nodes, each of which reads one earlier value.

    Source: Qin et al. 2022, "NAS-Bench-Graph", section 3.1: 26,206 different architectures. The output concatenates
    the nodes that no node reads. Architectures of skips only are illegal. A node that passes on the raw input through
    skips only is not part of the output: the benchmark identifies such an architecture with the one without that node,
    and so do `graph` and `canonical`.

    Args:
        links: the link lists.
        operations: names of the operations, with or without `skip`.

    Raises:
        ValueError: a list points forward or differs in length from the first, or all operations are skips.
    """

    links: tuple[tuple[int, ...], ...] = LINKS
    operations: tuple[str, ...] = OPERATIONS

    name = "bench_graph"

    def __post_init__(self) -> None:
        if not self.links or not all(
            len(link) == len(self.links[0]) > 0 and all(0 <= source <= node for node, source in enumerate(link))
            for link in self.links
        ):
            raise ValueError(f"links must be lists of one length in which node i reads 0..i - 1, got {self.links!r}")
        if not set(self.operations) - {SKIP_WORD}:
            raise ValueError(f"operations must name an operation that is not 'skip', got {self.operations!r}")

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        words = tuple("".join(map(str, link)) for link in self.links)
        return (
            Decision("links", "links", 0, words),
            *(Decision(f"node_{node}", "operation", node, self.operations) for node in range(1, self.nodes + 1)),
        )

    @property
    def nodes(self) -> int:
        """Number of nodes, without the input."""
        return len(self.links[0])

    @property
    def size(self) -> int:
        size: int = len(self.links) * (len(self.operations) ** self.nodes - (SKIP_WORD in self.operations))
        return size

    def weights(self, tokens: Tokens, position: int) -> NDArray[np.float64]:
        if position == 0 or self.prefix_free:
            return super().weights(tokens, position)
        # Prefixes of skips only can still become the illegal architecture, so they have one completion less.
        completions = len(self.operations) ** (self.nodes - position)
        skip = self.operations.index(SKIP_WORD)
        weights: NDArray[np.float64] = super().weights(tokens, position) * completions
        weights[:, skip] -= (tokens[:, 1:position] == skip).all(axis=1)
        return weights

    @cached_property
    def dependent(self) -> NDArray[np.bool_]:
        dependent = np.zeros(self.length, dtype=bool)
        dependent[-1] = SKIP_WORD in self.operations  # only the last can make the illegal architecture
        return dependent

    def decode(self, tokens: Sequence[int] | Tokens) -> GraphNetwork:
        """Decodes the links and operations of one architecture."""
        first, *rest = (int(token) for token in tokens)
        return GraphNetwork(self.links[first], tuple(self.operations[token] for token in rest))

    def graph(self, architecture: Architecture) -> ArchitectureGraph:
        """One node per operation; the output concatenates those that no node reads and that are not the raw input.

        A skip that is dropped from the output has no outgoing edge.
        """
        network = self.decode(architecture.tokens)
        nodes, edges, raw = [Node("input", INPUT)], [], [True]
        for index, (source, operation) in enumerate(zip(network.links, network.operations, strict=True), start=1):
            label = SKIP if operation == SKIP_WORD else operation
            nodes.append(Node(f"node_{index}", label, decision=f"node_{index}"))
            edges.append((source, index))
            raw.append(raw[source] and label == SKIP)
        nodes += [Node("concat", CONCAT), Node("output", OUTPUT)]
        ends = [node for node in range(1, self.nodes + 1) if node not in network.links and not raw[node]]
        edges += [(end, self.nodes + 1) for end in ends]
        edges.append((self.nodes + 1, self.nodes + 2))
        return ArchitectureGraph(tuple(nodes), tuple(edges))
