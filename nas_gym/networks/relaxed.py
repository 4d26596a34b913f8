"""Supernets under weights of all operations on all edges, for differentiable search (Liu et al. 2019, DARTS)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from nas_gym.networks.bank import Bank, Choices, Maps
from nas_gym.networks.cell import AnyCell, CellNetwork, cell_inputs
from nas_gym.networks.network import Network, NetworkSettings
from nas_gym.networks.operations import make_operation
from nas_gym.networks.supernet import make_supernet
from nas_gym.spaces import Bench201Space, CellSpace, SearchSpace
from nas_gym.spaces.cell import CELLS
from nas_gym.spaces.edges import CellEdges, edges_of
from nas_gym.spaces.graph import NONE


def make_relaxed(
    space: SearchSpace,
    image_shape: tuple[int, ...],
    num_classes: int,
    settings: NetworkSettings | None = None,
    seed: int = 0,
) -> Network:
    """A network of E edges on each of which O operations are summed by weights (`edges_of`).

    Args:
        space: the search space.
        image_shape: (channels, height, width).
        num_classes: number of logits.
        settings: the macro architecture.
        seed: of the initial weights.

    Returns:
        A module from images float[N, C, H, W] and a mixture float[B, E, O] to logits float[B, N, classes]. It takes
        architectures int64[B, T], too.

    Raises:
        ValueError: the space cannot be relaxed; or as `make_supernet` says.
    """
    edges_of(space)
    if isinstance(space, Bench201Space):
        return make_supernet(space, image_shape, num_classes, settings, seed)
    return RelaxedCellNetwork(space, image_shape, num_classes, settings or NetworkSettings(), seed=seed)


class RelaxedCellNetwork(CellNetwork):
    """Cells of the kind of DARTS, with an edge from every state to every node behind it.

    The cells of a `CellNetwork` have weights for each slot of a node instead, whatever it reads.
    """

    takes_mixtures = True
    batchable = False

    space: CellSpace

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        self.edges = CellEdges(self.space)
        super().build(image_shape, num_classes)

    def make_cell(self, kind: str, in_channels: tuple[int, int], channels: int, first_is_larger: bool) -> AnyCell:
        """A cell that reads feature maps of these numbers of channels."""
        return RelaxedCell(self, kind, in_channels, channels, first_is_larger)

    @property
    def mixture_shape(self) -> tuple[int, int]:
        """E edges and O operations."""
        return self.edges.shape

    def run(self, images: Tensor, tokens: Choices) -> tuple[Tensor, Tensor | None]:
        if not isinstance(tokens, Tensor):
            tokens = torch.from_numpy(self.edges.weights(tokens)).to(images.device, images.dtype)
        return super().run(images, tokens)


class RelaxedCell(AnyCell):
    """One cell: two inputs, nodes that sum the edges from all states before them, a concatenation of the nodes."""

    def __init__(
        self,
        network: RelaxedCellNetwork,
        kind: str,
        in_channels: tuple[int, int],
        channels: int,
        first_is_larger: bool,
    ) -> None:
        super().__init__()
        cell = CELLS.index(kind)
        self.nodes = network.space.nodes
        self.inputs = cell_inputs(in_channels, channels, first_is_larger, network.norm)
        self.operations = nn.ModuleDict()
        self.numbers = dict[tuple[int, int], int]()  # of the edge from a state to a node
        for number, (owner, source, node) in enumerate(network.edges.triples):
            if owner == cell:
                self.numbers[source, node] = number
                stride = 2 if kind == "reduction" and source < len(self.inputs) else 1
                modules = {
                    choice: make_operation(name, channels, channels, stride, network.norm)
                    for choice, name in enumerate(network.edges.operations)
                    if name != NONE
                }
                self.operations[f"edge_{source}_{node + len(self.inputs)}"] = Bank(modules, network.drop_path)
        self.out_channels = channels * self.nodes

    def forward(self, before: Tensor, previous: Tensor, weights: Tensor) -> Tensor:
        """From the outputs of the two cells before, under the weights float[B, E, O] of all cells' edges."""
        batch = len(weights)
        used = (weights.detach()[:, :, 1:] != 0).any(dim=0).any(dim=1).tolist()
        states = [Maps(module(x), batch) for module, x in zip(self.inputs, (before, previous), strict=True)]
        for node in range(self.nodes):
            sources = [source for source in range(len(states)) if used[self.numbers[source, node]]]
            terms = [
                self.operations[f"edge_{source}_{len(states)}"](
                    states, np.full(batch, source), weights[:, self.numbers[source, node]]
                )
                for source in sources or [0]  # of zeros, where no architecture uses any
            ]
            states.append(Maps(sum(terms[1:], terms[0]), batch))
        return torch.cat([state.whole for state in states[len(self.inputs) :]], dim=1)
