"""`nas-gym benchmark`: every agent on every table, many seeds, in parallel.

A run is one search with one seed. Each lies in a folder of its own, ``runs/<environment>/<agent>/seed<number>``, in
the form of `runs`: config.yaml, trials.csv, and when it is done run.json, with the clocks. What is done is not done
again, so that a benchmark killed at any moment goes on with what is missing. The results are those of the folders
alone, whatever the number of workers and however often it was interrupted.

The test split is looked up when all searches are over, for the architecture that was the best so far at each trial.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import json
import multiprocessing
import os
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import yaml
from numpy.typing import NDArray

import nas_gym
from nas_gym.evaluators.distributed import start_ray
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.files import file_name, write_text
from nas_gym.registration import ENVIRONMENTS
from nas_gym.spaces import make_space
from nas_gym.tables import DEFAULTS, open_table
from nas_gym.tables.bench_graph import BENCH_GRAPH, PROTEINS

from .agent import AGENTS, Agent, SearchResult, load_hyperparameters, make_agent
from .pareto import COSTS
from .runs import RunConfig, read_config, read_trials, trial_rows

Floats = NDArray[np.float64]

RANDOM = "random"
SUITES = Path(__file__).parent / "suites"
SEEDS_PER_JOB = 5  # few enough that the workers end together


# ---------------------------------------------------------------------- what is asked for


@dataclass(frozen=True)
class AgentEntry:
    """An agent as it stands in the leaderboard.

    Attributes:
        name: one of `AGENTS`.
        hyperparameters: where they differ from the agent's settings for the environment.
        label: what it is called; with different labels, an agent can stand in a table several times.

    Raises:
        ValueError: an unknown name, or a label that is empty or holds ``=`` or ``@``.
    """

    name: str
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    def __post_init__(self) -> None:
        if self.name not in AGENTS:
            raise ValueError(f"unknown agent {self.name!r}; known: {', '.join(AGENTS)}")
        if not isinstance(self.hyperparameters, Mapping):
            raise ValueError(f"hyperparameters of {self.name!r} must be a mapping, got {self.hyperparameters!r}")
        if not self.label:
            object.__setattr__(self, "label", self._unlabelled)
        elif not isinstance(self.label, str) or (set("=@") & set(self.label) and self.label != self._unlabelled):
            raise ValueError(f"label must be text without = and @, got {self.label!r}")

    @property
    def _unlabelled(self) -> str:
        settings = ",".join(f"{key}:{json.dumps(value)}" for key, value in self.hyperparameters.items())
        return f"{self.name}@{settings}" if settings else self.name

    @property
    def text(self) -> str:
        """The entry as the command line takes it: ``LABEL=NAME@KEY:VALUE,...``."""
        return self._unlabelled if self.label == self._unlabelled else f"{self.label}={self._unlabelled}"


@dataclass(frozen=True)
class Environment:
    """A task of a table, in the environment that plays it.

    Attributes:
        id: of a registered environment.
        task: of the table.
        table: name or path of the table.
    """

    id: str
    task: str
    table: str

    def __str__(self) -> str:
        return f"{self.id}:{self.task}"


@dataclass(frozen=True)
class Suite:
    """A benchmark: each agent plays each environment with seeds 0 to `seeds` - 1.

    Attributes:
        agents: with different labels; random search is among them.
        environments: tasks of tables.
        seeds: runs of each agent in each environment.
        trials: architectures a run.

    Raises:
        ValueError: labels or environments that stand twice, none at all, or numbers below 1.
    """

    agents: tuple[AgentEntry, ...]
    environments: tuple[Environment, ...]
    seeds: int
    trials: int

    def __post_init__(self) -> None:
        for name in ("seeds", "trials"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        for what, keys in (
            ("agents", [file_name(entry.label) for entry in self.agents]),
            ("environments", [str(environment) for environment in self.environments]),
        ):
            if not keys or len(set(keys)) < len(keys):
                raise ValueError(
                    f"{what} must be some, all different (agents by label); got {', '.join(keys) or 'none'}"
                )

    def to_dict(self) -> dict[str, Any]:
        """What `make_suite` makes the suite of."""
        return {
            "agents": [dataclasses.asdict(entry) for entry in self.agents],
            "environments": [dataclasses.asdict(environment) for environment in self.environments],
            "seeds": self.seeds,
            "trials": self.trials,
        }

    def runs(self) -> Iterator[tuple[Environment, AgentEntry, int]]:
        """Every run: what it plays, who, and its seed."""
        for environment in self.environments:
            for entry in self.agents:
                for seed in range(self.seeds):
                    yield environment, entry, seed


def make_suite(spec: str | os.PathLike[str] | Mapping[str, Any], **overrides: Any) -> Suite:
    """Makes a suite of a mapping, or of a YAML file that holds one.

    Args:
        spec: ``"quick"``, ``"full"``, the path of a file, or the mapping itself, of ``agents`` (names, or mappings of
            the fields of `AgentEntry`; all of `AGENTS` by default), ``environments`` (``"ID"`` for all tasks of its
            table, ``"ID:TASK"``, or mappings of the fields of `Environment`; by default all that have a table that
            needs no path, and those that `table` fits, but for those in ``except``, as ``"ID:TASK"``), ``table`` (a
            path or a name), ``seeds`` and ``trials``.
        **overrides: keys that take precedence; None leaves what is there.

    Raises:
        ValueError: there is no such suite, or something in it is not understood.
    """
    values = dict(spec) if isinstance(spec, Mapping) else _read_suite(spec)
    values |= {key: value for key, value in overrides.items() if value is not None}
    known = ("agents", "environments", "except", "table", "seeds", "trials")
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"a suite has no {', '.join(unknown)}; known: {', '.join(known)}")
    agents = tuple(_made(AgentEntry, "name", entry) for entry in values.get("agents") or AGENTS)
    if RANDOM not in {entry.name for entry in agents}:  # the floor stands in every table
        agents = (AgentEntry(RANDOM), *agents)
    environments = _environments(values.get("environments") or (), values.get("table"))
    if not values.get("environments"):
        left_out = values.get("except") or ()
        environments = tuple(environment for environment in environments if str(environment) not in left_out)
    return Suite(agents, environments, values.get("seeds", 10), values.get("trials", 150))


def _read_suite(spec: str | os.PathLike[str]) -> dict[str, Any]:
    path = SUITES / f"{spec}.yaml"
    if not path.is_file():
        path = Path(spec)
    if not path.is_file():
        known = ", ".join(sorted(suite.stem for suite in SUITES.glob("*.yaml")))
        raise ValueError(f"suite {os.fspath(spec)!r} is neither a file nor one of {known}")
    return read_mapping(path)


def read_mapping(path: Path) -> dict[str, Any]:
    """Reads a YAML file that holds a mapping.

    Raises:
        ValueError: it does not.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{str(path)!r} must hold a mapping, got {values!r}")
    return values


