"""When shared weights train: interleaved with the trials, or in ENAS's alternating phases."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas_gym.evaluators.evaluator import Evaluations, Evaluator, Schedule
from nas_gym.settings import check_seed, from_mapping, unknown
from nas_gym.spaces import Tokens


@dataclass(frozen=True)
class ScheduleSettings:
    """How many optimiser steps, on how many architectures at once.

    Attributes:
        warmup_steps: steps on architectures drawn uniformly, before the first trial is scored.
        architectures_per_step: architectures M whose gradients one step averages (ENAS, section 2.2: M = 1 works; a
            batch costs little more, since each shared operation runs once for all of them).
        steps_per_trial: `interleaved`: steps that each finished architecture takes part in before it is scored.
        trials_per_phase: `enas`: trials with frozen weights between two phases of training (ENAS micro: 30 batches
            of 10).
        steps_per_phase: `enas`: steps of a phase of training.
    """

    warmup_steps: int = 200
    architectures_per_step: int = 4
    steps_per_trial: int = 2
    trials_per_phase: int = 300
    steps_per_phase: int = 300

    def __post_init__(self) -> None:
        for name in ("architectures_per_step", "trials_per_phase"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("warmup_steps", "steps_per_trial", "steps_per_phase"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


class InterleavedSchedule(Schedule):
    """A warm-up on uniform architectures, then every finished batch trains the weights before it is scored.

    Args:
        evaluator: a stateful evaluator.
        settings: numbers of steps.
        seed: of the draws of architectures.
    """

    def __init__(self, evaluator: Evaluator, settings: ScheduleSettings, seed: int = 0) -> None:
        super().__init__(evaluator)
        self.settings = settings
        self.rng = np.random.default_rng(seed)
        self.pending_steps = settings.warmup_steps

    def candidates(self, n: int) -> Tokens:
        """The architectures of the next pending step."""
        return self.evaluator.space.sample(self.rng, n)

    def prepare(self) -> Iterator[dict[str, float]]:
        while self.pending_steps:
            statistics = self.evaluator.update(self.candidates(self.settings.architectures_per_step))
            self.pending_steps -= 1
            yield {**statistics, "pending_steps": float(self.pending_steps)}

    def score(self, tokens: Tokens, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        for _ in self.prepare():
            pass
        size = self.settings.architectures_per_step
        steps = []
        for _ in range(self.settings.steps_per_trial):
            shuffled = self.rng.permutation(tokens)
            steps += [self.evaluator.update(shuffled[first : first + size]) for first in range(0, len(tokens), size)]
        self._statistics = {
            name: float(np.mean([step[name] for step in steps])) for name in (steps[0] if steps else ())
        }
        return super().score(tokens, fidelity, parents)

    def state_dict(self) -> dict[str, Any]:
        # The generator's state holds 128-bit integers, which only text keeps everywhere.
        generator = json.dumps(self.rng.bit_generator.state)
        return {**super().state_dict(), "pending_steps": self.pending_steps, "rng": generator}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.pending_steps = int(state["pending_steps"])
        self.rng.bit_generator.state = json.loads(state["rng"])


class EnasSchedule(InterleavedSchedule):
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
        evaluations = Schedule.score(self, tokens, fidelity, parents)
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


SCHEDULES: dict[str, Callable[[Evaluator, ScheduleSettings, int], Schedule]] = {
    "interleaved": InterleavedSchedule,
    "enas": EnasSchedule,
}


def make_schedule(spec: Schedule | str | Mapping[str, Any], evaluator: Evaluator) -> Schedule:
    """Makes the schedule of an evaluator.

    Args:
        spec: a schedule; ``"interleaved"`` or ``"enas"``; or a mapping with ``name``, ``seed`` and the fields of
            `ScheduleSettings`. An evaluator that `update` does not train is never trained, whatever the name.
        evaluator: what it trains and scores with.

    Raises:
        ValueError: an unknown name or field.
    """
    if isinstance(spec, Schedule):
        return spec
    fields: dict[str, Any] = {"name": spec} if isinstance(spec, str) else dict(spec)
    name, seed = fields.pop("name", "interleaved"), fields.pop("seed", 0)
    if name not in SCHEDULES:
        raise ValueError(unknown("schedule", name, SCHEDULES))
    check_seed(seed, "seed of the schedule")
    settings = from_mapping(ScheduleSettings, fields, f"schedule {name!r}", "field")
    return SCHEDULES[name](evaluator, settings, seed) if evaluator.has_shared_weights else Schedule(evaluator)
