"""A run: one search in a folder of its own, logged, saved, resumable, with its best architecture retrained.

The folder holds config.yaml (what was asked for), trials.csv (results only, appended and flushed), timings.csv
(clocks), TensorBoard's events, checkpoint.pt, and in the end best.json, the picture, the weights and model_card.md.

A run is resumed in one of two ways. Without shared weights it is played again from its seed, and the trials that
are on record are answered from trials.csv, so that this works for every agent. With shared weights the agent, the
evaluator and all random states are read from the checkpoint, and trials.csv is cut back to it. Either way the
finished trials.csv equals that of an uninterrupted run, to the bit, on CPU. An asynchronous run, which is not the same
twice, goes on from its checkpoint too.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import yaml
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from nas_gym.envs.multitask import base_arguments
from nas_gym.envs.multitask_vector import MultiTaskVectorEnv
from nas_gym.evaluators import (
    TRAINERS,
    DistributedEvaluator,
    Evaluations,
    EvaluationStore,
    Evaluator,
    MultiTaskEvaluator,
    MultiTaskSchedule,
    Schedule,
    StoredEvaluator,
    make_evaluator,
)
from nas_gym.evaluators.evaluator import joined
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.files import load_tensors, replacing, write_text
from nas_gym.registration import ENVIRONMENTS
from nas_gym.spaces import Architecture, SearchSpace, Tokens, make_space

from .agent import (
    NUM_ENVS,
    Agent,
    Callback,
    SearchResult,
    agent_class,
    load_hyperparameters,
    make_agent,
    simulated_seconds,
)
from .asynchronous import STALENESS, learn_asynchronously
from .model_card import model_card, traded_cost

if TYPE_CHECKING:
    from nas_gym.evaluators.morphism import MorphismEvaluator
    from nas_gym.evaluators.shared_weights import SharedWeightEvaluator
    from nas_gym.networks import Network

CHECKPOINT_SECONDS = 60.0
RECENT = 100  # trials that `rollout/ep_rew_mean` averages, as in Stable-Baselines3


@dataclass(frozen=True)
class RunConfig:
    """What a run is asked to do; written to config.yaml, and with the seed all that its results depend on.

    Attributes:
        env: id of a construction environment.
        agent: name of an agent.
        trials: architectures to try.
        task: name of the task; None takes the environment's own.
        seed: of the agent, the evaluator, and the split of the task.
        device: where networks run: ``"auto"`` takes CUDA if there is one.
        data_dir: where data sets are looked for.
        download: whether a data set that is missing may be downloaded.
        num_envs: trials that are scored together; None takes the agent's batch size.
        env_kwargs: further arguments of the environment: ``space``, ``schedule``, ``evaluator_kwargs``...
        hyperparameters: of the agent, where they differ from its settings for the environment.
        retrain_epochs: passes over train and validation split in retraining; None takes about 1,000 steps, at least 2
            passes and at most 20; 0 does not retrain.
        simulated_seconds: what the trials may take in all, by the seconds that a table has of them; None sets no limit
            but `trials`.
        workers: processes that evaluate, by Ray; None evaluates in this one. Of synchronous runs the results are the
            same.
        ray_address: of the Ray cluster whose machines the workers are on; None takes this machine.
        worker_gpus: GPUs of a worker, such as 0.25; without, it sees none.
        asynchronous: keep the workers busy: the agent asks for the next architecture as soon as one has ended. The
            order of the trials, and so the search, is not the same twice.
        store: path of an `EvaluationStore` that answers what is in it, and is given the rest.
    """

    env: str = "NAS-Cell-v0"
    agent: str = "reinforce"
    trials: int = 300
    task: str | None = None
    seed: int = 0
    device: str = "auto"
    data_dir: str | None = None
    download: bool = False
    num_envs: int | None = None
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    retrain_epochs: int | None = None
    simulated_seconds: float | None = None
    workers: int | None = None
    ray_address: str | None = None
    worker_gpus: float | None = None
    asynchronous: bool = False
    store: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("trials", 1), ("seed", 0), ("num_envs", 1), ("retrain_epochs", 0), ("workers", 1)):
            value = getattr(self, name)
            left_open = value is None and name in ("num_envs", "retrain_epochs", "workers")
            if not left_open and (not isinstance(value, int) or value < least):
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        seconds = self.simulated_seconds
        if seconds is not None and (isinstance(seconds, bool | str) or not seconds > 0):
            raise ValueError(f"simulated_seconds must be a positive number, got {seconds!r}")
        for name in ("env_kwargs", "hyperparameters"):
            if not isinstance(getattr(self, name), dict):
                raise ValueError(f"{name} must be a mapping of names to values, got {getattr(self, name)!r}")
        for name in ("env", "agent"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be a name, got {getattr(self, name)!r}")
        if self.env not in gym.registry:
            known = ", ".join(spec.id for spec in ENVIRONMENTS)
            raise ValueError(f"unknown environment {self.env!r}; known: {known}")
        agent_class(self.agent)
        self._check_workers()

    def _check_workers(self) -> None:
        for name in ("ray_address", "worker_gpus", "asynchronous"):
            if self.workers is None and getattr(self, name) not in (None, False):
                raise ValueError(f"{name} is for runs with workers: give their number")
        if self.asynchronous and self.agent not in STALENESS:
            raise ValueError(f"agent {self.agent!r} cannot search asynchronously; can: {', '.join(STALENESS)}")
        if self.asynchronous and self.num_envs is not None:
            raise ValueError(f"num_envs must be left out of an asynchronous run, got {self.num_envs}")


class Interrupted(Exception):
    """The run was asked to stop, and has saved itself."""


class Run:
    """One search in its folder.

    Args:
        folder: the run's folder.
        config: what to do; None reads config.yaml, to go on with a run.
        console: where progress is shown.

    Raises:
        ValueError: the folder already holds a run (with a config), or none (without one).
    """

    def __init__(self, folder: Path, config: RunConfig | None = None, console: Console | None = None) -> None:
        self.folder, self.console = Path(folder), console or Console()
        if config is not None:
            _check_free(self.folder)
        self.config = config or read_config(self.folder)
        self.arguments = self._arguments()
        env = self._make_env()
        agent = make_agent(self.config.agent, env, self.config.seed, self.config.hyperparameters)
        self.env: Any = env.unwrapped
        self.schedule: Schedule = self.env.schedule  # type: ignore[attr-defined]
        self.evaluator: Any = self.schedule.evaluator.unwrapped
        self.agent: Agent = agent
        if self.config.simulated_seconds is not None:
            one = agent.open_space.sample(np.random.default_rng(0), 1)
            simulated_seconds(self.schedule.evaluator.evaluate(one).metrics)  # complains where there are none
        self.workers: DistributedEvaluator | None = None
        self._spread()
        # Last, so that a config that cannot be run leaves no folder behind.
        if config is not None:
            _create(self.folder, config)

    def _arguments(self) -> dict[str, Any]:
        """What the environment is made with."""
        config = self.config
        arguments = environment_arguments(config)
        if config.task is not None:
            arguments["task"] = config.task
        if _trains(arguments):
            given = arguments.get("evaluator_kwargs", {})
            chosen = {key: getattr(config, key) for key in ("seed", "device", "data_dir", "download")}
            arguments["evaluator_kwargs"] = {**chosen, **given}
        schedule = arguments.get("schedule", "interleaved")
        named: dict[str, Any] = {"name": schedule} if isinstance(schedule, str) else dict(schedule)
        return {**arguments, "schedule": {"seed": config.seed, **named}}

    def _make_env(self) -> gym.vector.VectorEnv[Any, Any, Any]:
        num_envs = self.config.num_envs or self._batch_size()
        try:
            env = gym.make_vec(self.config.env, num_envs=num_envs, **self.arguments)
        except TypeError as error:
            raise ValueError(
                f"environment {self.config.env!r} cannot be made with {self.arguments}: {error}"
            ) from error
        if isinstance(env.unwrapped, MultiTaskVectorEnv):
            env.reset(seed=self.config.seed)  # which the draws of tasks follow from
        return env

    def _spread(self) -> None:
        """Has the evaluations done by workers, and stored, as the config says."""
        config, schedule = self.config, self.schedule
        store = None if config.store is None else EvaluationStore(config.store)
        if config.workers is not None:
            if isinstance(schedule, MultiTaskSchedule):
                raise ValueError("workers are for environments of one task")
            schedule.evaluator = self.workers = DistributedEvaluator(
                partial(evaluator_of, config.env, self.arguments),
                config.workers,
                address=config.ray_address,
                gpus=config.worker_gpus or 0.0,
                local=schedule.evaluator,
            )
        if store is not None:
            for each in schedule.schedules.values() if isinstance(schedule, MultiTaskSchedule) else (schedule,):
                each.evaluator = StoredEvaluator(each.evaluator, store)

    def _batch_size(self) -> int:
        if self.config.asynchronous:
            return 1
        settings = load_hyperparameters(self.config.agent, self.config.env, self.config.hyperparameters)
        size: int = getattr(settings, "batch_size", NUM_ENVS)
        return size

    def execute(self) -> dict[str, Any]:
        """Searches to the end, from wherever the run stands, then retrains.

        Returns:
            What best.json holds.

        Raises:
            Interrupted: by Ctrl-C or a termination signal, after saving.
        """
        with _progress(self.console) as progress, _stop_on_signal() as stop:
            recorder = Recorder(self, progress, stop)
            try:
                recorder.restore()
                if self.agent.trials < self.config.trials:
                    learn = partial(learn_asynchronously, self.agent) if self.config.asynchronous else self.agent.learn
                    learn(self.config.trials - self.agent.trials, recorder, self._seconds_left())
                recorder.save()
            finally:
                recorder.close()
                if self.workers is not None:
                    self.workers.close()
            return self._finish(progress, stop)

    def _seconds_left(self) -> float | None:
        limit = self.config.simulated_seconds
        if limit is None or not self.agent.trials:
            return limit
        return max(0.0, limit - float(simulated_seconds(self.agent.result.metrics).sum()))

    # ------------------------------------------------------------------ the best architecture

    def _finish(self, progress: Progress, stop: list[int]) -> dict[str, Any]:
        result = self.agent.result
        best = result.best_trial
        # A random architecture of the run stands beside the best, to tell how much the search has brought.
        tasks = result.metrics.get("task", np.zeros(len(result)))
        others = np.flatnonzero((result.tokens != result.tokens[best]).any(axis=1) & (tasks == tasks[best]))
        rng = np.random.default_rng(self.config.seed)
        chosen = {"best": best, **({"random": int(rng.choice(others))} if len(others) else {})}
        record = {role: _trial_record(result, trial) for role, trial in chosen.items()}
        if isinstance(self.evaluator, MultiTaskEvaluator):  # the task of the best has an evaluator of its own
            task, evaluator = list(self.evaluator.evaluators.items())[int(tasks[best])]
            record = {role: {**row, "task": task} for role, row in record.items()}
            self.evaluator = evaluator.unwrapped
        save_pictures(result.space.architecture(result.tokens[best]), self.folder / "architecture")
        for role, row in self._retrain(result, chosen, progress, stop).items():
            record[role]["retrained"] = row
        for role, row in self._look_up(result, chosen).items():
            record[role]["table"] = row
        write_text(self.folder / "best.json", json.dumps(record, indent=2) + "\n")
        cost = traded_cost(self)
        if cost is not None:
            from .plotting import pareto_picture, write_figures

            write_figures([pareto_picture(result, cost)], self.folder)
        wall_seconds = _last_clock(self.folder / "timings.csv")
        write_text(self.folder / "model_card.md", model_card(self, record, wall_seconds))
        return record

    def _look_up(self, result: SearchResult, chosen: Mapping[str, int]) -> dict[str, dict[str, Any]]:
        """The test accuracies of the chosen architectures, where the evaluator's table has them."""
        evaluator = self.evaluator
        if not isinstance(evaluator, TabularEvaluator) or evaluator.table.array(evaluator.task, "test") is None:
            return {}
        found = evaluator.test(result.tokens[list(chosen.values())]).tolist()
        accuracies = [None if math.isnan(accuracy) else accuracy for accuracy in found]
        return {role: {"test_accuracy": accuracy} for role, accuracy in zip(chosen, accuracies, strict=True)}

    def _retrain(
        self, result: SearchResult, chosen: Mapping[str, int], progress: Progress, stop: list[int]
    ) -> dict[str, dict[str, Any]]:
        """Trains the chosen architectures from scratch, in the evaluator's own network, and looks up the test split."""
        if not _trains(self.arguments) or self.config.retrain_epochs == 0:
            return {}
        rows = {}
        for role, trial in chosen.items():
            # Each one is done for good when its file is there: a run killed here does not train it again.
            path = self.folder / f"{role}.retrained.json"
            if not path.exists():
                architecture = result.space.architecture(result.tokens[trial])
                row = self._retrain_one(role, architecture, progress, stop)
                write_text(path, json.dumps(row, indent=2) + "\n")
            rows[role] = json.loads(path.read_text())
        return rows

    def _retrain_one(
        self, role: str, architecture: Architecture, progress: Progress, stop: list[int]
    ) -> dict[str, Any]:

        from nas_gym.evaluators.training import TrainingSettings, fit

        evaluator: SharedWeightEvaluator | MorphismEvaluator = self.evaluator
        task = evaluator.task.with_validation_in_training()
        network: Any = evaluator.new_network(architecture, task, self.config.seed)
        training = TrainingSettings(record=("test",), record_all_epochs=False)
        steps = max(len(task.train) // training.batch_size, 1)
        epochs = self.config.retrain_epochs or min(max(round(1000 / steps), 2), 20)
        training = dataclasses.replace(training, epochs=epochs)
        bar = progress.add_task(f"retraining the {role} one", total=epochs * steps, note="")

        def on_step() -> None:
            progress.advance(bar)
            if stop:
                raise Interrupted

        (curve,) = fit([network], task, training, seeds=[self.config.seed], on_step=on_step)
        save_weights(network, self.folder / f"{role}.safetensors", {"architecture": architecture.to_json()})
        return {
            "test_accuracy": None if curve.failed else float(curve.accuracy["test"][-1]),
            "failed": curve.reason or None,
            "epochs": epochs,
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "weights": f"{role}.safetensors",
        }


def environment_arguments(config: RunConfig) -> dict[str, Any]:
    """The arguments of a config's environment, those of its base included if it is one of many tasks."""
    arguments = {**gym.spec(config.env).kwargs, **config.env_kwargs}
    return {**base_arguments(arguments["base"]), **arguments} if "base" in arguments else arguments


def evaluator_of(env: str, arguments: Mapping[str, Any]) -> Evaluator:
    """The evaluator of an environment made with these arguments: what workers have."""
    evaluator: Evaluator = gym.make_vec(env, num_envs=1, **arguments).unwrapped.schedule.evaluator  # type: ignore[attr-defined]
    return evaluator


def _trains(arguments: Mapping[str, Any]) -> bool:
    """Whether an environment made with these trains networks on a task."""
    return arguments.get("table") is None and arguments.get("evaluator") in TRAINERS


class Recorder(Callback):
    """Writes a run's trials, clocks, scalars and checkpoints, shows its progress, and stops it when asked.

    Args:
        run: the run.
        progress: the bars to show.
        stop: turns non-empty when the run is to stop.
    """

    def __init__(self, run: Run, progress: Progress, stop: list[int]) -> None:
        self.run, self.progress, self.stop = run, progress, stop
        self.trials_path, self.checkpoint_path = run.folder / "trials.csv", run.folder / "checkpoint.pt"
        # Others are played again from their seed.
        self.checkpointed = run.schedule.evaluator.stateful or run.config.asynchronous
        self.recorded = 0  # trials that trials.csv holds
        self.best = 0.0, -math.inf  # fidelity and reward: only those of the highest fidelity compare
        self.unique, self.recent = set[bytes](), list[float]()
        self.clock = 0.0  # simulated seconds
        self.started = self.saved = time.monotonic()
        self.elapsed = 0.0  # seconds of earlier sessions
        self.writer: Any = None
        self.search_bar = progress.add_task("searching", total=run.config.trials, note="")
        self.warmup_bar: TaskID | None = None

    # ------------------------------------------------------------------ going on

    def restore(self) -> None:
        """Goes back to the last saved state; at the start of a run there is none."""
        from torch.utils.tensorboard import SummaryWriter

        rows = read_trials(self.trials_path, self.run.agent.space)
        if self.checkpointed:
            rows = rows.rows(slice(0, self._load_checkpoint()))
        _cut_rows(self.trials_path, len(rows))
        _cut_rows(self.run.folder / "timings.csv", len(rows))
        self.recorded = len(rows)
        self.elapsed = _last_clock(self.run.folder / "timings.csv")
        # Nothing is purged: what is logged twice is equal, and a step counts trials in some tags, updates in others.
        self.writer = SummaryWriter(str(self.run.folder))
        if self.checkpointed:
            self._count(rows)
        else:
            answer_from_record(self.run.schedule, rows)

    def _load_checkpoint(self) -> int:
        if not self.checkpoint_path.exists():
            return 0
        state = load_tensors(self.checkpoint_path)
        self.run.agent.load_state_dict(state["agent"])
        self.run.schedule.load_state_dict(state["schedule"])
        self.run.env.load_state_dict(state["env"])
        return self.run.agent.trials

    def save(self) -> None:
        """Writes the checkpoint of a run that goes on from one."""
        self.writer.flush()
        self.saved = time.monotonic()
        if self.checkpointed:
            import torch

            parts = {"agent": self.run.agent, "schedule": self.run.schedule, "env": self.run.env}
            state = {name: part.state_dict() for name, part in parts.items()}
            with replacing(self.checkpoint_path) as temporary:
                torch.save(state, temporary)

    def close(self) -> None:
        """Flushes what is buffered."""
        if self.writer is not None:
            self.writer.close()

    # ------------------------------------------------------------------ in the search

    def before_trials(self, agent: Agent) -> None:
        for statistics in self.run.schedule.prepare():
            self._show_training(int(statistics["pending_steps"]))
            self._scalars(statistics, _training_steps(self.run.schedule))
            self._save_or_stop()

    def after_trials(self, agent: Agent, trials: SearchResult, statistics: dict[str, float]) -> bool | None:
        first = agent.trials - len(trials)
        new = trials.rows(slice(max(self.recorded - first, 0), None))
        self._count(trials)
        if len(new):
            # The scalars first: a run killed in between logs them again; those of trials on record it does not.
            self._log(agent, statistics)
            self._append(new)
        self._save_or_stop()
        return None

    def _save_or_stop(self) -> None:
        if self.stop or time.monotonic() - self.saved > CHECKPOINT_SECONDS:
            self.save()
        if self.stop:
            raise Interrupted

    def _append(self, trials: SearchResult) -> None:
        first = self.recorded
        seconds = f"{self.elapsed + time.monotonic() - self.started:.3f}"
        clocks = [{"trial": str(first + row), "seconds": seconds} for row in range(len(trials))]
        # The clocks first: a run killed in between has one too many, which resuming cuts off.
        _append_rows(self.run.folder / "timings.csv", clocks)
        _append_rows(self.trials_path, trial_rows(trials, first))
        self.recorded += len(trials)

    def _count(self, trials: SearchResult) -> None:
        if len(trials):
            self.best = max(self.best, (float(trials.fidelities.max()), trials.best_reward))
        self.unique.update(row.tobytes() for row in trials.tokens)
        self.recent = [*self.recent, *trials.rewards.tolist()][-RECENT:]
        note, limit = f"best {self.best[1]:.4f}", self.run.config.simulated_seconds
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
        self._scalars(self.run.schedule.statistics, _training_steps(self.run.schedule))
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


# ---------------------------------------------------------------------- answering from the record


class RecordedEvaluator(Evaluator):
    """Answers what is on record from the record, and asks the evaluator for the rest only.

    Args:
        rows: the trials on record.
        evaluator: a deterministic evaluator.
    """

    def __init__(self, rows: SearchResult, evaluator: Evaluator) -> None:
        super().__init__(evaluator.space)
        self.rows, self.evaluator = rows, evaluator
        self.fidelities = evaluator.fidelities
        keys = zip((row.tobytes() for row in rows.tokens), rows.fidelities.tolist(), strict=True)
        self._index = {key: index for index, key in enumerate(keys)}

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        share = 1.0 if fidelity is None else fidelity
        found = np.array([self._index.get((row.tobytes(), share), -1) for row in tokens], dtype=np.int64)
        recorded = self._on_record(found[found >= 0])
        if (found >= 0).all():
            return recorded
        fresh = self.evaluator.evaluate(tokens[found < 0], fidelity=fidelity, parents=parents)
        # Where each row stands once the fresh ones follow those on record.
        order = np.argsort(np.argsort(found < 0, kind="stable"))
        return joined([recorded, fresh]).rows(order)

    def _on_record(self, index: NDArray[np.int64]) -> Evaluations:
        # The fidelity is told by the schedule that asks, the task by the environment.
        told = self.rows.metrics.items()
        columns = {name: column[index] for name, column in told if name not in ("fidelity", "task")}
        accuracy, failed = columns.pop("accuracy"), columns.pop("failed") > 0
        return Evaluations(accuracy, columns, failed, ("on record",) * len(index))


def answer_from_record(schedule: Schedule, rows: SearchResult) -> None:
    """Has a schedule ask its evaluator only for what is not on record; with many tasks, each has its own record."""
    if not len(rows):
        return
    if not isinstance(schedule, MultiTaskSchedule):
        schedule.evaluator = RecordedEvaluator(rows, schedule.evaluator)
        return
    for number, own in enumerate(schedule.schedules.values()):
        trials = rows.rows(rows.metrics["task"] == number)
        # What no trial of a task is told is a metric of others.
        metrics = {name: column for name, column in trials.metrics.items() if not np.isnan(column).all()}
        answer_from_record(own, dataclasses.replace(trials, metrics=metrics))


# ---------------------------------------------------------------------- files


def _check_free(folder: Path) -> None:
    if (folder / "config.yaml").exists():
        raise ValueError(
            f"{str(folder)!r} already holds a run; go on with it by `nas-gym resume`, or give another folder"
        )


def _create(folder: Path, config: RunConfig) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", yaml.safe_dump(dataclasses.asdict(config), sort_keys=False))


def read_config(folder: Path) -> RunConfig:
    """Reads a run's config.yaml.

    Raises:
        ValueError: there is none, or it is not one.
    """
    path = folder / "config.yaml"
    if not path.exists():
        raise ValueError(f"{str(folder)!r} holds no run: there is no config.yaml in it")
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} is not YAML: {error}") from error
    known = {known.name for known in dataclasses.fields(RunConfig)}
    if not isinstance(values, dict) or set(values) - known:
        raise ValueError(f"{str(path)!r} must map some of {', '.join(sorted(known))}; got {values!r}")
    return RunConfig(**values)


