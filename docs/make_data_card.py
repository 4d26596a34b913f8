"""Writes the data card of the bundled table of NAS-Bench-201 on Fashion-MNIST, with its picture, from the table.

python docs/make_data_card.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.spaces import make_space
from nas_gym.tables import open_table

matplotlib.use("Agg")
import matplotlib.pyplot as plt

NAME, TASK = "bench201-fashion-mnist", "fashion-mnist"
FOLDER = Path(__file__).parent / "tables"
Floats = NDArray[np.float64]


def main() -> None:
    """Writes the page and the picture."""
    table = open_table(NAME)
    task = table.task(TASK)
    valid, test = (np.asarray(array, dtype=np.float64) for array in (task.valid, task.test))
    parameters, flops = (np.asarray(array, dtype=np.float64) for array in (task.parameters, task.flops))
    seconds = np.asarray(task.seconds, dtype=np.float64)
    classes = np.unique(table.rows)
    weights = np.bincount(table.rows, minlength=len(valid)).astype(np.float64)
    assert len(classes) == len(valid)

    twice = ~np.isnan(valid[:, :, -1]).any(axis=1)
    both = valid[twice, :, -1], test[twice, :, -1]
    first = valid[:, 0], test[:, 0]
    evaluator = TabularEvaluator(make_space("bench201"), table=table, task=TASK)
    best = int(np.nanargmax(np.nanmean(valid[:, :, -1], axis=1)))
    top = np.argsort(-first[0][:, -1])[:100]

    def spearman(one: Floats, other: Floats) -> float:
        return float(stats.spearmanr(one, other).statistic)

    noise = float(np.sqrt(((both[0][:, 0] - both[0][:, 1]) ** 2).mean() / 2))
    upper = both[0][:, 0] >= np.quantile(both[0][:, 0], 0.9)
    sequences = valid[table.rows[twice[table.rows]], :, -1]
    settings = table.provenance["settings"]
    training, network = settings["training"], settings["network"]
    numbers = {
        "classes": len(valid),
        "sequences": int(weights.sum()),
        "twice": int(twice.sum()),
        "failed": int(np.isnan(valid[:, 0, -1]).sum()),
    }
    sample = [int(np.flatnonzero(table.rows == best)[0])]
    digits = np.array(np.unravel_index(sample, tuple(make_space("bench201").choice_counts))).T
    lines = [
        f"# {NAME}",
        "",
        f"![Histogram, learning curves, and two seeds]({NAME}.png)",
        "",
        'The table behind `gym.make("NAS-Bench201-v0")`: every architecture of the NAS-Bench-201 space, trained from '
        "scratch on a small proxy of Fashion-MNIST by `nas-gym table build`. `docs/make_data_card.py` generates this "
        "page from the table; the raw results are in `docs/tables/bench201-fashion-mnist/`.",
        "",
        "## Training",
        "",
        f"- {numbers['sequences']:,} sequences of the space fall into {numbers['classes']:,} classes of architectures "
        "that compute the same family of functions; one training per class and seed.",
        f"- Images: {settings['train_images']:,} of Fashion-MNIST's training images for training, "
        f"{settings['score_images']:,} others for validation, {settings['score_images']:,} of its test images for test, "
        f"all resized to {settings['image_size']}x{settings['image_size']} pixels, no augmentation.",
        f"- Network: {network['channels']} channels, {network['cells_per_stage']} cell per stage, "
        f"{network['reductions'] + 1} stages.",
        f"- Training: {training['epochs']} epochs of SGD with batches of {training['batch_size']}, learning rate "
        f"{training['learning_rate']} with cosine annealing, momentum {training['momentum']}, weight decay "
        f"{training['weight_decay']}; on a CPU in float32, one thread. Validation and test accuracy after every epoch.",
        f"- Seed 0 for every class; seed 1 for {numbers['twice']:,} classes drawn at random. The seed determines "
        'initial weights and the order of images. If there are two seeds, `noise="mean"` takes their mean and '
        '`noise="seed"` draws one.',
        "- Seconds are the training thread's processor time per epoch; parameters and flops are of the trained network.",
        f"- Failed trainings: {numbers['failed']}.",
        "",
        "## Content",
        "",
        "| after the last epoch | validation | test |",
        "|---|---|---|",
    ]
    reference = [evaluator.reference(split) for split in ("valid", "test")]
    for row, label in enumerate(("mean over all sequences", "best", "worst")):
        lines.append(f"| {label} | {100 * reference[0][row]:.2f} % | {100 * reference[1][row]:.2f} % |")
    lines += [
        "",
        f"The optimum by validation accuracy is `{make_space('bench201').architecture(digits[0])}`; its test accuracy is "
        f"{100 * np.nanmean(test[best, :, -1]):.2f} %, that of the class of the best test accuracy "
        f"{100 * reference[1][1]:.2f} %. "
        f"{int((first[0][:, -1] >= reference[0][1] - noise).sum())} classes lie within one standard deviation of "
        "training noise below the best validation accuracy.",
        "",
        "## Noise",
        "",
        f"- Two trainings of a class differ in validation accuracy with a standard deviation of {100 * noise:.2f} points "
        "(root mean square of the differences over the square root of 2; "
        f"{100 * float(np.sqrt(((both[0][upper, 0] - both[0][upper, 1]) ** 2).mean() / 2)):.2f} in the best tenth by seed 0). The "
        f"standard deviation between classes is {100 * float(first[0][:, -1].std()):.2f} points.",
        f"- Rank correlation (Spearman) of the two seeds' validation accuracies: {spearman(*both[0].T):.3f} over all "
        f"{numbers['twice']:,} classes, {spearman(*sequences.T):.3f} over their {len(sequences):,} sequences, and "
        f"{spearman(*both[0][upper].T):.3f} within the best tenth by seed 0.",
        f"- Kendall's tau of the two seeds: {float(stats.kendalltau(*both[0].T).statistic):.3f}.",
        f"- Of the 100 best classes by seed 0, those trained twice lost "
        f"{100 * float((first[0][top, -1] - valid[top, 1, -1])[twice[top]].mean()):.2f} points on average with seed 1 "
        f"({int(twice[top].sum())} classes): the top of the table is partly luck.",
        "",
        "## Rank correlations (Spearman, seed 0)",
        "",
        "| validation accuracy after epoch | with final validation accuracy | with final test accuracy |",
        "|---|---|---|",
    ]
    for column, epoch in enumerate(task.epochs):
        final = spearman(first[0][:, column], first[0][:, -1]), spearman(first[0][:, column], first[1][:, -1])
        lines.append(f"| {epoch} | {final[0]:.3f} | {final[1]:.3f} |")
    lines += [
        "",
        f"Final validation accuracy with parameters: {spearman(first[0][:, -1], parameters):.3f}; with "
        f"flops: {spearman(first[0][:, -1], flops):.3f}. A training takes {seconds[:, 0].mean() * len(task.epochs):.2f} "
        f"seconds on average, {seconds[:, 0].min() * len(task.epochs):.2f} to {seconds[:, 0].max() * len(task.epochs):.2f}.",
        "",
        "## Limitations",
        "",
        "- It is a proxy with a few epochs on few small images. It ranks how fast small networks learn, and says little "
        "about the same architectures trained to convergence.",
        "- Most classes have a single training, so their accuracies include its noise, and the optimum is partly the "
        "luckiest training. Classes trained twice are averaged, and so are rarely at the top by luck.",
        "- Architectures of one class share a row, although separate trainings would differ by noise: searches see less "
        "noise between them than there is.",
        f"- Accuracies are multiples of 1/{settings['score_images']:,}, so ties are frequent.",
        "- Seconds were measured on a machine with other load, which slows down processor time through shared caches. They "
        "rank cost well, but are not a benchmark of the machine.",
        "",
        "## Licence",
        "",
        "The table: MIT, as the package. Fashion-MNIST: MIT (Xiao, Rasul & Vollgraf 2017).",
        "",
    ]
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{NAME}.md").write_text("\n".join(lines), encoding="utf-8")
    draw(first[0], first[1], both[0], task.epochs)


def draw(valid: Floats, test: Floats, both: Floats, epochs: tuple[int, ...]) -> None:
    """Three panels: histograms of the last epoch, learning curves by quantile, and seed against seed."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    bins = np.linspace(np.quantile(valid[:, -1], 0.001), valid[:, -1].max(), 60).tolist()
    left.hist(valid[:, -1], bins, label="validation", color="tab:blue")
    left.hist(test[:, -1], bins, label="test", histtype="step", color="tab:orange", linewidth=1.5)
    left.set(xlabel="accuracy after the last epoch", ylabel="classes", title="Accuracy of all classes")
    left.legend(frameon=False)
    for quantile, style in ((0.1, ":"), (0.5, "-"), (0.9, "--"), (1.0, "-.")):
        chosen = np.argsort(valid[:, -1])[round(quantile * (len(valid) - 1))]
        middle.plot(epochs, valid[chosen], style, marker="o", label=f"quantile {quantile:g}", color="tab:blue")
    middle.set(xlabel="epoch", ylabel="validation accuracy", title="Learning curves", xticks=epochs)
    middle.legend(frameon=False)
    right.plot(*both.T, ".", markersize=2, color="tab:blue")
    right.plot([both.min(), 1], [both.min(), 1], color="gray", linewidth=0.8)
    limits = float(np.quantile(both, 0.005)), float(both.max()) + 0.01
    right.set(xlabel="seed 0", ylabel="seed 1", title="Two trainings of a class", xlim=limits, ylim=limits)
    figure.savefig(FOLDER / f"{NAME}.png", dpi=80)


if __name__ == "__main__":
    main()
