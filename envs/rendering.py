"""Architectures as pictures and as text, finished or half decided.

The layout is that of Sugiyama et al. 1981: layers by longest path, crossings reduced by barycentre sweeps, long edges
led through the layers between. It needs no matplotlib, which is imported by the functions that draw.
"""

from __future__ import annotations

import functools
import itertools
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas_gym.spaces import UNDECIDED, Architecture, ArchitectureGraph, Node, SearchSpace, Tokens
from nas_gym.spaces.graph import CONCAT, INPUT, NONE, OUTPUT, SKIP, SUM

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.path import Path as Curve

FRAME = (800, 1600)  # rows and columns, or the other way round: all frames of a space have one size

# Okabe & Ito 2008, "Color Universal Design": told apart with any colour vision. Boxes are filled with a tint.
COLOURS = {
    "separable": "#56B4E9",
    "dilated": "#0072B2",
    "convolution": "#009E73",
    "pool": "#E69F00",
    "skip": "#F0E442",
    "none": "#BBBBBB",
    "join": "#999999",
    "end": "#CC79A7",
    "other": "#D55E00",
    "undecided": "#FFFFFF",
}
INK = "#222222"
FAINT = "#777777"

# Inches, of a picture at its natural size.
FONT = 9.0  # points
CHARACTER = 0.074  # a little more than the mean width of a letter at that size
BOX_HEIGHT = 0.32
BOX_MINIMUM = 0.62
RADIUS = 0.13
NODE_GAP = 0.2
MARGIN = 0.25
TITLE_HEIGHT = 0.4


# ------------------------------------------------------------------ layout


@dataclass(frozen=True, slots=True)
class Box:
    """The place of a node, in inches from the lower left corner of the picture.

    Attributes:
        x: of the middle of the box or circle.
        y: of the middle.
        width: of the box or circle.
        height: of the box or circle.
        note: room at its right for the node's name, where the name is written beside it.
    """

    x: float
    y: float
    width: float
    height: float
    note: float = 0.0


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything of a picture goes.

    Attributes:
        boxes: one a node of the graph.
        routes: one an edge: the vertical strokes (x, upper y, lower y) that it runs through on its way down, the
            first under its source and the last over its target; between two strokes it bends freely.
        panels: by cluster: left, lower, right and upper border.
        width: of the picture.
        height: of the picture.
    """

    boxes: tuple[Box, ...]
    routes: tuple[tuple[tuple[float, float, float], ...], ...]
    panels: dict[str, tuple[float, float, float, float]]
    width: float
    height: float


@dataclass(slots=True)
class _Panel:
    """One part of the graph in layers. Vertices under 0 stand for edges that pass through a layer."""

    layers: list[list[int]]
    links: list[tuple[int, int]]  # between vertices of adjacent layers
    paths: dict[int, list[int]]  # edge -> the vertices that it runs through
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
        labels: what the boxes say; by default the operations.
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
    note = CHARACTER * len(_note(node)) + 0.04 if _note(node) else 0.0
    if node.operation == SUM:
        return 2 * RADIUS, 2 * RADIUS, note
    return max(BOX_MINIMUM, CHARACTER * len(text) + 0.18), BOX_HEIGHT, note


def _reach(vertex: int, sizes: list[tuple[float, float, float]]) -> tuple[float, float]:
    """How far a vertex takes room to its left and to its right."""
    if vertex < 0:
        return 0.0, 0.0
    width, _, note = sizes[vertex]
    return width / 2, width / 2 + note


def _layered(graph: ArchitectureGraph, members: list[int]) -> _Panel:
    """Layers by longest path; operations then sink to just above what reads them, so that blocks stay together."""
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
        # A step down lengthens the edges above by as much as it shortens those below.
        if sources[vertex] and len(targets[vertex]) >= len(sources[vertex]):
            layer[vertex] = min(layer[t] for t in targets[vertex]) - 1
    layers: list[list[int]] = [[] for _ in range(max(layer.values()) + 1)]
    for vertex in members:
        layers[layer[vertex]].append(vertex)
    # The long edges of one source share their way until they part.
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
    """Reorders the layers: barycentre sweeps down and up and exchanges of neighbours, from several starts."""

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
                layer.sort(key=lambda v: _mean([place[n] for n in neighbours[v]], place[v]))  # at once
            _exchange(panel)
            if (now := cost()) < fewest:
                best, fewest = [list(layer) for layer in panel.layers], now
        for layer in panel.layers:
            shuffle.shuffle(layer)
    panel.layers = best


def _exchange(panel: _Panel) -> None:
    """Exchanges neighbours in a layer wherever that takes crossings away."""
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
    """x of the vertices: in turns each layer moves as near to its neighbours' middle as order and widths allow."""
    xs: dict[int, float] = {}
    for layer in panel.layers:
        offsets = _offsets(layer, sizes)
        xs |= {v: offset - offsets[-1] / 2 for v, offset in zip(layer, offsets, strict=True)}
    for turn in range(rounds):
        near = (panel.above, panel.below)[turn % 2]
        for layer in panel.layers if turn % 2 == 0 else reversed(panel.layers):
            wishes, weights = [], []
            for v in layer:
                neighbours = near[v] if turn < 8 else [*panel.above[v], *panel.below[v]]  # at last both sides count
                # What runs through many layers should be straight.
                pulls = [8.0 if v < 0 and n < 0 else 1.0 for n in neighbours]
                pulled = sum(p * xs[n] for p, n in zip(pulls, neighbours, strict=True))
                wishes.append(pulled / sum(pulls) if pulls else xs[v])
                weights.append(sum(pulls) or 0.1)
            offsets = _offsets(layer, sizes)
            fitted = _isotonic([w - o for w, o in zip(wishes, offsets, strict=True)], weights)
            xs |= {v: f + o for v, f, o in zip(layer, fitted, offsets, strict=True)}
    return xs


