"""Runs: what their folder holds, and that one killed at any moment goes on to the same end."""

from __future__ import annotations

import csv
import importlib
import io
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml
from fidelity_checks import CurvesEvaluator, curves_table
from rich.console import Console

from nas_gym.agents import AGENTS, SearchResult
from nas_gym.evaluators import Evaluations, FunctionEvaluator
from nas_gym.experiments.run import recorder
from nas_gym.experiments.run.config import RunConfig, config_text, read_config
from nas_gym.experiments.run.progress import Interrupted
from nas_gym.experiments.run.record import RECORD, TrialRecord, read_rows
from nas_gym.experiments.run.replay import RecordedEvaluator
from nas_gym.experiments.run.run import Run, load_best
from nas_gym.experiments.run.trials import export_trials, read_trials
from nas_gym.spaces import Architecture, make_space

BENCH = make_space("bench201")
CELL = {"name": "cell", "nodes": 2}
TINY = {"channels": 4, "batch_size": 16, "score_images": 64}
# Updates of 6 episodes from batches of 4: most checkpoints fall where episodes are pending.
SCHEDULE = {"name": "interleaved", "warmup_steps": 6, "architectures_per_step": 4}
INTERLEAVED = RunConfig(
    task="digits",
    trials=14,
    num_envs=4,
    seed=3,
    hyperparameters={"batch_size": 6, "learning_rate": 0.05},
    env_kwargs={"space": CELL, "evaluator_kwargs": TINY, "schedule": SCHEDULE},
    retrain_epochs=0,
)
ENAS = replace(
    INTERLEAVED,
    env="NAS-Bench201-v0",
    trials=22,
    env_kwargs={
        "evaluator": "shared-weights",
        "evaluator_kwargs": TINY,
        "schedule": {"name": "enas", "warmup_steps": 3, "trials_per_phase": 8, "steps_per_phase": 4},
    },
)
CONSTANT = RunConfig(
    env="NAS-Bench201-v0",
    trials=36,
    num_envs=4,
    seed=5,
    hyperparameters={"batch_size": 6, "learning_rate": 0.05},
    env_kwargs={"evaluator": "constant"},
)
RANDOM = replace(CONSTANT, agent="random", trials=34, hyperparameters={})  # the last batch overruns the budget
RELAXED = RunConfig(
    env="NAS-Bench201-v0",
    task="digits",
    agent="snas",
    trials=4,
    seed=3,
    hyperparameters={"steps_per_trial": 3},
    env_kwargs={"evaluator": "relaxed", "evaluator_kwargs": {"channels": 4, "batch_size": 16, "score_images": 64}},
    retrain_epochs=0,
)
COMPARED = replace(
    INTERLEAVED,
    trials=4,
    env_kwargs={
        **INTERLEAVED.env_kwargs,
        "evaluator_kwargs": {**TINY, "task_kwargs": {"train_limit": 100, "valid_limit": 60}},
    },
    retrain_epochs=1,
    compare_found=2,
    compare_random=2,
    compare_seeds=2,
)
CONFIGS = {
    "interleaved": INTERLEAVED,
    "enas": ENAS,
    "reinforce": CONSTANT,
    "random": RANDOM,
    "compared": COMPARED,
    "relaxed": RELAXED,
}
CLOCKS = {"time/fps"}


class Checksum(FunctionEvaluator):
    """A deterministic evaluator whose scores differ from architecture to architecture; it counts what it is asked."""

    def __init__(self) -> None:
        super().__init__(BENCH)
        self.asked: list[bytes] = []

    def evaluate(self, tokens, *, fidelity=None, parents=None):
        self.asked += [row.tobytes() for row in tokens]
        values = (tokens @ (7 ** np.arange(tokens.shape[1]))) % 1009 / 1009
        return Evaluations(values, {"parameters": tokens.sum(axis=1) / 3}, values < 0.1)


def make_run(folder: Path, config: RunConfig | None = None) -> Run:
    run = Run(folder, config, Console(quiet=True))
    if run.config.env_kwargs.get("evaluator") == "constant":
        run.problem.schedule.evaluator = Checksum()
    return run


# ------------------------------------------------------------------ real processes, killed for real


class Kill(NamedTuple):
    """The process kills itself as it enters a function for the `call`-th time, having saved `saves` times at most."""

    place: str
    call: int
    saves: int = 10**6


