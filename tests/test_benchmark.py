"""Benchmarks: what a suite stands for, that runs are what they would be alone, and that none is lost or done twice."""

from __future__ import annotations

import ast
import csv
import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from nas_gym.agents import AGENTS, Agent, SearchResult, make_agent
from nas_gym.agents.baselines.random_search import RandomSearch
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.experiments.benchmark.execution import SEEDS_PER_JOB, missing_jobs, run_benchmark
from nas_gym.experiments.benchmark.jobs import run_config, run_folder
from nas_gym.experiments.benchmark.results import _points, _recent_mean, incumbents, read_results
from nas_gym.experiments.benchmark.suite import SUITES, AgentEntry, Environment, Suite, make_suite, open_evaluator
from nas_gym.experiments.cli.benchmark import _agent_entry
from nas_gym.experiments.run.config import RunConfig, read_config
from nas_gym.experiments.run.record import RECORD
from nas_gym.experiments.run.run import Run, load_best
from nas_gym.experiments.run.trials import read_trials, trial_rows
from nas_gym.spaces import make_space
from nas_gym.tables import TaskTable, save_table

BENCH = make_space("bench201")
SIZE = BENCH.size
GRAPH = "NAS-BenchGraph-v0"
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A table of NAS-Bench-201's space: two tasks, two numbers of epochs, of one task validation alone."""
    rng = np.random.default_rng(0)
    valid, test = (rng.random((SIZE, 1, 2)).astype(np.float32) for _ in range(2))
    tasks = {
        "one": TaskTable(
            valid=valid,
            test=test,
            epochs=(3, 12),
            seconds=rng.uniform(1, 9, SIZE),
            parameters=rng.integers(1, 99, SIZE),
        ),
        "two": TaskTable(valid=valid[::-1, :, 1:].copy(), epochs=(12,)),
    }
    path = tmp_path_factory.mktemp("table") / "table.npz"
    save_table(path, BENCH, np.arange(SIZE), tasks, {"name": "made up"})
    return str(path)


def suite_of(table: str, *agents: str, tasks: tuple[str, ...] = ("one", "two"), seeds: int = 3) -> Suite:
    environments = [f"NAS-Bench201-v0:{task}" for task in tasks]
    return make_suite({"agents": agents, "environments": environments, "table": table, "seeds": seeds, "trials": 12})


