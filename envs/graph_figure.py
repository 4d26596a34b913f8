"""Draws the graph of an architecture with matplotlib, which is imported only by the functions that draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nas_gym.envs.architecture_text import node_label, node_note
from nas_gym.envs.graph_layout import FONT, MARGIN, RADIUS, TITLE_HEIGHT, layout
from nas_gym.spaces import ArchitectureGraph
from nas_gym.spaces.graph import CONCAT, INPUT, NONE, OUTPUT, SKIP, SUM

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.path import Path as Curve

# Okabe & Ito 2008, "Color Universal Design": distinguishable with any colour vision. Boxes are filled with a tint.
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


def graph_figure(graph: ArchitectureGraph, undecided: frozenset[str], highlight: str | None, title: str) -> Figure:
    """Draws a graph; see `rendering.draw`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as MatplotlibFigure
    from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Patch

    texts = ["?" if node.decision in undecided else node_label(node) for node in graph.nodes]
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
    arrow: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 8, "lw": 1.1, "shrinkA": 0, "shrinkB": 0}
    for route in plan.routes:
        axes.add_patch(FancyArrowPatch(path=_path(route), color="#555555", **arrow))
    for node, box, text in zip(graph.nodes, plan.boxes, texts, strict=True):
        is_open = node.decision in undecided
        colour = COLOURS["undecided" if is_open else family(node.operation)]
        strong = highlight is not None and node.decision == highlight
        corner = box.x - box.width / 2, box.y - box.height / 2
        shape: Patch = (
            Circle((box.x, box.y), RADIUS)
            if node.operation == SUM
            else FancyBboxPatch(corner, box.width, box.height, _rounded(0.07))
        )
        shape.set(
            facecolor=tint(colour),
            edgecolor=INK if strong else FAINT if is_open else colour,
            linewidth=2.6 if strong else 1.2,
            linestyle=(0, (3, 2)) if is_open else "-",
            zorder=3,
        )
        axes.add_patch(shape)
        write(box.x, box.y - 0.008, text, size=FONT, zorder=4)
        if box.note:
            write(box.x + box.width / 2 + 0.05, box.y, node_note(node), size=FONT - 1, ha="left", color=FAINT, zorder=4)
    return figure


def _rounded(radius: float) -> str:
    return f"round,pad=0,rounding_size={radius}"


def tint(colour: str, share: float = 0.5) -> tuple[float, ...]:
    """A colour mixed with white."""
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return tuple(share * channel + 1 - share for channel in channels)


def _path(route: Sequence[tuple[float, float, float]]) -> Curve:
    """A curve that is straight along each segment and smooth between them."""
    from matplotlib.path import Path as Curve

    (x, upper, lower), *rest = route
    points, codes = [(x, upper), (x, lower)], [Curve.MOVETO, Curve.LINETO]
    for next_x, next_upper, next_lower in rest:
        middle = (lower + next_upper) / 2
        points += [(x, middle), (next_x, middle), (next_x, next_upper)]
        codes += [Curve.CURVE4] * 3
        if next_upper - next_lower > 1e-6:  # a segment of length 0 would leave the arrowhead without a direction
            points.append((next_x, next_lower))
            codes.append(Curve.LINETO)
        x, lower = next_x, next_lower
    return Curve(points, codes)


def family(operation: str) -> str:
    """The key of the colour of an operation."""
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