def trial_rows(trials: SearchResult, first: int) -> list[dict[str, str]]:
    """The rows of trials.csv: numbers as Python writes them, which reads back to the bit; NaN as nothing."""
    return [
        {
            "trial": str(first + row),
            "tokens": " ".join(map(str, trials.tokens[row].tolist())),
            "reward": repr(float(trials.rewards[row])),
            **{
                name: "" if math.isnan(column[row]) else repr(float(column[row]))
                for name, column in trials.metrics.items()
            },
        }
        for row in range(len(trials))
    ]


def read_trials(path: Path, space: SearchSpace) -> SearchResult:
    """Reads trials.csv; a last line that was cut off in the middle is passed over.

    Raises:
        ValueError: a line is not of the file's form.
    """
    try:
        names, *lines = list(csv.reader(_whole_lines(path))) or [[]]
        rows = [dict(zip(names, line, strict=True)) for line in lines]
        tokens = np.array([[int(token) for token in row["tokens"].split()] for row in rows], dtype=np.int64)
        metrics = {
            name: np.array([float(row[name] or "nan") for row in rows])
            for name in names
            if name not in ("trial", "tokens", "reward")
        }
        rewards = np.array([float(row["reward"]) for row in rows])
        tokens = tokens.reshape(len(rows), space.length)
        space.check(tokens)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is no record of trials in space {space.name!r}: {error}") from error
    return SearchResult(space, tokens, rewards, metrics)


