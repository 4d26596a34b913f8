"""What cheap evaluators are worth: their rank correlation with full training, and the seconds that they take.

The architectures are drawn uniformly from the space of NAS-Cell-v0. Each is trained in full, and once more with another
seed: how well the two agree is the most that anything cheaper can reach. Then come short trainings, with a cosine of
their own; a supernet that all share; and early stopping, which needs no further training: it is played on the curves of
the full trainings, in several orders. All on small images of Fashion-MNIST, one thread; seconds are its own processor
time.

Every training is written as it ends: killed at any moment, the same command goes on.

    OMP_NUM_THREADS=1 python benchmarks/short_trainings.py
"""

from __future__ import annotations

import csv
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from rich.progress import track
from scipy import stats

from nas_gym.evaluators import Evaluations, Evaluator
from nas_gym.evaluators.cost import count_parameters
from nas_gym.evaluators.evaluator import concatenate
from nas_gym.evaluators.from_scratch import FromScratchEvaluator
from nas_gym.evaluators.learning_curve import EarlyStoppingEvaluator
from nas_gym.evaluators.shared_weights import SharedWeightEvaluator
from nas_gym.spaces import Tokens, make_space

Floats = NDArray[np.float64]

PROXY = {"image_size": 14, "train_images": 2000, "score_images": 2000}
NETWORK = {"channels": 8, "reductions": 1, "stem_stride": 2}
TRAINING = {"batch_size": 50, "learning_rate": 0.03, "augment": False}
EPOCHS = 12
SHORT_EPOCHS = 3
SUPERNET_STEPS = 2000
ARCHITECTURES_PER_STEP = 4
ORDERS = 10  # in which early stopping meets the architectures
COMPLETE = 20  # trained in full first
THRESHOLDS = (0.01, 0.05, 0.2)
RESAMPLES = 1000
KINDS = {"full": (0, EPOCHS), "short": (0, SHORT_EPOCHS), "full again": (1, EPOCHS)}  # seed and epochs


def from_scratch(seed: int, epochs: int) -> FromScratchEvaluator:
    """The evaluator of a kind of training. The split of the images is that of seed 0, whatever the seed."""
    space, training = make_space("cell:enas"), {**TRAINING, "epochs": epochs}
    made = FromScratchEvaluator(
        space, "fashion-mnist", seed=0, device="cpu", **PROXY, network=NETWORK, training=training
    )
    made.seed = seed
    return made


