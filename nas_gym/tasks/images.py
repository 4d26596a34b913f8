"""Makes the tasks by name: finds or downloads the dataset, splits it, and puts it on a device."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nas_gym.settings import unknown
from nas_gym.tasks import glyphs
from nas_gym.tasks.folders import balance_notes, check_duplicates, list_class_folders, read_images
from nas_gym.tasks.formats import read_cifar_batch, read_cifar_classes, read_idx
from nas_gym.tasks.image_task import Augmentation, ImageTask, channel_statistics, resize
from nas_gym.tasks.names import FOLDER, TASKS
from nas_gym.tasks.task import Split

logger = logging.getLogger("nas_gym")

DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
IDX_CLASSES = {"fashion-mnist": "FashionMNIST", "mnist": "MNIST", "kmnist": "KMNIST"}  # torchvision's names
TRAIN_LABELS = {  # MD5 of the gzipped train labels, as torchvision has them
    "fashion-mnist": "25c81989df183df01b3e8a0aad5dffbe",
    "mnist": "d53e105ee54ea40749a09fcbcd1e9432",
    "kmnist": "e144d726b3acfaa3e44228e80efcd344",
}
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
KUZUSHIJI = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
DIGITS = tuple("0123456789")
TEST_SEED = 0  # of the test split of a dataset without its own: the same for every seed of a task


@dataclass(frozen=True)
class _Source:
    """A dataset as it is read: what may be learnt from, and what is kept for the test."""

    classes: tuple[str, ...]
    learn: Split
    test: Split
    augmentation: Augmentation
    valid: int | None = None  # images of `learn` that become the valid split; a sixth by default


def make_task(
    name: str,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    data_dir: str | Path | None = None,
    download: bool = False,
    image_size: int | None = None,
    train_limit: int | None = None,
    valid_limit: int | None = None,
    allow_duplicates: bool = False,
) -> ImageTask:
    """Makes an image classification task, whole on a device.

    A dataset's own test split is the test split, and its own train split is divided 5:1 into train and valid. Without
    one (``digits``, a folder of classes), the test split is drawn first, in the same way for every seed. All draws
    are stratified: train, valid, and every beginning of either hold the classes in the dataset's proportions.
    ``glyphs`` is drawn when it is asked for, at the `image_size` wanted, and cached.

    Args:
        name: a name in `nas_gym.tasks.names.TASKS`; ``fashion-mnist:0-4`` or ``digits:1,3,7-9``, the task of some
            classes of one of these, by their numbers; ``glyphs:0-199``, likewise, of all characters; ``folder:PATH``
            with a folder's path.
        seed: fixes which images are train and valid, and their order. It does not move the test split.
        device: where the images will be.
        data_dir: where datasets are looked for and downloaded to; by default the environment variable
            ``NAS_GYM_DATA``, else ``~/.cache/nas_gym/data``.
        download: whether torchvision may download a dataset that is not found.
        image_size: side in pixels of the square that images are resized to; by default they keep their size. Images of
            different sizes in a folder get their median height and width, scaled down to at most 64 pixels.
        train_limit: keep only the first so many images of the train split, which are balanced.
        valid_limit: keep only the first so many images of the valid split, which are balanced.
        allow_duplicates: whether a folder may hold an image twice where it can come to be in two splits, pixel by pixel
            the same; by default only within its test split.

    Raises:
        ValueError: an unknown name, an argument out of range, or a corrupt file.
        FileNotFoundError: the dataset is not found; says where it was looked for and how to get it.
    """
    if seed < 0:
        raise ValueError(f"seed must be at least 0; got {seed}")
    limits = {"image_size": image_size, "train_limit": train_limit, "valid_limit": valid_limit}
    for argument, value in limits.items():
        if value is not None and value < 1:
            raise ValueError(f"{argument} must be at least 1, or None for all; got {value}")
    size = None if image_size is None else (image_size, image_size)
    source = _read(name, _data_folder(data_dir), download, size, allow_duplicates)
    order = stratified_order(source.learn.targets.numpy(), np.random.default_rng(seed))
    valid = len(order) // 6 if source.valid is None else source.valid
    if valid == 0 or len(source.test) == 0:
        raise ValueError(f"task {name!r} has too few images to split: {len(order) + len(source.test)}")
    splits = {
        "train": source.learn.take(order[valid:][:train_limit]),
        "valid": source.learn.take(order[:valid][:valid_limit]),
        "test": source.test,
    }
    if name.startswith(FOLDER):
        counts = {key: torch.bincount(split.targets, minlength=len(source.classes)) for key, split in splits.items()}
        for note in balance_notes(source.classes, {key: count.tolist() for key, count in counts.items()}):
            logger.warning("task %r: %s", name, note)
    if size is not None:
        splits = {key: Split(resize(split.inputs, size), split.targets) for key, split in splits.items()}
    mean, std = channel_statistics(splits["train"].inputs)
    task = ImageTask(name, **splits, classes=source.classes, mean=mean, std=std, augmentation=source.augmentation)
    return task.to(device)


def stratified_order(labels: NDArray[np.int64], rng: np.random.Generator) -> torch.Tensor:
    """A random order in which every beginning holds each class in proportion, up to rounding.

    Args:
        labels: int64 ``[n]``.
        rng: the source of randomness.

    Returns:
        A permutation of 0 .. n - 1, int64 ``[n]``.
    """
    luck, precedence = rng.random((2, len(labels)))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        place[members[np.argsort(luck[members])]] = (np.arange(len(members)) + 0.5) / len(members)
    return torch.from_numpy(np.lexsort((precedence, place)))


def _data_folder(data_dir: str | Path | None) -> Path:
    return Path(data_dir or os.environ.get("NAS_GYM_DATA") or "~/.cache/nas_gym/data").expanduser()


def _read(name: str, data_dir: Path, download: bool, size: tuple[int, int] | None, allow_duplicates: bool) -> _Source:
    if name == "digits":
        return _digits()
    if name in IDX_CLASSES:
        return _idx(name, data_dir, download)
    if name in ("cifar10", "cifar100"):
        return _cifar(name, data_dir, download)
    if name == "svhn":
        return _svhn(data_dir, download)
    if name.startswith(FOLDER) and name != FOLDER:
        return _folder(name, size, allow_duplicates)
    whole, colon, chosen = name.partition(":")
    if whole == "glyphs" and (chosen or not colon):
        return _glyphs(name, chosen, data_dir, size)
    if chosen and whole in TASKS:
        return _some_classes(_read(whole, data_dir, download, size, allow_duplicates), name, chosen)
    raise ValueError(unknown("task", name, TASKS))


def _some_classes(source: _Source, name: str, chosen: str) -> _Source:
    """A dataset of some of the classes alone, numbered anew in their order."""
    classes = _class_numbers(name, chosen, len(source.classes))

    def part(split: Split) -> Split:
        kept = split.take(torch.isin(split.targets, classes).nonzero()[:, 0])
        return Split(kept.inputs, torch.searchsorted(classes, kept.targets))

    learn = part(source.learn)
    valid = None if source.valid is None else source.valid * len(learn) // len(source.learn)
    names = tuple(source.classes[number] for number in classes.tolist())
    return dataclasses.replace(source, classes=names, learn=learn, test=part(source.test), valid=valid)


def _class_numbers(name: str, chosen: str, count: int) -> torch.Tensor:
    """Numbers and ranges of them, such as ``1,3,7-9``, as int64, ascending."""
    numbers: list[int] = []
    for entry in chosen.split(","):
        ends = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", entry, flags=re.ASCII)
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (0, -1)
        numbers += range(first, min(last, count) + 1) or [count]  # a wrong entry counts as a class that there is not
    if len(numbers) < 2 or numbers[-1] >= count or numbers != sorted(set(numbers)):
        raise ValueError(
            f"task {name!r} must name at least 2 of the classes 0 to {count - 1} in ascending order, such as 0-2 or "
            f"0,3; got {chosen!r}"
        )
    return torch.tensor(numbers)


def _split(images: torch.Tensor, labels: NDArray[np.integer]) -> Split:
    return Split(images, torch.from_numpy(labels.astype(np.int64)))


def _hold_out(labels: NDArray[np.int64], test: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The indices (learn, test) of a dataset without its own test split."""
    order = stratified_order(labels, np.random.default_rng(TEST_SEED))
    return order[test:], order[:test]


