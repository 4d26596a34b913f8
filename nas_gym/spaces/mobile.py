"""The space of mobile networks: inverted bottlenecks in stages (MnasNet, Once-for-All)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nas_gym.spaces.architecture import Architecture
from nas_gym.spaces.graph import INPUT, OUTPUT, SUM, ArchitectureGraph, Node
from nas_gym.spaces.space import Decision, SearchSpace, Tokens

ABSENT = "absent"


@dataclass(frozen=True)
class Bottleneck:
    """A decoded layer: an inverted bottleneck with its kernel size and expansion factor."""

    kernel: int
    expansion: int


@dataclass(frozen=True)
class MobileStage:
    """A decoded stage: its layers, and their common squeeze-and-excitation ratio (0: without)."""

    layers: tuple[Bottleneck, ...]
    squeeze_excite: float


@dataclass(frozen=True)
class MobileSpace(SearchSpace):
    """Stages of inverted bottlenecks: the depth of each stage, the kernel and expansion of each layer.

    Sources: Cai et al. 2020, "Once-for-All", section 3.2: 5 stages of 2, 3 or 4 layers, each with a kernel of 3, 5 or 7
    and an expansion of 3, 4 or 6, about 2 * 10^19 networks. Tan et al. 2019, "MnasNet", section 4.1: a
    squeeze-and-excitation ratio of 0 or 0.25, the same for all layers of a stage. Only the first layer of a stage may
    change the resolution and the number of channels; the others have a residual connection.

    The decisions of a stage are its depth and its squeeze-and-excitation ratio, then those of each layer. Decisions of
    layers beyond the chosen depth have ``"absent"`` as their only legal choice. Parameters with a single value are not
    decisions.

    Args:
        stages: number of stages.
        depths: the numbers of layers to choose from, increasing.
        kernels: the kernel sizes.
        expansions: the expansion factors.
        squeeze_excite: the squeeze-and-excitation ratios.

    Raises:
        ValueError: there is no stage, there is nothing to choose from, or the depths do not increase.
    """

    stages: int = 5
    depths: tuple[int, ...] = (2, 3, 4)
    kernels: tuple[int, ...] = (3, 5, 7)
    expansions: tuple[int, ...] = (3, 4, 6)
    squeeze_excite: tuple[float, ...] = (0.0, 0.25)

    name = "mobile"
    ordered = True

    def __post_init__(self) -> None:
        if not isinstance(self.stages, int) or self.stages < 1:
            raise ValueError(f"stages must be at least 1, got {self.stages!r}")
        if not self.depths or self.depths[0] < 1 or list(self.depths) != sorted(set(self.depths)):
            raise ValueError(f"depths must be positive and increase, got {self.depths!r}")
        for name in ("kernels", "expansions"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise ValueError(f"{name} must hold positive integers, got {values!r}")
        if not self.squeeze_excite or min(self.squeeze_excite) < 0:
            raise ValueError(f"squeeze_excite must hold ratios of at least 0, got {self.squeeze_excite!r}")
        if not self.decisions:
            raise ValueError("a space needs a decision, but depths, kernels, expansions, squeeze_excite have one value")

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        decisions: list[Decision] = []

        def add(name: str, kind: str, group: int, values: tuple[float, ...], optional: bool = False) -> None:
            if len(values) > 1:
                choices = tuple(f"{value:g}" for value in values)
                decisions.append(Decision(name, kind, group, (*choices, ABSENT) if optional else choices))

        for stage in range(self.stages):
            group = stage * (1 + self.depths[-1])
            add(f"stage_{stage}/depth", "depth", group, self.depths)
            add(f"stage_{stage}/squeeze_excite", "squeeze_excite", group, self.squeeze_excite)
            for layer in range(self.depths[-1]):
                prefix, optional = f"stage_{stage}/layer_{layer}", layer >= self.depths[0]
                add(f"{prefix}/kernel", "kernel", group + 1 + layer, self.kernels, optional)
                add(f"{prefix}/expansion", "expansion", group + 1 + layer, self.expansions, optional)
        return tuple(decisions)

    @property
    def size(self) -> int:
        a_layer = len(self.kernels) * len(self.expansions)
        size: int = (len(self.squeeze_excite) * sum(a_layer**depth for depth in self.depths)) ** self.stages
        return size

    def weights(self, tokens: Tokens, position: int) -> NDArray[np.float64]:
        present: NDArray[np.float64] = self._present[position]
        governing = self._governing[position]
        if governing < 0:
            return np.broadcast_to(present, (len(tokens), self.num_choices))
        beyond = tokens[:, governing] < self._least_depth[position]
        weights: NDArray[np.float64] = np.where(beyond[:, None], self._beyond[position], present)
        return weights

    @cached_property
    def dependent(self) -> NDArray[np.bool_]:
        return self._governing >= 0

    @cached_property
    def _governing(self) -> NDArray[np.int64]:
        """int64[T], the depth decision on which a position depends, -1 for none."""
        depth, governing = -1, []
        for column, decision in enumerate(self.decisions):
            depth = column if decision.kind == "depth" else depth
            governing.append(depth if decision.choices[-1] == ABSENT else -1)
        return np.array(governing)

    @cached_property
    def _least_depth(self) -> NDArray[np.int64]:
        """int64[T], the smallest depth choice with which a position's layer exists."""
        layers = [decision.group % (1 + self.depths[-1]) for decision in self.decisions]  # 1 is a stage's first
        return np.searchsorted(self.depths, layers)

    @cached_property
    def _present(self) -> NDArray[np.float64]:
        """float64[T, A], the weights of existing layers and of a stage's own decisions."""
        present = np.array(self._widths)
        present[self.absent_choices >= 0, self.absent_choices[self.absent_choices >= 0]] = 0
        a_layer = float(len(self.kernels) * len(self.expansions))
        for column, decision in enumerate(self.decisions):
            if decision.kind == "depth":
                present[column, : len(self.depths)] = [a_layer ** (d - self.depths[-1]) for d in self.depths]
        return present

    @cached_property
    def _beyond(self) -> NDArray[np.float64]:
        """float64[T, A], the weights of layers beyond the depth."""
        beyond: NDArray[np.bool_] = self.absent_choices[:, None] == np.arange(self.num_choices)
        return beyond.astype(np.float64)

    def decode(self, tokens: Sequence[int] | Tokens) -> tuple[MobileStage, ...]:
        """Decodes the stages of one architecture."""

        def index(name: str) -> int:
            return int(tokens[self.columns[name]]) if name in self.columns else 0

        stages = []
        for stage in (f"stage_{stage}" for stage in range(self.stages)):
            layers = [f"{stage}/layer_{layer}" for layer in range(self.depths[index(f"{stage}/depth")])]
            stages.append(
                MobileStage(
                    tuple(
                        Bottleneck(self.kernels[index(f"{layer}/kernel")], self.expansions[index(f"{layer}/expansion")])
                        for layer in layers
                    ),
                    self.squeeze_excite[index(f"{stage}/squeeze_excite")],
                )
            )
        return tuple(stages)

    def graph(self, architecture: Architecture) -> ArchitectureGraph:
        """One node per layer, such as ``mbconv_5x5_e6_se0.25``, and per residual connection."""
        nodes, edges, state = [Node("input", INPUT)], [], 0
        for stage_index, stage in enumerate(self.decode(architecture.tokens)):
            for index, layer in enumerate(stage.layers):
                name = f"stage_{stage_index}/layer_{index}"
                label = f"mbconv_{layer.kernel}x{layer.kernel}_e{layer.expansion}"
                if stage.squeeze_excite:
                    label += f"_se{stage.squeeze_excite:g}"
                nodes.append(Node(name, label, decision=self._labelling(name)))
                edges.append((state, len(nodes) - 1))
                if index > 0:
                    nodes.append(Node(f"{name}/residual", SUM))
                    edges += [(len(nodes) - 2, len(nodes) - 1), (state, len(nodes) - 1)]
                state = len(nodes) - 1
        nodes.append(Node("output", OUTPUT))
        edges.append((state, len(nodes) - 1))
        return ArchitectureGraph(tuple(nodes), tuple(edges))

    def _labelling(self, layer: str) -> str | None:
        """The last decision of a layer, if it has any."""
        return next((name for name in (f"{layer}/expansion", f"{layer}/kernel") if name in self.columns), None)
