"""Final accuracies predicted from the first epochs, and trainings stopped that will not be the best.

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

from nas_gym.evaluators.evaluator import Evaluations, Evaluator, Floats, joined
from nas_gym.spaces import SearchSpace, Tokens

COSTS = ("parameters", "flops")


# ---------------------------------------------------------------------- features


def architecture_features(space: SearchSpace, tokens: Tokens, metrics: Mapping[str, Floats]) -> Floats:
    """How often each choice is taken among the decisions of a kind, and the logarithms of the costs that are told.

    Baker et al. have the numbers of layers and of weights.

    Args:
        space: the search space.
        tokens: int64[B, T].
        metrics: float64[B] by name; ``parameters`` and ``flops`` are read.

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
    """A partial curve float64[B, t], its first differences and its second ones, side by side."""
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
    return [RandomForestRegressor(n_estimators=100, min_samples_leaf=2, max_features=1 / 3, random_state=seed)]


def _least_squares(rng: np.random.Generator, candidates: int, seed: int) -> list[Any]:
    del rng, candidates, seed
    return [LinearRegression()]


REGRESSORS: dict[str, Callable[[np.random.Generator, int, int], list[Any]]] = {
    "nu-svr": _support_vector_machines,
    "random-forest": _forests,
    "least-squares": _least_squares,
}


class LearningCurvePredictor:
    """Sequential regression models: for each number of epochs t a regressor from what is known by then.

    The error is taken to be normal, with the deviation that cross-validation shows (Baker et al. 2017).

    Args:
        regressor: ``"nu-svr"``, with a radial kernel and hyperparameters from a random search by cross-validation, as
            Baker et al. have it; ``"random-forest"``, which never predicts more than it has seen; or
            ``"least-squares"``.
        candidates: draws of that random search.
        folds: of the cross-validation.
        seed: of the draws, the folds and the forests.

    Attributes:
        deviations: float64[T - 1], of the error after 1, 2, ... epochs.

    Raises:
        ValueError: an unknown regressor.
    """

    def __init__(self, regressor: str = "nu-svr", *, candidates: int = 20, folds: int = 10, seed: int = 0) -> None:
        if regressor not in REGRESSORS:
            raise ValueError(f"regressor must be one of {', '.join(map(repr, REGRESSORS))}; got {regressor!r}")
        self.regressor, self.candidates, self.folds, self.seed = regressor, candidates, folds, seed
        self.deviations: Floats = np.empty(0)
        self._models: list[Any] = []

    def fit(self, features: Floats, curves: Floats) -> None:
        """Learns from complete curves.

        Args:
            features: of the architectures, float64[n, features].
            curves: float64[n, T]; the last column is what is predicted.

        Raises:
            ValueError: there are fewer curves than folds.
        """
        if len(curves) < self.folds:
            raise ValueError(f"curves must be at least {self.folds}, one a fold; got {len(curves)}")
        self._mean, self._scale = curves[:, -1].mean(), curves[:, -1].std() or 1.0
        target = (curves[:, -1] - self._mean) / self._scale
        rng = np.random.default_rng(self.seed)
        folds = KFold(self.folds, shuffle=True, random_state=self.seed)
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
        """The final accuracies, float64[B], in [0, 1], and the standard deviation of the error.

        Args:
            features: float64[B, features].
            curves: the first t epochs, float64[B, t], t < T.
        """
        epochs = curves.shape[1]
        known = np.concatenate([features, curve_features(curves)], axis=1)
        predicted = self._mean + self._scale * self._models[epochs - 1].predict(known)
        return np.clip(predicted, 0.0, 1.0), float(self.deviations[epochs - 1])


# ---------------------------------------------------------------------- early stopping


