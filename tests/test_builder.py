"""The table builder: what it trains, that it can be killed, and that workers do not matter."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from nas_gym.evaluators.training import TrainingSettings, fit
from nas_gym.experiments.cli.main import main
from nas_gym.experiments.cli.tables import _seed_classes
from nas_gym.networks import NetworkBatch, NetworkSettings, make_network
from nas_gym.spaces import PRESETS, Bench201Space
from nas_gym.tables import builder
from nas_gym.tables.builder import BuildSettings, Shard, build, build_shards, columns, shards, train_classes
from nas_gym.tables.table import Table, class_rows
from nas_gym.tasks import Task

pytestmark = pytest.mark.slow  # tables are built, or networks trained, for all of the tests together


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
    """All that is on file but the clocks and the checksums, by seed and class."""
    found = {}
    for path in folder.glob("seed*/*.csv"):
        for line in path.read_text().splitlines()[1:]:
            cells = line.split(",")[:-1]
            found[path.parent.name, cells[0]] = ",".join(cells[1:-3] + cells[-2:])
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "table.npz"
    return build(SPACE, out, SETTINGS, seeds={0: None, 1: 5}, workers=1, device="cpu")


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


def test_workers_do_not_matter(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "SHARD", 3)
    build(SPACE, tmp_path / "table.npz", SETTINGS, seeds={0: None, 1: 5}, workers=2, device="cpu")
    assert results(tmp_path / "table.shards") == results(built.with_suffix(".shards"))


def _train_until_killed(shard: Shard, after: int) -> None:
    torch.set_num_threads(1)
    calls = 0
    train = builder.train_classes

    def counting(*arguments: object) -> tuple[list[dict[str, float]], int]:
        nonlocal calls
        calls += 1
        if calls > after:
            os.kill(os.getpid(), signal.SIGKILL)
        return train(*arguments)  # type: ignore[arg-type]

    builder.train_classes = counting  # type: ignore[assignment]
    build_shards(SPACE, class_rows(SPACE)[1], [shard], SETTINGS, SETTINGS.make_task())


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

    def counting(*arguments: object) -> tuple[list[dict[str, float]], int]:
        trained.append(arguments)
        return train_classes(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(builder, "train_classes", counting)
    build_shards(SPACE, class_rows(SPACE)[1], [shard], SETTINGS, SETTINGS.make_task())
    assert len(trained) == len(shard.classes) - 4, "nothing is trained twice"
    expected = {key: row for key, row in results(built.with_suffix(".shards")).items() if key[0] == "seed0"}
    assert results(folder) == expected


def build_as_on_cuda(monkeypatch: pytest.MonkeyPatch, out: Path, stop_after: int | None = None) -> list[int]:
    """What a build does on CUDA, on the CPU; returns the sizes of the groups that were trained together."""
    trained = []

    def watched(*arguments: Any) -> tuple[list[dict[str, float]], int]:
        if len(trained) == stop_after:
            raise KeyboardInterrupt
        rows, together = train_classes(*arguments)
        assert len(rows) == len(arguments[1])
        trained.append(len(rows))
        return rows, together

    with monkeypatch.context() as patch:
        patch.setattr(builder, "choose_device", lambda device: SimpleNamespace(type=device))
        patch.setattr(Task, "to", lambda task, device: task)
        patch.setattr(builder, "SHARD", 3)
        patch.setattr(builder, "TOGETHER", 7)
        patch.setattr(builder, "train_classes", watched)
        build(SPACE, out, SETTINGS, seeds={0: None, 1: 5}, device="cuda")
    return trained


def check_all_but_equal(folder: Path, expected: Path) -> None:
    """The same classes at the same costs; accuracies, of 40 images, may round another way."""
    found, wanted = results(folder), results(expected)
    assert found.keys() == wanted.keys()
    for key, text in wanted.items():
        np.testing.assert_allclose(*(np.array(row.split(","), dtype=float) for row in (found[key], text)), atol=0.06)


def test_groups_over_shards_and_seeds_give_what_training_alone_gives(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = build_as_on_cuda(monkeypatch, tmp_path / "table.npz")
    total = len(class_rows(SPACE)[1]) + 5
    assert sizes == [7] * (total // 7) + [total % 7] * (total % 7 > 0)
    check_all_but_equal(tmp_path / "table.shards", built.with_suffix(".shards"))
    assert Table(tmp_path / "table.npz").num_rows == Table(built).num_rows


def test_a_build_in_groups_goes_on(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on file after each group is not trained again."""
    with pytest.raises(KeyboardInterrupt):
        build_as_on_cuda(monkeypatch, tmp_path / "table.npz", stop_after=1)
    assert len(results(tmp_path / "table.shards")) == 7
    sizes = build_as_on_cuda(monkeypatch, tmp_path / "table.npz")
    assert sum(sizes) == len(class_rows(SPACE)[1]) + 5 - 7
    check_all_but_equal(tmp_path / "table.shards", built.with_suffix(".shards"))


