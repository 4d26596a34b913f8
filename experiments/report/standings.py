"""The standings of a benchmark in numbers: scores, intervals, pairwise comparisons and ranks of its agents.

One agent is called better than another only if the 95 % interval of the probability of improvement lies above one half.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas_gym.agents import pareto
from nas_gym.experiments.benchmark import statistics
from nas_gym.experiments.benchmark.jobs import UncountedRun
from nas_gym.experiments.benchmark.results import RunResult
from nas_gym.experiments.benchmark.statistics import Estimate
from nas_gym.experiments.benchmark.suite import RANDOM, AgentEntry, Environment, Suite, open_evaluator

Floats = NDArray[np.float64]
ByEnvironment = dict[Environment, list[RunResult]]

NEAR, OPTIMAL = 0.99, 0.999
"""Normalised validation accuracies of which the trials that they take are reported."""


@dataclass(frozen=True)
class EnvironmentSummary:
    """Results of an agent in one environment.

    Attributes:
        runs: number of finished runs.
        score: interquartile mean of the normalised validation accuracies.
        among_best: whether no other agent is better in this environment.
        validation_accuracy: mean and standard deviation over runs.
        test_accuracy: mean and standard deviation over runs; None if the table has no test accuracies.
        hypervolume: interquartile mean over runs, as a share of `Tradeoff.volume`; None if the table has no cost.
    """

    runs: int
    score: Estimate
    among_best: bool
    validation_accuracy: tuple[float, float]
    test_accuracy: tuple[float, float] | None
    hypervolume: Estimate | None


@dataclass(frozen=True)
class Tradeoff:
    """Accuracy against cost in one environment, relative to a reference point that is at least as bad as every trial.

    Attributes:
        cost: name of the metric.
        worst_accuracy: the table's lowest validation accuracy; the accuracy of the reference point.
        highest_cost: the highest cost among all trials of all agents; the cost of the reference point.
        volume: hypervolume of all trials of all agents together.
    """

    cost: str
    worst_accuracy: float
    highest_cost: float
    volume: float

    def hypervolume(self, points: Floats) -> float:
        """The hypervolume of accuracies and costs, float64[n, 2], as a share of `volume`."""
        found = pareto.hypervolume(points * [1, -1], [self.worst_accuracy, -self.highest_cost])
        return found / self.volume


@dataclass(frozen=True)
class AgentSummary:
    """Results of an agent over all environments that it played.

    Attributes:
        entry: the agent.
        runs: number of finished runs.
        score: interquartile mean of the runs' scores.
        mean: their mean; unlike the interquartile mean, it tells agents apart that often find the best.
        early: mean score after a fifth of the trials.
        halfway: mean score after half of them.
        near: median trials to a normalised validation accuracy of 0.99; one more than the budget where it takes more.
        optimum: median trials to within 0.001 of the best of the table, likewise.
        optimal: share of the runs that come so close.
        area: mean normalised validation accuracy of all trials, the area under the curve of what is played.
        entropy: of the policy at the end, in nats, mean over runs; None for an agent without one.
        gain: score minus that of random search in the same environments.
        over_random: probability that a run beats one of random search.
        optimality_gap: mean shortfall of the scores from the optimum, 1.
        median: median over environments of the mean score.
        test_score: interquartile mean of the normalised test accuracies; None if no table has them.
        seconds: CPU seconds per run, median.
        simulated_seconds: training time that a run would have taken without the tables, mean; None unless all of them
            record training times.
        rank: 1 plus the number of agents that are better; None unless the agent played every environment.
        better_than: labels of the agents that it is better than.
        environments: results by environment.
    """

    entry: AgentEntry
    runs: int
    score: Estimate
    mean: Estimate
    early: Estimate
    halfway: Estimate
    near: Estimate
    optimum: Estimate
    optimal: float
    area: Estimate
    entropy: Estimate | None
    gain: Estimate
    over_random: Estimate
    optimality_gap: Estimate
    median: Estimate
    test_score: Estimate | None
    seconds: float
    simulated_seconds: float | None
    rank: int | None
    better_than: tuple[str, ...]
    environments: dict[str, EnvironmentSummary]

    @property
    def label(self) -> str:
        """The agent's label."""
        return self.entry.label

    @property
    def is_random(self) -> bool:
        """Whether it is random search."""
        return self.entry.name == RANDOM


