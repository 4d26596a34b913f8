"""Networks of the size space against true slices of the widest network and a published number of parameters."""

from __future__ import annotations

import network_checks as checks
import numpy as np
import pytest
import torch.nn.functional as F
from torch import Tensor

from nas_gym.networks import Network, NetworkSettings, make_network, make_supernet
from nas_gym.spaces import Architecture, SizeSpace

SPACE = SizeSpace(widths=(4, 6, 10))
SETTINGS = NetworkSettings(channels=8, reductions=1)  # 2, 3 and 5 channels; the second residual block has stride 1


def architectures(number: int) -> list[Architecture]:
    return [SPACE.architecture(row) for row in SPACE.sample(np.random.default_rng(1), number)]


def by_hand(network: Network, architecture: Architecture, x: Tensor) -> Tensor:
    layers, widths = checks.Layers(network), [width // 2 for width in SPACE.decode(architecture.tokens)]
    x = layers.stem(x, widths[0])
    for stage, width in enumerate(widths):
        name = f"stages.{stage}.0"
        x = residual(layers, name, x, width, {1: 2, 3: 1}[stage]) if stage in (1, 3) else cell(layers, name, x, width)
    return layers.head(layers.norm("norm_before_head", x))


def cell(layers: checks.Layers, name: str, x: Tensor, width: int) -> Tensor:
    def edge(key: str, state: Tensor) -> Tensor:
        return layers.convolution(f"{name}.convolutions.{key}", state, width)

    first = edge("0_1", x)
    second = edge("0_2", x) + edge("1_2", first)
    skip = x if x.shape[1] == width else layers.convolution(f"{name}.skip.choices.1", x, width)
    return skip + edge("1_3", first) + edge("2_3", second)


def residual(layers: checks.Layers, name: str, x: Tensor, width: int, stride: int) -> Tensor:
    inside = layers.convolution(f"{name}.first", x, width, stride)
    shortcut = F.conv2d(F.avg_pool2d(x, stride), layers.weights[f"{name}.shortcut.1.weight"][:width, : x.shape[1]])
    return layers.convolution(f"{name}.second", inside, width) + shortcut


def test_supernet_and_own_networks_compute_the_same() -> None:
    wanted = [SPACE.architecture(tokens) for tokens in ((0, 0, 0, 0, 0), (2, 2, 2, 2, 2), (1, 1, 2, 2, 0))]
    checks.check_slices(checks.supernet_with_random_weights(SPACE, SETTINGS), wanted + architectures(5), by_hand)


def test_published_number_of_parameters() -> None:
    """This cell in the network of NAS-Bench-201, 16, 32 and 64 channels, five cells a stage: 1.289 million."""
    widths = (16,) * 5 + (32,) * 6 + (64,) * 6
    architecture = SizeSpace(stages=17).parse(":".join(map(str, widths)))
    network = make_network(architecture, (3, 32, 32), 10, NetworkSettings())
    assert checks.parameters(network) / 1e6 == pytest.approx(1.289, abs=5e-4)
    settings = NetworkSettings(cells_per_stage=5)
    same = make_network(SizeSpace().parse("16:32:32:64:64"), (3, 32, 32), 10, settings)
    assert checks.parameters(same) == checks.parameters(network)


def test_a_network_holds_what_it_needs() -> None:
    def convolution(kernel: int, before: int, width: int) -> int:
        return kernel**2 * before * width + 2 * width

    def cell(before: int, width: int) -> int:
        skip = convolution(1, before, width) if before != width else 0
        return skip + 2 * convolution(3, before, width) + 3 * convolution(3, width, width)

    def block(before: int, width: int) -> int:
        return convolution(3, before, width) + convolution(3, width, width) + before * width

    stem, head = convolution(3, 1, 2), 2 * 3 + 3 * 10 + 10
    expected = stem + cell(2, 2) + block(2, 3) + cell(3, 5) + block(5, 5) + cell(5, 3) + head
    network = make_network(SPACE.parse("4:6:10:10:6"), (1, 8, 8), 10, SETTINGS)
    assert checks.parameters(network) == expected
    for architecture in architectures(4):
        checks.check_needs_all_it_holds(architecture, SETTINGS)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"whole numbers of widths \* channels / 16, got 4 with widths \(4, 6, 10\)"):
        make_supernet(SPACE, (1, 8, 8), 10, NetworkSettings(channels=4))
    with pytest.raises(ValueError, match="reductions must be at most 2, got 3"):
        make_supernet(SPACE, (1, 8, 8), 10, NetworkSettings(reductions=3))
    with pytest.raises(ValueError, match="have no auxiliary"):
        make_supernet(SPACE, (1, 8, 8), 10, NetworkSettings(auxiliary=True))


def test_images_of_several_sizes() -> None:
    checks.check_image_sizes(SPACE)


def test_shared_weight_evaluator() -> None:
    checks.check_evaluator(SizeSpace())