def trials_of(out: Path) -> dict[str, bytes]:
    """What was found, run by run."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob(RECORD))}


# ------------------------------------------------------------------ suites


@pytest.mark.parametrize(("name", "seeds"), [("quick", 10), ("full", 50)])
def test_the_suites_that_come_along(name, seeds) -> None:
    suite = make_suite(name)
    assert [entry.label for entry in suite.agents] == [*AGENTS]
    assert not any(entry.hyperparameters for entry in suite.agents)
    assert (suite.seeds, suite.trials) == (seeds, 150)
    graph = [environment.task for environment in suite.environments if environment.id == GRAPH]
    assert graph == ["cora", "citeseer", "physics", "proteins"]
    assert len(list(suite.runs())) == len(suite.agents) * len(suite.environments) * seeds


def test_the_suites_of_two_regimes() -> None:
    """One for the best architecture of few trials, one for what policies play after many; their settings are taken."""
    few, many = make_suite("sample-efficiency"), make_suite("rl")
    assert (few.measure, few.trials, few.seeds) == ("best", 150, 200)
    assert (many.measure, many.trials, many.seeds) == ("played", 10_000, 10)
    assert set(few.environments) > {environment for environment in many.environments if environment.task == "cora"}
    for suite in (few, many):
        for entry in suite.agents:
            assert run_config(suite, suite.environments[0], entry, 0).trials == suite.trials


def test_no_suite_reports_what_settings_were_chosen_on() -> None:
    """Neither the sweeps' tasks nor those that the page of Stable-Baselines3's agents names."""
    tree = ast.parse((ROOT / "benchmarks" / "tuning.py").read_text())
    (tuned,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["TASKS"]
    )
    for name in ("quick", "full", "sample-efficiency", "rl"):
        reported = {environment.task for environment in make_suite(name).environments if environment.id == GRAPH}
        assert reported.isdisjoint({*tuned, "arxiv", "pubmed"})


def test_what_is_left_out_can_be_asked_for() -> None:
    suite = make_suite("quick", environments=[f"{GRAPH}:arxiv"])
    assert [environment.task for environment in suite.environments] == ["arxiv"]
    assert len(make_suite("quick", environments=[GRAPH]).environments) == 9


def test_random_search_stands_in_every_table() -> None:
    assert [entry.name for entry in make_suite({"agents": ["local-search"]}).agents] == ["random", "local-search"]
    again = make_suite({"agents": ["local-search", {"name": "random", "label": "chance"}]})
    assert [entry.label for entry in again.agents] == ["local-search", "chance"]


def test_a_table_goes_to_the_environments_that_it_fits(table) -> None:
    suite = make_suite({"table": table})
    assert Environment("NAS-Bench201-v0", "one", table) in suite.environments
    assert Environment("NAS-Bench201-v0", "two", table) in suite.environments
    assert Environment(GRAPH, "cora", "nas-bench-graph") in suite.environments


def test_options_take_precedence(tmp_path, table) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"agents: [random]\nenvironments: [NAS-Bench201-v0]\ntable: {table}\nseeds: 7\ntrials: 9\n")
    suite = make_suite(path, seeds=2, trials=None)
    assert (suite.seeds, suite.trials, len(suite.environments)) == (2, 9, 2)
    assert make_suite(suite.to_dict()) == suite
    assert make_suite(yaml.safe_load(yaml.safe_dump(suite.to_dict()))) == suite


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("fast", "'fast' is neither a file nor one of full, quick"),
        ({"agent": ["random"]}, "a suite has no key 'agent'; known: agents, environments"),
        ({"agents": ["rand"]}, "unknown agent 'rand'; known: random"),
        ({"agents": [{"nam": "random"}]}, "no entry of a suite"),
        ({"agents": [{"name": "random", "label": "a=b"}]}, "without = and @, got 'a=b'"),
        ({"agents": ["random", "random"]}, "all different.*random, random"),
        ({"environments": [f"{GRAPH}:cora", f"{GRAPH}:cora"]}, "all different.*cora.*cora"),
        ({"environments": ["NAS-Cell-v0"]}, "'NAS-Cell-v0' has no table"),
        ({"environments": ["NAS-Nothing-v0"]}, "unknown environment 'NAS-Nothing-v0'"),
        ({"environments": [f"{GRAPH}:dora"]}, "'dora' is not in"),
        ({"table": "nowhere.npz"}, "'nowhere.npz' is neither a file"),
        ({"seeds": 0}, "seeds must be a positive integer, got 0"),
        ({"trials": True}, "trials must be a positive integer, got True"),
    ],
    ids=str,
)
def test_what_is_not_understood(values, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_suite(values)


def test_a_suite_file_that_is_none(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    for text, message in (("- 1", "must hold a mapping"), ("a: [", "is not YAML")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            make_suite(path)


SCALARS = st.one_of(st.integers(-5, 5), st.booleans(), st.none(), st.floats(-10, 10), st.just("a, b"))
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.lists(st.lists(SCALARS, max_size=2), max_size=2))
VALUES |= st.dictionaries(st.sampled_from(["x", "y"]), SCALARS)


@given(
    st.dictionaries(st.sampled_from(["learning_rate", "population_size", "x"]), VALUES),
    st.sampled_from(["", "my one"]),
)
def test_entries_as_text(hyperparameters, label) -> None:
    entry = AgentEntry("sb3:ppo" if "sb3:ppo" in AGENTS else "random", hyperparameters, label)
    assert AgentEntry(**_agent_entry(entry.text)) == entry


def test_entries_from_the_command_line(tmp_path) -> None:
    assert _agent_entry("random") == {"name": "random", "hyperparameters": {}, "label": ""}
    found = _agent_entry("small=regularized-evolution@population_size:10,sample_size:3")
    assert found["hyperparameters"] == {"population_size": 10, "sample_size": 3}
    assert (found["name"], found["label"]) == ("regularized-evolution", "small")
    path = tmp_path / "small.yaml"
    path.write_text("population_size: 10\n")
    found = _agent_entry(f"regularized-evolution@{path}")
    assert found["hyperparameters"] == {"population_size": 10}
    assert found["label"] == "regularized-evolution small"
    for text in ("=random", "random@", "random@x"):
        with pytest.raises(ValueError, match="expected"):
            _agent_entry(text)


def test_hyperparameters_are_checked_before_anything_runs(table, tmp_path) -> None:
    for hyperparameters, message in (
        ({"size": 3}, "has no hyperparameter"),
        ({"sample_size": 0}, "must be an integer of at least 1"),
    ):
        wrong = {"name": "regularized-evolution", "hyperparameters": hyperparameters, "label": "wrong"}
        suite = make_suite({"agents": ["random", wrong], "environments": ["NAS-Bench201-v0:one"], "table": table})
        with pytest.raises(ValueError, match=message):
            run_benchmark(suite, tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------ runs


SMALL = "regularized-evolution@population_size:4,sample_size:2"


def small_suite(table: str, seeds: int = 3) -> Suite:
    suite = suite_of(table, "local-search", "reinforce", seeds=seeds)
    return dataclasses.replace(suite, agents=(*suite.agents, AgentEntry(**_agent_entry(f"small={SMALL}"))))


@pytest.fixture(scope="module")
def finished(table: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Suite, Path]:
    """A benchmark in this process, which nothing has disturbed."""
    suite, out = small_suite(table), tmp_path_factory.mktemp("finished")
    told: list[tuple[int, int]] = []
    assert run_benchmark(suite, out, 1, lambda *counts: told.append(counts)) == []
    assert told[0] == (0, 24)
    assert told[-1] == (24, 24)
    assert told == sorted(told)
    return suite, out


@pytest.mark.slow
def test_a_run_is_what_the_agent_does_alone(finished) -> None:
    suite, out = finished
    hyperparameters = {"small": {"population_size": 4, "sample_size": 2}}
    for trace in read_results(suite, out):
        (entry,) = (entry for entry in suite.agents if entry.label == trace.label)
        evaluator = TabularEvaluator(BENCH, table=trace.environment.table, task=trace.environment.task)
        num_envs = 5 if entry.name == "reinforce" else 1
        env = gym.make_vec("NAS-Bench201-v0", num_envs=num_envs, evaluator=evaluator)
        alone = make_agent(entry.name, env, trace.seed, hyperparameters.get(entry.label)).learn(12)
        trials = read_trials(run_folder(out, trace.environment, entry, trace.seed))
        assert np.array_equal(trials.tokens, alone.tokens)
        assert np.array_equal(trials.rewards, alone.rewards)
        assert np.array_equal(trace.validation, np.maximum.accumulate(alone.rewards))


def test_traces(finished, table) -> None:
    suite, out = finished
    traces = read_results(suite, out)
    assert len(traces) == 2 * 4 * 3
    for trace in traces:
        evaluator = open_evaluator(trace.environment)
        entry = next(entry for entry in suite.agents if entry.label == trace.label)
        trials = read_trials(run_folder(out, trace.environment, entry, trace.seed))
        row = trace.row()
        best = int(np.argmax(trials.rewards))
        valid = evaluator.table.array(trace.environment.task, "valid")[:, 0, -1].astype(np.float64)
        score = (trials.rewards[best] - valid.mean()) / (valid.max() - valid.mean())
        assert row["validation_accuracy"] == trials.rewards[best]
        assert row["validation_score"] == pytest.approx(score)
        assert row["unique_architectures"] == len({tuple(tokens) for tokens in trials.tokens.tolist()})
        assert (row["trials"], row["failed_trials"]) == (12, 0)
        assert row["cpu_seconds"] > 0
        assert np.array_equal(trace.score, trace.validation_score)
        played = (trials.rewards - valid.mean()) / (valid.max() - valid.mean())
        if entry.name != "successive-halving":
            assert np.allclose(trace.played, played)
            assert row["area_under_curve"] == pytest.approx(played.mean())
            reached = [n for n, value in enumerate(played, 1) if value >= 0.5]
            assert trace.trials_to(0.5) == (reached[0] if reached else np.inf)
            assert trace.after(1 / 2) == trace.validation_score[5]
        if trace.environment.task == "two":
            assert trace.test is trace.test_score is trace.simulated_seconds is trace.cost is trace.points is None
            continue
        index = BENCH.index(trials.tokens)
        seconds, test = (evaluator.table.array("one", name) for name in ("seconds", "test"))
        parameters = evaluator.table.array("one", "parameters")[index]
        assert trace.cost == "parameters"
        assert trace.points.tolist() == [list(pair) for pair in zip(trials.rewards, parameters, strict=True)]
        assert row["simulated_seconds"] == pytest.approx(12 * seconds[index].sum())
        test = test[:, 0, 1].astype(np.float64)
        assert row["test_accuracy"] == test[index[best]]
        assert row["test_score"] == pytest.approx((test[index[best]] - test.mean()) / (test.max() - test.mean()))


def test_what_is_played_as_the_measure(finished) -> None:
    """The mean over the last tenth of the trials: here of one trial."""
    suite, out = finished
    for trace in read_results(dataclasses.replace(suite, measure="played"), out):
        assert np.allclose(trace.score, trace.played)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40))
def test_recent_means(values) -> None:
    window = max(len(values) // 10, 1)
    expected = [np.mean(values[max(end - window, 0) : end]) for end in range(1, len(values) + 1)]
    assert np.allclose(_recent_mean(np.array(values)), expected, atol=1e-9)


def test_the_entropy_of_a_policy() -> None:
    """That of a policy which ignores its rewards is the uniform one's: the logarithm of the number of architectures."""
    agent = make_agent("reinforce", "NAS-Bench201-v0", hyperparameters={"lstm": False})
    assert agent.entropy() == pytest.approx(np.log(SIZE), abs=1e-3)
    assert agent.entropy() == agent.entropy()


