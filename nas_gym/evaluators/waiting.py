"""Waiting for evaluations: how long for each, and how waiting is interrupted."""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, wait
from numbers import Real
from typing import Any

POLL_SECONDS = 0.5  # between two looks at the clock, or at whether to stop

MEDIANS = 20.0
FLOOR = 120.0  # seconds
MEASURED = 5  # evaluations
UNMEASURED = 24 * 3600.0  # seconds


class TimeLimit:
    """How long an evaluation may take.

    Args:
        timeout: seconds; `math.inf` sets no limit. None takes `MEDIANS` times the median duration of the evaluations
            of the same fidelity so far, and at least `FLOOR`; `UNMEASURED` while there are fewer than `MEASURED`.

    Raises:
        ValueError: the time-out is not a positive number.
    """

    def __init__(self, timeout: float | None = None) -> None:
        if timeout is not None and (not isinstance(timeout, Real) or isinstance(timeout, bool) or not timeout > 0):
            raise ValueError(
                f"timeout must be a positive number of seconds, inf for no limit, or None for the default, got "
                f"{timeout!r}"
            )
        self.timeout = timeout
        self._durations: defaultdict[float | None, list[float]] = defaultdict(list)

    def measured(self, seconds: float, fidelity: float | None = None) -> None:
        """Takes note of how long an evaluation took."""
        bisect.insort(self._durations[fidelity], seconds)  # in order, so that the median is at hand

    def seconds(self, fidelity: float | None = None) -> float:
        """The limit for an evaluation. It may change while one is waited for: others are measured meanwhile."""
        if self.timeout is not None:
            return self.timeout
        durations = self._durations[fidelity]
        if len(durations) < MEASURED:
            return UNMEASURED
        median = (durations[len(durations) // 2] + durations[~(len(durations) // 2)]) / 2
        return max(FLOOR, MEDIANS * median)

    @property
    def step(self) -> float:
        """Seconds between two looks at the clock."""
        return min(POLL_SECONDS, math.inf if self.timeout is None else self.timeout)


def first_ended(futures: Collection[Future[Any]], poll: Callable[[], None]) -> Collection[Future[Any]]:
    """Waits until one of these is done and returns all that are.

    Args:
        futures: any number; of none, none is returned at once.
        poll: called before, and about twice a second meanwhile, so that it can interrupt the waiting.
    """
    done: Collection[Future[Any]] = ()
    while futures and not done:
        poll()
        done = wait(futures, POLL_SECONDS, FIRST_COMPLETED).done
    return done
