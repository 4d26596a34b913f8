"""One run of a benchmark after another: what a process does, here or on another machine."""

from __future__ import annotations

import dataclasses
import json
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nas_gym
from nas_gym.agents.agent import Agent
from nas_gym.agents.policy import PolicyAgent
from nas_gym.agents.registry import agent_class, batch_size_of
from nas_gym.agents.result import SearchResult
from nas_gym.experiments.benchmark.suite import AgentEntry, Environment, Suite, open_evaluator
from nas_gym.experiments.run.config import RunConfig, config_text, origin_of, read_config
from nas_gym.experiments.run.record import TrialRecord
from nas_gym.experiments.run.resolved import resolve
from nas_gym.files import file_name, write_json, write_text
from nas_gym.settings import differences


def run_config(suite: Suite, environment: Environment, entry: AgentEntry, seed: int) -> RunConfig:
    """What a run is asked to do, with all hyperparameters.

    Raises:
        ValueError: a hyperparameter is unknown or out of range.
    """
    config = RunConfig(
        env=environment.id,
        agent=entry.name,
        trials=suite.trials,
        task=environment.task,
        seed=seed,
        device="cpu",
        env_kwargs={"table": environment.table},
        hyperparameters=dict(entry.hyperparameters),
        simulated_seconds=suite.simulated_seconds,
        retrain_epochs=0,
    )
    settings = config.settings()
    return dataclasses.replace(
        config,
        num_envs=batch_size_of(agent_class(entry.name), settings),
        hyperparameters=json.loads(json.dumps(dataclasses.asdict(settings))),
    )


def run_folder(out: Path, environment: Environment, entry: AgentEntry, seed: int) -> Path:
    """Where a run lies."""
    return out / "runs" / file_name(str(environment)) / file_name(entry.label) / f"seed{seed}"


def is_done(folder: Path, config: RunConfig) -> bool:
    """Whether a folder holds the finished run.

    Raises:
        ValueError: it holds one that was asked to do something else.
    """
    if not (folder / "run.json").exists():
        return False
    if (
        not (folder / "config.yaml").read_text().startswith(config_text(config))
        and (found := read_config(folder)) != config
    ):
        differs = ", ".join(differences(dataclasses.asdict(found), dataclasses.asdict(config)))
        raise ValueError(f"{str(folder)!r} holds a run of other settings ({differs}): give another --out, or delete it")
    return True


@dataclass(frozen=True)
class Job:
    """Runs of one agent in one environment, which one process does one after another.

    Attributes:
        environment: what is played.
        configs: of the runs, which differ in their seeds alone.
        folders: of the runs.
    """

    environment: Environment
    configs: tuple[RunConfig, ...]
    folders: tuple[Path, ...]


@dataclass(frozen=True)
class UncountedRun:
    """A run that is not counted.

    Attributes:
        folder: of the run.
        reason: one line.
        traceback: empty where the agent cannot play the environment, which is no failure.
    """

    folder: Path
    reason: str
    traceback: str = ""


def run_job(job: Job) -> list[UncountedRun]:
    """Does the runs of a job. One that raises is a problem and no more: its traceback lies in its folder."""
    import torch

    # One thread a process: the workers share the cores, and sums come out the same on every machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = [_run(job.environment, config, folder) for config, folder in zip(job.configs, job.folders, strict=True)]
    finally:
        torch.set_num_threads(threads)
    return [problem for problem in found if problem is not None]


def _run(environment: Environment, config: RunConfig, folder: Path) -> UncountedRun | None:
    started = time.perf_counter(), time.process_time()
    try:
        agent = _make_agent(environment, config)
    except ValueError as error:
        return UncountedRun(folder, str(error))
    try:
        result = agent.learn(config.trials, seconds=config.simulated_seconds)
        if len(result) != config.trials and config.simulated_seconds is None:
            raise RuntimeError(f"the agent ended after {len(result)} of {config.trials} trials")
        if len(result) == 0:
            raise ValueError(f"simulated_seconds {config.simulated_seconds} end before the first trial does: give more")
        clocks = {"wall_seconds": time.perf_counter() - started[0], "cpu_seconds": time.process_time() - started[1]}
        facts = {**clocks, "entropy": agent.entropy() if isinstance(agent, PolicyAgent) else None}
    except Exception as error:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "failure.txt", traceback.format_exc())
        return UncountedRun(folder, f"{type(error).__name__}: {error}", traceback.format_exc())
    save_run(folder, config, resolve(config, agent), result, facts)
    return None


def _make_agent(environment: Environment, config: RunConfig) -> Agent:
    evaluator = open_evaluator(environment)
    arguments: dict[str, Any] = {"space": evaluator.space, "evaluator": evaluator, "evaluator_kwargs": None}
    return config.make_agent(config.make_env(**arguments))


def save_run(
    folder: Path,
    config: RunConfig,
    resolved: Mapping[str, Any],
    result: SearchResult,
    facts: Mapping[str, float | None],
) -> None:
    """Writes a run; run.json last, which says that all is there."""
    folder.mkdir(parents=True, exist_ok=True)
    TrialRecord.create(folder, origin_of(config, result.space), result)
    write_text(folder / "config.yaml", config_text(config, resolved))
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    record = {**facts, "finished": finished, "nas_gym": nas_gym.__version__}
    write_json(folder / "run.json", record)
    (folder / "failure.txt").unlink(missing_ok=True)
