"""The contract of evaluators: a batch of architectures in, a batch of evaluations out."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nas_gym.evaluators.waiting import first_ended
from nas_gym.spaces import SearchSpace, Tokens
from nas_gym.types import Floats

logger = logging.getLogger("nas_gym")


@dataclass(frozen=True, slots=True)
class Evaluations:
    """What is known of B architectures.

    Attributes:
        accuracy: float64[B], on the validation split, in [0, 1]; 0 where failed.
        metrics: float64[B] by name: ``parameters``, ``flops``, ``latency`` (seconds), ``seconds``, ``epochs``, ...
        failed: bool[B], children that diverged or ran out of memory.
        reasons: why each one failed, empty where it did not.
    """

    accuracy: Floats
    metrics: dict[str, Floats] = field(default_factory=dict)
    failed: NDArray[np.bool_] = None  # type: ignore[assignment]  # filled in below
    reasons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.accuracy)
        failed = np.zeros(n, dtype=bool) if self.failed is None else np.asarray(self.failed, dtype=bool)
        object.__setattr__(self, "failed", failed)
        object.__setattr__(self, "reasons", tuple(self.reasons) or ("",) * n)
        lengths = {name: len(column) for name, column in self.metrics.items()}
        for name, length in {**lengths, "failed": len(failed), "reasons": len(self.reasons)}.items():
            if length != n:
                raise ValueError(f"{name} has {length} rows, accuracy has {n}")
        if not (np.isfinite(self.accuracy) | failed).all():
            raise ValueError("accuracy must be finite wherever an evaluation has not failed")

    @classmethod
    def failure(cls, reason: str) -> Evaluations:
        """One evaluation that has failed."""
        return cls(np.zeros(1), {}, np.ones(1, dtype=bool), (reason,))

    def __len__(self) -> int:
        return len(self.accuracy)

    def columns(self) -> dict[str, Floats]:
        """``accuracy``, ``failed`` (0 or 1) and the metrics as float64[B] columns."""
        return {"accuracy": self.accuracy, "failed": self.failed.astype(np.float64), **self.metrics}

    def rows(self, index: slice | NDArray[np.int64] | NDArray[np.bool_]) -> Evaluations:
        """The evaluations at `index`."""
        chosen = np.arange(len(self))[index]
        return Evaluations(
            self.accuracy[chosen],
            {name: column[chosen] for name, column in self.metrics.items()},
            self.failed[chosen],
            tuple(self.reasons[i] for i in chosen),
        )


def concatenate(parts: Sequence[Evaluations]) -> Evaluations:
    """One batch behind the other; a metric that one of them does not tell is NaN there."""
    names = dict.fromkeys(name for part in parts for name in part.metrics)
    return Evaluations(
        np.concatenate([np.empty(0), *(part.accuracy for part in parts)]),
        {
            name: np.concatenate([part.metrics.get(name, np.full(len(part), np.nan)) for part in parts])
            for name in names
        },
        np.concatenate([np.empty(0, dtype=bool), *(part.failed for part in parts)]),
        tuple(reason for part in parts for reason in part.reasons),
    )


class Evaluator(ABC):
    """Turns architectures into evaluations, always a batch at a time.

    Environments that are handed one evaluator share it: gymnasium deep-copies the arguments of an environment, so a
    deep copy of an evaluator is the evaluator itself.

    Attributes:
        space: the search space whose sequences it understands.
        trains: whether it trains networks on a task: then its arguments include ``task``, ``seed``, ``device``,
            ``data_dir`` and ``download``.
        uses_task: whether its arguments include ``task``.
        relaxed: whether a differentiable agent trains the weights that it scores with, and no schedule does.
        stateful: whether earlier calls, of `update` or of `evaluate`, change later results, so that a run must save it.
        fidelities: the shares of the full budget that it can spend on an architecture, ascending, the last one 1; ()
            where it evaluates in full only.
        objective: name of the objective that suits its evaluations, where none is asked for.
        workers: how many evaluations it does side by side.
        part_size: how many architectures are a part in `evaluate_in_parts`; None takes all of a batch.
    """

    trains: ClassVar[bool] = False
    uses_task: ClassVar[bool] = False
    relaxed: ClassVar[bool] = False
    objective: str = "accuracy"
    stateful: bool = False
    fidelities: tuple[float, ...] = ()
    workers: int = 1
    part_size: int | None = None

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    @property
    def unwrapped(self) -> Evaluator:
        """The evaluator behind all that wrap it."""
        return self

    @property
    def has_fidelities(self) -> bool:
        """Whether it can evaluate with a share of the full budget."""
        return len(self.fidelities) > 1

    @property
    def has_shared_weights(self) -> bool:
        """Whether `update` trains weights that architectures share, by a schedule.

        Other evaluators that are stateful change with what they evaluate, and have no schedule.
        """
        return self.stateful and type(self.unwrapped).update is not Evaluator.update

    @abstractmethod
    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        """Scores int64[B, T] on the validation split.

        Pure: it never trains shared weights and never advances a random state that matters.

        Args:
            tokens: legal, filled sequences.
            fidelity: the share of the full budget to spend, in (0, 1]: the nearest of `fidelities` is taken. An
                evaluator that has none evaluates in full.
            parents: int64[B, T], the architectures whose weights the children inherit, where it offers that.
        """

    def evaluate_in_parts(
        self, tokens: Tokens, *, fidelity: float | None = None
    ) -> Iterator[tuple[Tokens, Evaluations]]:
        """Evaluates as `evaluate` does, and yields each part of the batch as soon as it is known, in any order."""
        size = self.part_size or len(tokens)
        for first in range(0, len(tokens), size):
            part = tokens[first : first + size]
            yield part, self.evaluate(part, fidelity=fidelity)

    def begin(self, tokens: Tokens, *, fidelity: float | None = None) -> Future[Any]:
        """Begins to evaluate one architecture, int64[1, T], in the background, where the evaluator can.

        Returns:
            Is done when `evaluate` will answer at once; where nothing runs in the background, from the start.
        """
        del tokens, fidelity
        done: Future[Any] = Future()
        done.set_result(None)
        return done

    def wait(self, begun: Collection[Future[Any]], poll: Callable[[], None]) -> Collection[Future[Any]]:
        """Waits until something is done that `begin` has returned; see `first_ended`."""
        return first_ended(begun, poll)

    def fingerprint(self) -> dict[str, Any]:
        """Everything that its results depend on beside the space, the architecture and the fidelity, as JSON has it.

        Evaluators of equal fingerprints give equal results, so that a store may answer for either.

        Raises:
            ValueError: it does not tell, or its results do not follow from any settings.
        """
        raise ValueError(
            f"{type(self).__name__} has no fingerprint, without which its results cannot be told from those of other "
            "settings: give it a method fingerprint() that returns all settings that its results depend on"
        )

    def nearest_fidelity(self, fidelity: float | None) -> float | None:
        """What an episode asks for, as one of `fidelities`; None is an evaluation in full.

        Raises:
            ValueError: it is not in (0, 1], or less than 1 where the evaluator has no fidelities.
        """
        if fidelity is None:
            return None
        if isinstance(fidelity, bool) or not isinstance(fidelity, Real) or not 0 < fidelity <= 1:
            raise ValueError(f"fidelity must be a number in (0, 1], the share of the full budget; got {fidelity!r}")
        if fidelity == 1:
            return None
        if not self.fidelities:
            raise ValueError(f"fidelity must be 1 or None, for {type(self).__name__} has no others; got {fidelity!r}")
        nearest = min(self.fidelities, key=lambda share: abs(share - fidelity))
        return None if nearest == 1 else nearest

    def update(self, tokens: Tokens) -> dict[str, float]:
        """One optimiser step of the shared weights on int64[M, T]; nothing if not stateful.

        Returns:
            Scalars to log.
        """
        del tokens
        return {}

    def plan_updates(self, steps: int) -> None:
        """Is told how many updates a schedule will make before it asks for scores, for a learning rate to follow."""
        del steps

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to go on exactly from here: tensors, numbers, strings, and dicts of them."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to where `state_dict` was taken."""
        if state:
            raise ValueError(f"{type(self).__name__} holds no state, got the keys {sorted(state)}")

    def __deepcopy__(self, memo: dict[int, Any]) -> Evaluator:
        return self


