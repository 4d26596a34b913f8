"""Checks of the native vector environments against SyncVectorEnv."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def assert_same(actual: Any, expected: Any, path: str = "") -> None:
    """Equal in structure, types, dtypes and values."""
    if isinstance(expected, dict):
        assert isinstance(actual, dict), path
        assert actual.keys() == expected.keys(), path
        for key in expected:
            assert_same(actual[key], expected[key], f"{path}/{key}")
    elif isinstance(expected, tuple):
        assert len(actual) == len(expected), path
        for index, (one, other) in enumerate(zip(actual, expected, strict=True)):
            assert_same(one, other, f"{path}/{index}")
    elif isinstance(expected, np.ndarray):
        assert isinstance(actual, np.ndarray), path
        assert actual.dtype == expected.dtype, path
        assert actual.shape == expected.shape, path
        np.testing.assert_array_equal(actual, expected, err_msg=path)
    else:
        assert type(actual) is type(expected), path
        assert actual == expected, path


def stacked(step: tuple[Any, ...]) -> tuple[Any, ...]:
    """A step of SyncVectorEnv with its objects of `final_obs` as the rows of arrays."""
    *rest, infos = step
    if "final_obs" not in infos:
        return step
    rows = {row: final for row, final in enumerate(infos["final_obs"]) if final is not None}

    def part(like: NDArray[Any], name: str | None) -> NDArray[Any]:
        array = np.zeros_like(like)
        for row, final in rows.items():
            array[row] = final if name is None else final[name]
        return array

    whole = rest[0]
    final = {name: part(like, name) for name, like in whole.items()} if isinstance(whole, dict) else part(whole, None)
    return (*rest, {**infos, "final_obs": final})


def draw_actions(masks: NDArray[np.bool_], illegal: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Legal choices, and with a probability of `illegal` any at all."""
    legal = np.argmax(masks * rng.random(masks.shape), axis=1)
    return np.where(rng.random(len(masks)) < illegal, rng.integers(masks.shape[1], size=len(masks)), legal)
