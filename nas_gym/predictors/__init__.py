"""Predict the values of architectures from those of others. Needs NumPy only."""

from __future__ import annotations

from nas_gym.predictors.acquisition import (
    ACQUISITIONS,
    acquire,
    believe,
    expected_improvement,
    thompson_sample,
    upper_confidence_bound,
)
from nas_gym.predictors.bayesian_linear import BayesianLinear, BayesianLinearSettings
from nas_gym.predictors.encodings import counts, kernel, one_hot, one_hot_with_pairs
from nas_gym.predictors.ensemble import Ensemble, EnsembleSettings
from nas_gym.predictors.gaussian_process import GaussianProcess, GaussianProcessSettings
from nas_gym.predictors.normal_scores import normal_scores
from nas_gym.predictors.predictor import (
    PREDICTORS,
    NoSettings,
    Predictor,
    StandardisedPredictor,
    make_predictor,
    register_predictor,
)

__all__ = [
    "ACQUISITIONS",
    "PREDICTORS",
    "BayesianLinear",
    "BayesianLinearSettings",
    "Ensemble",
    "EnsembleSettings",
    "GaussianProcess",
    "GaussianProcessSettings",
    "NoSettings",
    "Predictor",
    "StandardisedPredictor",
    "acquire",
    "believe",
    "counts",
    "expected_improvement",
    "kernel",
    "make_predictor",
    "normal_scores",
    "one_hot",
    "one_hot_with_pairs",
    "register_predictor",
    "thompson_sample",
    "upper_confidence_bound",
]
