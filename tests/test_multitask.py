"""NAS-MultiTask-v0: the tasks of its episodes, native against scalar, evaluators and weights of their own, resuming."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from env_checks import assert_same, stacked
from fidelity_checks import scramble
from gymnasium.utils.env_checker import check_env
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from rich.console import Console

from nas_gym.agents import RandomSearch
from nas_gym.envs import ConstructionEnv, MaskedObservation, MultiTaskEnv, MultiTaskVectorEnv
from nas_gym.evaluators import (
    Evaluations,
    FunctionEvaluator,
    MultiTaskEvaluator,
    MultiTaskSchedule,
    ScheduleSettings,
    make_evaluator,
)
from nas_gym.evaluators.schedules import InterleavedSchedule
from nas_gym.experiments.run.config import RunConfig
from nas_gym.experiments.run.progress import Interrupted
from nas_gym.experiments.run.record import TrialRecord
from nas_gym.experiments.run.recorder import Recorder
from nas_gym.experiments.run.replay import answer_from_record
from nas_gym.experiments.run.run import Run, load_best
from nas_gym.experiments.run.trials import read_trials
from nas_gym.spaces import SearchSpace, Tokens, make_space

ID = "NAS-MultiTask-v0"
GRAPH = "NAS-BenchGraph-v0"
TASKS = ("a", "b", "c")
SHORT_CHAIN = {"name": "chain", "layers": 3, "depth": "stop"}  # episodes of different lengths
BASES: dict[str, tuple[str, Any]] = {
    "bench201": ("NAS-Bench201-v0", "bench201"),
    "cell": ("NAS-Cell-v0", {"name": "cell", "nodes": 2}),
    "chain": ("NAS-Chain-v0", SHORT_CHAIN),
}
FORMS = ("onehot", "tokens", "dict")
CELL = {"name": "cell", "nodes": 1}
TINY = {"channels": 4, "batch_size": 16, "score_images": 32}
SHARED = {
    "base": "NAS-Cell-v0",
    "tasks": ["digits:0-4", "digits:5-9"],
    "space": CELL,
    "evaluator_kwargs": TINY,
    "schedule": {"name": "interleaved", "warmup_steps": 2, "steps_per_trial": 1},
}


class TaskEvaluator(FunctionEvaluator):
    """Another score for each task, failures, fidelities, a metric for odd tasks only; it keeps what it is asked."""

    fidelities = (0.25, 1.0)

    def __init__(self, space: SearchSpace, number: int) -> None:
        super().__init__(space)
        self.number = number
        self.batches: list[tuple[Tokens, float | None]] = []

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        self.space.check(tokens)
        self.batches.append((tokens, fidelity))
        accuracy = (scramble(tokens) + 0.1 * self.number + (fidelity or 1.0)) % 1.0
        failed = accuracy < 0.1
        metrics = {"latency": 1.0 + accuracy} if self.number % 2 else {}
        return Evaluations(np.where(failed, 0.0, accuracy), metrics, failed)


def evaluators(space: Any, tasks: tuple[str, ...] = TASKS) -> MultiTaskEvaluator:
    return MultiTaskEvaluator({task: TaskEvaluator(make_space(space), number) for number, task in enumerate(tasks)})


def arguments_of(name: str, **arguments: Any) -> dict[str, Any]:
    base, space = BASES[name]
    return {"base": base, "tasks": TASKS, "space": space, "evaluator": evaluators(space), **arguments}


def scalar(name: str = "bench201", **arguments: Any) -> MultiTaskEnv:
    return MultiTaskEnv(**arguments_of(name, **arguments))


def native(name: str = "bench201", num_envs: int = 4, **arguments: Any) -> MultiTaskVectorEnv:
    mode = arguments.pop("autoreset_mode", AutoresetMode.SAME_STEP)
    return MultiTaskVectorEnv(num_envs, autoreset_mode=mode, **arguments_of(name, **arguments))


def sync(name: str, num_envs: int, mode: AutoresetMode, **arguments: Any) -> SyncVectorEnv:
    return SyncVectorEnv([lambda: scalar(name, **arguments) for _ in range(num_envs)], autoreset_mode=mode)


def play(env: Any, rng: np.random.Generator, **reset: Any) -> tuple[list[Any], float, dict[str, Any]]:
    """One episode of random legal choices: its observations, reward and last info."""
    observation, info = env.reset(**reset)
    observations, infos, terminated = [observation], [info], False
    while not terminated:
        action = rng.choice(np.flatnonzero(info["action_mask"]))
        observation, reward, terminated, _, info = env.step(action)
        observations.append(observation)
        infos.append(info)
    assert len({info["task"] for info in infos}) == 1
    assert all(type(info["task"]) is int for info in infos)
    return observations, float(reward), info


def drawn(env: Any, episodes: int) -> list[int]:
    return [env.reset()[1]["task"] for _ in range(episodes)]


# ---------------------------------------------------------------------- Gymnasium's contract


@pytest.mark.slow
@pytest.mark.parametrize("observation", FORMS)
@pytest.mark.parametrize("on_invalid", ["remap", "penalise"])
def test_checker(observation: str, on_invalid: str) -> None:
    env = gymnasium.make(ID, observation=observation, on_invalid=on_invalid, render_mode="ansi")
    check_env(env.unwrapped)
    again = gymnasium.make(env.spec)
    assert again.observation_space == env.observation_space
    assert again.unwrapped.tasks == env.unwrapped.tasks


def test_ids() -> None:
    env = gymnasium.make(ID)
    envs = gymnasium.make_vec(ID, num_envs=3, base="NAS-Bench201-v0", tasks=TASKS, evaluator="constant")
    assert isinstance(env.unwrapped, MultiTaskEnv)
    assert env.unwrapped.tasks == ("cora", "citeseer", "pubmed", "cs", "physics", "photo", "computers", "arxiv")
    assert isinstance(envs.unwrapped, MultiTaskVectorEnv)
    assert envs.unwrapped.tasks == TASKS
    assert list(envs.unwrapped.evaluators) == list(TASKS)
    assert envs.unwrapped.search_space == make_space("bench201")


@pytest.mark.parametrize("name", BASES)
def test_observations_are_the_bases_with_the_task(name: str) -> None:
    base_id, space = BASES[name]
    forms = {form: scalar(name, observation=form) for form in FORMS}
    bases = {form: ConstructionEnv(space, evaluator="constant", observation=form) for form in ("onehot", "tokens")}
    length, width = bases["tokens"].search_space.length, bases["tokens"].search_space.num_choices
    assert forms["onehot"].observation_space == gymnasium.spaces.Box(0, 1, (length * width + 3,), np.float32)
    high = np.array([width - 1] * length + [2])
    low = np.array([-1] * length + [0])
    assert forms["tokens"].observation_space == gymnasium.spaces.Box(low, high, dtype=np.int64)
    assert forms["dict"].observation_space == gymnasium.spaces.Dict(
        observation=bases["onehot"].observation_space, task=gymnasium.spaces.Discrete(3)
    )
    assert base_id in gymnasium.registry
    for number, task in enumerate(TASKS):
        played = {
            form: play(env, np.random.default_rng(number), options={"task": task})[0] for form, env in forms.items()
        }
        plain = {form: [env.reset()[0]] for form, env in bases.items()}
        rng, terminated = np.random.default_rng(number), False
        while not terminated:
            action = rng.choice(np.flatnonzero(bases["onehot"].action_masks()))
            for form, env in bases.items():
                observation, _, terminated, _, _ = env.step(action)
                plain[form].append(observation)
        for step, (onehot, tokens) in enumerate(zip(plain["onehot"], plain["tokens"], strict=True)):
            np.testing.assert_array_equal(played["onehot"][step], np.append(onehot, np.eye(3)[number]))
            np.testing.assert_array_equal(played["tokens"][step], np.append(tokens, number))
            np.testing.assert_array_equal(played["dict"][step]["observation"], onehot)
            assert played["dict"][step]["task"] == number
            assert all(env.observation_space.contains(played[form][step]) for form, env in forms.items())


# ---------------------------------------------------------------------- which task


def test_an_episode_is_scored_by_the_evaluator_of_its_task() -> None:
    env, rng = scalar(), np.random.default_rng(0)
    env.reset(seed=1)
    seen = set()
    for _ in range(30):
        _, reward, info = play(env, rng)
        number = info["task"]
        expected = TaskEvaluator(env.search_space, number).evaluate(info["architecture"][None])
        assert reward == expected.accuracy[0]
        columns = {name: float(column[0]) for name, column in expected.columns().items()}
        assert info["evaluation"] == {**columns, "task": float(number)}
        seen.add(number)
    assert seen == {0, 1, 2}


@pytest.mark.parametrize(
    ("weights", "shares"), [(None, [1 / 3] * 3), ([1, 0, 3], [0.25, 0, 0.75]), ([0, 1, 0], [0, 1, 0])]
)
def test_tasks_are_drawn_by_weight(weights: list[float] | None, shares: list[float]) -> None:
    env = scalar(weights=weights)
    env.reset(seed=0)
    counts = np.bincount(drawn(env, 3000), minlength=3) / 3000
    np.testing.assert_allclose(counts, shares, atol=0.03)
    assert (counts[np.array(shares) == 0] == 0).all()


def test_the_draws_follow_from_the_seed() -> None:
    env, other = scalar(), scalar("chain")
    sequences = []
    for env_, seed in ((env, 5), (other, 5), (env, 6)):
        env_.reset(seed=seed)
        sequences.append(drawn(env_, 50))
    assert sequences[0] == sequences[1] != sequences[2]


@pytest.mark.parametrize("vector", [False, True])
def test_a_chosen_task_is_for_one_episode_and_draws_nothing(vector: bool) -> None:
    def tasks(choose: bool) -> list[int]:
        env = native(num_envs=1, autoreset_mode="Disabled") if vector else scalar()
        found = []
        env.reset(seed=3)
        for episode in range(20):
            if choose and episode % 3 == 0:
                _, info = env.reset(options={"task": "b"})
                assert info["task"] == 1
            found.append(int(np.squeeze(env.reset()[1]["task"])))
        return found

    assert tasks(True) == tasks(False)


def test_options_go_together() -> None:
    env = scalar()
    options = {"task": "c", "architecture": [4, 3], "fidelity": 0.3}
    observation, info = env.reset(options=options)
    assert info["task"] == 2
    assert observation.reshape(-1)[: 2 * 5].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 1, 0]
    for _ in range(4):
        *_, info = env.step(2)
    assert info["architecture"].tolist() == [4, 3, 2, 2, 2, 2]
    assert info["evaluation"]["fidelity"] == 0.25
    expected = TaskEvaluator(env.search_space, 2).evaluate(info["architecture"][None], fidelity=0.25)
    assert info["evaluation"]["accuracy"] == expected.accuracy[0]


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize("task", ["d", 1, ["a"]])
def test_a_task_that_is_none(task: Any, vector: bool) -> None:
    env = native() if vector else scalar()
    with pytest.raises(ValueError, match=re.escape(f"options['task'] must be one of 'a', 'b', 'c'; got {task!r}")):
        env.reset(options={"task": task})


# ---------------------------------------------------------------------- native against scalar


@pytest.mark.slow
@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("on_invalid", ["remap", "penalise"])
@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("observation", FORMS)
def test_native_equals_scalar(observation: str, name: str, on_invalid: str, mode: AutoresetMode) -> None:
    """In and out of step; resets of all and of some, with and without tasks, prefixes, fidelities, seeds."""
    arguments = {"observation": observation, "on_invalid": on_invalid, "weights": [3, 1, 2]}
    made, wanted = native(name, autoreset_mode=mode, **arguments), sync(name, 4, mode, **arguments)
    length = made.search_space.length
    rng = np.random.default_rng(length)
    assert_same(made.reset(seed=7), wanted.reset(seed=7))
    seen: set[tuple[int, float]] = set()
    for _ in range(20 * length):
        masks = made.action_masks()
        legal = np.argmax(masks * rng.random(masks.shape), axis=1)
        actions = np.where(rng.random(4) < 0.3 / length, rng.integers(masks.shape[1], size=4), legal)
        expected = stacked(wanted.step(actions))
        assert_same(made.step(actions), expected)
        np.testing.assert_array_equal(made.action_masks(), expected[-1]["action_mask"].astype(bool))
        ended, infos = expected[2], expected[-1]
        if ended.any():
            last = infos["final_info"] if mode is AutoresetMode.SAME_STEP else infos
            np.testing.assert_array_equal(last["evaluation"]["task"][ended], last["task"][ended])
            shares = last["evaluation"].get("fidelity", np.zeros(4))
            seen |= set(zip(last["task"][ended].tolist(), shares[ended].tolist(), strict=True))
        mask = (ended if mode is AutoresetMode.DISABLED else np.zeros(4, dtype=bool)) | (rng.random(4) < 0.3 / length)
        if mask.any():
            options: dict[str, Any] = {"reset_mask": mask}
            options |= {"task": str(rng.choice(TASKS))} if rng.random() < 0.5 else {}
            options |= {"fidelity": 0.25} if rng.random() < 0.5 else {}
            options |= {"architecture": [0]} if rng.random() < 0.3 else {}
            seed = [None, 1, int(rng.integers(100)), None] if rng.random() < 0.3 else None
            assert_same(made.reset(seed=seed, options=dict(options)), wanted.reset(seed=seed, options=dict(options)))
    assert {task for task, _ in seen} == {0, 1, 2}
    assert {share for _, share in seen} == {0.0, 0.25}


def test_the_real_table() -> None:
    made = gymnasium.make_vec(ID, num_envs=5)
    wanted = SyncVectorEnv([lambda: gymnasium.make(ID) for _ in range(5)])
    rng = np.random.default_rng(0)
    assert_same(made.reset(seed=11), wanted.reset(seed=11))
    for _ in range(30):
        actions = rng.integers(9, size=5)
        assert_same(made.step(actions), stacked(wanted.step(actions)))


def test_each_task_sees_one_batch() -> None:
    envs = native(num_envs=64)
    rng = np.random.default_rng(0)
    _, infos = envs.reset(seed=0)
    mask = rng.random(64) < 0.5
    envs.reset(options={"reset_mask": mask, "task": "b", "fidelity": 0.25})
    for number in range(12):
        before = {task: len(evaluator.batches) for task, evaluator in envs.evaluators.items()}
        *_, terminations, _, infos = envs.step(rng.integers(5, size=64))
        assert terminations.all() == (number % 6 == 5)
        asked = {task: evaluator.batches[before[task] :] for task, evaluator in envs.evaluators.items()}
        if not terminations.any():
            assert not any(asked.values())
            continue
        tasks, architectures = infos["final_info"]["task"], infos["final_info"]["architecture"]
        shares = infos["final_info"]["evaluation"].get("fidelity", np.zeros(64))
        for row, task in enumerate(TASKS):
            expected = [(architectures[(tasks == row) & (shares == share)], share or None) for share in (0.25, 0.0)]
            expected = [(batch, share) for batch, share in expected if len(batch)]
            assert [share for _, share in asked[task]] == [share for _, share in expected]
            for (batch, _), (wanted, _) in zip(asked[task], expected, strict=True):
                np.testing.assert_array_equal(batch, wanted)
    assert len(set(tasks.tolist())) == 3


@pytest.mark.parametrize("observation", FORMS)
def test_what_the_native_environment_returns_is_a_copy(observation: str) -> None:
    def spoil(value: Any) -> None:
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, np.ndarray):
                assert item.base is None
                item[:] = 1
            elif isinstance(item, dict):
                spoil(item)

    envs, spoiled = native("chain", observation=observation), native("chain", observation=observation)
    rng = np.random.default_rng(0)
    envs.reset(seed=0)
    spoil(spoiled.reset(seed=0))
    for _ in range(40):
        actions = np.argmax(envs.action_masks() * rng.random((4, envs.single_action_space.n)), axis=1)
        expected, actual = envs.step(actions), spoiled.step(actions)
        assert_same(actual, expected)
        spoil(actual)


def test_a_state_brings_the_same_tasks() -> None:
    envs, other = native(), native()
    envs.reset(seed=4)
    state = json.loads(json.dumps(envs.state_dict()))
    expected = [envs.reset()[1]["task"].tolist() for _ in range(10)]
    other.load_state_dict(state)
    assert [other.reset()[1]["task"].tolist() for _ in range(10)] == expected


def test_numbers_drawn_ahead_change_no_task() -> None:
    """A row's tasks are those of its own generator, however often the state is read and rows are reset alone."""
    envs, generators = native(num_envs=2), [np_random(seed)[0] for seed in (4, 5)]
    tasks = envs.reset(seed=4)[1]["task"]
    assert tasks.tolist() == [int(len(TASKS) * generator.random()) for generator in generators]
    rng = np.random.default_rng(0)
    for episode in range(80):
        mask = rng.permutation([True, rng.random() < 0.5])
        tasks = envs.reset(options={"reset_mask": mask})[1]["task"]
        for row in np.flatnonzero(mask):
            assert tasks[row] == int(len(TASKS) * generators[row].random())
        if episode % 7 == 0:
            states = [json.loads(text) for text in envs.state_dict()["generators"]]
            assert states == [generator.bit_generator.state for generator in generators]


