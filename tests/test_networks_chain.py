"""Networks of chains against a slow reference: one architecture at a time, with whole kernels and masked inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from network_checks import supernet_with_random_weights
from torch import Tensor

from nas_gym.evaluators.shared_weights import SharedWeightEvaluator
from nas_gym.networks import Network, NetworkSettings, make_network, make_supernet
from nas_gym.spaces import Architecture, ChainSpace, Tokens
from nas_gym.tasks import make_task

SPACES = {
    "fixed": ChainSpace(layers=4),
    "strides": ChainSpace(layers=4, strides=(1, 2, 3)),
    "stop": ChainSpace(layers=5, depth="stop", strides=(1, 2)),
    "even": ChainSpace(layers=3, heights=(2, 3, 4), widths=(1, 2, 5, 6), strides=(2,), filters=(5, 7)),
}
SETTINGS = [
    (8, NetworkSettings(2, reductions=2)),
    (7, NetworkSettings(4, reductions=0)),
    (14, NetworkSettings(3, reductions=1, stem_stride=2)),
]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def supernet(space: ChainSpace, size: int, settings: NetworkSettings) -> Network:
    return supernet_with_random_weights(space, settings, size, in_channels=2, classes=4)


def samples(space: ChainSpace, n: int) -> Tokens:
    """Random architectures; where the depth is chosen, of every depth."""
    tokens = space.sample(np.random.default_rng(0), n)
    for depth in range(1, space.layers):
        if space.depth == "stop":
            after = space.columns[f"layer_{depth}/stop"]
            tokens[depth, after:] = space.absent_choices[after:]
            tokens[depth, after] = space.stop_choices[after]
    space.check(tokens)
    return tokens


def filters_of(space: ChainSpace, settings: NetworkSettings, number: int) -> int:
    return max(round(number * settings.channels / 16), 1)


def padded(x: Tensor, channels: int, height: int, width: int) -> Tensor:
    out = torch.zeros(len(x), channels, height, width)
    out[:, : x.shape[1], : x.shape[2], : x.shape[3]] = x
    return out


def reference(network: Network, images: Tensor, row: Tokens) -> Tensor:
    """Convolves all that a layer could read, unread inputs zero, with kernels zero around their centre."""
    space, settings, state = network.space, network.settings, network.state_dict()
    assert isinstance(space, ChainSpace)
    most = filters_of(space, settings, max(space.filters))
    tall, wide = max(space.heights), max(space.widths)
    if settings.stem_stride > 1:
        images = F.avg_pool2d(images, settings.stem_stride, ceil_mode=True)
    layers = space.decode(row)
    pooled_before = [i * space.layers // (settings.reductions + 1) for i in range(1, settings.reductions + 1)]
    maps = [images]
    for index, layer in enumerate(layers):
        for _ in range(pooled_before.count(index)):
            maps = [F.max_pool2d(x, 2, ceil_mode=True) for x in maps]
        read = [source + 1 for source in layer.inputs] or [0]
        height, width = (max(maps[i].shape[axis] for i in read) for axis in (2, 3))
        inputs = torch.cat(
            [
                padded(maps[i] if i in read else maps[i][:, :0, :0, :0], most if i else images.shape[1], height, width)
                for i in range(index + 1)
            ],
            dim=1,
        )
        filters = filters_of(space, settings, layer.filters)
        rows = torch.arange(tall) - tall // 2 + layer.height // 2
        columns = torch.arange(wide) - wide // 2 + layer.width // 2
        inside = ((rows >= 0) & (rows < layer.height))[:, None] & ((columns >= 0) & (columns < layer.width))
        weight = state[f"layers.{index}.convolution.weight"] * inside
        # Room for any kernel on both sides, the strided grid laid by hand.
        around = F.pad(inputs, (wide // 2, wide, tall // 2, tall))
        x = F.conv2d(around, weight)[:, :filters, :height, :width][:, :, :: layer.stride[0], :: layer.stride[1]]
        scale, shift = (state[f"layers.{index}.norm.{name}"][:filters] for name in ("weight", "bias"))
        maps.append(F.relu(F.batch_norm(x, None, None, scale, shift, training=True)))
    ends = set(range(1, len(maps))) - {source + 1 for layer in layers for source in layer.inputs}
    height, width = (max(maps[i].shape[axis] for i in ends) for axis in (2, 3))
    features = torch.zeros(len(images), space.layers * most)
    for i in ends:
        first = (i - 1) * most
        features[:, first : first + most] = padded(maps[i], most, height, width).mean(dim=(2, 3))
    return F.linear(features, state["classifier.weight"], state["classifier.bias"])


def own_network(network: Network, architecture: Architecture, size: int) -> Network:
    """The network of one architecture with the weights that it has in the supernet."""
    space, settings, state = network.space, network.settings, network.state_dict()
    assert isinstance(space, ChainSpace)
    own = make_network(architecture, (2, size, size), 4, settings)
    most = filters_of(space, settings, max(space.filters))
    layers = space.decode(architecture.tokens)
    counts = [filters_of(space, settings, layer.filters) for layer in layers]
    read = {source for layer in layers for source in layer.inputs}
    ends = [i for i in range(len(layers)) if i not in read]
    weights = {
        "classifier.bias": state["classifier.bias"],
        "classifier.weight": state["classifier.weight"][:, [i * most + c for i in ends for c in range(counts[i])]],
    }
    for index, layer in enumerate(layers):
        prefix = f"layers.{index}"
        inputs = [2 + i * most + c for i in layer.inputs for c in range(counts[i])] or [0, 1]
        top, left = (
            max(sizes) // 2 - size // 2 for sizes, size in ((space.heights, layer.height), (space.widths, layer.width))
        )
        whole = state[f"{prefix}.convolution.weight"][: counts[index], inputs]
        weights[f"{prefix}.convolution.weight"] = whole[:, :, top : top + layer.height, left : left + layer.width]
        for name in ("norm.weight", "norm.bias"):
            weights[f"{prefix}.{name}"] = state[f"{prefix}.{name}"][: counts[index]]
    assert {name for name, _ in own.named_parameters()} == set(weights)
    own.load_state_dict(weights, strict=False)
    return own


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize(("size", "settings"), SETTINGS)
def test_supernet_equals_the_reference_and_networks_of_their_own(
    name: str, size: int, settings: NetworkSettings
) -> None:
    space = SPACES[name]
    network, tokens = supernet(space, size, settings), samples(space, 16)
    images = torch.randn(6, 2, size, size, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        together = network.eval()(images, tokens)
        for row, logits in zip(tokens, together, strict=True):
            torch.testing.assert_close(network(images, row[None])[0], logits, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(reference(network, images, row), logits, rtol=1e-5, atol=1e-5)
            own = own_network(network, space.architecture(row), size).train()
            torch.testing.assert_close(own(images), logits, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_network_has_exactly_its_parameters() -> None:
    space = ChainSpace(layers=3)
    # Layer 1 reads layer 0, layer 2 the image: both end at the classifier.
    architecture = space.parse("3 5 24 | connect 1 7 36 | none none 7 7 64")
    network = make_network(architecture, (2, 8, 8), 10, NetworkSettings(16))
    layers = (2 * 3 * 5 + 2) * 24 + (24 * 1 * 7 + 2) * 36 + (2 * 7 * 7 + 2) * 64
    assert sum(parameter.numel() for parameter in network.parameters()) == layers + (36 + 64 + 1) * 10


def test_every_weight_of_a_network_is_trained() -> None:
    space = SPACES["stop"]
    for row in samples(space, 8):
        network = make_network(space.architecture(row), (2, 8, 8), 4, NetworkSettings(4))
        network(torch.randn(6, 2, 8, 8, generator=torch.Generator().manual_seed(0))).square().sum().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())


def test_only_the_weights_of_an_architecture_have_gradients() -> None:
    space = ChainSpace(layers=3)
    architecture = space.parse("3 5 24 | connect 1 7 36 | none none 7 7 64")
    network = make_supernet(space, (2, 8, 8), 10, NetworkSettings(16, reductions=0))
    images = torch.randn(6, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    network(images, np.array([architecture.tokens])).square().sum().backward()
    used = {name: int((p.grad != 0).sum()) for name, p in network.named_parameters() if p.grad is not None}
    assert used["layers.0.convolution.weight"] == 2 * 3 * 5 * 24
    assert used["layers.1.convolution.weight"] == 24 * 1 * 7 * 36
    assert used["layers.2.convolution.weight"] == 2 * 7 * 7 * 64


@pytest.mark.parametrize("name", ["fixed", "stop"])
def test_shared_weights_are_trained_and_scored(name: str) -> None:
    space = SPACES[name]
    task = make_task("digits", train_limit=64, valid_limit=40)
    evaluator = SharedWeightEvaluator(space, task, device="cpu", batch_size=16, affine=True)
    tokens = samples(space, 6)
    weights = [parameter.clone() for parameter in evaluator.supernet.parameters()]
    log = evaluator.update(tokens)
    assert np.isfinite(log["weights/loss"])
    assert log["weights/skipped"] == 0
    assert all(not torch.equal(a, b) for a, b in zip(weights, evaluator.supernet.parameters(), strict=True))
    evaluations = evaluator.evaluate(tokens)
    assert not evaluations.failed.any()
    assert ((evaluations.accuracy >= 0) & (evaluations.accuracy <= 1)).all()
    np.testing.assert_array_equal(evaluations.accuracy, evaluator.evaluate(tokens).accuracy)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (NetworkSettings(cells_per_stage=2), "have no cells_per_stage: leave it at 1"),
        (NetworkSettings(auxiliary=True), "have no auxiliary"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings: NetworkSettings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_supernet(ChainSpace(), (1, 8, 8), 10, settings)
