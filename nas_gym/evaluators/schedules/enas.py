"""ENAS's alternation of phases of training and phases of trials."""

from __future__ import annotations

from typing import Any

import numpy as np

from nas_gym.evaluators.evaluator import Evaluations, Evaluator
from nas_gym.evaluators.schedules.settings import ScheduleSettings
from nas_gym.evaluators.schedules.uniform import UniformSchedule
from nas_gym.spaces import Tokens


class EnasSchedule(UniformSchedule):
    """ENAS's alternation (Pham et al. 2018, section 2.2): a phase of training, a phase of trials, and so on.

    The weights train on architectures that the policy played in the phase of trials before; the first phase, the
    warm-up, on uniform ones. Trials are scored with frozen weights. A batch that crosses the end of a phase is
    scored as a whole.
    """

    def __init__(self, evaluator: Evaluator, settings: ScheduleSettings, seed: int = 0) -> None:
        super().__init__(evaluator, settings, seed)
        self.played: Tokens = np.empty((0, evaluator.space.length), dtype=np.int64)
        self.trials_in_phase = 0

    def candidates(self, n: int) -> Tokens:
        return self.played[self.rng.integers(len(self.played), size=n)] if len(self.played) else super().candidates(n)

    def score(self, tokens: Tokens, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        for _ in self.prepare():
            pass
        if self.trials_in_phase == 0:
            self.played = self.played[:0]
        evaluations = super().score(tokens, fidelity, parents)
        self.played = np.concatenate([self.played, tokens])
        self.trials_in_phase += len(tokens)
        if self.trials_in_phase >= self.settings.trials_per_phase:
            self.trials_in_phase = 0
            self.pending_steps = self.settings.steps_per_phase
        return evaluations

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "played": self.played.tolist(), "trials_in_phase": self.trials_in_phase}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.played = np.array(state["played"], dtype=np.int64).reshape(-1, self.evaluator.space.length)
        self.trials_in_phase = int(state["trials_in_phase"])