def test_masks_in_the_observation() -> None:
    env = MaskedObservation(scalar("chain", observation="dict"))
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert observation["observation"]["task"] == info["task"]


# ---------------------------------------------------------------------- Stable-Baselines3


@pytest.mark.parametrize("observation", FORMS)
def test_stable_baselines_plays_it(observation: str) -> None:
    from stable_baselines3.common.env_util import make_vec_env

    from nas_gym.envs.stable_baselines import SB3VecEnv

    adapted = SB3VecEnv(native("chain", 3, observation=observation))
    dummy = make_vec_env(lambda: scalar("chain", observation=observation), n_envs=3)
    for env in (adapted, dummy):
        env.seed(5)
    rng = np.random.default_rng(0)

    def compare(one: Any, other: Any) -> None:
        for key in one if isinstance(one, dict) else [...]:
            np.testing.assert_array_equal(one[key], other[key])

    compare(adapted.reset(), dummy.reset())
    endings = 0
    for _ in range(60):
        masks = np.array(adapted.env_method("action_masks"))
        actions = np.argmax(masks * rng.random(masks.shape), axis=1)
        (made, rewards, dones, infos), (wanted, expected, done, others) = adapted.step(actions), dummy.step(actions)
        compare(made, wanted)
        np.testing.assert_array_equal(rewards, expected)
        np.testing.assert_array_equal(dones, done)
        for row in np.flatnonzero(dones):
            assert infos[row]["task"] == others[row]["task"]
            assert infos[row]["evaluation"] == others[row]["evaluation"]
            compare(infos[row]["terminal_observation"], others[row]["terminal_observation"])
            endings += 1
    assert endings > 10


