"""The space of NAS-Bench-101: published counts, and classes against brute force over all numberings of the vertices."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from graph_checks import described

from nas_gym.spaces import PRESETS, Bench101Space
from nas_gym.spaces.bench101 import Bench101Cell


def smallest_numbering(cell: Bench101Cell) -> tuple[object, ...]:
    """The least matrix and operations over all numberings of the inner vertices."""
    inner = range(1, len(cell.vertices) - 1)
    orders = ((0, *order, len(cell.vertices) - 1) for order in itertools.permutations(inner))
    return min(
        (tuple(cell.operations[i] for i in order), tuple(tuple(cell.matrix[i][j] for j in order) for i in order))
        for order in orders
    )


def full_matrices(space: Bench101Space) -> np.ndarray:
    """Tokens of all graphs of at most 9 edges in which every vertex is between input and output, one operation."""
    rows = []
    for edges in itertools.product(range(2), repeat=len(space.edges)):
        present = {edge for edge, bit in zip(space.edges, edges, strict=True) if bit}
        starts, ends = {source for source, _ in present}, {target for _, target in present}
        # In an acyclic graph it is enough that every vertex has an edge that leaves it and one that enters it.
        if len(present) <= 9 and len(starts) == len(ends) == space.vertices - 1:
            tokens = np.zeros(space.length, dtype=np.int64)
            tokens[space.edge_columns] = edges
            rows.append(tokens)
    return np.array(rows)


def labelled(space: Bench101Space, rows: np.ndarray) -> list[np.ndarray]:
    columns = [t for t, decision in enumerate(space.decisions) if decision.kind == "operation"]
    labels = np.array(list(itertools.product(range(3), repeat=len(columns))), dtype=np.int64)
    tokens = np.repeat(rows[:, None], len(labels), axis=1)
    tokens[:, :, columns] = labels
    return list(tokens.reshape(-1, space.length))


def test_number_of_sequences() -> None:
    assert PRESETS["bench101"].size == 139_359_042
    assert PRESETS["bench101"].length == 21 + 5


@pytest.mark.slow
@pytest.mark.parametrize(("vertices", "classes"), [(2, 1), (3, 6), (4, 84), (5, 2_441)])
def test_classes_are_the_published_ones_and_those_of_brute_force(vertices: int, classes: int) -> None:
    """The cells of NAS-Bench-101 by the number of vertices: 1, 6, 84, 2,441, 62,010, 359,082, together 423,624."""
    space = Bench101Space(vertices)
    texts: dict[object, str] = {}
    for row in labelled(space, full_matrices(space)):
        text = space.canonical(space.architecture(row))
        assert texts.setdefault(smallest_numbering(space.decode(row)), text) == text
    assert len(texts) == len(set(texts.values())) == classes


@pytest.mark.slow
def test_classes_of_six_vertices() -> None:
    space = Bench101Space(6)
    shapes = {space.canonical(space.architecture(row)): row for row in full_matrices(space)}
    rows = labelled(space, np.array(list(shapes.values())))
    assert len({space.canonical(space.architecture(row)) for row in rows}) == 62_010


@pytest.mark.slow
def test_pruned_cells_are_classes_of_their_own_size() -> None:
    """Random sequences, most with dangling vertices, and the same cells written with fewer vertices."""
    space = PRESETS["bench101"]
    assert isinstance(space, Bench101Space)
    texts: dict[object, str] = {}
    for row in space.sample(np.random.default_rng(0), 400):
        cell = space.decode(row)
        text = space.canonical(space.architecture(row))
        assert texts.setdefault(smallest_numbering(cell), text) == text
        smaller = Bench101Space(len(cell.vertices))
        words = []
        for vertex in range(1, len(cell.vertices)):
            words += ["connect" if cell.matrix[source][vertex] else "none" for source in range(vertex)]
            words += [cell.operations[vertex]] * (vertex < len(cell.vertices) - 1)
        assert smaller.canonical(smaller.parse(" ".join(words))) == text
    assert len(texts) == len(set(texts.values()))


def test_masks_keep_to_nine_edges_and_reach_the_output() -> None:
    """A greedy player that connects, or avoids connecting, whenever it may."""
    space = Bench101Space()
    for choice, edges in ((1, 9), (0, 1)):
        tokens = np.full((1, space.length), -1)
        for position in range(space.length):
            legal = space.legal(tokens, position)[0]
            tokens[0, position] = choice if legal[choice] else np.argmax(legal)
        adjacency = space.adjacency(tokens)
        assert adjacency.sum() == edges
        assert space.live(adjacency)[0, [0, -1]].all()


def test_decode_and_graph() -> None:
    space = Bench101Space(5)
    # Vertex 2 leads nowhere, and vertex 3 reads the input and vertex 1.
    architecture = space.parse(
        "connect conv_1x1 | none connect max_pool_3x3 | connect connect none conv_3x3 | connect none none connect"
    )
    assert space.decode(architecture.tokens) == Bench101Cell(
        (0, 1, 3, 4),
        ((0, 1, 1, 1), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0, 0, 0)),
        ("input", "conv_1x1", "conv_3x3", "output"),
    )
    graph = space.graph(architecture)
    assert described(graph) == [
        ("input", "input", []),
        ("vertex_1", "conv_1x1", ["input"]),
        ("vertex_3", "conv_3x3", ["input", "vertex_1"]),
        ("concat", "concat", ["vertex_3"]),
        ("output", "output", ["concat", "input"]),
    ]


def test_the_smallest_cell_is_an_edge() -> None:
    space = Bench101Space(3)
    graph = space.graph(space.parse("none conv_3x3 | connect none"))
    assert [node.operation for node in graph.nodes] == ["input", "output"]
    assert graph.edges == ((0, 1),)


def test_arrays() -> None:
    space = PRESETS["bench101"]
    assert isinstance(space, Bench101Space)
    tokens = space.sample(np.random.default_rng(1), 100)
    adjacency = space.adjacency(tokens)
    live = space.live(adjacency)
    # Powers of the matrix count walks.
    walks = np.linalg.inv(np.eye(7) - adjacency).round().astype(int)
    np.testing.assert_array_equal(live, (walks[:, 0] > 0) & (walks[:, :, -1] > 0))
    for row, matrix in zip(tokens, adjacency, strict=True):
        words = {decision.name: decision.choices[token] for decision, token in zip(space.decisions, row, strict=True)}
        assert {(i, j) for i, j in zip(*np.nonzero(matrix), strict=True)} == {
            (source, target) for source, target in space.edges if words[f"vertex_{target}/edge_{source}"] == "connect"
        }
