"""Bayesian linear regression on any features, by their scalar products."""

from __future__ import annotations

import numpy as np

from nas_gym.types import Floats

LARGEST_PRECISION = 1e10
"""Bounds both precisions, relative to their start: one diverges where the fit is exact or explains nothing."""


class BayesianRegression:
    """Bayesian linear regression without intercept, whose two precisions maximise the evidence.

    Weights and noise are normal with mean 0. The updates of their precisions are those of MacKay 1992, "Bayesian
    Interpolation" (Bishop 2006, "Pattern Recognition and Machine Learning", section 3.5.2). All is computed
    from the eigenvalues of the n x n matrix of scalar products of the features, so that their number does not matter.

    Attributes:
        weight_precision: alpha, the precision of the weights.
        noise_precision: beta, the precision of the noise.
        evidence: float64[updates + 1], the logarithm of the evidence of the values, before the first update and after
            each.
    """

    weight_precision: float
    noise_precision: float
    evidence: Floats

    def regress(self, gram: Floats, values: Floats, iterations: int = 300, tolerance: float = 1e-5) -> None:
        """Fits the regression.

        Args:
            gram: float64[n, n], the scalar products of the features.
            values: float64[n], of mean 0 and variance about 1.
            iterations: the largest number of updates of the precisions.
            tolerance: the updates end when they change no precision by more than this, relative to its value.
        """
        self.decompose(gram, values)
        square = max(float(np.diag(gram).mean()), np.finfo(np.float64).tiny)
        # The start: weights that explain values of variance 1, and noise of variance 1.
        self._maximise_evidence(np.array([square, 1.0]), iterations, tolerance)

    def decompose(self, gram: Floats, values: Floats) -> None:
        """Fits the weights alone; the precisions are kept."""
        eigenvalues, self._vectors = np.linalg.eigh(gram)
        self._eigenvalues = np.maximum(eigenvalues, 0.0)  # rounding makes some negative
        self._projected = values @ self._vectors

    def posterior(self, shared: Floats, squares: Floats | float) -> tuple[Floats, Floats]:
        """The mean and the variance of new values, noise included.

        Args:
            shared: float64[B, n], the scalar products of the new features with those of the fit.
            squares: float64[B], or one number for all: the squared lengths of the new features.

        Returns:
            float64[B] and float64[B].
        """
        scaled = self.noise_precision / (self.weight_precision + self.noise_precision * self._eigenvalues)
        rotated = shared @ self._vectors
        variance = (squares - rotated**2 @ scaled) / self.weight_precision
        return rotated @ (scaled * self._projected), np.maximum(variance, 0.0) + 1 / self.noise_precision

    def _maximise_evidence(self, precisions: Floats, iterations: int, tolerance: float) -> None:
        largest = LARGEST_PRECISION * precisions
        found = [self._evidence(precisions)]
        for _ in range(iterations if self._projected.any() else 0):
            updated = np.minimum(self._updated(precisions), largest)
            change = np.abs(updated / precisions - 1).max()
            precisions = updated
            found.append(self._evidence(precisions))
            if change <= tolerance:
                break
        self.weight_precision, self.noise_precision = precisions.tolist()
        self.evidence = np.array(found)

    def _updated(self, precisions: Floats) -> Floats:
        """MacKay's update: each precision as the data determine it, given the weights under the present ones."""
        weight, noise = precisions
        shrinkage = weight / (weight + noise * self._eigenvalues)  # 1 where the data say nothing
        determined = np.sum(1 - shrinkage)  # gamma, the effective number of weights
        square_of_weights = np.sum(self._eigenvalues * (noise / weight * shrinkage * self._projected) ** 2)
        square_of_errors = np.sum((shrinkage * self._projected) ** 2)
        with np.errstate(divide="ignore"):  # weights of 0, where one architecture has all the values
            return np.array([determined / square_of_weights, np.sum(shrinkage) / square_of_errors])

    def _evidence(self, precisions: Floats) -> float:
        """The logarithm of the evidence of the standardised values."""
        variances = self._eigenvalues / precisions[0] + 1 / precisions[1]
        return float(-0.5 * np.sum(np.log(2 * np.pi * variances) + self._projected**2 / variances))
