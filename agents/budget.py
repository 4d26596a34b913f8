"""What a search may spend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nas_gym.agents.trial import Trials
from nas_gym.types import Floats


@dataclass
class Budget:
    """What a search may spend: trials and, as benchmarks on tables have it, simulated time.

    The simulated time is what the trials would have taken one after another, by the evaluator's metric ``seconds``.
    The trial that would end beyond the budget is cut, as in the searches of Dong & Yang 2020 ("NAS-Bench-201", 20,000
    seconds); those of NATS-Bench (Dong et al. 2021) keep it.

    Attributes:
        trials: those left.
        seconds: the simulated time in all; None sets no limit.
        clock: the simulated time that has passed.

    Raises:
        ValueError: trials or seconds is negative.
    """

    trials: int
    seconds: float | None = None
    clock: float = 0.0

    def __post_init__(self) -> None:
        if self.trials < 0:
            raise ValueError(f"trials must not be negative, got {self.trials}")
        if self.seconds is not None and not self.seconds >= 0:
            raise ValueError(f"seconds must not be negative, got {self.seconds}")

    @property
    def spent(self) -> bool:
        """Whether there is nothing left for another trial."""
        return self.trials == 0 or (self.seconds is not None and self.clock >= self.seconds)

    def take(self, trials: Trials) -> Trials:
        """Spends on these trials, in their order, and returns those that the budget allows.

        Raises:
            ValueError: there is a limit of seconds, and the evaluator does not report them.
        """
        trials = trials.rows(slice(self.trials))
        if self.seconds is not None:
            # From the last sum on, one by one: the same to the bit however the trials fall into batches.
            clocks = np.cumsum([self.clock, *simulated_seconds(trials.metrics)])[1:]
            trials, self.clock = trials.rows(slice(int((clocks <= self.seconds).sum()))), float(clocks[-1])
        self.trials -= len(trials)
        return trials


def simulated_seconds(metrics: Mapping[str, Floats]) -> Floats:
    """What each trial would have taken, float64[n], by the metric ``seconds``; 0 where it is missing.

    Raises:
        ValueError: there is no such metric.
    """
    if "seconds" not in metrics:
        raise ValueError(
            "a budget of simulated seconds needs an evaluator with the metric 'seconds', such as a table that has the "
            f"seconds of an epoch; the metrics here are {', '.join(metrics) or 'none'}"
        )
    return np.nan_to_num(metrics["seconds"], nan=0.0)
