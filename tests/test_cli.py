"""The `nas-gym` command: what it lists, shows, runs and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nas_gym.agents import AGENTS, agent_class
from nas_gym.experiments.cli.app import console
from nas_gym.experiments.cli.main import main
from nas_gym.experiments.run.config import read_config
from nas_gym.experiments.run.pairs import parse_pairs
from nas_gym.experiments.run.record import TrialRecord
from nas_gym.registration import ENVIRONMENTS
from nas_gym.spaces import PRESETS, Architecture, make_space
from nas_gym.tasks.names import TASKS

BENCH = make_space("bench201")
TEXT = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|"
QUICK = ["--env", "NAS-Bench201-v0", "--trials", "5", "--num-envs", "2", "--env-params", "evaluator:constant"]


class Command:
    """Calls the command in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *arguments: str | Path) -> tuple[int, str]:
        """The exit code, and what was printed."""
        self.monkeypatch.setattr(sys, "argv", ["nas-gym", *map(str, arguments)])
        self.monkeypatch.setattr(console, "width", 400)
        code = 0
        try:
            main()
        except SystemExit as error:
            code = int(error.code or 0)
        captured = self.capsys.readouterr()
        return code, captured.out + captured.err


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    monkeypatch.chdir(tmp_path)
    return Command(monkeypatch, capsys)


def cells(output: str) -> list[list[str]]:
    """The rows of all tables."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines() if line.startswith("│")]


# ------------------------------------------------------------------ list and help


def test_list(command) -> None:
    code, output = command("list")
    assert code == 0
    rows = {row[0]: row[1:] for row in cells(output)}
    for spec in ENVIRONMENTS:
        decisions, size, evaluator, task, description = rows[spec.id]
        space = make_space(spec.space)
        assert int(decisions) == len(space.decisions)
        assert float(size.replace(",", "")) == pytest.approx(space.size, rel=5e-3)
        assert (evaluator, task, description) == (spec.evaluator, spec.task or "-", spec.description)
    assert rows["NAS-Bench201-v0"][:2] == ["6", "15,625"]
    for name in AGENTS:
        # Read from the source, it is the docstring's first line as Python has it.
        assert rows[name] == [(agent_class(name).__doc__ or "").splitlines()[0]]
    for name, space in PRESETS.items():
        assert rows[name][:2] == [str(space.length), str(space.num_choices)]
    for name, description in TASKS.items():
        assert rows[name] == [description]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["list"], ["--help"], ["train", "--help"]], ids=" ".join)
def test_answers_at_once(arguments) -> None:
    """In a process of its own, without the libraries that take seconds to load."""
    code = f"""
import sys
from nas_gym.experiments.cli.main import main
sys.argv = ["nas-gym", *{arguments!r}]
try:
    main()
except SystemExit as error:
    assert not error.code, error.code
print(sorted({{"torch", "sklearn", "matplotlib", "scipy", "stable_baselines3"}} & set(sys.modules)))
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines()[-1] == "[]"


def test_help_names_everything(command) -> None:
    code, output = command("--help")
    assert code == 0
    assert all(name in output for name in ("train", "resume", "list", "show"))
    code, output = command("train", "--help")
    assert code == 0
    assert all(f"--{name}" in output for name in ("env", "agent", "trials", "task", "seed", "device", "run-dir"))
    assert all(f"--{name}" in output for name in ("params", "env-params", "num-envs", "data-dir", "retrain-epochs"))


# ------------------------------------------------------------------ train and resume


def test_train(command, tmp_path) -> None:
    options = ["--agent", "random", "--seed", "4", "--run-dir", "there", "--retrain-epochs", "0"]
    code, output = command("train", *QUICK, *options)
    assert code == 0
    assert "run folder: there" in output
    record = json.loads((tmp_path / "there" / "best.json").read_text())
    assert f"Found in trial {record['best']['trial']}, with validation accuracy 0.5000 in the search" in output
    assert record["comparison"] is None
    config = read_config(tmp_path / "there")
    assert (config.env, config.agent, config.trials, config.seed) == ("NAS-Bench201-v0", "random", 5, 4)
    assert (config.num_envs, config.retrain_epochs) == (2, 0)
    assert config.env_kwargs == {"evaluator": "constant"}
    assert len((tmp_path / "there" / "trials.csv").read_text().splitlines()) == 6


