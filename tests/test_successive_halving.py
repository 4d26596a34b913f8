"""Successive halving: which architectures are tried with which budget, given what was told."""

from __future__ import annotations

from collections import Counter

import gymnasium as gym
import numpy as np
import pytest
from agent_checks import answered, foreign
from fidelity_checks import TABLE_SPACE, CurvesEvaluator, curves_table

from nas_gym.agents import Proposal, RandomSearch, SearchResult, SuccessiveHalving, agent_name
from nas_gym.agents.baselines.successive_halving import SuccessiveHalvingHyperparameters, halving_rungs
from nas_gym.envs import ConstructionEnv, ConstructionVectorEnv
from nas_gym.evaluators import Evaluations, FunctionEvaluator
from nas_gym.spaces import make_space

BENCH = make_space("bench201")
CONV = BENCH.operations.index("nor_conv_3x3")


def native(num_envs: int, evaluator: FunctionEvaluator | None = None) -> ConstructionVectorEnv:
    return ConstructionVectorEnv(num_envs, space=BENCH, evaluator=evaluator or CurvesEvaluator(BENCH))


def halve(trials: int, num_envs: int, seed: int = 4, **settings: float) -> SearchResult:
    return SuccessiveHalving(native(num_envs), seed, settings).learn(trials)


def at(result: SearchResult, share: float) -> SearchResult:
    return result.rows(result.fidelities == share)


def assert_halved(result: SearchResult) -> int:
    """Of each nine the best three, of these the best one: brackets follow one another at every share of the budget.

    Returns:
        How many brackets are complete.
    """
    nines, threes, ones = (at(result, share) for share in (1 / 9, 1 / 3, 1.0))
    for bracket in range(len(ones)):
        nine, three = (part.rows(slice(n * bracket, n * bracket + n)) for part, n in ((nines, 9), (threes, 3)))
        best = nine.tokens[np.argsort(-nine.rewards, kind="stable")[:3]]
        assert sorted(three.tokens.tolist()) == sorted(best.tolist())
        assert three.rewards[(three.tokens == ones.tokens[bracket]).all(axis=1)].max() == three.rewards.max()
    return len(ones)


def test_one_after_another() -> None:
    result = halve(39, 1)
    assert result.fidelities.tolist() == ([1 / 9] * 9 + [1 / 3] * 3 + [1.0]) * 3
    assert assert_halved(result) == 3
    assert result.best_reward == at(result, 1.0).rewards.max() < result.rewards.max()


@pytest.mark.parametrize("num_envs", [2, 5, 9, 10, 13, 40])
def test_in_batches(num_envs) -> None:
    """The next bracket begins while a rung is under way, and nothing else is different: nothing is tried in vain."""
    result = halve(400, num_envs)
    assert assert_halved(result) >= (400 - 3 * num_envs) // 13
    assert set(result.fidelities[:num_envs]) == {1 / 9}


def test_rewards_may_come_in_any_order_and_late() -> None:
    """Three batches asked for before the first is told, and told backwards."""
    agent, rng = SuccessiveHalving(native(1), 0), np.random.default_rng(0)
    told: list[tuple[tuple[int, ...], float, float]] = []
    waiting: list[Proposal] = []
    while len(told) < 300:
        proposal = agent.ask(4)
        waiting += [proposal.rows(np.array([row])) for row in range(4)]
        if len(waiting) >= 12:
            rng.shuffle(waiting)
            for one in waiting[:8]:
                reward = float(rng.random())
                agent.tell(answered(one, np.array([reward])))
                told.append((tuple(one.tokens[0].tolist()), float(one.fidelities[0]), reward))
            waiting = waiting[8:]
    counts = Counter(share for _, share, _ in told)
    assert set(counts) == {1 / 9, 1 / 3, 1.0}
    assert counts[1 / 9] > 2.5 * counts[1 / 3] > 6 * counts[1.0] > 60
    promoted = {row for row, share, _ in told if share == 1 / 3}
    best = [reward for row, share, reward in told if share == 1 / 9 and row in promoted]
    rest = [reward for row, share, reward in told if share == 1 / 9 and row not in promoted]
    assert np.mean(best) > np.mean(rest) + 0.3


