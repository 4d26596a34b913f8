"""An evaluator distributed over processes and machines with Ray."""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import math
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count
from numbers import Real
from typing import Any, Self

import numpy as np

from nas_gym.evaluators.evaluator import Evaluations, Evaluator
from nas_gym.evaluators.pool import WorkerPool, check_positive
from nas_gym.evaluators.waiting import TimeLimit
from nas_gym.spaces import Tokens

logger = logging.getLogger("nas_gym")

OBJECT_STORE = 2**27  # bytes of shared memory if Ray is started here; the messages are small
PR_SET_PDEATHSIG = 1  # of Linux's prctl


@dataclass(order=True)
class _Job:
    """One architecture, int64[1, T]. Repeated jobs keep their number, and so come before new ones."""

    number: int
    tokens: Tokens = field(compare=False)
    fidelity: float | None = field(compare=False)
    future: Future[Evaluations] = field(compare=False, default_factory=Future)
    attempts: int = field(compare=False, default=0)


class Worker:
    """The actor that runs in a worker's process, with its own evaluator."""

    def prepare(self, make: Callable[[], Evaluator]) -> str | None:
        """Makes the evaluator; returns its fingerprint as JSON, None if it has none.

        Not a constructor, because Ray does not distinguish an error there from a lost process.
        """
        _end_with_parent()
        self.evaluator = make()
        try:
            return json.dumps(self.evaluator.fingerprint(), sort_keys=True)
        except ValueError:
            return None

    def evaluate(self, tokens: Tokens, fidelity: float | None) -> Evaluations:
        """Evaluates int64[B, T]."""
        return self.evaluator.evaluate(tokens, fidelity=fidelity)


