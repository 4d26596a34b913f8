"""What all commands share: the application, the console, the options of every command, and how one ends."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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

SHARED = """\
Options of every command:
  --quiet    print nothing but errors
  --json     print one JSON object at the end; everything else goes to standard error
  --version  print the version"""
COMPLETION = """\
Shell completion, for new shells:
  nas-gym --tyro-write-completion bash ~/.local/share/bash-completion/completions/nas-gym
  nas-gym --tyro-write-completion zsh ~/.zfunc/_nas-gym    (with ~/.zfunc in fpath)"""


@dataclass(frozen=True)
class Answer:
    """What a command has come to.

    Attributes:
        facts: what ``--json`` prints; JSON-serialisable.
        then: what to do next: commands, and what they do.
        code: the exit status.
    """

    facts: Mapping[str, Any]
    then: Mapping[str, str] = field(default_factory=dict)
    code: int = 0


def told(*words: object) -> str:
    """A command as a shell reads it."""
    return shlex.join(["nas-gym", *map(str, words)])


def stopped(then: str, **facts: Any) -> Answer:
    """The answer of a command that was interrupted, and that another, or the same, goes on with."""
    return Answer({"state": "stopped", **facts}, {then: "goes on"}, code=130)


def give(answer: Answer, as_json: bool) -> None:
    """Prints the end of an answer: what to do next, or all of it as JSON."""
    if as_json:
        print_json({**answer.facts, "next": list(answer.then)})
    elif answer.then:
        width = max(map(len, answer.then))
        lines = [f"  {command:<{width}}  {does}".rstrip() for command, does in answer.then.items()]
        console.print("", "next:", *lines, sep="\n", highlight=False, soft_wrap=True)


def print_json(facts: Any) -> None:
    """Prints one JSON object on standard output; NaN and infinity are null."""
    plain = json.loads(json.dumps(facts, default=str), parse_constant=lambda _: None)
    print(json.dumps(plain, indent=2), flush=True)


@contextmanager
def shared_options(words: Sequence[str]) -> Iterator[tuple[list[str], bool]]:
    """Obeys the options of every command, wherever they stand; yields the other words, and whether JSON is wanted."""
    before = console.quiet, console.stderr
    as_json = "--json" in words
    console.quiet, console.stderr = console.quiet or "--quiet" in words, as_json
    try:
        yield [word for word in words if word not in ("--json", "--quiet")], as_json
    finally:
        console.quiet, console.stderr = before


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
