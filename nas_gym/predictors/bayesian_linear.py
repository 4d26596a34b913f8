"""Bayesian linear regression on the decisions of an architecture and their pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nas_gym.predictors.bayesian_regression import BayesianRegression
from nas_gym.predictors.encodings import kernel
from nas_gym.predictors.predictor import StandardisedPredictor
from nas_gym.spaces import Tokens
from nas_gym.types import Floats

BLOCK = 4096
"""Architectures that are predicted at once, so that the kernel of a large pool is never held as a whole."""


@dataclass(frozen=True)
class BayesianLinearSettings:
    """Settings of Bayesian linear regression.

    Attributes:
        pairs: whether there is a weight for each pair of choices of different decisions, too, as in the quadratic
            model of Baptista & Poloczek 2018 (BOCS); else one for each choice only.
        iterations: the largest number of updates of the precisions (scikit-learn's `BayesianRidge`: 300).
        tolerance: the updates end when they change no precision by more than this, relative to its value (ours).
        outliers: values further from the median than this many deviations are moved to that bound, the deviation
            being 1.4826 times the median distance from the median (Leys et al. 2013, "Detecting outliers": 3, for a
            very conservative criterion). Infinity leaves the values as they are. Networks that do not learn at all
            would otherwise decide the fit: with the bound, the rank correlation of predictions from 100 values of the
            bundled table rises from 0.40 to 0.57.
    """

    pairs: bool = True
    iterations: int = 300
    tolerance: float = 1e-5
    outliers: float = 3.0

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {self.iterations!r}")
        for name in ("tolerance", "outliers"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)!r}")


class BayesianLinear(BayesianRegression, StandardisedPredictor):
    """Bayesian linear regression, whose two precisions maximise the evidence (the marginal likelihood).

    Weights and noise are normal with mean 0. The updates of their precisions are those of MacKay 1992, "Bayesian
    Interpolation" (Bishop 2006, "Pattern Recognition and Machine Learning", section 3.5.2). All is computed
    from the eigenvalues of the n x n kernel of the encoded architectures, so that the number of weights does not
    matter: a fit takes of the order of n³ operations once and n an update, a prediction n² an architecture.

    The predicted deviation includes the noise: it is that of the value that a trial of the architecture would be given.
    Part of the noise is what the model cannot express about an architecture, which is not known before the trial
    either. Where the values are all equal, there is nothing to maximise, and the prior variance of an architecture's
    value is that of the noise.

    Attributes:
        weight_precision: alpha, the precision of the weights, in units of the standardised values.
        noise_precision: beta, the precision of the noise, in the same units.
        evidence: float64[updates + 1], the logarithm of the evidence of the standardised values, before the first
            update and after each.
    """

    Settings = BayesianLinearSettings
    settings: BayesianLinearSettings

    def _learn(self, tokens: Tokens, values: Floats, learn: Callable[[Tokens, Floats], None]) -> None:
        values = np.asarray(values, dtype=np.float64)
        super()._learn(tokens, _without_outliers(values, self.settings.outliers), learn)

    def fit_standardised(self, tokens: Tokens, values: Floats) -> None:
        self.regress(self._gram(tokens), values, self.settings.iterations, self.settings.tolerance)

    def update_standardised(self, tokens: Tokens, values: Floats) -> None:
        """Keeps the precisions."""
        self.decompose(self._gram(tokens), values)

    def _gram(self, tokens: Tokens) -> Floats:
        """The scalar products of the encoded architectures, float64[n, n], which are kept for predictions."""
        self._tokens = np.array(tokens)
        gram = kernel(tokens, tokens, pairs=self.settings.pairs)
        self._square = float(gram[0, 0])  # of the length of an encoding, the same for all architectures
        return gram

    def predict_standardised(self, tokens: Tokens) -> tuple[Floats, Floats]:
        mean, variance = np.empty((2, len(tokens)))
        for start in range(0, len(tokens), BLOCK):
            rows = slice(start, start + BLOCK)
            shared = kernel(tokens[rows], self._tokens, pairs=self.settings.pairs)
            mean[rows], variance[rows] = self.posterior(shared, self._square)
        return mean, np.sqrt(variance)


def _without_outliers(values: Floats, bound: float) -> Floats:
    """Values float64[n], none further from the median than `bound` deviations."""
    if not np.isfinite(values).all() or values.size == 0:
        return values  # `Predictor.fit` refuses them
    median = np.median(values)
    deviation = 1.4826 * np.median(np.abs(values - median))  # the standard deviation, if the values are normal
    if deviation == 0:  # of most values, which says nothing about the others
        return values
    return np.clip(values, median - bound * deviation, median + bound * deviation)
