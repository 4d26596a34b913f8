"""Runs have one writer and a record that nobody can corrupt unnoticed."""

from __future__ import annotations

import json
import multiprocessing
import os
import sqlite3
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks.attacks import runs
from nas_gym import locks
from nas_gym.agents import Proposal, SearchResult, make_agent
from nas_gym.experiments.run.config import RunConfig
from nas_gym.experiments.run.record import (
    RECORD,
    DamagedRecordError,
    TrialRecord,
    read_rows,
    repair,
)
from nas_gym.experiments.run.run import Run
from nas_gym.experiments.run.trials import read_trials
from nas_gym.files import load_tensors, read_json, replacing, save_tensors, write_json
from nas_gym.locks import FolderLock, FolderLockedError
from nas_gym.spaces import make_space

BENCH = make_space("bench201")
ORIGIN = {"space": BENCH.to_dict(), "config": {"seed": 3}}
CONFIG = RunConfig(
    env="NAS-Bench201-v0", agent="random", trials=12, num_envs=4, seed=5, env_kwargs={"evaluator": "constant"}
)


def trials(count: int, seed: int = 0) -> SearchResult:
    rng = np.random.default_rng(seed)
    loss = np.where(rng.random(count) < 0.3, np.nan, rng.random(count) * 1e-300)
    failed = (rng.random(count) < 0.2).astype(float)
    return SearchResult(BENCH, BENCH.sample(rng, count), rng.random(count), {"failed": failed, "loss": loss})


def opened(folder: Path, *batches: int) -> TrialRecord:
    TrialRecord.create(folder, ORIGIN)
    record = TrialRecord(folder)
    for number, count in enumerate(batches):
        record.add(trials(count, number), float(number))
    return record


def states(folder: Path) -> list[tuple[str, str]]:
    connection = sqlite3.connect(folder / RECORD)
    found = connection.execute("SELECT tokens, state FROM unfinished").fetchall()
    connection.close()
    return found


# ------------------------------------------------------------------ the record


def test_what_is_added_is_read_to_the_bit(tmp_path: Path) -> None:
    opened(tmp_path, 3, 4).close()
    read = read_rows(tmp_path / RECORD).trials(BENCH)
    parts = [trials(3, 0), trials(4, 1)]
    np.testing.assert_array_equal(read.result.tokens, np.concatenate([part.tokens for part in parts]))
    np.testing.assert_array_equal(read.result.rewards, np.concatenate([part.rewards for part in parts]))
    for name in ("failed", "loss"):
        expected = np.concatenate([part.metrics[name] for part in parts])
        np.testing.assert_array_equal(read.result.metrics[name], expected)
    assert read.seconds.tolist() == [0.0] * 3 + [1.0] * 4
    assert not (tmp_path / f"{RECORD}-wal").exists()


def test_metrics_that_come_later_are_missing_before(tmp_path: Path) -> None:
    record = opened(tmp_path, 1)
    record.add(SearchResult(BENCH, trials(1).tokens, np.zeros(1), {"latency": np.ones(1)}), 1.0)
    record.close()
    metrics = read_rows(tmp_path / RECORD).trials(BENCH).result.metrics
    np.testing.assert_array_equal(metrics["latency"], [np.nan, 1.0])
    assert np.isnan(metrics["failed"][1])


def test_states(tmp_path: Path) -> None:
    record = opened(tmp_path)
    new = trials(4)
    record.begin(Proposal(np.arange(4), new.tokens))
    assert [state for _, state in states(tmp_path)] == ["running"] * 4
    record.add(new.rows(slice(0, 3)), 1.0)
    assert len(states(tmp_path)) == 1
    record.close()
    TrialRecord(tmp_path).close()  # as after a kill
    assert states(tmp_path) == [(" ".join(map(str, new.tokens[3].tolist())), "stopped")]
    kept = [row[1] for row in read_rows(tmp_path / RECORD).rows]
    assert kept == ["failed" if failed else "complete" for failed in new.metrics["failed"][:3]]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE trial SET reward = 0.99 WHERE number = 2",
        "UPDATE trial SET tokens = '0 0 0 0 0 0' WHERE number = 2",
        "UPDATE trial SET metrics = '{}' WHERE number = 2",
        "UPDATE trial SET seconds = 7 WHERE number = 2",
        "UPDATE trial SET state = 'complete' WHERE state = 'failed'",
        "DELETE FROM trial WHERE number = 2",
        "DELETE FROM trial WHERE number = 6",
        "INSERT INTO trial SELECT 7, state, tokens, 7e99, metrics, seconds, checksum FROM trial WHERE number = 6",
        "UPDATE head SET trials = 5",
        "UPDATE head SET checkpoint = 3",
        "UPDATE head SET origin = replace(origin, '3', '4')",
        "DELETE FROM head",
        "DROP TABLE trial",
    ],
)
def test_what_is_changed_is_refused(tmp_path: Path, change: str) -> None:
    opened(tmp_path, 7).close()
    with sqlite3.connect(tmp_path / RECORD) as connection:
        connection.execute(change)
    connection.close()
    with pytest.raises(DamagedRecordError, match=r"trials\.db' is damaged: .* nas-gym resume --repair"):
        read_rows(tmp_path / RECORD)


