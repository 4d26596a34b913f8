"""Tables, stores and image folders that are damaged or were made to do harm."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from benchmarks.attacks import images, stores, tables
from benchmarks.attacks.outcome import Attack
from nas_gym.evaluators import EvaluationStore, FunctionEvaluator, StoredEvaluator
from nas_gym.evaluators.from_scratch import FromScratchEvaluator
from nas_gym.tasks import make_task
from nas_gym.tasks.folders import common_size

ATTACKS: list[Attack] = [
    partial(tables.flips, tries=40),
    partial(tables.truncations, tries=10),
    tables.hostile,
    partial(stores.flips, tries=60),
    partial(stores.truncations, tries=10),
    stores.changed_rows,
    stores.locked,
    stores.read_only,
    stores.deleted,
    stores.upgraded,
    images.special,
    images.links,
    images.content,
    partial(images.truncations, tries=14),
    images.large,
    images.duplicates,
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_survived(attack: Attack, tmp_path: Path) -> None:
    outcome = attack(tmp_path, np.random.default_rng(0))
    assert outcome.survived, outcome
    assert outcome.tries


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"curves/valid": (0, 5.0)}, r"'curves/valid' is not one of a table: valid must be in \[0, 1\].* it holds 5.0"),
        ({"curves/test": (4, -3.0)}, r"'curves/test' .*must be in \[0, 1\], NaN where unknown; it holds -3.0"),
        ({"rows": (2, -5)}, r"'rows' .*rows must be in \[-1, 27\), the rows of the other arrays; it holds -5"),
        ({"rows": (2, 27)}, r"'rows' .*it holds 27"),
        ({"curves/flops": (2, -7.5)}, r"'curves/flops' .*flops must be positive and finite.*; it holds -7.5"),
    ],
)
def test_the_array_and_the_value_are_named(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "small.npz"
    tables.save_small(path)
    metadata, arrays = tables.members(path)
    for key, (place, value) in change.items():
        arrays[key].flat[place] = value
    tables.rewrite(path, metadata, arrays)
    with pytest.raises(ValueError, match=rf"small\.npz: array {message}"):
        tables.play(path)


def test_an_array_that_unpacks_to_more_than_memory_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "small.npz"
    tables.save_small(path)
    monkeypatch.setattr("nas_gym.tables.table.MEMBER_BYTES", 600)
    with pytest.raises(ValueError, match=r"small\.npz: array .* cannot be read: it is of [\d,]+ bytes; up to 600"):
        tables.play(path)


# ------------------------------------------------------------------ stores


@pytest.fixture
def path(tmp_path: Path) -> Path:
    stores.save_small(tmp_path / "small.sqlite")
    return tmp_path / "small.sqlite"


@contextlib.contextmanager
def write_lock(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection


def test_a_lock_is_told_and_waited_for(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas_gym.evaluators.store_file.PATIENCE", 0.05)
    with write_lock(path) as connection, caplog.at_level(logging.WARNING, "nas_gym"):
        stored = StoredEvaluator(stores.Known(stores.SPACE), EvaluationStore(path, timeout=30.0))
        threading.Timer(0.3, connection.rollback).start()
        found = stored.evaluate(stores.tokens())
    assert stores.plain(found) == stores.plain(stores.Known(stores.SPACE).evaluate(stores.tokens()))
    assert len(stored.store) == stores.STORED + stores.ASKED
    (told,) = caplog.messages
    assert told == f"store {path} is locked by another process; waiting for it, up to 30 s"


def test_a_lock_is_waited_for_no_longer_than_the_timeout(path: Path) -> None:
    with write_lock(path):
        store = EvaluationStore(path, timeout=0.05)
        evaluations = stores.Known(stores.SPACE).evaluate(stores.tokens())
        with pytest.raises(ValueError, match=r"small\.sqlite' is still locked by .* after 0\.05 s; .*store_timeout"):
            store.write(1, stores.tokens(), evaluations)
    store.write(1, stores.tokens(), evaluations)


@pytest.mark.parametrize("timeout", [-1, "long", True, float("nan")])
def test_a_timeout_is_a_number_of_seconds(tmp_path: Path, timeout: object) -> None:
    from nas_gym.experiments.run import RunConfig

    with pytest.raises(ValueError, match="timeout must be a number of seconds of at least 0, got"):
        EvaluationStore(tmp_path / "store", timeout=timeout)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="store_timeout must be a number of seconds of at least 0, got"):
        RunConfig(store_timeout=timeout)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_store_that_cannot_be_written_answers_and_says_so_once(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By SQLite's own switch, so that it is the same for root."""
    store = EvaluationStore(path)
    store._file.run(lambda connection: connection.execute("PRAGMA query_only = 1"))
    with caplog.at_level(logging.WARNING, "nas_gym"):
        stored = StoredEvaluator(stores.Known(stores.SPACE), store)
        for _ in range(2):
            found = stored.evaluate(stores.tokens())
        other = StoredEvaluator(FunctionEvaluator(stores.SPACE), store)  # of which it knows nothing
        assert other.evaluate(stores.tokens()).accuracy.tolist() == [0.5] * stores.ASKED
    assert stores.plain(found) == stores.plain(stores.Known(stores.SPACE).evaluate(stores.tokens()))
    assert stored.found == 2 * stores.STORED
    assert caplog.messages == [f"store {path} cannot be written: it is read, but new evaluations are not kept"]


