"""Agents that descend the gradient of a mixture: their draws, their remedies, and the loop that they share."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from scipy import integrate, stats

from nas_gym.agents import Callback, agent_class, make_agent
from nas_gym.agents.differentiable.agent import DifferentiableAgent, RelaxedAgent, as_array
from nas_gym.agents.differentiable.darts import DARTS
from nas_gym.agents.differentiable.early_stopping import LAG, EarlyStopping, largest_eigenvalue
from nas_gym.agents.differentiable.selection import by_removal
from nas_gym.agents.differentiable.snas import concrete
from nas_gym.evaluators.relaxed import RelaxedEvaluator
from nas_gym.spaces import make_space
from nas_gym.spaces.edges import edges_of

torch.set_num_threads(1)
BENCH = make_space("bench201")
NAMES = ("darts", "drnas", "gdas", "rsps", "snas")
TINY = {"channels": 4, "batch_size": 16, "score_images": 40, "task_kwargs": {"train_limit": 101, "valid_limit": 40}}


SMALL = {
    "name": "cell",
    "nodes": 2,
    "operations": ["sep_conv_3x3", "skip_connect"],
    "distinct_inputs": True,
    "output": "all",
}


def make(name: str, seed: int = 0, space: Any = "bench201", **hyperparameters: Any) -> Any:
    env = gym.make(
        "NAS-Bench201-v0" if space == "bench201" else "NAS-Cell-v0",
        space=space,
        evaluator="relaxed",
        task="digits",
        evaluator_kwargs=TINY,
        disable_env_checker=True,
    )
    settings = {"steps_per_trial": 2, "horizon": 4, **({"candidates": 3} if name == "rsps" else {}), **hyperparameters}
    return make_agent(name, env, seed, settings)


class Toy:
    """In the place of the evaluator: the loss is linear in the mixture, or what `loss` makes of it."""

    edges = edges_of(BENCH)
    steps_per_epoch = 5

    def __init__(self, costs: np.ndarray) -> None:
        self.costs, self.trained = costs, list[np.ndarray]()

    def mixture_gradient(self, mixture: np.ndarray, half: str = "held-out", *, unrolled: bool = False) -> Any:
        return float((mixture * self.costs).sum()), self.costs.copy()

    def relaxed_step(self, mixture: np.ndarray) -> Any:
        self.trained.append(mixture)
        return {"weights/loss": 0.0}, self.costs.copy()

    def relaxed_losses(self, mixtures: np.ndarray) -> np.ndarray:
        return (mixtures * self.costs).sum(axis=(1, 2))


def on_toy(name: str, costs: np.ndarray, seed: int = 0, **hyperparameters: Any) -> Any:
    agent = make(name, seed, **{"learning_rate": 0.1, "weight_decay": 0.0, **hyperparameters})
    agent.evaluator = Toy(costs)
    return agent


COSTS = np.random.default_rng(7).permuted(np.tile(np.linspace(0.0, 1.0, 5), (6, 1)), axis=1)
CHEAPEST = COSTS.argmin(axis=1)

# ------------------------------------------------------------------ what every one of them does


@pytest.mark.slow
@pytest.mark.parametrize("space", ["bench201", SMALL], ids=["bench201", "cell"])
@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_search(name, space) -> None:
    first, second, other = (make(name, seed, space).learn(3) for seed in (0, 0, 1))
    assert (first.tokens == second.tokens).all()
    assert (first.rewards == second.rewards).all()
    assert (first.rewards != other.rewards).any()
    first.space.check(first.tokens)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [(name, {}) for name in NAMES] + [("darts", {"order": 2}), ("darts", {"early_stopping": True, "horizon": 20})],
)
def test_a_state_holds_everything(name, settings, monkeypatch) -> None:
    """In the middle of an epoch, too."""
    monkeypatch.setattr(DARTS, "_largest_eigenvalue", lambda agent: float(agent.epoch))
    whole = make(name, **settings)
    whole.learn(2)
    next(whole.prepare())
    state, weights = whole.state_dict(), whole.evaluator.state_dict()
    resumed = make(name, 5, **settings)
    resumed.load_state_dict(state)
    resumed.evaluator.load_state_dict(weights)
    assert (whole.learn(2).rewards == resumed.learn(2).rewards).all()


@pytest.mark.parametrize("name", NAMES)
def test_tables_are_refused(name) -> None:
    with pytest.raises(ValueError, match=rf"agent '{name}' trains a relaxed network itself.* got TabularEvaluator"):
        make_agent(name, "NAS-Bench201-v0")


def test_other_agents_refuse_weights_that_nobody_trains() -> None:
    env = gym.make("NAS-Bench201-v0", evaluator="relaxed", task="digits", evaluator_kwargs=TINY)
    with pytest.raises(ValueError, match=r"differentiable agents alone.*'reinforce' plays.*'shared-weights'"):
        make_agent("reinforce", env)


def test_an_epoch_goes_before_each_trial() -> None:
    """Steps of a run's callback count; what it has left is done by `ask`."""
    agent = make("darts", steps_per_trial=3)

    class Two(Callback):
        pending: ClassVar[list[float]] = []

        def before_trials(self, agent: Any) -> None:
            for _, statistics in zip(range(2), agent.prepare(), strict=False):
                self.pending.append(statistics["pending_steps"])

    agent.learn(2, Two())
    assert Two.pending == [2.0, 1.0, 2.0, 1.0]
    assert agent.evaluator.steps == 6
    assert agent.evaluator.planned_steps == 12


