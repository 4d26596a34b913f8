"""Writes docs/pictures/search.gif: the best cell so far of a search on a table, beside its accuracy.

python docs/make_search_animation.py
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from make_environment_pages import gif

from nas_gym.agents import SearchResult, make_agent
from nas_gym.envs.rendering import draw
from nas_gym.experiments.plotting import BASELINE, SERIES, STYLE

matplotlib.use("Agg")
import matplotlib.pyplot as plt

FILE = Path(__file__).parent / "pictures" / "search.gif"
AGENT, ENVIRONMENT, TRIALS, SEED = "ppo", "NAS-Bench201-v0", 150, 0


def main() -> None:
    """Searches, and writes a frame for every ten trials."""
    result = make_agent(AGENT, ENVIRONMENT, seed=SEED).learn(TRIALS)
    FILE.write_bytes(gif([frame(result, trials) for trials in range(10, TRIALS + 1, 10)]))


def frame(result: SearchResult, trials: int) -> Image.Image:
    """The best cell of the first trials, and what all of them have earned."""
    best = result.rows(slice(trials)).best
    with matplotlib.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.5), width_ratios=(1, 1.2), layout="constrained")
        left.imshow(pixels(draw(result.space.graph(best))))
        left.set_axis_off()
        left.set_title(f"best of {trials} cells")
        earned = 100 * result.rewards[:trials]
        right.plot(np.arange(1, trials + 1), earned, ".", color=BASELINE, alpha=0.5)
        right.step(np.arange(1, trials + 1), np.maximum.accumulate(earned), where="post", color=SERIES[0], lw=2)
        right.set(xlim=(0, TRIALS), ylim=(76, 85), xlabel="trials", ylabel="validation accuracy, %")
        file = io.BytesIO()
        figure.savefig(file, dpi=90)
        plt.close(figure)
    return Image.open(file).convert("RGB")


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """A figure as uint8[rows, columns, 4]."""
    figure.set_dpi(150)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())


if __name__ == "__main__":
    main()
