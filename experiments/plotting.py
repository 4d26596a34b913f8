"""Shared plotting style: colours, line styles, axes sized for a phone screen, and writing figures to files."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas_gym.agents.result import SearchResult
from nas_gym.files import write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nas_gym.experiments.run.comparison_result import Comparison
    from nas_gym.experiments.run.target import Target

Floats = NDArray[np.float64]

# One colour per agent, in the order of the suite; random search is grey. In the HTML report each colour is a variable
# with a lighter value for dark screens.
SERIES = (
    "#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#be185d", "#65a30d",
    "#92400e", "#4f46e5", "#0f766e", "#a21caf", "#ea580c", "#0369a1", "#4d7c0f", "#9f1239",
)  # fmt: skip
INK, FAINT, GRID, BASELINE = "#1b1d22", "#6b7078", "#e3e6eb", "#7d828c"
DASHES: tuple[Any, ...] = ("solid", (0, (5, 1.5)), (0, (1.5, 1.5)))  # one per round through the colours
STYLE: dict[Any, Any] = {
    "font.size": 11,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "nas-gym",
}
WIDTH = 5.3  # inches: the width of a phone screen at 72 dots per inch
AXIS_LABELS = {"latency": "latency, seconds", "flops": "floating-point operations"}


@dataclass(frozen=True)
class Look:
    """How an agent is drawn.

    Attributes:
        colour: of all marks and lines of the agent.
        dash: line style of matplotlib.
        width: of lines, in points.
    """

    colour: str
    dash: Any = "solid"
    width: float = 1.7


@dataclass(frozen=True)
class Picture:
    """A figure and the names it is saved and shown under.

    Attributes:
        name: of its files, without suffix.
        title: one line.
        figure: the matplotlib figure.
    """

    name: str
    title: str
    figure: Figure


def single_axes(height: float, title: str) -> tuple[Figure, Axes]:
    """A figure of `WIDTH` by `height` inches with one pair of axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure, axes


def row_axes(labels: Sequence[str], title: str) -> tuple[Figure, Axes]:
    """A figure whose axes have one row per label, the first at the top."""
    figure, axes = single_axes(1.0 + 0.27 * len(labels), title)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=6)
    axes.grid(axis="y", visible=False)
    return figure, axes


def label_ends(axes: Axes, ends: Mapping[str, float], looks: Mapping[str, Look]) -> None:
    """Writes the label of each line at its right end, shifting labels vertically so that none overlap.

    Args:
        axes: with their final limits.
        ends: by label, the line's last value in data coordinates.
        looks: by label.
    """
    low, high = axes.get_ylim()
    right = axes.get_xlim()[1]
    places = spread(np.array([(end - low) / (high - low) for end in ends.values()]), 0.072, 1.0)
    for (label, end), place in zip(ends.items(), places, strict=True):
        stroke = {"arrowstyle": "-", "color": looks[label].colour, "linewidth": 0.8, "shrinkA": 1, "shrinkB": 0}
        axes.annotate(
            label,
            (right, end),
            (1.06, place),
            xycoords="data",
            textcoords="axes fraction",
            va="center",
            fontsize=10.5,
            color=looks[label].colour,
            annotation_clip=False,
            arrowprops={**stroke, "relpos": (0, 0.5)},
        )


def spread(places: Floats, distance: float, top: float) -> Floats:
    """The positions closest to the given ones, in least squares, that keep a minimum distance.

    Args:
        places: float64[n], wanted positions.
        distance: minimum distance between any two.
        top: the result lies in [0, top] where that leaves enough room.

    Returns:
        float64[n], in the order of `places`.
    """
    from scipy.optimize import isotonic_regression

    order = np.argsort(places, kind="stable")
    steps = distance * np.arange(len(places))
    apart = isotonic_regression(places[order] - steps).x
    moved = np.empty_like(places)
    moved[order] = np.clip(apart, 0.0, max(0.0, top - distance * (len(places) - 1))) + steps
    return moved