def test_stable_baselines_learns() -> None:
    from stable_baselines3 import PPO

    from nas_gym.envs.stable_baselines import SB3VecEnv

    envs = SB3VecEnv(native(num_envs=4, observation="dict"))
    model = PPO("MultiInputPolicy", envs, n_steps=12, batch_size=24, n_epochs=1, seed=0, device="cpu")
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    model.learn(48)
    assert any(not (old == new).all() for old, new in zip(before, model.policy.parameters(), strict=True))


# ---------------------------------------------------------------------- arguments


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": []}, "tasks must be a list of different names of tasks, at least one; got []"),
        ({"tasks": "cora"}, "tasks must be a list of different names of tasks, at least one; got 'cora'"),
        ({"tasks": ["cora", "cora"]}, "tasks must be a list of different"),
        ({"tasks": [1]}, "tasks must be a list of different"),
        ({"task": "cora"}, "tasks takes the names of all tasks; got also task='cora'"),
        ({"weights": [1.0]}, "weights must be 2 numbers, none negative and not all 0, or None; got [1.0]"),
        ({"weights": [1, -1]}, "weights must be 2 numbers"),
        ({"weights": [0, 0]}, "weights must be 2 numbers"),
        ({"weights": [1, float("nan")]}, "weights must be 2 numbers"),
        ({"weights": ["1", "2"]}, "weights must be 2 numbers"),
        ({"base": "NAS-Nothing-v0"}, "base must be the id of a construction environment, such as NAS-Cell-v0"),
        ({"base": "NAS-Transform-v0"}, "base must be the id of a construction environment"),
        ({"base": ID}, "base must be the id of a construction environment"),
        (
            {"observation": "actions"},
            "observation must be one of 'onehot', 'tokens', 'float-tokens', 'dict'; got 'actions'",
        ),
        ({"tasks": ["cora", "imagenet"]}, "task 'imagenet' is not in NAS-Bench-Graph; tasks: cora, citeseer"),
        ({"base": "NAS-Cell-v0"}, "unknown task 'cora'; known: digits"),
    ],
)
def test_arguments_that_are_not_understood(arguments: dict[str, Any], message: str, vector: bool) -> None:
    given = {"base": GRAPH, "tasks": ["cora", "citeseer"], **arguments}
    with pytest.raises(ValueError, match=re.escape(message)):
        MultiTaskVectorEnv(2, **given) if vector else MultiTaskEnv(**given)