class Results:
    """A CSV file with a line for each training: its kind, the architecture's number, seconds, and its curve."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text() if path.exists() else ""
        rows = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))
        self.seconds = {(kind, int(number)): float(seconds) for kind, number, seconds, *_ in rows}
        self.curves = {(kind, int(number)): np.array(curve, dtype=float) for kind, number, _, *curve in rows}

    def add(self, kind: str, number: int, seconds: float, curve: Floats) -> None:
        """Appends a line."""
        self.seconds[kind, number], self.curves[kind, number] = seconds, curve
        with self.path.open("a") as file:
            csv.writer(file, lineterminator="\n").writerow([kind, number, f"{seconds:.4f}", *curve.tolist()])


def train(results: Results, tokens: Tokens, kind: str) -> None:
    """Trains what is missing of a kind, from scratch."""
    missing = [number for number in range(len(tokens)) if (kind, number) not in results.curves]
    if not missing:
        return
    evaluator = from_scratch(*KINDS[kind])
    for number in track(missing, kind):
        start, curve = time.thread_time(), []
        for fidelity in evaluator.fidelities:
            curve.append(float(evaluator.evaluate(tokens[[number]], fidelity=fidelity).accuracy[0]))
        results.add(kind, number, time.thread_time() - start, np.array(curve))


def share(results: Results, tokens: Tokens) -> None:
    """Trains the supernet on uniform architectures and scores with it; a killed training starts anew."""
    if ("shared weights", len(tokens) - 1) in results.curves:
        return
    training = {"batch_size": 50, "learning_rate": 0.05, "weight_decay": 1e-4, "affine": True, "score_images": None}
    task, proxy = from_scratch(0, 1).proxy, {**NETWORK, **training}
    evaluator = SharedWeightEvaluator(
        make_space("cell:enas"), task, seed=0, device="cpu", cosine_steps=SUPERNET_STEPS, **proxy
    )
    rng = np.random.default_rng(1)
    start = time.thread_time()
    for _ in track(range(SUPERNET_STEPS), "shared weights"):
        evaluator.update(evaluator.space.sample(rng, ARCHITECTURES_PER_STEP))
    trained = time.thread_time() - start
    accuracies = evaluator.evaluate(tokens).accuracy
    scored = time.thread_time() - start - trained
    results.add("training of the supernet", 0, trained, np.empty(0))
    for number, accuracy in enumerate(accuracies):
        results.add("shared weights", number, scored / len(tokens), np.array([accuracy]))


# ---------------------------------------------------------------------- early stopping, played again


class Replay(Evaluator):
    """Answers from the curves of the full trainings.

    Args:
        tokens: int64[n, T], the architectures.
        curves: float64[n, epochs].
    """

    fidelities = tuple(epoch / EPOCHS for epoch in range(1, EPOCHS + 1))

    def __init__(self, tokens: Tokens, curves: Floats) -> None:
        super().__init__(make_space("cell:enas"))
        made = from_scratch(0, EPOCHS)
        networks = [made.new_network(self.space.architecture(row), made.proxy, 0) for row in tokens]
        parameters = map(float, map(count_parameters, networks))
        rows = zip(curves, parameters, strict=True)
        self.known = dict(zip(map(bytes, tokens), rows, strict=True))

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        """After a share of the epochs."""
        del parents
        epochs = EPOCHS if fidelity is None else round(fidelity * EPOCHS)
        curves, parameters = zip(*(self.known[bytes(row)] for row in tokens), strict=True) if len(tokens) else ((), ())
        accuracy = np.array([curve[epochs - 1] for curve in curves])
        return Evaluations(
            accuracy, {"epochs": np.full(len(tokens), float(epochs)), "parameters": np.array(parameters)}
        )


def stopped(tokens: Tokens, curves: Floats, threshold: float) -> tuple[list[Floats], float, int]:
    """The accuracies told in each order, the mean share of epochs spent, and in how many orders the best was kept."""
    told, spent, kept = [], [], 0
    replay = Replay(tokens, curves)
    for seed in track(range(ORDERS), f"early stopping at {threshold}"):
        order = np.random.default_rng(seed).permutation(len(tokens))
        evaluator = EarlyStoppingEvaluator(replay, seed=seed, complete=COMPLETE, threshold=threshold)
        batches = [evaluator.evaluate(tokens[order[first : first + 5]]) for first in range(0, len(tokens), 5)]
        told.append(concatenate(batches).accuracy[np.argsort(order)])
        spent.append(1 - evaluator.saved)
        kept += bool(evaluator.best == curves[:, -1].max())
    return told, float(np.mean(spent)), kept


# ---------------------------------------------------------------------- the report


@dataclass
class Row:
    """An evaluator.

    Attributes:
        name: what it is.
        seconds: of an architecture.
        told: the accuracies that it tells; several where it was played in several orders.
        note: behind the name.
    """

    name: str
    seconds: float
    told: list[Floats]
    note: str = ""

    def correlation(self, reference: Floats) -> tuple[float, float, float]:
        """Spearman's, and its 95 % interval by resampling the architectures."""

        def mean(index: NDArray[np.int64]) -> float:
            return float(np.mean([stats.spearmanr(told[index], reference[index]).statistic for told in self.told]))

        everything, rng = np.arange(len(reference)), np.random.default_rng(0)
        resampled = [mean(rng.integers(len(reference), size=len(reference))) for _ in range(RESAMPLES)]
        return mean(everything), *np.quantile(resampled, (0.025, 0.975)).tolist()


