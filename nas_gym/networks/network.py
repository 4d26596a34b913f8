"""Networks that hold one architecture, or all architectures of a space with shared weights: the same code.

A `Network` is laid out by a space. It holds, for every decision, the modules of the choices that it allows: all of
them in a supernet, one in a network of its own. Its forward takes a batch of architectures with a batch of images and
runs every module once, on all the (architecture, image) pairs that use it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_gym.networks.bank import Choices, DropPath, Indices, constant, join, on_gpu, take
from nas_gym.networks.kernels import NormalisedApart
from nas_gym.networks.operations import Norm
from nas_gym.spaces import Architecture, SearchSpace, Tokens
from nas_gym.types import Bools


@dataclass(frozen=True)
class NetworkSettings:
    """The macro architecture around what is searched.

    Attributes:
        channels: of the first stage; each reduction doubles them.
        cells_per_stage: N normal cells before, between and after the reductions (NASNet, figure 2).
        reductions: how often the resolution is halved.
        stem_stride: of the first convolution; 2 makes everything about four times cheaper.
        auxiliary: whether a network of its own has a second classifier, in training, at two thirds of its depth.
    """

    channels: int = 16
    cells_per_stage: int = 1
    reductions: int = 2
    stem_stride: int = 1
    auxiliary: bool = False

    def __post_init__(self) -> None:
        for name, least in (("channels", 2), ("cells_per_stage", 1), ("reductions", 0), ("stem_stride", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    def map_size(self, image_shape: tuple[int, ...]) -> int:
        """Values in a feature map of the first stage, for one image; 0 for inputs that are not images."""
        return self.channels * math.prod(image_shape[1:]) // self.stem_stride**2 if len(image_shape) == 3 else 0


class Network(nn.Module, ABC):
    """One architecture, or all of a space with shared weights.

    Attributes:
        unused_settings: what a space has no use for; it must be left at its default.
        takes_mixtures: whether a supernet also runs under weights of the choices, float[B, T, A], or of the operations
            on the edges of the space (`relaxed`).
        batchable: whether many networks of it can train as one `NetworkBatch`: it routes architectures by banks, or not
            at all, and its modules have the names of its supernet's.

    Args:
        space: the search space.
        image_shape: (channels, height, width) of the images.
        num_classes: number of logits, or of whatever else a task wants as outputs.
        settings: the macro architecture.
        architecture: the one architecture to hold; None makes a supernet.
        seed: of the initial weights; the global random state is left alone.

    Raises:
        ValueError: the inputs are not images, or too small for the reductions, or a setting is not for this space.
    """

    unused_settings: ClassVar[tuple[str, ...]] = ()
    takes_mixtures: ClassVar[bool] = False
    batchable: ClassVar[bool] = False

    def __init__(
        self,
        space: SearchSpace,
        image_shape: tuple[int, ...],
        num_classes: int,
        settings: NetworkSettings,
        *,
        architecture: Architecture | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        image_shape = as_image_shape(image_shape)
        shrink = settings.stem_stride * 2**settings.reductions
        if min(image_shape[1:]) < shrink:
            raise ValueError(f"images of {image_shape[1]}x{image_shape[2]} cannot be reduced {shrink} times")
        for name in self.unused_settings:
            if getattr(settings, name) != getattr(NetworkSettings, name):
                raise ValueError(
                    f"networks of space {space.name!r} have no {name}: leave it at {getattr(NetworkSettings, name)}, "
                    f"got {getattr(settings, name)}"
                )
        self.space, self.settings, self.architecture = space, settings, architecture
        self.image_shape, self.num_classes = image_shape, num_classes
        self.layout = BatchLayout()
        self.norm: Norm = nn.BatchNorm2d if architecture is not None else self.layout.norm
        self.drop_path = DropPath()
        self.allowed = [
            tuple(range(len(decision.choices))) if architecture is None else (architecture.tokens[position],)
            for position, decision in enumerate(space.decisions)
        ]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.build(image_shape, num_classes)
        self.to(memory_format=torch.channels_last)  # several times faster on CPUs, and for tensor cores

    @abstractmethod
    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Makes the modules."""

    @abstractmethod
    def run(self, images: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor | None]:
        """Logits float[B * N, classes], architectures first, and those of the auxiliary classifier, if it has one.

        `tokens` are int64[B, T]; a class that takes mixtures has them as float[B, T, A] too.
        """

    def forward(self, images: Tensor, tokens: Choices | None = None) -> Tensor:
        """Classifies.

        Args:
            images: float[N, C, H, W].
            tokens: for a supernet, int64[B, T] on the host; or a mixture, float[B, T, A], with a weight for each choice
                of each decision, where A is the largest number of choices and the rest is ignored. None for a network
                of its own.

        Returns:
            Logits: float[B, N, classes], or float[N, classes] without tokens.
        """
        logits = self.logits(images, tokens)[0]
        return logits if tokens is None else logits.view(len(tokens), len(images), -1)

    def logits(self, images: Tensor, tokens: Choices | None = None) -> tuple[Tensor, Tensor | None]:
        """As `run`, for the architecture held if no tokens are given.

        Raises:
            ValueError: a supernet without tokens, a network of its own with them, or a mixture of another shape or for
                a space whose networks take none.
        """
        if (tokens is None) == (self.architecture is None):
            raise ValueError("a supernet needs tokens, a network of one architecture takes none")
        if isinstance(tokens, Tensor):
            self._check_mixture(tokens)
        if self.architecture is not None:
            tokens = np.asarray(self.architecture.tokens)[None]
        self.layout.images = images.shape[0]
        return self.run(images.contiguous(memory_format=torch.channels_last), cast(Tokens, tokens))

    def _check_mixture(self, weights: Tensor) -> None:
        if not self.takes_mixtures:
            raise ValueError(f"networks of space {self.space.name!r} take tokens as int64 arrays, and no mixtures")
        shape = self.mixture_shape
        if weights.shape[1:] != shape or not weights.is_floating_point():
            got = f"{str(weights.dtype).removeprefix('torch.')} {list(weights.shape)}"
            raise ValueError(f"a mixture must be float [B, {shape[0]}, {shape[1]}], got {got}")

    @property
    def mixture_shape(self) -> tuple[int, int]:
        """T decisions and A choices, of each of which a mixture has a weight."""
        return self.space.length, self.space.num_choices

    def expanded(self, x: Tensor, batch: int) -> Tensor:
        """float[N, ...] -> float[batch * N, ...]: the same images for every architecture, if each has not its own."""
        return x if x.shape[0] == batch * self.layout.images else torch.cat([x] * batch)

    def channels_read(self, layer: str) -> Indices | None:
        """Which channels a layer of this network has of those that it reads in the supernet; None for the first."""
        del layer
        return None


