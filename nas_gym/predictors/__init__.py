"""Predict the values of architectures from those of others. Needs NumPy only."""

from __future__ import annotations

from nas_gym.predictors.bayesian_linear import BayesianLinear, BayesianLinearSettings
from nas_gym.predictors.encodings import kernel, one_hot, one_hot_with_pairs
from nas_gym.predictors.predictor import PREDICTORS, NoSettings, Predictor, make_predictor, register_predictor

__all__ = [
    "PREDICTORS",
    "BayesianLinear",
    "BayesianLinearSettings",
    "NoSettings",
    "Predictor",
    "kernel",
    "make_predictor",
    "one_hot",
    "one_hot_with_pairs",
    "register_predictor",
]
