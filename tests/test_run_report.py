"""The page of a run without a browser: what it says of runs finished, unfinished, failed, of many tasks."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from nas_gym.agents import SearchResult
from nas_gym.experiments.cli.main import main
from nas_gym.experiments.report.run_report import _leaders, write_run_report
from nas_gym.experiments.run.comparison_result import Comparison, Row
from nas_gym.experiments.run.config import RunConfig
from nas_gym.experiments.run.record import TrialRecord
from nas_gym.experiments.run.run import Run
from nas_gym.experiments.run.trials import read_trials
from nas_gym.locks import FolderLock
from nas_gym.spaces import make_space

TABLE = RunConfig(env="NAS-Bench201-v0", agent="random", trials=30, seed=1)
BENCH = make_space("bench201")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("runs") / "<run>"
    Run(found, TABLE, Console(quiet=True)).execute()
    return found


def data_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL).group(1))


def test_a_finished_run(folder) -> None:
    page, ended = write_run_report(folder, refresh=5)
    text = page.read_text()
    record = json.loads((folder / "best.json").read_text())
    assert ended
    assert "http-equiv" not in text
    assert f"<strong>{record['best']['accuracy']:.4f}</strong>" in text
    assert f"<strong>{record['best']['test_accuracy']:.4f}</strong>" in text
    assert record["comparison"]["conclusion"] in text
    assert "&lt;run&gt;" in text
    for name in re.findall(r'href="([^"]*)"', text):
        assert (folder / name).exists()
    result, charts = read_trials(folder), data_of(text)["charts"]
    front = charts["tradeoff-parameters"]["series"][1]
    wanted = result.pareto_front("accuracy", "parameters")
    assert sorted(front["y"]) == pytest.approx(sorted(result.metrics["accuracy"][wanted]), rel=1e-5)
    names = [name for chart in charts.values() for each in chart["series"] for name in each["architectures"] if name]
    assert names
    assert {*names, *re.findall(r'data-open="([^"]*)"', text)} == {*re.findall(r'<template id="([^"]*)"', text)}
    assert write_run_report(folder)[0].read_text() == text, "equal runs give equal pages"


def test_a_run_that_goes_on(folder, tmp_path) -> None:
    for name in ("config.yaml", "trials.db"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    record = TrialRecord(tmp_path)
    record.cut(7)
    record.close()
    page, ended = write_run_report(tmp_path, refresh=5)
    assert not ended
    assert '<meta http-equiv="refresh" content="5">' in page.read_text()
    assert "7 of at most 30 trials" in page.read_text()
    record = TrialRecord(tmp_path)
    record.cut(0)
    record.close()
    assert "0 of at most 30 trials" in write_run_report(tmp_path)[0].read_text()


def test_watching_ends_with_the_search(folder, tmp_path, monkeypatch, capsys) -> None:
    for name in ("config.yaml", "trials.db"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    lock, pages = FolderLock(tmp_path), []

    def sleep(seconds: float) -> None:
        pages.append((tmp_path / "report.html").read_text())
        if len(pages) == 2:
            lock.__exit__(None, None, None)

    lock.__enter__()
    monkeypatch.setattr("nas_gym.experiments.cli.report.time.sleep", sleep)
    monkeypatch.setattr("sys.argv", ["nas-gym", "report", str(tmp_path), "--watch", "--seconds", "3"])
    main()
    assert len(pages) == 2
    assert all('<meta http-equiv="refresh" content="3">' in page for page in pages)
    assert "http-equiv" not in (tmp_path / "report.html").read_text()
    assert f"nas-gym resume {tmp_path}" in capsys.readouterr().out.replace("\n", "")


@pytest.mark.slow
def test_a_run_of_many_tasks(tmp_path) -> None:
    config = RunConfig(env="NAS-MultiTask-v0", agent="random", trials=24)
    Run(tmp_path / "run", config, Console(quiet=True)).execute()
    charts = data_of(write_run_report(tmp_path / "run")[0].read_text())["charts"]
    result = read_trials(tmp_path / "run")
    played = {int(task) for task in result.metrics["task"]}
    labels = [each["label"] for each in charts["search"]["series"]]
    tasks = config.environment_arguments()["tasks"]
    assert labels == [tasks[number] for number in sorted(played)]
    assert not any(name.startswith("tradeoff") for name in charts), "accuracies of different tasks do not compare"


def row(role: str, name: str, valid: float, test: float) -> Row:
    return Row(role, name, "", None, valid, test)


def test_a_leader_that_is_not_the_best_elsewhere_is_explained() -> None:
    tokens = BENCH.sample(np.random.default_rng(0), 3)
    result = SearchResult(BENCH, tokens, np.array([0.5, 0.7, 0.6]))
    found = row("found", "trial 1", 0.7, 0.65)
    assert [*_leaders(result, Comparison("table", 1, (found, row("candidate", "trial 2", 0.6, 0.6))))] == []
    (sentence,) = _leaders(result, Comparison("table", 1, (found, row("candidate", "trial 2", 0.6, 0.68))))
    assert sentence.startswith("Trial 2 reaches 0.6800 on the test split, trial 1 0.6500.")
    (sentence,) = _leaders(result, Comparison("training", 2, (replace(found, name="trial 2"),)))
    assert "The best reward of the search was that of trial 1; trial 2 was chosen" in sentence
    rows = [row("found", "trial 1", valid, valid - 0.05) for valid in (0.68, 0.70, 0.72)]
    near = [row("reference", "plain", valid, valid + 0.01) for valid in (0.60, 0.64, 0.69)]
    (sentence,) = _leaders(result, Comparison("training", 1, (*rows, *near)))
    assert sentence.endswith("the intervals overlap, so the test split does not tell which of the two is better.")
    far = [row("reference", "plain", valid, 0.9 + valid / 100) for valid in (0.60, 0.62, 0.61)]
    (sentence,) = _leaders(result, Comparison("training", 1, (*rows, *far)))
    assert "does not rank them as the test split does" in sentence


def test_the_mixture_of_a_differentiable_search(tmp_path) -> None:
    """A cell for each trial, edge and operation, as dark as the weight is large beside the largest."""
    config = RunConfig(
        env="NAS-Bench201-v0",
        task="digits",
        agent="darts",
        trials=3,
        hyperparameters={"steps_per_trial": 2, "learning_rate": 0.5},
        env_kwargs={"evaluator": "relaxed", "evaluator_kwargs": {"channels": 4, "batch_size": 16}},
        retrain_epochs=0,
    )
    run = Run(tmp_path / "run", config, Console(quiet=True))
    run.execute()
    text = write_run_report(tmp_path / "run")[0].read_text()
    heat = re.search(r'<svg class="heat".*?</svg>', text, re.DOTALL).group()
    cells = re.findall(r'fill-opacity="([\d.]+)"><title>(\S+), (\S+), after (\d) trials: ([\d.]+)', heat)
    assert len(cells) == 3 * 6 * 5
    last = {(edge, name): float(weight) for _, edge, name, trial, weight in cells if trial == "3"}
    strengths = run.agent.strengths()
    for row, edge in enumerate(run.agent.edges.names):
        for column, name in enumerate(run.agent.edges.operations):
            assert last[edge, name] == pytest.approx(strengths[row, column], abs=1e-3)
    darkest = max(cells, key=lambda cell: float(cell[4]))
    assert darkest[0] == "1.000"
    assert "mixture/" not in json.dumps(data_of(text)["charts"])


def test_no_mixture_no_heat_map(folder) -> None:
    assert 'class="heat"' not in write_run_report(folder)[0].read_text()
