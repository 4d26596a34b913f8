"""Image classification: normalisation, augmentation, cross-entropy, accuracy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from nas_gym.tasks.task import Reduction, Split, Task, describe, digest

CHUNK = 4096  # images worked on at once where wide copies of a whole split would not fit


@dataclass(frozen=True)
class Augmentation:
    """Random changes to training images, each drawn anew for every image of a batch.

    Args:
        padding: pixels of zero padding from which an image-sized window is cropped; 0 is off.
        flip: whether half of the images are mirrored left to right.
        cutout: side, in pixels, of a square that is set to zero; 0 is off. Its centre is uniform over the image,
            so that it may lie partly outside (DeVries & Taylor 2017, "Improved Regularization of Convolutional
            Neural Networks with Cutout", section 3.2).

    Raises:
        ValueError: a negative length.
    """

    padding: int = 0
    flip: bool = False
    cutout: int = 0

    def __post_init__(self) -> None:
        for name in ("padding", "cutout"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is a number of pixels, at least 0; got {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class ImageTask(Task):
    """An image classification task: inputs are uint8 ``[n, C, H, W]``, targets int64 ``[n]``, indices into `classes`.

    Args:
        name: the name that `nas_gym.tasks.make_task` knows it by.
        train: what weights are trained on.
        valid: what architectures are scored on.
        test: what is looked up once a search is over.
        classes: names of the classes.
        mean: mean of each channel over the train split, of pixels in [0, 1].
        std: standard deviation of each channel over the train split, of pixels in [0, 1]; 1 for a constant channel.
        augmentation: what `augment` does.

    Raises:
        ValueError: splits of other dtypes or shapes, of different image shapes or devices, or statistics that do not
            fit the channels.
    """

    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation = Augmentation()

    def __post_init__(self) -> None:
        for name, split in (("train", self.train), ("valid", self.valid), ("test", self.test)):
            _check(name, split)
            if split.inputs.shape[1:] != self.train.inputs.shape[1:] or split.inputs.device != self.device:
                raise ValueError(
                    f"the {name} split's images are {describe(split.inputs)}, "
                    f"the train split's {describe(self.train.inputs)}; only their number may differ"
                )
        channels = self.image_shape[0]
        if len(self.mean) != channels or len(self.std) != channels or min(self.std) <= 0:
            raise ValueError(f"{channels} channels need as many mean and positive std; got {self.mean} and {self.std}")

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        _, channels, height, width = self.train.inputs.shape
        return channels, height, width

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return self.image_shape

    @property
    def num_outputs(self) -> int:
        return self.num_classes

    def inputs(self, batch: Split) -> Tensor:
        """The normalised images, float32 ``[n, C, H, W]``."""
        return self.normalise(batch.inputs)

    def loss(
        self, outputs: Tensor, targets: Tensor, *, reduction: Reduction = "mean", label_smoothing: float = 0.0
    ) -> Tensor:
        """Cross-entropy of logits float ``[n, classes]``."""
        return F.cross_entropy(outputs, targets, reduction=reduction, label_smoothing=label_smoothing)

    def measure(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Whether the largest of the logits float ``[n, classes]`` is that of the right class, bool ``[n]``."""
        return outputs.argmax(dim=-1) == targets

    def score(self, mean: float) -> float:
        """The accuracy."""
        return mean

    def fingerprint(self) -> dict[str, Any]:
        """The name, the classes, the images and labels of train and valid, the normalisation and the augmentation."""
        return {
            "name": self.name,
            "classes": len(self.classes),
            "images": digest(self.train, self.valid),
            "normalisation": [self.mean, self.std],
            "augmentation": dataclasses.asdict(self.augmentation),
        }

    def with_splits(self, train: Split, valid: Split, test: Split) -> Self:
        """The task on other images. Mean and standard deviation are those of the new train split."""
        mean, std = channel_statistics(train.inputs)
        return dataclasses.replace(self, train=train, valid=valid, test=test, mean=mean, std=std)

    def resized(self, size: tuple[int, int]) -> Self:
        """The task on images of another (height, width), in pixels; mean and standard deviation are theirs."""
        splits = (Split(resize(split.inputs, size), split.targets) for split in (self.train, self.valid, self.test))
        return self.with_splits(*splits)

    @cached_property
    def _scale_and_shift(self) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (self.mean, self.std))
        return (1 / (255 * std)).float().to(self.device), (-mean / std).float().to(self.device)

    def normalise(self, images: Tensor) -> Tensor:
        """Pixels to zero mean and unit variance over the train split.

        Args:
            images: uint8 ``[..., C, H, W]``, on the task's device.

        Returns:
            float32 of the same shape.

        Raises:
            ValueError: images of another dtype.
        """
        if images.dtype != torch.uint8:
            raise ValueError(f"normalise takes uint8 images; got {describe(images)}")
        scale, shift = self._scale_and_shift
        return images.to(torch.float32).mul_(scale).add_(shift)

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Randomly crops, mirrors and cuts out, as `augmentation` says.

        Args:
            images: float32 ``[n, C, H, W]``, already normalised, so that the zeros of padding and cutout are the mean.
            generator: the only source of randomness. It may be on another device than the images: with a CPU
                generator the same changes are made on every device.

        Returns:
            float32 ``[n, C, H, W]``.
        """
        n, _, height, width = images.shape
        padding, cutout = self.augmentation.padding, self.augmentation.cutout

        def draw(low: int, high: int) -> Tensor:
            drawn = torch.randint(low, high, (n,), generator=generator, device=generator.device)
            return drawn.to(images.device)

        if padding:
            # A view of all windows, so that one gather cuts each image's own.
            windows = F.pad(images, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
            row, column = draw(0, 2 * padding + 1), draw(0, 2 * padding + 1)
            images = windows[torch.arange(n, device=images.device), :, row, column]
        if self.augmentation.flip:
            images = torch.where(draw(0, 2).bool().view(n, 1, 1, 1), images.flip(-1), images)
        if cutout:
            rows, columns = _within(draw(0, height), height, cutout), _within(draw(0, width), width, cutout)
            images = images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)
        return images


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of pixels in [0, 1]; a constant channel gets 1 as its deviation.

    Args:
        images: uint8 ``[n, C, H, W]``, at least one.
    """
    totals = torch.zeros(2, images.shape[1], dtype=torch.int64, device=images.device)
    for chunk in _chunks(images):
        pixels = chunk.long()  # integers: exact, whatever the order of summation
        totals += torch.stack([pixels.sum((0, 2, 3)), pixels.square().sum((0, 2, 3))])
    count = images.numel() // images.shape[1]
    mean, std = [], []
    for total, squares in totals.T.tolist():
        mean.append(total / count / 255)
        std.append((count * squares - total * total) ** 0.5 / (255 * count) or 1.0)
    return tuple(mean), tuple(std)


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, antialiased resizing.

    Args:
        images: uint8 ``[n, C, H, W]``.
        size: (height, width) in pixels.

    Returns:
        uint8 ``[n, C, height, width]``.
    """
    if tuple(images.shape[2:]) == size:
        return images
    resized = (F.interpolate(chunk.float(), size, mode="bilinear", antialias=True) for chunk in _chunks(images))
    return torch.cat([chunk.round_().clamp_(0, 255).to(torch.uint8) for chunk in resized])


def _chunks(images: Tensor) -> Iterator[Tensor]:
    return (images[start : start + CHUNK] for start in range(0, len(images), CHUNK))


def _within(centre: Tensor, length: int, side: int) -> Tensor:
    """bool ``[n, length]``: the pixels of an interval of `side` about each centre."""
    offset = torch.arange(length, device=centre.device) - (centre - side // 2)[:, None]
    return (offset >= 0) & (offset < side)


def _check(name: str, split: Split) -> None:
    images, labels = split.inputs, split.targets
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(f"the {name} split's images must be uint8 [n, C, H, W]; got {describe(images)}")
    if labels.dtype != torch.int64 or labels.ndim != 1:
        raise ValueError(f"the {name} split's labels must be int64 [{len(images)}]; got {describe(labels)}")
