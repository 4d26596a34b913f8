"""Parameters, flops and latency against PyTorch's own counter, formulae and a clock that is told what to show."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from fidelity_checks import TABLE_SPACE, curves_table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import nas_gym  # noqa: F401  # registers the environments
from nas_gym.evaluators import Evaluations, FunctionEvaluator, make_evaluator, make_schedule
from nas_gym.evaluators import cost as costs
from nas_gym.evaluators.cost import CostEvaluator, LatencySettings, count_flops, count_parameters, measure_latency
from nas_gym.evaluators.schedules import InterleavedSchedule
from nas_gym.networks import NETWORKS, NetworkSettings, make_network
from nas_gym.networks.chain import PAPER_CHANNELS
from nas_gym.networks.layers import LayerNetwork
from nas_gym.spaces import PRESETS, make_space

SETTINGS = NetworkSettings(channels=8, reductions=1)
BENCH = make_space("bench201")
SMALL = {"channels": 4, "batch_size": 16, "score_images": 64, "device": "cpu"}


def pytorchs_count(network: nn.Module, shape: tuple[int, int, int]) -> int:
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network.eval()(torch.zeros(1, *shape))
    return counter.get_total_flops()


@pytest.mark.parametrize("name", [name for name, space in PRESETS.items() if type(space) in NETWORKS])
def test_flops_are_those_of_pytorchs_counter(name: str) -> None:
    space = make_space(name)
    for tokens in space.sample(np.random.default_rng(0), 5):
        network = make_network(space.architecture(tokens), (3, 16, 12), 10, SETTINGS)
        assert count_flops(network, (3, 16, 12)) == pytorchs_count(network, (3, 16, 12))


@pytest.mark.parametrize("name", ["transformation", "transformation:densenet"])
def test_costs_of_grown_networks(name: str) -> None:
    space = make_space(name)
    for tokens in space.sample(np.random.default_rng(0), 5):
        layers = space.network(tokens)
        network = LayerNetwork(layers, (1, 16, 16), 10)
        assert count_flops(network, (1, 16, 16)) == pytorchs_count(network, (1, 16, 16))
        assert count_parameters(network) == layers.parameters((1, 16, 16), 10)


def test_an_empty_cell_by_hand() -> None:
    network = make_network(BENCH.architecture([0] * 6), (1, 8, 8), 10, NetworkSettings(channels=4, reductions=0))
    stem, head = 9 * 4, 4 * 10
    assert count_flops(network, (1, 8, 8)) == 2 * (stem * 64 + head)
    assert count_parameters(network) == stem + 2 * 4 + 2 * 4 + head + 10  # two batch norms, the head's biases


def test_a_chain_by_hand() -> None:
    """Its convolutions are no modules of their own: their weights are parts of larger ones."""
    space = make_space({"name": "chain", "layers": 2, "heights": (3,), "widths": (5,), "filters": (24,)})
    skip = space.columns["layer_1/skip_0"]
    tokens = np.zeros(space.length, dtype=np.int64)
    tokens[skip] = 1  # the second layer reads the first alone
    settings = NetworkSettings(channels=PAPER_CHANNELS, reductions=0)
    network = make_network(space.architecture(tokens), (2, 8, 6), 10, settings)
    assert count_flops(network, (2, 8, 6)) == 2 * (8 * 6 * (15 * 2 * 24 + 15 * 24 * 24) + 24 * 10)


def test_the_auxiliary_classifier_does_not_count() -> None:
    space = make_space("cell:darts")
    architecture = space.architecture(space.sample(np.random.default_rng(0), 1)[0])
    plain, auxiliary = (
        make_network(architecture, (1, 8, 8), 10, NetworkSettings(4, 1, 2, auxiliary=given)) for given in (False, True)
    )
    assert count_parameters(auxiliary) == count_parameters(plain)
    assert count_flops(auxiliary.train(), (1, 8, 8)) == count_flops(plain, (1, 8, 8))


def test_measuring_leaves_the_network_alone() -> None:
    network = make_network(BENCH.architecture([3] * 6), (1, 8, 8), 10, SETTINGS).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    count_flops(network, (1, 8, 8))
    assert measure_latency(network, (1, 8, 8)) > 0
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


# ------------------------------------------------------------------ latency


class Slow(nn.Module):
    """A network that notes how it is called, and whose forwards take the seconds that it is given, by its own clock."""

    def __init__(self, seconds: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seconds, self.now = iter(seconds), 0.0
        self.calls: list[tuple[tuple[int, ...], int, bool, bool]] = []
        self.events: list[str] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        shape = tuple(images.shape)
        self.calls.append((shape, torch.get_num_threads(), self.training, torch.is_grad_enabled()))
        self.events.append("forward")
        self.now += next(self.seconds)
        return images

    def clock(self) -> float:
        self.events.append("clock")
        return self.now


def test_latency_is_the_median_after_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    network, threads = Slow([20.0, 20.0, 2.0, 1.0, 15.0]), torch.get_num_threads() + 1
    monkeypatch.setattr(costs.time, "perf_counter", network.clock)
    settings = LatencySettings(batch_size=5, threads=threads, warmup=2, repeats=3)
    assert measure_latency(network, (1, 2, 3), settings) == 2
    assert network.calls == [((5, 1, 2, 3), threads, False, False)] * 5
    assert torch.get_num_threads() == threads - 1
    assert network.training


def test_the_device_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA a call returns before the work is done: the clock is read behind a synchronisation only."""
    network = Slow([1.0, 3.0])
    monkeypatch.setattr(costs.time, "perf_counter", network.clock)
    monkeypatch.setattr(costs, "_synchronise", lambda device: network.events.append("wait"))
    assert measure_latency(network, (1, 1, 1), LatencySettings(warmup=1, repeats=1)) == 3
    assert network.events == ["wait", "clock", "forward", "wait", "clock"] * 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_latency_on_cuda() -> None:
    network = nn.Sequential(*[nn.Conv2d(64, 64, 3, padding=1) for _ in range(20)]).cuda()
    small, large = (measure_latency(network, (64, 64, 64), LatencySettings(batch_size=n, repeats=5)) for n in (1, 256))
    assert large > 20 * small, "what is measured is the work, not its launch"