class FunctionEvaluator(Evaluator):
    """Scores by a function of the tokens: for tests, for benchmarks, for one's own tables.

    Args:
        space: the search space.
        function: int64[B, T] -> float64[B] in [0, 1], or one number for all (``accuracy`` by keyword).
        name: of the function, in its fingerprint; to be changed whenever the function is.
    """

    def __init__(
        self,
        space: SearchSpace,
        function: Callable[[Tokens], Floats] | None = None,
        *,
        accuracy: float = 0.5,
        name: str | None = None,
    ) -> None:
        super().__init__(space)
        self.function = function
        self.accuracy = accuracy
        self.name = name

    def fingerprint(self) -> dict[str, Any]:
        if self.function is None:
            return {"evaluator": "constant", "accuracy": self.accuracy}
        if self.name is None:
            raise ValueError(
                "FunctionEvaluator needs a name for its function, to tell its results from those of others"
            )
        return {"evaluator": "function", "name": self.name}

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        del fidelity, parents
        if self.function is None:
            return Evaluations(np.full(len(tokens), self.accuracy))
        return Evaluations(np.asarray(self.function(tokens), dtype=np.float64))


class Schedule:
    """When a stateful evaluator trains: the environment scores finished architectures through this.

    The base class never trains: it is the schedule of evaluators without state. A schedule is shared by the
    environments that are handed it, like its evaluator.

    Attributes:
        evaluator: what it trains and scores with.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self._statistics: dict[str, float] = {}
        self._trials = 0

    @property
    def trials(self) -> int:
        """Architectures scored so far; spaces that grow in a search go by it."""
        return self._trials

    @property
    def statistics(self) -> dict[str, float]:
        """Scalars to log of the training that the last scoring brought, means over its steps."""
        return self._statistics

    def prepare(self) -> Iterator[dict[str, float]]:
        """Does the training that is due before the next architectures can be scored, an optimiser step an item.

        `score` runs it to its end; a run that wants to save itself in between iterates over it first.
        """
        return iter(())

    def score(self, tokens: Tokens, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        """Evaluates the architectures int64[B, T] whose episodes have just finished; logs those that fail.

        Args:
            tokens: legal, filled sequences.
            parents: int64[B, T], the architectures whose weights they inherit; None leaves it to the evaluator.
            fidelity: one of the evaluator's `fidelities`, and then the metrics tell it; None evaluates in full.
        """
        for _ in self.prepare():
            pass
        evaluations = self.evaluator.evaluate(tokens, fidelity=fidelity, parents=parents)
        if fidelity is not None:
            told = {"fidelity": np.full(len(tokens), fidelity)}
            evaluations = replace(evaluations, metrics={**evaluations.metrics, **told})
        self._trials += len(tokens)
        for row in np.flatnonzero(evaluations.failed):
            logger.warning("failed trial (%s): %s", evaluations.reasons[row], self.evaluator.space.format(tokens[row]))
        return evaluations

    def quality(self) -> dict[str, float]:
        """Scalars to log of how well shared weights rank architectures; none by default."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"evaluator": self.evaluator.state_dict(), "trials": self.trials}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.evaluator.load_state_dict(state["evaluator"])
        self._trials = int(state["trials"])

    def __deepcopy__(self, memo: dict[int, Any]) -> Schedule:
        return self
