"""Architectures as directed acyclic graphs, for pictures, graph encoders and canonical hashes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

INPUT = "input"
OUTPUT = "output"
SUM = "sum"
CONCAT = "concat"
SKIP = "skip_connect"
NONE = "none"

Adjacency = tuple[tuple[str, tuple[tuple[int, int], ...]], ...]


@dataclass(frozen=True, slots=True)
class Node:
    """A vertex of an `ArchitectureGraph`.

    Attributes:
        name: a readable name, unique in the graph.
        operation: the operation applied to the sum of its inputs (`concat`: to their concatenation).
        cluster: the part of the architecture that it belongs to, such as ``"normal"``; empty if there is only one part.
        decision: the decision that chose the operation, if any (for pictures of unfinished architectures).
    """

    name: str
    operation: str
    cluster: str = ""
    decision: str | None = None


@dataclass(frozen=True)
class ArchitectureGraph:
    """Nodes in topological order and edges between their indices; parallel edges are allowed.

    Raises:
        ValueError: an edge points backwards or to a node that does not exist.
    """

    nodes: tuple[Node, ...]
    edges: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        for source, target in self.edges:
            if not 0 <= source < target < len(self.nodes):
                raise ValueError(f"edge {(source, target)} does not go forward among {len(self.nodes)} nodes")

    def predecessors(self) -> list[list[int]]:
        """For each node the sources of its incoming edges, in the order of the edges."""
        incoming: list[list[int]] = [[] for _ in self.nodes]
        for source, target in self.edges:
            incoming[target].append(source)
        return incoming

    def canonical(self) -> str:
        """A string that is equal for graphs that compute the same family of functions.

        Skip connections and sums are contracted, `none` is dropped together with everything that reads only it, nodes
        that reach no output are dropped, and the order of nodes is ignored. Parallel equal operations are kept apart,
        because each has its own weights: two parallel 3x3 convolutions are not one. Clusters (cells) keep their roles.
        """
        labels, sources = self._contracted()
        order = _canonical_order(labels, sources)
        rank = {node: position for position, node in enumerate(order)}
        rows = [
            f"{labels[node]}({','.join(str(rank[s]) for s in sorted(sources[node].elements(), key=rank.__getitem__))})"
            for node in order
        ]
        return ";".join(rows)

    def canonical_hash(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of `canonical`."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()[:16]

    def contracted(self) -> ArchitectureGraph:
        """The graph that `canonical` compares: its live operations, and the sums that are operands of concatenations.

        One without a path from an input to an output is that output alone.
        """
        labels, sources = self._contracted()
        if not labels:
            return ArchitectureGraph(tuple(node for node in self.nodes if node.operation == OUTPUT)[:1], ())
        rank = {node: position for position, node in enumerate(labels)}
        kept = [self.nodes[index] for index in labels]
        nodes = tuple(replace(node, operation=SUM) if node.operation == SKIP else node for node in kept)
        edges = ((rank[source], rank[node]) for node, read in sources.items() for source in read.elements())
        return ArchitectureGraph(nodes, tuple(edges))

    def _contracted(self) -> tuple[dict[int, str], dict[int, Counter[int]]]:
        """The live operations with their labels, and the multiset of live operations that each one reads."""
        labels: dict[int, str] = {}
        sources: dict[int, Counter[int]] = {}  # of operations and kept sums that are not zero
        sums: dict[tuple[object, ...], int] = {}  # the kept sums by their terms; equal sums are the same value
        terms: list[Counter[int]] = []  # each node's value as a sum of operations' outputs
        for index, (node, incoming) in enumerate(zip(self.nodes, self.predecessors(), strict=True)):
            summed: Counter[int] = Counter()
            for source in incoming:
                summed.update(terms[source])
            label = f"{node.cluster}:{node.operation}"
            if node.operation == INPUT:
                labels[index], sources[index] = f"{label}:{node.name}", Counter()
                terms.append(Counter({index: 1}))
            elif node.operation == NONE or not summed:
                terms.append(Counter())
            elif node.operation in (SUM, SKIP):
                terms.append(summed)
            elif node.operation == CONCAT:
                labels[index], sources[index] = label, Counter()
                for source in incoming:
                    sources[index].update(self._operand(source, terms[source], labels, sources, sums))
                terms.append(Counter({index: 1}))
            else:
                labels[index], sources[index] = label, summed
                terms.append(Counter({index: 1}))
        live: set[int] = set()
        stack = [index for index in labels if self.nodes[index].operation == OUTPUT]
        while stack:
            index = stack.pop()
            if index not in live:
                live.add(index)
                stack.extend(sources[index])
        return {i: labels[i] for i in sorted(live)}, {i: sources[i] for i in sorted(live)}

    def _operand(
        self,
        node: int,
        terms: Counter[int],
        labels: dict[int, str],
        sources: dict[int, Counter[int]],
        sums: dict[tuple[object, ...], int],
    ) -> Counter[int]:
        """One operand of a concatenation: an operation, or a sum that must stay a separate node."""
        if terms.total() <= 1:
            return terms
        label = f"{self.nodes[node].cluster}:{SUM}"
        kept = sums.setdefault((label, _frozen(terms)), node)
        labels[kept], sources[kept] = label, terms
        return Counter({kept: 1})


class GraphBuilder:
    """Collects the nodes of an `ArchitectureGraph` in topological order."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.edges: list[tuple[int, int]] = []

    def add(self, node: Node, *sources: int) -> int:
        """Adds a node that reads the nodes with the indices `sources`; returns its index."""
        self.nodes.append(node)
        self.edges.extend((source, len(self.nodes) - 1) for source in sources)
        return len(self.nodes) - 1

    def build(self) -> ArchitectureGraph:
        """Returns the graph of the added nodes."""
        return ArchitectureGraph(tuple(self.nodes), tuple(self.edges))


