"""The search spaces against enumeration, published counts, and rules written down by hand."""

from __future__ import annotations

import csv
import itertools
import json
import math
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from nas_gym.spaces import (
    PRESETS,
    UNDECIDED,
    Architecture,
    Bench201Space,
    CellSpace,
    Decision,
    SearchSpace,
    draw,
    make_space,
)
from nas_gym.spaces.cell import DARTS_OPERATIONS, ENAS_OPERATIONS, NASNET_OPERATIONS

BENCH201_CSV = Path(__file__).parents[2] / "shared/data/nas_bench_201_12_epochs.csv"

# Small enough to enumerate; with and without distinct inputs, with and without the combine choice.
SMALL = {
    "1 node": CellSpace(nodes=1, operations=("a", "b")),
    "2 nodes": CellSpace(nodes=2, operations=("a", "b")),
    "1 node, combine": CellSpace(nodes=1, operations=("a", "b"), combine=("add", "concat")),
    "2 nodes, combine": CellSpace(nodes=2, operations=("a",), combine=("concat", "add")),
    "1 node, distinct": CellSpace(nodes=1, operations=("a", "b", "c"), distinct_inputs=True),
    "2 nodes, distinct": CellSpace(nodes=2, operations=("a", "b"), distinct_inputs=True, output="all"),
    "3 nodes, distinct, combine": CellSpace(3, ("a",), ("add", "concat"), distinct_inputs=True),
    "bench201 of 3": Bench201Space(nodes=3, operations=("none", "skip_connect", "conv")),
}
VARIED = {**SMALL, **dict(PRESETS.items())}
small = pytest.mark.parametrize("space", SMALL.values(), ids=SMALL)
varied = pytest.mark.parametrize("space", VARIED.values(), ids=VARIED)


def enumerate_legal(space: SearchSpace) -> np.ndarray:
    """All filled sequences, found by walking `legal` as a tree."""
    rows = np.full((1, space.length), UNDECIDED, dtype=np.int64)
    for position in range(space.length):
        parents, choices = np.nonzero(space.legal(rows, position))
        rows = rows[parents]
        rows[:, position] = choices
    return rows


def by_hand(space: CellSpace) -> set[tuple[int, ...]]:
    """All filled sequences of a cell space from its definition, a node at a time."""

    def node(states: int) -> list[tuple[int, ...]]:
        pairs = itertools.combinations(range(states), 2) if space.distinct_inputs else None
        pairs = pairs or itertools.product(range(states), repeat=2)
        operations = range(len(space.operations))
        combine = [(c,) for c in range(len(space.combine))] if len(space.combine) > 1 else [()]
        return [(*p, *o, *c) for p in pairs for o in itertools.product(operations, repeat=2) for c in combine]

    cell = list(itertools.product(*(node(2 + i) for i in range(space.nodes))))
    return {tuple(itertools.chain(*one, *two)) for one, two in itertools.product(cell, repeat=2)}


def is_legal(space: SearchSpace, tokens: list[int]) -> bool:
    """The rule of a filled sequence, without `legal`."""
    for position, (decision, token) in enumerate(zip(space.decisions, tokens, strict=True)):
        if not 0 <= token < len(decision.choices):
            return False
        second = decision.name.endswith("input_2")
        if isinstance(space, CellSpace) and space.distinct_inputs and second and token <= tokens[position - 1]:
            return False
    return True


def first(space: SearchSpace) -> np.ndarray:
    """The first legal sequence, int64[1, T]."""
    tokens = np.full((1, space.length), UNDECIDED, dtype=np.int64)
    for position in range(space.length):
        tokens[0, position] = np.argmax(space.legal(tokens, position)[0])
    return tokens


# ------------------------------------------------------------------ size


@pytest.mark.slow
@small
def test_size_is_the_number_of_legal_sequences(space: SearchSpace) -> None:
    rows = enumerate_legal(space)
    assert len(rows) == space.size
    assert len(np.unique(rows, axis=0)) == len(rows)
    space.check(rows)
    if isinstance(space, CellSpace):
        assert {tuple(row) for row in rows.tolist()} == by_hand(space)