def _whole_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    text = path.read_text()
    return text[: text.rfind("\n") + 1].splitlines(keepends=True)


def _cut_rows(path: Path, rows: int) -> None:
    """Keeps the header and the first rows of a table; without rows it goes."""
    lines = _whole_lines(path)
    if rows:
        write_text(path, "".join(lines[: rows + 1]))
    else:
        path.unlink(missing_ok=True)


def _last_clock(path: Path) -> float:
    lines = _whole_lines(path)
    return float(lines[-1].split(",")[1]) if len(lines) > 1 else 0.0


def _append_rows(path: Path, rows: list[dict[str, str]]) -> None:
    """Appends rows, or begins a table with them; a column that comes up later is empty in the rows before."""
    names = _column_names(path)
    new = [name for name in rows[0] if name not in names]
    if new and names:
        rows = [*csv.DictReader(_whole_lines(path)), *rows]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [*names, *new], restval="", lineterminator="\n")
    if new:
        writer.writeheader()
    writer.writerows(rows)
    if new and names:
        write_text(path, buffer.getvalue())
        return
    with path.open("a") as file:
        file.write(buffer.getvalue())


def _column_names(path: Path) -> list[str]:
    if not path.exists():
        return []
    with path.open() as file:
        return file.readline().strip().split(",")