def test_groups_shrink_to_what_memory_allows(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = NetworkBatch.logits

    def scarce(self: NetworkBatch, images: torch.Tensor) -> tuple[torch.Tensor, None]:
        if len(self.networks) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return logits(self, images)

    monkeypatch.setattr(NetworkBatch, "logits", scarce)
    sizes = build_as_on_cuda(monkeypatch, tmp_path / "table.npz")
    assert sizes[0] == 7
    assert set(sizes[1:-1]) == {4}
    check_all_but_equal(tmp_path / "table.shards", built.with_suffix(".shards"))


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="device 'warp' is not available"):
        build(SPACE, tmp_path / "table.npz", SETTINGS, seeds={0: None}, device="warp")
    assert not list(tmp_path.iterdir())


def test_other_settings_are_refused(built: Path) -> None:
    other = dataclasses.replace(SETTINGS, train_images=50)
    with pytest.raises(ValueError, match="holds shards made with other settings"):
        build(SPACE, built, other, seeds={0: None}, workers=1)


def test_seeds_share_their_order(tmp_path: Path) -> None:
    whole, part = shards(tmp_path, 250, 0), shards(tmp_path, 250, 1, 120)
    assert [len(shard.classes) for shard in whole] == [100, 100, 50]
    assert [number for shard in part for number in shard.classes] == [n for s in whole for n in s.classes][:120]


def test_a_failed_training_is_not_a_number() -> None:
    task = SETTINGS.make_task()
    diverging = dataclasses.replace(SETTINGS, training=dataclasses.replace(SETTINGS.training, learning_rate=1e30))
    (row,), _ = train_classes(SPACE, np.array([[2, 2, 2]]), task, diverging, [0])
    assert all(np.isnan(row[name]) for name in columns(2) if name.startswith(("valid", "test")))
    assert row["parameters"] > 0


def test_the_command(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "table.npz"
    monkeypatch.setitem(PRESETS._places, "tiny", SPACE)
    settings = ["image_size:null", "train_images:60", "score_images:40", "network.channels:4", "network.reductions:1"]
    settings += ["training.epochs:2", "training.batch_size:20", "training.learning_rate:0.05"]
    settings += ["training.augment:true"]
    command = ["nas-gym", "table", "build", "--out", str(out), "--space", "tiny", "--task", "digits", "--workers", "1"]
    command += ["--device", "cpu"]
    monkeypatch.setattr(sys, "argv", [*command, "--seeds", "0", "1:5", "--settings", *settings])
    main()
    made, expected = Table(out).task("digits"), Table(built).task("digits")
    np.testing.assert_array_equal(made.valid, expected.valid)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 3}, "BuildSettings has no field 'epochs'; known: allow_duplicates, image_size"),
        ({"training": {"epoch": 3}}, "TrainingSettings has no field 'epoch'; known: augment"),
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