def counted(place: str, action: Callable[[int], None]) -> None:
    """Has every call of ``module:Class.function`` preceded by an action that is told its number, from 1."""
    module, _, path = place.partition(":")
    owner = importlib.import_module(module)
    *classes, name = path.split(".")
    for inner in classes:
        owner = getattr(owner, inner)
    original, calls = getattr(owner, name), 0

    def wrapper(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        action(calls)
        return original(*arguments, **keywords)

    setattr(owner, name, wrapper)


def work(folder: Path, config: RunConfig | None, kill: Kill | None) -> None:
    """What a process does: a run to its end, or to its death."""
    if kill is not None:
        recorder.CHECKPOINT_SECONDS = 0.0 if kill.saves else math.inf  # a checkpoint at every chance

        def save_no_more(call: int) -> None:
            if call >= kill.saves:
                recorder.CHECKPOINT_SECONDS = math.inf

        def die(call: int) -> None:
            if call == kill.call:
                os.kill(os.getpid(), signal.SIGKILL)

        counted("nas_gym.experiments.run.recorder:Recorder.save", save_no_more)
        counted(kill.place, die)
    make_run(folder, config).execute()


HEAVY = (
    "sklearn.datasets",
    "torch._dynamo",
    "torch.utils.tensorboard",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "safetensors.torch",
    "nas_gym.experiments.run",
    "nas_gym.agents.policy_gradient.reinforce",
    "nas_gym.envs.rendering",
    "nas_gym.evaluators.shared_weights",
)
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([*HEAVY])


def start(folder: Path, config: RunConfig | None = None, kill: Kill | None = None) -> Any:
    """A process of its own, forked from one that has imported everything and run nothing."""
    process = PROCESSES.Process(target=work, args=(folder, config, kill))
    process.start()
    return process


def finish(folder: Path, config: RunConfig | None = None, kill: Kill | None = None) -> None:
    process = start(folder, config, kill)
    process.join(60)
    assert process.exitcode == (0 if kill is None else -signal.SIGKILL)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folders of runs that nothing has disturbed, by name of config."""
    folders: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name) / "run"
            finish(folders[name], CONFIGS[name])
        return folders[name]

    return folder


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard shows: by tag, values by step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def assert_same(folder: Path, reference: Path) -> None:
    """The same results, in every file that holds results."""
    for name in ("trials.csv", "best.json", "config.yaml"):
        assert (folder / name).read_bytes() == (reference / name).read_bytes(), name
    shown, wanted = scalars(folder), scalars(reference)
    assert {tag: shown[tag] for tag in shown.keys() - CLOCKS} == {tag: wanted[tag] for tag in wanted.keys() - CLOCKS}
    assert_clocks(folder)


def assert_clocks(folder: Path) -> None:
    clocks = rows_of(folder / "timings.csv")
    assert [row["trial"] for row in clocks] == [row["trial"] for row in rows_of(folder / "trials.csv")]
    seconds = [float(row["seconds"]) for row in clocks]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0


UPDATE = "nas_gym.evaluators.shared_weights:SharedWeightEvaluator.update"
STEP = "nas_gym.evaluators.relaxed:RelaxedEvaluator.relaxed_step"
ADD = "nas_gym.experiments.run.record:TrialRecord.add"
MIDDLE = "nas_gym.experiments.run.record:TrialRecord._write_head"  # of a transaction; of one a save as well
CHECKPOINT = "nas_gym.experiments.run.checkpoint:save_tensors"
SAVE = "nas_gym.experiments.run.recorder:Recorder.save"


def on_record(folder: Path) -> int:
    """How many trials have ended."""
    return len(read_rows(folder / RECORD).rows)


# Interleaved: 6 updates of warm-up, then 2 after each batch of 4.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kill", "trials", "checkpoint"),
    [
        pytest.param("interleaved", Kill(UPDATE, 1), 0, False, id="before-anything"),
        pytest.param("interleaved", Kill(UPDATE, 5), 0, True, id="warm-up"),
        pytest.param("interleaved", Kill(UPDATE, 6, saves=3), 0, True, id="warm-up-past-checkpoint"),
        pytest.param("interleaved", Kill(UPDATE, 10), 4, True, id="training-between-trials"),
        pytest.param("interleaved", Kill(ADD, 2), 4, True, id="trials-not-written"),
        pytest.param("interleaved", Kill(MIDDLE, 9), 4, True, id="trials-half-written"),
        pytest.param("interleaved", Kill(SAVE, 8), 8, True, id="trials-written-checkpoint-not"),
        pytest.param("interleaved", Kill(ADD, 4, saves=7), 12, True, id="two-batches-past-checkpoint"),
        pytest.param("interleaved", Kill(ADD, 3, saves=0), 8, False, id="no-checkpoint"),
        pytest.param("interleaved", Kill(CHECKPOINT, 8), 8, True, id="checkpoint-half-replaced"),
        pytest.param("enas", Kill(UPDATE, 6), 8, True, id="enas-second-phase"),
        pytest.param("enas", Kill(UPDATE, 11, saves=7), 16, True, id="enas-third-phase-past-checkpoint"),
        pytest.param("enas", Kill(ADD, 4), 12, True, id="enas-frozen-weights"),
        pytest.param("relaxed", Kill(STEP, 2), 0, True, id="relaxed-first-epoch"),
        pytest.param("relaxed", Kill(STEP, 8), 2, True, id="relaxed-within-an-epoch"),
        pytest.param("relaxed", Kill(ADD, 3, saves=7), 2, True, id="relaxed-past-checkpoint"),
    ],
)
def test_resume_shared_weights(tmp_path, uninterrupted, name, kill, trials, checkpoint) -> None:
    folder = tmp_path / "run"
    finish(folder, CONFIGS[name], kill)
    assert on_record(folder) == trials
    assert (folder / "checkpoint.pt").exists() == checkpoint
    finish(folder)
    assert_same(folder, uninterrupted(name))


@pytest.mark.slow
def test_killed_again_and_again(tmp_path, uninterrupted) -> None:
    """Killed in the warm-up, soon after, and between two trials, each time some way past its checkpoint."""
    folder = tmp_path / "run"
    finish(folder, INTERLEAVED, Kill(UPDATE, 4, saves=2))
    finish(folder, kill=Kill(UPDATE, 3, saves=1))
    finish(folder, kill=Kill(ADD, 2, saves=5))
    finish(folder)
    assert_same(folder, uninterrupted("interleaved"))


@pytest.mark.slow
def test_killed_from_outside(tmp_path, uninterrupted) -> None:
    """At a moment that nobody has chosen."""
    folder = tmp_path / "run"
    process = start(folder, INTERLEAVED)
    wait_for_trials(folder)
    process.kill()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    finish(folder)
    assert_same(folder, uninterrupted("interleaved"))


def wait_for_trials(folder: Path) -> None:
    end = time.monotonic() + 60
    while not (folder / RECORD).exists() or not on_record(folder):
        assert time.monotonic() < end, f"no trial came in {folder}"
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["random", "reinforce"])
@pytest.mark.parametrize(("place", "call"), [(ADD, 1), (MIDDLE, 1), (ADD, 5), (MIDDLE, 6)])
def test_resume_deterministic(tmp_path, uninterrupted, name, place, call) -> None:
    """Before a batch is recorded, and in the middle of it."""
    folder = tmp_path / "run"
    finish(folder, CONFIGS[name], Kill(place, call))
    assert not (folder / "checkpoint.pt").exists()
    assert on_record(folder) == 4 * (call - 1)
    finish(folder)
    assert_same(folder, uninterrupted(name))


def on_table(folder: Path, agent: str, **changes: Any) -> RunConfig:
    table = curves_table(folder / "table.npz")
    return RunConfig(env="NAS-Bench201-v0", task="curves", agent=agent, env_kwargs={"table": str(table)}, **changes)


@pytest.mark.slow
@pytest.mark.parametrize(("place", "call"), [(ADD, 1), (MIDDLE, 3), (ADD, 7)])
def test_resume_with_fidelities_and_a_clock(tmp_path, place, call) -> None:
    """Killed before and in the middle of a batch; the clock of simulated seconds ends the search."""
    config = on_table(tmp_path, "successive-halving", trials=500, num_envs=4, simulated_seconds=250.0)
    finish(tmp_path / "whole", config)
    finish(tmp_path / "run", config, Kill(place, call))
    finish(tmp_path / "run")
    assert_same(tmp_path / "run", tmp_path / "whole")
    rows = rows_of(tmp_path / "whole" / "trials.csv")
    assert 230 < sum(float(row["seconds"]) for row in rows) <= 250
    assert {row["fidelity"] for row in rows} == {repr(1 / 9), repr(1 / 3), ""}


@pytest.mark.slow
@pytest.mark.parametrize(("call", "finished"), [(2, 0), (40, 2), (110, 6)])
def test_resume_comparison(tmp_path, uninterrupted, call, finished) -> None:
    """Killed in the comparison: while candidates are trained, random architectures, and networks made by hand."""
    folder, parts = tmp_path / "run", tmp_path / "run" / "comparison"
    finish(folder, COMPARED, Kill("nas_gym.evaluators.training:TrainingRun._step", call))
    assert not (folder / "best.json").exists()
    done = {path: path.stat().st_mtime_ns for path in parts.glob("*_seed*.json")}
    assert len(done) >= finished
    before = (folder / "trials.csv").read_bytes()
    finish(folder)
    reference = uninterrupted("compared")
    assert_same(folder, reference)
    assert (folder / "trials.csv").read_bytes() == before
    assert all(path.stat().st_mtime_ns == time for path, time in done.items())
    assert len(list(parts.glob("*.safetensors"))) == 12
    for path in parts.glob("*.safetensors"):
        assert path.read_bytes() == (reference / "comparison" / path.name).read_bytes()
    rows, wanted = (rows_of(place / "comparison.csv") for place in (folder, reference))
    for row in (*rows, *wanted):
        del row["seconds"], row["latency"]
    assert rows == wanted


def command(*arguments: str | Path) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "nas_gym.experiments.cli.main", *map(str, arguments)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_interrupted_from_outside(tmp_path, uninterrupted) -> None:
    """Ctrl-C saves, says how to go on, and exits as interrupted programs do."""
    folder = tmp_path / "run"
    given = ["space.name:cell", "space.nodes:2", *(f"evaluator_kwargs.{name}:{value}" for name, value in TINY.items())]
    options = ["--trials", "14", "--num-envs", "4", "--seed", "3", "--retrain-epochs", "0", "--run-dir", folder]
    params = ["--params", "batch_size:6", "learning_rate:0.05"]
    schedule = [f"schedule.{name}:{value}" for name, value in SCHEDULE.items()]
    process = command("train", "--task", "digits", *options, *params, "--env-params", *given, *schedule)
    wait_for_trials(folder)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert f"nas-gym resume {folder}" in " ".join(output.split())
    assert "Traceback" not in output
    assert 4 <= len(rows_of(folder / "trials.csv")) < 14
    assert_clocks(folder)
    finish(folder)
    assert_same(folder, uninterrupted("interleaved"))


# ------------------------------------------------------------------ in one process


class Interrupting(Checksum):
    """Sends its own process a signal with the architecture of a given number."""

    def __init__(self, number: int, which: signal.Signals) -> None:
        super().__init__()
        self.number, self.which = number, which

    def evaluate(self, tokens, *, fidelity=None, parents=None):
        if len(self.asked) <= self.number < len(self.asked) + len(tokens):
            os.kill(os.getpid(), self.which)
        return super().evaluate(tokens)


@pytest.fixture(scope="module")
def deterministic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run with a deterministic evaluator."""
    folder = tmp_path_factory.mktemp("deterministic") / "run"
    make_run(folder, CONSTANT).execute()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_signals(tmp_path, deterministic, which) -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run = make_run(tmp_path / "run", CONSTANT)
    run.problem.schedule.evaluator = Interrupting(13, which)
    with pytest.raises(Interrupted):
        run.execute()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert len(rows_of(tmp_path / "run" / "trials.csv")) == 16  # the batch under way is finished
    assert not (tmp_path / "run" / "best.json").exists()
    make_run(tmp_path / "run").execute()
    assert_same(tmp_path / "run", deterministic)


def test_asked_twice_it_stops_at_once(tmp_path) -> None:
    run = make_run(tmp_path / "run", CONSTANT)
    run.problem.schedule.evaluator = Interrupting(0, signal.SIGINT)
    run.agent.tell = lambda *_: os.kill(os.getpid(), signal.SIGINT)  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        run.execute()


def cut_run(whole: Path, folder: Path, trials: int) -> None:
    """A copy of a run that was killed after so many trials."""
    folder.mkdir()
    for name in ("config.yaml", RECORD):
        (folder / name).write_bytes((whole / name).read_bytes())
    record = TrialRecord(folder)
    record.cut(trials)
    record.close()


@pytest.mark.slow
@pytest.mark.parametrize("trials", [0, 1, 17, 35])
def test_what_is_on_record_is_not_asked_again(tmp_path, deterministic, trials) -> None:
    folder = tmp_path / "run"
    cut_run(deterministic, folder, trials)
    known = read_trials(folder)
    assert len(known) == trials
    run = make_run(folder)
    asked = run.problem.schedule.evaluator.asked  # type: ignore[attr-defined]
    run.execute()
    recorded = {row.tobytes() for row in known.tokens}
    played = [row.tobytes() for row in read_trials(deterministic).tokens]
    # In its order, all that is not on record, and nothing that is.
    assert asked == [row for row in played if row not in recorded]
    for name in ("trials.csv", "best.json"):
        assert (folder / name).read_bytes() == (deterministic / name).read_bytes()
    assert_clocks(folder)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [None, 300.0], ids=["trials", "seconds"])
