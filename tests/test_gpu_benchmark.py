"""The GPU benchmark in miniature on a CPU: it needs few packages, ends when it is told to, and goes on."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_path import search
from benchmarks.gpu_path.bench import BATCHABLE, SPACES, TINY, Bench
from nas_gym.files import read_json
from nas_gym.networks import NETWORKS, can_batch, make_network
from nas_gym.spaces import make_space

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
BLOCKED = {
    *("sklearn", "matplotlib", "stable_baselines3", "sb3_contrib", "tyro", "rich", "tensorboard", "ray"),
    *("scipy", "PIL", "torchvision", "jinja2", "nas_bench_graph"),
}
CODE = """
import sys
from importlib import metadata
from importlib.machinery import PathFinder

def version(name):
    if name == "nas-gym":  # it is on the path, but not installed
        raise metadata.PackageNotFoundError(name)
    return known(name)

known, metadata.version = metadata.version, version
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] in {blocked} else find(name, *rest)
import torch
torch.set_num_threads(1)
from benchmarks.gpu import main
sys.exit(main({words}))
"""


def run_blocked(*words: str) -> subprocess.CompletedProcess[str]:
    """The benchmark, in a process that does not find what its machine need not have."""
    code = CODE.format(blocked=BLOCKED, words=list(words))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu") / "out"
    finished = run_blocked("--out", str(folder), "--tiny", "--device", "cpu")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "nothing is left" in finished.stdout
    return folder


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "gpu.json").read_text())
    return found


def bench(folder: Path, seconds: float = math.inf) -> Bench:
    search.write_images(folder / "images")
    return Bench(folder, torch.device("cpu"), TINY, folder / "images", seconds)


def test_all_pieces_are_measured(out: Path) -> None:
    found = report(out)
    assert (found["left"], found["skipped"], found["errors"]) == ([], {}, {})
    assert list(found["pieces"]) == list(gpu.PIECES)
    pieces = {name: {row["part"]: row for row in rows} for name, rows in found["pieces"].items()}
    assert len(pieces["equality"]) == len(SPACES) + len(BATCHABLE)
    assert all(row["equal"] for row in pieces["equality"].values())
    assert len(pieces["supernets"]) == len(SPACES) * 2 * 2
    assert pieces["supernets"]["supernet macro scoring 1"]["times"] == 1
    rates = [row for name in ("supernets", "networks", "table") for row in pieces[name].values()]
    assert all(row["architectures_per_second"] > 0 for row in rates)
    assert all(row["failed"] == 0 for name in ("supernets", "networks") for row in pieces[name].values())
    assert pieces["networks"]["networks cell:enas 2"]["together"] == 2
    assert pieces["search"]["search"]["trials"] == TINY.trials
    assert pieces["derive"]["derive"]["epochs"] == 2
    assert 0 <= pieces["derive"]["derive"]["test_accuracy"] <= 1
    assert {"torch", "gymnasium", "device"} <= found["machine"].keys()


def test_the_report_is_readable(out: Path) -> None:
    lines = (out / "gpu.md").read_text().splitlines()
    assert lines[0] == "# In miniature, on a CPU"
    assert [line.removeprefix("## ") for line in lines if line.startswith("## ")] == [*gpu.PIECES, "Settings"]
    for before, line in itertools.pairwise(lines):
        if before.startswith("|") and line.startswith("|"):
            assert line.replace("\\|", "").count("|") == before.replace("\\|", "").count("|")


def test_what_is_finished_is_not_done_again(out: Path, monkeypatch, capsys) -> None:
    before = report(out)
    monkeypatch.setattr(search, "Run", None)
    assert gpu.main(["--out", str(out), "--tiny", "--device", "cpu", "--only", "search"]) == 0
    assert "nothing is left" in capsys.readouterr().out
    assert report(out) == before


def test_a_call_without_time_leaves_everything(tmp_path: Path, capsys) -> None:
    words = ["--out", str(tmp_path / "out"), "--tiny", "--device", "cpu", "--minutes", "0"]
    assert gpu.main([*words, "--only", "search", "table"]) == 0
    assert "left: table bench201, search; the same command goes on" in capsys.readouterr().out
    assert report(tmp_path / "out")["left"] == ["table bench201", "search"]
    assert not list((tmp_path / "out" / "parts").iterdir())


@pytest.fixture
def interruptible() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, gpu.interrupt)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("interruptible")
def test_a_search_and_a_derivation_that_are_cut_off_go_on(tmp_path: Path, monkeypatch) -> None:
    """Each is asked to stop by a signal as soon as it has begun."""
    monkeypatch.setattr("nas_gym.experiments.derive.derivation.export", lambda *arguments: None)  # slow
    for place in ("run.results", "derive.derivation"):
        monkeypatch.setattr(f"nas_gym.experiments.{place}.draw_architecture", lambda *arguments: None)
    for piece, name in ((search.search, "search"), (search.derive, "derive")):
        cut, spent = bench(tmp_path), tmp_path / "parts" / f"{name}.spent"
        cut.stopping = bench(tmp_path, 0).stopping  # type: ignore[method-assign]
        assert piece(cut) == []
        assert cut.left == [name]
        seconds = read_json(spent)["seconds"]
        (row,) = piece(bench(tmp_path))
        assert row["seconds"] > seconds
        assert not spent.exists()


def test_an_error_is_told_and_does_not_end_the_rest(tmp_path: Path) -> None:
    made = bench(tmp_path)
    assert made.once("bad", lambda: 1 / 0) is None
    assert made.errors == {"bad": "ZeroDivisionError: division by zero"}
    assert made.once("good", lambda: {"value": 1})["value"] == 1
    assert made.once("good", lambda: {"value": 2})["value"] == 1


def test_without_images_there_is_no_search(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("nas_gym.tasks.images.DEBIAN_FASHION", tmp_path)
    made = bench(tmp_path)
    made.images = tmp_path / "nowhere"
    assert search.search(made) == search.derive(made) == []
    assert set(made.skipped) == {"search", "derive"}
    assert "not found" in made.skipped["search"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "cpu"], "on a CPU the pieces would take days: give --tiny"),
        (["--device", "cuda", "--tiny"], "torch finds no CUDA device here"),
        (["--tiny", "--only", "luck"], "invalid choice: 'luck'"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="what is refused where there is no CUDA")
def test_what_is_refused(words: list[str], message: str, tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as refused:
        gpu.main(["--out", str(tmp_path / "out"), *words])
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


def test_results_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    gpu.check_settings(tmp_path, {"device": "cuda"})
    gpu.check_settings(tmp_path, {"device": "cuda"})
    with pytest.raises(SystemExit, match="holds results of other settings"):
        gpu.check_settings(tmp_path, {"device": "cpu"})


def test_the_spaces_are_all_there_are() -> None:
    """All networks of the package, that is; other tests register theirs."""
    networks = {name for name in NETWORKS if str(NETWORKS.place(name)).startswith("nas_gym.")}
    assert {make_space(name).name for name in SPACES} == networks
    for name in SPACES:
        space = make_space(name)
        (row,) = space.sample(np.random.default_rng(0), 1)
        network = make_network(space.architecture(row), (1, 8, 8), 10)
        assert can_batch([network]) == (name in BATCHABLE)
