"""What every search space promises, on versions small enough to enumerate, against rules written down by hand."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from scipy.stats import chisquare

from nas_gym.spaces import (
    PRESETS,
    UNDECIDED,
    Architecture,
    Bench101Space,
    BenchGraphSpace,
    ChainSpace,
    HierarchicalSpace,
    MacroSpace,
    MobileSpace,
    SearchSpace,
    SizeSpace,
    draw,
    make_space,
)

Rows = set[tuple[int, ...]]


def free(space: SearchSpace) -> Rows:
    return set(itertools.product(*(range(len(decision.choices)) for decision in space.decisions)))


def chain(space: ChainSpace) -> Rows:
    """After a stop there is nothing but absent, and before it no absent."""
    own = [len(decision.choices) for decision in space.decisions if decision.group == 0]  # no skips, no absent
    absent = [(2, *[2] * layer, *own) for layer in range(space.layers)]

    def layer(index: int) -> Iterator[tuple[int, ...]]:
        yield from itertools.product(*map(range, [2] * index + own))

    def behind(index: int) -> Rows:
        """All ways to go on with a layer that may be there or not."""
        if index == space.layers:
            return {()}
        _, *nothing = itertools.chain(*absent[index:])
        present = {(0, *mine, *rest) for mine in layer(index) for rest in behind(index + 1)}
        return {(1, *nothing), *present}

    return {(*mine, *rest) for mine in layer(0) for rest in behind(1)}


def mobile(space: MobileSpace) -> Rows:
    """A layer's decisions are absent if and only if the layer is beyond the depth of its stage."""
    rows = set()
    for row in free(space):
        words = {decision.name: decision.choices[token] for decision, token in zip(space.decisions, row, strict=True)}
        layers = [(name.split("/"), word) for name, word in words.items() if "/layer_" in name]
        if all(
            (word == "absent") == (int(layer.removeprefix("layer_")) >= int(words[f"{stage}/depth"]))
            for (stage, layer, _), word in layers
        ):
            rows.add(row)
    return rows


def bench101(space: Bench101Space) -> Rows:
    """Few edges, and a walk from the input that ends at the output."""
    rows = set()
    for row in free(space):
        edges = [edge for edge, column in zip(space.edges, space.edge_columns, strict=True) if row[column]]
        found = {0}
        for _ in range(space.vertices):
            found |= {target for source, target in edges if source in found}
        if len(edges) <= space.max_edges and space.vertices - 1 in found:
            rows.add(row)
    return rows


def bench_graph(space: BenchGraphSpace) -> Rows:
    return {row for row in free(space) if {space.operations[token] for token in row[1:]} != {"skip"}}


SMALL = {
    "chain": (ChainSpace(3, heights=(1, 3), widths=(3,), filters=(24, 36)), free),
    "chain, strides": (ChainSpace(2, heights=(3,), widths=(3, 5), strides=(1, 2), filters=(24,)), free),
    "chain, stop": (ChainSpace(3, "stop", heights=(1, 3), widths=(3,), filters=(24, 36)), chain),
    "chain, stop, strides": (ChainSpace(2, "stop", heights=(3,), widths=(3,), strides=(1, 2), filters=(8,)), chain),
    "chain, stop, 1 layer": (ChainSpace(1, "stop", heights=(1, 3), widths=(3,), filters=(24,)), free),
    "macro": (MacroSpace(3, ("a", "b", "c")), free),
    "size": (SizeSpace(2, (8, 16, 24)), free),
    "bench101 of 4": (Bench101Space(4, 4, ("a", "b")), bench101),
    "bench101 of 5": (Bench101Space(5, 6, ("a",)), bench101),
    "bench101 of 2": (Bench101Space(2, 1), bench101),
    "hierarchical": (HierarchicalSpace(2, 2, 3, ("a", "b")), free),
    "bench_graph": (BenchGraphSpace(((0, 0, 0), (0, 1, 1)), ("a", "b", "skip")), bench_graph),
    "bench_graph, no skip": (BenchGraphSpace(((0, 0), (0, 1)), ("a", "b")), free),
    "mobile": (MobileSpace(1, (1, 3), (3, 5), (3, 6), (0.0, 0.25)), mobile),
    "mobile, 2 stages": (MobileSpace(2, (1, 2), (3, 5), (3,), (0.25,)), mobile),
    "mobile, 1 depth": (MobileSpace(2, (2,), (3, 5), (3, 6), (0.0,)), free),
}
NAMES = ("chain", "macro", "size", "bench101", "hierarchical", "bench_graph", "mobile")
LARGE = {name: space for name, space in PRESETS.items() if name.partition(":")[0] in NAMES}
SPACES = {**{name: space for name, (space, _) in SMALL.items()}, **LARGE}
small = pytest.mark.parametrize("space", [space for space, _ in SMALL.values()], ids=SMALL)
every = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def enumerate_legal(space: SearchSpace) -> np.ndarray:
    """All filled sequences, found by walking `legal` as a tree."""
    rows = np.full((1, space.length), UNDECIDED, dtype=np.int64)
    for position in range(space.length):
        parents, choices = np.nonzero(space.legal(rows, position))
        rows = rows[parents]
        rows[:, position] = choices
    return rows


