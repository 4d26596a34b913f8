"""The transfer benchmark: copying, measures, suites, a small run of it, and the commands."""

from __future__ import annotations

import csv
import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.experiments.benchmark.suite import SUITES
from nas_gym.experiments.cli.main import main
from nas_gym.experiments.run.record import TrialRecord
from nas_gym.experiments.run.trials import read_trials
from nas_gym.experiments.transfer.measures import measures, running_mean, trials_to
from nas_gym.experiments.transfer.report import projected, rank_correlations, summarise, write_transfer_report
from nas_gym.experiments.transfer.searches import Searches, by_mean_rank, by_place, pretrain, run_transfer, search
from nas_gym.experiments.transfer.suite import (
    COPY,
    COPY_MEAN,
    DYNA,
    DYNA_SCRATCH,
    ENTRIES,
    RANDOM,
    RECALL,
    SCRATCH,
    TRANSFER,
    TransferSuite,
    make_transfer_suite,
)
from nas_gym.spaces import make_space
from nas_gym.tables import TaskTable, save_table

pytestmark = pytest.mark.slow  # tables are built, or networks trained, for all of the tests together


BENCH = make_space("bench201")


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """Three tasks: two reward an operation with some noise, the third another operation."""
    path = tmp_path_factory.mktemp("table") / "three.npz"
    rng = np.random.default_rng(0)
    tokens = BENCH.enumerate()
    accuracies = {name: 0.8 * (tokens == operation).mean(axis=1) for name, operation in (("a", 3), ("b", 3), ("c", 1))}
    tasks = {name: TaskTable(valid=(x + 0.2 * rng.random(len(x)))[:, None, None]) for name, x in accuracies.items()}
    save_table(path, BENCH, np.arange(len(tokens)), tasks, {"licence": "MIT"})
    return path


def small(table: Path, **changes) -> TransferSuite:
    arguments = {"seeds": 3, "source_trials": 40, "trials": 20, "entries": (SCRATCH, TRANSFER, COPY, COPY_MEAN, RANDOM)}
    tasks = {"base": "NAS-Bench201-v0", "tasks": ("a", "b", "c"), "arguments": {"table": str(table)}}
    return TransferSuite(**{**tasks, **arguments, **changes})


# ---------------------------------------------------------------------- copying and measures


def test_copies_by_place_and_by_mean_rank() -> None:
    """By hand: x is second on both tasks, y best and z third on one, w best on the other."""
    x, y, z, w = np.eye(4, 3, dtype=np.int64)
    sources = [(np.array([z, y, x]), np.array([0.1, 0.9, 0.5])), (np.array([x, w]), np.array([20.0, 30.0]))]
    np.testing.assert_array_equal(by_place(sources), [y, w, x, z])
    # Ranks: y 5/6 + 1/2; x 1/2 + 1/4; z 1/6 + 1/2; w 1/2 + 3/4.
    np.testing.assert_array_equal(by_mean_rank(sources), [y, w, x, z])
    better = [*sources, (np.array([x, z, y]), np.array([1.0, 0.5, 0.0]))]
    np.testing.assert_array_equal(by_mean_rank(better)[:2], [w, x])


@given(st.lists(st.lists(st.floats(0, 1), min_size=12, max_size=12), min_size=1, max_size=5), st.floats(0, 1))
def test_trials_to_a_level(curves, level) -> None:
    expected = [next((n for n, value in enumerate(curve, 1) if value >= level - 1e-12), 13) for curve in curves]
    np.testing.assert_array_equal(trials_to(np.array(curves), level), expected)
    means = running_mean(np.array(curves))
    for curve, row in zip(curves, means, strict=True):
        assert (row[:9] == -np.inf).all()
        np.testing.assert_allclose(row[9:], [np.mean(curve[n : n + 10]) for n in range(3)])


