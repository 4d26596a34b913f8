"""Acquisition functions against Monte Carlo and by hand, and what pending trials do."""

from __future__ import annotations

import numpy as np
import pytest

from nas_gym.predictors import (
    ACQUISITIONS,
    GaussianProcess,
    acquire,
    believe,
    expected_improvement,
    make_predictor,
    thompson_sample,
    upper_confidence_bound,
)
from nas_gym.spaces import make_space

BENCH = make_space("bench201")


def test_expected_improvement_equals_monte_carlo():
    rng = np.random.default_rng(0)
    mean, deviation = rng.normal(size=20), rng.uniform(0.1, 2, size=20)
    drawn = np.maximum(rng.normal(mean, deviation, size=(400_000, 20)) - 0.5, 0)
    error = drawn.std(axis=0) / np.sqrt(len(drawn))
    assert (np.abs(expected_improvement(mean, deviation, 0.5) - drawn.mean(axis=0)) < 4.5 * error + 1e-6).all()


def test_expected_improvement_at_its_bounds():
    """What is certain improves by its distance, or by nothing; no number overflows, and more spread is more hope."""
    mean = np.array([1.0, -1.0, 0.0, 1e6, -1e6])
    np.testing.assert_allclose(expected_improvement(mean, np.zeros(5), 0.0), [1, 0, 0, 1e6, 0], atol=1e-12)
    found = expected_improvement(np.zeros(50), np.linspace(0.01, 3, 50), 1.0)
    assert (np.diff(found) > 0).all()
    assert (found >= 0).all()


def test_bounds_and_draws():
    mean, deviation = np.array([0.0, 1.0]), np.array([2.0, 0.5])
    assert upper_confidence_bound(mean, deviation, 3.0).tolist() == [6.0, 2.5]
    drawn = np.array([thompson_sample(mean, deviation, np.random.default_rng(seed)) for seed in range(4000)])
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=0.12)
    np.testing.assert_allclose(drawn.std(axis=0), deviation, rtol=0.05)
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.06


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_acquisitions_by_name(name):
    mean, deviation = np.array([0.0, 1.0]), np.array([2.0, 0.5])
    found = acquire(name, mean, deviation, best=0.3, weight=1.5, rng=np.random.default_rng(7))
    expected = {
        "expected-improvement": expected_improvement(mean, deviation, 0.3),
        "upper-confidence-bound": mean + 1.5 * deviation,
        "thompson": np.random.default_rng(7).normal(mean, deviation),
    }
    np.testing.assert_array_equal(found, expected[name])
    with pytest.raises(ValueError, match="unknown acquisition 'luck'; known: expected-improvement, "):
        acquire("luck", mean, deviation, best=0.3, weight=1.5, rng=np.random.default_rng(7))


def test_believing_moves_no_mean_and_lowers_deviations():
    """For a Gaussian process with given hyperparameters; near what is pending most."""
    rng = np.random.default_rng(0)
    tokens, pending, new = BENCH.sample(rng, 40), BENCH.sample(rng, 3), BENCH.sample(rng, 200)
    values = rng.normal(size=40)
    predictor = GaussianProcess(BENCH).fit(tokens, values)
    before, expected = predictor.predict(new), predictor.predict(pending)[0]
    believed = believe(predictor, tokens, values, pending)
    np.testing.assert_array_equal(believed, np.concatenate([values, expected]))
    again = predictor.predict(new)
    # Standardisation is that of all values, the believed ones too: means move by little, not by rounding.
    assert np.corrcoef(before[0], again[0])[0, 1] > 0.99
    lowered = 1 - again[1] / before[1]
    near = (new[:, None] != pending).sum(axis=-1).min(axis=1)
    assert lowered[near <= 2].mean() > lowered[near >= 4].mean()


@pytest.mark.parametrize("name", ["gaussian-process", "bayesian-linear"])
def test_nothing_pending_changes_nothing(name):
    rng = np.random.default_rng(0)
    tokens, values = BENCH.sample(rng, 20), rng.normal(size=20)
    predictor = make_predictor(name, BENCH).fit(tokens, values)
    before = predictor.predict(tokens)
    np.testing.assert_array_equal(believe(predictor, tokens, values, tokens[:0]), values)
    np.testing.assert_array_equal(predictor.predict(tokens), before)
