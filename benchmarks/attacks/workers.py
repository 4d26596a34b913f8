"""Workers and runs that are stopped, killed and interrupted: does anything hang, is anything left, is anything lost?

The searches are real ones, by the command line in a process of its own. Each is started, attacked at a random moment,
and then resumed if the attack has ended it; one with workers without them. Its results must be those of a search that
nothing has disturbed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from benchmarks.attacks.outcome import Attack, Outcome
from nas_gym.evaluators import Evaluations, Evaluator
from nas_gym.experiments.run import Run, RunConfig, read_config, read_trials
from nas_gym.experiments.run.config import CONFIG, config_text, origin_of
from nas_gym.experiments.run.record import TrialRecord
from nas_gym.files import write_text
from nas_gym.spaces import SearchSpace, Tokens

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0  # seconds after which a process hangs
GONE = 15.0  # seconds within which workers end after their owner
SEARCH = RunConfig(
    env="NAS-Bench201-v0",
    agent="regularized-evolution",
    trials=16,
    num_envs=4,
    seed=3,
    hyperparameters={"population_size": 5, "sample_size": 2},
)
SHARED_WEIGHTS = RunConfig(
    trials=14,
    num_envs=4,
    seed=3,
    hyperparameters={"batch_size": 6, "learning_rate": 0.05},
    env_kwargs={
        "space": {"name": "cell", "nodes": 2},
        "evaluator_kwargs": {"channels": 4, "batch_size": 16, "score_images": 64},
        "schedule": {"warmup_steps": 40},
    },
    retrain_epochs=0,
)


class Pausing(Evaluator):
    """Scores by the index in the space, after a pause.

    Args:
        space: the search space.
        log: file that gets the id of the process, a line for each architecture.
        seconds: how long an evaluation takes.
    """

    def __init__(self, space: SearchSpace, *, log: str, seconds: float) -> None:
        super().__init__(space)
        self.log, self.seconds = Path(log), seconds

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        for _ in tokens:
            with self.log.open("a") as file:
                file.write(f"{os.getpid()}\n")
            time.sleep(self.seconds * float(os.environ.get("ATTACK_PAUSES", "1")))
        return Evaluations(self.space.index(tokens) / self.space.size)


# ------------------------------------------------------------------ processes


def start(folder: Path, config: RunConfig | None = None) -> subprocess.Popen[str]:
    """Starts or resumes a search by `nas-gym resume`, in a process group of its own."""
    if config is not None:
        folder.mkdir(parents=True)
        TrialRecord.create(folder, origin_of(config, config.make_space()))
        write_text(folder / CONFIG, config_text(config))
    code = "from nas_gym.experiments.cli.main import main; main()"
    changes = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "300", "ATTACK_PAUSES": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    arguments = [sys.executable, "-c", code, "resume", str(folder)]
    return subprocess.Popen(arguments, env={**os.environ, **changes}, start_new_session=True, **pipes)


def search(folder: Path, seconds: float, **workers: Any) -> RunConfig:
    """A search with an evaluator that takes its time."""
    settings = {"log": f"{folder}.log", "seconds": seconds}
    evaluator = {"evaluator": f"{__name__}:Pausing", "evaluator_kwargs": settings}
    return dataclasses.replace(SEARCH, env_kwargs=evaluator, **workers)


def evaluating(folder: Path) -> list[int]:
    """The ids of the processes that have evaluated, one for each architecture that was begun."""
    log = Path(f"{folder}.log")
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def wait_for(condition: Callable[[], bool], seconds: float = PATIENCE) -> float:
    """Waits until something is so, and tells for how long.

    Raises:
        TimeoutError: it is not.
    """
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > seconds:
            raise TimeoutError(f"waited for {seconds} s")
        time.sleep(0.02)
    return time.monotonic() - begun


def alive(process: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def results(folder: Path) -> list[Any]:
    """All that a search has come to, as plain values."""
    trials = read_trials(folder)
    columns = {name: column.tobytes() for name, column in trials.metrics.items()}
    return [trials.tokens.tobytes(), trials.rewards.tobytes(), columns, (folder / "best.json").read_bytes()]


def finish(process: subprocess.Popen[str], codes: tuple[int, ...] = (0,)) -> float:
    """Waits for the end of a process, and tells for how long.

    Raises:
        TimeoutError: it hangs.
        ChildProcessError: it ended otherwise.
    """
    begun = time.monotonic()
    try:
        _, errors = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"no end within {PATIENCE} s") from error
    if process.returncode not in codes or "Traceback" in errors:
        raise ChildProcessError(f"status {process.returncode}: {errors[-300:]}")
    return time.monotonic() - begun


@contextlib.contextmanager
def counted(outcome: Outcome, what: str, process: subprocess.Popen[str], folder: Path) -> Iterator[None]:
    """Counts what comes of a try, and ends whatever of it is left."""
    try:
        yield
    except TimeoutError as error:
        outcome.hung += 1
        outcome.examples.append(f"{what}: {error}")
    except ChildProcessError as error:
        outcome.tracebacks += 1
        outcome.examples.append(f"{what}: {error}")
    finally:
        for left in {process.pid, *evaluating(folder)} - {os.getpid()}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)
        process.wait()


def compare(outcome: Outcome, what: str, found: list[Any], expected: list[Any]) -> None:
    """Counts a try that came to its end by what it has come to."""
    if found == expected:
        outcome.unharmed += 1
        return
    if len(found[0]) < len(expected[0]):
        outcome.lost += 1
    else:
        outcome.silent += 1
    outcome.examples.append(f"{what}: other results")


def executed(folder: Path, config: RunConfig | None = None) -> list[Any]:
    """The results of a search in this process, on one thread as those that are attacked; resumed without a config."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    os.environ["ATTACK_PAUSES"] = "0"
    try:
        Run(folder, config, console=Console(quiet=True)).execute()
    finally:
        torch.set_num_threads(threads)
        del os.environ["ATTACK_PAUSES"]
    return results(folder)