def test_measures_by_hand() -> None:
    scratch = np.tile(np.linspace(0.0, 0.38, 20), (3, 1))  # best 0.38; mean of the last ten 0.29
    rewards = np.array([np.full(20, 0.3), np.full(20, 0.2), np.r_[np.full(14, 0.1), np.full(6, 0.5)]])
    found = measures(rewards, scratch, lambda reward: 10 * reward)
    np.testing.assert_allclose(found.jumpstart, [3, 2, 1])
    np.testing.assert_allclose(found.asymptote, [3, 2, 5])
    np.testing.assert_allclose(found.last, [3, 2, 3.4])
    np.testing.assert_array_equal(found.trials_to_best, [21, 21, 15])
    np.testing.assert_array_equal(found.trials_to_mean, [10, 21, 19])


def test_projection_keeps_distances_of_points_in_a_plane() -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(6, 2)) @ np.linalg.qr(rng.normal(size=(9, 2)))[0].T + rng.normal(size=9)
    distances = [np.linalg.norm(points[:, None] - points, axis=2) for points in (plane, projected(plane))]
    np.testing.assert_allclose(*distances, atol=1e-12)
    assert projected(plane[:2]).shape == (2, 2)
    assert not projected(plane[:1]).any()


def test_rank_correlations(table) -> None:
    evaluators = {task: TabularEvaluator(BENCH, table=table, task=task) for task in "abc"}
    from scipy.stats import spearmanr

    tokens = BENCH.sample(np.random.default_rng(0), 500)
    expected = spearmanr(np.array([evaluator.evaluate(tokens).accuracy for evaluator in evaluators.values()]).T)
    np.testing.assert_allclose(rank_correlations(evaluators, 500), expected.statistic)


# ---------------------------------------------------------------------- the benchmark


@pytest.fixture(scope="module")
def done(table, tmp_path_factory) -> tuple[TransferSuite, Path]:
    out = tmp_path_factory.mktemp("transfer")
    suite = small(table)
    run_transfer(suite, out)
    return suite, out


def test_copy_plays_the_best_of_the_sources_own_trials(done) -> None:
    suite, out = done
    found = run_transfer(suite, out)
    evaluator = TabularEvaluator(BENCH, table=suite.arguments["table"], task="a")
    agent = pretrain(suite, "a", [0, 1, 2], out, {})
    assert agent.tasks == ("b", "c")
    for seed in range(3):
        best = [memory.tokens[seed][memory.rewards[seed].argmax()] for memory in agent.memories]
        np.testing.assert_array_equal(found["a", COPY].tokens[seed, :2], best)
        assert [len(memory.rewards[seed]) for memory in agent.memories] == [40, 40]
    for label in suite.entries:
        searches = found["a", label]
        assert searches.tokens.shape == (3, 20, 6)
        np.testing.assert_array_equal(
            searches.rewards.ravel(), evaluator.evaluate(searches.tokens.reshape(-1, 6)).accuracy
        )


def test_dyna_models_the_sources_of_each_seed(done, table, tmp_path) -> None:
    """Its first trials on a related task are better than from scratch, and a seed's search is its own."""
    suite = small(table, trials=6)
    helped, alone = (search(suite, "b", label, [0, 1], tmp_path) for label in (DYNA, DYNA_SCRATCH))
    assert helped.rewards.shape == (2, 6)
    assert helped.rewards.mean() > alone.rewards.mean() + 0.2
    assert not np.array_equal(helped.tokens[0], helped.tokens[1])


def test_related_tasks_help_and_the_unrelated_does_not(done, table) -> None:
    suite, out = done
    rows = {(row.task, row.entry): row.estimates for row in summarise(suite, run_transfer(suite, out))}
    assert rows["a", TRANSFER]["jumpstart"].low > rows["a", SCRATCH]["jumpstart"].high
    assert rows["c", TRANSFER]["jumpstart"].value < rows["a", TRANSFER]["jumpstart"].value
    for task in ("a", "b", "c", None):
        assert rows[task, SCRATCH]["speed-up (best)"].value == 1
    medians = [rows[task, TRANSFER]["trials_to_best"].value for task in "abc"]
    assert rows[None, TRANSFER]["trials_to_best"].value == np.median(medians)


