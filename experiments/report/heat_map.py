"""The mixtures of a differentiable search over its trials, as one SVG drawing for pages."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from markupsafe import Markup, escape

MIXTURE = "mixture/"
"""What the tags of the weights of operations begin with: ``mixture/EDGE/OPERATION``."""

COLUMNS = 40  # trials shown at most, evenly spaced
WIDTH, HEIGHT, GAP, MARGIN, LABELS = 14, 11, 8, 16, 210  # pixels

Scalars = Mapping[str, Mapping[int, float]]


def heat_map(scalars: Scalars) -> Markup | None:
    """Edges x operations by trial: the darker, the more weight in the mixture.

    Args:
        scalars: by tag, values by trial; those of a mixture are drawn.

    Returns:
        An SVG element; None where there is no mixture.
    """
    rows = [(*_split(tag), values) for tag, values in scalars.items() if tag.startswith(MIXTURE)]
    if not rows:
        return None
    trials = sorted({trial for _, _, values in rows for trial in values})
    if len(trials) > COLUMNS:
        trials = [trials[round(place)] for place in np.linspace(0, len(trials) - 1, COLUMNS)]
    highest = max(max(values.values()) for _, _, values in rows)
    parts, top, before = [], MARGIN, ""
    for edge, operation, values in rows:
        top += GAP if before not in ("", edge) else 0
        middle = top + HEIGHT / 2
        if edge != before:
            parts.append(_text(0, middle, "start", edge))
        parts.append(_text(LABELS - 6, middle, "end", operation))
        for column, trial in enumerate(trials):
            weight = values.get(trial, 0.0)
            told = f"{edge}, {operation}, after {trial} trials: {weight:.3f}"
            parts.append(
                f'<rect x="{LABELS + column * WIDTH}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="var(--s0)" '
                f'fill-opacity="{weight / highest:.3f}"><title>{escape(told)}</title></rect>'
            )
        top, before = top + HEIGHT, edge
    right = LABELS + len(trials) * WIDTH
    parts += [_text(LABELS, 6, "start", f"after {trials[0]}"), _text(right, 6, "end", f"{trials[-1]} trials")]
    return Markup(
        f'<svg class="heat" role="img" aria-label="Weights of operations by trial" width="{right}" height="{top + 4}" '
        f'font-size="9" fill="currentColor">{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" dominant-baseline="central">{escape(text)}</text>'


def _split(tag: str) -> tuple[str, str]:
    edge, _, operation = tag.removeprefix(MIXTURE).rpartition("/")
    return edge, operation
