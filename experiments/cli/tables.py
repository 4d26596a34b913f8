"""`nas-gym table`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import tyro

from nas_gym.experiments.cli.app import Answer, Pairs, app, console, make_table, told
from nas_gym.experiments.run.pairs import parse_pairs
from nas_gym.experiments.run.progress import counting

tables = tyro.extras.SubcommandApp()
importers = tyro.extras.SubcommandApp()
app.command(tables, name="table", help="Shows benchmark tables, and makes them.")
tables.command(importers, name="import", help="Makes a table of other people's benchmarks.")


@tables.command
def info(table: Annotated[str, tyro.conf.Positional], task: str | None = None) -> Answer:
    """Tells what a benchmark table holds and where it comes from, and compares its checksums.

    Args:
        table: name or path.
        task: where a name stands for tables of several spaces (nas-bench-graph), a task of the one meant.
    """
    from nas_gym.evaluators.tabular import TabularEvaluator
    from nas_gym.tables import open_table

    opened = open_table(table, task)
    opened.verify()
    console.print(f"file: {opened.path}, {opened.path.stat().st_size:,} bytes, all checksums match", highlight=False)
    facts = {"space": str(opened.space), "rows": f"{opened.num_rows:,} for {opened.space.size:,} architectures"}
    for name, fact in {**facts, **opened.provenance}.items():
        console.print(f"{name}: {fact}", highlight=False, markup=False)
    columns = ("task", "trainings", "epochs", "validation: mean", "best", "test: mean", "best", "also")
    shown = make_table("Tasks", *columns)
    tasks: dict[str, Any] = {}
    for name in opened.tasks:
        evaluator = TabularEvaluator(opened.space, table=opened, task=name)
        arrays = opened.task(name).arrays
        known = {split: evaluator.reference(split)[:2] for split in ("valid", "test") if split in arrays}
        accuracies = [f"{value:.4f}" for pair in known.values() for value in pair] + ["-", "-"] * ("test" not in known)
        recorded = opened.epochs[name]
        epochs = f"{recorded[0]} to {recorded[-1]}" if len(recorded) > 1 else str(*recorded) or "-"
        also = ", ".join(key for key in arrays if key not in ("valid", "test"))
        shown.add_row(name, str(arrays["valid"].shape[1]), epochs, *accuracies, also)
        tasks[name] = {
            "trainings": arrays["valid"].shape[1],
            "epochs": recorded,
            "accuracy": {split: {"mean": mean, "best": best} for split, (mean, best) in known.items()},
            "also": [key for key in arrays if key not in known],
        }
    console.print(shown)
    then = {told("benchmark", "--table", table): "compares agents on it"}
    return Answer({"file": str(opened.path), **facts, **opened.provenance, "tasks": tasks}, then)


@importers.command
def csv(
    file: Annotated[Path, tyro.conf.Positional],
    space: str,
    out: Path | None = None,
    architecture: tuple[str, ...] = ("architecture",),
    tasks: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK:QUANTITY[@EPOCHS]=COLUMN,... ...")] = (),
    percent: bool = False,
    epochs: int | None = None,
    partial: bool = False,
    licence: str = "unknown",
) -> Answer:
    """Makes a table of a CSV file with a header and a line for each architecture of a space.

    For example: nas-gym table import csv accuracies.csv --space bench201 --percent. Learning curves have a column for
    each number of epochs: --tasks cifar10:valid@4=early,valid@12=late,test@12=test

    Args:
        file: the CSV file.
        space: name of the space, such as bench201, or where to import it from, module:NAME.
        out: the table; the file's name with the suffix .npz, here, by default.
        architecture: the column with the architecture's text, or a column for each decision.
        tasks: tasks and their columns, such as cifar10:valid=first,test=second; quantities are valid, test, seconds (of
            an epoch), validation_seconds, parameters, flops, latency. All columns TASK_QUANTITY by default.
        percent: accuracies are in percent, from 0 to 100, not fractions of 1.
        epochs: after which the accuracies in columns without @EPOCHS were measured, if known.
        partial: architectures may be missing.
        licence: of the data.
    """
    from nas_gym.tables.importers import import_csv

    table = import_csv(
        file,
        out or Path(f"{file.stem}.npz"),
        space,
        architecture=architecture,
        tasks=dict(map(_task_columns, tasks)),
        percent=percent,
        epochs=epochs,
        partial=partial,
        licence=licence,
    )
    return info(str(table.path))


def _task_columns(text: str) -> tuple[str, dict[str, Any]]:
    task, colon, given = text.partition(":")
    columns: dict[str, Any] = {}
    for pair in given.split(","):
        found = re.fullmatch(r"(\w+)(?:@(\d+))?=(.+)", pair)
        quantity, epochs, column = found.groups() if found else ("", None, "")
        before = columns.get(quantity, {})
        repeated = quantity in columns and (isinstance(before, str) or not epochs or int(epochs) in before)
        if not task or not colon or not found or repeated:
            raise ValueError(
                "expected TASK:QUANTITY=COLUMN,... with each quantity once, such as cifar10:valid=first,test=second, "
                f"or once for each number of epochs, such as cifar10:valid@4=early,valid@12=late; got {text!r}"
            )
        columns[quantity] = {**before, int(epochs): column} if epochs else column
    return task, columns


@importers.command
def nats_bench(folder: Annotated[Path, tyro.conf.Positional], out: Path | None = None, partial: bool = False) -> Answer:
    """Makes a table of an official folder of NATS-Bench, of its topology or of its size space.

    Args:
        folder: such as NATS-tss-v1_0-3ffb9-simple.
        out: the table; the folder's name with the suffix .npz, here, by default.
        partial: architectures may be missing.
    """
    from rich.progress import track

    from nas_gym.tables.nats_bench import import_nats_bench

    def progress(files: Any) -> Any:
        return track(files, "reading", console=console)

    table = import_nats_bench(folder, out or Path(f"{folder.name}.npz"), partial=partial, track=progress)
    return info(str(table.path))


@tables.command
def build(
    out: Path,
    space: str = "bench201",
    task: str = "fashion-mnist",
    seeds: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SEED[:CLASSES] ...")] = ("0",),
    settings: Pairs = (),
    shards: Path | None = None,
    workers: int | None = None,
    data_dir: str | None = None,
    device: str = "auto",
) -> Answer:
    """Makes a table by training every architecture of a space; killed at any moment, it goes on where it stood.

    Args:
        out: the table.
        space: name of the space.
        task: name of an image task.
        seeds: seeds of the trainings; 1:1000 trains 1,000 classes of architectures, drawn at random, with seed 1.
        settings: of the proxy, such as training.epochs:4 network.channels:8 image_size:14 train_images:2000.
        shards: the folder that collects results; next to the table by default.
        workers: processes on a CPU; one a core by default.
        data_dir: where data sets are looked for.
        device: auto takes CUDA, which trains hundreds of architectures together, if there is one.
    """
    from nas_gym.tables import builder

    wanted = builder.BuildSettings.from_dict({"task": task, **parse_pairs(settings)})
    with counting(console, "training") as tell:
        builder.build(
            space,
            out,
            wanted,
            seeds=dict(map(_seed_classes, seeds)),
            folder=shards,
            workers=workers,
            data_dir=data_dir,
            device=device,
            on_progress=tell,
        )
    return info(str(out))


def _seed_classes(text: str) -> tuple[int, int | None]:
    seed, colon, classes = text.partition(":")
    if not seed.isdecimal() or (colon and not classes.isdecimal()):
        raise ValueError(f"expected SEED or SEED:CLASSES, such as 1:1000; got {text!r}")
    return int(seed), int(classes) if colon else None
