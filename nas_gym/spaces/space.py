"""Search spaces as sequences of masked categorical decisions.

Everything else is derived from that sequence: the environment takes one decision per step, a controller has one softmax
per decision kind, mutation changes one decision, a table maps each sequence to a row.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from nas_gym.spaces.architecture import Architecture
from nas_gym.spaces.graph import ArchitectureGraph

Tokens = NDArray[np.int64]
UNDECIDED = -1
ENUMERABLE = 10_000_000  # sequences


@dataclass(frozen=True, slots=True)
class Decision:
    """One categorical choice of a search space.

    Attributes:
        name: unique in the space, such as ``"normal/node_2/input_1"``.
        kind: such as ``"input"``, ``"operation"``, ``"filter_height"``; decisions of the same kind share the parameters
            of a controller.
        group: the node or layer that the decision belongs to; a group's last decision closes it.
        choices: the meaning of each index.
        targets: for decisions that point to other groups: the group of each choice (``None``: no group). A group
            without decisions is an input of the network.
    """

    name: str
    kind: str
    group: int
    choices: tuple[str, ...]
    targets: tuple[int | None, ...] | None = None

    def __post_init__(self) -> None:
        if not self.choices:
            raise ValueError(f"decision {self.name!r} needs at least one choice")
        if self.targets is not None and len(self.targets) != len(self.choices):
            raise ValueError(f"decision {self.name!r} has {len(self.choices)} choices but {len(self.targets)} targets")


class SearchSpace(ABC):
    """A sequence of T masked categorical decisions with at most A choices each.

    Subclasses are frozen dataclasses, whose fields are their JSON form. They implement `decisions`, `size` and `graph`,
    and `weights` if choices depend on earlier ones.

    Attributes:
        name: of the kind of space.
        ordered: whether all choices are sizes, so that there is a smallest and a largest architecture.
    """

    name: str
    ordered: ClassVar[bool] = False

    @property
    @abstractmethod
    def decisions(self) -> tuple[Decision, ...]:
        """The T decisions, in the order in which they are taken."""

    @property
    @abstractmethod
    def size(self) -> int:
        """The exact number of legal, complete sequences."""

    @abstractmethod
    def graph(self, architecture: Architecture) -> ArchitectureGraph:
        """The architecture as a directed acyclic graph."""

    def weights(self, tokens: Tokens, position: int) -> NDArray[np.float64]:
        """The number of legal sequences that each choice leads to, up to a common factor per row.

        Prefix-dependent spaces override this method only: masks, uniform sampling and mutation are derived from it.

        Args:
            tokens: int64[B, T]; only columns before `position` are read.
            position: the decision to be taken.

        Returns:
            float64[B, A]; zero marks an illegal choice. No row is all zero for a legal prefix.
        """
        return np.broadcast_to(self._widths[position], (len(tokens), self.num_choices))

    @cached_property
    def dependent(self) -> NDArray[np.bool_]:
        """bool[T], the decisions whose legal choices depend on the trial or on earlier choices other than a stop."""
        return np.full(self.length, type(self).weights is not SearchSpace.weights)

    @cached_property
    def free(self) -> NDArray[np.bool_]:
        """bool[T], the decisions whose legal choices are always the same."""
        return ~self.dependent & bool((self.stop_choices < 0).all())

    @cached_property
    def prefix_free(self) -> bool:
        """Whether the legal choices never depend on earlier ones."""
        return bool(self.free.all())

    # ------------------------------------------------------------------ derived

    @cached_property
    def length(self) -> int:
        """T, the number of decisions."""
        return len(self.decisions)

    @cached_property
    def num_choices(self) -> int:
        """A, the largest number of choices of a decision."""
        return max(len(decision.choices) for decision in self.decisions)

    @cached_property
    def choice_counts(self) -> NDArray[np.int64]:
        """int64[T], the number of choices of each decision."""
        return np.array([len(decision.choices) for decision in self.decisions], dtype=np.int64)

    @cached_property
    def columns(self) -> dict[str, int]:
        """The column of each decision in the tokens, by name."""
        return {decision.name: column for column, decision in enumerate(self.decisions)}

    @cached_property
    def stop_choices(self) -> NDArray[np.int64]:
        """int64[T], the index of the choice ``"stop"`` in the decisions of kind ``"stop"``, -1 elsewhere.

        An environment ends the episode when a stop choice is taken, and fills the rest with `absent_choices`.
        """
        return np.array([_index(d, "stop") if d.kind == "stop" else -1 for d in self.decisions], dtype=np.int64)

    @cached_property
    def absent_choices(self) -> NDArray[np.int64]:
        """int64[T], the index of the choice ``"absent"``, -1 in decisions without it.

        Decisions about parts that the architecture does not have are filled with this choice: it is either the only
        legal choice or not legal.
        """
        return np.array([_index(d, "absent") for d in self.decisions], dtype=np.int64)

    @cached_property
    def _widths(self) -> NDArray[np.float64]:
        return (np.arange(self.num_choices) < self.choice_counts[:, None]).astype(np.float64)

    def legal(self, tokens: Tokens, position: int | NDArray[np.int64]) -> NDArray[np.bool_]:
        """The choices that are legal after a prefix.

        Args:
            tokens: int64[B, T]; only columns before the position are read.
            position: the decision to be taken, the same for all rows, or int64[B].

        Returns:
            bool[B, A], a new array. No row is all False for a legal prefix.
        """
        if isinstance(position, int | np.integer):
            return np.ascontiguousarray(self.weights(tokens, int(position)) > 0)
        mask = np.empty((len(tokens), self.num_choices), dtype=bool)
        for step in np.unique(position):
            rows = position == step
            mask[rows] = self.weights(tokens[rows], int(step)) > 0
        return mask

    def check(self, tokens: Tokens) -> None:
        """Raises a ValueError unless every row of int64[B, T] is a legal, complete sequence."""
        tokens = np.asarray(tokens)
        if tokens.ndim != 2 or tokens.shape[1] != self.length or not np.issubdtype(tokens.dtype, np.integer):
            raise ValueError(
                f"tokens of space {self.name!r} must be integers of shape (batch, {self.length}), "
                f"got {tokens.dtype} of shape {tokens.shape}"
            )
        for position, decision in enumerate(self.decisions):
            column = tokens[:, position]
            inside = (column >= 0) & (column < len(decision.choices))
            legal = inside & self.legal(tokens, position)[np.arange(len(tokens)), np.where(inside, column, 0)]
            if not legal.all():
                row = int(np.argmin(legal))
                allowed = np.flatnonzero(self.legal(tokens[row : row + 1], position)[0]).tolist()
                raise ValueError(
                    f"tokens[{row}, {position}] = {int(column[row])} is not legal for decision {decision.name!r} of "
                    f"space {self.name!r} after {tokens[row, :position].tolist()}; legal: {allowed}"
                )

    def sample(self, rng: np.random.Generator, n: int) -> Tokens:
        """Samples n complete sequences, int64[n, T], uniformly from all legal ones."""
        if self.prefix_free:
            return rng.integers(0, self.choice_counts, size=(n, self.length))
        tokens = np.full((n, self.length), UNDECIDED, dtype=np.int64)
        for position in range(self.length):
            tokens[:, position] = draw(self.weights(tokens, position), rng)
        return tokens

    def enumerate(self) -> Tokens:
        """All legal, complete sequences, int64[size, T], in the order of their `index`.

        Raises:
            ValueError: there are more than `ENUMERABLE`.
        """
        if self.size > ENUMERABLE:
            raise ValueError(f"space {self.name!r} has {self.size:.2e} sequences; up to {ENUMERABLE:,} are enumerated")
        tokens = np.full((1, self.length), UNDECIDED, dtype=np.int64)
        for position in range(self.length):
            rows, choices = np.nonzero(self.legal(tokens, position))
            tokens = tokens[rows]
            tokens[:, position] = choices
        return tokens

    def index(self, tokens: Tokens) -> NDArray[np.int64]:
        """The lexicographic index of each row of int64[B, T] among all sequences of choices, legal or not.

        Returns:
            int64[B] in [0, product of choice counts): the tokens as digits of a mixed-radix number, most significant
            first.

        Raises:
            ValueError: the space is too large for 64-bit indices.
        """
        return np.asarray(tokens @ self._place_values)

    @cached_property
    def _place_values(self) -> NDArray[np.int64]:
        counts = self.choice_counts.tolist()
        values = [math.prod(counts[position + 1 :]) for position in range(self.length)]
        if values[0] * counts[0] > np.iinfo(np.int64).max:
            raise ValueError(f"space {self.name!r} is too large for 64-bit indices")
        return np.array(values, dtype=np.int64)

    def at_trial(self, trial: int) -> SearchSpace:
        """The space that is open to a trial, counted from 0: the space itself, unless it grows during a search.

        A growing space returns a part of itself with the same decisions but fewer legal choices.
        """
        del trial
        return self

    def mutate(self, tokens: Tokens, rng: np.random.Generator) -> Tokens:
        """Changes one decision of each row; later decisions that become illegal are redrawn.

        Args:
            tokens: int64[B, T], complete. (Tokens from an earlier stage of a growing space need not be legal.)
            rng: decides uniformly between the decisions with another legal choice, then between these choices.

        Returns:
            int64[B, T]; a row without such a decision is unchanged.
        """
        child = np.array(tokens, dtype=np.int64)
        rows = np.arange(len(child))
        free = np.stack([self.legal(child, t).sum(axis=1) > 1 for t in range(self.length)], axis=1)
        changed = np.where(free.any(axis=1), draw(free + (~free.any(axis=1, keepdims=True)), rng), self.length)
        for position in range(self.length):
            weights = np.array(self.weights(child, position))
            # Earlier redrawn decisions may have left no other choice here.
            chosen = (changed == position) & ((weights > 0).sum(axis=1) > 1)
            weights[chosen] = weights[chosen] > 0
            weights[rows[chosen], child[chosen, position]] = 0
            redraw = chosen | (weights[rows, child[:, position]] == 0)
            if redraw.any():
                child[redraw, position] = draw(weights[redraw], rng)
        return child

    def crossover(self, first: Tokens, second: Tokens, rng: np.random.Generator) -> Tokens:
        """Takes each decision of a row from either parent with equal probability (uniform crossover, Syswerda 1989).

        Args:
            first: int64[B, T], complete. (As in `mutate`, tokens from an earlier stage need not be legal.)
            second: int64[B, T], complete.
            rng: the random number generator.

        Returns:
            int64[B, T]. If the choice of one parent has become illegal, the other's is taken; if both have, the
            decision is redrawn.
        """
        heads = rng.random(first.shape) < 0.5
        child, other = np.where(heads, first, second), np.where(heads, second, first)
        if self.prefix_free:
            return child
        rows = np.arange(len(child))
        for position in range(self.length):
            weights = self.weights(child, position)
            lost = weights[rows, child[:, position]] == 0
            child[lost, position] = other[lost, position]
            redraw = weights[rows, child[:, position]] == 0
            if redraw.any():
                child[redraw, position] = draw(weights[redraw], rng)
        return child

    def one_hot(self, tokens: Tokens) -> NDArray[np.float32]:
        """float32[B, T, A]; undecided positions are all zero."""
        onehot: NDArray[np.bool_] = np.asarray(tokens)[..., None] == np.arange(self.num_choices)
        return onehot.astype(np.float32)

    def architecture(self, tokens: Sequence[int] | Tokens, *, checked: bool = False) -> Architecture:
        """The architecture of a complete sequence of choices.

        Args:
            tokens: one choice index per decision, length T.
            checked: that they are known to be legal, for instance because `sample` drew them: to check one sequence
                after the other takes longer than to check a batch.

        Raises:
            ValueError: they are not legal.
        """
        choices = tuple(int(token) for token in tokens)
        if not checked:
            return Architecture(self, choices)
        known = object.__new__(Architecture)
        for name, value in (("space", self), ("tokens", choices)):
            object.__setattr__(known, name, value)
        return known

    def canonical(self, architecture: Architecture) -> str:
        """A string equal for architectures that compute the same functions (see `ArchitectureGraph.canonical`)."""
        return self.graph(architecture).canonical()

    def format(self, tokens: Sequence[int] | Tokens) -> str:
        """The names of the choices, separated by spaces, and groups by ``|``; `parse` reads them back."""
        words: list[str] = []
        for previous, decision, token in zip((None, *self.decisions), self.decisions, tokens, strict=False):
            if previous is not None and previous.group != decision.group:
                words.append("|")
            words.append(decision.choices[int(token)])
        return " ".join(words)

    def parse(self, text: str) -> Architecture:
        """Reads the output of `format`.

        Raises:
            ValueError: a word is not a choice of its decision, or the number of words is wrong.
        """
        words = [word for word in text.split() if word != "|"]
        if len(words) != self.length:
            raise ValueError(f"{text!r} has {len(words)} decisions; space {self.name!r} has {self.length}")
        tokens = []
        for decision, word in zip(self.decisions, words, strict=True):
            if word not in decision.choices:
                choices = ", ".join(decision.choices)
                raise ValueError(f"{word!r} is not a choice of {decision.name!r}; choices: {choices}")
            tokens.append(decision.choices.index(word))
        return self.architecture(tokens)

    def to_dict(self) -> dict[str, Any]:
        """The space as JSON-serialisable values; `make_space` reads them back."""
        return {"name": self.name, **dataclasses.asdict(cast(Any, self))}


def _index(decision: Decision, choice: str) -> int:
    return decision.choices.index(choice) if choice in decision.choices else -1


def draw(weights: NDArray[Any], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draws one index per row, int64[B], with probability proportional to its weight.

    Args:
        weights: [B, A], non-negative, no row all zero.
        rng: the random number generator, from which one uniform number per row is drawn.
    """
    cumulative = np.cumsum(weights, axis=1, dtype=np.float64)
    # A threshold strictly below the total excludes zero-weight choices even if the product rounds up to the total.
    threshold = np.minimum(rng.random(len(cumulative)) * cumulative[:, -1], np.nextafter(cumulative[:, -1], 0))
    drawn: NDArray[np.int64] = np.argmax(cumulative > threshold[:, None], axis=1)
    return drawn


SpaceSpec = SearchSpace | str | Mapping[str, Any]
