"""How long evaluations may take, and that waiting for them can be interrupted."""

from __future__ import annotations

import math
from concurrent.futures import Future
from typing import Any

import pytest

from nas_gym.evaluators import waiting
from nas_gym.evaluators.waiting import TimeLimit, first_ended


def test_the_default_is_a_multiple_of_the_median() -> None:
    limit = TimeLimit()
    for seconds in (10.0, 30.0, 5000.0, 20.0):
        limit.measured(seconds)
        assert limit.seconds() == 24 * 3600, "too few to tell"
    limit.measured(25.0)
    assert limit.seconds() == 20 * 25.0
    assert limit.seconds(1 / 9) == 24 * 3600, "each fidelity by itself"
    for _ in range(5):
        limit.measured(0.01, 1 / 9)
    assert limit.seconds(1 / 9) == 120.0, "and a short one has time to spare"


@pytest.mark.parametrize("timeout", [5.0, math.inf])
def test_a_limit_that_is_given_stays(timeout: float) -> None:
    limit = TimeLimit(timeout)
    for _ in range(9):
        limit.measured(100.0)
    assert limit.seconds() == timeout


@pytest.mark.parametrize("timeout", [0, -1, math.nan, "none", True])
def test_what_is_no_time_out(timeout: Any) -> None:
    with pytest.raises(ValueError, match=r"timeout must be a positive number of seconds, inf for no limit, or None"):
        TimeLimit(timeout)


def test_waiting_can_be_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.01)
    never, done = Future[None](), Future[None]()
    done.set_result(None)
    polls = iter([None, None, KeyboardInterrupt])

    def poll() -> None:
        if (error := next(polls)) is not None:
            raise error

    assert first_ended([never, done], poll) == {done}
    with pytest.raises(KeyboardInterrupt):
        first_ended([never], poll)
    assert list(polls) == []
    assert not first_ended([], poll), "nothing to wait for"
