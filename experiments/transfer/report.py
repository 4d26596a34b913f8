"""The report of a transfer benchmark: tables, a file of numbers, and learning curves."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nas_gym.agents.policy_gradient.multitask import MultiTask
from nas_gym.agents.policy_gradient.task_memory import relative_ranks
from nas_gym.evaluators import Evaluator
from nas_gym.experiments.benchmark import statistics
from nas_gym.experiments.benchmark.statistics import Estimate
from nas_gym.experiments.benchmark.suite import RANDOM
from nas_gym.experiments.report.leaderboard import escaped
from nas_gym.experiments.run.trials import csv_text
from nas_gym.experiments.transfer.measures import WINDOW, Measures, measures, running_best, running_mean, scores_of
from nas_gym.experiments.transfer.searches import Searches
from nas_gym.experiments.transfer.suite import COPY, COPY_MEAN, SCRATCH, TRANSFER, TransferSuite
from nas_gym.files import write_text
from nas_gym.types import Floats

TITLES = {
    "trials_to_best": "trials to the best of scratch",
    "trials_to_mean": "trials to the mean of scratch",
    "jumpstart": "jumpstart",
    "last": "final mean",
    "asymptote": "final best",
}
COUNTS = ("trials_to_best", "trials_to_mean")
SCRATCH_TRIALS = {"trials_to_best": "speed-up (best)", "trials_to_mean": "speed-up (mean)"}

Found = Mapping[tuple[str, str], Searches]


@dataclasses.dataclass(frozen=True)
class Row:
    """Results of an entry on one task or on all tasks.

    Attributes:
        task: name of the task; None for all.
        entry: label of the entry.
        estimates: by measure, and by the values of `SCRATCH_TRIALS`: the ratio of trials from scratch to trials of the
            entry.
    """

    task: str | None
    entry: str
    estimates: Mapping[str, Estimate]


def summarise(suite: TransferSuite, found: Found) -> list[Row]:
    """All rows: for all tasks together and for each task.

    Numbers of trials are medians over seeds, other measures means over seeds; over tasks, all are medians.
    """
    measured: dict[tuple[str, str], Measures] = {}
    for target in suite.tasks:
        score = scores_of(suite, target)
        for label in suite.entries:
            measured[target, label] = measures(found[target, label].rewards, found[target, SCRATCH].rewards, score)
    return [
        Row(None if len(tasks) > 1 else tasks[0], label, _estimates(measured, tasks, label))
        for tasks in (suite.tasks, *((task,) for task in suite.tasks))
        for label in suite.entries
    ]


def _estimates(measured: Mapping[tuple[str, str], Measures], tasks: tuple[str, ...], label: str) -> dict[str, Estimate]:
    def runs(of: str, name: str) -> list[Any]:
        return [getattr(measured[task, of], name) for task in tasks]

    estimates = {
        name: statistics.estimate(_median if name in COUNTS else statistics.median, runs(label, name))
        for name in TITLES
    }
    for name, speed_up in SCRATCH_TRIALS.items():
        estimates[speed_up] = statistics.estimate(_speed_up, [*runs(label, name), *runs(SCRATCH, name)])
    return estimates


def _median(*runs: Any, axis: int = -1) -> Any:
    """The median over tasks of the median over a task's runs."""
    return np.median([np.median(task, axis=axis) for task in runs], axis=0)


def _speed_up(*runs: Any, axis: int = -1) -> Any:
    """The median over tasks of the speed-up: the second half of `runs`, in median trials, over the first half."""
    medians = np.array([np.median(task, axis=axis) for task in runs])
    ours, theirs = np.split(medians, 2)
    return np.median(theirs / ours, axis=0)


# ---------------------------------------------------------------------- tables


def write_transfer_report(suite: TransferSuite, found: Found, out: Path) -> list[Row]:
    """Writes transfer.md, transfer.csv, summary.json and the learning curves; returns the rows of the tables."""
    rows = summarise(suite, found)
    write_text(out / "transfer.md", markdown(suite, rows))
    flat = [
        {"task": row.task or "all", "entry": row.entry, "measure": name, **dataclasses.asdict(estimate)}
        for row in rows
        for name, estimate in row.estimates.items()
    ]
    write_text(out / "transfer.csv", csv_text(flat))
    numbers = [{name: None if value != value else value for name, value in line.items()} for line in flat]
    write_text(out / "summary.json", json.dumps({"suite": suite.to_dict(), "estimates": numbers}, indent=1) + "\n")
    _draw_curves(suite, found, out)
    return rows


def markdown(suite: TransferSuite, rows: list[Row]) -> str:
    """The tables of all tasks together and of each task, as Markdown."""
    lines = [
        "# Transfer to a held-out task",
        "",
        f"{len(suite.tasks)} tasks of {escaped(suite.base)}, each held out in turn; {suite.seeds} seeds; "
        f"pretraining with {suite.source_trials} trials on each of the other tasks, then {suite.trials} trials on the "
        "held-out one.",
        "",
        *verdict(suite, rows),
        "",
        "Trials: the number until the best score so far, or the mean score of the last "
        f"{WINDOW} trials, reaches the median that searching from scratch attains after {suite.trials} trials; median "
        f"over seeds, counted as {suite.trials + 1} if never. Speed-up: trials from scratch over trials of the entry; "
        f"below 1 the transfer is negative. Jumpstart: mean score of the first {WINDOW} trials. Brackets: 95 % "
        "intervals over seeds. All tasks: medians over tasks.",
    ]
    for task in (None, *suite.tasks):
        own = [row for row in rows if row.task == task]
        names = [*TITLES, *SCRATCH_TRIALS.values()]
        header = ["", *(TITLES.get(name, name) for name in names)]
        cells = [[row.entry, *(_cell(name, row.estimates[name], suite.trials) for name in names)] for row in own]
        title = "All tasks" if task is None else task
        table = [header, ["---"] * len(header), *cells]
        lines += ["", f"## {escaped(title)}", "", *("| " + " | ".join(line) + " |" for line in table)]
    return "\n".join(lines) + "\n"


