"""The `nas-gym` command."""

from __future__ import annotations

import os

# Threads that wait by spinning make small networks up to twenty times slower when anything else runs on the machine.
# OpenMP reads this when it is loaded, so it stands before everything else.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import ast
import importlib.util
import logging
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
    )
    folder = run_dir or Path("runs") / f"{env}_{agent}_{datetime.now():%Y%m%d-%H%M%S}_seed{seed}"
    _execute(Run(folder, config, console))


@app.command
def resume(run: Annotated[Path, tyro.conf.Positional]) -> None:
    """Goes on with a run that was stopped or killed.

    Args:
        run: the run's folder.
    """
    from .runs import Run

    _execute(Run(run, console=console))


@app.command(name="list")
def list_() -> None:
    """Lists environments, agents, spaces and tasks."""
    import gymnasium as gym

    from nas_gym.registration import ENVIRONMENTS
    from nas_gym.spaces import PRESETS, make_space
    from nas_gym.tasks.names import TASKS

    from .agent import AGENTS

    environments = _table("Environments", "id", "decisions", "architectures", "evaluator", "task", "what is built")
    for spec in ENVIRONMENTS:
        kwargs: dict[str, Any] = gym.spec(spec.id).kwargs
        space = make_space(kwargs["space"])
        sizes = str(space.length), _count(space.size)
        environments.add_row(spec.id, *sizes, kwargs["evaluator"], kwargs["task"], spec.description)
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


def _execute(run: Any) -> None:
    from .runs import Interrupted

    console.print(f"run folder: {run.folder}", highlight=False)
    try:
        record = run.execute()
    except Interrupted:
        console.print(f"saved; go on with: nas-gym resume {run.folder}", highlight=False)
        sys.exit(130)
    table = _table("Result", "", "trial", "validation accuracy in search", "test accuracy retrained", "parameters")
    for role, row in record.items():
        retrained = row.get("retrained", {})
        test = retrained.get("test_accuracy")
        shown = "-" if test is None else f"{test:.4f}"
        table.add_row(role, str(row["trial"]), f"{row['accuracy']:.4f}", shown, str(retrained.get("parameters", "-")))
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
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _count(size: int) -> str:
    return f"{size:,}" if size < 10**9 else f"{size:.2e}"


def main() -> None:
    """Runs the command; bad input ends it with one line."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=console)])
    try:
        app.cli(prog="nas-gym", description="Neural architecture search with Gymnasium environments.")
    except (ValueError, OSError) as error:
        console.print(f"nas-gym: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
