"""Python, type checkers and linters find the package however it is installed, and each file of it once.

The installs are made without network from a copy of the sources, in virtual environments that see the packages of the
running interpreter.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
INNER = ("agents", "envs", "experiments")
FOLDERS = {"nas_gym": "nas_gym", **{name: f"nas_gym/{name}" for name in INNER}}
METADATA = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
SOURCE = "https://example.org/own/nas_gym"
ADDED = {
    "agents/of_a_test/__init__.py": "",
    "agents/of_a_test/deeper/__init__.py": "",
    "agents/of_a_test/deeper/settings.yaml": "a: 1",
    "experiments/of_a_test/__init__.py": "",
    "experiments/of_a_test/templates/page.html": "<html>",
    "experiments/of_a_test/templates/page.jinja": "{{ a }}",
}
PROGRAM = """\
import gymnasium

import nas_gym
import nas_gym.agents
import nas_gym.envs
import nas_gym.experiments
from nas_gym.agents import Agent, make_agent

agent: Agent = make_agent("random", "NAS-Bench201-v0", seed=0)
reveal_type(agent.learn)
reveal_type(nas_gym.experiments.__doc__)
"""


def run(*arguments: str | Path, cwd: Path, status: int = 0) -> str:
    """The standard output of a command that ends with `status`."""
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    finished = subprocess.run(
        list(map(str, arguments)), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == status, finished.stdout + finished.stderr
    return finished.stdout


def sources(root: Path) -> Iterator[Path]:
    """Every file of the package, where it really is."""
    for folder in FOLDERS:
        for path in (root / folder).rglob("*"):  # does not follow links
            linked = path.parent == root / "nas_gym" and path.name in INNER
            if path.is_file() and not linked and "__pycache__" not in path.parts:
                yield path


def packaged(root: Path) -> set[str]:
    """The place of every source file in the installed package."""
    relative = [path.relative_to(root) for path in sources(root)]
    return {Path(FOLDERS[path.parts[0]], *path.parts[1:]).as_posix() for path in relative}


def copy_to(clone: Path) -> Path:
    """A copy of the sources, with subpackages that nobody has listed."""
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, clone / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in METADATA:
        shutil.copy(ROOT / name, clone)
    metadata = (clone / "pyproject.toml").read_text(encoding="utf-8").replace("[project.urls]", "[tool.of_a_test]")
    (clone / "pyproject.toml").write_text(f'{metadata}\n[project.urls]\nSource = "{SOURCE}"\n', encoding="utf-8")
    for name, text in ADDED.items():
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text(text, encoding="utf-8")
    return clone


def environment_at(folder: Path, *requirement: str | Path) -> Path:
    """The interpreter of a virtual environment into which pip has installed `requirement`."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    (packages,) = folder.glob("[Ll]ib/**/site-packages")
    shared = [entry for entry in sys.path if entry.endswith("-packages")]
    # A .pth file in a folder that a .pth file names is not read, so an editable install of the tests' own does no harm.
    (packages / "shared.pth").write_text("\n".join(shared), encoding="utf-8")
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip: list[str | Path] = [
        python,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
    ]
    run(*pip, "--no-build-isolation", *requirement, cwd=folder)
    return python


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Named as the package is: seen from the folder around it, it looks like a namespace package `nas_gym`."""
    return copy_to(tmp_path_factory.mktemp("parent") / "nas_gym")


@pytest.fixture(scope="module")
def unlinked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Git makes of the links where the system has none: text files."""
    copy = copy_to(tmp_path_factory.mktemp("unlinked") / "clone")
    for name in INNER:
        (copy / "nas_gym" / name).unlink()
        (copy / "nas_gym" / name).write_text(f"../{name}", encoding="utf-8")
    return copy


