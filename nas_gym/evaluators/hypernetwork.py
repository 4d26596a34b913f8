"""Scores architectures with weights that a hypernetwork makes for each of them (Brock et al. 2018, SMASH)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nas_gym.evaluators.shared_weights import SharedWeightEvaluator, SharedWeightSettings
from nas_gym.networks import Network
from nas_gym.networks.cell import Cell
from nas_gym.settings import check_fields
from nas_gym.spaces import CellSpace, SearchSpace, Tokens
from nas_gym.spaces.cell import CELLS


@dataclass(frozen=True)
class HypernetworkSettings(SharedWeightSettings):
    """Those of `SharedWeightSettings`, and the size of the hypernetwork.

    The training is that of the shared weights, so that the two differ in the hypernetwork alone. (The authors' code:
    Adam with a learning rate of 1e-3 and betas 0.5 and 0.999, on a cosine to 0, one random architecture a step.)

    Attributes:
        layers: convolutions of the hypernetwork, each of which reads all before it (the authors' code: three blocks of
            8, 10 and 4).
        growth: channels of each (the authors' code: 10).
        code: numbers that describe a group of decisions, from which a linear layer makes the weights (ours: the
            authors' last layer has as many outputs as it makes weights).
    """

    layers: int = 8
    growth: int = 10
    code: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "layers growth code", "at least 1", lambda v: v >= 1)


class HypernetworkEvaluator(SharedWeightEvaluator):
    """`SharedWeightEvaluator` whose weights depend on the whole architecture.

    As in the paper, 1x1 convolutions have generated weights, and the rest is shared: kernels of other sizes, batch
    norm, stem and classifier. It differs in this:

    - The picture of an architecture has one axis of columns, its nodes or layers, and the rows are the one-hot
      decisions of each; the convolutions over it have one dimension. The paper's columns are slices of channels.
    - What is generated is added to shared weights, the biases of the last layer. It is zero before the training, which
      so begins as that of `SharedWeightEvaluator`.
    - Full convolutions of other sizes, such as those of `chain`, have no 1x1 convolution in front of them, as the
      paper's have to read its memory banks. They are multiplied by a generated 1x1 convolution behind them, so that the
      network computes nothing that the architecture's own could not.

    Args:
        space: a search space of one of the kinds in `COLUMNS`.
        task: the task, or its name.
        arguments: those of `TaskEvaluator`; the settings are fields of `HypernetworkSettings`.

    Raises:
        ValueError: an unknown task, device or setting, or a space of another kind.
    """

    name = "hypernetwork"
    Settings = HypernetworkSettings
    settings: HypernetworkSettings

    def make_supernet(self) -> nn.Module:
        """The supernet of the space, with generated weights."""
        network = cast(Network, super().make_supernet())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return GeneratedSupernet(network, self.settings)


class GeneratedSupernet(nn.Module):
    """A supernet whose weights are made for each architecture.

    Args:
        network: the supernet; its full convolutions are changed in place.
        settings: the size of the hypernetwork.

    Raises:
        ValueError: the space is of another kind than those in `COLUMNS`.
    """

    def __init__(self, network: Network, settings: HypernetworkSettings) -> None:
        super().__init__()
        if network.space.name not in COLUMNS:
            kinds = ", ".join(COLUMNS)
            raise ValueError(f"hypernetworks are for spaces {kinds}; got space {network.space.name!r}")
        self.picture = Picture(network.space)
        self.hypernetwork = Hypernetwork(self.picture, settings)
        self.codes = Codes()
        self.network = network
        for name, module in list(network.named_modules()):
            column = COLUMNS[network.space.name](network, name)
            if isinstance(module, nn.Conv2d) and module.groups == 1 and column is not None:
                generated = Generated(module.weight, settings.code, column, self.codes)
                parametrize.register_parametrization(module, "weight", generated, unsafe=True)

    def forward(self, inputs: Tensor, tokens: Tokens) -> Tensor:
        """Outputs float[B, N, ...] of architectures int64[B, T], one after the other."""
        outputs = []
        for architecture, codes in zip(tokens, self.hypernetwork(self.picture(tokens)), strict=True):
            self.codes.current = codes
            outputs.append(self.network(inputs, architecture[None]))
        return torch.cat(outputs)


class Picture(nn.Module):
    """One-hot decisions of an architecture, float[B, rows, columns]: a column a group, a row a choice.

    Groups are nodes of cells, or layers; decisions that have the same place in their groups share rows. The last row is
    noise that is the same for all architectures, so that no two columns look alike (the paper's z).
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        places = [decision.name.rpartition("/")[2] for decision in space.decisions]
        choices: dict[str, int] = {}
        for place, decision in zip(places, space.decisions, strict=True):
            choices[place] = max(choices.get(place, 0), len(decision.choices))
        first = dict(zip(choices, accumulate(choices.values(), initial=0), strict=False))
        self.first = np.array([first[place] for place in places])
        self.group = np.array([decision.group for decision in space.decisions])
        self.rows, self.columns = sum(choices.values()) + 1, int(self.group.max()) + 1
        self.noise: Tensor
        self.register_buffer("noise", torch.randn(self.columns))

    def forward(self, tokens: Tokens) -> Tensor:
        """Of int64[B, T]."""
        picture = self.noise.new_zeros(len(tokens), self.rows, self.columns)
        rows = torch.from_numpy(self.first + tokens).to(self.noise.device)
        picture[torch.arange(len(tokens))[:, None], rows, torch.from_numpy(self.group)] = 1
        picture[:, -1] = self.noise
        return picture


class Hypernetwork(nn.Module):
    """A DenseNet over the columns, from a picture float[B, rows, columns] to codes float[B, columns, code].

    Codes have length 1: under SGD, a step then adds as much to the generated part of a weight as to the shared part.
    """

    def __init__(self, picture: Picture, settings: HypernetworkSettings) -> None:
        super().__init__()
        widths = [picture.rows + layer * settings.growth for layer in range(settings.layers + 1)]
        self.layers = nn.ModuleList(NormalisedConvolution(width, settings.growth, 3) for width in widths[:-1])
        self.last = NormalisedConvolution(widths[-1], settings.code, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, F.leaky_relu(layer(x), 0.02)], dim=1)  # the authors' code: 0.02
        return F.normalize(self.last(x).transpose(1, 2), dim=2)


class NormalisedConvolution(nn.Module):
    """A convolution without bias, its weights divided by the norm of them all, as in the authors' code.

    They report that the usual weight normalisation, channel by channel and with a scale, was not stable.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(out_channels, in_channels, kernel)))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(x, self.weight / self.weight.norm(), padding=self.weight.shape[2] // 2)


class Codes:
    """Where the supernet's convolutions find what the hypernetwork says of the current architecture."""

    def __init__(self) -> None:
        self.current = torch.empty(0)  # float[columns, code]


class Generated(nn.Module):
    """The weight of a convolution for the current architecture: from shared weights and the code of a column.

    The generated matrix is added to a 1x1 convolution; another kernel is multiplied by one plus it. The result has the
    norm of the shared weight: unnormalised ones diverge.

    Args:
        shared: the shared weight, float[out, in, height, width].
        code: the length of a code.
        column: the column that the convolution belongs to.
        codes: the codes of the current architecture.
    """

    def __init__(self, shared: Tensor, code: int, column: int, codes: Codes) -> None:
        super().__init__()
        self.pointwise = shared.shape[2:] == (1, 1)
        outputs, inputs = shared.shape[0], shared.shape[1] if self.pointwise else shared.shape[0]
        self.matrix = nn.Parameter(torch.zeros(outputs, inputs, code))
        self.column, self.codes = column, codes

    def forward(self, shared: Tensor) -> Tensor:
        generated = self.matrix @ self.codes.current[self.column]
        change = generated if self.pointwise else generated @ shared.flatten(1)
        weight = shared + change.view_as(shared)
        normalised: Tensor = weight * (shared.norm() / weight.norm())
        return normalised


def _cell_column(network: Network, layer: str) -> int | None:
    """The node, or the input, of the kind of cell that a layer is in; a node has two banks of operations."""
    match layer.split("."):
        case ["cells", index, "inputs" | "operations" | "combines" as part, number, *_]:
            space, cell = cast(CellSpace, network.space), cast(Cell, network.get_submodule(f"cells.{index}"))
            first = CELLS.index("reduction" if cell.reduces else "normal") * (space.nodes + 2)
            # A node has two banks of operations.
            return (
                first + {"inputs": int(number), "operations": 2 + int(number) // 2, "combines": 2 + int(number)}[part]
            )
    return None


def _edge_column(network: Network, layer: str) -> int | None:
    """The node that an edge of a cell leads to."""
    match layer.split("."):
        case ["blocks", _, "edges", number, *_]:
            return network.space.decisions[int(number)].group
    return None


def _layer_column(network: Network, layer: str) -> int | None:
    """The layer of the chain, before which reductions may stand."""
    match layer.split("."):
        case ["layers" | "operations" | "reductions", number, *_]:
            return int(number)
    return None


COLUMNS: dict[str, Callable[[Network, str], int | None]] = {
    "cell": _cell_column,
    "bench201": _edge_column,
    "chain": _layer_column,
    "macro": _layer_column,
}
"""By the name of a kind of space: from a supernet and the name of a layer to the column of its weights, if any."""