def test_simulated_seconds_end_a_run(table, tmp_path) -> None:
    """A run is a longer one, cut where its trainings would take longer than allowed."""
    suite = suite_of(table, "random", tasks=("one",), seeds=1)
    limited = dataclasses.replace(suite, simulated_seconds=300.0)
    assert run_benchmark(suite, tmp_path / "whole", 1) == run_benchmark(limited, tmp_path / "limited", 1) == []
    (whole,), (cut,) = read_results(suite, tmp_path / "whole"), read_results(limited, tmp_path / "limited")
    count = int((whole.simulated_seconds <= 300).sum())
    assert 0 < count < 12
    assert len(cut.score) == count
    assert np.array_equal(cut.validation, whole.validation[:count])
    (problem,) = run_benchmark(dataclasses.replace(limited, simulated_seconds=0.1), tmp_path / "none", 1)
    assert "give more" in problem.reason


def test_points_are_of_sound_trials_of_full_training() -> None:
    metrics = {
        "accuracy": [0.1, 0.2, 0.3, 0.4, 0.5],
        "failed": [0, 1, 0, 0, 0],
        "latency": [5, 6, np.nan, 8, 9],
        "fidelity": [np.nan, 1, 1, 0.5, 1],  # untold is full
    }
    columns = {name: np.array(values, dtype=np.float64) for name, values in metrics.items()}
    trials = SearchResult(BENCH, np.zeros((5, BENCH.length), np.int64), np.zeros(5), columns)
    points, sound = _points(trials, "latency")
    assert points.tolist() == [[0.1, 5], [0.5, 9]]
    assert np.flatnonzero(sound).tolist() == [0, 4]