def rows(results: Results, tokens: Tokens) -> list[Row]:
    """What is compared."""
    n = len(tokens)
    curves = {kind: np.array([results.curves[kind, number] for number in range(n)]) for kind in KINDS}
    seconds = {kind: float(np.mean([results.seconds[kind, number] for number in range(n)])) for kind in KINDS}
    full = seconds["full"]
    shared = np.array([results.curves["shared weights", number][0] for number in range(n)])
    supernet, scoring = results.seconds["training of the supernet", 0], results.seconds["shared weights", 0]
    found = [
        Row(f"full training, {EPOCHS} epochs", full, [curves["full"][:, -1]]),
        Row(f"short training, {SHORT_EPOCHS} epochs", seconds["short"], [curves["short"][:, -1]]),
        Row(
            f"the first {SHORT_EPOCHS} of {EPOCHS} epochs",
            full * SHORT_EPOCHS / EPOCHS,
            [curves["full"][:, SHORT_EPOCHS - 1]],
        ),
    ]
    for threshold in THRESHOLDS:
        told, spent, kept = stopped(tokens, curves["full"], threshold)
        note = f"{1 - spent:.0%} of the epochs saved; the best kept in {kept} of {ORDERS} orders"
        found.append(Row(f"early stopping at {threshold}", full * spent, told, note))
    note = f"{supernet:.0f} s of training for all of them, {scoring:.2f} s of scoring each"
    return [*found, Row("shared weights", supernet / n + scoring, [shared], note)]


def report(results: Results, tokens: Tokens, picture: Path) -> None:
    """Prints the table, in Markdown, and draws the picture."""
    full, again = (
        np.array([results.curves[kind, number][-1] for number in range(len(tokens))]) for kind in ("full", "full again")
    )
    print("| evaluator | seconds | rank correlation with that training | with another full one | |")
    print("|---|---|---|---|---|")
    points = []
    for row in rows(results, tokens):
        same, other = row.correlation(full), row.correlation(again)
        cells = [f"{value:.2f} [{low:.2f}, {high:.2f}]" for value, low, high in (same, other)]
        print(f"| {row.name} | {row.seconds:.2f} | {' | '.join(cells)} | {row.note} |", flush=True)
        points.append((row.name, row.seconds, other))
    draw(points, picture)


def draw(points: list[tuple[str, float, tuple[float, float, float]]], path: Path) -> None:
    """Rank correlation with another full training, an evaluator a line, the dearest on top."""
    from matplotlib.figure import Figure

    points = sorted(points, key=lambda point: point[1])
    values, low, high = np.array([point[2] for point in points]).T
    figure = Figure((7.2, 0.5 * len(points) + 0.8), layout="constrained")
    axes = figure.subplots()
    axes.errorbar(values, range(len(points)), xerr=[values - low, high - values], fmt="o", capsize=3, color="#2563eb")
    axes.set_yticks(range(len(points)), [f"{name}, {seconds:.1f} s" for name, seconds, _ in points])
    axes.set_xlabel("rank correlation with another full training; seconds an architecture")
    axes.axvline(0, color="#7d828c", linewidth=1)
    axes.grid(axis="x", color="#e3e6eb")
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main(
    architectures: int = 60,
    folder: Path = Path("docs/evaluators"),
    picture: Path = Path("docs/pictures/short_trainings.png"),
) -> None:
    """Trains what is missing, prints the table and draws the picture.

    Args:
        architectures: how many.
        folder: where the trainings are kept.
        picture: where it is drawn.
    """
    torch.set_num_threads(1)
    tokens = make_space("cell:enas").sample(np.random.default_rng(0), architectures)
    results = Results(folder / "trainings.csv")
    train(results, tokens, "short")
    train(results, tokens, "full")
    share(results, tokens)
    train(results, tokens, "full again")
    report(results, tokens, picture)


if __name__ == "__main__":
    tyro.cli(main)
