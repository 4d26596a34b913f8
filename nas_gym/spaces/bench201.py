"""The topology space of NAS-Bench-201 (Dong & Yang 2020) and NATS-Bench: a cell of 4 nodes and 6 operations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from nas_gym.spaces.architecture import Architecture
from nas_gym.spaces.graph import INPUT, NONE, OUTPUT, SKIP, SUM, ArchitectureGraph, Node
from nas_gym.spaces.space import Decision, SearchSpace, Tokens

OPERATIONS = (NONE, SKIP, "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


@dataclass(frozen=True)
class Bench201Space(SearchSpace):
    """One operation on each edge of the complete directed acyclic graph with `nodes` nodes; nodes sum their edges.

    Source: Dong & Yang 2020, "NAS-Bench-201", section 2.1: 4 nodes, 5 operations, 5^6 = 15,625 architectures. They
    fall into 6,466 classes by NATS-Bench's `unique_string` and into 5,425 by `canonical`, for two reasons. The unique
    string is an expression tree: it merges parallel equal convolutions that read the same value, keeps a branch whose
    value is zero as a term ``#`` of its sum, and cannot distinguish one convolution that is used twice from two equal
    ones. `canonical` drops dead branches and keeps each convolution's identity.

    Args:
        nodes: number of nodes, including the input.
        operations: names of the operations on an edge.
    """

    nodes: int = 4
    operations: tuple[str, ...] = OPERATIONS

    name = "bench201"

    def __post_init__(self) -> None:
        if not isinstance(self.nodes, int) or self.nodes < 2:
            raise ValueError(f"nodes must be at least 2, got {self.nodes!r}")
        if not self.operations:
            raise ValueError("operations must hold at least one name")

    @cached_property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(source, target) of each decision, in the benchmark's order."""
        return tuple((source, target) for target in range(1, self.nodes) for source in range(target))

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        return tuple(
            Decision(f"edge_{source}_{target}", "operation", target, self.operations) for source, target in self.edges
        )

    @property
    def size(self) -> int:
        size: int = len(self.operations) ** len(self.edges)
        return size

    def graph(self, architecture: Architecture) -> ArchitectureGraph:
        """Each node of the cell is a sum, and each edge's operation a node between two sums."""
        nodes, edges, state = [Node("input", INPUT)], [], {0: 0}
        for target in range(1, self.nodes):
            operations = []
            for decision, (source, end), token in zip(self.decisions, self.edges, architecture.tokens, strict=True):
                if end == target:
                    nodes.append(Node(decision.name, self.operations[token], decision=decision.name))
                    edges.append((state[source], len(nodes) - 1))
                    operations.append(len(nodes) - 1)
            state[target] = len(nodes)
            nodes.append(Node(f"node_{target}", SUM))
            edges += [(operation, state[target]) for operation in operations]
        nodes.append(Node("output", OUTPUT))
        edges.append((len(nodes) - 2, len(nodes) - 1))
        return ArchitectureGraph(tuple(nodes), tuple(edges))

    def format(self, tokens: Sequence[int] | Tokens) -> str:
        """The benchmark's own string format, such as ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|``."""
        parts: list[list[str]] = [[] for _ in range(self.nodes)]
        for (source, target), token in zip(self.edges, tokens, strict=True):
            parts[target].append(f"{self.operations[int(token)]}~{source}")
        return "+".join(f"|{'|'.join(part)}|" for part in parts[1:])

    def parse(self, text: str) -> Architecture:
        """Reads the benchmark's string.

        Raises:
            ValueError: the text does not have that format, or names an unknown operation.
        """
        found = re.findall(r"([^|+~]+)~(\d+)", text)
        tokens = [self.operations.index(operation) if operation in self.operations else -1 for operation, _ in found]
        if len(found) != len(self.edges) or -1 in tokens or self.format(tokens) != text:
            example = self.format([0] * len(self.edges))
            raise ValueError(f"{text!r} is not of the form {example!r} with operations {', '.join(self.operations)}")
        return self.architecture(tokens)

    def unique_string(self, architecture: Architecture) -> str:
        """NATS-Bench's identifier of isomorphic cells, for comparison with tables that use it as key.

        Each node is the sorted sum of its edges' expressions: a skip is the expression of its source; a `none`, or an
        edge from a zero node, is the term ``#``.
        """
        expressions = ["0"]
        for target in range(1, self.nodes):
            terms = []
            for (source, end), token in zip(self.edges, architecture.tokens, strict=True):
                if end != target:
                    continue
                operation = self.operations[token]
                if operation == NONE or expressions[source] == "#":
                    terms.append("#")
                else:
                    terms.append(expressions[source] if operation == SKIP else f"({expressions[source]})@{operation}")
            expressions.append("+".join(sorted(terms)))
        return expressions[-1]
