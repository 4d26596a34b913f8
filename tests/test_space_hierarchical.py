"""The hierarchical space: motifs written out, and what is zero left out."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
from graph_checks import described

from nas_gym.spaces import PRESETS, ArchitectureGraph, HierarchicalSpace
from nas_gym.spaces.hierarchical import HierarchicalCell


def test_size() -> None:
    """Liu et al. 2018, section 4.1: 6 motifs of 4 nodes, 6 primitives and none on 6 edges; a cell of 5 nodes."""
    space = PRESETS["hierarchical"]
    assert space.size == 7 ** (6 * 6) * 7**10
    assert space.length == 46


def test_the_cell_points_to_the_motifs() -> None:
    space = HierarchicalSpace(2, 2, 3, ("a",))
    assert [(d.name, d.kind, d.group, d.choices, d.targets) for d in space.decisions] == [
        ("motif_0/edge_0_1", "operation", 0, ("none", "a"), None),
        ("motif_1/edge_0_1", "operation", 1, ("none", "a"), None),
        ("cell/edge_0_1", "motif", 2, ("none", "motif_0", "motif_1"), (None, 0, 1)),
        ("cell/edge_0_2", "motif", 3, ("none", "motif_0", "motif_1"), (None, 0, 1)),
        ("cell/edge_1_2", "motif", 3, ("none", "motif_0", "motif_1"), (None, 0, 1)),
    ]


def wiring(graph: ArchitectureGraph) -> list[tuple[str, str, list[str]]]:
    return described(graph)


def test_decode_and_graph() -> None:
    space = HierarchicalSpace(2, 3, 3, ("a", "skip_connect"))
    architecture = space.parse("a none skip_connect | none a none | motif_0 | motif_1 motif_0")
    assert space.decode(architecture.tokens) == HierarchicalCell(
        (((0, 1, "a"), (1, 2, "skip_connect")), ((0, 2, "a"),)), ((0, 1, 0), (0, 2, 1), (1, 2, 0))
    )
    graph = space.graph(architecture)
    assert wiring(graph) == [
        ("input", "input", []),
        ("edge_0_1/edge_0_1", "a", ["input"]),
        ("edge_0_1/edge_1_2", "skip_connect", ["edge_0_1/edge_0_1"]),
        ("edge_0_2/edge_0_2", "a", ["input"]),
        ("edge_1_2/edge_0_1", "a", ["edge_0_1/edge_1_2"]),
        ("edge_1_2/edge_1_2", "skip_connect", ["edge_1_2/edge_0_1"]),
        ("node_2", "concat", ["edge_0_2/edge_0_2", "edge_1_2/edge_1_2"]),
        ("output", "output", ["node_2"]),
    ]
    assert graph.nodes[1].decision == graph.nodes[4].decision == "motif_0/edge_0_1"


def test_zero_motifs_are_edges_that_are_none() -> None:
    space = HierarchicalSpace(2, 3, 3, ("a",))
    # motif_0 is a chain of two; motif_1 has an edge, but no way from its first node to its last.
    zero = space.parse("a none a | a none none | motif_0 | motif_1 motif_0")
    none = space.parse("a none a | a none none | motif_0 | none motif_0")
    assert space.canonical(zero) == space.canonical(none)
    dead = space.parse("a none a | a none none | motif_1 | none motif_0")
    assert wiring(space.graph(dead))[-1] == ("output", "output", [])
    assert space.canonical(dead) == space.canonical(space.architecture([0] * space.length))


def walked(space: HierarchicalSpace, row: tuple[int, ...]) -> Counter[tuple[str, ...]]:
    """The operations along every way from the input to the output, counted over the two levels without a graph."""
    names = {decision.name: decision.choices[token] for decision, token in zip(space.decisions, row, strict=True)}

    def ways(prefix: str, nodes: int, step: object) -> Counter[tuple[str, ...]]:
        values = [Counter({(): 1})]
        for node in range(1, nodes):
            value: Counter[tuple[str, ...]] = Counter()
            for source in range(node):
                word = names[f"{prefix}/edge_{source}_{node}"]
                for first, count in values[source].items() if word != "none" else ():
                    for second, more in step(word).items():  # type: ignore[operator]
                        value[first + second] += count * more
            values.append(value)
        return values[-1]

    def primitive(word: str) -> Counter[tuple[str, ...]]:
        return Counter({() if word == "skip_connect" else (word,): 1})

    def motif(word: str) -> Counter[tuple[str, ...]]:
        return ways(word, space.motif_nodes, primitive)

    return ways("cell", space.cell_nodes, motif)


def test_ways_through_the_graph_are_the_ways_through_the_levels() -> None:
    space = PRESETS["hierarchical"]
    assert isinstance(space, HierarchicalSpace)
    rng = np.random.default_rng(0)
    for row in space.sample(rng, 60) * (rng.random((60, space.length)) < 0.8):  # 0 is none
        graph = space.graph(space.architecture(row))
        ways: list[Counter[tuple[str, ...]]] = []
        for node, sources in zip(graph.nodes, graph.predecessors(), strict=True):
            own = () if node.operation in ("input", "output", "concat", "skip_connect") else (node.operation,)
            value: Counter[tuple[str, ...]] = Counter({(): 1} if node.operation == "input" else {})
            for way, count in itertools.chain.from_iterable(ways[source].items() for source in sources):
                value[way + own] += count
            ways.append(value)
        assert ways[-1] == walked(space, tuple(row))


def test_motifs_are_interchangeable() -> None:
    space = HierarchicalSpace(2, 3, 3, ("a", "b"))
    one = space.parse("a none b | b a none | motif_0 | motif_1 motif_0")
    other = space.parse("b a none | a none b | motif_1 | motif_0 motif_1")
    swapped = space.parse("b a none | a none b | motif_0 | motif_1 motif_0")
    assert space.canonical(one) == space.canonical(other) != space.canonical(swapped)
