"""Writes docs/agents/curves.csv: what each agent finds in NAS-Bench201-v0, for the agents' pages.

    python docs/make_agent_curves.py [AGENT ...]

Takes about two minutes on one core, of a few agents less. The leaderboard of `nas-gym benchmark` has more tables and
more seeds.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas_gym.agents import AGENTS, SearchResult, make_agent
from nas_gym.agents.registry import TRIALS
from nas_gym.experiments.intervals import MeanInterval

FILE = Path(__file__).parent / "agents" / "curves.csv"
ENVIRONMENT = "NAS-Bench201-v0"
SEEDS = 10
EVERY = 5  # trials
GROWS = "eas"  # the agent that plays transformation environments only


def main() -> None:
    """Searches with the agents and all seeds, and writes the means with their intervals in place of earlier ones."""
    wanted = sys.argv[1:] or [agent for agent in AGENTS if agent != GROWS and not AGENTS[agent].relaxed]
    with FILE.open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    for agent in wanted:
        runs = [best_so_far(make_agent(agent, ENVIRONMENT, seed=seed).learn(TRIALS)) for seed in range(SEEDS)]
        lines = [line for line in lines if line[0] != agent] + rows(agent, np.array(runs))
    with FILE.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(
            [header, *sorted(lines, key=lambda line: (line[0], int(line[1])))]
        )


def best_so_far(result: SearchResult) -> NDArray[np.float64]:
    """The best accuracy after each trial among those of full training, float64[n]; NaN before the first of them."""
    return np.fmax.accumulate(np.where(result.fidelities == 1, result.metrics["accuracy"], np.nan))


def rows(agent: str, runs: NDArray[np.float64]) -> list[list[str]]:
    """The lines of an agent from float64[seeds, n]."""
    lines: list[list[str]] = []
    for trials in range(EVERY, runs.shape[1] + 1, EVERY):
        if not np.isnan(runs[:, trials - 1]).any():
            found = MeanInterval.of(runs[:, trials - 1].tolist())
            lines.append([agent, str(trials), *(f"{value:.5f}" for value in (found.mean, found.low, found.high))])
    return lines


if __name__ == "__main__":
    main()