def test_strengths_are_logged_by_edge_and_operation() -> None:
    agent = make("darts")
    logged = agent.tell(None)
    assert len(logged) == 30
    assert logged["mixture/edge_0_3/avg_pool_3x3"] == agent.strengths()[3, 4]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "rsps"])
def test_it_finds_what_is_cheapest(name) -> None:
    agent = on_toy(name, COSTS, steps_per_trial=150)
    for _ in agent.prepare():
        pass
    assert (agent.derive() == CHEAPEST).all()


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    agent = on_toy("darts", np.full((6, 5), np.nan))
    before = as_array(agent.parameters)
    agent.train()
    assert (as_array(agent.parameters) == before).all()


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("darts", {"order": 3}, "order must be 1 or 2, got 3"),
        ("darts", {"perturbation": "some"}, "perturbation must be None or one of random, adversarial, got 'some'"),
        ("darts", {"fair": 1}, "fair must be true or false, got 1"),
        ("darts", {"max_skips": -1}, "max_skips must be an integer, not negative, or None, got -1"),
        ("darts", {"selection": "luck"}, "selection must be one of strength, removal, got 'luck'"),
        ("darts", {"steps_per_trial": 0}, "steps_per_trial must be a positive integer, or None, got 0"),
        ("snas", {"final_temperature": 0.0}, "final_temperature must be positive, got 0.0"),
        ("gdas", {"temperature": float("inf")}, "temperature must be positive, got inf"),
        ("rsps", {"candidates": 0}, "candidates must be a positive integer, got 0"),
    ],
)
def test_settings_are_checked(name, setting, message) -> None:
    with pytest.raises(ValueError, match=message):
        agent_class(name).Hyperparameters(**setting)


# ------------------------------------------------------------------ DARTS


