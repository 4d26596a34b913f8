"""The loop of the agents that choose by a predictor: warm-up, fit, pool, batch, nothing twice."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nas_gym.agents.agent import Agent
from nas_gym.agents.trial import Proposal, Trials
from nas_gym.predictors import Predictor, believe, normal_scores
from nas_gym.settings import check_fields
from nas_gym.spaces import Tokens
from nas_gym.types import Floats

TARGETS = ("raw", "normal-scores")
ROUNDS = 16  # of random draws for an architecture that is new; what is lacking then comes twice


@dataclass(frozen=True)
class PredictorHyperparameters:
    """What all agents with a predictor have.

    Attributes:
        batch_size: architectures that are chosen at once.
        warm_up: trials of random architectures before the predictor chooses (White et al. 2021, "BANANAS",
            and Wei et al. 2022, "NPENAS": 10).
        refit_every: the predictor is fitted anew after so many trials; in between it is updated (`Predictor.update`).
        target: what is predicted: ``"raw"`` rewards, or their ``"normal-scores"``, by rank.
    """

    batch_size: int = 5
    warm_up: int = 10
    refit_every: int = 10
    target: str = "normal-scores"

    def __post_init__(self) -> None:
        self._check("batch_size warm_up refit_every", "a positive integer", lambda v: v > 0)
        self._check("target", f"one of {', '.join(TARGETS)}", lambda v: v in TARGETS)

    def _check(self, names: str, wanted: str, fits: Callable[[Any], bool]) -> None:
        check_fields(self, names, wanted, fits)


def best(tokens: Tokens, rewards: Floats, n: int) -> Tokens:
    """The n architectures int64[n, T] of the highest rewards, the best first."""
    found: Tokens = tokens[np.argsort(-rewards, kind="stable")[:n]]
    return found


class PredictorAgent(Agent):
    """Tries random architectures first, then those that a predictor of the rewards finds most promising.

    Nothing is proposed that computes the same as what was proposed before (`SearchSpace.canonical`), as long as random
    draws find something new. A subclass has a predictor, a pool of candidates and a score of each; it never sees the
    space as a whole. Trials whose rewards are still to come count as if they had earned what is predicted (`believe`).

    Attributes:
        predictor: of rewards, or of what `target` makes of them.
        tokens: int64[n, T], the trials that it has been told of.
        rewards: float64[n], theirs.
        values: float64[n + pending], what the predictor was last updated to.
    """

    Hyperparameters: ClassVar[type[Any]] = PredictorHyperparameters
    staleness = None  # what is proposed follows from the trials so far, whichever they are

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.predictor = self._make_predictor()
        self.tokens: Tokens = np.empty((0, self.space.length), dtype=np.int64)
        self.rewards: Floats = np.empty(0)
        self.values: Floats = np.empty(0)
        self._pending: dict[int, NDArray[np.int64]] = {}  # proposals without a trial, by id
        self._seen: set[str] = set()  # the canonical forms of trials and proposals
        self._canonical: dict[bytes, str] = {}  # of those that were asked for: the forms are slow to find
        self._fitted = 0  # trials that the predictor was last fitted to
        self._is_fitted = False  # False where it has to be fitted to them again: it is not part of the state
        self._known: tuple[int, tuple[int, ...]] | None = None  # trials and pending proposals that it was updated to

    # ------------------------------------------------------------------ what a subclass says

    @abstractmethod
    def _make_predictor(self) -> Predictor:
        """The predictor, yet to be fitted. Its fit must follow from the trials alone."""

    @abstractmethod
    def _pool(self) -> Tokens:
        """The candidates int64[B, T] of the next batch, drawn by `rng`."""

    @abstractmethod
    def _scores(self, pool: Tokens) -> Floats:
        """How promising each candidate is, float64[B], by the predictor as it is now."""

    def _choose(self, n: int) -> list[NDArray[np.int64]]:
        """Takes up to n architectures, by `_take`: the best of the pool that are new."""
        pool = self._pool()
        return self._take(pool[np.argsort(-self._scores(pool), kind="stable")], n)

    # ------------------------------------------------------------------ the loop

    def ask(self, n: int) -> Proposal:
        """Draws what the warm-up lacks, and chooses the rest by the predictor."""
        drawn = self._lacking(n)
        asked = self._draw(drawn)
        if drawn < n:
            self._update_predictor()
            asked += self._choose(n - drawn)
            asked += self._draw(n - len(asked))
        proposal = self.propose(np.array(asked, dtype=np.int64).reshape(-1, self.space.length))
        self._pending.update(zip(proposal.ids.tolist(), proposal.tokens, strict=True))
        return proposal

    def tell(self, trials: Trials) -> dict[str, float]:
        """Adds the trials to what the predictor is fitted to."""
        self.tokens = np.concatenate([self.tokens, trials.tokens])
        self.rewards = np.concatenate([self.rewards, trials.rewards])
        self._seen.update(map(self._form, trials.tokens))
        for id in trials.ids.tolist():
            self._pending.pop(id, None)
        return {}

    def withdraw(self) -> None:
        """Forgets the proposals without a trial, which may be proposed again."""
        self._pending.clear()
        self._seen = set(map(self._form, self.tokens))

    def _lacking(self, n: int) -> int:
        """How many of the next n architectures belong to the warm-up."""
        known = len(self.rewards) + len(self._pending)
        return min(n, max(0, self.hyperparameters.warm_up - known)) if len(self.rewards) else n

    @property
    def pending(self) -> Tokens:
        """The proposals without a trial, int64[m, T]."""
        return np.array(list(self._pending.values()), dtype=np.int64).reshape(-1, self.space.length)

    def best(self, n: int) -> Tokens:
        """The n best trials so far, the best first."""
        return best(self.tokens, self.rewards, n)

    def _update_predictor(self) -> None:
        """Fits the predictor to the trials so far, where that is due, or updates it; pending ones are believed."""
        known = len(self.rewards), tuple(self._pending)
        if known == self._known or not len(self.rewards):
            return
        self._known = known
        due = len(self.rewards) - self._fitted >= self.hyperparameters.refit_every or not self._fitted
        if due or not self._is_fitted:
            self._fitted = len(self.rewards) if due else self._fitted
            self.predictor.fit(self.tokens[: self._fitted], self._targets(self.rewards[: self._fitted]))
            self._is_fitted = True
        self.values = self._targets(self.rewards)
        self.predictor.update(self.tokens, self.values)
        self.values = believe(self.predictor, self.tokens, self.values, self.pending)

    def _targets(self, rewards: Floats) -> Floats:
        return normal_scores(rewards) if self.hyperparameters.target == "normal-scores" else rewards

    # ------------------------------------------------------------------ nothing twice

    def _take(self, candidates: Tokens, n: int, again: bool = False) -> list[NDArray[np.int64]]:
        """The first n candidates that are new, or fewer; where `again`, what is not new too. They are new no more."""
        taken: list[NDArray[np.int64]] = []
        for candidate in candidates:
            if len(taken) == n:
                break
            form = self._form(candidate)
            if again or form not in self._seen:
                self._seen.add(form)
                taken.append(candidate)
        return taken

    def _draw(self, n: int) -> list[NDArray[np.int64]]:
        """n random architectures, new ones as long as they are found."""
        taken: list[NDArray[np.int64]] = []
        for attempt in range(ROUNDS + 1):
            if len(taken) == n:
                break
            drawn = self.current_space.sample(self.rng, n - len(taken))
            taken += self._take(drawn, n - len(taken), again=attempt == ROUNDS)
        return taken

    def _form(self, tokens: NDArray[np.int64]) -> str:
        key = tokens.tobytes()
        if key not in self._canonical:
            self._canonical[key] = self.space.canonical(self.space.architecture(tokens, checked=True))
        return self._canonical[key]

    # ------------------------------------------------------------------ keeping

    def state_dict(self) -> dict[str, Any]:
        """The history, what was told, what is pending, and when the predictor was fitted: it is fitted again."""
        import torch

        return {
            **super().state_dict(),
            "told": [torch.from_numpy(self.tokens), torch.from_numpy(self.rewards)],
            "pending": [torch.tensor(list(self._pending), dtype=torch.int64), torch.from_numpy(self.pending)],
            "fitted": self._fitted,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.tokens, self.rewards = (column.numpy() for column in state["told"])
        ids, pending = (column.numpy() for column in state["pending"])
        self._pending = dict(zip(ids.tolist(), pending, strict=True))
        self._seen = set(map(self._form, [*self.tokens, *pending]))
        self._fitted, self._is_fitted, self._known = int(state["fitted"]), False, None
