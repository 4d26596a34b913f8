"""Architectures as pictures and as text, finished or partly decided.

matplotlib is imported only by the functions that draw.
"""

from __future__ import annotations

import functools
import io
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nas_gym.envs.architecture_text import decisions_text, to_text
from nas_gym.envs.frame import draw_frame
from nas_gym.envs.graph_figure import graph_figure
from nas_gym.envs.graph_layout import layout
from nas_gym.spaces import UNDECIDED, Architecture, ArchitectureGraph, SearchSpace, Tokens

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Window", "decisions_text", "draw", "draw_rgb", "save_picture", "svg", "to_text"]

SIZE = 1600  # the longer side of a frame, twice the shorter; all frames of a space have the same shape


def draw(
    graph: ArchitectureGraph, *, undecided: frozenset[str] = frozenset(), highlight: str | None = None, title: str = ""
) -> Figure:
    """Draws an architecture from its inputs at the top to its outputs at the bottom, clusters side by side.

    Args:
        graph: the architecture.
        undecided: names of decisions; the nodes whose operation they choose are dashed and show ``?``.
        highlight: name of a decision; the node whose operation it chooses gets a thick border.
        title: text above the picture.

    Returns:
        A figure with an Agg canvas that is not registered with pyplot.
    """
    return graph_figure(graph, undecided, highlight, title)


def save_picture(architecture: Architecture, path: str | Path) -> None:
    """Saves a picture of an architecture.

    Args:
        architecture: the architecture to draw.
        path: the file to write; its suffix, ``.png`` or ``.svg``, selects the format. SVG keeps text as text.

    Raises:
        ValueError: `path` has another suffix.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise ValueError(f"path must end in .png or .svg, got {str(path)!r}")
    _write(architecture, path, kind)


def svg(architecture: Architecture) -> str:
    """A picture of an architecture as an SVG element, for notebooks and pages."""
    file = io.BytesIO()
    _write(architecture, file, "svg")
    text = file.getvalue().decode()
    return text[text.index("<svg") :]


def _write(architecture: Architecture, file: Path | io.BytesIO, kind: str) -> None:
    import matplotlib

    figure = draw(architecture.space.graph(architecture))
    # Without dates and random identifiers, the same architecture always gives the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "nas_gym"}):
        figure.savefig(file, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {"Software": None})


def draw_rgb(space: SearchSpace, tokens: Tokens, size: int = SIZE) -> NDArray[np.uint8]:
    """Draws a partly decided architecture.

    Undecided operations show ``?``, edges whose source is undecided are dashed, and the latest decision has a thick
    border. For the layout, undecided decisions take their first legal choice, or one that connects decided parts which
    would otherwise not be drawn.

    Args:
        space: the search space.
        tokens: int64[T], -1 where undecided.
        size: the number of pixels of the longer side.

    Returns:
        uint8[size / 2, size, 3], or uint8[size, size / 2, 3] for spaces of tall architectures; the same for all
        architectures of a space.
    """
    tokens = np.array(tokens, dtype=np.int64)
    undecided = frozenset(space.decisions[position].name for position in np.flatnonzero(tokens == UNDECIDED))
    decided = np.flatnonzero(tokens[: space.length] != UNDECIDED)
    if (space.stop_choices >= 0).any() and not undecided:  # choices after a stop are forced
        decided = decided[(tokens != space.absent_choices)[decided]]
    graph = _completed(space, tokens)
    places = _places(space, graph)
    last = space.decisions[int(decided[-1])] if len(decided) else None
    return draw_frame(
        graph,
        frame(space, size),
        undecided=undecided,
        highlight=places.get(last.name) if last else None,
        loose=frozenset(
            places[decision.name]
            for decision in space.decisions
            if decision.name in undecided and decision.name in places and decision.targets is not None
        ),
    )


def _completed(space: SearchSpace, tokens: Tokens) -> ArchitectureGraph:
    """The graph of a partly decided architecture, completed so that all decided parts are drawn."""
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
    """Fills undecided positions with a choice that points to a part without readers, or with the first legal one."""
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
    """For each decision, the decision whose node represents it: itself, one of its group, or one of the same part."""
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
def frame(space: SearchSpace, size: int = SIZE) -> tuple[int, int]:
    """Rows and columns of the frames of a space: portrait if its architectures are more than twice as tall as wide."""
    example = space.sample(np.random.default_rng(0), 1)[0]
    plan = layout(space.graph(space.architecture(example)))
    return (size, size // 2) if plan.height > 2 * plan.width else (size // 2, size)


class Window:
    """A window that shows one picture after another. Without a display it does nothing.

    Args:
        title: the window's title.
    """

    def __init__(self, title: str) -> None:
        import matplotlib.pyplot as plt

        self._figure = plt.figure()
        if self._figure.canvas.manager is not None:
            self._figure.canvas.manager.set_window_title(title)
        self._axes = self._figure.add_axes((0.0, 0.0, 1.0, 1.0))

    def show(self, picture: NDArray[np.uint8], seconds: float) -> None:
        """Shows uint8[rows, columns, 3] and processes the window's events for `seconds`."""
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
