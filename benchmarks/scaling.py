"""Searches with up to a thousand workers on a simulated cluster: how busy these are, and what the search finds.

    python benchmarks/scaling.py [--out scaling] [--picture docs/pictures/scaling.png] [--agents reinforce ...]

The agents, the loops that wait (`Agent.learn`) and that do not (`learn_asynchronously`) and the environment are those
of any search. Only the cluster is simulated: `SimulatedCluster` looks evaluations up in the table of NAS-Bench201-v0,
takes their durations from its measured seconds, scaled to ten minutes in the mean, and lets the clock jump.

A search that waits proposes a batch of as many architectures as there are workers. Each search is played for at least
1,000 trials and 8 rounds, a round being the mean duration; agents whose own time grows with the square of the trials
are played for 200 trials. Reported is

- utilisation: the share of the workers' time that was spent on evaluations whose workers were not lost;
- regret: the best accuracy that can be reached less that of the best trial, after 8 rounds, and after 200 and 1,000
  trials. Before the first trial, it is that of the mean architecture.

Intervals are Student's, of 95 %, over seeds. The results are written as JSON, a row a search, and as Markdown.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro

from nas_gym.agents import Agent, Callback, SearchResult, make_agent
from nas_gym.evaluators import ClusterConditions, SimulatedCluster
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.experiments.intervals import MeanInterval
from nas_gym.experiments.run.asynchronous import learn_asynchronously
from nas_gym.spaces import make_space

ROUND = 600.0  # seconds, the mean duration of an evaluation
ROUNDS = 8
TRIALS = (200, 1000)
WORKERS = (1, 10, 100, 1000)
TABLE = TabularEvaluator(make_space("bench201"))
SCALE = ROUND / float(TABLE.evaluate(TABLE.space.enumerate()).metrics["seconds"].mean())
STRAGGLERS = {"straggler_share": 0.02, "straggler_shape": 2.0}
LOSSES = {"lifetime": 200 * ROUND, "restart": 60.0, "failure_share": 0.02}
CONDITIONS: dict[str, dict[str, float]] = {
    "durations of the table": {},
    "with stragglers": STRAGGLERS,
    "with stragglers and losses": {**STRAGGLERS, **LOSSES},
}
HARSH = "with stragglers and losses"

UNBOUNDED = 10**9  # updates between a proposal and its trial


@dataclass(frozen=True)
class Player:
    """An agent as it is played here.

    Attributes:
        agent: its name.
        staleness: see `learn_asynchronously`.
        ways: whether it is played asynchronously, and whether so that it waits.
        trials: after which it is ended at the latest.
        most: workers.
    """

    agent: str
    staleness: int | None = None
    ways: tuple[bool, ...] = (True, False)
    trials: float = math.inf
    most: float = math.inf


PLAYERS = {
    "random": Player("random"),
    "local-search": Player("local-search", ways=(False,)),
    "regularized-evolution": Player("regularized-evolution"),
    "reinforce": Player("reinforce"),
    "reinforce, any staleness": Player("reinforce", staleness=UNBOUNDED, ways=(True,)),
    "ppo": Player("ppo"),
    "bayesian": Player("bayesian", trials=TRIALS[0], most=100),
    "dyna": Player("dyna", trials=TRIALS[0], most=100),
}


@dataclass(frozen=True)
class Search:
    """What one search came to.

    Attributes:
        player: one of `PLAYERS`.
        workers: their number.
        asynchronous: whether it did not wait.
        conditions: one of `CONDITIONS`.
        seed: of the agent and the cluster.
        utilisation: of the workers.
        rounds: that it took.
        trials: that it made.
        in_time: trials after `ROUNDS`; None if it was ended before.
        regret: by what it is counted after; None if it was ended before.
        lost: workers.
        milliseconds: processor time of a trial, of all that the search itself does.
    """

    player: str
    workers: int
    asynchronous: bool
    conditions: str
    seed: int
    utilisation: float
    rounds: float
    trials: int
    in_time: int | None
    regret: dict[str, float | None]
    lost: int
    milliseconds: float


class Clock(Callback):
    """Notes when each trial was learned from, and ends the search when there is enough of them.

    Attributes:
        clocks: in seconds, one a trial.
    """

    def __init__(self, cluster: SimulatedCluster, most: float) -> None:
        self.cluster, self.most, self.clocks = cluster, most, list[float]()

    def after_trials(self, agent: Agent, trials: SearchResult, statistics: dict[str, float]) -> bool:
        self.clocks += len(trials) * [self.cluster.clock]
        done = len(self.clocks)
        return done < self.most and (done < TRIALS[-1] or self.cluster.clock < ROUNDS * ROUND)


def optimum(cluster: SimulatedCluster) -> float:
    """The best accuracy of an architecture that does not fail."""
    tokens = TABLE.space.enumerate()
    order = np.argsort(-TABLE.evaluate(tokens).accuracy, kind="stable")
    return next(
        float(found.accuracy[0])
        for row in order.tolist()
        if not (found := cluster.outcome(tokens[row, None], None)[0]).failed[0]
    )


def search(name: str, workers: int, asynchronous: bool, conditions: str, seed: int) -> Search:
    """Plays one search."""
    player = PLAYERS[name]
    cluster = SimulatedCluster(TABLE, workers, ClusterConditions(scale=SCALE, **CONDITIONS[conditions]), seed=seed)
    env = gym.make_vec("NAS-Bench201-v0", num_envs=1 if asynchronous else workers, evaluator=cluster)
    agent, clock = make_agent(player.agent, env, seed), Clock(cluster, player.trials)
    begun = time.process_time()
    if asynchronous:
        result = learn_asynchronously(agent, UNBOUNDED, clock, staleness=player.staleness)
    else:
        result = agent.learn(UNBOUNDED, clock)
    spent = time.process_time() - begun
    gaps = optimum(cluster) - np.maximum.accumulate([TABLE.random, *result.rewards])
    in_time = int(np.searchsorted(clock.clocks, ROUNDS * ROUND, side="right"))
    ended = cluster.clock < ROUNDS * ROUND
    return Search(
        player=name,
        workers=workers,
        asynchronous=asynchronous,
        conditions=conditions,
        seed=seed,
        utilisation=cluster.utilisation,
        rounds=cluster.clock / ROUND,
        trials=len(result),
        in_time=None if ended else in_time,
        regret={
            f"{ROUNDS} rounds": None if ended else float(gaps[in_time]),
            **{f"{count} trials": float(gaps[count]) if len(result) >= count else None for count in TRIALS},
        },
        lost=cluster.lost,
        milliseconds=1000 * spent / len(result),
    )


# ---------------------------------------------------------------------- tables


def interval(values: Iterable[float | None], unit: float = 1.0, digits: int = 2) -> str:
    """The mean of values in [0, 1] with its interval, in a unit; nothing if a search does not tell."""
    known = list(values)
    if not known or any(value is None for value in known):
        return ""
    found = MeanInterval.of([value for value in known if value is not None])
    text = f"{unit * found.mean:.{digits}f}"
    if found.low is None or found.high is None:
        return text
    return f"{text} [{unit * found.low:.{digits}f}, {unit * found.high:.{digits}f}]"


def table(title: str, rows: dict[str, list[str]]) -> str:
    """A table in Markdown with a column for each number of workers."""
    head = f"| {title} | " + " | ".join(f"{workers:,}" for workers in WORKERS) + " |"
    lines = [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items() if any(cells)]
    return "\n".join([head, "|---|" + len(WORKERS) * "---|", *lines])


def report(searches: list[Search]) -> str:
    """All tables."""

    def cells(what: Any, way: bool, unit: float = 1.0, digits: int = 2, **chosen: Any) -> list[str]:
        found = [one for one in searches if all(getattr(one, key) == value for key, value in chosen.items())]
        own = [one for one in found if one.workers == 1 or one.asynchronous == way]
        return [interval((what(one) for one in own if one.workers == w), unit, digits) for w in WORKERS]

    ways = {True: "asynchronous", False: "waits"}
    parts = []
    rows = {
        f"{conditions}: {text}": cells(lambda one: one.utilisation, way, player="random", conditions=conditions)
        for conditions in CONDITIONS
        for way, text in ways.items()
    }
    parts.append(table("utilisation of random search, with this many workers", rows))
    players = [(name, way) for name, player in PLAYERS.items() for way in player.ways]
    harsh: dict[str, Any] = {"conditions": HARSH}
    columns = [
        ("utilisation", lambda one: one.utilisation, 1.0, 2),
        *(
            (f"regret after {moment}, in points", lambda one, moment=moment: one.regret[moment], 100.0, 2)
            for moment in searches[0].regret
        ),
        ("milliseconds of the search's own processor time per trial", lambda one: one.milliseconds / 1000, 1000.0, 1),
    ]
    for title, what, unit, digits in columns:
        rows = {f"{name}: {ways[way]}": cells(what, way, unit, digits, player=name, **harsh) for name, way in players}
        parts.append(table(f"{title}, with this many workers", rows))
    return "\n\n".join(parts) + "\n"


# ---------------------------------------------------------------------- picture


def draw(searches: list[Search], path: Path) -> None:
    """Utilisation and regret after `ROUNDS` against workers; lines that are broken wait."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from nas_gym.experiments.plotting import BASELINE, SERIES, STYLE

    moment = f"{ROUNDS} rounds"
    names = list(dict.fromkeys(one.player for one in searches if one.regret[moment] is not None))
    with matplotlib.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
        for name, colour in zip(names, (BASELINE, *SERIES), strict=False):
            for way, dash in ((True, "solid"), (False, "dashed")):
                own = [
                    one
                    for one in searches
                    if (one.player, one.conditions) == (name, HARSH)
                    and (one.asynchronous == way or one.workers == 1)
                    and way in PLAYERS[name].ways
                    and one.regret[moment] is not None
                ]
                style = {"color": colour, "linestyle": dash, "marker": "o", "markersize": 4, "capsize": 2}
                label = name if way == PLAYERS[name].ways[0] else None
                for axes, values in (
                    (left, [(one.workers, one.utilisation) for one in own]),
                    (right, [(one.workers, 100 * one.regret[moment]) for one in own]),  # type: ignore[operator]
                ):
                    _line(axes, values, label, **style)
        left.set(xscale="log", xlabel="workers", ylabel="utilisation", ylim=(0, 1.03))
        # Beyond the limit are only intervals over searches of which one had seen no trial by then.
        right.set(xscale="log", xlabel="workers", ylabel=f"regret after {moment}, points", ylim=(0, 3))
        right.legend(frameon=False, fontsize=9)
        left.set_title("solid: asynchronous; dashed: waits for the batch", fontsize=10)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
        plt.close(figure)


