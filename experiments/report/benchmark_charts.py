"""The charts of a benchmark, by section of its page."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nas_gym.agents import pareto
from nas_gym.experiments.benchmark import statistics
from nas_gym.experiments.benchmark.results import RunResult
from nas_gym.experiments.benchmark.statistics import Estimate
from nas_gym.experiments.benchmark.suite import Environment, open_evaluator
from nas_gym.experiments.plotting import AXIS_LABELS
from nas_gym.experiments.report.charts import CURVES, ROWS, Chart, Series
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
from nas_gym.spaces import Architecture

Floats = NDArray[np.float64]

POINTS = 60  # per curve
Scores = Callable[[RunResult], Floats | None]
Splits = Mapping[str, tuple[str, Scores]]
INCUMBENT = "Best validation accuracy so far"
CURVES_OF: Mapping[str, str] = {"best": INCUMBENT, "played": "Mean validation accuracy of the last tenth of the trials"}
TEST: tuple[str, Scores] = ("Test accuracy of the best architecture so far", lambda trace: trace.test_score)
IN_TIME: Splits = {"validation": (INCUMBENT, lambda trace: trace.validation_score), "test": TEST}


def benchmark_charts(summary: Summary, traces: Sequence[RunResult]) -> dict[str, list[Chart]]:
    """All charts of a benchmark."""
    suite = summary.suite
    by_agent = {s.label: by_environment(suite, traces, s.label) for s in (*summary.standings, *summary.partial)}
    full = {agent.label: by_agent[agent.label] for agent in summary.standings}
    splits: Splits = {"validation": (CURVES_OF[suite.measure], lambda trace: trace.score), "test": TEST}
    there = {env: {label: runs[env] for label, runs in by_agent.items() if env in runs} for env in suite.environments}
    charts = {
        "scores": _scores(summary),
        "trials": _trials("trials", "", splits, full),
        "profiles": [_profile(full)],
        "environment_trials": [
            chart
            for env, found in there.items()
            for chart in _trials(
                f"trials_{file_name(str(env))}", str(env), splits, {k: {env: v} for k, v in found.items()}
            )
        ],
        "seconds": [chart for env, found in there.items() for chart in _seconds(env, found)],
        "distributions": [_distribution(env, found) for env, found in there.items()],
        "tradeoffs": [
            _tradeoff(env, summary.tradeoffs[str(env)], found)
            for env, found in there.items()
            if str(env) in summary.tradeoffs
        ],
        "time": [_time(summary)],
    }
    if len(suite.environments) == 1:  # its curves are those of all
        charts["environment_trials"] = []
    return charts


def _scores(summary: Summary) -> list[Chart]:
    kinds: list[tuple[str, str, Callable[[AgentSummary], Estimate | None]]] = [
        ("score", "Interquartile mean, validation (higher is better)", lambda agent: agent.score),
        ("test", "Interquartile mean, test (higher is better)", lambda agent: agent.test_score),
        ("median", "Median of the tasks' means (higher is better)", lambda agent: agent.median),
        ("gap", "Optimality gap (lower is better)", lambda agent: agent.optimality_gap),
    ]
    return [
        Chart(name, title, ROWS, "score; bar: 95 % interval", "", rows)
        for name, title, value in kinds
        if (rows := tuple(_interval(a.label, found) for a in summary.standings if (found := value(a)) is not None))
    ]


def _interval(label: str, found: Estimate) -> Series:
    value, low, high = (np.array([bound]) for bound in (found.value, found.low, found.high))
    return Series(label, value, low=low, high=high)


def _curve(label: str, x: Floats, runs: Sequence[Floats]) -> Series:
    """The interquartile means of runs, one float64[runs, P] per task, with their bands."""
    return Series(label, x, *statistics.curve(runs))


def _trials(name: str, where: str, splits: Splits, by_agent: Mapping[str, ByEnvironment]) -> list[Chart]:
    """Curves over the trials: a chart for each split that is known."""
    charts = []
    for split, (title, scores) in splits.items():
        series = []
        for label, runs in by_agent.items():
            known = [[score for trace in found if (score := scores(trace)) is not None] for found in runs.values()]
            shortest = min((len(score) for stack in known for score in stack), default=0)
            stacks = [np.stack([score[:shortest] for score in stack]) for stack in known if stack]
            if stacks:
                chosen = np.unique(np.linspace(0, stacks[0].shape[1] - 1, POINTS).round().astype(np.int64))
                series.append(_curve(label, chosen.astype(np.float64) + 1, [stack[:, chosen] for stack in stacks]))
        if series:
            full = f"{where}: {title}" if where else title
            charts.append(
                Chart(f"{name}_{split}", full, CURVES, "trials", "score", tuple(series), where or None, cut=0.04)
            )
    return charts


def _seconds(environment: Environment, by_agent: Mapping[str, Sequence[RunResult]]) -> list[Chart]:
    """Curves over simulated time, of one environment: tables differ in their training times."""
    charts = []
    for split, (title, scores) in IN_TIME.items():
        known = {label: _in_time(label, runs, scores) for label, runs in by_agent.items()}
        series = tuple(found for found in known.values() if found is not None)
        if series:
            name, full = f"seconds_{split}_{file_name(str(environment))}", f"{environment}: {title}"
            charts.append(Chart(name, full, CURVES, "simulated hours", "score", series, str(environment), cut=0.04))
    return charts


def _in_time(label: str, runs: Sequence[RunResult], score: Scores) -> Series | None:
    """The curve from the time when all runs have finished a trial to the time when the first run ends."""
    known = [(trace.simulated_seconds, score(trace)) for trace in runs]
    pairs = [(clock, scores) for clock, scores in known if clock is not None and scores is not None]
    if len(pairs) < len(known):
        return None
    first, last = max(clock[0] for clock, _ in pairs), min(clock[-1] for clock, _ in pairs)
    if first >= last:
        return None
    grid = np.linspace(first, last, POINTS)
    stack = np.stack([scores[np.searchsorted(clock, grid, side="right") - 1] for clock, scores in pairs])
    return _curve(label, grid / 3600, [stack])


def _profile(by_agent: Mapping[str, ByEnvironment]) -> Chart:
    finals = {label: final_scores(runs) for label, runs in by_agent.items()}
    lowest = min(float(task.min()) for tasks in finals.values() for task in tasks)
    thresholds = np.linspace(lowest - 0.02, 1.0, 121)
    series = (
        Series(label, thresholds, *statistics.performance_profile(tasks, thresholds)) for label, tasks in finals.items()
    )
    return Chart("profile", "Share of runs that score more than ...", CURVES, "score", "share of runs", tuple(series))


def _distribution(environment: Environment, by_agent: Mapping[str, Sequence[RunResult]]) -> Chart:
    scores = {label: final_scores({environment: runs})[0] for label, runs in by_agent.items()}
    series = (Series(label, found, mark=statistics.interquartile_mean(found)) for label, found in scores.items())
    name, label = f"distribution_{file_name(str(environment))}", "score per run; line: interquartile mean"
    return Chart(name, f"{environment}: scores", ROWS, label, "", tuple(series), str(environment))


def _tradeoff(environment: Environment, tradeoff: Tradeoff, by_agent: Mapping[str, Sequence[RunResult]]) -> Chart:
    """The Pareto front of each agent over the trials of all seeds; those points can be drawn that no agent beats."""
    fronts = {label: _front(pooled(runs)) for label, runs in by_agent.items()}
    common = {*map(tuple, _front(np.concatenate([*fronts.values()])).tolist())}
    known = {point: found for runs in by_agent.values() for point, found in _architectures(environment, runs, common)}
    series = (
        Series(
            label,
            np.array([*front[:, 1], tradeoff.highest_cost]),
            np.array([*front[:, 0], front[-1, 0]]),
            drawn="steps",
            architectures=[*(known.get(point) for point in map(tuple, front.tolist())), None],
        )
        for label, front in fronts.items()
        if len(front)
    )
    name, title = f"pareto_{file_name(str(environment))}", f"{environment}: accuracy against {tradeoff.cost}"
    label, found = AXIS_LABELS.get(tradeoff.cost, tradeoff.cost), tuple(series)
    log = min(float(each.x[0]) for each in found) > 0
    return Chart(name, title, CURVES, label, "validation accuracy", found, str(environment), log, cut=0.25)


def _architectures(
    environment: Environment, runs: Sequence[RunResult], wanted: Collection[tuple[float, ...]]
) -> Iterator[tuple[tuple[float, ...], Architecture]]:
    """The architectures of the trials that are at certain points of accuracy and cost."""
    space = open_evaluator(environment).space
    for trace in runs:
        if trace.points is not None and trace.tokens is not None:
            for point, tokens in zip(map(tuple, trace.points.tolist()), trace.tokens, strict=True):
                if point in wanted:
                    yield point, space.architecture(tokens)


def _front(points: Floats) -> Floats:
    """The Pareto front of accuracies and costs, float64[n, 2], cheapest first."""
    front = np.unique(points[pareto.nondominated(points * [1, -1])], axis=0)
    return front[np.argsort(front[:, 1])]


def _time(summary: Summary) -> Chart:
    standings: Iterable[AgentSummary] = sorted((*summary.standings, *summary.partial), key=lambda agent: agent.seconds)
    rows = (Series(agent.label, np.array([max(agent.seconds, 1e-4)])) for agent in standings)
    return Chart("time", "CPU seconds per run (median)", ROWS, "seconds", "", tuple(rows), log_x=True)