def _cell(name: str, estimate: Estimate, trials: int) -> str:
    def shown(value: float) -> str:
        if name in COUNTS:
            return f">{trials}" if value > trials else f"{value:.4g}"
        return f"{value:.2f}"

    if math.isnan(estimate.low):
        return shown(estimate.value)
    return f"{shown(estimate.value)} [{shown(estimate.low)}, {shown(estimate.high)}]"


def verdict(suite: TransferSuite, rows: list[Row]) -> list[str]:
    """One sentence per count of trials: whether transfer beats searching from scratch and copying."""
    overall = {row.entry: row.estimates for row in rows if row.task is None}
    if TRANSFER not in overall:
        return []
    sentences = []
    for name, speed_up in SCRATCH_TRIALS.items():
        ours = overall[TRANSFER]
        text = f"- {TITLES[name]}: transfer takes {_cell(name, ours[name], suite.trials)} trials, "
        text += f"a speed-up of {ours[speed_up].value:.1f} over searching from scratch"
        for label in (COPY, COPY_MEAN):
            if label in overall:
                theirs = overall[label][name]
                surely = ours[name].high < theirs.low
                fewer = "fewer" if ours[name].value < theirs.value else "no fewer"
                text += f"; {fewer} than {label}" + (", intervals disjoint" if surely else "")
        negative = [
            row.task for row in rows if row.task and row.entry == TRANSFER and row.estimates[speed_up].value < 1
        ]
        text += (
            f". Negative transfer (more trials than from scratch): {', '.join(filter(None, negative)) or 'no task'}."
        )
        sentences.append(text)
    return sentences


# ---------------------------------------------------------------------- pictures


def rank_correlations(evaluators: Mapping[str, Evaluator], samples: int = 2000) -> Floats:
    """Spearman's rank correlation between tasks, float64[K, K], of the accuracies of uniformly drawn architectures."""
    space = next(iter(evaluators.values())).space
    tokens = space.sample(np.random.default_rng(0), samples)
    accuracies = [evaluator.evaluate(tokens).accuracy for evaluator in evaluators.values()]
    ranks = [relative_ranks(accuracy) for accuracy in accuracies]
    correlations: Floats = np.corrcoef(ranks)
    return correlations


def projected(embeddings: Floats) -> Floats:
    """Projects points, float64[K, D], onto their first two principal components, float64[K, 2]."""
    centred = embeddings - embeddings.mean(axis=0)
    left, scales, _ = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(embeddings), 2))
    points[:, : len(scales[:2])] = left[:, :2] * scales[:2]
    return points


def draw_tasks(agent: MultiTask, evaluators: Mapping[str, Evaluator], out: Path) -> None:
    """Draws the learned task embeddings next to the rank correlations of the tasks that have an evaluator."""
    import matplotlib
    from matplotlib.figure import Figure

    from nas_gym.experiments.plotting import INK, SERIES, STYLE, Picture, write_figures

    points = projected(agent.controller.task_embedding.detach()[0].double().cpu().numpy())
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(10.6, 4.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.scatter(*points.T, color=SERIES[0])
        for name, point in zip(agent.tasks, points, strict=True):
            left.annotate(name, point, xytext=(5, 4), textcoords="offset points")
        left.set(title="learned embeddings of the tasks", xlabel="first component", ylabel="second component")
        correlations, names = rank_correlations(evaluators), list(evaluators)
        right.imshow(correlations, cmap="RdBu_r", vmin=-1, vmax=1)
        for (row, column), value in np.ndenumerate(correlations):
            colour = "white" if abs(value) > 0.7 else INK
            right.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=9, color=colour)
        right.set_xticks(range(len(names)), names, rotation=45, ha="right")
        right.set_yticks(range(len(names)), names)
        right.set_title("rank correlation of accuracies")
        write_figures([Picture("tasks", "Learned embeddings and true rank correlations", figure)], out)


def _draw_curves(suite: TransferSuite, found: Found, out: Path) -> None:
    """Draws one column per task: the mean of the last trials above, the best so far below."""
    import matplotlib
    from matplotlib.figure import Figure

    from nas_gym.experiments.plotting import BASELINE, SERIES, STYLE, Picture, write_figures

    shown = [label for label in suite.entries if not label.startswith("transfer,")]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.6 * len(suite.tasks) + 0.6, 5.6), layout="constrained")
        axes = figure.subplots(2, len(suite.tasks), squeeze=False, sharex=True)
        for column, target in enumerate(suite.tasks):
            score = scores_of(suite, target)
            for row, (curve, title) in enumerate(((running_mean, f"mean of {WINDOW}"), (running_best, "best so far"))):
                place = axes[row, column]
                for number, label in enumerate(shown):
                    values = curve(score(found[target, label].rewards)).mean(axis=0)
                    colour = BASELINE if label == RANDOM else SERIES[number]
                    place.plot(np.arange(1, len(values) + 1), values, color=colour, label=label)
                place.set_title(target if row == 0 else "")
                if column == 0:
                    place.set_ylabel(f"score, {title}")
            axes[1, column].set_xlabel("trials")
        figure.legend(
            *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(shown), frameon=False
        )
        write_figures([Picture("learning_curves", "Learning curves on the held-out task", figure)], out)