def test_a_mixture_of_spaces_is_refused() -> None:
    with pytest.raises(ValueError, match="tasks must share one search space: that of 'proteins' is") as caught:
        gymnasium.make(ID, tasks=("cora", "proteins", "cs"))
    assert str(caught.value).endswith("of the tasks given, cora, cs share the latter")
    assert gymnasium.make(ID, tasks=["proteins"]).unwrapped.search_space == make_space("bench_graph:proteins")


def test_evaluators_that_are_not_for_these_tasks() -> None:
    own = evaluators("bench201")
    with pytest.raises(ValueError, match="evaluator must be for the tasks c, b, a; got a, b, c"):
        scalar(evaluator=own, tasks=("c", "b", "a"))
    schedule = scalar().schedule
    assert isinstance(schedule, MultiTaskSchedule)
    with pytest.raises(ValueError, match="schedule must be for the tasks a, b; got a, b, c"):
        scalar(schedule=schedule, tasks=("a", "b"))
    with pytest.raises(ValueError, match="schedule must be a name, a mapping or a MultiTaskSchedule"):
        scalar(schedule=schedule.schedules["a"])
    weights = make_evaluator("shared-weights", make_space(CELL), "digits", {**TINY, "device": "cpu"})
    with pytest.raises(ValueError, match="evaluator must be a name or a MultiTaskEvaluator, or have no state"):
        scalar("cell", space=CELL, evaluator=weights)
    assert scalar(schedule=schedule, evaluator="constant").evaluators is schedule.evaluator.evaluators


