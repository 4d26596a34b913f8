"""An evaluator spread over processes and machines, by Ray."""

from __future__ import annotations

import json
import logging
import math
import os
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, field
from itertools import count
from numbers import Real
from typing import Any, Self

import numpy as np

from nas_gym.evaluators.evaluator import Evaluations, Evaluator, joined
from nas_gym.spaces import Tokens

logger = logging.getLogger("nas_gym")

OBJECT_STORE = 2**27  # bytes of shared memory that a Ray of our own takes: what travels is small


@dataclass(order=True)
class _Job:
    """One architecture, int64[1, T]. What is done again keeps its number, and so comes before what is new."""

    number: int
    tokens: Tokens = field(compare=False)
    fidelity: float | None = field(compare=False)
    future: Future[Evaluations] = field(compare=False, default_factory=Future)
    attempts: int = field(compare=False, default=0)


class Worker:
    """What runs in a worker's process: an evaluator of its own."""

    def prepare(self, make: Callable[[], Evaluator]) -> str | None:
        """Makes the evaluator; returns its fingerprint as JSON, None if it has none.

        No constructor, whose errors Ray would not tell from a lost process.
        """
        self.evaluator = make()
        try:
            return json.dumps(self.evaluator.fingerprint(), sort_keys=True)
        except ValueError:
            return None

    def evaluate(self, tokens: Tokens, fidelity: float | None) -> Evaluations:
        """What the evaluator says of int64[B, T]."""
        return self.evaluator.evaluate(tokens, fidelity=fidelity)


