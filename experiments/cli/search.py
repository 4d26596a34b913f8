"""`nas-gym train` and `nas-gym resume`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import tyro

from nas_gym.experiments.cli.app import Answer, app, console, make_table, stopped, told
from nas_gym.experiments.run import Interrupted, Run, RunConfig
from nas_gym.experiments.run.pairs import pairs, parse_pairs
from nas_gym.files import file_name

PAIRS = tyro.constructors.PrimitiveConstructorSpec(
    nargs="*",
    metavar="KEY:VALUE ...",
    instance_from_str=parse_pairs,
    is_instance=lambda value: isinstance(value, dict),
    str_from_instance=pairs,
)


@dataclass(frozen=True)
class RunOptions(RunConfig):
    """A run's configuration as the command line gives it: mappings are pairs, under shorter names."""

    env_kwargs: Annotated[dict[str, Any], PAIRS, tyro.conf.arg(name="env-params")] = field(default_factory=dict)
    hyperparameters: Annotated[dict[str, Any], PAIRS, tyro.conf.arg(name="params")] = field(default_factory=dict)


@app.command
def train(options: Annotated[RunOptions, tyro.conf.arg(name="")], run_dir: Path | None = None) -> Answer:
    """Searches, then compares what was found with random architectures and networks made by hand, on test images.

    Args:
        options: what to do.
        run_dir: the run's folder; a new one under runs/ by default.
    """
    config = RunConfig(**vars(options))
    name = f"{config.env}_{config.agent}_{datetime.now():%Y%m%d-%H%M%S}_seed{config.seed}"
    return execute(Run(run_dir or Path("runs") / file_name(name), config, console))


@app.command
def resume(run: Annotated[Path, tyro.conf.Positional], repair: bool = False) -> Answer:
    """Goes on with a run that was stopped or killed.

    Args:
        run: the run's folder.
        repair: of a damaged record, keep the sound trials and evaluate the others again.
    """
    return execute(Run(run, console=console, repair=repair))


def execute(run: Run) -> Answer:
    """Executes a run, and shows what came of it; interrupted, it says how to go on."""
    console.print(f"run folder: {run.folder}", highlight=False)
    try:
        record = run.execute()
    except (Interrupted, KeyboardInterrupt) as error:  # the second is of who has asked twice
        console.print("saved" if isinstance(error, Interrupted) else "stopped at once", highlight=False)
        return stopped(told("resume", run.folder), folder=str(run.folder))
    from nas_gym.experiments.report.run_report import write_run_report

    _show(run, record["best"])
    page, _ = write_run_report(run.folder)
    console.print(f"wrote {page}", highlight=False)
    then = {
        f"open {page}": "the search, to explore in a browser",
        told("show", run.folder): "draws the best architecture",
        f"tensorboard --logdir {run.folder}": "curves of the search",
    }
    if run.config.trains:
        then[told("derive", run.folder)] = "trains the best architectures in full, and exports the winner"
    return Answer({"folder": str(run.folder), "report": str(page), **record}, then)


def _show(run: Run, best: dict[str, float]) -> None:
    """Shows the found architecture and its comparison with others."""
    from nas_gym.experiments.run.comparison_result import HEADINGS

    comparison = run.comparison
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
