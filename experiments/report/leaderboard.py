"""The standings of a benchmark as text: headline, leaderboard, and the command that reproduces them."""

from __future__ import annotations

import html
import math
import re
import shlex
from collections.abc import Sequence

from nas_gym.agents import agent_class
from nas_gym.experiments.benchmark.statistics import Estimate
from nas_gym.experiments.benchmark.suite import Suite
from nas_gym.experiments.report.standings import AgentSummary, Summary
from nas_gym.tables import DEFAULTS

RANK_NOTE = (
    "Rank: 1 plus the number of agents that are better. An agent is better than another if the 95 % interval of the "
    "probability that one of its runs beats one of the other's lies above one half."
)
MARK = "\N{DAGGER}"
FIDELITY_NOTE = (
    f"{MARK} Compared under a different protocol: most trials of this agent train for a fraction of the full number of "
    "epochs, yet each counts as one trial. Equal numbers of trials are not equal amounts of training."
)


# ---------------------------------------------------------------------- sentences


def headline(summary: Summary) -> tuple[str, list[str]]:
    """The main result: a title, and sentences with scores, margins and significance."""
    rivals = [agent for agent in summary.standings if not agent.is_random]
    baseline = next(agent for agent in summary.standings if agent.is_random)
    if not rivals:
        return "Random search alone", [f"Its score is {bracketed(baseline.score)}."]
    leader = rivals[0]
    if math.isnan(leader.score.low):
        return f"{leader.label} scores highest, but one seed allows no conclusion", [_score_sentence(leader, baseline)]
    sentences = [
        _score_sentence(leader, baseline),
        _rivals_sentence(leader, rivals),
        _random_sentence(rivals, baseline),
    ]
    if not any(baseline.label in rival.better_than for rival in rivals):
        return "No agent is significantly better than random search", sentences
    if len(leader.better_than) == len(summary.standings) - 1:
        return f"{leader.label} is better than every other agent", sentences
    return f"{leader.label} scores highest, but is not better than every other agent", sentences


def _score_sentence(leader: AgentSummary, baseline: AgentSummary) -> str:
    return (
        f"{leader.label} scores {bracketed(leader.score)}, random search {bracketed(baseline.score)}, on a scale where "
        f"0 is the mean architecture and 1 the best of the table. A run of {leader.label} beats a run of random search "
        f"with probability {bracketed(leader.over_random, 2)}."
    )


def _rivals_sentence(leader: AgentSummary, rivals: Sequence[AgentSummary]) -> str:
    others = [agent.label for agent in rivals if agent is not leader]
    beaten = [label for label in others if label in leader.better_than]
    level = [label for label in others if label not in leader.better_than]
    sentences = [f"It is better than {listed(beaten)}."] if beaten else []
    differences = "difference from {} is" if len(level) == 1 else "differences from {} are"
    sentences += [f"The {differences.format(listed(level))} not significant."] if level else []
    return " ".join(sentences)


def _random_sentence(rivals: Sequence[AgentSummary], baseline: AgentSummary) -> str:
    groups = {
        "Better than random search: ": [r.label for r in rivals if baseline.label in r.better_than],
        "Not significantly different from random search: ": [
            r.label for r in rivals if baseline.label not in r.better_than and r.label not in baseline.better_than
        ],
        "Worse than random search: ": [r.label for r in rivals if r.label in baseline.better_than],
    }
    return " ".join(f"{start}{listed(labels)}." for start, labels in groups.items() if labels)


def leader_on_test(summary: Summary) -> str:
    """Why the agent of the highest validation score may not have the highest test score; nothing where it has."""
    tested = [agent for agent in summary.standings if agent.test_score is not None]
    if len(tested) < 2 or (best := max(tested, key=_test_value)) is tested[0]:
        return ""
    leader = tested[0]
    assert best.test_score is not None
    assert leader.test_score is not None
    overlap = best.test_score.low <= leader.test_score.high and leader.test_score.low <= best.test_score.high
    return (
        f"On the test split {best.label} scores highest, {bracketed(best.test_score)} against "
        f"{bracketed(leader.test_score)} of {leader.label}{', and the intervals overlap' * overlap}: agents are ranked "
        "by what they can see, validation accuracies, and the best of those is partly luck that the test split does "
        "not share."
    )