def _canonical_order(labels: dict[int, str], sources: dict[int, Counter[int]]) -> list[int]:
    """An order of the nodes that depends only on the graph: colour refinement, ties broken by individualisation."""
    targets: dict[int, Counter[int]] = {node: Counter() for node in labels}
    for node, multiset in sources.items():
        for source, count in multiset.items():
            targets[source][node] += count

    def refine(colours: dict[int, int]) -> dict[int, int]:
        while True:
            signatures = {
                node: (
                    colours[node],
                    tuple(sorted((colours[s], count) for s, count in sources[node].items())),
                    tuple(sorted((colours[t], count) for t, count in targets[node].items())),
                )
                for node in labels
            }
            refined = _ranks(signatures)
            if len(set(refined.values())) == len(set(colours.values())):
                return refined
            colours = refined

    def tied(colours: dict[int, int]) -> list[int]:
        classes: dict[int, list[int]] = {}
        for node, colour in colours.items():
            classes.setdefault(colour, []).append(node)
        return next((classes[colour] for colour in sorted(classes) if len(classes[colour]) > 1), [])

    def individualise(colours: dict[int, int], node: int) -> dict[int, int]:
        doubled = {other: 2 * colour + 1 for other, colour in colours.items()}
        doubled[node] -= 1
        return refine(doubled)

    def first_leaf(colours: dict[int, int]) -> Adjacency:
        while ties := tied(colours):
            colours = individualise(colours, ties[0])
        return _adjacency(sorted(labels, key=colours.__getitem__), labels, sources)

    def search(colours: dict[int, int]) -> list[int]:
        ties = tied(colours)
        if not ties:
            return sorted(labels, key=colours.__getitem__)
        # Twins read the same nodes and are read by the same nodes, so it is enough to try one of them first. The same
        # holds for two nodes whose branches share an equal leaf: a symmetry of the graph then maps branch to branch.
        twins = {(_frozen(sources[n]), _frozen(targets[n])): n for n in reversed(ties)}
        branches: dict[Adjacency, dict[int, int]] = {}
        for node in twins.values():
            branch = individualise(colours, node)
            branches.setdefault(first_leaf(branch), branch)
        orders = [search(branch) for branch in branches.values()]
        return min(orders, key=lambda order: _adjacency(order, labels, sources))

    return search(refine(_ranks(dict(labels))))


def _ranks(signatures: Mapping[int, Any]) -> dict[int, int]:
    """The rank of each node's signature among the distinct signatures, which must be comparable."""
    ordered = {signature: rank for rank, signature in enumerate(sorted(set(signatures.values())))}
    return {node: ordered[signature] for node, signature in signatures.items()}


def _frozen(multiset: Counter[int]) -> tuple[tuple[int, int], ...]:
    return tuple(sorted(multiset.items()))


def _adjacency(order: Sequence[int], labels: dict[int, str], sources: dict[int, Counter[int]]) -> Adjacency:
    rank = {node: position for position, node in enumerate(order)}
    return tuple((labels[n], tuple(sorted((rank[s], count) for s, count in sources[n].items()))) for n in order)
