"""Networks made by hand, to compare with those found: a plain, a residual and a mobile one, of any width.

All have the same outline: a 3x3 convolution as stem, one stage more than there are reductions, a linear classifier on
averaged maps. The last stage has `width` channels, and each stage before it half of those of the next, rounded up, so
that one more channel at the end is a small step in size.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from nas_gym.networks.bank import DropPath
from nas_gym.networks.mobile import InvertedBottleneck
from nas_gym.networks.network import Head, NetworkSettings, Stem, as_image_shape, widened
from nas_gym.settings import unknown

Cost = Callable[[nn.Module], float]


class ReferenceNetwork(nn.Module, ABC):
    """A network made by hand; `nas_gym.evaluators.training.fit` trains it like any network of one architecture.

    Args:
        width: channels of the last stage.
        image_shape: (channels, height, width) of the images.
        num_classes: number of logits.
        settings: its `reductions` and `stem_stride` apply.
        seed: of the initial weights; the global random state is left alone.

    Attributes:
        drop_path: for the training loop; no paths of these networks are dropped.

    Raises:
        ValueError: the inputs are not images, or too small for the reductions, or the width is less than 1.
    """

    blocks: ClassVar[int]

    def __init__(
        self,
        width: int,
        image_shape: tuple[int, ...],
        num_classes: int,
        settings: NetworkSettings | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        settings = settings or NetworkSettings()
        depth, height, breadth = as_image_shape(image_shape)
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        if min(height, breadth) < (shrink := settings.stem_stride * 2**settings.reductions):
            raise ValueError(f"images of {height}x{breadth} cannot be reduced {shrink} times")
        self.width, self.drop_path = width, DropPath()
        stages = [math.ceil(width / 2**later) for later in range(settings.reductions, -1, -1)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stem = Stem(depth, stages[0], settings.stem_stride, nn.BatchNorm2d)
            channels, blocks = stages[0], []
            for stage, out_channels in enumerate(stages):
                for block in range(self.blocks):
                    blocks.append(self.block(channels, out_channels, 2 if stage and block == 0 else 1))
                    channels = out_channels
            self.body = nn.Sequential(*blocks)
            self.head = Head(channels, num_classes)
        self.to(memory_format=torch.channels_last)

    @abstractmethod
    def block(self, in_channels: int, out_channels: int, stride: int) -> nn.Module:
        """One of the `blocks` of a stage."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits float[N, classes] of images float[N, C, H, W]."""
        x = torch.relu(self.stem(images.contiguous(memory_format=torch.channels_last)))
        logits: Tensor = self.head(self.body(x))
        return logits

    def logits(self, images: Tensor) -> tuple[Tensor, None]:
        """As `forward`, and that there is no auxiliary classifier."""
        return self(images), None


def _convolution(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution and batch norm."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False), nn.BatchNorm2d(out_channels))


class PlainNetwork(ReferenceNetwork):
    """Two 3x3 convolutions a stage, with batch norm and ReLU, as in VGG (Simonyan & Zisserman 2015, section 2.1)."""

    blocks = 2

    def block(self, in_channels: int, out_channels: int, stride: int) -> nn.Module:
        return nn.Sequential(*_convolution(in_channels, out_channels, stride), nn.ReLU())


class ResidualNetwork(ReferenceNetwork):
    """One residual block a stage: with two reductions, the ResNet-8 of He et al. 2016, section 4.2 (n = 1)."""

    blocks = 1

    def block(self, in_channels: int, out_channels: int, stride: int) -> nn.Module:
        return ResidualBlock(in_channels, out_channels, stride)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut without weights (He et al. 2016, section 4.2: option A)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride, self.out_channels = stride, out_channels
        self.first = _convolution(in_channels, out_channels, stride)
        self.second = _convolution(out_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = widened(x[:, :, :: self.stride, :: self.stride], self.out_channels)
        return torch.relu(shortcut + self.second(torch.relu(self.first(x))))


class MobileReference(ReferenceNetwork):
    """Two inverted residuals of expansion 6 a stage (Sandler et al. 2018, "MobileNetV2", section 4 and table 2)."""

    blocks = 2
    expansion = 6

    def block(self, in_channels: int, out_channels: int, stride: int) -> nn.Module:
        return InvertedResidual(in_channels, out_channels, stride, self.expansion)


class InvertedResidual(nn.Module):
    """An inverted bottleneck of kernel 3, with a residual connection where its input has the shape of its output."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        residual = stride == 1 and in_channels == out_channels
        channels = in_channels, expansion * in_channels, out_channels
        self.bottleneck = InvertedBottleneck(channels, 3, stride, {}, nn.BatchNorm2d, DropPath() if residual else None)
        self.choices = np.array([[3, expansion, 0]])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bottleneck(x, self.choices)
        return out


REFERENCES: dict[str, type[ReferenceNetwork]] = {
    "residual": ResidualNetwork,
    "mobile": MobileReference,
    "plain": PlainNetwork,
}
"""The classes of reference networks by name."""


def make_reference(
    name: str,
    width: int,
    image_shape: tuple[int, ...],
    num_classes: int,
    settings: NetworkSettings | None = None,
    seed: int = 0,
) -> ReferenceNetwork:
    """A reference network by name; the other arguments are those of `ReferenceNetwork`.

    Raises:
        ValueError: an unknown name; otherwise as `ReferenceNetwork`.
    """
    if name not in REFERENCES:
        raise ValueError(unknown("reference network", name, REFERENCES))
    return REFERENCES[name](width, image_shape, num_classes, settings, seed)


def fitted_width(
    name: str,
    image_shape: tuple[int, ...],
    num_classes: int,
    settings: NetworkSettings | None,
    cost: Cost,
    budget: float,
) -> int:
    """The width with which a reference network comes closest to a cost without exceeding it.

    Args:
        name: one of `REFERENCES`.
        image_shape: see `ReferenceNetwork`.
        num_classes: see `ReferenceNetwork`.
        settings: see `ReferenceNetwork`.
        cost: of a network, such as its parameters or operations. It must not fall with the width, and must work on
            networks without memory, on the device ``meta``.
        budget: the cost that is not to be exceeded.

    Raises:
        ValueError: the narrowest network exceeds the budget.
    """

    def fits(width: int) -> bool:
        with torch.device("meta"):
            return cost(make_reference(name, width, image_shape, num_classes, settings)) <= budget

    if not fits(1):
        raise ValueError(f"the narrowest {name} network costs more than {budget:,.6g}")
    high = 2
    while fits(high):
        high *= 2
    low = high // 2  # fits, and `high` does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
