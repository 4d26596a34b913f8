"""Complete sequences of decisions as vectors, and the kernels that are the scalar products of these vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nas_gym.spaces import SearchSpace, Tokens
from nas_gym.types import Floats


def one_hot(space: SearchSpace, tokens: Tokens) -> NDArray[np.float32]:
    """One column per choice of each decision.

    Args:
        space: the search space.
        tokens: int64[B, T].

    Returns:
        float32[B, F], where F is the sum of the space's `choice_counts`; every row holds T ones.
    """
    return space.one_hot(tokens)[:, np.arange(space.num_choices) < space.choice_counts[:, None]]


def one_hot_with_pairs(space: SearchSpace, tokens: Tokens) -> NDArray[np.float32]:
    """The columns of `one_hot`, and the product of each two columns that belong to different decisions.

    There are about F²/2 columns, 16,000 for the ENAS cell and 12 million for the largest space of the package: use
    `kernel` where scalar products are all that is needed.

    Args:
        space: the search space.
        tokens: int64[B, T].

    Returns:
        float32[B, F + P], where P is the number of pairs; every row holds T + T (T - 1) / 2 ones.
    """
    single = one_hot(space, tokens)
    decision = np.repeat(np.arange(space.length), space.choice_counts)
    first, second = np.nonzero(decision[:, None] < decision)
    return np.concatenate([single, single[:, first] * single[:, second]], axis=1)


def counts(space: SearchSpace, tokens: Tokens) -> NDArray[np.float32]:
    """How often each choice is taken, wherever: one column per choice of each kind of decision with equal choices.

    Args:
        space: the search space.
        tokens: int64[B, T].

    Returns:
        float32[B, F]; every row sums to T.
    """
    kinds = [(decision.kind, decision.choices) for decision in space.decisions]
    encoded = space.one_hot(tokens)
    parts = []
    for kind in dict.fromkeys(kinds):
        positions = [position for position, other in enumerate(kinds) if other == kind]
        parts.append(encoded[:, positions, : len(kind[1])].sum(axis=1))
    return np.concatenate(parts, axis=1)


def kernel(first: Tokens, second: Tokens, *, pairs: bool) -> Floats:
    """Scalar products of encoded architectures, without the encodings.

    Two architectures that agree in m decisions have m ones of `one_hot` in common, and m (m - 1) / 2 more among the
    pairs: one for each two of these decisions.

    Args:
        first: int64[N, T].
        second: int64[M, T].
        pairs: whether the encoding is `one_hot_with_pairs`; else it is `one_hot`.

    Returns:
        float64[N, M].
    """
    matches = np.zeros((len(first), len(second)))
    for position in range(first.shape[1]):  # one decision at a time: the memory is that of the result
        matches += first[:, position, None] == second[:, position]
    return matches * (matches + 1) / 2 if pairs else matches


def sequence(space: SearchSpace, tokens: Tokens) -> NDArray[np.int64]:
    """The choices as words of one vocabulary, for recurrent networks.

    Args:
        space: the search space.
        tokens: int64[B, T].

    Returns:
        int64[B, T], below the sum of the space's `choice_counts`; choices of different decisions are different words.
    """
    words: NDArray[np.int64] = tokens + np.cumsum([0, *space.choice_counts[:-1]])
    return words