def test_the_table_may_be_named() -> None:
    given = {"base": GRAPH, "tasks": ["cora", "cs"]}
    named, plain = MultiTaskEnv(**given, table="nas-bench-graph"), MultiTaskEnv(**given)
    plays = [play(env, np.random.default_rng(0), options={"task": "cs"})[1] for env in (named, plain)]
    assert plays[0] == plays[1] > 0


# ---------------------------------------------------------------------- evaluators and schedules


def test_the_evaluator_of_all_tasks_gives_means() -> None:
    space = make_space("bench201")
    tokens = space.sample(np.random.default_rng(0), 50)
    both = evaluators(space, ("a", "b"))
    each = [TaskEvaluator(space, number).evaluate(tokens, fidelity=0.25) for number in (0, 1)]
    found = both.evaluate(tokens, fidelity=0.25)
    failed = each[0].failed | each[1].failed
    assert failed.any()
    assert not failed.all()
    np.testing.assert_array_equal(found.failed, failed)
    np.testing.assert_allclose(found.accuracy[~failed], (each[0].accuracy + each[1].accuracy)[~failed] / 2)
    assert found.metrics == {}  # a latency has one of them alone
    assert both.fidelities == (0.25, 1.0)
    assert not both.stateful
    with pytest.raises(ValueError, match="evaluators must hold one for each task"):
        MultiTaskEvaluator({})