def _made(kind: type[Any], key: str, entry: Any) -> Any:
    if isinstance(entry, kind):
        return entry
    try:
        return kind(**(entry if isinstance(entry, Mapping) else {key: entry}))
    except TypeError as error:
        raise ValueError(f"{entry!r} is no entry of a suite: {error}") from error


def _environments(entries: Sequence[Any], table: str | None) -> tuple[Environment, ...]:
    """The tasks that the entries stand for, each in the environment that it is played in."""
    spaces = {spec.id: make_space(spec.space) for spec in ENVIRONMENTS if spec.base is None}
    tables = {id: DEFAULTS[space.name] for id, space in spaces.items() if space.name in DEFAULTS}
    if table is not None:
        fits = {id: table for id, space in spaces.items() if type(space) is type(open_table(table).space)}
        if not fits:
            raise ValueError(f"table {table!r} is of the space {open_table(table).space}, which no environment has")
        tables |= fits
    found = []
    for entry in entries or tables:
        if isinstance(entry, str):
            id, _, task = entry.partition(":")
            if id not in tables:
                raise ValueError(f"environment {id!r} has no table, give one; those with a table: {', '.join(tables)}")
            found += [Environment(id, name, tables[id]) for name in ([task] if task else _tasks(tables[id]))]
        else:
            found.append(_made(Environment, "id", entry))
    for environment in found:
        open_evaluator(environment)  # a wrong task or table is told before anything runs
    return tuple(found)


def _tasks(table: str) -> tuple[str, ...]:
    tasks = open_table(table).tasks
    return (*tasks, PROTEINS) if table == BENCH_GRAPH else tasks