@pytest.mark.parametrize("name", SMALL)
def test_the_legal_sequences_are_those_of_the_rule(name: str) -> None:
    space, rule = SMALL[name]
    rows = enumerate_legal(space)
    assert {tuple(row) for row in rows.tolist()} == rule(space)  # type: ignore[operator]
    assert len(rows) == space.size
    assert type(space.size) is int


@small
def test_weights_are_in_proportion_to_the_completions(space: SearchSpace) -> None:
    rows = enumerate_legal(space)
    for position in range(space.length):
        prefixes, inverse = np.unique(rows[:, :position], axis=0, return_inverse=True)
        completions = np.zeros((len(prefixes), space.num_choices))
        np.add.at(completions, (inverse.reshape(-1), rows[:, position]), 1)
        tokens = np.full((len(prefixes), space.length), UNDECIDED, dtype=np.int64)
        tokens[:, :position] = prefixes
        weights = space.weights(tokens, position)
        assert weights.dtype == np.float64
        expected = completions / completions.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(weights / weights.sum(axis=1, keepdims=True), expected, rtol=1e-12)
        if space.prefix_free:
            assert (weights > 0).all(axis=0).sum() == (weights > 0).any(axis=0).sum() == space.choice_counts[position]


@every
def test_masks_of_independent_decisions_are_the_same_after_every_prefix(space: SearchSpace) -> None:
    """Where a decision is not `dependent`, its mask after nothing is that after every prefix without a stop."""
    rng = np.random.default_rng(4)
    nothing = np.full((1, space.length), UNDECIDED, dtype=np.int64)
    tokens = np.repeat(nothing, 100, axis=0)
    for position in range(space.length):
        legal = space.at_trial(0).legal(tokens, position)
        if not space.dependent[position]:
            np.testing.assert_array_equal(legal, np.repeat(space.legal(nothing, position), len(tokens), axis=0))
        tokens[:, position] = draw(legal, rng)
        tokens = tokens[tokens[:, position] != space.stop_choices[position]]


@small
def test_sample_is_uniform(space: SearchSpace) -> None:
    index = {row.tobytes(): i for i, row in enumerate(enumerate_legal(space))}
    drawn = Counter(index[row.tobytes()] for row in space.sample(np.random.default_rng(1), 20 * len(index)))
    counts = [drawn[i] for i in range(len(index))]
    assert len(counts) == 1 or chisquare(counts).pvalue > 1e-3


@every
def test_large_spaces_sample_and_mutate_legally(space: SearchSpace) -> None:
    parents = space.sample(np.random.default_rng(2), 200)
    space.check(parents)
    children = space.mutate(parents, np.random.default_rng(3))
    space.check(children)
    differs = (children != parents).any(axis=1)
    assert differs.all() == (space.size > 1)
    if space.prefix_free:
        assert ((children != parents).sum(axis=1) <= 1).all()


@every
def test_decisions_fit_a_controller(space: SearchSpace) -> None:
    """What shares parameters agrees on what choices mean; what points, points to groups that are closed before."""
    assert len({decision.name for decision in space.decisions}) == space.length
    groups = [decision.group for decision in space.decisions]
    assert groups == sorted(groups)
    words: dict[str, tuple[str, ...]] = {}
    for decision in space.decisions:
        if decision.targets is not None:
            assert all(target is None or target < decision.group for target in decision.targets)
            assert any(target is not None for target in decision.targets)
            continue
        known = words.setdefault(decision.kind, decision.choices)
        shorter = min(len(known), len(decision.choices))
        assert known[:shorter] == decision.choices[:shorter]
        assert len(known) == len(decision.choices) or max(known, decision.choices, key=len)[-1] == "absent"
        words[decision.kind] = max(known, decision.choices, key=len)


