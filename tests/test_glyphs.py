"""The task of characters drawn from fonts."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas_gym.files import save_tensors
from nas_gym.tasks import ImageTask, Split, make_task
from nas_gym.tasks import glyphs as module
from nas_gym.tasks.glyphs import BASELINE, CLASSES, FACES, SIDE, TEST, TRAIN, VALID, characters, upright
from nas_gym.tasks.named import named_task

FEW = "glyphs:0,10,36"  # 0, A, a


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NAS_GYM_DATA", str(tmp_path))


@pytest.fixture
def few_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first hundred: to count them all takes seconds."""
    everything = module.characters
    monkeypatch.setattr(module, "characters", lambda: islice(everything(), 100))


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> ImageTask:
    return make_task("glyphs", data_dir=tmp_path_factory.mktemp("data"))


def splits(task: ImageTask) -> list[Split]:
    return [task.train, task.valid, task.test]


def rows(split: Split) -> set[bytes]:
    return {image.numpy().tobytes() for image in split.inputs}


def same(left: ImageTask, right: ImageTask) -> bool:
    pairs = zip(splits(left), splits(right), strict=True)
    return all(torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets) for a, b in pairs)


def test_shapes_and_balance(task: ImageTask) -> None:
    assert task.classes == tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
    assert task.image_shape == (1, SIDE, SIDE)
    for split, each in zip(splits(task), (TRAIN, VALID, TEST), strict=True):
        assert split.inputs.dtype == torch.uint8
        assert torch.bincount(split.targets, minlength=CLASSES).tolist() == [each] * CLASSES
    # Every beginning is balanced: evaluators score on the first images of a split.
    assert all(torch.bincount(split.targets[: 3 * CLASSES]).tolist() == [3] * CLASSES for split in splits(task))


def test_no_drawing_is_there_twice(task: ImageTask) -> None:
    found = [rows(split) for split in splits(task)]
    assert [len(each) for each in found] == [len(split) for split in splits(task)]
    assert len(set.union(*found)) == sum(len(each) for each in found)


def test_neither_trivial_nor_hopeless_for_pixels(task: ImageTask) -> None:
    """The nearest class mean of the pixels, by numpy alone."""
    pixels, labels = (tensor.numpy() for tensor in (task.train.inputs.flatten(1), task.train.targets))
    means = np.stack([pixels[labels == number].mean(axis=0) for number in range(CLASSES)])
    distances = ((task.valid.inputs.flatten(1).numpy()[:, None] - means) ** 2).sum(axis=2)
    accuracy = float((distances.argmin(axis=1) == task.valid.targets.numpy()).mean())
    assert 3 / CLASSES < accuracy < 0.4


