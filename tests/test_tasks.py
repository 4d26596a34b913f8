from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from sklearn.datasets import load_digits
from torchvision import datasets

from nas_gym.tasks import TASKS, Augmentation, ImageTask, Split, Task, make_task
from nas_gym.tasks import images as loaders
from nas_gym.tasks.folders import read_images
from nas_gym.tasks.formats import read_cifar_batch, read_cifar_classes, read_idx
from nas_gym.tasks.image_task import channel_statistics, resize
from nas_gym.tasks.images import IDX_CLASSES, IDX_FILES, stratified_order

IDX_NAMES = list(IDX_CLASSES.items())


@pytest.fixture(autouse=True)
def _no_system_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loaders, "DEBIAN_FASHION", tmp_path / "no-package")
    monkeypatch.setenv("NAS_GYM_DATA", str(tmp_path / "no-data"))


def small_task(images: torch.Tensor, augmentation: Augmentation) -> ImageTask:
    split = Split(images, torch.zeros(len(images), dtype=torch.int64))
    mean, std = channel_statistics(images)
    return ImageTask("small", split, split, split, ("a", "b"), mean, std, augmentation)


def same(left: Split, right: Split) -> bool:
    return torch.equal(left.inputs, right.inputs) and torch.equal(left.targets, right.targets)


# Names


def test_names_are_read_without_torch() -> None:
    code = "import sys; from nas_gym.tasks.names import TASKS; print('torch' in sys.modules, 'sklearn' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["False", "False"]


@pytest.mark.parametrize("name", ["imagenet", "imagenet:0-4", "NAME:CLASSES", "digits:", "", "folder:", "Digits"])
def test_unknown_task(name: str) -> None:
    with pytest.raises(ValueError, match="unknown task") as caught:
        make_task(name)
    assert all(known in str(caught.value) for known in TASKS)


@pytest.mark.parametrize(
    ("argument", "value"), [("seed", -1), ("image_size", 0), ("train_limit", 0), ("valid_limit", -3)]
)
def test_argument_out_of_range(argument: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{argument} must be .*{value}"):
        make_task("digits", **{argument: value})


# Splits


def rows(images: np.ndarray, labels: np.ndarray) -> list[bytes]:
    return sorted(
        image.astype(np.uint8).tobytes() + bytes([label]) for image, label in zip(images, labels, strict=True)
    )


@pytest.mark.parametrize("seed", [0, 7])
def test_digits_are_divided_among_the_splits(seed: int) -> None:
    task, source = make_task("digits", seed=seed), load_digits()
    splits = [task.train, task.valid, task.test]
    assert [len(split) for split in splits] == [1000, 397, 400]
    assert task.image_shape == (1, 8, 8)
    assert task.num_classes == 10
    images = torch.cat([split.inputs for split in splits]).numpy()
    labels = torch.cat([split.targets for split in splits]).numpy()
    assert images.max() == 255
    # As multisets all splits together are the dataset: so no image is in two of them.
    assert rows(np.rint(images[:, 0] * (16 / 255)), labels) == rows(source.images, source.target)
    for split in splits:
        share = np.bincount(split.targets.numpy()) / len(split)
        np.testing.assert_allclose(share, np.bincount(source.target) / 1797, atol=2 / len(split))


def test_the_seed_fixes_train_and_valid_and_leaves_test_alone() -> None:
    first, again, other = make_task("digits", seed=3), make_task("digits", seed=3), make_task("digits", seed=4)
    assert same(first.train, again.train)
    assert same(first.valid, again.valid)
    assert same(first.test, other.test)
    assert not torch.equal(first.train.inputs, other.train.inputs)
    assert not torch.equal(first.valid.inputs, other.valid.inputs)


def test_the_split_of_seed_0_is_the_same_on_every_machine() -> None:
    task = make_task("digits")
    pixels = b"".join(split.inputs.numpy().tobytes() for split in (task.train, task.valid, task.test))
    assert hashlib.sha256(pixels).hexdigest()[:16] == "d3fecd7abe196a3f"


def test_limits_keep_the_beginning() -> None:
    whole, cut = make_task("digits", seed=1), make_task("digits", seed=1, train_limit=100, valid_limit=50)
    assert torch.equal(cut.train.inputs, whole.train.inputs[:100])
    assert torch.equal(cut.valid.inputs, whole.valid.inputs[:50])
    assert same(cut.test, whole.test)
    assert np.bincount(cut.train.targets.numpy(), minlength=10).tolist() == pytest.approx([10] * 10, abs=2)
    assert (cut.mean, cut.std) == channel_statistics(whole.train.inputs[:100])
    assert len(make_task("digits", train_limit=10**6).train) == 1000


@settings(max_examples=50)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 2**32))
def test_every_beginning_of_a_stratified_order_is_proportional(labels: list[int], seed: int) -> None:
    values = np.array(labels)
    counts = np.bincount(values, minlength=5)
    # Each class is half an image off its place at most; a class also moves, by its share, with all others' halves.
    share, others = counts / len(labels), np.count_nonzero(counts) - 1
    bound = 0.5 * (1 - share) + 0.5 * share * others + 1e-9
    order = stratified_order(values, np.random.default_rng(seed)).numpy()
    assert sorted(order) == list(range(len(labels)))
    for n in range(1, len(labels) + 1):
        assert np.all(np.abs(np.bincount(values[order[:n]], minlength=5) - share * n) <= bound)


