"""The transfer benchmark: what a controller that has learned other tasks gains on a new one.

Each task of a suite is left out in turn. A controller learns the others, so many trials each, and goes on to the one
left out. Beside it stand the same agent from scratch, random search, and copying: the best architectures of the other
tasks' own trials, one after another, which needs no controller at all.

All seeds of a search are one program (`PolicyGradientAgent.learn_each`), unless tasks are trained on, whose shared
weights are a seed's own. Every search lies in a file of its own; what is done is not done again.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import yaml
from numpy.typing import NDArray

from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.files import file_name, load_tensors, replacing, write_text
from nas_gym.spaces import Tokens
from nas_gym.tables import open_table

from .agent import Env, Floats, attribute, load_hyperparameters, play
from .benchmark import SUITES, read_mapping
from .multitask import FORM, MultiTask, MultiTaskHyperparameters, relative_ranks

MULTI_TASK = "NAS-MultiTask-v0"
SCRATCH, TRANSFER = "from scratch", "transfer"
RECALL, NO_RECALL = "transfer, recalling", "transfer, nothing recalled"
COPY, COPY_MEAN, RANDOM = "copy", "copy by mean rank", "random"


@dataclass(frozen=True)
class Entry:
    """A row of the tables.

    Attributes:
        mode: of `MultiTask.transfer`; None where nothing is learned.
        changes: hyperparameters that differ, in pretraining and transfer.
    """

    mode: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)


ENTRIES: dict[str, Entry] = {
    SCRATCH: Entry("scratch"),
    TRANSFER: Entry("all"),
    "transfer, embedding only": Entry("embedding"),
    RECALL: Entry("all", {"recall": 10}),
    # What is recalled hides what the policy has learned; what is left out of it is told without.
    NO_RECALL: Entry("all", {"recall": 0}),
    f"{NO_RECALL}, no task embedding": Entry("all", {"recall": 0, "task_embedding": False}),
    f"{NO_RECALL}, no skip": Entry("all", {"recall": 0, "skip": False}),
    f"{NO_RECALL}, no per-task normalisation": Entry("all", {"recall": 0, "per_task_normalisation": False}),
    COPY: Entry(),
    COPY_MEAN: Entry(),
    RANDOM: Entry(),
}


@dataclass(frozen=True)
class TransferSuite:
    """A transfer benchmark.

    Attributes:
        base: id of the environment of each task.
        tasks: names; each is left out in turn.
        arguments: further ones of the environment, such as ``table``, or ``evaluator`` and ``evaluator_kwargs``.
        seeds: searches of each entry on each task, with seeds 0 to `seeds` - 1.
        source_trials: of pretraining, on each of the other tasks.
        trials: on the task left out.
        entries: labels of `ENTRIES`.
        pretraining: hyperparameters that differ from the agent's settings for `NAS-MultiTask-v0`.
        hyperparameters: those that differ from its settings for `base`, on the task left out.

    Raises:
        ValueError: fewer than two tasks, an unknown entry, no entry from scratch, or numbers below 1.
    """

    base: str
    tasks: tuple[str, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 50
    source_trials: int = 300
    trials: int = 150
    entries: tuple[str, ...] = tuple(ENTRIES)
    pretraining: Mapping[str, Any] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("tasks", "entries"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("seeds", "source_trials", "trials"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        if len(set(self.tasks)) < max(len(self.tasks), 2):
            raise ValueError(f"tasks must be at least two, all different; got {', '.join(self.tasks) or 'none'}")
        if unknown := [label for label in self.entries if label not in ENTRIES]:
            raise ValueError(f"unknown entries {unknown}; known: {', '.join(ENTRIES)}")
        if SCRATCH not in self.entries:
            raise ValueError(f"entries must have {SCRATCH!r}, which the others are compared with; got {self.entries}")

    def make_env(self, tasks: Sequence[str], num_envs: int, seed: int = 0) -> Env:
        """The tasks, so many episodes at a time; what is trained on them is of the seed."""
        arguments = dict(self.arguments)
        if self.trains:
            arguments["evaluator_kwargs"] = {**arguments.get("evaluator_kwargs", {}), "seed": seed}
        return gym.make_vec(MULTI_TASK, num_envs=num_envs, base=self.base, tasks=tuple(tasks), **arguments)

    @property
    def trains(self) -> bool:
        """Whether tasks are trained on, and so have a state that belongs to a seed."""
        named = self.arguments.get("evaluator")
        return self.arguments.get("table") is None and named is not None and named != "table"

    def sources(self, target: str) -> tuple[str, ...]:
        """The tasks that are not left out."""
        return tuple(task for task in self.tasks if task != target)

    def to_dict(self) -> dict[str, Any]:
        """What the suite is made of."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


