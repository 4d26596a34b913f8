"""Builds a benchmark table: trains every architecture of a space from scratch, once per class and seed.

The work is split into shards of a hundred classes, in a random order, so that any part of it is a random sample. A line
is appended as soon as an architecture is done: a build that was killed continues where it stopped, on any machine that
has the shards, and loses only the architectures in training. On a CPU, each core has a process that trains one
architecture after another; accuracies depend only on the class and the seed, not on the number of processes or the
order. On CUDA, one process trains hundreds of architectures together, each with its own weights and random numbers;
rounding may then depend on which architectures are trained together.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nas_gym.evaluators.cost import count_flops, count_parameters
from nas_gym.evaluators.task_evaluator import choose_device
from nas_gym.evaluators.training import TrainingSettings, fit
from nas_gym.files import checksum, write_text
from nas_gym.locks import FolderLock
from nas_gym.networks import NetworkSettings, can_batch, make_network
from nas_gym.settings import check_known, field_names
from nas_gym.spaces import SearchSpace, Tokens, make_space
from nas_gym.tables.table import TaskTable, class_rows, save_table
from nas_gym.tasks import Task, make_task

SHARD = 100  # classes
TOGETHER = 400  # architectures trained together on CUDA, at most
PROGRESS_SECONDS = 5.0
SPLITS = ("valid", "test")


@dataclass(frozen=True)
class BuildSettings:
    """The task, networks and training of a table.

    The defaults are the best of eight proxies tried on Fashion-MNIST with 30 architectures of NAS-Bench-201, at 2 to
    2.5 seconds of one core per training. Over 1,000 classes, the validation accuracies of two seeds have a rank
    correlation of 0.66.

    Attributes:
        task: name of an image task.
        image_size: side in pixels to which images are resized; None keeps their size.
        train_images: number of training images; None takes all.
        score_images: number of images of the validation split, and of the test split, for scoring; None takes all.
        network: the macro architecture.
        training: the training of each network; accuracies are recorded after every epoch.
        task_seed: seed of the split into training and validation images.
        allow_duplicates: whether a folder of images may hold one of them in two splits.
    """

    task: str = "fashion-mnist"
    image_size: int | None = 12
    train_images: int | None = 2000
    score_images: int | None = 2000
    network: NetworkSettings = field(default_factory=lambda: NetworkSettings(channels=8))
    training: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(
            epochs=5, batch_size=50, learning_rate=0.03, augment=False, record=SPLITS
        )
    )
    task_seed: int = 0
    allow_duplicates: bool = False

    def make_task(self, data_dir: str | None = None) -> Task:
        """Makes the task with the images of these settings.

        Raises:
            FileNotFoundError: the data set does not exist.
        """
        task = make_task(
            self.task,
            seed=self.task_seed,
            data_dir=data_dir,
            image_size=self.image_size,
            train_limit=self.train_images,
            valid_limit=self.score_images,
            allow_duplicates=self.allow_duplicates,
        )
        scored = torch.arange(min(self.score_images or len(task.test), len(task.test)))
        return dataclasses.replace(task, test=task.test.take(scored))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BuildSettings:
        """Makes settings from the fields that differ from the defaults, nested as in `to_dict`.

        Raises:
            ValueError: a field is unknown, or a value is out of range.
        """
        settings: BuildSettings = _replaced(cls(), values)
        return settings

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON-serialisable values."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


def _replaced(settings: Any, values: Mapping[str, Any]) -> Any:
    check_known(values, field_names(type(settings)), type(settings).__name__, "field")
    nested = {
        name: _replaced(getattr(settings, name), value) if isinstance(value, Mapping) else value
        for name, value in values.items()
    }
    return dataclasses.replace(settings, **nested)


@dataclass(frozen=True)
class Shard:
    """A set of classes to be trained with one seed, and the file of their results."""

    path: Path
    seed: int
    classes: tuple[int, ...]

    def done(self, columns: Sequence[str]) -> dict[int, dict[str, float]]:
        """The results in the file, by class; lines that are incomplete or damaged do not count."""
        if not self.path.exists():
            return {}
        lines = [line.rpartition(",") for line in self.path.read_text(errors="replace").splitlines()]
        rows = [text.split(",") for text, _, found in lines if found == checksum(text)]
        return {int(row[0]): dict(zip(columns, map(float, row), strict=True)) for row in rows}


def columns(epochs: int) -> list[str]:
    """The columns of a shard's file."""
    curves = [f"{split}_{epoch}" for split in SPLITS for epoch in range(1, epochs + 1)]
    return ["class", *curves, "seconds", "parameters", "flops"]


