"""Bad input that is refused with one error that tells what is wrong, and output that cannot do harm."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_gym.agents import load_hyperparameters, make_agent
from nas_gym.evaluators import make_schedule
from nas_gym.evaluators.evaluator import FunctionEvaluator
from nas_gym.evaluators.from_scratch import FromScratchEvaluator
from nas_gym.evaluators.morphism import MorphismSettings
from nas_gym.evaluators.shared_weights import SharedWeightSettings
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.evaluators.training import TrainingSettings
from nas_gym.experiments.benchmark.statistics import performance_profile, probability_of_improvement
from nas_gym.experiments.benchmark.suite import AgentEntry, make_suite
from nas_gym.experiments.cli.main import main
from nas_gym.experiments.derive.derivation import DeriveConfig
from nas_gym.experiments.report.leaderboard import escaped
from nas_gym.experiments.run import Run, RunConfig
from nas_gym.files import file_name
from nas_gym.spaces import Bench201Space, make_space
from nas_gym.tables import open_table
from nas_gym.tasks import make_task

SPACE = Bench201Space()


def refused(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says to these arguments, on one line."""
    monkeypatch.setattr(sys, "argv", ["nas-gym", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


# ------------------------------------------------------------------ labels


@pytest.mark.parametrize("text", [".", "..", "...", "", "../..", "/etc", "a/../../b"])
def test_a_name_of_a_file_stays_in_its_folder(text: str, tmp_path: Path) -> None:
    place = (tmp_path / file_name(text)).resolve()
    assert place.parent == tmp_path.resolve()


@pytest.mark.parametrize("label", ["two\nlines", "bell\a", "x" * 256])
def test_a_label_is_one_line(label: str) -> None:
    with pytest.raises(ValueError, match="label must be one line of up to 255 bytes"):
        AgentEntry("random", {}, label)


def test_markdown_shows_a_label_as_it_is() -> None:
    assert escaped("<img src=x onerror=alert(1)> & co") == "&lt;img src=x onerror=alert(1)&gt; &amp; co"
    assert escaped("[here](http://x) `code` *bold*") == r"[here]\(http://x) \`code\` \*bold\*"
    assert escaped("0.834 [0.816, 0.861]") == "0.834 [0.816, 0.861]"
    assert escaped("\\<b>") == "&#92;&lt;b&gt;", "a backslash that would escape the escape"


# ------------------------------------------------------------------ numbers


def test_scores_that_are_nan_are_no_losses() -> None:
    runs = [np.array([0.5, math.nan, 0.7])]
    for compare in (lambda: probability_of_improvement(runs, runs), lambda: performance_profile(runs, np.zeros(1))):
        with pytest.raises(ValueError, match=r"scores must not be NaN, which compares with nothing; got 1 of 3"):
            compare()


SEEDED: dict[str, Callable[[Any], Any]] = {
    "agent": lambda seed: make_agent("random", "NAS-Bench201-v0", seed),
    "run": lambda seed: RunConfig(seed=seed),
    "derivation": lambda seed: DeriveConfig(seeds=(seed,)),
    "table": lambda seed: TabularEvaluator(SPACE, seed=seed),
    "training": lambda seed: FromScratchEvaluator(SPACE, seed=seed),
    "schedule": lambda seed: make_schedule({"name": "interleaved", "seed": seed}, FunctionEvaluator(SPACE)),
}


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64 + 1, 1.5, "1", True, None])
@pytest.mark.parametrize("where", SEEDED)
def test_seeds(where: str, seed: Any) -> None:
    with pytest.raises(ValueError, match=r"must be an integer in \[0, 2\*\*63\), got"):
        SEEDED[where](seed)


@pytest.mark.parametrize("where", SEEDED)
def test_the_largest_seed(where: str) -> None:
    SEEDED[where](2**63 - 1)
    SEEDED[where](np.int64(7))