def _digits() -> _Source:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8))[:, None]
    everything = _split(images, digits.target)
    learn, test = _hold_out(digits.target, test=400)
    return _Source(DIGITS, everything.take(learn), everything.take(test), Augmentation(padding=1), valid=397)


def _glyphs(name: str, chosen: str, data_dir: Path, size: tuple[int, int] | None) -> _Source:
    numbers = _class_numbers(name, chosen, glyphs.count_characters()).tolist() if chosen else range(glyphs.CLASSES)
    side = glyphs.SIDE if size is None else size[0]
    classes, images = glyphs.read_glyphs(numbers, side, data_dir / "cache")
    # A drawing of every class, then another: every beginning of the test split is balanced.
    everything = Split(images.flatten(0, 1), torch.arange(len(classes)).repeat(len(images)))
    test = glyphs.TEST * len(classes)
    learn, test_split = everything.take(slice(-test)), everything.take(slice(-test, None))
    return _Source(classes, learn, test_split, Augmentation(padding=1), valid=glyphs.VALID * len(classes))


def _idx(name: str, data_dir: Path, download: bool) -> _Source:
    places = [data_dir / IDX_CLASSES[name] / "raw", data_dir / name, data_dir]
    if name == "fashion-mnist":
        places.append(DEBIAN_FASHION)

    def trouble(place: Path) -> str:
        lacking = [file for file in IDX_FILES if not _plain_or_gzipped(place, file).is_file()]
        # All three datasets have files of the same names.
        return _lacks(place, lacking) or (_is_another(name, place) if place == data_dir else "")

    def fetch() -> None:
        from torchvision import datasets

        getattr(datasets, IDX_CLASSES[name])(data_dir, download=True)

    place = _find(name, places, trouble, fetch if download else None)
    classes = {"fashion-mnist": FASHION, "kmnist": KUZUSHIJI}.get(name, DIGITS)
    learn, test = (_read_idx_pair(place, files, len(classes)) for files in (IDX_FILES[:2], IDX_FILES[2:]))
    return _Source(classes, learn, test, Augmentation(padding=2, flip=name == "fashion-mnist"))