def test_the_sound_trials_of_a_damaged_record_are_kept(tmp_path: Path) -> None:
    opened(tmp_path, 7).close()
    with sqlite3.connect(tmp_path / RECORD) as connection:
        connection.execute("UPDATE trial SET reward = 7e99 WHERE number = 4")
    connection.close()
    assert repair(tmp_path, ORIGIN) == 4
    assert (tmp_path / "trials.damaged.db").exists()
    kept = read_rows(tmp_path / RECORD).trials(BENCH).result
    np.testing.assert_array_equal(kept.rewards, trials(7).rewards[:4])
    assert repair(tmp_path, ORIGIN) == 4  # which is sound


def test_a_run_is_repaired(tmp_path: Path) -> None:
    Run(tmp_path / "whole", CONFIG, Console(quiet=True)).execute()
    Run(tmp_path / "run", CONFIG, Console(quiet=True)).execute()
    with sqlite3.connect(tmp_path / "run" / RECORD) as connection:
        connection.execute("UPDATE trial SET reward = 7e99 WHERE number = 6")
    connection.close()
    with pytest.raises(DamagedRecordError, match="its first 6 trials are sound"):
        Run(tmp_path / "run", console=Console(quiet=True)).execute()
    Run(tmp_path / "run", console=Console(quiet=True), repair=True).execute()
    assert (tmp_path / "run" / "trials.csv").read_bytes() == (tmp_path / "whole" / "trials.csv").read_bytes()


def test_a_second_opening_takes_over(tmp_path: Path) -> None:
    first = opened(tmp_path, 2)
    TrialRecord(tmp_path).close()
    with pytest.raises(ValueError, match="taken over by another process"):
        first.add(trials(1), 1.0)
    assert len(read_rows(tmp_path / RECORD).rows) == 2


def test_a_run_that_does_not_repeat_itself_is_refused(tmp_path: Path) -> None:
    Run(tmp_path / "run", CONFIG, Console(quiet=True)).execute()
    record = TrialRecord(tmp_path / "run")
    other = trials(1).rows(slice(0, 1))
    record.cut(5)
    record.add(SearchResult(BENCH, other.tokens, other.rewards, {"failed": np.zeros(1), "accuracy": np.ones(1)}), 1.0)
    record.close()
    with pytest.raises(ValueError, match=r"trial 5 of .* when it is played again"):
        Run(tmp_path / "run", console=Console(quiet=True)).execute()


def test_a_record_without_its_config_is_not_overwritten(tmp_path: Path) -> None:
    Run(tmp_path / "run", CONFIG, Console(quiet=True)).execute()
    (tmp_path / "run" / "config.yaml").unlink()
    with pytest.raises(ValueError, match="holds a record of trials without its config"):
        Run(tmp_path / "run", CONFIG, Console(quiet=True))
    assert len(read_rows(tmp_path / "run" / RECORD).rows) == 12


def test_a_change_that_was_broken_off_is_put_right(tmp_path: Path) -> None:
    """Killed in the middle of a transaction outside of WAL, which leaves a journal to roll back."""
    opened(tmp_path, 5).close()
    child = os.fork()
    if child == 0:
        connection = sqlite3.connect(tmp_path / RECORD, isolation_level=None)
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("PRAGMA cache_spill = 1")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE trial SET reward = 7e99")
        filler = [("1 " * 5000, "running")] * 50  # more than the cache holds
        connection.executemany("INSERT INTO unfinished VALUES (?, ?)", filler)
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert (tmp_path / f"{RECORD}-journal").exists()
    np.testing.assert_array_equal(read_rows(tmp_path / RECORD).trials(BENCH).result.rewards, trials(5).rewards)


