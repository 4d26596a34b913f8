"""The report of a benchmark: tables, figures, and a self-contained HTML page with all of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas_gym.experiments.benchmark import statistics
from nas_gym.experiments.benchmark.jobs import UncountedRun
from nas_gym.experiments.benchmark.results import RunResult, read_results
from nas_gym.experiments.benchmark.suite import Suite, make_suite
from nas_gym.experiments.plotting import write_figures
from nas_gym.experiments.report.benchmark_charts import benchmark_charts
from nas_gym.experiments.report.benchmark_page import page
from nas_gym.experiments.report.figures import draw
from nas_gym.experiments.report.leaderboard import command, headline, markdown
from nas_gym.experiments.report.standings import Summary, summarise
from nas_gym.experiments.run.trials import csv_text
from nas_gym.files import write_text


def write_report(
    suite: Suite,
    traces: Sequence[RunResult],
    problems: Sequence[UncountedRun],
    out: Path,
    refresh: int | None = None,
) -> Summary:
    """Writes report.html, leaderboard.md, summary.json, results.csv and the figures.

    Args:
        suite: the suite that was run.
        traces: the finished runs.
        problems: runs that are excluded.
        out: the folder.
        refresh: seconds after which a browser loads the page anew; None does not.

    Raises:
        ValueError: an environment has no finished run of random search.
    """
    summary = summarise(suite, traces, problems)
    charts = benchmark_charts(summary, traces)
    write_figures(draw(summary, [chart for found in charts.values() for chart in found]), out / "figures")
    write_text(out / "results.csv", csv_text([trace.row() for trace in traces]))
    write_text(out / "summary.json", json.dumps(to_json(summary), indent=2) + "\n")
    write_text(out / "leaderboard.md", markdown(summary))
    write_text(out / "report.html", page(summary, charts, refresh))
    return summary


def rewrite_report(out: Path, refresh: int | None = None) -> tuple[Path, bool]:
    """Writes the report of a benchmark, finished or not, from its folder.

    Args:
        out: the folder.
        refresh: seconds after which a browser loads the page anew, while runs are missing; None does not.

    Returns:
        The path of the page, and whether no run is missing.

    Raises:
        ValueError: the folder holds no benchmark, or random search has no finished run in an environment.
    """
    suite = make_suite(out / "suite.yaml")
    traces = read_results(suite, out)
    complete = len(traces) == len([*suite.runs()])
    write_report(suite, traces, (), out, None if complete else refresh)
    return out / "report.html", complete


def to_json(summary: Summary) -> dict[str, Any]:
    """The summary as a JSON object, with NaN as null."""
    title, sentences = headline(summary)
    found = {
        "headline": title,
        "text": sentences,
        "command": command(summary.suite),
        "protocol": {**summary.suite.to_dict(), "confidence": statistics.CONFIDENCE, "resamples": statistics.RESAMPLES},
        "nas_gym": summary.versions,
        "dates": summary.dates,
        "agents": [dataclasses.asdict(agent) for agent in (*summary.standings, *summary.partial)],
        "probability_of_improvement": {
            first: {second: dataclasses.asdict(found) for second, found in row.items()}
            for first, row in summary.improvement.items()
        },
        "accuracy_against_cost": {name: dataclasses.asdict(found) for name, found in summary.tradeoffs.items()},
        "not_counted": [
            {"run": str(problem.folder), "reason": problem.reason, "failed": bool(problem.traceback)}
            for problem in summary.problems
        ],
    }
    plain: dict[str, Any] = json.loads(json.dumps(found), parse_constant=lambda _: None)
    return plain
