"""Architectures as small SVG drawings for pages, whose colours follow the reader's light or dark scheme."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from nas_gym.envs.architecture_text import node_label, node_note
from nas_gym.envs.graph_figure import COLOURS, family
from nas_gym.envs.graph_layout import layout
from nas_gym.spaces import Architecture
from nas_gym.spaces.graph import SUM

SCALE = 96.0  # pixels an inch, as in CSS


def drawing(architecture: Architecture) -> Markup:
    """An architecture as an SVG element, its inputs at the top."""
    graph = architecture.space.graph(architecture)
    texts = [node_label(node) for node in graph.nodes]
    plan = layout(graph, texts)

    def down(y: float) -> float:
        return plan.height - y

    parts = []
    for name, (left, lower, right, upper) in plan.panels.items():
        if name:
            parts.append(_box("panel", left, down(upper), right - left, upper - lower, 0.15))
            parts.append(_text("panel", (left + right) / 2, down(upper - 0.24), f"{name} cell"))
    for route in plan.routes:
        parts.append(f'<path class="edge" d="{_path([(x, down(upper), down(lower)) for x, upper, lower in route])}"/>')
    for node, box, text in zip(graph.nodes, plan.boxes, texts, strict=True):
        corner = 0.13 if node.operation == SUM else 0.07
        style = f' style="--tint: {COLOURS[family(node.operation)]}"'
        left, top = box.x - box.width / 2, down(box.y) - box.height / 2
        parts.append(_box("node", left, top, box.width, box.height, corner, style))
        parts.append(_text("node", box.x, down(box.y), text))
        if box.note:
            parts.append(_text("note", box.x + box.width / 2 + 0.05, down(box.y), node_note(node)))
    width, height = SCALE * plan.width, SCALE * plan.height
    size = f"max-width: {width:.0f}px; min-width: {min(0.6 * width, 900):.0f}px"  # narrow screens scroll
    start = f'<svg class="architecture" viewBox="0 0 {width:.0f} {height:.0f}" style="{size}"'
    return Markup(f'{start} role="img" aria-label="{escape(str(architecture))}">{"".join(parts)}</svg>')


def _box(kind: str, left: float, top: float, width: float, height: float, corner: float, style: str = "") -> str:
    place = f'x="{SCALE * left:.1f}" y="{SCALE * top:.1f}" width="{SCALE * width:.1f}" height="{SCALE * height:.1f}"'
    return f'<rect class="{kind}" {place} rx="{SCALE * corner:.1f}"{style}/>'


def _text(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{SCALE * x:.1f}" y="{SCALE * y:.1f}">{escape(text)}</text>'


def _path(route: Sequence[tuple[float, float, float]]) -> str:
    """A curve that is straight along each vertical segment (x, start, end), y downward, and smooth between them."""

    def point(x: float, y: float) -> str:
        return f"{SCALE * x:.1f} {SCALE * y:.1f}"

    (x, start, end), *rest = route
    words = [f"M{point(x, start)}L{point(x, end)}"]
    for next_x, next_start, next_end in rest:
        middle = (end + next_start) / 2
        words.append(
            f"C{point(x, middle)} {point(next_x, middle)} {point(next_x, next_start)}L{point(next_x, next_end)}"
        )
        x, end = next_x, next_end
    return "".join(words)
