"""Arrays that grow, and histories."""

from __future__ import annotations

import numpy as np

from nas_gym.agents.growing import Growing
from nas_gym.agents.result import History, SearchResult
from nas_gym.spaces import make_space


def test_rows_are_those_that_were_appended() -> None:
    expected, rng = np.zeros((3, 2)), np.random.default_rng(0)
    growing, early = Growing(expected), Growing(expected).rows
    for _ in range(200):
        new = rng.random((rng.integers(0, 5), 2))
        growing.extend(new)
        expected = np.concatenate([expected, new])
        assert np.array_equal(growing.rows, expected)
        assert len(growing) == len(expected)
    assert np.array_equal(early, np.zeros((3, 2)))


def test_a_history_counts_the_trials_of_its_result() -> None:
    space, rng = make_space("bench201"), np.random.default_rng(0)
    history, rewards = History(space), np.empty(0)
    assert len(history) == len(history.result) == 0
    for batch in range(20):
        new = rng.random(rng.integers(0, 4))
        history.append(SearchResult(space, space.sample(rng, len(new)), new))
        rewards = np.append(rewards, new)
        assert len(history) == len(rewards)
        if batch % 3 == 0:
            assert np.array_equal(history.result.rewards, rewards)
    assert np.array_equal(history.result.rewards, rewards)
