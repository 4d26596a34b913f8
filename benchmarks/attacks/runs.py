"""Runs that are killed, written to twice, damaged and out of disk: is a trial lost, doubled or falsified?"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import multiprocessing
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from benchmarks.attacks.outcome import Attack, Outcome
from benchmarks.attacks.trial import count, cut, flip_bit
from nas_gym.agents import AGENTS, Agent
from nas_gym.experiments.run import Run, RunConfig, read_trials, recorder
from nas_gym.experiments.run.record import RECORD, TrialRecord
from nas_gym.experiments.run.weights import load_weights
from nas_gym.files import load_tensors, read_json

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["benchmarks.attacks.runs", "torch._dynamo", "torch.utils.tensorboard"])
PATIENCE = 120.0  # seconds after which a process hangs
TABLE = RunConfig(env="NAS-Bench201-v0", agent="regularized-evolution", trials=40, seed=3)
TINY = {"channels": 4, "batch_size": 16, "score_images": 64}
CELL = RunConfig(
    trials=12,
    num_envs=4,
    seed=3,
    device="cpu",
    hyperparameters={"batch_size": 6, "learning_rate": 0.05},
    env_kwargs={"space": {"name": "cell", "nodes": 2}, "evaluator_kwargs": TINY, "schedule": {"warmup_steps": 6}},
    retrain_epochs=1,
    compare_found=1,
    compare_random=2,
    compare_seeds=2,
)
GROW = RunConfig(
    env="NAS-Transform-v0",
    agent="random",
    task="digits",
    trials=6,
    num_envs=2,
    seed=1,
    device="cpu",
    env_kwargs={"evaluator_kwargs": {"start_epochs": 1, "epochs": 1, "batch_size": 32, "train_images": 64}},
    retrain_epochs=0,
)


def work(folder: Path, config: RunConfig | None, file_limit: int | None = None) -> None:
    """What a process does: a run, or the rest of one; with checkpoints at every chance, and files of limited size."""
    recorder.CHECKPOINT_SECONDS = 0.0
    torch.set_num_threads(1)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    try:
        Run(folder, config, Console(quiet=True)).execute()
    except (ValueError, OSError) as error:
        (folder.parent / f"{os.getpid()}.error").write_text(str(error))
        sys.exit(2)


def start(folder: Path, config: RunConfig | None = None, file_limit: int | None = None) -> Any:
    """Starts `work` in a process of its own."""
    process = PROCESSES.Process(target=work, args=(folder, config, file_limit))
    process.start()
    return process


def table_of(folder: Path) -> list[dict[str, str]]:
    """The exported trials."""
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def finished(folder: Path, config: RunConfig) -> list[dict[str, str]]:
    """The trials of a run that nothing disturbs."""
    start(folder, config).join()
    return table_of(folder)


def plain(value: Any) -> Any:
    """Tensors, wherever they are, as bytes."""
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), tuple(value.shape), value.numpy().tobytes()]
    if isinstance(value, dict):
        return {key: plain(content) for key, content in value.items()}
    return [plain(content) for content in value] if isinstance(value, list | tuple) else value


# ------------------------------------------------------------------ kills


def killed(folder: Path, rng: np.random.Generator, *, agents: tuple[str, ...] | None = None, tries: int = 1) -> Outcome:
    """Every agent's run is killed at random moments until it ends; so are runs that train networks."""
    outcome = Outcome("SIGKILL at random moments: every agent on a table, NAS-Cell-v0, NAS-Transform-v0")
    names = agents or tuple(name for name in AGENTS if name not in ("eas", "multitask", "successive-halving"))
    configs = {name: dataclasses.replace(TABLE, agent=name) for name in names}
    for name, config in {**configs, "NAS-Cell-v0": CELL, "NAS-Transform-v0": GROW}.items():
        began = time.monotonic()
        whole = finished(folder / f"{name}-whole", config)
        took = time.monotonic() - began
        for number in range(tries):
            run, given, kills = folder / f"{name}-{number}", config, 0
            while kills < 4:
                process = start(run, None if (run / "config.yaml").exists() else given)
                process.join(rng.uniform(0.0, took))
                if process.exitcode is not None:
                    break
                process.kill()
                process.join()
                kills += 1
            _resume(outcome, run, given, whole, f"{name} killed {kills} times")
            shutil.rmtree(run)
    return outcome


