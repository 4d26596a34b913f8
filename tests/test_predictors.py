"""The predictors against scikit-learn, explicit features, exact functions and the bundled table."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, spearmanr
from sklearn.linear_model import BayesianRidge

from nas_gym.predictors import (
    PREDICTORS,
    BayesianLinear,
    Predictor,
    StandardisedPredictor,
    kernel,
    make_predictor,
    one_hot,
    one_hot_with_pairs,
    register_predictor,
)
from nas_gym.predictors import bayesian_linear as module
from nas_gym.spaces import PRESETS, Bench201Space, CellSpace, SearchSpace, SizeSpace, Tokens
from nas_gym.tables import open_table
from nas_gym.types import Floats

BENCH201 = Bench201Space()
SMALL = CellSpace(nodes=2, operations=("a", "b", "c"))  # decisions with 1 to 3 choices
ENCODINGS = {False: one_hot, True: one_hot_with_pairs}
both = pytest.mark.parametrize("pairs", [False, True], ids=["choices", "pairs"])


def data(space: SearchSpace, n: int, seed: int = 0, noise: float = 0.3) -> tuple[Tokens, Floats]:
    """Architectures, and a random linear function of their choices and pairs, with noise."""
    rng = np.random.default_rng(seed)
    tokens = space.sample(rng, n)
    features = one_hot_with_pairs(space, tokens)
    return tokens, features @ rng.normal(size=features.shape[1]) + noise * rng.normal(size=n)


def standardised(values: Floats) -> Floats:
    return (values - values.mean()) / values.std()


# ---------------------------------------------------------------------- encodings


@pytest.mark.parametrize("space", [BENCH201, SMALL, SizeSpace()], ids=["bench201", "small", "size"])
def test_encodings_by_hand(space: SearchSpace) -> None:
    """Every column is the indicator of one choice, or of two choices of different decisions."""
    tokens = space.sample(np.random.default_rng(0), 20)
    choices = [
        (position, choice) for position in range(space.length) for choice in range(space.choice_counts[position])
    ]
    pairs = [(a, b) for i, a in enumerate(choices) for b in choices[i + 1 :] if a[0] != b[0]]
    single = [[row[position] == choice for position, choice in choices] for row in tokens]
    double = [[row[a[0]] == a[1] and row[b[0]] == b[1] for a, b in pairs] for row in tokens]
    np.testing.assert_array_equal(one_hot(space, tokens), single)
    np.testing.assert_array_equal(one_hot_with_pairs(space, tokens), np.hstack([single, double]))
    assert one_hot(space, tokens).dtype == one_hot_with_pairs(space, tokens).dtype == np.float32


@both
@pytest.mark.parametrize("name", [name for name in PRESETS if PRESETS[name].choice_counts.sum() < 200])
def test_kernel_is_the_product_of_encodings(name: str, pairs: bool) -> None:
    space = PRESETS[name]
    tokens = space.sample(np.random.default_rng(0), 12)
    tokens[6:9, ::2] = tokens[:3, ::2]  # architectures with more in common than random ones
    encoded = ENCODINGS[pairs](space, tokens).astype(np.float64)
    np.testing.assert_array_equal(kernel(tokens[:5], tokens, pairs=pairs), encoded[:5] @ encoded.T)


# ---------------------------------------------------------------------- Bayesian linear regression


@pytest.mark.slow
@both
@pytest.mark.parametrize("space", [BENCH201, SMALL], ids=["bench201", "small"])
@pytest.mark.parametrize("n", [30, 300])
def test_posterior_of_scikit_learn(space: SearchSpace, n: int, pairs: bool) -> None:
    """With fewer architectures than weights, and with more; on features that are written out there."""
    tokens, values = data(space, n)
    features = ENCODINGS[pairs](space, tokens).astype(np.float64)
    theirs = BayesianRidge(
        fit_intercept=False, alpha_1=0, alpha_2=0, lambda_1=0, lambda_2=0, tol=1e-10, max_iter=1000, compute_score=True
    ).fit(features, standardised(values))
    ours = BayesianLinear(space, pairs=pairs, outliers=np.inf, tolerance=1e-9, iterations=1000).fit(tokens, values)

    assert ours.evidence[-1] == pytest.approx(theirs.scores_[-1], abs=1e-4)

    ours.weight_precision, ours.noise_precision = theirs.lambda_, theirs.alpha_
    new = space.sample(np.random.default_rng(1), 50)
    expected, deviation = theirs.predict(ENCODINGS[pairs](space, new).astype(np.float64), return_std=True)
    found = ours.predict(new)
    np.testing.assert_allclose(found[0], values.mean() + values.std() * expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found[1], values.std() * deviation, rtol=1e-6)


def test_an_update_keeps_the_precisions() -> None:
    tokens, values = data(BENCH201, 60)
    fitted = BayesianLinear(BENCH201).fit(tokens, values)
    precisions = fitted.weight_precision, fitted.noise_precision
    fitted.update(tokens[:40], values[:40])
    assert (fitted.weight_precision, fitted.noise_precision) == precisions
    again = BayesianLinear(BENCH201).fit(tokens[:40], values[:40])
    assert again.weight_precision != precisions[0]
    again.weight_precision, again.noise_precision = precisions
    np.testing.assert_allclose(fitted.predict(tokens), again.predict(tokens))


@both
def test_precisions_of_scikit_learn(pairs: bool) -> None:
    tokens, values = data(BENCH201, 300, noise=1.0)
    theirs = BayesianRidge(
        fit_intercept=False, alpha_1=0, alpha_2=0, lambda_1=0, lambda_2=0, tol=1e-12, max_iter=5000
    ).fit(ENCODINGS[pairs](BENCH201, tokens).astype(np.float64), standardised(values))
    ours = BayesianLinear(BENCH201, pairs=pairs, outliers=np.inf, tolerance=1e-8, iterations=5000).fit(tokens, values)
    assert ours.noise_precision == pytest.approx(theirs.alpha_, rel=1e-4)
    assert ours.weight_precision == pytest.approx(theirs.lambda_, rel=1e-4)


@pytest.mark.slow
@both
@pytest.mark.parametrize("n", [2, 10, 60, 400])
def test_evidence_increases(n: int, pairs: bool) -> None:
    """In every update, to a maximum; the values are those of a multivariate normal distribution."""
    for seed in range(5):
        tokens, values = data(BENCH201, n, seed=seed, noise=float(seed))
        fitted = BayesianLinear(BENCH201, pairs=pairs, outliers=np.inf).fit(tokens, values)
        assert len(fitted.evidence) > 1
        assert (np.diff(fitted.evidence) >= -1e-9).all()

        def evidence(weight: float, noise: float, tokens: Tokens = tokens, values: Floats = values) -> float:
            encoded = ENCODINGS[pairs](BENCH201, tokens).astype(np.float64)
            covariance = encoded @ encoded.T / weight + np.eye(len(tokens)) / noise
            return float(multivariate_normal(np.zeros(len(tokens)), covariance).logpdf(standardised(values)))

        weight, noise = fitted.weight_precision, fitted.noise_precision
        if max(weight, noise) > 1e6:
            continue  # the covariance is singular to working precision
        best = evidence(weight, noise)
        assert fitted.evidence[-1] == pytest.approx(best, abs=1e-6)
        if len(fitted.evidence) <= fitted.settings.iterations:
            others = [evidence(weight * a, noise * b) for a, b in ((1.2, 1), (1 / 1.2, 1), (1, 1.2), (1, 1 / 1.2))]
            assert max(others) < best + 1e-6


def test_a_linear_function_of_pairs_is_recovered() -> None:
    tokens, values = data(BENCH201, 600, noise=0.0)  # 1 + 24 + 240 of the 30 + 375 columns are independent
    new, expected = tokens[300:], values[300:]
    mean, deviation = BayesianLinear(BENCH201, outliers=np.inf).fit(tokens[:300], values[:300]).predict(new)
    np.testing.assert_allclose(mean, expected, atol=1e-6 * values.std())
    assert deviation.max() < 1e-3 * values.std()
    mean, _ = BayesianLinear(BENCH201, outliers=np.inf, pairs=False).fit(tokens[:300], values[:300]).predict(new)
    assert np.abs(mean - expected).max() > 0.5 * values.std()


def test_deviation_is_larger_where_less_is_known() -> None:
    """Where an architecture has nothing in common with those that are known, the prediction is the prior."""
    space = SizeSpace()
    tokens = np.zeros((3, space.length), dtype=np.int64)
    tokens[1, 0] = tokens[2, 1] = 1
    fitted = BayesianLinear(space).fit(tokens, np.array([0.0, 1.0, 2.0]))
    fitted.weight_precision, fitted.noise_precision = 10.0, 20.0
    near, half, far = tokens[0], tokens[0].copy(), np.full(space.length, 2)
    half[2:] = 2
    deviation = fitted.predict(np.array([near, half, far]))[1]
    assert deviation[0] < deviation[1] < deviation[2]
    assert fitted.predict(far[None])[0] == pytest.approx(1.0)  # the mean of the values
    assert deviation[2] == pytest.approx(np.sqrt(15 / 10 + 1 / 20) * np.std([0.0, 1.0, 2.0]))  # 5 choices, 10 pairs


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, values = data(BENCH201, 40)
    fitted = BayesianLinear(BENCH201).fit(tokens, values)
    new = BENCH201.sample(np.random.default_rng(1), 103)
    whole = fitted.predict(new)
    monkeypatch.setattr(module, "BLOCK", 10)
    np.testing.assert_allclose(fitted.predict(new), whole, rtol=1e-10)


def test_the_largest_space_needs_no_columns_of_pairs() -> None:
    """There are 12 million of them."""
    space = PRESETS["transformation"]
    tokens = np.random.default_rng(0).integers(0, space.choice_counts, size=(60, space.length))
    mean, deviation = make_predictor("bayesian-linear", space).fit(tokens[:50], np.arange(50.0)).predict(tokens)
    assert mean.shape == deviation.shape == (60,)
    assert np.isfinite([mean, deviation]).all()


def test_outliers_are_moved_to_a_bound() -> None:
    tokens, values = data(BENCH201, 99)
    values = np.sort(values)
    median = np.median(values)
    bound = 3 * 1.4826 * np.median(np.abs(values - median))
    far, bounded = values.copy(), values.copy()
    far[0], bounded[0] = median - 1e6 * bound, median - bound
    new = BENCH201.sample(np.random.default_rng(1), 20)
    found = BayesianLinear(BENCH201).fit(tokens, far).predict(new)
    np.testing.assert_allclose(
        found, BayesianLinear(BENCH201).fit(tokens, np.clip(bounded, median - bound, None)).predict(new)
    )
    # Where most values are equal, the others are no outliers.
    values = np.where(np.arange(99) < 60, 0.5, values)
    found = BayesianLinear(BENCH201).fit(tokens, values).predict(new)
    np.testing.assert_array_equal(found, BayesianLinear(BENCH201, outliers=np.inf).fit(tokens, values).predict(new))


def test_predictions_on_the_bundled_table() -> None:
    """Two trainings of an architecture there, of five epochs, have a rank correlation of 0.65 themselves."""
    table = open_table("bench201-fashion-mnist")
    accuracy = table.task("fashion-mnist").valid[:, :, -1].astype(np.float64)
    tokens = table.space.enumerate()
    values = np.nanmean(accuracy, axis=1)[table.rows[table.space.index(tokens)]]
    correlations, within = [], []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(tokens))
        known, rest = order[:100], order[100:]
        mean, deviation = (
            make_predictor("bayesian-linear", table.space).fit(tokens[known], values[known]).predict(tokens[rest])
        )
        correlations.append(spearmanr(mean, values[rest]).statistic)
        within.append(np.mean(np.abs(values[rest] - mean) < deviation))
    assert np.mean(correlations) > 0.5
    assert 0.5 < np.mean(within) < 0.85  # of a normal distribution: 0.68


# ---------------------------------------------------------------------- every predictor


@dataclass(frozen=True)
class NearestSettings:
    noise: float = 1.0


class Nearest(StandardisedPredictor):
    """A predictor of somebody else's: the value of the architecture with most decisions in common."""

    Settings = NearestSettings

    def fit_standardised(self, tokens: Tokens, values: Floats) -> None:
        self.tokens, self.values = tokens, values

    def predict_standardised(self, tokens: Tokens) -> tuple[Floats, Floats]:
        closest = kernel(tokens, self.tokens, pairs=False).argmax(axis=1)
        return self.values[closest], np.full(len(tokens), self.settings.noise)


