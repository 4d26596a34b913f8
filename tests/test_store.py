"""The store of evaluations: to the bit, never across settings, with many writers, and through SIGKILL."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_gym.evaluators import Evaluations, EvaluationStore, Evaluator, FunctionEvaluator, StoredEvaluator
from nas_gym.evaluators.cost import CostEvaluator
from nas_gym.evaluators.evaluator import concatenate
from nas_gym.evaluators.from_scratch import FromScratchEvaluator
from nas_gym.evaluators.shared_weights import SharedWeightEvaluator
from nas_gym.evaluators.store_file import FORMAT
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.evaluators.task_evaluator import TaskEvaluator
from nas_gym.experiments.cli.app import console
from nas_gym.experiments.cli.main import main
from nas_gym.spaces import Bench201Space, CellSpace, SizeSpace, Tokens, make_space
from nas_gym.tasks import make_task

SPACE = Bench201Space()


class Counter(Evaluator):
    """Counts what it is asked; its results depend on the tokens and the fidelity, and every third one fails."""

    fidelities = (0.25, 0.5, 1.0)

    def __init__(self, settings: Any = 0, reason: str = "diverged") -> None:
        super().__init__(SPACE)
        self.settings, self.reason = settings, reason
        self.asked: list[tuple[tuple[int, ...], float | None]] = []

    def fingerprint(self) -> dict[str, Any]:
        return {"evaluator": "counter", "settings": self.settings}

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        self.asked += [(tuple(row), fidelity) for row in tokens.tolist()]
        index = self.space.index(tokens)
        failed = index % 3 == 0
        accuracy = np.where(failed, np.nan, index / 15625 * (fidelity or 1.0))
        metrics = {"seconds": np.sqrt(index), "loss": np.where(failed, np.nan, 1.0 / (index + 1))}
        return Evaluations(accuracy, metrics, failed, tuple(self.reason if bad else "" for bad in failed))


def sample(n: int, seed: int = 0) -> Tokens:
    return SPACE.sample(np.random.default_rng(seed), n)


def assert_equal(first: Evaluations, second: Evaluations) -> None:
    """Equal to the bit, and in the order of the metrics, which is that of the columns of trials.csv."""
    assert list(first.metrics) == list(second.metrics)
    for name, column in first.columns().items():
        assert column.tobytes() == second.columns()[name].tobytes(), name
    assert first.reasons == second.reasons


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "evaluations.sqlite"


# ------------------------------------------------------------------ what comes back


def test_answers_are_the_evaluators_own_and_nothing_is_evaluated_twice(path: Path) -> None:
    inner, tokens = Counter(), sample(40)
    tokens = np.concatenate([tokens, tokens[:7]])
    expected = Counter().evaluate(tokens)
    stored = StoredEvaluator(inner, path)
    assert_equal(stored.evaluate(tokens), expected)
    assert len(inner.asked) == len(set(inner.asked)) == len(np.unique(tokens, axis=0)) == len(stored.store)
    assert_equal(stored.evaluate(tokens[::-1]), expected.rows(slice(None, None, -1)))
    again = StoredEvaluator(Counter(), path)
    assert_equal(again.evaluate(tokens), expected)
    assert again.evaluator.asked == []
    assert (again.found, again.evaluated) == (47, 0)


def test_known_and_new_ones_in_one_batch(path: Path) -> None:
    stored = StoredEvaluator(Counter(), path)
    tokens = sample(9)
    stored.evaluate(tokens[1::2])
    stored.evaluator.asked.clear()
    assert_equal(stored.evaluate(tokens), Counter().evaluate(tokens))
    assert [asked for asked, _ in stored.evaluator.asked] == [tuple(row) for row in tokens[::2].tolist()]
    assert (stored.found, stored.evaluated) == (4, 9)


def test_fidelities_are_kept_apart_and_the_nearest_is_one(path: Path) -> None:
    stored, tokens = StoredEvaluator(Counter(), path), sample(5)
    for fidelity in (None, 0.25, 0.5, 1.0, 0.3, 0.9):
        nearest = {0.3: 0.25, 0.9: None, 1.0: None}.get(fidelity, fidelity)
        evaluations = stored.evaluate(tokens, fidelity=fidelity)
        np.testing.assert_array_equal(evaluations.accuracy[~evaluations.failed] > 0, True)
        if nearest == fidelity:
            assert_equal(evaluations, Counter().evaluate(tokens, fidelity=fidelity))
    assert len(stored.evaluator.asked) == 15, "0.3 is answered as 0.25, 0.9 and 1 as in full"


NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


@pytest.mark.slow
@given(
    accuracy=st.floats(allow_nan=False, allow_infinity=False).map(lambda value: value + 0.0),  # no -0.0 in SQLite
    metrics=st.dictionaries(st.text(max_size=5), NUMBERS, max_size=3),
    failed=st.booleans(),
    reason=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20),
)
@settings(max_examples=60, deadline=None)
def test_numbers_keep_every_bit(
    tmp_path_factory: pytest.TempPathFactory,
    accuracy: float,
    metrics: dict[str, float],
    failed: bool,
    reason: str,
) -> None:
    store = EvaluationStore(tmp_path_factory.getbasetemp() / "bits.sqlite")
    series = store.series(SPACE, {"example": len(store)})
    columns = {name: np.array([value]) for name, value in metrics.items()}
    given_ = Evaluations(
        np.array([np.nan if failed else accuracy]), columns, np.array([failed]), (reason if failed else "",)
    )
    store.write(series, sample(1), given_)
    (found,) = store.read(series, sample(1))
    store.close()
    assert found is not None
    assert found.reasons == given_.reasons
    assert found.failed.tolist() == [failed]
    assert list(found.metrics) == list(metrics)
    for name, column in given_.columns().items():
        np.testing.assert_array_equal(np.signbit(found.columns()[name]), np.signbit(np.nan_to_num(column)))
        np.testing.assert_array_equal(found.columns()[name], column)


def test_joined_parts_need_not_have_the_same_metrics() -> None:
    first = Evaluations(np.array([0.5]), {"flops": np.array([3.0])})
    second = Evaluations(np.array([0.0]), {"loss": np.array([2.0])}, np.array([True]), ("diverged",))
    both = concatenate([first, second])
    np.testing.assert_array_equal(both.metrics["flops"], [3.0, np.nan])
    np.testing.assert_array_equal(both.metrics["loss"], [np.nan, 2.0])
    assert (both.failed.tolist(), both.reasons) == ([False, True], ("", "diverged"))
    assert len(concatenate([])) == 0


def test_failures_of_the_machine_are_told_but_not_stored(path: Path) -> None:
    tokens = sample(30)
    for reason, expected in (("out of memory", 0), ("worker lost 3 times", 0), ("diverged", 1)):
        inner = Counter(settings=reason, reason=reason)
        stored = StoredEvaluator(inner, path)
        assert_equal(stored.evaluate(tokens), inner.evaluate(tokens))
        failed = int((inner.evaluate(tokens).failed).sum())
        inner.asked.clear()
        stored.evaluate(tokens)
        assert len(inner.asked) == (0 if expected else failed)
    assert [series.failed for series in stored.store.all_series()] == [0, 0, failed]


def test_the_first_of_two_stays(path: Path) -> None:
    store = EvaluationStore(path)
    series = store.series(SPACE, {})
    for accuracy in (0.25, 0.75):
        store.write(series, sample(1), Evaluations(np.array([accuracy])))
    (found,) = store.read(series, sample(1))
    assert found is not None
    assert found.accuracy.tolist() == [0.25]
    assert len(store) == 1


def test_parts_are_stored_as_they_come(path: Path) -> None:
    """An evaluator that fails in the middle of a batch loses nothing of what it has told before."""

    class Broken(Counter):
        def evaluate_in_parts(self, tokens: Tokens, *, fidelity: float | None = None) -> Any:
            yield tokens[3:5], self.evaluate(tokens[3:5])
            raise KeyboardInterrupt

    tokens = np.unique(sample(9), axis=0)
    with pytest.raises(KeyboardInterrupt):
        StoredEvaluator(Broken(), path).evaluate(tokens)
    stored = StoredEvaluator(Counter(), path)
    assert_equal(stored.evaluate(tokens), Counter().evaluate(tokens))
    assert (stored.found, stored.evaluated) == (2, len(tokens) - 2)


@pytest.mark.slow
def test_trainings_are_stored_one_by_one_on_a_cpu(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a killed search finds those that had ended, equal to the bit, whatever was trained before them."""

    def made() -> FromScratchEvaluator:
        training = {"epochs": 1, "batch_size": 64}
        return FromScratchEvaluator(SPACE, "digits", training=training, train_images=64, score_images=64)

    tokens = np.unique(sample(5), axis=0)
    expected = made().evaluate(tokens)
    broken, count = made(), 0
    evaluate = broken.evaluate

    def cut_off(part: Tokens, **arguments: Any) -> Evaluations:
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return evaluate(part, **arguments)

    monkeypatch.setattr(broken, "evaluate", cut_off)
    with pytest.raises(KeyboardInterrupt):
        StoredEvaluator(broken, path).evaluate(tokens)
    stored = StoredEvaluator(CostEvaluator(made()), path.with_name("other"))  # whose parts are those of what it wraps
    assert stored.evaluator.part_size == 1
    stored = StoredEvaluator(made(), path)
    assert_equal(stored.evaluate(tokens), expected)
    assert (stored.found, stored.evaluated) == (3, len(tokens) - 3)


