"""How the decisions of a space share a controller's parameters, and what those that point point to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self

import numpy as np
from numpy.typing import NDArray

from nas_gym.agents.controllers.controller import ChoiceBias
from nas_gym.spaces import SearchSpace
from nas_gym.types import Integers


@dataclass(frozen=True)
class DecisionKind:
    """Decisions that share parameters: those of one `kind` that all point, or all do not.

    Attributes:
        points: whether the decisions have targets.
        size: C, the most choices of one of them.
        positions: which decisions they are.
    """

    points: bool
    size: int
    positions: tuple[int, ...]


@dataclass(frozen=True)
class DecisionLayout:
    """A search space as a controller sees it.

    Anchors are what pointing decisions point to: first the learned ones, of targets that no decision builds, then one
    per group of decisions, in the order in which the groups close.

    Attributes:
        space: the search space.
        kinds: the kinds of decision.
        kind_of: the index of each decision's kind, T of them.
        learned_anchors: how many anchors are learned.
        anchored: the decisions whose controller state is an anchor: each the first after a group that is pointed to.
        columns: int64[T, A], which anchor each choice of a pointing decision points to.
    """

    space: SearchSpace
    kinds: tuple[DecisionKind, ...]
    kind_of: tuple[int, ...]
    learned_anchors: int
    anchored: frozenset[int]
    columns: Integers

    @classmethod
    def of(cls, space: SearchSpace) -> Self:
        """Reads the layout off the decisions' `kind`, `group` and `targets`.

        Raises:
            ValueError: a decision points to a group that is not closed before it.
        """
        decisions = space.decisions
        keys = [(decision.kind, decision.targets is not None) for decision in decisions]
        distinct = list(dict.fromkeys(keys))
        kinds = []
        for key in distinct:
            positions = tuple(t for t, other in enumerate(keys) if other == key)
            kinds.append(DecisionKind(key[1], max(len(decisions[t].choices) for t in positions), positions))

        closing = {decision.group: t for t, decision in enumerate(decisions)}
        targets = dict.fromkeys(target for decision in decisions for target in decision.targets or ())
        learned = [target for target in targets if target not in closing]
        closed = sorted((target for target in targets if target in closing), key=lambda group: closing[group])
        number = {target: index for index, target in enumerate([*learned, *closed])}
        columns = np.zeros((space.length, space.num_choices), dtype=np.int64)
        for t, decision in enumerate(decisions):
            for choice, target in enumerate(decision.targets or ()):
                if target in closing and closing[target] >= t:
                    raise ValueError(f"decision {decision.name!r} points to group {target}, which is not closed yet")
                columns[t, choice] = number[target]
        return cls(
            space,
            tuple(kinds),
            tuple(distinct.index(key) for key in keys),
            len(learned),
            frozenset(closing[group] + 1 for group in closed),
            columns,
        )

    @property
    def points(self) -> bool:
        """Whether any decision points."""
        return any(kind.points for kind in self.kinds)

    @property
    def order(self) -> Integers:
        """The positions of the decisions, int64[T], sorted by kind."""
        return np.concatenate([kind.positions for kind in self.kinds])

    @property
    def embeddings(self) -> int:
        """How many choices have an embedding: one per choice of each kind that does not point."""
        return sum(self._sizes)

    @property
    def rows(self) -> Integers:
        """Where the embeddings of each decision's kind start among all of them, int64[T]."""
        return np.array([sum(self._sizes[:kind]) for kind in self.kind_of])

    @property
    def _sizes(self) -> list[int]:
        return [0 if kind.points else kind.size for kind in self.kinds]

    def biases(self, choice_bias: Sequence[ChoiceBias]) -> tuple[list[NDArray[np.float32]], NDArray[np.float32]]:
        """The start of each kind's learned biases, float32[C], and the fixed ones, float32[T, A]."""
        decisions, shape = self.space.decisions, self.columns.shape
        initial = [np.zeros(kind.size, dtype=np.float32) for kind in self.kinds]
        fixed = np.zeros(shape, dtype=np.float32)
        for bias in choice_bias:
            matched = np.zeros(shape, dtype=bool)
            for t, decision in enumerate(decisions):
                for choice, word in enumerate(decision.choices):
                    matched[t, choice] = fnmatchcase(f"{decision.name}={word}", bias.pattern)
            fixed[matched] += bias.fixed
            for kind, learned in zip(self.kinds, initial, strict=True):
                learned[matched[list(kind.positions), : kind.size].any(axis=0)] += bias.initial
        return initial, fixed
