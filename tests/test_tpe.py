"""TPE and BOHB: densities against sums over all points, the division of the trials, and what is drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from agent_checks import answered
from scipy import stats

from nas_gym.agents import BOHB, TPE, RandomSearch
from nas_gym.agents.baselines.tpe import TPEHyperparameters, bandwidths, draw_near, log_density, split_trials
from nas_gym.envs.construction_vector import ConstructionVectorEnv
from nas_gym.evaluators import Evaluations, FunctionEvaluator
from nas_gym.spaces import Bench201Space, BenchGraphSpace, make_space

BENCH = make_space("bench201")
TINY = Bench201Space(nodes=3)  # 125 sequences
GRAPH = BenchGraphSpace(operations=("gcn", "fc", "skip"))  # all skips are illegal
CONV = BENCH.operations.index("nor_conv_3x3")


def share(tokens):
    return (tokens == CONV).mean(axis=1)


class Faithful(FunctionEvaluator):
    """Scores the same with any share of the budget."""

    fidelities = (1 / 9, 1 / 3, 1.0)

    def evaluate(self, tokens, *, fidelity=None, parents=None):
        seconds = np.full(len(tokens), 1.0 if fidelity is None else fidelity)
        return Evaluations(self.function(tokens), {"seconds": seconds})


def native(num_envs: int = 1, space=BENCH) -> ConstructionVectorEnv:
    return ConstructionVectorEnv(num_envs, space=space, evaluator=Faithful(space, share))


# ------------------------------------------------------------------ densities


def density(points: np.ndarray, tokens: np.ndarray, choices: list[int]) -> float:
    """By the formulas, one number at a time."""
    n, length = points.shape
    total = 0.0
    for point in points:
        product = 1.0
        for position, c in enumerate(choices):
            shares = [np.mean(points[:, position] == k) for k in range(c)]
            deviation = math.sqrt((1 - sum(share * share for share in shares)) / 2)
            width = min(max(1.06 * deviation * n ** (-1 / (4 + length)), 1e-3), (c - 1) / c)
            product *= 1 - width if tokens[position] == point[position] else width / (c - 1)
        total += product / n
    return total


@pytest.mark.parametrize("space", [BENCH, make_space("bench_graph")], ids=["bench201", "bench_graph"])
def test_the_ratio_of_the_densities_is_that_of_sums_over_all_points(space) -> None:
    rng = np.random.default_rng(0)
    good, others, tokens = (space.sample(rng, n) for n in (7, 30, 20))
    good[:, 0] = good[0, 0]  # a decision that all agree on
    choices = space.choice_counts.tolist()
    found = np.exp(log_density(space, good, tokens) - log_density(space, others, tokens))
    expected = [density(good, row, choices) / density(others, row, choices) for row in tokens]
    np.testing.assert_allclose(found, expected)


def test_a_density_sums_to_one() -> None:
    points = TINY.sample(np.random.default_rng(1), 5)
    assert np.exp(log_density(TINY, points, TINY.enumerate())).sum() == pytest.approx(1)


def test_candidates_are_drawn_from_the_density() -> None:
    points = TINY.sample(np.random.default_rng(1), 5)
    drawn = draw_near(TINY, points, 20_000, np.random.default_rng(2))
    expected = 20_000 * np.exp(log_density(TINY, points, TINY.enumerate()))
    assert stats.chisquare(np.bincount(TINY.index(drawn), minlength=125), expected).pvalue > 1e-3


def test_a_wider_density_is_at_most_uniform() -> None:
    points = TINY.sample(np.random.default_rng(1), 5)
    drawn = draw_near(TINY, points, 20_000, np.random.default_rng(2), factor=100.0)
    constant = np.repeat(points[:1], 5, axis=0)  # no deviation: a bandwidth of 1e-3, times 100
    assert stats.chisquare(np.bincount(TINY.index(drawn), minlength=125)).pvalue > 1e-3
    near = draw_near(TINY, constant, 4000, np.random.default_rng(2), factor=100.0)
    np.testing.assert_allclose((near != points[0]).mean(axis=0), 0.1, atol=0.02)
    assert bandwidths(TINY, constant).tolist() == [1e-3] * 3


@pytest.mark.parametrize("space", [GRAPH, make_space("cell:darts"), make_space("chain:stop")])
def test_candidates_are_legal(space) -> None:
    rng = np.random.default_rng(0)
    for factor in (0.3, 1.0, 10.0):
        space.check(draw_near(space, space.sample(rng, 6), 50, rng, factor))


# ------------------------------------------------------------------ what is proposed


def test_the_division_of_the_trials() -> None:
    settings = TPEHyperparameters()
    assert split_trials(np.arange(13.0), 6, settings) is None
    good, others = split_trials(np.arange(14.0), 6, settings)
    assert (good.tolist(), others.tolist()) == ([13, 12, 11, 10, 9, 8, 7], [6, 5, 4, 3, 2, 1, 0])
    good, others = split_trials(np.arange(100.0), 6, settings)
    assert good.tolist() == list(range(99, 84, -1))
    assert len(others) == 85


def test_the_candidate_of_the_largest_ratio_is_proposed() -> None:
    agent = TPE(native(), 0, {"candidates": 4000, "bandwidth_factor": 100.0, "random_share": 0.0})
    rng = np.random.default_rng(0)
    proposal = agent.ask(40)
    rewards = rng.random(40)
    agent.tell(answered(proposal, rewards))
    good, others = (proposal.tokens[part] for part in split_trials(rewards, 6, agent.hyperparameters))
    ratio = lambda tokens: log_density(BENCH, good, tokens) - log_density(BENCH, others, tokens)  # noqa: E731
    tried = {row.tobytes() for row in proposal.tokens}
    untried = np.array([row for row in BENCH.enumerate() if row.tobytes() not in tried])
    # Of 15,625 a random quarter are candidates: the best of these is hardly ever below the best hundredth of all.
    assert ratio(agent.ask(1).tokens)[0] > np.quantile(ratio(untried), 0.99)


@pytest.mark.parametrize("made", [TPE, BOHB])
def test_it_finds_more_than_random_search(made) -> None:
    def mean(agent) -> float:
        return float(np.mean([agent(native(), seed).learn(120).rewards[60:].mean() for seed in range(5)]))

    assert mean(made) > mean(RandomSearch) + 0.1


def test_nothing_is_proposed_twice() -> None:
    assert TPE(native(), 0).learn(150).unique_architectures == 150
    result = TPE(native(space=TINY), 0).learn(140)
    assert result.unique_architectures > 100, "and then again"


def test_brackets_begin_with_what_the_largest_sound_budget_says() -> None:
    agent = BOHB(native(9), 0, {"min_points": 3, "candidates": 64, "random_share": 0.0})
    rungs = [rung for _, rung in agent.rungs]
    assert rungs == [9, 3, 1]
    for bracket in range(1, 8):
        for n in rungs:
            proposal = agent.ask(n)
            agent.tell(answered(proposal, share(proposal.tokens)))
        assert [len(told[1]) for told in agent._told] == [n * bracket for n in rungs]
    first = agent._told[0][0]
    assert len(np.unique(first, axis=0)) == len(first)
    assert share(first[-18:]).mean() > share(first[:9]).mean() + 0.15


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"candidates": 0}, "candidates must be at least 1, got 0"),
        ({"random_share": 1.5}, r"random_share must be in \[0, 1\], got 1.5"),
        ({"bandwidth_factor": 0.0}, "bandwidth_factor must be positive, got 0"),
        ({"good_share": 1.0}, r"good_share must be in \(0, 1\), got 1"),
        ({"min_points": 0}, "min_points must be at least 1, or None, got 0"),
    ],
)
def test_settings(wrong, message) -> None:
    for made in (TPE, BOHB):
        with pytest.raises(ValueError, match=message):
            made(native(), 0, wrong)
    with pytest.raises(ValueError, match="eta must be an integer of at least 2, got 1"):
        BOHB(native(), 0, {"eta": 1})
