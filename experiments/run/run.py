"""A run: one search in a folder of its own, logged, saved, resumable, with what it has found compared in the end.

The folder holds config.yaml (what was asked for), trials.db (the record of the trials), TensorBoard's events, the last
two checkpoints, and in the end the comparison, best.json, the pictures, the weights and model_card.md. For other
programs the record is exported as trials.csv (results only) and timings.csv (clocks): once a minute, less often where
there are so many trials that this takes more than a twentieth of the time, and at the end. One process at a time writes
to the folder.

A run is resumed in one of two ways. Without shared weights it is played again from its seed, and the trials that
are on record are answered from there, so that this works for every agent. With shared weights the agent, the
evaluator and all random states are read from the checkpoint, and the record is cut back to it. Either way the
finished trials.csv equals that of an uninterrupted run, to the bit, on CPU. An asynchronous run, which is not the same
twice, goes on from its checkpoint too.
"""

from __future__ import annotations

import json
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_gym.agents.budget import simulated_seconds
from nas_gym.envs.problem import Problem
from nas_gym.evaluators import DistributedEvaluator, EvaluationStore, MultiTaskSchedule, StoredEvaluator
from nas_gym.experiments.run.asynchronous import learn_asynchronously
from nas_gym.experiments.run.config import (
    CONFIG,
    RunConfig,
    changes_since,
    config_text,
    evaluator_of,
    origin_of,
    read_config,
    read_resolved,
)
from nas_gym.experiments.run.progress import Progress, progress_bars, stop_on_signal
from nas_gym.experiments.run.record import RECORD, TrialRecord, read_rows, repair
from nas_gym.experiments.run.recorder import Recorder
from nas_gym.experiments.run.resolved import resolve
from nas_gym.experiments.run.results import BEST, write_results
from nas_gym.experiments.run.target import UNITS
from nas_gym.experiments.run.trials import changed_config, read_trials
from nas_gym.files import write_text
from nas_gym.locks import FolderLock
from nas_gym.settings import differences
from nas_gym.spaces import Architecture

if TYPE_CHECKING:
    from rich.console import Console

    from nas_gym.experiments.run.comparison_result import Comparison


