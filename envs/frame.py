"""Draws the graph of an architecture as pixels, with Pillow: several times as fast as a figure of matplotlib."""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nas_gym.envs.architecture_text import node_label, node_note
from nas_gym.envs.graph_figure import COLOURS, FAINT, INK, family, tint
from nas_gym.envs.graph_layout import FONT, MARGIN, RADIUS, TITLE_HEIGHT, Layout, layout
from nas_gym.spaces import ArchitectureGraph
from nas_gym.spaces.graph import SUM

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

SMOOTH = 2  # pixels are drawn this many times as fine, and averaged
LARGEST = 140.0  # dots per inch
POINT = 1 / 72  # inches
CURVE = 12  # pieces of a curve
DASHES = 3.3 * POINT, 2.2 * POINT  # length of a dash, and of a gap

Point = tuple[float, float]


def draw_frame(
    graph: ArchitectureGraph,
    size: tuple[int, int],
    *,
    undecided: frozenset[str] = frozenset(),
    highlight: str | None = None,
    loose: frozenset[str] = frozenset(),
    title: str = "",
) -> NDArray[np.uint8]:
    """Draws a graph as `rendering.draw` does, as large as fits.

    Args:
        graph: the architecture.
        size: rows and columns.
        undecided: as for `rendering.draw`, like highlight and title.
        highlight: name of the decision whose node is marked.
        loose: names of decisions; edges into the operations that they choose are dashed.
        title: text above the picture.

    Returns:
        uint8[rows, columns, 3].
    """
    texts = ["?" if node.decision in undecided else node_label(node) for node in graph.nodes]
    plan = layout(graph, texts)
    canvas = Canvas(size, plan.width, plan.height + (TITLE_HEIGHT if title else 0.0))
    if title:
        canvas.write((plan.width / 2, canvas.height - MARGIN), title, FONT + 3, bold=True)
    _draw_panels(canvas, plan)
    for (_, target), route in zip(graph.edges, plan.routes, strict=True):
        _draw_edge(canvas, route, graph.nodes[target].decision in loose)
    for node, box, text in zip(graph.nodes, plan.boxes, texts, strict=True):
        is_open = node.decision in undecided
        colour = COLOURS["undecided" if is_open else family(node.operation)]
        strong = highlight is not None and node.decision == highlight
        half = (RADIUS, RADIUS) if node.operation == SUM else (box.width / 2, box.height / 2)
        canvas.box(
            (box.x - half[0], box.y - half[1], box.x + half[0], box.y + half[1]),
            RADIUS if node.operation == SUM else 0.07,
            fill=tuple(round(255 * channel) for channel in tint(colour)),
            edge=INK if strong else FAINT if is_open else colour,
            width=2.6 * POINT if strong else 1.2 * POINT,
            dashed=is_open,
        )
        canvas.write((box.x, box.y), text, FONT)
        if box.note:
            canvas.write((box.x + box.width / 2 + 0.05, box.y), node_note(node), FONT - 1, FAINT, anchor="lm")
    return canvas.pixels()


def _draw_panels(canvas: Canvas, plan: Layout) -> None:
    for cluster, corners in plan.panels.items():
        if cluster:
            canvas.box(corners, 0.15, fill=(247, 247, 247), edge="#DDDDDD", width=POINT)
            centre = (corners[0] + corners[2]) / 2, corners[3] - 0.24
            canvas.write(centre, f"{cluster} cell", FONT + 1, FAINT, bold=True)


def _draw_edge(canvas: Canvas, route: Sequence[tuple[float, float, float]], guessed: bool) -> None:
    colour = "#AAAAAA" if guessed else "#555555"
    (x, upper, lower), *rest = route
    points = [(x, upper), (x, lower)]
    for x, upper, lower in rest:
        points += _curve(points[-1], (x, upper))
        points.append((x, lower))
    canvas.line(points, colour, 1.1 * POINT, dashed=guessed)
    tip, length = points[-1], 3.8 * POINT
    canvas.polygon([tip, (tip[0] - length / 2, tip[1] + length), (tip[0] + length / 2, tip[1] + length)], colour)


