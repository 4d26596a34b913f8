"""What all commands share: the application, the console, and tables on it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import tyro
from rich.console import Console
from rich.table import Table

from nas_gym.settings import unknown


class _Output(Console):
    """The console on standard output; text is shown as it is, without rich's markup."""

    def on_broken_pipe(self) -> NoReturn:
        end_of_pipe()


app = tyro.extras.SubcommandApp()
console = _Output(markup=False)

Pairs = Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY:VALUE ...")]


def end_of_pipe() -> NoReturn:
    """Ends quietly, with the usual status, when nobody reads the output any more, as with ``| head``."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is flushed into nothing
    sys.exit(128 + signal.SIGPIPE)


def check_command(words: Sequence[str]) -> None:
    """Complains of an unknown command or sub-command, and says which one may be meant.

    Raises:
        ValueError: there is none of that name.
    """
    group: Any = app
    for word in words:
        commands = getattr(group, "_subcommands", {})  # a private name of tyro's, whose own message tells less
        known = {name.replace("_", "-"): command for name, command in commands.items()}
        if not known or word.startswith("-"):
            return
        if word.replace("_", "-") not in known:
            raise ValueError(unknown("command", word, known))
        group = getattr(known[word.replace("_", "-")], "target", None)


def make_table(title: str, *columns: str) -> Table:
    """An empty table with a title."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == columns[0])
    return table