def test_published_sizes() -> None:
    # Liu et al. 2019, section 2.1 and appendix A.1: (product over nodes of (k + 1) k / 2 * 7^2)^2, about 10^18.
    assert PRESETS["cell:darts"].size == 1_076_746_950_455_072_400
    assert PRESETS["bench201"].size == 15_625  # Dong & Yang 2020
    # Nodes read any of 2, 3, 4, 5, 6 states twice: (6!)^2 pairs a cell; 5 or 13 operations twice a node.
    assert PRESETS["cell:enas"].size == (720**2 * 5**10) ** 2
    assert PRESETS["cell:nasnet"].size == (720**2 * 13**10 * 2**5) ** 2
    assert all(type(space.size) is int for space in VARIED.values())


def test_presets_are_the_papers() -> None:
    assert len(ENAS_OPERATIONS) == len(set(ENAS_OPERATIONS)) == 5
    assert len(NASNET_OPERATIONS) == len(set(NASNET_OPERATIONS)) == 13
    assert len(DARTS_OPERATIONS) == len(set(DARTS_OPERATIONS)) == 7
    assert PRESETS["cell"] == PRESETS["cell:enas"]
    # NASNet: 5 decisions a block, 5 blocks, 2 cells. ENAS: 4. DARTS: 4 nodes.
    assert [PRESETS[f"cell:{name}"].length for name in ("nasnet", "enas", "darts")] == [50, 40, 32]


# ------------------------------------------------------------------ decisions


@varied
def test_decisions_fit_together(space: SearchSpace) -> None:
    names = [decision.name for decision in space.decisions]
    assert len(set(names)) == len(names) == space.length
    groups = [decision.group for decision in space.decisions]
    assert groups == sorted(groups), "a group's decisions stand together"
    assert space.num_choices == max(len(decision.choices) for decision in space.decisions)
    for decision in space.decisions:
        assert len(set(decision.choices)) == len(decision.choices)
        if decision.targets is not None:
            assert all(target is None or target < decision.group for target in decision.targets), "points back only"
            pointing = [target for target in decision.targets if target is not None]
            assert len(set(pointing)) == len(pointing)


def test_inputs_point_into_their_own_cell() -> None:
    space = CellSpace(nodes=3)
    groups = {"normal": [0, 1, 2, 3, 4], "reduction": [5, 6, 7, 8, 9]}  # two inputs, then the nodes
    closing = {decision.group for decision in space.decisions}
    assert closing == {2, 3, 4, 7, 8, 9}, "inputs of a cell hold no decision"
    for decision in space.decisions:
        cell, node, slot = decision.name.split("/")
        states = int(node.removeprefix("node_")) + 2
        assert decision.group == groups[cell][states]
        if slot.startswith("input"):
            assert decision.targets == tuple(groups[cell][:states])
            assert decision.choices == ("input_0", "input_1", "node_0", "node_1")[:states]
        else:
            assert decision.targets is None


def test_decision_rejects_nonsense() -> None:
    with pytest.raises(ValueError, match="'d' needs at least one choice"):
        Decision("d", "operation", 0, ())
    with pytest.raises(ValueError, match="'d' has 2 choices but 1 targets"):
        Decision("d", "input", 0, ("a", "b"), (0,))


# ------------------------------------------------------------------ legal and check


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(name for name, space in VARIED.items() if isinstance(space, Bench201Space | CellSpace))),
    st.data(),
)
def test_legal_check_and_the_rule_agree(name: str, data: st.DataObject) -> None:
    space = VARIED[name]
    # Mostly legal sequences, each then spoilt at one place or none.
    tokens = space.sample(np.random.default_rng(data.draw(st.integers(0, 2**32))), 1)[0].tolist()
    position = data.draw(st.integers(0, space.length - 1))
    tokens[position] = data.draw(st.integers(-1, space.num_choices))
    row = np.array([tokens])
    agrees = [
        0 <= token < space.num_choices and bool(space.legal(row, position)[0, token])
        for position, token in enumerate(tokens)
    ]
    if is_legal(space, tokens):
        space.check(row)
        assert all(agrees)
    else:
        assert not all(agrees)
        with pytest.raises(ValueError, match=rf"tokens\[0, {agrees.index(False)}\] = "):
            space.check(row)


