"""The named operations of the spaces as torch modules, in the papers' ReLU - convolution - batch norm order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_gym.networks.kernels import AveragePool, Depthwise, EveryOther

Norm = Callable[[int], nn.Module]  # channels -> a normalisation layer
Size = int | tuple[int, int]


def convolution(in_channels: int, out_channels: int, kernel: Size, stride: Size, norm: Norm) -> nn.Sequential:
    """ReLU, convolution with "same" padding, normalisation."""
    if kernel == 1 and isinstance(stride, int):
        return nn.Sequential(
            SubsampledReLU(stride), nn.Conv2d(in_channels, out_channels, 1, bias=False), norm(out_channels)
        )
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(in_channels, out_channels, kernel, stride, _same(kernel), bias=False),
        norm(out_channels),
    )


def factorised_convolution(in_channels: int, out_channels: int, length: int, stride: int, norm: Norm) -> nn.Sequential:
    """1 x length, then length x 1 (NASNet, section 3)."""
    return nn.Sequential(
        *convolution(in_channels, out_channels, (1, length), (1, stride), norm),
        *convolution(out_channels, out_channels, (length, 1), (stride, 1), norm),
    )


def dilated_convolution(in_channels: int, out_channels: int, kernel: int, stride: int, norm: Norm) -> nn.Sequential:
    """ReLU, depthwise convolution of dilation 2, pointwise convolution, normalisation (DARTS, section 3.1)."""
    return nn.Sequential(*_depthwise_separable(in_channels, out_channels, kernel, stride, norm, dilation=2))


def depthwise_convolution(channels: int, kernel: int, stride: int, norm: Norm) -> nn.Sequential:
    """ReLU, depthwise convolution, normalisation (Liu et al. 2018, section 2.3)."""
    return nn.Sequential(
        nn.ReLU(),
        Depthwise(channels, kernel, stride),
        norm(channels),
    )


def separable_convolution(in_channels: int, out_channels: int, kernel: int, stride: int, norm: Norm) -> nn.Sequential:
    """A depthwise separable convolution applied twice (NASNet, appendix A.4)."""
    return nn.Sequential(
        *_depthwise_separable(in_channels, in_channels, kernel, stride, norm),
        *_depthwise_separable(in_channels, out_channels, kernel, 1, norm),
    )


def _depthwise_separable(
    in_channels: int, out_channels: int, kernel: int, stride: int, norm: Norm, dilation: int = 1
) -> list[nn.Module]:
    return [
        nn.ReLU(),
        Depthwise(in_channels, kernel, stride, dilation),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        norm(out_channels),
    ]


class SubsampledReLU(nn.Module):
    """ReLU of every `stride`-th pixel: what a 1x1 convolution of that stride reads.

    On processors without AVX-512, torch 2.14 writes beyond its memory in the backward pass of 1x1 convolutions of fewer
    than eight channels with a stride. So no 1x1 convolution here has one.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x if self.stride == 1 else x[:, :, :: self.stride, :: self.stride])


class FactorisedReduction(nn.Module):
    """Halves the resolution without losing pixels: two 1x1 convolutions of stride 2, one shifted by a pixel.

    Source: the "factorized reduction" of NASNet, appendix A.4.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.straight = nn.Conv2d(in_channels, out_channels - out_channels // 2, 1, bias=False)
        self.shifted = nn.Conv2d(in_channels, out_channels // 2, 1, bias=False)
        self.norm = norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        even, odd = EveryOther.apply(x)
        halves = self.straight(torch.relu(even)), self.shifted(torch.relu(odd))
        out: Tensor = self.norm(torch.cat(halves, dim=1))
        return out


class ConvolutionSlice(nn.Module):
    """Convolution, normalisation, ReLU, that also runs on fewer channels, with the first of its weights."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, norm: Norm) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, out_channels, kernel, padding=_same(kernel), bias=False)
        self.norm = norm(out_channels)

    def forward(self, x: Tensor, channels: int | None = None) -> Tensor:
        """From float[N, C, H, W] to as many `channels`, C without a number."""
        weight = self.convolution.weight[: channels or x.shape[1], : x.shape[1]]
        return torch.relu(self.norm(F.conv2d(x, weight, padding=self.convolution.padding)))


