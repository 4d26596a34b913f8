"""Networks of normal and reduction cells: NASNet, ENAS micro, DARTS."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from nas_gym.networks.bank import Bank, Choices, Indices, Maps
from nas_gym.networks.network import Head, Network, Stem, masked
from nas_gym.networks.operations import FactorisedReduction, Norm, convolution, make_operation
from nas_gym.spaces import CellSpace, Tokens
from nas_gym.spaces.cell import ADD, CELLS
from nas_gym.types import Bools


class CellNetwork(Network):
    """Stem, N normal cells between reduction cells, classifier.

    Each cell reads the outputs of the two cells before it, brought to its channels by a 1x1 convolution and, after
    a reduction, to its resolution by a factorised one (NASNet, section 3 and appendix A.4).
    """

    batchable = True

    space: CellSpace

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        settings = self.settings
        channels = settings.channels
        self.stem = Stem(image_shape[0], channels, settings.stem_stride, self.norm)
        self.cells = nn.ModuleList()
        before, previous = channels, channels  # channels of the last two outputs
        before_is_larger = False
        stage = ["normal"] * settings.cells_per_stage
        kinds = [*([*stage, "reduction"] * settings.reductions), *stage]
        auxiliary_at = 2 * len(kinds) // 3
        self.auxiliary_head: Head | None = None
        self.auxiliary_cell = -1
        for index, kind in enumerate(kinds):
            channels *= 2 if kind == "reduction" else 1
            cell = self.make_cell(kind, (before, previous), channels, before_is_larger)
            self.cells.append(cell)
            before, previous, before_is_larger = previous, cell.out_channels, kind == "reduction"
            if settings.auxiliary and self.architecture is not None and index == auxiliary_at:
                self.auxiliary_head, self.auxiliary_cell = Head(previous, num_classes), index
        self.head = Head(previous, num_classes)

    def make_cell(self, kind: str, in_channels: tuple[int, int], channels: int, first_is_larger: bool) -> AnyCell:
        """A cell that reads feature maps of these numbers of channels."""
        return Cell(self, kind, in_channels, channels, first_is_larger)

    def run(self, images: Tensor, tokens: Choices) -> tuple[Tensor, Tensor | None]:
        x = self.expanded(self.stem(images), len(tokens))
        before, previous, auxiliary = x, x, None
        for index, cell in enumerate(self.cells):
            before, previous = previous, cell(before, previous, tokens)
            if index == self.auxiliary_cell and self.training and self.auxiliary_head is not None:
                auxiliary = self.auxiliary_head(previous)
        return self.head(previous), auxiliary

    def channels_read(self, layer: str) -> Indices | None:
        """Behind a cell, those of its loose ends: in the supernet a cell concatenates all its nodes."""
        owner, _, rest = layer.partition(".inputs.")
        if layer.startswith("head."):
            feeder = len(self.cells) - 1
        elif rest:
            feeder = int(owner.removeprefix("cells.")) - 2 + int(rest[0])
        else:
            return None
        if feeder < 0:
            return None  # behind the stem
        cell = self.cells[feeder]
        assert isinstance(cell, Cell)
        channels = cell.out_channels // len(cell.ends)
        return (np.array(cell.ends)[:, None] * channels + np.arange(channels)).ravel()


def cell_inputs(in_channels: tuple[int, int], channels: int, first_is_larger: bool, norm: Norm) -> nn.ModuleList:
    """What brings the outputs of the two cells before to the channels and the resolution of a cell."""
    first: nn.Module = (
        FactorisedReduction(in_channels[0], channels, norm)
        if first_is_larger
        else convolution(in_channels[0], channels, 1, 1, norm)
    )
    return nn.ModuleList([first, convolution(in_channels[1], channels, 1, 1, norm)])


class AnyCell(nn.Module):
    """A cell of a network.

    Attributes:
        out_channels: of its output.
    """

    out_channels: int


class Halves(nn.Module):
    """The sum of the two halves of the channels: `add` on what `concat` would join."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        return first + second


