"""The figures of a benchmark's report."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_gym.agents import pareto
from nas_gym.experiments.benchmark import statistics
from nas_gym.experiments.benchmark.results import RunResult
from nas_gym.experiments.benchmark.statistics import Estimate
from nas_gym.experiments.benchmark.suite import RANDOM, Environment, Suite
from nas_gym.experiments.plotting import (
    AXIS_LABELS,
    BASELINE,
    DASHES,
    INK,
    SERIES,
    STYLE,
    Look,
    Picture,
    label_ends,
    row_axes,
    single_axes,
)
from nas_gym.experiments.report.standings import (
    AgentSummary,
    ByEnvironment,
    Summary,
    Tradeoff,
    by_environment,
    final_scores,
    pooled,
)
from nas_gym.files import file_name

Floats = NDArray[np.float64]

CURVES = {
    "best": "Best validation accuracy so far",
    "played": "Mean validation accuracy of the last tenth of the trials",
}
POINTS = 60  # per curve
BANDS = 6  # with more lines than this, bands would hide each other


def looks(suite: Suite) -> dict[str, Look]:
    """The look of every agent, by label."""
    found = {}
    number = 0
    for entry in suite.agents:
        if entry.name == RANDOM:
            found[entry.label] = Look(BASELINE, (0, (3, 2)), 1.9)
            continue
        found[entry.label] = Look(SERIES[number % len(SERIES)], DASHES[number // len(SERIES) % len(DASHES)])
        number += 1
    return found


def draw(summary: Summary, traces: Sequence[RunResult]) -> dict[str, list[Picture]]:
    """All figures by section of the page."""
    import matplotlib

    suite, styles = summary.suite, looks(summary.suite)
    by_agent = {s.label: by_environment(suite, traces, s.label) for s in (*summary.standings, *summary.partial)}
    full = {agent.label: by_agent[agent.label] for agent in summary.standings}
    with matplotlib.rc_context(STYLE):
        return {
            "scores": _aggregate_pictures(summary, styles),
            "improvement": [_improvement_picture(summary)],
            "trials": _trial_pictures(suite.measure, full, styles),
            "seconds": _second_pictures(suite, by_agent, styles),
            "profiles": [_profile_picture(full, styles)],
            "distributions": [_distribution_picture(env, by_agent, styles) for env in suite.environments],
            "tradeoffs": [
                _tradeoff_picture(env, summary.tradeoffs[str(env)], by_agent, styles)
                for env in suite.environments
                if str(env) in summary.tradeoffs
            ],
            "time": [_time_picture(summary, styles)],
        }


def _aggregate_pictures(summary: Summary, styles: Mapping[str, Look]) -> list[Picture]:
    kinds: list[tuple[str, str, Callable[[AgentSummary], Estimate | None]]] = [
        ("score", "Interquartile mean, validation (higher is better)", lambda agent: agent.score),
        ("test", "Interquartile mean, test (higher is better)", lambda agent: agent.test_score),
        ("median", "Median of the tasks' means (higher is better)", lambda agent: agent.median),
        ("gap", "Optimality gap (lower is better)", lambda agent: agent.optimality_gap),
    ]
    return [
        _interval_picture(name, title, {s.label: found for s in summary.standings if (found := value(s))}, styles)
        for name, title, value in kinds
        if any(value(agent) for agent in summary.standings)
    ]


def _interval_picture(name: str, title: str, estimates: Mapping[str, Estimate], styles: Mapping[str, Look]) -> Picture:
    figure, axes = row_axes(list(estimates), title)
    for row, (label, estimate) in enumerate(estimates.items()):
        colour = styles[label].colour
        axes.plot(
            [estimate.low, estimate.high], [row, row], color=colour, linewidth=5, alpha=0.45, solid_capstyle="butt"
        )
        axes.plot([estimate.value], [row], "o", color=colour, markersize=5)
        if colour == BASELINE:
            axes.axvline(estimate.value, color=BASELINE, linestyle=(0, (3, 2)), linewidth=1, zorder=0)
    return Picture(name, title, figure)


def _improvement_picture(summary: Summary) -> Picture:
    labels = [agent.label for agent in summary.standings]
    title = "Probability that the row's agent beats the column's"
    figure, axes = single_axes(2.1 + 0.34 * len(labels), title)
    values = np.array([[summary.improvement[a][b].value if a != b else np.nan for b in labels] for a in labels])
    axes.imshow(values, cmap="BrBG", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(labels)), labels, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), labels)
    axes.grid(visible=False)
    for row, column in zip(*np.nonzero(~np.isnan(values)), strict=True):
        sure = not math.isclose(values[row, column], 0.5) and labels[column] in _significant(summary, labels[row])
        dark = abs(values[row, column] - 0.5) > 0.3
        axes.text(
            column, row, f"{values[row, column]:.2f}", ha="center", va="center", fontsize=9.5,
            color="white" if dark else INK, fontweight="bold" if sure else "normal",
        )  # fmt: skip
    return Picture("improvement", f"{title}; bold where the interval excludes one half", figure)


def _significant(summary: Summary, label: str) -> list[str]:
    """The agents whose difference from the given one is significant."""
    others = summary.improvement[label]
    return [other for other, estimate in others.items() if estimate.above(0.5) or estimate.below(0.5)]


@dataclass(frozen=True)
class Line:
    """A curve with its band, float64[P] each."""

    x: Floats
    middle: Floats
    low: Floats
    high: Floats


def _trial_pictures(measure: str, by_agent: Mapping[str, ByEnvironment], styles: Mapping[str, Look]) -> list[Picture]:
    pictures = []
    kinds: list[tuple[str, str, Callable[[RunResult], Floats | None]]] = [
        ("trials_validation", CURVES[measure], lambda trace: trace.score),
        ("trials_test", "Test accuracy of that architecture", lambda trace: trace.test_score),
    ]
    for name, title, scores in kinds:
        lines = {}
        for label, runs in by_agent.items():
            known = [[score for trace in found if (score := scores(trace)) is not None] for found in runs.values()]
            shortest = min((len(score) for stack in known for score in stack), default=0)
            stacks = [np.stack([score[:shortest] for score in stack]) for stack in known if stack]
            if stacks:
                chosen = np.unique(np.linspace(0, stacks[0].shape[1] - 1, POINTS).round().astype(np.int64))
                band = statistics.curve([stack[:, chosen] for stack in stacks])
                lines[label] = Line(chosen.astype(np.float64) + 1, *band)
        if lines:
            pictures.append(_line_picture(name, title, "trials", lines, styles))
    return pictures


def _second_pictures(suite: Suite, by_agent: Mapping[str, ByEnvironment], styles: Mapping[str, Look]) -> list[Picture]:
    """Curves over simulated time, one figure per environment: tables differ in their training times."""
    pictures = []
    for environment in suite.environments:
        runs = {label: found[environment] for label, found in by_agent.items() if environment in found}
        runs = {label: found for label, found in runs.items() if all(t.simulated_seconds is not None for t in found)}
        for split in ("validation", "test"):
            lines = {label: line for label, found in runs.items() if (line := _line_in_time(found, split))}
            if lines:
                title = {"validation": "Best validation accuracy so far", "test": "Test accuracy of that architecture"}
                name = f"seconds_{split}_{file_name(str(environment))}"
                pictures.append(_line_picture(name, f"{environment}\n{title[split]}", "simulated hours", lines, styles))
    return pictures


def _line_in_time(runs: Sequence[RunResult], split: str) -> Line | None:
    """The curve from the time when all runs have finished a trial to the time when the first run ends."""
    scores = [trace.validation_score if split == "validation" else trace.test_score for trace in runs]
    clocks = [trace.simulated_seconds for trace in runs if trace.simulated_seconds is not None]
    first, last = max(clock[0] for clock in clocks), min(clock[-1] for clock in clocks)
    if any(score is None for score in scores) or first >= last:
        return None
    grid: Floats = np.linspace(first, last, POINTS)
    stack = np.stack([
        score[np.searchsorted(clock, grid, side="right") - 1]
        for clock, score in zip(clocks, scores, strict=True)
        if score is not None
    ])  # fmt: skip
    hours: Floats = grid / 3600
    return Line(hours, *statistics.curve([stack]))


def _line_picture(name: str, title: str, unit: str, lines: Mapping[str, Line], styles: Mapping[str, Look]) -> Picture:
    figure, axes = single_axes(3.4 + 0.16 * max(0, len(lines) - 12), title)
    right = max(line.x[-1] for line in lines.values())
    for label, line in lines.items():
        look = styles[label]
        axes.plot(line.x, line.middle, color=look.colour, linestyle=look.dash, linewidth=look.width)
        # A finished search keeps its best architecture.
        axes.plot([line.x[-1], right], [line.middle[-1]] * 2, color=look.colour, linestyle=(0, (1, 3)), linewidth=1)
        if label in _banded(lines, styles):
            axes.fill_between(line.x, line.low, line.high, color=look.colour, alpha=0.13, linewidth=0)
    axes.set(xlabel=unit, ylabel="score", xlim=(0, right))
    # The steep rise of the first trials would hide the differences that follow it.
    low = min(float(np.interp(0.04 * right, line.x, line.middle)) for line in lines.values())
    high = max(float(line.middle[-1]) for line in lines.values())
    high = max([high, *(float(lines[label].high[-1]) for label in _banded(lines, styles))])
    axes.set_ylim(low, high + 0.04 * (high - low) if high > low else low + 1)
    label_ends(axes, {label: float(line.middle[-1]) for label, line in lines.items()}, styles)
    return Picture(name, title.replace("\n", ": "), figure)


def _banded(lines: Mapping[str, Any], styles: Mapping[str, Look]) -> set[str]:
    """The labels whose lines get a band: all if there are few, else only the first and random search."""
    labels = list(lines)
    return set(labels if len(labels) <= BANDS else [labels[0], *(s for s in labels if styles[s].colour == BASELINE)])


def _profile_picture(by_agent: Mapping[str, ByEnvironment], styles: Mapping[str, Look]) -> Picture:
    title = "Share of runs that score more than ..."
    figure, axes = single_axes(3.4, title)
    finals = {label: final_scores(runs) for label, runs in by_agent.items()}
    lowest = min(float(task.min()) for tasks in finals.values() for task in tasks)
    thresholds = np.linspace(lowest - 0.02, 1.0, 121)
    for label, tasks in finals.items():
        share, low, high = statistics.performance_profile(tasks, thresholds)
        look = styles[label]
        if label in _banded(finals, styles):
            axes.fill_between(thresholds, low, high, color=look.colour, alpha=0.13, linewidth=0)
        axes.plot(thresholds, share, color=look.colour, linestyle=look.dash, linewidth=look.width)
    axes.set(xlabel="score", ylabel="share of runs", ylim=(0, 1.02), xlim=(thresholds[0], 1.0))
    return Picture("profile", title, figure)


def _distribution_picture(
    environment: Environment, by_agent: Mapping[str, ByEnvironment], styles: Mapping[str, Look]
) -> Picture:
    scores = {label: final_scores(runs, [environment])[0] for label, runs in by_agent.items() if environment in runs}
    figure, axes = row_axes(list(scores), str(environment))
    for row, (label, found) in enumerate(scores.items()):
        heights = row + (np.linspace(-0.24, 0.24, len(found)) if len(found) > 1 else np.zeros(1))
        axes.plot(found, heights, "o", color=styles[label].colour, markersize=3.2, alpha=0.55, markeredgewidth=0)
        middle = statistics.interquartile_mean(found)
        axes.plot([middle, middle], [row - 0.36, row + 0.36], color=INK, linewidth=1.6)
    axes.set_xlabel("score per run; line: interquartile mean")
    return Picture(f"distribution_{file_name(str(environment))}", f"Scores in {environment}", figure)


def _tradeoff_picture(
    environment: Environment, tradeoff: Tradeoff, by_agent: Mapping[str, ByEnvironment], styles: Mapping[str, Look]
) -> Picture:
    """The Pareto front of each agent over the trials of all seeds; the axis may cut off its least accurate quarter."""
    from matplotlib.ticker import LogLocator

    fronts = {label: _front(pooled(runs[environment])) for label, runs in by_agent.items() if environment in runs}
    lines = {label: Line(front[:, 1], *[front[:, 0]] * 3) for label, front in fronts.items() if len(front)}
    title = f"Accuracy against {tradeoff.cost}"
    figure, axes = single_axes(3.4 + 0.16 * max(0, len(lines) - 12), f"{environment}\n{title}")
    left, right = min(line.x[0] for line in lines.values()), tradeoff.highest_cost
    for label, line in lines.items():
        look = styles[label]
        axes.step(
            [*line.x, right], [*line.middle, line.middle[-1]], where="post",
            color=look.colour, linestyle=look.dash, linewidth=look.width,
        )  # fmt: skip
    low = float(np.quantile(np.concatenate([line.middle for line in lines.values()]), 0.25))
    high = max(float(line.middle[-1]) for line in lines.values())
    axes.set(xlabel=AXIS_LABELS.get(tradeoff.cost, tradeoff.cost), xlim=(left, right))
    axes.set_ylim(low, high + 0.04 * (high - low) if high > low else low + 1)
    if left > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if right > 40 * left else (1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    label_ends(axes, {label: float(line.middle[-1]) for label, line in lines.items()}, styles)
    return Picture(f"pareto_{file_name(str(environment))}", f"{environment}: {title}", figure)


def _front(points: Floats) -> Floats:
    """The Pareto front of accuracies and costs, float64[n, 2], cheapest first."""
    front = np.unique(points[pareto.nondominated(points * [1, -1])], axis=0)
    return front[np.argsort(front[:, 1])]


def _time_picture(summary: Summary, styles: Mapping[str, Look]) -> Picture:
    standings = sorted((*summary.standings, *summary.partial), key=lambda agent: agent.seconds)
    title = "CPU seconds per run (median)"
    figure, axes = row_axes([agent.label for agent in standings], title)
    for row, agent in enumerate(standings):
        axes.plot(agent.seconds, row, "o", color=styles[agent.label].colour, markersize=6)
        axes.annotate(f"{agent.seconds:.2g}", (agent.seconds, row), (7, 0), textcoords="offset points", va="center")
    axes.set_xscale("log")
    fastest, slowest = (max(standings[place].seconds, 1e-4) for place in (0, -1))
    axes.set_xlim(fastest / 1.5, slowest * max(2.0, (slowest / fastest) ** 0.2))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    return Picture("time", title, figure)
