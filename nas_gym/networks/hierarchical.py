"""Networks of the hierarchical space (Liu et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from nas_gym.networks.bank import Bank, Indices, Maps
from nas_gym.networks.network import Head, Network, Stem
from nas_gym.networks.operations import Norm, Zero, convolution, make_operation, separable_convolution
from nas_gym.spaces import HierarchicalSpace, Tokens
from nas_gym.types import Bools


class HierarchicalNetwork(Network):
    """Stem, cells with a separable convolution behind each, classifier.

    The last separable convolution of a stage has stride 2 and doubles the channels (Liu et al. 2018, section 4.1). Each
    place, an edge of a motif on an edge of the cell, has weights of its own. A node joins the results of its live
    edges: a single one passes, several are concatenated and brought back to the stage's channels by a 1x1
    convolution, for without it the channels would grow from node to node; the paper names this pair as what subsumes
    a sum (section 2.1).
    """

    space: HierarchicalSpace
    unused_settings = ("auxiliary",)

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        settings, channels = self.settings, self.settings.channels
        self.stem = Stem(image_shape[0], channels, settings.stem_stride, self.norm)
        self.cells, self.between = nn.ModuleList(), nn.ModuleList()
        for stage in range(settings.reductions + 1):
            for cell in range(settings.cells_per_stage):
                self.cells.append(self._cell(channels))
                ends = cell == settings.cells_per_stage - 1 and stage < settings.reductions
                out_channels, stride = (2 * channels, 2) if ends else (channels, 1)
                self.between.append(separable_convolution(channels, out_channels, 3, stride, self.norm))
                channels = out_channels
        self.head = Head(channels, num_classes)

    def _cell(self, channels: int) -> Motif:
        choices = self._allowed_at_places()
        names = self.space.primitives

        def primitive(choice: int) -> nn.Module:
            return make_operation(names[choice - 1], channels, channels, 1, self.norm) if choice else Zero(1)

        def place(allowed: Bools) -> Place:
            bank = {int(choice): primitive(int(choice)) for choice in np.flatnonzero(allowed)}
            return Place(Bank(bank, self.drop_path))

        def motif(edges: Mapping[int, nn.Module], nodes: int) -> Motif:
            return Motif(edges, nodes, channels, self.norm, always_live=self.architecture is not None)

        def held(allowed: Bools) -> list[int]:
            """The edges that are more than `none`."""
            return [edge for edge in range(len(allowed)) if allowed[edge, ..., 1:].any()]

        motifs = {
            edge: motif({i: place(choices[edge, i]) for i in held(choices[edge])}, self.space.motif_nodes)
            for edge in held(choices)
        }
        return motif(motifs, self.space.cell_nodes)

    def _allowed_at_places(self) -> Bools:
        """bool[edges of the cell, edges of a motif, 1 + primitives]: all in a supernet."""
        space, choices = self.space, 1 + len(self.space.primitives)
        if self.architecture is None:
            cell_edges, motif_edges = (nodes * (nodes - 1) // 2 for nodes in (space.cell_nodes, space.motif_nodes))
            return np.ones((cell_edges, motif_edges, choices), dtype=bool)
        places = primitives_at_places(space, np.asarray(self.architecture.tokens)[None])[0]
        return np.asarray(places[..., None] == np.arange(choices))

    def run(self, images: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor | None]:
        choices = primitives_at_places(self.space, tokens)
        x = self.expanded(self.stem(images), len(tokens))
        for cell, between in zip(self.cells, self.between, strict=True):
            x = between(cell(x, choices))
        return self.head(x), None


def primitives_at_places(space: HierarchicalSpace, tokens: Tokens) -> Indices:
    """What architectures apply at each place: int64[B, edges of the cell, edges of a motif].

    0 is `none`; it stands also at places that carry nothing from the cell's input to its output.
    """
    edges = space.motif_nodes * (space.motif_nodes - 1) // 2
    chosen, motifs = np.split(tokens, [space.motifs * edges], axis=1)
    inside = chosen.reshape(len(tokens), space.motifs, edges)
    inside = inside * live_edges(inside > 0, space.motif_nodes)
    with_none: Indices = np.concatenate([np.zeros_like(inside[:, :1]), inside], axis=1)
    places = with_none[np.arange(len(tokens))[:, None], motifs]
    live: Indices = places * live_edges(np.any(places > 0, axis=2), space.cell_nodes)[..., None]
    return live


def live_edges(used: Bools, nodes: int) -> Bools:
    """Which used edges, bool[..., edges by target and source], lie on a way from the first node to the last."""
    targets, sources = np.tril_indices(nodes, -1)
    reached, needed = np.zeros((2, *used.shape[:-1], nodes), dtype=bool)
    reached[..., 0] = needed[..., -1] = True
    for edge, (source, target) in enumerate(zip(sources, targets, strict=True)):
        reached[..., target] |= used[..., edge] & reached[..., source]
    for edge, (source, target) in reversed(list(enumerate(zip(sources, targets, strict=True)))):
        needed[..., source] |= used[..., edge] & needed[..., target]
    live: Bools = used & reached[..., sources] & needed[..., targets]
    return live


class Place(nn.Module):
    """The primitives of one place."""

    def __init__(self, bank: Bank) -> None:
        super().__init__()
        self.bank = bank

    def forward(self, x: Tensor, choice: Indices) -> Tensor:
        out: Tensor = self.bank([Maps(x, len(choice))], np.zeros_like(choice), choice)
        return out


class Motif(nn.Module):
    """A graph from its first node to its last: of places, or of motifs of places, which is a cell.

    Args:
        edges: the modules of the edges that are held, by number; edges are numbered by target, then source.
        nodes: number of nodes.
        channels: of every node.
        norm: makes normalisation layers.
        always_live: whether every edge that is held is live in every architecture.
    """

    def __init__(
        self, edges: Mapping[int, nn.Module], nodes: int, channels: int, norm: Norm, *, always_live: bool
    ) -> None:
        super().__init__()
        self.edges = nn.ModuleDict({str(edge): module for edge, module in edges.items()})
        targets, sources = np.tril_indices(nodes, -1)
        self.last, self.sources = nodes - 1, sources.tolist()
        self.incoming = {target: [edge for edge in sorted(edges) if targets[edge] == target] for target in range(nodes)}
        self.joins = nn.ModuleDict(
            {
                str(target): Join(len(incoming), channels, norm, always_several=always_live)
                for target, incoming in self.incoming.items()
                if len(incoming) > 1
            }
        )

    def forward(self, x: Tensor, choices: Indices) -> Tensor:
        """From and to float[B * N, C, H, W]; choices int64[B, edges, ...] are zero where an edge is not live."""
        live: Bools = np.any(choices.reshape(*choices.shape[:2], -1) > 0, axis=2)
        states = {0: x}
        for target, incoming in self.incoming.items():
            results = [self.edges[str(e)](states[self.sources[e]], choices[:, e]) for e in incoming]
            if len(results) == 1:
                states[target] = results[0]
            elif results:
                states[target] = self.joins[str(target)](results, live[:, incoming].sum(axis=1) > 1)
        return states[self.last] if self.incoming[self.last] else torch.zeros_like(x)


class Join(nn.Module):
    """Concatenates several live results and brings them back to their channels; a single one passes."""

    def __init__(self, results: int, channels: int, norm: Norm, *, always_several: bool) -> None:
        super().__init__()
        joins: dict[int, nn.Module] = {} if always_several else {0: Sum(channels)}
        self.bank = Bank({**joins, 1: convolution(results * channels, channels, 1, 1, norm)})

    def forward(self, results: list[Tensor], several: Bools) -> Tensor:
        """Joins float[B * N, C, H, W] each; all but one are zero where bool[B] `several` is False."""
        choice = several.astype(np.int64)
        out: Tensor = self.bank([Maps(torch.cat(results, dim=1), len(choice))], np.zeros_like(choice), choice)
        return out


class Sum(nn.Module):
    """The sum of groups of so many channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        groups = x.chunk(x.shape[1] // self.channels, dim=1)
        return sum(groups[1:], groups[0])
