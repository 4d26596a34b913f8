"""Zero-cost proxies against formulas by hand, slow loops, numpy and finite differences."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy_tasks import toy_task

from nas_gym.evaluators import make_evaluator, make_objective
from nas_gym.evaluators.cost import count_flops, count_parameters
from nas_gym.evaluators.store import StoredEvaluator
from nas_gym.evaluators.zero_cost import (
    PROXIES,
    ZeroCostEvaluator,
    ZeroCostSettings,
    grad_norm,
    jacob_cov,
    naswot,
    snip,
    squashed,
    synflow,
)
from nas_gym.spaces import make_space

TASK = toy_task(60, 30)
BATCH = TASK.train.take(slice(12))
BENCH = make_space("bench201")
DEAD = [0] * 6
"""No edge of the cell has an operation."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def evaluator(proxy: str, space: Any = BENCH, seed: int = 0, **settings: Any) -> ZeroCostEvaluator:
    settings = {"images": 24, "network": {"channels": 4, "reductions": 1}, **settings}
    return ZeroCostEvaluator(space, TASK, seed=seed, device="cpu", proxy=proxy, **settings)


def toy(seed: int = 0) -> nn.Sequential:
    """A convolution, batch norm, ReLU, and two linear layers for images of 1x6x6."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, bias=False),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 5),
        nn.ReLU(),
        nn.Linear(5, 3),
    )


# ------------------------------------------------------------------ proxies


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_synflow_of_a_linear_chain_is_the_product_of_its_matrices(layers: int) -> None:
    """R is a sum over paths of products of weights, and a path has one weight a layer: Σ |w ∂R/∂w| = layers · R."""
    torch.manual_seed(0)
    widths = [36, 7, 5, 4, 3][: layers + 1]
    linears = [nn.Linear(a, b, bias=False) for a, b in pairwise(widths)]
    product = torch.ones(36, dtype=torch.float64)
    for linear in linears:
        product = linear.weight.detach().double().abs() @ product
    network = nn.Sequential(nn.Flatten(), *linears)
    assert synflow(network, TASK, BATCH) == pytest.approx(layers * float(product.sum()), rel=1e-12)


def test_synflow_leaves_batch_norm_out_and_the_network_alone() -> None:
    network = toy()
    before = [parameter.clone() for parameter in network.parameters()]
    value = synflow(network, TASK, BATCH)
    with torch.no_grad():
        network[1].weight.mul_(7)  # type: ignore[operator]
    assert synflow(network, TASK, BATCH) == value
    with torch.no_grad():
        network[1].weight.div_(7)  # type: ignore[operator]
    assert all(torch.allclose(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert network[0].weight.dtype == torch.float32


def test_naswot_by_a_slow_loop() -> None:
    network, codes = toy(), []
    x = TASK.inputs(BATCH)
    for module in network:
        x = module(x)
        if isinstance(module, nn.ReLU):
            codes.append((x > 0).flatten(1).numpy())
    agree = np.zeros((12, 12))
    for code in codes:
        for i in range(12):
            for j in range(12):
                agree[i, j] += sum(bool(a) == bool(b) for a, b in zip(code[i], code[j], strict=True))
    sign, expected = np.linalg.slogdet(agree)
    assert sign == 1
    assert naswot(network, TASK, BATCH) == pytest.approx(expected)


def test_naswot_counts_functional_relus_and_none_that_lead_nowhere() -> None:
    class Branches(nn.Module):
        def __init__(self, dead: bool) -> None:
            super().__init__()
            self.dead, self.inner = dead, toy()

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.inner[0](x))
            if self.dead:
                torch.relu(self.inner[1](x))
            out: Tensor = self.inner[4:](x.flatten(1))
            return out

    assert naswot(Branches(dead=True), TASK, BATCH) == naswot(Branches(dead=False), TASK, BATCH)
    modules = toy()
    with_modules = nn.Sequential(modules[0], nn.ReLU(), nn.Flatten(), *modules[4:])
    assert naswot(Branches(dead=False), TASK, BATCH) == naswot(with_modules, TASK, BATCH)


def test_jacob_cov_by_numpy() -> None:
    network = toy().eval()  # then the gradient of each image can be taken alone
    rows = []
    for image in TASK.inputs(BATCH):
        x = image[None].requires_grad_()
        network(x).sum().backward()
        assert x.grad is not None
        rows.append(x.grad.flatten().double().numpy())
    values = np.linalg.eigvalsh(np.corrcoef(rows))
    expected = -np.sum(np.log(values + 1e-5) + 1 / (values + 1e-5))
    assert jacob_cov(network, TASK, BATCH) == pytest.approx(expected, rel=1e-3)


def test_snip_and_grad_norm_by_finite_differences() -> None:
    network = toy().double()
    task = TASK
    inputs, targets = task.inputs(BATCH).double(), BATCH.targets

    def loss() -> float:
        return float(task.loss(network(inputs), targets))

    saliency, norm = 0.0, 0.0
    with torch.no_grad():
        for index in (0, 4, 6):
            weight, squares = network[index].weight, 0.0
            flat = weight.view(-1)  # type: ignore[operator]
            for place in range(len(flat)):
                kept = float(flat[place])
                flat[place] = kept + 1e-6
                above = loss()
                flat[place] = kept - 1e-6
                slope = (above - loss()) / 2e-6
                flat[place] = kept
                saliency, squares = saliency + abs(kept * slope), squares + slope**2
            norm += math.sqrt(squares)
    network.float()
    assert snip(network, task, BATCH) == pytest.approx(saliency, rel=1e-4)
    assert grad_norm(network, task, BATCH) == pytest.approx(norm, rel=1e-4)


# ------------------------------------------------------------------ evaluator


def test_parameters_and_flops_are_the_costs() -> None:
    tokens = BENCH.sample(np.random.default_rng(0), 3)
    for proxy, count in (
        ("parameters", count_parameters),
        ("flops", lambda network: count_flops(network, TASK.input_shape)),
    ):
        made = evaluator(proxy)
        found = made.evaluate(tokens).metrics[proxy]
        networks = [made.new_network(BENCH.architecture(row), TASK, 0) for row in tokens]
        assert found.tolist() == [count(network) for network in networks]


@pytest.mark.slow
@pytest.mark.parametrize("proxy", list(PROXIES))
def test_scores_depend_on_the_architecture_and_the_seed_alone(proxy: str) -> None:
    tokens = BENCH.sample(np.random.default_rng(1), 4)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = evaluator(proxy).evaluate(tokens)
    assert torch.equal(torch.get_rng_state(), state)
    order = np.array([3, 1, 1, 0, 2])
    again = evaluator(proxy).evaluate(tokens[order])
    assert again.metrics[proxy].tolist() == first.metrics[proxy][order].tolist()
    assert not first.failed.any()
    other = evaluator(proxy, seed=1).evaluate(tokens).metrics[proxy]
    assert (other == first.metrics[proxy]).all() == (proxy in ("parameters", "flops"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cell:enas", "chain", "macro", "transformation", "mobile"])
def test_every_kind_of_network_has_proxies(name: str) -> None:
    space = make_space(name)
    tokens = space.sample(np.random.default_rng(0), 2)
    for proxy in PROXIES:
        found = ZeroCostEvaluator(space, "digits", proxy=proxy, device="cpu", images=8).evaluate(tokens)
        assert not found.failed.any()
        assert np.isfinite(found.metrics[proxy]).all()


def test_a_value_that_is_not_finite_fails() -> None:
    """Where nothing but zeros reaches the classifier, all images have the same codes, and their gradients none."""
    found = evaluator("naswot").evaluate(np.array([DEAD, [3] * 6]))
    assert found.failed.tolist() == [True, False]
    assert found.reasons == ("naswot is not finite", "")
    assert found.accuracy[0] == 0
    assert np.isnan(found.metrics["naswot"][0])
    assert evaluator("jacob_cov").evaluate(np.array([DEAD])).reasons == ("jacob_cov is not finite",)
    for proxy in ("synflow", "snip", "grad_norm"):
        assert evaluator(proxy).evaluate(np.array([DEAD])).metrics[proxy] == 0


def test_the_accuracy_rises_with_the_value() -> None:
    values = np.array([-np.finfo(float).max, -1e30, -6499380.1, -6499380.0, -1.0, 0.0, 1e-9, 3.0, 1e20, 1.1e20, 1e300])
    accuracy = squashed(values)
    assert (np.diff(accuracy) > 0).all()
    assert ((accuracy > 0) & (accuracy < 1)).all()
    assert squashed(np.zeros(1))[0] == 0.5


def test_an_objective_takes_the_value() -> None:
    found = evaluator("naswot").evaluate(np.array([DEAD, [3] * 6]))
    rewards = make_objective({"name": "linear", "weights": {"naswot": 1.0}, "worst": -1e4})(found)
    assert rewards.tolist() == [-1e4, found.metrics["naswot"][1]]


def test_it_is_stored_and_has_a_fingerprint(tmp_path: Path) -> None:
    made = evaluator("snip")
    assert not made.stateful
    assert made.fingerprint() == evaluator("snip").fingerprint()
    assert made.fingerprint() != evaluator("grad_norm").fingerprint()
    tokens = BENCH.sample(np.random.default_rng(1), 3)
    first = StoredEvaluator(made, tmp_path / "store.sqlite").evaluate(tokens)
    stored = StoredEvaluator(evaluator("snip"), tmp_path / "store.sqlite")
    assert stored.evaluate(tokens).metrics["snip"].tolist() == first.metrics["snip"].tolist()
    assert (stored.found, stored.evaluated) == (3, 0)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"unknown proxy 'sinflow'; known: synflow, .*; did you mean 'synflow'"):
        ZeroCostSettings(proxy="sinflow")
    with pytest.raises(ValueError, match="images must be at least 2, got 1"):
        ZeroCostSettings(images=1)
    with pytest.raises(ValueError, match=r"network has no field \['channel'\]"):
        make_evaluator("zero-cost", BENCH, "digits", {"network": {"channel": 4}})
