"""The chain space: the paper's rules on connections and depths, read back from graphs and tokens."""

from __future__ import annotations

import dataclasses
import itertools
from fractions import Fraction

import gymnasium
import numpy as np
import pytest
from scipy.stats import chisquare

from nas_gym.agents import make_agent
from nas_gym.spaces import PRESETS, UNDECIDED, ChainSpace
from nas_gym.spaces.chain import Convolution


def test_sizes() -> None:
    # A layer has 4 heights, 4 widths, 4 numbers of filters, 3 * 3 strides if any, and a bit for each earlier layer.
    assert ChainSpace(1).size == 64
    assert PRESETS["chain"].size == 64**6 * 2**15
    assert PRESETS["chain:strides"].size == (64 * 9) ** 6 * 2**15
    assert PRESETS["chain:stop"].size == sum(64**depth * 2 ** (depth * (depth - 1) // 2) for depth in range(1, 16))


def test_decisions_are_in_the_papers_order() -> None:
    space = ChainSpace(2, "stop", strides=(1, 2, 3))
    assert [decision.name for decision in space.decisions] == [
        *(f"layer_0/{kind}" for kind in ("filter_height", "filter_width", "stride_height", "stride_width", "filters")),
        "layer_1/stop",
        "layer_1/skip_0",
        *(f"layer_1/{kind}" for kind in ("filter_height", "filter_width", "stride_height", "stride_width", "filters")),
    ]
    skip = space.decisions[6]
    assert (skip.kind, skip.choices, skip.targets) == ("skip", ("none", "connect", "absent"), (None, 0, None))
    assert space.decisions[0].choices == ("1", "3", "5", "7")
    assert space.decisions[2].choices == ("1", "2", "3")
    assert space.decisions[4].choices == ("24", "36", "48", "64")
    assert space.decisions[-1].choices == ("24", "36", "48", "64", "absent")


def test_decode() -> None:
    space = ChainSpace(3, "stop", strides=(1, 2))
    three = space.parse("5 1 2 1 48 | continue connect 3 7 1 2 24 | continue connect none 1 1 1 1 64")
    assert space.decode(three.tokens) == (
        Convolution((), 5, 1, (2, 1), 48),
        Convolution((0,), 3, 7, (1, 2), 24),
        Convolution((0,), 1, 1, (1, 1), 64),
    )
    two = "5 1 2 1 48 | continue none 3 7 1 2 24 | stop absent absent absent absent absent absent absent"
    assert space.decode(space.parse(two).tokens) == (
        Convolution((), 5, 1, (2, 1), 48),
        Convolution((), 3, 7, (1, 2), 24),
    )
    with pytest.raises(ValueError, match=r"'layer_2/skip_0' of space 'chain' .*legal: \[2\]"):
        space.parse(two.replace("stop absent", "stop none"))
    with pytest.raises(ValueError, match=r"'layer_2/filters' of space 'chain' .*legal: \[0, 1, 2, 3\]"):
        space.parse(str(three).replace("64", "absent"))


def test_graph_follows_section_3_3() -> None:
    """No inputs: the image. Several: their concatenation. What no layer reads is concatenated for the classifier."""
    space = ChainSpace(4, strides=(1, 2))
    graph = space.graph(
        space.parse("1 3 1 1 24 | none 3 3 2 1 36 | connect connect 5 5 1 1 48 | connect none none 7 7 1 1 64")
    )
    reads = {
        node.name: (node.operation, [graph.nodes[source].name for source in sources])
        for node, sources in zip(graph.nodes, graph.predecessors(), strict=True)
    }
    assert reads == {
        "input": ("input", []),
        "layer_0": ("conv_1x3_24", ["input"]),
        "layer_1": ("conv_3x3_36/2x1", ["input"]),
        "layer_2/concat": ("concat", ["layer_0", "layer_1"]),
        "layer_2": ("conv_5x5_48", ["layer_2/concat"]),
        "layer_3": ("conv_7x7_64", ["layer_0"]),
        "concat": ("concat", ["layer_2", "layer_3"]),
        "output": ("output", ["concat"]),
    }


@pytest.mark.parametrize("name", ["chain", "chain:strides", "chain:stop"])
def test_arrays_agree_with_decode(name: str) -> None:
    space = PRESETS[name]
    assert isinstance(space, ChainSpace)
    tokens = space.sample(np.random.default_rng(0), 50)
    if name == "chain:stop":
        tokens[:25] = finished(space, tokens[:25], np.random.default_rng(1))
    for row, depth, skips in zip(tokens, space.depths(tokens), space.skips(tokens), strict=True):
        layers = space.decode(row)
        assert len(layers) == depth
        assert [np.flatnonzero(read).tolist() for read in skips[:depth]] == [list(layer.inputs) for layer in layers]
        assert not skips[depth:].any()


def finished(space: ChainSpace, tokens: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Stops each row somewhere and fills it as an environment does."""
    tokens = tokens.copy()
    stops = np.flatnonzero(space.stop_choices >= 0)
    for row in tokens:
        position = rng.choice(stops)
        row[position] = space.stop_choices[position]
        row[position + 1 :] = space.absent_choices[position + 1 :]
    return tokens


def test_a_stopped_episode_is_filled_with_the_absent_choices() -> None:
    space = PRESETS["chain:stop"]
    assert isinstance(space, ChainSpace)
    assert (space.stop_choices >= 0).sum() == 14
    assert all(
        (space.stop_choices[t] == 1) if decision.kind == "stop" else (space.stop_choices[t] == -1)
        for t, decision in enumerate(space.decisions)
    )
    tokens = finished(space, space.sample(np.random.default_rng(2), 200), np.random.default_rng(3))
    space.check(tokens)
    assert len(np.unique(space.depths(tokens))) == 14
    fixed = PRESETS["chain"]
    assert (fixed.stop_choices == -1).all()
    assert (fixed.absent_choices == -1).all()


def test_depths_are_drawn_as_often_as_they_have_architectures() -> None:
    space = ChainSpace(4, "stop", heights=(1,), widths=(3,), filters=(24,))
    shares = np.array([2 ** (depth * (depth - 1) // 2) for depth in range(1, 5)], dtype=float)
    counts = np.bincount(space.depths(space.sample(np.random.default_rng(4), 20_000)), minlength=5)[1:]
    assert chisquare(counts, shares / shares.sum() * 20_000).pvalue > 1e-3


def test_counts_too_large_for_floats() -> None:
    """At 60 layers the later layers have more than 10^600 forms: a stop is all but never drawn, and still legal."""
    space = ChainSpace(60, "stop")
    assert space.size > 10**600
    tokens = np.full((2, space.length), UNDECIDED, dtype=np.int64)
    tokens[:, :3] = 0
    assert space.legal(tokens, 3).tolist() == [[True, True, False, False, False]] * 2
    assert (space.depths(space.sample(np.random.default_rng(5), 50)) == 60).all()
    ratio = Fraction(1, 64 * 2**59 + 1)  # at the last layer
    last = int(np.flatnonzero(space.stop_choices >= 0)[-1])
    weights = space.weights(space.sample(np.random.default_rng(6), 1), last)[0]
    assert weights[1] / weights.sum() == pytest.approx(float(ratio), rel=1e-12)


def test_classes_forget_the_order_of_layers() -> None:
    space = ChainSpace(3, heights=(3,), widths=(3,), filters=(24, 36))
    one = space.parse("3 3 24 | none 3 3 36 | connect connect 3 3 24")
    other = space.parse("3 3 36 | none 3 3 24 | connect connect 3 3 24")
    apart = space.parse("3 3 36 | none 3 3 24 | connect none 3 3 24")
    assert space.canonical(one) == space.canonical(other) != space.canonical(apart)


def test_classes_by_brute_force() -> None:
    """Two chains are equal if a numbering of the layers makes them so: what each reads, what it is."""
    space = ChainSpace(4, heights=(3,), widths=(3,), filters=(24, 36))
    truth: dict[str, object] = {}
    rng = np.random.default_rng(7)
    found: dict[object, str] = {}
    for row in space.sample(rng, 400):
        layers = space.decode(row)
        key = min(
            tuple(
                sorted(
                    (order[i], layer.filters, tuple(sorted(order[j] for j in layer.inputs)))
                    for i, layer in enumerate(layers)
                )
            )
            for order in itertools.permutations(range(4))
        )
        text = space.canonical(space.architecture(row))
        assert truth.setdefault(text, key) == key
        assert found.setdefault(key, text) == text
    assert len(truth) < 400


# ------------------------------------------------------------------ the schedule of growing depth

GROWING = ChainSpace(
    layers=4, depth="schedule", heights=(1,), widths=(1, 3), filters=(8, 16), start=1, growth=2, every=10
)


def enumerated(space: ChainSpace) -> set[tuple[int, ...]]:
    return set(map(tuple, space.enumerate().tolist()))


def test_a_growing_space_is_the_union_of_its_stages() -> None:
    depths = (1, 3, 4)
    stages = [GROWING.at_trial(trial) for trial in (0, 10, 20)]
    by_stage = [enumerated(stage) for stage in stages]
    for stage, depth, rows in zip(stages, depths, by_stage, strict=True):
        assert isinstance(stage, ChainSpace)
        assert stage.size == len(rows) == np.prod([4 * 2**layer for layer in range(depth)])
        assert set(GROWING.depths(np.array(sorted(rows))).tolist()) == {depth}
    assert enumerated(GROWING) == set().union(*by_stage)
    assert GROWING.size == sum(map(len, by_stage))
    assert GROWING.decisions == stages[0].decisions


def test_stages_follow_the_paper() -> None:
    space = PRESETS["chain:schedule"]
    rng = np.random.default_rng(0)
    for trial, depth in ((0, 6), (1599, 6), (1600, 8), (3200, 10), (11_200, 20), (10**6, 20)):
        assert set(space.depths(space.at_trial(trial).sample(rng, 20)).tolist()) == {depth}  # type: ignore[attr-defined]
    assert space.at_trial(5) is space.at_trial(6)


def test_mutation_brings_an_architecture_to_the_stage() -> None:
    rng = np.random.default_rng(0)
    parents = GROWING.at_trial(0).sample(rng, 200)
    stage = GROWING.at_trial(10)
    children = stage.mutate(parents, rng)
    stage.check(children)


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["random", "reinforce", "regularized-evolution", "local-search"])
@pytest.mark.parametrize("num_envs", [0, 5])
def test_agents_grow_with_the_space(agent: str, num_envs: int) -> None:
    arguments = {"space": GROWING, "evaluator": "constant"}
    if num_envs:
        env = gymnasium.make_vec("NAS-Chain-v0", num_envs=num_envs, **arguments)
    else:
        env = gymnasium.make("NAS-Chain-v0", **arguments)
    result = make_agent(agent, env, seed=0).learn(30)
    assert GROWING.depths(result.tokens).tolist() == [1] * 10 + [3] * 10 + [4] * 10


def test_masks_of_the_environment_grow() -> None:
    env = gymnasium.make("NAS-Chain-v0", space=GROWING, evaluator="constant")
    rng = np.random.default_rng(0)
    depths = []
    for _ in range(25):
        _, info = env.reset()
        done = False
        while not done:
            action = rng.choice(np.flatnonzero(info["action_mask"]))
            _, _, done, _, info = env.step(action)
        depths += GROWING.depths(info["architecture"][None]).tolist()
    assert depths == [1] * 10 + [3] * 10 + [4] * 5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"start": 0}, "start must be at least 1"),
        ({"start": 9}, "start must be at most layers 4, got 9"),
        ({"every": 0}, "every must be at least 1"),
        ({"exactly": 2}, r"exactly must be None or a depth of the schedule \(1, 3, 4\), got 2"),
    ],
)
def test_schedules_that_cannot_be(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(GROWING, **fields)


@pytest.mark.parametrize("space", [ChainSpace(layers=5, depth="stop"), ChainSpace(layers=8, depth="schedule")])
def test_masks_of_rows_at_different_decisions(space: ChainSpace) -> None:
    rng = np.random.default_rng(0)
    tokens, positions = space.sample(rng, 200), rng.integers(space.length, size=200)
    expected = [space.legal(row[None], int(position))[0] for row, position in zip(tokens, positions, strict=True)]
    np.testing.assert_array_equal(space.legal(tokens, positions), expected)
