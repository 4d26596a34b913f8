"""The space of NAS-Bench-Graph, against the published counts and the benchmark's own identity of architectures."""

from __future__ import annotations

import itertools

import pytest
from graph_checks import described

from nas_gym.spaces import PRESETS, BenchGraphSpace, SearchSpace
from nas_gym.spaces.bench_graph import LINKS, OPERATIONS, PROTEINS_OPERATIONS, GraphNetwork


def everything(space: SearchSpace) -> list[tuple[int, ...]]:
    assert isinstance(space, BenchGraphSpace)
    skip = space.operations.index("skip")
    rows = itertools.product(range(9), *[range(len(space.operations))] * 4)
    return [row for row in rows if set(row[1:]) != {skip}]


def test_sizes() -> None:
    assert PRESETS["bench_graph"].size == 9 * (9**4 - 1) == 59_040
    assert PRESETS["bench_graph:proteins"].size == 9 * (5**4 - 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "classes"),
    [("bench_graph:proteins", 2_021), pytest.param("bench_graph", 26_206, marks=pytest.mark.slow)],
)
def test_published_number_of_classes(preset: str, classes: int) -> None:
    """Qin et al. 2022, section 3.1: 26,206 architectures, 2,021 on the data set proteins."""
    space = PRESETS[preset]
    assert len({space.canonical(space.architecture(row)) for row in everything(space)}) == classes


@pytest.mark.slow
def test_classes_are_the_benchmarks() -> None:
    benchmark = pytest.importorskip("nas_bench_graph")
    assert [list(links) for links in LINKS] == benchmark.link_list
    assert sorted(OPERATIONS) == sorted(benchmark.gnn_list)
    assert sorted(PROTEINS_OPERATIONS) == sorted(benchmark.gnn_list_proteins)
    space = PRESETS["bench_graph:proteins"]
    assert isinstance(space, BenchGraphSpace)
    texts: dict[int, str] = {}
    hashes: dict[str, int] = {}
    for row in everything(space):
        network = space.decode(row)
        identity = benchmark.Arch(list(network.links), list(network.operations)).valid_hash()
        text = space.canonical(space.architecture(row))
        assert texts.setdefault(identity, text) == text
        assert hashes.setdefault(text, identity) == identity


def test_all_skips_are_illegal() -> None:
    space = PRESETS["bench_graph"]
    assert str(space.parse("0012 | skip | skip | skip | gat")) == "0012 | skip | skip | skip | gat"
    with pytest.raises(ValueError, match=r"'node_4' of space 'bench_graph' .*legal: \[0, 1, 2, 3, 4, 5, 6, 7\]"):
        space.parse("0012 | skip | skip | skip | skip")


def test_decode_and_graph() -> None:
    space = BenchGraphSpace()
    architecture = space.parse("0012 | skip | gcn | gat | skip")
    assert space.decode(architecture.tokens) == GraphNetwork((0, 0, 1, 2), ("skip", "gcn", "gat", "skip"))
    graph = space.graph(architecture)
    assert described(graph) == [
        ("input", "input", []),
        ("node_1", "skip_connect", ["input"]),
        ("node_2", "gcn", ["input"]),
        ("node_3", "gat", ["node_1"]),
        ("node_4", "skip_connect", ["node_2"]),
        ("concat", "concat", ["node_3", "node_4"]),
        ("output", "output", ["concat"]),
    ]


def test_skips_are_contracted_and_the_raw_input_is_dropped() -> None:
    space = BenchGraphSpace()
    text = space.canonical(space.parse("0011 | skip | gcn | gat | gin"))
    assert text == space.canonical(space.parse("0000 | skip | gin | gat | gcn"))
    assert text == space.canonical(space.parse("0111 | skip | gcn | gin | gat"))
    assert text != space.canonical(space.parse("0000 | gcn | gin | gat | gcn"))
    # A skip behind an operation repeats a value that the output reads already as an operand of its own.
    assert space.canonical(space.parse("0011 | gcn | gat | gin | skip")) != space.canonical(
        space.parse("0112 | skip | gcn | gat | gin")
    )
