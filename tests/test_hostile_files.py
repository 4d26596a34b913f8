"""Tables, stores and image folders that are damaged or were made to do harm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks.attacks import tables
from benchmarks.attacks.outcome import Attack

ATTACKS: list[Attack] = [
    partial(tables.flips, tries=40),
    partial(tables.truncations, tries=10),
    tables.hostile,
]


def name_of(attack: Callable) -> str:
    function = getattr(attack, "func", attack)
    return f"{function.__module__.rpartition('.')[2]}.{function.__name__}"


@pytest.mark.parametrize("attack", ATTACKS, ids=name_of)
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
