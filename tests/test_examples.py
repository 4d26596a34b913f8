"""The examples run."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def main_of(name: str) -> Callable[..., Any]:
    """The function that an example runs."""
    main: Callable[..., Any] = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
    return main


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train_ppo", "plan", "predict"])
def test_examples_of_one_search(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """They print the summary of their search, and return a number that the seed determines."""
    main = main_of(name)
    first, second = main(trials=60), main(trials=60)
    assert first == second
    assert -1 <= first <= 1
    assert capsys.readouterr().out.count("60 trials of bench") == 2


@pytest.mark.slow
def test_ppo_learns() -> None:
    """The last fifty architectures of a table are better than the first fifty, in the mean of a few seeds."""
    main = main_of("train_ppo")
    assert sum(main(trials=150, seed=seed) for seed in range(3)) > 0


@pytest.mark.slow
def test_train_sb3(capsys: pytest.CaptureFixture[str]) -> None:
    accuracy = main_of("train_sb3")(trials=20)
    assert 0.1 < accuracy <= 1
    assert capsys.readouterr().out.splitlines()[-1] == f"its validation accuracy is {accuracy:.4f}"


@pytest.mark.slow
def test_evolve(capsys: pytest.CaptureFixture[str]) -> None:
    volumes = main_of("evolve")(trials=100)
    assert all(0 < volume < 0.4 * 0.02 for volume in volumes.values())  # no front is better than accuracy 1 at no cost
    *front, _ = capsys.readouterr().out.splitlines()
    accuracies, latencies = zip(*((float(line.split()[0]), float(line.split()[1])) for line in front), strict=True)
    assert list(latencies) == sorted(latencies)
    assert list(accuracies) == sorted(accuracies)  # what costs more is better, or it would not stand there


@pytest.mark.slow
def test_benchmark_agents(tmp_path: Path) -> None:
    agents = ("random", "regularized-evolution")
    scores = main_of("benchmark_agents")(
        agents, ("NAS-BenchGraph-v0:cora",), seeds=2, trials=20, workers=1, out=str(tmp_path)
    )
    assert set(scores) == set(agents)
    assert (tmp_path / "report.html").stat().st_size > 0


@pytest.mark.slow
def test_train_reinforce(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    main = runpy.run_path(str(EXAMPLES / "train_reinforce.py"))["main"]
    accuracy = main(trials=20, warmup_steps=5, channels=4, epochs=2)
    assert 0.1 < accuracy <= 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines if " trials:" in line] == [["10", "trials:"], ["20", "trials:"]]
    assert lines[-1] == f"trained from scratch, its test accuracy is {accuracy:.3f}"
    assert (tmp_path / "best_cell.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_transform(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    main = runpy.run_path(str(EXAMPLES / "transform.py"))["main"]
    accuracy = main(trials=20, start_epochs=2, epochs=1, max_parameters=60_000)
    assert 0.1 < accuracy <= 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines if " networks: mean" in line] == [
        ["10", "networks:"],
        ["20", "networks:"],
    ]
    assert lines[-1] == f"its validation accuracy is {accuracy:.3f}"
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