def test_what_was_never_told_is_asked_again() -> None:
    """A batch whose last trials the budget cut, and one that was lost."""
    agent = SuccessiveHalving(native(4), 4)
    agent.learn(6)
    cut = RandomSearch(native(4), 4).ask(9).tokens[6:8]
    lost = agent.ask(5).tokens
    result = agent.learn(60)
    assert assert_halved(result) == 4
    tried = {tuple(row) for row in result.tokens[6:].tolist()}
    assert {tuple(row) for row in [*cut.tolist(), *lost.tolist()]} <= tried


def test_what_was_not_asked_for_teaches_nothing() -> None:
    agent, same = SuccessiveHalving(native(1), 4), SuccessiveHalving(native(1), 4)
    agent.tell(foreign(BENCH.sample(np.random.default_rng(0), 20), np.ones(20)))
    agent.ask(4), same.ask(4)
    agent.tell(foreign(BENCH.sample(np.random.default_rng(0), 20), np.ones(20)))
    agent.withdraw(), same.withdraw()
    np.testing.assert_array_equal(agent.learn(39).tokens, same.learn(39).tokens)


def test_equal_architectures_are_told_apart() -> None:
    """Two slots of a bracket that hold the same sequence, told backwards: each gets its own reward."""
    agent = SuccessiveHalving(native(1), 0)
    agent.ask(1)
    agent.withdraw()
    (bracket,) = agent._brackets
    bracket.tokens[1] = bracket.tokens[0]
    proposal = agent.ask(9)
    assert proposal.tokens[0].tolist() == proposal.tokens[1].tolist()
    rewards = np.linspace(0.9, 0.1, 9)
    for row in reversed(range(9)):
        np.testing.assert_array_equal(bracket.rewards[: row + 1], np.nan)
        agent.tell(answered(proposal.rows(np.array([row])), rewards[[row]]))
    np.testing.assert_array_equal(bracket.rewards, rewards)
    promoted = agent.ask(3)
    assert promoted.fidelities.tolist() == [1 / 3] * 3
    np.testing.assert_array_equal(promoted.tokens, proposal.tokens[:3])


def test_what_was_withdrawn_is_not_taken_in() -> None:
    agent = SuccessiveHalving(native(1), 0)
    lost = agent.ask(9)
    agent.withdraw()
    again = agent.ask(9)
    np.testing.assert_array_equal(again.tokens, lost.tokens)
    assert not set(again.ids.tolist()) & set(lost.ids.tolist())
    agent.tell(answered(lost, np.ones(9)))
    assert np.isnan(agent._brackets[0].rewards).all()
    agent.tell(answered(again, np.linspace(0, 0.8, 9)))
    np.testing.assert_array_equal(agent.ask(3).tokens, again.tokens[[8, 7, 6]])


# ------------------------------------------------------------------ rungs


def offering(*shares: float) -> FunctionEvaluator:
    evaluator = FunctionEvaluator(BENCH)
    evaluator.fidelities = shares
    return evaluator


@pytest.mark.parametrize(
    ("shares", "settings", "wanted"),
    [
        ((1 / 9, 1 / 3, 1.0), {}, ((1 / 9, 9), (1 / 3, 3), (1.0, 1))),
        (tuple(epoch / 12 for epoch in range(1, 13)), {}, ((1 / 12, 9), (4 / 12, 3), (1.0, 1))),
        (
            tuple(e / 200 for e in range(1, 201)),
            {},
            ((2 / 200, 81), (7 / 200, 27), (22 / 200, 9), (67 / 200, 3), (1.0, 1)),
        ),
        (tuple(epoch / 5 for epoch in range(1, 6)), {}, ((0.4, 3), (1.0, 1))),
        ((1 / 8, 1 / 4, 1 / 2, 1.0), {"eta": 2}, ((1 / 8, 8), (1 / 4, 4), (1 / 2, 2), (1.0, 1))),
        ((0.1, 1.0), {}, ((0.1, 9), (1.0, 1))),  # no rung between them
        ((1 / 243, 1.0), {}, ((1 / 243, 243), (1.0, 1))),
        ((1 / 9, 1 / 3, 1.0), {"min_fidelity": 0.2}, ((1 / 3, 3), (1.0, 1))),
        ((0.25, 0.3, 1.0), {"min_fidelity": 0.3}, ((0.3, 3), (1.0, 1))),
    ],
)
def test_rungs(shares, settings, wanted) -> None:
    assert halving_rungs(offering(*shares), SuccessiveHalvingHyperparameters(**settings)) == wanted


