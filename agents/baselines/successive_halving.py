"""Successive halving: many architectures trained a little, the best of them trained longer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_gym.agents.agent import Agent
from nas_gym.agents.trial import Proposal, Trials
from nas_gym.evaluators import Evaluator
from nas_gym.spaces import Tokens
from nas_gym.types import Floats

ROUNDING = 1e-9


@dataclass(frozen=True)
class SuccessiveHalvingHyperparameters:
    """Defaults are those of Li et al. 2018.

    Attributes:
        eta: of the architectures of a rung one in so many is promoted to the next, where the budget of each is so many
            times as large (Li et al. 2018, "Hyperband", section 3: 3 or 4; Jamieson & Talwalkar 2016: 2).
        min_fidelity: the smallest share of the full budget that an architecture is evaluated with, "r / R" in Li et al.
            2018; None takes the smallest that the evaluator has.
    """

    eta: int = 3
    min_fidelity: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.eta, int) or isinstance(self.eta, bool) or self.eta < 2:
            raise ValueError(f"eta must be an integer of at least 2, got {self.eta!r}")
        least = self.min_fidelity
        if least is not None and (isinstance(least, bool | str) or not 0 < least <= 1):
            raise ValueError(f"min_fidelity must be in (0, 1] or None, got {least!r}")


@dataclass(eq=False)
class Bracket:
    """One tournament of successive halving, at one of its rungs: n architectures evaluated alike.

    Attributes:
        rung: the place of the rung in `SuccessiveHalving.rungs`.
        tokens: int64[n, T].
        ids: int64[n], those of the proposals; -1 where an architecture is still to be proposed.
        rewards: float64[n], NaN where it is not known yet.
    """

    rung: int
    tokens: Tokens
    ids: NDArray[np.int64] = field(init=False)
    rewards: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.ids, self.rewards = np.full(len(self.tokens), -1), np.full(len(self.tokens), np.nan)

    def take(self, n: int) -> NDArray[np.int64]:
        """The first n, or fewer, that are still to be proposed."""
        return np.flatnonzero(self.ids < 0)[:n]

    def withdraw(self) -> None:
        """Has what was proposed without a reward so far be proposed again."""
        self.ids[np.isnan(self.rewards)] = -1


class SuccessiveHalving(Agent):
    """Evaluates random architectures with a small budget, and the best of them with larger and larger ones.

    A bracket begins with eta^s architectures that are drawn uniformly and evaluated with a share of eta^-s of the full
    budget, the smallest that there is. One in eta of them, by reward, is evaluated with eta times the budget, and so on
    until a last one is evaluated in full; each evaluation is anew and costs its whole budget. Then comes the next
    bracket; asked for several at once, it begins the next one where all of a rung are under way. Shares that the
    evaluator does not have are replaced by the nearest that it has, and a rung that would repeat the one before is
    left out.

    The best of its trials is the best of those that were evaluated in full.

    Sources: Jamieson & Talwalkar 2016, "Non-stochastic Best Arm Identification and Hyperparameter Optimization"; Li et
    al. 2018, "Hyperband", algorithm 1, whose most exploring bracket this repeats, as its SuccessiveHalving does.

    Attributes:
        rungs: of each rung the fidelity and the number of architectures.

    Raises:
        ValueError: the evaluator has no fidelities, or none as small as 1 / eta.
    """

    needs_fidelities = True
    staleness = None  # rewards may come in any order
    Hyperparameters = SuccessiveHalvingHyperparameters
    hyperparameters: SuccessiveHalvingHyperparameters

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rungs = halving_rungs(self.problem.evaluator, self.hyperparameters)
        self._brackets: list[Bracket] = []  # those under way, oldest first
        self._finished = 0

    def ask(self, n: int) -> Proposal:
        """Takes what the brackets have to evaluate, the oldest first, and begins as many as that needs."""
        taken: list[tuple[Bracket, NDArray[np.int64]]] = []
        lacking, brackets = n, iter(self._brackets)
        while lacking:
            bracket = next(brackets, None) or self._begin()
            slots = bracket.take(lacking)
            taken.append((bracket, slots))
            lacking -= len(slots)
        rows = [np.empty((0, self.space.length), dtype=np.int64), *(bracket.tokens[slots] for bracket, slots in taken)]
        shares = [np.full(len(slots), self.rungs[bracket.rung][0]) for bracket, slots in taken]
        proposal = self.propose(np.concatenate(rows), fidelities=np.concatenate([np.empty(0), *shares]))
        first = 0
        for bracket, slots in taken:
            bracket.ids[slots] = proposal.ids[first : first + len(slots)]
            first += len(slots)
        return proposal

    def _begin(self) -> Bracket:
        self._brackets.append(Bracket(0, self._draw(self.rungs[0][1])))
        return self._brackets[-1]

    def _draw(self, n: int) -> Tokens:
        """The n architectures, int64[n, T], that a bracket begins with."""
        return self.current_space.sample(self.rng, n)

    def withdraw(self) -> None:
        """Proposes anew what has no trial so far."""
        for bracket in self._brackets:
            bracket.withdraw()

    def tell(self, trials: Trials) -> dict[str, float]:
        """Takes in the rewards of its own proposals, and promotes where a rung is complete."""
        own = trials.rows(trials.ids >= 0)
        for number, reward in zip(own.ids.tolist(), own.rewards.tolist(), strict=True):
            for bracket in self._brackets:
                bracket.rewards[bracket.ids == number] = reward
        finished = self._finished
        for bracket in [bracket for bracket in self._brackets if not np.isnan(bracket.rewards).any()]:
            self._promote(bracket)
        return {"train/brackets": float(self._finished)} if self._finished > finished else {}

    def _promote(self, bracket: Bracket) -> None:
        place = self._brackets.index(bracket)
        if bracket.rung + 1 == len(self.rungs):
            del self._brackets[place]
            self._finished += 1
            return
        size = self.rungs[bracket.rung + 1][1]
        best = np.argsort(-bracket.rewards, kind="stable")[:size]
        self._brackets[place] = Bracket(bracket.rung + 1, bracket.tokens[best])

    def state_dict(self) -> dict[str, Any]:
        import torch

        brackets = [
            {"rung": bracket.rung}
            | {name: torch.from_numpy(getattr(bracket, name).copy()) for name in ("tokens", "ids", "rewards")}
            for bracket in self._brackets
        ]
        return {**super().state_dict(), "brackets": brackets, "finished": self._finished}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._brackets = []
        for kept in state["brackets"]:
            bracket = Bracket(kept["rung"], kept["tokens"].numpy().copy())
            bracket.ids, bracket.rewards = kept["ids"].numpy().copy(), kept["rewards"].numpy().copy()
            self._brackets.append(bracket)
        self._finished = state["finished"]


def halving_rungs(
    evaluator: Evaluator | None, settings: SuccessiveHalvingHyperparameters
) -> tuple[tuple[float, int], ...]:
    """Of each rung the fidelity and the number of architectures: (eta^-s, eta^s) to (1, 1), if the evaluator has these.

    Raises:
        ValueError: the evaluator has no fidelities, or none as small as 1 / eta.
    """
    if evaluator is None or not evaluator.fidelities:
        raise ValueError(
            f"successive halving needs an evaluator with fidelities, such as a table with learning curves; "
            f"{type(evaluator).__name__} evaluates in full only"
        )
    eta, shares = settings.eta, np.array(evaluator.fidelities)
    shares = shares[shares >= (settings.min_fidelity or 0.0)]
    steps = 0
    while eta ** (steps + 1) * shares[0] <= 1 + ROUNDING:
        steps += 1
    if not steps:
        raise ValueError(f"eta {eta} needs a fidelity of at most 1 / {eta}; the smallest allowed is {shares[0]}")
    rungs: dict[float, int] = {}
    for step in range(steps, -1, -1):
        nearest = float(shares[np.abs(shares - float(eta) ** -step).argmin()])
        rungs.setdefault(nearest, eta**step)
    return tuple(rungs.items())
