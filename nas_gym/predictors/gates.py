"""GATES, a graph network in which operations gate what flows along the edges."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nas_gym.predictors.gcn import as_tensors, mean_over
from nas_gym.predictors.graphs import PADDING, GraphEncoding
from nas_gym.predictors.network import Batch, FeatureNetwork, NetworkPredictor, NetworkSettings
from nas_gym.settings import check_fields
from nas_gym.spaces import Tokens


@dataclass(frozen=True)
class GATESSettings(NetworkSettings):
    """Settings of GATES.

    Width and read-out are made for up to some hundred architectures (docs/predictors.md); the authors' code (aw_nas)
    has 128 and 200. Everything else is theirs.

    Attributes:
        layers: of the network.
        width: of what flows.
        embedding_size: of operations.
        readout_size: of the hidden layer behind the output node.
        margin: by which the better one of a pair is to score higher (Ning et al. 2020).
        pairs: with how many others an architecture is compared in a step, at most.
    """

    epochs: int = 50
    layers: int = 5
    width: int = 64
    embedding_size: int = 48
    readout_size: int = 64
    margin: float = 0.1
    pairs: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "layers width embedding_size readout_size pairs", "a positive integer", lambda v: v > 0)
        check_fields(self, "margin", "positive and finite", lambda v: 0 < v < float("inf"))


class GATES(NetworkPredictor):
    """Scores architectures so that the better one of a pair scores higher, by a margin.

    Scores have no unit; mean and deviation in that of the values come from the regression on the last hidden layer.

    Source: Ning et al. 2020, "A Generic Graph-based Neural Architecture Encoding Scheme for Predictor-based NAS".
    """

    Settings = GATESSettings
    settings: GATESSettings

    def _make_network(self, tokens: Tokens) -> FeatureNetwork:
        self._encoding = GraphEncoding(self.space, tokens)
        return GatedPropagation(self._encoding.symbols, self.settings)

    def _encode(self, tokens: Tokens) -> Batch:
        return as_tensors(self._encoding.encode(tokens))

    def _loss(self, outputs: Tensor, values: Tensor) -> Tensor:
        partners = torch.stack([torch.randperm(len(values)) for _ in range(min(self.settings.pairs, len(values)))])
        return pairwise_margin_loss(outputs, outputs[partners], values, values[partners], self.settings.margin)


class GatedPropagation(FeatureNetwork):
    """Layers of sigmoid(operation W) * (A X W): each node passes on what it reads, gated by its operation.

    Nodes that read nothing keep what they are. The score is a multilayer perceptron of the output node.

    Args:
        symbols: the number of symbols of nodes.
        settings: those of the predictor.
    """

    def __init__(self, symbols: int, settings: GATESSettings) -> None:
        super().__init__()
        self.operations = nn.Embedding(symbols, settings.embedding_size, padding_idx=PADDING)
        self.start = nn.Parameter(0.1 * torch.randn(2, settings.width))  # of inputs, and of all other nodes
        self.gates = nn.ModuleList(nn.Linear(settings.embedding_size, settings.width) for _ in range(settings.layers))
        self.layers = nn.ModuleList(nn.Linear(settings.width, settings.width) for _ in range(settings.layers))
        self.hidden = nn.Linear(settings.width, settings.readout_size)
        self.readout = nn.Linear(settings.readout_size, 1)

    def features(self, *batch: Tensor) -> Tensor:
        adjacency, symbols, outputs = batch
        inputs = (adjacency.sum(dim=2) == 0)[:, :, None].to(adjacency.dtype)
        information = inputs * self.start[0] + (1 - inputs) * self.start[1]
        operations = self.operations(symbols)
        for gate, layer in zip(self.gates, self.layers, strict=True):
            read = adjacency @ layer(information)
            information = torch.sigmoid(gate(operations)) * read + inputs * information
        return torch.relu(self.hidden(mean_over(information, outputs)))


def pairwise_margin_loss(scores: Tensor, others: Tensor, values: Tensor, other_values: Tensor, margin: float) -> Tensor:
    """The mean of max(0, margin - the difference of scores) over pairs, the difference being better less worse.

    Pairs of equal values do not count.

    Source: Ning et al. 2020, "A Generic Graph-based Neural Architecture Encoding Scheme for
    Predictor-based NAS".

    Args:
        scores: float32[n].
        others: float32[m, n], those of the architectures that they are compared with.
        values: float32[n].
        other_values: float32[m, n].
        margin: of the loss.
    """
    sign = torch.sign(values - other_values)
    losses = torch.relu(margin - sign * (scores - others)) * sign.abs()
    return losses.sum() / sign.abs().sum().clamp_min(1.0)
