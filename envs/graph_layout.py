"""The layout of an architecture's graph, following Sugiyama et al. 1981.

Nodes are assigned to layers by longest path, crossings are reduced by barycentre sweeps, and long edges are routed
through the layers between their ends. Nothing here needs matplotlib.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from nas_gym.envs.architecture_text import label, node_note
from nas_gym.spaces import ArchitectureGraph, Node
from nas_gym.spaces.graph import SUM

# Inches, of a picture at its natural size.
FONT = 9.0  # points
CHARACTER = 0.074  # slightly more than the mean width of a letter at that size
BOX_HEIGHT = 0.32
BOX_MINIMUM = 0.62
RADIUS = 0.13
NODE_GAP = 0.2
MARGIN = 0.25
TITLE_HEIGHT = 0.4


@dataclass(frozen=True, slots=True)
class Box:
    """The position and size of a node, in inches from the lower left corner of the picture.

    Attributes:
        x: horizontal centre of the box or circle.
        y: vertical centre.
        width: width of the box or circle.
        height: height of the box or circle.
        note: space reserved to its right for the node's name, 0 if no name is written there.
    """

    x: float
    y: float
    width: float
    height: float
    note: float = 0.0


@dataclass(frozen=True, slots=True)
class Layout:
    """The positions of all elements of a picture.

    Attributes:
        boxes: one per node of the graph.
        routes: one per edge: the vertical segments (x, upper y, lower y) that it passes on its way down, the first
            below its source and the last above its target; between two segments it curves freely.
        panels: left, lower, right and upper border of each cluster.
        width: width of the picture.
        height: height of the picture.
    """

    boxes: tuple[Box, ...]
    routes: tuple[tuple[tuple[float, float, float], ...], ...]
    panels: dict[str, tuple[float, float, float, float]]
    width: float
    height: float


@dataclass(slots=True)
class _Panel:
    """One part of the graph in layers. Negative vertices are placeholders for edges that pass through a layer."""

    layers: list[list[int]]
    links: list[tuple[int, int]]  # between vertices of adjacent layers
    paths: dict[int, list[int]]  # edge -> the vertices on its path
    above: dict[int, list[int]] = field(default_factory=dict)
    below: dict[int, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        vertices = list(itertools.chain(*self.layers))
        self.above, self.below = {v: [] for v in vertices}, {v: [] for v in vertices}
        for upper, lower in self.links:
            self.below[upper].append(lower)
            self.above[lower].append(upper)


def layout(graph: ArchitectureGraph, labels: Sequence[str] | None = None) -> Layout:
    """Places the nodes of a graph so that no two boxes overlap and no edge runs through a box.

    Args:
        graph: the architecture. Its clusters become panels side by side, unless an edge joins two of them.
        labels: the text of each box; by default the operations.
    """
    labels = labels if labels is not None else [label(node.operation) for node in graph.nodes]
    sizes = [_size(node, text) for node, text in zip(graph.nodes, labels, strict=True)]
    crossing = any(graph.nodes[s].cluster != graph.nodes[t].cluster for s, t in graph.edges)
    clusters = [""] if crossing else list(dict.fromkeys(node.cluster for node in graph.nodes))
    places: dict[int, tuple[float, float]] = {}  # of nodes, y downward
    routes: dict[int, tuple[tuple[float, float, float], ...]] = {}
    panels: dict[str, tuple[float, float]] = {}
    left, depth = MARGIN, 0.0
    for cluster in clusters:
        panel = _layered(graph, [i for i, node in enumerate(graph.nodes) if crossing or node.cluster == cluster])
        _reduce_crossings(panel)
        xs = _across(panel, sizes)
        tops = _down(panel, xs)
        start = min(xs[v] - _reach(v, sizes)[0] for v in xs)
        end = max(xs[v] + _reach(v, sizes)[1] for v in xs)
        xs = {v: x - start + left + MARGIN for v, x in xs.items()}
        panels[cluster] = left, left + end - start + 2 * MARGIN
        left = panels[cluster][1] + MARGIN
        depth = max(depth, tops[-1] + BOX_HEIGHT)
        layer_of = {v: layer for layer, vertices in enumerate(panel.layers) for v in vertices}
        places |= {v: (xs[v], tops[layer_of[v]] + BOX_HEIGHT / 2) for v in xs if v >= 0}
        routes |= _routes(graph, panel, xs, {v: tops[layer] for v, layer in layer_of.items()}, sizes)
    headings = TITLE_HEIGHT if any(clusters) else 0.0
    height = depth + headings + 4 * MARGIN
    base = depth + 2 * MARGIN  # y of the uppermost layer
    return Layout(
        tuple(Box(x, base - y, *sizes[i]) for i, (x, y) in sorted(places.items())),
        tuple(
            tuple((x, base - upper, base - lower) for x, upper, lower in routes[edge])
            for edge in range(len(graph.edges))
        ),
        {cluster: (x0, MARGIN, x1, height - MARGIN) for cluster, (x0, x1) in panels.items()},
        left,
        height,
    )


def _size(node: Node, text: str) -> tuple[float, float, float]:
    """Width, height and room for the note of a node."""
    note = CHARACTER * len(node_note(node)) + 0.04 if node_note(node) else 0.0
    if node.operation == SUM:
        return 2 * RADIUS, 2 * RADIUS, note
    return max(BOX_MINIMUM, CHARACTER * len(text) + 0.18), BOX_HEIGHT, note


def _reach(vertex: int, sizes: list[tuple[float, float, float]]) -> tuple[float, float]:
    """The space that a vertex occupies to its left and to its right."""
    if vertex < 0:
        return 0.0, 0.0
    width, _, note = sizes[vertex]
    return width / 2, width / 2 + note


def _layered(graph: ArchitectureGraph, members: list[int]) -> _Panel:
    """Layers by longest path; operations then move down to just above their readers, so that blocks stay together."""
    inside = set(members)
    edges = {e: (s, t) for e, (s, t) in enumerate(graph.edges) if s in inside}
    sources: dict[int, list[int]] = {v: [] for v in members}
    targets: dict[int, list[int]] = {v: [] for v in members}
    for source, target in edges.values():
        sources[target].append(source)
        targets[source].append(target)
    layer: dict[int, int] = {}
    for vertex in members:
        layer[vertex] = max((layer[s] + 1 for s in sources[vertex]), default=0)
    for vertex in reversed(members):
        # One step down lengthens each edge above and shortens each edge below by one layer.
        if sources[vertex] and len(targets[vertex]) >= len(sources[vertex]):
            layer[vertex] = min(layer[t] for t in targets[vertex]) - 1
    layers: list[list[int]] = [[] for _ in range(max(layer.values()) + 1)]
    for vertex in members:
        layers[layer[vertex]].append(vertex)
    # The long edges of one source share a path until they diverge.
    passing: dict[tuple[int, int], int] = {}
    paths: dict[int, list[int]] = {}
    for edge, (source, target) in edges.items():
        path = [source]
        for between in range(layer[source] + 1, layer[target]):
            if (source, between) not in passing:
                passing[source, between] = -1 - len(passing)
                layers[between].append(passing[source, between])
            path.append(passing[source, between])
        paths[edge] = [*path, target]
    links = dict.fromkeys(link for path in paths.values() for link in itertools.pairwise(path))
    return _Panel(layers, list(links), paths)


def _reduce_crossings(panel: _Panel, starts: int = 6, sweeps: int = 8) -> None:
    """Reorders the layers by barycentre sweeps down and up and swaps of neighbours, from several starts."""

    def cost() -> int:
        return sum(_crossings(panel, upper, lower) for upper, lower in itertools.pairwise(panel.layers))

    shuffle = random.Random(0)
    best, fewest = [list(layer) for layer in panel.layers], cost()
    for _ in range(starts):
        for sweep in range(sweeps):
            if not fewest:
                break
            downward = sweep % 2 == 0
            neighbours = panel.above if downward else panel.below
            for layer in panel.layers if downward else reversed(panel.layers):
                place = {v: i for vertices in panel.layers for i, v in enumerate(vertices)}
                layer.sort(key=lambda v: _mean([place[n] for n in neighbours[v]], place[v]))
            _exchange(panel)
            if (now := cost()) < fewest:
                best, fewest = [list(layer) for layer in panel.layers], now
        for layer in panel.layers:
            shuffle.shuffle(layer)
    panel.layers = best


def _exchange(panel: _Panel) -> None:
    """Swaps neighbours in a layer wherever that removes crossings."""
    for depth, layer in enumerate(panel.layers):
        around = [panel.layers[d] for d in (depth - 1, depth + 1) if 0 <= d < len(panel.layers)]
        place = {v: i for vertices in around for i, v in enumerate(vertices)}
        for i in range(len(layer) - 1):
            left, right = layer[i], layer[i + 1]
            gain = sum(
                (place[a] > place[b]) - (place[a] < place[b])
                for near in (panel.above, panel.below)
                for a in near[left]
                for b in near[right]
            )
            if gain > 0:
                layer[i], layer[i + 1] = right, left


def _crossings(panel: _Panel, upper: list[int], lower: list[int]) -> int:
    place = {v: i for i, v in enumerate(lower)}
    ends = [[place[n] for n in panel.below[v]] for v in upper]
    return sum(a > b for left, right in itertools.combinations(ends, 2) for a in left for b in right)


def _across(panel: _Panel, sizes: list[tuple[float, float, float]], rounds: int = 41) -> dict[int, float]:
    """The x of each vertex: layer by layer, as close to the mean of its neighbours as order and widths allow."""
    xs: dict[int, float] = {}
    for layer in panel.layers:
        offsets = _offsets(layer, sizes)
        xs |= {v: offset - offsets[-1] / 2 for v, offset in zip(layer, offsets, strict=True)}
    for turn in range(rounds):
        near = (panel.above, panel.below)[turn % 2]
        for layer in panel.layers if turn % 2 == 0 else reversed(panel.layers):
            wishes, weights = [], []
            for v in layer:
                neighbours = near[v] if turn < 8 else [*panel.above[v], *panel.below[v]]  # in the end, both sides count
                # Long edges should be straight.
                pulls = [8.0 if v < 0 and n < 0 else 1.0 for n in neighbours]
                pulled = sum(p * xs[n] for p, n in zip(pulls, neighbours, strict=True))
                wishes.append(pulled / sum(pulls) if pulls else xs[v])
                weights.append(sum(pulls) or 0.1)
            offsets = _offsets(layer, sizes)
            fitted = _isotonic([w - o for w, o in zip(wishes, offsets, strict=True)], weights)
            xs |= {v: f + o for v, f, o in zip(layer, fitted, offsets, strict=True)}
    return xs


def _offsets(layer: list[int], sizes: list[tuple[float, float, float]]) -> list[float]:
    """The x of the vertices of a layer when packed as closely as allowed."""
    offsets = [0.0]
    for left, right in itertools.pairwise(layer):
        offsets.append(offsets[-1] + _reach(left, sizes)[1] + NODE_GAP + _reach(right, sizes)[0])
    return offsets


def _isotonic(values: list[float], weights: list[float]) -> list[float]:
    """Weighted least-squares isotonic regression of `values`, by pooling adjacent violators."""
    pools: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, weight in zip(values, weights, strict=True):
        mean, total, length = value, weight, 1
        while pools and pools[-1][0] > mean:
            other, more, longer = pools.pop()
            mean, total, length = (mean * total + other * more) / (total + more), total + more, length + longer
        pools.append((mean, total, length))
    return [mean for mean, _, length in pools for _ in range(length)]


def _down(panel: _Panel, xs: dict[int, float]) -> list[float]:
    """The depth of the upper side of each layer: gaps widen with the horizontal distance that edges cover."""
    tops = [0.0]
    for layer in panel.layers[:-1]:
        aside = max((abs(xs[v] - xs[n]) for v in layer for n in panel.below[v]), default=0.0)
        tops.append(tops[-1] + BOX_HEIGHT + min(0.26 + 0.11 * aside, 0.75))
    return tops


def _routes(
    graph: ArchitectureGraph,
    panel: _Panel,
    xs: dict[int, float],
    tops: dict[int, float],
    sizes: list[tuple[float, float, float]],
) -> dict[int, tuple[tuple[float, float, float], ...]]:
    """For each edge, its vertical segments through the layers on its path, y downward."""
    arriving: dict[int, list[int]] = {}
    for edge, path in panel.paths.items():
        arriving.setdefault(path[-1], []).append(edge)
    routes = {}
    for target, edges in arriving.items():
        # Edges enter side by side, in the order of the vertices that they come from.
        edges.sort(key=lambda edge: (xs[panel.paths[edge][-2]], edge))
        spread = 0.0 if graph.nodes[target].operation == SUM else min(0.6 * sizes[target][0] / len(edges), 0.16)
        for rank, edge in enumerate(edges):
            source, *between, _ = panel.paths[edge]
            enters = xs[target] + spread * (rank - (len(edges) - 1) / 2)
            middle = tops[source] + BOX_HEIGHT / 2
            routes[edge] = (
                (xs[source], middle + sizes[source][1] / 2, tops[source] + BOX_HEIGHT),
                *((xs[v], tops[v], tops[v] + BOX_HEIGHT) for v in between),
                (enters, tops[target], tops[target] + BOX_HEIGHT / 2 - sizes[target][1] / 2),
            )
    return routes


def _mean(values: list[int], default: float) -> float:
    return sum(values) / len(values) if values else default
