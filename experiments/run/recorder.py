"""Writes a run's trials, clocks, scalars and checkpoints while it searches."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress, TaskID

from nas_gym.agents import Agent, Callback, SearchResult
from nas_gym.agents.budget import simulated_seconds
from nas_gym.evaluators import Schedule
from nas_gym.experiments.run.progress import Interrupted
from nas_gym.experiments.run.replay import answer_from_record
from nas_gym.experiments.run.trials import append_rows, cut_rows, last_clock, read_trials, trial_rows
from nas_gym.files import load_tensors, replacing

CHECKPOINT_SECONDS = 60.0
RECENT = 100  # trials that `rollout/ep_rew_mean` averages, as in Stable-Baselines3


class Recorder(Callback):
    """Writes a run's trials, clocks, scalars and checkpoints, shows its progress, and stops it when asked.

    Args:
        folder: of the run.
        agent: what searches.
        trials: how many it is to try.
        simulated_seconds: what the trials may take in all; None sets no limit.
        asynchronous: whether the search is not the same twice, and so goes on from checkpoints.
        progress: the bars to show.
        stop: turns non-empty when the run is to stop.
    """

    def __init__(
        self,
        folder: Path,
        agent: Agent,
        *,
        trials: int,
        simulated_seconds: float | None,
        asynchronous: bool,
        progress: Progress,
        stop: list[int],
    ) -> None:
        self.folder, self.agent, self.progress, self.stop = folder, agent, progress, stop
        self.schedule, self.limit = agent.problem.schedule, simulated_seconds
        self.trials_path, self.checkpoint_path = folder / "trials.csv", folder / "checkpoint.pt"
        # Others are played again from their seed.
        self.checkpointed = self.schedule.evaluator.stateful or asynchronous
        self.recorded = 0  # trials that trials.csv holds
        self.best = 0.0, -math.inf  # fidelity and reward: only those of the highest fidelity compare
        self.unique, self.recent = set[bytes](), list[float]()
        self.clock = 0.0  # simulated seconds
        self.started = self.saved = time.monotonic()
        self.elapsed = 0.0  # seconds of earlier sessions
        self.writer: Any = None
        self.search_bar = progress.add_task("searching", total=trials, note="")
        self.warmup_bar: TaskID | None = None

    @property
    def parts(self) -> dict[str, Any]:
        """What has a state that a checkpoint keeps."""
        env: Any = self.agent.env.unwrapped
        return {"agent": self.agent, "schedule": self.schedule, "env": env}

    # ------------------------------------------------------------------ going on

    def restore(self) -> None:
        """Goes back to the last saved state; at the start of a run there is none."""
        from torch.utils.tensorboard import SummaryWriter

        rows = read_trials(self.trials_path, self.agent.space)
        if self.checkpointed:
            rows = rows.rows(slice(0, self._load_checkpoint()))
        cut_rows(self.trials_path, len(rows))
        cut_rows(self.folder / "timings.csv", len(rows))
        self.recorded = len(rows)
        self.elapsed = last_clock(self.folder / "timings.csv")
        # Nothing is purged: what is logged twice is equal, and a step counts trials in some tags, updates in others.
        self.writer = SummaryWriter(str(self.folder))
        if self.checkpointed:
            self._count(rows)
        else:
            answer_from_record(self.schedule, rows)

    def _load_checkpoint(self) -> int:
        if not self.checkpoint_path.exists():
            return 0
        state = load_tensors(self.checkpoint_path)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        return self.agent.trials

    def save(self) -> None:
        """Writes the checkpoint of a run that goes on from one."""
        self.writer.flush()
        self.saved = time.monotonic()
        if self.checkpointed:
            import torch

            state = {name: part.state_dict() for name, part in self.parts.items()}
            with replacing(self.checkpoint_path) as temporary:
                torch.save(state, temporary)

    def close(self) -> None:
        """Flushes what is buffered."""
        if self.writer is not None:
            self.writer.close()

    # ------------------------------------------------------------------ in the search

    def before_trials(self, agent: Agent) -> None:
        for statistics in self.schedule.prepare():
            self._show_training(int(statistics["pending_steps"]))
            self._scalars(statistics, _training_steps(self.schedule))
            self.save_or_stop()

    def after_trials(self, agent: Agent, trials: SearchResult, statistics: dict[str, float]) -> bool | None:
        first = agent.trials - len(trials)
        new = trials.rows(slice(max(self.recorded - first, 0), None))
        self._count(trials)
        if len(new):
            # The scalars first: a run killed in between logs them again; those of trials on record it does not.
            self._log(agent, statistics)
            self._append(new)
        self.save_or_stop()
        return None

    def save_or_stop(self) -> None:
        """Saves when it is time to, or when asked to stop, and then raises `Interrupted`."""
        if self.stop or time.monotonic() - self.saved > CHECKPOINT_SECONDS:
            self.save()
        if self.stop:
            raise Interrupted

    def _append(self, trials: SearchResult) -> None:
        first = self.recorded
        seconds = f"{self.elapsed + time.monotonic() - self.started:.3f}"
        clocks = [{"trial": str(first + row), "seconds": seconds} for row in range(len(trials))]
        # The clocks first: a run killed in between has one too many, which resuming cuts off.
        append_rows(self.folder / "timings.csv", clocks)
        append_rows(self.trials_path, trial_rows(trials, first))
        self.recorded += len(trials)

    def _count(self, trials: SearchResult) -> None:
        if len(trials):
            self.best = max(self.best, (float(trials.fidelities.max()), trials.best_reward))
        self.unique.update(row.tobytes() for row in trials.tokens)
        self.recent = [*self.recent, *trials.rewards.tolist()][-RECENT:]
        note, limit = f"best {self.best[1]:.4f}", self.limit
        if limit is not None:
            self.clock += float(simulated_seconds(trials.metrics).sum())
            note += f", {self.clock:,.0f} of {limit:,.0f} s"
        self.progress.update(self.search_bar, advance=len(trials), note=note)

    def _log(self, agent: Agent, statistics: dict[str, float]) -> None:
        seconds = time.monotonic() - self.started
        scalars = {
            "rollout/ep_rew_mean": float(np.mean(self.recent)),
            "search/best_reward": self.best[1],
            "search/unique_architectures": float(len(self.unique)),
            "time/fps": agent.trials * agent.space.length / max(self.elapsed + seconds, 1e-9),
        }
        self._scalars({**scalars, **statistics}, agent.trials)
        self._scalars(self.schedule.statistics, _training_steps(self.schedule))
        self.writer.flush()

    def _scalars(self, scalars: Mapping[str, float], step: int) -> None:
        for tag, value in scalars.items():
            if "/" in tag:
                self.writer.add_scalar(tag, value, step)

    def _show_training(self, pending: int) -> None:
        if self.warmup_bar is None:
            self.warmup_bar = self.progress.add_task("training shared weights", total=pending + 1, note="")
        self.progress.advance(self.warmup_bar)
        if pending == 0:
            self.progress.remove_task(self.warmup_bar)
            self.warmup_bar = None


def _training_steps(schedule: Schedule) -> int:
    return int(getattr(schedule.evaluator.unwrapped, "steps", 0))