@pytest.mark.parametrize(
    "env",
    [
        lambda: ConstructionEnv("bench201", evaluator="constant"),
        lambda: gym.make("NAS-BenchGraph-v0", task="cora"),
        lambda: gym.vector.SyncVectorEnv([lambda: ConstructionEnv("bench201", evaluator="constant")]),
    ],
)
def test_without_fidelities_there_is_nothing_to_halve(env) -> None:
    with pytest.raises(ValueError, match=r"successive halving needs an evaluator with fidelities.*in full only"):
        SuccessiveHalving(env())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eta": 1}, "eta must be an integer of at least 2, got 1"),
        ({"eta": 2.5}, "eta must be an integer of at least 2, got 2.5"),
        ({"eta": 10}, "eta 10 needs a fidelity of at most 1 / 10; the smallest allowed is 0.1111"),
        ({"min_fidelity": 0}, r"min_fidelity must be in \(0, 1\] or None, got 0"),
        ({"min_fidelity": "1"}, r"min_fidelity must be in \(0, 1\] or None, got '1'"),
        ({"min_fidelity": 0.5}, "eta 3 needs a fidelity of at most 1 / 3; the smallest allowed is 1.0"),
    ],
)
def test_settings(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        SuccessiveHalving(native(1), 0, settings)


# ------------------------------------------------------------------ what it is good for


class Faithful(FunctionEvaluator):
    """The share of convolutions, with any share of the budget: what a small budget tells is true."""

    fidelities = (1 / 9, 1 / 3, 1.0)

    def evaluate(self, tokens, *, fidelity=None, parents=None):
        share = 1.0 if fidelity is None else fidelity
        return Evaluations((tokens == CONV).mean(axis=1), {"seconds": np.full(len(tokens), share)})


@pytest.mark.slow
def test_more_is_seen_in_the_same_time() -> None:
    means = {
        agent_name(made): np.mean(
            [made(native(1, Faithful(BENCH)), seed).learn(500, seconds=30).best_reward for seed in range(20)]
        )
        for made in (RandomSearch, SuccessiveHalving)
    }
    assert means["successive-halving"] > means["random"] + 0.05


def test_on_a_table(tmp_path) -> None:
    """Through Gymnasium, on learning curves: what the trials tell is what the table has."""
    path = curves_table(tmp_path / "t.npz")
    env = gym.make_vec("NAS-Bench201-v0", 4, table=str(path), task="curves")
    result = SuccessiveHalving(env, 0).learn(200, seconds=500)
    assert 0 < 500 - result.metrics["seconds"].sum() < 18
    np.testing.assert_array_equal(result.metrics["epochs"], np.round(9 * result.fidelities))
    evaluator = env.unwrapped.evaluator
    for share in (1 / 9, 1 / 3, 1.0):
        part = at(result, share)
        assert len(part)
        truth = evaluator.evaluate(part.tokens, fidelity=share)
        np.testing.assert_array_equal(part.rewards, truth.accuracy)
        np.testing.assert_array_equal(part.metrics["seconds"], truth.metrics["seconds"])
    assert evaluator.space == TABLE_SPACE
    assert result.best_reward == evaluator.evaluate(np.array([result.best.tokens])).accuracy[0]
