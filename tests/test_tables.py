"""The file format of benchmark tables, the index of sequences, and rows by class."""

from __future__ import annotations

import itertools
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nas_gym.spaces import Bench201Space, BenchGraphSpace, CellSpace, ChainSpace, SearchSpace, make_space
from nas_gym.tables import Table, TaskTable, class_rows, open_table, save_table

TINY = Bench201Space(nodes=3, operations=("none", "skip_connect", "nor_conv_3x3"))  # 27 sequences
SMALL = {
    "bench201": TINY,
    "cell": CellSpace(nodes=1),
    "stop": ChainSpace(layers=2, depth="stop"),
    "graph": BenchGraphSpace(operations=("gcn", "fc", "skip")),
}


def tables(seed: int = 0, dtype: type = np.float32) -> dict[str, TaskTable]:
    rng = np.random.default_rng(seed)
    valid = rng.random((27, 2, 3)).astype(dtype)
    valid[3, 1] = np.nan
    full = TaskTable(
        valid=valid,
        test=rng.random((27, 2, 3)).astype(dtype),
        epochs=(1, 4, 12),
        seconds=rng.random((27, 2)),
        validation_seconds=rng.random(27),
        parameters=rng.integers(1, 1000, 27),
        flops=rng.random(27) * 1e9,
        latency=rng.random(27),
    )
    return {"full": full, "bare": TaskTable(valid=valid[:, :, :1])}


def save(path: Path, **changes) -> Path:
    arguments = {"space": TINY, "rows": np.arange(27), "tasks": tables(), "provenance": {"licence": "MIT"}, **changes}
    save_table(path, **arguments)
    return path


# ------------------------------------------------------------------ sequences and their indices


@pytest.mark.parametrize("space", SMALL.values(), ids=SMALL)
def test_enumerate_and_index(space: SearchSpace) -> None:
    """Against the product of all choices, of which the legal ones are kept."""
    everything = np.array(list(itertools.product(*map(range, space.choice_counts))))
    assert np.array_equal(space.index(everything), np.arange(len(everything)))
    legal = np.ones(len(everything), dtype=bool)
    for position in range(space.length):
        mask = space.legal(everything, position)
        legal &= mask[np.arange(len(everything)), everything[:, position]]
    assert np.array_equal(space.enumerate(), everything[legal])
    assert legal.sum() == space.size
    space.check(space.enumerate())


def test_large_spaces_are_not_enumerated() -> None:
    with pytest.raises(ValueError, match=r"space 'cell' has .* sequences; up to 10,000,000 are enumerated"):
        make_space("cell").enumerate()
    with pytest.raises(ValueError, match="space 'cell' is too large for 64-bit indices"):
        make_space("cell").index(np.zeros((1, 40), dtype=np.int64))


# ------------------------------------------------------------------ round trip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip(tmp_path, dtype) -> None:
    rows = np.arange(27)[::-1].copy()
    rows[5] = -1
    wanted = tables(dtype=dtype)
    table = open_table(save(tmp_path / "t.npz", rows=rows, tasks=wanted, provenance={"from": "nothing", "n": 3}))
    assert table.space == TINY
    assert table.tasks == ("full", "bare")
    assert table.epochs == {"full": (1, 4, 12), "bare": ()}
    assert table.provenance == {"from": "nothing", "n": 3}
    assert np.array_equal(table.rows, rows)
    assert table.num_rows == 27
    table.verify()
    for name in table.tasks:
        read = table.task(name)
        assert read.epochs == wanted[name].epochs
        assert list(read.arrays) == list(wanted[name].arrays)
        for key, array in wanted[name].arrays.items():
            np.testing.assert_array_equal(read.arrays[key], array, strict=True)
    assert table.array("bare", "test") is None
    with pytest.raises(ValueError, match="read-only"):
        table.rows[0] = 1


def test_equal_arguments_give_equal_bytes(tmp_path) -> None:
    first, second = save(tmp_path / "a.npz"), save(tmp_path / "b.npz")
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]  # no scratch file is left


def test_opening_reads_no_array(tmp_path, monkeypatch) -> None:
    path = save(tmp_path / "t.npz")
    read: list[str] = []
    member = Table._member
    monkeypatch.setattr(Table, "_member", lambda table, key: read.append(key) or member(table, key))
    table = open_table(path)
    assert read == ["metadata"]
    table.array("full", "valid")
    table.array("full", "valid")
    assert read == ["metadata", "full/valid"]


# ------------------------------------------------------------------ damage


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path: Path, content: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def test_checksum(tmp_path) -> None:
    """An array whose file is whole, but which is not the one that was written."""
    path = save(tmp_path / "t.npz")
    content = members(path)
    content["full/test.npy"] = content["full/test.npy"][:-1] + b"\x01"
    rewrite(path, content)
    table = open_table(path)
    table.array("full", "valid")
    with pytest.raises(ValueError, match=r"t\.npz: array 'full/test' does not match its checksum"):
        table.array("full", "test")
    with pytest.raises(ValueError, match="full/test"):
        table.verify()


def test_missing_member(tmp_path) -> None:
    path = save(tmp_path / "t.npz")
    content = members(path)
    del content["rows.npy"]
    rewrite(path, content)
    with pytest.raises(ValueError, match=r"t\.npz: array 'rows' cannot be read: .*rows\.npy"):
        _ = open_table(path).rows


