"""The table builder: what it trains, that it can be killed, and that workers do not matter."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nas_gym.agents.cli import _seed_classes, main
from nas_gym.evaluators.training import TrainingSettings, fit
from nas_gym.networks import NetworkSettings, make_network
from nas_gym.spaces import PRESETS, Bench201Space
from nas_gym.tables import builder
from nas_gym.tables.builder import BuildSettings, Shard, build, columns, shards, train_class
from nas_gym.tables.table import Table, class_rows

SPACE = Bench201Space(nodes=3, operations=("none", "skip_connect", "nor_conv_1x1"))
SETTINGS = BuildSettings(
    task="digits",
    image_size=None,
    train_images=60,
    score_images=40,
    network=NetworkSettings(channels=4, reductions=1),
    training=TrainingSettings(epochs=2, batch_size=20, record=("valid", "test")),
)


def results(folder: Path) -> dict[tuple[str, str], str]:
    """All that is on file but the clocks, by seed and class."""
    found = {}
    for path in folder.glob("seed*/*.csv"):
        for line in path.read_text().splitlines()[1:]:
            cells = line.split(",")
            found[path.parent.name, cells[0]] = ",".join(cells[1:-3] + cells[-2:])
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "table.npz"
    return build(SPACE, out, SETTINGS, seeds={0: None, 1: 5}, workers=1)


def test_every_class_is_trained_once(built: Path) -> None:
    rows, representatives = class_rows(SPACE)
    table = Table(built).task("digits")
    assert table.valid.shape == (len(representatives), 2, 2)
    assert not np.isnan(table.valid[:, 0]).any()
    assert (~np.isnan(table.valid[:, 1, 0])).sum() == 5, "the second seed covers a part"
    assert table.test is not None
    assert (np.isnan(table.test) == np.isnan(table.valid)).all()
    assert set(rows.tolist()) == set(range(len(representatives)))


def test_a_row_is_what_training_alone_gives(built: Path) -> None:
    _, representatives = class_rows(SPACE)
    table, task = Table(built).task("digits"), SETTINGS.make_task()
    for row in (0, len(representatives) - 1):
        network = make_network(SPACE.architecture(representatives[row]), task.image_shape, 10, SETTINGS.network, 0)
        (curve,) = fit([network], task, SETTINGS.training, seeds=[0])
        np.testing.assert_allclose(table.valid[row, 0], curve.accuracy["valid"], atol=1e-6)
        assert table.parameters is not None
        assert table.parameters[row] == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.slow
def test_workers_do_not_matter(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "SHARD", 3)
    build(SPACE, tmp_path / "table.npz", SETTINGS, seeds={0: None, 1: 5}, workers=2)
    assert results(tmp_path / "table.shards") == results(built.with_suffix(".shards"))


def _train_until_killed(shard: Shard, after: int) -> None:
    torch.set_num_threads(1)
    calls = 0
    train = builder.train_class

    def counting(*arguments: object) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls > after:
            os.kill(os.getpid(), signal.SIGKILL)
        return train(*arguments)  # type: ignore[arg-type]

    builder.train_class = counting  # type: ignore[assignment]
    builder.build_shard(SPACE, class_rows(SPACE)[1], shard, SETTINGS, SETTINGS.make_task())


@pytest.mark.slow
def test_a_killed_build_goes_on(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "table.shards"
    (shard,) = shards(folder, len(class_rows(SPACE)[1]), 0)
    process = multiprocessing.get_context("spawn").Process(target=_train_until_killed, args=(shard, 4))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(shard.done(columns(2))) == 4
    with shard.path.open("a") as file:
        file.write("7,0.1,0.")  # a line cut off in the middle
    trained = []

    def counting(*arguments: object) -> dict[str, float]:
        trained.append(arguments)
        return train_class(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(builder, "train_class", counting)
    builder.build_shard(SPACE, class_rows(SPACE)[1], shard, SETTINGS, SETTINGS.make_task())
    assert len(trained) == len(shard.classes) - 4, "nothing is trained twice"
    expected = {key: row for key, row in results(built.with_suffix(".shards")).items() if key[0] == "seed0"}
    assert results(folder) == expected


def test_other_settings_are_refused(built: Path) -> None:
    other = dataclasses.replace(SETTINGS, train_images=50)
    with pytest.raises(ValueError, match="holds shards of other settings"):
        build(SPACE, built, other, seeds={0: None}, workers=1)


def test_seeds_share_their_order(tmp_path: Path) -> None:
    whole, part = shards(tmp_path, 250, 0), shards(tmp_path, 250, 1, 120)
    assert [len(shard.classes) for shard in whole] == [100, 100, 50]
    assert [number for shard in part for number in shard.classes] == [n for s in whole for n in s.classes][:120]


def test_a_failed_training_is_not_a_number() -> None:
    task = SETTINGS.make_task()
    diverging = dataclasses.replace(SETTINGS, training=dataclasses.replace(SETTINGS.training, learning_rate=1e30))
    row = train_class(SPACE, [2, 2, 2], task, diverging, 0)
    assert all(np.isnan(row[name]) for name in columns(2) if name.startswith(("valid", "test")))
    assert row["parameters"] > 0


@pytest.mark.slow
def test_the_command(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "table.npz"
    monkeypatch.setattr("nas_gym.spaces.PRESETS", {**PRESETS, "tiny": SPACE})
    settings = ["image_size:null", "train_images:60", "score_images:40", "network.channels:4", "network.reductions:1"]
    settings += ["training.epochs:2", "training.batch_size:20", "training.learning_rate:0.05"]
    settings += ["training.augment:true"]
    command = ["nas-gym", "table", "build", "--out", str(out), "--space", "tiny", "--task", "digits", "--workers", "1"]
    monkeypatch.setattr(sys, "argv", [*command, "--seeds", "0", "1:5", "--settings", *settings])
    main()
    made, expected = Table(out).task("digits"), Table(built).task("digits")
    np.testing.assert_array_equal(made.valid, expected.valid)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 3}, r"BuildSettings has no field \['epochs'\]; fields: image_size"),
        ({"training": {"epoch": 3}}, r"TrainingSettings has no field \['epoch'\]; fields: augment"),
        ({"training": {"epochs": 0}}, "epochs must be at least 1, got 0"),
    ],
)
def test_settings_that_do_not_exist_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BuildSettings.from_dict(values)


@pytest.mark.parametrize("text", ["x", "0:", "0:x", "-1", ""])
def test_seeds_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected SEED or SEED:CLASSES"):
        _seed_classes(text)
