"""Reference networks: fitted to a cost as a search of all widths would, and trained by the loop of all others."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from nas_gym.evaluators.cost import count_flops, count_parameters
from nas_gym.evaluators.training import TrainingSettings, fit
from nas_gym.networks import NetworkSettings
from nas_gym.networks.references import REFERENCES, fitted_width, make_reference
from nas_gym.tasks import make_task

SHAPE = (3, 12, 10)
SETTINGS = [NetworkSettings(), NetworkSettings(reductions=1, stem_stride=2), NetworkSettings(reductions=0)]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", REFERENCES)
def test_the_width_is_that_of_a_search_of_all_widths(name, settings) -> None:
    """Networks of every width are made and counted; budgets between, at, and just below what they cost."""
    for cost in (count_parameters, partial(count_flops, input_shape=SHAPE)):
        costs = {width: cost(make_reference(name, width, SHAPE, 7, settings)) for width in range(1, 24)}
        assert list(costs.values()) == sorted(set(costs.values())), "more channels cost more"
        for budget in (costs[1], costs[5] - 1, costs[5], costs[16], (costs[19] + costs[20]) // 2, costs[23] - 1):
            brute = max(width for width, value in costs.items() if value <= budget)
            assert fitted_width(name, SHAPE, 7, settings, cost, budget) == brute
        with pytest.raises(ValueError, match=f"the narrowest {name} network costs more than"):
            fitted_width(name, SHAPE, 7, settings, cost, costs[1] - 1)


def test_parameters_by_hand() -> None:
    """Weights of convolutions, two numbers a channel of a norm, and the classifier, of two stages of 4 and 8."""
    settings = NetworkSettings(reductions=1)
    stem, head = 9 * 3 * 4 + 2 * 4, 8 * 7 + 7
    convolutions = 9 * (4 * 4 + 4 * 4 + 4 * 8 + 8 * 8) + 2 * (4 + 4 + 8 + 8)
    for name in ("plain", "residual"):
        assert count_parameters(make_reference(name, 8, SHAPE, 7, settings)) == stem + convolutions + head

    def inverted(narrow: int, out: int) -> int:
        inside = 6 * narrow
        return narrow * inside + 9 * inside + inside * out + 2 * (inside + inside + out)

    wanted = stem + 2 * inverted(4, 4) + inverted(4, 8) + inverted(8, 8) + head
    assert count_parameters(make_reference("mobile", 8, SHAPE, 7, settings)) == wanted


@pytest.mark.parametrize("name", REFERENCES)
def test_shapes(name) -> None:
    for settings in SETTINGS:
        for images, shape in ((1, SHAPE), (5, (1, 8, 8))):
            network = make_reference(name, 6, shape, 7, settings).eval()
            assert network(torch.zeros(images, *shape)).shape == (images, 7)
            assert network.logits(torch.zeros(images, *shape))[1] is None


@pytest.mark.parametrize("name", REFERENCES)
def test_they_train_the_same_twice_and_learn(name) -> None:
    task = make_task("digits", train_limit=400)
    settings = TrainingSettings(epochs=6, batch_size=32, record_all_epochs=False)
    state = torch.get_rng_state()
    accuracies, weights = [], []
    for seed in (3, 3, 4):
        network = make_reference(name, 16, task.image_shape, 10, NetworkSettings(reductions=1), seed)
        (curve,) = fit([network], task, settings, seeds=[seed])
        accuracies.append(curve.accuracy["valid"][-1])
        weights.append(network.head.linear.weight.detach())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert accuracies[0] == accuracies[1] > 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dense", 4, SHAPE, 7), "unknown reference network 'dense'; known: residual, mobile, plain"),
        (("plain", 0, SHAPE, 7), "width must be at least 1, got 0"),
        (("plain", 4, (1, 3, 3), 7), "images of 3x3 cannot be reduced 4 times"),
        (("plain", 4, (9,), 7), "image"),
    ],
)
def test_what_cannot_be_made(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_reference(*arguments)
