"""The package is extended from outside: by modules on the path, by what they register, and by installed packages."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import yaml
from rich.console import Console

from nas_gym.agents import AGENTS, Agent, agent_class, load_hyperparameters, make_agent
from nas_gym.evaluators import make_evaluator
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.experiments.run import Run, RunConfig, load_best
from nas_gym.experiments.run.pairs import pairs, parse_pairs
from nas_gym.experiments.run.record import TrialRecord
from nas_gym.spaces import Architecture, make_space
from nas_gym.tables import Table, open_table
from nas_gym.tables.importers import import_csv

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "extending"
COLUMNS = "toy:valid@4=early,valid@12=late,test@12=test,seconds=seconds"
PLAYERS = [
    name for name in AGENTS if name != "eas" and not AGENTS[name].relaxed
]  # those train networks, and play no table


@pytest.fixture(autouse=True)
def _examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process too, the modules of the examples are found."""
    monkeypatch.syspath_prepend(str(EXAMPLES))


def run_python(*arguments: str, path: Path | str = EXAMPLES, cwd: Path = ROOT) -> tuple[int, str]:
    """The exit code and the output of a process of its own, with a folder on its path."""
    environment = {**os.environ, "PYTHONPATH": str(path), "COLUMNS": "300", "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env=environment, cwd=cwd
    )
    return finished.returncode, finished.stdout + finished.stderr


def command(cwd: Path, *arguments: str | Path, path: Path | str = EXAMPLES) -> str:
    """What `nas-gym` prints; it must end well."""
    code, output = run_python("-m", "nas_gym.experiments.cli.main", *map(str, arguments), path=path, cwd=cwd)
    assert code == 0, output
    return output


def cells(output: str) -> dict[str, list[str]]:
    """The rows of all tables, by their first cell."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines() if line.startswith("│")]
    return {row[0]: row[1:] for row in rows}


def ranked(output: str) -> set[str]:
    """The agents of a leaderboard."""
    return {line.split("│")[2].strip() for line in output.splitlines() if line.startswith("│")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds curves.csv, as the example writes it, and curves.npz, as the command imports it."""
    made = tmp_path_factory.mktemp("table")
    assert run_python(str(EXAMPLES / "own_table.py"), cwd=made)[0] == 0
    output = command(made, "table", "import", "csv", "curves.csv", "--space", "own_space:SPACE", "--tasks", COLUMNS)
    assert cells(output)["toy"][:2] == ["1", "4 to 12"]
    return made


# ------------------------------------------------------------------ table


@pytest.mark.slow
def test_table(folder) -> None:
    """Every number of the file, read a second time."""
    table = open_table_of_the_example(folder)
    lines = list(csv.DictReader((folder / "curves.csv").open(newline="")))
    assert len(lines) == table.space.size == 4**4
    tokens = np.array([table.space.parse(line["architecture"]).tokens for line in lines])
    for epochs, column in ((4, "early"), (12, "late")):
        evaluator = TabularEvaluator(table.space, table=table, epochs=epochs)
        found = evaluator.evaluate(tokens)
        assert found.accuracy.tolist() == [float(line[column]) for line in lines]
        assert found.metrics["seconds"].tolist() == [epochs * float(line["seconds"]) for line in lines]
    assert evaluator.test(tokens).tolist() == [float(line["test"]) for line in lines]
    assert evaluator.fidelities == (4 / 12, 1)


def test_table_in_python(folder, tmp_path) -> None:
    tasks = {"toy": {"valid": {4: "early", 12: "late"}, "test": {12: "test"}, "seconds": "seconds"}}
    table = import_csv(folder / "curves.csv", tmp_path / "t.npz", "own_space:SPACE", tasks=tasks)
    assert table.checksum == open_table_of_the_example(folder).checksum


def open_table_of_the_example(folder: Path) -> Table:
    import own_space  # noqa: F401  # registers the space

    return open_table(folder / "curves.npz")


def test_table_of_a_space_that_is_not_there(folder) -> None:
    """Without the module that registers the space, the error says what is missing."""
    code, output = run_python("-m", "nas_gym.experiments.cli.main", "table", "info", str(folder / "curves.npz"))
    assert code == 2
    assert "unknown kind of space 'own'" in output
    assert "Import the module that defines it, which must call `register_space`" in output
    assert len(output.splitlines()) == 1


