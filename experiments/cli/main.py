"""The entry point of the `nas-gym` command."""

from __future__ import annotations

import logging
import sys

from rich.console import Console
from rich.logging import RichHandler

from nas_gym import __version__
from nas_gym.experiments.cli import (  # noqa: F401  # the commands
    benchmark,
    derive,
    listing,
    report,
    search,
    show,
    stores,
    tables,
    transfer,
)
from nas_gym.experiments.cli.app import (
    COMPLETION,
    SHARED,
    app,
    check_command,
    console,
    end_of_pipe,
    give,
    print_json,
    shared_options,
)


def main() -> None:
    """Runs the command; bad input ends it with one line."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=console)])
    with shared_options(sys.argv[1:]) as (words, as_json):
        try:
            if words == ["--version"]:
                print(f"nas-gym {__version__}")
                return
            check_command(words)
            answer = app.cli(
                prog="nas-gym", description="Neural architecture search with Gymnasium environments.", args=words
            )
            give(answer, as_json)
        except BrokenPipeError:
            end_of_pipe()
        except (ValueError, OSError) as error:
            Console(stderr=True).print(f"nas-gym: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
            if as_json:
                print_json({"error": str(error)})
            sys.exit(2)
        except SystemExit as end:
            if not end.code and {"-h", "--help"} & {*words}:  # tyro has printed the help
                print(SHARED, *([COMPLETION] if words[0].startswith("-") else []), sep="\n\n")
            raise
        if answer.code:
            sys.exit(answer.code)


if __name__ == "__main__":
    main()
