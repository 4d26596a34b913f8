"""Local search: the bar that few papers show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nas_gym.agents.agent import Agent
from nas_gym.agents.trial import Proposal, Trials
from nas_gym.spaces import SearchSpace, Tokens, draw

MANY = 1000  # draws at once, once ten times as many as are wanted have been refused
MAX_REDRAWS = 10  # draws of what is tried already, for each architecture that is


@dataclass(frozen=True)
class LocalSearchHyperparameters:
    """Local search has none."""


class LocalSearch(Agent):
    """Climbs to the first better neighbour, tries no architecture twice, and starts anew where there is none.

    Neighbours differ in one decision, and in later ones only where that made them illegal. They are tried in random
    order; a better one is climbed from at once. Asked for several at once, it takes as many of the untried
    neighbours, and fills up with random architectures.

    Source: White et al. 2021, "Exploring the Loss Landscape in Neural Architecture Search", and Ottelander et al. 2021,
    "Local Search is a Remarkably Strong Baseline for Neural Architecture Search".
    """

    Hyperparameters = LocalSearchHyperparameters

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tried: set[tuple[int, ...]] = set()
        self._untried: Tokens = np.empty((0, self.space.length), dtype=np.int64)  # neighbours, the next one last
        self._top: Tokens = self._untried  # what is climbed from, one row or none
        self._height = -np.inf
        self._starts: set[tuple[int, ...]] = set()  # asked for since the neighbours ran out
        self._asked_at = 0  # trials at the last asking

    def ask(self, n: int) -> Proposal:
        """Takes untried neighbours; beyond them, random architectures to start from."""
        asked: list[Tokens] = []
        if self.current_space != self.space_at(self._asked_at) and len(self._top):
            # The space has grown: the neighbours are now those of its new stage.
            self._untried = self.rng.permutation(neighbours(self.current_space, self._top[0], self.rng))
        self._asked_at = self.trials
        while len(asked) < n and len(self._untried):
            self._try(self._untried[-1], asked)
            self._untried = self._untried[:-1]
        redrawn = 0
        while len(asked) < n:
            # All is tried, or as good as all where a space knows but a bound of its size: from here on with repetition.
            full = len(self._tried) >= self.current_space.size or redrawn > MAX_REDRAWS * len(self._tried)
            # Where few are left, many are drawn at once.
            for row in self.current_space.sample(self.rng, MANY if redrawn > 10 * n else n - len(asked)):
                if len(asked) == n:
                    break
                lacking = n - len(asked)
                self._starts.add(tuple(row.tolist()))
                self._try(row, asked, again=full)
                redrawn += lacking == n - len(asked)
        return self.propose(np.array(asked))

    def _try(self, row: Tokens, asked: list[Tokens], again: bool = False) -> None:
        key = tuple(row.tolist())
        if again or key not in self._tried:
            self._tried.add(key)
            asked.append(row)

    def tell(self, trials: Trials) -> dict[str, float]:
        """Climbs to the best of these, if it is better; if all neighbours are tried, to the best start among them."""
        tokens, rewards = trials.tokens, trials.rewards
        eligible = rewards > self._height
        if not eligible.any() and not len(self._untried):
            eligible = np.array([tuple(row) in self._starts for row in tokens.tolist()], dtype=bool)
        if eligible.any():
            best = int(np.where(eligible, rewards, -np.inf).argmax())
            self._top, self._height = tokens[best : best + 1].copy(), float(rewards[best])
            self._untried = self.rng.permutation(neighbours(self.current_space, tokens[best], self.rng))
            self._starts.clear()
        return {}

    def state_dict(self) -> dict[str, Any]:
        import torch

        return {
            **super().state_dict(),
            "tried": torch.tensor(sorted(self._tried), dtype=torch.int64).reshape(-1, self.space.length),
            "starts": torch.tensor(sorted(self._starts), dtype=torch.int64).reshape(-1, self.space.length),
            "untried": torch.from_numpy(self._untried),
            "top": torch.from_numpy(self._top),
            "height": self._height,
            "asked_at": self._asked_at,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._tried = {tuple(row) for row in state["tried"].tolist()}
        self._starts = {tuple(row) for row in state["starts"].tolist()}
        self._height, self._asked_at = state["height"], int(state["asked_at"])
        self._untried, self._top = state["untried"].numpy(), state["top"].numpy()


def neighbours(space: SearchSpace, tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """All architectures that differ from int64[T] in one decision, int64[M, T].

    Decisions that are illegal by then are drawn anew, uniformly over legal sequences.
    """
    rows = []
    for position in range(space.length):
        others = np.flatnonzero(space.legal(tokens[None], position)[0])
        changed = np.repeat(tokens[None], len(others), axis=0)
        changed[:, position] = others
        rows.append(changed[others != tokens[position]])
    found = np.concatenate(rows)
    if space.prefix_free:
        return found
    for position in range(space.length):
        weights = space.weights(found, position)
        redraw = weights[np.arange(len(found)), found[:, position]] == 0
        if redraw.any():
            found[redraw, position] = draw(weights[redraw], rng)
    return found
