"""Networks of NAS-Bench-101 cells (Ying et al. 2019, section 2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_gym.networks.bank import Indices
from nas_gym.networks.network import Head, Network, Stem, architecture_rows, grouped, masked, widened
from nas_gym.networks.operations import ConvolutionSlice, Norm
from nas_gym.spaces import Bench101Space, Tokens
from nas_gym.types import Bools

KERNELS = {"conv_1x1": 1, "conv_3x3": 3}
POOLS = {"max_pool_3x3": 3}


class Bench101Network(Network):
    """Stem, stacks of `cells_per_stage` cells with a max pool and twice the channels from one to the next, classifier.

    In a cell the output's channels are divided among the vertices that lead to it, and any other vertex has as many
    as the widest that it leads to, as in the paper. In a supernet a vertex with fewer channels than the cell uses the
    first of its weights. Convolutions come before their batch norm and ReLU here.

    Raises:
        ValueError: fewer channels than inner vertices, or an operation that the benchmark does not have.
    """

    unused_settings = ("auxiliary",)

    space: Bench101Space

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        settings = self.settings
        inner = self.space.vertices - 2
        if settings.channels < inner:
            raise ValueError(f"channels must be at least {inner}, one for each inner vertex, got {settings.channels}")
        if unknown := set(self.space.operations) - set(KERNELS) - set(POOLS):
            raise ValueError(f"no vertex operation {sorted(unknown)}; known: {', '.join((*KERNELS, *POOLS))}")
        before = channels = settings.channels
        self.stem = Stem(image_shape[0], channels, settings.stem_stride, self.norm)
        self.cells = nn.ModuleList()
        for _ in range(settings.reductions + 1):
            for _ in range(settings.cells_per_stage):
                self.cells.append(Bench101Cell(self, before, channels))
                before = channels
            channels *= 2
        self.head = Head(before, num_classes)

    def run(self, images: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor | None]:
        x = self.expanded(torch.relu(self.stem(images)), len(tokens))
        edges, operations = self.cell_tokens(tokens)
        for index, cell in enumerate(self.cells):
            if index and index % self.settings.cells_per_stage == 0:
                x = F.max_pool2d(x, 2, 2, ceil_mode=True)
            x = cell(x, edges, operations)
        return self.head(x), None

    def cell_tokens(self, tokens: Tokens) -> tuple[Bools, Indices]:
        """Edges between live vertices, bool[B, V, V], and the operation of each vertex, int64[B, V], 0 at the ends."""
        edges = self.space.adjacency(tokens)
        live = self.space.live(edges)
        operations = np.zeros(live.shape, dtype=np.int64)
        operations[:, 1:-1] = np.delete(tokens, self.space.edge_columns, axis=1)
        return edges & live[:, :, None] & live[:, None, :], operations


class Bench101Cell(nn.Module):
    """A graph of vertices that each apply an operation to the sum of what leads to them.

    An edge from the cell's input is a 1x1 convolution. The output is the concatenation of the vertices that lead to
    it, to which the cell's input, projected, is added if an edge leads from it.
    """

    def __init__(self, network: Bench101Network, in_channels: int, channels: int) -> None:
        super().__init__()
        names, norm, last = network.space.operations, network.norm, network.space.vertices - 1
        self.last, self.channels, self.drop_path = last, channels, network.drop_path
        widths, projected = np.full(last + 1, channels), np.full(last + 1, True)
        allowed: dict[int, Sequence[int]] = {vertex: range(len(names)) for vertex in range(1, last)}
        if network.architecture is not None:
            edges, operations = network.cell_tokens(np.asarray(network.architecture.tokens)[None])
            widths, projected = vertex_channels(edges, channels)[0], edges[0, 0]
            allowed = {vertex: (operations[0, vertex],) for vertex in range(1, last) if widths[vertex]}
        self.projections = nn.ModuleDict(
            {
                str(vertex): ConvolutionSlice(in_channels, int(widths[vertex]), 1, norm)
                for vertex in range(1, last + 1)
                if projected[vertex]
            }
        )
        self.operations = nn.ModuleDict(
            {
                f"{vertex}_{choice}": vertex_operation(names[choice], int(widths[vertex]), norm)
                for vertex, choices in allowed.items()
                for choice in choices
            }
        )

    def forward(self, x: Tensor, edges: Bools, operations: Indices) -> Tensor:
        """Runs the cell.

        Args:
            x: float[B * N, C, H, W].
            edges: bool[B, V, V], pruned.
            operations: int64[B, V].

        Returns:
            float[B * N, C', H, W].
        """
        widths = vertex_channels(edges, self.channels)
        states: dict[int, Tensor] = {}
        for vertex in range(1, self.last):
            if not widths[:, vertex].any():
                continue
            read = edges[:, :, vertex]
            terms = [masked(state, read[:, source]) for source, state in states.items() if read[:, source].any()]
            terms += self._projection(x, vertex, read[:, 0], widths)
            states[vertex] = self._operation(add(terms), vertex, operations[:, vertex], widths[:, vertex])
        terms = self._joined(states, edges[:, :, self.last], widths)
        return add(terms + self._projection(x, self.last, edges[:, 0, self.last], widths))

    def _projection(self, x: Tensor, vertex: int, read: Bools, widths: Indices) -> list[Tensor]:
        """What the edge from the cell's input brings to a vertex, if any architecture has it."""
        if not read.any():
            return []

        def run(key: tuple[int, ...], rows: Indices) -> Tensor:
            images, width = architecture_rows(x, rows, len(read)), key[0]
            return widened(self.projections[str(vertex)](images, width) if width else images[:, :0], self.channels)

        return [grouped((widths[:, vertex] * read)[:, None], run)]

    def _operation(self, x: Tensor, vertex: int, operations: Indices, widths: Indices) -> Tensor:
        def run(key: tuple[int, ...], rows: Indices) -> Tensor:
            choice, width = key
            images = architecture_rows(x[:, :width], rows, len(widths))
            module = self.operations[f"{vertex}_{choice}"]
            return widened(self.drop_path(module(images)) if width else images, self.channels)

        return grouped(np.stack([operations * (widths > 0), widths], axis=1), run)

    def _joined(self, states: dict[int, Tensor], ends: Bools, widths: Indices) -> list[Tensor]:
        """The concatenation of the vertices that lead to the output, if any architecture has inner vertices."""
        if not states:
            return []

        def run(key: tuple[int, ...], rows: Indices) -> Tensor:
            parts = [architecture_rows(states[vertex][:, : key[vertex]], rows, len(ends)) for vertex in states]
            return widened(torch.cat(parts, dim=1), self.channels)

        return [grouped(widths * ends, run)]


def add(terms: list[Tensor]) -> Tensor:
    """Their sum."""
    return sum(terms[1:], terms[0])


def vertex_operation(name: str, channels: int, norm: Norm) -> nn.Module:
    """The operation of a vertex, on any number of channels up to `channels`."""
    if name in POOLS:
        return nn.MaxPool2d(POOLS[name], 1, POOLS[name] // 2)
    return ConvolutionSlice(channels, channels, KERNELS[name], norm)


def vertex_channels(edges: Bools, channels: int) -> Indices:
    """How many channels each vertex of a cell has, int64[B, V]; those of the output are `channels`.

    Source: Ying et al. 2019, section 2.3 and the benchmark's own builder, that gives what is left of the division to
    the first vertices. Pruned vertices have none, and the input, whose channels are those of the cell before, 0 too.

    Args:
        edges: bool[B, V, V], pruned.
        channels: of the cell's output.
    """
    last = edges.shape[1] - 1
    ends = edges[:, :, last].copy()
    ends[:, 0] = False
    count = np.maximum(ends.sum(axis=1, keepdims=True), 1)
    widths: Indices = np.where(ends, channels // count + (np.cumsum(ends, axis=1) <= channels % count), 0)
    for vertex in range(last - 1, 0, -1):
        widest = (edges[:, vertex, :last] * widths[:, :last]).max(axis=1)
        widths[:, vertex] = np.where(ends[:, vertex], widths[:, vertex], widest)
    widths[:, last] = channels
    return widths