@dataclass(frozen=True)
class EarlyStoppingSettings:
    """When trainings are stopped.

    Attributes:
        complete: architectures that are trained to the end first, of which the predictor learns (after Baker et
            al. 2017).
        threshold: a training is stopped when its chance to beat the best so far is smaller (after Baker et
            al. 2017).
        regressor: of `LearningCurvePredictor`.
        candidates: likewise.
        folds: likewise.
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
    """Watches the learning curves of another evaluator, and stops trainings that will hardly be the best.

    An architecture is evaluated with one fidelity after another. Once a predictor has learnt from the first complete
    curves, an architecture is stopped after the fidelity at which its chance to beat the best accuracy so far falls
    under the threshold; its accuracy is then the predicted one.

    Results depend on what was evaluated before, and so the evaluator is stateful, though `update` trains nothing here.
    To spare anything, the evaluator must go on where a lower fidelity has ended, as tables and
    `FromScratchEvaluator` do.

    Metrics beside the evaluator's own: ``stopped``, 1 or 0, and ``predicted``, the last prediction, NaN before there
    are any. The evaluator's ``epochs`` and ``seconds`` are those of the fidelity reached.

    Args:
        evaluator: one with fidelities.
        seed: of the predictor.
        settings: fields of `EarlyStoppingSettings`.

    Attributes:
        predictor: the predictor; None as long as there are too few complete curves.
        best: the best accuracy of a complete training so far.

    Raises:
        ValueError: the evaluator has no fidelities, or a setting is unknown or out of range.
    """

    stateful = True

    def __init__(self, evaluator: Evaluator, *, seed: int = 0, **settings: Any) -> None:
        super().__init__(evaluator.space)
        if not evaluator.fidelities:
            raise ValueError(f"evaluator must have fidelities; {type(evaluator.unwrapped).__name__} has none")
        known = EarlyStoppingSettings.__dataclass_fields__
        if unknown := sorted(set(settings) - set(known)):
            raise ValueError(f"early stopping has no setting {unknown}; settings: {', '.join(known)}")
        self.evaluator, self.fidelities = evaluator, evaluator.fidelities
        self.settings, self.seed = EarlyStoppingSettings(**settings), seed
        self._make_predictor()  # complains of an unknown regressor
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
        """The share of the full budget of all evaluations in full that was spared by stopping."""
        return 1.0 - self._spent / self._trials if self._trials else 0.0

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        """In full, with early stopping; with a lower fidelity, as the evaluator does."""
        share = self.nearest_fidelity(fidelity)
        if share is not None:
            return self.evaluator.evaluate(tokens, fidelity=share, parents=parents)
        missing = max(self.settings.complete - len(self._complete), 0)
        parts = slice(missing), slice(missing, None)
        return joined([self._watched(tokens[part], None if parents is None else parents[part]) for part in parts])

    def _watched(self, tokens: Tokens, parents: Tokens | None) -> Evaluations:
        """Evaluates with one fidelity after another, those that are left."""
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
            told = {"stopped": hopeless.astype(np.float64), "predicted": predicted}
            accuracy = np.where(hopeless, predicted, scored.accuracy)
            whole = Evaluations(accuracy, {**scored.metrics, **told}, scored.failed, scored.reasons)
            parts.append(whole.rows(ended))
            rows.append(left[ended])
            self._spent += share * int(ended.sum())
            if last:
                self._learn(tokens[left[sound]], features[sound], curves[sound])
            left, curves, predicted = left[~ended], curves[~ended], predicted[~ended]
        self._trials += len(tokens)
        return joined(parts).rows(np.argsort(np.concatenate(rows), kind="stable"))

    def _prospects(self, features: Floats, curves: Floats, sound: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Predicted accuracies, and the chances to beat the best so far; NaN where there is nothing to predict yet."""
        predicted, chance = np.full((2, len(curves)), np.nan)
        if self.predictor is not None and sound.any():
            predicted[sound], deviation = self.predictor.predict(features[sound], curves[sound])
            chance[sound] = norm.sf(self.best, predicted[sound], deviation)
        return predicted, chance

    def _learn(self, tokens: Tokens, features: Floats, curves: Floats) -> None:
        """Remembers complete curves, and learns from them as soon as they are enough."""
        self.best = max([self.best, *curves[:, -1].tolist()])
        if self.predictor is not None:
            return
        for row, key in enumerate(map(tuple, tokens.tolist())):
            self._complete[key] = features[row].tolist(), curves[row].tolist()
        if len(self._complete) >= self.settings.complete:
            self.predictor = self._make_predictor()
            known, seen = zip(*self._complete.values(), strict=True)
            self.predictor.fit(np.array(known), np.array(seen))

    # ------------------------------------------------------------------ as the evaluator

    def update(self, tokens: Tokens) -> dict[str, float]:
        return self.evaluator.update(tokens)

    def state_dict(self) -> dict[str, Any]:
        """The evaluator's, the curves that the predictor learns from, the best accuracy, and what was spent."""
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