def test_stratified_order_is_random_within_and_across_classes() -> None:
    labels, rng = np.repeat([0, 1], 3), np.random.default_rng(0)
    orders = {tuple(stratified_order(labels, rng).tolist()) for _ in range(4000)}
    assert len(orders) == 6 * 6 * 2**3  # each class's own order, and which class comes first in each pair


def test_validation_is_merged_into_training() -> None:
    task = make_task("digits", train_limit=120)
    merged = task.with_validation_in_training()
    assert torch.equal(merged.train.inputs, torch.cat([task.train.inputs, task.valid.inputs]))
    assert torch.equal(merged.train.targets, torch.cat([task.train.targets, task.valid.targets]))
    assert len(merged.valid) == 0
    assert same(merged.test, task.test)
    assert merged.mean[0] == pytest.approx(float(merged.train.inputs.numpy().mean() / 255))


def test_a_split_refuses_what_is_not_one() -> None:
    images, labels = torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"targets must be one for each of 2 inputs; got int64 \[1\] on cpu"):
        Split(images, labels[:1])
    with pytest.raises(ValueError, match="inputs are on cpu, targets on meta"):
        Split(images, labels.to("meta"))
    task = small_task(images, Augmentation())
    for bad in (Split(images.float(), labels), Split(images[:, 0], labels), Split(images, labels[:, None])):
        with pytest.raises(ValueError, match=r"the valid split's (images must be uint8|labels must be int64)"):
            dataclasses.replace(task, valid=bad)
    with pytest.raises(ValueError, match="test split"):
        dataclasses.replace(task, test=Split(images[:, :, 1:], labels))
    with pytest.raises(ValueError, match="mean"):
        dataclasses.replace(task, mean=(0.0, 0.0))


# Normalisation and size


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=4, max_dims=4, max_side=5)))
def test_statistics_are_numpys(images: np.ndarray) -> None:
    mean, std = channel_statistics(torch.from_numpy(images))
    wide = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, wide.mean((0, 2, 3)), atol=1e-12)
    expected = np.where(np.ptp(images, axis=(0, 2, 3)) == 0, 1.0, wide.std((0, 2, 3)))
    np.testing.assert_allclose(std, expected, atol=1e-9)