class BatchLayout:
    """How the images of a forward are laid out: architecture by architecture, `images` of them each."""

    def __init__(self) -> None:
        self.images = 0

    def norm(self, channels: int) -> nn.Module:
        """A normalisation layer of a supernet."""
        return ArchitectureNorm(channels, self)


class ArchitectureNorm(nn.Module):
    """Batch norm by the statistics of each architecture's own images in this batch.

    Statistics that run over batches would be shared between architectures whose activations differ widely; so
    there are none, in evaluation neither (Bender et al. 2018, section 3.3). Of maps with fewer channels than the layer
    has, these are the first.
    """

    def __init__(self, channels: int, layout: BatchLayout, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.affine = True  # whether these two are used
        self.layout, self.eps = layout, eps

    def forward(self, x: Tensor) -> Tensor:
        images = self.layout.images
        batch = len(x) // images
        weight, bias = (self.weight[: x.shape[1]], self.bias[: x.shape[1]]) if self.affine else (None, None)
        if batch == 1:
            return self._normalise(x, weight, bias)
        if x.dtype != self.weight.dtype and not on_gpu(x):  # by autocast
            return torch.cat([self._normalise(part, weight, bias) for part in x.chunk(batch)])
        if not on_gpu(x):
            # One call an architecture: a call costs a CPU less than the two transpositions below.
            out: Tensor = NormalisedApart.apply(x, weight, bias, batch, self.eps)
            return out
        channels, height, width = x.shape[1:]
        # Pixels by the channels of all architectures, copied as channels-last images lie.
        pixels = images * height * width
        apart = x.permute(0, 2, 3, 1).reshape(batch, pixels, channels)
        side_by_side = apart.transpose(0, 1).reshape(pixels, batch * channels)
        if weight is not None and bias is not None:
            weight, bias = weight.repeat(batch), bias.repeat(batch)
        normal = self._normalise(side_by_side, weight, bias)
        apart = normal.view(pixels, batch, channels).transpose(0, 1)
        return apart.reshape(len(x), height, width, channels).permute(0, 3, 1, 2)

    def _normalise(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        return F.batch_norm(x, None, None, weight, bias, True, 0.0, self.eps)


def as_image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The shape of a task's inputs, if these are images.

    Raises:
        ValueError: they are not.
    """
    if len(shape) != 3:
        raise ValueError(f"inputs must be images, of shape (channels, height, width); got shape {shape}")
    channels, height, width = shape
    return channels, height, width


def architecture_rows(x: Tensor, rows: Indices, batch: int) -> Tensor:
    """The images of the architectures `rows` out of float[batch * N, C, H, W]."""
    return take(x, rows, batch)


def grouped(keys: Indices, run: Callable[[tuple[int, ...], Indices], Tensor]) -> Tensor:
    """Runs the architectures with equal keys together.

    Args:
        keys: int64[B, K], a key for each architecture.
        run: from a key and the architectures that have it, int64[R], to float[R * N, C, H, W].

    Returns:
        float[B * N, C, H, W].
    """
    outputs: dict[int, Tensor] = {}
    for key in np.unique(keys, axis=0):
        rows = np.flatnonzero((keys == key).all(axis=1))
        together = run(tuple(key.tolist()), rows)
        if len(rows) == len(keys):
            return together
        outputs.update(zip(rows.tolist(), together.chunk(len(rows)), strict=True))
    return join([outputs[row] for row in range(len(keys))])


def masked(x: Tensor, keep: Bools) -> Tensor:
    """Zeros for the architectures where bool[B] `keep` is False."""
    if keep.all():
        return x
    factor = constant(keep.astype(np.float32), x.device).to(x.dtype)
    return x * factor.repeat_interleave(x.shape[0] // len(keep)).view(-1, 1, 1, 1)


def leading(x: Tensor, channels: Indices) -> Tensor:
    """Zeros for all but the first int64[B] `channels` of each architecture in float[B * N, C, H, W]."""
    if (channels >= x.shape[1]).all():
        return x
    keep = (np.arange(x.shape[1]) < channels[:, None]).astype(np.float32)
    factor = constant(keep, x.device).to(x.dtype)
    return x * factor.repeat_interleave(x.shape[0] // len(keep), dim=0)[:, :, None, None]


def widened(x: Tensor, channels: int) -> Tensor:
    """float[N, C, H, W] with zeros behind its channels, up to a number."""
    return x if x.shape[1] == channels else F.pad(x, (0, 0, 0, 0, 0, channels - x.shape[1]))


class Stem(nn.Sequential):
    """The first convolution: 3x3 and normalisation."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: Norm) -> None:
        super().__init__(nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False), norm(out_channels))


class Head(nn.Module):
    """ReLU, global average pooling, linear classifier."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.shape[2] * x.shape[3]
        # Divided after the sum: the gradient of a mean would be divided pixel by pixel.
        logits: Tensor = self.linear(torch.relu(x).sum(dim=(2, 3)) / pixels)
        return logits