def test_fidelities_are_those_of_all_tasks() -> None:
    space = make_space("bench201")
    assert MultiTaskEvaluator({"a": TaskEvaluator(space, 0), "b": FunctionEvaluator(space)}).fidelities == ()


class Counting(FunctionEvaluator):
    """Stateful: its accuracy tells how often it was updated."""

    stateful = True

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space)
        self.steps = 0

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        return Evaluations(np.full(len(tokens), self.steps / 1000))

    def update(self, tokens: Tokens) -> dict[str, float]:
        self.steps += 1
        return {"weights/loss": float(self.steps), "weights/skipped": 0.0}

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


def counting() -> MultiTaskSchedule:
    space = make_space("bench201")
    settings = ScheduleSettings(warmup_steps=3, steps_per_trial=2, architectures_per_step=4)
    return MultiTaskSchedule({task: InterleavedSchedule(Counting(space), settings) for task in ("a", "b")})


def test_a_schedule_for_each_task() -> None:
    schedule = counting()
    pending = [statistics["pending_steps"] for statistics in schedule.prepare()]
    assert pending == [5, 4, 3, 2, 1, 0]
    assert list(schedule.prepare()) == []
    assert schedule.evaluator.stateful
    assert schedule.evaluator.steps == 6
    tokens = schedule.evaluator.space.sample(np.random.default_rng(0), 5)
    assert schedule.schedules["b"].score(tokens).accuracy.tolist() == [7 / 1000] * 5  # twice, in batches of 4 and 1
    assert schedule.schedules["a"].score(tokens[:1]).accuracy.tolist() == [5 / 1000]
    assert schedule.trials == 6
    assert schedule.statistics == {
        "weights/a/loss": 4.5, "weights/a/skipped": 0.0, "weights/b/loss": 5.5, "weights/b/skipped": 0.0,
    }  # fmt: skip
    other = counting()
    other.load_state_dict(copy.deepcopy(schedule.state_dict()))
    assert other.state_dict() == schedule.state_dict()
    assert other.trials == 6
    assert list(other.prepare()) == []
    again = counting().evaluator
    again.load_state_dict(schedule.evaluator.state_dict())
    assert again.steps == 12
    before = schedule.trials
    found = schedule.score(tokens).accuracy  # on every task
    each = [evaluator.evaluate(tokens).accuracy for evaluator in schedule.evaluator.evaluators.values()]
    np.testing.assert_allclose(found, np.mean(each, axis=0))
    assert schedule.trials == before + len(each) * len(tokens)


