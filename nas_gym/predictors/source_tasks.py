"""A Gaussian process that starts from what the trials of other tasks tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas_gym.predictors.gaussian_process import GaussianProcess, GaussianProcessSettings
from nas_gym.predictors.normal_scores import normal_scores
from nas_gym.predictors.predictor import make_predictor
from nas_gym.settings import check_fields
from nas_gym.spaces import SearchSpace, Tokens
from nas_gym.types import Floats

REFERENCE = 1000
"""Random architectures over which the predictions for a source task have mean 0 and standard deviation 1."""


@dataclass(frozen=True)
class SourceTasksSettings(GaussianProcessSettings):
    """Settings of `SourceTasks`, beside those of the Gaussian process.

    Attributes:
        source_predictor: what predicts the values of each source task.
        weight_deviation: prior standard deviation of the weight of a source task; the prior mean of all weights
            together is 1.
        offset_deviation: prior standard deviation of a constant. The trials of a search are better than random
            architectures, so that their normal scores are lower than those that the sources promise.
    """

    source_predictor: str = "bayesian-linear"
    weight_deviation: float = 0.4
    offset_deviation: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "weight_deviation offset_deviation", "finite and not negative", lambda v: 0 <= v < np.inf)


class SourceTasks(GaussianProcess):
    """Gaussian process regression on a new task whose prior mean is what other tasks predict.

    The value of an architecture x is

        sum over tasks s of w_s f_s(x) + c + g(x) + noise,

    where f_s is the prediction of a predictor fitted to the trials of source task s, the weights w_s are normal around
    1 / S, the constant c is normal around 0, and g is the Gaussian process of `GaussianProcess`. In other words, it is
    a Gaussian process over tasks and decisions in which the sources' part is replaced by its mean, so that a fit
    takes no longer with many source trials than without. Values should be normal scores: they are not standardised
    further.

    Source: the linear model of coregionalisation (Bonilla et al. 2007, "Multi-task Gaussian Process Prediction"), with
    the sources first learned alone, as in Feurer et al. 2018, "Scalable Meta-Learning for Bayesian Optimization".

    Args:
        space: the search space.
        sources: of each source task the architectures, int64[n, T], and their rewards, float64[n].

    Raises:
        ValueError: there is no source; otherwise as `Predictor`.
    """

    Settings = SourceTasksSettings
    settings: SourceTasksSettings

    def __init__(self, space: SearchSpace, sources: Sequence[tuple[Tokens, Floats]], **settings: Any) -> None:
        super().__init__(space, **settings)
        if not sources:
            raise ValueError("sources must be the trials of at least one task")
        self.sources = [
            make_predictor(self.settings.source_predictor, space).fit(tokens, normal_scores(rewards))
            for tokens, rewards in sources
        ]
        self._predicted: dict[bytes, Floats] = {}  # by all sources, of architectures that were asked for
        reference = self._by_sources(space.sample(np.random.default_rng(0), REFERENCE))
        self._centre, self._spread = reference.mean(axis=0), np.maximum(reference.std(axis=0), 1e-12)
        # Until there are trials of the new task: the largest weight and noise, and a length in the middle.
        self.weight, self.noise = self.settings.counts[-1], self.settings.noises[-1]
        self.length = self.settings.lengths[len(self.settings.lengths) // 2]
        self.update_standardised(np.empty((0, space.length), dtype=np.int64), np.empty(0))
        self._scale = 1.0  # it can predict without any trial of the new task

    def _learn(self, tokens: Tokens, values: Floats, learn: Callable[[Tokens, Floats], None]) -> None:
        super()._learn(tokens, values, lambda tokens, _: learn(tokens, np.asarray(values, dtype=np.float64)))
        self._mean, self._scale = 0.0, 1.0

    def _prior(self, tokens: Tokens) -> tuple[Floats, Floats]:
        told = (self._by_sources(tokens) - self._centre) / self._spread
        offset = np.full((len(tokens), 1), self.settings.offset_deviation)
        return told.mean(axis=1), np.concatenate([self.settings.weight_deviation * told, offset], axis=1)

    def _by_sources(self, tokens: Tokens) -> Floats:
        """What the source tasks predict, float64[B, S]."""
        keys = [row.tobytes() for row in tokens]
        new = np.array([row for row, key in enumerate(keys) if key not in self._predicted], dtype=np.int64)
        if len(new):
            columns = np.stack([source.predict(tokens[new])[0] for source in self.sources], axis=1)
            self._predicted |= zip((keys[row] for row in new), columns, strict=True)
        return np.array([self._predicted[key] for key in keys]).reshape(len(tokens), len(self.sources))