@pytest.mark.slow
def test_the_same_in_another_process(tmp_path: Path) -> None:
    code = (
        f"from nas_gym.tasks import make_task; task = make_task('glyphs', data_dir={str(tmp_path / 'other')!r}); "
        "print(task.fingerprint()['images'])"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert make_task("glyphs").fingerprint()["images"] == other


def test_a_seed_moves_train_and_valid_alone(task: ImageTask, tmp_path: Path) -> None:
    other = make_task("glyphs", seed=1)
    assert torch.equal(task.test.inputs, other.test.inputs)
    assert rows(task.valid) != rows(other.valid)
    assert rows(task.train) | rows(task.valid) == rows(other.train) | rows(other.valid)


def test_classes_by_number(task: ImageTask, few_characters: None) -> None:
    """They are drawn as they are among others, and some that are no class by default can be had."""
    few = make_task(FEW)
    assert few.classes == ("0", "A", "a")
    for number, label in enumerate((0, 10, 36)):
        of_few, of_all = (
            {image.numpy().tobytes() for split in splits(each) for image in split.inputs[split.targets == target]}
            for each, target in ((few, number), (task, label))
        )
        assert of_few == of_all
    more = make_task("glyphs:61-70")
    assert more.classes[0] == "z"
    assert not set(more.classes[1:]) & set(task.classes)


def test_options_of_a_named_task(few_characters: None) -> None:
    made = named_task("glyphs:0-4", image_size=12, train_limit=50, valid_limit=20)
    assert isinstance(made, ImageTask)
    assert (made.image_shape, made.num_classes) == ((1, 12, 12), 5)
    assert [len(split) for split in splits(made)] == [50, 20, 5 * TEST]


@pytest.mark.parametrize("chosen", ["3", "4-2", "0-100", "a-b", "0,0"])
def test_classes_out_of_range(chosen: str, few_characters: None) -> None:
    with pytest.raises(ValueError, match=f"'glyphs:{chosen}' must name at least 2 of the classes 0 to 99 .*'{chosen}'"):
        make_task(f"glyphs:{chosen}")


@pytest.mark.parametrize(("argument", "value"), [("image_size", 0), ("train_limit", 0), ("valid_limit", -1)])
def test_options_out_of_range(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{argument} must be .*{value}"):
        named_task("glyphs", **{argument: value})


# ------------------------------------------------------------------ characters


def test_size_and_line_are_the_fonts() -> None:
    """A capital is a small letter's shape, larger; g hangs below the line; every face differs from the others."""
    fonts = module._fonts()
    small, capital, hanging = (upright(character, fonts) for character in "oOg")

    def heights(drawn: np.ndarray) -> list[int]:
        return [int(image.any(axis=1).sum()) for image in drawn]

    assert all(a < 0.85 * b for a, b in zip(heights(small), heights(capital), strict=True))
    assert not small[:, BASELINE + 2 :].any()
    assert all(image[BASELINE + 2 :].any() for image in hanging)
    assert len({image.tobytes() for image in small}) == len(FACES)


@pytest.mark.slow
def test_all_characters_differ_in_every_face() -> None:
    names, drawn = zip(*characters(), strict=True)
    assert len(names) == len(set(names)) > 1000
    assert {"A", "Å", "Ω"} <= set(names)
    assert not {"\N{GREEK CAPITAL LETTER ALPHA}", "\N{CYRILLIC CAPITAL LETTER A}"} & set(names)  # they look as A does
    assert len({image.tobytes() for faces in drawn for image in faces}) > 0.9 * len(names) * len(FACES)
    for face in range(len(FACES)):
        assert len({faces[face].tobytes() for faces in drawn}) == len(names)
        assert all(faces[face].any() for faces in drawn)


# ------------------------------------------------------------------ the cache


def cached(folder: Path) -> Path:
    (file,) = (folder / "cache").iterdir()
    return file


def test_the_cache_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_task("glyphs")
    monkeypatch.setattr(module, "draw", None)
    assert same(first, make_task("glyphs"))
    assert cached(tmp_path).name.startswith("glyphs-")


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "another"])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, few_characters: None, damage: str) -> None:
    first = make_task(FEW)
    file = cached(tmp_path)
    whole = file.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    if damage == "another":
        save_tensors(file, torch.zeros(3))
    else:
        file.write_bytes({"cut": whole[:middle], "flipped": flipped, "empty": b""}[damage])
    assert same(first, make_task(FEW))
    assert same(first, make_task(FEW))
    assert file.read_bytes() == whole


def test_a_cache_that_cannot_be_written(tmp_path: Path, few_characters: None) -> None:
    first = make_task(FEW)
    (tmp_path / "file").write_text("no folder")
    assert same(first, make_task(FEW, data_dir=tmp_path / "file"))


def test_drawings_of_other_settings_are_other_files(
    tmp_path: Path, few_characters: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_task(FEW)
    monkeypatch.setattr(module, "DRAWING", module.Drawing(noise=1.0))
    assert not same(first, make_task(FEW))
    assert len(list((tmp_path / "cache").iterdir())) == 2
