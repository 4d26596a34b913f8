"""Networks of the size space of NATS-Bench (Dong et al. 2021, section 3.1)."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from nas_gym.networks.bank import Bank, DropPath, Indices, Maps
from nas_gym.networks.network import Head, Network, Stem, leading
from nas_gym.networks.operations import Norm, convolution
from nas_gym.spaces import SizeSpace, Tokens

BENCHMARK_CHANNELS = 16
"""At this number of channels the widths are the space's own."""


class SizeNetwork(Network):
    """Stem, stages of cells or a residual block, classifier; the supernet's layers are those of the widest network.

    An architecture uses the first channels of each layer: the others are set to zero after each normalisation, so that
    they add nothing to what follows.

    How the settings apply: 16 `channels` make the space's own widths, others scale them (8 halve them);
    `cells_per_stage` cells stand in each stage but those of a residual block; `reductions` is how many of the residual
    blocks have stride 2, the first ones. The defaults are the benchmark's network.

    Raises:
        ValueError: a scaled width is not whole, or there are more reductions than residual blocks.
    """

    space: SizeSpace
    unused_settings = ("auxiliary",)
    batchable = True

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        settings = self.settings
        if settings.reductions > sum(self.space.reductions):
            raise ValueError(f"reductions must be at most {sum(self.space.reductions)}, got {settings.reductions}")
        self.widths = scaled(self.space.widths, settings.channels)
        choices = [{int(self.widths[choice]) for choice in allowed} for allowed in self.allowed]
        self.stem = Stem(image_shape[0], max(choices[0]), settings.stem_stride, self.norm)
        self.stages = nn.ModuleList()
        before, left = choices[0], settings.reductions
        for widths, is_reduction in zip(choices, self.space.reductions, strict=True):
            width = max(widths)
            if is_reduction:
                blocks: list[nn.Module] = [ResidualBlock(max(before), width, 2 if left else 1, self.norm)]
                left -= left > 0
            else:
                changes = {a != b for a in before for b in widths}
                blocks = [SizeCell(max(before), width, changes, self.norm, self.drop_path)]
                more = range(1, settings.cells_per_stage)
                blocks += [SizeCell(width, width, {False}, self.norm, self.drop_path) for _ in more]
            self.stages.append(nn.ModuleList(blocks))
            before = widths
        self.norm_before_head = self.norm(max(before))
        self.head = Head(max(before), num_classes)

    def run(self, images: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor | None]:
        widths = self.widths[tokens]
        before = widths[:, 0]
        x = leading(self.expanded(self.stem(images), len(tokens)), before)
        for blocks, width in zip(self.stages, widths.T, strict=True):
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                x = block(x, before, width)
                before = width
        return self.head(leading(self.norm_before_head(x), before)), None


def scaled(widths: tuple[int, ...], channels: int) -> Indices:
    """The widths of a network of so many channels."""
    products = np.asarray(widths, dtype=np.int64) * channels
    if (products % BENCHMARK_CHANNELS).any():
        raise ValueError(
            f"channels must make whole numbers of widths * channels / {BENCHMARK_CHANNELS}, "
            f"got {channels} with widths {widths}"
        )
    return products // BENCHMARK_CHANNELS


class SizeCell(nn.Module):
    """The benchmark's cell: 3x3 convolutions between all four nodes, but for a skip from the first to the last.

    Where the width changes, the skip is a 1x1 convolution.

    Args:
        in_channels: the largest width before.
        out_channels: the largest width of this cell.
        changes: whether the width changes, both where both are possible.
        norm: makes normalisation layers.
        drop_path: of the network.
    """

    def __init__(
        self, in_channels: int, out_channels: int, changes: set[bool], norm: Norm, drop_path: DropPath
    ) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.convolutions = nn.ModuleDict(
            {
                f"{source}_{target}": convolution(out_channels if source else in_channels, out_channels, 3, 1, norm)
                for source, target in ((0, 1), (0, 2), (1, 2), (1, 3), (2, 3))
            }
        )
        skips: dict[int, nn.Module] = {}
        if False in changes:
            skips[0] = nn.Identity()
        if True in changes:
            skips[1] = convolution(in_channels, out_channels, 1, 1, norm)
        self.skip = Bank(skips, drop_path)

    def forward(self, x: Tensor, before: Indices, width: Indices) -> Tensor:
        """From float[B * N, C, H, W] of int64[B] channels `before` to `width` channels."""
        first = leading(self._edge("0_1", x), width)
        second = leading(self._edge("0_2", x) + self._edge("1_2", first), width)
        skipped = self.skip([Maps(x, len(width))], np.zeros_like(width), (before != width).astype(np.int64))
        return leading(skipped + self._edge("1_3", first) + self._edge("2_3", second), width)

    def _edge(self, name: str, x: Tensor) -> Tensor:
        out: Tensor = self.drop_path(self.convolutions[name](x))
        return out


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a pooled 1x1 shortcut, as between the stages of NAS-Bench-201."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.first = convolution(in_channels, out_channels, 3, stride, norm)
        self.second = convolution(out_channels, out_channels, 3, 1, norm)
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(stride, stride, ceil_mode=True), nn.Conv2d(in_channels, out_channels, 1, bias=False)
        )

    def forward(self, x: Tensor, before: Indices, width: Indices) -> Tensor:
        """As in `SizeCell`."""
        del before
        inside = leading(self.first(x), width)
        return leading(self.second(inside) + self.shortcut(x), width)