def test_statistics_of_more_images_than_a_chunk() -> None:
    images = torch.randint(0, 256, (9000, 2, 3, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, (images.numpy() / 255).mean((0, 2, 3)))
    np.testing.assert_allclose(std, (images.numpy() / 255).std((0, 2, 3)))


def test_normalised_training_images_have_zero_mean_and_unit_deviation() -> None:
    task = make_task("digits")
    normal = task.normalise(task.train.inputs)
    assert normal.dtype == torch.float32
    assert float(normal.double().mean()) == pytest.approx(0, abs=1e-5)
    assert float(normal.double().std(correction=0)) == pytest.approx(1, abs=1e-5)
    pixels = task.valid.inputs.numpy().astype(np.float64)
    np.testing.assert_allclose(
        task.normalise(task.valid.inputs), (pixels / 255 - task.mean[0]) / task.std[0], atol=1e-5
    )
    assert task.normalise(task.train.inputs[0]).shape == (1, 8, 8)
    with pytest.raises(ValueError, match="uint8"):
        task.normalise(normal)


def test_each_channel_has_its_own_statistics() -> None:
    images = torch.randint(0, 256, (50, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    images = (images * torch.tensor([1.0, 0.5, 0.1]).view(3, 1, 1)).to(torch.uint8)
    normal = small_task(images, Augmentation()).normalise(images).double()
    torch.testing.assert_close(normal.mean((0, 2, 3)), torch.zeros(3, dtype=torch.float64), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        normal.std((0, 2, 3), correction=0), torch.ones(3, dtype=torch.float64), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("size", [(8, 8), (5, 13), (40, 31), (20, 30)])
def test_resize_is_pillows_bilinear_filter(size: tuple[int, int]) -> None:
    images = torch.randint(0, 256, (4, 1, 20, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    height, width = size
    for image, resized in zip(images, resize(images, size), strict=True):
        truth = Image.fromarray(image[0].numpy()).resize((width, height), Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(truth, dtype=int) - resized[0].numpy().astype(int)).max() <= 1


def test_image_size() -> None:
    task, small = make_task("digits", image_size=12), make_task("digits")
    assert task.image_shape == (1, 12, 12)
    assert task.test.inputs.shape == (400, 1, 12, 12)
    assert torch.equal(task.train.inputs, resize(small.train.inputs, (12, 12)))


# Augmentation


def crops(image: np.ndarray, padding: int, flip: bool) -> list[bytes]:
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    _, height, width = image.shape
    windows = [
        padded[:, row : row + height, column : column + width]
        for row in range(2 * padding + 1)
        for column in range(2 * padding + 1)
    ]
    return [np.ascontiguousarray(w).tobytes() for w in windows + [w[:, :, ::-1] for w in windows if flip]]


@pytest.mark.parametrize(("padding", "flip"), [(0, True), (1, False), (2, True)])
def test_every_augmented_image_is_a_shifted_copy_and_every_shift_is_as_likely(padding: int, flip: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 5, 6, generator=generator) + 1
    task = small_task(torch.zeros(1, 2, 5, 6, dtype=torch.uint8), Augmentation(padding, flip))
    expected = crops(image.numpy(), padding, flip)
    n = 400 * len(expected)
    augmented = task.augment(image.expand(n, 2, 5, 6), generator)
    assert augmented.shape == (n, 2, 5, 6)
    found = [np.ascontiguousarray(one).tobytes() for one in augmented.numpy()]
    counts = np.array([found.count(one) for one in expected])
    assert counts.sum() == n  # nothing else
    assert np.all(np.abs(counts - 400) < 5 * 400**0.5)


def test_images_stay_in_their_places() -> None:
    images = torch.arange(1.0, 9).view(8, 1, 1, 1).expand(8, 3, 6, 6)
    task = small_task(torch.zeros(1, 3, 6, 6, dtype=torch.uint8), Augmentation(padding=2, flip=True))
    augmented = task.augment(images, torch.Generator().manual_seed(0))
    assert augmented.amax((1, 2, 3)).tolist() == list(range(1, 9))
    assert set(augmented[4].unique().tolist()) <= {0.0, 5.0}


@pytest.mark.parametrize("side", [1, 2, 3, 4, 20])
def test_cutout_is_a_square_cut_by_the_border(side: int) -> None:
    height, width = 6, 7
    task = small_task(torch.zeros(1, 2, height, width, dtype=torch.uint8), Augmentation(cutout=side))
    masks = set()
    for row in range(height):
        for column in range(width):
            mask = np.zeros((height, width), dtype=bool)
            top, left = row - side // 2, column - side // 2
            mask[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = True
            masks.add(mask.tobytes())
    augmented = task.augment(torch.ones(3000, 2, height, width), torch.Generator().manual_seed(1))
    assert torch.equal(augmented[:, 0], augmented[:, 1])
    assert {(one == 0).tobytes() for one in augmented[:, 0].numpy()} == masks
    assert int((augmented[:, 0] == 0).sum((1, 2)).max()) == min(side, height) * min(side, width)


def test_augmentation_depends_on_its_generator_alone() -> None:
    task = dataclasses.replace(make_task("digits"), augmentation=Augmentation(padding=2, flip=True, cutout=3))
    images = task.normalise(task.train.inputs[:64])
    before = images.clone()
    torch.manual_seed(1)
    first = task.augment(images, torch.Generator().manual_seed(5))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(first, task.augment(images, torch.Generator().manual_seed(5)))
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first, task.augment(images, torch.Generator().manual_seed(6)))
    assert torch.equal(images, before)


def test_augmentation_switched_off_changes_nothing() -> None:
    images = torch.rand(3, 1, 4, 4)
    task = small_task(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), Augmentation())
    assert torch.equal(task.augment(images, torch.Generator()), images)
    with pytest.raises(ValueError, match=r"padding.*-1"):
        Augmentation(padding=-1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_what_the_cpu_gives() -> None:
    augmentation = Augmentation(padding=2, flip=True, cutout=3)
    here = dataclasses.replace(make_task("digits"), augmentation=augmentation)
    there = here.to("cuda")
    assert there.device.type == "cuda"
    assert channel_statistics(there.train.inputs) == (here.mean, here.std)
    pairs = []
    for task in (here, there):
        images = task.normalise(task.train.inputs)
        pairs.append(task.augment(images, torch.Generator().manual_seed(0)).cpu())
        task.augment(images, torch.Generator(task.device))
    torch.testing.assert_close(*pairs)


# The idx format


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@settings(max_examples=50)
@given(array=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6)))
def test_idx_round_trip(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "plain").write_bytes(idx(array))
    (folder / "zipped.gz").write_bytes(gzip.compress(idx(array)))
    for name in ("plain", "zipped.gz"):
        read = read_idx(folder / name, array.ndim)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_truncated_idx_file_is_refused_wherever_it_ends(tmp_path: Path, zipped: bool) -> None:
    whole = idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    whole = gzip.compress(whole) if zipped else whole
    path = tmp_path / ("images.gz" if zipped else "images")
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=str(path)):
            read_idx(path, 3)
    path.write_bytes(whole)
    assert read_idx(path, 3).shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"\x01" + idx(np.zeros(3, np.uint8))[1:], "starts with 0100"),
        (b"\x89PNG\r\n", "starts with 8950"),
        (idx(np.zeros(3, np.uint8)).replace(b"\x08", b"\x0d"), "type 0x0d"),
        (idx(np.zeros((3, 1), np.uint8)), "has 2 dimensions; 1 are"),
        (idx(np.zeros(3, np.uint8)) + b"\0", r"3 values \(shape \(3,\)\); it holds 4"),
    ],
)
def test_a_wrong_idx_file_is_refused(tmp_path: Path, data: bytes, complaint: str) -> None:
    path = tmp_path / "labels"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"{path}.*{complaint}"):
        read_idx(path, 1)


