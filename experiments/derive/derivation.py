"""From a search to a usable network: the best architectures of a run, trained anew at full budget, the winner exported.

A search ranks architectures by a proxy. Here the best few are trained from scratch on the train split, with several
seeds each; the winner has the highest mean accuracy on the validation split. Only then, and once, the networks are
evaluated on the test split.

The folder holds config.yaml (the settings), two files for each finished training, and a checkpoint of the one that is
not finished, at most half a minute and an epoch old, so that the command can be resumed; at the end also derived.json,
model_card.md, and the winner: its weights as network.safetensors, and the whole program as network.pt2, which needs
only PyTorch to load and run.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from nas_gym.evaluators.cost import count_flops, count_parameters
from nas_gym.evaluators.from_scratch import FromScratchEvaluator, FromScratchSettings
from nas_gym.evaluators.resumable import Training
from nas_gym.evaluators.training import TrainingSettings, score
from nas_gym.experiments.derive.export import export
from nas_gym.experiments.intervals import MeanInterval
from nas_gym.experiments.run.config import RunConfig, read_config
from nas_gym.experiments.run.model_card import bullets, versions
from nas_gym.experiments.run.pairs import pairs
from nas_gym.experiments.run.progress import Interrupted, progress_bars, stop_on_signal
from nas_gym.experiments.run.results import draw_architecture
from nas_gym.experiments.run.trials import best_trials, read_trials
from nas_gym.experiments.run.weights import load_weights, save_weights
from nas_gym.files import load_tensors, read_json, save_tensors, write_json, write_text
from nas_gym.locks import FolderLock
from nas_gym.networks import NETWORKS, Network, NetworkSettings
from nas_gym.settings import check_seed
from nas_gym.spaces import Architecture, TransformationSpace
from nas_gym.tasks import ImageTask

if TYPE_CHECKING:
    from rich.console import Console

CHECKPOINT_SECONDS = 30.0  # between two checkpoints, at least
FULL = FromScratchSettings(network=NetworkSettings(), training=TrainingSettings(epochs=20))


@dataclass(frozen=True)
class DeriveConfig:
    """Settings of a derivation. Together with the run they determine its results.

    Attributes:
        top: number of architectures to train: the best of the run that compute different functions.
        seeds: of the trainings of each architecture.
        task: name of the task; None takes the run's.
        settings: fields of `FromScratchSettings`, nested, that differ from the defaults: the whole task, 16 channels,
            20 epochs (DARTS, section 3.2, on a GPU: 36 channels, 20 cells, 600 epochs, cutout 16, drop path 0.2,
            auxiliary classifier 0.4).
    """

    top: int = 3
    seeds: tuple[int, ...] = (0, 1, 2)
    task: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError(f"top must be at least 1, got {self.top!r}")
        object.__setattr__(self, "seeds", tuple(self.seeds))
        for seed in self.seeds:
            check_seed(seed, "seeds: each")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be one or more, all different, got {self.seeds}")


class Derivation:
    """Trains the best architectures of a run from scratch and exports the winner.

    Args:
        run: the run's folder.
        config: the settings.
        out: where the results go; ``derived`` in the run's folder by default.
        device: ``"auto"`` uses CUDA if available.
        data_dir: the folder of the data sets; the run's by default.
        download: whether a missing data set may be downloaded.
        console: where progress is shown; None shows none.

    Attributes:
        trials: indices of the run's trials that are trained, best first.

    Raises:
        ValueError: the folder holds no run, all trials have failed, the task or the space has no image networks, a
            setting is unknown, or `out` holds results of other settings.
    """

    def __init__(
        self,
        run: Path,
        config: DeriveConfig,
        *,
        out: Path | None = None,
        device: str = "auto",
        data_dir: str | None = None,
        download: bool = False,
        console: Console | None = None,
    ) -> None:
        self.run, self.config, self.console = Path(run), config, console
        self.out = Path(out) if out is not None else self.run / "derived"
        searched = read_config(self.run)
        self.result = read_trials(self.run)
        space = self.result.space
        if space.name not in NETWORKS and not isinstance(space, TransformationSpace):
            raise ValueError(f"{str(run)!r} has nothing to derive: space {space.name!r} has no image networks")
        self.trials = best_trials(self.result, config.top)
        self.evaluator = FromScratchEvaluator(
            self.result.space,
            config.task or _task_of(self.run),
            seed=searched.seed,  # the split of the search: its validation images are not used for testing
            device=device,
            data_dir=data_dir or searched.data_dir,
            download=download or searched.download,
            **{**({} if config.task else _task_kwargs(searched)), **_settings(config.settings)},
        )
        task = self.evaluator.proxy
        if not isinstance(task, ImageTask):
            raise ValueError(f"task must be one of images, to be exported with them; got {task.name!r}")
        self.task = task
        _reserve(self.out, {**dataclasses.asdict(config), "trials": self.trials})

    def execute(self) -> dict[str, Any]:
        """Runs the remaining trainings, chooses the winner and writes the results.

        Returns:
            The content of derived.json.

        Raises:
            Interrupted: by Ctrl-C or a termination signal, after saving.
            FolderLockedError: another process is writing to the folder.
            ValueError: every training has failed, or a file of an earlier one is damaged.
        """
        with FolderLock(self.out), stop_on_signal() as stop:
            path = self.out / "derived.json"
            if not path.exists():
                self._train(stop)
                record = self._record()
                self._export(record["architectures"][record["winner"]])
                write_text(self.out / "model_card.md", self._card(record))
                write_json(path, record)  # last: it marks the derivation as complete
            return read_json(path)

    # ------------------------------------------------------------------ training

    def _stem(self, trial: int, seed: int) -> Path:
        return self.out / f"trial{trial}_seed{seed}"

    def _architecture(self, trial: int) -> Architecture:
        return self.result.space.architecture(self.result.tokens[trial])

    def _network(self, trial: int, seed: int = 0) -> Network:
        return self.evaluator.new_network(self._architecture(trial), self.task, seed)

    def _train(self, stop: list[int]) -> None:
        """Runs the trainings that have no result file yet; the file is written after the weights."""
        wanted = [(trial, seed) for trial in self.trials for seed in self.config.seeds]
        steps = max(len(self.task.train) // self.evaluator.settings.training.batch_size, 1)
        steps *= self.evaluator.settings.training.epochs
        with progress_bars(self.console) as progress:
            for number, (trial, seed) in enumerate(wanted, start=1):
                if not self._stem(trial, seed).with_suffix(".json").exists():
                    bar = progress.add_task(f"training {number} of {len(wanted)}", total=steps)
                    self._train_one(trial, seed, partial(progress.advance, bar), stop)

    def _train_one(self, trial: int, seed: int, advance: Callable[..., None], stop: list[int]) -> None:
        settings, stem = self.evaluator.settings.training, self._stem(trial, seed)
        training = Training(self._network(trial, seed), self.task, settings, seed=seed, on_step=advance)
        checkpoint, curve = stem.with_suffix(".pt"), training.curve
        if checkpoint.exists():
            training.load_state_dict(load_tensors(checkpoint))
            advance(training.steps)
        saved = time.monotonic()
        while training.epochs < settings.epochs and not curve.failed:
            training.advance(training.epochs + 1)
            if (stop or time.monotonic() - saved > CHECKPOINT_SECONDS) and not curve.failed:
                save_tensors(checkpoint, training.state_dict())
                saved = time.monotonic()
            if stop:
                raise Interrupted
        save_weights(training.network, stem.with_suffix(".safetensors"), {})
        valid = None if curve.failed else float(curve.accuracy["valid"][-1])
        row = {"valid_accuracy": valid, "failed": curve.reason or None, "seconds": curve.seconds}
        write_json(stem.with_suffix(".json"), row)
        checkpoint.unlink(missing_ok=True)

    # ------------------------------------------------------------------ results

    def _record(self) -> dict[str, Any]:
        rows = [self._row(trial) for trial in self.trials]
        means = [row["valid"]["mean"] for row in rows]
        if max(means) == 0:
            reasons = ", ".join(sorted({training["failed"] or "at chance" for training in rows[0]["trainings"]}))
            raise ValueError(f"every training has failed ({reasons}); try other settings or another device")
        for trial, row in zip(self.trials, rows, strict=True):  # the only use of the test split
            accuracies = [self._test_accuracy(trial, training) for training in row["trainings"]]
            row["test"] = dataclasses.asdict(MeanInterval.of(accuracies))
            for training, accuracy in zip(row["trainings"], accuracies, strict=True):
                training["test_accuracy"] = accuracy
        return {"winner": int(np.argmax(means)), "task": self.task.name, "architectures": rows}

    def _row(self, trial: int) -> dict[str, Any]:
        architecture, network = self._architecture(trial), self._network(trial)
        files = {seed: self._stem(trial, seed).with_suffix(".json") for seed in self.config.seeds}
        trainings = [{"seed": seed, **read_json(path)} for seed, path in files.items()]
        return {
            "trial": trial,
            "text": str(architecture),
            "architecture": json.loads(architecture.to_json()),
            "search_accuracy": float(self.result.metrics["accuracy"][trial]),
            "parameters": count_parameters(network),
            "flops": count_flops(network, self.task.image_shape),
            "valid": dataclasses.asdict(MeanInterval.of([one["valid_accuracy"] or 0.0 for one in trainings])),
            "trainings": trainings,
        }

    def _trained(self, trial: int, seed: int) -> Network:
        network = self._network(trial)
        network.load_state_dict(load_weights(self._stem(trial, seed).with_suffix(".safetensors")))
        return network.eval()

    def _test_accuracy(self, trial: int, training: Mapping[str, Any]) -> float:
        if training["failed"]:
            return 0.0
        return score(self._trained(trial, training["seed"]).to(self.task.device), self.task, self.task.test)

    # ------------------------------------------------------------------ the winner

    def _export(self, winner: Mapping[str, Any]) -> None:
        """Writes the winner's training with the highest validation accuracy, as weights and as a program."""
        chosen = max(winner["trainings"], key=lambda training: training["valid_accuracy"] or 0.0)
        network = self._trained(winner["trial"], chosen["seed"])
        about = {
            "architecture": self._architecture(winner["trial"]).to_json(),
            "classes": json.dumps(self.task.classes),
            "image_shape": json.dumps(self.task.image_shape),
            "mean": json.dumps(self.task.mean),
            "std": json.dumps(self.task.std),
            "network": json.dumps(dataclasses.asdict(self.evaluator.settings.network)),
        }
        save_weights(network, self.out / "network.safetensors", about)
        export(network, self.task, self.out / "network.pt2", about)
        draw_architecture(self._architecture(winner["trial"]), self.out / "architecture")

    def _card(self, record: Mapping[str, Any]) -> str:
        """The derivation's model card, in Markdown."""
        rows = record["architectures"]
        winner = rows[record["winner"]]
        training = dataclasses.asdict(self.evaluator.settings.training)
        del training["record"], training["record_all_epochs"]
        network = dataclasses.asdict(self.evaluator.settings.network)
        images = {f"{name} images": len(getattr(self.task, name)) for name in ("train", "valid", "test")}
        return "\n".join(
            [
                f"# A network for {record['task']} from architecture search",
                "",
                "![The architecture](architecture.png)",
                "",
                "## Result",
                "",
                "| | trial | accuracy in the search | validation accuracy | test accuracy | parameters | flops |",
                "|---|---|---|---|---|---|---|",
                *(_card_row(row, row is winner) for row in rows),
                "",
                f"Means over the seeds {', '.join(map(str, self.config.seeds))}, with Student's 95 % confidence "
                "interval if there are several; a failed training counts as 0. The winner is chosen by validation "
                "accuracy; the test split was used once, after all trainings.",
                "",
                "```text",
                winner["text"],
                "```",
                "",
                "## Use",
                "",
                f"`network.pt2` maps uint8 images [N, {', '.join(map(str, self.task.image_shape))}] to logits "
                f"[N, {self.task.num_classes}]. It needs only PyTorch:",
                "",
                "```python",
                "import torch",
                "",
                'program = torch.export.load("network.pt2")',
                "logits = program.module()(images)",
                "```",
                "",
                f"Classes: {', '.join(self.task.classes)}. `network.safetensors` holds the weights, with the "
                "architecture in its metadata.",
                "",
                "## Training",
                "",
                *bullets({**images, "augmentation": self.task.augmentation, **network, **training}),
                "",
                "## Environment",
                "",
                *versions(),
                "",
                "## How to reproduce it",
                "",
                "```sh",
                command(self.run, self.config),
                "```",
                "",
            ]
        )