def test_pickled_member(tmp_path) -> None:
    path = save(tmp_path / "t.npz")
    np.save(tmp_path / "o.npy", np.array([print], dtype=object), allow_pickle=True)
    rewrite(path, members(path) | {"rows.npy": (tmp_path / "o.npy").read_bytes()})
    with pytest.raises(ValueError, match=r"array 'rows' cannot be read: .*allow_pickle"):
        _ = open_table(path).rows


@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
@example(place=0.999, flip=64)  # where the directory starts
@settings(max_examples=150, deadline=None)
def test_any_damaged_byte(tmp_path_factory, place: float, flip: int) -> None:
    """Either what is read is right, or there is a ValueError that names the file."""
    folder = tmp_path_factory.mktemp("damage", numbered=True)
    data = bytearray(save(folder / "t.npz").read_bytes())
    data[int(place * len(data))] ^= flip
    (folder / "t.npz").write_bytes(data)
    try:
        read = {name: open_table(folder / "t.npz").task(name).arrays for name in tables()}
    except ValueError as caught:
        message = str(caught)
    else:
        message = "t.npz"
        for name, task in tables().items():
            for key, array in task.arrays.items():
                np.testing.assert_array_equal(read[name][key], array)
    assert "t.npz" in message


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated(tmp_path, share: float) -> None:
    path = save(tmp_path / "t.npz")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"t\.npz: array 'metadata' cannot be read"):
        open_table(path)


def test_other_files(tmp_path) -> None:
    np.savez(tmp_path / "other.npz", rows=np.arange(3))
    with pytest.raises(ValueError, match=r"other\.npz: array 'metadata' cannot be read"):
        open_table(tmp_path / "other.npz")
    texts = {"{}": "KeyError", "[]": "TypeError", "no": "JSONDecodeError", '{"format": 2}': "its format is 2"}
    for text, message in texts.items():
        np.savez(tmp_path / "other.npz", metadata=np.array(text))
        with pytest.raises(ValueError, match=rf"other\.npz.*{message}"):
            open_table(tmp_path / "other.npz")
    with pytest.raises(ValueError, match=r"table 'nowhere' is neither a file nor one of .*nas-bench-graph"):
        open_table("nowhere")


# ------------------------------------------------------------------ what cannot be written

VALID = np.full((4, 1, 2), 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"valid": VALID}, r"valid must be of shape \(rows, seeds, 1\)"),
        ({"valid": VALID, "epochs": (4, 1)}, "epochs must be positive and ascending"),
        ({"valid": VALID, "epochs": (0, 1)}, "epochs must be positive and ascending"),
        ({"valid": VALID, "epochs": (1, 2), "test": VALID[:3]}, "test of shape"),
        ({"valid": VALID, "epochs": (1, 2), "seconds": np.ones((4, 2))}, "seconds of shape"),
        ({"valid": VALID, "epochs": (1, 2), "latency": np.ones((4, 1))}, "latency of shape"),
        ({"valid": 100 * VALID, "epochs": (1, 2)}, r"valid must be in \[0, 1\]"),
        ({"valid": VALID, "epochs": (1, 2), "flops": -np.ones(4)}, "flops must be positive"),
        ({"valid": VALID.astype(int), "epochs": (1, 2)}, "valid must hold floats, got int64"),
        ({"valid": VALID * np.nan, "epochs": (1, 2)}, "valid must hold an accuracy"),
        ({"valid": VALID, "epochs": (1, 2), "latency": np.full(4, np.inf)}, "latency must be positive and finite"),
        ({"valid": VALID, "epochs": (1, 2), "seconds": np.full(4, np.nan)}, "seconds must be known wherever valid is"),
    ],
)
def test_task_tables_are_checked(arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaskTable(**arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": {}}, "at least one task"),
        ({"rows": np.arange(26)}, r"rows must be of shape \(27,\)"),
        ({"rows": np.arange(27) + 1}, "rows must be"),
        ({"rows": np.arange(27) - 2}, "rows must be"),
        ({"tasks": {**tables(), "c": TaskTable(valid=VALID[:, :, :1])}}, "the same number of rows"),
    ],
)
def test_save_table_is_checked(tmp_path, changes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        save(tmp_path / "t.npz", **changes)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ classes


@pytest.mark.parametrize("space", [SMALL["bench201"], SMALL["graph"]], ids=["bench201", "graph"])
def test_class_rows(space: SearchSpace) -> None:
    rows, classes = class_rows(space)
    tokens = space.enumerate()
    texts = [space.canonical(space.architecture(row)) for row in tokens]
    assert len(classes) == len(set(texts)) == rows.max() + 1
    assert (rows >= 0).sum() == space.size
    # Rows are numbered by their first sequence, and equal exactly where the canonical texts are.
    firsts = list(dict.fromkeys(texts))
    assert rows[space.index(tokens)].tolist() == [firsts.index(text) for text in texts]
    assert [space.canonical(space.architecture(row)) for row in classes] == firsts
    assert (np.diff(space.index(classes)) > 0).all()


@pytest.mark.slow
def test_classes_of_bench201() -> None:
    rows, classes = class_rows(make_space("bench201"))
    assert rows.shape == (15_625,)
    assert classes.shape == (5_425, 6)
