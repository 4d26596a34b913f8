"""The examples run."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


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
