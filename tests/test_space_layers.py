"""Sequences of layers against torch's own counts and shapes, and the space of their transformations against rules."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from graph_checks import described
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_gym.networks.layers import LayerNetwork
from nas_gym.spaces.layer_space import Deepen, LayerSpace, Stop, Widen
from nas_gym.spaces.layers import (
    DENSENET,
    PLAIN,
    Convolution,
    DenseConvolution,
    FullyConnected,
    GlobalPool,
    Layer,
    Layers,
    Pool,
)

KERNELS = st.sampled_from((1, 3, 5))
SPATIAL = st.one_of(
    st.builds(Convolution, KERNELS, st.integers(1, 6)),
    st.builds(DenseConvolution, KERNELS, st.integers(1, 4)),
    st.builds(Pool, st.sampled_from(("max", "avg")), st.integers(1, 3), st.integers(1, 2)),
)


@st.composite
def sequences(draw: st.DrawFn) -> Layers:
    """Any that images of 9 x 11 pixels are large enough for."""
    layers: list[Layer] = draw(st.lists(SPATIAL, max_size=6))
    layers += [GlobalPool()] if draw(st.booleans()) else []
    layers += [FullyConnected(draw(st.integers(1, 7))) for _ in range(draw(st.integers(0, 2)))]
    while True:
        try:
            Layers(tuple(layers)).shapes((2, 9, 11))
        except ValueError:
            layers.pop(next(i for i, layer in reversed(list(enumerate(layers))) if isinstance(layer, Pool)))
        else:
            return Layers(tuple(layers))


SPACES = {
    "plain": LayerSpace(image_shape=(1, 8, 8), depth=3, widths=(16, 24, 32, 64, 80), max_parameters=120_000),
    "densenet": LayerSpace(DENSENET, (3, 8, 8), kernels=(3,), depth=5, growths=(4, 8, 12), max_parameters=40_000),
    "flat": LayerSpace(
        Layers((Convolution(3, 4), Pool("avg", 3, 2), FullyConnected(5), FullyConnected(6))),
        (2, 7, 9),
        4,
        kernels=(1, 3),
        widths=(4, 6),
        units=(5, 7, 8),
        depth=3,
    ),
}


@settings(deadline=None, max_examples=60, derandomize=True)
@given(sequences())
def test_parameters_and_shapes_are_those_of_torch(layers: Layers) -> None:
    network = LayerNetwork(layers, (2, 9, 11), 3)
    assert layers.parameters((2, 9, 11), 3) == sum(parameter.numel() for parameter in network.parameters())
    x = torch.zeros(2, 2, 9, 11)
    shapes = layers.shapes((2, 9, 11))
    for module, shape in zip(network.eval().body, shapes[1:], strict=True):
        x = module(x)
        assert (*x.shape[1:], 1, 1)[:3] == shape
    assert network(torch.zeros(2, 2, 9, 11)).shape == (2, 3)


def test_parameters_by_hand() -> None:
    # Convolutions with batch norm, units with biases, the classifier.
    plain = (9 * 16 + 32) + (9 * 16 * 32 + 64) + (9 * 32 * 64 + 128) + (64 * 64 + 64) + (64 * 10 + 10)
    assert PLAIN.parameters((1, 28, 28), 10) == PLAIN.parameters((1, 8, 8), 10) == plain
    dense = Layers((DenseConvolution(3, 2), FullyConnected(5)))
    assert dense.parameters((3, 4, 6), 7) == (3 * 8 + 16 + 8 * 9 * 2 + 4) + (5 * 4 * 6 + 1) * 5 + 6 * 7


@settings(deadline=None, max_examples=60, derandomize=True)
@given(sequences(), sequences())
def test_json_round_trips_and_hashes_tell_apart(a: Layers, b: Layers) -> None:
    again = Layers.from_json(a.to_json())
    assert again == a
    assert hash(again) == hash(a)
    assert (a == b) == (str(a) == str(b)) == (a.canonical_hash() == b.canonical_hash())


def test_words_blocks_and_graph() -> None:
    layers = Layers((Convolution(3, 4), DenseConvolution(5, 2), Pool("max", 3, 2), Pool("avg"), FullyConnected(8)))
    assert str(layers) == "conv_3x3_4 dense_conv_5x5_2 | max_pool_3x3/2 avg_pool_2x2/2 | fully_connected_8"
    assert layers.blocks == (range(0, 2), range(4, 5))
    assert DENSENET.blocks == (range(0, 5), range(6, 9))
    assert PLAIN.blocks == (range(0, 1), range(2, 3), range(4, 5), range(6, 7))
    assert described(layers.graph()) == [
        ("input", "input", []),
        ("layer_0", "conv_3x3_4", ["input"]),
        ("layer_1", "dense_conv_5x5_2", ["layer_0"]),
        ("layer_1/concat", "concat", ["layer_0", "layer_1"]),
        ("layer_2", "max_pool_3x3/2", ["layer_1/concat"]),
        ("layer_3", "avg_pool_2x2/2", ["layer_2"]),
        ("layer_4", "fully_connected_8", ["layer_3"]),
        ("output", "output", ["layer_4"]),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not the JSON of a sequence of layers"),
        ("[]", "not the JSON of a sequence of layers"),
        ('{"layers": 3}', "'layers' must be a list"),
        ('{"layers": [3]}', r"layers\[0\] needs a 'layer' among convolution, .*; got 3"),
        ('{"layers": [{"layer": ["pool"]}]}', r"layers\[0\] needs a 'layer' among"),
        ('{"layers": [{"layer": "attention"}]}', r"layers\[0\] needs a 'layer' among"),
        ('{"layers": [{"layer": "convolution", "kernel": 3}]}', r"has the fields \['kernel', 'width'\]"),
        (
            '{"layers": [{"layer": "convolution", "kernel": "3", "width": 4}]}',
            "kernel of Convolution must be a positive",
        ),
        ('{"layers": [{"layer": "pool", "kind": "min", "kernel": 2, "stride": 2}]}', "'max' or 'avg', got 'min'"),
    ],
)
def test_other_json_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Layers.from_json(text)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Convolution(2, 4), "kernel of Convolution must be odd, got 2"),
        (lambda: DenseConvolution(3, 0), "width of DenseConvolution must be a positive integer, got 0"),
        (lambda: FullyConnected(True), "width of FullyConnected must be a positive integer, got True"),
        (lambda: Pool("max", 0), "kernel of Pool must be a positive integer, got 0"),
        (lambda: Layers((3,)), r"layers\[0\] must be one of Convolution, .*; got 3"),  # type: ignore[arg-type]
        (lambda: Layers((FullyConnected(3), Pool("max"))), r"layers\[1\] = max_pool_2x2/2 cannot follow fully_conn"),
        (lambda: Layers((GlobalPool(), Convolution(1, 1))), "cannot follow global_avg_pool"),
        (lambda: PLAIN.parameters((1, 3, 3), 10), r"max_pool_2x2/2 needs maps of at least 2 pixels, got \[1, 1\]"),
        (lambda: LayerSpace(kernels=(1, 2)), "kernels must be odd"),
        (lambda: LayerSpace(widths=(16, 8)), "widths must be positive and rising"),
        (lambda: LayerSpace(depth=0), "start needs blocks of 1 to depth 0 layers; its longest has 1"),
        (lambda: LayerSpace(Layers((Pool("max"),))), "its longest has 0"),
        (lambda: LayerSpace(max_parameters=1000), "start has 28,218 parameters; max_parameters is 1,000"),
    ],
)
def test_bad_values_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", SPACES)
def test_actions_are_enumerated_once(name: str) -> None:
    space = SPACES[name]
    convolutions = sum(not isinstance(space.start.layers[block[0]], FullyConnected) for block in space.start.blocks)
    deeper = (space.depth - 1) * (convolutions * len(space.kernels) + (len(space.start.blocks) - convolutions))
    assert len(space.actions) == len(set(space.actions)) == space.length + deeper + 1
    assert space.actions[-1] == Stop()


def ways_on(space: LayerSpace, layers: Layers) -> set[Layers]:
    """What the rules allow, found without actions: every next width, every copy set behind its layer."""
    lists = {Convolution: space.widths, DenseConvolution: space.growths, FullyConnected: space.units}
    found = set()
    for index, layer in enumerate(layers):
        if type(layer) not in lists:
            continue
        before, after = layers.layers[:index], layers.layers[index + 1 :]
        for width in [width for width in lists[type(layer)] if width > layer.width][:1]:
            found.add(Layers((*before, dataclasses.replace(layer, width=width), *after)))
        if sum(index in block and len(block) < space.depth for block in layers.blocks):
            copies = (
                [layer]
                if isinstance(layer, FullyConnected)
                else [dataclasses.replace(layer, kernel=kernel) for kernel in space.kernels]
            )
            found |= {Layers((*before, layer, copy, *after)) for copy in copies}
    return {child for child in found if space.parameters(child) <= space.max_parameters}


@pytest.mark.parametrize("name", SPACES)
def test_random_walks_meet_the_rules_until_nothing_is_left(name: str) -> None:
    space = SPACES[name]
    ends = set()
    for seed in range(5):
        rng, layers = np.random.default_rng(seed), space.start
        while True:
            legal = space.legal(layers)
            assert legal.shape == (len(space.actions),)
            assert legal[-1]
            assert space.apply(layers, Stop()) is layers
            moves = [space.actions[i] for i in np.flatnonzero(legal[:-1])]
            children = [space.apply(layers, action) for action in moves]
            assert set(children) == ways_on(space, layers)
            tokens, count = space.encode(layers)
            assert tokens.shape == (space.length,)
            assert count == len(layers) == (tokens != -1).sum()
            assert space.decode(tokens) == layers
            if not moves:
                break
            layers = children[rng.integers(len(children))]
        assert space.parameters(layers) <= space.max_parameters
        assert max(map(len, layers.blocks)) <= space.depth
        ends.add(layers)
    assert len(ends) > 1 or name == "flat"


@pytest.mark.parametrize("name", SPACES)
def test_illegal_actions_are_refused(name: str) -> None:
    space = SPACES[name]
    for action, legal in zip(space.actions, space.legal(space.start), strict=True):
        if not legal:
            with pytest.raises(ValueError, match=r"is not legal for .*: "):
                space.apply(space.start, action)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (Widen(7), "it has 7 layers"),
        (Widen(-1), "it has 7 layers"),
        (Widen(1), "max_pool_2x2/2 has no width"),
        (Deepen(4, 0, 3), "it has 4 blocks"),
        (Deepen(0, 1, 3), "block 0 has 1 layers"),
        (Deepen(0, 0, 7), "kernels are 1, 3, 5"),
        (Deepen(0, 0, None), "kernels are 1, 3, 5"),
        (Deepen(3, 0, 3), "a fully connected layer has no kernel"),
    ],
)
def test_the_reason_of_a_refusal(action: Widen | Deepen, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayerSpace().apply(PLAIN, action)


def test_limits_are_named() -> None:
    space = LayerSpace(widths=(16, 64), depth=1, max_parameters=28_300)
    with pytest.raises(ValueError, match="the greatest width is 64"):
        space.apply(PLAIN, Widen(4))
    with pytest.raises(ValueError, match="block 0 has 1 layers, which is the maximum"):
        space.apply(PLAIN, Deepen(0, 0, 3))
    with pytest.raises(ValueError, match=r"it would have .* parameters, more than 28,300"):
        space.apply(PLAIN, Widen(0))


def test_a_deeper_block_repeats_the_layer_before() -> None:
    space = LayerSpace(DENSENET, kernels=(3, 5))
    deeper = space.apply(DENSENET, Deepen(0, 3, 5))
    assert deeper.layers == (*DENSENET.layers[:4], DenseConvolution(5, 8), *DENSENET.layers[4:])
    assert LayerSpace().apply(PLAIN, Deepen(3, 0, None)) == Layers((*PLAIN.layers, FullyConnected(64)))


def test_tokens_that_are_none_are_refused() -> None:
    space = SPACES["flat"]
    tokens, _ = space.encode(space.start)
    for bad, message in (
        (np.roll(tokens, 1), "after an absent one"),
        (np.where(tokens == -1, -1, len(space.vocabulary)), "tokens must be in"),
    ):
        with pytest.raises(ValueError, match=message):
            space.decode(bad)
    with pytest.raises(ValueError, match="is not in the space's vocabulary"):
        space.encode(Layers((Convolution(3, 5),)))
    with pytest.raises(ValueError, match=f"up to {space.length}"):
        space.encode(Layers((Convolution(3, 4),) * (space.length + 1)))


def test_starts_are_small() -> None:
    for start, shape in itertools.product((PLAIN, DENSENET), ((1, 8, 8), (1, 28, 28))):
        assert start.parameters(shape, 10) < 30_000


def test_torch_is_not_needed() -> None:
    code = "import sys, nas_gym.spaces.layers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
