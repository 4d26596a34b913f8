"""The options with which the episodes of a vector environment are evaluated."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nas_gym.spaces import UNDECIDED, Tokens
from nas_gym.types import Bools


class EpisodeOptions:
    """The fidelities and parents of the running episodes of N sub-environments.

    Args:
        shape: N and the number of decisions.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        # The share of the full budget for each episode; None while all are evaluated in full.
        self._fidelities: NDArray[np.float64] | None = None
        # The architecture that each episode's inherits weights from, -1 where none is given; None while none is at all.
        self._parents: Tokens | None = None

    def start(self, mask: Bools, fidelity: float | None, parent: Tokens | None) -> None:
        """Sets the options of new episodes.

        Args:
            mask: bool[N], the sub-environments whose episodes start.
            fidelity: the share of the full budget with which their architectures are evaluated; None for all of it.
            parent: int64[1, T], the architecture that theirs inherit weights from, or None.
        """
        if self._parents is not None or parent is not None:
            if self._parents is None:
                self._parents = np.full(self._shape, UNDECIDED)
            self._parents[mask] = UNDECIDED if parent is None else parent
            if (self._parents < 0).all():
                self._parents = None
        if self._fidelities is not None or fidelity is not None:
            if self._fidelities is None:
                self._fidelities = np.ones(self._shape[0])
            self._fidelities[mask] = 1.0 if fidelity is None else fidelity
            if (self._fidelities == 1.0).all():
                self._fidelities = None

    def batches(self, scored: Bools) -> list[tuple[Bools, float | None]]:
        """Which of the `scored` sub-environments are evaluated together, and with which share of the full budget."""
        batches: list[tuple[Bools, float | None]] = [(scored, None)]
        if self._fidelities is not None:
            shares = np.unique(self._fidelities[scored]).tolist()
            batches = [(scored & (self._fidelities == share), None if share == 1 else share) for share in shares]
        if self._parents is not None:
            inherits = self._parents[:, 0] >= 0
            batches = [(rows & part, share) for rows, share in batches for part in (inherits, ~inherits)]
        return [(rows, share) for rows, share in batches if rows.any()]

    def parents_of(self, rows: Bools) -> Tokens | None:
        """The parents int64[B, T] of some sub-environments; None if they have none."""
        if self._parents is None or (self._parents[rows] < 0).all():
            return None
        return self._parents[rows]
