"""A classification task on images, whole on one device: splits, normalisation and augmentation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F

CHUNK = 4096  # images worked on at once where wide copies of a whole split would not fit


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images.

    Args:
        images: uint8 ``[n, C, H, W]``.
        labels: int64 ``[n]``.

    Raises:
        ValueError: another dtype or shape, or two devices.
    """

    images: torch.Tensor
    labels: torch.Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise ValueError(f"images must be uint8 [n, C, H, W]; got {_describe(self.images)}")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"labels must be int64 [{len(self.images)}]; got {_describe(self.labels)}")
        if self.images.device != self.labels.device:
            raise ValueError(f"images are on {self.images.device}, labels on {self.labels.device}; use one device")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: torch.Tensor) -> Split:
        """The images at `indices` (int64 ``[k]``), in that order."""
        return Split(self.images[indices], self.labels[indices])

    def to(self, device: torch.device | str) -> Split:
        """This split on `device`."""
        return Split(self.images.to(device), self.labels.to(device))


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
class Task:
    """An image classification task.

    Args:
        name: the name that `nas_gym.tasks.make_task` knows it by.
        classes: names of the classes; a label is an index into them.
        train: what weights are trained on.
        valid: what architectures are scored on.
        test: what is looked up once a search is over.
        mean: mean of each channel over the train split, of pixels in [0, 1].
        std: standard deviation of each channel over the train split, of pixels in [0, 1]; 1 for a constant channel.
        augmentation: what `augment` does.

    Raises:
        ValueError: splits of different image shapes or devices, or statistics that do not fit the channels.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    valid: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation = Augmentation()

    def __post_init__(self) -> None:
        for name, split in (("valid", self.valid), ("test", self.test)):
            if split.images.shape[1:] != self.train.images.shape[1:] or split.images.device != self.device:
                raise ValueError(
                    f"the {name} split's images are {_describe(split.images)}, "
                    f"the train split's {_describe(self.train.images)}; only their number may differ"
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
        _, channels, height, width = self.train.images.shape
        return channels, height, width

    @property
    def device(self) -> torch.device:
        """Where all splits are."""
        return self.train.images.device

    def to(self, device: torch.device | str) -> Task:
        """This task on `device`."""
        return dataclasses.replace(
            self, train=self.train.to(device), valid=self.valid.to(device), test=self.test.to(device)
        )

    @cached_property
    def _scale_and_shift(self) -> tuple[torch.Tensor, torch.Tensor]:
        mean, std = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (self.mean, self.std))
        return (1 / (255 * std)).float().to(self.device), (-mean / std).float().to(self.device)

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Pixels to zero mean and unit variance over the train split.

        Args:
            images: uint8 ``[..., C, H, W]``, on the task's device.

        Returns:
            float32 of the same shape.

        Raises:
            ValueError: images of another dtype.
        """
        if images.dtype != torch.uint8:
            raise ValueError(f"normalise takes uint8 images; got {_describe(images)}")
        scale, shift = self._scale_and_shift
        return images.to(torch.float32).mul_(scale).add_(shift)

    def augment(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
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

        def draw(low: int, high: int) -> torch.Tensor:
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

    def with_validation_in_training(self) -> Task:
        """The task for a final training: train and valid are merged as train, valid is empty.

        Mean and standard deviation are those of the merged split.
        """
        train = Split(
            torch.cat([self.train.images, self.valid.images]), torch.cat([self.train.labels, self.valid.labels])
        )
        mean, std = channel_statistics(train.images)
        nothing = Split(train.images[:0], train.labels[:0])
        return dataclasses.replace(self, train=train, valid=nothing, mean=mean, std=std)


def channel_statistics(images: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
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


def resize(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
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


def _chunks(images: torch.Tensor) -> Iterator[torch.Tensor]:
    return (images[start : start + CHUNK] for start in range(0, len(images), CHUNK))


def _within(centre: torch.Tensor, length: int, side: int) -> torch.Tensor:
    """bool ``[n, length]``: the pixels of an interval of `side` about each centre."""
    offset = torch.arange(length, device=centre.device) - (centre - side // 2)[:, None]
    return (offset >= 0) & (offset < side)


def _describe(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)} on {tensor.device}"
