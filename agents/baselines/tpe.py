"""Tree-structured Parzen estimator: architectures are likely to be good that are likely among the good ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_gym.agents.agent import Agent
from nas_gym.agents.trial import Proposal, Trials
from nas_gym.settings import check_fields
from nas_gym.spaces import SearchSpace, Tokens, draw
from nas_gym.types import Floats

Rows = NDArray[np.int64]
ROUNDS = 8  # of candidates that have all been proposed before, until random ones are taken


@dataclass(frozen=True)
class TPEHyperparameters:
    """Defaults are those of BOHB's model (Falkner et al. 2018, and its code) as NAS-Bench-201's code sets
    them.

    Attributes:
        candidates: drawn from the density of the good architectures for each that is proposed (Falkner et al. 2018: 64;
            NAS-Bench-201: 4).
        random_share: of the proposals, those that are drawn uniformly (Falkner et al. 2018: 1/3; NAS-Bench-201: 0).
        bandwidth_factor: the bandwidths are multiplied by this where candidates are drawn, so that they explore more
            than the density says (Falkner et al. 2018 and NAS-Bench-201: 3).
        good_share: of the trials, those that count as good (BOHB's code: 0.15).
        min_points: the least number of architectures in each density; twice as many trials are random. None takes one
            more than there are decisions (Falkner et al. 2018: d + 1).
    """

    candidates: int = 4
    random_share: float = 0.0
    bandwidth_factor: float = 3.0
    good_share: float = 0.15
    min_points: int | None = None

    def __post_init__(self) -> None:
        check_fields(self, "candidates", "at least 1", lambda v: v >= 1)
        check_fields(self, "random_share", "in [0, 1]", lambda v: 0 <= v <= 1)
        check_fields(self, "bandwidth_factor", "positive", lambda v: 0 < v < math.inf)
        check_fields(self, "good_share", "in (0, 1)", lambda v: 0 < v < 1)
        check_fields(self, "min_points", "at least 1, or None", lambda v: v is None or v >= 1)


class TPE(Agent):
    """Proposes what is likely under the density of the good architectures, and unlikely under that of the others.

    Trials are divided into the good ones and the others, each of which has a kernel density. Candidates are drawn from
    that of the good ones, and the one with the largest ratio of the two densities is proposed, which maximises the
    expected improvement (Bergstra et al. 2011). What has been proposed before is no candidate.

    Sources: Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization"; Falkner et al. 2018, "BOHB": one
    multivariate density in place of a product of many.
    """

    staleness = None  # the densities are those of the trials so far, whichever they are
    Hyperparameters = TPEHyperparameters
    hyperparameters: TPEHyperparameters

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._told: Tokens = np.empty((0, self.space.length), dtype=np.int64)
        self._rewards: Floats = np.empty(0)
        self._tried: set[bytes] = set()

    def ask(self, n: int) -> Proposal:
        """Draws n architectures, uniformly at first."""
        rows = [self._draw() for _ in range(n)]
        return self.propose(np.array(rows, dtype=np.int64).reshape(n, self.space.length))

    def _draw(self) -> Tokens:
        row = draw_good(self.current_space, self._told, self._rewards, self._tried, self.hyperparameters, self.rng)
        self._tried.add(row.tobytes())
        return row

    def tell(self, trials: Trials) -> dict[str, float]:
        """Keeps the trials."""
        self._told = np.concatenate([self._told, trials.tokens])
        self._rewards = np.concatenate([self._rewards, trials.rewards])
        self._tried.update(row.tobytes() for row in trials.tokens)
        return {}

    def state_dict(self) -> dict[str, Any]:
        import torch

        tried = np.array([np.frombuffer(row, dtype=np.int64) for row in sorted(self._tried)], dtype=np.int64)
        told = {"tokens": torch.from_numpy(self._told), "rewards": torch.from_numpy(self._rewards)}
        return {**super().state_dict(), "told": told, "tried": torch.from_numpy(tried.reshape(-1, self.space.length))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._told, self._rewards = state["told"]["tokens"].numpy(), state["told"]["rewards"].numpy()
        self._tried = {row.tobytes() for row in state["tried"].numpy()}


def draw_good(
    space: SearchSpace,
    tokens: Tokens,
    rewards: Floats,
    tried: set[bytes],
    settings: TPEHyperparameters,
    rng: np.random.Generator,
) -> Tokens:
    """One architecture, int64[T], that is likely to be good: the candidate of the largest ratio of the densities.

    It is drawn uniformly instead while there are too few trials, with the chance `random_share`, and where all
    candidates have been tried.

    Args:
        space: the search space.
        tokens: int64[n, T], of the trials.
        rewards: float64[n], of the trials.
        tried: the bytes of the architectures that are no candidates.
        settings: of the densities.
        rng: the random number generator.
    """
    split = split_trials(rewards, space.length, settings)
    if split is not None and rng.random() >= settings.random_share:
        good, others = tokens[split[0]], tokens[split[1]]
        for _ in range(ROUNDS):
            drawn = draw_near(space, good, settings.candidates, rng, settings.bandwidth_factor)
            drawn = drawn[[row.tobytes() not in tried for row in drawn]]
            if len(drawn):
                ratio = log_density(space, good, drawn) - log_density(space, others, drawn)
                best: Tokens = drawn[ratio.argmax()]
                return best
    drawn = space.sample(rng, ROUNDS)
    first: Tokens = drawn[int(np.argmax([row.tobytes() not in tried for row in drawn]))]
    return first


def split_trials(rewards: Floats, decisions: int, settings: TPEHyperparameters) -> tuple[Rows, Rows] | None:
    """Which trials are good, and which are the others, as BOHB divides them.

    Args:
        rewards: float64[n].
        decisions: T, of an architecture.
        settings: the share of the good ones, and how few are enough.

    Returns:
        Two index arrays, int64; None as long as there are too few trials for two densities.
    """
    least = settings.min_points or decisions + 1
    if len(rewards) < 2 * least:
        return None
    order = np.argsort(-rewards, kind="stable")
    good = max(least, int(settings.good_share * len(rewards)))
    return order[:good], order[good:]


def bandwidths(space: SearchSpace, points: Tokens) -> Floats:
    """The bandwidth of each decision, float64[T]: the chance of another choice than that of a point.

    By the normal reference rule, 1.06 s n^(-1 / (4 + T)), as BOHB. Choices have no order, so the deviation s of a
    decision is taken to be that of its one-hot vectors, the square root of (1 - the sum of the squared shares) / 2,
    which for two choices is the deviation of 0 and 1. At most it is (c - 1) / c for c choices, where all are as likely.
    At least it is 1e-3, as in BOHB's code.

    Args:
        space: the search space.
        points: int64[n, T].
    """
    n = len(points)
    shares = (points[..., None] == np.arange(space.num_choices)).mean(axis=0)
    deviations = np.sqrt((1 - np.square(shares).sum(axis=1)) / 2)
    widest = 1 - 1 / space.choice_counts
    rule: Floats = 1.06 * deviations * n ** (-1 / (4 + space.length))
    return np.minimum(np.maximum(rule, 1e-3), widest)


def log_density(space: SearchSpace, points: Tokens, tokens: Tokens) -> Floats:
    """The logarithm of the kernel density at architectures, float64[B].

    The mean over points of the product over decisions of Aitchison and Aitken's kernel (1976): 1 - h where the choice
    is that of the point, h / (c - 1) elsewhere. Masks are not taken into account.

    Args:
        space: the search space.
        points: int64[n, T], of which it is the density.
        tokens: int64[B, T].
    """
    width = bandwidths(space, points)
    with np.errstate(divide="ignore"):  # a decision of one choice has no other
        same, other = np.log1p(-width), np.log(width / np.maximum(space.choice_counts - 1, 1))
    kernels = np.where(tokens[:, None] == points, same, other).sum(axis=2)
    peak = kernels.max(axis=1)
    density: Floats = peak + np.log(np.exp(kernels - peak[:, None]).mean(axis=1))
    return density


def draw_near(space: SearchSpace, points: Tokens, n: int, rng: np.random.Generator, factor: float = 1.0) -> Tokens:
    """Draws n architectures from the kernel density of points, with bandwidths wider by a factor, int64[n, T].

    Where choices depend on earlier ones, a choice that has become illegal is drawn anew, and so is another choice than
    that of the point: by how many legal sequences follow it.
    """
    width = np.minimum(factor * bandwidths(space, points), 1 - 1 / space.choice_counts)
    rows = np.arange(n)
    drawn = points[rng.integers(len(points), size=n)]
    leave = rng.random(drawn.shape) < width
    for position in range(space.length):
        weights = np.array(space.weights(drawn, position))
        others = weights.copy()
        others[rows, drawn[:, position]] = 0
        left = leave[:, position] & others.any(axis=1)
        redraw = left | (weights[rows, drawn[:, position]] == 0)
        if redraw.any():
            drawn[redraw, position] = draw(np.where(left[:, None], others, weights)[redraw], rng)
    return drawn
