"""A supernet for each choice of one decision, which share less and so disturb each other less (few-shot NAS)."""

from __future__ import annotations

from typing import Any

from nas_gym.evaluators.evaluator import Evaluator
from nas_gym.evaluators.schedules.fair import fair_sample
from nas_gym.evaluators.schedules.settings import ScheduleSettings
from nas_gym.evaluators.schedules.uniform import UniformSchedule
from nas_gym.settings import unknown
from nas_gym.spaces import Tokens


class FewShotSchedule(UniformSchedule):
    """A warm-up of one supernet, then of one for each choice of a decision; then the weights are frozen.

    Source: Zhao et al. 2021, "Few-Shot Neural Architecture Search": the supernets start from the weights
    of the one. The steps are those of `FairSchedule`, so each of them trains all supernets, each on the architectures
    that hold its choice.

    Raises:
        ValueError: the space has no decision of the name `ScheduleSettings.split`.
    """

    def __init__(self, evaluator: Evaluator, settings: ScheduleSettings, seed: int = 0) -> None:
        super().__init__(evaluator, settings, seed)
        columns = evaluator.space.columns
        name = settings.split if settings.split is not None else next(iter(columns))
        if name not in columns:
            raise ValueError(unknown("decision to split", name, columns))
        self.weights: Any = evaluator.unwrapped
        if not hasattr(self.weights, "split"):
            raise ValueError(f"schedule 'few-shot' needs the evaluator 'shared-weights', got {self.weights!r}")
        self.position = columns[name]
        self.steps_when_split = round(settings.warmup_steps * (1 - settings.split_after))

    def candidates(self, n: int) -> Tokens:
        del n
        if self.pending_steps == self.steps_when_split:
            self.weights.split(self.position)
        return fair_sample(self.evaluator.space, self.rng)