# ------------------------------------------------------------------ space


def test_space(folder) -> None:
    import own_space

    space = make_space("own_space:SPACE")
    assert space == make_space("own") == make_space("own_space:OwnSpace") == make_space({"name": "own"})
    assert make_space({"name": "own", "layers": 2}) == own_space.OwnSpace(layers=2)
    assert space.to_dict()["name"] == "own"
    env = gym.make("own_space:Own-v0", evaluator="constant")
    assert env.get_wrapper_attr("search_space") == space


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("own_space:NOTHING", "no place of one either: module 'own_space' has no attribute 'NOTHING'"),
        ("own_spice:SPACE", "no place of one either: No module named 'own_spice'"),
        ("own_space:register_space", "is no search space"),
        ({"name": "own_space:OwnSpace"}, "unknown kind of space 'own_space:OwnSpace'"),
    ],
)
def test_spaces_that_are_none(spec, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_space(spec)


@pytest.mark.slow
def test_an_architecture_of_a_foreign_space_from_json() -> None:
    """A process that has imported the module reads it, one that has not says what to do, and imports nothing itself."""
    space = make_space("own_space:SPACE")
    text = space.architecture(space.sample(np.random.default_rng(0), 1)[0]).to_json()
    assert Architecture.from_json(text).to_json() == text
    code = "import sys; {}from nas_gym.spaces import Architecture; print(Architecture.from_json(sys.argv[1]).to_json())"
    assert run_python("-c", code.format("import own_space; "), text) == (0, text + "\n")
    failed, output = run_python("-c", code.format(""), text)
    assert failed
    assert "ValueError: unknown kind of space 'own'; known: cell" in output
    assert "Import the module that defines it, which must call `register_space`" in output
    for spec in ("own_space:SPACE", {"name": "own_space:OwnSpace"}):  # a file must not choose what is imported
        hostile = json.dumps({"space": spec, "tokens": [0, 0, 0, 0]})
        failed, output = run_python("-c", code.format(""), hostile)
        assert failed
        assert "ValueError: unknown" in output


@pytest.mark.slow
@pytest.mark.parametrize("agent", PLAYERS)
def test_every_agent_searches_a_foreign_table(agent: str, folder, tmp_path) -> None:
    """Also those that train in parts: the table has a curve. What they report is what the table says."""
    config = RunConfig(
        env="own_space:Own-v0",
        agent=agent,
        trials=24,
        task="toy",
        device="cpu",
        env_kwargs={"table": str(folder / "curves.npz")},
        retrain_epochs=0,
    )
    run = Run(tmp_path / "run", config, Console(quiet=True))
    record = run.execute()
    result = run.agent.result
    assert len(result) == 24
    evaluator = TabularEvaluator(run.problem.space, table=open_table(folder / "curves.npz"))
    for fidelity in np.unique(result.fidelities):
        rows = result.fidelities == fidelity
        wanted = evaluator.evaluate(result.tokens[rows], fidelity=float(fidelity)).accuracy
        np.testing.assert_array_equal(result.rewards[rows], wanted)
    assert load_best(tmp_path / "run") == result.best
    assert record["best"]["test_accuracy"] == evaluator.test(np.array([result.best.tokens]))[0]


@pytest.mark.parametrize("agent", ["random", "multitask"])
def test_a_run_on_a_foreign_table_is_resumed(agent: str, folder, tmp_path) -> None:
    """Cut after 13 trials, it goes on to the same end as one that was not."""
    config = RunConfig(
        env="own_space:Own-v0",
        agent=agent,
        trials=20,
        task="toy",
        device="cpu",
        num_envs=4,
        env_kwargs={"table": str(folder / "curves.npz")},
    )
    whole = Run(tmp_path / "whole", config, Console(quiet=True)).execute()
    Run(tmp_path / "cut", config, Console(quiet=True)).execute()
    record = TrialRecord(tmp_path / "cut")
    record.cut(13)
    record.close()
    (tmp_path / "cut" / "best.json").unlink()
    assert Run(tmp_path / "cut", console=Console(quiet=True)).execute() == whole
    assert (tmp_path / "cut" / "trials.csv").read_text() == (tmp_path / "whole" / "trials.csv").read_text()
    assert whole["best"]["test_accuracy"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["regularized-evolution", "reinforce"])
def test_commands_on_a_foreign_table(agent: str, folder, tmp_path) -> None:
    """Trained, resumed and shown by commands alone."""
    options = ["--env", "own_space:Own-v0", "--env-params", f"table:{folder / 'curves.npz'}", "--task", "toy"]
    output = command(tmp_path, "train", *options, "--agent", agent, "--trials", "20", "--run-dir", "run")
    assert "found" in cells(output)
    with (tmp_path / "run" / "trials.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 1 + 20
    assert cells(command(tmp_path, "resume", "run")) == cells(output)
    shown = command(tmp_path, "show", "run")
    assert "wrote run/architecture.png" in shown
    text = json.loads((tmp_path / "run" / "best.json").read_text())["best"]["text"]
    assert command(tmp_path, "show", text, "--space", "own_space:SPACE").splitlines()[0] == shown.splitlines()[0]


@pytest.mark.slow
def test_a_foreign_space_and_its_network_with_shared_weights(tmp_path) -> None:
    options = ["--trials", "6", "--num-envs", "3", "--retrain-epochs", "1", "--run-dir", "run"]
    options += ["--compare-found", "2", "--compare-random", "2", "--compare-seeds", "2"]
    small = ["evaluator_kwargs.channels:4", "schedule.warmup_steps:5"]
    output = command(tmp_path, "train", "--env", "own_space:Own-v0", *options, "--env-params", *small)
    assert 0 < float(cells(output)["found"][0]) <= 1
    assert 0 < float(cells(output)["found"][1].split()[0]) <= 1  # its test accuracy, once trained alone
    assert cells(output).keys() >= {"2 random", "residual", "plain"}, "a mobile network is larger"


def test_a_foreign_network_alone_is_the_supernet(folder) -> None:
    """With the supernet's weights, the network of one architecture gives the supernet's logits on the same batch."""
    import own_space
    import torch

    from nas_gym.networks import NetworkSettings, make_network, make_supernet

    settings = NetworkSettings(channels=4, reductions=1)
    supernet = make_supernet(own_space.SPACE, (1, 8, 8), 10, settings).train()
    images = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    tokens = own_space.SPACE.sample(np.random.default_rng(1), 3)
    together = supernet(images, tokens)
    for row, logits in zip(tokens, together, strict=True):
        network = make_network(own_space.SPACE.architecture(row), (1, 8, 8), 10, settings).train()
        network.load_state_dict(supernet.state_dict(), strict=False)
        torch.testing.assert_close(network(images), logits)


# ------------------------------------------------------------------ agent


def test_agent_by_its_place(folder) -> None:
    agent = make_agent("own_agent:Annealing", "NAS-BenchGraph-v0", hyperparameters={"decay": 0.5})
    assert agent.name == "own_agent:Annealing"
    assert (agent.hyperparameters.temperature, agent.hyperparameters.decay) == (0.05, 0.5)
    result = agent.learn(300)
    evaluator = agent.problem.evaluator
    assert isinstance(evaluator, TabularEvaluator)
    assert evaluator.normalised_score(result.best_reward) > 0.8  # it searches: 0 is what random trials are on average
    # At no temperature it moves to what is at least as good, and to nothing else.
    frozen = make_agent("own_agent:Annealing", "NAS-BenchGraph-v0", hyperparameters={"temperature": 1e-12})
    assert frozen.learn(200).best_reward == frozen.reward
    # At a high one to everything, so to the last.
    hot = make_agent("own_agent:Annealing", "NAS-BenchGraph-v0", hyperparameters={"temperature": 1e12, "decay": 1.0})
    assert hot.learn(50).tokens[-1].tolist() == hot.tokens.tolist()


def test_agent_goes_on_where_it_was_saved(tmp_path) -> None:
    def made() -> Agent:
        return make_agent("own_agent:Annealing", gym.make_vec("NAS-BenchGraph-v0", num_envs=3), seed=4)

    whole, first = made(), made()
    wanted = whole.learn(30)
    first.learn(12)
    first.save(tmp_path / "agent.pt")
    again = Agent.load(tmp_path / "agent.pt", gym.make_vec("NAS-BenchGraph-v0", num_envs=3))
    np.testing.assert_array_equal(again.learn(18).tokens, wanted.tokens)


def test_agent_by_a_registered_name(monkeypatch) -> None:
    from nas_gym.agents import register_agent, registry

    monkeypatch.setattr(AGENTS, "_places", dict(AGENTS._places))
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    settings = {"default": {"decay": 0.9}, "NAS-BenchGraph-v0": {"temperature": 0.2}}
    register_agent("annealing", "own_agent:Annealing", settings)
    assert "annealing" in AGENTS
    assert load_hyperparameters("annealing").decay == 0.9
    agent = make_agent("annealing", "NAS-BenchGraph-v0")
    assert (agent.name, agent.hyperparameters.temperature, agent.hyperparameters.decay) == ("annealing", 0.2, 0.97)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_agent:Nobody", "unknown agent 'own_agent:Nobody'.*has no attribute 'Nobody'"),
        ("no_agent:Annealing", "unknown agent 'no_agent:Annealing'.*No module named 'no_agent'"),
        ("own_agent:np", "is no agent: it must be a class with `Hyperparameters`"),
        ("anealing", "unknown agent 'anealing'; known: random"),
    ],
)
def test_agents_that_are_none(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        agent_class(name)


@pytest.mark.slow
def test_benchmark_of_foreign_agents(tmp_path) -> None:
    labelled = "cold=own_agent:Annealing@temperature:0.01,decay:0.9"
    agents = ["--agents", "random", "own_agent:Annealing", labelled]
    options = ["--envs", "NAS-BenchGraph-v0:cora", "--seeds", "2", "--trials", "20", "--workers", "1", "--out", "b"]
    output = command(tmp_path, "benchmark", *agents, *options)
    board = (tmp_path / "b" / "leaderboard.md").read_text()
    for label in ("own_agent:Annealing", "cold", "random"):
        assert label in ranked(output)
        assert f"| {label} |" in board
    config = yaml.safe_load(next((tmp_path / "b").rglob("cold/seed1/config.yaml")).read_text())
    assert config["hyperparameters"] == {"temperature": 0.01, "decay": 0.9}
    assert config["agent"] == "own_agent:Annealing"


@pytest.mark.slow
def test_benchmark_of_a_foreign_environment(folder, tmp_path) -> None:
    """In processes of their own too, which import the module anew; the seeds' scores are those of the table."""
    agents = ["--agents", "own_agent:Annealing", "regularized-evolution", "successive-halving"]
    options = ["--seeds", "2", "--trials", "20", "--workers", "2", "--out", "b", "--table", folder / "curves.npz"]
    output = command(tmp_path, "benchmark", *agents, "--envs", "own_space:Own-v0", *options)
    assert ranked(output) == {"random", "own_agent:Annealing", "regularized-evolution", "successive-halving †"}
    with (tmp_path / "b" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["environment"], row["task"]) for row in rows} == {("own_space:Own-v0", "toy")}
    assert len(rows) == 4 * 2
    again = command(tmp_path, "benchmark", *agents, "--envs", "own_space:Own-v0:toy", *options)  # nothing is left to do
    assert ranked(again) == ranked(output)