WRONG = {
    "learning_rate": (-0.1, math.nan, math.inf, "abc", True),
    "momentum": (2, -0.1, math.nan, 1.0),
    "weight_decay": (-1, math.nan, math.inf),
    "gradient_clip": (-1, 0, math.nan),
    "label_smoothing": (-0.1, math.nan, 1.0),
    "drop_path": (math.nan, 1.0),
    "auxiliary_weight": (-1, math.nan, math.inf),
    "final_learning_rate": (-1, math.nan, math.inf),
    "start_learning_rate": (-1, math.nan),
    "wider_noise": (math.nan, math.inf),
    "epochs": (0, 1.5, "3"),
    "batch_size": (0, math.nan, True),
}
CASES = [
    (kind, name, value)
    for kind in (TrainingSettings, SharedWeightSettings, MorphismSettings)
    for name, values in WRONG.items()
    if name in kind.__dataclass_fields__
    for value in values
]


@pytest.mark.parametrize(("kind", "name", "value"), CASES)
def test_settings_of_training(kind: Any, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be .*, got"):
        kind(**{name: value})


@pytest.mark.parametrize("clip", [1e-3, math.inf])
def test_settings_of_training_at_their_bounds(clip: float) -> None:
    TrainingSettings(momentum=0, weight_decay=0, gradient_clip=clip, label_smoothing=0, learning_rate=0)


def test_the_type_comes_before_the_range() -> None:
    with pytest.raises(ValueError, match=r"^learning_rate must be a number, got 'abc'$"):
        load_hyperparameters("reinforce", overrides={"learning_rate": "abc"})
    with pytest.raises(ValueError, match=r"^batch_size must be an integer, got 2.5$"):
        load_hyperparameters("reinforce", overrides={"batch_size": 2.5})
    with pytest.raises(ValueError, match=r"^temperature must be a number, or None, got 'hot'$"):
        load_hyperparameters("reinforce", overrides={"temperature": "hot"})


def test_too_few_simulated_seconds_for_one_trial(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", RunConfig(env="NAS-Bench201-v0", agent="random", simulated_seconds=1e-6))
    with pytest.raises(ValueError, match=r"simulated_seconds 1e-06 end before the first trial does: give more"):
        run.execute()


# ------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("look_up", "meant"),
    [
        (lambda: make_agent("reinforc", "NAS-Bench201-v0"), "reinforce"),
        (lambda: RunConfig(env="nas-cell-v0"), "NAS-Cell-v0"),
        (lambda: make_space("bench2001"), "bench201"),
        (lambda: make_task("fashon-mnist"), "fashion-mnist"),
        (lambda: TabularEvaluator(SPACE, task="fashon-mnist"), "fashion-mnist"),
        (lambda: open_table("bench201-fashion-mnst"), "bench201-fashion-mnist"),
        (lambda: make_schedule("enass", FunctionEvaluator(SPACE)), "enas"),
        (lambda: make_suite("quik"), "quick"),
        (lambda: load_hyperparameters("ppo", overrides={"learnig_rate": 1}), "learning_rate"),
        (lambda: load_hyperparameters("ppo", overrides={"preset": "papr"}), "paper"),
        (lambda: FromScratchEvaluator(SPACE, trainin={}), "training"),
    ],
)
def test_did_you_mean(look_up: Callable[[], Any], meant: str) -> None:
    with pytest.raises(ValueError, match=rf"; did you mean '{meant}'\?$"):
        look_up()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "nas-gym: unknown command 'trian'; known: .*; did you mean 'train'?"),
        (["table", "imprt"], "nas-gym: unknown command 'imprt'; known: .*; did you mean 'import'?"),
        (["store", "nothing-like-it"], "nas-gym: unknown command 'nothing-like-it'; known: info, export"),
    ],
)
def test_commands(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start, _, end = message.partition(".*")
    told = refused(words, monkeypatch, capsys)
    assert told.startswith(start)
    assert told.endswith(end)


def test_a_graph_has_no_network_to_derive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Run(tmp_path / "run", RunConfig(env="NAS-BenchGraph-v0", agent="random", trials=2)).execute()
    told = refused(["derive", str(tmp_path / "run")], monkeypatch, capsys)
    assert told.endswith("has nothing to derive: space 'bench_graph' has no image networks")


def test_a_closed_pipe_ends_the_command_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code = "from nas_gym.experiments.cli.main import main; import sys; sys.argv = ['nas-gym', 'list']; main()"
    ended = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")
