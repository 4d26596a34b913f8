"""`ArchitectureGraph.canonical` against an independent reduction by rewriting, and brute force over relabellings."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_gym.spaces import PRESETS, ArchitectureGraph, Bench201Space, Node
from nas_gym.spaces.graph import CONCAT, INPUT, NONE, OUTPUT, SKIP, SUM

# A structure is what is left of a graph: for each vertex its label and the sorted vertices that it reads.
Structure = dict[int, tuple[str, tuple[int, ...]]]


def build(spec: str) -> ArchitectureGraph:
    """Makes a graph from ``"x:input a:cluster/conv(x,x) o:output(a)"``: name, operation, reads."""
    nodes: list[Node] = []
    edges: list[tuple[int, int]] = []
    index: dict[str, int] = {}
    for word in spec.split():
        name, _, rest = word.partition(":")
        operation, _, reads = rest.rstrip(")").partition("(")
        cluster, _, operation = operation.rpartition("/")
        index[name] = len(nodes)
        nodes.append(Node(name, operation, cluster))
        edges += [(index[read], index[name]) for read in reads.split(",") if read]
    return ArchitectureGraph(tuple(nodes), tuple(edges))


def canonical(spec: str) -> str:
    return build(spec).canonical()


# ------------------------------------------------------------------ the independent truth


def rewritten(graph: ArchitectureGraph) -> Structure:
    """Contracts by rewriting the edge list until nothing changes, where the code under test propagates values."""
    label = {
        i: f"{n.cluster}:{n.operation}:{n.name if n.operation == INPUT else ''}" for i, n in enumerate(graph.nodes)
    }
    kind = {i: n.operation for i, n in enumerate(graph.nodes)}
    edges = list(graph.edges)

    def drop(node: int) -> None:
        nonlocal edges
        edges = [edge for edge in edges if node not in edge]
        del kind[node]

    changed = True
    while changed:
        changed = False
        for node in list(kind):
            reads = [s for s, t in edges if t == node]
            if kind[node] == NONE or (kind[node] != INPUT and not reads):
                drop(node)
                changed = True
                break
            users = [t for s, t in edges if s == node]
            if kind[node] != OUTPUT and not users:
                drop(node)
                changed = True
                break
            if kind[node] not in (SUM, SKIP):
                continue
            # A sum of several terms that a concatenation reads stays; all other uses are spliced.
            kept = [t for t in users if kind[t] == CONCAT and len(reads) > 1]
            spliced = [t for t in users if t not in kept]
            if kept and any(kind[s] in (SUM, SKIP) for s in reads):
                continue  # its own terms first
            if spliced or not kept:
                edges = [edge for edge in edges if edge[0] != node]
                edges += [(s, t) for s in reads for t in spliced] + [(node, t) for t in kept]
                if not kept:
                    drop(node)
                changed = True
                break
    # Two sums of the same terms are one value: they hold no weights.
    merged: dict[tuple[int, ...], int] = {}
    alias = {
        node: merged.setdefault(tuple(sorted(s for s, t in edges if t == node)), node)
        for node in kind
        if kind[node] in (SUM, SKIP)
    }
    return {
        node: (
            ":sum" if kind[node] in (SUM, SKIP) else label[node],
            tuple(sorted(alias.get(s, s) for s, t in edges if t == node)),
        )
        for node in kind
        if alias.get(node, node) == node
    }


def smallest_relabelling(structure: Structure) -> tuple[object, ...]:
    """The smallest form over all numberings of the vertices that put them in the order of a cheap invariant key."""
    uses = Counter(s for _, reads in structure.values() for s in reads)
    depth: dict[int, int] = {}

    def depth_of(node: int) -> int:
        if node not in depth:
            depth[node] = 1 + max((depth_of(s) for s in structure[node][1]), default=0)
        return depth[node]

    def key(node: int) -> tuple[object, ...]:
        label, reads = structure[node]
        read_by = sorted((structure[n][0], depth_of(n)) for n in structure for s in structure[n][1] if s == node)
        return (
            depth_of(node),
            label,
            len(reads),
            uses[node],
            sorted((structure[s][0], depth_of(s)) for s in reads),
            read_by,
        )

    groups = [list(group) for _, group in itertools.groupby(sorted(structure, key=key), key=key)]
    forms = []
    for orders in itertools.product(*(itertools.permutations(group) for group in groups)):
        order = [node for group in orders for node in group]
        number = {node: i for i, node in enumerate(order)}
        forms.append(tuple((structure[n][0], tuple(sorted(number[s] for s in structure[n][1]))) for n in order))
    return min(forms)


def relabelled(graph: ArchitectureGraph, shuffle: random.Random) -> ArchitectureGraph:
    """The same graph with its nodes in another topological order and its edges shuffled."""
    waiting = {node: set(sources) for node, sources in enumerate(graph.predecessors())}
    order: list[int] = []
    while waiting:
        node = shuffle.choice([n for n, sources in waiting.items() if sources <= set(order)])
        order.append(node)
        del waiting[node]
    number = {node: i for i, node in enumerate(order)}
    edges = [(number[s], number[t]) for s, t in graph.edges]
    shuffle.shuffle(edges)
    return ArchitectureGraph(tuple(graph.nodes[node] for node in order), tuple(edges))


def random_graph(pick: random.Random, inner: int, operations: tuple[str, ...], density: float) -> ArchitectureGraph:
    """One or two inputs, `inner` nodes, an output; edges at random, some of them twice."""
    inputs = pick.choice((1, 1, 2))
    nodes = [Node(f"input_{i}", INPUT) for i in range(inputs)]
    nodes += [Node(f"node_{i}", pick.choice(operations)) for i in range(inner)]
    nodes.append(Node("output", OUTPUT))
    edges = [
        (source, target)
        for target in range(inputs, len(nodes))
        for source in range(min(target, len(nodes) - 1))
        for _ in range(pick.choices((0, 1, 2), (1 - density, 0.85 * density, 0.15 * density))[0])
    ]
    return ArchitectureGraph(tuple(nodes), tuple(edges))


OPERATIONS = ("conv", "pool", SKIP, NONE, SUM, CONCAT)


# ------------------------------------------------------------------ properties


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 8), st.sampled_from((0.3, 0.5, 0.8)))
def test_canonical_forgets_the_order_of_nodes(seed: int, inner: int, density: float) -> None:
    pick = random.Random(seed)
    graph = random_graph(pick, inner, OPERATIONS, density)
    assert relabelled(graph, pick).canonical() == graph.canonical()
    assert relabelled(graph, pick).canonical_hash() == graph.canonical_hash()


@pytest.mark.slow
@pytest.mark.parametrize(
    "operations", [("conv",), ("conv", "pool"), ("conv", SKIP, SUM), ("conv", NONE), (SUM, SKIP, CONCAT), OPERATIONS]
)
def test_equal_canonical_means_isomorphic_after_contraction(operations: tuple[str, ...]) -> None:
    pick = random.Random(1)
    by_code: dict[str, set[object]] = defaultdict(set)
    by_truth: dict[object, set[str]] = defaultdict(set)
    for _ in range(1500):
        graph = random_graph(pick, pick.randint(1, 4), operations, pick.choice((0.4, 0.7)))
        truth = smallest_relabelling(rewritten(graph))
        by_code[graph.canonical()].add(truth)
        by_truth[truth].add(graph.canonical())
    assert 20 < len(by_truth) < 1400, "the graphs should be neither all alike nor all different"
    assert [graphs for graphs in by_code.values() if len(graphs) > 1] == [], "not isomorphic, yet equal"
    assert [texts for texts in by_truth.values() if len(texts) > 1] == [], "isomorphic, yet different"


@pytest.mark.parametrize("preset", ["cell:enas", "cell:nasnet", "cell:darts", "bench201"])
def test_architectures_survive_relabelling(preset: str) -> None:
    space, shuffle = PRESETS[preset], random.Random(2)
    for tokens in space.sample(np.random.default_rng(2), 15):
        graph = space.graph(space.architecture(tokens))
        assert (
            relabelled(graph, shuffle).canonical() == graph.canonical() == space.canonical(space.architecture(tokens))
        )


# ------------------------------------------------------------------ by hand

X = "x:input "


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("a:conv(x) o:output(a)", "a:skip_connect(x) b:conv(a) o:output(b)", id="skip before"),
        pytest.param("a:conv(x) o:output(a)", "a:conv(x) b:skip_connect(a) o:output(b)", id="skip after"),
        pytest.param("a:conv(x) o:output(a)", "a:conv(x) b:sum(a) o:output(b)", id="sum of one"),
        pytest.param("a:conv(x) o:output(a)", "a:conv(x) n:none(x) b:sum(a,n) o:output(b)", id="none is zero"),
        pytest.param("a:conv(x) o:output(a)", "a:conv(x) n:none(x) c:conv(n) o:output(a,c)", id="none feeds zero on"),
        pytest.param("a:conv(x) o:output(a)", "a:conv(x) d:pool(a) e:conv(d) o:output(a)", id="dead end"),
        pytest.param("a:conv(x) o:output(a)", "u:conv() a:conv(x,u) o:output(a)", id="reads nothing"),
        pytest.param("o:output(x,x)", "a:skip_connect(x) b:skip_connect(x) o:output(a,b)", id="skips are not merged"),
        pytest.param("o:output(x,x)", "a:sum(x,x) o:output(a)", id="sum into the output"),
        pytest.param(
            "a:conv(x) b:pool(x) c:conv(a,b) o:output(c)",
            "b:pool(x) a:conv(x) s:sum(b,a) t:sum(s) c:conv(t) o:output(c)",
            id="nested sums",
        ),
        pytest.param("a:conv(x) c:concat(a,x) o:output(c)", "a:conv(x) c:concat(x,a) o:output(c)", id="concat order"),
        pytest.param(
            "a:conv(x) c:concat(a) o:output(c)", "a:conv(x) n:none(x) c:concat(a,n) o:output(c)", id="concat none"
        ),
        pytest.param(
            "s:sum(x,x) c:concat(s,s) o:output(c)",
            "s:sum(x,x) t:skip_connect(s) c:concat(s,t) o:output(c)",
            id="concat of a sum and a skip of it",
        ),
        pytest.param(
            "a:conv(x) s:sum(x,a) c:concat(s,s) o:output(c)",
            "a:conv(x) s:sum(x,a) t:sum(a,x) c:concat(s,t) o:output(c)",
            id="concat of two equal sums",
        ),
        pytest.param("n:none(x) o:output(n)", "n:none(x) c:conv(n) o:output(c)", id="nothing but zero"),
    ],
)
def test_same_function(one: str, other: str) -> None:
    assert canonical(X + one) == canonical(X + other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("a:conv(x) o:output(a)", "a:pool(x) o:output(a)", id="operation"),
        pytest.param("a:conv(x) o:output(a)", "a:conv(x) b:conv(x) o:output(a,b)", id="parallel equal operations"),
        pytest.param("a:conv(x) o:output(a,a)", "a:conv(x) b:conv(x) o:output(a,b)", id="one used twice is not two"),
        pytest.param("a:conv(x) o:output(a)", "a:conv(x) o:output(a,a)", id="multi-edge"),
        pytest.param("a:conv(x,x) o:output(a)", "a:conv(x) o:output(a)", id="multi-edge into an operation"),
        pytest.param("o:output(x)", "o:output(x,x)", id="twice the input"),
        pytest.param("a:conv(x) b:pool(a) o:output(b)", "a:pool(x) b:conv(a) o:output(b)", id="order of a chain"),
        pytest.param(
            "a:conv(x) b:conv(x) c:pool(a) d:pool(b) o:output(c,d)",
            "a:conv(x) b:conv(x) c:pool(a) d:pool(a) o:output(b,c,d)",
            id="wiring",
        ),
        pytest.param("c:concat(x,x) o:output(c)", "o:output(x,x)", id="concat is no sum"),
        pytest.param("c:concat(x) o:output(c)", "o:output(x)", id="concat of one keeps its place"),
        pytest.param(
            "a:conv(x) s:sum(x,a) c:concat(s) o:output(c)", "a:conv(x) c:concat(x,a) o:output(c)", id="concat of a sum"
        ),
        pytest.param(
            "a:conv(x) s:sum(x,a) c:concat(s,a) o:output(c)",
            "a:conv(x) s:sum(x,a) c:concat(s,x) o:output(c)",
            id="concat of a sum and a term",
        ),
        pytest.param("a:conv(x) o:output(a)", "a:l/conv(x) o:output(a)", id="cluster"),
        pytest.param("y:input a:conv(x) o:output(a,y)", "y:input a:conv(y) o:output(a,x)", id="inputs have names"),
        pytest.param("n:none(x) o:output(n)", "o:output(x)", id="zero is no identity"),
    ],
)
def test_different_functions(one: str, other: str) -> None:
    assert canonical(X + one) != canonical(X + other)


def test_wirings_that_local_counts_cannot_tell_apart() -> None:
    """One ring of six and two rings of three look alike from every node."""

    def rings(*sizes: int) -> ArchitectureGraph:
        convolutions, pools, first = [], [], 0
        for size in sizes:
            for i in range(size):
                convolutions.append(f"a{first + i}:conv(x)")
                pools.append(f"p{first + i}:pool(a{first + i},a{first + (i + 1) % size})")
            first += size
        return build(
            " ".join(["x:input", *convolutions, *pools, f"o:output({','.join(f'p{i}' for i in range(first))})"])
        )

    assert rings(6).canonical() != rings(3, 3).canonical()
    for graph in (rings(6), rings(3, 3)):
        assert len({relabelled(graph, random.Random(seed)).canonical() for seed in range(10)}) == 1


def test_clusters_keep_their_roles() -> None:
    """A cell pair is not the pair with the cells exchanged."""

    def pair(normal: str, reduction: str) -> str:
        return canonical(
            f"x:normal/input a:normal/{normal}(x) o:normal/output(a) "
            f"y:reduction/input b:reduction/{reduction}(y) p:reduction/output(b)"
        )

    assert pair("conv", "pool") != pair("pool", "conv")
    assert pair("conv", "conv") != pair("conv", "pool")


def test_edges_go_forward() -> None:
    nodes = (Node("x", INPUT), Node("o", OUTPUT))
    for edge in ((1, 0), (1, 1), (0, 2), (-1, 1)):
        with pytest.raises(ValueError, match=r"does not go forward among 2 nodes"):
            ArchitectureGraph(nodes, (edge,))


def test_predecessors_keep_the_order_of_the_edges() -> None:
    assert build("x:input y:input a:conv(y,x,y) o:output(a)").predecessors() == [[], [], [1, 0, 1], [2]]


# ------------------------------------------------------------------ speed


def chains(count: int, length: int) -> ArchitectureGraph:
    words = ["x:input"]
    for chain in range(count):
        words += [f"c{chain}_{i}:conv({f'c{chain}_{i - 1}' if i else 'x'})" for i in range(length)]
    ends = ",".join(f"c{chain}_{length - 1}" for chain in range(count))
    return build(" ".join([*words, f"o:output({ends})"]))


@pytest.mark.parametrize(("count", "length"), [(10, 1), (2, 8), (8, 2)], ids=["twins", "two chains", "eight chains"])
def test_symmetric_graphs_are_quick(count: int, length: int) -> None:
    graph = chains(count, length)
    start = time.perf_counter()
    text = graph.canonical()
    assert time.perf_counter() - start < 1.0
    assert relabelled(graph, random.Random(3)).canonical() == text


@pytest.mark.parametrize("preset", ["cell:enas", "cell:nasnet", "cell:darts", "bench201"])
@pytest.mark.parametrize("last", [False, True], ids=["first choices", "last choices"])
def test_the_most_regular_architectures_are_quick(preset: str, last: bool) -> None:
    """All nodes alike: five interchangeable nodes in each of two cells have 14,400 symmetries, and more within."""
    space = PRESETS[preset]
    tokens = np.full((1, space.length), -1)
    for position in range(space.length):
        legal = np.flatnonzero(space.legal(tokens, position)[0])
        operation = space.decisions[position].kind == "operation"
        tokens[0, position] = legal[-1 if last and operation else 0]
    start = time.perf_counter()
    space.canonical(space.architecture(tokens[0]))
    assert time.perf_counter() - start < 1.0


# ------------------------------------------------------------------ NAS-Bench-201


def bench201_structure(tokens: tuple[int, ...]) -> Structure:
    """The contracted multigraph of a cell, straight from the benchmark's definition: vertex e is edge e's operation."""
    none, skip, *_ = Bench201Space().operations
    source_of, target_of = (0, 0, 1, 0, 1, 2), (1, 2, 2, 3, 3, 3)
    value: list[list[int]] = [[-1], [], [], []]
    vertices: Structure = {-1: ("x", ())}
    for edge, token in enumerate(tokens):
        operation, read = Bench201Space().operations[token], value[source_of[edge]]
        if operation == none or not read:
            continue
        if operation == skip:
            value[target_of[edge]] += read
        else:
            vertices[edge] = operation, tuple(sorted(read))
            value[target_of[edge]].append(edge)
    vertices[6] = "o", tuple(sorted(value[3]))
    live, frontier = set(), [6]
    while frontier:
        node = frontier.pop()
        if node not in live:
            live.add(node)
            frontier += vertices[node][1]
    return {node: vertices[node] for node in sorted(live)} if value[3] else {}


@pytest.mark.slow
def test_bench201_has_5425_classes_by_two_methods() -> None:
    space = Bench201Space()
    truth: dict[tuple[object, ...], str] = {}
    known: dict[tuple[tuple[int, tuple[str, tuple[int, ...]]], ...], tuple[object, ...]] = {}
    classes: set[str] = set()
    for tokens in itertools.product(range(5), repeat=6):
        structure = bench201_structure(tokens)
        key = tuple(structure.items())
        if key not in known:
            known[key] = smallest_relabelling(structure) if structure else ()
        text = space.canonical(space.architecture(tokens))
        classes.add(text)
        assert truth.setdefault(known[key], text) == text, "isomorphic, yet different"
    assert len(truth) == len(classes) == 5425
