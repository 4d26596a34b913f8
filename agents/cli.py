"""The `nas-gym` command."""

from __future__ import annotations

import os

# Threads that wait by spinning make small networks up to twenty times slower when anything else runs on the machine.
# OpenMP reads this when it is loaded, so it stands before everything else.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import ast
import importlib.util
import logging
import re
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

app = tyro.extras.SubcommandApp()
tables = tyro.extras.SubcommandApp()
stores = tyro.extras.SubcommandApp()
importers = tyro.extras.SubcommandApp()
console = Console()

Pairs = Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY:VALUE ...")]


@app.command
def train(
    env: str = "NAS-Cell-v0",
    agent: str = "reinforce",
    trials: int = 300,
    task: str | None = None,
    seed: int = 0,
    device: str = "auto",
    run_dir: Path | None = None,
    params: Pairs = (),
    env_params: Pairs = (),
    num_envs: int | None = None,
    data_dir: str | None = None,
    download: bool = False,
    retrain_epochs: int | None = None,
    simulated_seconds: float | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    worker_gpus: float | None = None,
    asynchronous: bool = False,
    store: Path | None = None,
) -> None:
    """Searches, then retrains the best architecture found beside a random one and reports their test accuracies.

    Args:
        env: id of an environment (see `nas-gym list`).
        agent: name of an agent.
        trials: architectures to try.
        task: name of a task; the environment's own by default.
        seed: of everything that is random.
        device: auto, cpu or cuda.
        run_dir: the run's folder; a new one under runs/ by default.
        params: hyperparameters of the agent, such as learning_rate:1e-3.
        env_params: arguments of the environment, such as schedule:enas or evaluator_kwargs.channels:16.
        num_envs: trials scored together; the agent's batch size by default.
        data_dir: where data sets are looked for.
        download: download a data set that is missing.
        retrain_epochs: passes over the data in retraining; 0 does not retrain.
        simulated_seconds: end the search when its trials would have taken so long, by the seconds that a table has of
            them (20000 in NAS-Bench-201's protocol), or after `trials` at the latest.
        workers: processes that evaluate, by Ray; for evaluators without shared weights.
        ray_address: of a Ray cluster whose machines the workers are on, such as auto; this machine by default.
        worker_gpus: GPUs of a worker, such as 0.25; without, it sees none.
        asynchronous: keep the workers busy: ask for the next architecture as soon as one has ended.
        store: a file that keeps every evaluation, for other runs too; what is in it is not evaluated again.
    """
    from .runs import Run, RunConfig

    config = RunConfig(
        env=env,
        agent=agent,
        trials=trials,
        task=task,
        seed=seed,
        device=device,
        data_dir=data_dir,
        download=download,
        num_envs=num_envs,
        env_kwargs=parse_pairs(env_params),
        hyperparameters=parse_pairs(params),
        retrain_epochs=retrain_epochs,
        simulated_seconds=simulated_seconds,
        workers=workers,
        ray_address=ray_address,
        worker_gpus=worker_gpus,
        asynchronous=asynchronous,
        store=None if store is None else str(store),
    )
    name = f"{env}_{agent.replace(':', '-')}_{datetime.now():%Y%m%d-%H%M%S}_seed{seed}"
    folder = run_dir or Path("runs") / name
    _execute(Run(folder, config, console))


