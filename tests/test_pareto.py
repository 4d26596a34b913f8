"""Pareto fronts and hypervolumes against brute force, inclusion and exclusion, and values known in closed form."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from fidelity_checks import curves_table
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rich.console import Console

from nas_gym.agents import SearchResult
from nas_gym.agents.pareto import hypervolume, nondominated
from nas_gym.experiments.run.config import RunConfig
from nas_gym.experiments.run.run import Run
from nas_gym.spaces import make_space

SPACE = make_space("bench201")

# Few values, so that columns tie and points are equal.
clouds = st.tuples(st.integers(0, 9), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.integers(-2, 4).map(float))
)


def dominates(one: np.ndarray, other: np.ndarray) -> bool:
    return bool((one >= other).all() and (one > other).any())


def by_inclusion_and_exclusion(points: np.ndarray, reference: np.ndarray) -> float:
    """The volume of a union of boxes as the signed sum over all their intersections."""
    gains = np.maximum(points - reference, 0.0)
    return sum(
        -((-1) ** size) * np.prod(np.min(gains[list(some)], axis=0))
        for size in range(1, len(gains) + 1)
        for some in itertools.combinations(range(len(gains)), size)
    )


@settings(max_examples=200, deadline=None)
@given(clouds)
def test_the_front_is_what_nothing_dominates(points: np.ndarray) -> None:
    expected = [not any(dominates(other, point) for other in points) for point in points]
    assert nondominated(points).tolist() == expected


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(clouds, st.integers(-3, 1))
def test_hypervolume_is_that_of_the_union(points: np.ndarray, low: int) -> None:
    reference = np.full(points.shape[1], float(low))
    assert hypervolume(points, reference) == pytest.approx(by_inclusion_and_exclusion(points, reference))


@settings(max_examples=50, deadline=None)
@given(arrays(np.int64, (12, 3), elements=st.integers(0, 6)))
def test_hypervolume_counts_unit_cubes(points: np.ndarray) -> None:
    corners = np.array(list(itertools.product(range(6), repeat=3)))
    covered = (points[None] >= corners[:, None] + 1).all(axis=2).any(axis=1).sum()
    assert hypervolume(points.astype(np.float64), [0, 0, 0]) == covered


def test_known_values() -> None:
    assert hypervolume(np.array([[3.0, 1.0], [2.0, 2.0], [1.0, 3.0]]), [0, 0]) == 6
    assert hypervolume(np.array([[0.9, -2.0]]), [0.0, -10.0]) == pytest.approx(7.2)
    assert hypervolume(np.empty((0, 2)), [0, 0]) == 0
    assert hypervolume(np.array([[1.0, 0.0], [0.0, 1.0]]), [0, 0]) == 0, "on the border"
    # n points on the line x + y = 1 leave triangles of height and width 1 / (n + 1) free under it.
    n = 999
    x = np.arange(1, n + 1) / (n + 1)
    assert hypervolume(np.stack([x, 1 - x], axis=1), [0, 0]) == pytest.approx(0.5 - (n + 1) * 0.5 / (n + 1) ** 2)
    # Points on the sphere fill, in the limit, its octant.
    angles = (np.arange(24) + 0.5) / 24 * math.pi / 2
    up, around = (angle.reshape(-1) for angle in np.meshgrid(angles, angles))
    sphere = np.stack([np.sin(up) * np.cos(around), np.sin(up) * np.sin(around), np.cos(up)], axis=1)
    assert 0.9 * math.pi / 6 < hypervolume(sphere, [0, 0, 0]) < math.pi / 6


@settings(max_examples=50, deadline=None)
@given(clouds, st.randoms(use_true_random=False))
def test_order_and_scale_do_not_matter(points: np.ndarray, random) -> None:
    reference = np.full(points.shape[1], -3.0)
    shuffled = points[random.sample(range(len(points)), len(points))]
    volume = hypervolume(points, reference)
    assert hypervolume(shuffled, reference) == pytest.approx(volume)
    assert hypervolume(points[:, ::-1], reference) == pytest.approx(volume)
    assert hypervolume(points * 4, reference * 4) == pytest.approx(volume * 4 ** points.shape[1])


# ------------------------------------------------------------------ of a search


def search(**metrics: list[float]) -> SearchResult:
    n = len(metrics["accuracy"])
    columns = {name: np.array(column, dtype=np.float64) for name, column in metrics.items()}
    columns.setdefault("failed", np.zeros(n))
    tokens = SPACE.sample(np.random.default_rng(0), n)
    return SearchResult(SPACE, tokens, columns["accuracy"] ** 2, columns)


def test_the_front_of_a_search() -> None:
    result = search(accuracy=[0.5, 0.9, 0.7, 0.6, 0.9], parameters=[10, 90, 30, 40, 80], latency=[9, 1, 5, 5, 2])
    assert result.pareto_front("accuracy", "parameters").tolist() == [0, 2, 4], "ascending in the trials"
    assert result.pareto_front("accuracy", "latency").tolist() == [1]
    assert result.pareto_front("accuracy", "parameters", "latency").tolist() == [0, 1, 2, 4]
    assert result.pareto_front("reward", "parameters").tolist() == [0, 2, 4]
    assert result.pareto_front("accuracy").tolist() == [1], "the first of equal ones"
    # By hand: (0.5, 10), (0.7, 30), (0.9, 80) against (0, 100).
    assert result.hypervolume({"accuracy": 0.0, "parameters": 100.0}) == pytest.approx(0.5 * 20 + 0.7 * 50 + 0.9 * 20)
    assert result.hypervolume({"parameters": 100.0, "accuracy": 0.6}) == pytest.approx(0.1 * 50 + 0.3 * 20)


def test_what_does_not_count() -> None:
    result = search(
        accuracy=[0.9, 0.8, 0.7, 0.6, 0.95],
        parameters=[np.nan, 8, 7, 6, 1],
        failed=[0, 1, 0, 0, 0],
        fidelity=[1, 1, np.nan, 1, 0.5],
    )
    assert result.pareto_front("accuracy", "parameters").tolist() == [2, 3]
    assert result.hypervolume({"accuracy": 0.0, "parameters": 10.0}) == pytest.approx(0.7 * 3 + 0.6)
    assert search(accuracy=[]).pareto_front("accuracy").tolist() == []
    with pytest.raises(ValueError, match="no metric 'latency'; known: reward, accuracy, parameters, failed, fidelity"):
        result.pareto_front("accuracy", "latency")
    with pytest.raises(ValueError, match="at least one"):
        result.pareto_front()


@settings(max_examples=100, deadline=None)
@given(arrays(np.float64, (12, 2), elements=st.integers(0, 4).map(float)))
def test_the_front_of_a_search_is_what_nothing_dominates(points: np.ndarray) -> None:
    result = search(accuracy=points[:, 0].tolist(), parameters=points[:, 1].tolist())
    turned = points * [1, -1]
    expected = [
        row
        for row, point in enumerate(turned)
        if not any(dominates(other, point) for other in turned) and not (turned[:row] == point).all(axis=1).any()
    ]
    assert result.pareto_front("accuracy", "parameters").tolist() == expected


# ------------------------------------------------------------------ in the folder of a run


@pytest.mark.slow
def test_the_card_of_a_run(tmp_path: Path) -> None:
    table = curves_table(tmp_path / "table.npz")
    config = RunConfig(
        env="NAS-Bench201-v0", agent="random", trials=60, task="curves", env_kwargs={"table": str(table)}
    )
    run = Run(tmp_path / "run", config, Console(quiet=True))
    run.execute()
    card = (tmp_path / "run" / "model_card.md").read_text()
    accuracy, parameters = (run.agent.result.metrics[name] for name in ("accuracy", "parameters"))
    points = np.column_stack([accuracy, -parameters])
    front = [row for row in range(60) if not any(dominates(other, points[row]) for other in points)]
    first = {tuple(points[row]): row for row in reversed(front)}
    assert 2 < len(first) < 60
    rows = re.findall(r"\| (\d+) \| (0\.\d{4}) \| (\d+) \|", card)
    expected = sorted(first.values(), key=lambda row: parameters[row])
    assert rows == [(str(row), f"{accuracy[row]:.4f}", f"{parameters[row]:.0f}") for row in expected]
    volume = by_inclusion_and_exclusion(points[expected], np.array([0.0, -parameters.max()])) / parameters.max()
    assert f"Its hypervolume is {volume:.4f}, as a share of the rectangle" in card
    assert "(pareto.png)" in card
    assert (tmp_path / "run" / "pareto.png").read_bytes()[:4] == b"\x89PNG"
    assert "Accuracy against parameters" in (tmp_path / "run" / "pareto.svg").read_text()


def test_a_run_without_costs_has_no_front(tmp_path: Path) -> None:
    config = RunConfig(env="NAS-Bench201-v0", agent="random", trials=3, env_kwargs={"evaluator": "constant"})
    Run(tmp_path, config, Console(quiet=True)).execute()
    assert "Pareto" not in (tmp_path / "model_card.md").read_text()
    assert not (tmp_path / "pareto.png").exists()