# ------------------------------------------------------------------ files


def test_files_with_flipped_bits_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = {"accuracy": 0.625, "rows": [1, 2, 3], "text": "a"}
    write_json(tmp_path / "a.json", values)
    whole = (tmp_path / "a.json").read_bytes()
    for bit in rng.integers(8 * len(whole), size=200).tolist():
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "a.json").write_bytes(bytes(damaged))
        with pytest.raises(ValueError, match=r"a\.json' is damaged, or was changed"):
            assert read_json(tmp_path / "a.json") != values


def test_agents_of_unsound_state_are_refused(tmp_path: Path) -> None:
    agent = make_agent("random", "NAS-Bench201-v0")
    agent.learn(10)
    agent.save(tmp_path / "agent.pt")
    saved = load_tensors(tmp_path / "agent.pt")
    for name, value in (
        ("tokens", saved["state"]["tokens"] + 9),
        ("tokens", saved["state"]["tokens"][:, :3]),
        ("rewards", saved["state"]["rewards"][:5]),
        ("rewards", saved["state"]["rewards"] * float("nan")),
        ("rewards", [0.5]),
    ):
        save_tensors(tmp_path / "agent.pt", {**saved, "state": {**saved["state"], name: value}})
        with pytest.raises(ValueError, match=r"agent\.pt' holds no sound state of an agent 'random'"):
            type(agent).load(tmp_path / "agent.pt", "NAS-Bench201-v0")


def test_errors_of_the_disk_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No space left on device: '.*target\.txt'"), replacing(tmp_path / "target.txt"):
        raise OSError(28, "No space left on device")


# ------------------------------------------------------------------ locks


def hold(folder: Path, ready: object, seconds: float) -> None:
    with FolderLock(folder):
        ready.set()  # type: ignore[attr-defined]
        time.sleep(seconds)


def test_one_writer(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=hold, args=(tmp_path, ready, 60.0))
    process.start()
    assert ready.wait(60)
    with pytest.raises(FolderLockedError, match=f"is in use: process {process.pid} on machine {locks.machine()}"):
        FolderLock(tmp_path).__enter__()
    process.kill()
    process.join()
    # The lock has died with its process.
    with FolderLock(tmp_path), pytest.raises(FolderLockedError, match=f"process {os.getpid()}"):
        FolderLock(tmp_path).__enter__()
    assert json.loads((tmp_path / "lock.json").read_text()) == {}


def test_a_heartbeat_of_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is touched is of a process that lives; one that is not was left behind."""
    monkeypatch.setattr(locks, "HEARTBEAT", 0.1)
    path = tmp_path / "lock.json"
    path.write_text(json.dumps({"process": 7, "machine": "elsewhere", "since": "2026-01-01 00:00:00"}))
    with FolderLock(tmp_path):
        assert json.loads(path.read_text())["process"] == os.getpid()
    path.write_text(json.dumps({"process": 7, "machine": "elsewhere", "since": "2026-01-01 00:00:00"}))
    sleep = time.sleep

    def touch(seconds: float) -> None:
        sleep(seconds)
        os.utime(path)

    monkeypatch.setattr(time, "sleep", touch)
    with pytest.raises(FolderLockedError, match="process 7 on machine elsewhere"):
        FolderLock(tmp_path).__enter__()


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    try:
        with FolderLock(tmp_path):
            pass
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


# ------------------------------------------------------------------ attacks


ATTACKS = {
    "kills": partial(runs.killed, agents=("reinforce",)),
    "two writers": partial(runs.two_writers, tries=2),
    "damages": partial(runs.damaged, flips=25, cuts=5),
    "exports": partial(runs.exports, tries=5),
    "changed configurations": runs.changed_configs,
    "a full disk": partial(runs.full_disk, tries=3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_on_runs_are_survived(tmp_path: Path, name: str) -> None:
    outcome = ATTACKS[name](tmp_path, np.random.default_rng(0))
    assert outcome.survived, outcome
    assert outcome.tries
    if name == "exports":
        assert read_trials(tmp_path / "whole").space == BENCH
