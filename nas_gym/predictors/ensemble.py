"""The mean of those predictors that predict what they have not seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nas_gym.predictors.predictor import Predictor, StandardisedPredictor, make_predictor
from nas_gym.settings import check_fields
from nas_gym.spaces import SearchSpace, Tokens
from nas_gym.types import Floats


@dataclass(frozen=True)
class EnsembleSettings:
    """Settings of the ensemble.

    Attributes:
        members: names of predictors, each with its settings.
        threshold: the least score of a member that is reliable (Angermueller et al. 2020: a coefficient of
            determination that is tuned by task). With -1, a member may predict twice as badly as the mean of the
            values does. With 0, the first rounds of `dyna` often had no model, which cost it 0.02 of its mean score on
            the tasks of benchmarks/tuning.py.
        folds: of the cross-validation.
    """

    members: Mapping[str, Mapping[str, Any]] = field(
        default_factory=lambda: {"gaussian-process": {}, "bayesian-linear": {}}
    )
    threshold: float = -1.0
    folds: int = 5

    def __post_init__(self) -> None:
        if not isinstance(self.members, Mapping) or not self.members:
            raise ValueError(f"members must map names of predictors to settings, got {self.members!r}")
        check_fields(self, "threshold", "below 1", lambda v: v < 1)
        check_fields(self, "folds", "at least 2", lambda v: v >= 2)


class Ensemble(StandardisedPredictor):
    """The mean of several predictors, chosen at each fit by cross-validation; those that are not reliable are left out.

    A member's score is the coefficient of determination of its predictions of the folds that it has not been fitted to.
    Where no member reaches the threshold, the ensemble is not `reliable`, and predicts by the best of them.

    Source: Angermueller et al. 2020, "Model-based reinforcement learning for biological sequence design" (DyNA PPO).

    Attributes:
        scores: of all members by name, at the last fit.
        chosen: the names of those that predict.
    """

    Settings = EnsembleSettings
    settings: EnsembleSettings

    def __init__(self, space: SearchSpace, **settings: Any) -> None:
        super().__init__(space, **settings)
        self.members = {name: make_predictor(name, space, **own) for name, own in self.settings.members.items()}

    def fit_standardised(self, tokens: Tokens, values: Floats) -> None:
        self.scores = {name: self._score(member, tokens, values) for name, member in self.members.items()}
        best = max(self.scores, key=lambda name: self.scores[name])
        self.reliable = self.scores[best] >= self.settings.threshold
        self.chosen = [name for name in self.members if self.scores[name] >= self.settings.threshold] or [best]
        self.update_standardised(tokens, values)

    def _score(self, member: Predictor, tokens: Tokens, values: Floats) -> float:
        """By folds that differ in size by one at most; what the member keeps of a fit, it keeps of that to all."""
        member.fit(tokens, values)
        total = float(((values - values.mean()) ** 2).sum())
        if total == 0 or len(values) < 2:
            return -np.inf
        fold = np.random.default_rng(len(values)).permutation(len(values)) % self.settings.folds
        errors = 0.0
        for held_out in range(min(self.settings.folds, len(values))):
            rows = fold == held_out
            predicted, _ = member.update(tokens[~rows], values[~rows]).predict(tokens[rows])
            errors += float(((values[rows] - predicted) ** 2).sum())
        return 1 - errors / total

    def update_standardised(self, tokens: Tokens, values: Floats) -> None:
        for name in self.chosen:
            self.members[name].update(tokens, values)

    def predict_standardised(self, tokens: Tokens) -> tuple[Floats, Floats]:
        """The mean and the deviation of the mixture, in equal shares, of what the chosen members predict."""
        means, deviations = np.stack([self.members[name].predict(tokens) for name in self.chosen], axis=1)
        mean = means.mean(axis=0)
        return mean, np.sqrt((deviations**2 + (means - mean) ** 2).mean(axis=0))
