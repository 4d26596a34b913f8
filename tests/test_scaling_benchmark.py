"""The simulated cluster against sequential search, closed forms and a simulation second by second."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from scipy import stats

from benchmarks.scaling import HARSH, ROUND, SCALE, TABLE, TRIALS, WORKERS, Search, report, search
from nas_gym.agents import Agent, Callback, SearchResult, make_agent
from nas_gym.evaluators import ClusterConditions, Evaluations, Evaluator, FunctionEvaluator, SimulatedCluster
from nas_gym.experiments.run.asynchronous import learn_asynchronously
from nas_gym.spaces import Bench201Space, Tokens
from nas_gym.types import Floats

SPACE = Bench201Space()
TOKENS = SPACE.enumerate()[:2000]


class Lasting(Evaluator):
    """Takes as many seconds as a function of the choices says, by default ten."""

    def __init__(self, seconds: Callable[[Tokens], Any] = lambda tokens: np.full(len(tokens), 10.0)) -> None:
        super().__init__(SPACE)
        self.seconds = seconds

    def fingerprint(self) -> dict[str, Any]:
        return {"evaluator": "lasting"}

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        return Evaluations(tokens.sum(axis=1) / 24, {"seconds": np.asarray(self.seconds(tokens), dtype=np.float64)})


def whole(tokens: Tokens) -> Floats:
    """Durations of 1 to 25 seconds."""
    return 1.0 + tokens.sum(axis=1)


def agent_on(cluster: Evaluator, num_envs: int = 1, name: str = "random", **hyperparameters: Any) -> Agent:
    env = gym.make_vec("NAS-Bench201-v0", num_envs=num_envs, evaluator=cluster)
    return make_agent(name, env, 0, hyperparameters)


class Clocks(Callback):
    def __init__(self, cluster: SimulatedCluster) -> None:
        self.cluster, self.found = cluster, list[float]()

    def after_trials(self, agent: Agent, trials: SearchResult, statistics: dict[str, float]) -> None:
        self.found += len(trials) * [self.cluster.clock]


# ------------------------------------------------------------------ without trouble


@pytest.mark.parametrize("name", ["regularized-evolution", "reinforce"])
def test_one_worker_is_a_sequential_search(name: str) -> None:
    expected = agent_on(TABLE, name=name).learn(60)
    for learn in (learn_asynchronously, lambda agent, trials: agent.learn(trials)):
        cluster = SimulatedCluster(TABLE)
        result = learn(agent_on(cluster, name=name), 60)
        np.testing.assert_array_equal(result.tokens, expected.tokens)
        np.testing.assert_array_equal(result.rewards, expected.rewards)
        assert cluster.clock == pytest.approx(expected.metrics["seconds"].sum())
        assert cluster.utilisation == pytest.approx(1.0)


@pytest.mark.parametrize(("workers", "batch"), [(4, 4), (4, 10), (10, 4)])
def test_equal_durations(workers: int, batch: int) -> None:
    cluster = SimulatedCluster(Lasting(), workers)
    cluster.evaluate(TOKENS[:batch])
    rounds = math.ceil(batch / workers)
    assert cluster.clock == 10.0 * rounds
    assert cluster.utilisation == pytest.approx(batch / (workers * rounds))
    assert cluster.busy == 10.0 * batch


def test_a_search_that_waits_takes_as_long_as_the_longest_of_each_batch() -> None:
    cluster = SimulatedCluster(Lasting(whole), 7)
    seconds = agent_on(cluster, 7).learn(70).metrics["seconds"].reshape(10, 7)
    assert cluster.clock == seconds.max(axis=1).sum()
    # Equal architectures of a batch are evaluated once; these ten batches have none.
    assert cluster.utilisation == pytest.approx(seconds.sum() / (7 * cluster.clock))


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_second_by_second(workers: int) -> None:
    """Random search without waiting: a worker takes the next architecture in the second in which it is free."""
    cluster = SimulatedCluster(Lasting(whole), workers)
    clocks = Clocks(cluster)
    result = learn_asynchronously(agent_on(cluster), 40, clocks)
    rng = np.random.default_rng(0)
    queue = [whole(SPACE.sample(rng, 1))[0] for _ in range(40)]
    left, expected, second = [0.0] * workers, list[float](), 0
    while len(expected) < 40:
        for worker in range(workers):
            if left[worker] == 0 and queue:
                left[worker] = queue.pop(0)
        second += 1
        for worker in range(workers):
            if left[worker] > 0:
                left[worker] -= 1
                if left[worker] == 0:
                    expected.append(second)
    assert clocks.found == expected
    np.testing.assert_array_equal(result.metrics["seconds"].sum(), cluster.busy)


def test_equal_architectures_share_a_worker() -> None:
    cluster = SimulatedCluster(Lasting(), 4)
    futures = [cluster.begin(TOKENS[:1]), cluster.begin(TOKENS[:1]), cluster.begin(TOKENS[1:2])]
    assert futures[0] is futures[1]
    assert list(cluster.wait(futures, lambda: None)) == [futures[0], futures[2]]
    assert cluster.busy == 20.0


@pytest.mark.parametrize("workers", [5, 20, 80])
def test_time_of_the_search_itself(workers: int) -> None:
    """One that needs a second a trial keeps at most ten workers of ten seconds busy."""
    cluster = SimulatedCluster(Lasting(), workers, ClusterConditions(driver=1.0))
    learn_asynchronously(agent_on(cluster), 400)
    assert cluster.utilisation == pytest.approx(min(1, 10 / workers) * (10 / 11 if workers == 5 else 1), abs=0.03)


# ------------------------------------------------------------------ trouble


def test_a_worker_that_dies_has_its_work_repeated() -> None:
    """Of durations d and lifetimes of mean L, exp(d / L) - 1 workers die on each evaluation."""
    cluster = SimulatedCluster(Lasting(), 50, ClusterConditions(lifetime=20.0, restart=5.0), attempts=1000)
    found = cluster.evaluate(TOKENS)
    assert not found.failed.any()
    np.testing.assert_array_equal(found.accuracy, Lasting().evaluate(TOKENS).accuracy)
    assert cluster.lost / len(TOKENS) == pytest.approx(math.exp(0.5) - 1, abs=0.06)
    assert cluster.busy - cluster.wasted == pytest.approx(10.0 * len(TOKENS))
    # A worker that dies within ten seconds lives for L - d / (exp(d / L) - 1) of them in the mean.
    assert cluster.wasted / cluster.lost == pytest.approx(20 - 10 / (math.exp(0.5) - 1), abs=0.3)


def test_a_worker_that_exceeds_the_limit_is_replaced_and_the_third_is_the_last() -> None:
    cluster = SimulatedCluster(Lasting(), 1, ClusterConditions(restart=3.0), timeout=4.0)
    found = cluster.evaluate(TOKENS[:2])
    assert found.reasons == ("worker lost 3 times",) * 2
    assert (cluster.lost, cluster.clock, cluster.wasted) == (6, 6 * 4.0 + 5 * 3.0, 24.0)


def test_the_default_limit_follows_the_durations() -> None:
    """A straggler of the first round is replaced once others have told what is usual."""
    cluster = SimulatedCluster(Lasting(lambda tokens: np.where(tokens.sum(axis=1) == 0, 1e9, 10.0)), 6)
    found = cluster.evaluate(TOKENS[:6])
    assert TOKENS[:6].sum(axis=1).tolist().count(0) == 1
    assert found.failed.tolist() == (TOKENS[:6].sum(axis=1) == 0).tolist()
    assert cluster.clock == 3 * 20 * 10.0


def test_stragglers_have_the_tail_that_was_asked_for() -> None:
    """The median of a Pareto distribution is 2 ** (1 / shape)."""
    conditions = ClusterConditions(straggler_share=1.0, straggler_shape=2.0)
    seconds = []
    for seed in range(300):
        cluster = SimulatedCluster(Lasting(), 1, conditions, timeout=math.inf, seed=seed)
        cluster.evaluate(TOKENS[:1])
        seconds.append(cluster.clock / 10)
    assert min(seconds) >= 1
    assert np.median(seconds) == pytest.approx(math.sqrt(2), abs=0.1)


def test_failures_are_of_architectures() -> None:
    conditions = ClusterConditions(failure_share=0.3)
    clusters = [SimulatedCluster(Lasting(), workers, conditions, seed=1) for workers in (1, 9)]
    first, second = (cluster.evaluate(TOKENS[::2]).failed for cluster in clusters)
    np.testing.assert_array_equal(first, second)
    assert first.mean() == pytest.approx(0.3, abs=0.04)
    assert clusters[0].clock == pytest.approx(len(first) * 10.0 * (1 - 0.3 / 2), rel=0.03)
    other = SimulatedCluster(Lasting(), 1, conditions, seed=2)
    assert other.fingerprint() != clusters[0].fingerprint() == clusters[1].fingerprint()
    assert (other.evaluate(TOKENS[::2]).failed != first).any()


def test_the_same_twice() -> None:
    conditions = ClusterConditions(straggler_share=0.1, lifetime=100.0, restart=10.0, failure_share=0.1)
    histories = []
    for _ in range(2):
        cluster = SimulatedCluster(Lasting(whole), 8, conditions)
        agent = agent_on(cluster, name="regularized-evolution", population_size=10, sample_size=3)
        histories.append((learn_asynchronously(agent, 100).tokens.tolist(), cluster.clock, cluster.lost))
    assert histories[0] == histories[1]
    assert histories[0][2] > 0


# ------------------------------------------------------------------ refusals, benchmark


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("scale", 0.0, "scale must be positive, got 0.0"),
        ("lifetime", -1.0, "lifetime must be positive, got -1.0"),
        ("failure_share", 1.5, r"failure_share must be in \[0, 1\], got 1.5"),
        ("restart", math.inf, "restart must be a number that is not negative, got inf"),
        ("driver", math.nan, "driver must be a number that is not negative, got nan"),
    ],
)
def test_conditions_that_are_refused(name: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClusterConditions(**{name: value})


def test_an_evaluator_without_seconds_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"needs an evaluator with the metric 'seconds'.*FunctionEvaluator reports none"
    ):
        SimulatedCluster(FunctionEvaluator(SPACE)).evaluate(TOKENS[:1])


def test_the_benchmark() -> None:
    assert float(TABLE.evaluate(SPACE.enumerate()).metrics["seconds"].mean()) * SCALE == pytest.approx(ROUND)
    found = search("random", 100, True, HARSH, 0)
    assert found.trials >= TRIALS[-1]
    assert found.in_time is not None
    assert found.in_time <= found.trials
    assert 0.9 < found.utilisation < 1
    assert found.regret["200 trials"] >= found.regret["1000 trials"] >= 0  # type: ignore[operator]
    text = report([found, Search(**{**vars(found), "seed": 1, "utilisation": found.utilisation - 0.1})])
    assert len(WORKERS) == 4
    assert f"| random: asynchronous |  |  | {found.utilisation - 0.05:.2f} [" in text
    slower = [Search(**{**vars(found), "seed": seed, "milliseconds": 20.0 + seed}) for seed in range(3)]
    half = stats.t.ppf(0.975, 2) / math.sqrt(3)  # of seeds that deviate by one millisecond
    assert f"| random: asynchronous |  |  | 21.0 [{21 - half:.1f}, {21 + half:.1f}] |" in report(slower)