def test_a_gz_file_must_be_gzip(tmp_path: Path) -> None:
    path = tmp_path / "labels.gz"
    path.write_bytes(idx(np.zeros(3, np.uint8)))
    with pytest.raises(ValueError, match=f"{path} is not a whole gzip file"):
        read_idx(path, 1)
    damaged = bytearray(gzip.compress(idx(np.arange(200, dtype=np.uint8))))
    damaged[-6] ^= 1  # the checksum
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=f"{path} is not a whole gzip file"):
        read_idx(path, 1)


# MNIST and its kin


def write_idx_files(folder: Path, zipped: bool, train: int = 60, test: int = 20) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for part, n in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = (np.arange(n) % 10).astype(np.uint8)
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            data = idx(array)
            (folder / f"{name}.gz" if zipped else folder / name).write_bytes(gzip.compress(data) if zipped else data)


@pytest.mark.parametrize(("name", "kind"), IDX_NAMES)
def test_torchvisions_folder_holds_what_torchvision_reads(name: str, kind: str, tmp_path: Path) -> None:
    write_idx_files(tmp_path / kind / "raw", zipped=False)
    task = make_task(name, data_dir=tmp_path)
    train, test = (getattr(datasets, kind)(tmp_path, train=train) for train in (True, False))
    assert [len(split) for split in (task.train, task.valid, task.test)] == [50, 10, 20]
    np.testing.assert_array_equal(task.test.inputs[:, 0], test.data)
    np.testing.assert_array_equal(task.test.targets, test.targets)
    images = torch.cat([task.train.inputs, task.valid.inputs])[:, 0].numpy()
    labels = torch.cat([task.train.targets, task.valid.targets]).numpy()
    assert rows(images, labels) == rows(train.data.numpy(), train.targets.numpy())
    assert np.bincount(task.valid.targets).tolist() == [1] * 10
    assert task.classes == tuple(label.split(" - ")[0] for label in train.classes)


@pytest.mark.parametrize("place", [".", "fashion-mnist", "FashionMNIST/raw"])
def test_flat_gz_files_are_found(place: str, tmp_path: Path) -> None:
    write_idx_files(tmp_path / place, zipped=True)
    assert make_task("fashion-mnist", data_dir=tmp_path).image_shape == (1, 28, 28)


def test_places_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx_files(tmp_path / "package", zipped=True)
    monkeypatch.setattr(loaders, "DEBIAN_FASHION", tmp_path / "package")
    packaged = make_task("fashion-mnist")
    with pytest.raises(FileNotFoundError):
        make_task("kmnist")  # the package holds no KMNIST
    monkeypatch.setenv("NAS_GYM_DATA", str(tmp_path / "package"))
    assert same(make_task("kmnist").test, packaged.test)
    monkeypatch.delenv("NAS_GYM_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".cache/nas_gym/data").mkdir(parents=True)
    (tmp_path / "package").rename(tmp_path / ".cache/nas_gym/data/mnist")
    assert same(make_task("mnist").test, packaged.test)


def test_flat_files_of_another_dataset_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx_files(tmp_path, zipped=True)
    labels = "train-labels-idx1-ubyte.gz"
    digest = hashlib.md5((tmp_path / labels).read_bytes()).hexdigest()
    monkeypatch.setitem(loaders.TRAIN_LABELS, "mnist", digest)
    assert make_task("mnist", data_dir=tmp_path).num_classes == 10
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}: holds mnist"):
        make_task("fashion-mnist", data_dir=tmp_path)


