"""Model cards: what they say is what the run did, and their command does it again."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from fidelity_checks import curves_table
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from nas_gym.experiments.cli.app import console
from nas_gym.experiments.cli.main import main
from nas_gym.experiments.run.config import RunConfig
from nas_gym.experiments.run.model_card import command
from nas_gym.experiments.run.pairs import pairs, parse_pairs
from nas_gym.experiments.run.run import Run
from nas_gym.experiments.run.trials import read_trials
from nas_gym.spaces import make_space

BENCH = make_space("bench201")


def finish(folder: Path, config: RunConfig) -> tuple[dict[str, Any], str]:
    record = Run(folder, config, Console(quiet=True)).execute()
    return record, (folder / "model_card.md").read_text()


def again(card: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the card's command, as a shell would, in another folder."""
    (line,) = re.search(r"```sh\n(.*?)\n```", card, re.DOTALL).group(1).splitlines()
    words = shlex.split(line)
    assert words[:2] == ["nas-gym", "train"]
    monkeypatch.setattr(sys, "argv", [*words, "--run-dir", str(folder)])
    monkeypatch.setattr(console, "quiet", True)
    main()


def on_table(tmp_path: Path, **changes: Any) -> RunConfig:
    table = curves_table(tmp_path / "a table.npz")
    return RunConfig(env="NAS-Bench201-v0", task="curves", env_kwargs={"table": str(table)}, **changes)