def resumed(folder: Path) -> list[Any]:
    """The results of a search with workers that is resumed without workers and pauses."""
    config = dataclasses.replace(read_config(folder), workers=None, worker_timeout=None)
    write_text(folder / CONFIG, config_text(config))
    return executed(folder)


def undisturbed(folder: Path) -> list[Any]:
    """The results of the search that is attacked, without workers and pauses."""
    return executed(folder, search(folder, 0.3))


# ------------------------------------------------------------------ attacks


def stopped_workers(folder: Path, rng: np.random.Generator) -> Outcome:
    """SIGSTOP: the process is there and does nothing."""
    return _disturb(folder, rng, signal.SIGSTOP, "a worker is stopped (SIGSTOP)")


def killed_workers(folder: Path, rng: np.random.Generator) -> Outcome:
    """SIGKILL, in the middle of an evaluation."""
    return _disturb(folder, rng, signal.SIGKILL, "a worker is killed (SIGKILL)")


def _disturb(folder: Path, rng: np.random.Generator, number: signal.Signals, attack: str) -> Outcome:
    """One search, in which two workers, one after the other, get a signal."""
    outcome, expected = Outcome(attack), undisturbed(folder / "whole")
    run = folder / "run"
    process = start(run, search(run, 0.3, workers=2, worker_timeout=2.0))
    with counted(outcome, attack, process, run):
        for _ in range(2):
            begun = len(evaluating(run)) + int(rng.integers(2, 6))
            wait_for(lambda: len(evaluating(run)) >= begun)  # noqa: B023  # called at once
            os.kill(evaluating(run)[-1], number)
        finish(process)
        compare(outcome, attack, results(run), expected)
    return outcome


def killed_drivers(folder: Path, rng: np.random.Generator) -> Outcome:
    """SIGKILL to the search alone, and to all of its process group while a worker is stopped."""
    outcome, expected = Outcome("the search is killed (SIGKILL), then resumed"), undisturbed(folder / "whole")
    slowest = 0.0
    for what in ("alone", "group"):
        run = folder / what
        process = start(run, search(run, 0.3, workers=2))
        with counted(outcome, what, process, run):
            wait_for(lambda: len(evaluating(run)) >= int(rng.integers(2, 12)))  # noqa: B023
            if what == "alone":
                process.kill()
            else:
                os.kill(evaluating(run)[-1], signal.SIGSTOP)
                os.killpg(process.pid, signal.SIGKILL)
            workers = set(evaluating(run))
            slowest = max(slowest, wait_for(lambda: not any(map(alive, workers)), GONE))  # noqa: B023
            process.wait()
            compare(outcome, what, resumed(run), expected)
    outcome.note = f"its workers were gone within {slowest:.1f} s"
    return outcome


def interrupted_waits(folder: Path, rng: np.random.Generator) -> Outcome:
    """Ctrl-C and SIGTERM while both workers hang, then a resumption."""
    outcome = Outcome("Ctrl-C or SIGTERM while all workers hang, then resumed")
    expected, slowest = undisturbed(folder / "whole"), 0.0
    for number in (signal.SIGINT, signal.SIGTERM):
        run = folder / number.name
        process = start(run, search(run, 0.3, workers=2))
        with counted(outcome, number.name, process, run):
            wait_for(lambda: len(evaluating(run)) >= int(rng.integers(4, 12)))  # noqa: B023
            for worker in set(evaluating(run)):
                os.kill(worker, signal.SIGSTOP)
            time.sleep(1.0)
            process.send_signal(number)
            slowest = max(slowest, finish(process, (130,)))
            compare(outcome, number.name, resumed(run), expected)
    outcome.note = f"each ended within {slowest:.1f} s"
    return outcome


def interrupted_checkpoints(folder: Path, rng: np.random.Generator, tries: int = 1) -> Outcome:
    """A search with shared weights: SIGTERM, and Ctrl-C twice, at random moments, then a resumption."""
    outcome = Outcome("SIGTERM, or Ctrl-C twice, in a search with shared weights, then resumed")
    expected = executed(folder / "whole", SHARED_WEIGHTS)
    for number in (signal.SIGTERM, signal.SIGINT) * tries:
        run = folder / f"run{outcome.tries}"
        process = start(run, SHARED_WEIGHTS)
        with counted(outcome, number.name, process, run):
            wait_for(lambda: any(run.glob("events.*")) if run.exists() else False)  # noqa: B023
            time.sleep(rng.uniform(0.0, 1.5))
            for _ in range(1 if number == signal.SIGTERM else 2):
                process.send_signal(number)
                time.sleep(0.01)
            finish(process, (0, 130))
            compare(outcome, number.name, executed(run), expected)
    return outcome


ATTACKS: list[Attack] = [
    stopped_workers,
    killed_workers,
    killed_drivers,
    interrupted_waits,
    interrupted_checkpoints,
]
