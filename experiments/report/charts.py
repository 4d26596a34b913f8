"""Charts as data: what the figures draw with matplotlib, and the pages with their script."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nas_gym.spaces import Architecture

Floats = NDArray[np.float64]

Kind = Literal["rows", "curves"]
ROWS: Kind = "rows"
CURVES: Kind = "curves"


@dataclass(frozen=True)
class Series:
    """What a chart shows of one agent, or of one kind of trials.

    Attributes:
        label: whose it is.
        x: float64[P]. In a chart of rows all values of the row.
        y: float64[P]; empty in a chart of rows.
        low: lower bounds, float64[P], of y, or of x in a chart of rows; empty where there are none, NaN where one is
            not known.
        high: upper bounds.
        mark: a value that stands out among those of a row.
        drawn: how points are joined.
        architectures: what the points stand for, None where that is not to be drawn; empty where none are.
    """

    label: str
    x: Floats
    y: Floats = field(default_factory=lambda: np.empty(0))
    low: Floats = field(default_factory=lambda: np.empty(0))
    high: Floats = field(default_factory=lambda: np.empty(0))
    mark: float | None = None
    drawn: Literal["line", "steps", "points"] = "line"
    architectures: Sequence[Architecture | None] = ()


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        name: of its files, and of its place in a page.
        title: one line.
        kind: `ROWS`, a row for each series, or `CURVES`.
        x_label: what x counts.
        y_label: what y counts.
        series: what it shows.
        environment: the environment that it is of; None if it is of all.
        log_x: whether x is on a logarithmic scale.
        cut: the share of the lowest values that may lie below the picture: the steep rise of the first trials would
            hide the differences that follow it.
    """

    name: str
    title: str
    kind: Kind
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    environment: str | None = None
    log_x: bool = False
    cut: float = 0.0

    @property
    def y_range(self) -> tuple[float, float]:
        """The range of y, of a chart of curves."""
        values = np.concatenate([each.y[np.isfinite(each.y)] for each in self.series] or [np.zeros(1)])
        low, high = float(np.quantile(values, self.cut)), float(values.max())
        high = max([high, *(float(each.high[-1]) for each in self.series if np.isfinite(each.high[-1:]).any())])
        return low, high + 0.04 * (high - low) if high > low else low + 1

    def to_json(self, names: Mapping[Architecture, str]) -> dict[str, Any]:
        """The chart for the script of a page.

        Args:
            names: of the drawings of architectures, in the page.
        """
        return {
            "title": self.title,
            "kind": self.kind,
            "xLabel": self.x_label,
            "yLabel": self.y_label,
            "logX": self.log_x,
            "cut": self.cut,
            "series": [
                {
                    "label": each.label,
                    "drawn": each.drawn,
                    "mark": None if each.mark is None else _short(each.mark),
                    **{name: [*map(_short, getattr(each, name).tolist())] for name in ("x", "y", "low", "high")},
                    "architectures": [None if found is None else names[found] for found in each.architectures],
                }
                for each in self.series
            ],
        }


def drawn_architectures(charts: Iterable[Chart]) -> dict[Architecture, str]:
    """The architectures that charts offer to draw, and names for their drawings."""
    offered = (found for chart in charts for each in chart.series for found in each.architectures if found is not None)
    return {found: f"architecture-{number}" for number, found in enumerate(dict.fromkeys(offered))}


def _short(value: float) -> float | None:
    """A number in six digits; None for one that is not finite."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
