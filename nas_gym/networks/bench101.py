"""Networks of NAS-Bench-101 cells (Ying et al. 2019, section 2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_gym.networks.bank import Indices, constant, on_gpu
from nas_gym.networks.network import Head, Network, Stem, architecture_rows, grouped, leading, masked, widened
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

        own = widths[:, vertex] * read

        def run(key: tuple[int, ...], rows: Indices) -> Tensor:
            images, most = architecture_rows(x, rows, len(read)), int(own[rows].max())
            projected = self.projections[str(vertex)](images, most) if key[0] else images[:, :0]
            return widened(leading(projected, own[rows]), self.channels)

        return [grouped(alike(own, x)[:, None], run)]

    def _operation(self, x: Tensor, vertex: int, operations: Indices, widths: Indices) -> Tensor:
        def run(key: tuple[int, ...], rows: Indices) -> Tensor:
            choice, own = key[0], widths[rows]
            images = leading(architecture_rows(x[:, : own.max()], rows, len(widths)), own)
            if key[1]:
                images = leading(self.drop_path(self.operations[f"{vertex}_{choice}"](images)), own)
            return widened(images, self.channels)

        return grouped(np.stack([operations * (widths > 0), alike(widths, x)], axis=1), run)

    def _joined(self, states: dict[int, Tensor], ends: Bools, widths: Indices) -> list[Tensor]:
        """The concatenation of the vertices that lead to the output, if any architecture has inner vertices."""
        if not states:
            return []
        first = next(iter(states.values()))
        if on_gpu(first) and len(ends) > 1:
            return [
                self._selected(torch.cat(list(states.values()), dim=1), widths[:, list(states)] * ends[:, list(states)])
            ]

        def run(key: tuple[int, ...], rows: Indices) -> Tensor:
            parts = [architecture_rows(states[vertex][:, : key[vertex]], rows, len(ends)) for vertex in states]
            return widened(torch.cat(parts, dim=1), self.channels)

        return [grouped(widths * ends, run)]

    def _selected(self, x: Tensor, widths: Indices) -> Tensor:
        """As many of each state's channels as int64[B, S] tells, side by side, of float[B * N, S * C, H, W].

        By a product with a matrix of zeros and ones for each architecture.
        """
        held = np.arange(self.channels) < widths[:, :, None]
        chosen = np.full((len(widths), self.channels), -1)  # none
        for row, channels in enumerate(held.reshape(len(widths), -1)):
            (numbers,) = np.nonzero(channels)
            chosen[row, : len(numbers)] = numbers
        matrix = constant(chosen, x.device)[:, None] == torch.arange(x.shape[1], device=x.device)[:, None]
        pixels = x.permute(0, 2, 3, 1)
        flat = torch.bmm(pixels.reshape(len(widths), -1, x.shape[1]), matrix.to(x.dtype))
        return flat.view(*pixels.shape[:3], self.channels).permute(0, 3, 1, 2)


def alike(widths: Indices, x: Tensor) -> Indices:
    """Keys of architectures that run together: those of equal width; on GPUs those of any width, or of none."""
    return (widths > 0).astype(np.int64) if on_gpu(x) else widths


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