def test_what_is_done_is_not_done_again(done, table, tmp_path, monkeypatch) -> None:
    """Killed in the midst, the benchmark goes on, to the same results; other settings are refused."""
    suite, out = done
    progress: list[tuple[int, int]] = []

    def stop(over: int, total: int) -> None:
        progress.append((over, total))
        if over == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_transfer(suite, tmp_path, stop)
    assert progress[-1] == (7, 15)
    again = run_transfer(suite, tmp_path)
    monkeypatch.setattr("nas_gym.experiments.transfer.searches.search", None)  # nothing is searched any more
    for key, searches in run_transfer(suite, out).items():
        np.testing.assert_array_equal(again[key].rewards, searches.rewards)
    with pytest.raises(ValueError, match="holds a benchmark of other settings"):
        run_transfer(small(table, trials=30), out)


def test_report(done) -> None:
    suite, out = done
    rows = write_transfer_report(suite, run_transfer(suite, out), out)
    assert len(rows) == 4 * len(suite.entries)
    text = (out / "transfer.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## All tasks", "## a", "## b", "## c"]
    assert "transfer takes" in text
    lines = list(csv.DictReader((out / "transfer.csv").open()))
    (line,) = (
        line for line in lines if (line["task"], line["entry"], line["measure"]) == ("all", SCRATCH, "speed-up (mean)")
    )
    assert float(line["value"]) == 1
    assert len(json.loads((out / "summary.json").read_text())["estimates"]) == len(lines)
    assert (out / "learning_curves.png").read_bytes().startswith(b"\x89PNG")


def test_tasks_that_are_trained_on(tmp_path, monkeypatch) -> None:
    """Each seed has shared weights of its own, and what it has searched is kept, whatever becomes of the next."""
    cell = {"channels": 4, "batch_size": 16, "score_images": 32}
    suite = TransferSuite(
        "NAS-Cell-v0",
        ("digits:0-4", "digits:5-9"),
        {
            "space": {"name": "cell", "nodes": 1},
            "evaluator": "shared-weights",
            "evaluator_kwargs": cell,
            "schedule": {"name": "interleaved", "warmup_steps": 2, "steps_per_trial": 1},
        },
        seeds=2,
        source_trials=4,
        trials=4,
        entries=(SCRATCH, RECALL, COPY),
        pretraining={"batch_size": 2},
        hyperparameters={"batch_size": 2},
    )
    begun = []

    def interrupted(suite, target, label, seeds, out) -> Searches:
        begun.append((target, label, *seeds))
        if len(begun) == 2:
            raise KeyboardInterrupt
        return search(suite, target, label, seeds, out)

    monkeypatch.setattr("nas_gym.experiments.transfer.searches.search", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_transfer(suite, tmp_path)
    found = run_transfer(suite, tmp_path)
    assert len(begun) == 1 + 2 * 2 * 3  # the second one twice, the first one once
    assert len(set(begun)) == 2 * 2 * 3
    assert {searches.rewards.shape for searches in found.values()} == {(2, 4)}
    assert all(0 <= searches.rewards.min() <= searches.rewards.max() <= 1 for searches in found.values())
    write_transfer_report(suite, found, tmp_path)


# ---------------------------------------------------------------------- suites


def test_suites(table) -> None:
    graph = make_transfer_suite("transfer-graph", seeds=7)
    assert graph is not None
    assert (len(graph.tasks), graph.seeds, graph.source_trials, graph.trials) == (8, 7, 300, 150)
    assert set(graph.entries) | {"transfer, nothing recalled"} == set(ENTRIES)
    image = make_transfer_suite("transfer-image", table=str(table))
    assert image is not None
    assert (image.tasks, image.seeds, image.trains) == (("a", "b", "c"), 50, False)
    small_image = make_transfer_suite("transfer-image")
    assert small_image is not None
    assert (small_image.seeds, small_image.trains) == (5, True)
    for other in ("quick", "full", "no such suite"):
        assert make_transfer_suite(other) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ("a",)}, "tasks must be at least two, all different; got a"),
        ({"seeds": 0}, "seeds must be a positive integer, got 0"),
        ({"entries": ("transfer",)}, "entries must have 'from scratch'"),
        ({"entries": ("from scratch", "magic")}, r"unknown entries \['magic'\]"),
    ],
)
def test_suites_refuse(table, changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        small(table, **changes)


def test_suite_file_refuses_what_it_does_not_know(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    values = yaml.safe_load((SUITES / "transfer-graph.yaml").read_text())
    path.write_text(yaml.safe_dump({"transfer": {**values["transfer"], "agents": ["ppo"]}}))
    with pytest.raises(ValueError, match="a transfer suite has no field 'agents'; known: "):
        make_transfer_suite(path)


# ---------------------------------------------------------------------- commands


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["nas-gym", *arguments])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_benchmark_command(table, tmp_path, monkeypatch, capsys) -> None:
    path = tmp_path / "mine.yaml"
    suite = small(table, entries=(SCRATCH, TRANSFER), trials=10, source_trials=10).to_dict()
    path.write_text(yaml.safe_dump({"transfer": suite}))
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "benchmark", "--suite", str(path), "--seeds", "2") == 0
    assert "speed" not in capsys.readouterr().err
    assert (tmp_path / "runs" / "benchmark-mine" / "transfer.md").exists()