class Cell(AnyCell):
    """One cell: two inputs, nodes that each apply two operations to earlier states, a concatenation.

    In a reduction cell the operations on the cell's inputs have stride 2, those between nodes have not; so a
    bank there holds an operation twice, the strided ones behind the others.
    """

    def __init__(
        self, network: CellNetwork, kind: str, in_channels: tuple[int, int], channels: int, first_is_larger: bool
    ) -> None:
        super().__init__()
        self.space, self.reduces = network.space, kind == "reduction"
        self.first = CELLS.index(kind) * self.space.nodes * self.space.decisions_per_node
        norm = network.norm
        self.inputs = cell_inputs(in_channels, channels, first_is_larger, norm)
        self.operations = nn.ModuleList()  # two banks a node
        self.combines = nn.ModuleList()
        for node in range(self.space.nodes):
            allowed = network.allowed[self.first + node * self.space.decisions_per_node :]
            for k in (0, 1):
                banks = self._operation_modules(allowed[k], allowed[2 + k], channels, norm)
                self.operations.append(Bank(banks, network.drop_path))
            combines = allowed[4] if len(self.space.combine) > 1 else (0,)
            self.combines.append(Bank({choice: self._combine_module(choice, channels, norm) for choice in combines}))
        self.ends: Sequence[int] = range(self.space.nodes)
        if network.architecture is not None:
            tokens = np.asarray(network.architecture.tokens)[None]
            self.ends = np.flatnonzero(self._loose_ends(tokens)[0]).tolist()
        self.out_channels = channels * len(self.ends)

    def _operation_modules(
        self, inputs: tuple[int, ...], choices: tuple[int, ...], channels: int, norm: Norm
    ) -> dict[int, nn.Module]:
        strided = sorted({self.reduces and source < 2 for source in inputs})
        names = self.space.operations
        return {
            choice + len(names) * halves: make_operation(names[choice], channels, channels, 2 if halves else 1, norm)
            for halves in strided
            for choice in choices
        }

    def _combine_module(self, choice: int, channels: int, norm: Norm) -> nn.Module:
        return Halves() if self.space.combine[choice] == ADD else convolution(2 * channels, channels, 1, 1, norm)

    def _decisions(self, tokens: Tokens) -> Tokens:
        """int64[B, nodes, decisions per node] of this cell."""
        per_node = self.space.decisions_per_node
        return tokens[:, self.first : self.first + self.space.nodes * per_node].reshape(len(tokens), -1, per_node)

    def _loose_ends(self, tokens: Tokens) -> Bools:
        return self.space.loose_ends(self._decisions(tokens)[:, :, :2])

    def forward(self, before: Tensor, previous: Tensor, tokens: Tokens) -> Tensor:
        batch = len(tokens)
        states = [Maps(self.inputs[0](before), batch), Maps(self.inputs[1](previous), batch)]
        decisions, outputs = self._decisions(tokens), []
        for node in range(self.space.nodes):
            chosen = decisions[:, node]
            operands = []
            for k in (0, 1):
                source, choice = chosen[:, k], chosen[:, 2 + k]
                choice = choice + len(self.space.operations) * (source < 2) * self.reduces
                operands.append(self.operations[2 * node + k](states, source, choice))
            outputs.append(self._combined(operands, node, chosen))
            states.append(Maps(outputs[node], batch))
        loose = self._loose_ends(tokens)
        return torch.cat([masked(outputs[node], loose[:, node]) for node in self.ends], dim=1)

    def _combined(self, operands: list[Tensor], node: int, chosen: Tokens) -> Tensor:
        if self.space.combine == (ADD,):
            return operands[0] + operands[1]
        none = np.zeros(len(chosen), dtype=np.int64)
        combine = chosen[:, 4] if len(self.space.combine) > 1 else none
        joined = Maps(torch.cat(operands, dim=1), len(chosen))
        combined: Tensor = self.combines[node]([joined], none, combine)
        return combined
