"""The space of mobile networks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from graph_checks import described
from scipy.stats import chisquare

from nas_gym.spaces import PRESETS, MobileSpace
from nas_gym.spaces.mobile import Bottleneck, MobileStage


def test_published_size() -> None:
    """Cai et al. 2020: 5 stages of 2, 3 or 4 layers of 3 kernels and 3 expansions, about 2 * 10^19."""
    once_for_all = MobileSpace(squeeze_excite=(0.25,))
    assert once_for_all.size == (9**2 + 9**3 + 9**4) ** 5
    assert f"{once_for_all.size:.0e}" == "2e+19"
    assert PRESETS["mobile"].size == once_for_all.size * 2**5


def test_decisions() -> None:
    space = MobileSpace(2, (1, 2))
    assert [(d.name, d.kind, d.group, d.choices) for d in space.decisions[:7]] == [
        ("stage_0/depth", "depth", 0, ("1", "2")),
        ("stage_0/squeeze_excite", "squeeze_excite", 0, ("0", "0.25")),
        ("stage_0/layer_0/kernel", "kernel", 1, ("3", "5", "7")),
        ("stage_0/layer_0/expansion", "expansion", 1, ("3", "4", "6")),
        ("stage_0/layer_1/kernel", "kernel", 2, ("3", "5", "7", "absent")),
        ("stage_0/layer_1/expansion", "expansion", 2, ("3", "4", "6", "absent")),
        ("stage_1/depth", "depth", 3, ("1", "2")),
    ]
    # What has a single value is no decision.
    assert [d.name for d in MobileSpace(1, (2,), (3, 5), (6,), (0.25,)).decisions] == [
        "stage_0/layer_0/kernel",
        "stage_0/layer_1/kernel",
    ]


def test_decode_and_graph() -> None:
    space = MobileSpace(2, (1, 2), (3, 5), (3, 6), (0.0, 0.25))
    architecture = space.parse("2 0.25 | 3 6 | 5 3 | 1 0 | 5 6 | absent absent")
    assert space.decode(architecture.tokens) == (
        MobileStage((Bottleneck(3, 6), Bottleneck(5, 3)), 0.25),
        MobileStage((Bottleneck(5, 6),), 0.0),
    )
    graph = space.graph(architecture)
    assert described(graph) == [
        ("input", "input", []),
        ("stage_0/layer_0", "mbconv_3x3_e6_se0.25", ["input"]),
        ("stage_0/layer_1", "mbconv_5x5_e3_se0.25", ["stage_0/layer_0"]),
        ("stage_0/layer_1/residual", "sum", ["stage_0/layer_1", "stage_0/layer_0"]),
        ("stage_1/layer_0", "mbconv_5x5_e6", ["stage_0/layer_1/residual"]),
        ("output", "output", ["stage_1/layer_0"]),
    ]
    single = MobileSpace(1, (2,), (3, 5), (6,), (0.25,))
    assert single.decode([1, 0]) == (MobileStage((Bottleneck(5, 6), Bottleneck(3, 6)), 0.25),)


def test_layers_beyond_the_depth_must_be_absent() -> None:
    space = MobileSpace(1, (1, 2), (3, 5), (3, 6), (0.25,))
    with pytest.raises(ValueError, match=r"'stage_0/layer_1/kernel' of space 'mobile' .*legal: \[2\]"):
        space.parse("1 | 3 3 | 3 absent")
    with pytest.raises(ValueError, match=r"'stage_0/layer_1/expansion' of space 'mobile' .*legal: \[0, 1\]"):
        space.parse("2 | 3 3 | 3 absent")


def test_depths_are_drawn_as_often_as_they_have_architectures() -> None:
    space = PRESETS["mobile"]
    tokens = space.sample(np.random.default_rng(0), 50_000)
    column = [decision.name for decision in space.decisions].index("stage_3/depth")
    shares = np.array([9**2, 9**3, 9**4]) / (9**2 + 9**3 + 9**4)
    assert chisquare(np.bincount(tokens[:, column]), shares * 50_000).pvalue > 1e-3


def test_every_architecture_is_a_class_of_its_own() -> None:
    """Residual connections tell where a stage begins: 1 + 2 layers are not 2 + 1."""
    space = MobileSpace(2, (1, 2, 3), (3, 5), (6,), (0.25,))
    texts = set()
    for row in itertools.product(*(range(len(decision.choices)) for decision in space.decisions)):
        tokens = np.array([row])
        if all(space.legal(tokens, t)[0, token] for t, token in enumerate(row)):
            texts.add(space.canonical(space.architecture(row)))
    assert len(texts) == space.size
