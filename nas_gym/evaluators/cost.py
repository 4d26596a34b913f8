"""What a network costs: parameters and floating-point operations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nas_gym.networks import Network


def count_parameters(network: nn.Module) -> int:
    """The number of trainable numbers."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_flops(network: Network, image_shape: tuple[int, int, int]) -> int:
    """Floating-point operations of one image's forward: twice the multiply-adds of convolutions and linear layers.

    Normalisation, pooling, activations and sums are left out, as is usual.

    Args:
        network: of one architecture.
        image_shape: (channels, height, width).
    """
    total = 0

    def count(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            an_output = module.weight[0].numel()  # multiply-adds of one number of the output
        else:
            assert isinstance(module, nn.Linear)
            an_output = module.in_features
        total += 2 * an_output * output[0].numel()

    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    training = network.training
    try:
        network.eval()
        with torch.no_grad():
            network(torch.zeros(1, *image_shape, device=next(network.parameters()).device))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return total
