"""The `nas-gym` command: what it lists, shows, runs and refuses."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from nas_gym.agents import AGENTS, agent_class
from nas_gym.experiments.cli.app import Answer, console, give
from nas_gym.experiments.cli.main import main
from nas_gym.experiments.run import Interrupted, Run, progress
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
        self.monkeypatch, self.capsys, self.width = monkeypatch, capsys, 400

    def __call__(self, *arguments: str | Path) -> tuple[int, str]:
        """The exit code, and what was printed."""
        self.monkeypatch.setattr(sys, "argv", ["nas-gym", *map(str, arguments)])
        self.monkeypatch.setattr(console, "width", self.width)
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


# ------------------------------------------------------------------ list and help


def entries(output: str) -> dict[str, str]:
    """What `nas-gym list` says of each name, its lines joined."""
    found: dict[str, str] = {}
    name = ""
    for line in output.splitlines():
        start, _, text = line.partition("  ")
        name = start.strip() or name
        found[name] = f"{found.get(name, '')} {text.strip()}".strip()
    return found


def test_list(command) -> None:
    code, output = command("list")
    assert code == 0
    found = entries(output)
    for spec in ENVIRONMENTS:
        assert found[spec.id] == spec.description
    for name in AGENTS:
        # Read from the source, it is the docstring's first line as Python has it.
        assert found[name] == (agent_class(name).__doc__ or "").splitlines()[0]
    for name, space in PRESETS.items():
        decisions, size = re.fullmatch(r"(\d+) decisions, (\S+) architectures", found[name]).groups()
        assert int(decisions) == space.length
        assert float(size.replace(",", "")) == pytest.approx(space.size, rel=5e-3)
    for name, description in TASKS.items():
        assert found[name] == description


def test_list_fits_a_terminal(command) -> None:
    command.width = 80
    _, output = command("list")
    assert max(len(line.rstrip()) for line in output.splitlines()) <= 80
    for spec in ENVIRONMENTS:
        assert re.search(rf"^{spec.id} ", output, re.MULTILINE), "names are whole"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NAS-Bench201-v0", ["15,625", "fashion-mnist", "bench201", 'gymnasium.make("NAS-Bench201-v0")']),
        ("NAS-MultiTask-v0", ["NAS-BenchGraph-v0", "citeseer"]),
        ("regularized-evolution", ["population_size", "Real et al.", "preset:paper"]),
        ("from-scratch", ["'epochs': 5", "image_size", "FromScratchSettings"]),
        ("gaussian-process", ["noise"]),
        ("cell:darts", ["32", "sep_conv_3x3", "NAS-Cell-v0"]),
        ("cifar10", ["60,000 colour photographs"]),
    ],
)
def test_list_tells_the_details_of_a_name(command, name, said) -> None:
    code, output = command("list", name)
    assert code == 0
    assert all(part in output for part in said), output
    assert "\nnext:\n" in output


def test_every_name_has_details(command) -> None:
    groups = json.loads(command("list", "--json", "--quiet")[1])
    for name in {name for group, names in groups.items() if group != "next" for name in names}:
        code, output = command("list", name, "--json", "--quiet")
        assert code == 0, output
        assert json.loads(output)["next"]


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


# ------------------------------------------------------------------ what all commands share


def test_help_tells_the_options_of_all_commands_and_the_completion(command) -> None:
    for words in (["--help"], ["train", "--help"], ["table", "info", "--help"]):
        code, output = command(*words)
        assert code == 0
        assert all(option in output for option in ("--quiet", "--json", "--version"))
        assert ("--tyro-write-completion bash" in output) == (words == ["--help"])


def test_version(command) -> None:
    from importlib.metadata import version

    assert command("--version") == (0, f"nas-gym {version('nas-gym')}\n")


@pytest.mark.slow
def test_as_a_module() -> None:
    words = [sys.executable, "-m", "nas_gym", "--version"]
    finished = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert (finished.returncode, finished.stdout[:8]) == (0, "nas-gym "), finished.stderr


@pytest.mark.slow
def test_completion(command, tmp_path) -> None:
    code, _ = command("--tyro-write-completion", "bash", tmp_path / "completion")
    assert code == 0
    assert "retrain-epochs" in (tmp_path / "completion").read_text()


def test_quiet(command, tmp_path) -> None:
    assert command("train", *QUICK, "--run-dir", "there", "--quiet") == (0, "")
    assert (tmp_path / "there" / "best.json").exists()
    code, output = command("--quiet", "train", *QUICK, "--run-dir", "there")
    assert (code, len(output.splitlines())) == (2, 1), "errors are told"


def test_json(command, capsys, tmp_path) -> None:
    command.monkeypatch.setattr(sys, "argv", ["nas-gym", "train", *QUICK, "--run-dir", "there", "--json"])
    main()
    printed, other = capsys.readouterr()
    found = json.loads(printed)
    assert found["folder"] == "there"
    assert found["best"] == json.loads((tmp_path / "there" / "best.json").read_text())["best"]
    assert "nas-gym show there" in found["next"]
    assert "run folder: there" in other
    code, output = command("show", "there", "--json", "--quiet")
    shown = json.loads(output)
    assert code == 0
    assert Architecture.from_json(json.dumps(shown["architecture"])) == BENCH.parse(found["best"]["text"])
    command.monkeypatch.setattr(sys, "argv", ["nas-gym", "show", "nothing", "--json"])
    with pytest.raises(SystemExit, match="2"):
        main()
    printed, other = capsys.readouterr()
    assert other == f"nas-gym: {json.loads(printed)['error']}\n"


def test_no_number_in_json_is_nan(capsys) -> None:
    give(Answer({"a": float("nan"), "b": [float("inf"), 1.5]}), as_json=True)
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "next": []}


def test_every_command_says_what_to_do_next(command) -> None:
    Path("drawn.json").write_text(BENCH.parse(TEXT).to_json())
    for words in (
        ["list"],
        ["train", *QUICK, "--run-dir", "there"],
        ["resume", "there"],
        ["report", "there"],
        ["show", "there"],
        ["show", "drawn.json"],
        ["table", "info", "bench201-fashion-mnist"],
    ):
        code, output = command(*words)
        assert code == 0, output
        assert re.search(r"\nnext:\n  \S", output), words


def test_an_interrupted_run_tells_how_to_go_on(command, tmp_path) -> None:
    command.monkeypatch.setattr(Run, "execute", lambda self: (_ for _ in ()).throw(Interrupted))
    code, output = command("train", *QUICK, "--run-dir", "there")
    assert code == 130
    assert "nas-gym resume there" in output
    code, output = command("train", *QUICK, "--run-dir", "there", "--json", "--quiet")
    assert (code, json.loads(output)["state"], json.loads(output)["next"]) == (130, "stopped", ["nas-gym resume there"])


# ------------------------------------------------------------------ progress


def test_lines_where_there_is_no_terminal(monkeypatch) -> None:
    monkeypatch.setattr("nas_gym.experiments.run.bars.LINE_SECONDS", 0.05)
    log = io.StringIO()
    with progress.progress_bars(Console(file=log)) as bars:
        first = bars.add_task("searching", total=40)
        bars.update(first, advance=3, note="best 0.5000")
        second = bars.add_task("training shared weights", total=10)
        bars.advance(second, 4)
        while "weights" not in log.getvalue():
            time.sleep(0.01)
        bars.update(second, completed=10)
        while "searching" not in log.getvalue():
            time.sleep(0.01)
        bars.update(first, completed=40)
    lines = log.getvalue().splitlines()
    assert re.fullmatch(r"training shared weights 4/10, 0:00:0\d elapsed(, 0:\d\d:\d\d left)?", lines[0])
    assert any(line.startswith("searching 3/40, best 0.5000, 0:00:0") for line in lines)
    assert "\x1b" not in log.getvalue()


def test_a_short_command_prints_no_line() -> None:
    log = io.StringIO()
    with progress.counting(Console(file=log), "runs") as tell:
        tell(1, 2)
    assert log.getvalue() == ""


def test_bars_on_a_terminal() -> None:
    screen = io.StringIO()
    with progress.counting(Console(file=screen, force_terminal=True, width=100), "runs") as tell:
        tell(1, 2)
    assert "runs" in screen.getvalue()
    assert "1/2" in screen.getvalue()


@pytest.mark.slow
def test_the_warm_up_has_progress(command, monkeypatch) -> None:
    """While shared weights train, before any trial, and never an infinite best."""
    monkeypatch.setattr("nas_gym.experiments.run.bars.LINE_SECONDS", 0.02)
    env = ["space:{name: cell, nodes: 2}", "schedule.warmup_steps:12", "evaluator_kwargs.channels:4"]
    words = ["--task", "digits", "--trials", "4", "--agent", "random", "--retrain-epochs", "0", "--run-dir", "there"]
    code, output = command("train", *words, "--env-params", *env)
    assert code == 0
    assert re.search(r"^training shared weights \d+/12", output, re.MULTILINE), output
    assert "inf" not in output


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
        (["list", "reinforced"], "unknown name 'reinforced'; known: NAS-Cell-v0"),
        (["report", "nothing"], "'nothing' holds no run: there is no config.yaml in it"),
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
