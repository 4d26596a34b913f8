"""Reports of benchmarks: the text agrees with the intervals, and the page is self-contained."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import math
import re
import shlex
import xml.etree.ElementTree as ET
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nas_gym.experiments.benchmark import statistics
from nas_gym.experiments.benchmark.jobs import UncountedRun
from nas_gym.experiments.benchmark.results import RunResult
from nas_gym.experiments.benchmark.suite import AgentEntry, Environment, Suite, make_suite, open_evaluator
from nas_gym.experiments.cli.main import main
from nas_gym.experiments.plotting import SERIES, spread
from nas_gym.experiments.report.benchmark_charts import benchmark_charts
from nas_gym.experiments.report.figures import looks
from nas_gym.experiments.report.leaderboard import (
    command,
    footnotes,
    headline,
    leader_on_test,
    leaderboard,
    learning,
    markdown,
)
from nas_gym.experiments.report.page import SERIES_DARK
from nas_gym.experiments.report.report import rewrite_report, write_report
from nas_gym.experiments.report.standings import Summary, summarise

pytestmark = pytest.mark.slow  # tables are built, or networks trained, for all of the tests together


CORA = Environment("NAS-BenchGraph-v0", "cora", "nas-bench-graph")
ARXIV = Environment("NAS-BenchGraph-v0", "arxiv", "nas-bench-graph")
HOSTILE = "<script>alert('&')</script>"
TRIALS = 8


def trace(environment: Environment, label: str, seed: int, score: float, costs: bool = True) -> RunResult:
    """A run that climbs to a score in equal steps."""
    climb = np.linspace(score - 0.7, score, TRIALS)
    return RunResult(
        environment,
        label,
        seed,
        score=climb,
        played=climb - 0.2,
        validation=0.5 + climb / 4,
        validation_score=climb,
        test=0.4 + climb / 4,
        test_score=climb - 0.1,
        simulated_seconds=np.cumsum(np.full(TRIALS, 600.0 + seed)) if costs else None,
        unique_architectures=TRIALS,
        failed=0,
        wall_seconds=0.25,
        cpu_seconds=0.125 + 0.01 * seed,
        finished=f"2030-01-0{1 + seed % 3}T00:00:00+00:00",
        version="9.9.9",
        cost="latency" if costs else None,
        points=np.random.default_rng([seed, *label.encode()]).random((TRIALS, 2)) if costs else None,
    )


def suite_of(*labels: str, seeds: int = 10, environments: tuple[Environment, ...] = (CORA, ARXIV)) -> Suite:
    entries = [AgentEntry("random"), *(AgentEntry("local-search", {}, label) for label in labels)]
    return Suite(tuple(entries), environments, seeds, TRIALS)


def runs(means: dict[str, float], seeds: int = 10, spread: float = 0.05) -> list[RunResult]:
    """Runs in both environments: scores around a mean, the same for equal means but for their order."""
    found = []
    for number, (label, mean) in enumerate(means.items()):
        offsets = np.random.default_rng(number).permutation(np.linspace(-spread, spread, seeds))
        found += [trace(env, label, seed, mean + offsets[seed]) for env in (CORA, ARXIV) for seed in range(seeds)]
    return found


def summary_of(means: dict[str, float], **arguments) -> Summary:
    traces = runs(means, **arguments)
    return summarise(
        suite_of(*(label for label in means if label != "random"), seeds=len(traces) // 2 // len(means)), traces
    )


# ------------------------------------------------------------------ in numbers


def test_standings() -> None:
    """The numbers of the summary are those of `statistics`, of the right runs."""
    means = {"random": 0.5, "a": 0.52, "b": 0.7}
    traces = runs(means)
    summary = summary_of(means)
    assert [agent.label for agent in summary.standings] == ["b", "a", "random"]
    scores = {
        label: [
            np.array([t.validation_score[-1] for t in traces if (t.label, t.environment) == (label, env)])
            for env in (CORA, ARXIV)
        ]
        for label in means
    }
    for agent in summary.standings:
        mine, random = scores[agent.label], scores["random"]
        assert agent.runs == 20
        assert agent.score == statistics.estimate(statistics.interquartile_mean, mine)
        assert agent.median == statistics.estimate(statistics.median, mine)
        assert agent.mean.value == pytest.approx(np.mean(mine))
        # A climb of seven equal steps: a fifth of its eight trials is the first, half of them the fourth.
        assert agent.early.value == pytest.approx(np.mean(mine) - 0.7)
        assert agent.halfway.value == pytest.approx(np.mean(mine) - 0.4)
        assert agent.area.value == pytest.approx(np.mean(mine) - 0.35 - 0.2)
        assert (agent.near.value, agent.optimal) == (TRIALS + 1, 0), "no run comes so far"
        assert agent.entropy is None
        assert agent.optimality_gap == statistics.estimate(statistics.optimality_gap, mine)
        assert agent.gain == statistics.difference(statistics.interquartile_mean, mine, random)
        assert agent.over_random.value == statistics.probability_of_improvement(mine, random).value
        assert agent.test_score.value == pytest.approx(agent.score.value - 0.1)
        assert agent.seconds == pytest.approx(0.125 + 0.045)
        assert agent.simulated_seconds == pytest.approx(TRIALS * 604.5)
        there = agent.environments[str(CORA)]
        assert there.score == statistics.estimate(statistics.interquartile_mean, mine[:1])
        assert there.validation_accuracy[0] == pytest.approx(0.5 + mine[0].mean() / 4)
        assert there.validation_accuracy[1] == pytest.approx(mine[0].std(ddof=1) / 4)
    for first, second in itertools.permutations(means, 2):
        found, mirrored = summary.improvement[first][second], summary.improvement[second][first]
        assert found.value == pytest.approx(statistics.probability_of_improvement(scores[first], scores[second]).value)
        assert (found.low, found.high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low))
    assert (summary.versions, summary.dates) == (("9.9.9",), ("2030-01-01", "2030-01-03"))


def test_ranks_are_shared_without_a_significant_difference() -> None:
    summary = summary_of({"random": 0.5, "a": 0.7, "b": 0.7, "c": 0.9})
    assert {agent.label: agent.rank for agent in summary.standings} == {"c": 1, "a": 2, "b": 2, "random": 4}
    assert {agent.label: set(agent.better_than) for agent in summary.standings} == {
        "c": {"a", "b", "random"},
        "a": {"random"},
        "b": {"random"},
        "random": set(),
    }
    marked = {s.label: s.environments[str(CORA)].among_best for s in summary.standings}
    assert marked == {"c": True, "a": False, "b": False, "random": False}


def test_an_agent_that_cannot_play_every_environment_is_partial() -> None:
    traces = [t for t in runs({"random": 0.5, "a": 0.7, "b": 0.9}) if (t.label, t.environment) != ("b", ARXIV)]
    summary = summarise(suite_of("a", "b"), traces)
    assert [agent.label for agent in summary.standings] == ["a", "random"]
    assert set(summary.improvement) == {"a", "random"}
    (partial,) = summary.partial
    assert (partial.label, partial.rank, list(partial.environments)) == ("b", None, [str(CORA)])
    # Its gain is over random search where it played.
    there = [
        [np.array([t.validation_score[-1] for t in traces if (t.label, t.environment) == (who, CORA)])]
        for who in ("b", "random")
    ]
    assert partial.gain == statistics.difference(statistics.interquartile_mean, *there)


def area(points: np.ndarray, worst: float, most: float) -> float:
    """Between the points and the corner, cost by cost: the best accuracy that so much buys, over the worst."""
    costs = sorted({*points[:, 1].tolist(), most})
    heights = [max(accuracy for accuracy, cost in points if cost <= limit) - worst for limit in costs]
    return sum(max(h, 0) * (b - a) for h, a, b in zip(heights, costs, costs[1:], strict=False))


def test_accuracy_against_cost() -> None:
    traces = [t for t in runs({"random": 0.5, "a": 0.7}) if t.environment == CORA]
    rest = [dataclasses.replace(t, environment=ARXIV, cost=None, points=None) for t in traces]
    summary = summarise(suite_of("a"), traces + rest)
    assert set(summary.tradeoffs) == {str(CORA)}
    found, pool = summary.tradeoffs[str(CORA)], np.concatenate([t.points for t in traces])
    worst, most = float(open_evaluator(CORA).table.array("cora", "valid").mean(axis=1).min()), pool[:, 1].max()
    assert (found.cost, found.highest_cost) == ("latency", most)
    assert found.worst_accuracy == pytest.approx(worst)
    assert found.volume == pytest.approx(area(pool, worst, most))
    for agent in summary.standings:
        shares = [area(t.points, worst, most) / area(pool, worst, most) for t in traces if t.label == agent.label]
        expected = statistics.estimate(statistics.interquartile_mean, [np.array(shares)])
        here = agent.environments[str(CORA)].hypervolume
        assert 0 < here.low < here.value < here.high < 1
        assert dataclasses.astuple(here) == pytest.approx(dataclasses.astuple(expected))
        assert agent.environments[str(ARXIV)].hypervolume is None


def test_without_random_search_there_is_no_summary() -> None:
    with pytest.raises(ValueError, match="random search has no finished run in NAS-BenchGraph-v0:arxiv"):
        summarise(suite_of("a"), [t for t in runs({"random": 0.5, "a": 0.7}) if t.environment == CORA])


# ------------------------------------------------------------------ in words


@pytest.mark.parametrize(
    ("means", "title", "said", "unsaid"),
    [
        (
            {"random": 0.5, "a": 0.7, "b": 0.9},
            "b is better than every other agent",
            ["It is better than a.", "Better than random search: b and a."],
            ["significant"],
        ),
        (
            {"random": 0.5, "a": 0.9, "b": 0.9, "c": 0.7},
            "a scores highest, but is not better than every other agent",
            [
                "It is better than c. The difference from b is not significant.",
                "Better than random search: a, b and c.",
            ],
            ["differences", "Not significantly"],
        ),
        (
            {"random": 0.7, "a": 0.7, "b": 0.5},
            "No agent is significantly better than random search",
            ["It is better than b.", "Not significantly different from random search: a. Worse than random search: b."],
            ["Better than random"],
        ),
        (
            {"random": 0.5, "a": 0.9, "b": 0.9, "c": 0.9},
            "a scores highest, but is not better than every other agent",
            ["The differences from c and b are not significant."],
            ["It is better"],
        ),
        ({"random": 0.5}, "Random search alone", ["Its score is 0.500"], ["better"]),
    ],
    ids=["alone", "shared", "none", "all-level", "random"],
)
def test_headlines(means, title, said, unsaid) -> None:
    found, sentences = headline(summary_of(means))
    text = " ".join(sentences)
    assert found == title
    assert all(part in text for part in said), text
    assert not any(part in text for part in unsaid), text


def test_the_highest_score_need_not_be_significant() -> None:
    """Half of its runs are lucky, which raises the mean; the second always beats random search by a little."""
    traces = runs({"random": 0.5, "a": 0.5, "b": 0.6})
    traces = [trace(t.environment, "a", t.seed, 0.9 if t.seed % 2 else 0.4) if t.label == "a" else t for t in traces]
    found, sentences = headline(summarise(suite_of("a", "b"), traces))
    assert found == "a scores highest, but is not better than every other agent"
    assert sentences[2] == "Better than random search: b. Not significantly different from random search: a."


def test_the_leader_that_is_not_the_best_on_the_test_split_is_explained() -> None:
    traces = runs({"random": 0.5, "a": 0.9, "b": 0.8})
    assert leader_on_test(summarise(suite_of("a", "b"), traces)) == ""
    turned = [dataclasses.replace(t, test_score=t.test_score - 0.5) if t.label == "a" else t for t in traces]
    summary = summarise(suite_of("a", "b"), turned)
    sentence = leader_on_test(summary)
    assert sentence.startswith("On the test split b scores highest, 0.700 [")
    assert "against 0.300 [" in sentence
    assert "overlap" not in sentence
    assert sentence in markdown(summary).replace("\\[", "[")
    near = [dataclasses.replace(t, test_score=t.test_score - 0.11) if t.label == "a" else t for t in traces]
    assert "and the intervals overlap" in leader_on_test(summarise(suite_of("a", "b"), near))


def test_one_seed_allows_no_conclusion() -> None:
    found, sentences = headline(summary_of({"random": 0.5, "a": 0.9}, seeds=1))
    assert found == "a scores highest, but one seed allows no conclusion"
    assert not any(word in " ".join(sentences) for word in ("[", "etter than", "nan"))


def test_scores_and_probability_in_the_headline() -> None:
    summary = summary_of({"random": 0.5, "a": 0.9})
    (leader, baseline) = summary.standings
    lead = headline(summary)[1][0]
    for estimate in (leader.score, baseline.score):
        assert f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]" in lead
    assert "with probability 1.00 [1.00, 1.00]" in lead


# ------------------------------------------------------------------ files


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Summary, list[RunResult], Path]:
    """A report with everything in it: a partial agent, problems, simulated time, labels with special characters."""
    out = tmp_path_factory.mktemp("report")
    suite = suite_of(HOSTILE.replace("=", ""), "b", "some | label")
    traces = runs({"random": 0.5, HOSTILE: 0.9, "b": 0.9, "some | label": 0.55})
    traces = [
        t for t in traces if (t.label, t.environment) != ("b", ARXIV) and (t.label, t.seed) != ("some | label", 9)
    ]
    problems = [
        UncountedRun(out / "runs" / "NAS-BenchGraph-v0-arxiv" / "b" / f"seed{seed}", "no <curves>")
        for seed in range(10)
    ] + [UncountedRun(out / "runs" / "x" / "y" / "seed9", f"E: {HOSTILE}", f"Traceback {HOSTILE}")]
    return write_report(suite, traces, problems, out), traces, out


class Page(HTMLParser):
    """Reads a page, and collects what it should and should not have."""

    VOID = frozenset({"meta", "br", "img", "input", "link", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids[value] += 1
            if name in ("href", "src", "xlink:href", "action", "data", "poster", "srcset"):
                self.links.append(value)
            assert not name.startswith("on"), (tag, name)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.words.append(data)


def test_the_page_is_self_contained(report) -> None:
    text = (report[2] / "report.html").read_text()
    found = Page(text)
    assert found.open == []
    beside = {"results.csv", "summary.json", "leaderboard.md", "suite.yaml"}  # `nas-gym benchmark` writes the last one
    assert set(found.links) == beside
    assert all((report[2] / name).exists() for name in beside - {"suite.yaml"})
    assert {name for name, count in found.ids.items() if count > 1} == set()
    assert not found.tags.keys() & {"link", "img", "iframe", "object", "embed"}
    assert not re.search(r"url\((?!#)|@import|import\(|fetch\(|src=", text)
    assert set(re.findall(r"var\((--\w+)\)", text)) <= set(re.findall(r"(--\w+):", text))


def test_the_page_shows_everything(report) -> None:
    summary, _, out = report
    found = Page((out / "report.html").read_text())
    words = " ".join(" ".join(found.words).split())
    title, sentences = headline(summary)
    for said in (title, *sentences, command(summary.suite), "2030-01-01 to 2030-01-03", "nas_gym 9.9.9"):
        assert said in words, said
    assert "4 agents, 2 environments, 10 seeds, 8 trials per run" in words
    assert "few seeds: 50 or more are needed to support a claim" in words
    assert "b in NAS-BenchGraph-v0-arxiv: no <curves>" in words
    assert words.count("no <curves>") == 1
    assert f"Traceback {HOSTILE}" in words
    assert "Agents with fewer finished runs than seeds" in words
    for agent in (*summary.standings, *summary.partial):
        assert f"{agent.score.value:.3f}" in words
    # Every figure but the matrix, which is a table there.
    assert found.tags["figure"] == len(list((out / "figures").glob("*.svg"))) - 1


def test_colours_differ_on_dark_screens(report) -> None:
    text = (report[2] / "report.html").read_text()
    _, light, dark = re.split(r":root \{", text)[:3]
    for part, colours in ((light, SERIES), (dark, SERIES_DARK)):
        assert re.findall(r"--s\d+:(#\w+)", part.partition("}")[0]) == list(colours)
    body = text[text.index("<body>") :]
    assert not [colour for colour in SERIES if colour in body]


def test_figures(report) -> None:
    summary, _, out = report
    names = {path.stem for path in (out / "figures").glob("*.png")}
    assert names == {path.stem for path in (out / "figures").glob("*.svg")}
    wanted = {"score", "test", "median", "gap", "improvement", "trials_validation", "trials_test", "profile", "time"}
    wanted |= {f"distribution_NAS-BenchGraph-v0-{task}" for task in ("cora", "arxiv")}
    wanted |= {f"seconds_{split}_NAS-BenchGraph-v0-{t}" for t in ("cora", "arxiv") for split in ("validation", "test")}
    wanted |= {f"trials_NAS-BenchGraph-v0-{t}_{split}" for t in ("cora", "arxiv") for split in ("validation", "test")}
    wanted |= {f"pareto_NAS-BenchGraph-v0-{task}" for task in ("cora", "arxiv")}
    assert names == wanted
    for name in names:
        assert min(Image.open(out / "figures" / f"{name}.png").size) > 100
        assert ET.parse(out / "figures" / f"{name}.svg").getroot().tag.endswith("svg")
    labels = {
        element.text for element in ET.parse(out / "figures" / "score.svg").iter() if element.tag.endswith("text")
    }
    assert {agent.label for agent in summary.standings} <= labels


def test_equal_runs_give_equal_pages(report, tmp_path) -> None:
    summary, traces, out = report
    write_report(summary.suite, traces, summary.problems, tmp_path)
    for name in (
        "report.html",
        "leaderboard.md",
        "summary.json",
        "results.csv",
        "figures/score.svg",
        "figures/profile.svg",
    ):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes(), name


def test_summary_json(report) -> None:
    summary, _, out = report

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    found = json.loads((out / "summary.json").read_text(), parse_constant=refuse)
    assert found["headline"] == headline(summary)[0]
    assert make_suite({k: found["protocol"][k] for k in ("agents", "environments", "seeds", "trials")}) == summary.suite
    best = found["agents"][0]
    assert best["score"] == dataclasses.asdict(summary.standings[0].score)
    assert found["accuracy_against_cost"] == {k: dataclasses.asdict(v) for k, v in summary.tradeoffs.items()}
    assert best["environments"][str(CORA)]["hypervolume"]["value"] > 0
    assert [row["failed"] for row in found["not_counted"]] == [False] * 10 + [True]
    assert found["probability_of_improvement"][HOSTILE]["random"]["value"] == 1.0


def test_results_csv(report) -> None:
    _, traces, out = report
    with (out / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(traces)
    for row, one in zip(rows, traces, strict=True):
        assert (row["environment"], row["task"]) == (one.environment.id, one.environment.task)
        assert (row["agent"], int(row["seed"])) == (one.label, one.seed)
        assert float(row["validation_score"]) == one.validation_score[-1]
        assert float(row["test_accuracy"]) == one.test[-1]


def test_how_soon_an_agent_is_how_good() -> None:
    """Trials to a score, beyond the budget where it is not reached, and another table where what is played counts."""
    summary = summary_of({"random": 0.5, "a": 1.2}, seeds=4, spread=0.0)
    header, (first, second) = learning(summary)
    assert header[1:4] == ["mean score", "after 1 trials", "after 4"]
    assert first == [
        "a",
        "1.200 [1.200, 1.200]",
        "0.500 [0.500, 0.500]",
        "0.800 [0.800, 0.800]",
        *["6 [6, 6]"] * 2,
        "100%",
    ]
    assert second[4:] == [">8 [>8, >8]", ">8 [>8, >8]", "0%"]
    header, rows = learning(dataclasses.replace(summary, suite=dataclasses.replace(summary.suite, measure="played")))
    assert header[4:] == ["area under the curve", "final entropy"]
    assert rows[0][4:] == ["0.650 [0.650, 0.650]", "-"]


def test_markdown(report) -> None:
    summary, _, out = report
    text = (out / "leaderboard.md").read_text()
    assert text == markdown(summary)
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("| ")]
    for lines in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    ranked, learnt, partial, by_environment = tables
    assert len(learnt) == len(ranked)
    assert len(ranked) == 2 + len(summary.standings)
    assert len(partial) == 2 + 1
    assert len(by_environment) == 2 + 4
    assert command(summary.suite) in text
    said, _, _ = text.partition("```sh")
    assert HOSTILE not in said, "no HTML of a label's making"
    assert "&lt;script&gt;alert('&amp;')&lt;/script&gt;" in said


def test_successive_halving_has_a_footnote(report, tmp_path) -> None:
    """Its trials are not full trainings; reports without it have no such note."""
    suite = Suite((AgentEntry("random"), AgentEntry("successive-halving", {}, "halving")), (CORA,), 10, TRIALS)
    summary = summarise(suite, [t for t in runs({"random": 0.5, "halving": 0.7}) if t.environment == CORA])
    (note,) = footnotes(summary)
    assert "each counts as one trial" in note
    assert [row[1] for row in leaderboard(summary)[1]] == [f"halving {note[0]}", "random"]
    write_report(suite, [t for t in runs({"random": 0.5, "halving": 0.7}) if t.environment == CORA], [], tmp_path)
    for name in ("report.html", "leaderboard.md"):
        assert (tmp_path / name).read_text().count(note) == 1
        assert f"halving {note[0]}" in (tmp_path / name).read_text()
        assert note[0] not in (report[2] / name).read_text()


def test_no_number_is_nan(tmp_path) -> None:
    """One seed, no test split, no simulated time."""
    traces = [trace(env, label, 0, 0.5, False) for env in (CORA, ARXIV) for label in ("random", "a")]
    traces = [dataclasses.replace(one, test=None, test_score=None) for one in traces]
    write_report(suite_of("a", seeds=1), traces, [], tmp_path)
    for name in ("report.html", "leaderboard.md", "summary.json", "results.csv"):
        text = re.sub(r"<svg.*?</svg>", "", (tmp_path / name).read_text(), flags=re.DOTALL)
        assert not re.search(r"\bnan\b", text, flags=re.IGNORECASE), name
    assert not list((tmp_path / "figures").glob("seconds*"))
    assert not list((tmp_path / "figures").glob("*test*"))
    assert not list((tmp_path / "figures").glob("pareto*"))
    assert "Accuracy against cost" not in (tmp_path / "report.html").read_text()


# ------------------------------------------------------------------ the command line


def test_the_command_reproduces_the_suite(monkeypatch) -> None:
    agents = [
        "local-search",
        {
            "name": "regularized-evolution",
            "hyperparameters": {"population_size": 9, "sample_size": 3},
            "label": "of nine",
        },
    ]
    suite = make_suite({"agents": agents, "environments": [str(CORA), str(ARXIV)], "seeds": 3, "trials": 20})
    words = shlex.split(command(suite))
    assert words[:2] == ["nas-gym", "benchmark"]
    made = []

    def note(suite, *arguments):
        made.append(suite)
        raise ValueError("enough")

    monkeypatch.setattr("nas_gym.experiments.benchmark.execution.run_benchmark", note)
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit):
        main()
    assert made == [suite]


def test_the_report_of_a_benchmark_that_goes_on(tmp_path, monkeypatch) -> None:
    """From its folder alone, with what is done so far; complete, it is the page that the command has written."""
    words = ["nas-gym", "benchmark", "--agents", "local-search", "--envs", str(CORA), "--seeds", "2", "--trials", "6"]
    monkeypatch.setattr("sys.argv", [*words, "--workers", "1", "--out", str(tmp_path)])
    main()
    whole = (tmp_path / "report.html").read_text()
    monkeypatch.setattr("sys.argv", ["nas-gym", "report", str(tmp_path), "--watch"])
    main()
    assert (tmp_path / "report.html").read_text() == whole
    (tmp_path / "runs" / "NAS-BenchGraph-v0-cora" / "local-search" / "seed1" / "run.json").unlink()
    assert rewrite_report(tmp_path, 7) == (tmp_path / "report.html", False)
    text = (tmp_path / "report.html").read_text()
    assert '<meta http-equiv="refresh" content="7">' in text
    assert "Agents with fewer finished runs than seeds" in text
    assert (tmp_path / "suite.yaml").exists(), "the page links to it"


def test_the_architectures_of_a_front_can_be_drawn() -> None:
    """Those that no agent beats, each under its own point."""
    space = open_evaluator(CORA).space
    tokens = space.sample(np.random.default_rng(0), TRIALS)
    traces = [dataclasses.replace(t, tokens=tokens) for t in runs({"random": 0.5, "a": 0.7}) if t.environment == CORA]
    summary = summarise(suite_of("a", environments=(CORA,)), traces)
    (chart,) = benchmark_charts(summary, traces)["tradeoffs"]
    points = np.concatenate([t.points for t in traces])
    offered = [(x, y, a) for s in chart.series for x, y, a in zip(s.x, s.y, s.architectures, strict=True) if a]
    assert offered
    for cost, accuracy, architecture in offered:
        assert not ((points[:, 0] > accuracy) & (points[:, 1] <= cost)).any()
        (row,) = np.flatnonzero((points == [accuracy, cost]).all(axis=1))
        assert architecture == space.architecture(tokens[row % TRIALS])


# ------------------------------------------------------------------ parts of figures


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_spread(places) -> None:
    moved = spread(np.array(places), 0.07, 1.0)
    order = np.argsort(places, kind="stable")
    assert (np.diff(moved[order]) >= 0.07 - 1e-9).all()
    assert moved.min() >= -1e-9
    assert moved.max() <= 1.0 + 1e-9
    # Those that are far enough apart stay where they are.
    if all(abs(a - b) >= 0.07 for a, b in itertools.combinations(places, 2)):
        assert moved == pytest.approx(places)


def test_spread_moves_as_little_as_possible() -> None:
    assert spread(np.array([0.5, 0.5]), 0.1, 1.0) == pytest.approx([0.45, 0.55])
    assert spread(np.array([0.5, 0.9, 0.52]), 0.1, 1.0) == pytest.approx([0.46, 0.9, 0.56])


def test_every_agent_has_its_own_look() -> None:
    suite = suite_of(*(f"agent {number}" for number in range(2 * len(SERIES))))
    found = looks(suite)
    assert len({(look.colour, str(look.dash)) for look in found.values()}) == len(suite.agents)
    assert not any(math.isnan(look.width) for look in found.values())