@pytest.fixture(scope="module")
def built(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sdist, and the wheel that is built from it."""
    return build(clone, tmp_path_factory.mktemp("built"))


def build(source: Path, folder: Path) -> dict[str, Path]:
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source, cwd=folder)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return {"sdist": sdist, "wheel": wheel}


@pytest.fixture(scope="module", params=["editable", "plain", "sdist"])
def python(request: pytest.FixtureRequest, clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter for which the package is installed in one of the ways that pip knows."""
    folder = tmp_path_factory.mktemp(request.param) / "venv"
    if request.param == "editable":
        return environment_at(folder, "--editable", clone)
    if request.param == "plain":
        return environment_at(folder, clone)
    return environment_at(folder, request.getfixturevalue("built")["sdist"])


@pytest.mark.slow
@pytest.mark.parametrize("place", ["the clone", "its parent", "elsewhere"])
def test_it_is_imported_from_anywhere(python: Path, place: str, clone: Path, tmp_path: Path) -> None:
    code = """
import json, nas_gym, nas_gym.agents, nas_gym.envs, nas_gym.experiments, nas_gym.agents.of_a_test.deeper
print(json.dumps([
    module.__file__ for module in (nas_gym, nas_gym.agents, nas_gym.envs, nas_gym.experiments)
] + [nas_gym.__version__]))
"""
    cwd = {"the clone": clone, "its parent": clone.parent, "elsewhere": tmp_path}[place]
    *files, version = json.loads(run(python, "-c", code, cwd=cwd))
    package = Path(files[0]).parent
    assert files == [str(package.joinpath(*parts, "__init__.py")) for parts in [(), *((name,) for name in INNER)]]
    environment = python.parents[1]
    from_the_clone = "editable" in str(environment) or place == "the clone"
    assert package.is_relative_to(clone if from_the_clone else environment)
    assert version


@pytest.mark.slow
def test_the_command_works(python: Path, tmp_path: Path) -> None:
    """Isolated (-I), away from the repository: an environment, an agent, and what `nas-gym` runs."""
    code = """
import sys
from importlib.metadata import entry_points
import gymnasium, nas_gym.agents

for name in nas_gym.agents.AGENTS:
    nas_gym.agents.load_hyperparameters(name, "NAS-Cell-v0")
env = gymnasium.make_vec("NAS-Bench201-v0", num_envs=2)
assert len(nas_gym.agents.make_agent("reinforce", env, seed=0).learn(4)) == 4
(command,) = entry_points(group="console_scripts", name="nas-gym")
command.load()
print(*{module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "nas_gym"}, sep="\\n")
"""
    files = run(python, "-I", "-c", code, cwd=tmp_path).splitlines()
    package = Path(min(files, key=len)).parent
    assert len(files) > 20
    assert all(Path(file).is_relative_to(package) for file in files)
    assert "train" in run(python.with_name("nas-gym"), "--help", cwd=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_pyright_resolves_it(python: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyright", reason="pyright is not installed")
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    (tmp_path / "wrong.py").write_text("import nas_gym.of_nobody\n", encoding="utf-8")
    pyright: list[str | Path] = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", python]
    found = json.loads(run(*pyright, "program.py", cwd=tmp_path))["generalDiagnostics"]
    assert [entry["severity"] for entry in found] == ["information"] * 2, found
    assert "SearchResult" in found[0]["message"]
    (wrong,) = json.loads(run(*pyright, "wrong.py", cwd=tmp_path, status=1))["generalDiagnostics"]
    assert wrong["rule"] == "reportMissingImports"


@pytest.mark.slow
def test_what_the_wheel_and_the_sdist_hold(clone: Path, built: dict[str, Path]) -> None:
    expected = packaged(clone)
    assert {FOLDERS[name.split("/", 1)[0]] + "/" + name.split("/", 1)[1] for name in ADDED} <= expected
    assert "nas_gym/py.typed" in expected
    names = zipfile.ZipFile(built["wheel"]).namelist()
    assert len(names) == len(set(names))
    # Nothing at the top but the one package: `agents` and `envs` there would overwrite those of others.
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert [name for name in names if name.endswith("licenses/LICENSE")]

    with tarfile.open(built["sdist"]) as sdist:
        members = sdist.getmembers()
    names = [member.name.split("/", 1)[1] for member in members if not member.isdir()]
    assert all(member.isdir() or member.isreg() for member in members)  # no links
    assert len(names) == len(set(names))
    assert {name for name in names if ".egg-info/" not in name} == expected | {*METADATA, "PKG-INFO", "setup.cfg"}


@pytest.mark.slow
def test_links_of_the_description_are_absolute(built: dict[str, Path]) -> None:
    """A package index shows the README without the files beside it."""
    with zipfile.ZipFile(built["wheel"]) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = wheel.read(name).decode()
    assert "Description-Content-Type: text/markdown" in metadata
    targets = re.findall(r"\]\(([^)\s]+)\)", metadata)
    assert [target for target in targets if not re.match(r"#|https://", target)] == []
    assert f"({SOURCE}/raw/HEAD/docs/pictures/" in metadata
    assert f"({SOURCE}/blob/HEAD/docs/results.md" in metadata
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = metadata.partition("\n\n")[2].replace(f"{SOURCE}/raw/HEAD/", "").replace(f"{SOURCE}/blob/HEAD/", "")
    assert shown.strip() == readme.strip()


@pytest.mark.slow
def test_a_clone_without_links(unlinked: Path, built: dict[str, Path], tmp_path: Path) -> None:
    """The same wheel, and an editable install that Python at least follows."""
    wheels = [zipfile.ZipFile(wheel) for wheel in (built["wheel"], build(unlinked, tmp_path)["wheel"])]
    linked, mapped = ({info.filename: info.CRC for info in wheel.infolist()} for wheel in wheels)
    assert {name for name in linked.keys() | mapped.keys() if linked.get(name) != mapped.get(name)} == set()
    python = environment_at(tmp_path / "venv", "--editable", unlinked)
    (tmp_path / "empty").mkdir()
    for cwd in (tmp_path / "empty", unlinked):
        code = "import nas_gym.agents.of_a_test.deeper, nas_gym.envs, nas_gym.experiments; print(nas_gym.envs.__file__)"
        assert Path(run(python, "-c", code, cwd=cwd).strip()) == unlinked / "envs" / "__init__.py"


@pytest.mark.parametrize("name", INNER)
def test_the_folders_are_linked(name: str) -> None:
    """A copy in the link's place would hold every file a second time."""
    link = ROOT / "nas_gym" / name
    assert link.is_file() or link.resolve() == ROOT / name  # a file: Git has no links on this system


def test_every_package_has_an_init_file() -> None:
    """Folders of Python files without one would be left out of the wheel."""
    assert {
        path.parent for path in sources(ROOT) if path.suffix == ".py" and not (path.parent / "__init__.py").is_file()
    } == set()


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_mypy_sees_each_file_once_under_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    main = pytest.importorskip("mypy.main")
    monkeypatch.chdir(ROOT)
    found, options = main.process_options(["--config-file", "pyproject.toml"])
    assert options.disallow_untyped_defs  # strict
    expected = [Path(name).with_suffix("") for name in packaged(ROOT) if name.endswith(".py")]
    names = [".".join(path.parts).removesuffix(".__init__") for path in expected]
    assert sorted(source.module for source in found) == sorted(names)


def test_ruff_sees_each_file_once() -> None:
    found = run(sys.executable, "-m", "ruff", "check", "--no-cache", "--show-files", ".", cwd=ROOT).splitlines()
    package = [Path(path) for path in found if Path(path).relative_to(ROOT).parts[0] in FOLDERS]
    assert sorted(package) == sorted(path for path in sources(ROOT) if path.suffix == ".py")
