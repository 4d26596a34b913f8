"""A task of images that small networks learn in a second."""

from __future__ import annotations

import numpy as np
import torch

from nas_gym.tasks import Augmentation, ImageTask, Split
from nas_gym.tasks.image_task import channel_statistics


def toy_task(
    train: int = 60,
    valid: int = 30,
    *,
    signal: float = 0.5,
    shape: tuple[int, int, int] = (1, 6, 6),
    augmentation: Augmentation | None = None,
) -> ImageTask:
    """Three classes, each a pattern under noise.

    Args:
        train: images to train on.
        valid: images to score on; there are 30 to test on.
        signal: share of the pattern in an image.
        shape: of the images, (channels, height, width).
        augmentation: by default shifts by one pixel, and flips.
    """
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 256, size=(3, *shape))

    def split(n: int) -> Split:
        labels = np.arange(n) % 3
        noise = rng.integers(0, round(256 * (1 - signal)), size=(n, *shape))
        images = np.clip(signal * patterns[labels] + noise, 0, 255)
        return Split(torch.from_numpy(images.astype(np.uint8)), torch.from_numpy(labels))

    splits = [split(n) for n in (train, valid, 30)]
    mean, std = channel_statistics(splits[0].inputs)
    return ImageTask("toy", *splits, ("a", "b", "c"), mean, std, augmentation or Augmentation(padding=1, flip=True))
