"""An LSTM over the decisions of an architecture as a predictor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nas_gym.predictors.encodings import sequence
from nas_gym.predictors.network import Batch, FeatureNetwork, NetworkPredictor, NetworkSettings
from nas_gym.settings import check_fields
from nas_gym.spaces import Tokens


@dataclass(frozen=True)
class LSTMSettings(NetworkSettings):
    """Settings of the LSTM.

    Attributes:
        width: of the embeddings and of the state (Liu et al. 2018, "Progressive Neural Architecture
            Search": 100 each).
    """

    width: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "width", "a positive integer", lambda value: value > 0)


class LSTM(NetworkPredictor):
    """Reads the choices one after the other; the last state is the embedding of the architecture.

    Source: Liu et al. 2018, "Progressive Neural Architecture Search". The regression stands in for their
    ensemble of five.
    """

    Settings = LSTMSettings
    settings: LSTMSettings

    def _make_network(self, tokens: Tokens) -> FeatureNetwork:
        return Reader(int(self.space.choice_counts.sum()), self.settings.width)

    def _encode(self, tokens: Tokens) -> Batch:
        return (torch.from_numpy(sequence(self.space, tokens)),)


class Reader(FeatureNetwork):
    """Embeddings, an LSTM and a linear function of its last state.

    Args:
        words: the number of words.
        width: of embeddings and state.
    """

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.readout = nn.Linear(width, 1)
        for weight in (self.embedding.weight, *self.lstm.parameters()):
            nn.init.uniform_(weight, -0.1, 0.1)

    def features(self, *batch: Tensor) -> Tensor:
        (words,) = batch
        last: Tensor = self.lstm(self.embedding(words))[1][0][-1]
        return last
