"""Predictors that are neural networks with a Bayesian linear regression on what they have learned to see."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas_gym.predictors.bayesian_regression import BayesianRegression
from nas_gym.predictors.predictor import StandardisedPredictor
from nas_gym.settings import check_fields, check_seed
from nas_gym.spaces import Tokens
from nas_gym.types import Floats

BLOCK = 1024
"""Architectures that a network sees at once where it is not trained."""

Batch = tuple[Tensor, ...]
"""Encoded architectures: tensors whose first dimension is that of the batch."""


@dataclass(frozen=True)
class NetworkSettings:
    """What all networks have.

    Attributes:
        seed: of the initial weights, of the order of the batches and of dropout.
        epochs: of training.
        batch_size: architectures of a step.
        learning_rate: of Adam at the start; it falls to 0 by half a cosine where `cosine`.
        cosine: whether the learning rate falls.
        weight_decay: of Adam.
    """

    seed: int = 0
    epochs: int = 100
    batch_size: int = 128
    learning_rate: float = 1e-3
    cosine: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_fields(self, "epochs batch_size", "a positive integer", lambda value: value > 0)
        check_fields(self, "learning_rate", "positive and finite", lambda value: 0 < value < float("inf"))
        check_fields(self, "cosine", "true or false", lambda value: isinstance(value, bool))
        check_fields(self, "weight_decay", "finite and not negative", lambda value: 0 <= value < float("inf"))


class FeatureNetwork(nn.Module, ABC):
    """A network with features, of which its output is a linear function.

    Attributes:
        readout: from features float32[B, F] to outputs float32[B, 1].
    """

    readout: nn.Linear

    @abstractmethod
    def features(self, *batch: Tensor) -> Tensor:
        """The features float32[B, F] of encoded architectures."""

    def forward(self, *batch: Tensor) -> Tensor:
        """The outputs, float32[B]."""
        output: Tensor = self.readout(self.features(*batch)).squeeze(-1)
        return output


class NetworkPredictor(StandardisedPredictor):
    """Trains a network, and takes mean and deviation from a Bayesian linear regression on its features.

    The regression (`BayesianRegression`) is that of the standardised values; the predicted deviation includes the
    noise. `update` keeps the network and fits the regression alone. Networks compute in float32, the regression in
    float64. A fit follows from the architectures, the values and the seed.

    Source: Snoek et al. 2015, "Scalable Bayesian Optimization Using Deep Neural Networks".

    Attributes:
        network: the trained network.
        regression: on its features.
    """

    Settings = NetworkSettings
    settings: NetworkSettings

    @abstractmethod
    def _make_network(self, tokens: Tokens) -> FeatureNetwork:
        """A network for the encoding of these architectures, int64[n, T], with weights of torch's global generator."""

    @abstractmethod
    def _encode(self, tokens: Tokens) -> Batch:
        """The architectures as the network takes them."""

    def _loss(self, outputs: Tensor, values: Tensor) -> Tensor:
        """What training minimises: by default the mean squared error, of float32[B] and float32[B]."""
        return nn.functional.mse_loss(outputs, values)

    def fit_standardised(self, tokens: Tokens, values: Floats) -> None:
        with seeded(self.settings.seed):
            self.network = self._make_network(tokens)
            inputs = self._encode(tokens)
            self._train(inputs, torch.from_numpy(values.astype(np.float32)))
            _settle_statistics(self.network, inputs)
        self.update_standardised(tokens, values)

    def _train(self, inputs: Batch, values: Tensor) -> None:
        settings = self.settings
        self.network.train()
        optimiser = torch.optim.Adam(
            self.network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        for rows in minibatches(len(values), settings, optimiser):
            loss = self._loss(self.network(*(column[rows] for column in inputs)), values[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        self.network.eval()

    def update_standardised(self, tokens: Tokens, values: Floats) -> None:
        self._features = self._see(tokens)
        self.regression = BayesianRegression()
        self.regression.regress(self._features @ self._features.T, values)

    def predict_standardised(self, tokens: Tokens) -> tuple[Floats, Floats]:
        features = self._see(tokens)
        mean, variance = self.regression.posterior(features @ self._features.T, (features**2).sum(axis=1))
        return mean, np.sqrt(variance)

    def _see(self, tokens: Tokens) -> Floats:
        """The features of architectures, float64[B, F]."""
        seen: list[NDArray[np.float32]] = [np.empty((0, self.network.readout.in_features), dtype=np.float32)]
        with torch.inference_mode():
            for start in range(0, len(tokens), BLOCK):
                seen.append(self.network.features(*self._encode(tokens[start : start + BLOCK])).numpy())
        return np.concatenate(seen).astype(np.float64)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds torch's global generator for the context, after which it is what it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def minibatches(count: int, settings: NetworkSettings, optimiser: torch.optim.Optimizer) -> Iterator[Any]:
    """The rows of each step of training; between epochs the learning rate falls.

    The architectures of an epoch are split evenly: none is alone in its step, where there are others.
    """
    for epoch in range(settings.epochs):
        if settings.cosine:
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * (1 + np.cos(np.pi * epoch / settings.epochs)) / 2
        yield from torch.randperm(count).tensor_split(-(-count // settings.batch_size))


def _settle_statistics(network: nn.Module, inputs: Batch) -> None:
    """Sets the statistics of batch normalisation to those of all architectures: few steps do not get there."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d)]
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the average of all batches since
        norm.train()
    with torch.no_grad():
        network(*inputs)
    network.eval()
