"""Errors of an evaluator as failed trials."""

from __future__ import annotations

import copy
import logging
from typing import Any

from nas_gym.evaluators.evaluator import Evaluations, Evaluator, concatenate
from nas_gym.spaces import Tokens

logger = logging.getLogger("nas_gym")


class GuardedEvaluator(Evaluator):
    """Makes failed evaluations of architectures on which another evaluator raises an error.

    A batch in which an error is raised is evaluated again, one architecture at a time. An evaluator whose state changes
    with what it evaluates is first put back to where it was. Errors in the training of shared weights (`update`) are
    no single architecture's, and are raised.

    Args:
        evaluator: the evaluator.
        retries: how often an architecture is evaluated again before it fails.

    Attributes:
        evaluator: the evaluator.

    Raises:
        ValueError: retries is not a whole number, or negative.
    """

    def __init__(self, evaluator: Evaluator, retries: int = 0) -> None:
        if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
            raise ValueError(f"retries must be an integer that is not negative, got {retries!r}")
        super().__init__(evaluator.space)
        self.evaluator, self.retries = evaluator, retries
        self.stateful, self.fidelities = evaluator.stateful, evaluator.fidelities
        self.workers, self.part_size = evaluator.workers, evaluator.part_size

    @property
    def unwrapped(self) -> Evaluator:
        return self.evaluator.unwrapped

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        """Evaluates int64[B, T]; where an error is raised, the reason tells it."""
        before = self._state()
        try:
            return self.evaluator.evaluate(tokens, fidelity=fidelity, parents=parents)
        except Exception as error:
            if not len(tokens):
                raise
            self._restore(before)
            if len(tokens) == 1:
                return self._again(tokens, fidelity, parents, error)
        rows = [slice(row, row + 1) for row in range(len(tokens))]
        return concatenate([self.evaluate(tokens[row], fidelity=fidelity, parents=_part(parents, row)) for row in rows])

    def _again(self, tokens: Tokens, fidelity: float | None, parents: Tokens | None, error: Exception) -> Evaluations:
        """Evaluates an architecture again after an error, as often as it may be."""
        for left in reversed(range(self.retries)):
            logger.warning("an evaluation raised %r; it is tried again, %d more times at most", error, left)
            before = self._state()
            try:
                return self.evaluator.evaluate(tokens, fidelity=fidelity, parents=parents)
            except Exception as raised:
                self._restore(before)
                error = raised
        reason = f"raised {type(error).__name__}: {error}"
        logger.debug(reason, exc_info=error)
        return Evaluations.failure(reason)

    def _state(self) -> dict[str, Any] | None:
        """What evaluations change; with shared weights, only `update` changes anything."""
        changes = self.stateful and not self.has_shared_weights
        return copy.deepcopy(self.evaluator.state_dict()) if changes else None

    def _restore(self, state: dict[str, Any] | None) -> None:
        if state is not None:
            self.evaluator.load_state_dict(state)

    def fingerprint(self) -> dict[str, Any]:
        return self.evaluator.fingerprint()

    def update(self, tokens: Tokens) -> dict[str, float]:
        return self.evaluator.update(tokens)

    def state_dict(self) -> dict[str, Any]:
        return self.evaluator.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.evaluator.load_state_dict(state)


def _part(parents: Tokens | None, row: slice) -> Tokens | None:
    return None if parents is None else parents[row]
