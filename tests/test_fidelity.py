"""Fidelities and simulated time: through evaluators, environments, `play` and `learn`."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from fidelity_checks import TABLE_SPACE, CurvesEvaluator, curves_table, scramble
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from test_envs import SHORT_CHAIN, assert_same, draw_actions, stacked

from nas_gym.agents import Proposal, RandomSearch, SearchResult, make_agent, play
from nas_gym.envs import ConstructionEnv, ConstructionVectorEnv
from nas_gym.evaluators import Evaluations, FunctionEvaluator, make_objective
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.spaces import make_space

BENCH = make_space("bench201")
SHARES = (1 / 9, 1 / 3, 1.0)


def scalar(space: Any = "bench201", **arguments: Any) -> ConstructionEnv:
    return ConstructionEnv(space, evaluator=CurvesEvaluator(make_space(space)), **arguments)


def native(num_envs: int, space: Any = "bench201", **arguments: Any) -> ConstructionVectorEnv:
    return ConstructionVectorEnv(num_envs, space=space, evaluator=CurvesEvaluator(make_space(space)), **arguments)


def sync(num_envs: int, mode: AutoresetMode, space: Any = "bench201", **arguments: Any) -> SyncVectorEnv:
    evaluator = CurvesEvaluator(make_space(space))
    one = [lambda: ConstructionEnv(space, evaluator=evaluator, **arguments)]
    return SyncVectorEnv(one * num_envs, autoreset_mode=mode)


# ------------------------------------------------------------------ what evaluators offer


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [(None, None), (1, None), (1.0, None), (0.9, None), (1 / 3, 1 / 3), (0.4, 1 / 3), (1e-9, 1 / 9), (0.2, 1 / 9)],
)
def test_the_nearest_share_is_taken(asked, wanted) -> None:
    assert CurvesEvaluator(BENCH).nearest_fidelity(asked) == wanted
    assert CurvesEvaluator(BENCH).nearest_fidelity(None if asked is None else np.float32(asked)) == wanted


@pytest.mark.parametrize("asked", [0, -0.5, 1.01, np.nan, np.inf, "half", True, [0.5], np.array([0.5, 0.5])])
@pytest.mark.parametrize("made", [scalar, lambda: native(3)])
def test_what_is_no_share_is_refused(made, asked) -> None:
    env = made()
    env.reset()
    with pytest.raises(ValueError, match=r"fidelity must be a number in \(0, 1\], the share of the full budget; got"):
        env.reset(options={"fidelity": asked})


def test_evaluators_without_fidelities_evaluate_in_full() -> None:
    for env in (ConstructionEnv("bench201", evaluator="constant"), gym.make_vec("NAS-BenchGraph-v0", 2, task="cora")):
        assert env.unwrapped.evaluator.fidelities == ()
        for share in (None, 1, 1.0):
            env.reset(options={"fidelity": share})
        with pytest.raises(ValueError, match=r"fidelity must be 1 or None, for \w+ has no others; got 0.5"):
            env.reset(options={"fidelity": 0.5})


def test_a_table_offers_the_epochs_that_it_has(tmp_path) -> None:
    path = curves_table(tmp_path / "t.npz")
    assert TabularEvaluator(TABLE_SPACE, table=path).fidelities == (1 / 9, 3 / 9, 1.0)
    assert TabularEvaluator(TABLE_SPACE, table=path, epochs=3).fidelities == (1 / 3, 1.0)
    assert TabularEvaluator(TABLE_SPACE, table=path, epochs=1).fidelities == ()
    env = ConstructionEnv(TABLE_SPACE, table=str(path))
    for share, epochs in ((0.05, 1), (0.3, 3), (0.5, 3), (0.9, 9), (None, 9)):
        env.reset(options={"fidelity": share})
        for _ in range(3):
            *_, info = env.step(2)
        evaluation = info["evaluation"]
        judged = TabularEvaluator(TABLE_SPACE, table=path, epochs=epochs).evaluate(np.array([[2, 2, 2]]))
        assert evaluation["accuracy"] == judged.accuracy[0]
        assert {name: evaluation[name] for name in judged.metrics} == {k: v[0] for k, v in judged.metrics.items()}
        assert evaluation["epochs"] == epochs
        assert evaluation.get("fidelity", 1.0) == epochs / 9
        assert ("fidelity" in evaluation) == (epochs < 9)


# ------------------------------------------------------------------ episodes


def test_a_fidelity_is_for_one_episode() -> None:
    env = scalar()
    for share, wanted in ((1 / 3, 1 / 3), (None, 1.0), (0.1, 1 / 9), (1, 1.0)):
        env.reset(options=None if share is None else {"fidelity": share})
        for _ in range(6):
            _, reward, *_, info = env.step(3)
        accuracy = (scramble(np.array([[3] * 6]))[0] + wanted) % 1.0
        assert reward == info["evaluation"]["accuracy"] == accuracy
        assert info["evaluation"]["seconds"] == 9 * wanted
        assert info["evaluation"].get("fidelity", 1.0) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("on_invalid", ["remap", "penalise"])
@pytest.mark.parametrize("space", ["bench201", "cell:darts", SHORT_CHAIN], ids=str)
def test_native_equals_scalar(space, on_invalid, mode) -> None:
    """Resets of all and of some, with and without a fidelity, in and out of step."""
    length = make_space(space).length
    made, wanted = (
        native(4, space, on_invalid=on_invalid, autoreset_mode=mode),
        sync(4, mode, space, on_invalid=on_invalid),
    )
    rng = np.random.default_rng(length)
    assert_same(made.reset(options={"fidelity": 0.3}), wanted.reset(options={"fidelity": 0.3}))
    seen: set[float] = set()
    for _ in range(30 * length):
        actions = draw_actions(made.action_masks(), 0.3 / length, rng)
        expected = stacked(wanted.step(actions))
        assert_same(made.step(actions), expected)
        ended, infos = expected[2], expected[-1]
        if ended.any():
            evaluation = (infos["final_info"] if mode is AutoresetMode.SAME_STEP else infos)["evaluation"]
            seen |= set(evaluation.get("fidelity", np.zeros(0)).tolist())
        mask = (ended if mode is AutoresetMode.DISABLED else np.zeros(4, dtype=bool)) | (rng.random(4) < 0.3 / length)
        if mask.any():
            share = rng.choice([0.1, 0.3, 1.0, np.nan])
            options = {"reset_mask": mask} if np.isnan(share) else {"reset_mask": mask, "fidelity": share}
            assert_same(made.reset(options=dict(options)), wanted.reset(options=dict(options)))
    assert seen == {0.0, 1 / 9, 1 / 3}


def test_a_batch_for_each_fidelity() -> None:
    env = native(5, autoreset_mode="SameStep")
    env.reset()
    env.reset(options={"reset_mask": np.array([True, False, True, False, False]), "fidelity": 0.3})
    env.reset(options={"reset_mask": np.array([False, False, False, True, False]), "fidelity": 0.1})
    for _ in range(12):
        env.step([0, 1, 2, 3, 4])
    asked = [(tokens[:, 0].tolist(), fidelity) for tokens, fidelity in env.evaluator.batches]
    assert asked == [([3], 1 / 9), ([0, 2], 1 / 3), ([1, 4], None), ([0, 1, 2, 3, 4], None)]


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("n", [2, 3, 11])
@pytest.mark.parametrize("space", ["bench201", SHORT_CHAIN], ids=str)
def test_play_gives_each_architecture_its_fidelity(space, n, mode) -> None:
    made = make_space(space)
    rng = np.random.default_rng(n)
    tokens, shares = made.sample(rng, n), rng.choice(SHARES, n)
    accuracy = (scramble(tokens) + shares) % 1.0
    wanted = np.where(accuracy < 0.1, 0.0, accuracy)
    evaluator = CurvesEvaluator(made)
    for env in (scalar(space), native(3, space, autoreset_mode=mode), sync(3, mode, space)):
        trials = play(env, Proposal(np.arange(n), tokens, shares))
        np.testing.assert_array_equal(trials.rewards, wanted)
        np.testing.assert_array_equal(np.nan_to_num(trials.metrics["fidelity"], nan=1.0), shares)
        np.testing.assert_array_equal(trials.metrics["seconds"], 9 * shares)
        trials = play(env, Proposal(np.arange(n), tokens, np.full(n, 1 / 3)))
        np.testing.assert_array_equal(
            trials.rewards, make_objective("accuracy")(evaluator.evaluate(tokens, fidelity=1 / 3))
        )
        assert "fidelity" not in play(env, tokens).metrics


def test_the_best_is_the_best_of_the_highest_fidelity() -> None:
    tokens = np.arange(24).reshape(4, 6) % 5
    rewards = np.array([0.9, 0.4, 0.5, 0.8])
    result = SearchResult(BENCH, tokens, rewards, {"fidelity": np.array([1 / 9, np.nan, 1.0, 1 / 3])})
    assert result.fidelities.tolist() == [1 / 9, 1.0, 1.0, 1 / 3]
    assert (result.best_trial, result.best_reward) == (2, 0.5)
    assert result.best == BENCH.architecture(tokens[2])
    assert result.rows(np.array([0, 3])).best_trial == 1  # a third is the highest share there is
    assert SearchResult(BENCH, tokens, rewards).best_trial == 0
    assert SearchResult(BENCH, tokens[:0], rewards[:0]).best_reward == -np.inf


# ------------------------------------------------------------------ simulated time


class Timed(FunctionEvaluator):
    """Takes from 1 to 2 seconds an architecture; those that fail do not tell how long they took."""

    def evaluate(self, tokens, *, fidelity=None, parents=None):
        value = scramble(tokens)
        failed = value < 0.1
        return Evaluations(np.where(failed, 0.0, value), {"seconds": np.where(failed, np.nan, 1 + value)}, failed)


def timed(num_envs: int) -> ConstructionVectorEnv:
    return ConstructionVectorEnv(num_envs, space="bench201", evaluator=Timed(BENCH))


@pytest.mark.parametrize("name", ["random", "regularized-evolution", "reinforce"])
@pytest.mark.parametrize("num_envs", [1, 4, 10])
def test_the_trial_that_ends_too_late_is_cut(name, num_envs) -> None:
    free = make_agent(name, timed(num_envs), seed=2).learn(60)
    clock, limit, counted = 0.0, 37.5, 0
    for seconds in np.nan_to_num(free.metrics["seconds"]):
        if clock + seconds > limit:
            break
        clock += seconds
        counted += 1
    assert 20 < counted < 40
    agent = make_agent(name, timed(num_envs), seed=2)
    result = agent.learn(60, seconds=limit)
    assert len(result) == counted
    np.testing.assert_array_equal(result.tokens, free.tokens[:counted])
    assert len(make_agent(name, timed(num_envs), seed=2).learn(5, seconds=limit)) == 5


def test_a_trial_that_ends_in_time_counts() -> None:
    env = native(4)  # 9 seconds each
    assert [len(RandomSearch(env).learn(50, seconds=limit)) for limit in (0, 8.9, 9, 9.1, 36, 44.9, 45)] == [
        0, 0, 1, 1, 4, 4, 5,
    ]  # fmt: skip


def test_a_search_that_has_its_time_asks_no_more() -> None:
    env = native(4)
    RandomSearch(env).learn(50, seconds=36)
    assert len(env.evaluator.batches) == 1


def test_seconds_are_added_to_those_of_earlier_calls() -> None:
    agent = RandomSearch(native(4))
    assert len(agent.learn(50, seconds=45)) == 5
    assert len(agent.learn(50, seconds=45)) == 10
    assert len(agent.learn(3)) == 13


def test_time_needs_a_clock() -> None:
    agent = RandomSearch(ConstructionEnv("bench201", evaluator="constant"))
    message = "simulated seconds needs an evaluator with the metric 'seconds'.*the metrics here are accuracy, failed"
    with pytest.raises(ValueError, match=message):
        agent.learn(5, seconds=10)
    for seconds in (-1, np.nan):
        with pytest.raises(ValueError, match=f"seconds must not be negative, got {seconds}"):
            agent.learn(5, seconds=seconds)
