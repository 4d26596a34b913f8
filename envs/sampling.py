"""Random legal actions for batches of masks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def masked_sample(mask: NDArray[Any], rng: np.random.Generator) -> NDArray[np.int64]:
    """Samples one legal action per row, uniformly, as `Discrete.sample(mask=...)` does for a single mask.

    Args:
        mask: bool[N, A] or int8[N, A], nonzero where an action is legal: `infos["action_mask"]` or `action_masks()`
            of a vector environment.
        rng: the random number generator.

    Returns:
        int64[N]. Each legal action of a row has the same probability, to a relative error of 2^-24 times A.

    Raises:
        ValueError: the mask has another shape or type, or a row allows no action.
    """
    if not isinstance(mask, np.ndarray) or mask.ndim != 2 or mask.dtype not in (np.bool_, np.int8):
        raise ValueError(f"mask must be bool or int8 of shape (N, A), got {mask!r}")
    n, width = mask.shape
    legal = mask != 0
    if width and legal.all():
        return np.asarray(rng.integers(width, size=n))
    # Column by column and in the smallest integers: the columns are few and long, and numpy's loops run along them.
    columns = np.ascontiguousarray(legal.T).view(np.uint8)
    counter = np.min_scalar_type(width)
    count = np.zeros(n, dtype=counter)
    for column in columns:
        count += column
    if not count.all():
        raise ValueError(f"mask[{int(np.argmin(count))}] allows no action")
    # The product stays below the count, since a random number is at most 1 - 2^-24.
    rank = (rng.random(n, dtype=np.float32) * count).astype(counter)
    action = np.zeros(n, dtype=counter)
    passed = np.zeros(n, dtype=counter)
    for column in columns:
        passed += column
        action += passed <= rank
    return action.astype(np.int64)
