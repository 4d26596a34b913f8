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
    """Searches, then retrains the best architecture found and a random one and reports their test accuracies.

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
    table = make_table("Result", "", "trial", "validation accuracy in search", "test accuracy", "parameters")
    for role, row in record.items():
        trained = row.get("retrained") or row.get("table") or {}
        test = trained.get("test_accuracy")
        shown = "-" if test is None else f"{test:.4f}"
        trial, accuracy = (
            "-" if row[key] is None else format(row[key], form) for key, form in (("trial", "d"), ("accuracy", ".4f"))
        )
        table.add_row(role, trial, accuracy, shown, str(trained.get("parameters", "-")))
    console.print(table)
