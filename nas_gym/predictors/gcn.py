"""A graph convolutional network as a predictor: that of BOGCN, or that of Wen et al."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nas_gym.predictors.graphs import PADDING, GraphBatch, GraphEncoding
from nas_gym.predictors.network import Batch, FeatureNetwork, NetworkPredictor, NetworkSettings
from nas_gym.settings import check_fields
from nas_gym.spaces import Tokens


@dataclass(frozen=True)
class GCNSettings(NetworkSettings):
    """Settings of the graph convolutional network.

    The defaults are made for up to some hundred architectures (docs/predictors.md). Those of Shi et al. 2020 (BONAS,
    their code): 100 epochs, learning rate 1e-3, a global node, an exponential weight. Those of Wen et al. 2020 (their
    code): 300 epochs, learning rate 1e-4, cosine, weight decay 1e-3, batches of 10, width 144, both directions, dropout
    0.1.

    Attributes:
        layers: of the network.
        width: of each layer.
        global_node: whether what a node sees that reads all others is the embedding (BONAS); else it is the mean over
            the nodes (Wen et al.).
        bidirectional: whether a layer averages two convolutions, one along the edges and one against them (Wen et al.);
            else there is one, along the edges (BONAS).
        dropout: the share of each layer's outputs that is dropped.
        exponential_weight: whether the loss of an architecture is weighted by exp(u - 1), where u is its value,
            rescaled from 0, the lowest of the batch, to 1, the highest (BONAS weighs by accuracies, which are all alike
            at the end of a search).
    """

    epochs: int = 50
    learning_rate: float = 0.01
    layers: int = 4
    width: int = 64
    global_node: bool = False
    bidirectional: bool = False
    dropout: float = 0.0
    exponential_weight: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "layers width", "a positive integer", lambda value: value > 0)
        check_fields(self, "dropout", "in [0, 1)", lambda value: 0 <= value < 1)
        wanted = "global_node bidirectional exponential_weight"
        check_fields(self, wanted, "true or false", lambda value: isinstance(value, bool))


class GCN(NetworkPredictor):
    """Graph convolutions, and a Bayesian linear regression on the embedding of the architecture.

    The order of the nodes does not matter, nor does padding, which batch normalisation does not see. Instead of the
    logit of the accuracy, as BONAS does, network and regression predict the standardised values, so that they need not
    be in (0, 1).

    Sources: Shi et al. 2020, "Bridging the Gap between Sample-based and One-shot Neural Architecture Search with
    BONAS"; Wen et al. 2020, "Neural Predictor for Neural Architecture Search".
    """

    Settings = GCNSettings
    settings: GCNSettings

    def _make_network(self, tokens: Tokens) -> FeatureNetwork:
        self._encoding = GraphEncoding(self.space, tokens, global_node=self.settings.global_node)
        return GraphConvolutions(self._encoding.symbols, self.settings)

    def _encode(self, tokens: Tokens) -> Batch:
        return as_tensors(self._encoding.encode(tokens))

    def _loss(self, outputs: Tensor, values: Tensor) -> Tensor:
        errors = (outputs - values) ** 2
        if self.settings.exponential_weight:
            span = (values.max() - values.min()).clamp_min(1e-12)
            errors = errors * torch.exp((values - values.min()) / span - 1)
        return errors.mean()


class GraphConvolutions(FeatureNetwork):
    """Layers of A X W, batch normalisation and ReLU, where each node reads itself, too.

    Args:
        symbols: the number of symbols of nodes.
        settings: those of the predictor.
    """

    def __init__(self, symbols: int, settings: GCNSettings) -> None:
        super().__init__()
        width, directions = settings.width, 1 + settings.bidirectional
        self.global_node = settings.global_node
        self.embedding = nn.Embedding(symbols, directions * width, padding_idx=PADDING)  # one-hot symbols times W
        self.layers = nn.ModuleList(
            nn.Linear(width, directions * width, bias=False) for _ in range(settings.layers - 1)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(settings.layers))
        self.dropout = nn.Dropout(settings.dropout)
        self.readout = nn.Linear(width, 1)
        if not settings.bidirectional:
            for module in (self.embedding, *self.layers):
                for weight in module.parameters():
                    nn.init.uniform_(weight, -0.05, 0.05)

    def features(self, *batch: Tensor) -> Tensor:
        adjacency, symbols, outputs = batch
        nodes = symbols != PADDING
        own = torch.eye(symbols.shape[1])
        reads = [adjacency + own, adjacency.transpose(1, 2) + own]
        rows = nodes.flatten().nonzero().squeeze(1)  # without the padding, which must not count in the statistics
        weighted = self.embedding(symbols)
        for depth, norm in enumerate(self.norms):
            parts = weighted.chunk(weighted.shape[2] // norm.num_features, dim=2)
            convolved = sum(along @ part for along, part in zip(reads, parts, strict=False)) / len(parts)
            normalised = _normalised(convolved.flatten(0, 1).index_select(0, rows), norm)
            hidden = torch.zeros_like(convolved).flatten(0, 1)
            hidden = hidden.index_copy(0, rows, self.dropout(torch.relu(normalised))).view_as(convolved)
            if depth < len(self.layers):
                weighted = self.layers[depth](hidden)
        read = outputs if self.global_node else nodes
        return mean_over(hidden, read)


def _normalised(rows: Tensor, norm: nn.Module) -> Tensor:
    """The rows float32[n, F], normalised; a single one is its own mean, and has no deviation to learn from."""
    normalised: Tensor = rows if norm.training and len(rows) == 1 else norm(rows)
    return normalised


def mean_over(hidden: Tensor, nodes: Tensor) -> Tensor:
    """The mean of float32[B, N, F] over some nodes bool[B, N], float32[B, F]."""
    weights = nodes.to(hidden.dtype)
    return torch.einsum("bn,bnf->bf", weights, hidden) / weights.sum(dim=1, keepdim=True).clamp_min(1.0)


def as_tensors(batch: GraphBatch) -> Batch:
    """Adjacency, symbols and outputs."""
    return tuple(torch.from_numpy(np.ascontiguousarray(x)) for x in (batch.adjacency, batch.symbols, batch.outputs))
