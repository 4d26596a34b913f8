"""Networks of convolutions with skip connections (Zoph & Le 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_gym.networks.bank import Indices
from nas_gym.networks.network import Network, architecture_rows, grouped, leading, masked, widened
from nas_gym.spaces import ChainSpace, Tokens
from nas_gym.spaces.chain import Convolution
from nas_gym.types import Bools

PAPER_CHANNELS = 16
IMAGE = 0  # among the maps; layer i is number i + 1
MapSize = tuple[int, int]


class ChainNetwork(Network):
    """Convolutions, each followed by batch norm and ReLU, on the concatenation of the layers that they read.

    As in section 3.3 of the paper, a layer that reads no layer reads the image, the classifier reads the layers that
    no layer reads (here the mean of each of their channels), and maps of unequal size are padded with zeros, here at
    the bottom and the right.

    The settings mean here: `channels` scales the numbers of filters, which are the architecture's own with 16.
    `reductions` are the pooling layers of the paper's section 4.1: they stand at equal distances in the depth of the
    space, and each halves, by a max pool, the image and the maps of all layers so far. The image itself is averaged
    over squares of `stem_stride` pixels at first.

    In a supernet a layer holds one convolution, of the largest kernel with the most filters on all that it could
    read; an architecture uses the centre of the kernel, the first filters, and the inputs that it has. Architectures
    whose maps have equal sizes are run together.

    """

    unused_settings = ("cells_per_stage", "auxiliary")

    space: ChainSpace

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        settings, space = self.settings, self.space
        self.layers = nn.ModuleList()
        channels = [image_shape[0]]  # of each map, at most
        read = set[int]()
        for layer in range(space.layers):
            filters = self._values(layer, "filters", space.filters)
            if not filters:
                break
            height = max(self._values(layer, "filter_height", space.heights))
            width = max(self._values(layer, "filter_width", space.widths))
            sources = [i + 1 for i in range(layer) if 1 in self._allowed(layer, f"skip_{i}")]
            if self.architecture is None or not sources:
                sources.insert(0, IMAGE)
            read |= set(sources)
            channels.append(self._scaled(max(filters)))
            readable = {source: channels[source] for source in sources}
            self.layers.append(ChainLayer(self, readable, channels[-1], (height, width)))
        self.ends = {layer + 1: channels[layer + 1] for layer in range(len(self.layers))}
        if self.architecture is not None:
            self.ends = {number: width for number, width in self.ends.items() if number not in read}
        stages = settings.reductions + 1
        starts = [stage * space.layers // stages for stage in range(1, stages)]
        self.poolings = [starts.count(layer) for layer in range(space.layers)]
        self.classifier = nn.Linear(sum(self.ends.values()), num_classes)

    def _allowed(self, layer: int, decision: str) -> tuple[int, ...]:
        return self.allowed[self.space.columns[f"layer_{layer}/{decision}"]]

    def _values(self, layer: int, kind: str, values: Sequence[int]) -> list[int]:
        """The allowed values of a decision; none if the layer is absent."""
        return [values[choice] for choice in self._allowed(layer, kind) if choice < len(values)]

    def _scaled(self, filters: int) -> int:
        return max(round(filters * self.settings.channels / PAPER_CHANNELS), 1)

    def run(self, images: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor | None]:
        if self.settings.stem_stride > 1:
            images = F.avg_pool2d(images, self.settings.stem_stride, ceil_mode=True)
        chains = [self.space.decode(row) for row in tokens]
        plans = [self._plan(chain, (images.shape[2], images.shape[3])) for chain in chains]
        known = list(dict.fromkeys(plans))

        def run(key: tuple[int, ...], rows: Indices) -> Tensor:
            return self._features(images, tokens[rows], [chains[row] for row in rows], plans[rows[0]][-1])

        features = grouped(np.array([[known.index(plan)] for plan in plans]), run)
        return self.classifier(features.flatten(1)), None

    def _plan(self, chain: tuple[Convolution, ...], image: MapSize) -> tuple[MapSize, ...]:
        """Size and stride of what each layer reads, and last the size of what the classifier reads.

        Architectures with equal plans can be run together.
        """
        maps, plan = [image], list[MapSize]()
        for layer, poolings in zip(chain, self.poolings, strict=False):
            for _ in range(poolings):
                maps = [_divided(size, (2, 2)) for size in maps]
            size = _largest([maps[source + 1] for source in layer.inputs] or [maps[IMAGE]])
            plan += [size, layer.stride]
            maps.append(_divided(size, layer.stride))
        read = {source + 1 for layer in chain for source in layer.inputs}
        return *plan, _largest([size for number, size in enumerate(maps) if number not in {IMAGE, *read}])

    def _features(self, images: Tensor, tokens: Tokens, chains: list[tuple[Convolution, ...]], size: MapSize) -> Tensor:
        """What the classifier reads, float[B * N, features, 1, 1], of architectures with equal plans."""
        depth = len(chains[0])
        skips = self.space.skips(tokens)[:, :depth, :depth]
        reads = np.concatenate([~skips.any(axis=2, keepdims=True), skips], axis=2)  # the image comes first
        maps = [self.expanded(images, len(tokens))]
        for index, layer in enumerate(self.layers[:depth]):
            for _ in range(self.poolings[index]):
                maps = [F.max_pool2d(x, 2, 2, ceil_mode=True) for x in maps]
            convolutions = [chain[index] for chain in chains]
            filters = np.array([self._scaled(convolution.filters) for convolution in convolutions])
            maps.append(layer(maps, reads[:, index], convolutions, filters))
        ends = reads.sum(axis=1) == 0
        features = [
            _mean(masked(maps[number], ends[:, number]), size, channels)
            if number <= depth
            else images.new_zeros(maps[0].shape[0], channels, 1, 1)
            for number, channels in self.ends.items()
        ]
        return torch.cat(features, dim=1)


class ChainLayer(nn.Module):
    """One layer: a convolution of which an architecture may use a part, normalisation, ReLU.

    Args:
        network: the network.
        sources: channels of each map that it may read.
        filters: the most that it may have.
        kernel: the largest height and width.
    """

    def __init__(self, network: ChainNetwork, sources: dict[int, int], filters: int, kernel: MapSize) -> None:
        super().__init__()
        self.offsets = dict(zip(sources, accumulate(sources.values(), initial=0), strict=False))
        self.convolution = nn.Conv2d(sum(sources.values()), filters, kernel, bias=False)
        self.norm = network.norm(filters)
        self.drop_path = network.drop_path

    def forward(self, maps: Sequence[Tensor], reads: Bools, layers: Sequence[Convolution], filters: Indices) -> Tensor:
        """Runs architectures whose strides and sizes of input are equal.

        Args:
            maps: the image and the outputs of the earlier layers, float[B * N, C, H, W] each.
            reads: bool[B, maps or more], which of them each architecture reads.
            layers: what each architecture has here, length B.
            filters: int64[B], how many filters each has.

        Returns:
            float[B * N, most filters, H', W'], zero from each architecture's number of filters on.
        """
        most = int(filters.max())

        def run(kernel: tuple[int, ...], rows: Indices) -> Tensor:
            used = [source for source in self.offsets if reads[rows, source].any()]
            inputs = [masked(architecture_rows(maps[s], rows, len(reads)), reads[rows, s]) for s in used]
            weight = self._weight(int(filters[rows].max()), {s: maps[s].shape[1] for s in used}, kernel)
            return widened(self._convolved(inputs, weight, layers[0].stride), most)

        x = grouped(np.array([(layer.height, layer.width) for layer in layers]), run)
        return leading(torch.relu(self.norm(x)), filters)

    def _weight(self, filters: int, sources: dict[int, int], kernel: tuple[int, ...]) -> Tensor:
        """The first filters, the channels of the sources, the centre of the kernel."""
        top, left = (whole // 2 - part // 2 for whole, part in zip(self.convolution.kernel_size, kernel, strict=True))
        weight = self.convolution.weight[:filters, :, top : top + kernel[0], left : left + kernel[1]]
        parts = [weight[:, self.offsets[s] : self.offsets[s] + channels] for s, channels in sources.items()]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _convolved(self, inputs: list[Tensor], weight: Tensor, stride: MapSize) -> Tensor:
        height, width = _largest([(x.shape[2], x.shape[3]) for x in inputs])
        padded = [_padded(x, height, width) for x in inputs]
        # A path is dropped where there is another.
        x = torch.cat([self.drop_path(x) for x in padded], dim=1) if len(padded) > 1 else padded[0]
        if weight.shape[2:] == (1, 1):  # torch corrupts memory in the backward pass of strided ones on some processors
            return F.conv2d(x[:, :, :: stride[0], :: stride[1]], weight)
        x = F.conv2d(x, weight, stride=stride, padding=(weight.shape[2] // 2, weight.shape[3] // 2))
        # Even kernels give a row and a column too many.
        rows, columns = _divided((height, width), stride)
        return x[:, :, :rows, :columns]


def _mean(x: Tensor, size: MapSize, channels: int) -> Tensor:
    """The mean over a map padded with zeros to a size, and zeros up to a number of channels."""
    return widened(x.sum(dim=(2, 3), keepdim=True) / (size[0] * size[1]), channels)


def _padded(x: Tensor, height: int, width: int) -> Tensor:
    rows, columns = height - x.shape[2], width - x.shape[3]
    return F.pad(x, (0, columns, 0, rows)) if rows or columns else x


def _largest(sizes: Sequence[MapSize]) -> MapSize:
    return max(height for height, _ in sizes), max(width for _, width in sizes)


def _divided(size: MapSize, stride: MapSize) -> MapSize:
    return -(-size[0] // stride[0]), -(-size[1] // stride[1])