@every
def test_absent_is_forced_or_forbidden(space: SearchSpace) -> None:
    tokens = space.sample(np.random.default_rng(4), 300)
    for position, (decision, absent) in enumerate(zip(space.decisions, space.absent_choices.tolist(), strict=True)):
        assert ("absent" in decision.choices) == (absent >= 0)
        if absent >= 0:
            assert decision.choices[absent] == "absent"
            legal = space.legal(tokens, position)
            assert (legal.sum(axis=1)[legal[:, absent]] == 1).all()
            np.testing.assert_array_equal(legal[:, absent], tokens[:, position] == absent)


@every
def test_round_trips(space: SearchSpace) -> None:
    assert make_space(json.loads(json.dumps(space.to_dict()))) == space
    for row in space.sample(np.random.default_rng(5), 10):
        architecture = space.architecture(row)
        assert space.parse(str(architecture)) == architecture
        assert Architecture.from_json(architecture.to_json()) == architecture


@every
def test_architectures_of_checked_tokens_are_the_same(space: SearchSpace) -> None:
    """Only the check is left out."""
    (tokens,) = space.sample(np.random.default_rng(0), 1)
    known = space.architecture(tokens, checked=True)
    assert known == space.architecture(tokens)
    assert hash(known) == hash(space.architecture(tokens))
    with pytest.raises(ValueError, match="not legal"):
        space.architecture(np.full_like(tokens, 99))


@every
def test_graphs_name_their_decisions(space: SearchSpace) -> None:
    names = {decision.name for decision in space.decisions}
    for row in space.sample(np.random.default_rng(6), 10):
        graph = space.graph(space.architecture(row))
        assert len({node.name for node in graph.nodes}) == len(graph.nodes)
        assert {node.decision for node in graph.nodes if node.decision} <= names
        assert [node.operation for node in graph.nodes].count("input") == 1
        assert graph.nodes[-1].operation == "output"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "chain", "layers": 0}, r"layers must be at least 1, got 0"),
        ({"name": "chain", "depth": "grow"}, r"depth must be 'fixed', 'stop' or 'schedule', got 'grow'"),
        ({"name": "chain", "strides": []}, r"strides must hold positive integers, got \(\)"),
        ({"name": "chain", "filters": [0]}, r"filters must hold positive integers, got \(0,\)"),
        ({"name": "macro", "layers": 0}, r"layers must be at least 1, got 0"),
        ({"name": "macro", "layers": "6"}, r"layers must be at least 1, got '6'"),
        ({"name": "macro", "operations": []}, r"operations must name at least one"),
        ({"name": "size", "stages": 4}, r"stages must be 2, 5, 8, .*got 4"),
        ({"name": "size", "widths": [0, 8]}, r"widths must hold positive numbers of channels, got \(0, 8\)"),
        ({"name": "bench101", "vertices": 4.0}, r"vertices must be from 2 to 7, got 4.0"),
        ({"name": "bench101", "vertices": 8}, r"vertices must be from 2 to 7, got 8"),
        ({"name": "bench101", "max_edges": 0}, r"max_edges must be at least 1, got 0"),
        ({"name": "bench101", "operations": []}, r"operations must name at least one"),
        ({"name": "hierarchical", "motifs": 0}, r"motifs must be at least 1, got 0"),
        ({"name": "hierarchical", "motifs": None}, r"motifs must be at least 1, got None"),
        ({"name": "hierarchical", "motif_nodes": 1}, r"motif_nodes must be at least 2, got 1"),
        ({"name": "hierarchical", "primitives": ["none"]}, r"primitives must name operations, 'none' not among them"),
        ({"name": "bench_graph", "links": [[0, 2]]}, r"links must be lists of one length .*\(\(0, 2\),\)"),
        ({"name": "bench_graph", "links": [[0], [0, 1]]}, r"links must be lists of one length"),
        ({"name": "bench_graph", "operations": ["skip"]}, r"operations must name an operation that is not 'skip'"),
        ({"name": "mobile", "stages": 0}, r"stages must be at least 1, got 0"),
        ({"name": "mobile", "depths": [3, 2]}, r"depths must be positive and increase, got \(3, 2\)"),
        ({"name": "mobile", "kernels": []}, r"kernels must hold positive integers, got \(\)"),
        ({"name": "mobile", "squeeze_excite": []}, r"squeeze_excite must hold ratios of at least 0, got \(\)"),
        (
            {"name": "mobile", "depths": [1], "kernels": [3], "expansions": [3], "squeeze_excite": [0]},
            r"a space needs a decision",
        ),
    ],
    ids=repr,
)
def test_bad_fields_are_named(spec: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_space(spec)