@pytest.mark.slow
@varied
def test_a_legal_prefix_is_never_a_dead_end(space: SearchSpace) -> None:
    rng = np.random.default_rng(0)
    tokens = np.full((200, space.length), UNDECIDED, dtype=np.int64)
    for position in range(space.length):
        mask = space.legal(tokens, position)
        assert mask.dtype == bool
        assert mask.shape == (200, space.num_choices)
        assert mask.any(axis=1).all()
        assert not mask[:, space.choice_counts[position] :].any()
        tokens[:, position] = draw(mask, rng)  # not uniform over sequences: reaches the corners
    space.check(tokens)


@pytest.mark.slow
@varied
def test_legal_at_many_positions_equals_one_at_a_time(space: SearchSpace) -> None:
    rng = np.random.default_rng(1)
    tokens = space.sample(rng, 64)
    positions = rng.integers(0, space.length, size=64)
    tokens[np.arange(space.length) >= positions[:, None]] = UNDECIDED
    singly = [space.legal(tokens[i : i + 1], int(t))[0] for i, t in enumerate(positions)]
    np.testing.assert_array_equal(space.legal(tokens, positions), singly)
    np.testing.assert_array_equal(space.legal(tokens, np.int64(0)), space.legal(tokens, 0))
    assert space.legal(tokens[:0], positions[:0]).shape == (0, space.num_choices)


@varied
def test_legal_reads_the_prefix_alone_and_returns_its_own_array(space: SearchSpace) -> None:
    tokens = space.sample(np.random.default_rng(2), 8)
    for position in range(space.length):
        prefix = tokens.copy()
        prefix[:, position:] = UNDECIDED
        mask = space.legal(prefix, position)
        np.testing.assert_array_equal(mask, space.legal(tokens, position))
        mask[:] = False
        assert space.legal(prefix, position).any()


def test_check_rejects_wrong_arrays() -> None:
    space = PRESETS["bench201"]
    for tokens in (np.zeros((2, 5), dtype=int), np.zeros(6, dtype=int), np.zeros((1, 6))):
        with pytest.raises(ValueError, match=r"tokens of space 'bench201' must be integers of shape \(batch, 6\)"):
            space.check(tokens)
    wrong = np.zeros((3, 6), dtype=np.int64)
    wrong[2, 4] = 5
    with pytest.raises(ValueError, match=r"tokens\[2, 4\] = 5 .*'edge_1_3'.*legal: \[0, 1, 2, 3, 4\]"):
        space.check(wrong)


# ------------------------------------------------------------------ sample


@small
def test_sample_is_uniform(space: SearchSpace) -> None:
    rows = enumerate_legal(space)
    # Large spaces are binned by a random hash, small ones count every sequence.
    rng = np.random.default_rng(3)
    bins = np.arange(len(rows)) if len(rows) <= 4096 else rng.integers(0, 200, size=len(rows))
    index = {row.tobytes(): b for row, b in zip(rows, bins, strict=True)}
    drawn = Counter(index[row.tobytes()] for row in space.sample(rng, 20 * len(np.unique(bins)) + 20_000))
    share = np.bincount(bins) / len(rows)
    observed = np.array([drawn[b] for b in range(len(share))])
    assert chisquare(observed, share * observed.sum()).pvalue > 1e-3


def test_sample_weighs_first_inputs_by_what_follows() -> None:
    """With distinct inputs among states 0..4, input_1 = 0 opens 4 pairs, 1 opens 3, ..."""
    space = PRESETS["cell:darts"]
    position = [decision.name for decision in space.decisions].index("reduction/node_3/input_1")
    counts = np.bincount(space.sample(np.random.default_rng(4), 20_000)[:, position], minlength=5)
    assert counts[4] == 0
    assert chisquare(counts[:4], np.array([0.4, 0.3, 0.2, 0.1]) * 20_000).pvalue > 1e-3


@pytest.mark.slow
@varied
def test_sample_is_legal_and_repeatable(space: SearchSpace) -> None:
    tokens = space.sample(np.random.default_rng(5), 300)
    assert tokens.dtype == np.int64
    space.check(tokens)
    np.testing.assert_array_equal(tokens, space.sample(np.random.default_rng(5), 300))
    assert space.sample(np.random.default_rng(5), 0).shape == (0, space.length)


