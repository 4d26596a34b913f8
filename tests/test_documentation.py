"""The pages of the environments say what the code says."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from nas_gym.registration import ENVIRONMENTS
from nas_gym.spaces import make_space

SCRIPT = Path(__file__).parents[1] / "docs" / "make_environment_pages.py"
FOLDER = SCRIPT.parent / "environments"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_environment_pages", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check() -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, check=False)


def test_pages_are_up_to_date() -> None:
    finished = check()
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_differences_are_found(script: ModuleType, tmp_path: Path) -> None:
    for path in FOLDER.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    script.FOLDER = tmp_path
    assert list(script.differences()) == []
    first, second = (spec.id for spec in ENVIRONMENTS[:2])
    page = tmp_path / f"{first}.md"
    page.write_text(page.read_text(encoding="utf-8").replace("Discrete(", "Discreet("), encoding="utf-8")
    (tmp_path / f"{second}.md").unlink()
    (tmp_path / f"{second}.png").unlink()
    (tmp_path / "NAS-Gone-v0.md").touch()
    assert list(script.differences()) == [
        f"{first}.md differs",
        f"{second}.md is missing",
        f"{second}.png is missing",
        "NAS-Gone-v0.md is left over",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("row", ENVIRONMENTS, ids=[row.id for row in ENVIRONMENTS])
def test_pictures(script: ModuleType, row: object) -> None:
    """Modest in size, and the same in every run."""
    path = FOLDER / f"{row.id}.png"  # type: ignore[attr-defined]
    assert path.stat().st_size < 60_000
    assert max(Image.open(path).size) < 2000
    space = make_space(row.space)  # type: ignore[attr-defined]
    assert script.picture(space) == script.picture(space)
