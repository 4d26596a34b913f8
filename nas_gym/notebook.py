"""How objects show themselves in Jupyter: tables as HTML, and environments behind the wrappers of `gymnasium.make`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from html import escape
from importlib import import_module
from typing import Any

ENVIRONMENT = "nas_gym.envs.notebook", "environment_html"  # by name: it is on a higher floor


def facts(title: str, rows: Mapping[str, object]) -> str:
    """A table of names and values as HTML."""
    body = "".join(f"<tr><th>{escape(name)}</th>{_cell(str(value))}</tr>" for name, value in rows.items())
    return f"<p><b>{escape(title)}</b></p><table>{body}</table>"


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table with a header as HTML, which scrolls where it is wider than the page."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(_cell(str(value)) for value in row)}</tr>" for row in rows)
    scrolls = "overflow-x: auto; white-space: nowrap"
    return f'<div style="{scrolls}"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(text: str) -> str:
    return f'<td style="text-align: left">{escape(text)}</td>'


def show_environments() -> None:
    """Has IPython, if it is running, show environments as HTML, whatever wrappers are around them."""
    shell = sys.modules["IPython"].get_ipython()
    if shell is not None:
        html = shell.display_formatter.formatters["text/html"]
        html.for_type_by_name("gymnasium.core", "Env", _environment)
        html.for_type_by_name("gymnasium.vector.vector_env", "VectorEnv", _environment)


def _environment(env: Any) -> str | None:
    """An environment as HTML; of one that is not this package's, what it says of itself."""
    if hasattr(env.unwrapped, "search_space"):
        module, name = ENVIRONMENT
        shown: str = getattr(import_module(module), name)(env)
        return shown
    own: str | None = env._repr_html_() if hasattr(env, "_repr_html_") else None
    return own
