"""A target for the cost of networks, such as ``flops:2e6``, and the objective and metrics that follow from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from nas_gym.settings import unknown

COUNTS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
SECONDS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}
UNITS = {"parameters": COUNTS, "flops": COUNTS, "latency": SECONDS}
"""The units of each metric that can have a target; no unit means a count, or seconds."""


@dataclass(frozen=True)
class Target:
    """The cost that the networks of a search are to have.

    Attributes:
        metric: ``parameters``, ``flops`` or ``latency``.
        value: a count, or seconds.
    """

    metric: str
    value: float

    @classmethod
    def parse(cls, text: str) -> Target:
        """Reads ``METRIC:VALUE``, such as ``flops:2e6``, ``parameters:50k`` or ``latency:5ms``.

        Raises:
            ValueError: the metric or the unit is unknown, or the value is not a positive number.
        """
        if not isinstance(text, str) or ":" not in text:
            raise ValueError(f"target must be METRIC:VALUE, such as flops:2e6 or latency:5ms, got {text!r}")
        metric, _, amount = text.partition(":")
        if metric not in UNITS:
            raise ValueError(unknown("metric of target", metric, UNITS))
        number = amount.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ%µ")
        unit = amount[len(number) :]
        try:
            value = float(number)
        except ValueError:
            raise ValueError(f"target must have a number behind {metric}:, got {amount!r}") from None
        if unit not in UNITS[metric]:
            known = ", ".join(filter(None, UNITS[metric]))
            raise ValueError(f"target of {metric} must be a number, or one with a unit among {known}; got {amount!r}")
        value *= UNITS[metric][unit]
        if not 0 < value < math.inf:
            raise ValueError(f"target of {metric} must be a positive number, got {amount!r}")
        return cls(metric, value)

    @property
    def objective(self) -> dict[str, Any]:
        """MnasNet's objective with this target, in the variant that gains nothing from a cost below it.

        The exponents are 0 up to the target and -1 beyond it (Tan et al. 2019, figure 3).
        """
        return {
            "name": "soft-constraint",
            "metric": self.metric,
            "target": self.value,
            "exponent": -1.0,
            "exponent_below": 0.0,
        }
