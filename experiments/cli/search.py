"""`nas-gym train` and `nas-gym resume`."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import tyro

from nas_gym.experiments.cli.app import app, console, make_table
from nas_gym.experiments.run import Interrupted, Run, RunConfig
from nas_gym.files import file_name


@app.command
def train(config: Annotated[RunConfig, tyro.conf.arg(name="")], run_dir: Path | None = None) -> None:
    """Searches, then compares what was found with random architectures and networks made by hand, on test images.

    Args:
        config: what to do.
        run_dir: the run's folder; a new one under runs/ by default.
    """
    name = f"{config.env}_{config.agent}_{datetime.now():%Y%m%d-%H%M%S}_seed{config.seed}"
    execute(Run(run_dir or Path("runs") / file_name(name), config, console))


@app.command
def resume(run: Annotated[Path, tyro.conf.Positional], repair: bool = False) -> None:
    """Goes on with a run that was stopped or killed.

    Args:
        run: the run's folder.
        repair: of a damaged record, keep the sound trials and evaluate the others again.
    """
    execute(Run(run, console=console, repair=repair))


def execute(run: Run) -> None:
    """Executes a run, and shows what came of it; interrupted, it says how to go on."""
    console.print(f"run folder: {run.folder}", highlight=False)
    try:
        record = run.execute()
    except Interrupted:
        console.print(f"saved; go on with: nas-gym resume {run.folder}", highlight=False)
        sys.exit(130)
    except KeyboardInterrupt:  # asked twice
        console.print(f"stopped at once; go on with: nas-gym resume {run.folder}", highlight=False)
        sys.exit(130)
    from nas_gym.experiments.run.comparison_result import HEADINGS

    best, comparison = record["best"], run.comparison
    title = f"Found in trial {best['trial']}, with validation accuracy {best['accuracy']:.4f} in the search"
    if comparison is None:
        console.print(title, highlight=False)
        return
    table = make_table(title, *HEADINGS)
    for row in comparison.table():
        table.add_row(*row)
    console.print(table)
    for role, text in (("random", "found - random"), ("reference", "found - best network made by hand")):
        if (difference := comparison.difference(role)) is not None:
            console.print(f"{text}: {difference}", highlight=False)
    console.print(comparison.conclusion, highlight=False)
