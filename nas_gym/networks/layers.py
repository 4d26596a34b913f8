"""A sequence of layers as a torch module."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nas_gym.networks.bank import DropPath
from nas_gym.spaces.layers import (
    BOTTLENECK,
    Convolution,
    DenseConvolution,
    FullyConnected,
    GlobalPool,
    Layer,
    Layers,
    Pool,
    Shape,
)


class LayerNetwork(nn.Module):
    """The network of a sequence of layers, from images float[N, C, H, W] to logits float[N, classes].

    `nas_gym.evaluators.training.fit` trains it like any network of one architecture. Layer i is ``body.i``.

    Args:
        layers: the sequence; a linear classifier is put behind it.
        image_shape: (channels, height, width) of the images.
        num_classes: number of logits.
        seed: of the initial weights; the global random state is neither read nor changed.
        tensors: weights and statistics by name, as `state_dict` gives them. They are held, not copied. None draws
            weights (He et al. 2015, section 2.2).

    Attributes:
        drop_path: for the training loop; no paths of these networks are dropped.

    Raises:
        ValueError: the images are too small for the pools.
    """

    def __init__(
        self,
        layers: Layers,
        image_shape: Shape,
        num_classes: int,
        *,
        seed: int = 0,
        tensors: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.layers, self.image_shape, self.num_classes = layers, image_shape, num_classes
        shapes = layers.shapes(image_shape)
        with torch.device("meta"):  # neither memory nor time is spent on values that are replaced below
            self.body = nn.ModuleList(_module(layer, shape) for layer, shape in zip(layers, shapes, strict=False))
            self.classifier = nn.Linear(math.prod(shapes[-1]), num_classes)
        self.drop_path = DropPath()
        self.load_state_dict(self._initial(seed) if tensors is None else tensors, assign=True)

    def _initial(self, seed: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        tensors = {}
        for name, empty in self.state_dict().items():
            if empty.ndim > 1:  # filters and matrices; all but the classifier's are followed by a ReLU
                gain = 1.0 if name == "classifier.weight" else math.sqrt(2)
                drawn = torch.randn(empty.shape, generator=generator) * (gain / math.sqrt(empty[0].numel()))
                tensors[name] = channels_last(drawn)
            else:  # of batch norm the weight and the variance are 1
                tensors[name] = torch.full_like(empty, float(name.endswith(("weight", "running_var"))), device="cpu")
        return tensors

    def forward(self, images: Tensor) -> Tensor:
        """Logits float[N, classes] of images float[N, C, H, W]."""
        logits: Tensor = self.classifier(self.features(images, len(self.body)).flatten(1))
        return logits

    def logits(self, images: Tensor) -> tuple[Tensor, None]:
        """As `forward`, and that there is no auxiliary classifier."""
        return self(images), None

    def features(self, images: Tensor, depth: int) -> Tensor:
        """What comes out of the first `depth` layers."""
        x = images.contiguous(memory_format=torch.channels_last)
        for module in self.body[:depth]:
            x = module(x)
        return x

    def clone(self) -> LayerNetwork:
        """The same network with tensors of its own, which may be trained."""
        tensors = {name: tensor.clone() for name, tensor in self.state_dict().items()}
        return LayerNetwork(self.layers, self.image_shape, self.num_classes, tensors=tensors).train(self.training)


class ConvolutionLayer(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.convolution(x)))


class DenseConvolutionLayer(nn.Module):
    """Its input, and behind that what a bottleneck and a convolution make of it."""

    def __init__(self, in_channels: int, width: int, kernel: int) -> None:
        super().__init__()
        self.bottleneck = ConvolutionLayer(in_channels, BOTTLENECK * width, 1)
        self.growth = ConvolutionLayer(BOTTLENECK * width, width, kernel)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.growth(self.bottleneck(x))], dim=1)


class FullyConnectedLayer(nn.Module):
    """Linear, ReLU."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.linear(x.flatten(1)))


def _module(layer: Layer, shape: Shape) -> nn.Module:
    """The module of a layer on maps of a shape."""
    match layer:
        case Convolution():
            return ConvolutionLayer(shape[0], layer.width, layer.kernel)
        case DenseConvolution():
            return DenseConvolutionLayer(shape[0], layer.width, layer.kernel)
        case FullyConnected():
            return FullyConnectedLayer(math.prod(shape), layer.width)
        case GlobalPool():
            return nn.AdaptiveAvgPool2d(1)
        case Pool(kind="max"):
            return nn.MaxPool2d(layer.kernel, layer.stride, layer.padding)
        case Pool():
            return nn.AvgPool2d(layer.kernel, layer.stride, layer.padding, count_include_pad=False)


def channels_last(x: Tensor) -> Tensor:
    """Filters in the order that convolutions on CPUs, and tensor cores, like best; others as they are."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
