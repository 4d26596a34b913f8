"""Bars on a terminal, lines in a log."""

from __future__ import annotations

import threading
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LINE_SECONDS = 10.0  # between two lines in a log


class _Note(ProgressColumn):
    """What a task says of itself."""

    def render(self, task: Task) -> Text:
        return Text(str(task.fields.get("note", "")))


class ProgressLines(Progress):
    """The progress where there is no terminal: a line every ten seconds, of the task that was begun last.

    Args:
        console: where the lines go.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console=console, disable=True)  # of the bars
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._print_lines, daemon=True)

    def start(self) -> None:
        """Begins to print."""
        self._thread.start()

    def stop(self) -> None:
        """Prints no more."""
        self._stopped.set()
        self._thread.join()

    def _print_lines(self) -> None:
        while not self._stopped.wait(LINE_SECONDS):
            if line := self.line():
                self.console.print(line, highlight=False, soft_wrap=True)

    def line(self) -> str:
        """How far the last task is that is not finished; nothing if there is none."""
        task = next((task for task in reversed(self.tasks) if not task.finished), None)
        if task is None:
            return ""
        facts = [f"{task.description} {task.completed:,.0f}/{'?' if task.total is None else f'{task.total:,.0f}'}"]
        if note := task.fields.get("note"):
            facts.append(str(note))
        facts.append(f"{timedelta(seconds=int(task.elapsed or 0))} elapsed")
        if task.time_remaining is not None:
            facts.append(f"{timedelta(seconds=int(task.time_remaining))} left")
        return ", ".join(facts)


def bars(console: Console) -> Progress:
    """Bars if the console is a terminal, lines if it is not."""
    if not console.is_terminal:
        return ProgressLines(console)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Note(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
