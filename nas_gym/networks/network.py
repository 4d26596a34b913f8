"""Networks that hold one architecture, or all architectures of a space with shared weights: the same code.

A `Network` is laid out by a space. It holds, for every decision, the modules of the choices that it allows: all of
them in a supernet, one in a network of its own. Its forward takes a batch of architectures with a batch of images and
runs every module once, on all the (architecture, image) pairs that use it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from nas_gym.networks.operations import Norm
from nas_gym.spaces import Architecture, SearchSpace, Tokens

Indices = NDArray[np.int64]


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


class Network(nn.Module, ABC):
    """One architecture, or all of a space with shared weights.

    Attributes:
        unused_settings: what a space has no use for; it must be left at its default.

    Args:
        space: the search space.
        image_shape: (channels, height, width) of the images.
        num_classes: number of logits.
        settings: the macro architecture.
        architecture: the one architecture to hold; None makes a supernet.
        seed: of the initial weights; the global random state is left alone.

    Raises:
        ValueError: the images are too small for the reductions, or a setting is not for this space.
    """

    unused_settings: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        space: SearchSpace,
        image_shape: tuple[int, int, int],
        num_classes: int,
        settings: NetworkSettings,
        *,
        architecture: Architecture | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
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
        """Logits float[B * N, classes], architectures first, and those of the auxiliary classifier, if it has one."""

    def forward(self, images: Tensor, tokens: Tokens | None = None) -> Tensor:
        """Classifies.

        Args:
            images: float[N, C, H, W].
            tokens: int64[B, T] on the host, for a supernet; None for a network of its own.

        Returns:
            Logits: float[B, N, classes], or float[N, classes] without tokens.
        """
        logits = self.logits(images, tokens)[0]
        return logits if tokens is None else logits.view(len(tokens), len(images), -1)

    def logits(self, images: Tensor, tokens: Tokens | None = None) -> tuple[Tensor, Tensor | None]:
        """As `run`, for the architecture held if no tokens are given.

        Raises:
            ValueError: a supernet without tokens, or a network of its own with them.
        """
        if (tokens is None) == (self.architecture is None):
            raise ValueError("a supernet needs tokens, a network of one architecture takes none")
        if self.architecture is not None:
            tokens = np.asarray(self.architecture.tokens)[None]
        assert tokens is not None
        self.layout.images = images.shape[0]
        return self.run(images.contiguous(memory_format=torch.channels_last), tokens)

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
        self.layout, self.eps = layout, eps

    def forward(self, x: Tensor) -> Tensor:
        images = self.layout.images
        batch = len(x) // images
        weight, bias = self.weight[: x.shape[1]], self.bias[: x.shape[1]]
        if batch == 1:
            return self._normalise(x, weight, bias)
        if x.device.type == "cpu":
            # One call an architecture: a call costs a CPU less than the two transpositions below.
            return torch.cat([self._normalise(part, weight, bias) for part in torch.split(x, images)])
        channels, height, width = x.shape[1:]
        side_by_side = x.reshape(batch, images, channels, height, width).transpose(0, 1).flatten(1, 2)
        normal = self._normalise(side_by_side, weight.repeat(batch), bias.repeat(batch))
        out = normal.view(images, batch, channels, height, width).transpose(0, 1).flatten(0, 1)
        return out.contiguous(memory_format=torch.channels_last)

    def _normalise(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, weight, bias, True, 0.0, self.eps)


class DropPath(nn.Module):
    """Drops whole paths of single images in training (ScheduledDropPath of NASNet, section 4).

    Attributes:
        probability: of dropping; the training loop raises it linearly.
        generator: source of randomness, so that networks trained side by side do not disturb each other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.probability = 0.0
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor, rows: Sequence[int] | None = None) -> Tensor:
        """Drops images of float[R * N, C, H, W], those of the architectures `rows`; of all without."""
        if not self.training or self.probability == 0.0:
            return x
        keep = 1.0 - self.probability
        kept = self.draw(x, rows) < keep
        return x * (kept / keep).to(x.dtype)

    def draw(self, x: Tensor, rows: Sequence[int] | None) -> Tensor:
        """Uniform random numbers, float[R * N, 1, 1, 1]."""
        del rows
        return torch.rand(len(x), 1, 1, 1, device=x.device, generator=self.generator)