def command(run: Path, config: DeriveConfig) -> str:
    """The command line that reproduces a derivation."""
    words = ["nas-gym", "derive", str(run), "--top", str(config.top), "--seeds", *map(str, config.seeds)]
    if config.task is not None:
        words += ["--task", config.task]
    if config.settings:
        words += ["--settings", *pairs(config.settings)]
    return shlex.join(words)


def _task_of(run: Path) -> str:
    """The task that a run searched on."""
    config = read_config(run)
    task = config.evaluator.task
    if task is None:
        raise ValueError(f"the search in {str(run)!r} has no task; give the name of one")
    return str(task)


def _task_kwargs(searched: RunConfig) -> dict[str, Any]:
    return {name: value for name, value in searched.evaluator.settings.items() if name == "task_kwargs"}


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The evaluator's arguments: those of the full budget, updated with the given ones."""
    known = {known.name: getattr(FULL, known.name) for known in dataclasses.fields(FULL)}
    nested = {
        name: dataclasses.asdict(known[name]) | dict(given[name])
        for name in ("network", "training")
        if isinstance(given.get(name), Mapping)
    }
    return {**known, **given, **nested}


def _reserve(out: Path, settings: Mapping[str, Any]) -> None:
    """Writes the settings to the folder, or checks that its results are of the same ones."""
    path = out / "config.yaml"
    wanted = json.loads(json.dumps(settings))
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        write_text(path, yaml.safe_dump(wanted, sort_keys=False))
    elif yaml.safe_load(path.read_text()) != wanted:
        raise ValueError(f"{str(out)!r} holds results of other settings, see config.yaml; give another folder")


def _card_row(row: Mapping[str, Any], wins: bool) -> str:
    cells = [
        "winner" if wins else "",
        str(row["trial"]),
        f"{row['search_accuracy']:.4f}" if math.isfinite(row["search_accuracy"]) else "-",
        str(MeanInterval(**row["valid"])),
        str(MeanInterval(**row["test"])),
        f"{row['parameters']:,}",
        f"{row['flops']:,}",
    ]
    return f"| {' | '.join(cells)} |"
