"""What a run leaves in its folder when the search is over: the comparison, best.json, the pictures, the model card."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_gym.agents import Agent
from nas_gym.evaluators import MultiTaskEvaluator
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.experiments.run.config import RunConfig
from nas_gym.experiments.run.model_card import model_card, traded_cost
from nas_gym.experiments.run.progress import Progress
from nas_gym.files import write_text
from nas_gym.spaces import Architecture

if TYPE_CHECKING:
    from nas_gym.experiments.run.comparison_result import Comparison

BEST = "best.json"
logger = logging.getLogger("nas_gym")


def write_results(
    folder: Path, config: RunConfig, agent: Agent, seconds: float, progress: Progress, stop: list[int]
) -> tuple[dict[str, Any], Comparison | None]:
    """Compares what was found, and writes the results of a run.

    Args:
        folder: of the run.
        config: what the run was asked to do.
        agent: what has searched.
        seconds: how long that has taken.
        progress: the bars to show.
        stop: turns non-empty when the run is to stop.

    Returns:
        What best.json holds, and the comparison, if there is one.

    Raises:
        Interrupted: the run was asked to stop; what is finished is not done again.
    """
    from nas_gym.experiments.plotting import comparison_picture, pareto_picture, write_figures

    result, comparison = agent.result, _compare(folder, config, agent, progress, stop)
    best = result.best_trial if comparison is None else comparison.winner
    record: dict[str, Any] = {"best": _record(agent, best), "comparison": None}
    pictures = []
    if (cost := traded_cost(config, result)) is not None:
        pictures.append(pareto_picture(result, cost, config.cost_target))
    if comparison is not None:
        record["best"]["test_accuracy"] = comparison.found.test.mean
        record["comparison"] = comparison.summary()
        write_text(folder / "comparison.csv", comparison.csv())
        pictures += comparison_picture(comparison, config.cost_target)
    if pictures:
        write_figures(pictures, folder)
    draw_architecture(result.space.architecture(result.tokens[best]), folder / "architecture")
    write_text(folder / BEST, json.dumps(record, indent=2) + "\n")
    write_text(folder / "model_card.md", model_card(config, agent, record, comparison, seconds))
    return record, comparison


def _compare(folder: Path, config: RunConfig, agent: Agent, progress: Progress, stop: list[int]) -> Comparison | None:
    """The comparison by the means that there are: a table, trainings, or none."""
    from nas_gym.experiments.run.comparison import candidates, look_up, meets_target, random_architectures, train

    result, evaluator = agent.result, agent.problem.evaluator.unwrapped
    own = np.arange(len(result))
    if isinstance(evaluator, MultiTaskEvaluator):
        own = np.flatnonzero(result.metrics["task"] == result.metrics["task"][result.best_trial])
        evaluator = list(evaluator.evaluators.values())[int(result.metrics["task"][own[0]])].unwrapped
    trials = own[candidates(result.rows(own), config.compare_found)].tolist()
    fits = meets_target(config, evaluator)
    drawn = random_architectures(config, agent.space.at_trial(agent.trials), len(result), fits)
    if isinstance(evaluator, TabularEvaluator):
        return look_up(config, result, trials, evaluator, drawn)
    if not evaluator.trains or config.retrain_epochs == 0:
        return None
    return train(folder, config, result, trials, evaluator, drawn, progress, stop)


def _task(agent: Agent, trial: int) -> str | None:
    """The task of a trial, in an environment of many."""
    evaluator = agent.problem.evaluator.unwrapped
    if not isinstance(evaluator, MultiTaskEvaluator):
        return None
    return list(evaluator.evaluators)[int(agent.result.metrics["task"][trial])]


def _record(agent: Agent, trial: int) -> dict[str, Any]:
    """The found architecture and what the search knew of it."""
    result, task = agent.result, _task(agent, trial)
    architecture = result.space.architecture(result.tokens[trial])
    fidelity = float(result.fidelities[trial])
    return {
        "trial": trial,
        "reward": float(result.rewards[trial]),
        "accuracy": float(result.metrics["accuracy"][trial]),
        **({"fidelity": fidelity} if fidelity < 1 else {}),
        "text": str(architecture),
        "architecture": json.loads(architecture.to_json()),
        **({} if task is None else {"task": task}),
    }


def draw_architecture(architecture: Architecture, stem: Path) -> list[Path]:
    """Draws an architecture as PNG and as SVG; returns both paths. Without matplotlib, a warning tells so instead."""
    from nas_gym.envs.rendering import save_picture

    paths = [stem.with_name(f"{stem.name}{suffix}") for suffix in (".png", ".svg")]
    try:
        for path in paths:
            save_picture(architecture, path)
    except ImportError as error:
        logger.warning("no picture is drawn, for matplotlib cannot be imported: %s", error)
        return []
    return paths