@pytest.mark.parametrize("name", IDX_CLASSES)
def test_the_known_labels_are_torchvision_s(name: str) -> None:
    known = dict(getattr(datasets, IDX_CLASSES[name]).resources)
    assert loaders.TRAIN_LABELS[name] == known["train-labels-idx1-ubyte.gz"]


def test_a_missing_dataset_says_where_it_was_looked_for_and_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "FashionMNIST/raw").mkdir(parents=True)
    write_idx_files(tmp_path / "fashion-mnist", zipped=True)
    (tmp_path / "fashion-mnist/t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        make_task("fashion-mnist", data_dir=tmp_path)
    text = str(caught.value)
    assert f"{tmp_path / 'FashionMNIST/raw'}: lacks {', '.join(IDX_FILES)}\n" in text
    assert f"{tmp_path / 'fashion-mnist'}: lacks t10k-labels-idx1-ubyte\n" in text
    assert f"{tmp_path / 'no-package'}: no such folder\n" in text
    for way in ("apt install dataset-fashion-mnist", "--download", "download=True", "data_dir", "NAS_GYM_DATA"):
        assert way in text


@pytest.mark.parametrize("name", ["mnist", "kmnist", "cifar10", "cifar100", "svhn"])
def test_every_missing_dataset_has_such_an_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}[^\n]*(lacks|no such folder)[^$]*--download") as caught:
        make_task(name, data_dir=tmp_path)
    assert "apt" not in str(caught.value)


def test_download_goes_through_torchvision_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(self: datasets.MNIST) -> None:
        asked.append(type(self))
        write_idx_files(Path(self.raw_folder), zipped=False)

    monkeypatch.setattr(datasets.MNIST, "download", download)
    first = make_task("kmnist", data_dir=tmp_path, download=True)
    assert asked == [datasets.KMNIST]
    assert same(make_task("kmnist", data_dir=tmp_path, download=True).train, first.train)
    assert len(asked) == 1  # found, so not downloaded again


def test_a_failed_download_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no route to host")

    monkeypatch.setattr(datasets.MNIST, "download", fail)
    monkeypatch.setattr(datasets.SVHN, "download", fail)
    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", fail)
    for name in ("mnist", "svhn", "cifar10"):
        with pytest.raises(FileNotFoundError, match="download failed: no route to host"):
            make_task(name, data_dir=tmp_path, download=True)