def shards(folder: Path, num_classes: int, seed: int, limit: int | None = None) -> list[Shard]:
    """The shards of a seed: the classes in a random order that is the same for every seed.

    Args:
        folder: the folder of their files.
        num_classes: number of classes.
        seed: seed of the trainings.
        limit: take only the first classes of that order.
    """
    order = np.random.default_rng(0).permutation(num_classes)[:limit].tolist()
    return [
        Shard(folder / f"seed{seed}" / f"{first // SHARD:04d}.csv", seed, tuple(order[first : first + SHARD]))
        for first in range(0, len(order), SHARD)
    ]


def train_classes(
    space: SearchSpace, tokens: Tokens, task: Task, settings: BuildSettings, seeds: Sequence[int]
) -> tuple[list[dict[str, float]], int]:
    """Trains architectures together.

    Args:
        space: the search space.
        tokens: int64[K, T].
        task: the task, on the training device.
        settings: the settings of the table.
        seeds: the seed of each training.

    Returns:
        For each architecture its curves (NaN if it fails), seconds per epoch, parameters and flops; and the largest
        number of architectures trained together, as many as fit into memory.
    """
    networks = [
        make_network(space.architecture(row), task.input_shape, task.num_outputs, settings.network, seed)
        for row, seed in zip(tokens, seeds, strict=True)
    ]
    flops = [count_flops(network, task.input_shape) for network in networks]
    # A worker has one thread: its own time is what the training takes, whatever else the machine does.
    clock = time.thread_time if task.device.type == "cpu" else time.perf_counter
    curves = fit(networks, task, settings.training, seeds=seeds, clock=clock, batched=True)
    rows = []
    for network, curve, its_flops in zip(networks, curves, flops, strict=True):
        row = {"seconds": curve.seconds / settings.training.epochs}
        for split in SPLITS:
            accuracies = curve.accuracy.get(split, np.empty(0)).tolist()
            for epoch in range(settings.training.epochs):
                row[f"{split}_{epoch + 1}"] = accuracies[epoch] if epoch < len(accuracies) else float("nan")
        rows.append({**row, "parameters": float(count_parameters(network)), "flops": float(its_flops)})
    return rows, max(curve.together for curve in curves)


def build_shards(
    space: SearchSpace,
    representatives: Tokens,
    work: Sequence[Shard],
    settings: BuildSettings,
    task: Task,
    together: int = 1,
    on_written: Callable[[], None] | None = None,
) -> None:
    """Trains the classes of the shards that are not in their files yet.

    Args:
        space: the search space.
        representatives: int64[classes, T], one architecture per class.
        work: the shards.
        settings: the settings of the table.
        task: the task, on the training device.
        together: number of architectures trained together; reduced when memory does not suffice.
        on_written: called whenever results have been written.
    """
    names = columns(settings.training.epochs)
    missing = [(shard, number) for shard in work for number in _open(shard, names)]
    while missing:
        group, missing = missing[:together], missing[together:]
        tokens = representatives[[number for _, number in group]]
        rows, together = train_classes(space, tokens, task, settings, [shard.seed for shard, _ in group])
        for (shard, number), row in zip(group, rows, strict=True):
            with shard.path.open("a") as file:
                file.write(_line({"class": number, **row}, names))
        if on_written is not None:
            on_written()


def _open(shard: Shard, names: Sequence[str]) -> list[int]:
    """Prepares a shard's file for appending; returns the classes that it lacks."""
    done = shard.done(names)
    shard.path.parent.mkdir(parents=True, exist_ok=True)
    # Rewritten without an incomplete last line, so that the next line starts on a new line.
    write_text(
        shard.path, "".join([",".join([*names, "checksum"]) + "\n", *(_line(row, names) for row in done.values())])
    )
    return [number for number in shard.classes if number not in done]


def _line(row: Mapping[str, float], names: Sequence[str]) -> str:
    whole = ("class", "parameters", "flops")
    text = ",".join(str(int(row[name])) if name in whole else f"{row[name]:.6g}" for name in names)
    return f"{text},{checksum(text)}\n"


_worker: dict[str, Any] = {}


def _start_worker(space: SearchSpace, representatives: Tokens, settings: BuildSettings, data_dir: str | None) -> None:
    torch.set_num_threads(1)
    _worker.update(space=space, representatives=representatives, settings=settings, task=settings.make_task(data_dir))


def _work(shard: Shard) -> None:
    build_shards(work=[shard], **_worker)


