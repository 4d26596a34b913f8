"""Successive halving: many architectures trained a little, the best of them trained longer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_gym.evaluators import Evaluator
from nas_gym.spaces import Tokens

from .agent import Agent, Callback, Floats, SearchResult, attribute
from .prefixes import prefix_policy

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
        rewards: float64[n], NaN where it is not told.
        asked: how many were asked for, in their order.
    """

    rung: int
    tokens: Tokens
    rewards: Floats
    asked: int = 0

    @property
    def outstanding(self) -> NDArray[np.int64]:
        """Those that were asked for and not told."""
        return np.flatnonzero(np.isnan(self.rewards[: self.asked]))


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

    name = "successive-halving"
    Hyperparameters = SuccessiveHalvingHyperparameters
    hyperparameters: SuccessiveHalvingHyperparameters

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rungs = halving_rungs(attribute(self.env, "evaluator"), self.hyperparameters)
        self._brackets: list[Bracket] = []  # those under way, oldest first
        self._finished = 0
        self._finalists: Tokens = np.empty((0, self.space.length), dtype=np.int64)

    def ask(self, n: int) -> Tokens:
        """Takes what the brackets have to evaluate, the oldest first, and begins as many as that needs."""
        tokens, fidelities = np.empty((n, self.space.length), dtype=np.int64), np.empty(n)
        filled, brackets = 0, iter(self._brackets)
        while filled < n:
            bracket = next(brackets, None) or self._begin()
            fidelity, size = self.rungs[bracket.rung]
            taken = slice(bracket.asked, min(size, bracket.asked + n - filled))
            bracket.asked = taken.stop
            rows = slice(filled, filled + taken.stop - taken.start)
            tokens[rows], fidelities[rows] = bracket.tokens[taken], fidelity
            filled = rows.stop
        self.reset_options = {"fidelity": fidelities}
        return tokens

    def _begin(self) -> Bracket:
        size = self.rungs[0][1]
        self._brackets.append(Bracket(0, self.open_space.sample(self.rng, size), np.full(size, np.nan)))
        return self._brackets[-1]

    def tell(self, tokens: Tokens, rewards: Floats) -> dict[str, float]:
        """Takes in the rewards of what was asked for, passes over the rest, and promotes where a rung is complete."""
        for row, reward in zip(tokens, rewards.tolist(), strict=True):
            for bracket in self._brackets:
                alike = [slot for slot in bracket.outstanding if (bracket.tokens[slot] == row).all()]
                if alike:
                    bracket.rewards[alike[0]] = reward
                    break
        finished = self._finished
        for bracket in [bracket for bracket in self._brackets if not np.isnan(bracket.rewards).any()]:
            self._promote(bracket)
        return {"train/brackets": float(self._finished)} if self._finished > finished else {}

    def _promote(self, bracket: Bracket) -> None:
        if bracket.rung + 1 == len(self.rungs):
            self._finalists = np.concatenate([self._finalists, bracket.tokens])
            self._brackets.remove(bracket)
            self._finished += 1
            return
        bracket.rung += 1
        size = self.rungs[bracket.rung][1]
        best = np.argsort(-bracket.rewards, kind="stable")[:size]
        bracket.tokens, bracket.rewards, bracket.asked = bracket.tokens[best], np.full(size, np.nan), 0

    def learn(self, trials: int, callback: Callback | None = None, seconds: float | None = None) -> SearchResult:
        """As `Agent.learn`; what was asked for before and never told, such as a batch's cut trials, is asked anew."""
        for bracket in self._brackets:
            order = np.argsort(np.isnan(bracket.rewards), kind="stable")
            bracket.tokens, bracket.rewards = bracket.tokens[order], bracket.rewards[order]
            bracket.asked = int((~np.isnan(bracket.rewards)).sum())
        return super().learn(trials, callback, seconds)

    def policy(self, tokens: Tokens, positions: NDArray[np.int64]) -> Floats:
        """Each choice by its share among the architectures that were evaluated in full."""
        return prefix_policy(self.space, self._finalists, tokens, positions)

    def state_dict(self) -> dict[str, Any]:
        import torch

        brackets = [
            {
                "rung": bracket.rung,
                "tokens": torch.from_numpy(bracket.tokens),
                "rewards": torch.from_numpy(bracket.rewards),
                "asked": bracket.asked,
            }
            for bracket in self._brackets
        ]
        finalists = torch.from_numpy(self._finalists)
        return {**super().state_dict(), "brackets": brackets, "finished": self._finished, "finalists": finalists}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._brackets = [
            Bracket(item["rung"], item["tokens"].numpy().copy(), item["rewards"].numpy().copy(), item["asked"])
            for item in state["brackets"]
        ]
        self._finished, self._finalists = state["finished"], state["finalists"].numpy()


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