def _offsets(layer: list[int], sizes: list[tuple[float, float, float]]) -> list[float]:
    """x of the vertices of a layer when they stand as close as they may."""
    offsets = [0.0]
    for left, right in itertools.pairwise(layer):
        offsets.append(offsets[-1] + _reach(left, sizes)[1] + NODE_GAP + _reach(right, sizes)[0])
    return offsets


def _isotonic(values: list[float], weights: list[float]) -> list[float]:
    """The non-decreasing sequence nearest to `values` by weighted squares, by pooling adjacent violators."""
    pools: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, weight in zip(values, weights, strict=True):
        mean, total, length = value, weight, 1
        while pools and pools[-1][0] > mean:
            other, more, longer = pools.pop()
            mean, total, length = (mean * total + other * more) / (total + more), total + more, length + longer
        pools.append((mean, total, length))
    return [mean for mean, _, length in pools for _ in range(length)]


def _down(panel: _Panel, xs: dict[int, float]) -> list[float]:
    """Depth of the upper side of each layer: the farther the edges run aside, the wider the gap."""
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
    """For each edge the strokes through the layers that it meets, y downward."""
    arriving: dict[int, list[int]] = {}
    for edge, path in panel.paths.items():
        arriving.setdefault(path[-1], []).append(edge)
    routes = {}
    for target, edges in arriving.items():
        # Edges enter side by side, in the order in which they come.
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


# ------------------------------------------------------------------ words


def label(operation: str) -> str:
    """An operation in words: ``sep_conv_3x3/2`` is ``sep conv 3x3 /2``, of stride 2; ``conv_3x3_24``: 24 filters."""
    name, slash, stride = operation.partition("/")
    name, comma, filters = re.fullmatch(r"(.*?)(?:(_)(\d+))?", name).groups("")  # type: ignore[union-attr]
    words = {SKIP: "skip", SUM: "+"}.get(name, name.removeprefix("nor_").replace("_", " "))
    words += f", {filters}" if comma else ""
    return f"{words} /{stride}" if slash else words


def _short(node: Node) -> str:
    return node.name.removeprefix(f"{node.cluster}/")


def _label(node: Node) -> str:
    return _short(node).replace("_", " ") if node.operation == INPUT else label(node.operation)


def _note(node: Node) -> str:
    """The name that is written beside sums and concatenations, for they are what others read."""
    owner, _, last = _short(node).rpartition("/")
    named = node.operation in (SUM, CONCAT) and last not in (CONCAT, "residual")
    return f"{owner}/{last}".strip("/").replace("_", " ") if named else ""


def _family(operation: str) -> str:
    name = operation.partition("/")[0]
    exact = {SKIP: "skip", NONE: "none", SUM: "join", CONCAT: "join", INPUT: "end", OUTPUT: "end"}
    if name in exact:
        return exact[name]
    parts = {
        "sep_conv": "separable",
        "depthwise_conv": "separable",
        "mbconv": "separable",
        "dil_conv": "dilated",
        "conv": "convolution",
        "pool": "pool",
    }
    return next((family for part, family in parts.items() if part in name), "other")


