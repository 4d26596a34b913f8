"""As many threads as the work is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

ACTIVATIONS_PER_THREAD = 2**17
"""Values of a feature map below which a second thread costs more than it brings.

On two cores, a step on maps of 2^15 to 2^17 values takes 0.8 to 1.0 times the time with two threads as with one, and
1.5 to 2 times the processor time; and when other programs run, threads that wait for each other slow the step down
many times.
"""


@contextmanager
def fitting_threads(activations: int, device: torch.device) -> Iterator[None]:
    """Has torch use as many threads as suit networks of this size, within a ``with`` block; on CPUs only.

    Args:
        activations: values in the feature maps of the first stage, for one batch.
        device: where the networks run.
    """
    before = torch.get_num_threads()
    if device.type != "cpu":
        yield
        return
    torch.set_num_threads(max(1, min(before, activations // ACTIVATIONS_PER_THREAD)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