def test_pretrain_and_transfer_commands(table, tmp_path, monkeypatch, capsys) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    command = ["pretrain", "--base", "NAS-Bench201-v0", "--tasks", "a", "b", "--trials", "20", "--run-dir", str(before)]
    command += ["--env-params", f"table:{table}"]
    assert run(monkeypatch, *command) == 0
    trials = read_trials(before)
    np.testing.assert_array_equal(trials.metrics["task"], np.arange(40) % 2)
    assert (before / "tasks.png").exists()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(before)).Reload()
    own = trials.rewards[trials.metrics["task"] == 1]
    logged = events.Scalars("rollout/b/ep_rew_mean")
    assert logged[-1].value == pytest.approx(own.mean())

    first = (before / "trials.csv").read_text()
    assert run(monkeypatch, *command) == 0  # goes on, here with nothing left to do
    assert (before / "trials.csv").read_text() == first

    go_on = ["transfer", str(before), "--task", "c", "--trials", "30", "--run-dir", str(after)]
    assert run(monkeypatch, *go_on) == 0
    whole = (after / "trials.csv").read_text()
    assert len(whole.splitlines()) == 31
    # Resumed from its first 15 trials it comes to the same.
    record = TrialRecord(after)
    record.cut(15)
    record.close()
    assert run(monkeypatch, "resume", str(after)) == 0
    assert (after / "trials.csv").read_text() == whole

    go_on = [
        "transfer",
        str(before),
        "--task",
        "c",
        "--agent",
        "dyna",
        "--trials",
        "4",
        "--run-dir",
        str(tmp_path / "d"),
    ]
    assert run(monkeypatch, *go_on) == 0
    assert len((tmp_path / "d" / "trials.csv").read_text().splitlines()) == 5

    capsys.readouterr()
    assert run(monkeypatch, "transfer", str(after), "--task", "b") == 2
    assert "holds no agent.pt" in re.sub(r"\s+", " ", capsys.readouterr().err)
    assert run(monkeypatch, *command, "--seed", "1") == 2
    assert "holds a run of other settings" in re.sub(r"\s+", " ", capsys.readouterr().err)


def test_threads_and_global_generators_are_left_alone(done) -> None:
    suite, out = done
    state = torch.random.get_rng_state()
    search(suite, "b", TRANSFER, [0], out / "again")
    assert torch.equal(state, torch.random.get_rng_state())


def test_example(tmp_path, monkeypatch, capsys) -> None:
    pytest.importorskip("nas_bench_graph")
    monkeypatch.chdir(tmp_path)
    main = runpy.run_path(str(Path(__file__).parent.parent / "examples" / "transfer.py"))["main"]
    assert main(source_trials=100, trials=20) > 0
    assert len(capsys.readouterr().out.splitlines()) == 3
