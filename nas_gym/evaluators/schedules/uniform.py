"""Single path, uniform sampling: the weights train on uniform draws, then every trial is scored with them (SPOS)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from nas_gym.evaluators.evaluator import Evaluator, Schedule
from nas_gym.evaluators.ranking_quality import RankingQuality
from nas_gym.evaluators.schedules.settings import ScheduleSettings
from nas_gym.spaces import Tokens


class UniformSchedule(Schedule):
    """A warm-up on architectures drawn uniformly, never by a policy; then the weights are frozen.

    Source: Guo et al. 2020, "Single Path One-Shot Neural Architecture Search with Uniform Sampling". With
    ``architectures_per_step=1`` each step trains a single path, as there.

    Args:
        evaluator: a stateful evaluator.
        settings: numbers of steps.
        seed: of the draws of architectures.

    Attributes:
        pending_steps: steps that are due before the next architectures can be scored.
    """

    def __init__(self, evaluator: Evaluator, settings: ScheduleSettings, seed: int = 0) -> None:
        super().__init__(evaluator)
        self.settings = settings
        self.rng = np.random.default_rng(seed)
        self.pending_steps = settings.warmup_steps
        self.ranking = RankingQuality(evaluator, seed)
        evaluator.unwrapped.plan_updates(settings.warmup_steps)

    def candidates(self, n: int) -> Tokens:
        """The architectures of the next pending step: n of them, int64[n, T], unless a schedule has its own number."""
        return self.evaluator.space.sample(self.rng, n)

    def prepare(self) -> Iterator[dict[str, float]]:
        while self.pending_steps:
            statistics = self.evaluator.update(self.candidates(self.settings.architectures_per_step))
            self.pending_steps -= 1
            if not self.pending_steps:
                statistics = {**statistics, **self.quality()}
            yield {**statistics, "pending_steps": float(self.pending_steps)}

    def quality(self) -> dict[str, float]:
        return self.ranking.measure()

    def state_dict(self) -> dict[str, Any]:
        # The generator's state holds 128-bit integers, which only text keeps everywhere.
        generator = json.dumps(self.rng.bit_generator.state)
        return {**super().state_dict(), "pending_steps": self.pending_steps, "rng": generator}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.pending_steps = int(state["pending_steps"])
        self.rng.bit_generator.state = json.loads(state["rng"])
        self.ranking = RankingQuality(self.evaluator, self.ranking.seed)  # what it knows is of other weights
