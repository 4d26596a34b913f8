"""What the tests of spaces share."""

from __future__ import annotations

from nas_gym.spaces import ArchitectureGraph


def described(graph: ArchitectureGraph) -> list[tuple[str, str, list[str]]]:
    """Each node's name and operation, and the names of the nodes that it reads."""
    return [
        (node.name, node.operation, [graph.nodes[source].name for source in sources])
        for node, sources in zip(graph.nodes, graph.predecessors(), strict=True)
    ]