def make_transfer_suite(spec: str | os.PathLike[str], **overrides: Any) -> TransferSuite | None:
    """Reads a suite that has the key ``transfer``, under which are the fields of `TransferSuite`.

    Args:
        spec: the name of a suite, or the path of a YAML file.
        **overrides: fields that take precedence, and ``table``, whose tasks then are the suite's; None leaves what is
            there.

    Returns:
        None if it is a suite of another kind, or none at all.

    Raises:
        ValueError: something in it is not understood.
    """
    path = SUITES / f"{spec}.yaml"
    path = path if path.is_file() else Path(spec)
    if not path.is_file() or "transfer" not in (values := read_mapping(path)):
        return None
    fields = {**values["transfer"], **{key: value for key, value in overrides.items() if value is not None}}
    table = fields.pop("table", None)
    if table is not None:
        fields["tasks"], fields["arguments"] = open_table(table).tasks, {"table": str(table)}
        fields |= {key: value for key, value in values.get("with_table", {}).items() if overrides.get(key) is None}
    known = {known.name for known in dataclasses.fields(TransferSuite)}
    if unknown := sorted(set(fields) - known):
        raise ValueError(f"a transfer suite has no {', '.join(unknown)}; known: {', '.join(sorted(known))}, table")
    return TransferSuite(**fields)


# ---------------------------------------------------------------------- running


@dataclass(frozen=True)
class Searches:
    """What the searches of an entry on a task have tried.

    Attributes:
        tokens: int64[S, n, T].
        rewards: float64[S, n].
    """

    tokens: Tokens
    rewards: Floats


def run_transfer(
    suite: TransferSuite, out: Path, on_progress: Callable[[int, int], None] | None = None
) -> dict[tuple[str, str], Searches]:
    """Does the searches that are missing, in this process.

    Args:
        suite: what is asked for.
        out: the folder of the benchmark.
        on_progress: called with the number of searches (an entry on a task) that are over, and of all.

    Returns:
        All of them, by task and label.

    Raises:
        ValueError: the folder holds another suite.
    """
    out.mkdir(parents=True, exist_ok=True)
    record, text = out / "suite.yaml", yaml.safe_dump({"transfer": suite.to_dict()}, sort_keys=False)
    if record.exists() and _without_entries(record.read_text()) != _without_entries(text):
        raise ValueError(f"{str(out)!r} holds a benchmark of other settings: give another --out, or delete it")
    write_text(record, text)
    found = {}
    total = len(suite.tasks) * len(suite.entries)
    for target in suite.tasks:
        for label in suite.entries:
            found[target, label] = _kept(suite, target, label, out)
            if on_progress:
                on_progress(len(found), total)
    return found


def _without_entries(text: str) -> dict[str, Any]:
    fields = dict(yaml.safe_load(text)["transfer"])
    fields.pop("entries")
    return fields


def _kept(suite: TransferSuite, target: str, label: str, out: Path) -> Searches:
    """Reads the searches, or does and keeps them, a file for each program."""
    folder = out / "runs" / file_name(target) / file_name(label)
    folder.mkdir(parents=True, exist_ok=True)
    tokens, rewards = [], []
    for seeds in _seed_groups(suite):
        path = folder / f"seeds{seeds[0]}-{seeds[-1]}.npz"
        if not path.exists():
            done = search(suite, target, label, seeds, out)
            with replacing(path) as temporary:
                np.savez_compressed(temporary, tokens=done.tokens, rewards=done.rewards)
        with np.load(path, allow_pickle=False) as arrays:
            tokens.append(arrays["tokens"])
            rewards.append(arrays["rewards"])
    return Searches(np.concatenate(tokens), np.concatenate(rewards))


