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

from nas_gym.agents import AGENTS, Callback, Proposal, SearchResult, Trials, make_agent
from nas_gym.agents.policy_gradient.reinforce import Reinforce
from nas_gym.evaluators import Evaluations, Evaluator, FunctionEvaluator, MultiTaskEvaluator, StoredEvaluator
from nas_gym.experiments.run.asynchronous import learn_asynchronously
from nas_gym.spaces import Bench201Space, Tokens

SPACE = Bench201Space()
ABLE = [name for name in AGENTS if AGENTS[name].staleness != 0]


class Threaded(Evaluator):
    """Evaluates in threads; those numbered in `slow`, in the order of asking, take as long as `slow` says.

    Attributes:
        shares: the shares of the budget that were asked for, in the order of asking.
        most: evaluations that ran at once.
        finished: the order in which they ended, by number.
    """

    fidelities = (1 / 9, 1 / 3, 1.0)

    def __init__(self, workers: int, slow: dict[int, float] | None = None, quick: float = 0.002) -> None:
        super().__init__(SPACE)
        self.workers, self.slow, self.quick = workers, slow or {}, quick
        self.pool, self.lock = ThreadPoolExecutor(workers), threading.Lock()
        self.number = self.active = self.most = 0
        self.finished: list[int] = []
        self.begun: list[Future[Any]] = []
        self.shares: list[float | None] = []

    def fingerprint(self) -> dict[str, Any]:
        return {"evaluator": "threaded"}

    def begin(self, tokens: Tokens, *, fidelity: float | None = None) -> Future[Any]:
        self.shares.append(fidelity)
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


def test_who_can() -> None:
    wanted = ["random", "bananas", "bayesian", "bogcn", "bohb", "dyna", "gflownet", "mcts", "multitask", "npenas"]
    wanted += ["nsga2", "ppo", "regularized-evolution", "reinforce", "successive-halving", "tournament", "tpe"]
    assert wanted == ABLE


@pytest.mark.slow
@pytest.mark.parametrize("name", ABLE)
def test_every_agent_that_can_makes_all_its_trials(name: str) -> None:
    evaluator = Threaded(3, quick=0.05)  # longer than any agent takes to propose
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
        self.asked: dict[int, int] = {}
        self.stale: list[int] = []

    def ask(self, n: int) -> Proposal:
        proposal = super().ask(n)
        assert not set(proposal.ids.tolist()) & set(self.asked), "each proposal has an identity of its own"
        self.asked |= dict.fromkeys(proposal.ids.tolist(), self.updates)
        return proposal

    def tell(self, trials: Trials) -> dict[str, float]:
        self.stale += [self.updates - self.asked.pop(number) for number in trials.ids.tolist()]
        return super().tell(trials)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_nothing_is_learned_later_than_the_limit(limit: int) -> None:
    slow = {1: 1.0, 2: 0.1, 30: 0.1, 31: 0.2}
    evaluator = Threaded(3, slow)
    agent = Watched(gym.make_vec("NAS-Bench201-v0", num_envs=1, evaluator=evaluator), 0, {"batch_size": 4})
    learn_asynchronously(agent, 80, staleness=limit)
    assert len(agent.stale) == 80
    if limit < 1000:
        assert max(agent.stale) == limit
    else:
        assert max(agent.stale) > 3, "without the limit, a straggler is told long after it was asked"
    assert evaluator.finished.index(1) > 10, "the workers went on meanwhile"


# ------------------------------------------------------------------ fidelities and tasks


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
def test_successive_halving_keeps_its_fidelities(workers: int) -> None:
    """Of nine the best three, of these the best one, whatever the order in which they end."""
    slow = {number: 0.01 * (number * 7 % 5) for number in range(200)}
    evaluator = Threaded(workers, slow)
    result = learn_asynchronously(agent_on("successive-halving", evaluator), 13 * 4 + 8 * (workers > 1))
    shares = result.fidelities
    assert sorted(1.0 if share is None else share for share in evaluator.shares) == sorted(shares.tolist())
    counts = [int((shares == share).sum()) for share in (1 / 9, 1 / 3, 1.0)]
    assert counts[0] >= 3 * counts[1] >= 9 * counts[2] >= 27
    # Each bracket promotes by reward: what is on a rung was on the one before, and was among its best.
    for lower, upper in ((1 / 9, 1 / 3), (1 / 3, 1.0)):
        below, above = (SPACE.index(result.tokens[shares == share]).tolist() for share in (lower, upper))
        assert set(above) <= set(below)
        rewards = {share: result.rewards[shares == share] for share in (lower, upper)}
        assert rewards[upper].mean() > rewards[lower].mean()


def test_each_is_evaluated_on_its_task() -> None:
    """The agent's tasks are those of the trials, in the order of the proposals."""
    tasks = {
        name: FunctionEvaluator(SPACE, lambda tokens, k=k: (tokens == k).mean(axis=1)) for k, name in enumerate("ab")
    }
    env = gym.make_vec(
        "NAS-MultiTask-v0", num_envs=1, base="NAS-Bench201-v0", tasks=("a", "b"), evaluator=MultiTaskEvaluator(tasks)
    )
    result = learn_asynchronously(make_agent("multitask", env, 0), 20)
    assert result.metrics["task"].tolist() == [0.0, 1.0] * 10
    for number in (0, 1):
        rows = result.metrics["task"] == number
        np.testing.assert_array_equal(result.rewards[rows], (result.tokens[rows] == number).mean(axis=1))


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


def test_who_cannot_is_refused() -> None:
    with pytest.raises(ValueError, match=r"agent 'local-search' cannot search asynchronously: it needs the trials of"):
        learn_asynchronously(agent_on("local-search", FunctionEvaluator(SPACE)), 5)
    with pytest.raises(ValueError, match=r"staleness must be at least 1, got 0"):
        learn_asynchronously(agent_on("reinforce", FunctionEvaluator(SPACE)), 5, staleness=0)
    stateful = FunctionEvaluator(SPACE)
    stateful.stateful = True
    with pytest.raises(ValueError, match=r"FunctionEvaluator is stateful: its trials cannot overlap"):
        learn_asynchronously(agent_on("random", stateful), 5)


def test_a_search_that_waits_can_be_interrupted() -> None:
    """Also where no worker ever answers."""

    class Hanging(Threaded):
        def begin(self, tokens: Tokens, *, fidelity: float | None = None) -> Future[Any]:
            return Future()

    class Stopped(Exception):
        pass

    def poll() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        learn_asynchronously(agent_on("random", Hanging(2)), 5, poll=poll)