def test_draw_never_takes_a_zero_weight() -> None:
    class Extreme(np.random.Generator):
        value = 0.0

        def random(self, *args: object, **kwargs: object) -> np.ndarray:  # type: ignore[override]
            return np.full(2, self.value)

    rng = Extreme(np.random.PCG64(0))
    weights = np.array([[0, 3, 0, 7, 0], [0.1, 0, 0.2, 0, 0]])
    assert draw(weights, rng).tolist() == [1, 0]
    rng.value = np.nextafter(1.0, 0.0)
    assert draw(weights, rng).tolist() == [3, 2]


def test_draw_is_proportional_to_the_weights() -> None:
    weights = np.tile([1.0, 0.0, 5.0, 2.0], (20_000, 1))
    counts = np.bincount(draw(weights, np.random.default_rng(6)), minlength=4)
    assert counts[1] == 0
    assert chisquare(counts[[0, 2, 3]], np.array([1, 5, 2]) / 8 * 20_000).pvalue > 1e-3


# ------------------------------------------------------------------ mutate


@pytest.mark.slow
@varied
def test_mutate_changes_one_decision_and_what_it_made_illegal(space: SearchSpace) -> None:
    parents = space.sample(np.random.default_rng(7), 500)
    before = parents.copy()
    children = space.mutate(parents, np.random.default_rng(8))
    np.testing.assert_array_equal(parents, before)
    space.check(children)
    for parent, child in zip(parents.tolist(), children.tolist(), strict=True):
        changed = [t for t in range(space.length) if parent[t] != child[t]]
        assert changed, "every architecture here has a neighbour"
        kept = list(parent)
        for position in changed:
            # Up to each further change, the parent's own token must have become illegal.
            illegal = position > changed[0] and not space.legal(np.array([kept]), position)[0, parent[position]]
            assert position == changed[0] or illegal
            kept[position] = child[position]


@pytest.mark.parametrize("name", ["1 node", "2 nodes, distinct", "3 nodes, distinct, combine"])
def test_mutate_has_the_stated_distribution(name: str) -> None:
    """Position uniform among the free ones, choice uniform among the others, what broke uniform over completions."""
    space = SMALL[name]
    parent = space.sample(np.random.default_rng(9), 50)[-1]
    free = [t for t in range(space.length) if space.legal(parent[None], t).sum() > 1]
    expected: dict[tuple[int, ...], Fraction] = {}
    for position in free:
        others = [c for c in np.flatnonzero(space.legal(parent[None], position)[0]) if c != parent[position]]
        for choice in others:
            child = parent.copy()
            child[position] = choice
            # In these spaces a change breaks at most the decision after it, an input_2 with nothing behind it.
            repaired = [child]
            if not is_legal(space, child.tolist()):
                repaired = [child.copy() for _ in np.flatnonzero(space.legal(child[None], position + 1)[0])]
                for row, token in zip(repaired, np.flatnonzero(space.legal(child[None], position + 1)[0]), strict=True):
                    row[position + 1] = token
            for row in repaired:
                key = tuple(row.tolist())
                share = Fraction(1, len(free) * len(others) * len(repaired))
                expected[key] = expected.get(key, Fraction(0)) + share
    assert sum(expected.values()) == 1
    drawn = space.mutate(np.tile(parent, (40_000, 1)), np.random.default_rng(10))
    counts = Counter(map(tuple, drawn.tolist()))
    assert set(counts) <= set(expected)
    observed = [counts[key] for key in expected]
    assert chisquare(observed, [float(share) * 40_000 for share in expected.values()]).pvalue > 1e-3


def test_mutate_leaves_a_single_architecture_alone() -> None:
    alone = CellSpace(nodes=1, operations=("a",), distinct_inputs=True)
    assert alone.size == 1
    tokens = alone.sample(np.random.default_rng(0), 3)
    np.testing.assert_array_equal(alone.mutate(tokens, np.random.default_rng(0)), tokens)
    some = PRESETS["cell:darts"]
    assert some.mutate(some.sample(np.random.default_rng(0), 0), np.random.default_rng(0)).shape == (0, some.length)


