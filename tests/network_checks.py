"""What the tests of networks share: plain layers by hand, weights that hide nothing, and properties of any network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nas_gym.evaluators.shared_weights import SharedWeightEvaluator
from nas_gym.networks import Network, NetworkSettings, make_network, make_supernet
from nas_gym.spaces import Architecture, SearchSpace
from nas_gym.tasks import make_task

torch.set_num_threads(1)
IMAGE_SIZES = ((8, 1), (7, 1), (14, 2))  # pixels, reductions


def images(number: int = 6, channels: int = 1, size: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(number, channels, size, size, generator=torch.Generator().manual_seed(seed))


def supernet_with_random_weights(
    space: SearchSpace, settings: NetworkSettings, size: int = 8, in_channels: int = 1, classes: int = 10
) -> Network:
    """Normalisation has weights and biases too, without which channels that should be zero would be so anyway."""
    network = make_supernet(space, (in_channels, size, size), classes, settings)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() == 1:
                parameter.copy_(torch.rand(parameter.shape, generator=generator) + ("weight" in name) * 0.5)
    return network


Slicing = Callable[[Network, str, Tensor], Tensor]
"""From a network of its own, the name of a parameter and the supernet's to the network's."""


def first(network: Network, name: str, weights: Tensor) -> Tensor:
    """The first channels."""
    return weights[tuple(slice(size) for size in network.get_parameter(name).shape)]


def standalone(supernet: Network, architecture: Architecture, size: int = 8, slicing: Slicing = first) -> Network:
    """The architecture's own network, with the supernet's weights."""
    in_channels, classes = supernet.stem[0].in_channels, supernet.head.linear.out_features
    network = make_network(architecture, (in_channels, size, size), classes, supernet.settings, seed=1)
    weights = dict(supernet.named_parameters())
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(slicing(network, name, weights[name]))
    return network


class Layers:
    """The layers of a network by name, computed one by one from its weights."""

    def __init__(self, network: Network) -> None:
        self.weights = {name: parameter.detach() for name, parameter in network.named_parameters()}

    def norm(self, name: str, x: Tensor) -> Tensor:
        mean, variance = x.mean(dim=(0, 2, 3), keepdim=True), x.var(dim=(0, 2, 3), keepdim=True, correction=0)
        channels = x.shape[1]
        weight, bias = (self.weights[f"{name}.{kind}"][:channels].view(-1, 1, 1) for kind in ("weight", "bias"))
        return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias

    def stem(self, x: Tensor, channels: int) -> Tensor:
        return self.norm("stem.1", F.conv2d(x, self.weights["stem.0.weight"][:channels], padding=1))

    def convolution(self, name: str, x: Tensor, channels: int, stride: int = 1) -> Tensor:
        """ReLU, convolution, norm; all on the first channels."""
        weight = self.weights[f"{name}.1.weight"][:channels, : x.shape[1]]
        return self.norm(f"{name}.2", F.conv2d(x.relu(), weight, stride=stride, padding=weight.shape[2] // 2))

    def separable(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        for start, step in ((0, stride), (4, 1)):
            depthwise, pointwise = (self.weights[f"{name}.{start + i}.weight"] for i in (1, 2))
            x = F.conv2d(x.relu(), depthwise, stride=step, padding=depthwise.shape[2] // 2, groups=x.shape[1])
            x = self.norm(f"{name}.{start + 3}", F.conv2d(x, pointwise))
        return x

    def operation(self, name: str, operation: str, x: Tensor) -> Tensor:
        if operation == "skip_connect":
            return x
        if operation == "avg_pool_3x3":
            return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        if operation == "max_pool_3x3":
            return F.max_pool2d(x, 3, 1, 1)
        if operation.startswith("sep_conv"):
            return self.separable(name, x)
        if operation.startswith("depthwise"):
            weight = self.weights[f"{name}.1.weight"]
            return self.norm(f"{name}.2", F.conv2d(x.relu(), weight, padding=1, groups=len(weight)))
        return self.convolution(name, x, x.shape[1])

    def head(self, x: Tensor) -> Tensor:
        weight = self.weights["head.linear.weight"][:, : x.shape[1]]
        return x.relu().mean(dim=(2, 3)) @ weight.T + self.weights["head.linear.bias"]


def parameters(network: Network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def check_slices(
    supernet: Network,
    architectures: list[Architecture],
    reference: Callable[[Network, Architecture, Tensor], Tensor],
    slicing: Slicing = first,
) -> None:
    """All at once, one at a time, each by its own network, and by hand are the same."""
    x = images(channels=supernet.stem[0].in_channels)
    with torch.no_grad():
        together = supernet(x, np.array([architecture.tokens for architecture in architectures]))
        assert together.shape == (len(architectures), len(x), supernet.head.linear.out_features)
        assert together.std(dim=0).mean() > 1e-2  # the architectures differ
        for architecture, logits in zip(architectures, together, strict=True):
            alone = supernet(x, np.array([architecture.tokens]))[0]
            torch.testing.assert_close(logits, alone, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(logits, reference(supernet, architecture, x), atol=1e-4, rtol=1e-4)
            own = standalone(supernet, architecture, slicing=slicing)(x)
            torch.testing.assert_close(logits, own, atol=1e-4, rtol=1e-4)


def check_needs_all_it_holds(architecture: Architecture, settings: NetworkSettings, in_channels: int = 1) -> None:
    """Every parameter of a network of its own has a gradient, and the supernet's are the same by name."""
    network = make_network(architecture, (in_channels, 8, 8), 10, settings)
    network(images(channels=in_channels)).square().mean().backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not without, without
    supernet = make_supernet(architecture.space, (in_channels, 8, 8), 10, settings)
    assert set(dict(network.named_parameters())) <= set(dict(supernet.named_parameters()))


def check_image_sizes(space: SearchSpace, channels: int = 16) -> None:
    tokens = space.sample(np.random.default_rng(0), 2)
    for size, reductions in IMAGE_SIZES:
        settings = NetworkSettings(channels, reductions=reductions)
        supernet = make_supernet(space, (3, size, size), 4, settings)
        logits = supernet(images(3, 3, size), tokens)
        assert logits.shape == (2, 3, 4)
        assert logits.isfinite().all()
        assert make_network(space.architecture(tokens[0]), (3, size, size), 4, settings)(images(3, 3, size)).shape == (
            3,
            4,
        )


def check_evaluator(space: SearchSpace) -> None:
    """Learns, scores, and scoring changes nothing; at the evaluator's own settings."""
    task = make_task("digits", train_limit=32, valid_limit=20)
    evaluator = SharedWeightEvaluator(space, task, batch_size=8, device="cpu")
    before = {name: weight.clone() for name, weight in evaluator.supernet.state_dict().items()}
    tokens = space.sample(np.random.default_rng(3), 2)
    metrics = evaluator.update(tokens)
    assert np.isfinite(metrics["weights/loss"])
    assert metrics["weights/skipped"] == 0
    after = {name: weight.clone() for name, weight in evaluator.supernet.state_dict().items()}
    assert any(not torch.equal(before[name], after[name]) for name in before)
    scores = [evaluator.evaluate(tokens) for _ in range(2)]
    assert not scores[0].failed.any()
    np.testing.assert_array_equal(scores[0].metrics["loss"], scores[1].metrics["loss"])
    for name, weight in evaluator.supernet.state_dict().items():
        assert torch.equal(weight, after[name])
