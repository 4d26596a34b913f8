"""Hierarchical networks against a recursion over the decoded motifs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import network_checks as checks
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nas_gym.networks import Network, NetworkSettings, make_network, make_supernet
from nas_gym.networks.hierarchical import live_edges
from nas_gym.spaces import Architecture, HierarchicalSpace

SPACE = HierarchicalSpace(motifs=3, motif_nodes=4, cell_nodes=4)
SMALL = HierarchicalSpace(motifs=2, motif_nodes=3, cell_nodes=3)
SETTINGS = NetworkSettings(channels=4, reductions=1)


def architectures(number: int) -> list[Architecture]:
    return [SPACE.architecture(row) for row in SPACE.sample(np.random.default_rng(1), number)]


def by_hand(network: Network, architecture: Architecture, x: Tensor) -> Tensor:
    layers = checks.Layers(network)
    x = layers.stem(x, 4)
    for cell, stride in enumerate((2, 1)):
        value = cell_value(layers, f"cells.{cell}", architecture, x)
        x = layers.separable(f"between.{cell}", torch.zeros_like(x) if value is None else value, stride)
    return layers.head(x)


def cell_value(layers: checks.Layers, name: str, architecture: Architecture, x: Tensor) -> Tensor | None:
    decoded = SPACE.decode(architecture.tokens)

    def primitive(place: str, operation: str, value: Tensor) -> Tensor:
        choice = 1 + SPACE.primitives.index(operation)
        return layers.operation(f"{place}.bank.choices.{choice}", operation, value)

    def motif(edge: str, number: int, value: Tensor) -> Tensor | None:
        return graph_value(layers, edge, decoded.motifs[number], primitive, value)

    return graph_value(layers, name, decoded.edges, motif, x)


def graph_value(
    layers: checks.Layers,
    name: str,
    edges: Sequence[tuple[int, int, Any]],
    apply: Callable[[str, Any, Tensor], Tensor | None],
    x: Tensor,
) -> Tensor | None:
    """The value of the last of four nodes, None for zero."""
    values: list[Tensor | None] = [x]
    for node in (1, 2, 3):
        results: dict[int, Tensor] = {}
        for source, target, label in edges:
            value = values[source] if target == node else None
            number = node * (node - 1) // 2 + source
            result = None if value is None else apply(f"{name}.edges.{number}", label, value)
            if result is not None:
                results[source] = result
        values.append(joined(layers, f"{name}.joins.{node}.bank.choices.1", node, results))
    return values[3]


def joined(layers: checks.Layers, name: str, most: int, results: dict[int, Tensor]) -> Tensor | None:
    if len(results) < 2:
        return next(iter(results.values()), None)
    weight = layers.weights[f"{name}.1.weight"].unflatten(1, (most, -1))
    terms = [F.conv2d(result.relu(), weight[:, source]) for source, result in results.items()]
    return layers.norm(f"{name}.2", torch.stack(terms).sum(dim=0))


def slicing(network: Network, name: str, weights: Tensor) -> Tensor:
    """A join has weights for the edges that are held."""
    motif, is_join, rest = name.partition(".joins.")
    if not is_join or weights.dim() == 1:
        return weights
    node = int(rest.split(".")[0])
    numbers = {
        int(edge) - node * (node - 1) // 2 for edge in dict(network.get_submodule(f"{motif}.edges").named_children())
    }
    return weights.unflatten(1, (node, -1))[:, sorted(numbers & set(range(node)))].flatten(1, 2)


@pytest.mark.slow
def test_supernet_and_own_networks_compute_the_same() -> None:
    supernet = checks.supernet_with_random_weights(SPACE, SETTINGS)
    checks.check_slices(supernet, architectures(12), by_hand, slicing)


def test_live_edges_are_those_on_a_way_through() -> None:
    edges = [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
    used = np.array([[bool(number >> bit & 1) for bit in range(6)] for number in range(64)])
    ways = [set(pairwise((0, *middle, 3))) for middle in ((), (1,), (2,), (1, 2))]
    for row, live in zip(used, live_edges(used, 4), strict=True):
        there = {edge for edge, is_used in zip(edges, row, strict=True) if is_used}
        expected = set().union(*(way for way in ways if way <= there))
        assert {edge for edge, is_live in zip(edges, live, strict=True) if is_live} == expected


@pytest.mark.slow
def test_a_network_holds_what_it_needs() -> None:
    # Motif 0: a 1x1 convolution joined with a skip; motif 1: a depthwise convolution, and an edge that leads nowhere.
    names = [decision.choices for decision in SMALL.decisions]
    words = ["conv_1x1", "skip_connect", "skip_connect", "sep_conv_3x3", "depthwise_conv_3x3", "none"]
    words += ["motif_0", "none", "motif_1"]
    architecture = SMALL.architecture([choices.index(word) for choices, word in zip(names, words, strict=True)])

    def separable(before: int, width: int) -> int:
        return 9 * before + before**2 + 2 * before + 9 * before + before * width + 2 * width

    def cell(width: int) -> int:
        conv_1x1, depthwise, join = width**2 + 2 * width, 9 * width + 2 * width, 2 * width**2 + 2 * width
        return conv_1x1 + join + depthwise

    stem, head = 9 * 4 + 8, 8 * 10 + 10
    network = make_network(architecture, (1, 8, 8), 10, SETTINGS)
    assert checks.parameters(network) == stem + cell(4) + separable(4, 8) + cell(8) + separable(8, 8) + head
    for other in architectures(6):
        checks.check_needs_all_it_holds(other, SETTINGS)


def test_a_cell_that_is_zero_predicts_the_same_for_all_images() -> None:
    # Neither motif leads to its end.
    architecture = SMALL.architecture([1, 0, 0, 0, 0, 1, 1, 2, 1])
    supernet = checks.supernet_with_random_weights(SMALL, SETTINGS)
    for network in (supernet, checks.standalone(supernet, architecture, slicing=slicing)):
        tokens = np.array([architecture.tokens]) if network is supernet else None
        logits = network(checks.images(), tokens).reshape(6, 10)
        torch.testing.assert_close(logits, logits[:1].expand(6, 10))


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="space 'hierarchical' have no auxiliary: leave it at False, got True"):
        make_supernet(SPACE, (1, 8, 8), 10, NetworkSettings(auxiliary=True))


def test_cells_per_stage() -> None:
    network = make_supernet(SMALL, (1, 8, 8), 10, NetworkSettings(channels=4, cells_per_stage=2, reductions=1))
    convolutions = [(between[1].stride[0], between[-1].weight.numel()) for between in network.between]
    assert convolutions == [(1, 4), (2, 8), (1, 8), (1, 8)]


@pytest.mark.slow
def test_images_of_several_sizes() -> None:
    checks.check_image_sizes(SPACE, channels=4)


def test_shared_weight_evaluator() -> None:
    checks.check_evaluator(HierarchicalSpace())
