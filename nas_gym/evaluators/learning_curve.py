"""Predicts final accuracies from the first epochs, and stops trainings that are unlikely to be the best.

Baker, Gupta, Raskar & Naik 2017, "Accelerating Neural Architecture Search using Performance Prediction".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import NuSVR

from nas_gym.evaluators.evaluator import Evaluations, Evaluator, concatenate
from nas_gym.settings import check_seed, from_mapping
from nas_gym.spaces import SearchSpace, Tokens
from nas_gym.types import Floats

COSTS = ("parameters", "flops")


# ---------------------------------------------------------------------- features


def architecture_features(space: SearchSpace, tokens: Tokens, metrics: Mapping[str, Floats]) -> Floats:
    """The number of times that each choice of a decision kind is taken, and the logarithms of the known costs.

    Baker et al. use the numbers of layers and of weights.

    Args:
        space: the search space.
        tokens: int64[B, T].
        metrics: float64[B] by name; ``parameters`` and ``flops`` are used.

    Returns:
        float64[B, features].
    """
    names = sorted({(decision.kind, choice) for decision in space.decisions for choice in decision.choices})
    place = np.zeros((space.length, space.num_choices), dtype=np.int64)
    for position, decision in enumerate(space.decisions):
        place[position, : len(decision.choices)] = [names.index((decision.kind, choice)) for choice in decision.choices]
    counts = np.zeros((len(tokens), len(names)))
    np.add.at(counts, (np.arange(len(tokens))[:, None], place[np.arange(space.length), tokens]), 1.0)
    costs = [np.log1p(metrics[name])[:, None] for name in COSTS if name in metrics]
    return np.concatenate([counts, *costs], axis=1)


def curve_features(curves: Floats) -> Floats:
    """Concatenates partial curves float64[B, t] with their first and second differences."""
    return np.concatenate([np.diff(curves, order, axis=1) for order in range(min(3, curves.shape[1]))], axis=1)


# ---------------------------------------------------------------------- prediction


def _support_vector_machines(rng: np.random.Generator, candidates: int, seed: int) -> list[Any]:
    del seed
    return [
        NuSVR(C=10 ** rng.uniform(-2, 2), nu=rng.uniform(0.1, 1), gamma=10 ** rng.uniform(-4, 0))
        for _ in range(candidates)
    ]


def _forests(rng: np.random.Generator, candidates: int, seed: int) -> list[Any]:
    del rng, candidates
    return [RandomForestRegressor(n_estimators=100, min_samples_leaf=2, max_features=1 / 3, random_state=seed % 2**32)]


def _least_squares(rng: np.random.Generator, candidates: int, seed: int) -> list[Any]:
    del rng, candidates, seed
    return [LinearRegression()]


REGRESSORS: dict[str, Callable[[np.random.Generator, int, int], list[Any]]] = {
    "nu-svr": _support_vector_machines,
    "random-forest": _forests,
    "least-squares": _least_squares,
}


class LearningCurvePredictor:
    """Sequential regression models: one regressor per number of epochs t, on the data available after t epochs.

    The error is assumed to be normal, with the standard deviation from cross-validation (Baker et al. 2017).

    Args:
        regressor: ``"nu-svr"``, with a radial kernel and hyperparameters from a random search with cross-validation, as
            in Baker et al.; ``"random-forest"``, which never predicts more than the highest value seen; or
            ``"least-squares"``.
        candidates: number of candidates of that random search.
        folds: number of folds of the cross-validation.
        seed: seed of the candidates, the folds and the forests.

    Attributes:
        deviations: float64[T - 1], the standard deviation of the error after 1, 2, ... epochs.

    Raises:
        ValueError: the regressor is unknown.
    """

    def __init__(self, regressor: str = "nu-svr", *, candidates: int = 20, folds: int = 10, seed: int = 0) -> None:
        if regressor not in REGRESSORS:
            raise ValueError(f"regressor must be one of {', '.join(map(repr, REGRESSORS))}; got {regressor!r}")
        self.regressor, self.candidates, self.folds, self.seed = regressor, candidates, folds, seed
        self.deviations: Floats = np.empty(0)
        self._models: list[Any] = []

    def fit(self, features: Floats, curves: Floats) -> None:
        """Fits the regressors to complete curves.

        Args:
            features: features of the architectures, float64[n, features].
            curves: float64[n, T]; the last column is the target.

        Raises:
            ValueError: there are fewer curves than folds.
        """
        if len(curves) < self.folds:
            raise ValueError(f"curves must be at least {self.folds}, one per fold; got {len(curves)}")
        self._mean, self._scale = curves[:, -1].mean(), curves[:, -1].std() or 1.0
        target = (curves[:, -1] - self._mean) / self._scale
        rng = np.random.default_rng(self.seed)
        folds = KFold(self.folds, shuffle=True, random_state=self.seed % 2**32)
        self._models, deviations = [], []
        for epochs in range(1, curves.shape[1]):
            known = np.concatenate([features, curve_features(curves[:, :epochs])], axis=1)
            drawn = REGRESSORS[self.regressor](rng, self.candidates, self.seed)
            models = [make_pipeline(StandardScaler(), model) for model in drawn]
            errors = [np.square(cross_val_predict(model, known, target, cv=folds) - target).mean() for model in models]
            best = int(np.argmin(errors))
            self._models.append(models[best].fit(known, target))
            deviations.append(self._scale * np.sqrt(errors[best]))
        self.deviations = np.array(deviations)

    def predict(self, features: Floats, curves: Floats) -> tuple[Floats, float]:
        """Predicts final accuracies, float64[B] in [0, 1], and the standard deviation of the error.

        Args:
            features: features of the architectures, float64[B, features].
            curves: the first t epochs, float64[B, t], t < T.
        """
        epochs = curves.shape[1]
        known = np.concatenate([features, curve_features(curves)], axis=1)
        predicted = self._mean + self._scale * self._models[epochs - 1].predict(known)
        return np.clip(predicted, 0.0, 1.0), float(self.deviations[epochs - 1])


# ---------------------------------------------------------------------- early stopping


@dataclass(frozen=True)
class EarlyStoppingSettings:
    """Settings of early stopping.

    Attributes:
        complete: number of architectures that are trained to the end first, to fit the predictor (after Baker et
            al. 2017).
        threshold: a training is stopped when its probability of beating the best so far is below this (after Baker et
            al. 2017).
        regressor: see `LearningCurvePredictor`.
        candidates: see `LearningCurvePredictor`.
        folds: see `LearningCurvePredictor`.
    """

    complete: int = 100
    threshold: float = 0.05
    regressor: str = "nu-svr"
    candidates: int = 20
    folds: int = 10

    def __post_init__(self) -> None:
        for name, least in (("folds", 2), ("candidates", 1), ("complete", self.folds)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)!r}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must be a probability, in [0, 1], got {self.threshold!r}")


class EarlyStoppingEvaluator(Evaluator):
    """Watches the learning curves of another evaluator and stops trainings that are unlikely to be the best.

    An architecture is evaluated with increasing fidelity. Once the predictor has been fitted to the first complete
    curves, an architecture is stopped at the fidelity at which its probability of beating the best accuracy so far
    falls below the threshold; its accuracy is then the predicted one.

    Results depend on earlier evaluations, so this evaluator is stateful, although `update` trains nothing. There are
    savings only if the wrapped evaluator continues from a lower fidelity, as tables and `FromScratchEvaluator` do.

    Metrics in addition to the evaluator's: ``stopped``, 1 or 0, and ``predicted``, the last prediction, NaN if there is
    none yet. The evaluator's ``epochs`` and ``seconds`` are those of the fidelity reached.

    Args:
        evaluator: an evaluator with fidelities.
        seed: seed of the predictor.
        settings: fields of `EarlyStoppingSettings`.

    Attributes:
        predictor: the predictor; None while there are too few complete curves.
        best: the best accuracy of a complete training so far.

    Raises:
        ValueError: the evaluator has no fidelities, or a setting is unknown or out of range.
    """

    stateful = True

    def __init__(self, evaluator: Evaluator, *, seed: int = 0, **settings: Any) -> None:
        super().__init__(evaluator.space)
        check_seed(seed)
        if not evaluator.fidelities:
            raise ValueError(f"evaluator must have fidelities; {type(evaluator.unwrapped).__name__} has none")
        self.evaluator, self.fidelities = evaluator, evaluator.fidelities
        self.settings, self.seed = from_mapping(EarlyStoppingSettings, settings, "early stopping"), seed
        self._make_predictor()  # validates the regressor
        self.predictor: LearningCurvePredictor | None = None
        self.best = -np.inf
        self._complete: dict[tuple[int, ...], tuple[list[float], list[float]]] = {}  # features and curves
        self._spent, self._trials = 0.0, 0

    def _make_predictor(self) -> LearningCurvePredictor:
        settings = self.settings
        return LearningCurvePredictor(
            settings.regressor, candidates=settings.candidates, folds=settings.folds, seed=self.seed
        )

    @property
    def unwrapped(self) -> Evaluator:
        return self.evaluator.unwrapped

    @property
    def saved(self) -> float:
        """The share of the budget of all full evaluations that was saved by stopping."""
        return 1.0 - self._spent / self._trials if self._trials else 0.0

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        """Evaluates with early stopping, or at a lower fidelity without it."""
        share = self.nearest_fidelity(fidelity)
        if share is not None:
            return self.evaluator.evaluate(tokens, fidelity=share, parents=parents)
        missing = max(self.settings.complete - len(self._complete), 0)
        parts = slice(missing), slice(missing, None)
        return concatenate([self._watched(tokens[part], None if parents is None else parents[part]) for part in parts])

    def _watched(self, tokens: Tokens, parents: Tokens | None) -> Evaluations:
        """Evaluates the remaining architectures with increasing fidelity."""
        left = np.arange(len(tokens))
        curves, predicted = np.empty((len(tokens), 0)), np.full(len(tokens), np.nan)
        parts, rows = [], []
        for share in self.fidelities:
            last = share == self.fidelities[-1]
            scored = self.evaluator.evaluate(
                tokens[left], fidelity=None if last else share, parents=None if parents is None else parents[left]
            )
            curves = np.column_stack([curves, scored.accuracy])
            features = architecture_features(self.space, tokens[left], scored.metrics)
            sound, hopeless = ~scored.failed, np.zeros(len(left), dtype=bool)
            if not last:
                predicted, chance = self._prospects(features, curves, sound)
                hopeless = chance < self.settings.threshold
            ended = hopeless | scored.failed | last
            extra = {"stopped": hopeless.astype(np.float64), "predicted": predicted}
            accuracy = np.where(hopeless, predicted, scored.accuracy)
            whole = Evaluations(accuracy, {**scored.metrics, **extra}, scored.failed, scored.reasons)
            parts.append(whole.rows(ended))
            rows.append(left[ended])
            self._spent += share * int(ended.sum())
            if last:
                self._learn(tokens[left[sound]], features[sound], curves[sound])
            left, curves, predicted = left[~ended], curves[~ended], predicted[~ended]
        self._trials += len(tokens)
        return concatenate(parts).rows(np.argsort(np.concatenate(rows), kind="stable"))

    def _prospects(self, features: Floats, curves: Floats, sound: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Predicted accuracies and probabilities of beating the best so far; NaN if there is no prediction."""
        predicted, chance = np.full((2, len(curves)), np.nan)
        if self.predictor is not None and sound.any():
            predicted[sound], deviation = self.predictor.predict(features[sound], curves[sound])
            chance[sound] = norm.sf(self.best, predicted[sound], deviation)
        return predicted, chance

    def _learn(self, tokens: Tokens, features: Floats, curves: Floats) -> None:
        """Stores complete curves, and fits the predictor as soon as there are enough."""
        self.best = max([self.best, *curves[:, -1].tolist()])
        if self.predictor is not None:
            return
        for row, key in enumerate(map(tuple, tokens.tolist())):
            self._complete[key] = features[row].tolist(), curves[row].tolist()
        if len(self._complete) >= self.settings.complete:
            self.predictor = self._make_predictor()
            known, seen = zip(*self._complete.values(), strict=True)
            self.predictor.fit(np.array(known), np.array(seen))

    # ------------------------------------------------------------------ delegation

    def update(self, tokens: Tokens) -> dict[str, float]:
        return self.evaluator.update(tokens)

    def state_dict(self) -> dict[str, Any]:
        """The evaluator's state, the curves of the predictor, the best accuracy, and the budget spent."""
        complete = [[list(key), *seen] for key, seen in self._complete.items()]
        return {
            "evaluator": self.evaluator.state_dict(),
            "complete": complete,
            "best": float(self.best),
            "spent": self._spent,
            "trials": self._trials,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.evaluator.load_state_dict(state["evaluator"])
        self.predictor, self._complete = None, {}
        if state["complete"]:
            keys, features, curves = zip(*state["complete"], strict=True)
            self._learn(np.array(keys, dtype=np.int64), np.array(features), np.array(curves))
        self.best, self._spent, self._trials = state["best"], state["spent"], state["trials"]