def test_params_reach_the_run(command, tmp_path) -> None:
    params = ["--params", "learning_rate:1e-2", "tanh_constant:null", "--run-dir", "there"]
    assert command("train", *QUICK, "evaluator_kwargs.accuracy:0.25", *params)[0] == 0
    config = read_config(tmp_path / "there")
    assert config.hyperparameters == {"learning_rate": 0.01, "tanh_constant": None}
    assert config.env_kwargs == {"evaluator": "constant", "evaluator_kwargs": {"accuracy": 0.25}}
    assert json.loads((tmp_path / "there" / "best.json").read_text())["best"]["accuracy"] == 0.25


def test_a_folder_of_its_own_by_default(command, tmp_path) -> None:
    assert command("train", *QUICK, "--agent", "random", "--seed", "9")[0] == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("NAS-Bench201-v0_random_")
    assert folder.name.endswith("_seed9")


def test_resume(command, tmp_path) -> None:
    """A run whose folder has lost all but its beginning comes to the same end."""
    assert command("train", *QUICK, "--run-dir", "there")[0] == 0
    whole = (tmp_path / "there" / "trials.csv").read_text()
    record = TrialRecord(tmp_path / "there")
    record.cut(2)
    record.close()
    (tmp_path / "there" / "trials.csv").unlink()
    (tmp_path / "there" / "best.json").unlink()
    code, output = command("resume", "there")
    assert code == 0
    assert "Found in trial" in output
    assert (tmp_path / "there" / "trials.csv").read_text() == whole
    assert (tmp_path / "there" / "best.json").exists()


# ------------------------------------------------------------------ show


@pytest.fixture
def architecture() -> Architecture:
    return BENCH.parse(TEXT)


def assert_shown(answer: tuple[int, str], architecture: Architecture, stem: Path) -> None:
    from nas_gym.envs.rendering import to_text

    code, output = answer
    assert code == 0, output
    assert to_text(architecture).strip() in output
    assert stem.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in stem.with_suffix(".svg").read_text()


def test_show_text(command, tmp_path, architecture) -> None:
    assert_shown(command("show", TEXT, "--space", "bench201"), architecture, tmp_path / "architecture")
    assert_shown(command("show", TEXT, "--space", "bench201", "--out", "cell"), architecture, tmp_path / "cell")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cell:enas", "bench201"])
def test_show_json(command, tmp_path, name) -> None:
    """The text of a large space is longer than a file's name may be."""
    space = make_space(name)
    drawn = space.architecture(space.sample(np.random.default_rng(0), 1)[0])
    (tmp_path / "drawn.json").write_text(drawn.to_json())
    assert_shown(command("show", drawn.to_json()), drawn, tmp_path / "architecture")
    assert_shown(command("show", "drawn.json", "--out", "file"), drawn, tmp_path / "file")


def test_show_what_best_json_says(command, tmp_path) -> None:
    assert command("train", *QUICK, "--run-dir", "there")[0] == 0
    record = json.loads((tmp_path / "there" / "best.json").read_text())["best"]
    best = Architecture.from_json(json.dumps(record["architecture"]))
    for picture in (tmp_path / "there").glob("architecture.*"):
        picture.unlink()
    assert_shown(command("show", "there"), best, tmp_path / "there" / "architecture")
    assert_shown(command("show", record["text"], "--space", "bench201"), best, tmp_path / "architecture")
    assert_shown(command("show", json.dumps(record["architecture"])), best, tmp_path / "architecture")


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--env", "NAS-Nothing-v0"], "unknown environment 'NAS-Nothing-v0'; known: NAS-Cell-v0"),
        (["train", "--env", "CartPole-v1"], "environment 'CartPole-v1' cannot be made with"),
        (["train", "--agent", "nobody"], "unknown agent 'nobody'; known: random"),
        (["train", "--task", "chess"], "unknown task 'chess'; known: digits"),
        (["train", "--trials", "0"], "trials must be an integer of at least 1, got 0"),
        (["train", "--device", "abacus"], "device 'abacus' is not available"),
        (["train", *QUICK, "space:nowhere"], "unknown space 'nowhere'; known: cell"),
        (["train", *QUICK, "colour:red"], "environment 'NAS-Bench201-v0' cannot be made with"),
        (["train", *QUICK, "objective:luck"], "unknown objective 'luck'"),
        (["train", *QUICK, "--params", "speed:1"], "agent 'reinforce' has no hyperparameter 'speed'; known: adam"),
        (["train", *QUICK, "--params", "batch_size:0"], "batch_size must be a positive integer, got 0"),
        (["train", "--env-params", "schedule:never"], "unknown schedule 'never'; known: enas, fair"),
        (["train", "--env-params", "evaluator_kwargs.colour:1"], "shared-weights has no setting ['colour']"),
        (
            ["train", "--env-params", "schedule.colour:1"],
            "schedule 'uniform' has no field 'colour'; known: ",
        ),
        (["train", *QUICK, "--run-dir", "file"], "file"),
        (["resume", "nothing"], "'nothing' holds no run: there is no config.yaml in it"),
        (["show", "nothing"], "'nothing' is no run's folder and no JSON; an architecture as text needs --space"),
        (["show", "."], "'.' holds no run"),
        (["show", "nothing.json"], "there is no file 'nothing.json'"),
        (["show", "{}"], "{}"),
        (["show", "{not json"], "JSON"),
        (["show", TEXT, "--space", "nowhere"], "unknown space 'nowhere'; known: cell"),
        (["show", "|nor_conv_9x9~0|", "--space", "bench201"], "nor_conv_9x9"),
    ],
)
def test_wrong_input_gives_one_line(command, tmp_path, arguments, message) -> None:
    (tmp_path / "file").write_text("in the way")
    code, output = command(*arguments)
    assert code == 2
    (line,) = output.splitlines()
    assert line.startswith("nas-gym: ")
    assert message in line
    assert not (tmp_path / "runs").exists()


