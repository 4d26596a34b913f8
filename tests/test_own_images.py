"""The walk of docs/own_images.md, from a folder of photographs to a program that classifies a file, at a small size."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from nas_gym.experiments.cli.app import console
from nas_gym.experiments.cli.main import main
from nas_gym.tasks import make_task

DOCUMENT = Path(__file__).parents[1] / "docs" / "own_images.md"
SMALL = (
    "--trials 4 --num-envs 2 --device cpu --retrain-epochs 1 --compare-found 1 --compare-random 2 --compare-seeds 2 "
    "--env-params space.name:bench201 evaluator_kwargs.channels:4 evaluator_kwargs.batch_size:16 "
    "evaluator_kwargs.task_kwargs.image_size:16 schedule.warmup_steps:3"
)


def photographs(folder: Path, each: int) -> None:
    """Colour photographs of different sizes, of bright and of dark things; some lie on their side, as EXIF says."""
    rng = np.random.default_rng(0)
    for name, brightness in (("bright", 230), ("dark", 30)):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            width, height = rng.integers(60, 90), rng.integers(40, 70)
            photo = Image.fromarray(rng.integers(90, 160, (height, width, 3), dtype=np.uint8))
            ImageDraw.Draw(photo).ellipse([10, 5, width - 10, height - 5], fill=(brightness, brightness, 128))
            exif = Image.Exif()
            exif[0x0112] = 6 if number % 3 == 0 else 1
            stored = photo.transpose(Image.Transpose.ROTATE_90) if number % 3 == 0 else photo
            stored.save(folder / name / f"{number:03}.jpg", exif=exif, quality=90)


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


@pytest.mark.slow
def test_the_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    photographs(tmp_path / "photos", 24)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "width", 100)
    lines = {}
    for block in code_blocks("sh"):
        words = shlex.split(block)
        lines[words[1]] = words
    assert list(lines) == ["train", "show", "derive"]
    train, derive = lines["train"], lines["derive"]
    changed = {"--trials"}
    kept = [word for n, word in enumerate(train) if word not in changed and train[n - 1] not in changed]
    small = ["train_images:40", "network.channels:4", "network.reductions:1", "training.epochs:4"]
    derive = [*derive[: derive.index("--settings") + 1], *small, "training.batch_size:10", "--seeds", "0", "1"]
    shown = {}
    for name, words in (("train", [*kept, *shlex.split(SMALL)]), ("show", lines["show"]), ("derive", derive)):
        monkeypatch.setattr(sys, "argv", words)
        main()
        shown[name] = capsys.readouterr().out
    assert "found - best network made by hand" in shown["train"]
    assert "wrote own/architecture.png" in shown["show"]
    assert "winner" in shown["derive"]

    (snippet,) = code_blocks("python")
    (tmp_path / "classify.py").write_text(snippet)
    task = make_task("folder:photos", image_size=16)
    program = torch.export.load("own/derived/network.pt2").module()
    answers = program(task.test.inputs).softmax(dim=1)
    right = 0
    for label in ("bright", "dark"):
        for number in (0, 1):
            words = [sys.executable, "classify.py", f"photos/{label}/{number:03}.jpg"]
            finished = subprocess.run(words, capture_output=True, text=True, check=False)
            assert finished.returncode == 0, finished.stderr
            names = re.findall(r"^(\w+): (\d\.\d\d)$", finished.stdout, re.MULTILINE)
            assert {name for name, _ in names} == {"bright", "dark"}
            assert sum(float(probability) for _, probability in names) == pytest.approx(1, abs=0.02)
            right += names[0][0] == label
    assert right >= 3
    assert (answers.argmax(dim=1) == task.test.targets).float().mean() > 0.7


def test_pillow_resizes_as_the_task_does(tmp_path: Path) -> None:
    """So that the walk's program sees what it was trained on."""
    from nas_gym.tasks.folders import read_images

    photographs(tmp_path, 6)
    paths = sorted(tmp_path.glob("*/*.jpg"))
    images, _ = read_images(paths, (24, 31))
    from PIL import ImageOps

    for path, wanted in zip(paths, images, strict=True):
        upright = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        resized = np.array(upright.resize((31, 24), Image.Resampling.BILINEAR), dtype=np.int64)
        assert np.abs(resized - wanted.permute(1, 2, 0).numpy()).max() <= 2