@app.command
def pretrain(
    base: str = "NAS-BenchGraph-v0",
    tasks: tuple[str, ...] = ("cora", "citeseer", "pubmed", "cs", "photo", "computers", "arxiv"),
    trials: int = 300,
    seed: int = 0,
    device: str = "auto",
    run_dir: Path | None = None,
    params: Pairs = (),
    env_params: Pairs = (),
) -> None:
    """Teaches one controller many tasks at once, for `nas-gym transfer`; the same command goes on with the run.

    The run's folder gets agent.pt, and a picture of the learned embeddings of the tasks.

    Args:
        base: id of the environment of each task.
        tasks: names of tasks, which share one search space.
        trials: architectures to try on each task.
        seed: of everything that is random.
        device: auto, cpu or cuda.
        run_dir: the run's folder; runs/pretrained by default.
        params: hyperparameters of the agent multitask.
        env_params: arguments of the environment, such as table:nb201.npz.
    """
    from .agent import load_hyperparameters
    from .runs import Run, RunConfig, read_config
    from .transfer import MULTI_TASK
    from .transfer_report import draw_tasks

    hyperparameters = parse_pairs(params)
    batch = load_hyperparameters("multitask", MULTI_TASK, hyperparameters).batch_size
    config = RunConfig(
        env=MULTI_TASK,
        agent="multitask",
        trials=trials * len(tasks),
        seed=seed,
        device=device,
        num_envs=batch * len(tasks),
        env_kwargs={"base": base, "tasks": list(tasks), **parse_pairs(env_params)},
        hyperparameters=hyperparameters,
        retrain_epochs=0,
    )
    folder = run_dir or Path("runs") / "pretrained"
    begun = (folder / "config.yaml").exists()
    if begun and read_config(folder) != config:
        raise ValueError(f"{str(folder)!r} holds a run of other settings; give another --run-dir")
    run = Run(folder, None if begun else config, console)
    _execute(run)
    run.agent.save(folder / "agent.pt")
    draw_tasks(run.agent, run.env.evaluators, folder)  # type: ignore[arg-type]
    console.print(f"wrote {folder / 'agent.pt'}", highlight=False)


@app.command
def transfer(
    pretrained: Annotated[Path, tyro.conf.Positional],
    task: str,
    trials: int = 150,
    mode: str = "all",
    seed: int = 0,
    run_dir: Path | None = None,
    params: Pairs = (),
) -> None:
    """Goes on to a new task with a controller that `nas-gym pretrain` has taught; a run as that of `nas-gym train`.

    Args:
        pretrained: the folder of the pretraining.
        task: the new task.
        trials: architectures to try.
        mode: what is learned: all, embedding (the task's alone), or scratch (for comparison).
        seed: of everything that is random.
        run_dir: the run's folder; a new one under runs/ by default.
        params: hyperparameters of the agent multitask that differ.
    """
    from nas_gym.files import file_name

    from .runs import Run, RunConfig, read_config

    before = read_config(pretrained)
    saved = pretrained / "agent.pt"
    if not saved.exists():
        raise ValueError(f"{str(pretrained)!r} holds no agent.pt; `nas-gym pretrain` writes it")
    arguments = {key: value for key, value in before.env_kwargs.items() if key not in ("base", "tasks", "weights")}
    config = RunConfig(
        env=before.env_kwargs["base"],
        agent="multitask",
        trials=trials,
        task=task,
        seed=seed,
        device=before.device,
        data_dir=before.data_dir,
        env_kwargs=arguments,
        hyperparameters={**parse_pairs(params), "pretrained": str(saved.resolve()), "mode": mode},
    )
    name = f"transfer_{file_name(task)}_{datetime.now():%Y%m%d-%H%M%S}_seed{seed}"
    _execute(Run(run_dir or Path("runs") / name, config, console))


@app.command
def resume(run: Annotated[Path, tyro.conf.Positional]) -> None:
    """Goes on with a run that was stopped or killed.

    Args:
        run: the run's folder.
    """
    from .runs import Run

    _execute(Run(run, console=console))


@app.command
def derive(
    run: Annotated[Path, tyro.conf.Positional],
    top: int = 3,
    seeds: tuple[int, ...] = (0, 1, 2),
    task: str | None = None,
    settings: Pairs = (),
    out: Path | None = None,
    device: str = "auto",
    data_dir: str | None = None,
    download: bool = False,
) -> None:
    """Trains a run's best architectures from scratch at full budget, and exports the winner; killed, it goes on.

    Args:
        run: the run's folder.
        top: how many architectures, the best that compute different things.
        seeds: of the trainings of each.
        task: name of the task; the run's by default.
        settings: of the training, such as training.epochs:100 network.channels:36 cutout:8 training.drop_path:0.2.
        out: where the results go; derived/ in the run's folder by default.
        device: auto, cpu or cuda.
        data_dir: where data sets are looked for.
        download: download a data set that is missing.
    """
    from .derive import Derivation, DeriveConfig, MeanInterval

    config = DeriveConfig(top=top, seeds=seeds, task=task, settings=parse_pairs(settings))
    derivation = Derivation(run, config, out=out, device=device, data_dir=data_dir, download=download, console=console)
    try:
        record = derivation.execute()
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on", highlight=False)
        sys.exit(130)
    table = _table("Derived", "", "trial", "in the search", "validation accuracy", "test accuracy", "parameters")
    for number, row in enumerate(record["architectures"]):
        accuracies = (str(MeanInterval(**row[split])) for split in ("valid", "test"))
        role = "winner" if number == record["winner"] else ""
        table.add_row(role, str(row["trial"]), f"{row['search_accuracy']:.4f}", *accuracies, f"{row['parameters']:,}")
    console.print(table)
    console.print(f"wrote {derivation.out / 'network.pt2'}", highlight=False)