CONFIGS: dict[str, dict[str, Any]] = {
    "halving": {
        "agent": "successive-halving",
        "seed": 3,
        "trials": 500,
        "simulated_seconds": 400.0,
        "num_envs": 4,
        "hyperparameters": {"min_fidelity": 0.1},
    },
    "tournament": {"agent": "tournament", "trials": 45, "hyperparameters": {"crossover_probability": 0.75}},
    "random": {"agent": "random", "trials": 33},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_the_command_does_it_again(tmp_path, monkeypatch, name) -> None:
    _, card = finish(tmp_path / "run", on_table(tmp_path, **CONFIGS[name]))
    again(card, tmp_path / "again", monkeypatch)
    for file in ("trials.csv", "config.yaml", "best.json"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "run" / file).read_bytes()
    clock = re.compile("wall time.*")
    assert clock.sub("", (tmp_path / "again" / "model_card.md").read_text()) == clock.sub("", card)


@pytest.mark.slow
def test_the_command_of_a_run_with_shared_weights(tmp_path, monkeypatch) -> None:
    """Nested arguments, a space with a colon, retraining."""
    config = RunConfig(
        trials=6,
        num_envs=3,
        seed=2,
        device="cpu",
        hyperparameters={"batch_size": 3, "tanh_constant": None, "learning_rate": 1e-05},
        env_kwargs={
            "space": {"name": "cell", "nodes": 2},
            "evaluator_kwargs": {
                "channels": 4,
                "batch_size": 16,
                "score_images": 64,
                "task_kwargs": {"train_limit": 100, "valid_limit": 64},
            },
            "schedule": {"name": "enas", "warmup_steps": 3},
        },
        retrain_epochs=1,
        compare_found=2,
        compare_random=2,
        compare_seeds=2,
    )
    record, card = finish(tmp_path / "run", config)
    again(card, tmp_path / "again", monkeypatch)
    for file in ("trials.csv", "config.yaml", "best.json"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "run" / file).read_bytes()
    best, comparison = record["best"], record["comparison"]
    found = f"| {best['trial']} | {best['reward']:.4f} | {best['accuracy']:.4f} | {best['test_accuracy']:.4f} |"
    assert found in card
    assert comparison["conclusion"] in card
    assert "All networks were trained alike: 1 epochs of 100 images in batches of 8" in card
    assert "(comparison.png)" in card
    rows = re.findall(r"^\| (found|2 random|residual|mobile|plain) \| 0\.\d{4} \| 0\.\d{4} ± 0\.\d{4} \|", card, re.M)
    assert len(rows) == 5
    for name in ("comparison.png", "comparison.svg", "comparison.csv", "best.safetensors"):
        assert (tmp_path / "run" / name).exists()
    (line,) = (line for line in card.splitlines() if "two halves of the scoring examples" in line)
    assert re.fullmatch(r"- rank correlation .* examples: -?[01]\.\d\d, of 100 uniform architectures", line)


def test_the_card_says_what_was_done(tmp_path) -> None:
    config = on_table(tmp_path, **CONFIGS["halving"])
    record, card = finish(tmp_path / "run", config)
    assert json.loads((tmp_path / "run" / "best.json").read_text()) == record
    result = read_trials(tmp_path / "run")
    best = record["best"]
    assert best["trial"] == result.best_trial
    assert "fidelity" not in best
    assert best["test_accuracy"] == pytest.approx(best["accuracy"] ** 2)  # as the table was made
    found = f"| {best['trial']} | {best['reward']:.4f} | {best['accuracy']:.4f} | {best['test_accuracy']:.4f} |"
    assert found in card
    random = record["comparison"]["groups"][1]
    assert (random["role"], random["networks"]) == ("random", config.compare_random)
    test = random["test_accuracy"]["mean"]
    assert f"| {config.compare_random} random | {random['valid_accuracy']:.4f} | {test:.4f} ± " in card
    assert best["text"] in card
    assert "(architecture.png)" in card
    assert (tmp_path / "run" / "architecture.png").exists()
    assert f"- trials: {len(result)} of at most 500, of {result.unique_architectures} architectures" in card
    assert f"- simulated training time: {result.metrics['seconds'].sum():,.0f} s of at most 400 s" in card
    assert "- fidelity: 0.111, 0.333, 1, where 1 is 9 epochs" in card
    assert "- `eta`: 3" in card
    assert "- `min_fidelity`: 0.1" in card
    assert "a table.npz" in card
    assert "curves" in card


@pytest.mark.parametrize("task", [{"env": "NAS-Bench201-v0"}, {"env": "NAS-BenchGraph-v0", "task": "proteins"}])
def test_the_card_of_a_table_has_the_costs_of_its_trials(tmp_path, task) -> None:
    record, card = finish(tmp_path / "run", RunConfig(agent="random", trials=4, **task))
    metrics = {name: column[record["best"]["trial"]] for name, column in read_trials(tmp_path / "run").metrics.items()}
    known = [name for name in ("parameters", "flops", "latency") if name in metrics]
    assert known
    (line,) = (line for line in card.splitlines() if line.startswith("Its cost in the search: "))
    for name in known:
        value = f"{metrics[name] * 1000:.4g} ms" if name == "latency" else f"{metrics[name]:,.0f}"
        assert f"{name} {value}" in line


def test_a_run_without_a_test_split_says_none(tmp_path) -> None:
    config = RunConfig(env="NAS-Bench201-v0", agent="random", trials=3, env_kwargs={"evaluator": "constant"})
    _, card = finish(tmp_path / "run", config)
    assert "| 0.5000 | - |" in card
    assert "Nothing was trained or looked up to compare it with." in card


# ------------------------------------------------------------------ the command

words = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
texts = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"], max_codepoint=255), max_size=12)


def is_text(value: str) -> bool:
    """On the command line, what looks like a number is one."""
    try:
        float(value)
    except ValueError:
        return True
    return False


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | (words | texts).filter(is_text)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3))


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.dictionaries(words, values, max_size=4))
def test_pairs_are_read_back(mapping) -> None:
    read = parse_pairs(tuple(shlex.split(shlex.join(pairs(mapping)))))
    assert read == mapping
    assert json.dumps(read) == json.dumps(mapping)  # 1 is not true, nor 1.0


def test_the_command_line_is_short() -> None:
    config = RunConfig(
        hyperparameters={"learning_rate": 0.001}, env_kwargs={"space": "cell:darts", "schedule": {"name": "enas"}}
    )
    assert command(config) == (
        "nas-gym train --env NAS-Cell-v0 --agent reinforce --trials 300 --seed 0 --device auto "
        "--params learning_rate:0.001 --env-params space:cell:darts schedule.name:enas"
    )
    downloaded = RunConfig(
        env="NAS-BenchGraph-v0", task="cora", download=True, data_dir="my data", simulated_seconds=2e4
    )
    assert command(downloaded) == (
        "nas-gym train --env NAS-BenchGraph-v0 --agent reinforce --trials 300 --task cora --seed 0 --device auto "
        "--data-dir 'my data' --download --simulated-seconds 20000.0"
    )
