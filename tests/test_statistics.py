"""Statistics of benchmarks, against loops written by hand, SciPy's Mann-Whitney test and the mathematics."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from nas_gym.experiments.benchmark import statistics
from nas_gym.experiments.benchmark.statistics import (
    Estimate,
    curve,
    difference,
    estimate,
    interquartile_mean,
    median,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
)

# Few different values, so that there are ties.
RUNS = st.lists(st.integers(-4, 8).map(lambda n: n / 8), min_size=2, max_size=12).map(np.array)
TASKS = st.lists(RUNS, min_size=1, max_size=4)


def sample(seed: int, *sizes: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0.5 + 0.1 * task, 0.2, size) for task, size in enumerate(sizes)]


def iqm_by_hand(tasks: list[np.ndarray]) -> float:
    values = sorted(float(value) for task in tasks for value in task)
    cut = len(values) // 4
    kept = values[cut : len(values) - cut]
    return sum(kept) / len(kept)


def gap_by_hand(tasks: list[np.ndarray]) -> float:
    values = [float(value) for task in tasks for value in task]
    return sum(max(0.0, 1.0 - value) for value in values) / len(values)


def median_by_hand(tasks: list[np.ndarray]) -> float:
    means = sorted(sum(task.tolist()) / len(task) for task in tasks)
    middle = len(means) // 2
    return means[middle] if len(means) % 2 else (means[middle - 1] + means[middle]) / 2


def bounds_by_hand(statistic, groups: list[list[np.ndarray]], resamples: int = 2000) -> tuple[float, float]:
    """Percentiles of a statistic of groups of tasks, each task resampled on its own."""
    rng = np.random.default_rng(123)
    drawn = []
    for _ in range(resamples):
        again = [[task[rng.integers(len(task), size=len(task))] for task in tasks] for tasks in groups]
        drawn.append(statistic(*again))
    drawn.sort()
    return drawn[int(0.025 * resamples)], drawn[int(0.975 * resamples)]


def assert_bounds(found: Estimate, low: float, high: float) -> None:
    """Two bootstraps with different random numbers differ by a small part of the interval."""
    tolerance = 0.09 * (high - low)
    assert found.low == pytest.approx(low, abs=tolerance)
    assert found.high == pytest.approx(high, abs=tolerance)
    assert found.low <= found.value <= found.high


BY_HAND = {interquartile_mean: iqm_by_hand, optimality_gap: gap_by_hand, median: median_by_hand}


@given(TASKS)
@settings(deadline=None, max_examples=40)
def test_values(tasks) -> None:
    for statistic, by_hand in BY_HAND.items():
        assert statistic(*tasks) == pytest.approx(by_hand(tasks), abs=1e-12)


def test_published_definitions() -> None:
    """Worked values: of eight runs two are discarded at each end; scores above 1 count as 1."""
    runs = [np.array([0.0, 0.1, 0.2, 0.3]), np.array([0.4, 0.5, 0.6, 9.0])]
    assert interquartile_mean(*runs) == pytest.approx(0.35)
    assert optimality_gap(np.array([0.5, 3.0])) == pytest.approx(0.25)
    assert median(*runs) == pytest.approx((0.15 + 2.625) / 2)


@pytest.mark.parametrize("statistic", BY_HAND, ids=lambda statistic: statistic.__name__)
def test_intervals(statistic) -> None:
    runs = sample(1, 12, 9, 15)
    found = estimate(statistic, runs)
    assert found.value == pytest.approx(BY_HAND[statistic](runs))
    assert_bounds(found, *bounds_by_hand(BY_HAND[statistic], [runs]))


def test_the_interval_of_a_mean() -> None:
    """The optimality gap below 1 is a mean, and a bootstrap of a mean has a standard error that is known."""
    runs = [task.clip(max=1.0) for task in sample(2, 40, 60)]
    found = estimate(optimality_gap, runs)
    error = math.sqrt(sum(task.var() * len(task) for task in runs)) / 100
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=0.15 * error)


def test_tasks_are_not_resampled() -> None:
    """With equal runs within each task, all resamples are the same, however much tasks differ."""
    runs = [np.full(8, 0.1), np.full(8, 0.5), np.full(8, 0.9)]
    for statistic in BY_HAND:
        found = estimate(statistic, runs)
        assert found.low == pytest.approx(found.value) == pytest.approx(found.high)
    found = probability_of_improvement(runs, [np.full(8, 0.0), np.full(8, 0.5), np.full(8, 1.0)])
    assert (found.low, found.value, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_differences() -> None:
    first, second = sample(3, 10, 10), sample(4, 12, 8)
    found = difference(interquartile_mean, first, second)
    assert found.value == pytest.approx(iqm_by_hand(first) - iqm_by_hand(second))
    assert_bounds(found, *bounds_by_hand(lambda a, b: iqm_by_hand(a) - iqm_by_hand(b), [first, second]))


@given(st.lists(st.tuples(RUNS, RUNS), min_size=1, max_size=4))
@settings(deadline=None, max_examples=30)
def test_probability_of_improvement(pairs) -> None:
    """For one task it is Mann and Whitney's U divided by the number of pairs."""
    first, second = [list(runs) for runs in zip(*pairs, strict=True)]
    u = [mannwhitneyu(x, y, method="asymptotic").statistic / (len(x) * len(y)) for x, y in pairs]
    found = probability_of_improvement(first, second)
    assert found.value == pytest.approx(np.mean(u))
    assert 0 <= found.low <= found.high <= 1
    assert probability_of_improvement(second, first).value == pytest.approx(1 - found.value)