def test_an_empty_batch_and_parents_are_the_evaluators_own(path: Path) -> None:
    stored = StoredEvaluator(Counter(), path)
    assert list(stored.evaluate(sample(0)).metrics) == ["seconds", "loss"]
    stored.evaluate(sample(2), parents=sample(2))
    assert len(stored.store) == 0


def test_a_search_is_the_same_with_a_store(path: Path) -> None:
    from nas_gym.agents import RegularizedEvolution

    def search(evaluator: Evaluator) -> Any:
        env = gym.make_vec("NAS-Bench201-v0", num_envs=4, evaluator=evaluator)
        return RegularizedEvolution(env, 3, {"population_size": 10, "sample_size": 3}).learn(60)

    plain = search(TabularEvaluator(SPACE, task="fashion-mnist"))
    for found in (0, 60):
        evaluator = StoredEvaluator(TabularEvaluator(SPACE, task="fashion-mnist"), path)
        with_store = search(evaluator)
        np.testing.assert_array_equal(with_store.tokens, plain.tokens)
        np.testing.assert_array_equal(with_store.rewards, plain.rewards)
        assert list(with_store.metrics) == list(plain.metrics)
        assert evaluator.found >= found
    assert evaluator.evaluated == 0
    assert evaluator.unwrapped is evaluator.evaluator


