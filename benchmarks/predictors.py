"""How well predictors rank architectures that they have not seen, by the number of those that they have.

    python benchmarks/predictors.py [--table nb201.npz] [--seeds 5] [--sizes 20 50 100 200] [--out predictors.csv]

Each predictor is fitted to the normal scores of the same random architectures, and predicts 1,000 others. Reported are
Kendall's tau with their values, the share of the 50 best predicted that are among the 50 best (precision at 50), and
what a predictor earns: the difference of its tau from that of another one on the same architectures. Figures are means
over the tasks, with a 95 % interval over the seeds (Student's t). `--table` is one of the space bench201, made by

    nas-gym table import csv nas_bench_201_12_epochs.csv --out nb201.npz --space bench201 --percent --epochs 12

Predictors' settings were chosen on the tasks of benchmarks/tuning.py, of which none is among these.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from scipy import stats

from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.predictors import PREDICTORS, make_predictor, normal_scores
from nas_gym.spaces import make_space

Floats = NDArray[np.float64]

TEST = 1000
BEST = 50
GRAPH_TASKS = ("cora", "citeseer", "physics", "proteins")
BASELINES = ("gaussian-process", "bayesian-linear")
FIELDS = ("tables", "task", "predictor", "size", "seed", "tau", "precision", "seconds")


def problems(table: Path | None) -> Iterator[tuple[str, TabularEvaluator]]:
    """The tables, by the name under which they are reported together."""
    yield "bundled", TabularEvaluator(make_space("bench201"))
    if table is not None:
        for task in ("cifar10", "cifar100", "imagenet16"):
            yield "NAS-Bench-201, 12 epochs", TabularEvaluator(make_space("bench201"), table=table, task=task)
    for task in GRAPH_TASKS:
        yield "NAS-Bench-Graph", TabularEvaluator(make_space("bench_graph"), table="nas-bench-graph", task=task)


def score(evaluator: TabularEvaluator, predictor: str, size: int, seed: int) -> dict[str, float]:
    """Fits a predictor to random architectures, and compares its predictions of others with their values."""
    drawn = evaluator.space.sample(np.random.default_rng(seed), 4 * (max(size, 200) + TEST))
    tokens = drawn[np.sort(np.unique(drawn, axis=0, return_index=True)[1])]
    tokens = tokens[~evaluator.evaluate(tokens).failed]
    known, new = tokens[TEST : TEST + size], tokens[:TEST]
    start = time.process_time()
    fitted = make_predictor(predictor, evaluator.space)
    fitted.fit(known, normal_scores(evaluator.evaluate(known).accuracy))
    predicted, values = fitted.predict(new)[0], evaluator.evaluate(new).accuracy
    seconds = time.process_time() - start
    best = np.intersect1d(np.argsort(-predicted, kind="stable")[:BEST], np.argsort(-values, kind="stable")[:BEST])
    return {"tau": stats.kendalltau(predicted, values).statistic, "precision": len(best) / BEST, "seconds": seconds}


def interval(sample: Floats) -> tuple[float, float]:
    """The mean over seeds, and half the width of its 95 % interval."""
    spread = stats.sem(sample) * stats.t.ppf(0.975, len(sample) - 1) if len(sample) > 1 else np.nan
    return float(np.mean(sample)), float(spread)


def report(rows: list[dict[str, str]]) -> None:
    """Prints the table of taus and precisions, and that of differences, in Markdown."""
    sizes = sorted({int(row["size"]) for row in rows})
    predictors = list(dict.fromkeys(row["predictor"] for row in rows))

    def column(tables: str, predictor: str, size: int, name: str) -> Floats:
        wanted = (tables, predictor, str(size))
        rows_of = [row for row in rows if (row["tables"], row["predictor"], row["size"]) == wanted]
        seeds = sorted({row["seed"] for row in rows_of})
        return np.array([np.mean([float(row[name]) for row in rows_of if row["seed"] == seed]) for seed in seeds])

    header = " | ".join(map(str, sizes))
    for name in ("tau", "precision"):
        print(f"\n| tables | predictor | {name}: {header} |\n|{'---|' * (2 + len(sizes))}")
        for tables in dict.fromkeys(row["tables"] for row in rows):
            for predictor in predictors:
                cells = [interval(column(tables, predictor, size, name)) for size in sizes]
                print(
                    f"| {tables} | `{predictor}` | {' | '.join(f'{mean:.3f} ± {half:.3f}' for mean, half in cells)} |"
                )
    print(f"\n| tables | predictor | against | tau earned: {header} |\n|{'---|' * (3 + len(sizes))}")
    for tables in dict.fromkeys(row["tables"] for row in rows):
        for predictor in [name for name in predictors if name not in BASELINES]:
            for other in BASELINES:
                cells = [
                    interval(column(tables, predictor, size, "tau") - column(tables, other, size, "tau"))
                    for size in sizes
                ]
                shown = " | ".join(f"{mean:+.3f} ± {half:.3f}" for mean, half in cells)
                print(f"| {tables} | `{predictor}` | `{other}` | {shown} |")
    print(f"\n| predictor | seconds of a fit and {TEST:,} predictions: {header} |\n|{'---|' * (1 + len(sizes))}")
    for predictor in predictors:
        taken = [
            [float(r["seconds"]) for r in rows if (r["predictor"], r["size"]) == (predictor, str(n))] for n in sizes
        ]
        print(f"| `{predictor}` | {' | '.join(f'{np.median(seconds):.2f}' for seconds in taken)} |")


def main(
    table: Path | None = None,
    seeds: int = 5,
    sizes: tuple[int, ...] = (20, 50, 100, 200),
    predictors: tuple[str, ...] = (),
    out: Path = Path("predictors.csv"),
) -> None:
    """Scores the predictors, and prints the report.

    Args:
        table: of NAS-Bench-201 after 12 epochs; without it, that table is left out.
        seeds: draws of architectures on each task.
        sizes: numbers of architectures that a predictor is fitted to.
        predictors: by name; all by default.
        out: the file of all scores; those that it holds already are not computed again.
    """
    torch.set_num_threads(1)
    rows = list(csv.DictReader(out.open())) if out.exists() else []
    known = {tuple(row[name] for name in FIELDS[:5]) for row in rows}
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        for seed in range(seeds):
            for tables, evaluator in problems(table):
                for predictor in predictors or PREDICTORS:
                    for size in sizes:
                        key = (tables, str(evaluator.task), predictor, str(size), str(seed))
                        if key not in known:
                            found = score(evaluator, predictor, size, seed)
                            figures = (f"{found[name]:.4f}" for name in FIELDS[5:])
                            rows.append(dict(zip(FIELDS, (*key, *figures), strict=True)))
                            writer.writerow(rows[-1])
                            file.flush()
    report(sorted(rows, key=lambda row: (row["tables"], row["task"], int(row["seed"]))))


if __name__ == "__main__":
    tyro.cli(main)