def test_a_step_of_first_order_by_hand() -> None:
    """Adam's first step is the learning rate against the gradient's sign, by the softmax's derivative."""
    agent = on_toy("darts", COSTS, initial_deviation=0.5)
    before, weights = as_array(agent.parameters), as_array(agent.mixture())
    agent.train()
    gradient = weights * (COSTS - (weights * COSTS).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(as_array(agent.parameters), before - 0.1 * np.sign(gradient), atol=1e-6)
    (trained,) = agent.evaluator.trained
    np.testing.assert_allclose(trained, as_array(agent.mixture()))


def test_second_order_asks_for_the_unrolled_gradient() -> None:
    asked = []
    agent = on_toy("darts", COSTS, order=2)
    plain = agent.evaluator.mixture_gradient
    agent.evaluator.mixture_gradient = lambda mixture, **given: asked.append(given) or plain(mixture)
    agent.train()
    assert asked == [{"unrolled": True}]


def test_fair_operations_do_not_compete() -> None:
    """Each descends its own cost alone; the zero-one loss drives what costs nothing away from 1/2."""
    agent = on_toy("darts", np.where(COSTS > 0.5, 1.0, -1.0), fair=True, fair_weight=0.0)
    for _ in range(100):
        agent.train()
    assert ((agent.strengths() > 0.9) == (COSTS <= 0.5)).all()
    idle = on_toy("darts", np.zeros((6, 5)), fair=True, initial_deviation=0.1)
    side = as_array(idle.parameters) > 0
    for _ in range(100):
        idle.train()
    assert ((idle.strengths() > 0.9) == side).all()
    assert ((idle.strengths() < 0.1) == ~side).all()


@pytest.mark.parametrize("kind", ["random", "adversarial"])
def test_perturbations_stay_in_their_box(kind) -> None:
    agent = on_toy("darts", COSTS - 0.55, perturbation=kind, horizon=10)
    for epoch, size in ((0, 0.03), (5, 0.165), (10, 0.3), (12, 0.3)):
        agent.epoch = epoch
        agent.evaluator.trained.clear()
        agent.train()
        change = agent.evaluator.trained[0] - agent.strengths()
        assert np.abs(change).max() <= size + 1e-12
        assert np.abs(change).max() > 0.8 * size
        if kind == "adversarial":  # the worst corner of the box
            np.testing.assert_allclose(change, size * np.sign(agent.evaluator.costs))


def test_early_stopping_takes_the_cell_from_before_the_rise() -> None:
    stopping, cells = EarlyStopping(), [np.full(6, k % 5) for k in range(30)]
    for epoch in range(12):
        stopping.add(1.0 + 0.01 * epoch, cells[epoch])
        assert stopping.cell is None
    epoch = 12
    while stopping.cell is None:
        stopping.add(1.6, cells[epoch])
        epoch += 1
    # By hand: the mean of five exceeds 1.3 times that of the five that ended four before.
    series = [1.0 + 0.01 * k for k in range(12)] + [1.6] * 20
    first = next(k for k in range(10, 30) if np.mean(series[k - 5 : k]) > 1.3 * np.mean(series[k - 9 : k - 4]))
    assert epoch == first
    assert stopping.cell is cells[epoch - 1 - LAG]
    again = EarlyStopping()
    again.load_state_dict(stopping.state_dict())
    assert (again.cell == stopping.cell).all()


def test_a_stopped_search_trains_no_more() -> None:
    agent = on_toy("darts", COSTS, early_stopping=True)
    values = iter([1.0] * 9 + [9.0] * 9)
    agent._largest_eigenvalue = lambda: next(values)
    tokens = agent.ask(14).tokens
    assert len(agent.evaluator.trained) == 2 * 10
    assert (tokens[9:] == tokens[9]).all()
    assert (tokens[9] == tokens[5]).all()


@pytest.mark.parametrize("size", [3, 30])
def test_the_largest_eigenvalue_of_a_quadratic(size) -> None:
    matrix = np.random.default_rng(0).normal(size=(size, size))
    hessian = matrix + matrix.T
    found = largest_eigenvalue(lambda x: hessian @ x, size)
    assert found == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=0.02)


