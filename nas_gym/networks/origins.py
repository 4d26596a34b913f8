"""Where the tensors of a network that has grown out of another come from: repeated channels and what reads them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nas_gym.networks.layers import channels_last


@dataclass(frozen=True, eq=False)
class Replicas:
    """What became of channels when some were repeated.

    Attributes:
        index: int64[channels of the child], the parent's channel that each one repeats.
        channels: how many the parent has.
    """

    index: Tensor
    channels: int

    @property
    def shares(self) -> Tensor:
        """float64[channels of the child], one over how often the channel is there: what reads it is divided so."""
        counts: Tensor = torch.bincount(self.index, minlength=self.channels)[self.index]
        return 1 / counts.double()

    @staticmethod
    def drawn(channels: int, wider: int, generator: torch.Generator) -> Replicas:
        """All channels once, then random ones, `wider` in all (Chen et al. 2016, Net2WiderNet)."""
        more = torch.randint(channels, (wider - channels,), generator=generator)
        return Replicas(torch.cat([torch.arange(channels), more]), channels)

    def followed_by(self, other: Replicas) -> Replicas:
        """Of two concatenated maps."""
        return Replicas(torch.cat([self.index, other.index + self.channels]), self.channels + other.channels)

    def flattened(self, pixels: int) -> Replicas:
        """Of the values of maps in a row, channel by channel."""
        index = self.index[:, None] * pixels + torch.arange(pixels)
        return Replicas(index.flatten(), self.channels * pixels)


@dataclass(frozen=True, eq=False)
class Origin:
    """Where a tensor of the child comes from.

    Attributes:
        name: of the parent's tensor.
        rows: of its first axis; None leaves it.
        columns: of its second axis; None leaves it.
    """

    name: str
    rows: Replicas | None = None
    columns: Replicas | None = None

    def of(self, tensor: Tensor) -> Tensor:
        """The child's tensor: the parent's itself if nothing changes."""
        if self.rows is None and self.columns is None:
            return channels_last(tensor.detach())
        x = tensor.detach()
        x = x.movedim(1, -1) if x.ndim > 1 else x  # as filters lie in memory: ten times faster
        if self.columns is not None:
            index = self.columns.index.to(x.device).expand(*x.shape[:-1], -1)
            x = x.gather(-1, index).mul_(self.columns.shares.to(x))
        if self.rows is not None:
            x = x.index_select(0, self.rows.index.to(x.device))
        return channels_last(x.movedim(-1, 1) if x.ndim > 1 else x)