def test_a_store_of_format_1_is_upgraded_with_every_row(path: Path) -> None:
    before = stores.listing(path)
    stores.downgrade(path)
    assert stores.listing(path) == before
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        assert connection.execute("SELECT count(*) FROM evaluation WHERE checksum IS NULL").fetchone() == (0,)
    stores.downgrade(path)
    with write_lock(path), pytest.raises(ValueError, match="still locked by"):
        EvaluationStore(path, timeout=0.05)
    assert stores.listing(path) == before, "an upgrade that was put off lost nothing"


def test_a_row_is_that_which_was_asked_for(path: Path) -> None:
    """A byte of one row at which SQLite answered with another: the same architecture at another fidelity."""
    data, place = bytearray(path.read_bytes()), -1
    wrong = 0
    while (place := data.find(b"3 3 0 2 2 0", place + 1)) >= 0:
        damaged = bytearray(data)
        damaged[place + 3] ^= 128
        other = path.with_name(f"{place}.sqlite")
        other.write_bytes(damaged)
        with contextlib.suppress(ValueError):
            wrong += stores.search(other) != stores.search(path.with_name("fresh.sqlite"))
    assert wrong == 0


# ------------------------------------------------------------------ image folders


@pytest.mark.parametrize(
    ("sizes", "common"),
    [
        ([(480, 640)] * 3, (480, 640)),  # all alike: as they are
        ([(9400, 9400), (8, 10), (6, 12), (8, 11)], (8, 11)),
        ([(8, 10), (8, 11), (6, 12), (9400, 9400)], (8, 11)),  # in any order
        ([(480, 640), (480, 640), (481, 640)], (48, 64)),
        ([(1, 5000), (2, 5000), (1, 5000)], (1, 64)),
    ],
)
def test_the_size_of_images_of_different_sizes(sizes: list[tuple[int, int]], common: tuple[int, int]) -> None:
    assert common_size(sizes) == common


def test_all_images_together_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images.save_folder(tmp_path, np.random.default_rng(0))
    monkeypatch.setattr("nas_gym.tasks.folders.TASK_BYTES", 24 * 3 * 8 * 8 - 1)
    with pytest.raises(ValueError, match=r"24 images of 8x8 pixels, .*a/00\.png .* take 4,608 bytes; .*image_size"):
        make_task(f"folder:{tmp_path}")
    assert make_task(f"folder:{tmp_path}", image_size=7).image_shape == (3, 7, 7)


def test_duplicates_are_named_and_can_be_allowed_in_an_environment(tmp_path: Path) -> None:
    files = images.save_folder(tmp_path, np.random.default_rng(0), ("train", "test"))
    files[-1].write_bytes(files[2].read_bytes())
    arguments = {"task": f"folder:{tmp_path}", "evaluator": "from-scratch", "disable_env_checker": True}
    with pytest.raises(ValueError, match=f"{files[2]} and {files[-1]} are the same image.*allow_duplicates"):
        gym.make("NAS-Bench201-v0", **arguments)
    options = {"allow_duplicates": True, "image_size": 6}
    env = gym.make("NAS-Bench201-v0", **arguments, evaluator_kwargs={"task_kwargs": options})
    assert env.unwrapped.evaluator.task.image_shape == (3, 6, 6)


@pytest.mark.parametrize("options", [{"picture_size": 3}, {"seed": 1}, 5, ["image_size"]])
def test_options_of_a_task_are_checked(options: object) -> None:
    with pytest.raises(
        ValueError, match=r"task_kwargs must map arguments|cannot be made with the options .*picture_size"
    ):
        FromScratchEvaluator(stores.SPACE, "digits", task_kwargs=options)
