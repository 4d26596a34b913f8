"""Networks of NAS-Bench-201 cells (Dong & Yang 2020, section 2.1)."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from nas_gym.networks.bank import Bank, Choices, Maps
from nas_gym.networks.network import Head, Network, Stem
from nas_gym.networks.operations import Norm, convolution, make_operation
from nas_gym.spaces import Bench201Space


class Bench201Network(Network):
    """Stem, stages of N cells with a residual block of stride 2 between them, classifier.

    Under a mixture, an edge is the weighted sum of its operations.
    """

    unused_settings = ("auxiliary",)
    takes_mixtures = True
    batchable = True

    space: Bench201Space

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        channels = self.settings.channels
        self.stem = Stem(image_shape[0], channels, self.settings.stem_stride, self.norm)
        self.blocks = nn.ModuleList()
        for stage in range(self.settings.reductions + 1):
            if stage:
                self.blocks.append(ResidualReduction(channels, 2 * channels, self.norm))
                channels *= 2
            self.blocks += [Bench201Cell(self, channels) for _ in range(self.settings.cells_per_stage)]
        self.norm_before_head = self.norm(channels)
        self.head = Head(channels, num_classes)

    def run(self, images: Tensor, tokens: Choices) -> tuple[Tensor, Tensor | None]:
        x = self.expanded(self.stem(images), len(tokens))
        for block in self.blocks:
            x = block(x, tokens)
        return self.head(self.norm_before_head(x)), None


class Bench201Cell(nn.Module):
    """One operation an edge; a node sums its edges."""

    def __init__(self, network: Bench201Network, channels: int) -> None:
        super().__init__()
        self.space = network.space
        names = self.space.operations
        self.edges = nn.ModuleList(
            Bank({c: make_operation(names[c], channels, channels, 1, network.norm) for c in allowed}, network.drop_path)
            for allowed in network.allowed
        )

    def forward(self, x: Tensor, tokens: Choices) -> Tensor:
        states = [Maps(x, len(tokens))]
        for node in range(1, self.space.nodes):
            terms = [
                bank(states, np.full(len(tokens), source), tokens[:, edge])
                for edge, (bank, (source, target)) in enumerate(zip(self.edges, self.space.edges, strict=True))
                if target == node
            ]
            x = sum(terms[1:], terms[0])
            states.append(Maps(x, len(tokens)))
        return x


class ResidualReduction(nn.Module):
    """The residual block of stride 2 between stages: two 3x3 convolutions beside a pooled 1x1 shortcut."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            convolution(in_channels, out_channels, 3, 2, norm), convolution(out_channels, out_channels, 3, 1, norm)
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, 2, ceil_mode=True), nn.Conv2d(in_channels, out_channels, 1, bias=False)
        )

    def forward(self, x: Tensor, tokens: Choices) -> Tensor:
        del tokens
        out: Tensor = self.convolutions(x) + self.shortcut(x)
        return out
