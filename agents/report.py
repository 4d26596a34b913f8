"""The report of a benchmark: tables, figures, and one HTML page that holds them all and needs nothing else."""

from __future__ import annotations

import dataclasses
import hashlib
import html
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas_gym.files import write_text

from . import statistics
from .benchmark import Environment, Problem, Suite, Trace, csv_text, open_evaluator, run_config
from .figures import draw, looks
from .plotting import BASELINE, FAINT, GRID, INK, SERIES, Look, Picture, write_figures
from .standings import EnvironmentStanding, Standing, Summary, bracketed, command, headline, listed, summarise
from .statistics import Estimate


def write_report(suite: Suite, traces: Sequence[Trace], problems: Sequence[Problem], out: Path) -> Summary:
    """Writes everything that the folder of a benchmark has beside its runs.

    Args:
        suite: what was asked for.
        traces: the finished runs.
        problems: those that are not counted.
        out: the folder.

    Raises:
        ValueError: there is no finished run of random search in some environment.
    """
    summary = summarise(suite, traces, problems)
    drawn = draw(summary, traces)
    written = write_figures((picture for pictures in drawn.values() for picture in pictures), out / "figures")
    write_text(out / "results.csv", csv_text([trace.row() for trace in traces]))
    write_text(out / "summary.json", json.dumps(to_json(summary), indent=2) + "\n")
    write_text(out / "leaderboard.md", markdown(summary))
    write_text(out / "report.html", page(summary, drawn, written))
    return summary


