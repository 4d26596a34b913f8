"""Reads image files from class folders, whoever made them. A bad file gets one ValueError that names it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from nas_gym.tasks.image_task import resize

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # Pillow has others, which may start other programs
GREY_MODES = frozenset({"1", "L", "LA"})
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and its values that stand for a turn by a quarter
DEEP_MODES = ("I", "F")  # Pillow's modes of more than 8 bits a channel; a conversion to 8 bits would clip them

FILE_PIXELS = 2**25
"""Pixels of the largest image that is decoded, more than a camera of 24 megapixels has: a file of 20 kB can hold 4,000
times as many bytes."""
TASK_BYTES = 2**32
"""Bytes of the largest task that is read, as one tensor of all images."""
SIDE = 64
"""The longer side, in pixels, of images of different sizes, at most, unless a size is given."""

IMBALANCE = 3
"""How many times as many images as the smallest class the largest one may have without a warning."""

Size = tuple[int, int]


def list_class_folders(root: Path) -> dict[str, list[Path]]:
    """The image files of each class folder under `root`, classes and files sorted by name.

    Raises:
        ValueError: fewer than two classes, a class without images, or something else that is named like an image.
    """
    folders = sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    if len(folders) < 2:
        raise ValueError(f"{root} needs at least two class folders; it has {[folder.name for folder in folders]}")
    files = {
        folder.name: sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES) for folder in folders
    }
    for name, found in files.items():
        if not found:
            raise ValueError(f"class folder {root / name} holds no image; known: {', '.join(sorted(SUFFIXES))}")
        for file in found:
            if not file.is_file():  # to read a pipe or a device may never end
                raise ValueError(f"{file} is neither a file nor a link to one; remove it or rename it")
    return files


def read_images(paths: Sequence[Path], size: Size | None = None) -> tuple[torch.Tensor, list[bytes]]:
    """Reads image files into one tensor: grey if all are grey, else RGB. Photographs are turned upright, as EXIF says.

    Args:
        paths: the files, at least one.
        size: (height, width) to resize to; see `common_size` for the default.

    Returns:
        uint8 ``[n, C, height, width]``; and for each file a hash of its pixels before they are resized.

    Raises:
        ValueError: a file is no image, is too large, or has more than 8 bits a channel, or all together are too large.
    """
    modes, sizes = zip(*map(_header, paths), strict=True)
    height, width = size = size or common_size(sizes)
    mode = "L" if GREY_MODES.issuperset(modes) else "RGB"
    shape = (len(paths), len(mode), height, width)
    if (total := int(np.prod(shape, dtype=object))) > TASK_BYTES:
        raise ValueError(
            f"{len(paths)} images of {height}x{width} pixels, {paths[0]} the first, take {total:,} bytes; up to "
            f"{TASK_BYTES:,} are read: give a smaller image_size (of make_task, or in an evaluator's task_kwargs)"
        )
    images, hashes = torch.empty(shape, dtype=torch.uint8), []
    for image, path in zip(images, paths, strict=True):
        pixels = _pixels(path, mode)
        hashes.append(hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16).digest())
        channels = torch.from_numpy(pixels)[..., None] if mode == "L" else torch.from_numpy(pixels)
        for target, channel in zip(image, channels.unbind(-1), strict=True):  # one by one, to hold less in memory
            target.copy_(resize(channel[None, None], size)[0, 0])
    return images, hashes


def common_size(sizes: Sequence[Size]) -> Size:
    """The (height, width) that images of these sizes are resized to: their own, if they are all of one size.

    Else it is the median height and width, of an even number the lower, scaled down so that neither is above `SIDE`.
    The order of the images does not matter, and no single one decides.
    """
    if len(set(sizes)) == 1:
        return sizes[0]
    height, width = (sorted(lengths)[(len(lengths) - 1) // 2] for lengths in zip(*sizes, strict=True))
    scale = min(1.0, SIDE / max(height, width))
    return max(1, round(scale * height)), max(1, round(scale * width))


def balance_notes(classes: Sequence[str], splits: Mapping[str, Sequence[int]]) -> list[str]:
    """What makes accuracies hard to read: classes that a split lacks, and one class that is far more frequent.

    Args:
        classes: their names.
        splits: the number of images of each class, by the name of the split.
    """
    notes = []
    for name, counts in splits.items():
        if lacking := [label for label, count in zip(classes, counts, strict=True) if not count]:
            labels = ", ".join(map(repr, lacking))
            notes.append(f"the {name} split has no image of {labels}: add images, at least 12 of each class")
    totals = np.sum(list(splits.values()), axis=0)
    if totals.max() >= IMBALANCE * totals.min():
        most, least, share = int(totals.argmax()), int(totals.argmin()), totals.max() / totals.sum()
        notes.append(
            f"classes are unbalanced: {totals[most]} images of {classes[most]!r}, {totals[least]} of "
            f"{classes[least]!r}; a network that always answers {classes[most]!r} has an accuracy of {share:.2f}"
        )
    return notes


def check_duplicates(paths: Sequence[Path], hashes: Sequence[bytes], test: Sequence[int]) -> None:
    """Whether no image is there twice, but for those that are twice among `test`.

    Which images are train and which valid depends on a seed, so that two equal ones that are not in the test split may
    come to be in both.

    Raises:
        ValueError: one is.
    """
    held_out, seen, pairs = set(test), dict[bytes, int](), list[tuple[int, int]]()
    for index, found in enumerate(hashes):
        first = seen.setdefault(found, index)
        if first != index and not {first, index} <= held_out:
            pairs.append((first, index))
    if pairs:
        one, other = (paths[index] for index in pairs[0])
        raise ValueError(
            f"{one} and {other} are the same image ({len(pairs)} such pairs), so that networks may be scored on what "
            "they are trained on; remove one of each, or allow it: allow_duplicates=True of make_task, or in an "
            "evaluator's task_kwargs"
        )


def _header(path: Path) -> tuple[str, Size]:
    with _opened(path) as image:
        height, width = image.height, image.width
        turned = image.getexif().get(ORIENTATION) in TURNED
        return image.mode, (width, height) if turned else (height, width)


def _pixels(path: Path, mode: str) -> np.ndarray:
    from PIL import ImageOps

    with _opened(path) as image:
        return np.array(ImageOps.exif_transpose(image).convert(mode))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.mode.startswith(DEEP_MODES):
                raise ValueError(f"it has more than 8 bits a channel (Pillow's mode {image.mode!r})")
            if not 0 < image.width * image.height <= FILE_PIXELS:
                raise ValueError(f"it is of {image.height}x{image.width} pixels; up to {FILE_PIXELS:,} are read")
            yield image
    except Exception as error:  # whatever Pillow's decoders make of damaged bytes
        raise ValueError(f"{path} cannot be read as an image: {error}") from error
