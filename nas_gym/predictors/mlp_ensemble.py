"""An ensemble of multilayer perceptrons as a predictor, that of BANANAS."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from nas_gym.predictors.encodings import one_hot
from nas_gym.predictors.graphs import PathEncoding
from nas_gym.predictors.network import NetworkSettings, minibatches, seeded
from nas_gym.predictors.predictor import StandardisedPredictor
from nas_gym.settings import check_fields
from nas_gym.spaces import Tokens
from nas_gym.types import Floats

ENCODINGS = ("paths", "one-hot")


@dataclass(frozen=True)
class MLPEnsembleSettings(NetworkSettings):
    """Settings of the ensemble.

    The defaults are made for up to some hundred architectures (docs/predictors.md). Those of White et al. 2021
    (BANANAS, their code): path encoding, 5 members of 10 layers of 20, 150 epochs, learning rate 0.01, batches of 32.

    Attributes:
        members: of the ensemble.
        layers: hidden layers of each.
        width: of each hidden layer.
        encoding: ``"paths"`` of the graph, or the decisions ``"one-hot"``.
    """

    epochs: int = 60
    batch_size: int = 32
    learning_rate: float = 0.01
    members: int = 5
    layers: int = 3
    width: int = 64
    encoding: str = "paths"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "members layers width", "a positive integer", lambda value: value > 0)
        check_fields(self, "encoding", f"one of {', '.join(ENCODINGS)}", lambda value: value in ENCODINGS)


class MLPEnsemble(StandardisedPredictor):
    """Members that differ by their initial weights alone; all see each batch at once.

    Mean and deviation are those of their predictions. `update` changes nothing once the ensemble is fitted: its members
    have nothing that is quick to find.

    Source: White et al. 2021, "BANANAS: Bayesian Optimization with Neural Architectures for Neural Architecture
    Search".
    """

    Settings = MLPEnsembleSettings
    settings: MLPEnsembleSettings

    def update(self, tokens: Tokens, values: Floats) -> Self:
        return self if self._scale else self.fit(tokens, values)

    def fit_standardised(self, tokens: Tokens, values: Floats) -> None:
        settings = self.settings
        self._paths = PathEncoding(self.space, tokens) if settings.encoding == "paths" else None
        inputs, targets = self._encode(tokens), torch.from_numpy(values.astype(np.float32))
        with seeded(settings.seed):
            self.network = Perceptrons(inputs.shape[1], settings)
            optimiser = torch.optim.Adam(
                self.network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, fused=True
            )
            for rows in minibatches(len(targets), settings, optimiser):
                errors = (self.network(inputs[rows]) - targets[rows]).abs()
                optimiser.zero_grad()
                errors.mean(dim=1).sum().backward()  # each member has its own loss
                optimiser.step()

    def predict_standardised(self, tokens: Tokens) -> tuple[Floats, Floats]:
        with torch.inference_mode():
            predicted = self.network(self._encode(tokens)).numpy().astype(np.float64)
        return predicted.mean(axis=0), predicted.std(axis=0)

    def _encode(self, tokens: Tokens) -> Tensor:
        return torch.from_numpy(self._paths.encode(tokens) if self._paths else one_hot(self.space, tokens))


class Perceptrons(nn.Module):
    """Several multilayer perceptrons with ReLU, side by side.

    Args:
        inputs: the number of columns.
        settings: those of the predictor.
    """

    def __init__(self, inputs: int, settings: MLPEnsembleSettings) -> None:
        super().__init__()
        sizes = [inputs, *[settings.width] * settings.layers, 1]
        shapes = [(settings.members, *pair) for pair in itertools.pairwise(sizes)]
        self.weights = nn.ParameterList(
            torch.randn(shape) * (2 / max(1, shape[1])) ** 0.5
            for shape in shapes  # He et al. 2015, for ReLU
        )
        self.biases = nn.ParameterList(torch.zeros(members, 1, columns) for members, _, columns in shapes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Predictions float32[members, B] for float32[B, inputs]."""
        hidden = inputs.expand(len(self.weights[0]), *inputs.shape)
        for depth, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, torch.relu(hidden) if depth else hidden, weight)
        return hidden.squeeze(-1)