# ------------------------------------------------------------------ evaluator and task


def test_evaluator_by_its_place() -> None:
    space = make_space("own_space:SPACE")
    evaluator = make_evaluator("own_evaluator:Depth", space, kwargs={"penalty": 0.5})
    # skip, conv_1x1, conv_3x3, pool: two convolutions and a pooling of four layers.
    found = evaluator.evaluate(np.array([[0, 1, 2, 3], [1, 2, 1, 2], [3, 3, 3, 3]]))
    assert found.accuracy.tolist() == [(2 - 0.5) / 4, 1.0, 0.0]
    assert found.metrics["layers"].tolist() == [2, 4, 0]
    with pytest.raises(ValueError, match="must be a subclass of Evaluator, got <module"):
        make_evaluator("own_evaluator:np", space)
    with pytest.raises(ValueError, match="unknown evaluator 'own_evaluator:Nothing'"):
        make_evaluator("own_evaluator:Nothing", space)


@pytest.mark.parametrize("env", ["own_space:Own-v0", "NAS-Cell-v0"])
def test_a_run_with_a_foreign_evaluator(env: str, tmp_path) -> None:
    arguments = ["evaluator:own_evaluator:Depth", "evaluator_kwargs.penalty:0.25", "space:own_space:SPACE"]
    config = RunConfig(env=env, agent="random", trials=10, num_envs=5, env_kwargs=parse_pairs(arguments))
    result = Run(tmp_path / "run", config, Console(quiet=True)).execute()
    best = load_best(tmp_path / "run")
    assert (
        result["best"]["accuracy"]
        == make_evaluator("own_evaluator:Depth", best.space, kwargs={"penalty": 0.25})
        .evaluate(np.array([best.tokens]))
        .accuracy[0]
    )