def _test_value(agent: AgentSummary) -> float:
    return math.nan if agent.test_score is None else agent.test_score.value


def listed(labels: Sequence[str]) -> str:
    """Joins labels as ``a, b and c``; at least one."""
    return " and ".join(filter(None, [", ".join(labels[:-1]), labels[-1]]))


def bracketed(estimate: Estimate, digits: int = 3) -> str:
    """Formats a value with its interval as ``0.834 [0.816, 0.861]``."""
    if math.isnan(estimate.low):
        return f"{estimate.value:.{digits}f}"
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def command(suite: Suite) -> str:
    """The command line that reproduces the benchmark."""
    tables = {environment.table for environment in suite.environments} - set(DEFAULTS.values())
    if len(tables) > 1:  # the command line has one --table for all
        return "nas-gym benchmark --suite suite.yaml --out benchmark"
    words = ["nas-gym", "benchmark", "--agents", *(entry.text for entry in suite.agents)]
    words += ["--envs", *map(str, suite.environments)]
    words += [word for table in tables for word in ("--table", table)]
    words += ["--seeds", str(suite.seeds), "--trials", str(suite.trials)]
    words += [] if suite.simulated_seconds is None else ["--simulated-seconds", f"{suite.simulated_seconds:g}"]
    words += [] if suite.measure == "best" else ["--measure", suite.measure]
    return shlex.join([*words, "--out", "benchmark"])


# ---------------------------------------------------------------------- tables


def marked(agent: AgentSummary) -> str:
    """The agent's label, with the mark of `FIDELITY_NOTE` if that applies to it."""
    return agent.label + (f" {MARK}" if agent_class(agent.entry.name).needs_fidelities else "")


def footnotes(summary: Summary) -> list[str]:
    """The notes that marks in the tables refer to."""
    everyone = (*summary.standings, *summary.partial)
    return [FIDELITY_NOTE] if any(marked(agent) != agent.label for agent in everyone) else []


