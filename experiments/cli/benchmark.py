"""`nas-gym benchmark`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from nas_gym.experiments.cli.app import Answer, app, console, make_table, stopped, told
from nas_gym.experiments.run.pairs import parse_pairs
from nas_gym.experiments.run.progress import counting
from nas_gym.files import read_mapping


@app.command
def benchmark(
    suite: str = "quick",
    agents: Annotated[tuple[str, ...], tyro.conf.arg(metavar="[LABEL=]NAME[@KEY:VALUE,...] ...")] = (),
    envs: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ID[:TASK] ...")] = (),
    table: str | None = None,
    seeds: int | None = None,
    trials: int | None = None,
    simulated_seconds: float | None = None,
    measure: Literal["best", "played"] | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    out: Path | None = None,
) -> Answer:
    """Compares agents on benchmark tables, many seeds each; killed at any moment, it goes on where it stood.

    The folder gets report.html, leaderboard.md, summary.json, results.csv, figures, and every run. For example:
    nas-gym benchmark --agents local-search small=regularized-evolution@population_size:10,sample_size:3

    Args:
        suite: quick (10 seeds), full (50 seeds), sample-efficiency (200 seeds of the agents that learn fastest), rl
            (policies that learn for 10,000 trials), or the path of a YAML file; the other options take precedence. Also
            transfer-graph and transfer-image, for which see docs/transfer.md, with seeds, trials, table and out.
        agents: with hyperparameters after an @, or a YAML file of them; all agents by default. Random search is added.
        envs: environments that are looked up in tables, such as NAS-BenchGraph-v0:cora; all of them, with all tasks, by
            default.
        table: path or name of a table, for the environments whose space it has.
        seeds: runs of each agent in each environment.
        trials: architectures a run, at most.
        simulated_seconds: a run ends when its trainings would have taken this long, by the seconds of the tables.
        measure: what a run is scored by: its best architecture, or the mean of those that its policy plays at the end.
        workers: processes; one a core by default.
        ray_address: of a Ray cluster that does the runs, such as auto, in place of processes here.
        out: the folder; runs/benchmark-SUITE by default.
    """
    from nas_gym.experiments.benchmark.execution import run_benchmark
    from nas_gym.experiments.benchmark.results import read_results
    from nas_gym.experiments.benchmark.suite import make_suite
    from nas_gym.experiments.report.leaderboard import footnotes, headline, leaderboard
    from nas_gym.experiments.report.report import to_json, write_report
    from nas_gym.experiments.transfer.suite import make_transfer_suite

    transfer_suite = make_transfer_suite(suite, table=table, seeds=seeds, trials=trials)
    if transfer_suite is not None:
        return _transfer_benchmark(transfer_suite, out or Path("runs") / f"benchmark-{Path(suite).stem}")
    given = {
        "agents": [_agent_entry(text) for text in agents] or None,
        "environments": envs or None,
        "table": table,
        "seeds": seeds,
        "trials": trials,
        "simulated_seconds": simulated_seconds,
        "measure": measure,
    }
    wanted = make_suite(suite, **given)
    folder = out or Path("runs") / f"benchmark-{Path(suite).stem}"
    try:
        with counting(console, "runs") as tell:
            problems = run_benchmark(wanted, folder, workers, tell, ray_address)
    except KeyboardInterrupt:
        return _stopped(folder)
    failed = [problem for problem in problems if problem.traceback]
    for problem in failed:
        console.print(f"failed: {problem.folder}: {problem.reason}", style="red", highlight=False, markup=False)
    summary = write_report(wanted, read_results(wanted, folder), problems, folder)
    title, sentences = headline(summary)
    header, rows = leaderboard(summary)
    columns = [header.index(name) for name in ("rank", "agent", "score", "beats random", "test score")]
    shown = make_table(title, *(header[column] for column in columns))
    for row in rows:
        shown.add_row(*(row[column] for column in columns))
    console.print(shown)
    console.print(*filter(None, sentences), *footnotes(summary), sep="\n", highlight=False, markup=False)
    console.print(f"wrote {folder / 'report.html'}", highlight=False)
    then = {told(*sys.argv[1:]): "tries again what failed"} if failed else {}
    then |= {f"open {folder / 'report.html'}": "every number, to explore in a browser"}
    if wanted.seeds < 50:
        then |= {told("benchmark", "--suite", suite, "--seeds", 50): "enough seeds to support a claim"}
    facts = {"folder": str(folder), "report": str(folder / "report.html"), **to_json(summary)}
    return Answer(facts, then, code=1 if failed else 0)


def _stopped(folder: Path) -> Answer:
    console.print("stopped", highlight=False)
    return stopped(told(*sys.argv[1:]), folder=str(folder))


def _transfer_benchmark(suite: Any, folder: Path) -> Answer:
    from nas_gym.experiments.transfer.report import verdict, write_transfer_report
    from nas_gym.experiments.transfer.searches import run_transfer

    try:
        with counting(console, "searches") as tell:
            found = run_transfer(suite, folder, tell)
    except KeyboardInterrupt:
        return _stopped(folder)
    sentences = verdict(suite, write_transfer_report(suite, found, folder))
    console.print(*sentences, sep="\n", highlight=False, markup=False)
    console.print(f"wrote {folder / 'transfer.md'}", highlight=False)
    facts = {"folder": str(folder), "report": str(folder / "transfer.md"), "text": sentences}
    return Answer(facts, {told("pretrain"): "teaches a controller of your own"})


def _agent_entry(text: str) -> dict[str, Any]:
    """Reads ``[LABEL=]NAME[@KEY:VALUE,...]`` or ``[LABEL=]NAME[@FILE.yaml]``."""

    before, at, settings = text.partition("@")
    label, equals, name = before.rpartition("=")
    if (equals and not label) or (at and not settings):
        raise ValueError(f"expected [LABEL=]NAME[@KEY:VALUE,...], such as random or small=random@x:1; got {text!r}")
    if settings.endswith((".yaml", ".yml")):
        path = Path(settings)
        return {"name": name, "hyperparameters": read_mapping(path), "label": label or f"{name} {path.stem}"}
    pairs = re.split(r",(?=[\w.]+:)", settings) if settings else []  # other commas are the values'
    return {"name": name, "hyperparameters": parse_pairs(tuple(pairs)), "label": label}
