"""Mobile networks against true slices of the largest layers."""

from __future__ import annotations

import network_checks as checks
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nas_gym.networks import Network, NetworkSettings, make_network, make_supernet
from nas_gym.spaces import Architecture, MobileSpace

SPACE = MobileSpace(stages=2, depths=(1, 3), kernels=(3, 7), expansions=(1, 2))
SETTINGS = NetworkSettings(channels=4, reductions=1)  # stages of 6 channels, stride 2, and 10 channels, stride 1


def architectures(number: int, space: MobileSpace = SPACE) -> list[Architecture]:
    return [space.architecture(row) for row in space.sample(np.random.default_rng(1), number)]


def by_hand(network: Network, architecture: Architecture, x: Tensor) -> Tensor:
    layers = checks.Layers(network)
    weights = layers.weights
    x = layers.stem(x, 4).relu()
    for stage, decoded in enumerate(SPACE.decode(architecture.tokens)):
        for index, layer in enumerate(decoded.layers):
            name, width = f"stages.{stage}.{index}", x.shape[1] * layer.expansion
            out = layers.norm(f"{name}.expand_norm", F.conv2d(x, weights[f"{name}.expand.weight"][:width])).relu()
            kernel = centre(weights[f"{name}.depthwise.weight"], layer.kernel)[:width]
            stride = 2 if (stage, index) == (0, 0) else 1
            out = F.conv2d(out, kernel, stride=stride, padding=layer.kernel // 2, groups=width)
            out = layers.norm(f"{name}.depthwise_norm", out).relu()
            if decoded.squeeze_excite:
                out = excited(weights, f"{name}.excitations.1", out)
            out = layers.norm(f"{name}.project_norm", F.conv2d(out, weights[f"{name}.project.weight"][:, :width]))
            x = x + out if index else out
    return layers.head(x)


def centre(kernels: Tensor, size: int) -> Tensor:
    middle = kernels.shape[2] // 2
    indices = torch.arange(middle - size // 2, middle + size // 2 + 1)
    return kernels[:, :, indices][:, :, :, indices]


def excited(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    channels = x.shape[1]
    squeezed = x.mean(dim=(2, 3)) @ weights[f"{name}.squeeze.weight"][:, :channels].T + weights[f"{name}.squeeze.bias"]
    scale = squeezed.relu() @ weights[f"{name}.excite.weight"][:channels].T
    return x * (scale + weights[f"{name}.excite.bias"][:channels]).sigmoid()[:, :, None, None]


def slicing(network: Network, name: str, weights: Tensor) -> Tensor:
    if "depthwise.weight" in name:
        weights = centre(weights, network.get_parameter(name).shape[2])
    return checks.first(network, name, weights)


def test_supernet_and_own_networks_compute_the_same() -> None:
    supernet = checks.supernet_with_random_weights(SPACE, SETTINGS)
    checks.check_slices(supernet, architectures(10), by_hand, slicing)


def test_a_network_holds_what_it_needs() -> None:
    space = MobileSpace(stages=1, depths=(1, 2), kernels=(3, 5), expansions=(3, 4))

    def block(before: int, kernel: int, expansion: int) -> int:
        inside, out, squeezed = before * expansion, 12, before // 4
        excitation = 2 * inside * squeezed + squeezed + inside
        return before * inside + 2 * inside + kernel**2 * inside + 2 * inside + excitation + inside * out + 2 * out

    stem, head = 9 * 8 + 16, 12 * 10 + 10
    settings = NetworkSettings(channels=8, reductions=1)
    deep, shallow = space.parse("2 0.25 | 5 3 | 3 4"), space.parse("1 0.25 | 5 3 | absent absent")
    for architecture, blocks in ((deep, block(8, 5, 3) + block(12, 3, 4)), (shallow, block(8, 5, 3))):
        network = make_network(architecture, (1, 8, 8), 10, settings)
        assert checks.parameters(network) == stem + blocks + head
    for architecture in architectures(4):
        checks.check_needs_all_it_holds(architecture, SETTINGS)


def test_decisions_of_a_single_value() -> None:
    space = MobileSpace(stages=1, depths=(1, 2), kernels=(3,), expansions=(2,), squeeze_excite=(0.25,))
    supernet = make_supernet(space, (1, 8, 8), 10, SETTINGS)
    x, tokens = checks.images(), np.array([[0], [1]])
    assert len(supernet.stages[0]) == 2
    for row, logits in zip(tokens, supernet(x, tokens), strict=True):
        own = checks.standalone(supernet, space.architecture(row))
        assert len(own.stages[0]) == row[0] + 1
        torch.testing.assert_close(own(x), logits, atol=1e-5, rtol=1e-5)


def test_reductions_keep_the_first_strides_of_mnasnet() -> None:
    space = MobileSpace(stages=5)
    for reductions, strides in ((0, [1, 1, 1, 1, 1]), (2, [2, 2, 1, 1, 1]), (4, [2, 2, 2, 1, 2])):
        network = make_supernet(space, (1, 16, 16), 10, NetworkSettings(channels=2, reductions=reductions))
        assert [stage[0].stride for stage in network.stages] == strides
    widths = [stage[0].project.out_channels for stage in make_supernet(space, (1, 8, 8), 10).stages]
    assert widths == [24, 40, 80, 112, 160]


@pytest.mark.parametrize(
    ("space", "settings", "message"),
    [
        (MobileSpace(stages=7), NetworkSettings(), "at most 6 stages, got 7"),
        (MobileSpace(kernels=(3, 4)), NetworkSettings(), r"kernels must be odd to have a centre, got \[4\]"),
        (SPACE, NetworkSettings(reductions=3), "reductions must be at most 2 with 2 stages, got 3"),
        (SPACE, NetworkSettings(cells_per_stage=3), "space 'mobile' have no cells_per_stage: leave it at 1, got 3"),
    ],
)
def test_what_does_not_fit_is_refused(space: MobileSpace, settings: NetworkSettings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_supernet(space, (1, 8, 8), 10, settings)


def test_images_of_several_sizes() -> None:
    checks.check_image_sizes(SPACE, channels=4)


def test_shared_weight_evaluator() -> None:
    checks.check_evaluator(MobileSpace())
