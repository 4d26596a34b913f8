"""Looking architectures up: values, fidelity, noise, the simulated clock, and what reports ask for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from nas_gym.envs.construction import ConstructionEnv
from nas_gym.evaluators import make_evaluator
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.spaces import Bench201Space, make_space
from nas_gym.tables import Table, TaskTable, class_rows, open_table, save_table

SPACE = Bench201Space(nodes=3)  # 125 sequences
ROWS, CLASSES = class_rows(SPACE)
MISSING = 7  # a row without any training
R = len(CLASSES)


def content() -> TaskTable:
    rng = np.random.default_rng(3)
    valid, test = rng.random((2, R, 3, 2))
    valid[:4, 1] = np.nan
    valid[4, :2, 1] = np.nan
    valid[MISSING] = test[MISSING] = np.nan
    return TaskTable(
        valid=valid,
        test=test,
        epochs=(2, 10),
        seconds=rng.random(R),
        validation_seconds=rng.random(R),
        parameters=np.arange(R),
        latency=rng.random(R),
    )


WANTED = content()


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Table:
    path = tmp_path_factory.mktemp("tables") / "t.npz"
    seconds = np.random.default_rng(0).random((R, 3))
    second = TaskTable(valid=WANTED.valid[:, :, 1:], epochs=(5,), seconds=seconds)
    save_table(path, SPACE, ROWS, {"first": WANTED, "second": second}, {})
    return open_table(path)


def known_tokens() -> np.ndarray:
    tokens = SPACE.enumerate()
    return tokens[ROWS[SPACE.index(tokens)] != MISSING]


def row_of(sequence: np.ndarray) -> int:
    """By the canonical text, without the index."""
    text = SPACE.canonical(SPACE.architecture(sequence))
    (row,) = (i for i, first in enumerate(CLASSES) if SPACE.canonical(SPACE.architecture(first)) == text)
    return row


def test_values(table) -> None:
    evaluator = TabularEvaluator(SPACE, table=table, task="first")
    assert not evaluator.stateful
    tokens = known_tokens()
    found = evaluator.evaluate(tokens)
    assert not found.failed.any()
    assert list(found.metrics) == ["epochs", "seconds", "parameters", "latency"]
    for i in range(0, len(tokens), 9):
        row = row_of(tokens[i])
        assert found.accuracy[i] == pytest.approx(np.nanmean(WANTED.valid[row, :, 1]), abs=1e-15)
        assert found.metrics["epochs"][i] == 10
        assert found.metrics["seconds"][i] == pytest.approx(10 * WANTED.seconds[row] + WANTED.validation_seconds[row])
        assert found.metrics["parameters"][i] == row
        assert found.metrics["latency"][i] == WANTED.latency[row]
    one = evaluator.evaluate(tokens[5:6])
    assert one.accuracy[0] == found.accuracy[5]


def test_architectures_that_the_table_does_not_have(table) -> None:
    evaluator = TabularEvaluator(SPACE, table=table, task="first")
    tokens = np.stack([CLASSES[0], CLASSES[MISSING], CLASSES[1]])
    found = evaluator.evaluate(tokens)
    assert found.failed.tolist() == [False, True, False]
    assert found.accuracy[1] == 0.0
    assert found.reasons == ("", "the table does not have it", "")
    assert found.metrics["parameters"].tolist() == [0, MISSING, 1]
    assert np.isnan(evaluator.test(tokens)).tolist() == [False, True, False]
    assert evaluator.rank(tokens)[1] == R


def test_epochs_and_fidelity(table) -> None:
    tokens = known_tokens()
    late = TabularEvaluator(SPACE, table=table, task="first")
    early = TabularEvaluator(SPACE, table=table, task="first", epochs=2)
    assert (early.epochs, late.epochs) == (2, 10)
    few = early.evaluate(tokens)
    assert few.metrics["epochs"].tolist() == [2.0] * len(tokens)
    assert (few.metrics["seconds"] < late.evaluate(tokens).metrics["seconds"]).all()
    assert not np.array_equal(few.accuracy, late.evaluate(tokens).accuracy)
    for fidelity, epochs in [(1.0, 10), (0.61, 10), (0.59, 2), (0.2, 2), (0.01, 2)]:
        found = late.evaluate(tokens, fidelity=fidelity)
        wanted = {2: few, 10: late.evaluate(tokens)}[epochs]
        assert np.array_equal(found.accuracy, wanted.accuracy)
        assert np.array_equal(found.metrics["seconds"], wanted.metrics["seconds"])
    for fidelity in (0.0, 1.1, np.nan):
        with pytest.raises(ValueError, match=r"fidelity must be in \(0, 1\]"):
            late.evaluate(tokens, fidelity=fidelity)


# ------------------------------------------------------------------ noise


def test_draws_are_trainings_that_exist(table) -> None:
    tokens = CLASSES[np.arange(R) != MISSING]
    rows = np.flatnonzero(np.arange(R) != MISSING)
    drawn = np.array(
        [
            TabularEvaluator(SPACE, table=table, task="first", noise="seed", seed=seed).evaluate(tokens).accuracy
            for seed in range(300)
        ]
    )
    for place, row in enumerate(rows):
        there = WANTED.valid[row, ~np.isnan(WANTED.valid[row, :, 1]), 1]
        values, counts = np.unique(drawn[:, place], return_counts=True)
        assert values.tolist() == sorted(there)  # all of them, and nothing else
        assert counts.min() > 300 / len(there) / 2
    # Architectures draw apart from each other: no run favours one training everywhere.
    third = drawn[:, 10] == WANTED.valid[rows[10], 2, 1]
    other = drawn[:, 20] == WANTED.valid[rows[20], 2, 1]
    assert abs(np.corrcoef(third, other)[0, 1]) < 0.2


def test_draws_are_pure(table) -> None:
    tokens = known_tokens()
    evaluator = TabularEvaluator(SPACE, table=table, task="first", noise="seed", seed=5)
    first = evaluator.evaluate(tokens).accuracy
    order = np.random.default_rng(0).permutation(len(tokens))
    assert np.array_equal(evaluator.evaluate(tokens[order]).accuracy, first[order])
    again = TabularEvaluator(SPACE, table=table, task="first", noise="seed", seed=5)
    assert np.array_equal(np.concatenate([again.evaluate(row[None]).accuracy for row in tokens]), first)
    # Isomorphic architectures are one training.
    rows = ROWS[SPACE.index(tokens)]
    assert all(len(set(first[rows == row])) == 1 for row in set(rows))


def test_seconds_of_the_drawn_training(table) -> None:
    seconds = table.array("second", "seconds")
    evaluator = TabularEvaluator(SPACE, table=table, task="second", noise="seed", seed=1)
    found = evaluator.evaluate(CLASSES[20:])
    for place, row in enumerate(range(20, R)):
        (seed,) = np.flatnonzero(WANTED.valid[row, :, 1] == found.accuracy[place])
        assert found.metrics["seconds"][place] == pytest.approx(5 * seconds[row, seed])
    mean = TabularEvaluator(SPACE, table=table, task="second").evaluate(CLASSES[20:])
    np.testing.assert_allclose(mean.metrics["seconds"], 5 * seconds[20:].mean(axis=1))


# ------------------------------------------------------------------ reports


def test_test_accuracy(table) -> None:
    tokens = known_tokens()
    for noise in ("mean", "seed"):
        evaluator = TabularEvaluator(SPACE, table=table, task="first", epochs=2, noise=noise)
        rows = ROWS[SPACE.index(tokens)]
        np.testing.assert_allclose(evaluator.test(tokens), WANTED.test[rows, :, 1].mean(axis=1))
        np.testing.assert_allclose(evaluator.test(tokens, epochs=2), WANTED.test[rows, :, 0].mean(axis=1))
        with pytest.raises(ValueError, match="epochs 3 are not recorded"):
            evaluator.test(tokens, epochs=3)
        with pytest.raises(ValueError, match="not legal"):
            evaluator.test(np.full((1, 3), 9))
    with pytest.raises(ValueError, match="no test accuracies for task 'second'"):
        TabularEvaluator(SPACE, table=table, task="second").test(tokens)


def test_the_search_never_reads_the_test_split(table, monkeypatch) -> None:
    read = []
    array = Table.array
    monkeypatch.setattr(Table, "array", lambda table, task, name: read.append(name) or array(table, task, name))
    evaluator = TabularEvaluator(SPACE, table=table, task="first", noise="seed")
    evaluator.evaluate(known_tokens(), fidelity=0.3)
    evaluator.evaluate(SPACE.enumerate())
    assert evaluator.optimum > evaluator.random > evaluator.worst
    evaluator.rank(known_tokens())
    assert "valid" in read
    assert "test" not in read


def test_references(table) -> None:
    for noise in ("mean", "seed"):
        evaluator = TabularEvaluator(SPACE, table=table, task="first", noise=noise)
        tokens = known_tokens()
        means = np.array([np.nanmean(WANTED.valid[ROWS[i], :, 1]) for i in SPACE.index(tokens)])
        assert evaluator.optimum == pytest.approx(means.max())
        assert evaluator.worst == pytest.approx(means.min())
        assert evaluator.random == pytest.approx(means.mean())
        assert evaluator.normalised_score(evaluator.random) == pytest.approx(0.0)
        assert evaluator.normalised_score([evaluator.optimum]) == pytest.approx([1.0])
        assert evaluator.normalised_regret(np.array([means.min(), means.max()])) == pytest.approx([1.0, 0.0])
        best = WANTED.test[np.arange(R) != MISSING, :, 1].mean(axis=1).max()
        assert evaluator.normalised_score(best, split="test") == pytest.approx(1.0)


def test_rank(table) -> None:
    evaluator = TabularEvaluator(SPACE, table=table, task="first")
    by_row = [np.nanmean(WANTED.valid[row, :, 1]) if row != MISSING else -1 for row in range(R)]
    wanted = [1 + sum(other > mine for other in by_row) for mine in by_row]
    assert evaluator.rank(CLASSES).tolist() == wanted
    tokens = known_tokens()
    best = tokens[evaluator.evaluate(tokens).accuracy.argmax()]
    assert evaluator.rank(best[None]).tolist() == [1]


# ------------------------------------------------------------------ making


def test_makes_from_path_and_table(table) -> None:
    for given in (table, table.path, str(table.path)):
        evaluator = make_evaluator("table", SPACE, "first", {"table": given})
        assert isinstance(evaluator, TabularEvaluator)
        assert evaluator.optimum == TabularEvaluator(SPACE, table=table, task="first").optimum


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "third"}, r"task 'third' is not in table .*t\.npz; tasks: first, second"),
        ({}, "task None is not in table"),
        ({"task": "first", "epochs": 3}, "epochs 3 are not recorded for task 'first'; recorded: 2, 10"),
        ({"task": "first", "noise": "gaussian"}, "noise must be one of 'mean', 'seed'; got 'gaussian'"),
    ],
)
def test_arguments_are_checked(table, arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TabularEvaluator(SPACE, table=table, **arguments)


def test_spaces_are_checked(table) -> None:
    with pytest.raises(ValueError, match=r"table .*t\.npz is of the space Bench201Space.*, not of SizeSpace"):
        TabularEvaluator(make_space("size"), table=table, task="first")
    with pytest.raises(ValueError, match="space 'size' has no table of its own"):
        TabularEvaluator(make_space("size"), task="first")
    # Of the same kind, the table's fields hold.
    assert TabularEvaluator(make_space("bench201"), table=table, task="first").space == SPACE


def test_environments(table) -> None:
    """The reward of an episode is the table's accuracy, in the scalar and in the native vector environment."""
    evaluator = TabularEvaluator(SPACE, table=table, task="first")
    tokens = known_tokens()[::11]
    wanted = evaluator.evaluate(tokens)
    kwargs = {"table": str(table.path)}
    env = ConstructionEnv(SPACE, evaluator="table", task="first", evaluator_kwargs=kwargs)
    for row, sequence in enumerate(tokens):
        env.reset()
        for choice in sequence:
            _, reward, _, _, info = env.step(choice)
        assert reward == wanted.accuracy[row]
        assert info["evaluation"]["seconds"] == wanted.metrics["seconds"][row]
    envs = gym.make_vec(
        "NAS-Bench201-v0", num_envs=len(tokens), space=SPACE, evaluator="table", task="first", evaluator_kwargs=kwargs
    )
    envs.reset()
    for position in range(SPACE.length):
        _, rewards, _, _, _ = envs.step(tokens[:, position])
    assert np.array_equal(rewards, wanted.accuracy)


def test_needs_no_torch(table) -> None:
    code = f"""
import sys, numpy as np
from nas_gym.evaluators import make_evaluator
from nas_gym.tables import Table
space = Table({str(table.path)!r}).space
make_evaluator("table", space, "first", {{"table": {str(table.path)!r}}}).evaluate(np.zeros((1, 3), dtype=np.int64))
print("torch" in sys.modules)
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path("/"), check=False)
    assert finished.stdout.strip() == "False", finished.stderr