class DistributedEvaluator(Evaluator):
    """Evaluates in workers, each a process with an evaluator of its own, on this machine or on those of a Ray cluster.

    A batch is spread over the workers, one architecture at a time, and comes back in its order. The results are the
    evaluator's own, but for rounding where processors or their numbers of threads differ. A worker that is lost (its
    process killed, its machine gone), or that takes longer than `timeout`, is replaced; what it was at is given to the
    next one that is free. An architecture that has cost `attempts` workers is a failed evaluation: most likely it takes
    too much memory. An error that the evaluator raises is raised here.

    Ray is started if it is not running. `close`, or the end of a ``with``, ends the workers, and Ray if it was started
    here.

    Args:
        make: makes the evaluator, which must not be stateful; called in every worker, and here. The workers must be
            able to import what it is made of.
        workers: how many.
        address: of a Ray cluster (``"auto"``, ``"10.0.0.1:6379"``); None starts Ray on this machine alone.
        cpus: cores of a worker, as Ray counts them.
        gpus: GPUs of a worker; 0.25 puts four on one. A worker without sees none.
        timeout: seconds of one evaluation after which a worker is given up; None waits for ever.
        attempts: how many workers an architecture may cost.
        local: what `make` would make here, if it is there already.

    Attributes:
        workers: how many.
        lost: how many workers have been lost or given up so far.

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
        for name, whole in (("workers", workers), ("attempts", attempts)):
            if not isinstance(whole, int) or isinstance(whole, bool) or whole < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {whole!r}")
        for name, number in (("cpus", cpus), ("gpus", gpus)):
            if not isinstance(number, Real) or isinstance(number, bool) or not 0 <= number < math.inf:
                raise ValueError(f"{name} must be a number that is not negative, got {number!r}")
        if timeout is not None and (not isinstance(timeout, Real) or not timeout > 0):
            raise ValueError(f"timeout must be a positive number of seconds or None, got {timeout!r}")
        self.local = make() if local is None else local
        super().__init__(self.local.space)
        if self.local.stateful:
            raise ValueError(
                f"{type(self.local.unwrapped).__name__} is stateful: its workers would each come to a state of its own"
            )
        self.fidelities, self.workers, self.lost = self.local.fidelities, workers, 0
        self.timeout, self.attempts, self._make = timeout, attempts, make
        self._started_ray = start_ray(address, workers * cpus, workers * gpus)
        import ray

        # No restarts by Ray: here it is known what a lost worker was at.
        self._new_actor: Callable[..., Any] = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0)(Worker).remote
        self._actors: list[Any] = []
        self._numbers = count(1)
        self._jobs: queue.PriorityQueue[_Job] = queue.PriorityQueue()
        self._begun: dict[tuple[bytes, float | None], list[Future[Evaluations]]] = {}
        self._fingerprint: Future[str | None] = Future()  # that of the first worker
        self._lock, self._closed = threading.Lock(), False
        # A thread a worker. Daemons: the end of the interpreter does not wait for what they are at.
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    @property
    def unwrapped(self) -> Evaluator:
        return self.local.unwrapped

    def fingerprint(self) -> dict[str, Any]:
        """That of the workers' evaluators, whose devices need not be those of this process.

        Raises:
            ValueError: they have none.
        """
        told = self._fingerprint.result()
        return self.local.fingerprint() if told is None else dict(json.loads(told))

    # ------------------------------------------------------------------ evaluating

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        """Spreads int64[B, T] over the workers; what occurs twice is evaluated once. Parents are not read."""
        if not len(tokens):
            return self.local.evaluate(tokens, fidelity=fidelity, parents=parents)
        parts = {part.tobytes(): found for part, found in self.evaluate_in_parts(tokens, fidelity=fidelity)}
        return joined([parts[row.tobytes()] for row in tokens])

    def evaluate_in_parts(
        self, tokens: Tokens, *, fidelity: float | None = None
    ) -> Iterator[tuple[Tokens, Evaluations]]:
        unique = {row.tobytes(): row[None] for row in tokens}
        futures = {self._taken(one, fidelity): one for one in unique.values()}
        for future in as_completed(futures):
            yield futures[future], future.result()

    def begin(self, tokens: Tokens, *, fidelity: float | None = None) -> Future[Any]:
        """Gives int64[1, T] to a worker; one `evaluate` takes what comes of it."""
        waiting = self._begun.setdefault((tokens.tobytes(), fidelity), [])
        waiting.append(waiting[0] if waiting else self._given(tokens, fidelity))
        return waiting[0]

    def _taken(self, tokens: Tokens, fidelity: float | None) -> Future[Evaluations]:
        """What was begun earlier, or is begun now."""
        waiting = self._begun.get((tokens.tobytes(), fidelity), [])
        future = waiting.pop() if waiting else self._given(tokens, fidelity)
        if not waiting:
            self._begun.pop((tokens.tobytes(), fidelity), None)
        return future

    def _given(self, tokens: Tokens, fidelity: float | None) -> Future[Evaluations]:
        if self._closed:
            raise ValueError("the evaluator is closed: its workers are gone")
        job = _Job(next(self._numbers), np.array(tokens), fidelity)
        self._jobs.put(job)
        return job.future

    # ------------------------------------------------------------------ workers

    def _serve(self) -> None:
        """A thread's work: it has a worker do one job after another, and replaces one that is lost.

        It takes a job only when it has a worker: while one is starting, the other threads' workers do what is to be
        done.
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
        """A new worker that is ready."""
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
        raise RuntimeError(f"{self.attempts} workers in a row were lost before they had begun")

    def _tell_fingerprint(self, told: str | Exception | None) -> None:
        """Notes that of the first worker.

        Raises:
            ValueError: another worker's is different, so that results would depend on who evaluates.
        """
        with self._lock:
            if self._fingerprint.done():
                first = None if self._fingerprint.exception() else self._fingerprint.result()
                if isinstance(told, str) and first is not None and told != first:
                    raise ValueError(f"workers must have equal evaluators; one has {told}, another {first}")
            elif isinstance(told, Exception):
                self._fingerprint.set_exception(told)
            else:
                self._fingerprint.set_result(told)

    def _done(self, job: _Job, actor: Any) -> bool:
        """Has a worker do a job; False if the worker was lost, and the job is to be done again or has failed."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            job.future.set_result(ray.get(actor.evaluate.remote(job.tokens, job.fidelity), timeout=self.timeout))
        except RayTaskError as raised:  # by the evaluator
            job.future.set_exception(_own(raised))
        except RayError as lost:
            self._give_up(actor, lost)
            job.attempts += 1
            if job.attempts < self.attempts:
                self._jobs.put(job)
            else:
                reason = f"worker lost {job.attempts} times"
                job.future.set_result(Evaluations(np.zeros(1), {}, np.ones(1, dtype=bool), (reason,)))
            return False
        except Exception as raised:  # by Ray itself: whoever waits must hear of it
            job.future.set_exception(raised)
        return True

    def _give_up(self, actor: Any, reason: Exception) -> None:
        import ray

        if self._closed:
            return
        self.lost += 1
        text = str(reason).strip().partition("\n")[0] or "it took too long"
        logger.warning("a worker is lost and replaced (%s: %s)", type(reason).__name__, text)
        self._actors.remove(actor)
        ray.kill(actor)

    def close(self) -> None:
        """Ends the workers, whatever they are at, and Ray if it was started here."""
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
    """The error that the evaluator raised, with Ray's account of it behind it."""
    own = getattr(raised, "cause", None)
    if not isinstance(own, Exception):
        return raised
    own.__cause__ = raised
    return own


def start_ray(address: str | None, cpus: float, gpus: float = 0.0) -> bool:
    """Joins the Ray cluster at an address, or starts Ray on this machine with as many cores as are asked for.

    Returns:
        Whether it was done; a Ray that is running already is taken as it is.

    Raises:
        ValueError: Ray is not installed, there is no cluster at the address, or this machine has too few GPUs.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
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
        raise ValueError(f"the workers take {gpus:g} GPUs in all, of which this machine has {found:g}")
    return True