def _curve(start: Point, end: Point) -> list[Point]:
    """A cubic curve from one vertical line to another, without its start."""
    if start[0] == end[0]:
        return [end]
    shares = (step / CURVE for step in range(1, CURVE + 1))
    bends = ((3 * s * s - 2 * s * s * s, s + s * (1 - s) * (0.5 - s)) for s in shares)
    return [(start[0] + a * (end[0] - start[0]), start[1] + b * (end[1] - start[1])) for a, b in bends]


class Canvas:
    """A white picture whose coordinates are inches from its lower left corner.

    Args:
        size: rows and columns of the pixels.
        width: of what is drawn, in inches; it is scaled to fit, and centred.
        height: likewise.
    """

    def __init__(self, size: tuple[int, int], width: float, height: float) -> None:
        from PIL import Image, ImageDraw

        rows, columns = (SMOOTH * side for side in size)
        self.height = height
        self._scale = min(columns / width, rows / height, SMOOTH * LARGEST)
        self._left, self._top = (columns - width * self._scale) / 2, (rows + height * self._scale) / 2
        self._image = Image.new("RGB", (columns, rows), "white")
        self._draw = ImageDraw.Draw(self._image)

    def pixels(self) -> NDArray[np.uint8]:
        """What was drawn, uint8[rows, columns, 3]."""
        return np.array(self._image.reduce(SMOOTH))

    def line(self, points: Sequence[Point], colour: str, width: float, dashed: bool = False) -> None:
        """Draws a line through points."""
        for part in _dashes(points) if dashed else [points]:
            self._draw.line([self._at(point) for point in part], colour, self._pixels(width), joint="curve")

    def polygon(self, points: Sequence[Point], colour: str) -> None:
        """Fills a polygon."""
        self._draw.polygon([self._at(point) for point in points], colour)

    def box(
        self,
        corners: tuple[float, float, float, float],
        radius: float,
        *,
        fill: tuple[int, ...],
        edge: str,
        width: float,
        dashed: bool = False,
    ) -> None:
        """Draws a rectangle with round corners, given as left, lower, right, upper."""
        (left, lower, right, upper), thick = corners, self._pixels(width)
        area = (*self._at((left, upper)), *self._at((right, lower)))
        self._draw.rounded_rectangle(area, radius * self._scale, fill, None if dashed else edge, thick)
        if dashed:
            outline = [(left, lower), (left, upper), (right, upper), (right, lower), (left, lower)]
            self.line(outline, edge, width, dashed=True)

    def write(
        self, at: Point, text: str, points: float, colour: str = INK, *, bold: bool = False, anchor: str = "mm"
    ) -> None:
        """Writes text, by default centred."""
        size = max(1, round(points * POINT * self._scale))
        self._draw.text(self._at(at), text, colour, _font(size, bold), anchor=anchor)

    def _at(self, point: Point) -> Point:
        return self._left + point[0] * self._scale, self._top - point[1] * self._scale

    def _pixels(self, width: float) -> int:
        return max(1, round(width * self._scale))


def _dashes(points: Sequence[Point]) -> Iterator[list[Point]]:
    """The dashes of a line, straight pieces."""
    position, on, left = points[0], True, DASHES[0]
    for end in points[1:]:
        while (length := math.dist(position, end)) > 0:
            share = min(left / length, 1.0)
            reached = position[0] + share * (end[0] - position[0]), position[1] + share * (end[1] - position[1])
            if on:
                yield [position, reached]
            left -= share * length
            position = reached
            if left <= 1e-9:
                on, left = not on, DASHES[on]
            if share == 1.0:
                break


@functools.lru_cache(maxsize=64)
def _font(size: int, bold: bool) -> FreeTypeFont:
    """DejaVu Sans, which matplotlib brings, in a size of pixels."""
    from PIL import ImageFont

    spec = importlib.util.find_spec("matplotlib")  # which is not imported
    assert spec is not None
    assert spec.origin is not None
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / name, size)