@dataclass(frozen=True)
class Summary:
    """Results of a benchmark.

    Attributes:
        suite: the suite that was run.
        standings: agents that played every environment, highest score first.
        partial: agents that could not play every environment.
        improvement: by two labels of `standings`, the probability that a run of the first beats one of the second.
        problems: runs that are excluded.
        versions: of nas_gym that the runs were made with.
        dates: days of the first and the last run.
        tradeoffs: by environment, for tables with a cost metric.
    """

    suite: Suite
    standings: tuple[AgentSummary, ...]
    partial: tuple[AgentSummary, ...]
    improvement: dict[str, dict[str, Estimate]]
    problems: tuple[UncountedRun, ...]
    versions: tuple[str, ...]
    dates: tuple[str, str]
    tradeoffs: dict[str, Tradeoff]


def summarise(suite: Suite, traces: Sequence[RunResult], problems: Sequence[UncountedRun] = ()) -> Summary:
    """Computes all numbers of the report.

    Args:
        suite: the suite that was run.
        traces: the finished runs.
        problems: runs that are excluded.

    Raises:
        ValueError: an environment has no finished run of random search.
    """
    by_agent = {entry.label: by_environment(suite, traces, entry.label) for entry in suite.agents}
    baseline = next(entry.label for entry in suite.agents if entry.name == RANDOM)
    if missing := [str(environment) for environment in suite.environments if environment not in by_agent[baseline]]:
        raise ValueError(
            f"random search has no finished run in {', '.join(missing)}, but the report compares all agents with it"
        )
    full = [entry.label for entry in suite.agents if len(by_agent[entry.label]) == len(suite.environments)]
    improvement = _improvement({label: by_agent[label] for label in full})
    tradeoffs = {str(env): found for env in suite.environments if (found := _tradeoff(env, traces))}
    standings = [
        _agent_summary(entry, by_agent, baseline, improvement, tradeoffs)
        for entry in suite.agents
        if by_agent[entry.label]
    ]
    standings.sort(key=lambda agent: -agent.score.value)
    days = sorted(trace.finished for trace in traces)
    return Summary(
        suite,
        tuple(agent for agent in standings if agent.rank),
        tuple(agent for agent in standings if not agent.rank),
        improvement,
        tuple(problems),
        tuple(sorted({trace.version for trace in traces})),
        (days[0][:10], days[-1][:10]),
        tradeoffs,
    )


def by_environment(suite: Suite, traces: Sequence[RunResult], label: str) -> ByEnvironment:
    """An agent's runs by environment, without environments that have none."""
    found = {env: [t for t in traces if t.label == label and t.environment == env] for env in suite.environments}
    return {environment: runs for environment, runs in found.items() if runs}


def final_scores(
    runs: Mapping[Environment, Sequence[RunResult]], wanted: Iterable[Environment] | None = None
) -> list[Floats]:
    """The final scores, one float64[runs] per environment."""
    return _each({environment: runs[environment] for environment in wanted or runs}, lambda run: run.score[-1])


def _each(runs: Mapping[Environment, Sequence[RunResult]], figure: Callable[[RunResult], float]) -> list[Floats]:
    """A figure of each run, one float64[runs] per environment."""
    return [np.array([figure(run) for run in found], dtype=np.float64) for found in runs.values()]


def _tradeoff(environment: Environment, traces: Sequence[RunResult]) -> Tradeoff | None:
    """None if no trial has a cost, or none is both cheaper and better than the reference point."""
    costed = [trace for trace in traces if trace.environment == environment and trace.points is not None]
    points = pooled(costed)
    if not len(points) or (cost := costed[0].cost) is None:
        return None
    _, _, worst = open_evaluator(environment).reference()
    most = float(points[:, 1].max())
    volume = pareto.hypervolume(points * [1, -1], [worst, -most])
    return Tradeoff(cost, worst, most, volume) if volume > 0 else None


def pooled(runs: Iterable[RunResult]) -> Floats:
    """Accuracies and costs of the trials of all runs together, float64[n, 2]."""
    return np.concatenate([np.empty((0, 2)), *(trace.points for trace in runs if trace.points is not None)])