def _resume(outcome: Outcome, run: Path, config: RunConfig, whole: list[dict[str, str]], what: str) -> None:
    process = start(run, None if (run / "config.yaml").exists() else config)
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        outcome.hung += 1
    elif process.exitcode == 0 and table_of(run) == whole:
        outcome.unharmed += 1
        return
    elif process.exitcode == 0:
        outcome.silent += 1
    else:
        outcome.lost += 1
    errors = [path.read_text() for path in run.parent.glob("*.error")]
    outcome.examples.append(f"{what}: exit code {process.exitcode}, {errors}")


def two_writers(folder: Path, rng: np.random.Generator, *, tries: int = 5) -> Outcome:
    """The same run resumed twice at the same time: one works, the other ends and says who has the folder."""
    outcome = Outcome("`nas-gym resume` twice at once on one folder")
    whole = finished(folder / "whole", TABLE)
    for number in range(tries):
        run = _part_of(folder / "whole", folder / str(number) / "run", int(rng.integers(1, 20)))
        processes = [start(run) for _ in range(2)]
        for process in processes:
            process.join(PATIENCE)
        codes = sorted(process.exitcode for process in processes)
        errors = [path.read_text() for path in run.parent.glob("*.error")]
        one_by_one = codes == [0, 0]  # the first had ended before the second began
        told = codes == [0, 2] and all(str(processes[0].pid) in e or str(processes[1].pid) in e for e in errors)
        if table_of(run) == whole and (one_by_one or told):
            outcome.refused += told
            outcome.unharmed += not told
        else:
            outcome.silent += 1
            outcome.examples.append(f"exit codes {codes}: {errors}")
    return outcome


def _part_of(whole: Path, folder: Path, trials: int) -> Path:
    """A copy of a finished run that was killed after so many trials."""
    shutil.copytree(whole, folder, ignore=shutil.ignore_patterns("events*", "best.json"))
    record = TrialRecord(folder)
    record.cut(trials)
    record.close()
    return folder


# ------------------------------------------------------------------ damage


def _trials(run: Path) -> list[list[float]]:
    trials = read_trials(run)
    return [*trials.tokens.tolist(), trials.rewards.tolist()]


def _readers(run: Path) -> dict[str, Callable[[], Any]]:
    """How each file of a finished run is read."""
    return {
        RECORD: lambda: _trials(run),
        "config.yaml": lambda: _trials(run),
        "checkpoint.pt": lambda: plain(load_tensors(run / "checkpoint.pt")),
        "agent.pt": lambda: plain(Agent.load(run / "agent.pt", "NAS-Bench201-v0").state_dict()),
        "comparison/evaluated.json": lambda: read_json(run / "comparison" / "evaluated.json"),
        "best.safetensors": lambda: plain(load_weights(run / "best.safetensors")),
    }


def damaged(folder: Path, rng: np.random.Generator, *, flips: int = 200, cuts: int = 40) -> Outcome:
    """Bits flipped in, and ends cut from, every file of a run that is read back."""
    outcome = Outcome("bit flips and truncations in the files of a run")
    start(folder / "run", CELL).join()
    agent = dataclasses.replace(TABLE, agent="reinforce").make_agent(TABLE.make_env())
    agent.learn(20)
    agent.save(folder / "run" / "agent.pt")
    for name, read in _readers(folder / "run").items():
        path = folder / "run" / name
        data, expected = path.read_bytes(), read()
        for number in range(flips + cuts):
            harmed, what = (flip_bit if number < flips else cut)(data, rng)
            path.write_bytes(harmed)
            named = "run" if name == "config.yaml" else name
            count(outcome, f"{name}, {what}", read, named, expected)
        path.write_bytes(data)
    return outcome


