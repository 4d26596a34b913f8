"""The figures of a benchmark: its charts, and the matrix of pairwise comparisons, drawn with matplotlib."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from nas_gym.experiments.benchmark.suite import RANDOM, Suite
from nas_gym.experiments.plotting import (
    BASELINE,
    DASHES,
    INK,
    SERIES,
    STYLE,
    Look,
    Picture,
    label_ends,
    row_axes,
    single_axes,
)
from nas_gym.experiments.report.charts import ROWS, Chart
from nas_gym.experiments.report.standings import Summary

BANDS = 6  # with more lines than this, bands would hide each other


def looks(suite: Suite) -> dict[str, Look]:
    """The look of every agent, by label."""
    found = {}
    number = 0
    for entry in suite.agents:
        if entry.name == RANDOM:
            found[entry.label] = Look(BASELINE, (0, (3, 2)), 1.9)
            continue
        found[entry.label] = Look(SERIES[number % len(SERIES)], DASHES[number // len(SERIES) % len(DASHES)])
        number += 1
    return found


def draw(summary: Summary, charts: Iterable[Chart]) -> list[Picture]:
    """All figures of a benchmark."""
    import matplotlib

    styles = looks(summary.suite)
    with matplotlib.rc_context(STYLE):
        drawn = [_draw_rows(chart, styles) if chart.kind == ROWS else _draw_curves(chart, styles) for chart in charts]
        return [*drawn, _improvement_picture(summary)]


def _draw_rows(chart: Chart, styles: Mapping[str, Look]) -> Picture:
    figure, axes = row_axes([each.label for each in chart.series], chart.title)
    for row, each in enumerate(chart.series):
        colour = styles[each.label].colour
        if len(each.low):
            bounds = [each.low[0], each.high[0]]
            axes.plot(bounds, [row, row], color=colour, linewidth=5, alpha=0.45, solid_capstyle="butt")
        heights = row + (np.linspace(-0.24, 0.24, len(each.x)) if len(each.x) > 1 else np.zeros(1))
        style = {"markersize": 5} if len(each.x) == 1 else {"markersize": 3.2, "alpha": 0.55, "markeredgewidth": 0}
        axes.plot(each.x, heights, "o", color=colour, **style)
        if each.mark is not None:
            axes.plot([each.mark, each.mark], [row - 0.36, row + 0.36], color=INK, linewidth=1.6)
        elif colour == BASELINE and not chart.log_x:
            axes.axvline(each.x[0], color=BASELINE, linestyle=(0, (3, 2)), linewidth=1, zorder=0)
        if chart.log_x:
            axes.annotate(f"{each.x[0]:.2g}", (each.x[0], row), (7, 0), textcoords="offset points", va="center")
    axes.set_xlabel(chart.x_label)
    if chart.log_x:
        least, most = (bound(float(each.x[0]) for each in chart.series) for bound in (min, max))
        axes.set_xscale("log")
        axes.set_xlim(least / 1.5, most * max(2.0, (most / least) ** 0.2))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
    return Picture(chart.name, chart.title, figure)


def _draw_curves(chart: Chart, styles: Mapping[str, Look]) -> Picture:
    figure, axes = single_axes(3.4 + 0.16 * max(0, len(chart.series) - 12), chart.title.replace(": ", "\n", 1))
    left, right = min(float(each.x[0]) for each in chart.series), max(float(each.x[-1]) for each in chart.series)
    banded = _banded([each.label for each in chart.series], styles)
    for each in chart.series:
        look = styles[each.label]
        line: dict[str, Any] = {"color": look.colour, "linestyle": look.dash, "linewidth": look.width}
        axes.plot(each.x, each.y, drawstyle="steps-post" if each.drawn == "steps" else "default", **line)
        # A finished search keeps its best architecture.
        axes.plot([each.x[-1], right], [each.y[-1]] * 2, color=look.colour, linestyle=(0, (1, 3)), linewidth=1)
        if len(each.low) and each.label in banded:
            axes.fill_between(each.x, each.low, each.high, color=look.colour, alpha=0.13, linewidth=0)
    axes.set(xlabel=chart.x_label, ylabel=chart.y_label, xlim=(left, right), ylim=chart.y_range)
    if chart.log_x:
        _scale_by_logarithm(axes, left, right)
    label_ends(axes, {each.label: float(each.y[-1]) for each in chart.series}, styles)
    return Picture(chart.name, chart.title, figure)


def _scale_by_logarithm(axes: Any, left: float, right: float) -> None:
    from matplotlib.ticker import LogLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if right > 40 * left else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()


def _banded(labels: list[str], styles: Mapping[str, Look]) -> set[str]:
    """The labels whose lines get a band: all if there are few, else only the first and random search."""
    return set(labels if len(labels) <= BANDS else [labels[0], *(s for s in labels if styles[s].colour == BASELINE)])


def _improvement_picture(summary: Summary) -> Picture:
    labels = [agent.label for agent in summary.standings]
    title = "Probability that the row's agent beats the column's"
    figure, axes = single_axes(2.1 + 0.34 * len(labels), title)
    values = np.array([[summary.improvement[a][b].value if a != b else np.nan for b in labels] for a in labels])
    axes.imshow(values, cmap="BrBG", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(labels)), labels, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), labels)
    axes.grid(visible=False)
    for row, column in zip(*np.nonzero(~np.isnan(values)), strict=True):
        sure = not math.isclose(values[row, column], 0.5) and labels[column] in _significant(summary, labels[row])
        dark = abs(values[row, column] - 0.5) > 0.3
        axes.text(
            column, row, f"{values[row, column]:.2f}", ha="center", va="center", fontsize=9.5,
            color="white" if dark else INK, fontweight="bold" if sure else "normal",
        )  # fmt: skip
    return Picture("improvement", f"{title}; bold where the interval excludes one half", figure)


def _significant(summary: Summary, label: str) -> list[str]:
    """The agents whose difference from the given one is significant."""
    others = summary.improvement[label]
    return [other for other, estimate in others.items() if estimate.above(0.5) or estimate.below(0.5)]