@app.command(name="list")
def list_() -> None:
    """Lists environments, agents, spaces and tasks."""
    from nas_gym.registration import ENVIRONMENTS
    from nas_gym.spaces import PRESETS, make_space
    from nas_gym.tasks.names import TASKS

    from .agent import AGENTS

    environments = _table("Environments", "id", "decisions", "architectures", "evaluator", "task", "what is built")
    for spec in ENVIRONMENTS:
        space = make_space(spec.space)
        sizes = str(space.length), _count(space.size)
        environments.add_row(spec.id, *sizes, spec.evaluator, spec.task or "-", spec.description)
    agents = _table("Agents", "name", "what it does")
    for name in AGENTS:
        agents.add_row(name, _summary(AGENTS[name]))
    spaces = _table("Spaces", "name", "decisions", "choices at most", "architectures")
    for name, space in PRESETS.items():
        spaces.add_row(name, str(space.length), str(space.num_choices), _count(space.size))
    tasks = _table("Tasks", "name", "what it is")
    for name, description in TASKS.items():
        tasks.add_row(name, description)
    for table in (environments, agents, spaces, tasks):
        console.print(table)


def _summary(place: str) -> str:
    """The first line of a class's docstring, read from the source of its module: importing an agent brings torch."""
    module, _, name = place.partition(":")
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    (found,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    return (ast.get_docstring(found) or "").partition("\n")[0]


@app.command
def show(what: Annotated[str, tyro.conf.Positional], space: str | None = None, out: Path | None = None) -> None:
    """Draws an architecture as PNG and SVG, and prints it.

    Args:
        what: a run's folder; a file with an architecture's JSON; or its text, as best.json and `--space` have it.
        space: the space of an architecture given as text, such as cell:darts or bench201.
        out: the pictures' path without suffix; architecture in the run's folder, or here, by default.
    """
    from nas_gym.envs.rendering import to_text

    from .runs import load_best, save_pictures

    is_run = os.path.isdir(what)  # unlike Path.is_dir, it takes text too long for a path
    architecture = load_best(Path(what)) if is_run else _read_architecture(what, space)
    stem = out or (Path(what) if is_run else Path()) / "architecture"
    console.print(to_text(architecture), highlight=False, markup=False)
    for path in save_pictures(architecture, stem):
        console.print(f"wrote {path}", highlight=False)


def _read_architecture(what: str, space: str | None) -> Any:
    from nas_gym.spaces import Architecture, make_space

    if what.lstrip().startswith("{"):
        return Architecture.from_json(what)
    if what.endswith(".json"):
        path = Path(what)
        if not path.exists():
            raise ValueError(f"there is no file {what!r}")
        return Architecture.from_json(path.read_text())
    if space is None:
        raise ValueError(f"{what!r} is no run's folder and no JSON; an architecture as text needs --space")
    return make_space(space).parse(what)


@app.command
def benchmark(
    suite: str = "quick",
    agents: Annotated[tuple[str, ...], tyro.conf.arg(metavar="[LABEL=]NAME[@KEY:VALUE,...] ...")] = (),
    envs: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ID[:TASK] ...")] = (),
    table: str | None = None,
    seeds: int | None = None,
    trials: int | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    out: Path | None = None,
) -> None:
    """Compares agents on benchmark tables, many seeds each; killed at any moment, it goes on where it stood.

    The folder gets report.html, leaderboard.md, summary.json, results.csv, figures, and every run. For example:
    nas-gym benchmark --agents local-search small=regularized-evolution@population_size:10,sample_size:3

    Args:
        suite: quick (10 seeds), full (50 seeds), or the path of a YAML file; the other options take precedence. Also
            transfer-graph and transfer-image, for which see docs/transfer.md, with seeds, trials, table and out.
        agents: with hyperparameters after an @, or a YAML file of them; all agents by default. Random search is added.
        envs: environments that are looked up in tables, such as NAS-BenchGraph-v0:cora; all of them, with all tasks, by
            default.
        table: path or name of a table, for the environments whose space it has.
        seeds: runs of each agent in each environment.
        trials: architectures a run.
        workers: processes; one a core by default.
        ray_address: of a Ray cluster that does the runs, such as auto, in place of processes here.
        out: the folder; runs/benchmark-SUITE by default.
    """
    from rich.progress import MofNCompleteColumn, Progress

    from .benchmark import make_suite, read_traces, run_benchmark
    from .leaderboard import footnotes, headline, leaderboard
    from .report import write_report
    from .transfer import make_transfer_suite

    transfer_suite = make_transfer_suite(suite, table=table, seeds=seeds, trials=trials)
    if transfer_suite is not None:
        _transfer_benchmark(transfer_suite, out or Path("runs") / f"benchmark-{Path(suite).stem}")
        return
    given = {"agents": [_agent_entry(text) for text in agents], "environments": envs}
    wanted = make_suite(
        suite, table=table, seeds=seeds, trials=trials, **{key: value for key, value in given.items() if value}
    )
    folder = out or Path("runs") / f"benchmark-{Path(suite).stem}"
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console) as progress:
        bar = progress.add_task("runs", total=None)
        try:
            problems = run_benchmark(
                wanted,
                folder,
                workers,
                lambda done, total: progress.update(bar, completed=done, total=total),
                ray_address,
            )
        except KeyboardInterrupt:
            console.print("stopped; the same command goes on", highlight=False)
            sys.exit(130)
    failed = [problem for problem in problems if problem.traceback]
    for problem in failed:
        console.print(f"failed: {problem.folder}: {problem.reason}", style="red", highlight=False, markup=False)
    summary = write_report(wanted, read_traces(wanted, folder), problems, folder)
    title, sentences = headline(summary)
    header, rows = leaderboard(summary)
    columns = [header.index(name) for name in ("rank", "agent", "score", "beats random", "test score")]
    shown = _table(title, *(header[column] for column in columns))
    for row in rows:
        shown.add_row(*(row[column] for column in columns))
    console.print(shown)
    console.print(*filter(None, sentences), *footnotes(summary), sep="\n", highlight=False, markup=False)
    console.print(f"wrote {folder / 'report.html'}", highlight=False)
    sys.exit(1 if failed else 0)


