"""Evaluators that know several fidelities, for tests: a function, and a table with learning curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nas_gym.evaluators import Evaluations, FunctionEvaluator
from nas_gym.spaces import Bench201Space, SearchSpace, Tokens
from nas_gym.tables import TaskTable, class_rows, save_table

TABLE_SPACE = Bench201Space(nodes=3)  # 125 sequences
EPOCHS = (1, 3, 9)


def scramble(tokens: Tokens) -> np.ndarray:
    """A number in [0, 1) for each sequence, without pattern, and the same alone and in a batch."""
    digest = np.full(len(tokens), 17, dtype=np.int64)
    for column in tokens.T:
        digest = (digest * 1_000_003 + column + 1) % 1_000_000_007
    return digest / 1_000_000_007


class CurvesEvaluator(FunctionEvaluator):
    """Another score with every fidelity, a second for a ninth of the budget; some fail. It keeps what it was asked."""

    fidelities = (1 / 9, 1 / 3, 1.0)

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space)
        self.batches: list[tuple[Tokens, float | None]] = []

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        assert fidelity is None or fidelity in self.fidelities[:-1]
        self.space.check(tokens)
        self.batches.append((tokens, fidelity))
        share = 1.0 if fidelity is None else fidelity
        accuracy = (scramble(tokens) + share) % 1.0
        failed = accuracy < 0.1
        return Evaluations(np.where(failed, 0.0, accuracy), {"seconds": np.full(len(tokens), 9 * share)}, failed)


def curves_table(path: Path, tasks: tuple[str, ...] = ("curves",), seconds: bool = True) -> Path:
    """A table of 125 architectures after 1, 3 and 9 epochs, whose order changes from one to the next."""
    rows, classes = class_rows(TABLE_SPACE)
    rng = np.random.default_rng(1)
    final = rng.random(len(classes))
    curves = np.stack(
        [0.5 * final + 0.5 * rng.random(len(classes)), 0.8 * final + 0.2 * rng.random(len(classes)), final]
    )
    task = TaskTable(
        valid=curves.T[:, None, :].copy(),
        test=curves.T[:, None, :] ** 2,
        epochs=EPOCHS,
        seconds=1 + rng.random(len(classes)) if seconds else None,
        parameters=np.arange(len(classes)),
    )
    save_table(path, TABLE_SPACE, rows, dict.fromkeys(tasks, task), {})
    return path