def leaderboard(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of the leaderboard, as text."""
    header = [
        "rank", "agent", "score", "gain over random", "beats random", "optimality gap", "median", "test score",
        "CPU s per run",
    ]  # fmt: skip
    rows = [
        [
            str(agent.rank),
            marked(agent),
            bracketed(agent.score),
            "-" if agent.is_random else bracketed(agent.gain),
            "-" if agent.is_random else bracketed(agent.over_random, 2),
            bracketed(agent.optimality_gap),
            bracketed(agent.median),
            "-" if agent.test_score is None else bracketed(agent.test_score),
            f"{agent.seconds:.2g}",
        ]
        for agent in summary.standings
    ]
    return header, rows


def learning(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of how soon an agent is how good, as text."""
    trials = summary.suite.trials
    header = ["agent", "mean score", f"after {max(trials // 5, 1):,} trials", f"after {max(trials // 2, 1):,}"]
    if summary.suite.measure == "best":
        header += ["trials to 0.99", "trials to the best", "find the best"]
    else:
        header += ["area under the curve", "final entropy"]
    rows = []
    for agent in summary.standings:
        row = [marked(agent), bracketed(agent.mean), bracketed(agent.early), bracketed(agent.halfway)]
        if summary.suite.measure == "best":
            row += [_trials(agent.near, trials), _trials(agent.optimum, trials), f"{agent.optimal:.0%}"]
        else:
            row += [bracketed(agent.area), "-" if agent.entropy is None else bracketed(agent.entropy, 2)]
        rows.append(row)
    return header, rows


def _trials(estimate: Estimate, budget: int) -> str:
    """A number of trials with its interval; what is beyond the budget is not known."""
    value, *bounds = (
        f">{budget:,}" if number > budget else f"{number:,.0f}"
        for number in (estimate.value, estimate.low, estimate.high)
    )
    return value if math.isnan(estimate.low) else f"{value} [{', '.join(bounds)}]"


LEARNING_NOTES = {
    "best": "Means of the score after parts of the trials, and median trials until the best architecture so far has a "
    "normalised validation accuracy of 0.99, or is within 0.001 of the best of the table, with 95 % intervals. The "
    "last column is the share of the runs that come so close.",
    "played": "A run is scored by what its policy plays: the mean normalised validation accuracy of the last tenth of "
    "its trials. The area under the curve is the mean over all trials, and the entropy, in nats, that of the policy at "
    "the end.",
}


def markdown(summary: Summary) -> str:
    """The leaderboard as Markdown, with the notes that explain it."""
    suite = summary.suite
    title, sentences = headline(summary)
    parts = [
        f"# {escaped(title)}",
        *map(escaped, filter(None, (*sentences, leader_on_test(summary)))),
        _markdown_table(*leaderboard(summary)),
        RANK_NOTE,
        LEARNING_NOTES[suite.measure],
        _markdown_table(*learning(summary)),
    ]
    if summary.partial:
        parts.append("Agents that cannot play every environment, compared with random search where they can:")
        parts.append(_markdown_table(*partial_table(summary)))
    parts += footnotes(summary)
    parts.append("Score by environment (interquartile mean, 95 % interval):")
    names = [str(environment) for environment in suite.environments]
    rows = [
        [marked(a), *(bracketed(a.environments[name].score) if name in a.environments else "-" for name in names)]
        for a in (*summary.standings, *summary.partial)
    ]
    parts.append(_markdown_table(["agent", *names], rows))
    parts.append(f"{counts(summary)}. nas_gym {', '.join(summary.versions)}; runs of {days(summary)}. Reproduce with:")
    parts.append(f"```sh\n{command(suite)}\n```")
    return "\n\n".join(parts) + "\n"


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    first, *others = ([escaped(cell).replace("|", "\\|") for cell in row] for row in (header, *rows))
    return "\n".join(f"| {' | '.join(line)} |" for line in (first, ["---"] * len(header), *others))


def escaped(text: str) -> str:
    """Text that Markdown shows as it is: no HTML, links, emphasis or code of a label's making."""
    text = html.escape(text.replace("\\", "&#92;"), quote=False).replace("&amp;#92;", "&#92;")
    return re.sub(r"(?<=\])[(\[]|[*`]", lambda match: "\\" + match[0], text)


def partial_table(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of the agents that cannot play every environment, as text."""
    header = ["agent", "environments", "score", "gain over random", "beats random", "CPU s per run"]
    rows = [
        [
            marked(agent),
            f"{len(agent.environments)} of {len(summary.suite.environments)}",
            bracketed(agent.score),
            bracketed(agent.gain),
            bracketed(agent.over_random, 2),
            f"{agent.seconds:.2g}",
        ]
        for agent in summary.partial
    ]
    return header, rows


def counts(summary: Summary) -> str:
    """The size of the benchmark: ``4 agents, 2 environments, 10 seeds, 150 trials per run``."""
    suite = summary.suite
    agents = len(summary.standings) + len(summary.partial)
    counted = (agents, "agent"), (len(suite.environments), "environment"), (suite.seeds, "seed")
    return f"{', '.join(f'{n} {noun}' + 's' * (n != 1) for n, noun in counted)}, {suite.trials} trials per run"


def days(summary: Summary) -> str:
    """The days of the first and the last run, such as ``2030-01-01 to 2030-01-03``."""
    first, last = summary.dates
    return first if first == last else f"{first} to {last}"
