"""Targets for the cost of networks: how they are written, and what a search makes of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from nas_gym.experiments.plotting import pareto_picture
from nas_gym.experiments.run import Run, RunConfig, read_config, read_trials
from nas_gym.experiments.run.model_card import command
from nas_gym.experiments.run.target import Target

QUIET = Console(quiet=True)


@pytest.mark.parametrize(
    ("text", "metric", "value"),
    [
        ("flops:2e6", "flops", 2e6),
        ("flops:2M", "flops", 2e6),
        ("flops:1.5G", "flops", 1.5e9),
        ("parameters:50000", "parameters", 5e4),
        ("parameters:50k", "parameters", 5e4),
        ("latency:5ms", "latency", 0.005),
        ("latency:5 ms", "latency", 0.005),
        ("latency:250us", "latency", 0.00025),
        ("latency:0.005", "latency", 0.005),
        ("latency:2s", "latency", 2.0),
    ],
)
def test_targets_are_read(text, metric, value) -> None:
    found = Target.parse(text)
    assert (found.metric, found.value) == (metric, pytest.approx(value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flops", "target must be METRIC:VALUE, such as flops:2e6 or latency:5ms, got 'flops'"),
        (5, "target must be METRIC:VALUE"),
        ("flop:2e6", "unknown metric of target 'flop'; known: parameters, flops, latency; did you mean 'flops'"),
        ("accuracy:0.9", "unknown metric of target 'accuracy'"),
        ("flops:", "target must have a number behind flops:, got ''"),
        ("flops:many", "target must have a number behind flops:, got 'many'"),
        ("flops:2ms", "target of flops must be a number, or one with a unit among k, M, G; got '2ms'"),
        ("latency:5min", "target of latency must be a number, or one with a unit among s, ms, us; got '5min'"),
        ("latency:-5ms", "target of latency must be a positive number, got '-5ms'"),
        ("parameters:0", "target of parameters must be a positive number, got '0'"),
        ("parameters:1e999", "target of parameters must be a positive number, got '1e999'"),
    ],
)
def test_what_is_no_target(text, message) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        RunConfig(target=text)


def test_a_target_and_an_objective_exclude_each_other() -> None:
    with pytest.raises(ValueError, match=r"target 'flops:2e6' sets the objective.*leave out the objective 'accuracy'"):
        RunConfig(target="flops:2e6", env_kwargs={"objective": "accuracy"})


def test_a_table_without_the_metric(tmp_path) -> None:
    message = "target 'latency:5ms' needs an evaluator with the metric 'latency'; .*here are parameters, flops"
    with pytest.raises(ValueError, match=message):
        Run(tmp_path / "run", RunConfig(env="NAS-Bench201-v0", target="latency:5ms"), QUIET)
    assert not (tmp_path / "run").exists()


def test_evaluators_that_train_measure_it() -> None:
    """Beside the parameters and the operations, or what was asked for."""
    assert RunConfig(target="latency:5ms").evaluator.cost == {"metrics": ["parameters", "flops", "latency"]}
    given: dict[str, Any] = {"evaluator_kwargs": {"cost": {"metrics": [], "limits": {"flops": 1e9}}}}
    config = RunConfig(target="flops:2e6", env_kwargs=given)
    assert config.evaluator.cost == {"metrics": ["flops"], "limits": {"flops": 1e9}}
    assert RunConfig(env="NAS-Bench201-v0", target="flops:2e6").evaluator.cost is None
    assert RunConfig().evaluator.cost is None


def test_a_search_on_a_table(tmp_path) -> None:
    """The reward is the accuracy up to the target, and beyond it less by the ratio; the picture shows the target."""
    config = RunConfig(env="NAS-Bench201-v0", agent="random", trials=40, target="parameters:30k")
    run = Run(tmp_path / "run", config, QUIET)
    record = run.execute()
    result = read_trials(tmp_path / "run")
    parameters = result.metrics["parameters"]
    np.testing.assert_allclose(result.rewards, result.metrics["accuracy"] * np.minimum(1, 30_000 / parameters))
    assert 0 < (parameters <= 30_000).sum() < 40
    assert record["comparison"]["cost"] == "parameters"
    card = (tmp_path / "run" / "model_card.md").read_text()
    assert f"The target of 30,000 was met by {(parameters <= 30_000).sum()} of 40 trials" in card
    assert "--target parameters:30k" in card
    assert read_config(tmp_path / "run") == config
    assert "--target parameters:30k" in command(config)
    lines = pareto_picture(result, "parameters", config.cost_target).figure.axes[0].get_lines()
    assert [line.get_xdata()[0] for line in lines if line.get_label() == "target"] == [30_000]
    other = pareto_picture(result, "flops", config.cost_target).figure.axes[0].get_lines()
    assert "target" not in {line.get_label() for line in other}


def test_the_target_of_a_soft_constraint_is_shown_too() -> None:
    objective = {"name": "soft-constraint", "metric": "flops", "target": 2e6}
    assert RunConfig(env_kwargs={"objective": objective}).cost_target == Target("flops", 2e6)
    assert RunConfig().cost_target is None


@pytest.mark.slow
def test_a_controller_learns_to_meet_it(tmp_path) -> None:
    """A third of the architectures of the table has at most 30,000 parameters."""
    config = RunConfig(env="NAS-Bench201-v0", trials=200, target="parameters:30k", seed=1)
    agent = config.make_agent(config.make_env())
    result = agent.learn(200)
    assert (result.metrics["parameters"][-50:] <= 30_000).mean() > 0.6


@pytest.mark.slow
def test_the_command_with_shared_weights(tmp_path: Path, monkeypatch, capsys) -> None:
    from nas_gym.experiments.cli.main import main

    words = ["--trials", "6", "--num-envs", "3", "--device", "cpu", "--retrain-epochs", "0", "--target", "flops:200k"]
    small = ["space.name:cell", "space.nodes:2", "evaluator_kwargs.channels:4", "evaluator_kwargs.batch_size:16"]
    small += ["evaluator_kwargs.score_images:64", "schedule.warmup_steps:2"]
    folder = tmp_path / "run"
    monkeypatch.setattr(sys, "argv", ["nas-gym", "train", *words, "--run-dir", str(folder), "--env-params", *small])
    main()
    assert "Found in trial" in capsys.readouterr().out
    result = read_trials(folder)
    flops = result.metrics["flops"]
    np.testing.assert_allclose(result.rewards, result.metrics["accuracy"] * np.minimum(1, 200_000 / flops))
    assert (result.metrics["parameters"] > 0).all()