def _seed_groups(suite: TransferSuite) -> list[list[int]]:
    """The seeds that are searched from in one program."""
    seeds = list(range(suite.seeds))
    return [[seed] for seed in seeds] if suite.trains else [seeds]


def search(suite: TransferSuite, target: str, label: str, seeds: Sequence[int], out: Path) -> Searches:
    """Searches on the task left out, as an entry does; pretraining is kept in the folder `out`."""
    entry = ENTRIES[label]
    if entry.mode is None:
        return _play_given(suite, target, seeds, _proposals(suite, target, label, seeds, out))
    settings = load_hyperparameters("multitask", suite.base, {**suite.hyperparameters, **entry.changes})
    env = suite.make_env([target], len(seeds) * settings.batch_size, seeds[0])
    if entry.mode == "scratch":
        agent = MultiTask(env, seeds, settings)
    else:
        agent = pretrain(suite, target, seeds, out, entry.changes)
        changes = {known.name: getattr(settings, known.name) for known in dataclasses.fields(settings)}
        agent.transfer(target, env, entry.mode, {name: changes[name] for name in changes if name not in FORM})
    return _learn(agent, suite.trials)


def pretrain(
    suite: TransferSuite, target: str, seeds: Sequence[int], out: Path, changes: Mapping[str, Any]
) -> MultiTask:
    """The agents of the seeds when they have learned all tasks but one; kept in the folder `out`."""
    import torch

    settings: MultiTaskHyperparameters = load_hyperparameters(
        "multitask", MULTI_TASK, {**suite.pretraining, **_of_pretraining(changes)}
    )
    sources = suite.sources(target)
    env = suite.make_env(sources, len(seeds) * len(sources) * settings.batch_size, seeds[0])
    agent = MultiTask(env, seeds, settings)
    variant = "-".join([f"seeds{seeds[0]}-{seeds[-1]}", *_of_pretraining(changes)])  # changes switch something off
    path = out / "pretrained" / file_name(target) / f"{file_name(variant)}.pt"
    if path.exists():
        agent.load_state_dict(load_tensors(path))
        return agent
    _learn(agent, suite.source_trials * len(sources))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        torch.save(agent.state_dict(), temporary)
    return agent


def _of_pretraining(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if name != "recall"}


def _learn(agent: MultiTask, trials: int) -> Searches:
    stateful = attribute(agent.env, "schedule").evaluator.stateful
    parts = [agent.learn(trials)] if stateful else agent.learn_each(trials)
    return Searches(np.array([part.tokens for part in parts]), np.array([part.rewards for part in parts]))


# ---------------------------------------------------------------------- what needs no controller


def _proposals(suite: TransferSuite, target: str, label: str, seeds: Sequence[int], out: Path) -> Tokens:
    """The architectures that are tried without learning, int64[S, n, T]."""
    if label == RANDOM:
        space = attribute(suite.make_env([target], 1), "search_space")
        return np.array([space.sample(np.random.default_rng(seed), suite.trials) for seed in seeds])
    memories = pretrain(suite, target, seeds, out, {}).memories
    order = by_place if label == COPY else by_mean_rank
    return np.array(
        [
            _cycled(order([(memory.tokens[row], memory.rewards[row]) for memory in memories]), suite.trials)
            for row in range(len(seeds))
        ]
    )


def _cycled(rows: Tokens, n: int) -> Tokens:
    """The first n rows, from the start again where there are fewer."""
    return rows[np.arange(n) % len(rows)]


Trials = tuple[Tokens, Floats]
"""What was tried on a task, int64[n, T], and its rewards float64[n]."""


def by_place(sources: Sequence[Trials]) -> Tokens:
    """All architectures that were tried, int64[m, T]: the best of each task, then the second of each, and so on."""
    sorted_tokens = [tokens[np.argsort(-rewards, kind="stable")] for tokens, rewards in sources]
    places = range(max(map(len, sorted_tokens)))
    rows = [tokens[place] for place in places for tokens in sorted_tokens if place < len(tokens)]
    return _different(rows)


