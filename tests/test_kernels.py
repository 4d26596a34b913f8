"""Layers with fast paths on CPUs equal torch's own, in their values and in their gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nas_gym.networks.kernels import AveragePool, Depthwise, EveryOther, NormalisedApart


def maps(height: int, width: int) -> Tensor:
    """Random maps of four channels, channels last, that want a gradient."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, height, width, dtype=torch.float64, generator=generator)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def check(out: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    """The same values, and the same gradients for a random gradient of the output."""
    torch.testing.assert_close(out, expected)
    gradient = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1))
    ours, torchs = (torch.autograd.grad(value, inputs, gradient, retain_graph=True) for value in (out, expected))
    torch.testing.assert_close(ours, torchs)


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("size", [(7, 8), (8, 7), (1, 2)])
def test_depthwise_convolution_equals_torchs(kernel: int, stride: int, dilation: int, size: tuple[int, int]) -> None:
    layer, x = Depthwise(4, kernel, stride, dilation).double(), maps(*size)
    padding = dilation * (kernel // 2)
    check(layer(x), F.conv2d(x, layer.weight, None, stride, padding, dilation, 4), [x, layer.weight])


@pytest.mark.parametrize("dilation", [1, 2])
def test_depthwise_convolution_can_be_differentiated_twice(dilation: int) -> None:
    layer, x = Depthwise(4, 5, dilation=dilation).double(), maps(3, 3)
    assert torch.autograd.gradgradcheck(
        lambda x, weight: torch.func.functional_call(layer, {"weight": weight}, x), (x, layer.weight)
    )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(7, 8), (8, 7), (1, 2)])
def test_average_pool_equals_torchs(stride: int, size: tuple[int, int]) -> None:
    x = maps(*size)
    check(AveragePool(3, stride)(x), F.avg_pool2d(x, 3, stride, 1, count_include_pad=False), [x])


@pytest.mark.parametrize("size", [(7, 8), (8, 7), (2, 2)])
def test_every_other_pixel_equals_slices(size: tuple[int, int]) -> None:
    x = maps(*size)
    shifted = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
    for out, expected in zip(EveryOther.apply(x), (x[:, :, ::2, ::2], shifted[:, :, ::2, ::2]), strict=True):
        check(out, expected, [x])
    assert torch.autograd.gradgradcheck(EveryOther.apply, (maps(3, 4),))


@pytest.mark.parametrize("affine", [False, True])
def test_parts_normalised_apart_equal_batch_norms(affine: bool) -> None:
    x, weight, bias = maps(2, 3), torch.rand(4).double().requires_grad_(affine), torch.rand(4).double()
    bias.requires_grad_(affine)
    expected = torch.cat([F.batch_norm(part, None, None, weight, bias, True, 0.0, 1e-3) for part in x.chunk(3)])
    inputs = [x, weight, bias] if affine else [x]
    check(NormalisedApart.apply(x, weight, bias, 3, 1e-3), expected, inputs)
    assert torch.autograd.gradgradcheck(lambda x: NormalisedApart.apply(x, weight, bias, 3, 1e-3), (x,))
