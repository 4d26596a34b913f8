"""What a run is asked to do, and the environment and the agent that this makes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import yaml

from nas_gym.agents import Agent, agent_class, load_hyperparameters, make_agent
from nas_gym.agents.registry import batch_size_of
from nas_gym.envs.multitask import base_arguments
from nas_gym.envs.multitask_vector import MultiTaskVectorEnv
from nas_gym.envs.problem import Problem, make_vector
from nas_gym.evaluators import DEFAULT_SCHEDULE, Evaluator, EvaluatorConfig, GuardedEvaluator
from nas_gym.evaluators.waiting import TimeLimit
from nas_gym.experiments.run.asynchronous import check_asynchronous
from nas_gym.experiments.run.record import RECORD, read_rows
from nas_gym.experiments.run.target import Target
from nas_gym.files import read_mapping
from nas_gym.registration import environment_spec
from nas_gym.settings import check_seed, differences, from_mapping
from nas_gym.spaces import SearchSpace, make_space, saved_space

CONFIG = "config.yaml"
RESOLVED = "resolved"
"""The part of it that tells what the settings come to (`resolve`)."""
ELSEWHERE = (
    "device",
    "data_dir",
    "download",
    "workers",
    "ray_address",
    "worker_gpus",
    "worker_timeout",
    "store",
    "store_timeout",
    "on_error",
    "retries",
    "retrain_epochs",
    "compare_found",
    "compare_random",
    "compare_seeds",
)
"""Fields that no trial depends on: where and how a run is computed, and what is compared when the search is over."""


@dataclass(frozen=True)
class RunConfig:
    """What a run is asked to do; written to config.yaml, and with the seed all that its results depend on.

    Attributes:
        env: id of an environment, such as NAS-Cell-v0, or ``module:ID``, where importing the module registers it.
        agent: name of an agent, such as reinforce, or ``module:Class``.
        trials: number of architectures to try.
        task: name of the task; the environment's own by default.
        seed: seed of the agent, the evaluator and the split of the task.
        device: where networks run: auto (CUDA if there is one), cpu or cuda.
        data_dir: folder in which data sets are looked for.
        download: whether a missing data set may be downloaded.
        num_envs: number of trials scored together; the agent's batch size by default.
        env_kwargs: further arguments of the environment, such as schedule:enas or evaluator_kwargs.channels:16.
        hyperparameters: of the agent, where they differ from its settings for the environment, such as
            learning_rate:1e-3, or preset:paper for those of its paper.
        pretrained: file of a saved agent that goes on to the task of the environment (see `nas-gym transfer`).
        transfer_mode: what it learns there: all, embedding or scratch.
        target: cost that the networks are to have, METRIC:VALUE, such as flops:2e6, parameters:50k or latency:5ms: the
            reward is then the accuracy, times target / cost where the cost exceeds it (MnasNet).
        retrain_epochs: passes over the train split in the trainings of the final comparison; about 300 steps by
            default, of a part of a large split; 0 leaves the comparison out.
        compare_found: number of the best architectures that it chooses from, by validation accuracy.
        compare_random: number of architectures drawn uniformly that it compares with.
        compare_seeds: number of trainings of the chosen architecture, and of each network made by hand.
        simulated_seconds: end the search when its trials would have taken this long, by the seconds that a table has
            of them (20000 in the protocol of NAS-Bench-201), or after `trials` at the latest.
        workers: number of processes that evaluate, by Ray, for evaluators without shared weights. The results of
            synchronous runs do not depend on it.
        ray_address: address of the Ray cluster that the workers run on, such as auto; this machine by default.
        worker_gpus: GPUs of each worker, such as 0.25; none by default.
        worker_timeout: seconds that an evaluation may take before its worker is replaced; inf sets no limit. By default
            20 times the median so far and at least two minutes, or a day before anything is known.
        asynchronous: keep the workers busy: the agent proposes the next architecture as soon as one has been evaluated.
            The order of the trials, and so the search, is not the same twice.
        store: file that keeps every evaluation, for other runs too; what it holds is not evaluated again.
        store_timeout: seconds to wait while another process has the store locked.
        on_error: what an error raised in an evaluation does: stop (ends the run), fail (the architecture becomes a
            failed trial, with the worst reward), or retry (it is evaluated again, and fails after `retries`).
        retries: how often an architecture is evaluated again, with on_error retry.

    Raises:
        ValueError: a field is of the wrong type or out of range, or names something unknown.
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
    pretrained: str | None = None
    transfer_mode: str = "all"
    target: str | None = None
    retrain_epochs: int | None = None
    compare_found: int = 8
    compare_random: int = 20
    compare_seeds: int = 3
    simulated_seconds: float | None = None
    workers: int | None = None
    ray_address: str | None = None
    worker_gpus: float | None = None
    worker_timeout: float | None = None
    asynchronous: bool = False
    store: str | None = None
    store_timeout: float = 600.0
    on_error: Literal["stop", "fail", "retry"] = "stop"
    retries: int = 2

    def __post_init__(self) -> None:
        check_seed(self.seed)
        counts = {"trials": 1, "num_envs": 1, "retrain_epochs": 0, "workers": 1, "retries": 1}
        counts |= {"compare_found": 1, "compare_random": 2, "compare_seeds": 2}
        for name, least in counts.items():
            value = getattr(self, name)
            left_open = value is None and name in ("num_envs", "retrain_epochs", "workers")
            if not left_open and (not isinstance(value, int) or value < least):
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        seconds = self.simulated_seconds
        if seconds is not None and (isinstance(seconds, bool | str) or not seconds > 0):
            raise ValueError(f"simulated_seconds must be a positive number, got {seconds!r}")
        timeout = self.store_timeout
        if isinstance(timeout, bool | str) or not timeout >= 0:
            raise ValueError(f"store_timeout must be a number of seconds of at least 0, got {timeout!r}")
        for name in ("env_kwargs", "hyperparameters"):
            if not isinstance(getattr(self, name), dict):
                raise ValueError(f"{name} must be a mapping of names to values, got {getattr(self, name)!r}")
        for name in ("env", "agent"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be a name, got {getattr(self, name)!r}")
        environment_spec(self.env)
        agent_class(self.agent)
        if self.target is not None:
            Target.parse(self.target)
            if "objective" in self.env_kwargs:
                raise ValueError(
                    f"target {self.target!r} sets the objective of the environment: leave out the objective "
                    f"{self.env_kwargs['objective']!r}"
                )
        self._check_workers()

    def _check_workers(self) -> None:
        if self.on_error not in ("stop", "fail", "retry"):
            raise ValueError(f"on_error must be stop, fail or retry, got {self.on_error!r}")
        TimeLimit(self.worker_timeout)  # complains of what is no time-out
        for name in ("ray_address", "worker_gpus", "worker_timeout", "asynchronous"):
            if self.workers is None and getattr(self, name) not in (None, False):
                raise ValueError(f"{name} is for runs with workers: give their number")
        if self.asynchronous:
            check_asynchronous(agent_class(self.agent), self.agent)
        if self.asynchronous and self.num_envs is not None:
            raise ValueError(f"num_envs must be left out of an asynchronous run, got {self.num_envs}")

    # ------------------------------------------------------------------ what it makes

    @property
    def evaluator(self) -> EvaluatorConfig:
        """The evaluator of the environment, with the seed, the device and the data of the run."""
        arguments = self._given_arguments()
        name, kwargs = arguments.get("evaluator", "shared-weights"), arguments.get("evaluator_kwargs")
        config = EvaluatorConfig.parse(name, arguments.get("task"), kwargs, arguments.get("table"))
        if self.target is not None:
            config = config.with_cost(Target.parse(self.target).metric)
        return config.with_defaults(seed=self.seed, device=self.device, data_dir=self.data_dir, download=self.download)

    @property
    def cost_target(self) -> Target | None:
        """The target of the objective, given as such or as that of a soft constraint."""
        objective = self._given_arguments().get("objective")
        if not isinstance(objective, dict) or objective.get("name") != "soft-constraint":
            return None
        return Target(objective["metric"], float(objective["target"]))

    @property
    def trains(self) -> bool:
        """Whether networks are trained on a task."""
        return self.evaluator.kind.trains

    def environment_arguments(self) -> dict[str, Any]:
        """What the environment is made with, those of its base included if it is one of many tasks."""
        arguments = {**self._given_arguments(), **self.evaluator.kwargs()}
        if "base" in arguments:
            del arguments["task"]
        schedule = arguments.get("schedule", DEFAULT_SCHEDULE)
        named: dict[str, Any] = {"name": schedule} if isinstance(schedule, str) else dict(schedule)
        return {**arguments, "schedule": {"seed": self.seed, **named}}

    def _given_arguments(self) -> dict[str, Any]:
        arguments = {**environment_spec(self.env).kwargs, **self.env_kwargs}
        if "base" in arguments:
            arguments = {**base_arguments(arguments["base"]), **arguments}
        if self.task is not None:
            arguments["task"] = self.task
        if self.target is not None:
            arguments["objective"] = Target.parse(self.target).objective
        return arguments

    def make_space(self) -> SearchSpace:
        """The search space by the environment's arguments. A table may be of a space with other fields."""
        arguments = self._given_arguments()
        if "space" not in arguments:
            raise ValueError(f"environment {self.env!r} cannot be made with a search space: it has none")
        return make_space(arguments["space"])

    def make_env(self, num_envs: int | None = None, **arguments: Any) -> gym.vector.VectorEnv[Any, Any, Any]:
        """Makes the environment, of `num_envs` sub-environments; None takes as many as the run plays side by side.

        Raises:
            ValueError: an argument is not understood.
        """
        arguments = {**self.environment_arguments(), **arguments}
        try:
            env = make_vector(self.env, num_envs or self.num_envs or self._batch_size(), **arguments)
        except TypeError as error:
            raise ValueError(f"environment {self.env!r} cannot be made with {arguments}: {error}") from error
        if isinstance(env.unwrapped, MultiTaskVectorEnv):
            env.reset(seed=self.seed)  # which the draws of tasks follow from
        return env

    def _batch_size(self) -> int:
        if self.asynchronous:
            return 1
        return batch_size_of(agent_class(self.agent), self.settings())

    def settings(self) -> Any:
        """The hyperparameters of the agent, all of them: those given, and its settings for the rest.

        Raises:
            ValueError: one of them is unknown or out of range.
        """
        return load_hyperparameters(
            self.agent,
            environment_spec(self.env).id,
            self.hyperparameters,
            decisions=self.make_space().length,
            trials=self.trials,
        )

    def guarded(self, evaluator: Evaluator) -> Evaluator:
        """An evaluator whose errors do what `on_error` says."""
        if self.on_error == "stop":
            return evaluator
        return GuardedEvaluator(evaluator, retries=self.retries if self.on_error == "retry" else 0)

    def make_agent(self, env: gym.vector.VectorEnv[Any, Any, Any]) -> Agent:
        """Makes the agent that searches in the environment."""
        if self.pretrained is None:
            return make_agent(self.agent, env, self.seed, self.settings())
        kind = agent_class(self.agent)
        return kind.from_pretrained(self.pretrained, env, self.seed, self.settings(), mode=self.transfer_mode)


def evaluator_of(config: RunConfig) -> Evaluator:
    """The evaluator of a run's environment: what its workers have."""
    return config.guarded(Problem(config.make_env(1)).evaluator)


def origin_of(config: RunConfig, space: SearchSpace) -> dict[str, Any]:
    """What the trials of a run follow from: its configuration, all settings of its agent, and the search space."""
    origin = {
        "config": dataclasses.asdict(config),
        "settings": dataclasses.asdict(config.settings()),
        "space": space.to_dict(),
    }
    made: dict[str, Any] = json.loads(json.dumps(origin))
    return made


def changes_since(origin: Mapping[str, Any], config: RunConfig) -> list[str]:
    """How a configuration differs from the one that a run began with, a line per field; `ELSEWHERE` may differ."""
    now = json.loads(json.dumps(dataclasses.asdict(config)))
    changed = differences(origin["config"], now)
    return [f"{name}: {old!r} became {new!r}" for name, (old, new) in changed.items() if name not in ELSEWHERE]


def config_text(config: RunConfig, resolved: Mapping[str, Any] | None = None) -> str:
    """What config.yaml holds: the configuration, and what its settings come to."""
    text = yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)
    if resolved is None:
        return text
    return f"{text}\n# What these settings come to. It is not read when a run begins, and must not be changed.\n" + (
        yaml.safe_dump({RESOLVED: dict(resolved)}, sort_keys=False, width=120)
    )