@functools.cache
def open_evaluator(environment: Environment) -> TabularEvaluator:
    """What scores the environment's architectures; a process opens it once."""
    if environment.id not in gym.registry:
        raise ValueError(
            f"unknown environment {environment.id!r}; known: {', '.join(spec.id for spec in ENVIRONMENTS)}"
        )
    space = make_space(gym.spec(environment.id).kwargs["space"])
    return TabularEvaluator(space, table=environment.table, task=environment.task)


# ---------------------------------------------------------------------- what a run is


def run_config(suite: Suite, environment: Environment, entry: AgentEntry, seed: int) -> RunConfig:
    """What a run is asked to do, with all hyperparameters.

    Raises:
        ValueError: a hyperparameter is unknown or out of range.
    """
    settings = load_hyperparameters(entry.name, environment.id, entry.hyperparameters)
    return RunConfig(
        env=environment.id,
        agent=entry.name,
        trials=suite.trials,
        task=environment.task,
        seed=seed,
        device="cpu",
        # An agent without batches learns from one trial before it asks for the next.
        num_envs=getattr(settings, "batch_size", 1),
        env_kwargs={"table": environment.table},
        hyperparameters=json.loads(json.dumps(dataclasses.asdict(settings))),
        retrain_epochs=0,
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
    if (folder / "config.yaml").read_text() != _config_text(config) and (found := read_config(folder)) != config:
        differs = ", ".join(_differences(dataclasses.asdict(found), dataclasses.asdict(config)))
        raise ValueError(f"{str(folder)!r} holds a run of other settings ({differs}): give another --out, or delete it")
    return True


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The keys whose values differ, those of mappings behind a dot."""
    names: list[str] = []
    for key in {**wanted, **found}:
        left, right = found.get(key), wanted.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            names += [f"{key}.{name}" for name in _differences(left, right)]
        elif left != right:
            names.append(key)
    return names


def _config_text(config: RunConfig) -> str:
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)


# ---------------------------------------------------------------------- running


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
class Problem:
    """A run that is not counted.

    Attributes:
        folder: of the run.
        reason: one line.
        traceback: empty where the agent cannot play the environment, which is no failure.
    """

    folder: Path
    reason: str
    traceback: str = ""


def run_benchmark(
    suite: Suite,
    out: Path,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    ray_address: str | None = None,
) -> list[Problem]:
    """Does the runs that are missing.

    Args:
        suite: what is asked for.
        out: the folder of the benchmark.
        workers: processes; by default one a core.
        on_progress: called with the number of runs that are over, and of all.
        ray_address: of a Ray cluster that does the runs, as many at once as it has cores; `workers` is not read then.
            Tables that are files must be there on every machine.

    Returns:
        The runs that failed or are not applicable.

    Raises:
        ValueError: a hyperparameter is wrong, or the folder holds runs of other settings.
        ChildProcessError: a worker was killed.
    """
    total = len(suite.agents) * len(suite.environments) * suite.seeds
    jobs = missing_jobs(suite, out)
    over = total - sum(len(job.folders) for job in jobs)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "suite.yaml", yaml.safe_dump(suite.to_dict(), sort_keys=False))
    tell = on_progress or (lambda done, total: None)
    tell(over, total)
    problems: list[Problem] = []
    spread = (
        run_jobs(jobs, workers or os.cpu_count() or 1) if ray_address is None else run_jobs_by_ray(jobs, ray_address)
    )
    with closing(spread) as finished:
        for job, found in finished:
            problems += found
            over += len(job.folders)
            tell(over, total)
    return problems


def missing_jobs(suite: Suite, out: Path) -> list[Job]:
    """What is to be done: the first seeds of all before the next, so that what there is can be compared at any time."""
    jobs = []
    for first in range(0, suite.seeds, SEEDS_PER_JOB):
        seeds = range(first, min(first + SEEDS_PER_JOB, suite.seeds))
        for environment in suite.environments:
            for entry in suite.agents:
                config = run_config(suite, environment, entry, first)
                configs = {
                    run_folder(out, environment, entry, seed): dataclasses.replace(config, seed=seed) for seed in seeds
                }
                missing = {folder: config for folder, config in configs.items() if not is_done(folder, config)}
                if missing:
                    jobs.append(Job(environment, tuple(missing.values()), tuple(missing)))
    return jobs


def run_jobs(jobs: Sequence[Job], workers: int) -> Generator[tuple[Job, list[Problem]]]:
    """Does the jobs in processes, in this one if it is to be alone; yields each as it ends."""
    if workers == 1:
        yield from ((job, run_job(job)) for job in jobs)
        return
    # Threads of torch do not survive a fork.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start_worker)
    running = {pool.submit(run_job, job): job for job in jobs}
    try:
        for future in as_completed(running):
            yield running[future], future.result()
    except BrokenProcessPool as error:
        raise ChildProcessError("a worker was killed, perhaps for want of memory; the same command goes on") from error
    finally:
        for future in running:  # `shutdown` alone forgets to, if the pool is gone before its thread has noticed
            future.cancel()
        pool.shutdown(wait=False)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker without a word
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def run_jobs_by_ray(jobs: Sequence[Job], address: str) -> Generator[tuple[Job, list[Problem]]]:
    """Does the jobs on a Ray cluster, one a core; yields each as it ends, with the files of its runs in their folders.

    A job whose machine or process is lost is done again elsewhere, up to three times.

    Raises:
        ValueError: Ray is not installed, or there is no cluster at the address.
        ChildProcessError: a job was lost each time.
    """
    started = start_ray(address, cpus=0)
    import ray

    remote: Any = ray.remote(num_cpus=1, max_retries=3)(run_job_elsewhere)
    running = {remote.remote(job): job for job in jobs}
    try:
        while running:
            (reference,), _ = ray.wait(list(running))
            try:
                problems, files = ray.get(reference)
            except ray.exceptions.RayTaskError:
                raise
            except ray.exceptions.RayError as error:
                raise ChildProcessError(f"a job was lost each time: {error}; the same command goes on") from error
            for path, content in files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.with_name("failure.txt").unlink(missing_ok=True)
                write_text(path, content)
            yield running.pop(reference), problems
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        if started:
            ray.shutdown()


def run_job_elsewhere(job: Job) -> tuple[list[Problem], dict[Path, str]]:
    """Does the runs of a job on another machine.

    Returns:
        Its problems, and the files that belong into the folders of its runs, those that say that a run is done last.
    """
    with tempfile.TemporaryDirectory() as made:
        folders = {Path(made) / str(number): folder for number, folder in enumerate(job.folders)}
        problems = run_job(dataclasses.replace(job, folders=tuple(folders)))
        written = sorted(Path(made).glob("*/*"), key=lambda path: path.name == "run.json")
        files = {folders[path.parent] / path.name: path.read_text() for path in written}
        return [dataclasses.replace(problem, folder=folders[problem.folder]) for problem in problems], files


def run_job(job: Job) -> list[Problem]:
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


def _run(environment: Environment, config: RunConfig, folder: Path) -> Problem | None:
    started = time.perf_counter(), time.process_time()
    try:
        agent = _make_agent(environment, config)
    except ValueError as error:
        return Problem(folder, str(error))
    try:
        result = agent.learn(config.trials)
        if len(result) != config.trials:
            raise RuntimeError(f"the agent ended after {len(result)} of {config.trials} trials")
    except Exception as error:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "failure.txt", traceback.format_exc())
        return Problem(folder, f"{type(error).__name__}: {error}", traceback.format_exc())
    clocks = {"wall_seconds": time.perf_counter() - started[0], "cpu_seconds": time.process_time() - started[1]}
    save_run(folder, config, result, clocks)
    return None


def _make_agent(environment: Environment, config: RunConfig) -> Agent:
    evaluator = open_evaluator(environment)
    arguments: dict[str, Any] = {"space": evaluator.space, "evaluator": evaluator, "table": None}
    env = gym.make_vec(config.env, num_envs=config.num_envs or 1, **arguments)
    return make_agent(config.agent, env, config.seed, config.hyperparameters)


def save_run(folder: Path, config: RunConfig, result: SearchResult, clocks: Mapping[str, float]) -> None:
    """Writes a run; run.json last, which says that all is there."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", _config_text(config))
    write_text(folder / "trials.csv", csv_text(trial_rows(result, 0)))
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    record = {**clocks, "finished": finished, "nas_gym": nas_gym.__version__}
    write_text(folder / "run.json", json.dumps(record) + "\n")
    (folder / "failure.txt").unlink(missing_ok=True)


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of equal keys as a CSV file."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