@pytest.fixture(params=["bayesian-linear", "of-a-test"])
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(PREDICTORS, "_places", dict(PREDICTORS._places))
    register_predictor("of-a-test", Nearest)
    return str(request.param)


def test_foreign_predictors(name: str) -> None:
    assert {"bayesian-linear", "of-a-test"} <= set(PREDICTORS)
    made = make_predictor("of-a-test", SMALL, noise=0.25)
    assert isinstance(made, Nearest)
    tokens = SMALL.sample(np.random.default_rng(0), 30)
    tokens = tokens[np.sort(np.unique(tokens, axis=0, return_index=True)[1])]
    values = np.arange(len(tokens)) * 10.0
    mean, deviation = made.fit(tokens, values).predict(tokens)
    np.testing.assert_allclose(mean, values, atol=1e-9)
    np.testing.assert_allclose(deviation, 0.25 * values.std())
    assert isinstance(make_predictor(f"{__name__}:Nearest", SMALL), Nearest)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    slope=st.floats(1e-3, 1e3),
    sign=st.sampled_from([-1, 1]),
    offset=st.floats(-100, 100),
    n=st.integers(1, 40),
    seed=st.integers(0, 5),
    kind=st.sampled_from([BayesianLinear, Nearest]),
)
def test_affine_changes_of_values(
    slope: float, sign: int, offset: float, n: int, seed: int, kind: type[Predictor]
) -> None:
    """Another unit or zero of the values is that of the predictions."""
    slope *= sign
    tokens, values = data(BENCH201, n, seed=seed, noise=2.0)
    assume(n == 1 or np.ptp(values) > 0)
    new = BENCH201.sample(np.random.default_rng(seed), 10)
    mean, deviation = kind(BENCH201).fit(tokens, values).predict(new)
    changed, changed_deviation = kind(BENCH201).fit(tokens, slope * values + offset).predict(new)
    scale = abs(slope) * deviation.max()
    np.testing.assert_allclose(changed, slope * mean + offset, atol=1e-4 * scale)
    if n > 1:  # one value has no unit
        np.testing.assert_allclose(changed_deviation, abs(slope) * deviation, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("values", [[0.1], [0.1] * 3, [0.7] * 11, [1e9] * 7])
def test_equal_values(name: str, values: list[float]) -> None:
    tokens = BENCH201.sample(np.random.default_rng(0), len(values))
    mean, deviation = make_predictor(name, BENCH201).fit(tokens, np.array(values)).predict(tokens)
    np.testing.assert_allclose(mean, values[0])
    assert ((deviation >= 1) & (deviation <= 2)).all()


@pytest.mark.filterwarnings("error")
def test_one_architecture_with_different_values() -> None:
    """All of their variance is noise."""
    values = np.array([1.0, 2.0, 4.0, 5.0])
    mean, deviation = (
        BayesianLinear(BENCH201).fit(np.ones((4, 6), dtype=np.int64), values).predict(np.eye(6, dtype=int))
    )
    np.testing.assert_allclose(mean, 3.0)
    np.testing.assert_allclose(deviation, values.std(), rtol=1e-4)


def test_only_the_last_fit_counts(name: str) -> None:
    tokens, values = data(BENCH201, 30)
    again = make_predictor(name, BENCH201).fit(tokens[:10], values[:10]).fit(tokens[10:], values[10:])
    once = make_predictor(name, BENCH201).fit(tokens[10:], values[10:])
    np.testing.assert_array_equal(again.predict(tokens), once.predict(tokens))


def test_no_architectures_no_predictions(name: str) -> None:
    tokens, values = data(BENCH201, 10)
    mean, deviation = make_predictor(name, BENCH201).fit(tokens, values).predict(tokens[:0])
    assert mean.shape == deviation.shape == (0,)


def test_predict_needs_fit(name: str) -> None:
    with pytest.raises(ValueError, match="call fit before"):
        make_predictor(name, BENCH201).predict(np.zeros((1, 6), dtype=np.int64))


@pytest.mark.parametrize(
    ("tokens", "values", "message"),
    [
        (np.zeros((0, 6), dtype=np.int64), [], "at least one architecture"),
        (np.zeros((2, 6), dtype=np.int64), [1.0], r"got 2 architectures and values of shape \(1,\)"),
        (np.zeros((2, 6), dtype=np.int64), [1.0, np.nan], "one finite value for each"),
        (np.zeros((2, 5), dtype=np.int64), [1.0, 2.0], r"shape \(batch, 6\), got int64 of shape \(2, 5\)"),
        (np.zeros((2, 6)), [1.0, 2.0], "must be integers"),
        (np.array([[0] * 6, [0, 0, 5, 0, 0, 0]]), [1.0, 2.0], r"tokens\[1, 2\] = 5 is no choice of decision"),
        (np.array([[0] * 6, [0, -1, 0, 0, 0, 0]]), [1.0, 2.0], r"tokens\[1, 1\] = -1 is no choice of decision"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_cannot_be_fitted(name: str, tokens: Tokens, values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_predictor(name, BENCH201).fit(tokens, np.array(values))


def test_unknown_names_and_settings() -> None:
    with pytest.raises(ValueError, match=r"unknown predictor 'bayesian-liner'.*did you mean 'bayesian-linear'"):
        make_predictor("bayesian-liner", BENCH201)
    with pytest.raises(ValueError, match=r"has no setting 'depth'; known: iterations, outliers, pairs, tolerance"):
        make_predictor("bayesian-linear", BENCH201, depth=3)
    with pytest.raises(ValueError, match="is no predictor"):
        make_predictor("nas_gym.predictors:kernel", BENCH201)
    for setting, value in (("iterations", 0), ("tolerance", 0.0), ("outliers", -1.0), ("outliers", np.nan)):
        with pytest.raises(ValueError, match=f"{setting} must be"):
            make_predictor("bayesian-linear", BENCH201, **{setting: value})


def test_import_brings_no_torch() -> None:
    program = "import sys, nas_gym.predictors; print(sorted({'torch', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"