def _plain_or_gzipped(place: Path, file: str) -> Path:
    return place / file if (place / file).is_file() else place / f"{file}.gz"


def _is_another(name: str, place: Path) -> str:
    """What is wrong if the gzipped train labels in `place` are known, by their MD5, as those of another dataset."""
    labels = place / f"{IDX_FILES[1]}.gz"
    digest = hashlib.md5(labels.read_bytes(), usedforsecurity=False).hexdigest() if labels.is_file() else ""
    return next((f"holds {other}" for other, known in TRAIN_LABELS.items() if other != name and known == digest), "")


def _read_idx_pair(place: Path, files: Sequence[str], classes: int) -> Split:
    image_file, label_file = (_plain_or_gzipped(place, file) for file in files)
    images, labels = read_idx(image_file, 3), read_idx(label_file, 1)
    _check_labels(labels, len(images), classes, label_file)
    return _split(torch.from_numpy(images)[:, None], labels)


def _check_labels(labels: NDArray[np.integer], images: int, classes: int, file: Path) -> None:
    if len(labels) != images or images == 0:
        raise ValueError(f"{file} holds {len(labels)} labels for {images} images; as many are expected, at least one")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"{file} holds labels from {labels.min()} to {labels.max()}; there are {classes} classes")


def _cifar(name: str, data_dir: Path, download: bool) -> _Source:
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity, download_and_extract_archive

    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    place = data_dir / kind.base_folder
    checksums = dict([*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])])

    def trouble(place: Path) -> str:
        return _lacks(place, [file for file in checksums if not (place / file).is_file()])

    def fetch() -> None:  # not by making a dataset: torchvision's constructor unpickles
        download_and_extract_archive(kind.url, data_dir, filename=kind.filename, md5=kind.tgz_md5)

    _find(name, [place], trouble, fetch if download else None)
    for file, md5 in checksums.items():
        if not check_integrity(place / file, md5):
            raise ValueError(f"{place / file} is corrupt: its MD5 is not {md5}; delete {place} and get it again")
    classes = read_cifar_classes(place / kind.meta["filename"], kind.meta["key"])

    def read(files: Sequence[Sequence[str]]) -> Split:
        batches = []
        for file, _ in files:
            images, labels = read_cifar_batch(place / file, "labels" if name == "cifar10" else "fine_labels")
            _check_labels(labels, len(images), len(classes), place / file)
            batches.append((images, labels))
        images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        return _split(torch.from_numpy(images), labels)

    return _Source(classes, read(kind.train_list), read(kind.test_list), Augmentation(padding=4, flip=True))