class Zero(nn.Module):
    """`none`: no connection."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


def _none(in_channels: int, out_channels: int, stride: int, norm: Norm) -> nn.Module:
    del norm
    _need_equal("none", in_channels, out_channels)
    return Zero(stride)


def _skip(in_channels: int, out_channels: int, stride: int, norm: Norm) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if stride == 1:
        return convolution(in_channels, out_channels, 1, 1, norm)
    return FactorisedReduction(in_channels, out_channels, norm)


def _average_pool(in_channels: int, out_channels: int, stride: int, norm: Norm, kernel: int) -> nn.Module:
    del norm
    _need_equal(f"avg_pool_{kernel}x{kernel}", in_channels, out_channels)
    return AveragePool(kernel, stride)


def _max_pool(in_channels: int, out_channels: int, stride: int, norm: Norm, kernel: int) -> nn.Module:
    del norm
    _need_equal(f"max_pool_{kernel}x{kernel}", in_channels, out_channels)
    return nn.MaxPool2d(kernel, stride, kernel // 2)


def _convolution(in_channels: int, out_channels: int, stride: int, norm: Norm, kernel: int) -> nn.Module:
    return convolution(in_channels, out_channels, kernel, stride, norm)


def _factorised(in_channels: int, out_channels: int, stride: int, norm: Norm, length: int) -> nn.Module:
    return factorised_convolution(in_channels, out_channels, length, stride, norm)


def _depthwise(in_channels: int, out_channels: int, stride: int, norm: Norm, kernel: int) -> nn.Module:
    _need_equal(f"depthwise_conv_{kernel}x{kernel}", in_channels, out_channels)
    return depthwise_convolution(in_channels, kernel, stride, norm)


def _separable(in_channels: int, out_channels: int, stride: int, norm: Norm, kernel: int) -> nn.Module:
    return separable_convolution(in_channels, out_channels, kernel, stride, norm)


def _dilated(in_channels: int, out_channels: int, stride: int, norm: Norm, kernel: int) -> nn.Module:
    return dilated_convolution(in_channels, out_channels, kernel, stride, norm)


def _same(kernel: Size) -> Size:
    return kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)


def _need_equal(operation: str, in_channels: int, out_channels: int) -> None:
    if in_channels != out_channels:
        raise ValueError(f"{operation} keeps the number of channels: in {in_channels}, out {out_channels}")


OPERATIONS: dict[str, Callable[[int, int, int, Norm], nn.Module]] = {
    "none": _none,
    "skip_connect": _skip,
    **{f"avg_pool_{k}x{k}": partial(_average_pool, kernel=k) for k in (3,)},
    **{f"max_pool_{k}x{k}": partial(_max_pool, kernel=k) for k in (3, 5, 7)},
    **{f"{prefix}conv_{k}x{k}": partial(_convolution, kernel=k) for k in (1, 3) for prefix in ("", "nor_")},
    "conv_5x5": partial(_convolution, kernel=5),
    "depthwise_conv_3x3": partial(_depthwise, kernel=3),
    **{f"conv_1x{k}_{k}x1": partial(_factorised, length=k) for k in (3, 7)},
    **{f"sep_conv_{k}x{k}": partial(_separable, kernel=k) for k in (3, 5, 7)},
    **{f"dil_conv_{k}x{k}": partial(_dilated, kernel=k) for k in (3, 5)},
}


def make_operation(name: str, in_channels: int, out_channels: int, stride: int, norm: Norm) -> nn.Module:
    """Makes an operation from float[N, in_channels, H, W] to float[N, out_channels, ceil(H / stride), ...].

    Raises:
        ValueError: an unknown name, or one that cannot change the number of channels.
    """
    if name not in OPERATIONS:
        raise ValueError(f"unknown operation {name!r}; known: {', '.join(OPERATIONS)}")
    return OPERATIONS[name](in_channels, out_channels, stride, norm)
