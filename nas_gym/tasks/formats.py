"""Strict readers of the files that image datasets come in. A bad file gets one ValueError that names it."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas_gym.pickles import read_plain_dict

UNSIGNED_BYTE = 0x08


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
