"""Networks of inverted bottlenecks (Tan et al. 2019, MnasNet; Cai et al. 2020, Once-for-All)."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_gym.networks.bank import DropPath, Indices, on_gpu
from nas_gym.networks.network import Head, Network, Stem, architecture_rows, grouped, leading
from nas_gym.networks.operations import Norm
from nas_gym.spaces import MobileSpace, Tokens

Value = TypeVar("Value")
STAGES = ((24, 2), (40, 2), (80, 2), (112, 1), (160, 2), (320, 1))
"""Channels and stride of the stages of MnasNet behind a stem of 16 (Tan et al. 2019, figure 7)."""
STEM_CHANNELS = 16


class MobileNetwork(Network):
    """Stem, stages of inverted bottlenecks, classifier; a supernet's layers are the largest.

    A layer of an architecture uses the first channels of the expanded width and the centre of the kernel, and the
    layers beyond its depth are passed by (Once-for-All, section 3.3). The final layers of a mobile network that widen
    the features for ImageNet's thousand classes are left out.

    How the settings apply: a stage has MnasNet's channels, scaled by `channels` / 16 and rounded up; `reductions` is
    how many of MnasNet's stages of stride 2 keep it, the first ones: small images need few.

    Raises:
        ValueError: more than six stages, an even kernel, or more reductions than stages of stride 2.
    """

    space: MobileSpace
    unused_settings = ("cells_per_stage", "auxiliary")

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        space, left = self.space, self.settings.reductions
        self._check()
        channels = self.settings.channels
        self.stem = Stem(image_shape[0], channels, self.settings.stem_stride, self.norm)
        self.stages = nn.ModuleList()
        for stage, (width, stride) in enumerate(STAGES[: space.stages]):
            stride = stride if left else 1
            left -= stride > 1
            out_channels = math.ceil(width * self.settings.channels / STEM_CHANNELS)
            ratios = self._held(f"stage_{stage}/squeeze_excite", space.squeeze_excite)
            blocks = nn.ModuleList()
            for layer in range(max(self._held(f"stage_{stage}/depth", space.depths).values())):
                kernels = self._held(f"stage_{stage}/layer_{layer}/kernel", space.kernels)
                expansions = self._held(f"stage_{stage}/layer_{layer}/expansion", space.expansions)
                blocks.append(
                    InvertedBottleneck(
                        (channels, max(expansions.values()) * channels, out_channels),
                        max(kernels.values()),
                        stride if layer == 0 else 1,
                        # The squeezed width follows the input's, as in MnasNet's code.
                        {choice: max(1, int(channels * ratio)) for choice, ratio in ratios.items() if ratio},
                        self.norm,
                        self.drop_path if layer else None,
                    )
                )
                channels = out_channels
            self.stages.append(blocks)
        self.head = Head(channels, num_classes)

    def _check(self) -> None:
        space = self.space
        if space.stages > len(STAGES):
            raise ValueError(f"mobile networks have at most {len(STAGES)} stages, got {space.stages}")
        if even := [kernel for kernel in space.kernels if kernel % 2 == 0]:
            raise ValueError(f"kernels must be odd to have a centre, got {even}")
        strided = sum(stride > 1 for _, stride in STAGES[: space.stages])
        if self.settings.reductions > strided:
            raise ValueError(
                f"reductions must be at most {strided} with {space.stages} stages, got {self.settings.reductions}"
            )

    def _held(self, decision: str, values: tuple[Value, ...]) -> dict[int, Value]:
        """The allowed values of a decision by choice; what is no decision has one value."""
        columns = self.space.columns
        allowed = self.allowed[columns[decision]] if decision in columns else (0,)
        return {choice: values[choice] for choice in allowed if choice < len(values)}

    def run(self, images: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor | None]:
        space = self.space
        x = self.expanded(torch.relu(self.stem(images)), len(tokens))
        for stage, blocks in enumerate(self.stages):
            assert isinstance(blocks, nn.ModuleList)
            depth = np.array(space.depths)[self._chosen(tokens, f"stage_{stage}/depth")]
            ratio = self._chosen(tokens, f"stage_{stage}/squeeze_excite")
            for layer, block in enumerate(blocks):
                # What follows the last value stands for an absent layer.
                kernel = np.array((*space.kernels, 0))[self._chosen(tokens, f"stage_{stage}/layer_{layer}/kernel")]
                expansion = np.array((*space.expansions, 0))[
                    self._chosen(tokens, f"stage_{stage}/layer_{layer}/expansion")
                ]
                x = block(x, np.stack([kernel, expansion, ratio], axis=1) * (layer < depth)[:, None])
        return self.head(x), None

    def _chosen(self, tokens: Tokens, decision: str) -> Indices:
        column = self.space.columns.get(decision)
        return np.zeros(len(tokens), dtype=np.int64) if column is None else tokens[:, column]


class InvertedBottleneck(nn.Module):
    """1x1 convolution to many channels, depthwise convolution, squeeze-and-excitation, 1x1 convolution to few.

    Args:
        channels: of the input, of the widest inside, and of the output.
        kernel: the largest size.
        stride: of the depthwise convolution.
        squeezed: widths of the squeeze-and-excitations, by choice.
        norm: makes normalisation layers.
        drop_path: of the network, in a block with a residual connection; None makes one without.
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        kernel: int,
        stride: int,
        squeezed: dict[int, int],
        norm: Norm,
        drop_path: DropPath | None,
    ) -> None:
        super().__init__()
        self.in_channels, inside, out_channels = channels
        self.kernel, self.stride, self.drop_path = kernel, stride, drop_path
        self.expand = nn.Conv2d(self.in_channels, inside, 1, bias=False)
        self.depthwise = nn.Conv2d(inside, inside, kernel, groups=inside, bias=False)
        self.project = nn.Conv2d(inside, out_channels, 1, bias=False)
        self.expand_norm, self.depthwise_norm, self.project_norm = norm(inside), norm(inside), norm(out_channels)
        self.excitations = nn.ModuleDict({str(choice): SqueezeExcite(inside, w) for choice, w in squeezed.items()})

    def forward(self, x: Tensor, choices: Indices) -> Tensor:
        """Runs together what makes the same choices; on GPUs all that have the block, with zeros for what is narrower.

        Args:
            x: float[B * N, C, H, W], architectures first.
            choices: int64[B, 3], kernel, expansion, choice of squeeze-and-excitation; kernel 0 passes the block by.

        Returns:
            float[B * N, C', H', W'].
        """

        def run(key: tuple[int, ...], rows: Indices) -> Tensor:
            part = architecture_rows(x, rows, len(choices))
            return self._block(part, choices[rows]) if key[0] else part

        return grouped((choices[:, :1] > 0).astype(np.int64) if on_gpu(x) else choices, run)

    def _block(self, x: Tensor, choices: Indices) -> Tensor:
        """Of architectures that have it."""
        inside = self.in_channels * choices[:, 1]
        most = int(inside.max())
        wide = leading(torch.relu(self.expand_norm(F.conv2d(x, self.expand.weight[:most]))), inside)

        def convolved(key: tuple[int, ...], rows: Indices) -> Tensor:
            rim = (self.kernel - key[0]) // 2
            centre = slice(rim, self.kernel - rim)
            weight = self.depthwise.weight[:most, :, centre, centre]
            part = architecture_rows(wide, rows, len(choices))
            return F.conv2d(part, weight, stride=self.stride, padding=key[0] // 2, groups=most)

        deep = leading(torch.relu(self.depthwise_norm(grouped(choices[:, :1], convolved))), inside)

        def excited(key: tuple[int, ...], rows: Indices) -> Tensor:
            part = architecture_rows(deep, rows, len(choices))
            return self.excitations[str(key[0])](part) if str(key[0]) in self.excitations else part

        out: Tensor = self.project_norm(F.conv2d(grouped(choices[:, 2:], excited), self.project.weight[:, :most]))
        return out if self.drop_path is None else x + self.drop_path(out)


class SqueezeExcite(nn.Module):
    """Scales channels by what their means say (Hu et al. 2018, section 3); takes any number of the first channels."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Linear(channels, squeezed), nn.Linear(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        squeezed = torch.relu(F.linear(x.mean(dim=(2, 3)), self.squeeze.weight[:, :channels], self.squeeze.bias))
        scale = torch.sigmoid(F.linear(squeezed, self.excite.weight[:channels], self.excite.bias[:channels]))
        return x * scale[:, :, None, None]
