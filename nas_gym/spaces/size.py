"""The size space of NATS-Bench (Dong et al. 2021): the width of each stage of one fixed network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from nas_gym.spaces.architecture import Architecture
from nas_gym.spaces.graph import INPUT, OUTPUT, ArchitectureGraph, Node
from nas_gym.spaces.space import Decision, SearchSpace, Tokens

WIDTHS = (8, 16, 24, 32, 40, 48, 56, 64)


@dataclass(frozen=True)
class SizeSpace(SearchSpace):
    """The number of channels of each stage.

    Source: Dong et al. 2021, "NATS-Bench", section 3.1: 5 stages, 8 widths, 8^5 = 32,768 architectures. The stem has
    the width of the first stage. Stages are cells of the topology space, except for two residual blocks of stride 2
    that divide them into three equal runs: of 5 stages, the second and the fourth.

    Args:
        stages: number of stages, 2, 5, 8, ...
        widths: the numbers of channels to choose from.

    Raises:
        ValueError: the number of stages is not one of these, or there are no widths.
    """

    stages: int = 5
    widths: tuple[int, ...] = WIDTHS

    name = "size"
    ordered = True

    def __post_init__(self) -> None:
        if not isinstance(self.stages, int) or self.stages < 2 or self.stages % 3 != 2:
            raise ValueError(f"stages must be 2, 5, 8, ... (three runs and two reductions), got {self.stages!r}")
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"widths must hold positive numbers of channels, got {self.widths!r}")

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        choices = tuple(map(str, self.widths))
        return tuple(Decision(f"stage_{stage}", "width", stage, choices) for stage in range(self.stages))

    @property
    def size(self) -> int:
        size: int = len(self.widths) ** self.stages
        return size

    @cached_property
    def reductions(self) -> tuple[bool, ...]:
        """For each stage whether it is a residual block of stride 2."""
        run = self.stages // 3
        return tuple(stage in (run, 2 * run + 1) for stage in range(self.stages))

    def decode(self, tokens: Sequence[int] | Tokens) -> tuple[int, ...]:
        """The width of each stage."""
        return tuple(self.widths[int(token)] for token in tokens)

    def format(self, tokens: Sequence[int] | Tokens) -> str:
        """The benchmark's own string format, such as ``8:16:24:32:40``."""
        return ":".join(map(str, self.decode(tokens)))

    def parse(self, text: str) -> Architecture:
        """Reads the benchmark's string.

        Raises:
            ValueError: the text does not have that format, or a width is not one of the choices.
        """
        words = text.split(":")
        choices = self.decisions[0].choices
        if len(words) != self.stages or not set(words) <= set(choices):
            raise ValueError(f"{text!r} is not {self.stages} widths joined by ':', each of {', '.join(choices)}")
        return self.architecture([choices.index(word) for word in words])

    def graph(self, architecture: Architecture) -> ArchitectureGraph:
        """The stem and one node per stage, as a chain."""
        widths = self.decode(architecture.tokens)
        nodes = [Node("input", INPUT), Node("stem", f"conv_3x3_{widths[0]}", decision="stage_0")]
        for stage, (width, reduction) in enumerate(zip(widths, self.reductions, strict=True)):
            operation = f"residual_{width}/2" if reduction else f"cell_{width}"
            nodes.append(Node(f"stage_{stage}", operation, decision=f"stage_{stage}"))
        nodes.append(Node("output", OUTPUT))
        return ArchitectureGraph(tuple(nodes), tuple((i, i + 1) for i in range(len(nodes) - 1)))