# ------------------------------------------------------------------ never across settings


def tables() -> list[Evaluator]:
    arguments: list[dict[str, Any]] = [
        {},
        {"epochs": 1},
        {"noise": "seed"},
        {"noise": "seed", "seed": 1},
    ]
    return [TabularEvaluator(SPACE, task="fashion-mnist", **given_) for given_ in arguments]


@dataclasses.dataclass(frozen=True)
class Settings:
    epochs: int = 1


class Trainer(TaskEvaluator):
    """As evaluators that train on a task have it, without the training."""

    name = "trainer"
    Settings = Settings

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        return Evaluations(np.full(len(tokens), self.seed / 10))


def trainers() -> list[Evaluator]:
    import torch

    task = make_task("digits", seed=0)
    splits = {name: getattr(task, name) for name in ("train", "valid", "test")}
    smaller = {name: dataclasses.replace(split, inputs=split.inputs[..., 1:, :]) for name, split in splits.items()}
    first = torch.arange(500)
    changed = [
        make_task("digits", seed=1),
        dataclasses.replace(task, name="other"),
        dataclasses.replace(task, train=task.train.take(first)),
        dataclasses.replace(task, valid=task.valid.take(first[:50])),
        dataclasses.replace(task, augmentation=dataclasses.replace(task.augmentation, cutout=3)),
        dataclasses.replace(task, **smaller),
    ]
    return [
        Trainer(SPACE, task),
        Trainer(SPACE, task, epochs=2),
        Trainer(SPACE, task, seed=1),
        *(Trainer(SPACE, other) for other in changed),
    ]