def to_text(architecture: Architecture) -> str:
    """An architecture for a terminal: a block a cluster, a line a node.

    A line reads ``node_0 = sep conv 3x3(input_0) + skip(input_1)``; ``/2`` after an operation is its stride.
    """
    graph = architecture.space.graph(architecture)
    incoming = graph.predecessors()
    readers: list[list[int]] = [[] for _ in graph.nodes]
    for source, target in graph.edges:
        readers[source].append(target)

    def has_line(index: int) -> bool:
        operation = graph.nodes[index].operation
        if operation == CONCAT:
            return [graph.nodes[reader].operation for reader in readers[index]] != [OUTPUT]
        return operation in (SUM, OUTPUT) or (operation != INPUT and len(readers[index]) != 1)

    def refer(index: int) -> str:
        return _short(graph.nodes[index]) if has_line(index) or graph.nodes[index].operation == INPUT else spell(index)

    def spell(index: int) -> str:
        operation, operands = graph.nodes[index].operation, [refer(source) for source in incoming[index]]
        if operation in (SUM, OUTPUT):
            return " + ".join(operands) or "0"
        return f"{label(operation)}({(', ' if operation == CONCAT else ' + ').join(operands)})"

    lines: list[str] = []
    for cluster, members in _by_cluster(graph).items():
        lines += [f"{cluster} cell"] * bool(cluster)
        indent = "  " if cluster else ""
        lines += [f"{indent}{_short(graph.nodes[i])} = {spell(i)}" for i in members if has_line(i)]
    return "\n".join(lines)


def _by_cluster(graph: ArchitectureGraph) -> dict[str, list[int]]:
    clusters: dict[str, list[int]] = {}
    for index, node in enumerate(graph.nodes):
        clusters.setdefault(node.cluster, []).append(index)
    return clusters


def decisions_text(space: SearchSpace, tokens: Tokens) -> str:
    """The decisions int64[T] as plain text: a line a group, ``?`` for the undecided.

    A line reads ``normal/node_0: input_1 = input_0, input_2 = ?``.
    """
    lines = []
    pairs = zip(space.decisions, np.asarray(tokens).tolist(), strict=True)
    for _, group in itertools.groupby(pairs, key=lambda pair: pair[0].group):
        members = list(group)
        prefixes = {decision.name.rpartition("/")[0] for decision, _ in members}
        prefix = prefixes.pop() if len(prefixes) == 1 else ""
        words = [
            f"{decision.name.removeprefix(f'{prefix}/')} = {'?' if token == UNDECIDED else decision.choices[token]}"
            for decision, token in members
        ]
        lines.append(f"{prefix}: {', '.join(words)}" if prefix else ", ".join(words))
    return "\n".join(lines)


# ------------------------------------------------------------------ pictures


def draw(
    graph: ArchitectureGraph, *, undecided: frozenset[str] = frozenset(), highlight: str | None = None, title: str = ""
) -> Figure:
    """Draws an architecture from its inputs at the top to its outputs at the bottom, clusters side by side.

    Args:
        graph: the architecture.
        undecided: names of decisions: the nodes whose operation they choose are dashed and show ``?``.
        highlight: name of a decision: the node whose operation it chooses gets a strong border.
        title: written over the picture.

    Returns:
        A figure with an Agg canvas, unknown to pyplot.
    """
    return _figure(graph, undecided, highlight, title, loose=frozenset())


def save_picture(architecture: Architecture, path: str | Path) -> None:
    """Writes the picture of an architecture.

    Args:
        architecture: what to draw.
        path: of a file whose suffix tells the format, ``.png`` or ``.svg``. SVG keeps text as text.

    Raises:
        ValueError: another suffix.
    """
    import matplotlib

    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise ValueError(f"path must end in .png or .svg, got {str(path)!r}")
    figure = draw(architecture.space.graph(architecture))
    # Without dates and random identifiers one architecture is one file, to the byte.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "nas_gym"}):
        figure.savefig(path, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {"Software": None})