@pytest.mark.slow
def test_commands_with_a_foreign_evaluator_and_space(tmp_path) -> None:
    """A space that only the arguments name is found again too."""
    arguments = ["space:own_space:SPACE", "evaluator:own_evaluator:Depth"]
    options = ["--agent", "own_agent:Annealing", "--trials", "10", "--store", "s.sqlite", "--run-dir", "run"]
    output = command(tmp_path, "train", *options, "--env-params", *arguments)
    assert cells(command(tmp_path, "resume", "run")) == cells(output)
    assert "wrote run/architecture.svg" in command(tmp_path, "show", "run")
    assert "own_evaluator:Depth" in command(tmp_path, "store", "info", "s.sqlite")


def test_task_by_its_place() -> None:
    from nas_gym.tasks.named import named_task

    task = named_task("own_task:stripes", seed=3)
    assert (len(task.train), len(task.valid), len(task.test)) == (200, 100, 100)
    # A truth that needs no network: horizontal stripes differ between rows, vertical ones between columns.
    images = task.test.inputs[:, 0].double()
    vertical = images.mean(dim=1).std(dim=1) > images.mean(dim=2).std(dim=1)
    assert (vertical.long() == task.test.targets).double().mean() > 0.9
    with pytest.raises(ValueError, match="unknown task 'own_task:nothing'"):
        named_task("own_task:nothing")


