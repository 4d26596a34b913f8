"""Strict readers of the files that image datasets come in. A bad file gets one ValueError that names it."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from nas_gym.pickles import read_plain_dict
from nas_gym.tasks.image_task import resize

UNSIGNED_BYTE = 0x08
IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
GREY_MODES = frozenset({"1", "L", "LA"})
DEEP_MODES = ("I", "F")  # Pillow's modes of more than 8 bits a channel; a conversion to 8 bits would clip them


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Reads a file of MNIST's idx format, gzipped if its name ends in .gz.

    Two zero bytes, a byte for the type (8: unsigned byte, the only one taken), a byte for the number of dimensions,
    each length as a big-endian 32-bit integer, then the values, last dimension fastest
    (http://yann.lecun.com/exdb/mnist/).

    Args:
        path: the file.
        dimensions: number of dimensions that it must have.

    Raises:
        ValueError: the file is not such a file, or is cut short, or goes on after its last value.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file: {error}") from error
    if len(data) < 4:
        raise ValueError(f"{path} ends within its magic number: {len(data)} bytes, an idx file has at least 4")
    zero, kind, found = struct.unpack(">HBB", data[:4])
    if zero != 0:
        raise ValueError(f"{path} is not an idx file: it starts with {data[:2].hex()}, not 0000")
    if kind != UNSIGNED_BYTE:
        raise ValueError(f"{path} holds values of idx type 0x{kind:02x}; only unsigned bytes (0x08) are read")
    if found != dimensions:
        raise ValueError(f"{path} has {found} dimensions; {dimensions} are expected")
    start = 4 + 4 * dimensions
    if len(data) < start:
        raise ValueError(f"{path} ends within its header: {len(data)} bytes of {start}")
    shape = struct.unpack(f">{dimensions}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise ValueError(f"{path} should hold {math.prod(shape)} values (shape {shape}); it holds {len(data) - start}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy()


def read_cifar_batch(path: Path, label_key: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Reads a batch of CIFAR-10 or CIFAR-100 in the "python version" (https://www.cs.toronto.edu/~kriz/cifar.html).

    Args:
        path: the file, a Python 2 pickle; nothing in it is run.
        label_key: ``"labels"`` or ``"fine_labels"``.

    Returns:
        Images uint8 ``[n, 3, 32, 32]`` and labels int64 ``[n]``.

    Raises:
        ValueError: the file is not such a file, or asks for anything but a plain array.
    """
    content = read_plain_dict(path, "a CIFAR file", encoding="bytes")
    try:
        _, shape, dtype, fortran, raw = content[b"data"].state
        if dtype.arguments[0] != b"u1":
            raise ValueError(f"pixels of type {dtype.arguments[0]!r}, not b'u1'")
        pixels = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")
        labels = np.array(content[label_key.encode()])
        if pixels.shape != (len(labels), 3 * 32 * 32) or labels.ndim != 1 or labels.dtype.kind != "i":
            raise ValueError(f"pixels {pixels.shape}, labels {labels.shape}; (n, 3072) and (n,) are expected")
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a CIFAR batch: {type(error).__name__}: {error}") from error
    return np.ascontiguousarray(pixels).reshape(-1, 3, 32, 32), labels.astype(np.int64)


def read_cifar_classes(path: Path, key: str) -> tuple[str, ...]:
    """Reads the names of the classes from CIFAR's metadata file, under `key` (``"label_names"`` or ``"fine_..."``).

    Raises:
        ValueError: the file is not such a file.
    """
    names = read_plain_dict(path, "a CIFAR file", encoding="bytes").get(key.encode())
    if not isinstance(names, list) or not names or not all(isinstance(name, bytes) for name in names):
        raise ValueError(f"{path} holds no list of names under {key!r}")
    return tuple(name.decode("latin1") for name in names)


def list_class_folders(root: Path) -> dict[str, list[Path]]:
    """The image files of each class folder under `root`, classes and files sorted by name.

    Raises:
        ValueError: fewer than two classes, or a class without images.
    """
    folders = sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    if len(folders) < 2:
        raise ValueError(f"{root} needs at least two class folders; it has {[folder.name for folder in folders]}")
    files = {
        folder.name: sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        for folder in folders
    }
    for name, found in files.items():
        if not found:
            raise ValueError(f"class folder {root / name} holds no image; known: {', '.join(sorted(IMAGE_SUFFIXES))}")
    return files


def read_images(paths: Sequence[Path], size: tuple[int, int] | None = None) -> torch.Tensor:
    """Reads image files into one tensor: grey if all are grey, else RGB.

    Args:
        paths: the files, at least one.
        size: (height, width) to resize to; that of the first image by default.

    Returns:
        uint8 ``[n, C, height, width]``.

    Raises:
        ValueError: a file is no image, or has more than 8 bits a channel.
    """
    headers = []
    for path in paths:
        with _opened(path) as image:
            headers.append((image.mode, (image.height, image.width)))
    size = size or headers[0][1]
    mode = "L" if GREY_MODES.issuperset(header[0] for header in headers) else "RGB"
    images = []
    for path in paths:
        with _opened(path) as image:
            pixels = torch.from_numpy(np.array(image.convert(mode)))
        pixels = pixels[None] if mode == "L" else pixels.permute(2, 0, 1)
        images.append(resize(pixels[None], size)[0])
    return torch.stack(images)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            if image.mode.startswith(DEEP_MODES):
                raise ValueError(f"{path} has more than 8 bits a channel (Pillow's mode {image.mode!r})")
            yield image
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error
