"""The page of a run, finished or not: what it has found, how it came there, and with which settings."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from nas_gym.agents import SearchResult
from nas_gym.agents.pareto import COSTS
from nas_gym.envs.rendering import to_text
from nas_gym.experiments.benchmark.results import incumbents
from nas_gym.experiments.intervals import MeanInterval
from nas_gym.experiments.plotting import AXIS_LABELS, BASELINE, SERIES
from nas_gym.experiments.report.charts import CURVES, Chart, Series
from nas_gym.experiments.report.drawing import drawing
from nas_gym.experiments.report.heat_map import MIXTURE, Scalars, heat_map
from nas_gym.experiments.report.page import render
from nas_gym.experiments.run.comparison_result import HEADINGS, Comparison, Row, amount
from nas_gym.experiments.run.config import CONFIG, RunConfig, read_config
from nas_gym.experiments.run.results import BEST
from nas_gym.experiments.run.trials import best_trials, read_recorded
from nas_gym.files import write_text
from nas_gym.spaces import Architecture

PAGE = "report.html"
SHOWN = 25  # trials in the table
TRIALS, BEST_SO_FAR, FRONT = "trials", "best so far", "Pareto front"
FILES = {
    "trials.csv": "every trial",
    "timings.csv": "when each trial ended",
    "comparison.csv": "the trainings of the comparison",
    CONFIG: "all settings",
    BEST: "the found architecture and the comparison, for programs",
    "model_card.md": "the run in words",
    "architecture.svg": "the found architecture",
}


@dataclass(frozen=True)
class RunState:
    """What is known of a run.

    Attributes:
        folder: of the run.
        config: what it is asked to do.
        result: its trials so far.
        seconds: of the search so far.
        record: what best.json holds; None before the run has ended.
    """

    folder: Path
    config: RunConfig
    result: SearchResult
    seconds: float
    record: Mapping[str, Any] | None

    @property
    def finished(self) -> bool:
        """Whether the run has ended."""
        return self.record is not None


def read_run(folder: Path) -> RunState:
    """Reads a run, which may be going on.

    Raises:
        ValueError: the folder holds no run, or its record is damaged.
    """
    recorded = read_recorded(folder)
    seconds = float(recorded.seconds[-1]) if len(recorded.seconds) else 0.0
    record = json.loads((folder / BEST).read_text()) if (folder / BEST).exists() else None
    return RunState(folder, read_config(folder), recorded.result, seconds, record)


def write_run_report(folder: Path, refresh: int | None = None) -> tuple[Path, bool]:
    """Writes the page of a run into its folder.

    Args:
        folder: of the run.
        refresh: seconds after which a browser loads the page anew; None does not.

    Returns:
        Its path, and whether the run has ended.

    Raises:
        ValueError: the folder holds no run, or its record is damaged.
    """
    run = read_run(folder)
    scalars = _scalars(folder)
    charts = {"search": _search_charts(run), "tradeoffs": _tradeoff_charts(run.result), "curves": _curves(scalars)}
    labels = dict.fromkeys(each.label for found in charts.values() for chart in found for each in chart.series)
    shown = best_trials(run.result, SHOWN) if _sound(run.result).any() else []
    page = render(
        "run.html.jinja",
        charts,
        colours=_colours(labels),
        dashes={},
        drawn=[_architecture(run.result, trial) for trial in shown],
        refresh=None if run.finished else refresh,
        run=run,
        best=_best(run),
        elapsed=timedelta(seconds=int(run.seconds)),
        shown=[(trial, _architecture(run.result, trial)) for trial in shown],
        costs=[name for name in ("seconds", *COSTS) if name in run.result.metrics],
        comparison=_comparison(run),
        mixtures=heat_map(scalars),
        files={name: about for name, about in FILES.items() if (folder / name).exists()},
        configuration=(folder / CONFIG).read_text(),
        amount=amount,
    )
    write_text(folder / PAGE, page)
    return folder / PAGE, run.finished


def _sound(result: SearchResult) -> Any:
    return ~(result.metrics.get("failed", np.zeros(len(result))) > 0) & np.isfinite(result.rewards)


def _architecture(result: SearchResult, trial: int) -> Architecture:
    return result.space.architecture(result.tokens[trial])


def _best(run: RunState) -> dict[str, Any] | None:
    """The found architecture, or the best so far; None without trials."""
    if not len(run.result):
        return None
    trial = run.result.best_trial if run.record is None else int(run.record["best"]["trial"])
    test = None if run.record is None else run.record["best"].get("test_accuracy")
    accuracy, reward = float(run.result.metrics["accuracy"][trial]), float(run.result.rewards[trial])
    found = _architecture(run.result, trial)
    shown = {"drawing": drawing(found), "text": f"{found}\n\n{to_text(found)}"}
    return {"trial": trial, "accuracy": accuracy, "reward": reward, "test": test, **shown}


def _colours(labels: Mapping[str, Any]) -> dict[str, str]:
    fixed = {TRIALS: BASELINE, FRONT: SERIES[0], BEST_SO_FAR: SERIES[0]}
    others = [label for label in labels if label not in fixed]
    return {label: fixed.get(label) or SERIES[(1 + others.index(label)) % len(SERIES)] for label in labels}


# ---------------------------------------------------------------------- charts


def _search_charts(run: RunState) -> list[Chart]:
    """The reward of each trial, and the best so far; in an environment of many tasks, task by task."""
    result = run.result
    if not len(result):
        return []
    trials = np.arange(1.0, len(result) + 1)
    if "task" in result.metrics:
        tasks = result.metrics["task"]
        series = [
            Series(
                _task_name(run.config, int(task)), trials[tasks == task], result.rewards[tasks == task], drawn="points"
            )
            for task in np.unique(tasks)
        ]
    else:
        best = incumbents(result)
        new = np.flatnonzero(best == np.arange(len(best)))
        improved: list[Architecture | None] = [None] * len(result)
        for trial in new.tolist():
            improved[trial] = _architecture(result, trial)
        sound = np.where(_sound(result), result.rewards, np.nan)
        steps = Series(BEST_SO_FAR, trials, result.rewards[best], drawn="steps", architectures=improved)
        series = [Series(TRIALS, trials, sound, drawn="points"), steps]
    return [Chart("search", "Reward of each trial", CURVES, "trials", "reward", tuple(series), cut=0.02)]


def _task_name(config: RunConfig, number: int) -> str:
    tasks = config.environment_arguments().get("tasks") or ()
    return str(tasks[number]) if number < len(tasks) else f"task {number}"


def _tradeoff_charts(result: SearchResult) -> list[Chart]:
    """Accuracy against each cost that differs among the trials, with the Pareto front."""
    if "task" in result.metrics:
        return []
    charts = []
    for cost in (name for name in (*COSTS, "seconds") if name in result.metrics):
        costs = result.metrics[cost]
        shown = np.flatnonzero(_sound(result) & np.isfinite(costs) & (result.fidelities == result.fidelities.max()))
        if len(np.unique(costs[shown])) < 2:
            continue
        front = result.pareto_front("accuracy", cost)
        front = front[np.argsort(costs[front], kind="stable")]
        accuracy = result.metrics["accuracy"]
        points = Series(TRIALS, costs[shown], accuracy[shown], drawn="points")
        architectures = [_architecture(result, trial) for trial in front.tolist()]
        steps = Series(FRONT, costs[front], accuracy[front], drawn="steps", architectures=architectures)
        title, label = f"Accuracy against {cost}", AXIS_LABELS.get(cost, cost)
        charts.append(Chart(f"tradeoff-{cost}", title, CURVES, label, "accuracy", (points, steps), cut=0.1))
    return charts


def _scalars(folder: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard has: by tag, values by step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    events = EventAccumulator(str(folder), size_guidance={"scalars": 400}).Reload()
    return {
        tag: {event.step: event.value for event in events.Scalars(tag) if math.isfinite(event.value)}
        for tag in events.Tags()["scalars"]
    }


def _curves(scalars: Scalars) -> list[Chart]:
    """The training of the agent and of shared weights."""
    charts = []
    for tag, found in sorted(scalars.items()):
        if len(found) > 1 and not tag.startswith(("search/", MIXTURE)):
            x, y = (np.array(values, dtype=np.float64) for values in (list(found), list(found.values())))
            unit = "trials" if tag.startswith(("rollout/", "train/", "time/")) else "steps"
            charts.append(Chart(f"curve-{tag}", tag, CURVES, unit, "", (Series(tag, x, y),)))
    return charts


# ---------------------------------------------------------------------- comparison


def _comparison(run: RunState) -> dict[str, Any] | None:
    """The comparison at the end of the run as its files have it; None if there is none."""
    path = run.folder / "comparison.csv"
    if run.record is None or run.record["comparison"] is None or not path.exists():
        return None
    numbers = {field.name for field in dataclasses.fields(Row)} - {"role", "name", "architecture"}
    with path.open(newline="") as file:
        rows = [
            Row(**{k: (float(v) if v else None) if k in numbers else v for k, v in row.items()})  # type: ignore[arg-type]
            for row in csv.DictReader(file)
        ]
    summary = run.record["comparison"]
    comparison = Comparison(summary["source"], run.record["best"]["trial"], tuple(rows), summary["cost"])
    return {
        "headings": HEADINGS,
        "rows": comparison.table(),
        "conclusion": comparison.conclusion,
        "differences": {role: found for role in ("random", "reference") if (found := comparison.difference(role))},
        "leaders": [*_leaders(run.result, comparison)],
    }


def _leaders(result: SearchResult, comparison: Comparison) -> Iterator[str]:
    """Why what is best in one respect is not what was chosen, a sentence for each."""
    groups, chosen = comparison.groups, comparison.found.rows[0].name
    if comparison.winner != result.best_trial:
        yield (
            f"The best reward of the search was that of trial {result.best_trial}; {chosen} was chosen from the best "
            "trials by its validation accuracy when they were trained alike."
        )
    others = [row for row in comparison.rows if row.role == "candidate" and row.name != chosen]
    rival = max(others, key=lambda row: row.test_accuracy, default=None)
    if rival is not None and rival.test_accuracy > comparison.found.test.mean:
        yield (
            f"{rival.name.capitalize()} reaches {rival.test_accuracy:.4f} on the test split, {chosen} "
            f"{comparison.found.test.mean:.4f}. It is not the one that was chosen, because {chosen} was the best by "
            "validation accuracy: an architecture chosen by its test accuracy would have the luck of the test images "
            "in its result."
        )
    leader, best = max(groups, key=lambda each: each.valid_accuracy), max(groups, key=lambda each: each.test.mean)
    if best is not leader:
        yield (
            f"The highest validation accuracy is that of {leader.name}, the highest test accuracy that of {best.name}, "
            f"{best.test} against {leader.test}: {_meaning(leader.test, best.test)}."
        )


def _meaning(leader: MeanInterval, best: MeanInterval) -> str:
    """What it means that another one is better on the test split than the leader on the validation split."""
    if leader.high is None or best.low is None or best.low > leader.high:
        return "networks are chosen by the validation split, which does not rank them as the test split does"
    return "the intervals overlap, so the test split does not tell which of the two is better"
