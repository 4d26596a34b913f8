"""`nas-gym derive`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro

from nas_gym.experiments.cli.app import Answer, Pairs, app, console, make_table, stopped, told
from nas_gym.experiments.run import Interrupted
from nas_gym.experiments.run.pairs import parse_pairs


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
) -> Answer:
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
    from nas_gym.experiments.derive.derivation import Derivation, DeriveConfig
    from nas_gym.experiments.intervals import MeanInterval

    config = DeriveConfig(top=top, seeds=seeds, task=task, settings=parse_pairs(settings))
    derivation = Derivation(run, config, out=out, device=device, data_dir=data_dir, download=download, console=console)
    try:
        record = derivation.execute()
    except (Interrupted, KeyboardInterrupt) as error:  # the second is of who has asked twice
        console.print("saved" if isinstance(error, Interrupted) else "stopped at once", highlight=False)
        return stopped(told(*sys.argv[1:]), folder=str(derivation.out))
    table = make_table("Derived", "", "trial", "in the search", "validation accuracy", "test accuracy", "parameters")
    for number, row in enumerate(record["architectures"]):
        accuracies = (str(MeanInterval(**row[split])) for split in ("valid", "test"))
        role = "winner" if number == record["winner"] else ""
        table.add_row(role, str(row["trial"]), f"{row['search_accuracy']:.4f}", *accuracies, f"{row['parameters']:,}")
    console.print(table)
    console.print(f"wrote {derivation.out / 'network.pt2'}", highlight=False)
    then = {
        f'python -c "import torch; torch.export.load({str(derivation.out / "network.pt2")!r})"': "loads the network"
    }
    then |= {f"open {derivation.out / 'model_card.md'}": "how it was trained, and how to use it"}
    return Answer({"folder": str(derivation.out), **record}, then)
