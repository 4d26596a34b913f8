"""Strict fairness: every step trains every choice of every decision equally often (FairNAS)."""

from __future__ import annotations

import numpy as np

from nas_gym.evaluators.schedules.uniform import UniformSchedule
from nas_gym.spaces import SearchSpace, Tokens


class FairSchedule(UniformSchedule):
    """A warm-up whose steps hold every choice of every decision equally often; then the weights are frozen.

    Source: Chu et al. 2021, "FairNAS: Rethinking Evaluation Fairness of Weight Sharing Neural Architecture Search",
    algorithm 1: one permutation of the choices for each decision gives m architectures that hold every choice once;
    their gradients make one step. The gradients are averaged here, summed there: m times the learning rate is the
    paper's.

    The number of architectures is that of the choices of the decision that has most; see `fair_sample` for decisions
    that have fewer, and for illegal combinations.
    """

    def candidates(self, n: int) -> Tokens:
        del n
        return fair_sample(self.evaluator.space, self.rng)


def fair_sample(space: SearchSpace, rng: np.random.Generator) -> Tokens:
    """As many architectures as the longest decision has choices, each choice in equally many of them.

    A decision with k of m choices holds each m // k times or once more, at random. Where earlier decisions make choices
    illegal, each architecture takes the one of its legal choices that the fewest have taken so far; those with fewest
    legal choices come first. So every decision is drawn uniformly where all its choices are legal, but architectures
    are not, in a space whose earlier decisions limit later ones.

    Returns:
        int64[m, T], legal.
    """
    rows = int(space.choice_counts.max())
    tokens = np.full((rows, space.length), -1, dtype=np.int64)
    for position in range(space.length):
        legal = space.legal(tokens, position)
        taken = np.zeros(legal.shape[1])
        for row in sorted(rng.permutation(rows), key=lambda row: legal[row].sum()):
            choices = rng.permutation(np.flatnonzero(legal[row]))
            choice = choices[np.argmin(taken[choices])]
            tokens[row, position] = choice
            taken[choice] += 1
    return tokens
