"""How far a command is, shown or not; and the end of a run on a signal."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from rich.console import Console


class Interrupted(Exception):
    """The run was asked to stop, and has saved itself."""


class Progress(Protocol):
    """What shows how far tasks are: rich's `Progress`, or `NoProgress`."""

    def add_task(self, description: str, *, total: float | None = None) -> Any:
        """Begins a task; returns its id."""

    def advance(self, task_id: Any, advance: float = 1) -> None:
        """So many more steps are done."""

    def update(
        self,
        task_id: Any,
        *,
        total: float | None = None,
        completed: float | None = None,
        advance: float | None = None,
        **fields: Any,
    ) -> None:
        """Changes what is known of a task."""

    def remove_task(self, task_id: Any) -> None:
        """Forgets a task."""


class NoProgress:
    """Shows nothing, and needs no package."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def add_task(self, description: str, *, total: float | None = None) -> int:
        del description, total
        return 0

    def advance(self, task_id: Any, advance: float = 1) -> None:
        pass

    def update(self, task_id: Any, **changes: Any) -> None:
        pass

    def remove_task(self, task_id: Any) -> None:
        pass


def progress_bars(console: Console | None) -> AbstractContextManager[Progress]:
    """The progress of what is done step by step: bars on a terminal, lines elsewhere, nothing without a console."""
    if console is None:
        return NoProgress()
    from nas_gym.experiments.run.bars import bars

    return bars(console)


@contextmanager
def counting(console: Console, description: str) -> Iterator[Callable[[int, int], None]]:
    """The progress of one task; yields what is to be called with how much is done, and of how much."""
    with progress_bars(console) as progress:
        bar = progress.add_task(description, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


@contextmanager
def stop_on_signal() -> Iterator[list[int]]:
    """A list that holds the signal once Ctrl-C or a termination has asked to stop; asked twice, it stops at once."""
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    try:
        previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread, where signals do not arrive
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
