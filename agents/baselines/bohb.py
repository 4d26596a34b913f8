"""BOHB: successive halving whose architectures come from a tree-structured Parzen estimator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nas_gym.agents.baselines.successive_halving import SuccessiveHalving, SuccessiveHalvingHyperparameters
from nas_gym.agents.baselines.tpe import TPEHyperparameters, draw_good, split_trials
from nas_gym.agents.trial import Trials
from nas_gym.spaces import Tokens


@dataclass(frozen=True)
class BOHBHyperparameters(TPEHyperparameters, SuccessiveHalvingHyperparameters):
    """The fields and defaults are those of `TPEHyperparameters` and `SuccessiveHalvingHyperparameters`."""

    def __post_init__(self) -> None:
        TPEHyperparameters.__post_init__(self)
        SuccessiveHalvingHyperparameters.__post_init__(self)


class BOHB(SuccessiveHalving):
    """Begins each bracket of successive halving with architectures that are likely to be good.

    The densities are those of the trials with the largest budget of which there are enough (`TPE`). All architectures
    of a bracket are drawn when it begins, and brackets are all alike, as in `SuccessiveHalving`: BOHB draws each when a
    worker is free, and goes through the brackets of Hyperband.

    Source: Falkner et al. 2018, "BOHB: Robust and Efficient Hyperparameter Optimization at Scale", algorithm 2.

    Raises:
        ValueError: the evaluator has no fidelities, or none as small as 1 / eta.
    """

    Hyperparameters = BOHBHyperparameters
    hyperparameters: BOHBHyperparameters

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        empty = np.empty((0, self.space.length), dtype=np.int64), np.empty(0)
        self._told = [empty for _ in self.rungs]  # the architectures of each rung and their rewards

    def _draw(self, n: int) -> Tokens:
        settings, length = self.hyperparameters, self.space.length
        modelled = [told for told in self._told if split_trials(told[1], length, settings)]
        tokens, rewards = modelled[-1] if modelled else self._told[0]
        tried = {row.tobytes() for row in self._told[0][0]}
        rows = np.empty((n, length), dtype=np.int64)
        for row in rows:
            row[:] = draw_good(self.current_space, tokens, rewards, tried, settings, self.rng)
            tried.add(row.tobytes())
        return rows

    def tell(self, trials: Trials) -> dict[str, float]:
        """Takes in the rewards of its own proposals, each for the density of its rung."""
        for bracket in self._brackets:
            own = trials.rows(np.isin(trials.ids, bracket.ids[bracket.ids >= 0]))
            tokens, rewards = self._told[bracket.rung]
            self._told[bracket.rung] = np.concatenate([tokens, own.tokens]), np.concatenate([rewards, own.rewards])
        return super().tell(trials)

    def state_dict(self) -> dict[str, Any]:
        import torch

        return {**super().state_dict(), "told": [[torch.from_numpy(array) for array in told] for told in self._told]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._told = [(tokens.numpy(), rewards.numpy()) for tokens, rewards in state["told"]]