def test_a_missing_dataset(command, tmp_path) -> None:
    code, output = command("train", "--task", "cifar10", "--data-dir", tmp_path / "data", "--run-dir", "there")
    assert code == 2
    assert output.startswith("nas-gym: task 'cifar10': the dataset is not found. Looked in")
    assert str(tmp_path / "data") in output
    assert "--download" in output
    assert not (tmp_path / "there").exists()


def test_an_occupied_folder(command) -> None:
    assert command("train", *QUICK, "--run-dir", "there")[0] == 0
    code, output = command("train", *QUICK, "--run-dir", "there")
    assert (code, len(output.splitlines())) == (2, 1)
    assert "'there' already holds a run; go on with it by `nas-gym resume`" in output


def test_a_command_that_is_unknown(command) -> None:
    assert command("trian")[0] == 2
    assert command("train", "--trails", "3")[0] == 2


def test_values_that_cannot_be_read(command, tmp_path) -> None:
    for words, message in (
        (["--params", "batch_size"], "--params: expected key:value, got 'batch_size'"),
        (["--env-params", "a:1", "a.b:2"], "--env-params: 'a.b:2' puts a key under a value given before"),
        (["--trials", "many"], "--trials: invalid literal for int()"),
    ):
        code, output = command("train", *words)
        assert code == 2
        assert message in output
    assert not (tmp_path / "runs").exists()


# ------------------------------------------------------------------ pairs


@pytest.mark.parametrize(
    ("pairs", "wanted"),
    [
        ([], {}),
        (["a:1"], {"a": 1}),
        (["a:1e-3", "b:1.5e2", "c:-2E+1", "d:.5"], {"a": 0.001, "b": 150.0, "c": -20.0, "d": 0.5}),
        (["a:true", "b:false", "c:null"], {"a": True, "b": False, "c": None}),
        (["a:[1, 1e-3, x]", "b:[]"], {"a": [1, 0.001, "x"], "b": []}),
        (["a:{name: cell, nodes: 4}"], {"a": {"name": "cell", "nodes": 4}}),
        (["a.b:1", "a.c.d:x", "e:2"], {"a": {"b": 1, "c": {"d": "x"}}, "e": 2}),
        (["a:{b: 1}", "a.c:2"], {"a": {"b": 1, "c": 2}}),
        (["a:folder:/data/x"], {"a": "folder:/data/x"}),
        (["a:cell:darts", "b:x y"], {"a": "cell:darts", "b": "x y"}),
        (["a:1", "a:2"], {"a": 2}),
        (['a:"1e-3"', "b:"], {"a": 0.001, "b": None}),
    ],
)
def test_pairs(pairs, wanted) -> None:
    parsed = parse_pairs(tuple(pairs))
    assert parsed == wanted
    assert json.dumps(parsed) == json.dumps(wanted)  # 1 is not true, nor 1.0


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["a"], "expected key:value, got 'a'"),
        ([":1"], "expected key:value, got ':1'"),
        (["a=1"], "expected key:value, got 'a=1'"),
        (["a:1", "a.b:2"], "'a.b:2' puts a key under a value given before"),
        (["a.b:2", "a:1"], "'a:1' gives a value to a key with keys under it"),
        (["a:[1,"], "'a:[1,' has no value that YAML can read"),
    ],
)
def test_pairs_that_are_none(pairs, message) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  # compared below, as text
        parse_pairs(tuple(pairs))
    assert str(raised.value) == message
