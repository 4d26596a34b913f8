"""Pages to explore: one file each, without references to others, with the charts' numbers and a script that draws them.

Colours are CSS variables, so that a page follows the light or dark scheme of the reader's screen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from nas_gym.experiments.plotting import BASELINE, SERIES
from nas_gym.experiments.report.charts import Chart, drawn_architectures
from nas_gym.experiments.report.drawing import drawing
from nas_gym.experiments.report.leaderboard import listed, marked
from nas_gym.spaces import Architecture

SERIES_DARK = (
    "#6ea8fe", "#fbb040", "#3ddc97", "#ff7b7b", "#b69cff", "#3fd0e8", "#f77fbe", "#a8dc4a",
    "#d8a26a", "#9aa2ff", "#45cdbb", "#e58af5", "#ff9a5c", "#58b7f0", "#c2d86a", "#ff8fab",
)  # fmt: skip
VARIABLES = {BASELINE: "var(--baseline)", **{colour: f"var(--s{number})" for number, colour in enumerate(SERIES)}}


def render(
    template: str,
    charts: Mapping[str, Sequence[Chart]],
    *,
    colours: Mapping[str, str],
    dashes: Mapping[str, str],
    drawn: Iterable[Architecture] = (),
    refresh: int | None = None,
    **context: Any,
) -> str:
    """A page.

    Args:
        template: name of its template, which extends ``base.html.jinja``.
        charts: by section of the page.
        colours: of the labels of all series, of `SERIES` or `BASELINE`.
        dashes: of their lines, as SVG has it; solid where none is given.
        drawn: architectures that the page offers to draw beside those of the charts.
        refresh: seconds after which a browser loads the page anew; None does not.
        **context: what the template reads beside these.
    """
    every = [chart for found in charts.values() for chart in found]
    names = drawn_architectures(every)
    names |= {found: f"drawing-{number}" for number, found in enumerate(dict.fromkeys(drawn)) if found not in names}
    variables = {label: VARIABLES[colour] for label, colour in colours.items()}
    data = {
        "colours": variables,
        "dashes": dict(dashes),
        "charts": {chart.name: chart.to_json(names) for chart in every},
    }
    return (
        _templates()
        .get_template(template)
        .render(
            charts=charts,
            colours=variables,
            data=data,
            drawings=[(name, found, drawing(found)) for found, name in names.items()],
            drawing_of=names.__getitem__,
            refresh=refresh,
            light=SERIES,
            dark=SERIES_DARK,
            **context,
        )
    )


def _templates() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"fixed": lambda number, digits: f"{number:.{digits}f}", "listed": listed, "marked": marked}
    templates.tests["nan"] = math.isnan
    return templates
