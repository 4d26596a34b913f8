"""Macro networks against layers computed by hand."""

from __future__ import annotations

import network_checks as checks
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nas_gym.networks import Network, NetworkSettings, make_network, make_supernet
from nas_gym.spaces import Architecture, MacroSpace

SPACE = MacroSpace(layers=5)
SETTINGS = NetworkSettings(channels=4, reductions=1)  # layers 0 to 2 before the reduction, 3 and 4 behind it
EXAMPLE = MacroSpace(layers=3).parse("conv_3x3 | max_pool_3x3 none | sep_conv_5x5 connect none")


def architectures(number: int) -> list[Architecture]:
    return [SPACE.architecture(row) for row in SPACE.sample(np.random.default_rng(1), number)]


def by_hand(network: Network, architecture: Architecture, x: Tensor) -> Tensor:
    layers = checks.Layers(network)
    x, outputs = layers.stem(x, 4), list[Tensor]()
    for index, layer in enumerate(SPACE.decode(architecture.tokens)):
        if index == 3:
            outputs = [reduced(layers, f"reductions.3.{source}", output) for source, output in enumerate(outputs)]
            x = outputs[-1]
        choice = SPACE.operations.index(layer.operation)
        x = layers.operation(f"operations.{index}.choices.{choice}", layer.operation, x)
        for source in layer.skips:
            x = x + outputs[source]
        x = layers.norm(f"norms.{index}", x)
        outputs.append(x)
    return layers.head(x)


def reduced(layers: checks.Layers, name: str, x: Tensor) -> Tensor:
    shifted = torch.zeros_like(x)
    shifted[:, :, :-1, :-1] = x[:, :, 1:, 1:]
    halves = [
        F.conv2d(half.relu(), layers.weights[f"{name}.{kind}.weight"], stride=2)
        for kind, half in (("straight", x), ("shifted", shifted))
    ]
    return layers.norm(f"{name}.norm", torch.cat(halves, dim=1))


def test_supernet_and_own_networks_compute_the_same() -> None:
    checks.check_slices(checks.supernet_with_random_weights(SPACE, SETTINGS), architectures(8), by_hand)


def test_a_network_holds_what_it_needs() -> None:
    stem, head = 9 * 4 + 8, 8 * 10 + 10
    convolution, separable = 9 * 4 * 4 + 8, 2 * (25 * 8 + 8 * 8 + 16)
    reduction = 4 * 8 + 16  # of layer 0, a skip, and of layer 1, the output before
    norms = 8 + 8 + 16
    network = make_network(EXAMPLE, (1, 8, 8), 10, SETTINGS)
    assert checks.parameters(network) == stem + convolution + separable + 2 * reduction + norms + head
    for architecture in architectures(6):
        checks.check_needs_all_it_holds(architecture, SETTINGS)


def test_the_reductions_are_spread_over_the_depth() -> None:
    network = make_supernet(MacroSpace(), (1, 8, 8), 10, NetworkSettings(channels=2))
    assert [(layer, len(sources)) for layer, sources in network.reductions.items()] == [("4", 4), ("8", 8)]
    with pytest.raises(ValueError, match="reductions must be fewer than the 2 layers of the space, got 2"):
        make_supernet(MacroSpace(layers=2), (1, 8, 8), 10, NetworkSettings())


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="space 'macro' have no cells_per_stage: leave it at 1, got 2"):
        make_supernet(SPACE, (1, 8, 8), 10, NetworkSettings(cells_per_stage=2))


def test_a_lone_path_is_not_dropped() -> None:
    network = make_network(EXAMPLE, (1, 8, 8), 10, SETTINGS)
    assert [bank.drop_path is not None for bank in network.operations] == [False, False, True]


def test_images_of_several_sizes() -> None:
    checks.check_image_sizes(SPACE, channels=4)


def test_shared_weight_evaluator() -> None:
    checks.check_evaluator(MacroSpace())
