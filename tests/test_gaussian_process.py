"""The Gaussian process against scikit-learn's, the density of a multivariate normal distribution, and its own grid."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm, rankdata
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

from nas_gym.predictors import GaussianProcess, counts, make_predictor, normal_scores, one_hot
from nas_gym.spaces import PRESETS, Tokens
from nas_gym.types import Floats

BENCH201 = PRESETS["bench201"]
GRAPH = PRESETS["bench_graph"]


def data(space, n: int, seed: int = 0) -> tuple[Tokens, Floats]:
    """Architectures, and a random linear function of their choices, with noise."""
    rng = np.random.default_rng(seed)
    tokens = space.sample(rng, n)
    features = one_hot(space, tokens)
    return tokens, features @ rng.normal(size=features.shape[1]) + 0.5 * rng.normal(size=n)


def standardised(values: Floats) -> Floats:
    return (values - values.mean()) / values.std()


@pytest.mark.parametrize("space", [BENCH201, GRAPH], ids=["bench201", "bench_graph"])
@pytest.mark.parametrize("n", [1, 20, 120])
@pytest.mark.parametrize("weight", [0.0, 1.0, 0.5])
def test_posterior_of_scikit_learn(space, n, weight):
    """Half the squared distance of one-hot encodings is the number of decisions that differ: an RBF kernel on them."""

    def encoded(tokens):
        return np.hstack([one_hot(space, tokens), weight**0.5 * counts(space, tokens)]).astype(np.float64)

    tokens, values = data(space, n)
    ours = GaussianProcess(space, counts=(weight,)).fit(tokens, values)
    theirs = GaussianProcessRegressor(RBF(np.sqrt(ours.length)), alpha=ours.noise, optimizer=None)
    targets = standardised(values) if n > 1 else np.zeros(1)
    theirs.fit(encoded(tokens), targets)
    new = np.concatenate([tokens[:5], space.sample(np.random.default_rng(1), 60)])
    mean, deviation = theirs.predict(encoded(new), return_std=True)
    scale = values.std() if n > 1 else 1.0
    found = ours.predict(new)
    np.testing.assert_allclose(found[0], values.mean() + scale * mean, atol=1e-6)
    np.testing.assert_allclose(found[1], scale * deviation, atol=1e-6)
    assert ours.likelihood == pytest.approx(theirs.log_marginal_likelihood_value_, abs=1e-6)


def test_the_likeliest_of_the_grid_is_chosen():
    tokens, values = data(BENCH201, 60)
    differ = (tokens[:, None] != tokens).sum(axis=-1)
    fitted = make_predictor("gaussian-process", BENCH201, counts=[0], lengths=[1, 4, 9], noises=[0.05, 0.5])
    fitted.fit(tokens, values)
    assert isinstance(fitted, GaussianProcess)
    grid = list(itertools.product((1.0, 4.0, 9.0), (0.05, 0.5)))
    densities = [
        multivariate_normal(np.zeros(60), np.exp(-differ / length) + noise * np.eye(60)).logpdf(standardised(values))
        for length, noise in grid
    ]
    assert (fitted.length, fitted.noise) == grid[int(np.argmax(densities))]
    assert fitted.likelihood == pytest.approx(max(densities), abs=1e-8)


def test_an_update_keeps_length_and_noise():
    tokens, values = data(BENCH201, 60)
    other = np.random.default_rng(5).normal(size=60)  # nothing to be learned from
    first = GaussianProcess(BENCH201).fit(tokens, values)
    chosen = first.weight, first.length, first.noise
    first.update(tokens, other)
    assert (first.weight, first.length, first.noise) == chosen
    again = GaussianProcess(BENCH201).update(tokens, other)
    assert (again.weight, again.length, again.noise) != chosen, "an update that nothing came before is a fit"
    grid = {name: (value,) for name, value in zip(("counts", "lengths", "noises"), chosen, strict=True)}
    alike = GaussianProcess(BENCH201, **grid).fit(tokens, other)
    np.testing.assert_array_equal(first.predict(tokens), alike.predict(tokens))


def test_the_likelihood_tells_whether_places_matter():
    """Of a function of how often each choice is taken, and of one of where alone."""
    tokens = BENCH201.sample(np.random.default_rng(0), 100)
    anywhere = (tokens == 3).sum(axis=1) - 0.5 * (tokens == 1).sum(axis=1)
    somewhere = (tokens == 3) @ np.array([3.0, -2.0, 1.0, -3.0, 2.0, -1.0])
    assert GaussianProcess(BENCH201).fit(tokens, anywhere.astype(float)).weight > 0
    assert GaussianProcess(BENCH201).fit(tokens, somewhere).weight == 0.0


def test_counts_by_hand():
    """The links are a kind of their own; the four operations are another."""
    tokens = GRAPH.sample(np.random.default_rng(0), 30)
    links = np.eye(len(GRAPH.links))[tokens[:, 0]]
    operations = np.array([np.bincount(row[1:], minlength=len(GRAPH.operations)) for row in tokens])
    np.testing.assert_array_equal(counts(GRAPH, tokens), np.hstack([links, operations]))


@pytest.mark.parametrize("name", PRESETS)
def test_counts_in_every_space(name):
    """They sum to the number of decisions; decisions of a kind with other choices are counted apart."""
    space = PRESETS[name]
    tokens = space.sample(np.random.default_rng(0), 4)
    assert (counts(space, tokens).sum(axis=1) == space.length).all()


@pytest.mark.parametrize("settings", [{"lengths": ()}, {"noises": (0.1, 0.0)}, {"lengths": 3}, {"noises": ("a",)}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must be positive numbers"):
        GaussianProcess(BENCH201, **settings)
    with pytest.raises(ValueError, match="counts must be numbers, not negative, at least one, got -1"):
        GaussianProcess(BENCH201, counts=-1.0)


def test_normal_scores():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 30, size=50).astype(float)  # with ties
    np.testing.assert_allclose(normal_scores(values), norm.ppf((rankdata(values) - 0.5) / 50), atol=1e-12)
    np.testing.assert_array_equal(normal_scores(np.exp(values / 10)), normal_scores(values))
    assert normal_scores(np.array([3.0])).tolist() == [0.0]
