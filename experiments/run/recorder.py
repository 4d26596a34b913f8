"""Writes a run's trials, scalars and checkpoints while it searches."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from nas_gym.agents import Agent, Callback, Proposal, SearchResult
from nas_gym.agents.budget import simulated_seconds
from nas_gym.evaluators import Schedule
from nas_gym.experiments.run.checkpoint import Checkpoint
from nas_gym.experiments.run.config import RunConfig
from nas_gym.experiments.run.progress import Interrupted, Progress
from nas_gym.experiments.run.record import TrialRecord
from nas_gym.experiments.run.replay import answer_from_record
from nas_gym.experiments.run.tensorboard import Curves
from nas_gym.experiments.run.trials import export_trials
from nas_gym.spaces import Architecture

CHECKPOINT_SECONDS = 60.0
EXPORT_SHARE = 0.05  # of the time: an export takes longer with every trial
RECENT = 100  # trials that `rollout/ep_rew_mean` averages, as in Stable-Baselines3


class Recorder(Callback):
    """Writes a run's trials, scalars and checkpoints, shows its progress, and stops it when asked.

    Args:
        folder: of the run.
        config: what the run is asked to do.
        agent: what searches.
        record: of its trials.
        progress: the bars to show.
        stop: turns non-empty when the run is to stop.
    """

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        agent: Agent,
        record: TrialRecord,
        *,
        progress: Progress,
        stop: list[int],
    ) -> None:
        self.folder, self.agent, self.record, self.progress, self.stop = folder, agent, record, progress, stop
        self.config, self.schedule = config, agent.problem.schedule
        # Others are played again from their seed.
        self.checkpointed = self.schedule.evaluator.stateful or config.asynchronous
        self.checkpoint = Checkpoint(folder, record)
        self.on_record = record.recorded.result.tokens  # when the run was begun or resumed
        self.best = 0.0, -math.inf  # fidelity and reward: only those of the highest fidelity compare
        self.best_architecture: Architecture | None = None
        self.shown: Architecture | None = None  # in TensorBoard
        self.unique, self.recent = set[bytes](), list[float]()
        self.clock = 0.0  # simulated seconds
        self.started = self.saved = time.monotonic()
        self.export_due = self.started
        self.earlier = 0.0  # seconds of earlier sessions
        self.curves: Curves | None = None
        self.search_bar = progress.add_task("searching", total=config.trials)
        self.warmup_bar: Any = None

    @property
    def parts(self) -> dict[str, Any]:
        """What has a state that a checkpoint keeps."""
        env: Any = self.agent.env.unwrapped
        return {"agent": self.agent, "schedule": self.schedule, "env": env}

    # ------------------------------------------------------------------ going on

    def restore(self) -> None:
        """Goes back to the last saved state; at the start of a run there is none."""
        if self.checkpointed:
            self.record.cut(self.checkpoint.load(self.parts))
        recorded = self.record.recorded
        self.on_record = recorded.result.tokens
        self.earlier = float(recorded.seconds[-1]) if len(recorded.seconds) else 0.0
        # Nothing is purged: what is logged twice is equal, and a step counts trials in some tags, updates in others.
        self.curves = Curves(self.folder)
        self.curves.settings(self.config, self.agent)
        if self.checkpointed:
            self._count(recorded.result)
        else:
            answer_from_record(self.schedule, recorded.result)

    def save(self, last: bool = False) -> None:
        """Brings all that was recorded to the disk, and writes the checkpoint of a run that goes on from one.

        Unless it is the last time, trials are exported only as often as `EXPORT_SHARE` allows.
        """
        self.saved = time.monotonic()
        assert self.curves is not None
        if self.best_architecture is not None and self.best_architecture != self.shown:
            self.shown = self.best_architecture
            self.curves.architecture(self.shown, self.agent.trials)
        self.curves.flush()
        self.record.sync()
        if last or self.saved >= self.export_due:
            export_trials(self.folder)
            now = time.monotonic()
            self.export_due = now + (now - self.saved) / EXPORT_SHARE
        if self.checkpointed:
            self.checkpoint.save(self.parts)

    def finish(self) -> None:
        """Logs how well the weights rank that the search ended with, and saves."""
        self._scalars(self.schedule.quality(), _training_steps(self.schedule))
        self.save(last=True)

    def close(self) -> None:
        """Closes the files."""
        self.record.stop()  # what the budget has cut, or a signal
        self.record.close()
        if self.curves is not None:
            self.curves.close()

    # ------------------------------------------------------------------ in the search

    def before_trials(self, agent: Agent) -> None:
        for statistics in chain(self.schedule.prepare(), agent.prepare()):
            self._show_training(int(statistics["pending_steps"]))
            self._scalars(statistics, _training_steps(self.schedule))
            self.save_or_stop()

    def proposed(self, agent: Agent, proposal: Proposal) -> None:
        known = len(self.on_record) - agent.trials
        if known < len(proposal):
            self.record.begin(proposal.rows(slice(max(known, 0), None)))

    def after_trials(self, agent: Agent, trials: SearchResult, statistics: dict[str, float]) -> bool | None:
        first = agent.trials - len(trials)
        self._check_repetition(trials, first)
        new = trials.rows(slice(max(len(self.on_record) - first, 0), None))
        self._count(trials)
        if len(new):
            # The scalars first: a run killed in between logs them again; those of trials on record it does not.
            self._log(agent, statistics)
            self.record.add(new, self.elapsed)
        self.save_or_stop()
        return None

    def save_or_stop(self) -> None:
        """Saves when it is time to, or when asked to stop, and then raises `Interrupted`."""
        if self.stop or time.monotonic() - self.saved > CHECKPOINT_SECONDS:
            self.save(last=bool(self.stop))
        if self.stop:
            raise Interrupted

    def _check_repetition(self, trials: SearchResult, first: int) -> None:
        """A run that is played again must propose what is on record."""
        known = self.on_record[first : first + len(trials)]
        (differs,) = np.nonzero((trials.tokens[: len(known)] != known).any(axis=1))
        if len(differs):
            raise ValueError(
                f"trial {first + differs[0]} of {str(self.folder)!r} is {known[differs[0]].tolist()} on record, but "
                f"{trials.tokens[differs[0]].tolist()} when it is played again: another version of nas_gym, its "
                "dependencies or the processor is at work here; go on with what the run was begun with"
            )

    @property
    def elapsed(self) -> float:
        """The seconds of the run so far, earlier sessions included."""
        return self.earlier + time.monotonic() - self.started

    def _count(self, trials: SearchResult) -> None:
        if len(trials) and (found := (float(trials.fidelities.max()), trials.best_reward)) > self.best:
            self.best, self.best_architecture = found, trials.best
        self.unique.update(row.tobytes() for row in trials.tokens)
        self.recent = [*self.recent, *trials.rewards.tolist()][-RECENT:]
        note, limit = "", self.config.simulated_seconds
        if math.isfinite(self.best[1]):
            note = f"best {self.best[1]:.4f}"
        if limit is not None:
            self.clock += float(simulated_seconds(trials.metrics).sum())
            note += f", {self.clock:,.0f} of {limit:,.0f} s"
        self.progress.update(self.search_bar, advance=len(trials), note=note)

    def _log(self, agent: Agent, statistics: dict[str, float]) -> None:
        scalars = {
            "rollout/ep_rew_mean": float(np.mean(self.recent)),
            "search/best_reward": self.best[1],
            "search/unique_architectures": float(len(self.unique)),
            "time/fps": agent.trials * agent.space.length / max(self.elapsed, 1e-9),
        }
        self._scalars({**scalars, **statistics}, agent.trials)
        self._scalars(self.schedule.statistics, _training_steps(self.schedule))

    def _scalars(self, scalars: Mapping[str, float], step: int) -> None:
        assert self.curves is not None
        self.curves.scalars(scalars, step)

    def _show_training(self, pending: int) -> None:
        if self.warmup_bar is None:
            self.warmup_bar = self.progress.add_task("training shared weights", total=pending + 1)
        self.progress.advance(self.warmup_bar)
        if pending == 0:
            self.progress.remove_task(self.warmup_bar)
            self.warmup_bar = None


def _training_steps(schedule: Schedule) -> int:
    return int(getattr(schedule.evaluator.unwrapped, "steps", 0))