def test_corrupt_idx_files_are_named(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST/raw"
    write_idx_files(raw, zipped=False)
    labels = raw / "train-labels-idx1-ubyte"
    for data, complaint in (
        (idx(np.zeros(59, np.uint8)), "59 labels for 60 images"),
        (idx(np.full(60, 10, np.uint8)), "10 to 10; there are 10 classes"),
        (labels.read_bytes()[:-1], "it holds 59"),
    ):
        labels.write_bytes(data)
        with pytest.raises(ValueError, match=f"{labels}.*{complaint}"):
            make_task("mnist", data_dir=tmp_path)


# Some classes


@pytest.mark.parametrize(
    ("chosen", "classes"), [("0-4", [0, 1, 2, 3, 4]), ("1,3,7-9", [1, 3, 7, 8, 9]), ("0,9", [0, 9])]
)
def test_some_classes_are_those_images_numbered_anew(chosen: str, classes: list[int], tmp_path: Path) -> None:
    write_idx_files(tmp_path, zipped=False)
    whole, some = make_task("fashion-mnist", data_dir=tmp_path), make_task(f"fashion-mnist:{chosen}", data_dir=tmp_path)
    assert some.name == f"fashion-mnist:{chosen}"
    assert some.classes == tuple(whole.classes[number] for number in classes)
    assert some.augmentation == whole.augmentation
    # 6 images of each class to learn from and 2 to test with; a sixth of the former is valid.
    assert [len(split) for split in (some.train, some.valid, some.test)] == [
        5 * len(classes),
        len(classes),
        2 * len(classes),
    ]
    assert np.bincount(some.valid.targets).tolist() == [1] * len(classes)

    def labelled(task: Task, name: str, names: list[int]) -> list[bytes]:
        splits = [task.test] if name == "test" else [task.train, task.valid]
        images = torch.cat([split.inputs for split in splits]).numpy()
        labels = np.array(names)[torch.cat([split.targets for split in splits]).numpy()]
        kept = np.isin(labels, classes)
        return rows(images[kept], labels[kept])

    for name in ("learn", "test"):
        assert labelled(some, name, classes) == labelled(whole, name, list(range(10)))
    mean, std = channel_statistics(some.train.inputs)
    assert (some.mean, some.std) == (mean, std)


def test_some_digits_keep_the_proportions_of_the_splits() -> None:
    source, task = load_digits(), make_task("digits:2-6", seed=1)
    count = int(np.isin(source.target, range(2, 7)).sum())
    sizes = [len(split) for split in (task.train, task.valid, task.test)]
    assert sum(sizes) == count
    np.testing.assert_allclose(np.array(sizes) / count, np.array([1000, 397, 400]) / 1797, atol=0.01)
    assert task.classes == ("2", "3", "4", "5", "6")
    assert same(task.test, make_task("digits:2-6", seed=2).test)


@pytest.mark.parametrize(
    "chosen",
    [
        "3",
        "3-3",
        "4-2",
        "0-10",
        "0,10",
        "10-12",
        "1,1",
        "2,1",
        "0-3,2-5",
        "a",
        "0-",
        "-3",
        "0,,1",
        " 0,1",
        "0;1",
        "\u0663-\u0665",
    ],
)
def test_classes_that_are_none(chosen: str) -> None:
    with pytest.raises(ValueError, match=r"at least 2 of the classes 0 to 9 in ascending order.*got") as caught:
        make_task(f"digits:{chosen}")
    assert repr(f"digits:{chosen}") in str(caught.value)


@pytest.mark.slow
@pytest.mark.skipif(
    not all((Path("/usr/share/datasets/fashion-mnist") / f"{file}.gz").is_file() for file in IDX_FILES),
    reason="Debian's package dataset-fashion-mnist is not installed",
)
def test_the_real_fashion_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    task = make_task("fashion-mnist")
    assert [len(split) for split in (task.train, task.valid, task.test)] == [50_000, 10_000, 10_000]
    assert np.bincount(torch.cat([task.train.targets, task.valid.targets])).tolist() == [6000] * 10
    for split, each in ((task.train, 5000), (task.valid, 1000), (task.test, 1000)):
        assert np.bincount(split.targets).tolist() == [each] * 10
    # The widely used constants of its 60,000 training images are 0.2860 and 0.3530.
    merged = task.with_validation_in_training()
    assert merged.mean[0] == pytest.approx(0.2860, abs=5e-5)
    assert merged.std[0] == pytest.approx(0.3530, abs=5e-5)
    assert task.classes[int(task.test.targets[0])] == "Ankle boot"


# CIFAR


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2 and its numpy wrote, as in the published CIFAR files: byte strings, old module names."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value: bytes | str) -> None:
        data = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[bytes] = save_bytes
    dispatch[str] = save_bytes

    def save_global(self, value: Any, name: str | None = None) -> None:
        module = "numpy" if isinstance(value, type) else "numpy.core.multiarray"
        self.write(pickle.GLOBAL + f"{module}\n{name or value.__name__}\n".encode())
        self.memoize(value)

    dispatch[type] = save_global
    dispatch[type(len)] = save_global
    dispatch[type(lambda: 0)] = save_global


def python2_pickle(content: Any) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, 2).dump(content)
    return file.getvalue()