def pareto_picture(result: SearchResult, cost: str, target: Target | None = None) -> Picture:
    """Scatter plot of a search's trials, cost against accuracy, with the Pareto front and the trial of highest reward.

    The vertical axis may cut off the tenth of the trials with the lowest accuracy.

    Args:
        result: of the search.
        cost: the metric of the horizontal axis.
        target: of the search, a vertical line if it is of this cost.
    """
    import matplotlib

    title = f"Accuracy against {cost}"
    front = result.pareto_front("accuracy", cost)
    front = front[np.lexsort((result.metrics["accuracy"][front], result.metrics[cost][front]))]
    with matplotlib.rc_context(STYLE):
        figure, axes = single_axes(3.6, title)
        x, y = result.metrics[cost], result.metrics["accuracy"]
        shown = ~(result.metrics["failed"] > 0) & (result.fidelities == result.fidelities.max())
        axes.plot(x[shown], y[shown], "o", color=BASELINE, markersize=3.5, alpha=0.5, markeredgewidth=0, label="trials")
        axes.step(x[front], y[front], where="post", color=SERIES[0], linewidth=1.5)
        axes.plot(x[front], y[front], "o", color=SERIES[0], markersize=5, label="Pareto front")
        best = result.best_trial
        axes.plot(x[best], y[best], "o", markersize=11, markerfacecolor="none", color=SERIES[1], label="best reward")
        _draw_target(axes, cost, target)
        axes.set(xlabel=AXIS_LABELS.get(cost, cost), ylabel="accuracy")
        # Diverged trials far below would squeeze the others into a line.
        low, high = np.quantile(y[shown], [0.1, 1.0]) if shown.any() else (0.0, 0.0)
        low = min(low, *y[front], y[best])
        if high > low:
            axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        axes.locator_params(axis="x", nbins=6)
        axes.legend(frameon=False, loc="best")
    return Picture("pareto", title, figure)


def _draw_target(axes: Axes, cost: str, target: Target | None) -> None:
    if target is not None and target.metric == cost:
        axes.axvline(target.value, color=SERIES[3], linestyle=DASHES[1], linewidth=1.2, label="target")


def comparison_picture(comparison: Comparison, target: Target | None = None) -> list[Picture]:
    """Test accuracy against cost: what was found, random architectures, and networks made by hand.

    Bars are 95 % intervals over seeds. There is no picture if the cost is unknown.
    """
    import matplotlib

    cost = comparison.cost
    if comparison.found.cost(cost) is None:
        return []
    title = f"Test accuracy against {cost}"
    with matplotlib.rc_context(STYLE):
        figure, axes = single_axes(3.6, title)
        for row in comparison.rows:
            if row.role == "random":
                axes.plot(getattr(row, cost), row.test_accuracy, "o", color=BASELINE, markersize=4.5, alpha=0.7)
        axes.plot([], [], "o", color=BASELINE, markersize=4.5, label="random")
        own = [group for group in comparison.groups if group.role != "random"]
        for group, colour, marker in zip(own, SERIES, "o^sDv", strict=False):
            test = group.test
            bars = [[test.mean - test.low], [test.high - test.mean]] if test.low is not None and test.high else None
            label = "found" if group.role == "found" else f"{group.name}, by hand"
            style: dict[str, Any] = {"fmt": marker, "color": colour, "markersize": 7, "capsize": 3, "label": label}
            axes.errorbar(group.cost(cost) or 0.0, test.mean, yerr=bars, **style)
        _draw_target(axes, cost, target)
        axes.set(xlabel=AXIS_LABELS.get(cost, cost), ylabel="test accuracy")
        axes.locator_params(axis="x", nbins=6)
        axes.legend(frameon=False, loc="best")
    return [Picture("comparison", title, figure)]


def write_figures(pictures: Iterable[Picture], folder: Path) -> dict[str, str]:
    """Writes each figure as PNG and as SVG, and returns the SVG texts by name."""
    import matplotlib

    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for picture in pictures:
        with matplotlib.rc_context(STYLE):
            picture.figure.savefig(folder / f"{picture.name}.png", dpi=160, facecolor="white")
            buffer = io.StringIO()
            picture.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        written[picture.name] = buffer.getvalue()
        write_text(
            folder / f"{picture.name}.svg", buffer.getvalue().replace("<svg ", '<svg style="background: white" ', 1)
        )
    return written
