"""Graphs, paths and sequences of architectures against graphs by hand and brute force."""

from __future__ import annotations

import numpy as np
import pytest

from nas_gym.predictors.encodings import sequence
from nas_gym.predictors.graphs import GLOBAL, PADDING, UNKNOWN, GraphEncoding, PathEncoding
from nas_gym.spaces import PRESETS, Bench201Space, make_space
from nas_gym.spaces.graph import ArchitectureGraph, Node

BENCH201 = Bench201Space()
NONE, SKIP, ONE, THREE, POOL = (
    BENCH201.operations.index(name) for name in ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
)
# Edges in the order 0-1, 0-2, 1-2, 0-3, 1-3, 2-3.
CELL = np.array([[THREE, NONE, ONE, SKIP, NONE, POOL]])
EMPTY = np.array([[THREE, NONE, NONE, NONE, NONE, ONE]])  # nothing reaches the output


def test_contracted_graph_by_hand() -> None:
    """input -> 3x3 -> 1x1 -> pool -> output, and a skip connection from the input to the output."""
    graph = BENCH201.graph(BENCH201.architecture(CELL[0])).contracted()
    operations = [node.operation for node in graph.nodes]
    assert operations == ["input", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3", "output"]
    assert sorted(graph.edges) == [(0, 1), (0, 4), (1, 2), (2, 3), (3, 4)]
    alone = BENCH201.graph(BENCH201.architecture(EMPTY[0])).contracted()
    assert [node.operation for node in alone.nodes] == ["output"]


@pytest.mark.parametrize("name", PRESETS)
def test_contraction_keeps_the_canonical_form(name: str) -> None:
    space = make_space(name)
    for row in space.sample(np.random.default_rng(0), 5):
        graph = space.graph(space.architecture(row))
        assert graph.contracted().canonical() == graph.canonical()
        assert len(graph.contracted().nodes) <= len(graph.nodes)


def test_sums_that_are_concatenated_are_kept() -> None:
    nodes = [Node(name, name.rstrip("0123456789")) for name in ("input", "a", "b", "sum", "c", "concat", "output")]
    edges = ((0, 1), (0, 2), (1, 3), (2, 3), (0, 4), (3, 5), (4, 5), (5, 6))
    contracted = ArchitectureGraph(tuple(nodes), edges).contracted()
    assert [node.operation for node in contracted.nodes] == ["input", "a", "b", "sum", "c", "concat", "output"]
    assert len(contracted.edges) == len(edges)
    assert set(contracted.edges) == set(edges)


def test_adjacency_and_symbols_by_hand() -> None:
    encoding = GraphEncoding(BENCH201, CELL)
    batch = encoding.encode(CELL)
    expected = np.zeros((5, 5))
    expected[[1, 4, 2, 3, 4], [0, 0, 1, 2, 3]] = 1.0
    np.testing.assert_array_equal(batch.adjacency[0], expected)
    assert batch.adjacency.dtype == np.float32
    assert batch.outputs.tolist() == [[False] * 4 + [True]]
    assert encoding.symbols == 3 + 5
    assert sorted(batch.symbols[0]) == [3, 4, 5, 6, 7]

    with_global = GraphEncoding(BENCH201, CELL, global_node=True).encode(CELL)
    np.testing.assert_array_equal(with_global.adjacency[0, :5, :5], expected)
    np.testing.assert_array_equal(with_global.adjacency[0, 5], [1, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(with_global.adjacency[0, :, 5], 0)
    assert with_global.symbols[0, 5] == GLOBAL
    assert with_global.outputs.tolist() == [[False] * 5 + [True]]


def test_padding_and_unknown_operations() -> None:
    encoding = GraphEncoding(BENCH201, np.array([[SKIP, THREE, SKIP, SKIP, SKIP, SKIP]]))
    batch = encoding.encode(np.concatenate([CELL, EMPTY]), nodes=8)
    assert batch.symbols.shape == (2, 8)
    assert (batch.symbols == UNKNOWN).sum() == 2  # the 1x1 convolution and the pooling
    assert batch.nodes.sum(axis=1).tolist() == [5, 1]
    np.testing.assert_array_equal(batch.symbols == PADDING, ~batch.nodes)
    assert not batch.adjacency[0, 5:].any()
    assert not batch.adjacency[0, :, 5:].any()
    assert not batch.adjacency[1].any()


def test_equal_architectures_have_equal_graphs() -> None:
    """Two paths from the input to the output, of which either may be the one over the second node."""
    first = np.array([[NONE, NONE, NONE, THREE, NONE, NONE]])
    second = np.array([[NONE, THREE, NONE, NONE, NONE, SKIP]])
    encoding = GraphEncoding(BENCH201, first)
    one, other = encoding.encode(first), encoding.encode(second)
    np.testing.assert_array_equal(one.adjacency, other.adjacency)
    np.testing.assert_array_equal(one.symbols, other.symbols)


def test_inputs_are_told_apart() -> None:
    space = make_space("cell:darts")
    tokens = space.sample(np.random.default_rng(0), 1)
    graph = space.graph(space.architecture(tokens[0])).contracted()
    inputs = [index for index, node in enumerate(graph.nodes) if node.operation == "input"]
    symbols = GraphEncoding(space, tokens).encode(tokens).symbols[0, inputs]
    assert len(inputs) > 1
    assert len(set(symbols.tolist())) == len(inputs)


def walks(graph: ArchitectureGraph, node: int) -> set[tuple[str, ...]]:
    """The operations of all paths that end at a node, by recursion."""
    operation = graph.nodes[node].operation
    if operation == "input":
        return {()}
    if operation == "none":
        return set()
    own = () if operation in ("sum", "output") else (f"{graph.nodes[node].cluster}:{operation}",)
    return {(*path, *own) for source in graph.predecessors()[node] for path in walks(graph, source)}


@pytest.mark.parametrize("name", ["bench201", "bench101", "bench_graph", "size"])
def test_paths_by_brute_force(name: str) -> None:
    space = make_space(name)
    tokens = space.sample(np.random.default_rng(0), 20)
    encoding = PathEncoding(space, tokens[:15])
    graphs = [space.graph(space.architecture(row)) for row in tokens]
    found = [
        set.union(*(walks(graph, i) for i, node in enumerate(graph.nodes) if node.operation == "output"))
        for graph in graphs
    ]
    assert set(encoding.paths) == set.union(*found[:15])
    assert encoding.paths == sorted(encoding.paths, key=lambda path: (len(path), path))
    np.testing.assert_array_equal(
        encoding.encode(tokens), [[path in paths for path in encoding.paths] for paths in found]
    )


def test_long_paths_are_left_out_first() -> None:
    tokens = BENCH201.sample(np.random.default_rng(0), 30)
    everything, few = PathEncoding(BENCH201, tokens), PathEncoding(BENCH201, tokens, largest=7)
    assert len(few.paths) == 7
    assert max(map(len, few.paths)) <= min(len(path) for path in set(everything.paths) - set(few.paths))


def test_spaces_with_exponentially_many_paths() -> None:
    space = make_space("macro")
    tokens = space.sample(np.random.default_rng(0), 3)
    assert PathEncoding(space, tokens, largest=50).encode(tokens).shape == (3, 50)


def test_sequences_are_words_of_one_vocabulary() -> None:
    space = make_space("cell:darts")
    tokens = space.sample(np.random.default_rng(0), 50)
    words = sequence(space, tokens)
    assert words.dtype == np.int64
    assert words.min() >= 0
    assert words.max() < space.choice_counts.sum()
    assert not any(set(words[:, a]) & set(words[:, b]) for a in range(space.length) for b in range(a))
    np.testing.assert_array_equal(np.diff(words, axis=0), np.diff(tokens, axis=0))
