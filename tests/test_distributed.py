"""Evaluations in workers: on a cluster of two nodes, with workers that die, hang and raise; asynchronous search."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from rich.console import Console

from nas_gym.agents import Agent, Callback, make_agent
from nas_gym.evaluators import (
    DistributedEvaluator,
    Evaluations,
    EvaluationStore,
    Evaluator,
    FunctionEvaluator,
    GuardedEvaluator,
    StoredEvaluator,
)
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.experiments.benchmark.execution import missing_jobs, run_benchmark
from nas_gym.experiments.benchmark.suite import make_suite
from nas_gym.experiments.run.asynchronous import learn_asynchronously
from nas_gym.experiments.run.config import RunConfig
from nas_gym.experiments.run.record import TrialRecord
from nas_gym.experiments.run.run import Run
from nas_gym.experiments.run.trials import read_trials, trial_rows
from nas_gym.spaces import Bench201Space, Tokens

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'nas-gym[ray]'")

pytestmark = pytest.mark.slow
SPACE = Bench201Space()
TOKENS = SPACE.sample(np.random.default_rng(0), 24)


def name(row: Any) -> str:
    return "-".join(map(str, row))


def node() -> str:
    """Of the Ray cluster, that this process runs on; nothing outside of one."""
    import ray

    return str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else ""


def begun(folder: Path, row: Any) -> list[Path]:
    """What tells that an architecture was begun, a file each time."""
    return list(folder.glob(f"{name(row)}_*"))


class Scored(Evaluator):
    """Scores by the index; where the plan says so, the process dies, hangs, waits or raises, once or always.

    Args:
        folder: where the workers of all processes leave word of what they do.
        plan: by architecture: "die", "hang", "wait" or "raise", with "once" before it or without.
    """

    fidelities = (0.5, 1.0)

    def __init__(self, folder: str, plan: dict[tuple[int, ...], str] | None = None) -> None:
        super().__init__(SPACE)
        self.folder, self.plan = Path(folder), plan or {}

    def fingerprint(self) -> dict[str, Any]:
        return {"evaluator": "scored"}

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        for row in map(tuple, tokens.tolist()):
            seen = begun(self.folder, row)
            (self.folder / f"{name(row)}_{node()}_{os.getpid()}_{time.time_ns()}").touch()
            word = self.plan.get(row, "")
            if word.startswith("once ") and seen:
                continue
            match word.removeprefix("once "):
                case "die":
                    os._exit(1)
                case "hang":
                    time.sleep(600)
                case "wait":
                    time.sleep(0.2)
                case "raise":
                    raise ValueError(f"cannot evaluate {row}")
        index = self.space.index(tokens)
        failed = index % 3 == 0
        accuracy = np.where(failed, 0.0, index / 15625 * (fidelity or 1.0))
        reasons = tuple("diverged" if bad else "" for bad in failed)
        return Evaluations(accuracy, {"root": np.sqrt(index)}, failed, reasons)


def assert_equal(first: Evaluations, second: Evaluations) -> None:
    assert list(first.metrics) == list(second.metrics)
    for column, values in first.columns().items():
        assert values.tobytes() == second.columns()[column].tobytes(), column
    assert first.reasons == second.reasons


def unique(tokens: Tokens) -> Tokens:
    return np.unique(tokens, axis=0)


@pytest.fixture
def here(tmp_path: Path) -> Evaluator:
    """What evaluates in this process."""
    (folder := tmp_path / "here").mkdir()
    return Scored(str(folder))


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """Where workers leave word."""
    (folder := tmp_path / "there").mkdir()
    return folder


# ------------------------------------------------------------------ on a cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one core each; this process is their client."""
    from ray.cluster_utils import Cluster

    settings = {"num_cpus": 1, "object_store_memory": 2**27}
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # workers import this file
    made = Cluster(initialize_head=True, head_node_args={**settings, "include_dashboard": False})
    made.add_node(**settings)
    ray.init(made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()
    monkeypatch.undo()


@pytest.mark.slow
def test_two_nodes_evaluate_as_one_process_does(cluster: Any, here: Evaluator, there: Path) -> None:
    tokens = np.concatenate([TOKENS, TOKENS[5:9]])
    plan = {tuple(row): "wait" for row in TOKENS[:6].tolist()}  # so that neither node does all
    with DistributedEvaluator(partial(Scored, str(there), plan), 2) as evaluator:
        for fidelity in (None, 0.5):
            assert_equal(evaluator.evaluate(tokens, fidelity=fidelity), here.evaluate(tokens, fidelity=fidelity))
        assert all(len(begun(there, row)) == 2 for row in unique(tokens)), "once a fidelity"
        assert len({path.name.split("_")[1] for path in there.iterdir()}) == 2, "nodes"
        assert evaluator.fingerprint() == {"evaluator": "scored"}
        assert (evaluator.fidelities, evaluator.workers, evaluator.lost) == ((0.5, 1.0), 2, 0)
        assert list(evaluator.evaluate(TOKENS[:0]).metrics) == ["root"]
    assert ray.is_initialized(), "what was running before is left running"


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_no_trial_is_lost(cluster: Any, here: Evaluator, there: Path) -> None:
    plan = {tuple(TOKENS[3].tolist()): "once die", tuple(TOKENS[8].tolist()): "once die"}
    with DistributedEvaluator(partial(Scored, str(there), plan), 2) as evaluator:
        assert_equal(evaluator.evaluate(TOKENS), here.evaluate(TOKENS))
        assert evaluator.lost == 2
    assert [len(begun(there, row)) for row in TOKENS] == [2 if i in (3, 8) else 1 for i in range(len(TOKENS))]


@pytest.mark.slow
def test_a_straggler_is_given_to_another_worker(cluster: Any, here: Evaluator, there: Path) -> None:
    plan = {tuple(TOKENS[2].tolist()): "once hang"}
    with DistributedEvaluator(partial(Scored, str(there), plan), 2, timeout=2.0) as evaluator:
        assert_equal(evaluator.evaluate(TOKENS), here.evaluate(TOKENS))
        assert evaluator.lost == 1


@pytest.mark.slow
def test_by_default_a_straggler_is_one_that_takes_many_times_the_median(
    cluster: Any, here: Evaluator, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is begun before anything has been measured; the other worker measures."""
    monkeypatch.setattr("nas_gym.evaluators.waiting.FLOOR", 1.0)
    plan = {tuple(TOKENS[0].tolist()): "once hang"}
    with DistributedEvaluator(partial(Scored, str(there), plan), 2) as evaluator:
        assert_equal(evaluator.evaluate(TOKENS), here.evaluate(TOKENS))
        assert evaluator.lost == 1


class Enough(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("word", ["hang", "wait"])
def test_waiting_for_workers_can_be_interrupted(cluster: Any, there: Path, word: str) -> None:
    plan = {tuple(row): word for row in TOKENS.tolist()}

    def poll() -> None:
        raise Enough

    with DistributedEvaluator(partial(Scored, str(there), plan), 2) as evaluator:
        evaluator.poll = poll
        with pytest.raises(Enough):
            evaluator.evaluate(TOKENS)


def guarded(folder: str, plan: dict[tuple[int, ...], str], retries: int) -> Evaluator:
    return GuardedEvaluator(Scored(folder, plan), retries)


@pytest.mark.slow
@pytest.mark.parametrize(("word", "failed"), [("raise", True), ("once raise", False)])
def test_workers_make_errors_failed_trials(cluster: Any, here: Evaluator, there: Path, word: str, failed: bool) -> None:
    key = tuple(TOKENS[5].tolist())
    with DistributedEvaluator(partial(guarded, str(there), {key: word}, 1), 2) as evaluator:
        found = evaluator.evaluate(TOKENS)
        assert found.reasons[5].startswith(f"raised ValueError: cannot evaluate {key}") == failed
        others = (TOKENS[5] != TOKENS).any(axis=1) | (not failed)
        assert_equal(found.rows(others), here.evaluate(TOKENS[others]))
        assert len(begun(there, TOKENS[5])) == 2
        assert evaluator.lost == 0


@pytest.mark.slow
def test_what_kills_every_worker_fails_and_is_not_stored(cluster: Any, here: Evaluator, there: Path) -> None:
    plan = {tuple(TOKENS[4].tolist()): "die"}
    with DistributedEvaluator(partial(Scored, str(there), plan), 2, attempts=2) as evaluator:
        stored = StoredEvaluator(evaluator, there.parent / "store.sqlite")
        evaluations = stored.evaluate(TOKENS)
        assert (evaluations.reasons[4], evaluations.accuracy[4], evaluator.lost) == ("worker lost 2 times", 0.0, 2)
        others = np.arange(len(TOKENS)) != 4
        assert_equal(evaluations.rows(others), here.evaluate(TOKENS[others]))
        assert len(stored.store) == len(unique(TOKENS)) - 1
    assert len(begun(there, TOKENS[4])) == 2


@pytest.mark.slow
def test_what_the_evaluator_raises_is_raised(cluster: Any, there: Path) -> None:
    plan = {tuple(TOKENS[5].tolist()): "raise"}
    with DistributedEvaluator(partial(Scored, str(there), plan), 2) as evaluator:
        with pytest.raises(ValueError, match=r"cannot evaluate \("):
            evaluator.evaluate(TOKENS)
        assert evaluator.lost == 0
    with pytest.raises(ValueError, match=r"the evaluator is closed"):
        evaluator.evaluate(TOKENS)


def fails_elsewhere(pid: int) -> Evaluator:
    if os.getpid() != pid:
        raise ValueError("the data set is not on this machine")
    return FunctionEvaluator(SPACE)


def differs(folder: str) -> Evaluator:
    """A constant that only the first process to get there has."""
    try:
        (Path(folder) / "first").touch(exist_ok=False)
    except FileExistsError:
        return FunctionEvaluator(SPACE, accuracy=0.25)
    return FunctionEvaluator(SPACE, accuracy=0.75)


@pytest.mark.slow
def test_workers_that_cannot_begin_or_differ_end_the_search(cluster: Any, there: Path) -> None:
    with DistributedEvaluator(partial(fails_elsewhere, os.getpid()), 2) as evaluator:
        with pytest.raises(ValueError, match=r"the data set is not on this machine"):
            evaluator.evaluate(TOKENS)
        with pytest.raises(ValueError, match=r"the data set is not on this machine"):
            evaluator.fingerprint()
    make = partial(differs, str(there))
    with DistributedEvaluator(make, 2, local=FunctionEvaluator(SPACE)) as evaluator:
        waited_for(lambda: isinstance(raised(evaluator), ValueError))  # as soon as the second one has begun
        assert "workers must have equal evaluators" in str(raised(evaluator))


def raised(evaluator: Evaluator) -> Exception | None:
    """What comes of asking for many evaluations."""
    try:
        evaluator.evaluate(SPACE.sample(np.random.default_rng(), 20))
    except ValueError as error:
        return error
    return None


ALONE = """
import numpy as np, ray
from nas_gym.evaluators import DistributedEvaluator, FunctionEvaluator
from nas_gym.spaces import Bench201Space

space = Bench201Space()
tokens = space.sample(np.random.default_rng(0), 9)

def make():
    return FunctionEvaluator(space, lambda tokens: tokens.sum(axis=1) / 24)

try:
    DistributedEvaluator(make, 1, gpus=1000)
except ValueError as error:
    assert "the workers need 1000 GPUs in total, but this machine has" in str(error)
assert not ray.is_initialized()
with DistributedEvaluator(make, 3) as evaluator:  # more than there may be cores
    assert evaluator.evaluate(tokens).accuracy.tolist() == make().evaluate(tokens).accuracy.tolist()
    assert ray.cluster_resources()["CPU"] == 3
assert not ray.is_initialized()
"""


@pytest.mark.slow
def test_ray_is_started_where_there_is_none_and_ends_with_the_evaluator() -> None:
    """In a process of its own, whose functions are sent along since no worker could import them."""
    ended = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 0}, r"workers must be an integer of at least 1, got 0"),
        ({"workers": 1.5}, r"workers must be an integer of at least 1, got 1.5"),
        ({"attempts": 0}, r"attempts must be an integer of at least 1, got 0"),
        ({"cpus": -1}, r"cpus must be a number that is not negative, got -1"),
        ({"gpus": "one"}, r"gpus must be a number that is not negative, got 'one'"),
        ({"timeout": 0}, r"timeout must be a positive number of seconds, inf for no limit, or None .* got 0"),
    ],
)
def test_numbers_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistributedEvaluator(partial(FunctionEvaluator, SPACE), **arguments)


# ------------------------------------------------------------------ asynchronous search


def search(name_: str, evaluator: Evaluator, trials: int, callback: Callback | None = None, **arguments: Any) -> Agent:
    hyperparameters = {"regularized-evolution": {"population_size": 8, "sample_size": 3}}.get(name_, {})
    env = gym.make_vec("NAS-Bench201-v0", num_envs=1, evaluator=evaluator)
    agent = make_agent(name_, env, 0, hyperparameters)
    learn_asynchronously(agent, trials, callback, **arguments)
    return agent


@pytest.mark.slow
@pytest.mark.parametrize("name_", ["random", "regularized-evolution"])
def test_asynchronous_trials_are_those_of_any_search(cluster: Any, here: Evaluator, there: Path, name_: str) -> None:
    plan = {tuple(row): "once die" for row in SPACE.sample(np.random.default_rng(0), 3).tolist()}  # what random asks
    with DistributedEvaluator(partial(Scored, str(there), plan), 2) as evaluator:
        result = search(name_, evaluator, 40).result
        assert evaluator._begun == {}
    assert len(result) == 40
    expected = here.evaluate(result.tokens)
    np.testing.assert_array_equal(result.rewards, expected.accuracy)
    for column, values in expected.columns().items():
        np.testing.assert_array_equal(result.metrics[column], values)
    if name_ == "random":
        assert evaluator.lost == 3
        np.testing.assert_array_equal(unique(result.tokens), unique(SPACE.sample(np.random.default_rng(0), 40)))


# ------------------------------------------------------------------ runs


def run_of(folder: Path, **config: Any) -> Path:
    fixed = {"population_size": 5, "sample_size": 2}
    given = RunConfig(
        env="NAS-Bench201-v0",
        agent="regularized-evolution",
        num_envs=config.pop("num_envs", None),
        trials=32,
        seed=3,
        hyperparameters=fixed,
        **config,
    )
    Run(folder, given, Console(quiet=True)).execute()
    return folder


@pytest.mark.slow
def test_a_run_with_workers_and_a_store_is_the_run_without(cluster: Any, tmp_path: Path) -> None:
    store = str(tmp_path / "store.sqlite")
    folders = [
        run_of(tmp_path / "plain", num_envs=4),
        run_of(tmp_path / "workers", num_envs=4, workers=2, store=store),
        run_of(tmp_path / "store", num_envs=4, store=store),
    ]
    tables = [(folder / "trials.csv").read_text() for folder in folders]
    assert tables[0] == tables[1] == tables[2]
    held = [series.evaluations for series in EvaluationStore(store).all_series()]
    assert held == [len({line.split(",")[1] for line in tables[0].splitlines()[1:]})]


@pytest.mark.slow
def test_an_asynchronous_run_goes_on_from_its_checkpoint(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off after some trials, whose last ones the checkpoint does not have."""
    monkeypatch.setattr("nas_gym.experiments.run.recorder.CHECKPOINT_SECONDS", 0.0)
    add = TrialRecord.add

    def cut_off(record: Any, trials: Any, seconds: float) -> None:
        add(record, trials, seconds)
        if record._trials > 12:
            raise Enough

    monkeypatch.setattr(TrialRecord, "add", cut_off)
    with pytest.raises(Enough):
        run_of(tmp_path / "run", workers=2, asynchronous=True)
    monkeypatch.setattr(TrialRecord, "add", add)
    before = list(trial_rows(read_trials(tmp_path / "run")))
    Run(tmp_path / "run", console=Console(quiet=True)).execute()
    trials = read_trials(tmp_path / "run")
    assert len(trials) == 32
    assert before[:11] == list(trial_rows(trials))[:11], "all trials but those of the last batch"
    table = TabularEvaluator(SPACE, task="fashion-mnist").evaluate(trials.tokens)
    np.testing.assert_array_equal(trials.rewards, table.accuracy)


@pytest.mark.slow
def test_a_benchmark_on_the_cluster_is_that_of_processes_here(cluster: Any, tmp_path: Path) -> None:
    suite = make_suite(
        {
            "agents": ["random", {"name": "successive-halving"}],
            "environments": ["NAS-Bench201-v0"],
            "seeds": 2,
            "trials": 6,
        }
    )
    told: list[tuple[int, int]] = []
    problems = [
        run_benchmark(suite, tmp_path / "here", 1),
        run_benchmark(suite, tmp_path / "there", None, lambda *counts: told.append(counts), cluster.address),
    ]
    assert problems[1] == problems[0] == []
    assert told[0] == (0, 4)
    assert told[-1] == (4, 4)
    for path in sorted((tmp_path / "here").rglob("*.*")):
        twin = tmp_path / "there" / path.relative_to(tmp_path / "here")
        assert twin.exists()
        if path.name not in ("run.json", "lock.json"):
            assert twin.read_bytes() == path.read_bytes()
    assert missing_jobs(suite, tmp_path / "there") == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"workers": 0}, r"workers must be an integer of at least 1, got 0"),
        ({"asynchronous": True}, r"asynchronous is for runs with workers"),
        ({"worker_timeout": 60.0}, r"worker_timeout is for runs with workers"),
        ({"workers": 2, "worker_timeout": -1}, r"timeout must be a positive number of seconds.*, got -1"),
        ({"on_error": "ignore"}, r"on_error must be stop, fail or retry, got 'ignore'"),
        ({"on_error": "retry", "retries": 0}, r"retries must be an integer of at least 1, got 0"),
        ({"ray_address": "auto"}, r"ray_address is for runs with workers"),
        (
            {"workers": 2, "asynchronous": True, "agent": "eas"},
            r"agent 'eas' cannot search asynchronously: it needs the trials of each batch",
        ),
        (
            {"workers": 2, "asynchronous": True, "num_envs": 3},
            r"num_envs must be left out of an asynchronous run, got 3",
        ),
    ],
)
def test_configs_that_do_not_fit(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RunConfig(**config)


def test_shared_weights_have_no_workers(tmp_path: Path) -> None:
    config = RunConfig(workers=2, env_kwargs={"evaluator_kwargs": {"channels": 4}})
    with pytest.raises(ValueError, match=r"SharedWeightEvaluator is stateful: its state would differ"):
        Run(tmp_path / "run", config, Console(quiet=True))
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------ the end of a node


def waited_for(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What the condition comes to, as soon as it is something."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
    return found


@pytest.mark.slow
def test_a_killed_process_and_a_lost_machine(cluster: Any, here: Evaluator, there: Path) -> None:
    """SIGKILL from outside in the middle of an evaluation; then a whole node goes, and its worker cannot come back."""
    plan = {tuple(TOKENS[0].tolist()): "once hang", tuple(TOKENS[1].tolist()): "once hang"}
    third = cluster.add_node(num_cpus=1, object_store_memory=2**27)
    with DistributedEvaluator(partial(Scored, str(there), plan), 3) as evaluator:
        futures = [evaluator.begin(row[None]) for row in TOKENS]
        seen = [waited_for(partial(begun, there, row))[0].name.split("_") for row in TOKENS[:2]]
        os.kill(int(seen[0][2]), signal.SIGKILL)
        (hung,) = [found for found in cluster.list_all_nodes() if found.node_id == seen[1][1]]
        if hung is cluster.head_node:  # which cannot go: the other one then
            os.kill(int(seen[1][2]), signal.SIGKILL)
            hung = third
        cluster.remove_node(hung, allow_graceful=False)
        assert_equal(evaluator.evaluate(TOKENS), here.evaluate(TOKENS))
        assert all(future.done() for future in futures)
        assert evaluator.lost >= 2
