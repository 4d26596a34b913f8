"""`nas-gym store`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml

from nas_gym.experiments.cli.app import Answer, app, console, make_table, told

stores = tyro.extras.SubcommandApp()
app.command(stores, name="store", help="Shows stores of evaluations.")


@stores.command(name="info")
def store_info(store: Annotated[Path, tyro.conf.Positional]) -> Answer:
    """Tells what a store of evaluations holds, evaluator by evaluator, with all settings that their results depend on.

    Args:
        store: the file.
    """
    found = _open_store(store)
    console.print(
        f"file: {found.path}, {found.path.stat().st_size:,} bytes, {len(found):,} evaluations", highlight=False
    )
    shown = make_table("Evaluators", "number", "evaluations", "failed", "space", "settings")
    for series in found.all_series():
        settings = yaml.safe_dump(series.fingerprint, sort_keys=False, width=80).strip()
        shown.add_row(
            str(series.number), f"{series.evaluations:,}", f"{series.failed:,}", series.space["name"], settings
        )
    console.print(shown)
    evaluators = [
        {"number": series.number, "evaluations": series.evaluations, "failed": series.failed}
        | {"space": series.space, "settings": series.fingerprint}
        for series in found.all_series()
    ]
    then = {told("store", "export", store, "--evaluator", evaluators[0]["number"]): "as CSV"} if evaluators else {}
    return Answer({"file": str(found.path), "evaluations": len(found), "evaluators": evaluators}, then)


@stores.command(name="export")
def store_export(
    store: Annotated[Path, tyro.conf.Positional], out: Path = Path("evaluations.csv"), evaluator: int | None = None
) -> Answer:
    """Writes the evaluations of one evaluator as a CSV file.

    Args:
        store: the file.
        out: the CSV file.
        evaluator: its number, as shown by `nas-gym store info`; may be left out where there is only one.
    """
    found = _open_store(store)
    numbers = [series.number for series in found.all_series()]
    if evaluator is None and len(numbers) == 1:
        (evaluator,) = numbers
    if evaluator not in numbers:
        raise ValueError(f"evaluator must be one of {', '.join(map(str, numbers)) or 'none'}; got {evaluator}")
    rows = found.export(evaluator, out)
    console.print(f"wrote {out}, {rows:,} evaluations", highlight=False)
    return Answer({"file": str(out), "evaluations": rows, "evaluator": evaluator}, {f"head {out}": "shows some"})


def _open_store(path: Path) -> Any:
    from nas_gym.evaluators import EvaluationStore

    if not path.exists():
        raise ValueError(f"there is no store {str(path)!r}")
    return EvaluationStore(path)