@pytest.mark.slow
def test_commands_with_a_foreign_task(tmp_path) -> None:
    options = ["--env", "NAS-Size-v0", "--agent", "random", "--trials", "4", "--num-envs", "2", "--run-dir", "run"]
    small = ["evaluator_kwargs.channels:4", "schedule.warmup_steps:20", "evaluator_kwargs.learning_rate:0.05"]
    few = ["--compare-found", "2", "--compare-random", "2", "--compare-seeds", "2"]
    output = command(tmp_path, "train", "--task", "own_task:stripes", *options, *few, "--env-params", *small)
    assert float(cells(output)["found"][0]) > 0.7  # two classes: chance is a half
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["task"] == "own_task:stripes"


# ------------------------------------------------------------------ pairs


@pytest.mark.parametrize(
    "values",
    [
        {"space": "own_space:SPACE"},
        {"evaluator": "own_evaluator:Depth", "evaluator_kwargs": {"penalty": 0.1}},
        {"base": "own_space:Own-v0", "tasks": ["own_task:stripes", "digits:0-4"]},
        {"table": "/data/a:b.npz", "task": "folder:/my images/x: y"},
        {"a": "b: c", "d": "e:", "f": ":g"},
    ],
    ids=str,
)
def test_pairs_keep_colons(values) -> None:
    assert parse_pairs(pairs(values)) == values


def test_pairs_with_colons_as_they_are_typed() -> None:
    typed = ["evaluator:own_evaluator:Depth", "tasks:[own_task:stripes, digits]", "space:a.b:NAME"]
    wanted = {"evaluator": "own_evaluator:Depth", "tasks": ["own_task:stripes", "digits"], "space": "a.b:NAME"}
    assert parse_pairs(typed) == wanted


