"""From images to a trained network: a search, and the training of what it found."""

from __future__ import annotations

import struct
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.gpu_path.bench import Bench, Row, present
from nas_gym.experiments.derive.derivation import Derivation, DeriveConfig
from nas_gym.experiments.run import Run, RunConfig, read_trials
from nas_gym.experiments.run.config import CONFIG
from nas_gym.tasks import make_task
from nas_gym.tasks.images import IDX_FILES

TASK = "fashion-mnist"


def search(bench: Bench) -> list[Row]:
    """A search of Fashion-MNIST at the size of ENAS: its network and its controller, with shared weights."""
    try:
        if bench.measuring:
            make_task(TASK, data_dir=bench.images)
    except FileNotFoundError as error:
        bench.skipped["search"] = bench.skipped["derive"] = str(error).partition("\n")[0]
        return []
    return present([bench.once("search", partial(searched, bench))])


def searched(bench: Bench) -> Row:
    """Begins the run, or goes on with it."""
    folder = bench.out / "search"
    config = RunConfig(
        env="NAS-Cell-v0",
        agent="reinforce",
        task=TASK,
        trials=bench.sizes.trials,
        device=bench.device.type,
        data_dir=_text(bench.images),
        env_kwargs=dict(bench.sizes.environment),
        retrain_epochs=0,
    )
    with bench.stopping():
        best = Run(folder, None if (folder / CONFIG).exists() else config).execute()["best"]
    trials = read_trials(folder)
    return {
        "trials": len(trials),
        "reward_first_100": float(np.mean(trials.rewards[:100])),
        "reward_last_100": float(np.mean(trials.rewards[-100:])),
        "best_trial": best["trial"],
        "best_accuracy": best["accuracy"],
        "architecture": best["text"],
    }


def derive(bench: Bench) -> list[Row]:
    """The training of the best architecture from random weights, and its accuracy on the test images."""
    if bench.measuring and not (bench.out / "parts" / "search.json").exists():
        bench.skipped.setdefault("derive", "there is no finished search")
        return []
    return present([bench.once("derive", partial(derived, bench))])


def derived(bench: Bench) -> Row:
    """Begins the derivation, or goes on with it."""
    config = DeriveConfig(top=1, seeds=(0,), settings=dict(bench.sizes.derivation))
    derivation = Derivation(bench.out / "search", config, device=bench.device.type, data_dir=_text(bench.images))
    with bench.stopping():
        record = derivation.execute()
    winner = record["architectures"][record["winner"]]
    (training,) = winner["trainings"]
    return {
        "test_accuracy": training["test_accuracy"],
        "valid_accuracy": training["valid_accuracy"],
        "parameters": winner["parameters"],
        "flops": winner["flops"],
        "epochs": derivation.evaluator.settings.training.epochs,
        "training_seconds": training["seconds"],
    }


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def write_images(folder: Path) -> None:
    """Images in the files of Fashion-MNIST's format, for `--tiny`: a class is a bright stripe in noise."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for files, count in ((IDX_FILES[:2], 120), (IDX_FILES[2:], 20)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = rng.integers(0, 100, (count, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels.tolist(), strict=True):
            image[2 * label : 2 * label + 8] += 120
        for file, array in zip(files, (images, labels), strict=True):
            header = struct.pack(f">{1 + array.ndim}i", 0x800 + array.ndim, *array.shape)
            (folder / file).write_bytes(header + array.tobytes())