def _line(axes: Any, values: list[tuple[int, float]], label: str | None, **style: Any) -> None:
    counts = sorted({workers for workers, _ in values})
    samples = [np.array([value for workers, value in values if workers == count]) for count in counts]
    if not counts:
        return
    means = [sample.mean() for sample in samples]
    bars = [0.0 if len(s) < 2 else 100 * (MeanInterval.of((s / 100).tolist()).high or 0) - s.mean() for s in samples]
    axes.errorbar(counts, means, yerr=bars, label=label, **style)


def main(
    out: Path = Path("scaling"),
    picture: Path | None = None,
    agents: tuple[str, ...] = tuple(PLAYERS),
    workers: tuple[int, ...] = WORKERS,
    seeds: tuple[int, ...] = (0, 1, 2, 3),
) -> None:
    """Plays the searches that are not in OUT.json yet; writes OUT.json and OUT.md.

    Args:
        out: files without their endings.
        picture: file of the picture.
        agents: of `PLAYERS`.
        workers: their numbers, of `WORKERS`.
        seeds: of each search.
    """
    torch.set_num_threads(1)
    logging.getLogger("nas_gym").setLevel(logging.ERROR)  # failures are the rule here
    file = out.with_suffix(".json")
    searches = [Search(**row) for row in json.loads(file.read_text())] if file.exists() else []
    known = {(one.player, one.workers, one.asynchronous, one.conditions, one.seed) for one in searches}
    for seed, count, name in product(seeds, workers, agents):
        for conditions, way in product(CONDITIONS if name == "random" else (HARSH,), PLAYERS[name].ways):
            key = name, count, way, conditions, seed
            # With one worker there is nothing to wait for, and both ways are one.
            if key not in known and (count > 1 or way == PLAYERS[name].ways[0]) and count <= PLAYERS[name].most:
                searches.append(search(*key))
                file.write_text(json.dumps([asdict(one) for one in searches], indent=1) + "\n")
                print(searches[-1], flush=True)
    out.with_suffix(".md").write_text(report(searches))
    if picture is not None:
        draw(searches, picture)


if __name__ == "__main__":
    tyro.cli(main)
