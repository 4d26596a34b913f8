"""The wheel holds what is imported, in its place, and nothing else; it works away from the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"nas_gym": "nas_gym", "agents": "nas_gym/agents", "envs": "nas_gym/envs"}

pytestmark = pytest.mark.slow


def run(*arguments: str | Path, cwd: Path) -> str:
    """What a command prints."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    finished = subprocess.run(
        list(map(str, arguments)), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the wheel is made of: building leaves traces."""
    copy = tmp_path_factory.mktemp("source")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the wheel, without its dependencies."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index", "--no-deps"]
    run(*pip, "--no-compile", "--target", target, wheel, cwd=target)
    return target


def test_what_the_wheel_holds(source, wheel) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    packaged = {name for name in names if ".dist-info/" not in name}
    # Nothing at the top but the one package: `agents` and `envs` there would overwrite those of others.
    assert packaged == {
        f"{place}/{path.relative_to(source / folder).as_posix()}"
        for folder, place in FOLDERS.items()
        for path in (source / folder).rglob("*")
        if path.is_file()
    }
    assert {"nas_gym/py.typed", "nas_gym/agents/hyperparameters/reinforce.yaml"} <= packaged
    assert [name for name in names if name.endswith("licenses/LICENSE")]


def test_it_works_away_from_the_repository(installed, tmp_path) -> None:
    """Isolated from this folder and from what is installed for development; an empty folder to work in."""
    code = f"""
import json, sys
sys.meta_path = [finder for finder in sys.meta_path if "__editable__" not in type(finder).__module__ + str(finder)]
sys.path.insert(0, {str(installed)!r})
import gymnasium
import nas_gym
import nas_gym.agents.cli
import nas_gym.agents.runs
import nas_gym.envs.construction
from importlib.metadata import entry_points, version
from importlib.resources import files

for name in nas_gym.agents.AGENTS:
    assert (files("nas_gym.agents") / "hyperparameters" / f"{{name.replace(':', '-')}}.yaml").is_file()
    nas_gym.agents.load_hyperparameters(name, "NAS-Cell-v0")
assert (files("nas_gym") / "py.typed").is_file()
env = gymnasium.make_vec("NAS-Bench201-v0", num_envs=2, evaluator="constant")
result = nas_gym.agents.Reinforce(env, seed=0).learn(4)
evaluators = gymnasium.make("NAS-Cell-v0", schedule={{"warmup_steps": 0}}).unwrapped.evaluator
(command,) = [point.value for point in entry_points(group="console_scripts", name="nas-gym")]
here = {{name: module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "nas_gym"}}
print(json.dumps([here, len(result), type(evaluators).__name__, command, version("nas-gym"), nas_gym.__version__]))
"""
    # -I: neither the current folder, nor PYTHONPATH, nor the user's packages.
    output = run(sys.executable, "-I", "-c", code, cwd=tmp_path)
    here, trials, evaluator, command, version, told = json.loads(output.splitlines()[-1])
    assert {"nas_gym.agents.reinforce", "nas_gym.envs.construction_vector", "nas_gym.tasks.images"} <= here.keys()
    assert all(Path(path).is_relative_to(installed) for path in here.values()), here
    assert trials == 4
    assert evaluator == "SharedWeightEvaluator"
    assert command == "nas_gym.agents.cli:main"
    assert version == told
    assert not list(tmp_path.iterdir())


def test_the_command_is_installed(installed, tmp_path) -> None:
    (script,) = (installed / "bin").glob("nas-gym*")
    assert "nas_gym.agents.cli" in script.read_text()
