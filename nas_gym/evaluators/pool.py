"""Evaluators whose workers evaluate in the background, one architecture each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

from nas_gym.evaluators.evaluator import Evaluations, Evaluator, concatenate
from nas_gym.spaces import Tokens


class WorkerPool(Evaluator):
    """Distributes batches over workers, and answers them in their order; a subclass says what the workers are.

    Args:
        local: the evaluator that the workers have, in this process.
        workers: number of workers.

    Attributes:
        local: see above.
        workers: see above.
        poll: called about twice a second while `evaluate` waits; what it raises ends the waiting.

    Raises:
        ValueError: the evaluator is stateful, or the number of workers is not a positive integer.
    """

    def __init__(self, local: Evaluator, workers: int) -> None:
        check_positive("workers", workers)
        super().__init__(local.space)
        if local.stateful:
            raise ValueError(
                f"{type(local.unwrapped).__name__} is stateful: its state would differ between the workers"
            )
        self.local, self.workers, self.fidelities = local, workers, local.fidelities
        self.poll: Callable[[], None] = lambda: None
        self._begun: dict[tuple[bytes, float | None], list[Future[Evaluations]]] = {}

    @property
    def unwrapped(self) -> Evaluator:
        return self.local.unwrapped

    @abstractmethod
    def submit(self, tokens: Tokens, fidelity: float | None) -> Future[Evaluations]:
        """Gives int64[1, T] to the next free worker."""

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        """Distributes int64[B, T] over the workers; duplicates are evaluated once. Parents are ignored."""
        if not len(tokens):
            return self.local.evaluate(tokens, fidelity=fidelity, parents=parents)
        parts = {part.tobytes(): found for part, found in self.evaluate_in_parts(tokens, fidelity=fidelity)}
        return concatenate([parts[row.tobytes()] for row in tokens])

    def evaluate_in_parts(
        self, tokens: Tokens, *, fidelity: float | None = None
    ) -> Iterator[tuple[Tokens, Evaluations]]:
        unique = {row.tobytes(): row[None] for row in tokens}
        futures = {self._taken(one, fidelity): one for one in unique.values()}
        while futures:
            for future in self.wait(futures, self.poll):
                yield futures.pop(future), future.result()

    def begin(self, tokens: Tokens, *, fidelity: float | None = None) -> Future[Any]:
        """Starts the evaluation of int64[1, T]; the next `evaluate` of it takes the result."""
        waiting = self._begun.setdefault((tokens.tobytes(), fidelity), [])
        waiting.append(waiting[0] if waiting else self.submit(tokens, fidelity))
        return waiting[0]

    def _taken(self, tokens: Tokens, fidelity: float | None) -> Future[Evaluations]:
        """The evaluation that `begin` has started, or a new one."""
        waiting = self._begun.get((tokens.tobytes(), fidelity), [])
        future = waiting.pop() if waiting else self.submit(tokens, fidelity)
        if not waiting:
            self._begun.pop((tokens.tobytes(), fidelity), None)
        return future


def check_positive(name: str, value: int) -> None:
    """Complains of what is not an integer of at least 1.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