@pytest.mark.slow
def test_run_folders_are_those_of_runs(finished, tmp_path) -> None:
    """`nas-gym train` with the same config finds the same, and `nas-gym show` reads the folder."""
    suite, out = finished
    for entry in suite.agents:
        folder = run_folder(out, suite.environments[0], entry, 1)
        config = read_config(folder)
        Run(tmp_path / entry.label, config, Console(quiet=True)).execute()
        assert list(trial_rows(read_trials(tmp_path / entry.label))) == list(trial_rows(read_trials(folder)))
        assert load_best(folder) == read_trials(folder).best


@pytest.mark.slow
def test_train_finds_what_the_benchmark_finds(finished, table, tmp_path) -> None:
    """The same agent, environment and seed, with everything else left at its default."""
    suite, out = finished
    environment = suite.environments[0]
    for entry in suite.agents:
        config = RunConfig(
            env=environment.id,
            agent=entry.name,
            trials=suite.trials,
            task=environment.task,
            seed=2,
            env_kwargs={"table": table},
            hyperparameters=dict(entry.hyperparameters),
        )
        Run(tmp_path / entry.label, config, Console(quiet=True)).execute()
        folder = run_folder(out, environment, entry, 2)
        assert list(trial_rows(read_trials(tmp_path / entry.label))) == list(trial_rows(read_trials(folder)))


def test_the_test_split_is_looked_up_afterwards(table, tmp_path, monkeypatch) -> None:
    def refuse(*args, **kwargs):
        raise AssertionError("a search looked at the test split")

    suite = suite_of(table, "local-search", tasks=("one",), seeds=1)
    with monkeypatch.context() as patch:
        patch.setattr(TabularEvaluator, "test", refuse)
        assert run_benchmark(suite, tmp_path, 1) == []
    assert all(trace.test is not None for trace in read_results(suite, tmp_path))