def _transfer_benchmark(suite: Any, folder: Path) -> None:
    from rich.progress import MofNCompleteColumn, Progress

    from .transfer import run_transfer
    from .transfer_report import verdict, write_transfer_report

    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console) as progress:
        bar = progress.add_task("searches", total=None)
        try:
            found = run_transfer(suite, folder, lambda done, total: progress.update(bar, completed=done, total=total))
        except KeyboardInterrupt:
            console.print("stopped; the same command goes on", highlight=False)
            sys.exit(130)
    rows = write_transfer_report(suite, found, folder)
    console.print(*verdict(suite, rows), sep="\n", highlight=False, markup=False)
    console.print(f"wrote {folder / 'transfer.md'}", highlight=False)


def _agent_entry(text: str) -> dict[str, Any]:
    """Reads ``[LABEL=]NAME[@KEY:VALUE,...]`` or ``[LABEL=]NAME[@FILE.yaml]``."""
    from .benchmark import read_mapping

    before, at, settings = text.partition("@")
    label, equals, name = before.rpartition("=")
    if (equals and not label) or (at and not settings):
        raise ValueError(f"expected [LABEL=]NAME[@KEY:VALUE,...], such as random or small=random@x:1; got {text!r}")
    if settings.endswith((".yaml", ".yml")):
        path = Path(settings)
        return {"name": name, "hyperparameters": read_mapping(path), "label": label or f"{name} {path.stem}"}
    pairs = re.split(r",(?=[\w.]+:)", settings) if settings else []  # other commas are the values'
    return {"name": name, "hyperparameters": parse_pairs(tuple(pairs)), "label": label}


app.command(tables, name="table", help="Tells about benchmark tables, and makes them.")
tables.command(importers, name="import", help="Makes a table of others' benchmarks.")