@pytest.mark.parametrize("fair", [False, True])
def test_the_curvature_of_the_network_by_its_whole_hessian(fair) -> None:
    agent = make("darts", initial_deviation=0.3, fair=fair)
    network = agent.evaluator.supernet.double()
    batch = agent.evaluator._next_batch("held-out")
    inputs = agent.evaluator.task.inputs(batch).double()

    def loss(parameters: torch.Tensor) -> torch.Tensor:
        mixture = torch.sigmoid(parameters) if fair else torch.softmax(parameters, dim=1)
        return agent.evaluator.task.loss(network(inputs, mixture[None])[0], batch.targets)

    hessian = torch.autograd.functional.hessian(loss, agent.parameters.detach()).reshape(30, 30)
    expected = float(torch.linalg.eigvalsh(hessian)[-1])
    network.float()
    assert agent._largest_eigenvalue() == pytest.approx(expected, rel=0.02)


def test_removal_costs_what_an_operation_is_worth() -> None:
    """With a loss that is a product over edges, by brute force; the strongest weight is not what counts."""
    rng = np.random.default_rng(0)
    value, mixture = rng.random((6, 5)), rng.dirichlet(np.ones(5), 6)

    class Products:
        def relaxed_losses(self, mixtures: np.ndarray) -> np.ndarray:
            return -np.prod((mixtures * value).sum(axis=2), axis=1)

    costs = by_removal(Products(), mixture, rng)  # type: ignore[arg-type]
    assert (costs.argmax(axis=1) == (mixture * value).argmax(axis=1)).all()
    agent = on_toy("darts", -value, selection="removal")
    assert (agent.derive() == (as_array(agent.mixture()) * value).argmax(axis=1)).all()


def test_few_skips() -> None:
    costs = np.ones((6, 5))
    costs[:, BENCH.operations.index("skip_connect")] = 0.0
    agent = on_toy("darts", costs, max_skips=2, steps_per_trial=30)
    for _ in agent.prepare():
        pass
    assert (agent.derive() == 1).sum() == 2


# ------------------------------------------------------------------ SNAS


@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_the_largest_entry_is_a_draw_from_the_weights(temperature) -> None:
    """Maddison et al. 2017, proposition 1, at any temperature: chi-square."""
    weights, draws = np.array([0.5, 0.3, 0.15, 0.05]), 20_000
    noise = torch.from_numpy(np.random.default_rng(0).gumbel(size=(draws, 4)))
    largest = concrete(torch.from_numpy(np.log(weights)), noise, temperature).argmax(dim=1)
    counts = np.bincount(largest.numpy(), minlength=4)
    assert stats.chisquare(counts, draws * weights).pvalue > 0.01


def density(z: float, weights: tuple[float, float], temperature: float) -> float:
    """Of the concrete distribution with two operations at (z, 1 - z): Xie et al. 2019, section 2.2."""
    parts = [a * x ** (-temperature - 1) for a, x in zip(weights, (z, 1 - z), strict=True)]
    total = sum(a * x**-temperature for a, x in zip(weights, (z, 1 - z), strict=True))
    return temperature * parts[0] * parts[1] / total**2


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0])
def test_samples_have_the_density(temperature) -> None:
    weights = (0.7, 0.3)
    assert integrate.quad(density, 0, 1, (weights, temperature))[0] == pytest.approx(1.0, abs=1e-6)
    noise = torch.from_numpy(np.random.default_rng(1).gumbel(size=(4000, 2)))
    drawn = concrete(torch.tensor(weights).double().log(), noise, temperature)[:, 0].numpy()
    grid = np.linspace(1e-4, 1 - 1e-4, 400)
    mass = integrate.cumulative_trapezoid([density(z, weights, temperature) for z in grid], grid, initial=0)
    assert stats.kstest(drawn, lambda z: np.interp(z, grid, mass)).pvalue > 0.01


def test_at_low_temperature_the_gradient_is_that_of_the_draws() -> None:
    """Of the mean cost of a draw, which the score function estimates without bias: here in closed form."""
    costs = torch.tensor([1.0, 0.2, 0.6], dtype=torch.float64)
    logits = torch.tensor([0.4, -0.3, 0.1], dtype=torch.float64, requires_grad=True)
    noise = torch.from_numpy(np.random.default_rng(2).gumbel(size=(400_000, 3)))
    (found,) = torch.autograd.grad((concrete(logits, noise, 0.03) * costs).sum(dim=1).mean(), logits)
    (expected,) = torch.autograd.grad((torch.softmax(logits, dim=0) * costs).sum(), logits)
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0)