def _end_with_parent() -> None:
    """Has Linux kill this process when its node's Ray ends. Ray asks it to exit, which a stopped process cannot."""
    with contextlib.suppress(OSError, AttributeError):  # other systems
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class DistributedEvaluator(WorkerPool):
    """Evaluates in worker processes, each with its own evaluator, on this machine or on a Ray cluster.

    A batch is distributed over the workers, one architecture at a time, and returned in its order. The results equal
    those of the wrapped evaluator, except for rounding if processors or numbers of threads differ. A worker that is
    lost (its process killed, its machine gone), or that takes longer than `timeout`, is replaced, and its work is given
    to the next free worker. An architecture that has lost `attempts` workers is a failed evaluation: most likely it
    needs too much memory. Errors of the evaluator are raised here.

    Ray is started if it is not running. `close`, or leaving a ``with`` block, stops the workers, and Ray if it was
    started here.

    Args:
        make: makes the evaluator, which must not be stateful; called in every worker and in this process. The workers
            must be able to import everything that it needs.
        workers: number of workers.
        address: address of a Ray cluster (``"auto"``, ``"10.0.0.1:6379"``); None starts Ray on this machine only.
        cpus: cores per worker, as counted by Ray.
        gpus: GPUs per worker; 0.25 puts four workers on one GPU. Workers without GPUs see none.
        timeout: seconds per evaluation after which a worker is replaced; `math.inf` sets no limit. None takes 20 times
            the median duration so far of evaluations of the same fidelity that did not fail, and at least two
            minutes; until five have been measured, a day.
        attempts: number of workers that may be lost on one architecture.
        local: the result of `make` in this process, if it exists already.

    Attributes:
        workers: number of workers.
        lost: number of workers lost or replaced so far.
        poll: called about twice a second while `evaluate` waits; what it raises ends the waiting.

    Raises:
        ValueError: Ray is not installed, a number is out of range, this machine has too few GPUs, or the evaluator is
            stateful.
    """

    def __init__(
        self,
        make: Callable[[], Evaluator],
        workers: int = 1,
        *,
        address: str | None = None,
        cpus: float = 1.0,
        gpus: float = 0.0,
        timeout: float | None = None,
        attempts: int = 3,
        local: Evaluator | None = None,
    ) -> None:
        check_positive("workers", workers)
        check_positive("attempts", attempts)
        for name, number in (("cpus", cpus), ("gpus", gpus)):
            if not isinstance(number, Real) or isinstance(number, bool) or not 0 <= number < math.inf:
                raise ValueError(f"{name} must be a number that is not negative, got {number!r}")
        self._limit = TimeLimit(timeout)
        super().__init__(make() if local is None else local, workers)
        self.attempts, self.lost, self._make = attempts, 0, make
        self._started_ray = start_ray(address, workers * cpus, workers * gpus)
        import ray

        # No restarts by Ray, which does not know the job of a lost worker.
        self._new_actor: Callable[..., Any] = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0)(Worker).remote
        self._actors: list[Any] = []
        self._numbers = count(1)
        self._jobs: queue.PriorityQueue[_Job] = queue.PriorityQueue()
        self._fingerprint: Future[str | None] = Future()  # of the first worker
        self._lock, self._closed = threading.Lock(), False
        # One thread per worker. Daemons, so that the interpreter can exit while they work.
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def fingerprint(self) -> dict[str, Any]:
        """The fingerprint of the workers' evaluators, whose devices may differ from this process's.

        Raises:
            ValueError: they have none.
        """
        text = self._fingerprint.result()
        return self.local.fingerprint() if text is None else dict(json.loads(text))

    def submit(self, tokens: Tokens, fidelity: float | None) -> Future[Evaluations]:
        if self._closed:
            raise ValueError("the evaluator is closed: its workers are gone")
        job = _Job(next(self._numbers), np.array(tokens), fidelity)
        self._jobs.put(job)
        return job.future

    # ------------------------------------------------------------------ workers

    def _serve(self) -> None:
        """The loop of one thread: gives its worker one job after another, and replaces a lost worker.

        It takes jobs only while it has a worker; while one is starting, the workers of the other threads do the work.
        """
        actor, error = None, None
        while True:
            if actor is None and error is None:
                try:
                    actor = self._started()
                except Exception as raised:
                    error = _own(raised)
                    self._tell_fingerprint(error)
            job = self._jobs.get()
            if job.number == 0:
                return
            if error is not None:
                job.future.set_exception(error)
            elif not self._done(job, actor):
                actor = None

    def _started(self) -> Any:
        """Starts a new worker and waits until it is ready."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        for _ in range(self.attempts):
            with self._lock:
                if self._closed:
                    break
                actor = self._new_actor()
                self._actors.append(actor)
            try:
                self._tell_fingerprint(ray.get(actor.prepare.remote(self._make)))
                return actor
            except RayTaskError:
                raise
            except RayError as lost:
                self._give_up(actor, lost)
        raise RuntimeError(f"{self.attempts} workers in a row were lost while starting")

    def _tell_fingerprint(self, found: str | Exception | None) -> None:
        """Records the fingerprint of the first worker.

        Raises:
            ValueError: another worker has a different one, so results would depend on which worker evaluates.
        """
        with self._lock:
            if self._fingerprint.done():
                first = None if self._fingerprint.exception() else self._fingerprint.result()
                if isinstance(found, str) and first is not None and found != first:
                    raise ValueError(f"workers must have equal evaluators; one has {found}, another {first}")
            elif isinstance(found, Exception):
                self._fingerprint.set_exception(found)
            else:
                self._fingerprint.set_result(found)

    def _done(self, job: _Job, actor: Any) -> bool:
        """Runs a job on a worker; returns False if the worker was lost, and the job was requeued or has failed."""
        from ray.exceptions import RayError, RayTaskError

        try:
            job.future.set_result(self._answer(job, actor))
        except RayTaskError as raised:  # raised by the evaluator
            job.future.set_exception(_own(raised))
        except RayError as lost:
            self._give_up(actor, lost)
            job.attempts += 1
            if job.attempts < self.attempts:
                self._jobs.put(job)
            else:
                job.future.set_result(Evaluations.failure(f"worker lost {job.attempts} times"))
            return False
        except Exception as raised:  # raised by Ray itself: pass it on to the caller
            job.future.set_exception(raised)
        return True

    def _answer(self, job: _Job, actor: Any) -> Evaluations:
        """What a worker makes of a job.

        Raises:
            RayError: the worker is lost, or has taken too long.
        """
        import ray

        begun, reference = time.monotonic(), actor.evaluate.remote(job.tokens, job.fidelity)
        while not ray.wait([reference], timeout=self._limit.step)[0]:
            if time.monotonic() - begun > (limit := self._limit.seconds(job.fidelity)):
                raise ray.exceptions.GetTimeoutError(f"no result after {limit:,.0f} s")
        found: Evaluations = ray.get(reference)
        if not found.failed.any():
            self._limit.measured(time.monotonic() - begun, job.fidelity)
        return found

    def _give_up(self, actor: Any, reason: Exception) -> None:
        import ray

        if self._closed:
            return
        self.lost += 1
        text = str(reason).strip().partition("\n")[0]
        logger.warning("a worker is lost and replaced (%s: %s)", type(reason).__name__, text)
        self._actors.remove(actor)
        ray.kill(actor)

    def close(self) -> None:
        """Stops the workers immediately, and Ray if it was started here."""
        import ray

        with self._lock:
            if self._closed:
                return
            self._closed = True
        for _ in self._threads:
            self._jobs.put(_Job(0, np.empty((0, self.space.length), dtype=np.int64), None))
        for actor in list(self._actors):
            ray.kill(actor)
        for thread in self._threads:
            thread.join(timeout=10)
        if self._started_ray:
            ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _own(raised: Exception) -> Exception:
    """The error raised by the evaluator, with Ray's error as its cause."""
    own = getattr(raised, "cause", None)
    if not isinstance(own, Exception):
        return raised
    own.__cause__ = raised
    return own


def start_ray(address: str | None, cpus: float, gpus: float = 0.0) -> bool:
    """Joins the Ray cluster at an address, or starts Ray on this machine with the requested number of cores.

    Returns:
        Whether Ray was initialised here; False if it was running already.

    Raises:
        ValueError: Ray is not installed, there is no cluster at the address, or this machine has too few GPUs.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # a worker without GPUs sees none
    try:
        import ray
    except ImportError:
        raise ValueError("several workers need Ray: pip install 'nas-gym[ray]'") from None
    if ray.is_initialized():
        return False
    quiet: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
    if address is not None:
        try:
            ray.init(address, **quiet)
        except (ConnectionError, ValueError) as error:
            raise ValueError(f"there is no Ray cluster at {address!r}: {error}") from error
        return True
    cores = max(1, math.ceil(cpus))
    ray.init("local", num_cpus=cores, object_store_memory=OBJECT_STORE, include_dashboard=False, **quiet)
    found: float = ray.cluster_resources().get("GPU", 0.0)  # type: ignore[no-untyped-call]
    if found < gpus:
        ray.shutdown()
        raise ValueError(f"the workers need {gpus:g} GPUs in total, but this machine has {found:g}")
    return True