def costs() -> list[Evaluator]:
    inner = SharedWeightEvaluator(SPACE, "digits", channels=4)
    return [
        CostEvaluator(inner),
        CostEvaluator(inner, metrics=("flops",)),
        CostEvaluator(inner, limits={"flops": 1e6}),
        CostEvaluator(SharedWeightEvaluator(SPACE, "digits", channels=5)),
    ]


def functions() -> list[Evaluator]:
    return [
        FunctionEvaluator(SPACE, accuracy=0.1),
        FunctionEvaluator(SPACE, accuracy=0.2),
        FunctionEvaluator(SPACE, lambda tokens: tokens[:, 0] / 9, name="first"),
        FunctionEvaluator(SPACE, lambda tokens: tokens[:, 1] / 9, name="second"),
    ]


@pytest.mark.parametrize("make", [tables, trainers, costs, functions])
def test_each_setting_has_a_fingerprint_of_its_own_and_keeps_it(path: Path, make: Any) -> None:
    store = EvaluationStore(path)
    numbers = [store.series(evaluator.space, evaluator.fingerprint()) for evaluator in make()]
    assert len(set(numbers)) == len(numbers)
    assert [store.series(evaluator.space, evaluator.fingerprint()) for evaluator in make()] == numbers
    assert store.series(CellSpace(), make()[0].fingerprint()) not in numbers, "another space"
    for evaluator in make():
        assert json.loads(json.dumps(evaluator.fingerprint()))


def test_a_fingerprint_tells_of_versions() -> None:
    import torch

    import nas_gym

    told = Trainer(SPACE, "digits").fingerprint()
    assert told["versions"] == {"nas_gym": nas_gym.__version__, "torch": torch.__version__}
    assert told["device"] == "cpu"


