"""A cluster whose clock is simulated: hours of evaluations in seconds, for studies of asynchronous search."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from nas_gym.evaluators.evaluator import Evaluations, Evaluator
from nas_gym.evaluators.pool import WorkerPool, check_positive
from nas_gym.evaluators.waiting import FLOOR, UNMEASURED, TimeLimit
from nas_gym.settings import check_seed
from nas_gym.spaces import Tokens


@dataclass(frozen=True)
class ClusterConditions:
    """What a cluster does to evaluations; by default, nothing.

    Attributes:
        scale: simulated seconds per second of the metric ``seconds``.
        straggler_share: probability that an evaluation takes longer than it should, in [0, 1].
        straggler_shape: it then takes X times as long, X of a Pareto distribution with this shape and minimum 1: the
            smaller, the heavier its tail.
        lifetime: mean seconds of evaluating after which a worker dies, exponentially distributed.
        restart: seconds until another takes its place.
        failure_share: share of the architectures whose evaluation fails, at a moment of its duration drawn uniformly.
        driver: seconds that the search itself takes for a trial, during which it gives nothing to the workers.

    Raises:
        ValueError: a number is out of range.
    """

    scale: float = 1.0
    straggler_share: float = 0.0
    straggler_shape: float = 1.5
    lifetime: float = math.inf
    restart: float = 0.0
    failure_share: float = 0.0
    driver: float = 0.0

    def __post_init__(self) -> None:
        for name in ("scale", "straggler_shape", "lifetime"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)!r}")
        for name in ("straggler_share", "failure_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)!r}")
        for name in ("restart", "driver"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number that is not negative, got {getattr(self, name)!r}")


@dataclass(order=True)
class _Job:
    """One architecture. Repeated jobs keep their number, and so come before new ones, as in `DistributedEvaluator`.

    Attributes:
        number: in the order of submission.
        found: its evaluation.
        seconds: how long the evaluation takes on a worker that does nothing to it.
        fidelity: that was asked for.
        future: is done at the end.
        attempts: workers that were lost on it.
        begun: the clock when the worker began.
        ends: the clock when the worker will have finished; infinite if it dies before.
        dies: the clock when it dies; infinite if it finishes before.
    """

    number: int
    found: Evaluations = field(compare=False)
    seconds: float = field(compare=False)
    fidelity: float | None = field(compare=False)
    future: Future[Evaluations] = field(compare=False, default_factory=Future)
    attempts: int = field(compare=False, default=0)
    begun: float = field(compare=False, default=0.0)
    ends: float = field(compare=False, default=0.0)
    dies: float = field(compare=False, default=0.0)


class SimulatedCluster(WorkerPool):
    """A pool of workers on a simulated clock, as a discrete-event simulation.

    A search that is played on it, waiting (`Agent.learn`) or asynchronous, runs the code that it runs on a
    `DistributedEvaluator`. The clock stands still while the search computes (but for `ClusterConditions.driver`), and
    jumps to the next event while it waits. Workers that die or exceed the limit of time are replaced, and their work is
    given to the next free worker, by the rules of `DistributedEvaluator`.

    Two runs with equal seeds are equal. Whether an architecture fails follows from the seed and the architecture.

    Args:
        evaluator: answers at once, and tells with the metric ``seconds`` what an evaluation would take: a table.
        workers: number of workers.
        conditions: of the cluster.
        timeout: see `DistributedEvaluator`. While the default is not known yet, the limit is looked at every two
            minutes.
        attempts: number of workers that may be lost on one architecture.
        seed: of stragglers, deaths and failures.

    Attributes:
        conditions: see above.
        clock: simulated seconds.
        lost: number of workers lost or replaced so far.
        wasted: seconds spent on evaluations whose workers were lost.

    Raises:
        ValueError: the evaluator is stateful, or a number is out of range.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        workers: int = 1,
        conditions: ClusterConditions | None = None,
        *,
        timeout: float | None = None,
        attempts: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__(evaluator, workers)
        check_positive("attempts", attempts)
        check_seed(seed)
        self.conditions = conditions or ClusterConditions()
        self.clock, self.lost, self.wasted = 0.0, 0, 0.0
        self._limit, self._attempts, self._seed = TimeLimit(timeout), attempts, seed
        self._rng, self._numbers = np.random.default_rng(seed), count()
        self._free, self._spent = workers, 0.0
        self._queue: list[_Job] = []
        self._open: set[Future[Evaluations]] = set()  # what is not done
        self._running: dict[int, _Job] = {}
        # What is to happen, by its time: a look at a job, or, where it has none, a replaced worker that is ready.
        self._events: list[tuple[float, int, _Job | None]] = []

    @property
    def busy(self) -> float:
        """Seconds that the workers have spent on evaluations so far, in all."""
        return self._spent + sum(self.clock - job.begun for job in self._running.values())

    @property
    def utilisation(self) -> float:
        """Share of the workers' time so far that was spent on evaluations, without those that were lost."""
        return (self.busy - self.wasted) / (self.workers * self.clock) if self.clock else 0.0

    def fingerprint(self) -> dict[str, Any]:
        share = self.conditions.failure_share
        return self.local.fingerprint() | ({"failure_share": share, "failure_seed": self._seed} if share else {})

    # ------------------------------------------------------------------ evaluating

    def submit(self, tokens: Tokens, fidelity: float | None) -> Future[Evaluations]:
        self._pass_until(self.clock + self.conditions.driver)
        job = _Job(next(self._numbers), *self.outcome(tokens, fidelity), fidelity)
        heapq.heappush(self._queue, job)
        self._open.add(job.future)
        self._distribute()
        return job.future

    def outcome(self, tokens: Tokens, fidelity: float | None = None) -> tuple[Evaluations, float]:
        """The evaluation of int64[1, T], and how many seconds it takes if its worker is neither slow nor lost.

        Raises:
            ValueError: the evaluator does not report seconds.
        """
        found = self.local.evaluate(tokens, fidelity=fidelity)
        if "seconds" not in found.metrics:
            raise ValueError(
                "a simulated cluster needs an evaluator with the metric 'seconds', such as a table; "
                f"{type(self.unwrapped).__name__} reports {', '.join(found.metrics) or 'none'}"
            )
        seconds = self.conditions.scale * float(found.metrics["seconds"][0])
        if self.conditions.failure_share:
            fails, moment = np.random.default_rng([self._seed, *tokens[0].tolist()]).random(2)
            if fails < self.conditions.failure_share:
                return Evaluations.failure("failed in the simulation"), seconds * float(moment)
        return found, seconds

    def wait(self, begun: Collection[Future[Any]], poll: Callable[[], None]) -> Collection[Future[Any]]:
        """Lets the time pass until something is done."""
        poll()
        done = [future for future in begun if future not in self._open]
        pending = set(begun)
        while pending and not done:
            done = [future for future in self._next_events() if future in pending]
        return done

    # ------------------------------------------------------------------ the clock

    def _pass_until(self, clock: float) -> None:
        while self._events and self._events[0][0] <= clock:
            self._next_events()
        self.clock = clock

    def _next_events(self) -> list[Future[Evaluations]]:
        """Lets the time pass to the next event; returns what has ended then."""
        self.clock, ended = self._events[0][0], []
        while self._events and self._events[0][0] == self.clock:
            *_, job = heapq.heappop(self._events)
            if job is None:
                self._free += 1
            elif self.clock >= job.ends:
                ended.append(self._finish(job))
            elif self.clock >= min(job.dies, job.begun + self._limit.seconds(job.fidelity)):
                ended += self._lose(job)
            else:
                self._plan(job)
        self._distribute()
        return ended

    def _distribute(self) -> None:
        """Has free workers begin what is queued."""
        while self._free and self._queue:
            job = heapq.heappop(self._queue)
            self._free -= 1
            self._running[job.number] = job
            seconds, conditions = job.seconds, self.conditions
            if conditions.straggler_share and self._rng.random() < conditions.straggler_share:
                seconds *= 1 + self._rng.pareto(conditions.straggler_shape)
            life = conditions.lifetime * self._rng.exponential() if conditions.lifetime < math.inf else math.inf
            job.begun = self.clock
            job.ends = self.clock + seconds if seconds <= life else math.inf
            job.dies = self.clock + life if life < seconds else math.inf
            self._plan(job)

    def _plan(self, job: _Job) -> None:
        """Plans the next look at a job: at its end, or at the limit of time."""
        limit = self._limit.seconds(job.fidelity)
        look = self.clock + FLOOR if limit == UNMEASURED else job.begun + limit
        heapq.heappush(self._events, (min(job.ends, job.dies, look), next(self._numbers), job))

    def _finish(self, job: _Job) -> Future[Evaluations]:
        self._leave(job)
        self._free += 1
        if not job.found.failed.any():
            self._limit.measured(self.clock - job.begun, job.fidelity)
        return self._answer(job, job.found)

    def _lose(self, job: _Job) -> list[Future[Evaluations]]:
        """Replaces the worker; returns the future of its job if that has lost too many."""
        self.wasted += self._leave(job)
        self.lost += 1
        job.attempts += 1
        heapq.heappush(self._events, (self.clock + self.conditions.restart, next(self._numbers), None))
        if job.attempts < self._attempts:
            heapq.heappush(self._queue, job)
            return []
        return [self._answer(job, Evaluations.failure(f"worker lost {job.attempts} times"))]

    def _answer(self, job: _Job, found: Evaluations) -> Future[Evaluations]:
        self._open.remove(job.future)
        job.future.set_result(found)
        return job.future

    def _leave(self, job: _Job) -> float:
        """Takes a job from its worker; returns the seconds that it has spent on it."""
        del self._running[job.number]
        spent = self.clock - job.begun
        self._spent += spent
        return spent
