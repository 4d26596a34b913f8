"""Parameters and flops against PyTorch's own counter and against formulae."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nas_gym.evaluators.cost import count_flops, count_parameters
from nas_gym.networks import NetworkSettings, make_network
from nas_gym.spaces import make_space

SETTINGS = NetworkSettings(channels=8, reductions=1)


@pytest.mark.parametrize("name", ["cell:enas", "cell:nasnet", "cell:darts", "bench201"])
def test_flops_are_those_of_pytorchs_counter(name: str) -> None:
    space = make_space(name)
    for tokens in space.sample(np.random.default_rng(0), 5):
        network = make_network(space.architecture(tokens), (3, 8, 8), 10, SETTINGS)
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            network.eval()(torch.zeros(1, 3, 8, 8))
        assert count_flops(network, (3, 8, 8)) == counter.get_total_flops()


def test_an_empty_cell_by_hand() -> None:
    space = make_space("bench201")
    network = make_network(space.architecture([0] * 6), (1, 8, 8), 10, NetworkSettings(channels=4, reductions=0))
    stem, head = 9 * 4, 4 * 10
    assert count_flops(network, (1, 8, 8)) == 2 * (stem * 64 + head)
    assert count_parameters(network) == stem + 2 * 4 + 2 * 4 + head + 10  # two batch norms, the head's biases


def test_counting_leaves_the_network_alone() -> None:
    space = make_space("bench201")
    network = make_network(space.architecture([3] * 6), (1, 8, 8), 10, SETTINGS).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    count_flops(network, (1, 8, 8))
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