def exports(folder: Path, rng: np.random.Generator, *, tries: int = 20) -> Outcome:
    """trials.csv deleted, shortened, doubled or changed while a run is not finished: nothing reads it."""
    outcome = Outcome("trials.csv deleted, cut, doubled, changed; then resumed")
    whole = finished(folder / "whole", TABLE)
    for number in range(tries):
        run = _part_of(folder / "whole", folder / str(number), int(rng.integers(1, 40)))
        path, lines = run / "trials.csv", (run / "trials.csv").read_text().splitlines(keepends=True)
        texts = ["", "".join(lines[:5]), "".join(lines + lines[1:]), "".join(lines).replace("0.", "7e99")]
        path.write_text(texts[number % 4])
        if number % 5 == 0:
            path.unlink()
        _resume(outcome, run, TABLE, whole, f"text {number % 4}")
    return outcome


def changed_configs(folder: Path, rng: np.random.Generator) -> Outcome:
    """Another seed, agent, environment, number of trials or setting in config.yaml of a run that has begun."""
    outcome = Outcome("config.yaml changed in the middle of a run")
    finished(folder / "whole", TABLE)
    changes = [
        ("seed: 3", "seed: 4"),
        ("agent: regularized-evolution", "agent: random"),
        ("trials: 40", "trials: 60"),
        ("env: NAS-Bench201-v0", "env: NAS-BenchGraph-v0"),
        ("hyperparameters: {}", "hyperparameters: {population_size: 5}"),
        ("task: null", "task: cifar10"),
    ]
    for number, (old, new) in enumerate(changes):
        run = _part_of(folder / "whole", folder / str(number), int(rng.integers(1, 40)))
        config = (run / "config.yaml").read_text()
        assert old in config
        (run / "config.yaml").write_text(config.replace(old, new))
        count(outcome, new, lambda run=run: Run(run, console=Console(quiet=True)).execute(), "")  # type: ignore[misc]
    return outcome


def full_disk(folder: Path, rng: np.random.Generator, *, tries: int = 8) -> Outcome:
    """Files that cannot grow beyond a size that a run needs: one error that names one, and the run goes on later."""
    outcome = Outcome("no room for a file (by a limit on their size); then resumed with room")
    whole = finished(folder / "whole", CELL)
    largest = max(path.stat().st_size for path in (folder / "whole").iterdir())
    for number in range(tries):
        run = folder / str(number) / "run"
        run.parent.mkdir()
        process = start(run, CELL, int(rng.integers(largest // 20, largest)))
        process.join(PATIENCE)
        errors = [path.read_text() for path in run.parent.glob("*.error")]
        if process.exitcode not in (0, 2) or (process.exitcode == 2 and str(folder) not in errors[0]):
            outcome.tracebacks += 1
            outcome.examples.append(f"exit code {process.exitcode}: {errors}")
        else:
            _resume(outcome, run, CELL, whole, str(errors))
    return outcome


@contextlib.contextmanager
def _as_nobody() -> Iterator[None]:
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def read_only(folder: Path, rng: np.random.Generator) -> Outcome:
    """A run in a folder that cannot be written to: it is read, and resuming it ends in one error."""
    outcome = Outcome("a run on a read-only disk: read, and resumed")
    del rng
    finished(folder / "run", TABLE)
    expected = read_trials(folder / "run").tokens.tolist()
    if os.geteuid() != 0:
        outcome.note = "not run: only the superuser can become somebody without rights"
        return outcome
    part = _part_of(folder / "run", folder / "part", 10)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    for parent in folder.parents:
        if parent != Path(parent.anchor) and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    with _as_nobody():
        count(outcome, "read", lambda: read_trials(folder / "run").tokens.tolist(), "run", expected)
        try:
            Run(part, console=Console(quiet=True)).execute()
            outcome.silent += 1
        except OSError as error:
            outcome.refused += "part" in str(error)
            outcome.tracebacks += "part" not in str(error)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    return outcome


ATTACKS: list[Attack] = [
    killed,
    two_writers,
    damaged,
    exports,
    changed_configs,
    full_disk,
    read_only,
]
