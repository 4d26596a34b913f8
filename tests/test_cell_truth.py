"""The cells that cheap evaluators are judged by: the file, and what is said of its reliability."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.cell_truth import SPACE, components, read_truth


def test_the_file_holds_different_cells() -> None:
    truth = read_truth()
    cells, seeds = truth.valid.shape
    SPACE.check(truth.tokens)
    assert truth.tokens.shape == (cells, SPACE.length)
    assert len({SPACE.canonical(SPACE.architecture(row)) for row in truth.tokens}) == cells
    assert seeds > 1
    for column in (truth.valid, truth.test):
        assert column.shape == (cells, seeds)
        assert ((column > 0) & (column < 1)).all()
    assert all((cost > 0).all() for cost in (truth.seconds, truth.parameters, truth.flops))


@pytest.mark.parametrize(("spread", "noise"), [(0.06, 0.02), (0.02, 0.02), (0.0, 0.02)])
def test_components_of_known_distributions(spread: float, noise: float) -> None:
    """Found by many cells; and the reliability is the squared correlation of the means with the true accuracies."""
    rng = np.random.default_rng(0)
    true = rng.normal(0.6, spread, (20_000, 1)) if spread else np.full((20_000, 1), 0.6)
    accuracies = true + rng.normal(0, noise, (20_000, 3))
    found = components(accuracies)
    assert found.spread == pytest.approx(spread, abs=0.002)
    assert found.noise == pytest.approx(noise, rel=0.02)
    if spread:
        squared = np.corrcoef(true[:, 0], accuracies.mean(axis=1))[0, 1] ** 2
        assert found.reliability[0] == pytest.approx(squared, abs=0.02)
        assert found.ratio[0] == pytest.approx(spread / noise, rel=0.03)


def test_intervals_hold_what_they_promise() -> None:
    rng, inside = np.random.default_rng(1), 0
    for _ in range(400):
        accuracies = rng.normal(0.6, 0.06, (20, 1)) + rng.normal(0, 0.02, (20, 3))
        _, low, high = components(accuracies).ratio
        inside += low <= 3 <= high
    assert 0.92 < inside / 400 < 0.98
