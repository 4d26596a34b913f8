"""NSGA-II: its sorting and crowding against brute force, who survives, and fronts that grow."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from agent_checks import answered, foreign
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from nas_gym.agents import NSGA2, Agent, RandomSearch, SearchResult
from nas_gym.agents.evolution.nsga2 import crowded_order, crowding_distances, fronts
from nas_gym.agents.pareto import hypervolume
from nas_gym.envs.construction_vector import ConstructionVectorEnv
from nas_gym.evaluators import Evaluations, FunctionEvaluator
from nas_gym.spaces import make_space

BENCH = make_space("bench201")
VECTOR = {"name": "vector", "weights": {"accuracy": 1.0, "parameters": -1e-6}, "worst": (0.0, -10.0)}

# Few values, so that columns tie and points are equal.
clouds = st.tuples(st.integers(1, 12), st.integers(1, 3)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.integers(-2, 4).map(float))
)


class Weighed(FunctionEvaluator):
    """Scores by the sum of the tokens, which weighs as much: all that do not waste weight are on the front."""

    def __init__(self) -> None:
        super().__init__(BENCH, lambda tokens: np.minimum(tokens[:, :3].sum(axis=1) / 12, 1.0))

    def evaluate(self, tokens, *, fidelity=None, parents=None):
        accuracy = super().evaluate(tokens).accuracy
        return Evaluations(accuracy, {"parameters": 1e6 * tokens.sum(axis=1) / 24})


def weighed(num_envs: int = 1) -> ConstructionVectorEnv:
    return ConstructionVectorEnv(num_envs, space=BENCH, evaluator=Weighed(), objective=VECTOR)


def dominates(one: np.ndarray, other: np.ndarray) -> bool:
    return bool((one >= other).all() and (one > other).any())


@settings(max_examples=150, deadline=None)
@given(clouds)
def test_fronts_are_peeled_off_one_by_one(points: np.ndarray) -> None:
    found, left, front = fronts(points), set(range(len(points))), 0
    while left:
        best = {row for row in left if not any(dominates(points[other], points[row]) for other in left)}
        assert {row for row in range(len(points)) if found[row] == front} == best
        left, front = left - best, front + 1


def crowding(points: np.ndarray) -> np.ndarray:
    """By the definition, for points that all differ in every column."""
    distances = np.zeros(len(points))
    for column in points.T:
        for row, value in enumerate(column):
            below, above = column[column < value], column[column > value]
            if not len(below) or not len(above):
                distances[row] = np.inf
            else:
                distances[row] += (above.min() - below.max()) / (column.max() - column.min())
    return distances


def test_crowding_distances() -> None:
    rng = np.random.default_rng(0)
    for n in range(1, 9):
        points = rng.normal(size=(n, 3))
        np.testing.assert_allclose(crowding_distances(points), crowding(points) if n > 1 else 0.0)
    line = np.array([[0.0, 4.0], [1.0, 3.0], [4.0, 0.0]])
    assert crowding_distances(line).tolist() == [np.inf, 2.0, np.inf]
    assert crowding_distances(np.ones((3, 2))).tolist() == [0.0, 0.0, 0.0]


@settings(max_examples=50, deadline=None)
@given(clouds)
def test_the_order_is_by_front_and_then_by_crowding(points: np.ndarray) -> None:
    order, front = crowded_order(points), fronts(points)
    assert sorted(order.tolist()) == list(range(len(points)))
    assert (np.diff(front[order]) >= 0).all()
    for number in set(front.tolist()):
        members = np.flatnonzero(front == number)
        distances = dict(zip(members.tolist(), crowding_distances(points[members]), strict=True))
        ordered = [distances[row] for row in order.tolist() if front[row] == number]
        assert ordered == sorted(ordered, reverse=True)


def test_parents_stay_until_a_generation_is_complete_and_the_first_of_all_survive() -> None:
    agent = NSGA2(weighed(), 0, {"population_size": 6, "generation_size": 4})
    first = agent.ask(6)
    rng = np.random.default_rng(0)
    agent.tell(answered(first, rng.normal(size=(6, 2))))
    points, tokens = agent._rewards.copy(), first.tokens
    for _ in range(3):
        for wait in range(4):
            assert len(agent._population) == 6 + wait
            child, reward = agent.ask(1), rng.normal(size=(1, 2))
            agent.tell(answered(child, reward))
            points, tokens = np.concatenate([points, reward]), np.concatenate([tokens, child.tokens])
        survivors = crowded_order(points)[:6]
        points, tokens = points[survivors], tokens[survivors]
        np.testing.assert_array_equal(agent._population, tokens)
        np.testing.assert_array_equal(agent._rewards, points)


def test_binary_tournaments() -> None:
    """Of pairs of five, member k of the crowded order wins with the chance (4 - k) / 10."""
    settings = {"population_size": 5, "generation_size": 5, "crossover_probability": 0.0}
    agent = NSGA2(weighed(), 0, settings)
    members = np.array([[k] * 6 for k in range(5)])
    agent.ask(5)
    agent.tell(foreign(members, np.array([[0.0, 4.0], [1.0, 3.0], [4.0, 0.0], [0.0, 2.0], [0.0, 1.0]])))
    winners = agent._winners(3000)[:, 0]
    # The ends of the first front come before its middle, and that before the fronts behind it.
    expected = np.array([0.4, 0.2, 0.3, 0.1, 0.0])
    assert stats.chisquare(np.bincount(winners, minlength=5)[:4], 3000 * expected[:4]).pvalue > 1e-3
    child = agent.ask(1).tokens[0]
    assert (members != child).sum(axis=1).min() == 1


def test_nothing_is_proposed_twice_while_mutants_are_left() -> None:
    result = NSGA2(weighed(), 1, {"population_size": 10, "generation_size": 1}).learn(300)
    assert len(result) - result.unique_architectures <= 10, "the first population is drawn with repetition"


@pytest.mark.parametrize("generation", [1, 10])
def test_the_front_grows_beyond_that_of_random_search(generation: int) -> None:
    def volume(result: SearchResult) -> float:
        return hypervolume(np.column_stack([result.metrics["accuracy"], -result.metrics["parameters"]]), [0, -1.1e6])

    found, random = [], []
    for seed in range(4):
        agent = NSGA2(weighed(), seed, {"population_size": 10, "generation_size": generation})
        assert volume(agent.learn(30)) <= volume(agent.learn(120))
        found.append(volume(agent.result))
        env = ConstructionVectorEnv(1, space=BENCH, evaluator=Weighed())
        random.append(volume(RandomSearch(env, seed).learn(150)))
    assert np.median(found) > max(random)


def test_the_hypervolume_on_a_table() -> None:
    """Accuracy against parameters of NAS-Bench-201's cells."""
    env = gym.make("NAS-Bench201-v0", objective=VECTOR, disable_env_checker=True)
    agent, volumes = NSGA2(env, 0), []
    for _ in range(3):
        result = agent.learn(50)
        points = np.column_stack([result.metrics["accuracy"], -result.metrics["parameters"]])
        volumes.append(hypervolume(points, [0.5, -2e6]))
    assert volumes == sorted(volumes)
    assert volumes[2] > volumes[0] > 0


@pytest.mark.parametrize("trials", [0, 4, 23])
def test_vector_rewards_are_saved(trials: int, tmp_path) -> None:
    agent = NSGA2(weighed(3), 2, {"population_size": 5, "generation_size": 4})
    agent.learn(trials)
    agent.save(tmp_path / "agent.pt")
    read = Agent.load(tmp_path / "agent.pt", weighed(3))
    np.testing.assert_array_equal(read.learn(20).tokens, agent.learn(20).tokens)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"population_size": 1}, "population_size must be an integer of at least 2, got 1"),
        ({"crossover_probability": 1.5}, r"crossover_probability must be in \[0, 1\], got 1.5"),
        ({"generation_size": 0}, "generation_size must be an integer of at least 1, got 0"),
    ],
)
def test_settings(wrong, message) -> None:
    with pytest.raises(ValueError, match=message):
        NSGA2(weighed(), 0, wrong)