# ------------------------------------------------------------------ documentation


def test_documentation_quotes_the_examples() -> None:
    """Each quotation follows the link to its file."""
    text = (ROOT / "docs" / "extending.md").read_text()
    quoted: dict[str, int] = {}
    name = ""
    for prose, code in re.findall(r"(.*?)```python\n(.*?)```", text, flags=re.DOTALL):
        name = (re.findall(r"\.\./examples/extending/(\w+\.py)", prose) or [name])[-1]
        if "import_csv(" in code or "def register()" in code:  # sketches, not of a file
            continue
        # A method is quoted without the indentation of its class, and may be followed by one of another place.
        lines = [line.strip() for line in code.splitlines() if line.strip()]
        held = [line.strip() for line in (EXAMPLES / name).read_text().splitlines() if line.strip()]
        assert any(held[first : first + len(lines)] == lines for first in range(len(held))), f"not in {name}:\n{code}"
        quoted[name] = quoted.get(name, 0) + 1
    assert set(quoted) == {path.name for path in EXAMPLES.glob("*.py")} - {"own_table.py"}


# ------------------------------------------------------------------ installed packages

PARTS = '''
"""Parts of a package that is installed."""

import gymnasium

from nas_gym.agents.registry import register_agent
from nas_gym.evaluators import register_evaluator
from nas_gym.tasks import register_task


class Guess:
    """Guesses in a way of its own."""

    Hyperparameters = None


def register():
    import own_space

    print("registered")
    register_agent("fake-agent", "fake_parts:Guess")
    register_agent("fake-gone", "fake_gone:Guess")
    register_evaluator("fake-evaluator", "own_evaluator:Depth")
    register_task("fake-task", "own_task:stripes", "stripes of two directions")


def broken():
    raise RuntimeError("out of order")
'''


@pytest.fixture
def installed(tmp_path: Path) -> str:
    """A path with a distribution that has entry points, one of which is broken."""
    (tmp_path / "fake_parts.py").write_text(PARTS)
    metadata = tmp_path / "fake-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: fake\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[nas_gym]\nparts = fake_parts:register\nworse = fake_parts:broken\n")
    return f"{tmp_path}{os.pathsep}{EXAMPLES}"


def test_list_shows_installed_packages(installed, tmp_path) -> None:
    output = command(tmp_path, "list", path=installed)
    rows = " ".join(output.split())
    assert " fake-agent Guesses in a way of its own. " in rows
    assert " fake-gone - " in rows
    assert " fake-evaluator Scores an architecture by its share of decisions for a convolution. " in rows
    assert " fake-task stripes of two directions " in rows
    assert " own 4 decisions, 256 architectures " in rows
    assert " Own-v0 - " in rows
    assert all(f" {name} " in rows for name in ("NAS-Cell-v0", "random", "from-scratch", "bench201", "digits"))
    details = command(tmp_path, "list", "Own-v0", path=installed)
    assert all(part in details for part in ("256", "shared-weights", "digits", "nas-gym train --env Own-v0"))
    assert output.count("registered") == 1
    assert "entry point worse of group nas_gym failed" in output
    assert "out of order" in output


@pytest.mark.slow
def test_installed_packages_are_used_by_name(installed, folder, tmp_path) -> None:
    """No module is named: the id, the kind of space and the evaluator are known once the package is installed."""
    options = ["--env", "Own-v0", "--agent", "random", "--trials", "4", "--num-envs", "2", "--run-dir", "run"]
    command(tmp_path, "train", *options, "--env-params", "evaluator:fake-evaluator", path=installed)
    assert "wrote run/architecture.png" in command(tmp_path, "show", "run", path=installed)
    assert "toy" in cells(command(tmp_path, "table", "info", folder / "curves.npz", path=installed))


def test_nothing_heavy_is_imported_for_the_list(installed) -> None:
    code = """
import sys
from nas_gym.experiments.cli.main import main
sys.argv = ["nas-gym", "list"]
main()
print(sorted({"torch", "sklearn", "matplotlib"} & set(sys.modules)))
"""
    finished, output = run_python("-c", code, path=installed)
    assert finished == 0, output
    assert output.splitlines()[-1] == "[]"