def build(
    space: SearchSpace | str,
    out: Path,
    settings: BuildSettings,
    *,
    seeds: Mapping[int, int | None],
    folder: Path | None = None,
    workers: int | None = None,
    data_dir: str | None = None,
    device: str = "auto",
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Runs the missing trainings and writes the table.

    Args:
        space: the search space; it must be small enough to enumerate.
        out: the table's file.
        settings: the settings of the table.
        seeds: for each seed, the number of classes, the first of a random order; None takes all.
        folder: the folder of the shards; by default next to the table.
        workers: number of processes on a CPU, with one thread each; by default one per core.
        data_dir: the folder of the data set.
        device: ``"auto"`` takes CUDA if available.
        on_progress: called with the number of finished trainings and of all trainings: every few seconds, or on CUDA
            whenever there are results.

    Returns:
        The table's path.

    Raises:
        FolderLockedError: another process is building in the folder.
        ValueError: the folder holds shards that were made with other settings, or the device is not available.
    """
    chosen = choose_device(device)
    space = make_space(space)
    folder = folder or out.with_suffix(".shards")
    with FolderLock(folder):
        _check_settings(folder, space, settings)
        _build(space, out, settings, seeds, folder, workers, data_dir, chosen, on_progress)
    return out


def _build(
    space: SearchSpace,
    out: Path,
    settings: BuildSettings,
    seeds: Mapping[int, int | None],
    folder: Path,
    workers: int | None,
    data_dir: str | None,
    chosen: torch.device,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    rows, representatives = class_rows(space)
    work = [shard for seed, limit in seeds.items() for shard in shards(folder, len(representatives), seed, limit)]
    names = columns(settings.training.epochs)
    missing = [shard for shard in work if set(shard.classes) - set(shard.done(names))]

    def report() -> None:
        if on_progress is not None:
            done = sum(len(shard.done(names)) for shard in work)
            on_progress(done, sum(len(shard.classes) for shard in work))

    if chosen.type == "cpu":
        _build_in_processes(missing, (space, representatives, settings, data_dir), workers, report)
    else:
        task = settings.make_task(data_dir).to(chosen)
        probe = make_network(
            space.architecture(representatives[0]), task.input_shape, task.num_outputs, settings.network
        )
        build_shards(
            space, representatives, missing, settings, task, TOGETHER if can_batch([probe]) else 1, on_written=report
        )
    assemble(out, space, rows, settings, work)


def _build_in_processes(
    missing: Sequence[Shard], initial: tuple[Any, ...], workers: int | None, report: Callable[[], None]
) -> None:
    # Torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=initial) as pool:
        running = {pool.submit(_work, shard) for shard in missing}
        while running:
            finished, running = wait(running, timeout=PROGRESS_SECONDS)
            for future in finished:
                future.result()
            report()


def assemble(
    out: Path, space: SearchSpace, rows: NDArray[np.int32], settings: BuildSettings, work: Sequence[Shard]
) -> None:
    """Writes the table from the files of the shards; missing trainings are NaN."""
    epochs = settings.training.epochs
    seeds = sorted({shard.seed for shard in work})
    num_rows = int(rows.max()) + 1
    curves = {split: np.full((num_rows, len(seeds), epochs), np.nan, dtype=np.float32) for split in SPLITS}
    seconds = np.full((num_rows, len(seeds)), np.nan, dtype=np.float32)
    costs = {name: np.zeros(num_rows, dtype=np.int64) for name in ("parameters", "flops")}
    for shard in work:
        column = seeds.index(shard.seed)
        for number, row in shard.done(columns(epochs)).items():
            for split in SPLITS:
                curves[split][number, column] = [row[f"{split}_{epoch}"] for epoch in range(1, epochs + 1)]
            seconds[number, column] = row["seconds"]
            for name, array in costs.items():
                array[number] = int(row[name])
    table = TaskTable(**curves, epochs=tuple(range(1, epochs + 1)), seconds=seconds, **costs)
    provenance = {
        "made by": "nas-gym table build",
        "settings": settings.to_dict(),
        "seeds": seeds,
        "licence": "MIT; the images are those of the task's own licence",
    }
    save_table(out, space, rows, {settings.task: table}, provenance)


def _check_settings(folder: Path, space: SearchSpace, settings: BuildSettings) -> None:
    """Stores the settings with the shards, so that results of different settings are never mixed in one table."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "settings.json"
    wanted = {"space": space.to_dict(), **settings.to_dict()}
    text = json.dumps(wanted, indent=2) + "\n"
    if not path.exists():
        write_text(path, text)
    elif {**BuildSettings().to_dict(), **json.loads(path.read_text())} != json.loads(text):  # new fields have defaults
        raise ValueError(f"{str(folder)!r} holds shards made with other settings, see {path.name}; give another folder")