def to_json(summary: Summary) -> dict[str, Any]:
    """The summary as JSON has it, NaN as null."""
    title, sentences = headline(summary)
    found = {
        "headline": title,
        "text": sentences,
        "command": command(summary.suite),
        "protocol": {**summary.suite.to_dict(), "confidence": statistics.CONFIDENCE, "resamples": statistics.RESAMPLES},
        "nas_gym": summary.versions,
        "dates": summary.dates,
        "agents": [dataclasses.asdict(standing) for standing in (*summary.standings, *summary.partial)],
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


def leaderboard(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of the leaderboard, as text."""
    header = [
        "rank", "agent", "score", "gain over random", "beats random", "gap", "median", "test score", "s a run",
    ]  # fmt: skip
    rows = [
        [
            str(standing.rank),
            standing.label,
            bracketed(standing.score),
            "-" if standing.is_random else bracketed(standing.gain),
            "-" if standing.is_random else bracketed(standing.over_random, 2),
            bracketed(standing.optimality_gap),
            bracketed(standing.median),
            "-" if standing.test_score is None else bracketed(standing.test_score),
            f"{standing.seconds:.2g}",
        ]
        for standing in summary.standings
    ]
    return header, rows


def markdown(summary: Summary) -> str:
    """The leaderboard as Markdown, with what is needed to read it."""
    suite = summary.suite
    title, sentences = headline(summary)
    parts = [f"# {title}", *filter(None, sentences), _markdown_table(*leaderboard(summary)), RANK_NOTE]
    if summary.partial:
        parts.append("Agents that cannot play every environment, beside random search in those that they can:")
        parts.append(_markdown_table(*_partial_table(summary)))
    parts.append("Score by environment (interquartile mean, 95 % interval):")
    names = [str(environment) for environment in suite.environments]
    rows = [
        [s.label, *(bracketed(s.environments[name].score) if name in s.environments else "-" for name in names)]
        for s in (*summary.standings, *summary.partial)
    ]
    parts.append(_markdown_table(["agent", *names], rows))
    parts.append(f"{_counts(summary)}. nas_gym {', '.join(summary.versions)}; runs of {_days(summary)}. Made by:")
    parts.append(f"```sh\n{command(suite)}\n```")
    return "\n\n".join(parts) + "\n"


RANK_NOTE = (
    "Rank: 1 and one more for each agent that is better; equal ranks are not told apart. Better: the 95 % interval of "
    "the probability that a run beats one of the other agent lies above one half."
)


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _partial_table(summary: Summary) -> tuple[list[str], list[list[str]]]:
    header = ["agent", "environments", "score", "gain over random there", "beats random there", "s a run"]
    rows = [
        [
            standing.label,
            f"{len(standing.environments)} of {len(summary.suite.environments)}",
            bracketed(standing.score),
            bracketed(standing.gain),
            bracketed(standing.over_random, 2),
            f"{standing.seconds:.2g}",
        ]
        for standing in summary.partial
    ]
    return header, rows


def _counts(summary: Summary) -> str:
    suite = summary.suite
    agents = len(summary.standings) + len(summary.partial)
    counted = (agents, "agent"), (len(suite.environments), "environment"), (suite.seeds, "seed")
    return f"{', '.join(f'{n} {noun}' + 's' * (n != 1) for n, noun in counted)}, {suite.trials} trials a run"


def _days(summary: Summary) -> str:
    first, last = summary.dates
    return first if first == last else f"{first} to {last}"


# ---------------------------------------------------------------------- the page


def page(summary: Summary, drawn: Mapping[str, Sequence[Picture]], written: Mapping[str, str]) -> str:
    """The report as one HTML page without anything from elsewhere."""
    title, sentences = headline(summary)
    styles = looks(summary.suite)
    shown = {
        section: f"<div class='figures {section}'>{''.join(_inline(p, written[p.name]) for p in pictures)}</div>"
        for section, pictures in drawn.items()
    }
    legend = _legend(summary, styles)
    sections = [
        ("Leaderboard", _leaderboard_section(summary, styles)),
        ("What beats what", _improvement_section(summary)),
        ("Scores", f"<p>{SCORE_NOTE}</p>{shown['scores']}"),
        ("How fast", f"<p>{CURVE_NOTE}</p>{shown['trials']}{shown['seconds'] if drawn['seconds'] else ''}"),
        ("How often", f"<p>{PROFILE_NOTE}</p>{shown['profiles']}{legend}"),
        ("Environment by environment", f"{_environment_section(summary)}{shown['distributions']}"),
        ("Accuracy against cost", _tradeoff_section(summary, shown["tradeoffs"])),
        ("Time", f"<p>{TIME_NOTE}</p>{shown['time']}"),
        ("What is not counted", _problem_section(summary)),
        ("Protocol, and how to make it again", _protocol_section(summary)),
    ]
    body = "".join(f"<section><h2>{name}</h2>{content}</section>" for name, content in sections if content)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{_escape(title)} - nas_gym benchmark</title>
<style>{_css()}</style>
</head>
<body>
<header>
<p class="over">nas_gym benchmark</p>
<h1>{_escape(title)}</h1>
{_cards(summary)}
{"".join(f"<p>{_escape(sentence)}</p>" for sentence in sentences if sentence)}
<p class="facts">{_escape(_counts(summary))} &middot; {_escape(_days(summary))} &middot;
 nas_gym {_escape(", ".join(summary.versions))}{_caution(summary)}</p>
</header>
<main>{body}</main>
</body>
</html>
"""


SCORE_NOTE = (
    "The best architecture of a run, by validation accuracy, scored so that 0 is the mean architecture of the table "
    "and 1 its best. The bars are 95 % intervals, the dashed line is random search. The interquartile mean leaves out "
    "the best and the worst quarter of the runs; the optimality gap is how far the scores fall short of 1. Test "
    "accuracies are normalised among test accuracies."
)
CURVE_NOTE = (
    "Interquartile means over all runs, with pointwise 95 % bands. The test accuracy is that of the architecture with "
    "the best validation accuracy so far, looked up when the searches were over. Where there are many lines, only the "
    "first agent and random search have their bands."
)
PROFILE_NOTE = "A curve above another at every score belongs to the better agent; where bands overlap, nothing is sure."
TRADEOFF_NOTE = (
    "The hypervolume of a run's trials, the area between their Pareto front and the point of the table's worst "
    "accuracy at the highest cost that any run tried, as a share of that of the trials of all agents together: "
    "interquartile mean over the seeds with its 95 % interval; higher is better, though agents search for accuracy "
    "alone. The fronts in the figures are of all seeds of an agent together; costs on a logarithmic scale."
)
TIME_NOTE = (
    "What the agent and the environment take of one processor core; a table answers at once. Where the table knows how "
    "long its trainings took, the search would have taken that much longer."
)


def _escape(text: str) -> str:
    return html.escape(text, quote=True)


def _interval_text(estimate: Estimate, digits: int) -> str:
    if math.isnan(estimate.low):
        return "; one run has no interval"
    return f"; 95 % interval {estimate.low:.{digits}f} to {estimate.high:.{digits}f}"


def _cards(summary: Summary) -> str:
    """What comes first, by how much, how surely."""
    rivals = [standing for standing in summary.standings if not standing.is_random]
    if not rivals:
        return ""
    leader = rivals[0]
    sure = leader.over_random
    level = [s.label for s in summary.standings if s.rank == leader.rank and s is not leader]
    place = f"score {leader.score.value:.3f}, rank {leader.rank}" + (f" with {listed(level)}" if level else ", alone")
    cards = (
        ("First", _escape(leader.label), _escape(place)),
        ("By how much", f"{leader.gain.value:+.3f}", "score over random search" + _interval_text(leader.gain, 3)),
        ("How sure", f"{sure.value:.2f}", "probability to beat random search" + _interval_text(sure, 2)),
    )
    return (
        "<div class='cards'>"
        + "".join(f"<div><p>{name}</p><strong>{value}</strong><p>{note}</p></div>" for name, value, note in cards)
        + "</div>"
    )


def _caution(summary: Summary) -> str:
    return "" if summary.suite.seeds >= 50 else " &middot; few seeds: a claim should rest on 50"


def _legend(summary: Summary, styles: Mapping[str, Look]) -> str:
    chips = "".join(f"<li>{_who(standing.label, styles)}</li>" for standing in summary.standings)
    return f"<ul class='legend'>{chips}</ul>"


def _who(label: str, styles: Mapping[str, Look]) -> str:
    """An agent's label behind its colour."""
    return f"<span class='who'><i style='background:{_variable(styles[label].colour)}'></i>{_escape(label)}</span>"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table of HTML cells that scrolls sideways in a box of its own; the first column stays."""
    head = "".join(f"<th scope='col'>{cell}</th>" for cell in header)
    body = "".join(
        f"<tr><th scope='row'>{first}</th>{''.join(c if c.startswith('<td') else f'<td>{c}</td>' for c in rest)}</tr>"
        for first, *rest in rows
    )
    return (
        f"<div class='scroll' tabindex='0'><table class='{kind}'><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _value(estimate: Estimate | None, digits: int = 3) -> str:
    """The number, and its interval beneath."""
    if estimate is None or math.isnan(estimate.value):
        return "-"
    interval = f"<small>{estimate.low:.{digits}f} to {estimate.high:.{digits}f}</small>"
    return f"<b>{estimate.value:.{digits}f}</b>{'' if math.isnan(estimate.low) else interval}"


def _verdict(standing: Standing) -> str:
    """Whether it is better than random search."""
    if standing.is_random:
        return "<span class='chip'>the floor</span>"
    if standing.over_random.above(0.5):
        return "<span class='chip better'>better</span>"
    if standing.over_random.below(0.5):
        return "<span class='chip worse'>worse</span>"
    return "<span class='chip'>not sure</span>"


def _leaderboard_section(summary: Summary, styles: Mapping[str, Look]) -> str:
    header = [
        "agent", "rank", "score", "", "than random", "gain over random", "beats random", "gap", "median", "test score",
        "s a run",
    ]  # fmt: skip
    bounds = _span([standing.score for standing in summary.standings])
    floor = next(standing.score.value for standing in summary.standings if standing.is_random)
    rows = [
        [
            _who(s.label, styles),
            str(s.rank),
            _value(s.score),
            _bar(s.score, bounds, floor, _variable(styles[s.label].colour)),
            _verdict(s),
            "-" if s.is_random else _value(s.gain),
            "-" if s.is_random else _value(s.over_random, 2),
            _value(s.optimality_gap),
            _value(s.median),
            _value(s.test_score),
            f"{s.seconds:.2g}",
        ]
        for s in summary.standings
    ]
    partial = ""
    if summary.partial:
        names, lines = _partial_table(summary)
        partial = (
            "<h3>Agents that cannot play every environment</h3><p>Beside random search in those that they can; their "
            "scores are not to be compared with those above.</p>"
            + _table(names, ([_escape(cell) for cell in line] for line in lines))
        )
    return f"{_table(header, rows, 'board')}<p class='note'>{RANK_NOTE}</p>{partial}"


def _span(estimates: Sequence[Estimate]) -> tuple[float, float]:
    values = [value for e in estimates for value in (e.value, e.low, e.high) if not math.isnan(value)]
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _bar(estimate: Estimate, bounds: tuple[float, float], floor: float, colour: str) -> str:
    """An interval as a small picture."""

    def place(value: float) -> float:
        return round(4 + 112 * (value - bounds[0]) / (bounds[1] - bounds[0]), 1)

    low, high = (estimate.value if math.isnan(bound) else bound for bound in (estimate.low, estimate.high))
    return (
        f"<svg class='bar' viewBox='0 0 120 18' aria-hidden='true'>"
        f"<line x1='{place(floor)}' x2='{place(floor)}' y1='0' y2='18' stroke='var(--floor)' stroke-dasharray='3 2'/>"
        f"<rect x='{place(low)}' width='{max(place(high) - place(low), 0.5):.1f}' y='6' height='6' rx='1' "
        f"fill='{colour}' opacity='0.4'/><circle cx='{place(estimate.value)}' cy='9' r='4' fill='{colour}'/></svg>"
    )


def _improvement_section(summary: Summary) -> str:
    if len(summary.standings) < 2:
        return ""
    labels = [standing.label for standing in summary.standings]
    rows = [
        [_escape(first), *(_improvement_cell(summary.improvement[first].get(second)) for second in labels)]
        for first in labels
    ]
    note = (
        "The probability that a run of the agent at the left is better than a run of the agent above, on the same "
        "task; a tie counts half. Coloured where the 95 % interval, in small print, lies on one side of one half: "
        "green, the left one is better; red, worse. Each interval stands for itself: of pairs without a difference one "
        "in twenty is coloured, with few seeds more."
    )
    kind = "matrix dense" if len(labels) > 9 else "matrix"
    return f"<p>{note}</p>{_table(['', *map(_escape, labels)], rows, kind)}"


def _improvement_cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return "<td class='self'></td>"
    kind = "better" if estimate.above(0.5) else "worse" if estimate.below(0.5) else ""
    return f"<td class='{kind}'>{_value(estimate, 2)}</td>"


def _environment_section(summary: Summary) -> str:
    everyone = (*summary.standings, *summary.partial)
    names = [str(environment) for environment in summary.suite.environments]
    header = ["agent", *(f"{_escape(env.id)}<br>{_escape(env.task)}" for env in summary.suite.environments)]
    scores = [[_escape(s.label), *(_environment_cell(s.environments.get(name)) for name in names)] for s in everyone]
    accuracies = [[_escape(s.label), *(_accuracy_cell(s.environments.get(name)) for name in names)] for s in everyone]
    runs = [
        [_escape(s.label), *(str(s.environments[name].runs) if name in s.environments else "-" for name in names)]
        for s in everyone
        if any(there.runs < summary.suite.seeds for there in s.environments.values())
    ]
    short = f"<p>Agents with fewer runs than asked for:</p>{_table(header, runs)}" if runs else ""
    return (
        "<p>The interquartile mean of the scores with its 95 % interval; marked where no other agent is better.</p>"
        f"{_table(header, scores, 'matrix')}"
        "<details><summary>Accuracies</summary><p>Test accuracy of the best architecture by validation accuracy, and "
        "that validation accuracy beneath, in percent: mean &plusmn; standard deviation.</p>"
        f"{_table(header, accuracies, 'matrix')}</details>{short}"
    )


def _environment_cell(standing: EnvironmentStanding | None) -> str:
    if standing is None:
        return "<td>-</td>"
    return f"<td class='{'better' if standing.among_best else ''}'>{_value(standing.score)}</td>"


def _accuracy_cell(standing: EnvironmentStanding | None) -> str:
    if standing is None:
        return "-"
    tested, seen = (
        "-"
        if pair is None
        else f"{100 * pair[0]:.2f}" + ("" if math.isnan(pair[1]) else f" &plusmn; {100 * pair[1]:.2f}")
        for pair in (standing.test_accuracy, standing.validation_accuracy)
    )
    return f"<b>{tested}</b><small>{seen}</small>"


def _tradeoff_section(summary: Summary, pictures: str) -> str:
    if not summary.tradeoffs:
        return ""
    environments = [env for env in summary.suite.environments if str(env) in summary.tradeoffs]
    header = ["agent"] + [
        f"{_escape(env.id)}<br>{_escape(env.task)}<br>{summary.tradeoffs[str(env)].cost}" for env in environments
    ]
    rows = [
        [_escape(s.label)]
        + [_value(there.hypervolume) if (there := s.environments.get(str(env))) else "-" for env in environments]
        for s in (*summary.standings, *summary.partial)
    ]
    return f"<p>{TRADEOFF_NOTE}</p>{_table(header, rows, 'matrix')}{pictures}"


def _problem_section(summary: Summary) -> str:
    if not summary.problems:
        return ""
    refused: dict[tuple[str, str], dict[str, None]] = {}  # where, by who and why
    for problem in summary.problems:
        if not problem.traceback:
            environment, agent, _ = problem.folder.parts[-3:]
            refused.setdefault((agent, problem.reason), {})[environment] = None
    lines = [
        f"<li>{_escape(agent)} in {_escape(listed([*where]))}: {_escape(reason)}</li>"
        for (agent, reason), where in refused.items()
    ]
    parts = [f"<p>Not applicable, which is no failure:</p><ul>{''.join(lines)}</ul>"] if lines else []
    failed = [problem for problem in summary.problems if problem.traceback]
    if failed:
        parts.append(f"<p>{len(failed)} failed; the same command tries them again:</p>")
        parts += [
            f"<details><summary>{_escape(str(Path(*problem.folder.parts[-3:])))}: {_escape(problem.reason)}</summary>"
            f"<pre>{_escape(problem.traceback)}</pre></details>"
            for problem in failed
        ]
    return "".join(parts)


def _protocol_section(summary: Summary) -> str:
    suite = summary.suite
    steps = [
        f"{_counts(summary)}. A trial is an architecture whose validation accuracy is looked up; a seed, a run.",
        "Searches see validation accuracies alone. Test accuracies were looked up when all searches were over.",
        "Scores are (accuracy - mean of the table) / (best of the table - mean of the table), for each table and task.",
        f"Intervals hold 95 %: percentiles of {statistics.RESAMPLES:,} resamples of the seeds within each environment.",
        RANK_NOTE,
        "Measures: Agarwal et al. 2021, <cite>Deep Reinforcement Learning at the Edge of the Statistical "
        "Precipice</cite>.",
    ]
    tables = [f"<li>{line}</li>" for line in dict.fromkeys(map(_table_line, suite.environments))]
    return (
        "<p>One command makes this page again, with the same scores:</p>"
        f"<pre class='command'>{_escape(command(suite))}</pre>"
        f"<ul>{''.join(f'<li>{step}</li>' for step in steps)}</ul><h3>Tables</h3><ul>{''.join(tables)}</ul>"
        f"<details><summary>Hyperparameters</summary>{_settings(suite)}</details>"
    )


def _table_line(environment: Environment) -> str:
    table = open_evaluator(environment).table
    digest = hashlib.sha256(table.path.read_bytes()).hexdigest()[:12]
    told = "; ".join(_escape(str(table.provenance[key])) for key in ("name", "source") if key in table.provenance)
    return f"<code>{_escape(environment.table)}</code> (SHA-256 {digest}...): {told}"


def _settings(suite: Suite) -> str:
    """The hyperparameters of every agent, once for all environments in which they are equal."""
    rows = []
    for entry in suite.agents:
        found: dict[str, list[str]] = {}
        for environment in suite.environments:
            values = run_config(suite, environment, entry, 0).hyperparameters
            text = ", ".join(f"{key}: {json.dumps(value)}" for key, value in values.items()) or "none"
            found.setdefault(text, []).append(str(environment))
        for text, where in found.items():
            place = "" if len(found) == 1 else f"<small>{_escape(', '.join(where))}</small>"
            rows.append(f"<dt>{_escape(entry.label)}{place}</dt><dd><code>{_escape(text)}</code></dd>")
    return f"<dl>{''.join(rows)}</dl>"


# ---------------------------------------------------------------------- its look


def _variable(colour: str) -> str:
    """The page's name for a colour, which differs on light and on dark screens."""
    names = {INK: "ink", FAINT: "faint", GRID: "line", BASELINE: "floor"} | {c: f"s{n}" for n, c in enumerate(SERIES)}
    return f"var(--{names[colour]})"


def _inline(picture: Picture, svg: str) -> str:
    """A figure as part of the page: its colours by name, its identifiers its own, its size the page's."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{picture.name}-", svg)
    for colour in (INK, FAINT, GRID, BASELINE, *SERIES):
        svg = svg.replace(colour, _variable(colour))
    width, height = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0]
    start = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{_escape(picture.title)}">'
    return f"<figure>{re.sub(r'<svg[^>]*>', start, svg, count=1)}</figure>"


SERIES_DARK = (
    "#6ea8fe", "#fbb040", "#3ddc97", "#ff7b7b", "#b69cff", "#3fd0e8", "#f77fbe", "#a8dc4a",
    "#d8a26a", "#9aa2ff", "#45cdbb", "#e58af5", "#ff9a5c", "#58b7f0", "#c2d86a", "#ff8fab",
)  # fmt: skip


def _css() -> str:
    light = "".join(f"--s{number}:{colour};" for number, colour in enumerate(SERIES))
    dark = "".join(f"--s{number}:{colour};" for number, colour in enumerate(SERIES_DARK))
    return CSS.replace("LIGHT", light).replace("DARK", dark)


CSS = """
:root { --paper: #ffffff; --card: #f6f7f9; --ink: #1b1d22; --faint: #6b7078; --line: #e3e6eb; --floor: #7d828c;
  --good: #d7f2e3; --good-ink: #0b5a36; --bad: #fbe0de; --bad-ink: #8c1d18; LIGHT }
@media (prefers-color-scheme: dark) { :root { --paper: #14161a; --card: #1d2026; --ink: #e8eaee; --faint: #9aa1ac;
  --line: #30343c; --floor: #a2a8b3; --good: #123d2a; --good-ink: #a6ecc8; --bad: #4a1d1b; --bad-ink: #ffc4be; DARK } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
header, main { max-width: 72rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.5rem; padding-bottom: 0.5rem; }
h1 { font-size: clamp(1.7rem, 5vw, 2.7rem); line-height: 1.15; margin: 0.2rem 0 0.8rem; overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; margin: 2.6rem 0 0.6rem; padding-top: 1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.4rem 0 0.4rem; }
p, li, dd { max-width: 46rem; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)); gap: 0.8rem;
  margin: 1.2rem 0; }
.cards > div { background: var(--card); border-radius: 10px; padding: 0.8rem 1rem; }
.cards p { margin: 0; color: var(--faint); font-size: 0.9rem; }
.cards strong { display: block; font-size: 1.6rem; line-height: 1.3; overflow-wrap: anywhere; }
.over, .facts, .note { color: var(--faint); }
.over { margin: 0; letter-spacing: 0.04em; }
.facts, .note { font-size: 0.9rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; margin: 0.8rem 0; }
table { border-collapse: collapse; width: 100%; font-size: 0.88rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.42rem 0.6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line);
  vertical-align: middle; }
thead th { color: var(--faint); font-weight: 600; vertical-align: bottom; background: var(--card); }
.board thead th { white-space: normal; }
tbody tr:last-child > * { border-bottom: 0; }
tr > :first-child { position: sticky; left: 0; text-align: left; background: var(--paper); font-weight: 600; z-index: 1;
  min-width: 6.5rem; max-width: 13rem; white-space: normal; overflow-wrap: break-word;
  border-right: 1px solid var(--line); }
thead tr > :first-child { background: var(--card); }
td b { font-weight: 600; }
td small, dt small { display: block; color: var(--faint); font-weight: 400; font-size: 0.76rem; }
td.better { background: var(--good); } td.worse { background: var(--bad); } td.self { background: var(--card); }
td.better small, td.worse small { color: inherit; opacity: 0.75; }
.matrix td, .matrix thead th + th { text-align: center; }
.matrix thead th { white-space: normal; min-width: 6.2rem; }
i { display: inline-block; width: 0.7rem; height: 0.7rem; border-radius: 2px; margin-right: 0.45rem; }
.dense { font-size: 0.78rem; } .dense th, .dense td { padding: 0.35rem 0.25rem; }
.dense td small { font-size: 0.68rem; } .matrix.dense thead th { min-width: 4.5rem; }
.board th, .board td { padding: 0.42rem 0.45rem; }
.who { display: inline-flex; align-items: baseline; } .who i { flex: none; }
.bar { width: 100px; height: 18px; display: block; }
.chip { padding: 0.1rem 0.5rem; border-radius: 1rem; background: var(--card); color: var(--faint); font-size: 0.8rem; }
.chip.better { background: var(--good); color: var(--good-ink); }
.chip.worse { background: var(--bad); color: var(--bad-ink); }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); gap: 0.5rem 1.2rem; }
.trials, .seconds, .profiles, .tradeoffs { grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)); }
figure { margin: 0.4rem 0; max-width: 34rem; }
figure svg { width: 100%; height: auto; display: block; }
figure svg text { font-family: inherit !important; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 0.3rem 1.1rem; padding: 0; font-size: 0.9rem; }
pre { overflow-x: auto; background: var(--card); padding: 0.8rem; border-radius: 8px; font-size: 0.82rem; }
pre.command { white-space: pre-wrap; overflow-wrap: anywhere; }
pre, code { font-family: ui-monospace, Menlo, Consolas, monospace; } code { font-size: 0.88em; }
summary { cursor: pointer; margin: 0.6rem 0; }
dt { font-weight: 600; margin-top: 0.6rem; } dd { margin: 0.1rem 0 0.4rem 1rem; }
@media print { .scroll { overflow: visible; } }
"""
