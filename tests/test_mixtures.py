"""Banks and networks under weights of their choices: against choices, sums by hand and finite differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from network_checks import images, supernet_with_random_weights
from torch import Tensor, nn

from nas_gym.networks import Network, NetworkSettings, make_network, make_supernet
from nas_gym.networks.bank import Bank, Maps
from nas_gym.networks.batch import SortedBank
from nas_gym.networks.network import BatchLayout
from nas_gym.networks.operations import make_operation
from nas_gym.spaces import Tokens, make_space

torch.set_num_threads(1)
OPERATIONS = ("nor_conv_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "none")
CHANNELS, IMAGES = 4, 3
BENCH201 = make_space("bench201")


def bank(kind: Callable[..., Bank] = Bank, names: tuple[str, ...] = OPERATIONS) -> Bank:
    torch.manual_seed(0)
    layout = BatchLayout()
    layout.images = IMAGES
    return kind({i: make_operation(name, CHANNELS, CHANNELS, 1, layout.norm) for i, name in enumerate(names)})


def states(batch: int, count: int = 2) -> list[Maps]:
    return [Maps(torch.randn(batch * IMAGES, CHANNELS, 5, 5), batch) for _ in range(count)]


def one_hot(choice: Tokens, choices: int) -> Tensor:
    return torch.from_numpy(np.eye(choices, dtype=np.float32)[choice])


# ------------------------------------------------------------------ banks


@pytest.mark.parametrize("kind", [Bank, SortedBank])
@pytest.mark.parametrize("sources", [(0, 0, 0, 0, 0, 0), (0, 1, 1, 0, 1, 0)])
def test_one_hot_weights_are_choices(kind: Callable[..., Bank], sources: tuple[int, ...]) -> None:
    made, maps, source = bank(kind), states(6), np.array(sources)
    choice = np.array([0, 3, 0, 1, 4, 2])
    chosen = bank()(maps, source, choice)
    assert torch.equal(made(maps, source, one_hot(choice, 5)), chosen)
    assert torch.equal(made(maps, source, one_hot(choice, 5).requires_grad_()), chosen)


@pytest.mark.parametrize("needs_gradient", [False, True])
@pytest.mark.parametrize("kind", [Bank, SortedBank])
def test_a_mixture_is_the_weighted_sum(kind: Callable[..., Bank], needs_gradient: bool) -> None:
    made, maps, source = bank(kind), states(3), np.array([1, 0, 1])
    weights = torch.tensor([[0.3, 0.0, 0.0, 0.7, 0.0], [0.0, -1.5, 0.5, 0.0, 0.0], [0.2, 0.2, 0.2, 0.2, 0.2]])
    out = made(maps, source, weights.clone().requires_grad_(needs_gradient)).chunk(3)

    def module(choice: int, row: int) -> Tensor:
        result: Tensor = made.choices[str(choice)](maps[source[row]].whole.chunk(3)[row])
        return result

    by_hand = [
        0.3 * module(0, 0) + 0.7 * module(3, 0),
        -1.5 * module(1, 1) + 0.5 * module(2, 1),
        0.2 * (module(0, 2) + module(1, 2) + module(2, 2) + module(3, 2) + module(4, 2)),
    ]
    for found, expected in zip(out, by_hand, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_gradients_equal_finite_differences() -> None:
    """With respect to every weight and to what is read; what is not run has no gradient."""
    made = bank().double()
    x = torch.randn(2 * IMAGES, CHANNELS, 4, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([[0.3, 0.1, 0.2, 0.5, 0.4], [0.2, 1.0, -0.1, 0.3, 0.1]], dtype=torch.float64)

    def run(weights: Tensor, x: Tensor) -> Tensor:
        out: Tensor = made([Maps(x, 2)], np.zeros(2, dtype=np.int64), weights)
        return out.square().mean(dim=(0, 2, 3))

    assert torch.autograd.gradcheck(run, (weights.requires_grad_(), x))
    (gradient,) = torch.autograd.grad(run(weights, x).sum(), weights)
    assert (gradient[:, :4] != 0).all()
    assert (gradient[:, 4] == 0).all(), "of `none`"
    hard = torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0]] * 2, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(run(hard, x).sum(), hard)
    assert ((gradient != 0) == (hard != 0)).all()


def test_modules_without_weight_are_skipped() -> None:
    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[int] = []

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append(len(x))
            return x

    modules = [Counted() for _ in range(3)]
    made, maps, source = Bank(dict(enumerate(modules))), states(2), np.zeros(2, dtype=np.int64)
    weights = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])
    made(maps, source, weights)
    assert [module.seen for module in modules] == [[IMAGES], [2 * IMAGES], []]
    made(maps, source, weights.requires_grad_())
    assert [len(module.seen) for module in modules] == [2, 2, 0]


def test_no_weight_at_all_gives_zeros() -> None:
    out = bank()(states(2), np.zeros(2, dtype=np.int64), torch.tensor([[0.0] * 5, [1.0] + [0.0] * 4]))
    nothing, something = out.chunk(2)
    assert (nothing == 0).all()
    assert (something != 0).any()


# ------------------------------------------------------------------ networks


def supernet() -> Network:
    return supernet_with_random_weights(BENCH201, NetworkSettings(CHANNELS, 2, 1))


def test_a_supernet_under_one_hot_weights_is_itself_under_tokens() -> None:
    network, tokens = supernet(), BENCH201.sample(np.random.default_rng(0), 5)
    with torch.no_grad():
        assert torch.equal(network(images(), one_hot(tokens, BENCH201.num_choices)), network(images(), tokens))


def test_a_mixture_of_a_supernet_by_hand() -> None:
    """One cell, edge by edge; each mixture of a batch is as if alone."""
    network = supernet_with_random_weights(BENCH201, NetworkSettings(CHANNELS, 1, 0))
    weights = torch.rand(2, BENCH201.length, BENCH201.num_choices, generator=torch.Generator().manual_seed(0))
    x, cell = images(), network.blocks[0]
    together = network(x, weights)
    network.layout.images = len(x)
    for logits, alphas in zip(together, weights, strict=True):
        nodes = [network.stem(x)]
        for target in range(1, BENCH201.nodes):
            total = torch.zeros_like(nodes[0])
            for edge, (source, end) in enumerate(BENCH201.edges):
                if end == target:
                    for choice, alpha in enumerate(alphas[edge]):
                        total = total + alpha * cell.edges[edge].choices[str(choice)](nodes[source])
            nodes.append(total)
        torch.testing.assert_close(logits, network.head(network.norm_before_head(nodes[-1])), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(logits, network(x, alphas[None])[0], rtol=1e-4, atol=1e-5)


def test_the_gradient_of_a_supernets_loss_equals_finite_differences() -> None:
    network = supernet_with_random_weights(BENCH201, NetworkSettings(2, 1, 0)).double()
    x = images(2, size=4).double()
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(1, BENCH201.length, BENCH201.num_choices, generator=generator, dtype=torch.float64)
    weights[0, 2, 1:] = 0.0

    def loss(weights: Tensor) -> Tensor:
        logits: Tensor = network(x, torch.softmax(weights, dim=2))[0]
        return nn.functional.cross_entropy(logits, torch.tensor([1, 4]))

    assert torch.autograd.gradcheck(loss, weights.requires_grad_())


def test_mixtures_are_checked() -> None:
    network, whole = supernet(), torch.ones(2, 6, 5)
    with pytest.raises(ValueError, match=r"a mixture must be float \[B, 6, 5\], got float32 \[2, 6, 4\]"):
        network(images(), whole[..., :4])
    with pytest.raises(ValueError, match=r"a mixture must be float \[B, 6, 5\], got int64 \[2, 6\]"):
        network(images(), whole[..., 0].long())
    alone = make_network(BENCH201.architecture([0] * 6), (1, 8, 8), 10, NetworkSettings(CHANNELS, 1, 1))
    with pytest.raises(ValueError, match="a network of one architecture takes none"):
        alone(images(), whole)
    space = make_space("cell:darts")
    cells = make_supernet(space, (1, 8, 8), 10, NetworkSettings(CHANNELS, 1, 1))
    with pytest.raises(ValueError, match=f"networks of space {space.name!r} take tokens as int64 arrays"):
        cells(images(), torch.ones(1, space.length, space.num_choices))