@pytest.mark.parametrize("agent", [name for name in AGENTS if name != "eas" and not AGENTS[name].relaxed])
def test_every_agent_goes_on_to_the_bit(tmp_path, agent, seconds) -> None:
    """On a table with learning curves, from a record that breaks off in the middle of a batch."""
    config = on_table(tmp_path, agent, trials=45, seed=2, simulated_seconds=seconds)
    whole, folder = tmp_path / "whole", tmp_path / "run"
    record = make_run(whole, config).execute()
    trials = len(read_trials(whole))
    assert trials == 45 if seconds is None else 15 <= trials <= 45
    cut_run(whole, folder, 2 * trials // 3)
    assert make_run(folder).execute() == record
    for name in ("trials.csv", "best.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert record["best"]["test_accuracy"] > 0


@pytest.mark.slow
def test_a_finished_run_resumes_to_itself(tmp_path) -> None:
    folder = tmp_path / "run"
    record = make_run(folder, CONSTANT).execute()
    trials = (folder / "trials.csv").read_bytes()
    run = make_run(folder)
    asked = run.problem.schedule.evaluator.asked  # type: ignore[attr-defined]
    assert run.execute() == record
    assert not asked
    assert (folder / "trials.csv").read_bytes() == trials


def test_recorded_evaluator() -> None:
    rng = np.random.default_rng(0)
    tokens = np.unique(BENCH.sample(rng, 40), axis=0)
    source = Checksum()
    known = source.evaluate(tokens[:20])
    rows = SearchResult(BENCH, tokens[:20], known.accuracy, known.columns())
    for chosen in ([3, 25, 3, 0, 31, 19], [25, 26], [5, 4, 3], [20, 0], [0, 20]):
        fresh = Checksum()
        found = RecordedEvaluator(rows, fresh).evaluate(tokens[chosen])
        wanted = Checksum().evaluate(tokens[chosen])
        assert found.columns().keys() == wanted.columns().keys()
        for name, column in wanted.columns().items():
            np.testing.assert_array_equal(found.columns()[name], column)
        assert fresh.asked == [tokens[index].tobytes() for index in chosen if index >= 20]
    assert not RecordedEvaluator(rows, source).stateful


def test_recorded_evaluator_tells_fidelities_apart() -> None:
    tokens = np.unique(BENCH.sample(np.random.default_rng(0), 40), axis=0)[:12]
    shares = np.array([1 / 9, 1 / 3, 1.0] * 4)
    source = CurvesEvaluator(BENCH)
    known = [source.evaluate(tokens[i : i + 1], fidelity=None if s == 1 else s) for i, s in enumerate(shares)]
    columns = {name: np.concatenate([one.columns()[name] for one in known]) for name in known[0].columns()}
    columns["fidelity"] = np.where(shares == 1, np.nan, shares)
    rows = SearchResult(BENCH, tokens, columns["accuracy"], columns)
    for share in (1 / 9, 1 / 3, None):
        fresh = CurvesEvaluator(BENCH)
        recorded = RecordedEvaluator(rows, fresh)
        assert recorded.fidelities == fresh.fidelities
        found, wanted = recorded.evaluate(tokens, fidelity=share), source.evaluate(tokens, fidelity=share)
        assert found.columns().keys() == wanted.columns().keys()
        for name, column in wanted.columns().items():
            np.testing.assert_array_equal(found.columns()[name], column)
        ((asked, with_share),) = fresh.batches
        assert with_share == share
        np.testing.assert_array_equal(asked, tokens[shares != (share or 1.0)])


# ------------------------------------------------------------------ what the folder holds


def test_trials_and_best(deterministic) -> None:
    rows = rows_of(deterministic / "trials.csv")
    assert list(rows[0]) == ["trial", "tokens", "reward", "accuracy", "failed", "parameters"]
    assert [int(row["trial"]) for row in rows] == list(range(36))
    tokens = np.array([[int(token) for token in row["tokens"].split()] for row in rows])
    truth = Checksum().evaluate(tokens)
    for name, column in truth.columns().items():
        np.testing.assert_array_equal([float(row[name]) for row in rows], column)
    rewards = np.array([float(row["reward"]) for row in rows])
    record = json.loads((deterministic / "best.json").read_text())
    assert set(record) == {"best", "comparison"}
    assert record["best"]["reward"] == rewards.max()
    trial = record["best"]["trial"]
    assert record["best"]["reward"] == rewards[trial]
    assert record["best"]["accuracy"] == truth.accuracy[trial]
    assert Architecture.from_json(json.dumps(record["best"]["architecture"])).tokens == tuple(tokens[trial])
    architecture = Architecture.from_json(json.dumps(record["best"]["architecture"]))
    assert record["best"]["text"] == str(architecture)
    assert BENCH.parse(record["best"]["text"]) == architecture
    assert record["comparison"] is None, "there is nothing to train on"
    assert load_best(deterministic).tokens == tuple(tokens[rewards.argmax()])
    assert (deterministic / "architecture.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (deterministic / "architecture.svg").read_text()
    assert not list(deterministic.glob("*.tmp*"))


def test_exports_of_long_searches_are_rare(tmp_path, monkeypatch) -> None:
    """An export of all trials takes 10 s here, and all else next to nothing."""
    seconds, exports, saves = 0.0, list[float](), list[float]()

    def clock() -> float:
        nonlocal seconds
        seconds += 1.0
        return seconds

    def export(folder: Path) -> None:
        nonlocal seconds
        exports.append(seconds)
        seconds += 10.0
        export_trials(folder)

    monkeypatch.setattr(recorder, "time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr(recorder, "export_trials", export)
    monkeypatch.setattr(TrialRecord, "sync", lambda record: saves.append(seconds))
    make_run(tmp_path / "run", replace(RANDOM, trials=1200)).execute()
    *exports_before, last = exports
    assert len(exports_before) > 2
    assert min(np.diff(exports_before)) >= 10 / recorder.EXPORT_SHARE
    assert len(saves) > 2 * len(exports), "the record and checkpoints wait for no export"
    assert last > saves[-2]
    assert len(rows_of(tmp_path / "run" / "trials.csv")) == 1200


def test_scalars(deterministic) -> None:
    shown = scalars(deterministic)
    rewards = read_trials(deterministic).rewards.astype(np.float32)
    steps = [*range(4, 40, 4)]
    assert list(shown["rollout/ep_rew_mean"]) == steps
    assert list(shown["rollout/ep_rew_mean"].values()) == pytest.approx([rewards[:step].mean() for step in steps])
    assert list(shown["search/best_reward"].values()) == pytest.approx([rewards[:step].max() for step in steps])
    unique = [len({tuple(row) for row in read_trials(deterministic).tokens[:n]}) for n in steps]
    assert list(shown["search/unique_architectures"].values()) == unique
    assert list(shown["train/policy_loss"]) == [8, 16, 24, 32]  # every second batch of 4 completes an update of 6
    assert min(shown["time/fps"].values()) > 0


@pytest.mark.slow
def test_scalars_of_shared_weights(uninterrupted) -> None:
    shown = scalars(uninterrupted("interleaved"))
    # One step for each of the warm-up; then one a batch of 4, after its 2 updates; the last batch is 4 as well.
    assert list(shown["weights/loss"]) == [1, 2, 3, 4, 5, 6, 8, 10, 12, 14]
    assert list(shown["weights/agreement"]) == [6, 14], "at the end of the warm-up, and of the run"
    assert all(0 < loss < 10 for loss in shown["weights/loss"].values())
    assert {"train/policy_loss", "rollout/ep_rew_mean", "search/best_reward"} <= shown.keys()
    assert "pending_steps" not in shown


@pytest.mark.slow
def test_weights(uninterrupted) -> None:
    """The file holds all of a network that anyone can build again; it scores on the test split as was reported."""
    from safetensors import safe_open

    from nas_gym.evaluators import make_evaluator
    from nas_gym.networks import make_network
    from nas_gym.tasks import make_task

    folder = uninterrupted("compared")
    record = json.loads((folder / "best.json").read_text())
    task = make_task("digits", seed=COMPARED.seed, train_limit=100)
    with safe_open(folder / "best.safetensors", framework="pt") as file:
        architecture = Architecture.from_json(file.metadata()["architecture"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    assert architecture == Architecture.from_json(json.dumps(record["best"]["architecture"]))
    assert load_best(folder) == architecture
    settings = make_evaluator("shared-weights", architecture.space, "digits", TINY).settings.network(task.input_shape)
    network = make_network(architecture, task.image_shape, task.num_classes, settings, seed=99)
    network.load_state_dict(weights)
    network.eval()
    right = network(task.normalise(task.test.inputs)).argmax(dim=1) == task.test.targets
    rows = [row for row in rows_of(folder / "comparison.csv") if row["role"] == "found"]
    best = max(rows, key=lambda row: float(row["valid_accuracy"]))
    assert float(best["test_accuracy"]) == pytest.approx(right.double().mean().item(), abs=1e-12)
    assert float(best["parameters"]) == sum(parameter.numel() for parameter in network.parameters())
    assert record["best"]["test_accuracy"] == np.mean([float(row["test_accuracy"]) for row in rows])


@pytest.mark.slow
def test_the_test_split_is_told_by_the_comparison_alone(uninterrupted) -> None:
    folder = uninterrupted("compared")
    assert "test" not in (folder / "trials.csv").read_text()
    assert not [tag for tag in scalars(folder) if "test" in tag]


@pytest.mark.slow
def test_random_architectures_do_not_depend_on_the_search(tmp_path, monkeypatch) -> None:
    """Here agents propose one architecture again and again."""
    space = {"name": "bench201", "nodes": 3}
    config = replace(
        RANDOM, trials=3, task="curves", env_kwargs={"space": space, "table": str(curves_table(tmp_path / "t.npz"))}
    )
    drawn = []
    for number, tokens in enumerate(([0, 0, 0], [4, 2, 1])):
        run = Run(tmp_path / str(number), config, Console(quiet=True))
        monkeypatch.setattr(run.agent, "ask", lambda n, a=run.agent, row=tokens: a.propose(np.array([row] * n)))
        assert run.execute()["best"]["architecture"]["tokens"] == tokens
        drawn.append([row.architecture for row in run.comparison.rows if row.role == "random"])
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == config.compare_random


@pytest.mark.slow
def test_the_seed_makes_the_trials(tmp_path, deterministic) -> None:
    for folder, seed in ((tmp_path / "same", 5), (tmp_path / "other", 6)):
        make_run(folder, replace(CONSTANT, seed=seed)).execute()
        same = (folder / "trials.csv").read_bytes() == (deterministic / "trials.csv").read_bytes()
        assert same == (seed == 5)


# ------------------------------------------------------------------ files


def test_the_best_of_a_table_with_operations_of_its_own(tmp_path) -> None:
    config = RunConfig(env="NAS-BenchGraph-v0", task="proteins", agent="random", trials=20)
    run = make_run(tmp_path / "run", config)
    run.execute()
    assert load_best(tmp_path / "run") == run.agent.result.best
    assert load_best(tmp_path / "run").space != make_space("bench_graph")


def test_config_holds_every_setting_as_resolved(tmp_path) -> None:
    """A run can be understood from that file alone, and neither it nor the code may change what it says."""
    run = make_run(tmp_path / "run", ENAS)
    run.execute()
    text = (tmp_path / "run" / "config.yaml").read_text()
    found = yaml.safe_load(text)
    resolved = found.pop("resolved")
    assert found == asdict(ENAS)
    assert read_config(tmp_path / "run") == ENAS
    assert resolved["hyperparameters"] == json.loads(json.dumps(asdict(run.agent.hyperparameters)))
    assert resolved["hyperparameters"]["batch_size"] == 6
    assert make_space(resolved["space"]) == BENCH
    assert (resolved["num_envs"], resolved["objective"]["name"]) == (4, "likelihood")
    assert resolved["evaluator"]["settings"]["channels"] == TINY["channels"]
    assert (resolved["evaluator"]["task"]["name"], resolved["evaluator"]["seed"]) == ("digits", ENAS.seed)
    assert (resolved["schedule"]["name"], resolved["schedule"]["steps_per_phase"]) == ("EnasSchedule", 4)
    assert resolved["comparison"] is None
    kept, edited = text.split("resolved:")
    (tmp_path / "run" / "config.yaml").write_text(
        f"{kept}resolved:{edited.replace('batch_size: 16', 'batch_size: 17')}"
    )
    with pytest.raises(ValueError, match=r"resolved evaluator\.settings\.batch_size: 17 became 16"):
        make_run(tmp_path / "run").execute()


def test_tensorboard_has_the_best_architecture_and_the_settings(tmp_path) -> None:
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    run = make_run(tmp_path / "run", replace(CONSTANT, trials=6))
    run.execute()
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    (picture,) = events.Images("search/best_architecture")
    assert Image.open(io.BytesIO(picture.encoded_image_string)).size == (picture.width, picture.height)
    assert picture.step == 6
    (text,) = events.Tensors("config/text_summary")
    assert (tmp_path / "run" / "config.yaml").read_text().encode() in text.tensor_proto.string_val[0]
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    values = HParamsPluginData.FromString(content).session_start_info.hparams
    assert values["learning_rate"].number_value == 0.05
    assert values["agent"].string_value == "reinforce"


def test_config_round_trip(tmp_path) -> None:
    config = RunConfig(
        env="NAS-Bench201-v0",
        agent="random",
        trials=7,
        task="digits",
        seed=11,
        device="cpu",
        data_dir="somewhere",
        download=True,
        num_envs=3,
        env_kwargs={"evaluator": "constant", "evaluator_kwargs": {"accuracy": 0.25}, "schedule": {"name": "enas"}},
        hyperparameters={},
        retrain_epochs=2,
        simulated_seconds=None,
    )
    (tmp_path / "config.yaml").write_text(config_text(config))
    assert read_config(tmp_path) == config
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == asdict(config)


@pytest.mark.parametrize(
    "text",
    [
        "just words",
        "- a\n- list",
        "env: [1,",
        "environment: NAS-Cell-v0",
        "trials: many",
        "trials: null",
        "seed: 1.5",
        "env_kwargs: 3",
        "hyperparameters: [1]",
        "env: [1]",
        "agent: {a: 1}",
        "",
        "\udcff",
    ],
)
def test_corrupt_config(tmp_path, text) -> None:
    (tmp_path / "config.yaml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"config\.yaml|must|unknown"):
        Run(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("trials", 0, "trials must be an integer of at least 1, got 0"),
        ("trials", "3", "trials must be an integer of at least 1, got '3'"),
        ("num_envs", 0, "num_envs must be an integer of at least 1, got 0"),
        ("retrain_epochs", -1, "retrain_epochs must be an integer of at least 0, got -1"),
        ("seed", -1, r"seed must be an integer in \[0, 2\*\*63\), got -1"),
        ("simulated_seconds", 0, "simulated_seconds must be a positive number, got 0"),
        ("simulated_seconds", "1", "simulated_seconds must be a positive number, got '1'"),
        ("env", "NAS-Nothing-v0", "unknown environment 'NAS-Nothing-v0'; known: NAS-Cell-v0"),
        ("agent", "nobody", "unknown agent 'nobody'; known: random"),
        ("env_kwargs", "a", "env_kwargs must be a mapping of names to values, got 'a'"),
    ],
)
def test_config_is_checked(field, value, message) -> None:
    with pytest.raises(ValueError, match=message):
        RunConfig(**{field: value})


def test_folders(tmp_path, deterministic) -> None:
    with pytest.raises(ValueError, match="already holds a run; go on with it by `nas-gym resume`"):
        make_run(deterministic, CONSTANT)
    for empty in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(ValueError, match=r"holds no run: there is no config\.yaml in it"):
            make_run(empty)
        with pytest.raises(ValueError, match="holds no run"):
            load_best(empty)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env_kwargs": {"evaluator": "constant", "colour": 1}}, "NAS-Bench201-v0' cannot be made with .*colour"),
        ({"env_kwargs": {"evaluator": "nobody"}}, "unknown evaluator 'nobody'"),
        ({"env_kwargs": {"space": "nowhere"}}, "unknown space 'nowhere'"),
        ({"hyperparameters": {"speed": 1}}, r"agent 'reinforce' has no hyperparameter 'speed'"),
        ({"env": "CartPole-v1"}, "environment 'CartPole-v1' cannot be made"),
        ({"simulated_seconds": 5.0}, "needs an evaluator with the metric 'seconds'.*the metrics here are none"),
        ({"agent": "successive-halving", "hyperparameters": {}}, "needs an evaluator with fidelities"),
    ],
)
def test_what_cannot_be_run_leaves_nothing_behind(tmp_path, changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_run(tmp_path / "run", replace(CONSTANT, **changes))
    assert not (tmp_path / "run").exists()