def test_an_environment_trains_the_weights_of_the_task_alone() -> None:
    schedule = counting()
    env = MultiTaskEnv(GRAPH, ("a", "b"), space="bench201", schedule=schedule)
    play(env, np.random.default_rng(0), options={"task": "a"})
    assert [evaluator.steps for evaluator in env.evaluators.values()] == [5, 0]
    _, reward, _ = play(env, np.random.default_rng(0), options={"task": "b"})
    assert reward == 5 / 1000
    envs = MultiTaskVectorEnv(8, base=GRAPH, tasks=("a", "b"), schedule=schedule)
    assert envs.schedule is schedule
    envs.reset(options={"task": "a"})
    for _ in range(6):
        envs.step(np.zeros(8, dtype=np.int64))
    assert [evaluator.steps for evaluator in env.evaluators.values()] == [9, 5]
    assert schedule.trials == 10


@pytest.mark.slow
def test_shared_weights_of_class_subsets() -> None:
    envs = gymnasium.make_vec(ID, num_envs=4, **SHARED)
    assert [evaluator.task.classes for evaluator in envs.unwrapped.evaluators.values()] == [
        tuple("01234"),
        tuple("56789"),
    ]
    result = RandomSearch(envs, seed=0).learn(8)
    assert set(result.metrics["task"].tolist()) <= {0.0, 1.0}
    assert np.isfinite(result.metrics["loss"]).all()


# ---------------------------------------------------------------------- agents and runs


def test_the_history_tells_the_task() -> None:
    envs = native(num_envs=7)
    envs.reset(seed=0)
    result = RandomSearch(envs, seed=0).learn(40)
    for number in range(3):
        rows = result.metrics["task"] == number
        assert rows.any()
        expected = TaskEvaluator(envs.search_space, number).evaluate(result.tokens[rows])
        np.testing.assert_array_equal(result.rewards[rows], expected.accuracy)


TABULAR = RunConfig(
    env=ID, agent="random", trials=34, num_envs=4, seed=5, env_kwargs={"tasks": ["cora", "cs", "photo"]}
)
TRAINED = RunConfig(
    env=ID,
    trials=12,
    num_envs=4,
    seed=3,
    hyperparameters={"batch_size": 6, "learning_rate": 0.05},
    env_kwargs=SHARED,
    retrain_epochs=0,
)