# ---------------------------------------------------------------------- what came out


@dataclass(frozen=True)
class Trace:
    """A finished run, trial by trial, each with the incumbent: the best architecture so far, by what the search saw.

    Attributes:
        environment: what was played.
        label: of the agent.
        seed: of the run.
        validation: the incumbent's validation accuracy of full training, float64[trials].
        validation_score: that, normalised so that 0 is the mean architecture and 1 the table's best.
        test: the incumbent's test accuracy, float64[trials]; None where the table has none.
        test_score: that, normalised among test accuracies.
        simulated_seconds: what the trainings so far would have taken, float64[trials]; None where the table does not
            tell.
        unique_architectures: how many different sequences were tried.
        failed: how many trials failed.
        wall_seconds: from the run's start to its end.
        cpu_seconds: of processor time, whatever else the machine did.
        finished: when it ended, in ISO 8601, UTC.
        version: of nas_gym.
        cost: the metric of `COSTS` that the table tells; None where it tells none.
        points: validation accuracy and cost of the trials of full training that did not fail, float64[n, 2].
    """

    environment: Environment
    label: str
    seed: int
    validation: Floats
    validation_score: Floats
    test: Floats | None
    test_score: Floats | None
    simulated_seconds: Floats | None
    unique_architectures: int
    failed: int
    wall_seconds: float
    cpu_seconds: float
    finished: str
    version: str
    cost: str | None = None
    points: Floats | None = None

    def row(self) -> dict[str, Any]:
        """The run's line in results.csv; nothing where a number is not known."""
        return {
            "environment": self.environment.id,
            "task": self.environment.task,
            "agent": self.label,
            "seed": self.seed,
            "trials": len(self.validation),
            "validation_accuracy": float(self.validation[-1]),
            "test_accuracy": None if self.test is None else float(self.test[-1]),
            "validation_score": float(self.validation_score[-1]),
            "test_score": None if self.test_score is None else float(self.test_score[-1]),
            "unique_architectures": self.unique_architectures,
            "failed_trials": self.failed,
            "simulated_seconds": None if self.simulated_seconds is None else float(self.simulated_seconds[-1]),
            "wall_seconds": round(self.wall_seconds, 4),
            "cpu_seconds": round(self.cpu_seconds, 4),
        }