# ------------------------------------------------------------------ text, JSON, one-hot


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(VARIED)), st.integers(0, 2**32))
def test_text_and_json_round_trip(name: str, seed: int) -> None:
    space = VARIED[name]
    architecture = space.architecture(space.sample(np.random.default_rng(seed), 1)[0])
    again = space.parse(str(architecture))
    assert again == architecture
    assert hash(again) == hash(architecture)
    restored = Architecture.from_json(architecture.to_json())
    assert restored == architecture
    assert hash(restored) == hash(architecture)
    assert restored.space == space
    assert all(type(token) is int for token in restored.tokens)


@varied
def test_space_round_trips_through_json(space: SearchSpace) -> None:
    assert make_space(json.loads(json.dumps(space.to_dict()))) == space
    assert make_space(space) is space


def test_text_is_readable() -> None:
    text = str(CellSpace(nodes=1).architecture([0, 1, 0, 4, 1, 1, 2, 3]))
    assert text == "input_0 input_1 sep_conv_3x3 skip_connect | input_1 input_1 avg_pool_3x3 max_pool_3x3"


def test_architectures_of_different_spaces_differ() -> None:
    one, other = CellSpace(nodes=1), CellSpace(nodes=1, output="all")
    assert one.architecture([0] * 8) != other.architecture([0] * 8)
    assert one.architecture([0] * 8) == CellSpace(nodes=1).architecture(np.zeros(8, dtype=np.int64))


def test_one_hot() -> None:
    space = PRESETS["cell:darts"]
    tokens = space.sample(np.random.default_rng(11), 5)
    tokens[:, 20:] = UNDECIDED
    encoded = space.one_hot(tokens)
    assert encoded.dtype == np.float32
    assert encoded.shape == (5, space.length, space.num_choices)
    np.testing.assert_array_equal(encoded[:, :20].argmax(axis=2), tokens[:, :20])
    np.testing.assert_array_equal(encoded[:, :20].sum(axis=2), 1)
    assert not encoded[:, 20:].any()


def test_importing_spaces_is_light() -> None:
    code = "import sys, nas_gym.spaces; print([m for m in ('torch', 'sklearn', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("celll", r"unknown space 'celll'; known: cell, cell:enas"),
        ({}, r"a space needs a 'name' among cell, bench201"),
        ({"name": "nope"}, r"unknown kind of space 'nope'; known: cell, bench201"),
        ({"name": ["cell"]}, r"'name' among cell, bench201"),
        (None, r"'name' among cell, bench201, .*; got None"),
        (7, r"'name' among cell, bench201, .*; got 7"),
        ({"name": "cell", "node": 4}, "space 'cell' has no field 'node'; known: .*nodes"),
        ({"name": "cell", "nodes": 0}, r"nodes must be at least 1, got 0"),
        ({"name": "cell", "nodes": "4"}, r"nodes .*'4'"),
        ({"name": "cell", "output": "some"}, r"output must be 'loose' or 'all', got 'some'"),
        ({"name": "cell", "combine": []}, r"combine must hold 'add' or 'concat'"),
        ({"name": "cell", "combine": ["mul"]}, r"combine must hold 'add' or 'concat', got .*mul"),
        ({"name": "cell", "operations": []}, r"operation"),
        ({"name": "bench201", "nodes": 1}, r"nodes must be at least 2, got 1"),
        ({"name": "bench201", "operations": []}, r"operation"),
    ],
    ids=repr,
)
def test_make_space_names_what_is_wrong(spec: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_space(spec).decisions  # type: ignore[arg-type]  # noqa: B018


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"not an architecture's JSON"),
        ("{", r"not an architecture's JSON"),
        ("[1, 2]", r"not an architecture's JSON"),
        ("null", r"not an architecture's JSON"),
        ('{"space": "bench201"}', r"not an architecture's JSON"),
        ('{"tokens": [0, 0, 0, 0, 0, 0]}', r"not an architecture's JSON"),
        ('{"space": "nope", "tokens": []}', r"unknown space 'nope'"),
        ('{"space": null, "tokens": []}', r"'name' among"),
        ('{"space": "bench201", "tokens": [0, 0, 0, 0, 0]}', r"shape \(batch, 6\)"),
        ('{"space": "bench201", "tokens": [0, 0, 0, 0, 0, 5]}', r"'edge_2_3'"),
        ('{"space": "bench201", "tokens": [0, 0, 0, 0, 0, -1]}', r"'edge_2_3'"),
        ('{"space": "bench201", "tokens": 3}', r"tokens"),
        ('{"space": "bench201", "tokens": null}', r"tokens"),
        ('{"space": "bench201", "tokens": [0, 0, 0, 0, 0, null]}', r"tokens"),
        ('{"space": "bench201", "tokens": [0, 0, 0, 0, 0, "skip_connect"]}', r"tokens"),
        ('{"space": "bench201", "tokens": [0, 0, 0, 0, 0, 1.5]}', r"tokens"),
    ],
)
def test_from_json_names_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Architecture.from_json(text)


