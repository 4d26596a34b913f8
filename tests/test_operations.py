"""The operations against a second computation of each, straight from torch.nn.functional."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_gym.networks import OPERATIONS, make_operation

SIZES = [(8, 8), (7, 7), (5, 8), (2, 3)]
Weights = Iterator[Tensor]
Reference = Callable[[Tensor, int, Weights], Tensor]


def norm(x: Tensor) -> Tensor:
    """Batch norm at its initial weight 1 and bias 0, by its formula."""
    centred = x - x.mean(dim=(0, 2, 3), keepdim=True)
    return centred / (centred.square().mean(dim=(0, 2, 3), keepdim=True) + 1e-5).sqrt()


def plain(kernel: int) -> Reference:
    return lambda x, stride, w: norm(F.conv2d(x.relu(), next(w), None, stride, (kernel - 1) // 2))


def two_lines(length: int) -> Reference:
    def run(x: Tensor, stride: int, w: Weights) -> Tensor:
        x = norm(F.conv2d(F.pad(x.relu(), (length // 2, length // 2)), next(w), None, (1, stride)))
        return norm(F.conv2d(F.pad(x.relu(), (0, 0, length // 2, length // 2)), next(w), None, (stride, 1)))

    return run


def planewise(x: Tensor, kernel: int, stride: int, dilation: int, w: Weights) -> Tensor:
    """A depthwise convolution of ReLU, a channel at a time."""
    reach = dilation * (kernel - 1) // 2
    planes = torch.split(F.pad(x.relu(), (reach,) * 4), 1, dim=1)
    filters = torch.split(next(w), 1)
    return torch.cat([F.conv2d(p, f, None, stride, 0, dilation) for p, f in zip(planes, filters, strict=True)], dim=1)


def depthwise(x: Tensor, kernel: int, stride: int, dilation: int, w: Weights) -> Tensor:
    spatial = planewise(x, kernel, stride, dilation, w)
    return norm(torch.einsum("nchw,kc->nkhw", spatial, next(w)[:, :, 0, 0]))


def separable(kernel: int) -> Reference:
    return lambda x, stride, w: depthwise(depthwise(x, kernel, stride, 1, w), kernel, 1, 1, w)


def dilated(kernel: int) -> Reference:
    return lambda x, stride, w: depthwise(x, kernel, stride, 2, w)


def average(x: Tensor, stride: int, w: Weights) -> Tensor:
    del w
    total, count = (F.avg_pool2d(F.pad(y, (1,) * 4), 3, stride) for y in (x, torch.ones_like(x)))
    return total / count


def largest(kernel: int) -> Reference:
    return lambda x, stride, w: F.max_pool2d(F.pad(x, (kernel // 2,) * 4, value=-torch.inf), kernel, stride)


def skip(x: Tensor, stride: int, w: Weights) -> Tensor:
    if stride == 1:
        return x
    even, odd = x.relu()[:, :, ::2, ::2], torch.zeros_like(x[:, :, ::2, ::2])
    rest = x.relu()[:, :, 1::2, 1::2]
    odd[:, :, : rest.shape[2], : rest.shape[3]] = rest
    return norm(torch.cat([F.conv2d(even, next(w)), F.conv2d(odd, next(w))], dim=1))


REFERENCES: dict[str, Reference] = {
    "none": lambda x, stride, w: torch.zeros_like(x[:, :, ::stride, ::stride]),
    "skip_connect": skip,
    "avg_pool_3x3": average,
    **{f"max_pool_{k}x{k}": largest(k) for k in (3, 5, 7)},
    **{f"{prefix}conv_{k}x{k}": plain(k) for k in (1, 3) for prefix in ("", "nor_")},
    "conv_5x5": plain(5),
    "depthwise_conv_3x3": lambda x, stride, w: norm(planewise(x, 3, stride, 1, w)),
    **{f"conv_1x{k}_{k}x1": two_lines(k) for k in (3, 7)},
    **{f"sep_conv_{k}x{k}": separable(k) for k in (3, 5, 7)},
    **{f"dil_conv_{k}x{k}": dilated(k) for k in (3, 5)},
}
KEEP_CHANNELS = ["none", "avg_pool_3x3", "max_pool_3x3", "max_pool_5x5", "max_pool_7x7", "depthwise_conv_3x3"]


def parameter_count(name: str, c: int, d: int, stride: int) -> int:
    """By hand, with two parameters a normalised channel."""
    if name == "skip_connect":
        return c * d + 2 * d if stride == 2 or c != d else 0
    k = int(name[-1])
    if name.startswith("sep"):
        return (k * k * c + c * c + 2 * c) + (k * k * c + c * d + 2 * d)
    if name.startswith("dil"):
        return k * k * c + c * d + 2 * d
    if name in ("conv_1x3_3x1", "conv_1x7_7x1"):
        k = int(name[7])  # conv_1xK_Kx1
        return (k * c * d + 2 * d) + (k * d * d + 2 * d)
    return k * k * c * d + 2 * d


def made(name: str, c: int, d: int, stride: int) -> nn.Module:
    torch.manual_seed(0)
    return make_operation(name, c, d, stride, nn.BatchNorm2d).double()


def images(channels: int, size: tuple[int, int], n: int = 3) -> Tensor:
    return torch.randn(n, channels, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", REFERENCES)
def test_every_operation_equals_its_definition(name: str, stride: int) -> None:
    operation = made(name, 4, 4, stride)
    for size in SIZES:
        x = images(4, size)
        before = x.clone()
        out = operation(x)
        assert out.shape == (3, 4, -(-size[0] // stride), -(-size[1] // stride))
        weights = (p for p in operation.parameters() if p.dim() == 4)
        torch.testing.assert_close(out, REFERENCES[name](x, stride, weights), rtol=1e-9, atol=1e-9)
        assert next(weights, None) is None, "a weight that the definition does not use"
        assert torch.equal(x, before), "an operation must not change what other operations read"


@pytest.mark.parametrize("name", sorted(set(REFERENCES) - set(KEEP_CHANNELS)))
@pytest.mark.parametrize(("c", "d", "stride"), [(4, 6, 1), (4, 6, 2), (6, 3, 2), (4, 4, 1), (5, 5, 2)])
def test_channels_change_and_parameters_are_counted(name: str, c: int, d: int, stride: int) -> None:
    operation = made(name, c, d, stride)
    assert operation(images(c, (7, 6))).shape == (3, d, -(-7 // stride), -(-6 // stride))
    assert sum(p.numel() for p in operation.parameters()) == parameter_count(name, c, d, stride)


def test_a_skip_that_changes_channels_is_a_convolution() -> None:
    operation, x = made("skip_connect", 4, 6, 1), images(4, (5, 5))
    (weight,) = (p for p in operation.parameters() if p.dim() == 4)
    torch.testing.assert_close(operation(x), norm(F.conv2d(x.relu(), weight)))


@pytest.mark.parametrize("name", KEEP_CHANNELS)
def test_what_works_channel_by_channel_keeps_their_number(name: str) -> None:
    assert sum(p.numel() for p in made(name, 4, 4, 2).parameters()) == (44 if name == "depthwise_conv_3x3" else 0)
    with pytest.raises(ValueError, match=rf"{name} keeps the number of channels: in 4, out 6"):
        make_operation(name, 4, 6, 1, nn.BatchNorm2d)


@pytest.mark.parametrize("stride", [1, 2])
def test_average_pools_leave_padding_out(stride: int) -> None:
    """A constant stays itself at the border, where zeros of padding would lower it."""
    out = made("avg_pool_3x3", 2, 2, stride)(torch.full((1, 2, 5, 5), 7.0, dtype=torch.float64))
    torch.testing.assert_close(out, torch.full_like(out, 7.0))


@pytest.mark.parametrize("size", [(6, 6), (7, 7), (7, 4)])
def test_a_factorised_reduction_reads_every_pixel_of_its_two_lattices(size: tuple[int, int]) -> None:
    operation = made("skip_connect", 2, 4, 2)
    x = images(2, size).abs_().requires_grad_()
    (operation(x) * images(4, (-(-size[0] // 2), -(-size[1] // 2)))).sum().backward()
    assert x.grad is not None
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    read = x.grad.abs().sum(dim=(0, 1)) > 1e-12
    assert torch.equal(read, rows % 2 == columns % 2)


def test_none_passes_nothing_on_not_even_what_is_not_a_number() -> None:
    x = torch.full((1, 2, 4, 4), torch.nan, requires_grad=True)
    out = make_operation("none", 2, 2, 2, nn.BatchNorm2d)(x)
    assert torch.equal(out, torch.zeros(1, 2, 2, 2))


def test_unknown_operation() -> None:
    with pytest.raises(ValueError, match=r"unknown operation 'conv_9x9'; known: none, skip_connect") as caught:
        make_operation("conv_9x9", 4, 4, 1, nn.BatchNorm2d)
    assert all(name in str(caught.value) for name in OPERATIONS)


def test_every_operation_is_tested() -> None:
    assert set(REFERENCES) == set(OPERATIONS)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [2, 4, 6])
def test_strided_pointwise_convolutions_of_few_channels(channels: int) -> None:
    """They read every second pixel; in a process of its own, since a stride in them would corrupt its memory."""
    code = f"""
import torch
from torch import nn
from nas_gym.networks.operations import FactorisedReduction, convolution
torch.manual_seed(0)
for made in (FactorisedReduction({channels}, {channels}, nn.BatchNorm2d), convolution({channels}, {channels}, 1, 2,
             nn.BatchNorm2d)):
    made = made.to(memory_format=torch.channels_last)
    for _ in range(20):
        x = torch.randn(32, {channels}, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
        made(x).square().sum().backward()
        assert torch.isfinite(x.grad).all()
pointwise = convolution({channels}, 5, 1, 2, nn.Identity)
expected = nn.functional.conv2d(torch.relu(x), pointwise[1].weight, stride=2)
torch.testing.assert_close(pointwise(x)[:, :5], expected)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