def read_config(folder: Path) -> RunConfig:
    """Reads a run's config.yaml.

    Raises:
        ValueError: there is none, or it is not one.
    """
    path = folder / CONFIG
    if not path.exists():
        raise ValueError(f"{str(folder)!r} holds no run: there is no {CONFIG} in it")
    values = read_mapping(path)
    values.pop(RESOLVED, None)
    try:
        return from_mapping(RunConfig, values, "a run", "field")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} holds no run's configuration: {error}") from error


def read_resolved(folder: Path) -> dict[str, Any] | None:
    """Reads what the settings of a run have come to; None if config.yaml does not tell."""
    found = read_mapping(folder / CONFIG).get(RESOLVED)
    return dict(found) if isinstance(found, Mapping) else None


def read_space(folder: Path) -> SearchSpace:
    """Reads the search space of a run.

    Raises:
        ValueError: the folder holds no run, or its record is damaged.
    """
    config = read_config(folder)
    try:
        config.make_space()  # imports the module that registers a kind of space of another package
    except (TypeError, ValueError) as error:
        raise ValueError(f"{str(folder / CONFIG)!r} holds no search space: {error}") from error
    if not (folder / RECORD).exists():
        raise ValueError(f"{str(folder)!r} holds no record of trials: there is no {RECORD} in it")
    return saved_space(read_rows(folder / RECORD).origin["space"])
