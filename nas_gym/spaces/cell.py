"""Convolutional cells: a normal and a reduction cell, as in NASNet, ENAS micro and DARTS."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import comb
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nas_gym.spaces.architecture import Architecture
from nas_gym.spaces.graph import CONCAT, INPUT, OUTPUT, SUM, ArchitectureGraph, GraphBuilder, Node
from nas_gym.spaces.space import Decision, SearchSpace, Tokens

CELLS = ("normal", "reduction")
ADD = "add"

ENAS_OPERATIONS = ("sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "skip_connect")
NASNET_OPERATIONS = (
    "skip_connect",
    "conv_1x3_3x1",
    "conv_1x7_7x1",
    "dil_conv_3x3",
    "avg_pool_3x3",
    "max_pool_3x3",
    "max_pool_5x5",
    "max_pool_7x7",
    "conv_1x1",
    "conv_3x3",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
)
DARTS_OPERATIONS = (
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
)


@dataclass(frozen=True)
class NodeChoice:
    """A decoded node of a cell: two input states (0 and 1 are the cell's inputs), their operations, the combination."""

    inputs: tuple[int, int]
    operations: tuple[str, str]
    combine: str


@dataclass(frozen=True)
class CellSpace(SearchSpace):
    """A normal and a reduction cell; each node applies two operations to two earlier states and combines them.

    Sources: Zoph et al. 2018 (NASNet), section 3; Pham et al. 2018 (ENAS), section 2.4; Liu et al. 2019 (DARTS),
    section 2.1. Decisions of a node: input_1, input_2, operation_1, operation_2, and combine if there is a choice.

    Args:
        nodes: number of nodes per cell, without its two inputs.
        operations: names of the operations.
        combine: the ways in which a node may combine its two results: ``"add"``, ``"concat"``.
        distinct_inputs: whether the two inputs must differ and their order is ignored, which a mask enforces by
            input_1 < input_2.
        output: the cell's output concatenates the ``"loose"`` ends (nodes that no node reads) or ``"all"`` nodes.
    """

    nodes: int = 5
    operations: tuple[str, ...] = ENAS_OPERATIONS
    combine: tuple[str, ...] = (ADD,)
    distinct_inputs: bool = False
    output: Literal["loose", "all"] = "loose"

    name = "cell"

    def __post_init__(self) -> None:
        if not isinstance(self.nodes, int) or self.nodes < 1:
            raise ValueError(f"nodes must be at least 1, got {self.nodes!r}")
        if self.output not in ("loose", "all"):
            raise ValueError(f"output must be 'loose' or 'all', got {self.output!r}")
        if not set(self.combine) <= {ADD, CONCAT} or not self.combine:
            raise ValueError(f"combine must hold 'add' or 'concat', got {self.combine!r}")

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        decisions: list[Decision] = []
        for cell_index, cell in enumerate(CELLS):
            # The groups of a cell are its two inputs, which have no decisions, and its nodes.
            first_group = cell_index * (self.nodes + 2)
            names = ["input_0", "input_1"] + [f"node_{node}" for node in range(self.nodes)]
            for node in range(self.nodes):
                group = first_group + 2 + node
                states, targets = tuple(names[: node + 2]), tuple(range(first_group, group))
                prefix = f"{cell}/node_{node}"
                decisions += [Decision(f"{prefix}/input_{k}", "input", group, states, targets) for k in (1, 2)]
                decisions += [Decision(f"{prefix}/operation_{k}", "operation", group, self.operations) for k in (1, 2)]
                if len(self.combine) > 1:
                    decisions.append(Decision(f"{prefix}/combine", "combine", group, self.combine))
        return tuple(decisions)

    @cached_property
    def decisions_per_node(self) -> int:
        return 5 if len(self.combine) > 1 else 4

    @property
    def size(self) -> int:
        a_cell: int = 1
        for node in range(self.nodes):
            inputs = comb(node + 2, 2) if self.distinct_inputs else (node + 2) ** 2
            a_cell *= inputs * len(self.operations) ** 2 * len(self.combine)
        both: int = a_cell ** len(CELLS)
        return both

    def weights(self, tokens: Tokens, position: int) -> NDArray[np.float64]:
        weights = super().weights(tokens, position)
        slot = position % self.decisions_per_node
        if not self.distinct_inputs or slot > 1:
            return weights
        choices = np.arange(self.num_choices)
        if slot == 0:  # a first input leads to as many pairs as there are later states
            pairs: NDArray[np.float64] = weights * np.maximum(self.choice_counts[position] - 1 - choices, 0)
            return pairs
        behind: NDArray[np.bool_] = choices > tokens[:, position - 1, None]
        return weights * behind

    @cached_property
    def dependent(self) -> NDArray[np.bool_]:
        second_inputs: NDArray[np.bool_] = np.arange(self.length) % self.decisions_per_node == 1
        return second_inputs if self.distinct_inputs else np.zeros_like(second_inputs)

    def cells(self, tokens: Tokens | tuple[int, ...]) -> dict[str, tuple[NodeChoice, ...]]:
        """The two cells of one architecture, decoded node by node."""
        per_node = np.asarray(tokens).reshape(len(CELLS), self.nodes, self.decisions_per_node).tolist()
        return {
            cell: tuple(
                NodeChoice(
                    (node[0], node[1]),
                    (self.operations[node[2]], self.operations[node[3]]),
                    self.combine[node[4]] if len(self.combine) > 1 else self.combine[0],
                )
                for node in rows
            )
            for cell, rows in zip(CELLS, per_node, strict=True)
        }

    def loose_ends(self, inputs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which nodes are concatenated to the output of a cell.

        Args:
            inputs: int64[B, nodes, 2], the states that each node reads.

        Returns:
            bool[B, nodes].
        """
        if self.output == "all":
            return np.ones(inputs.shape[:2], dtype=bool)
        states = np.arange(2, self.nodes + 2)
        read: NDArray[np.bool_] = (inputs[:, :, :, None] == states).any(axis=(1, 2))
        return ~read

    def graph(self, architecture: Architecture) -> ArchitectureGraph:
        """Both cells side by side, each with its two inputs and its output.

        Operations on a reduction cell's inputs have stride 2, which is part of their names: a skip of stride 2 is a
        factorised reduction with weights, not an identity.
        """
        builder = GraphBuilder()
        add = builder.add
        for cell, choices in self.cells(architecture.tokens).items():
            states = [add(Node(f"{cell}/input_{k}", INPUT, cell)) for k in (0, 1)]
            for index, choice in enumerate(choices):
                operands = []
                for k, (source, operation) in enumerate(zip(choice.inputs, choice.operations, strict=True), start=1):
                    name = f"{cell}/node_{index}/operation_{k}"
                    strided = cell == "reduction" and source < 2
                    label = f"{operation}/2" if strided else operation
                    operands.append(add(Node(name, label, cell, decision=name), states[source]))
                joined = SUM if choice.combine == ADD else CONCAT
                node = f"{cell}/node_{index}"
                combine = f"{node}/combine" if len(self.combine) > 1 else None
                states.append(add(Node(node, joined, cell, decision=combine), *operands))
            inputs = np.array([[choice.inputs for choice in choices]])
            ends = [states[2 + node] for node in np.flatnonzero(self.loose_ends(inputs)[0])]
            joined_ends = add(Node(f"{cell}/concat", CONCAT, cell), *ends)
            add(Node(f"{cell}/output", OUTPUT, cell), joined_ends)
        return builder.build()


ENAS = CellSpace()
NASNET = CellSpace(operations=NASNET_OPERATIONS, combine=(ADD, CONCAT))
DARTS = CellSpace(nodes=4, operations=DARTS_OPERATIONS, distinct_inputs=True, output="all")