@tables.command
def info(table: Annotated[str, tyro.conf.Positional], task: str | None = None) -> None:
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
    shown = _table("Tasks", *columns)
    for name in opened.tasks:
        evaluator = TabularEvaluator(opened.space, table=opened, task=name)
        arrays = opened.task(name).arrays
        accuracies = [f"{value:.4f}" for value in (evaluator.random, evaluator.optimum)]
        accuracies += [f"{value:.4f}" for value in evaluator.reference("test")[:2]] if "test" in arrays else ["-", "-"]
        recorded = opened.epochs[name]
        epochs = f"{recorded[0]} to {recorded[-1]}" if len(recorded) > 1 else str(*recorded) or "-"
        also = ", ".join(key for key in arrays if key not in ("valid", "test"))
        shown.add_row(name, str(arrays["valid"].shape[1]), epochs, *accuracies, also)
    console.print(shown)


@importers.command
def csv(
    file: Annotated[Path, tyro.conf.Positional],
    space: str,
    out: Path | None = None,
    architecture: tuple[str, ...] = ("architecture",),
    tasks: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK:QUANTITY=COLUMN,... ...")] = (),
    percent: bool = False,
    epochs: int | None = None,
    partial: bool = False,
    licence: str = "unknown",
) -> None:
    """Makes a table of a CSV file with a header and a line for each architecture of a space.

    For example: nas-gym table import csv accuracies.csv --space bench201 --percent

    Args:
        file: the CSV file.
        space: name of the space, such as bench201.
        out: the table; the file's name with the suffix .npz, here, by default.
        architecture: the column with the architecture's text, or a column for each decision.
        tasks: tasks and their columns, such as cifar10:valid=first,test=second; quantities are valid, test, seconds (of
            an epoch), validation_seconds, parameters, flops, latency. All columns TASK_QUANTITY by default.
        percent: accuracies are in percent.
        epochs: of training behind the accuracies, if known.
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
    info(str(table.path))


def _task_columns(text: str) -> tuple[str, dict[str, str]]:
    task, colon, columns = text.partition(":")
    pairs = [column.partition("=") for column in columns.split(",")]
    if not task or not colon or not all(quantity and equals and column for quantity, equals, column in pairs):
        raise ValueError(f"expected TASK:QUANTITY=COLUMN,..., such as cifar10:valid=first,test=second; got {text!r}")
    return task, {quantity: column for quantity, _, column in pairs}


@importers.command
def nats_bench(folder: Annotated[Path, tyro.conf.Positional], out: Path | None = None, partial: bool = False) -> None:
    """Makes a table of an official folder of NATS-Bench, of its topology or of its size space.

    Args:
        folder: such as NATS-tss-v1_0-3ffb9-simple.
        out: the table; the folder's name with the suffix .npz, here, by default.
        partial: architectures may be missing.
    """
    from rich.progress import track

    from nas_gym.tables.importers import import_nats_bench

    def progress(files: Any) -> Any:
        return track(files, "reading", console=console)

    table = import_nats_bench(folder, out or Path(f"{folder.name}.npz"), partial=partial, track=progress)
    info(str(table.path))


app.command(stores, name="store", help="Tells about stores of evaluations.")


@stores.command(name="info")
def store_info(store: Annotated[Path, tyro.conf.Positional]) -> None:
    """Tells what a store of evaluations holds, evaluator by evaluator, with all settings that their results depend on.

    Args:
        store: the file.
    """
    found = _open_store(store)
    console.print(
        f"file: {found.path}, {found.path.stat().st_size:,} bytes, {len(found):,} evaluations", highlight=False
    )
    shown = _table("Evaluators", "number", "evaluations", "failed", "space", "settings")
    for series in found.all_series():
        settings = yaml.safe_dump(series.fingerprint, sort_keys=False, width=80).strip()
        shown.add_row(
            str(series.number), f"{series.evaluations:,}", f"{series.failed:,}", series.space["name"], settings
        )
    console.print(shown)


@stores.command(name="export")
def store_export(
    store: Annotated[Path, tyro.conf.Positional], out: Path = Path("evaluations.csv"), evaluator: int | None = None
) -> None:
    """Writes the evaluations of one evaluator as a CSV file.

    Args:
        store: the file.
        out: the CSV file.
        evaluator: its number, as `nas-gym store info` tells it; may be left out where there is only one.
    """
    found = _open_store(store)
    numbers = [series.number for series in found.all_series()]
    if evaluator is None and len(numbers) == 1:
        (evaluator,) = numbers
    if evaluator not in numbers:
        raise ValueError(f"evaluator must be one of {', '.join(map(str, numbers)) or 'none'}; got {evaluator}")
    console.print(f"wrote {out}, {found.export(evaluator, out):,} evaluations", highlight=False)


def _open_store(path: Path) -> Any:
    from nas_gym.evaluators import EvaluationStore

    if not path.exists():
        raise ValueError(f"there is no store {str(path)!r}")
    return EvaluationStore(path)


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
) -> None:
    """Makes a table by training every architecture of a space; killed at any moment, it goes on where it stood.

    Args:
        out: the table.
        space: name of the space.
        task: name of an image task.
        seeds: seeds of the trainings; 1:1000 trains 1,000 classes of architectures, drawn at random, with seed 1.
        settings: of the proxy, such as training.epochs:4 network.channels:8 image_size:14 train_images:2000.
        shards: where results are collected; beside the table by default.
        workers: processes on a CPU; one a core by default.
        data_dir: where data sets are looked for.
        device: auto takes CUDA, which trains hundreds of architectures together, if there is one.
    """
    from rich.progress import MofNCompleteColumn, Progress

    from nas_gym.tables import builder

    wanted = builder.BuildSettings.from_dict({"task": task, **parse_pairs(settings)})
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console) as progress:
        bar = progress.add_task("training")
        builder.build(
            space,
            out,
            wanted,
            seeds=dict(map(_seed_classes, seeds)),
            folder=shards,
            workers=workers,
            data_dir=data_dir,
            device=device,
            on_progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    info(str(out))


def _seed_classes(text: str) -> tuple[int, int | None]:
    seed, colon, classes = text.partition(":")
    if not seed.isdecimal() or (colon and not classes.isdecimal()):
        raise ValueError(f"expected SEED or SEED:CLASSES, such as 1:1000; got {text!r}")
    return int(seed), int(classes) if colon else None


def _execute(run: Any) -> None:
    from .runs import Interrupted

    console.print(f"run folder: {run.folder}", highlight=False)
    try:
        record = run.execute()
    except Interrupted:
        console.print(f"saved; go on with: nas-gym resume {run.folder}", highlight=False)
        sys.exit(130)
    table = _table("Result", "", "trial", "validation accuracy in search", "test accuracy", "parameters")
    for role, row in record.items():
        trained = row.get("retrained") or row.get("table") or {}
        test = trained.get("test_accuracy")
        shown = "-" if test is None else f"{test:.4f}"
        table.add_row(role, str(row["trial"]), f"{row['accuracy']:.4f}", shown, str(trained.get("parameters", "-")))
    console.print(table)


def parse_pairs(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Reads ``key:value`` pairs; values as YAML has them, dots in keys nest.

    Raises:
        ValueError: a pair without a colon, or a key both with a value and with keys under it.
    """
    parsed: dict[str, Any] = {}
    for pair in pairs:
        key, colon, value = pair.partition(":")
        if not colon or not key:
            raise ValueError(f"expected key:value, got {pair!r}")
        *outer, last = key.split(".")
        inner = parsed
        for name in outer:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise ValueError(f"{pair!r} puts a key under a value given before")
        if isinstance(inner.get(last), dict):
            raise ValueError(f"{pair!r} gives a value to a key with keys under it")
        try:
            inner[last] = _number(yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise ValueError(f"{pair!r} has no value that YAML can read") from error
    return parsed


def _number(value: Any) -> Any:
    """YAML 1.1 takes 1e-3, without a dot, for text; people mean a number."""
    if isinstance(value, list):
        return [_number(item) for item in value]
    if isinstance(value, dict):
        return {key: _number(item) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == columns[0])
    return table


def _count(size: int) -> str:
    return f"{size:,}" if size < 10**9 else f"{size:.2e}"


def main() -> None:
    """Runs the command; bad input ends it with one line."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=console)])
    try:
        app.cli(prog="nas-gym", description="Neural architecture search with Gymnasium environments.")
    except (ValueError, OSError) as error:
        Console(stderr=True).print(f"nas-gym: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
