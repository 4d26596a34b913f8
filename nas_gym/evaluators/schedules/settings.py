"""The settings of schedules: how many optimiser steps, on how many architectures at once."""

from __future__ import annotations

from dataclasses import dataclass

from nas_gym.settings import check_fields


@dataclass(frozen=True)
class ScheduleSettings:
    """How many optimiser steps, on how many architectures at once.

    Attributes:
        warmup_steps: steps before the first trial is scored.
        architectures_per_step: architectures M whose gradients one step averages (ENAS, section 2.2: M = 1 works). In
            equal time, one ranked better than four in the two spaces tried, with single supernets.
            `fair` and `sandwich` have numbers of their own.
        steps_per_trial: `interleaved`: steps that each finished architecture takes part in before it is scored.
        trials_per_phase: `enas`: trials with frozen weights between two phases of training (ENAS micro: 30 batches
            of 10).
        steps_per_phase: `enas`: steps of a phase of training.
        split: `few-shot`: name of the decision that has a supernet for each of its choices; None takes the first.
        split_after: `few-shot`: share of the warm-up in which they still are one supernet.
    """

    warmup_steps: int = 1500
    architectures_per_step: int = 1
    steps_per_trial: int = 2
    trials_per_phase: int = 300
    steps_per_phase: int = 300
    split: str | None = None
    split_after: float = 0.5

    def __post_init__(self) -> None:
        check_fields(self, "architectures_per_step trials_per_phase", "at least 1", lambda v: v >= 1)
        check_fields(self, "warmup_steps steps_per_trial steps_per_phase", "at least 0", lambda v: v >= 0)
        check_fields(self, "split", "the name of a decision, or None", lambda v: v is None or isinstance(v, str))
        check_fields(self, "split_after", "from 0 to 1", lambda v: 0 <= v <= 1)