def save_weights(network: Network, path: Path, about: Mapping[str, str]) -> None:
    """Writes the weights as safetensors, with what is told about them."""
    from safetensors.torch import save_file

    weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    with replacing(path) as temporary:
        save_file(weights, temporary, metadata=dict(about))


def _trial_record(result: SearchResult, trial: int) -> dict[str, Any]:
    architecture, fidelity = result.space.architecture(result.tokens[trial]), float(result.fidelities[trial])
    return {
        "trial": trial,
        "reward": float(result.rewards[trial]),
        "accuracy": float(result.metrics["accuracy"][trial]),
        **({"fidelity": fidelity} if fidelity < 1 else {}),
        "text": str(architecture),
        "architecture": json.loads(architecture.to_json()),
    }


def save_pictures(architecture: Architecture, stem: Path) -> list[Path]:
    """Draws an architecture as PNG and as SVG; returns both paths."""
    from nas_gym.envs.rendering import save_picture

    paths = [stem.with_name(f"{stem.name}{suffix}") for suffix in (".png", ".svg")]
    for path in paths:
        save_picture(architecture, path)
    return paths


def load_best(folder: Path) -> Architecture:
    """The best architecture of a run, finished or not.

    Raises:
        ValueError: the folder holds no run, or no trial yet.
    """
    config = read_config(folder)
    arguments = environment_arguments(config)
    space = make_space(arguments["space"])
    table = arguments.get("table")
    if table is not None or arguments.get("evaluator") == "table":
        # A table may be of another space of the kind: that of NAS-Bench-Graph's proteins has operations of its own.
        evaluator_kwargs = {"table": table, **arguments.get("evaluator_kwargs", {})}
        task = config.task or arguments.get("task") or arguments["tasks"][0]
        space = make_evaluator("table", space, task, evaluator_kwargs).space
    return read_trials(folder / "trials.csv", space).best


# ---------------------------------------------------------------------- progress and signals


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


@contextmanager
def _stop_on_signal() -> Iterator[list[int]]:
    """A list that holds the signal once Ctrl-C or a termination has asked to stop; asked twice, it stops at once."""
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    try:
        previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread, where signals do not arrive
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