class Run:
    """One search in its folder.

    Args:
        folder: the run's folder.
        config: what to do; None reads config.yaml, to go on with a run.
        console: where progress is shown; None shows none.
        repair: of a damaged record, keep the sound trials and evaluate the others again.

    Attributes:
        problem: the view of the environment.
        resolved: what all settings come to.
        agent: what searches.
        comparison: of what was found, once the run is executed; None where there is nothing to compare by.

    Raises:
        ValueError: the folder already holds a run (with a config), or none (without one).
    """

    def __init__(
        self,
        folder: Path,
        config: RunConfig | None = None,
        console: Console | None = None,
        repair: bool = False,
    ) -> None:
        self.folder, self.console = Path(folder), console
        self.begins, self.repair = config is not None, repair
        if self.begins:
            self._check_free()
        self.config = config or read_config(self.folder)
        self.agent = self.config.make_agent(self.config.make_env())
        self.problem: Problem = self.agent.problem
        self.comparison: Comparison | None = None
        self._check_metrics()
        self.resolved = resolve(self.config, self.agent)
        self.workers: DistributedEvaluator | None = None
        self._spread()

    def _check_metrics(self) -> None:
        """Complains of a budget or a target in a metric that the evaluator does not report."""
        config = self.config
        if config.simulated_seconds is None and (config.target is None or config.trains):
            return
        one = self.agent.current_space.sample(np.random.default_rng(0), 1)
        metrics = self.problem.evaluator.evaluate(one).metrics
        if config.simulated_seconds is not None:
            simulated_seconds(metrics)
        target = config.cost_target
        if target is not None and target.metric not in metrics:
            known = ", ".join(name for name in UNITS if name in metrics) or "none"
            raise ValueError(
                f"target {config.target!r} needs an evaluator with the metric {target.metric!r}; those that can have a "
                f"target here are {known}"
            )

    def _check_free(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{str(self.folder)!r} is a file: give a folder for the run")
        if (self.folder / CONFIG).exists():
            raise ValueError(
                f"{str(self.folder)!r} already holds a run; go on with it by `nas-gym resume`, or give another folder"
            )
        if (self.folder / RECORD).exists() and read_rows(self.folder / RECORD).rows:
            raise ValueError(f"{str(self.folder)!r} holds a record of trials without its {CONFIG}; give another folder")

    def _spread(self) -> None:
        """Has the evaluations done by workers, guarded and stored, as the config says."""
        config, schedule = self.config, self.problem.schedule
        store = None if config.store is None else EvaluationStore(config.store, config.store_timeout)
        if config.workers is not None:
            if isinstance(schedule, MultiTaskSchedule):
                raise ValueError("workers are for environments of one task")
            schedule.evaluator = self.workers = DistributedEvaluator(
                partial(evaluator_of, config),
                config.workers,
                address=config.ray_address,
                gpus=config.worker_gpus or 0.0,
                timeout=config.worker_timeout,
                local=schedule.evaluator,
            )
        for each in schedule.schedules.values() if isinstance(schedule, MultiTaskSchedule) else (schedule,):
            if config.workers is None:  # else the workers guard themselves
                each.evaluator = config.guarded(each.evaluator)
            if store is not None:
                each.evaluator = StoredEvaluator(each.evaluator, store)

    def execute(self) -> dict[str, Any]:
        """Searches to the end, from wherever the run stands, then compares what was found.

        Returns:
            What best.json holds.

        Raises:
            Interrupted: by Ctrl-C or a termination signal, after saving.
            FolderLockedError: another process is writing to the folder.
            ValueError: the record is damaged, or config.yaml has changed since the run began.
        """
        with FolderLock(self.folder), progress_bars(self.console) as progress, stop_on_signal() as stop:
            return self._execute(self._open_record(), progress, stop)

    def _open_record(self) -> TrialRecord:
        """The record of the run: a new one, with config.yaml, or the one that the run goes on with."""
        origin = origin_of(self.config, self.problem.space)
        if self.begins:
            self._check_free()
            TrialRecord.create(self.folder, origin)
            # Last: it makes the folder a run's.
            write_text(self.folder / CONFIG, config_text(self.config, self.resolved))
            self.begins = False
        elif self.repair:
            kept = repair(self.folder, origin)
            if self.console is not None:
                self.console.print(f"{kept} trials of the record are sound", highlight=False)
        record = TrialRecord(self.folder)
        changed = changes_since(record.origin, self.config)
        for name, (old, new) in differences(record.origin["settings"], origin["settings"]).items():
            changed.append(f"the agent's {name}: {old!r} became {new!r}")
        before = {k: v for k, v in (read_resolved(self.folder) or self.resolved).items() if k != "comparison"}
        for name, (old, new) in differences(before, {**self.resolved, "comparison": None}).items():
            changed.append(f"resolved {name}: {old!r} became {new!r}")
        if changed:
            raise ValueError(changed_config(self.folder, changed))
        return record

    def _execute(self, record: TrialRecord, progress: Progress, stop: list[int]) -> dict[str, Any]:
        config, agent = self.config, self.agent
        with closing(Recorder(self.folder, config, agent, record, progress=progress, stop=stop)) as recorder:
            try:
                recorder.restore()
                if agent.trials < config.trials:
                    learn = agent.learn
                    if config.asynchronous:
                        learn = partial(learn_asynchronously, agent, poll=recorder.save_or_stop)
                    elif self.workers is not None:
                        self.workers.poll = recorder.save_or_stop
                    learn(config.trials - agent.trials, recorder, self._seconds_left())
                recorder.finish()
                if not agent.trials:
                    raise ValueError(
                        f"simulated_seconds {config.simulated_seconds:g} end before the first trial does: give more"
                    )
            finally:
                if self.workers is not None:
                    self.workers.close()
        best, self.comparison = write_results(self.folder, config, agent, recorder.elapsed, progress, stop)
        return best

    def _seconds_left(self) -> float | None:
        limit = self.config.simulated_seconds
        if limit is None or not self.agent.trials:
            return limit
        return max(0.0, limit - float(simulated_seconds(self.agent.result.metrics).sum()))


def load_best(folder: Path) -> Architecture:
    """The best architecture of a run, finished or not: the one in best.json, or the best so far.

    Raises:
        ValueError: the folder holds no run, or no trial yet, or best.json is damaged.
    """
    trials = read_trials(folder)
    if not (folder / BEST).exists():
        return trials.best
    try:
        return trials.space.architecture(trials.tokens[json.loads((folder / BEST).read_text())["best"]["trial"]])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{str(folder / BEST)!r} is damaged: {error}; `nas-gym resume` writes it anew") from error