def test_snas_takes_one_step_for_both() -> None:
    """The mixture that the weights learn under is the one whose gradient the parameters descend."""
    agent = on_toy("snas", COSTS)
    agent.evaluator.mixture_gradient = None
    agent.train()
    assert len(agent.evaluator.trained) == 1


def test_a_large_weight_of_resources_picks_the_cheapest() -> None:
    agent = make("snas", resource_weight=100.0, learning_rate=0.5, steps_per_trial=12)
    assert (agent.learn(1).tokens[-1] < 5).all()
    flops = agent.evaluator.edge_flops()
    chosen = flops[np.arange(6), agent.result.tokens[-1]]
    assert (chosen == 0).all()
    assert (flops > 0).any(axis=1).all()


def test_the_temperature_falls_linearly() -> None:
    agent = on_toy("snas", COSTS, horizon=4)
    found = []
    for agent.epoch in range(6):
        found.append(agent.temperature)
    np.testing.assert_allclose(found, [1.0, 0.7575, 0.515, 0.2725, 0.03, 0.03])


# ------------------------------------------------------------------ GDAS, DrNAS, RSPS


def test_gdas_runs_one_operation_an_edge() -> None:
    agent = on_toy("gdas", COSTS, initial_deviation=1.0)
    counts = np.zeros((6, 5))
    for _ in range(1000):
        mixture = as_array(agent.mixture())
        assert (np.sort(mixture, axis=1) == [0, 0, 0, 0, 1]).all()
        counts += mixture
    for row, weights in zip(counts, agent.strengths(), strict=True):
        assert stats.chisquare(row, 1000 * weights).pvalue > 0.001


def test_the_gradient_of_gdas_is_that_of_the_softened_draw() -> None:
    agent = on_toy("gdas", COSTS, temperature=0.8, horizon=1000)
    state = agent.rng.bit_generator.state
    hard = agent.mixture()
    agent.rng.bit_generator.state = state
    soft = concrete(agent.parameters, agent.gumbel(), 0.8)
    drawn = hard.detach() > 0
    (found,) = torch.autograd.grad(hard[drawn].sum(), agent.parameters)
    (expected,) = torch.autograd.grad(soft[drawn].sum(), agent.parameters)
    torch.testing.assert_close(found, expected)


def test_drnas_draws_from_dirichlet_distributions() -> None:
    agent = on_toy("drnas", COSTS, initial_deviation=1.0)
    before = torch.random.get_rng_state()
    drawn = np.mean([as_array(agent.mixture()) for _ in range(1000)], axis=0)
    assert torch.equal(torch.random.get_rng_state(), before)
    parameters = as_array(agent.parameters)
    concentrations = np.where(parameters > 0, parameters + 1, np.exp(parameters))
    expected = concentrations / concentrations.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(drawn.sum(axis=1), 1.0)
    np.testing.assert_allclose(drawn, expected, atol=0.04)


def test_rsps_trains_single_paths_and_takes_the_best_of_random_cells() -> None:
    agent = make("rsps", candidates=40)
    agent.evaluator = Toy(COSTS)
    for _ in agent.prepare():
        pass
    assert all(set(np.unique(mixture)) == {0.0, 1.0} for mixture in agent.evaluator.trained)
    state = agent.rng.bit_generator.state
    found = agent.derive()
    agent.rng.bit_generator.state = state
    drawn = BENCH.sample(agent.rng, 40)
    costs = COSTS[np.arange(6), drawn].sum(axis=1)
    assert (found == drawn[costs.argmin()]).all()


def test_the_agents_are_of_their_kinds() -> None:
    for name in NAMES:
        made = agent_class(name)
        assert issubclass(made, RelaxedAgent)
        assert issubclass(made, DifferentiableAgent) == (name != "rsps")
    assert RelaxedEvaluator.relaxed
