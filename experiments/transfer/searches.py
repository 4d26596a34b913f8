"""The transfer benchmark: what a controller that has learned other tasks gains on a new one.

Each task of a suite is left out in turn. A controller learns the others, so many trials each, and goes on to the one
left out. Beside it stand the same agent from scratch, random search, and copying: the best architectures of the other
tasks' own trials, one after another, which needs no controller at all.

All seeds of a search are one program (`PolicyGradientAgent.learn_each`), unless tasks are trained on, whose shared
weights are a seed's own. Every search lies in a file of its own; what is done is not done again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from nas_gym.agents import Dyna, load_hyperparameters, play
from nas_gym.agents.policy_gradient.multitask import MultiTask
from nas_gym.agents.policy_gradient.multitask_settings import CONTROLLER_FIELDS, MultiTaskHyperparameters
from nas_gym.agents.policy_gradient.task_memory import relative_ranks
from nas_gym.envs.problem import Problem
from nas_gym.experiments.benchmark.suite import RANDOM
from nas_gym.experiments.transfer.suite import COPY, ENTRIES, MULTI_TASK, TransferSuite
from nas_gym.files import file_name, load_tensors, replacing, save_tensors, write_text
from nas_gym.locks import FolderLock
from nas_gym.spaces import Tokens
from nas_gym.types import Floats


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
    with FolderLock(out):
        return _run(suite, out, on_progress)


def _run(
    suite: TransferSuite, out: Path, on_progress: Callable[[int, int], None] | None
) -> dict[tuple[str, str], Searches]:
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
    if entry.agent == "dyna":
        return _dyna(suite, target, entry.mode, seeds, out)
    settings = load_hyperparameters("multitask", suite.base, {**suite.hyperparameters, **entry.changes})
    env = suite.make_env([target], len(seeds) * settings.batch_size, seeds[0])
    if entry.mode == "scratch":
        agent = MultiTask(env, seeds, settings)
    else:
        agent = pretrain(suite, target, seeds, out, entry.changes)
        changes = {known.name: getattr(settings, known.name) for known in dataclasses.fields(settings)}
        agent.transfer(
            target, env, entry.mode, {name: changes[name] for name in changes if name not in CONTROLLER_FIELDS}
        )
    return _learn(agent, suite.trials)


def _dyna(suite: TransferSuite, target: str, mode: str, seeds: Sequence[int], out: Path) -> Searches:
    """Searches by `Dyna`, one seed after another, whose model starts from what `multitask` has tried on the sources."""
    settings = load_hyperparameters("dyna", suite.base, trials=suite.trials)
    memories = pretrain(suite, target, seeds, out, {}).memories if mode == "all" else []
    parts = []
    for row, seed in enumerate(seeds):
        agent = Dyna(suite.make_env([target], settings.batch_size, seed), seed, settings)
        if memories:
            agent.start_from([(memory.tokens[row], memory.rewards[row]) for memory in memories])
        parts.append(agent.learn(suite.trials))
    return Searches(np.array([part.tokens for part in parts]), np.array([part.rewards for part in parts]))


def pretrain(
    suite: TransferSuite, target: str, seeds: Sequence[int], out: Path, changes: Mapping[str, Any]
) -> MultiTask:
    """The agents of the seeds when they have learned all tasks but one; kept in the folder `out`."""
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
    save_tensors(path, agent.state_dict())
    return agent


def _of_pretraining(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if name != "warm_start_size"}


def _learn(agent: MultiTask, trials: int) -> Searches:
    stateful = agent.problem.evaluator.stateful
    parts = [agent.learn(trials)] if stateful else agent.learn_each(trials)
    return Searches(np.array([part.tokens for part in parts]), np.array([part.rewards for part in parts]))


def _proposals(suite: TransferSuite, target: str, label: str, seeds: Sequence[int], out: Path) -> Tokens:
    """The architectures that are tried without learning, int64[S, n, T]."""
    if label == RANDOM:
        space = Problem(suite.make_env([target], 1)).space
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
    trials = play(env, tokens.reshape(-1, tokens.shape[2]))
    return Searches(tokens, trials.rewards.reshape(tokens.shape[:2]))
