"""The entry point of the `nas-gym` command."""

from __future__ import annotations

import os

# Threads that wait by spinning make small networks up to twenty times slower when anything else runs on the machine.
# OpenMP reads this when it is loaded, so it stands before everything else.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import logging
import sys

from rich.console import Console
from rich.logging import RichHandler

from nas_gym.experiments.cli import benchmark, derive, search, show, stores, tables, transfer  # noqa: F401  # commands
from nas_gym.experiments.cli.app import app, check_command, console, end_of_pipe


def main() -> None:
    """Runs the command; bad input ends it with one line."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=console)])
    try:
        check_command(sys.argv[1:])
        app.cli(prog="nas-gym", description="Neural architecture search with Gymnasium environments.")
    except BrokenPipeError:
        end_of_pipe()
    except (ValueError, OSError) as error:
        Console(stderr=True).print(f"nas-gym: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
