"""The page of a benchmark: the leaderboard, and its numbers and charts by environment."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from nas_gym.experiments.benchmark import statistics
from nas_gym.experiments.benchmark.jobs import run_config
from nas_gym.experiments.benchmark.suite import Environment, Suite, open_evaluator
from nas_gym.experiments.plotting import Look
from nas_gym.experiments.report.charts import Chart
from nas_gym.experiments.report.figures import looks
from nas_gym.experiments.report.leaderboard import (
    LEARNING_NOTES,
    RANK_NOTE,
    command,
    counts,
    days,
    footnotes,
    headline,
    leader_on_test,
    learning,
    partial_table,
)
from nas_gym.experiments.report.page import render
from nas_gym.experiments.report.standings import AgentSummary, Summary

FILES = {
    "results.csv": "every run",
    "summary.json": "every number of this page",
    "leaderboard.md": "the leaderboard as Markdown",
    "suite.yaml": "what was asked for",
}


def page(summary: Summary, charts: Mapping[str, Sequence[Chart]], refresh: int | None = None) -> str:
    """The report as one self-contained HTML page.

    Args:
        summary: of the benchmark.
        charts: by section of the page.
        refresh: seconds after which a browser loads the page anew; None does not.
    """
    title, sentences = headline(summary)
    suite, everyone = summary.suite, (*summary.standings, *summary.partial)
    leader = next((agent for agent in summary.standings if not agent.is_random), None)
    styles = looks(suite)
    return render(
        "report.html.jinja",
        charts,
        colours={label: look.colour for label, look in styles.items()},
        dashes={label: _dashes(look) for label, look in styles.items()},
        refresh=refresh,
        summary=summary,
        everyone=everyone,
        title=title,
        sentences=[sentence for sentence in (*sentences, leader_on_test(summary)) if sentence],
        counts=counts(summary),
        days=days(summary),
        command=command(suite),
        rank_note=RANK_NOTE,
        footnotes=footnotes(summary),
        resamples=statistics.RESAMPLES,
        files=FILES,
        leader=leader,
        level=[a.label for a in summary.standings if leader and a.rank == leader.rank and a is not leader],
        bars=_bars(summary.standings),
        partial=partial_table(summary),
        learning=learning(summary),
        learning_note=LEARNING_NOTES[suite.measure],
        environments=[str(environment) for environment in suite.environments],
        environment_header=_environment_header(suite.environments),
        cost_header=_environment_header(
            [environment for environment in suite.environments if str(environment) in summary.tradeoffs],
            [tradeoff.cost for tradeoff in summary.tradeoffs.values()],
        ),
        incomplete=[a for a in everyone if any(there.runs < suite.seeds for there in a.environments.values())],
        refused=_refused(summary),
        failed=[(Path(*p.folder.parts[-3:]), p) for p in summary.problems if p.traceback],
        tables=list(dict.fromkeys(map(_table, suite.environments))),
        hyperparameters=list(_hyperparameters(suite)),
    )


def _dashes(look: Look) -> str:
    """A line style of matplotlib, in widths of the line, as SVG has it."""
    return "" if look.dash == "solid" else " ".join(f"{look.width * part:g}" for part in look.dash[1])


@dataclass(frozen=True)
class Bar:
    """Geometry of a small picture of an interval, 120 units wide.

    Attributes:
        low: left end of the interval.
        width: of the interval.
        middle: position of the value.
        baseline: position of random search.
    """

    low: float
    width: float
    middle: float
    baseline: float


def _bars(agents: Sequence[AgentSummary]) -> dict[str, Bar]:
    """The score of each agent as a bar, by label, all on one scale."""
    scores = [agent.score for agent in agents]
    values = [value for score in scores for value in (score.value, score.low, score.high) if not math.isnan(value)]
    left, right = min(values), max(values)
    if left == right:
        left, right = left - 0.5, right + 0.5

    def place(value: float) -> float:
        return round(4 + 112 * (value - left) / (right - left), 1)

    baseline = next(place(agent.score.value) for agent in agents if agent.is_random)
    bars = {}
    for agent, score in zip(agents, scores, strict=True):
        low, high = (place(score.value if math.isnan(bound) else bound) for bound in (score.low, score.high))
        bars[agent.label] = Bar(low, max(high - low, 0.5), place(score.value), baseline)
    return bars


def _environment_header(environments: Sequence[Environment], costs: Sequence[str] | None = None) -> list[str]:
    """The header of a table with one column per environment, and the cost metric of each where given."""
    lines = [[env.id, env.task] for env in environments]
    if costs is not None:
        lines = [[*line, cost] for line, cost in zip(lines, costs, strict=True)]
    return ["agent", *(Markup("<br>").join(line) for line in lines)]


def _refused(summary: Summary) -> list[tuple[str, list[str], str]]:
    """Agent, environments and reason of the runs that are not applicable, one entry per agent and reason."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for problem in summary.problems:
        if not problem.traceback:
            environment, agent, _ = problem.folder.parts[-3:]
            found.setdefault((agent, problem.reason), {})[environment] = None
    return [(agent, [*environments], reason) for (agent, reason), environments in found.items()]


def _table(environment: Environment) -> tuple[str, str, str]:
    """Name, start of the SHA-256 digest, and provenance of an environment's table."""
    table = open_evaluator(environment).table
    digest = hashlib.sha256(table.path.read_bytes()).hexdigest()[:12]
    about = "; ".join(str(table.provenance[key]) for key in ("name", "source") if key in table.provenance)
    return environment.table, digest, about


def _hyperparameters(suite: Suite) -> Iterator[tuple[str, str, str]]:
    """Label, environments and values of every agent, one entry per distinct set of values."""
    for entry in suite.agents:
        found: dict[str, list[str]] = {}
        for environment in suite.environments:
            values = run_config(suite, environment, entry, 0).hyperparameters
            text = ", ".join(f"{key}: {json.dumps(value)}" for key, value in values.items()) or "none"
            found.setdefault(text, []).append(str(environment))
        for text, environments in found.items():
            yield entry.label, "" if len(found) == 1 else ", ".join(environments), text