def test_what_is_done_is_not_done_again(finished, table, tmp_path) -> None:
    suite, out = finished
    assert missing_jobs(suite, out) == []
    assert run_benchmark(suite, out, 1) == []
    # More seeds are just the seeds that are missing; the first seeds of all come first.
    jobs = missing_jobs(small_suite(table, seeds=12), out)
    assert [[config.seed for config in job.configs] for job in jobs] == [[3, 4]] * 8 + [[5, 6, 7, 8, 9]] * 8 + [
        [10, 11]
    ] * 8


def test_a_folder_of_other_settings_is_refused(finished, table) -> None:
    suite, out = finished
    with pytest.raises(ValueError, match=r"other settings \(trials\): give another --out"):
        missing_jobs(dataclasses.replace(suite, trials=13), out)
    other = AgentEntry("regularized-evolution", {"population_size": 5, "sample_size": 2}, "small")
    with pytest.raises(ValueError, match=r"other settings \(hyperparameters.population_size\)"):
        missing_jobs(dataclasses.replace(suite, agents=(AgentEntry("random"), other)), out)


def test_a_run_without_its_last_file_is_done_again(finished, table, tmp_path) -> None:
    """It is as if it had been killed just before."""
    suite = suite_of(table, "local-search", tasks=("two",), seeds=2)
    run_benchmark(suite, tmp_path, 1)
    before = trials_of(tmp_path)
    cut = run_folder(tmp_path, suite.environments[0], suite.agents[1], 1)
    (cut / "run.json").unlink()
    (cut / RECORD).write_text("half")
    assert len(read_results(suite, tmp_path)) == 3
    (job,) = missing_jobs(suite, tmp_path)
    assert job.folders == (cut,)
    run_benchmark(suite, tmp_path, 1)
    assert trials_of(tmp_path) == before


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_workers(finished, tmp_path) -> None:
    suite, out = finished
    assert run_benchmark(suite, tmp_path, workers=2) == []
    assert trials_of(tmp_path) == trials_of(out)


PROGRAM = """
import signal, sys
from nas_gym.experiments.cli.main import main
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has it ignored
    sys.argv = ["nas-gym", *sys.argv[1:]]
    main()
"""


