"""A task of one's own: noisy images of horizontal and of vertical stripes.

    PYTHONPATH=examples/extending nas-gym train --env NAS-Bench201-v0 --task own_task:stripes \
        --env-params evaluator:shared-weights
"""

from typing import Any

import numpy as np
import torch

from nas_gym.tasks import ImageTask, Split
from nas_gym.tasks.image_task import channel_statistics

NOISE = 60.0  # standard deviation, in grey levels


def stripes(*, seed: int = 0, **unused: Any) -> ImageTask:
    """Makes the task. It needs no files, so that it leaves out `data_dir` and `download`."""
    generator = np.random.default_rng(seed)
    horizontal = np.repeat([[96], [160]] * 4, 8, axis=1)

    def split(n: int) -> Split:
        labels = generator.integers(0, 2, size=n)
        images = np.where(labels[:, None, None] == 1, horizontal.T, horizontal) + generator.normal(0, NOISE, (n, 8, 8))
        pixels = np.clip(images, 0, 255).astype(np.uint8)[:, None]  # [n, channels, height, width]
        return Split(torch.from_numpy(pixels), torch.from_numpy(labels))

    train, valid, test = split(200), split(100), split(100)
    mean, std = channel_statistics(train.inputs)
    return ImageTask("stripes", train, valid, test, ("horizontal", "vertical"), mean, std)
