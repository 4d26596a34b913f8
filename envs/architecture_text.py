"""Architectures as text, finished or partly decided."""

from __future__ import annotations

import itertools
import re

import numpy as np

from nas_gym.spaces import UNDECIDED, Architecture, ArchitectureGraph, Node, SearchSpace, Tokens
from nas_gym.spaces.graph import CONCAT, INPUT, OUTPUT, SKIP, SUM


def label(operation: str) -> str:
    """An operation as readable text.

    ``sep_conv_3x3/2`` becomes ``sep conv 3x3 /2`` (stride 2), ``conv_3x3_24`` becomes ``conv 3x3, 24`` (24 filters).
    """
    name, slash, stride = operation.partition("/")
    name, comma, filters = re.fullmatch(r"(.*?)(?:(_)(\d+))?", name).groups("")  # type: ignore[union-attr]
    words = {SKIP: "skip", SUM: "+"}.get(name, name.removeprefix("nor_").replace("_", " "))
    words += f", {filters}" if comma else ""
    return f"{words} /{stride}" if slash else words


def _short(node: Node) -> str:
    return node.name.removeprefix(f"{node.cluster}/")


def node_label(node: Node) -> str:
    """The text in a node's box: its name for an input, its operation for all others."""
    return _short(node).replace("_", " ") if node.operation == INPUT else label(node.operation)


def node_note(node: Node) -> str:
    """The name written next to sums and concatenations, because other nodes refer to it; empty for all others."""
    owner, _, last = _short(node).rpartition("/")
    named = node.operation in (SUM, CONCAT) and last not in (CONCAT, "residual")
    return f"{owner}/{last}".strip("/").replace("_", " ") if named else ""


def to_text(architecture: Architecture) -> str:
    """Formats an architecture for a terminal: one block per cluster, one line per node.

    A line looks like ``node_0 = sep conv 3x3(input_0) + skip(input_1)``; ``/2`` after an operation is its stride.
    """
    graph = architecture.space.graph(architecture)
    incoming = graph.predecessors()
    readers: list[list[int]] = [[] for _ in graph.nodes]
    for source, target in graph.edges:
        readers[source].append(target)

    def has_line(index: int) -> bool:
        operation = graph.nodes[index].operation
        if operation == CONCAT:
            return [graph.nodes[reader].operation for reader in readers[index]] != [OUTPUT]
        return operation in (SUM, OUTPUT) or (operation != INPUT and len(readers[index]) != 1)

    def refer(index: int) -> str:
        return _short(graph.nodes[index]) if has_line(index) or graph.nodes[index].operation == INPUT else spell(index)

    def spell(index: int) -> str:
        operation, operands = graph.nodes[index].operation, [refer(source) for source in incoming[index]]
        if operation in (SUM, OUTPUT):
            return " + ".join(operands) or "0"
        return f"{label(operation)}({(', ' if operation == CONCAT else ' + ').join(operands)})"

    lines: list[str] = []
    for cluster, members in _by_cluster(graph).items():
        lines += [f"{cluster} cell"] * bool(cluster)
        indent = "  " if cluster else ""
        lines += [f"{indent}{_short(graph.nodes[i])} = {spell(i)}" for i in members if has_line(i)]
    return "\n".join(lines)


def _by_cluster(graph: ArchitectureGraph) -> dict[str, list[int]]:
    clusters: dict[str, list[int]] = {}
    for index, node in enumerate(graph.nodes):
        clusters.setdefault(node.cluster, []).append(index)
    return clusters


def decisions_text(space: SearchSpace, tokens: Tokens) -> str:
    """Formats the decisions int64[T] as plain text: one line per group, ``?`` for undecided positions.

    A line looks like ``normal/node_0: input_1 = input_0, input_2 = ?``.
    """
    lines = []
    pairs = zip(space.decisions, np.asarray(tokens).tolist(), strict=True)
    for _, group in itertools.groupby(pairs, key=lambda pair: pair[0].group):
        members = list(group)
        prefixes = {decision.name.rpartition("/")[0] for decision, _ in members}
        prefix = prefixes.pop() if len(prefixes) == 1 else ""
        words = [
            f"{decision.name.removeprefix(f'{prefix}/')} = {'?' if token == UNDECIDED else decision.choices[token]}"
            for decision, token in members
        ]
        lines.append(f"{prefix}: {', '.join(words)}" if prefix else ", ".join(words))
    return "\n".join(lines)