def _svhn(data_dir: Path, download: bool) -> _Source:
    from torchvision.datasets import SVHN

    files = {split: data_dir / SVHN.split_list[split][1] for split in ("train", "test")}

    def trouble(place: Path) -> str:
        return _lacks(place, [file.name for file in files.values() if not file.is_file()])

    def fetch() -> None:
        for split in files:
            SVHN(data_dir, split, download=True)

    _find("svhn", [data_dir], trouble, fetch if download else None)

    def read(split: str) -> Split:
        try:
            dataset = SVHN(data_dir, split)
            images, labels = np.ascontiguousarray(dataset.data), dataset.labels
        except Exception as error:  # torchvision on a wrong MD5, scipy on whatever else may be in a .mat file
            raise ValueError(f"{files[split]} is corrupt: {error}; delete it and get it again") from error
        _check_labels(labels, len(images), len(DIGITS), files[split])
        return _split(torch.from_numpy(images), labels)

    return _Source(DIGITS, read("train"), read("test"), Augmentation(padding=4))


def _folder(name: str, size: tuple[int, int] | None, allow_duplicates: bool) -> _Source:
    root = Path(name.removeprefix(FOLDER)).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"task {name!r}: there is no folder {root.absolute()}; {TASKS['folder:PATH']}")
    parts = [root / "train", root / "test"] if (root / "train").is_dir() and (root / "test").is_dir() else [root]
    found = [list_class_folders(part) for part in parts]
    classes = tuple(found[0])
    if any(tuple(part) != classes for part in found):
        raise ValueError(f"{parts[0]} and {parts[1]} must hold the same classes; got {list(classes)}, {list(found[1])}")
    files = [file for part in found for group in part.values() for file in group]
    labels = np.array([label for part in found for label, group in enumerate(part.values()) for _ in group])
    images, hashes = read_images(files, size)
    if len(parts) == 1:
        learn, test = _hold_out(labels, test=len(labels) // 6)
    else:
        first = sum(len(group) for group in found[0].values())
        learn, test = torch.arange(len(labels)).tensor_split([first])
    if not allow_duplicates:
        check_duplicates(files, hashes, test.tolist())
    everything = _split(images, labels)
    return _Source(classes, everything.take(learn), everything.take(test), Augmentation())


def _lacks(place: Path, files: Sequence[str]) -> str:
    if not place.is_dir():
        return "no such folder"
    return f"lacks {', '.join(files)}" if files else ""


def _find(name: str, places: Sequence[Path], trouble: Callable[[Path], str], fetch: Callable[[], None] | None) -> Path:
    """The first place without trouble; else `fetch` is to fill the first place."""
    for place in places:
        if not trouble(place):
            return place
    failure = ""
    if fetch is not None:
        try:
            fetch()
        except (OSError, RuntimeError) as error:  # no network, no room, a wrong checksum
            failure = f"\nThe download failed: {error}"
        else:
            return places[0]
    looked = "".join(f"\n  {place}: {trouble(place)}" for place in places)
    package = "install Debian's package (apt install dataset-fashion-mnist); or " if name == "fashion-mnist" else ""
    raise FileNotFoundError(
        f"task {name!r}: the dataset is not found. Looked in{looked}{failure}\nTo get it: {package}let torchvision "
        "download it (--download, or download=True); or name the folder that holds it (data_dir, or the environment "
        "variable NAS_GYM_DATA)."
    )