def test_a_table_is_known_by_its_content(tmp_path: Path) -> None:
    from nas_gym.tables import TaskTable, save_table

    space = SizeSpace()
    rows = np.zeros(space.size, dtype=np.int32)
    checksums = []
    for name, accuracy in (("a", 0.5), ("b", 0.5), ("c", 0.25)):
        tasks = {"task": TaskTable(valid=np.full((1, 1, 1), accuracy, dtype=np.float32))}
        save_table(tmp_path / name, space, rows, tasks, {})
        checksums.append(TabularEvaluator(space, table=tmp_path / name).fingerprint()["table"])
    assert checksums[0] == checksums[1] != checksums[2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SharedWeightEvaluator(SPACE, "digits"), r"SharedWeightEvaluator is stateful"),
        (lambda: FunctionEvaluator(SPACE, lambda tokens: tokens[:, 0] / 9), r"FunctionEvaluator needs a name"),
        (lambda: Counter(settings={1, 2}), r"a fingerprint must be JSON-serialisable"),
        (lambda: Counter(settings=math.nan), r"a fingerprint must be JSON-serialisable"),
        (lambda: NoFingerprint(SPACE), r"NoFingerprint has no fingerprint, without which"),
    ],
)
def test_what_has_no_results_of_its_own_is_refused(path: Path, make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StoredEvaluator(make(), path)


class NoFingerprint(Evaluator):
    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        return Evaluations(np.zeros(len(tokens)))


def test_measured_latency_is_refused() -> None:
    inner = Trainer(SPACE, "digits")
    inner.new_network = None  # type: ignore[attr-defined]  # only that it has one
    with pytest.raises(ValueError, match=r"latency is measured anew in every search"):
        CostEvaluator(inner, metrics=("latency",)).fingerprint()


# ------------------------------------------------------------------ the file


@pytest.mark.parametrize("content", [b"", b"trial,tokens\n" * 100, "sqlite", "later"])
def test_a_file_of_another_kind_is_refused_and_left_alone(path: Path, content: Any) -> None:
    if content == "sqlite":
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE evaluation (x)")
        connection.close()
    elif content == "later":
        EvaluationStore(path).close()
        with sqlite3.connect(path) as connection:
            connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
        connection.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(
        ValueError, match=r"evaluations.sqlite' is .*format" if content == "later" else "not an evaluation store"
    ):
        EvaluationStore(path)
    assert path.read_bytes() == before


def test_it_is_in_wal_mode_and_alone_in_its_folder(path: Path) -> None:
    store = EvaluationStore(path.parent / "made" / "folder" / "store.sqlite")
    assert store._fetch("PRAGMA journal_mode") == [("wal",)]
    store.close()
    assert [file.name for file in store.path.parent.iterdir()] == ["store.sqlite"]


def test_a_copy_by_pickle_has_a_connection_of_its_own(path: Path) -> None:
    store = EvaluationStore(path)
    copied = pickle.loads(pickle.dumps(store))
    copied.write(copied.series(SPACE, {}), sample(1), Evaluations(np.array([0.5])))
    assert len(store) == 1


def test_info_and_rows(path: Path) -> None:
    stored = StoredEvaluator(Counter(settings={"seed": 4}), path)
    tokens = np.unique(sample(6), axis=0)
    stored.evaluate(tokens)
    stored.evaluate(tokens[:2], fidelity=0.25)
    (series,) = stored.store.all_series()
    failed = Counter().evaluate(tokens).failed
    assert (series.evaluations, series.failed) == (len(tokens) + 2, failed.sum() + failed[:2].sum())
    assert series.fingerprint == {"evaluator": "counter", "settings": {"seed": 4}}
    assert make_space(series.space) == SPACE
    found = {(choices, share): evaluation for choices, share, evaluation in stored.store.all_evaluations(series.number)}
    for row in tokens:
        assert_equal(found[tuple(row.tolist()), 1.0], Counter().evaluate(row[None]))


# ------------------------------------------------------------------ the command


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Calls `nas-gym store`; the exit code, and what was printed."""

    def call(*arguments: Any) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["nas-gym", "store", *map(str, arguments)])
        monkeypatch.setattr(console, "width", 200)
        code = 0
        try:
            main()
        except SystemExit as error:
            code = int(error.code or 0)
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call


def test_info_tells_the_settings(path: Path, command: Any) -> None:
    StoredEvaluator(Counter(settings={"learning_rate": 0.125}), path).evaluate(sample(30))
    StoredEvaluator(TabularEvaluator(SPACE, task="fashion-mnist"), path).evaluate(sample(4))
    code, output = command("info", path)
    assert code == 0
    held = EvaluationStore(path)
    assert f"{len(held)} evaluations" in output
    for word in ("learning_rate: 0.125", "task: fashion-mnist", "evaluator: table", "bench201"):
        assert word in output
    first = held.all_series()[0]
    assert f"│ 1      │ {first.evaluations}          │ {first.failed}" in output
    assert 0 < first.failed < first.evaluations


def test_export_reads_back_to_the_bit(path: Path, tmp_path: Path, command: Any) -> None:
    tokens = np.unique(sample(30), axis=0)
    StoredEvaluator(Counter(), path).evaluate(tokens)
    out = tmp_path / "out.csv"
    code, output = command("export", path, "--out", out)
    assert (code, output.splitlines()[0]) == (0, f"wrote {out}, {len(tokens)} evaluations")
    with out.open(newline="") as file:
        rows = {row["tokens"]: row for row in csv.DictReader(file)}
    expected = Counter().evaluate(tokens)
    for number, choices in enumerate(tokens.tolist()):
        row = rows[" ".join(map(str, choices))]
        assert SPACE.parse(row["architecture"]).tokens == tuple(choices)
        for name, column in expected.columns().items():
            np.testing.assert_array_equal(float(row[name] or "nan"), column[number])
        assert (row["reason"], row["fidelity"]) == (expected.reasons[number], "1.0")


def test_an_export_is_a_table_to_import(path: Path, tmp_path: Path, command: Any) -> None:
    from nas_gym.tables.importers import import_csv

    table = TabularEvaluator(SPACE, task="fashion-mnist")
    StoredEvaluator(table, path).evaluate(SPACE.enumerate()[::50])
    command("export", path, "--out", tmp_path / "out.csv")
    tasks = {"fashion-mnist": {"valid": "accuracy"}}
    made = import_csv(tmp_path / "out.csv", tmp_path / "made.npz", "bench201", tasks=tasks, partial=True)
    tokens = SPACE.enumerate()[::50]
    np.testing.assert_array_equal(
        TabularEvaluator(SPACE, table=made).evaluate(tokens).accuracy, table.evaluate(tokens).accuracy
    )


def test_the_command_refuses_what_is_not_there(path: Path, command: Any) -> None:
    assert command("info", path) == (2, f"nas-gym: there is no store {str(path)!r}\n")
    assert not path.exists()
    for settings_ in (1, 2):
        StoredEvaluator(Counter(settings_), path)
    for given_ in ([], ["--evaluator", "3"]):
        code, output = command("export", path, *given_)
        assert code == 2
        assert "evaluator must be one of 1, 2; got" in output


# ------------------------------------------------------------------ many processes

WRITER = textwrap.dedent(
    """
    import sys
    import numpy as np
    from nas_gym.evaluators import EvaluationStore, Evaluations
    from nas_gym.spaces import Bench201Space

    path, first, last = sys.argv[1], *map(int, sys.argv[2:])
    space = Bench201Space()
    store = EvaluationStore(path)
    series = store.series(space, {"test": True})
    tokens = space.enumerate()[first:last]
    for row in tokens:
        index = space.index(row[None])
        store.write(series, row[None], Evaluations(index / 15625, {"index": index.astype(float)}))
        print(int(index[0]), flush=True)
    """
)


def writer(path: Path, first: int, last: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(first), str(last)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def contents(path: Path) -> dict[int, float]:
    """What the store holds, by index; a row that does not fit together does not pass."""
    store = EvaluationStore(path)
    assert store._fetch("PRAGMA integrity_check") == [("ok",)]
    (series,) = store.all_series()
    held: dict[int, float] = {}
    for choices, _, evaluation in store.all_evaluations(series.number):
        index = int(SPACE.index(np.array([choices]))[0])
        assert index not in held
        assert evaluation.metrics["index"].tolist() == [index]
        held[index] = float(evaluation.accuracy[0])
        assert held[index] == index / 15625
    return held


@pytest.mark.slow
def test_processes_that_write_at_once_lose_and_double_nothing(path: Path) -> None:
    """They begin with making the file, and a third of what each writes the next one writes too."""
    ranges = [(0, 300), (200, 500), (400, 700)]
    running = [writer(path, *bounds) for bounds in ranges]
    for process in running:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert sorted(contents(path)) == list(range(700))


@pytest.mark.slow
def test_a_killed_process_loses_nothing_that_it_has_told(path: Path) -> None:
    told: set[int] = set()
    for first in (0, 1000, 2000):
        process = writer(path, first, first + 1000)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(50 + first // 100)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
        process.wait()
        assert process.returncode == -signal.SIGKILL, "it was in the middle of its work"
        told |= {int(line) for line in lines if line.endswith("\n")}
    held = contents(path)
    assert told <= set(held)
    assert len(held) <= len(told) + 3, "of each at most the one that was written but not told"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_does_not_share_the_connection(path: Path) -> None:
    store = EvaluationStore(path)
    series = store.series(SPACE, {"test": True})
    tokens = SPACE.enumerate()[:200]

    def write(rows: Tokens) -> None:
        for row in rows:
            index = SPACE.index(row[None])
            store.write(series, row[None], Evaluations(index / 15625, {"index": index.astype(float)}))

    child = os.fork()
    if child == 0:
        try:
            write(tokens[:150])
            os._exit(0)
        finally:
            os._exit(1)
    write(tokens[50:])
    assert os.waitpid(child, 0)[1] == 0
    assert sorted(contents(path)) == list(range(200))
