"""Search that does not wait, on threads with durations of their own: workers stay busy, nothing is learned too late."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from nas_gym.agents import Callback, SearchResult, make_agent
from nas_gym.agents.asynchronous import STALENESS, learn_asynchronously
from nas_gym.agents.reinforce import Reinforce
from nas_gym.evaluators import Evaluations, Evaluator, FunctionEvaluator, StoredEvaluator
from nas_gym.spaces import Bench201Space, Tokens

SPACE = Bench201Space()


class Threaded(Evaluator):
    """Evaluates in threads; those numbered in `slow`, in the order of asking, take as long as `slow` says.

    Attributes:
        most: evaluations that ran at once.
        finished: the order in which they ended, by number.
    """

    def __init__(self, workers: int, slow: dict[int, float] | None = None, quick: float = 0.002) -> None:
        super().__init__(SPACE)
        self.workers, self.slow, self.quick = workers, slow or {}, quick
        self.pool, self.lock = ThreadPoolExecutor(workers), threading.Lock()
        self.number = self.active = self.most = 0
        self.finished: list[int] = []
        self.begun: list[Future[Any]] = []

    def fingerprint(self) -> dict[str, Any]:
        return {"evaluator": "threaded"}

    def begin(self, tokens: Tokens, *, fidelity: float | None = None) -> Future[Any]:
        self.begun.append(self.pool.submit(self._take_time, self.number))
        self.number += 1
        return self.begun[-1]

    def _take_time(self, number: int) -> None:
        with self.lock:
            self.active += 1
            self.most = max(self.most, self.active)
        time.sleep(self.slow.get(number, self.quick))
        with self.lock:
            self.active -= 1
            self.finished.append(number)

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        return Evaluations(tokens.sum(axis=1) / 24, {"seconds": np.ones(len(tokens))})


def agent_on(name: str, evaluator: Evaluator, num_envs: int = 1, **hyperparameters: Any) -> Any:
    env = gym.make_vec("NAS-Bench201-v0", num_envs=num_envs, evaluator=evaluator)
    return make_agent(name, env, 0, hyperparameters)


@pytest.mark.parametrize("name", STALENESS)
def test_every_agent_that_can_makes_all_its_trials(name: str) -> None:
    evaluator = Threaded(3)
    agent = agent_on(name, evaluator)
    result = learn_asynchronously(agent, 25)
    assert len(result) == len(evaluator.begun) == evaluator.number == 25
    SPACE.check(result.tokens)
    np.testing.assert_array_equal(result.rewards, result.tokens.sum(axis=1) / 24)
    assert evaluator.most == 3
    assert len(learn_asynchronously(agent, 5)) == 30, "it goes on"


def test_workers_stay_busy_while_one_straggles_and_trials_count_as_they_end() -> None:
    evaluator = Threaded(2, slow={0: 0.5})
    agent = agent_on("random", evaluator)
    expected = SPACE.sample(np.random.default_rng(0), 1)
    result = learn_asynchronously(agent, 20)
    assert evaluator.finished[-1] == 0, "nineteen others were evaluated meanwhile"
    np.testing.assert_array_equal(result.tokens[-1:], expected)


def test_with_one_worker_it_is_the_search_that_waits() -> None:
    tokens = [
        learn(agent_on("regularized-evolution", Threaded(1), population_size=5, sample_size=2), 30).tokens
        for learn in (learn_asynchronously, lambda agent, trials: agent.learn(trials))
    ]
    np.testing.assert_array_equal(*tokens)


def test_evaluations_may_share_a_future() -> None:
    """As those of equal architectures do: each asking is told all the same."""

    class Shared(Threaded):
        def begin(self, tokens: Tokens, *, fidelity: float | None = None) -> Future[Any]:
            return self.begun[-1] if self.begun and not self.begun[-1].done() else super().begin(tokens)

    result = learn_asynchronously(agent_on("random", Shared(4)), 31)
    rng = np.random.default_rng(0)
    expected = np.concatenate([SPACE.sample(rng, 1) for _ in range(31)])
    np.testing.assert_array_equal(np.sort(SPACE.index(result.tokens)), np.sort(SPACE.index(expected)))


# ------------------------------------------------------------------ staleness


class Watched(Reinforce):
    """Notes how many updates lie between asking for an architecture and learning from it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.asked: dict[bytes, int] = {}
        self.stale: list[int] = []

    def ask(self, n: int) -> Tokens:
        tokens = super().ask(n)
        assert not set(map(bytes, tokens)) & set(self.asked), "no architecture is asked for twice"
        self.asked |= dict.fromkeys(map(bytes, tokens), self.updates)
        return tokens

    def tell(self, tokens: Tokens, rewards: Any) -> dict[str, float]:
        self.stale += [self.updates - self.asked[bytes(row)] for row in tokens]
        return super().tell(tokens, rewards)


@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_nothing_is_learned_later_than_the_limit(limit: int) -> None:
    slow = {1: 0.25, 2: 0.1, 30: 0.1, 31: 0.2}
    evaluator = Threaded(3, slow)
    agent = Watched(gym.make_vec("NAS-Bench201-v0", num_envs=1, evaluator=evaluator), 0, {"batch_size": 4})
    learn_asynchronously(agent, 80, staleness=limit)
    assert len(agent.stale) == 80
    if limit < 1000:
        assert max(agent.stale) == limit
    else:
        assert max(agent.stale) > 3, "without the limit, a straggler is told long after it was asked"
    assert evaluator.finished.index(1) > 10, "the workers went on meanwhile"


# ------------------------------------------------------------------ budgets, stores, refusals


def test_a_budget_of_simulated_seconds_ends_it() -> None:
    agent = agent_on("random", Threaded(2))
    assert len(learn_asynchronously(agent, 100, seconds=12.0)) == 12


def test_a_callback_sees_each_trial_once_and_can_stop() -> None:
    seen: list[int] = []

    class Stop(Callback):
        def after_trials(self, agent: Any, trials: SearchResult, statistics: dict[str, float]) -> bool:
            seen.append(len(trials))
            assert agent.trials == sum(seen)
            return sum(seen) < 10

    agent = agent_on("random", Threaded(2))
    result = learn_asynchronously(agent, 100, Stop())
    assert sum(seen) == len(result)
    assert 10 <= len(result) <= 11


def test_a_store_spares_the_workers(tmp_path: Path) -> None:
    results = []
    for expected in (20, 0):
        evaluator = Threaded(2)
        results.append(learn_asynchronously(agent_on("random", StoredEvaluator(evaluator, tmp_path / "store")), 20))
        assert len(evaluator.begun) == expected
    np.testing.assert_array_equal(*(np.sort(SPACE.index(result.tokens)) for result in results))


def test_who_cannot_is_told() -> None:
    with pytest.raises(ValueError, match=r"agent 'local-search' cannot ask before it is told; those that can"):
        learn_asynchronously(agent_on("local-search", FunctionEvaluator(SPACE)), 5)
    with pytest.raises(ValueError, match=r"staleness must be at least 1, got 0"):
        learn_asynchronously(agent_on("reinforce", FunctionEvaluator(SPACE)), 5, staleness=0)
    stateful = FunctionEvaluator(SPACE)
    stateful.stateful = True
    with pytest.raises(ValueError, match=r"FunctionEvaluator is stateful: its trials cannot overlap"):
        learn_asynchronously(agent_on("random", stateful), 5)