def test_architecture_names_the_illegal_decision() -> None:
    space = PRESETS["cell:darts"]
    tokens = first(space)[0]
    tokens[5] = tokens[4]  # input_2 of normal/node_1 equals its input_1
    with pytest.raises(ValueError, match=r"tokens\[0, 5\] = 0 .*'normal/node_1/input_2'.*legal: \[1, 2\]"):
        Architecture(space, tuple(tokens))
    with pytest.raises(ValueError, match="tokens"):
        Architecture(PRESETS["bench201"], (0, 0, 0, 0, 0, 1.5))  # type: ignore[arg-type]


def test_parse_names_the_wrong_word() -> None:
    space = CellSpace(nodes=1)
    good = str(space.architecture([0] * 8))
    with pytest.raises(ValueError, match=r"'conv' is not a choice of 'normal/node_0/operation_1'; choices: sep_conv"):
        space.parse(good.replace("sep_conv_3x3", "conv", 1))
    with pytest.raises(ValueError, match=r"has 7 decisions; space 'cell' has 8"):
        space.parse(good.rsplit(" ", 1)[0])
    with pytest.raises(ValueError, match=r"'normal/node_0/input_2'"):
        CellSpace(nodes=1, distinct_inputs=True).parse(good)


# ------------------------------------------------------------------ cells


def test_reduction_operations_on_the_inputs_have_stride_two() -> None:
    space = CellSpace(nodes=2, operations=("a", "skip_connect"))
    tokens = [0, 1, 0, 1, 2, 1, 0, 1] * 2  # node_1 reads node_0 and input_1
    operations = {node.name: node.operation for node in space.graph(space.architecture(tokens)).nodes}
    assert operations["normal/node_0/operation_2"] == "skip_connect"
    assert operations["reduction/node_0/operation_1"] == "a/2"
    assert operations["reduction/node_0/operation_2"] == "skip_connect/2"
    assert operations["reduction/node_1/operation_1"] == "a"
    assert operations["reduction/node_1/operation_2"] == "skip_connect/2"


@pytest.mark.parametrize("preset", ["cell:enas", "cell:nasnet", "cell:darts"])
def test_graph_tells_what_the_tokens_say(preset: str) -> None:
    """The whole wiring read back from the graph, edge by edge."""
    space = PRESETS[preset]
    assert isinstance(space, CellSpace)
    for tokens in space.sample(np.random.default_rng(12), 20):
        graph = space.graph(space.architecture(tokens))
        words = {d.name: d.choices[t] for d, t in zip(space.decisions, tokens, strict=True)}
        reads = {
            node.name: [graph.nodes[source].name for source in sources]
            for node, sources in zip(graph.nodes, graph.predecessors(), strict=True)
        }
        operation = {node.name: node.operation for node in graph.nodes}
        assert len(reads) == len(graph.nodes), "names are unique"
        for cell in ("normal", "reduction"):
            read_inside = {words[f"{cell}/node_{i}/input_{k}"] for i in range(space.nodes) for k in (1, 2)}
            ends = [f"node_{i}" for i in range(space.nodes) if space.output == "all" or f"node_{i}" not in read_inside]
            assert reads[f"{cell}/concat"] == [f"{cell}/{end}" for end in ends]
            assert ends[-1] == f"node_{space.nodes - 1}", "nobody can read the last node"
            assert reads[f"{cell}/output"] == [f"{cell}/concat"]
            for i in range(space.nodes):
                node = f"{cell}/node_{i}"
                assert reads[node] == [f"{node}/operation_1", f"{node}/operation_2"]
                assert operation[node] == {"add": "sum", "concat": "concat"}[words.get(f"{node}/combine", "add")]
                for k in (1, 2):
                    source = words[f"{node}/input_{k}"]
                    assert reads[f"{node}/operation_{k}"] == [f"{cell}/{source}"]
                    stride = "/2" if cell == "reduction" and source.startswith("input") else ""
                    assert operation[f"{node}/operation_{k}"] == words[f"{node}/operation_{k}"] + stride
        chosen = {d.name for d in space.decisions if d.kind != "input"}
        assert {node.decision for node in graph.nodes} - {None} == chosen