def make_run(folder: Path, config: RunConfig | None = None) -> Run:
    return Run(folder, config, Console(quiet=True))


def interrupted(monkeypatch: pytest.MonkeyPatch, folder: Path, config: RunConfig, calls: int) -> None:
    """A run that is stopped, as by Ctrl-C, the `calls`-th time that it might save itself."""
    count = 0
    original = Recorder.save_or_stop

    def stop(self: Recorder) -> None:
        nonlocal count
        count += 1
        if count == calls:
            self.stop.append(2)
        original(self)

    with monkeypatch.context() as patched:
        patched.setattr(Recorder, "save_or_stop", stop)
        with pytest.raises(Interrupted):
            make_run(folder, config).execute()


def assert_same_results(folder: Path, reference: Path) -> None:
    for name in ("trials.csv", "best.json"):
        assert (folder / name).read_bytes() == (reference / name).read_bytes(), name


def test_a_run_on_tables_is_resumed(tmp_path: Path) -> None:
    reference, folder = tmp_path / "whole", tmp_path / "cut"
    run = make_run(reference, TABULAR)
    record = run.execute()
    result = run.agent.result
    assert set(result.metrics["task"].tolist()) == {0.0, 1.0, 2.0}
    # The best is looked up on its own task.
    best = int(np.argmax(result.rewards))
    task = TABULAR.env_kwargs["tasks"][int(result.metrics["task"][best])]
    table = make_evaluator("table", make_space("bench_graph"), task)
    assert record["best"]["task"] == task
    assert record["best"]["trial"] == best
    assert record["best"]["test_accuracy"] == table.test(result.tokens[[best]])[0]  # type: ignore[attr-defined]
    names = [row.name for row in run.comparison.rows if row.role in ("found", "candidate")]
    assert {result.metrics["task"][int(name.split()[1])] for name in names} == {result.metrics["task"][best]}
    assert load_best(reference).tokens == tuple(result.tokens[best].tolist())

    shutil.copytree(reference, folder)
    (folder / "best.json").unlink()
    record = TrialRecord(folder)
    record.cut(18)
    record.close()
    make_run(folder).execute()
    assert_same_results(folder, reference)


def test_what_is_on_record_is_answered_for_its_own_task() -> None:
    """The same architecture on another task is not on record; nor are the metrics of other tasks."""
    envs = native(num_envs=4)
    envs.reset(seed=1)
    rows = RandomSearch(envs, seed=0).learn(24)
    space = envs.search_space
    fresh = native(num_envs=4)
    answer_from_record(fresh.schedule, rows)
    for number, (task, evaluator) in enumerate(fresh.evaluators.items()):
        own = rows.rows(rows.metrics["task"] == number)
        found = fresh.schedule.schedules[task].score(rows.tokens)
        expected = TaskEvaluator(space, number).evaluate(rows.tokens)
        np.testing.assert_array_equal(found.accuracy, expected.accuracy)
        np.testing.assert_array_equal(found.failed, expected.failed)
        assert found.metrics.keys() == expected.metrics.keys()
        asked = {row.tobytes() for tokens, _ in evaluator.batches for row in tokens}
        assert asked == {row.tobytes() for row in rows.tokens} - {row.tobytes() for row in own.tokens}


@pytest.mark.slow
def test_a_run_draws_its_tasks_from_its_seed(tmp_path: Path) -> None:
    columns = []
    for name, seed in (("one", 5), ("same", 5), ("other", 6)):
        config = RunConfig(**{**vars(TABULAR), "seed": seed, "trials": 12})
        make_run(tmp_path / name, config).execute()
        trials = read_trials(tmp_path / name)
        columns.append(trials.metrics["task"].tolist())
    assert columns[0] == columns[1] != columns[2]


@pytest.mark.slow
def test_a_run_with_shared_weights_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the warm-up of the second task, and between trials."""
    reference = tmp_path / "whole"
    make_run(reference, TRAINED).execute()
    for calls in (3, 5):
        folder = tmp_path / f"cut-{calls}"
        interrupted(monkeypatch, folder, TRAINED, calls)
        make_run(folder).execute()
        assert_same_results(folder, reference)
