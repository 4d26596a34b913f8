"""A search space of one's own, four layers in a row with one of four operations each, and its environment.

PYTHONPATH=examples/extending nas-gym train --env own_space:Own-v0 --trials 50
"""

from dataclasses import dataclass
from functools import cached_property

import gymnasium

from nas_gym.networks import register_network
from nas_gym.registration import ENTRY_POINT, VECTOR_ENTRY_POINT
from nas_gym.spaces import Architecture, ArchitectureGraph, Decision, Node, SearchSpace, register_space


@dataclass(frozen=True)
class OwnSpace(SearchSpace):
    """Layers in a row.

    Args:
        layers: number of layers.
        operations: the operations to choose from, names of `nas_gym.networks.OPERATIONS`.
    """

    layers: int = 4
    operations: tuple[str, ...] = ("skip_connect", "conv_1x1", "conv_3x3", "max_pool_3x3")

    name = "own"

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """The operation of each layer."""
        return tuple(Decision(f"layer_{i}", "operation", i, self.operations) for i in range(self.layers))

    @property
    def size(self) -> int:
        """Every sequence is legal."""
        return len(self.operations) ** self.layers

    def graph(self, architecture: Architecture) -> ArchitectureGraph:
        """The layers, from the input to the output."""
        operations = [self.operations[token] for token in architecture.tokens]
        layers = [Node(f"layer_{i}", operation, decision=f"layer_{i}") for i, operation in enumerate(operations)]
        nodes = (Node("input", "input"), *layers, Node("output", "output"))
        return ArchitectureGraph(nodes, tuple((i, i + 1) for i in range(len(nodes) - 1)))


SPACE = OwnSpace()

register_space(OwnSpace)
register_network(OwnSpace, "own_network:OwnNetwork")  # a module of its own, so that this one does not import torch
gymnasium.register(
    id="Own-v0",
    entry_point=ENTRY_POINT,
    vector_entry_point=VECTOR_ENTRY_POINT,
    kwargs={"space": "own", "evaluator": "shared-weights", "task": "digits"},
)