@pytest.mark.slow
def test_killed_for_real_it_goes_on(finished, table, tmp_path) -> None:
    """Neither a run is lost that was finished, nor a worker left behind that was at one."""
    suite, reference = finished
    (tmp_path / "program.py").write_text(PROGRAM)
    out = tmp_path / "out"
    arguments = ["benchmark", "--agents", "local-search", "reinforce", f"small={SMALL}", "--envs", "NAS-Bench201-v0"]
    arguments += ["--table", table, "--seeds", "3", "--trials", "12", "--workers", "2", "--out", str(out)]
    command = [sys.executable, str(tmp_path / "program.py"), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 300
    while len(list(out.rglob("run.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not _remaining(process.pid, deadline)
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("run.json")}
    assert 3 <= len(kept) < 24
    finished_process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished_process.returncode == 0, finished_process.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert trials_of(out) == trials_of(reference)
    assert (out / "report.html").exists()
    with (out / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    clocks = ("wall_seconds", "cpu_seconds")
    wanted = [trace.row() for trace in read_results(suite, reference)]
    assert [{key: row[key] for key in row if key not in clocks} for row in rows] == [
        {key: "" if value is None else str(value) for key, value in row.items() if key not in clocks} for row in wanted
    ]


@pytest.mark.slow
def test_interrupted_it_ends_soon(table, tmp_path) -> None:
    """The signal reaches the main process alone: the workers finish what they are at, and take up nothing more."""
    (tmp_path / "program.py").write_text(PROGRAM)
    out = tmp_path / "out"
    arguments = ["benchmark", "--agents", "local-search", "--envs", "NAS-Bench201-v0", "--table", table]
    arguments += ["--seeds", "400", "--trials", "150", "--workers", "2", "--out", str(out)]
    command = [sys.executable, str(tmp_path / "program.py"), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 300
    while not list(out.rglob("run.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    before = len(list(out.rglob("run.json")))
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130
    assert re.search(r"stopped\n\nnext:\n  nas-gym benchmark .* goes on\n", output)
    # A job a worker, and those that are handed out beforehand.
    assert before <= len(list(out.rglob("run.json"))) <= before + 10 * SEEDS_PER_JOB
    assert not _remaining(process.pid, deadline)


def _remaining(leader: int, deadline: float) -> list[int]:
    """The processes of a session that have not ended by the deadline."""
    while (alive := _group(leader)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return alive


def _group(leader: int) -> list[int]:
    """The processes of a session that are not dead."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == leader and fields[0] != "Z":
                found.append(int(entry.name))
    return found


# ------------------------------------------------------------------ what goes wrong


class Broken(RandomSearch):
    """Fails in the middle of its search, but for even seeds."""

    def __init__(self, env, seed=0, hyperparameters=None, device="cpu") -> None:
        super().__init__(env, seed, hyperparameters, device)
        self.seed = seed

    def ask(self, n):
        if self.seed % 2 and self.trials > 4:
            raise ZeroDivisionError(f"seed {self.seed} <broke>")
        return super().ask(n)


class Choosy(RandomSearch):
    """Plays one of the two tasks only."""

    def __init__(self, env, seed=0, hyperparameters=None, device="cpu") -> None:
        super().__init__(env, seed, hyperparameters, device)
        if self.problem.evaluator.task == "two":
            raise ValueError("choosy does not play two")


@pytest.fixture
def odd_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    for agent in (Broken, Choosy):
        monkeypatch.setitem(AGENTS._places, agent.__name__.lower(), agent)


def test_a_failed_run_is_told_and_tried_again(odd_agents, table, tmp_path, monkeypatch) -> None:
    suite = suite_of(table, "random", "broken", tasks=("two",), seeds=4)
    problems = run_benchmark(suite, tmp_path, 1)
    folders = [run_folder(tmp_path, suite.environments[0], suite.agents[1], seed) for seed in range(4)]
    assert [problem.folder for problem in problems] == [folders[1], folders[3]]
    for problem, seed in zip(problems, (1, 3), strict=True):
        assert problem.reason == f"ZeroDivisionError: seed {seed} <broke>"
        assert "in ask" in problem.traceback
        assert (problem.folder / "failure.txt").read_text() == problem.traceback
    counted = [(trace.label, trace.seed) for trace in read_results(suite, tmp_path)]
    assert counted == [*(("random", seed) for seed in range(4)), ("broken", 0), ("broken", 2)]
    assert [job.folders for job in missing_jobs(suite, tmp_path)] == [(folders[1], folders[3])]
    monkeypatch.setattr(Broken, "ask", RandomSearch.ask)
    assert run_benchmark(suite, tmp_path, 1) == []
    assert not (folders[1] / "failure.txt").exists()
    assert len(read_results(suite, tmp_path)) == 8


def test_what_an_agent_cannot_play_is_no_failure(odd_agents, table, tmp_path) -> None:
    suite = suite_of(table, "random", "choosy", seeds=2)
    problems = run_benchmark(suite, tmp_path, 1)
    assert [(problem.folder.name, problem.reason, problem.traceback) for problem in problems] == [
        ("seed0", "choosy does not play two", ""),
        ("seed1", "choosy does not play two", ""),
    ]
    assert not problems[0].folder.exists()
    played = {str(trace.environment) for trace in read_results(suite, tmp_path) if trace.label == "choosy"}
    assert played == {"NAS-Bench201-v0:one"}


def test_an_agent_that_ends_early_has_failed(odd_agents, table, tmp_path, monkeypatch) -> None:
    learn = Agent.learn
    monkeypatch.setattr(Choosy, "learn", lambda self, trials, **limits: learn(self, trials - 1, **limits))
    problems = run_benchmark(suite_of(table, "random", "choosy", tasks=("one",), seeds=1), tmp_path, 1)
    assert [problem.reason for problem in problems] == ["RuntimeError: the agent ended after 11 of 12 trials"]


# ------------------------------------------------------------------ incumbents


@given(st.lists(st.tuples(st.sampled_from([0.25, 0.5, 1.0]), st.integers(0, 5)), min_size=1, max_size=20))
def test_incumbents(trials) -> None:
    """At each trial the best of a result that ends there."""
    fidelities, rewards = np.array(trials, dtype=np.float64).T
    tokens = np.zeros((len(trials), BENCH.length), dtype=np.int64)
    result = SearchResult(BENCH, tokens, rewards, {"fidelity": np.where(fidelities == 1.0, np.nan, fidelities)})
    found = incumbents(result)
    for trial in range(len(trials)):
        assert found[trial] == result.rows(slice(0, trial + 1)).best_trial


def test_suites_are_files_of_the_package() -> None:
    assert {"quick", "full"} <= {path.stem for path in SUITES.glob("*.yaml")}
