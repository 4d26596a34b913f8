"""The pages of environments and agents say what the code says, and the notebooks run."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from nas_gym.agents import AGENTS, agent_class
from nas_gym.registration import ENVIRONMENTS, EnvironmentSpec, environment_spec
from nas_gym.settings import field_names

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SCRIPT = DOCS / "make_environment_pages.py"
FOLDER = DOCS / "environments"


def load(name: str) -> ModuleType:
    """A module of the folder of the documentation."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def script() -> ModuleType:
    return load("make_environment_pages")


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
    (tmp_path / f"{second}.gif").unlink()
    (tmp_path / "NAS-Gone-v0.md").touch()
    assert list(script.differences()) == [
        f"{first}.md differs",
        f"{second}.md is missing",
        f"{second}.gif is missing",
        "NAS-Gone-v0.md is left over",
    ]


@pytest.mark.parametrize("row", ENVIRONMENTS, ids=[row.id for row in ENVIRONMENTS])
def test_animations(row: EnvironmentSpec) -> None:
    """Modest in size, and moving."""
    path = FOLDER / f"{row.id}.gif"
    assert path.stat().st_size < 300_000
    with Image.open(path) as picture:
        assert max(picture.size) <= 900
        assert 4 < picture.n_frames <= 13  # type: ignore[attr-defined]


@pytest.mark.slow
def test_animations_are_the_same_in_every_run(script: ModuleType) -> None:
    spec = environment_spec("NAS-BenchGraph-v0")
    assert spec is not None
    assert script.animation(spec) == script.animation(spec)


@pytest.mark.parametrize("name", AGENTS)
def test_every_setting_of_an_agent_is_told(name: str) -> None:
    pages = load("site_pages")
    agent = agent_class(name)
    told = {**pages.parameters(agent), **pages.attributes(agent.Hyperparameters)}
    assert [field for field in field_names(agent.Hyperparameters) if not told.get(field)] == []


def test_the_page_of_an_agent() -> None:
    """Its docstring, its place in the leaderboard, its settings with sources, and those it uses."""
    pages = load("site_pages")
    scores = {"ppo": ("0.893 [0.885, 0.902]", "0.81 [0.77, 0.85]")}
    text = pages.agent_page("ppo", scores, has_curve=True)
    assert text.startswith("# ppo\n\nThe LSTM controller with a value head")
    assert "is 0.893 [0.885, 0.902], and it beats random search with probability 0.81" in text
    assert "| `clip_range` | `0.2` | Of the probability ratio (Schulman et al. 2017, section 6.1: 0.2). |" in text
    assert "  target_kl: 0.3\n" in text
    assert "has no place in the" in pages.agent_page("eas", scores, has_curve=False)


def test_the_leaderboard_is_read() -> None:
    scores = load("site_pages").leaderboard()
    foreign = {name for name in scores if ":" in name}  # library:algorithm
    assert set(scores) - foreign <= set(AGENTS)
    assert {"random", "torchrl:ppo"} <= set(scores)


def test_the_tutorial_of_shared_weights_is_the_example() -> None:
    example = (ROOT / "examples" / "train_reinforce.py").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "shared_weights.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    assert [block for block in blocks if block not in example] == []


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(DOCS.glob("notebooks/*.ipynb")), ids=lambda path: path.stem)
def test_notebooks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # they are made with the site
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    shown = {kind for cell in notebook.cells for output in cell.get("outputs", ()) for kind in output.get("data", ())}
    if path.stem == "search":
        assert {"text/html", "image/svg+xml"} <= shown