@pytest.mark.parametrize("field", [{"batch_size": 0}, {"repeats": 1.5}, {"threads": 0}, {"warmup": -1}])
def test_latency_settings_out_of_range(field: dict[str, Any]) -> None:
    (name,) = field
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least"):
        LatencySettings(**field)


# ------------------------------------------------------------------ as metrics


class Known(FunctionEvaluator):
    """Scores by the tokens, tells a metric, fails some, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(BENCH)
        self.asked: list[np.ndarray] = []

    def evaluate(self, tokens: np.ndarray, *, fidelity: Any = None, parents: Any = None) -> Evaluations:
        self.asked.append(tokens)
        failed = tokens[:, 0] == 4
        accuracy = np.where(failed, 0.0, tokens.sum(axis=1) / 24)
        reasons = tuple("diverged" if one else "" for one in failed)
        return Evaluations(accuracy, {"epochs": tokens.sum(axis=1).astype(np.float64)}, failed, reasons)


def test_metrics_are_the_networks_own() -> None:
    evaluator = make_evaluator("shared-weights", BENCH, "digits", {**SMALL, "cost": {"latency": {"repeats": 2}}})
    assert isinstance(evaluator, CostEvaluator)
    inner: Any = evaluator.unwrapped
    tokens = BENCH.sample(np.random.default_rng(0), 6)
    found, expected = evaluator.evaluate(tokens), inner.evaluate(tokens)
    np.testing.assert_array_equal(found.accuracy, expected.accuracy)
    np.testing.assert_array_equal(found.metrics["loss"], expected.metrics["loss"])
    for row, architecture in enumerate(map(BENCH.architecture, tokens)):
        network = inner.new_network(architecture, inner.task, 0)
        assert found.metrics["parameters"][row] == sum(weights.numel() for weights in network.parameters())
        assert found.metrics["flops"][row] == pytorchs_count(network, inner.task.image_shape)
    assert set(found.metrics) == {"loss", "parameters", "flops"}


def test_an_evaluator_that_tells_parameters_is_agreed_with() -> None:
    space = make_space("transformation")
    settings = {"start_epochs": 1, "epochs": 1, "train_images": 64, "device": "cpu"}
    evaluator = make_evaluator("morphism", space, "digits", {**settings, "cost": {"metrics": ["parameters", "flops"]}})
    tokens = space.sample(np.random.default_rng(0), 2)
    told = evaluator.unwrapped.evaluate(tokens).metrics["parameters"]
    np.testing.assert_array_equal(evaluator.evaluate(tokens).metrics["parameters"], told)
    assert type(make_schedule("interleaved", evaluator)) is type(make_schedule("interleaved", evaluator.unwrapped))


def test_latency_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(1)
    monkeypatch.setattr(costs, "measure_latency", lambda *_: float(next(clock)))
    arguments = {**SMALL, "cost": {"metrics": ["latency"]}}
    evaluator = make_evaluator("shared-weights", BENCH, "digits", arguments)
    tokens = BENCH.sample(np.random.default_rng(0), 3)
    assert evaluator.evaluate(tokens[[0, 1, 0]]).metrics["latency"].tolist() == [1, 2, 1]
    assert evaluator.evaluate(tokens[[2, 1]]).metrics["latency"].tolist() == [3, 2]
    again = make_evaluator("shared-weights", BENCH, "digits", arguments)
    evaluator.update(tokens)
    again.load_state_dict(evaluator.state_dict())
    assert again.evaluate(tokens).metrics["latency"].tolist() == [1, 2, 3]
    assert again.unwrapped.steps == 1
    assert isinstance(make_schedule("interleaved", evaluator), InterleavedSchedule)


def test_what_is_over_a_limit_is_not_trained() -> None:
    class WithNetworks(Known):
        task = make_evaluator("shared-weights", BENCH, "digits", SMALL).task

        def new_network(self, architecture: Any, task: Any, seed: int) -> nn.Module:
            return nn.Linear(int(np.sum(architecture.tokens)), 1, bias=False)

    inner = WithNetworks()
    evaluator = CostEvaluator(inner, metrics=("parameters",), limits={"parameters": 7, "epochs": 4})
    tokens = np.array(
        [[1, 1, 0, 0, 0, 0], [4, 1, 0, 0, 0, 0], [3, 4, 1, 0, 0, 0], [2, 4, 0, 0, 0, 0], [4, 0, 0, 0, 0, 0]]
    )
    found = evaluator.evaluate(tokens)
    assert inner.asked[0].tolist() == tokens[[0, 1, 3, 4]].tolist(), "8 parameters are too many"
    assert found.failed.tolist() == [False, True, True, True, True]
    assert found.reasons == (
        "",
        "epochs 5 is over the limit of 4",
        "parameters 8 is over the limit of 7",
        "epochs 6 is over the limit of 4",
        "diverged",
    )
    assert found.accuracy.tolist() == [2 / 24, 0, 0, 0, 0]
    np.testing.assert_array_equal(found.metrics["parameters"], [2, 5, 8, 6, 4])
    np.testing.assert_array_equal(found.metrics["epochs"], [2, 5, np.nan, 6, 4])
    assert len(evaluator.evaluate(tokens[:0])) == 0
    assert evaluator.evaluate(tokens[[2]]).failed.all()


def test_limits_in_an_environment(tmp_path: Any) -> None:
    """On a table, which has no networks: the trial fails, with the objective's worst reward."""
    cost = {"metrics": [], "limits": {"parameters": 10}}
    arguments = {
        "table": str(curves_table(tmp_path / "table.npz")),
        "task": "curves",
        "evaluator_kwargs": {"cost": cost},
    }
    env = gym.make("NAS-Bench201-v0", **arguments)
    table = env.unwrapped.evaluator.unwrapped
    outcomes = set()
    for tokens in TABLE_SPACE.sample(np.random.default_rng(0), 30):
        env.reset()
        for choice in tokens:
            _, reward, _, _, info = env.step(choice)
        plain = table.evaluate(tokens[None])
        fits = plain.metrics["parameters"][0] <= 10
        assert info["evaluation"]["failed"] == float(not fits)
        assert info["evaluation"]["parameters"] == plain.metrics["parameters"][0]
        assert reward == (plain.accuracy[0] if fits else 0.0)
        outcomes.add(bool(fits))
    assert outcomes == {True, False}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": ["speed"]}, r"metrics must be some of parameters, flops, latency; got \['speed'\]"),
        ({"metrics": ["flops"]}, "measured on networks, of which Known has none"),
        (
            {"metrics": (), "limits": {"epochs": -1}},
            r"limits\['epochs'\] must be a number that is not negative, got -1",
        ),
        (
            {"metrics": (), "latency": {"warm": 1}},
            "latency must hold fields among batch_size, threads, warmup, repeats",
        ),
    ],
)
def test_arguments_that_are_none(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CostEvaluator(Known(), **arguments)


def test_a_limit_on_what_nobody_tells() -> None:
    evaluator = CostEvaluator(Known(), metrics=(), limits={"latency": 1.0})
    with pytest.raises(ValueError, match=r"limits are set on \['latency'\], but the metrics are epochs"):
        evaluator.evaluate(BENCH.sample(np.random.default_rng(0), 2))
    with pytest.raises(ValueError, match="cost must map some of metrics, limits, latency"):
        make_evaluator("shared-weights", BENCH, "digits", {**SMALL, "cost": {"limit": 3}})
