"""`nas-gym show`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import tyro

from nas_gym.experiments.cli.app import Answer, app, console, told


@app.command
def show(what: Annotated[str, tyro.conf.Positional], space: str | None = None, out: Path | None = None) -> Answer:
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
    pictures = [str(path) for path in draw_architecture(architecture, stem)]
    console.print(*(f"wrote {path}" for path in pictures), sep="\n", highlight=False)
    facts = {"architecture": json.loads(architecture.to_json()), "text": str(architecture), "pictures": pictures}
    then = {f"open {pictures[-1]}": "the picture"}
    if is_run:
        then |= {told("report", what): "writes the page of the run"}
    return Answer(facts, then)


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