def draw_rgb(space: SearchSpace, tokens: Tokens) -> NDArray[np.uint8]:
    """Draws a partly decided architecture.

    Undecided operations show ``?``, edges whose source is undecided are dashed (for the layout, undecided decisions
    stand at their first legal choice, or at one that brings into the picture what would be left out), and what was
    decided last has a strong border.

    Args:
        space: the search space.
        tokens: int64[T], undecided ones -1.

    Returns:
        uint8[800, 1600, 3], or uint8[1600, 800, 3] for spaces of tall architectures: the same size for all
        architectures of a space.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    tokens = np.array(tokens, dtype=np.int64)
    undecided = frozenset(space.decisions[position].name for position in np.flatnonzero(tokens == UNDECIDED))
    decided = np.flatnonzero(tokens[: space.length] != UNDECIDED)
    if (space.stop_choices >= 0).any() and not undecided:  # what came behind a stop was not decided
        decided = decided[(tokens != space.absent_choices)[decided]]
    graph = _completed(space, tokens)
    places = _places(space, graph)
    last = space.decisions[int(decided[-1])] if len(decided) else None
    figure = _figure(
        graph,
        undecided,
        places.get(last.name) if last else None,
        "",
        loose=frozenset(
            places[decision.name]
            for decision in space.decisions
            if decision.name in undecided and decision.name in places and decision.targets is not None
        ),
    )
    _fit(figure, frame(space))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba(), dtype=np.uint8)  # type: ignore[no-untyped-call]
    return pixels[..., :3].copy()


def _completed(space: SearchSpace, tokens: Tokens) -> ArchitectureGraph:
    """The graph of a partly decided architecture, whose open decisions are taken so that all decided parts show."""
    graph = space.graph(space.architecture(_filled(space, tokens, set())))
    shown = {node.decision for node in graph.nodes}
    decided = [(d, token) for d, token in zip(space.decisions, tokens.tolist(), strict=True) if token != UNDECIDED]
    operations = [decision for decision, _ in decided if decision.kind == "operation"]
    if len(decided) == space.length or all(decision.name in shown for decision in operations):
        return graph
    reading = [(d.group, d.targets[token]) for d, token in decided if d.targets and d.targets[token] is not None]
    parts: set[int | None] = {*(decision.group for decision in operations), *(group for group, _ in reading)}
    unread = parts - {target for _, target in reading}
    return space.graph(space.architecture(_filled(space, tokens, unread)))


def _filled(space: SearchSpace, tokens: Tokens, unread: set[int | None]) -> Tokens:
    """Takes each open decision: the choice that points to a part that nothing reads yet, or the first legal one."""
    filled = tokens.copy()
    for position in np.flatnonzero(tokens == UNDECIDED).tolist():
        decision = space.decisions[position]
        legal = np.flatnonzero(space.legal(filled[None], position)[0]).tolist()
        filled[position] = legal[0]
        if decision.targets and (useful := [c for c in legal if decision.targets[c] in unread]):
            filled[position] = useful[0]
            unread = (unread - {decision.targets[useful[0]]}) | {decision.group}
    return filled


def _places(space: SearchSpace, graph: ArchitectureGraph) -> dict[str, str]:
    """For each decision the one whose node shows it: itself, or one of its group, or one of the same part."""
    shown = [node.decision for node in graph.nodes if node.decision]
    places: dict[str, str] = {}
    for _, group in itertools.groupby(space.decisions, key=lambda decision: decision.group):
        members = list(group)
        names = [decision.name for decision in members]
        own = [name for name in names if name in shown]
        inputs = [decision.name for decision in members if decision.kind == "input"]
        for name in names:
            part = name.rpartition("/")[0] + "/"
            alike = own[-1:] or [other for other in shown if other.startswith(part)]
            if name in own or alike:
                places[name] = name if name in own else alike[0]
        if len(inputs) <= len(own):  # the first input is that of the first operation, and so on
            places |= dict(zip(inputs, own, strict=False))
    return places


@functools.lru_cache(maxsize=64)
def frame(space: SearchSpace) -> tuple[int, int]:
    """Rows and columns of the frames of a space: upright if its architectures are more than twice as high as wide."""
    example = space.sample(np.random.default_rng(0), 1)[0]
    plan = layout(space.graph(space.architecture(example)))
    rows, columns = FRAME
    return (columns, rows) if plan.height > 2 * plan.width else (rows, columns)


def _fit(figure: Figure, size: tuple[int, int]) -> None:
    """Gives a figure the size of a frame, its content enlarged or reduced and centred."""
    rows, columns = size
    width, height = figure.get_size_inches()
    dpi = min(columns / width, rows / height, 140.0)
    wide, high = columns / dpi, rows / dpi
    figure.set_dpi(dpi)
    figure.set_size_inches(wide, high)
    axes = figure.axes[0]
    axes.set_xlim((width - wide) / 2, (width + wide) / 2)
    axes.set_ylim((height - high) / 2, (height + high) / 2)


def _figure(
    graph: ArchitectureGraph, undecided: frozenset[str], highlight: str | None, title: str, loose: frozenset[str]
) -> Figure:
    """`draw`, and dashed edges into the operations that the decisions `loose` choose."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as MatplotlibFigure
    from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Patch

    texts = ["?" if node.decision in undecided else _label(node) for node in graph.nodes]
    plan = layout(graph, texts)
    height = plan.height + (TITLE_HEIGHT if title else 0.0)
    figure = MatplotlibFigure(figsize=(plan.width, height), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set_xlim(0, plan.width)
    axes.set_ylim(0, height)

    def write(x: float, y: float, text: str, **style: Any) -> None:
        axes.text(x, y, text, **{"family": "DejaVu Sans", "va": "center", "ha": "center", "color": INK, **style})

    if title:
        write(plan.width / 2, height - MARGIN, title, size=FONT + 3, weight="bold")
    for cluster, (left, lower, right, upper) in plan.panels.items():
        if cluster:
            corners = (left, lower), right - left, upper - lower
            axes.add_patch(FancyBboxPatch(*corners, _rounded(0.15), fc="#F7F7F7", ec="#DDDDDD", lw=1.0))
            write((left + right) / 2, upper - 0.24, f"{cluster} cell", size=FONT + 1, weight="bold", color=FAINT)
    for (_, target), route in zip(graph.edges, plan.routes, strict=True):
        guessed = graph.nodes[target].decision in loose
        style = {"ls": (0, (3, 2)), "color": "#AAAAAA"} if guessed else {"ls": "-", "color": "#555555"}
        axes.add_patch(
            FancyArrowPatch(
                path=_path(route), arrowstyle="-|>", mutation_scale=8, lw=1.1, shrinkA=0, shrinkB=0, **style
            )
        )
    for node, box, text in zip(graph.nodes, plan.boxes, texts, strict=True):
        is_open = node.decision in undecided
        colour = COLOURS["undecided" if is_open else _family(node.operation)]
        strong = highlight is not None and node.decision == highlight
        corner = box.x - box.width / 2, box.y - box.height / 2
        shape: Patch = (
            Circle((box.x, box.y), RADIUS)
            if node.operation == SUM
            else FancyBboxPatch(corner, box.width, box.height, _rounded(0.07))
        )
        shape.set(
            facecolor=_tint(colour),
            edgecolor=INK if strong else FAINT if is_open else colour,
            linewidth=2.6 if strong else 1.2,
            linestyle=(0, (3, 2)) if is_open else "-",
            zorder=3,
        )
        axes.add_patch(shape)
        write(box.x, box.y - 0.008, text, size=FONT, zorder=4)
        if box.note:
            write(box.x + box.width / 2 + 0.05, box.y, _note(node), size=FONT - 1, ha="left", color=FAINT, zorder=4)
    return figure


def _rounded(radius: float) -> str:
    return f"round,pad=0,rounding_size={radius}"


def _tint(colour: str, share: float = 0.5) -> tuple[float, ...]:
    """A colour mixed with white."""
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return tuple(share * channel + 1 - share for channel in channels)


def _path(route: Sequence[tuple[float, float, float]]) -> Curve:
    """A curve straight down each stroke and smooth between them."""
    from matplotlib.path import Path as Curve

    (x, upper, lower), *rest = route
    points, codes = [(x, upper), (x, lower)], [Curve.MOVETO, Curve.LINETO]
    for next_x, next_upper, next_lower in rest:
        middle = (lower + next_upper) / 2
        points += [(x, middle), (next_x, middle), (next_x, next_upper)]
        codes += [Curve.CURVE4] * 3
        if next_upper - next_lower > 1e-6:  # a stroke of no length would leave an arrow's head without a direction
            points.append((next_x, next_lower))
            codes.append(Curve.LINETO)
        x, lower = next_x, next_lower
    return Curve(points, codes)


class Window:
    """A window that shows pictures, one after the other; without a display it shows nothing and says nothing.

    Args:
        title: of the window.
    """

    def __init__(self, title: str) -> None:
        import matplotlib.pyplot as plt

        self._figure = plt.figure()
        if self._figure.canvas.manager is not None:
            self._figure.canvas.manager.set_window_title(title)
        self._axes = self._figure.add_axes((0.0, 0.0, 1.0, 1.0))

    def show(self, picture: NDArray[np.uint8], seconds: float) -> None:
        """Shows uint8[rows, columns, 3] and lets the window's own events happen for as long as `seconds`."""
        canvas = self._figure.canvas
        self._axes.clear()
        self._axes.set_axis_off()
        self._axes.imshow(picture)
        canvas.draw()
        self._figure.show(warn=False)
        if getattr(canvas, "required_interactive_framework", None) not in (None, "headless"):
            canvas.start_event_loop(seconds)

    def close(self) -> None:
        """Closes the window."""
        import matplotlib.pyplot as plt

        plt.close(self._figure)
