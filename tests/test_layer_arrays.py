"""Networks as arrays against the layers themselves: each action applied to the layers, each parameter counted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from nas_gym.envs import masked_sample
from nas_gym.spaces import TransformationSpace
from nas_gym.spaces.layer_arrays import EXACT
from nas_gym.spaces.layer_space import Action, Deepen, LayerSpace, Stop, Widen
from nas_gym.spaces.layers import (
    DENSENET,
    PLAIN,
    Convolution,
    DenseConvolution,
    FullyConnected,
    GlobalPool,
    Layers,
    Pool,
)

FLAT = Layers((Convolution(3, 4), Pool("avg", 3, 2), FullyConnected(5), FullyConnected(6)))
DENSE_FLAT = Layers((DenseConvolution(3, 4), Convolution(5, 6), DenseConvolution(1, 4), FullyConnected(5)))
SPATIAL = Layers((Convolution(1, 4), Pool("max"), Pool("max"), DenseConvolution(3, 4)))
POOLED = Layers((Pool("max"), DenseConvolution(3, 4), Pool("avg"), DenseConvolution(3, 6), GlobalPool()))
SHORT = {"widths": (4, 6, 9, 16), "units": (5, 7, 8), "growths": (4, 6, 10), "kernels": (1, 3), "depth": 3}
SPACES = {
    "plain": LayerSpace(PLAIN, max_parameters=200_000),
    "densenet": LayerSpace(DENSENET, kernels=(3, 5), max_parameters=60_000),
    "flat": LayerSpace(FLAT, (2, 7, 9), 4, **SHORT, max_parameters=3_000),
    "dense and flat": LayerSpace(DENSE_FLAT, (3, 5, 4), 4, **SHORT, max_parameters=9_000),
    "without a pool at the end": LayerSpace(SPATIAL, (1, 9, 8), 3, **SHORT),
    "with a pool at the start": LayerSpace(POOLED, (3, 8, 8), 3, **SHORT),
    "full blocks": LayerSpace(FLAT, (2, 7, 9), 4, **{**SHORT, "depth": 2}),
    "in float64": LayerSpace(PLAIN, max_parameters=2**30),
}
WIDTHS = {Convolution: "widths", DenseConvolution: "growths", FullyConnected: "units"}


def after(space: LayerSpace, layers: Layers, action: Action) -> Layers | None:
    """The layers after an action; None if it is not legal."""
    if isinstance(action, Widen):
        layer = layers.layers[action.layer] if action.layer < len(layers) else None
        wider = [width for width in getattr(space, WIDTHS.get(type(layer), ""), ()) if width > layer.width]
        found = layers.replaced(action.layer, dataclasses.replace(layer, width=wider[0])) if wider else None
    elif isinstance(action, Deepen):
        block = layers.blocks[action.block]
        if action.position >= len(block) or len(block) == space.depth:
            return None
        index = block[action.position]
        new = layers.layers[index]
        new = new if action.kernel is None else dataclasses.replace(new, kernel=action.kernel)
        found = layers.inserted(index + 1, new)
    else:
        found = layers
    large = found is not None and found.parameters(space.image_shape, space.num_classes) > space.max_parameters
    return None if large else found


@pytest.mark.parametrize("name", SPACES)
def test_masks_and_networks_are_those_of_the_layers(name: str) -> None:
    """Eight networks at once, until nothing is left to do for most of them."""
    space = SPACES[name]
    arrays, rng = space.arrays, np.random.default_rng(0)
    networks, layers = np.repeat(arrays.start, 8, axis=1), [space.start] * 8
    for _ in range(25):
        legal = arrays.legal(networks)
        children = [[after(space, each, action) for action in space.actions] for each in layers]
        np.testing.assert_array_equal(legal, [[child is not None for child in row] for row in children])
        for each, mask, column, row in zip(layers, legal, networks.T, children, strict=True):
            np.testing.assert_array_equal(space.legal(each), mask)
            np.testing.assert_array_equal(arrays.encode(each)[:, 0], column)
            counts = {child.parameters(space.image_shape, space.num_classes) for child in row if child is not None}
            assert arrays.parameters(column[:, None])[0] == space.parameters(each)
            _, *increases = arrays.parameters(column[:, None])
            found = np.concatenate(increases) + space.parameters(each)
            assert {*found[found <= space.max_parameters].tolist(), space.parameters(each)} == counts
        np.testing.assert_array_equal(arrays.sequences(networks), [space.encode(each)[0] for each in layers])
        rare = legal.copy()
        rare[:, -1] = ~legal[:, :-1].any(axis=1)
        choices = masked_sample(rare, rng)
        networks = arrays.grown(networks, choices)
        layers = [children[row][choice] for row, choice in enumerate(choices)]
        assert arrays.decode(networks) == layers


@pytest.mark.parametrize("start", [PLAIN, DENSENET, DENSE_FLAT])
@pytest.mark.parametrize("size", [0, 2**24 - 500, 2**24])
def test_the_limit_is_met_exactly(start: Layers, size: int) -> None:
    """A network of exactly the maximum is legal, one parameter more is not, on both sides of what float32 can count."""
    shape = (1, 8, 8)
    first, second = (start.parameters(shape, classes) for classes in (10, 11))
    classes = 10 + max(0, size - first) // (second - first)
    space = LayerSpace(start, shape, classes, max_parameters=EXACT - 1)
    for action in space.actions[:-1]:
        child = after(space, start, action)
        if child is None:
            continue
        count = child.parameters(shape, classes)
        for limit in (count, count - 1):
            if limit >= start.parameters(shape, classes):
                tight = LayerSpace(start, shape, classes, max_parameters=limit)
                assert tight.legal(start)[space.actions.index(action)] == (limit == count)


def test_networks_of_other_spaces_are_refused() -> None:
    space = SPACES["plain"]
    for other, message in (
        (Layers(PLAIN.layers[:-2]), "has other blocks or pools"),
        (Layers((Convolution(3, 16),) * 7 + PLAIN.layers[1:]), "has other blocks or pools"),
        (Layers((Pool("avg"), *PLAIN.layers[1:])), "whose vocabulary is without avg_pool_2x2/2"),
        (Layers((Convolution(3, 17), *PLAIN.layers[1:])), "whose vocabulary is without conv_3x3_17"),
    ):
        with pytest.raises(ValueError, match=message):
            space.legal(other)
    with pytest.raises(ValueError, match=r"max_parameters must be below 2\*\*53"):
        LayerSpace(max_parameters=2**53)


@pytest.mark.parametrize("start", ["plain", "densenet"])
def test_prefixes_in_any_order_reach_the_networks_of_their_actions(start: str) -> None:
    """What is kept of the last call is used only where it is a part of this one. Illegal choices change nothing."""
    space = TransformationSpace(start, depth=6, max_transformations=6, max_parameters=40_000)
    layers, rng = space.layer_space, np.random.default_rng(1)
    tokens = rng.integers(-1, space.num_choices, size=(5, 6))
    tokens[:3] = space.sample(rng, 3)
    for _ in range(40):
        rows = np.sort(rng.choice(5, size=rng.integers(1, 6)))
        position = int(rng.integers(7))
        if rng.random() < 0.3:
            tokens[rng.integers(5), rng.integers(6)] = rng.integers(space.num_choices)
        expected = []
        for row in tokens[rows, :position]:
            network = layers.start
            for choice in row:
                if choice in (-1, space.stop):
                    break
                network = after(layers, network, space.actions[choice]) or network
            expected.append(network)
        assert layers.arrays.decode(space.reached(tokens[rows, :position])) == expected
        assert [space.network(row[:position]) for row in tokens[rows]] == expected
        if position < 6:
            legal = space.legal(tokens[rows], position)
            for row, network, mask in zip(tokens[rows], expected, legal, strict=True):
                stopped = position > 0 and row[position - 1] == space.stop
                allowed = [
                    isinstance(action, Stop) or (not stopped and after(layers, network, action) is not None)
                    for action in space.actions
                ]
                np.testing.assert_array_equal(mask, allowed)
