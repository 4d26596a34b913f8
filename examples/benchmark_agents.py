"""Compares agents on tables, with intervals, and writes the report: what `nas-gym benchmark` does, in Python.

Takes seconds on two cores; writes benchmark/report.html.
"""

from __future__ import annotations

from pathlib import Path

from nas_gym.experiments.benchmark.execution import run_benchmark
from nas_gym.experiments.benchmark.results import read_results
from nas_gym.experiments.benchmark.suite import make_suite
from nas_gym.experiments.report.report import write_report

AGENTS = ("random", "local-search", "regularized-evolution", "reinforce", "ppo")
ENVIRONMENTS = ("NAS-Bench201-v0:fashion-mnist", "NAS-BenchGraph-v0:cora")


def main(
    agents: tuple[str, ...] = AGENTS,
    environments: tuple[str, ...] = ENVIRONMENTS,
    seeds: int = 10,
    trials: int = 150,
    workers: int = 2,
    out: str = "benchmark",
) -> dict[str, float]:
    """Returns the score of each agent: 0 is the mean architecture of a table, 1 the best."""
    suite = make_suite({"agents": list(agents), "environments": list(environments), "seeds": seeds, "trials": trials})
    problems = run_benchmark(suite, Path(out), workers)
    summary = write_report(suite, read_results(suite, Path(out)), problems, Path(out))
    for standing in summary.standings:
        score = standing.score
        print(f"{standing.label:22} {score.value:.3f} [{score.low:.3f}, {score.high:.3f}]")
    return {standing.label: standing.score.value for standing in summary.standings}


if __name__ == "__main__":  # the workers import this file
    main()