class Maps:
    """Feature maps of a batch of architectures.

    Args:
        whole: float[B * N, C, H, W], architectures first.
        batch: B.
    """

    def __init__(self, whole: Tensor, batch: int) -> None:
        self.whole, self.batch = whole, batch

    @cached_property
    def parts(self) -> tuple[Tensor, ...]:
        """float[N, C, H, W] of each architecture: views, so that gathering costs one copy."""
        return cut(self.whole, self.batch)


class Bank(nn.Module):
    """The modules of one decision, of which each architecture uses one.

    Args:
        modules: by choice index; those that are allowed.
        drop_path: applied to what has weights or pools; identities are never dropped.
    """

    def __init__(self, modules: dict[int, nn.Module], drop_path: DropPath | None = None) -> None:
        super().__init__()
        self.choices = nn.ModuleDict({str(choice): module for choice, module in modules.items()})
        self.drop_path = drop_path

    def forward(self, states: Sequence[Maps], source: Indices, choice: Indices) -> Tensor:
        """Runs each module once, on all the images of the architectures that chose it.

        Args:
            states: what the architectures may read.
            source: int64[B], the state that each architecture reads.
            choice: int64[B], the module that each architecture uses.

        Returns:
            float[B * N, C', H', W'], architectures first.
        """
        outputs: dict[int, Tensor] = {}
        for used in np.unique(choice):
            rows = np.flatnonzero(choice == used).tolist()
            together = self._run(str(used), join([states[source[row]].parts[row] for row in rows]), rows)
            outputs.update(zip(rows, cut(together, len(rows)), strict=True))
        return join([outputs[row] for row in range(len(choice))])

    def _run(self, choice: str, x: Tensor, rows: Sequence[int]) -> Tensor:
        module = self.choices[choice]
        out: Tensor = module(x)
        return out if self.drop_path is None or isinstance(module, nn.Identity) else self.drop_path(out, rows)


def join(parts: list[Tensor]) -> Tensor:
    """Concatenates along the batch, without a copy where there is one part."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def cut(x: Tensor, parts: int) -> tuple[Tensor, ...]:
    """Equal parts along the batch; the whole where it is one, so that a network can be exported for any batch."""
    return (x,) if parts == 1 else x.chunk(parts)


def architecture_rows(x: Tensor, rows: Indices, batch: int) -> Tensor:
    """The images of the architectures `rows` out of float[batch * N, C, H, W]."""
    if len(rows) == batch and (rows == np.arange(batch)).all():
        return x
    parts = x.chunk(batch)
    return join([parts[row] for row in rows])


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


def masked(x: Tensor, keep: NDArray[np.bool_]) -> Tensor:
    """Zeros for the architectures where bool[B] `keep` is False."""
    if keep.all():
        return x
    factor = torch.from_numpy(keep.astype(np.float32)).to(x.device, x.dtype, non_blocking=True)
    return x * factor.repeat_interleave(x.shape[0] // len(keep)).view(-1, 1, 1, 1)


def leading(x: Tensor, channels: Indices) -> Tensor:
    """Zeros for all but the first int64[B] `channels` of each architecture in float[B * N, C, H, W]."""
    if (channels >= x.shape[1]).all():
        return x
    keep = (np.arange(x.shape[1]) < channels[:, None]).astype(np.float32)
    factor = torch.from_numpy(keep).to(x.device, x.dtype, non_blocking=True)
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
        logits: Tensor = self.linear(torch.relu(x).mean(dim=(2, 3)))
        return logits