def write_cifar(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> type[datasets.CIFAR10]:
    """Writes a small CIFAR and tells torchvision its checksums."""
    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    classes = int(name.removeprefix("cifar"))
    place, rng = folder / kind.base_folder, np.random.default_rng(0)
    place.mkdir(parents=True)

    def write(file: str, content: Any) -> str:
        (place / file).write_bytes(python2_pickle(content))
        return hashlib.md5((place / file).read_bytes()).hexdigest()

    def batch(n: int, order: str) -> dict[str, Any]:
        data = np.asarray(rng.integers(0, 256, (n, 3072), dtype=np.uint8), order=order)
        labels = [int(label) for label in rng.permutation(n) % classes]
        if name == "cifar10":
            return {"batch_label": "batch 1", "labels": labels, "data": data, "filenames": ["a.png"] * n}
        return {"fine_labels": labels, "coarse_labels": [0] * n, "data": data, "filenames": ["a.png"] * n}

    for part in ("train_list", "test_list"):
        files = [file for file, _ in getattr(kind, part)]
        written = [[file, write(file, batch(120, "C" if i else "F"))] for i, file in enumerate(files)]
        monkeypatch.setattr(kind, part, written)
    names = [f"class {label}" for label in range(classes)]
    digest = write(kind.meta["filename"], {kind.meta["key"]: names, "num_vis": 3072})
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": digest})
    return kind


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_what_torchvision_reads(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = write_cifar(tmp_path, name, monkeypatch)
    task = make_task(name, data_dir=tmp_path)
    train, test = (kind(tmp_path, train=train) for train in (True, False))
    assert task.image_shape == (3, 32, 32)
    assert task.classes == tuple(train.classes)
    assert len(task.valid) == len(train) // 6
    np.testing.assert_array_equal(task.test.inputs.permute(0, 2, 3, 1), test.data)
    assert task.test.targets.tolist() == test.targets
    merged = task.with_validation_in_training().train
    assert rows(merged.inputs.permute(0, 2, 3, 1).numpy(), merged.targets.numpy()) == rows(train.data, train.targets)


def test_a_corrupt_cifar_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = write_cifar(tmp_path, "cifar10", monkeypatch)
    path = tmp_path / kind.base_folder / "data_batch_3"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{path} is corrupt: its MD5"):
        make_task("cifar10", data_dir=tmp_path)


class Touch:
    """Unpickled by `pickle.load`, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def test_a_cifar_file_cannot_run_code(tmp_path: Path) -> None:
    path, made = tmp_path / "batch", tmp_path / "made"
    path.write_bytes(pickle.dumps({b"data": Touch(made), b"labels": [0]}, protocol=3))
    for read in (lambda: read_cifar_batch(path, "labels"), lambda: read_cifar_classes(path, "label_names")):
        with pytest.raises(ValueError, match=rf"{path}.*asks for \w+.mkdir"):
            read()
    assert not made.exists()
    pickle.loads(path.read_bytes())  # the trap is live: only the reader kept it shut
    assert made.exists()


def test_a_cifar_file_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    path, pixels = tmp_path / "batch", np.zeros((2, 3072), np.uint8)
    for content in (
        {},
        [1, 2],
        {"data": pixels},
        {"data": pixels, "labels": [1]},
        {"data": pixels, "labels": ["a", "b"]},
        {"data": pixels, "labels": [1.5, 2.5]},
        {"data": pixels[:, 1:], "labels": [1, 2]},
        {"data": pixels.astype(np.float32), "labels": [1, 2]},
        {"data": [[0] * 3072] * 2, "labels": [1, 2]},
    ):
        path.write_bytes(python2_pickle(content))
        with pytest.raises(ValueError, match=str(path)):
            read_cifar_batch(path, "labels")
        with pytest.raises(ValueError, match=str(path)):
            read_cifar_classes(path, "label_names")
    whole = python2_pickle({"data": pixels, "labels": [1, 2]})
    for length in [*range(0, len(whole) - 1, 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=str(path)):
            read_cifar_batch(path, "labels")
    path.write_bytes(whole)
    assert read_cifar_batch(path, "labels")[1].tolist() == [1, 2]


# SVHN


def write_svhn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng, written, entries = np.random.default_rng(0), {}, {}
    for split, n in (("train", 60), ("test", 30)):
        images, labels = rng.integers(0, 256, (32, 32, 3, n), dtype=np.uint8), np.arange(n) % 10 + 1
        file = folder / f"{split}_32x32.mat"
        scipy.io.savemat(file, {"X": images, "y": labels[:, None].astype(np.uint8)})
        entries[split] = ["", file.name, hashlib.md5(file.read_bytes()).hexdigest()]
        written[split] = images, labels
    monkeypatch.setattr(datasets.SVHN, "split_list", entries)
    return written


def test_svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = write_svhn(tmp_path, monkeypatch)["test"]
    task = make_task("svhn", data_dir=tmp_path)
    assert [len(split) for split in (task.train, task.valid, task.test)] == [50, 10, 30]
    for index in range(30):
        np.testing.assert_array_equal(task.test.inputs[index].permute(1, 2, 0), images[:, :, :, index])
    assert task.test.targets.tolist() == (labels % 10).tolist()  # the file's label of the digit 0 is 10
    path = tmp_path / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{path} is corrupt"):
        make_task("svhn", data_dir=tmp_path)


# Folders of images


def write_images(
    folder: Path, classes: dict[str, int], mode: str = "RGB", size: tuple[int, int] = (6, 5), seed: int = 0
) -> None:
    rng = np.random.default_rng(seed)
    for name, n in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(n):
            pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{index:03}.png")


def test_a_folder_with_train_and_test(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"cat": 12, "dog": 24})
    write_images(tmp_path / "test", {"cat": 2, "dog": 3}, seed=1)
    (tmp_path / "train/cat/notes.txt").write_text("no image")
    task = make_task(f"folder:{tmp_path}")
    assert task.classes == ("cat", "dog")
    assert task.image_shape == (3, 5, 6)
    assert task.test.targets.tolist() == [0, 0, 1, 1, 1]
    assert np.bincount(task.train.targets).tolist() == [10, 20]
    assert np.bincount(task.valid.targets).tolist() == [2, 4]
    last = np.asarray(Image.open(tmp_path / "test/dog/002.png"))
    np.testing.assert_array_equal(task.test.inputs[-1].permute(1, 2, 0), last)


def test_a_folder_of_classes_is_split(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 18, "b": 18}, mode="L")
    first, again, other = (make_task(f"folder:{tmp_path}", seed=seed) for seed in (0, 0, 1))
    assert [len(split) for split in (first.train, first.valid, first.test)] == [25, 5, 6]
    assert first.image_shape == (1, 5, 6)
    assert same(first.train, again.train)
    assert same(first.test, other.test)
    assert not torch.equal(first.valid.inputs, other.valid.inputs)
    splits = (first.train, first.valid, first.test)
    files = [np.asarray(Image.open(path)) for path in sorted(tmp_path.glob("*/*.png"))]
    found = rows(torch.cat([s.inputs for s in splits])[:, 0].numpy(), torch.cat([s.targets for s in splits]).numpy())
    assert found == rows(np.stack(files), np.repeat([0, 1], 18))


def test_images_of_different_sizes_and_modes_become_alike(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 6}, mode="L", size=(7, 9))
    write_images(tmp_path, {"b": 6}, mode="RGB", size=(20, 30))
    write_images(tmp_path, {"c": 6}, mode="P", size=(4, 4))
    assert make_task(f"folder:{tmp_path}").image_shape == (3, 9, 7), "the medians"
    assert make_task(f"folder:{tmp_path}", image_size=8).image_shape == (3, 8, 8)


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    """As their EXIF says: all eight orientations of one picture are read as that picture."""
    upright = np.zeros((6, 4, 3), np.uint8)
    upright[:2], upright[:, :1] = (250, 0, 0), (0, 0, 250)
    turns = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    for orientation, turn in turns.items():
        picture = Image.fromarray(upright)
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = picture if turn is None else picture.transpose(turn)
        stored.save(tmp_path / f"{orientation}.png", exif=exif)
    images, _ = read_images(sorted(tmp_path.iterdir()))
    assert images.shape == (8, 3, 6, 4)
    for image in images:
        np.testing.assert_array_equal(image.permute(1, 2, 0), upright)


def test_unbalanced_classes_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_images(tmp_path, {"a": 40, "b": 30, "rare": 3})
    make_task(f"folder:{tmp_path}")
    told = [record.getMessage() for record in caplog.records]
    assert any("the test split has no image of 'rare': add images" in text for text in told)
    share = "40 images of 'a', 3 of 'rare'; a network that always answers 'a' has an accuracy of 0.55"
    assert any(share in text for text in told)
    caplog.clear()
    write_images(tmp_path / "even", {"a": 24, "b": 24})
    make_task(f"folder:{tmp_path / 'even'}")
    assert not caplog.records


def test_a_bad_folder_is_told(tmp_path: Path) -> None:
    name = f"folder:{tmp_path / 'images'}"
    with pytest.raises(FileNotFoundError, match=f"no folder {tmp_path / 'images'}"):
        make_task(name)
    write_images(tmp_path / "images", {"a": 1})
    with pytest.raises(ValueError, match=r"at least two class folders.*\['a'\]"):
        make_task(name)
    (tmp_path / "images/b").mkdir()
    with pytest.raises(ValueError, match=r"images/b holds no image"):
        make_task(name)
    bad = tmp_path / "images/b/broken.png"
    whole = (tmp_path / "images/a/000.png").read_bytes()
    for data in (b"", whole[:20], whole[:-30]):
        bad.write_bytes(data)
        with pytest.raises(ValueError, match=f"{bad} cannot be read as an image"):
            make_task(name)
    Image.fromarray(np.full((5, 6), 40_000, np.uint16)).save(bad)
    with pytest.raises(ValueError, match=f"{bad} cannot be read as an image: it has more than 8 bits"):
        make_task(name)
    write_images(tmp_path / "images", {"b": 1}, seed=1)
    bad.unlink()
    with pytest.raises(ValueError, match="too few images to split: 2"):
        make_task(name)


def test_train_and_test_folders_hold_the_same_classes(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"a": 4, "b": 4})
    write_images(tmp_path / "test", {"a": 2, "c": 2})
    with pytest.raises(ValueError, match=r"the same classes; got \['a', 'b'\], \['a', 'c'\]"):
        make_task(f"folder:{tmp_path}")
