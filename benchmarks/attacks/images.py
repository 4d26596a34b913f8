"""Folders of images that hang, fill the memory, leak from train to test, or are damaged."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.attacks.outcome import Attack, Outcome
from benchmarks.attacks.trial import count, cut
from nas_gym.tasks import make_task

SIDE = 8
CLASSES = ("a", "b")
IMAGES = 12  # of each class


def picture(rng: np.random.Generator, side: int = SIDE) -> Image.Image:
    """An image of random pixels."""
    return Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))


def save_folder(root: Path, rng: np.random.Generator, parts: tuple[str, ...] = ("",)) -> list[Path]:
    """Writes a sound folder of classes, one of each part; returns the files."""
    files = []
    for part in parts:
        for name in CLASSES:
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(IMAGES):
                files.append(folder / f"{number:02}.png")
                picture(rng).save(files[-1])
    return files


def read(root: Path, **options: Any) -> list[Any]:
    """A task as plain values."""
    task = make_task(f"folder:{root}", **options)
    splits = (task.train, task.valid, task.test)
    return [(split.inputs.numpy().tobytes(), split.targets.tolist(), split.inputs.shape) for split in splits]


def grey_png(height: int, width: int) -> bytes:
    """A grey PNG file of any size, of zeros, without ever holding its pixels."""
    compressor = zlib.compressobj(9)
    rows = [compressor.compress(bytes(width + 1)) for _ in range(height)]

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = b"".join([*rows, compressor.flush()])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def each(attack: str, changes: dict[str, Callable[[Path], object]], *, sound: bool = False) -> Attack:
    """Puts something else in the place of one image; it is to be refused by name, or if it is sound, to be read."""

    def run(folder: Path, rng: np.random.Generator) -> Outcome:
        outcome = Outcome(attack)
        for number, (what, change) in enumerate(changes.items()):
            root = folder / str(number)
            file = save_folder(root, rng)[0]
            expected = read(root) if sound else None
            change(file)
            count(outcome, what, lambda root=root: read(root), f"{file.parent.name}/{file.name}", expected)  # type: ignore[misc]
        return outcome

    return run


def replaced(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """A change that first removes the file."""

    def change(file: Path) -> None:
        file.unlink()
        make(file)

    return change


def link(file: Path) -> None:
    """Has a file be a link to one elsewhere, which is sound."""
    elsewhere = file.parent.parent.with_suffix(".elsewhere")
    file.rename(elsewhere)
    file.symlink_to(elsewhere)


def other_format(kind: str) -> Callable[[Path], object]:
    """A change to an image in a format of other kinds of pixels, or that another program would have to read."""

    def change(file: Path) -> None:
        content = io.BytesIO()
        if kind == "EPS":
            picture(np.random.default_rng(0)).save(content, kind)
        else:
            Image.fromarray(np.full((SIDE, SIDE), 40_000, dtype=np.uint16)).save(content, kind)
        file.write_bytes(content.getvalue())

    return change


special = each(
    "images: pipes, devices, folders in the place of a file",
    {
        "a pipe": replaced(os.mkfifo),
        "a link to a device": replaced(lambda file: file.symlink_to("/dev/zero")),
        "a link to nothing": replaced(lambda file: file.symlink_to("nothing")),
        "a link to itself": replaced(lambda file: file.symlink_to(file)),
        "a folder": replaced(lambda file: file.mkdir()),
    },
)
links = each("images: a link to a file", {"a link": link}, sound=True)
content = each(
    "images: files of something else",
    {
        "nothing": lambda file: file.write_bytes(b""),
        "text": lambda file: file.write_text("an image"),
        "noise": lambda file: file.write_bytes(np.random.default_rng(0).bytes(1000)),
        "16 bits a channel": other_format("PNG"),
        "PostScript": other_format("EPS"),
        "88 million pixels": lambda file: file.write_bytes(grey_png(9400, 9400)),
        "no pixels": lambda file: file.write_bytes(grey_png(0, 5)),
    },
)


def truncations(folder: Path, rng: np.random.Generator, *, tries: int = 40) -> Outcome:
    """Cuts one file off, of every format in turn."""
    outcome = Outcome("images: a file cut off")
    files = save_folder(folder / "images", rng)
    for number in range(tries):
        kind = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")[number % 7]
        data = io.BytesIO()
        picture(rng, 32).save(data, kind)
        damaged, what = cut(data.getvalue()[:-16], rng)
        files[0].write_bytes(damaged)
        count(outcome, f"{kind}, {what}", lambda: read(folder / "images"), "a/00.png")
    return outcome


def large(folder: Path, rng: np.random.Generator) -> Outcome:
    """A first image that is far larger than all others, and folders that would not fit into memory."""
    outcome = Outcome("images: sizes that fill the memory")
    files = save_folder(folder / "first", rng)
    files[0].write_bytes(grey_png(5000, 5000))  # within the limit of a single one
    shapes = [(count_, 3, SIDE, SIDE) for count_ in (17, 3, 4)]
    count(outcome, "a large first one", lambda: [tuple(part[2]) for part in read(folder / "first")], "00.png", shapes)
    count(outcome, "an image_size of 100,000", lambda: read(folder / "first", image_size=100_000), "image_size")
    return outcome


def duplicates(folder: Path, rng: np.random.Generator) -> Outcome:
    """Images that are in two splits, and, to be read as they are, those that are twice in the test split."""
    outcome = Outcome("images: the same in train and test")
    for what in ("all", "one", "in another format"):
        root = folder / what
        files = save_folder(root, rng, ("train", "test"))
        trained, tested = files[: len(files) // 2], files[len(files) // 2 :]
        for source, target in zip(trained, tested, strict=True) if what == "all" else [(trained[3], tested[9])]:
            if what == "in another format":
                target.unlink()
                Image.open(source).save(target.with_suffix(".bmp"))
            else:
                target.write_bytes(source.read_bytes())
        count(outcome, what, lambda root=root: read(root), "are the same image")  # type: ignore[misc]
    files = save_folder(folder / "flat", rng)
    files[1].write_bytes(files[0].read_bytes())
    count(outcome, "in a folder that is yet to be split", lambda: read(folder / "flat"), "are the same image")
    files = save_folder(folder / "test alone", rng, ("train", "test"))
    files[-1].write_bytes(files[-2].read_bytes())
    allowed = read(folder / "test alone", allow_duplicates=True)
    count(outcome, "within test", lambda: read(folder / "test alone"), "are the same image", allowed)
    return outcome


ATTACKS: list[Attack] = [special, links, content, truncations, large, duplicates]