def test_order_of_a_nodes_pairs_is_forgotten() -> None:
    space = PRESETS["cell:enas"]
    for tokens in space.sample(np.random.default_rng(13), 20):
        swapped = tokens.reshape(-1, 4)[:, [1, 0, 3, 2]].ravel()
        assert space.canonical(space.architecture(tokens)) == space.canonical(space.architecture(swapped))


# ------------------------------------------------------------------ NAS-Bench-201


@pytest.mark.slow
def test_bench201_reads_and_writes_all_of_the_benchmarks_strings() -> None:
    if not BENCH201_CSV.exists():
        pytest.skip(f"the benchmark's table is not at {BENCH201_CSV}")
    with BENCH201_CSV.open() as file:
        texts = [row["architecture"] for row in csv.DictReader(file)]
    space = Bench201Space()
    architectures = {space.parse(text) for text in texts}
    assert len(texts) == len(architectures) == 15_625
    assert {str(architecture) for architecture in architectures} == set(texts)


def test_bench201_string_by_hand() -> None:
    text = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_3x3~0|none~1|skip_connect~2|"
    architecture = Bench201Space().parse(text)
    assert architecture.tokens == (4, 2, 1, 3, 0, 1)
    assert str(architecture) == text
    names = {d.name: d.choices[t] for d, t in zip(Bench201Space().decisions, architecture.tokens, strict=True)}
    assert names["edge_0_1"] == "avg_pool_3x3"
    assert names["edge_1_2"] == "skip_connect"
    assert names["edge_0_3"] == "nor_conv_3x3"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "|none~0|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|conv~2|",
        "|none~0|+|none~1|none~0|+|none~0|none~1|none~2|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|none~3|",
        "none~0 none~0 none~1 none~0 none~1 none~2",
    ],
)
def test_bench201_parse_names_the_form(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"is not of the form '\|none~0\|\+\|none~0\|none~1\|\+.*operations none, skip"
    ):
        Bench201Space().parse(text)


@pytest.mark.slow
def test_bench201_has_6466_unique_strings() -> None:
    """Dong et al. 2021 (NATS-Bench), section 3.1: 6,466 of the 15,625 are unique."""
    space = Bench201Space()
    assert len({space.unique_string(space.architecture(t)) for t in itertools.product(range(5), repeat=6)}) == 6466


def test_bench201_unique_string_by_hand() -> None:
    space = Bench201Space()

    def unique(text: str) -> str:
        return space.unique_string(space.parse(text))

    skip_only = "|skip_connect~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|"
    assert unique(skip_only) == "#+#+#+0"
    assert unique("|nor_conv_1x1~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|") == "#+#+(0)@nor_conv_1x1"
    assert unique("|none~0|+|none~0|none~1|+|skip_connect~0|avg_pool_3x3~1|none~2|") == "#+#+0"


def test_bench201_sizes_of_other_widths() -> None:
    assert Bench201Space(nodes=5).size == 5**10
    assert [Bench201Space(nodes=n).length for n in (2, 3, 4, 5)] == [math.comb(n, 2) for n in (2, 3, 4, 5)]