def improvement_by_hand(first: list[np.ndarray], second: list[np.ndarray]) -> float:
    means = []
    for ours, theirs in zip(first, second, strict=True):
        wins = sum((x > y) + 0.5 * (x == y) for x in ours.tolist() for y in theirs.tolist())
        means.append(wins / (len(ours) * len(theirs)))
    return sum(means) / len(means)


def test_the_interval_of_the_probability_of_improvement() -> None:
    first, second = [np.round(task + 0.1, 1) for task in sample(5, 10, 7)], [np.round(t, 1) for t in sample(6, 8, 9)]
    assert_bounds(probability_of_improvement(first, second), *bounds_by_hand(improvement_by_hand, [first, second]))


def test_agents_without_a_difference_are_seldom_called_different() -> None:
    rng = np.random.default_rng(0)
    different = 0
    for _ in range(300):
        first, second = ([rng.normal(size=20) for _ in range(2)] for _ in range(2))
        found = probability_of_improvement(first, second)
        different += found.above(0.5) or found.below(0.5)
    assert 3 <= different <= 30  # 15 expected


def test_profiles() -> None:
    runs = sample(7, 10, 20)
    thresholds = np.linspace(0, 1, 7)
    share, low, high = performance_profile(runs, thresholds)
    for number, threshold in enumerate(thresholds):

        def above(tasks, threshold=threshold) -> float:
            return sum(sum(value > threshold for value in task) / len(task) for task in tasks) / len(tasks)

        assert share[number] == pytest.approx(above(runs))
        by_hand = bounds_by_hand(above, [runs])
        assert (low[number], high[number]) == pytest.approx(by_hand, abs=0.03)


def test_curves() -> None:
    """Each point of a curve is the estimate of the runs at that point."""
    rng = np.random.default_rng(8)
    runs = [rng.normal(size=(10, 3)).cumsum(axis=1), rng.normal(size=(6, 3)).cumsum(axis=1)]
    middle, low, high = curve(runs, resamples=2000)
    for point in range(3):
        there = [task[:, point] for task in runs]
        assert middle[point] == pytest.approx(iqm_by_hand(there))
        assert_bounds(Estimate(middle[point], low[point], high[point]), *bounds_by_hand(iqm_by_hand, [there]))


def test_one_run_has_no_interval() -> None:
    runs = [np.array([0.5]), np.array([0.6, 0.7])]
    found = [estimate(interquartile_mean, runs), difference(median, runs, runs), probability_of_improvement(runs, runs)]
    for one in found:
        assert not math.isnan(one.value)
        assert math.isnan(one.low)
        assert math.isnan(one.high)
        assert not one.above(-1)
        assert not one.below(1)
    assert np.isnan(curve([task[:, None] for task in runs])[1]).all()
    assert np.isnan(performance_profile(runs, np.zeros(2))[1]).all()


def test_above_and_below_need_the_whole_interval() -> None:
    assert Estimate(0.6, 0.51, 0.7).above(0.5)
    assert not Estimate(0.6, 0.5, 0.7).above(0.5)
    assert Estimate(0.4, 0.3, 0.49).below(0.5)
    assert not Estimate(0.4, 0.3, 0.5).below(0.5)


def test_equal_runs_give_equal_intervals() -> None:
    """Regardless of earlier computations, and without using the global generator."""
    runs, others = sample(9, 5, 6), sample(10, 5, 6)
    before = [estimate(interquartile_mean, runs), probability_of_improvement(runs, others)]
    statistics._shares.cache_clear()
    np.random.seed(1)
    state = np.random.get_state()[1].copy()
    probability_of_improvement(others, runs)
    assert [estimate(interquartile_mean, runs), probability_of_improvement(runs, others)] == before
    assert np.array_equal(np.random.get_state()[1], state)