def _improvement(by_agent: Mapping[str, ByEnvironment]) -> dict[str, dict[str, Estimate]]:
    finals = {label: final_scores(runs) for label, runs in by_agent.items()}
    found: dict[str, dict[str, Estimate]] = {label: {} for label in finals}
    labels = list(finals)
    for number, first in enumerate(labels):
        for second in labels[number + 1 :]:
            here = statistics.probability_of_improvement(finals[first], finals[second])
            found[first][second] = here
            found[second][first] = Estimate(1 - here.value, 1 - here.high, 1 - here.low)
    return found


def _agent_summary(
    entry: AgentEntry,
    by_agent: Mapping[str, ByEnvironment],
    baseline: str,
    improvement: Mapping[str, Mapping[str, Estimate]],
    tradeoffs: Mapping[str, Tradeoff],
) -> AgentSummary:
    runs = by_agent[entry.label]
    traces = [trace for found in runs.values() for trace in found]
    finals, random = final_scores(runs), final_scores(by_agent[baseline], runs)
    tests = [
        np.array([trace.test_score[-1] for trace in found if trace.test_score is not None])
        for found in runs.values()
        if found[0].test is not None
    ]
    beyond = 1.0 + max(len(trace.score) for trace in traces)
    optimum = _each(runs, lambda run: min(run.trials_to(OPTIMAL), beyond))
    entropies = _each(runs, lambda run: np.nan if run.entropy is None else run.entropy)
    simulated = [trace.simulated_seconds[-1] for trace in traces if trace.simulated_seconds is not None]
    mine = improvement.get(entry.label)
    return AgentSummary(
        entry,
        runs=len(traces),
        score=statistics.estimate(statistics.interquartile_mean, finals),
        mean=statistics.estimate(statistics.mean, finals),
        early=statistics.estimate(statistics.mean, _each(runs, lambda run: run.after(1 / 5))),
        halfway=statistics.estimate(statistics.mean, _each(runs, lambda run: run.after(1 / 2))),
        near=statistics.estimate(statistics.pooled_median, _each(runs, lambda run: min(run.trials_to(NEAR), beyond))),
        optimum=statistics.estimate(statistics.pooled_median, optimum),
        optimal=float(np.mean([trace.trials_to(OPTIMAL) < beyond for trace in traces])),
        area=statistics.estimate(statistics.mean, _each(runs, lambda run: float(run.played.mean()))),
        entropy=None if np.isnan(np.concatenate(entropies)).any() else statistics.estimate(statistics.mean, entropies),
        gain=statistics.difference(statistics.interquartile_mean, finals, random),
        over_random=(mine or {}).get(baseline) or statistics.probability_of_improvement(finals, random),
        optimality_gap=statistics.estimate(statistics.optimality_gap, finals),
        median=statistics.estimate(statistics.median, finals),
        test_score=statistics.estimate(statistics.interquartile_mean, tests) if tests else None,
        seconds=float(np.median([trace.cpu_seconds for trace in traces])),
        simulated_seconds=float(np.mean(simulated)) if len(simulated) == len(traces) else None,
        rank=None if mine is None else 1 + sum(other.below(0.5) for other in mine.values()),
        better_than=tuple(label for label, other in (mine or {}).items() if other.above(0.5)),
        environments={
            str(env): _environment_summary(env, by_agent, runs[env], tradeoffs.get(str(env))) for env in runs
        },
    )


def _environment_summary(
    environment: Environment,
    by_agent: Mapping[str, ByEnvironment],
    runs: Sequence[RunResult],
    tradeoff: Tradeoff | None,
) -> EnvironmentSummary:
    (scores,) = final_scores({environment: runs})
    others = [final_scores(found, [environment]) for found in by_agent.values() if environment in found]
    beaten = any(statistics.probability_of_improvement(other, [scores]).above(0.5) for other in others)
    tests = [trace.test[-1] for trace in runs if trace.test is not None]
    volumes = [np.array([tradeoff.hypervolume(pooled([trace])) for trace in runs])] if tradeoff else []
    return EnvironmentSummary(
        len(runs),
        statistics.estimate(statistics.interquartile_mean, [scores]),
        not beaten,
        _mean_deviation([trace.validation[-1] for trace in runs]),
        _mean_deviation(tests) if tests else None,
        statistics.estimate(statistics.interquartile_mean, volumes) if volumes else None,
    )


def _mean_deviation(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
