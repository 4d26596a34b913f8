"""What all commands share: the application, the console, and tables on it."""

from __future__ import annotations

from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

app = tyro.extras.SubcommandApp()
console = Console()

Pairs = Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY:VALUE ...")]


def make_table(title: str, *columns: str) -> Table:
    """An empty table with a title."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == columns[0])
    return table
