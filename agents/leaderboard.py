"""The standings of a benchmark as text: headline, leaderboard, and the command that reproduces them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence

from nas_gym.tables import DEFAULTS

from .benchmark import Suite
from .standings import AgentSummary, Summary
from .statistics import Estimate

RANK_NOTE = (
    "Rank: 1 and one more for each agent that is better; equal ranks are not told apart. Better: the 95 % interval of "
    "the probability that a run beats one of the other agent lies above one half."
)


# ---------------------------------------------------------------------- sentences


def headline(summary: Summary) -> tuple[str, list[str]]:
    """What wins, by how much, how sure: one line, and the sentences that follow it."""
    rivals = [agent for agent in summary.standings if not agent.is_random]
    baseline = next(agent for agent in summary.standings if agent.is_random)
    if not rivals:
        return "Random search alone", [f"Its score is {bracketed(baseline.score)}."]
    leader = rivals[0]
    if math.isnan(leader.score.low):
        return f"{leader.label} comes first in one seed, which proves nothing", [_score_sentence(leader, baseline)]
    sentences = [
        _score_sentence(leader, baseline),
        _rivals_sentence(leader, rivals),
        _random_sentence(rivals, baseline),
    ]
    if not any(baseline.label in rival.better_than for rival in rivals):
        return "No agent is surely better than random search", sentences
    if len(leader.better_than) == len(summary.standings) - 1:
        return f"{leader.label} wins", sentences
    return f"{leader.label} leads, but not alone", sentences


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
    sentences += [f"The runs do not tell it apart from {listed(level)}."] if level else []
    return " ".join(sentences)


def _random_sentence(rivals: Sequence[AgentSummary], baseline: AgentSummary) -> str:
    groups = {
        "Better than random search: ": [r.label for r in rivals if baseline.label in r.better_than],
        "Not told apart from it: ": [
            r.label for r in rivals if baseline.label not in r.better_than and r.label not in baseline.better_than
        ],
        "Worse: ": [r.label for r in rivals if r.label in baseline.better_than],
    }
    return " ".join(f"{start}{listed(labels)}." for start, labels in groups.items() if labels)


def listed(labels: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(labels[:-1]), labels[-1]]))


def bracketed(estimate: Estimate, digits: int = 3) -> str:
    """``0.834 [0.816, 0.861]``."""
    if math.isnan(estimate.low):
        return f"{estimate.value:.{digits}f}"
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def command(suite: Suite) -> str:
    """The command line that makes the benchmark again."""
    tables = {environment.table for environment in suite.environments} - set(DEFAULTS.values())
    if len(tables) > 1:  # which no option tells
        return "nas-gym benchmark --suite suite.yaml --out benchmark"
    words = ["nas-gym", "benchmark", "--agents", *(entry.text for entry in suite.agents)]
    words += ["--envs", *map(str, suite.environments)]
    words += [word for table in tables for word in ("--table", table)]
    return shlex.join([*words, "--seeds", str(suite.seeds), "--trials", str(suite.trials), "--out", "benchmark"])


# ---------------------------------------------------------------------- tables


def leaderboard(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of the leaderboard, as text."""
    header = [
        "rank", "agent", "score", "gain over random", "beats random", "gap", "median", "test score", "s a run",
    ]  # fmt: skip
    rows = [
        [
            str(agent.rank),
            agent.label,
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


def markdown(summary: Summary) -> str:
    """The leaderboard as Markdown, with what is needed to read it."""
    suite = summary.suite
    title, sentences = headline(summary)
    parts = [f"# {title}", *filter(None, sentences), _markdown_table(*leaderboard(summary)), RANK_NOTE]
    if summary.partial:
        parts.append("Agents that cannot play every environment, beside random search in those that they can:")
        parts.append(_markdown_table(*partial_table(summary)))
    parts.append("Score by environment (interquartile mean, 95 % interval):")
    names = [str(environment) for environment in suite.environments]
    rows = [
        [s.label, *(bracketed(s.environments[name].score) if name in s.environments else "-" for name in names)]
        for s in (*summary.standings, *summary.partial)
    ]
    parts.append(_markdown_table(["agent", *names], rows))
    parts.append(f"{counts(summary)}. nas_gym {', '.join(summary.versions)}; runs of {days(summary)}. Made by:")
    parts.append(f"```sh\n{command(suite)}\n```")
    return "\n\n".join(parts) + "\n"


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def partial_table(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of the agents that cannot play every environment, as text."""
    header = ["agent", "environments", "score", "gain over random there", "beats random there", "s a run"]
    rows = [
        [
            agent.label,
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
    """The size of the benchmark: ``4 agents, 2 environments, 10 seeds, 150 trials a run``."""
    suite = summary.suite
    agents = len(summary.standings) + len(summary.partial)
    counted = (agents, "agent"), (len(suite.environments), "environment"), (suite.seeds, "seed")
    return f"{', '.join(f'{n} {noun}' + 's' * (n != 1) for n, noun in counted)}, {suite.trials} trials a run"


def days(summary: Summary) -> str:
    """The days of the first and the last run, ``2030-01-01 to 2030-01-03``, or the one day of all runs."""
    first, last = summary.dates
    return first if first == last else f"{first} to {last}"