def by_mean_rank(sources: Sequence[Trials]) -> Tokens:
    """All architectures that were tried, int64[m, T], by their mean rank; where one was not tried its rank is 1/2."""
    rows = _different([row for tokens, _ in sources for row in tokens])
    total = np.zeros(len(rows))
    for tokens, rewards in sources:
        ranks = dict(zip((row.tobytes() for row in tokens), relative_ranks(rewards), strict=True))
        total += [ranks.get(row.tobytes(), 0.5) for row in rows]
    return rows[np.argsort(-total, kind="stable")]


def _different(rows: Sequence[NDArray[np.int64]]) -> Tokens:
    return np.array(list({row.tobytes(): row for row in rows}.values()))


def _play_given(suite: TransferSuite, target: str, seeds: Sequence[int], tokens: Tokens) -> Searches:
    env = suite.make_env([target], tokens.shape[0] * min(tokens.shape[1], 10), seeds[0])
    rewards, _ = play(env, tokens.reshape(-1, tokens.shape[2]))
    return Searches(tokens, rewards.reshape(tokens.shape[:2]))


# ---------------------------------------------------------------------- measures


WINDOW = 10  # trials that are averaged


@dataclass(frozen=True)
class Measures:
    """What the searches of an entry on a task came to, float64[S] each.

    A level is what the searches from scratch come to in the end, in the median. Where a search does not come to it,
    the trials are one more than it had.

    Attributes:
        jumpstart: mean score of the first `WINDOW` trials.
        asymptote: score of the best trial.
        last: mean score of the last `WINDOW` trials.
        trials_to_best: until the best so far is as good as that from scratch.
        trials_to_mean: until the mean of `WINDOW` trials is.
    """

    jumpstart: Floats
    asymptote: Floats
    last: Floats
    trials_to_best: Floats
    trials_to_mean: Floats


def measures(rewards: Floats, scratch: Floats, score: Callable[[Floats], Floats]) -> Measures:
    """Measures searches, float64[S, n], against those from scratch, float64[S', n].

    Args:
        rewards: of the searches.
        scratch: of those from scratch.
        score: what a reward is worth, an increasing linear function.
    """
    best, mean = running_best(rewards), running_mean(rewards)
    levels = [float(np.median(curve(scratch)[:, -1])) for curve in (running_best, running_mean)]
    return Measures(
        jumpstart=score(rewards[:, :WINDOW].mean(axis=1)),
        asymptote=score(best[:, -1]),
        last=score(mean[:, -1]),
        trials_to_best=trials_to(best, levels[0]),
        trials_to_mean=trials_to(mean, levels[1]),
    )


def running_best(rewards: Floats) -> Floats:
    """The best so far, float64[S, n]."""
    best: Floats = np.maximum.accumulate(rewards, axis=1)
    return best


def running_mean(rewards: Floats) -> Floats:
    """The mean of the last `WINDOW` trials, float64[S, n]; -inf before there are so many."""
    window = min(WINDOW, rewards.shape[1])
    means = np.lib.stride_tricks.sliding_window_view(rewards, window, axis=1).mean(axis=2)
    return np.pad(means, ((0, 0), (window - 1, 0)), constant_values=-np.inf)


def trials_to(curves: Floats, level: float) -> Floats:
    """The first trial, counted from 1, at which each curve is at the level; n + 1 where it never is."""
    reached = curves >= level - 1e-12
    trials: Floats = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, curves.shape[1] + 1).astype(np.float64)
    return trials


def scores_of(suite: TransferSuite, target: str) -> Callable[[Floats], Floats]:
    """What rewards are worth: on a table, 0 the mean architecture and 1 the best; else the reward itself."""
    evaluator = attribute(suite.make_env([target], 1), "evaluators")[target].unwrapped
    if isinstance(evaluator, TabularEvaluator):
        return evaluator.normalised_score
    return lambda rewards: rewards
