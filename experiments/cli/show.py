"""`nas-gym list` and `nas-gym show`."""

from __future__ import annotations

import ast
import importlib.util
import os
from pathlib import Path
from typing import Annotated, Any

import tyro

from nas_gym.experiments.cli.app import app, console, make_table


@app.command(name="list")
def list_() -> None:
    """Lists environments, agents, evaluators, spaces and tasks, those of installed packages included."""
    from nas_gym.agents.registry import AGENTS
    from nas_gym.envs.multitask import base_arguments
    from nas_gym.evaluators import EVALUATORS
    from nas_gym.predictors import PREDICTORS
    from nas_gym.registration import ENVIRONMENTS, environment_specs
    from nas_gym.spaces import PRESETS, make_space
    from nas_gym.tasks.names import TASKS

    environments = make_table("Environments", "id", "decisions", "architectures", "evaluator", "task", "what is built")
    descriptions = {spec.id: spec.description for spec in ENVIRONMENTS}
    for spec in environment_specs():
        base = base_arguments(spec.kwargs["base"]) if "base" in spec.kwargs else {}
        arguments: dict[str, Any] = {"evaluator": "shared-weights", "task": None, **base, **spec.kwargs}
        space = make_space(arguments["space"])
        sizes = str(space.length), _count(space.size)
        words = str(arguments["evaluator"]), arguments["task"] or "-", descriptions.get(spec.id, "-")
        environments.add_row(spec.id, *sizes, *words)
    classes = []
    for title, registry in (("Agents", AGENTS), ("Evaluators", EVALUATORS), ("Predictors", PREDICTORS)):
        classes.append(make_table(title, "name", "what it does"))
        for name in registry:
            classes[-1].add_row(name, _summary(registry.place(name)))
    spaces = make_table("Spaces", "name", "decisions", "choices at most", "architectures")
    for name, space in PRESETS.items():
        spaces.add_row(name, str(space.length), str(space.num_choices), _count(space.size))
    tasks = make_table("Tasks", "name", "what it is")
    for name, description in TASKS.items():
        tasks.add_row(name, description or "-")
    for table in (environments, *classes, spaces, tasks):
        console.print(table)


def _summary(place: Any) -> str:
    """The first line of a class's docstring, read from the source of its module: importing an agent brings torch."""
    if not isinstance(place, str):
        return (place.__doc__ or "").strip().partition("\n")[0] or "-"
    module, _, name = place.partition(":")
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:
        spec = None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return "-"
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    found = (ast.get_docstring(node) for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    return (next(found, None) or "-").partition("\n")[0]


@app.command
def show(what: Annotated[str, tyro.conf.Positional], space: str | None = None, out: Path | None = None) -> None:
    """Draws an architecture as PNG and SVG, and prints it.

    Args:
        what: a run's folder; a file with an architecture's JSON; or its text, as best.json and `--space` have it.
        space: the space of an architecture given as text, such as cell:darts or bench201.
        out: the pictures' path without suffix; architecture in the run's folder, or here, by default.
    """
    from nas_gym.envs.rendering import to_text
    from nas_gym.experiments.run.results import draw_architecture
    from nas_gym.experiments.run.run import load_best

    is_run = os.path.isdir(what)  # unlike Path.is_dir, it takes text too long for a path
    architecture = load_best(Path(what)) if is_run else _read_architecture(what, space)
    stem = out or (Path(what) if is_run else Path()) / "architecture"
    console.print(to_text(architecture), highlight=False, markup=False)
    for path in draw_architecture(architecture, stem):
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


def _count(size: int) -> str:
    return f"{size:,}" if size < 10**9 else f"{size:.2e}"
