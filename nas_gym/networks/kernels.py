"""Layers whose CPU paths are faster than torch's own and equal them up to rounding; elsewhere they are torch's own.

Measured with torch 2.14 on one core of an AMD EPYC with AVX-512, maps of 8 to 32 channels, channels last.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FAST_COLUMNS = 3  # of a depthwise kernel: up to here, oneDNN has a fast gradient of the weights, without dilation


def _on_cpu(x: Tensor) -> bool:
    """Whether a CPU computes in the precision of `x`, without autocast."""
    return x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


class Depthwise(nn.Conv2d):
    """A depthwise convolution with "same" padding and an odd kernel."""

    def __init__(self, channels: int, kernel: int, stride: int = 1, dilation: int = 1) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False)
        self.own_gradient = kernel > FAST_COLUMNS or dilation > 1

    def forward(self, x: Tensor) -> Tensor:
        if not self.own_gradient or not _on_cpu(x) or not torch.is_grad_enabled():
            return super().forward(x)
        out: Tensor = _Depthwise.apply(x, self.weight, self.stride[0], self.dilation[0])
        return out


class _Depthwise(torch.autograd.Function):
    """The convolution of `Depthwise` with gradients of its own.

    oneDNN's gradient of the input takes longer than its forward pass, which computes the same with the kernel turned
    round. Its gradients of wide and of dilated kernels are those of full convolutions, so that a kernel is divided into
    columns, and maps into those of which it reads every pixel.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.dilation = stride, dilation
        return F.conv2d(x, weight, None, stride, _same(weight, dilation), dilation, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (gradient,), (x, weight) = gradients, ctx.saved_tensors
        if ctx.stride > 1:  # as without a stride, where the outputs in between get no gradient
            spread = torch.zeros_like(x)
            spread[:, :, :: ctx.stride, :: ctx.stride] = gradient
            gradient = spread
        for_x = for_weight = None
        if ctx.needs_input_grad[0]:
            padding = _same(weight, ctx.dilation)
            for_x = F.conv2d(gradient, weight.flip(2, 3), None, 1, padding, ctx.dilation, len(weight))
        if ctx.needs_input_grad[1]:
            for_weight = _weight_gradient(gradient, x, weight, ctx.dilation)
        return for_x, for_weight, None, None


def _same(weight: Tensor, dilation: int) -> int:
    return dilation * (weight.shape[3] // 2)


def _weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """The gradient of a depthwise kernel without stride."""
    if dilation > 1:  # between pixels of the same phase, the kernel has no dilation
        gradient, x = _phases(gradient, dilation), _phases(x, dilation)
    kernel, same = weight.shape[3], _same(weight, 1)
    padded = F.pad(x, (same, same, same, same))  # oneDNN's own padding is slow in maps smaller than the kernel
    parts = []
    for first in range(0, kernel, FAST_COLUMNS):
        part = weight[..., first : first + FAST_COLUMNS]
        seen = padded[..., first : first + part.shape[3] - 1 + x.shape[3]]  # by these columns of the kernel
        _, of_part, _ = torch.ops.aten.convolution_backward(
            gradient, seen, part, None, [1, 1], [0, 0], [1, 1], False, [0, 0], len(weight), [False, True, False]
        )
        parts.append(of_part)
    return torch.cat(parts, dim=3)


def _phases(x: Tensor, step: int) -> Tensor:
    """The pixels at each offset of rows and columns, `step` apart, as maps of their own, channels last.

    From float[N, C, H, W] to float[step**2 * N, C, ceil(H / step), ceil(W / step)]; what is missing is zero.
    """
    n, channels, height, width = x.shape
    x = F.pad(x, (0, -width % step, 0, -height % step))
    height, width = x.shape[2] // step, x.shape[3] // step
    pixels = x.permute(0, 2, 3, 1).reshape(n, height, step, width, step, channels)
    return pixels.permute(2, 4, 0, 1, 3, 5).reshape(-1, height, width, channels).permute(0, 3, 1, 2)


class AveragePool(nn.AvgPool2d):
    """Average pooling with "same" padding that does not count: on CPUs a depthwise convolution."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__(kernel, stride, kernel // 2, count_include_pad=False)
        self.size, self.step = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        if not _on_cpu(x):
            return super().forward(x)
        shares = x.new_full((x.shape[1], 1, self.size, self.size), self.size**-2)
        sums = F.conv2d(x, shares, None, self.step, self.size // 2, groups=len(shares))
        # The share of its pixels that an output reads, the others being padding.
        inside = F.avg_pool2d(x.new_ones(1, 1, *x.shape[2:]), self.size, self.step, self.size // 2)
        return sums * inside.reciprocal()


class EveryOther(torch.autograd.Function):
    """The pixels of even rows and columns, and those of odd ones, float[N, C, ceil(H / 2), ceil(W / 2)] both.

    One row and column of zeros keep both of equal size where the resolution is odd. The gradient of a slice would fill
    a map with zeros for each axis.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x)
        even, odd = x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]
        missing = (0, even.shape[3] - odd.shape[3], 0, even.shape[2] - odd.shape[2])
        return even.clone(), F.pad(odd, missing) if any(missing) else odd.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        even, odd = gradients
        whole = torch.zeros_like(*ctx.saved_tensors)
        whole[:, :, ::2, ::2] = even
        inside = whole[:, :, 1::2, 1::2]
        inside.copy_(odd[:, :, : inside.shape[2], : inside.shape[3]])
        return whole


class NormalisedApart(torch.autograd.Function):
    """Batch norm of parts of a batch, each by its own statistics, without a copy of the results.

    Args:
        x: float[parts * N, C, H, W].
        weight, bias: float[C], or None for ones and zeros.
        parts: how many are normalised apart.
        eps: added to the variance.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, parts: int, eps: float) -> Tensor:
        out, statistics = torch.empty_like(x), x.new_empty(2, parts, x.shape[1])
        for part, own, mean, deviation in zip(x.chunk(parts), out.chunk(parts), *statistics, strict=True):
            results = own, mean, deviation
            torch.native_batch_norm(part, weight, bias, None, None, True, 0.0, eps, out=results)
        ctx.save_for_backward(x, weight, statistics)
        ctx.eps = eps
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        x, weight, statistics = ctx.saved_tensors
        parts = statistics.shape[1]
        mask = [True, ctx.needs_input_grad[1], ctx.needs_input_grad[2]]
        each = [
            torch.ops.aten.native_batch_norm_backward(
                gradient, part, weight, None, None, mean, deviation, True, ctx.eps, mask
            )
            for gradient, part, mean, deviation in zip(
                gradients[0].chunk(parts), x.chunk(parts), *statistics, strict=True
            )
        ]
        for_x, for_weight, for_bias = zip(*each, strict=True)
        return (
            torch.cat(for_x),
            torch.stack(for_weight).sum(0) if mask[1] else None,
            torch.stack(for_bias).sum(0) if mask[2] else None,
            None,
            None,
        )