def read_traces(suite: Suite, out: Path) -> list[Trace]:
    """Reads the finished runs of a suite."""
    folders = {(env, entry.label, seed): run_folder(out, env, entry, seed) for env, entry, seed in suite.runs()}
    return [_read_trace(folder, *key) for key, folder in folders.items() if (folder / "run.json").exists()]


def _read_trace(folder: Path, environment: Environment, label: str, seed: int) -> Trace:
    evaluator = open_evaluator(environment)
    trials = read_trials(folder / "trials.csv", evaluator.space)
    best = trials.tokens[incumbents(trials)]
    validation = evaluator.evaluate(best).accuracy
    tested = evaluator.table.array(environment.task, "test") is not None
    test = evaluator.test(best) if tested else None
    seconds = trials.metrics.get("seconds")
    cost = next((name for name in COSTS if name in trials.metrics), None)
    record = json.loads((folder / "run.json").read_text())
    return Trace(
        environment,
        label,
        seed,
        validation=validation,
        validation_score=evaluator.normalised_score(validation),
        test=test,
        test_score=None if test is None else evaluator.normalised_score(test, "test"),
        simulated_seconds=None if seconds is None else np.cumsum(np.nan_to_num(seconds)),
        unique_architectures=trials.unique_architectures,
        failed=int(trials.metrics["failed"].sum()),
        wall_seconds=record["wall_seconds"],
        cpu_seconds=record["cpu_seconds"],
        finished=record["finished"],
        version=record["nas_gym"],
        cost=cost,
        points=None if cost is None else _points(trials, cost),
    )


def _points(trials: SearchResult, cost: str) -> Floats:
    points: Floats = np.column_stack([trials.metrics["accuracy"], trials.metrics[cost]])
    sound = np.isfinite(points).all(axis=1) & ~(trials.metrics["failed"] > 0) & (trials.fidelities == 1)
    found: Floats = points[sound]
    return found


def incumbents(trials: SearchResult) -> NDArray[np.int64]:
    """The best trial so far, int64[n]: the highest reward among those of the highest fidelity, the first on ties."""
    best, found = 0, []
    for trial, key in enumerate(keys := list(zip(trials.fidelities, trials.rewards, strict=True))):
        best = trial if key > keys[best] else best
        found.append(best)
    return np.array(found, dtype=np.int64)
