"""The cost of networks: parameters, floating-point operations, and measured latency."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nas_gym.evaluators.evaluator import Evaluations, Evaluator
from nas_gym.spaces import Architecture, Tokens
from nas_gym.types import Floats


def count_parameters(network: nn.Module) -> int:
    """The number of trainable parameters, without those of an auxiliary classifier, which is used in training only."""
    return sum(tensor.numel() for name, tensor in network.named_parameters() if not name.startswith("auxiliary_head."))


def count_flops(network: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Floating-point operations of one input's forward: twice the multiply-adds of convolutions and linear layers.

    Normalisation, pooling, activations and sums are not counted, as usual.

    Args:
        network: of one architecture.
        input_shape: of one input.
    """
    counter = MultiplyAdds()
    with _scoring(network), counter:
        network(torch.zeros(1, *input_shape, device=_device(network)))
    return 2 * counter.total


class MultiplyAdds(TorchFunctionMode):
    """Counts the multiply-adds of all convolutions and linear layers in its context, functional calls included."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (F.conv2d, F.linear):
            weight: Tensor = args[1]
            self.total += weight[0].numel() * out.numel()  # one row of the weights per output value
        return out


@dataclass(frozen=True)
class LatencySettings:
    """Settings of latency measurements.

    Attributes:
        batch_size: images per forward pass (Tan et al. 2019, "MnasNet", section 5: 1, on a phone).
        threads: CPU threads; None takes PyTorch's number.
        warmup: forward passes before timing: the first ones allocate memory and select kernels.
        repeats: timed forward passes; their median is robust against other load on the machine.
    """

    batch_size: int = 1
    threads: int | None = None
    warmup: int = 3
    repeats: int = 15

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("threads", 1), ("warmup", 0), ("repeats", 1)):
            value = getattr(self, name)
            if not (name == "threads" and value is None) and (not isinstance(value, int) or value < least):
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")


def measure_latency(network: nn.Module, input_shape: tuple[int, ...], settings: LatencySettings | None = None) -> float:
    """Seconds of a forward, in single precision, on the device where the network is: the median over repetitions.

    On CUDA, every repetition synchronises with the device before the clock is read.

    Args:
        network: of one architecture.
        input_shape: of one input.
        settings: how it is measured.
    """
    settings = settings or LatencySettings()
    device = _device(network)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(settings.batch_size, *input_shape, generator=generator).to(device)
    seconds = []
    with _scoring(network), _threads(settings.threads):
        for _ in range(settings.warmup + settings.repeats):
            _synchronise(device)
            start = time.perf_counter()
            network(images)
            _synchronise(device)
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[settings.warmup :])


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


@contextmanager
def _scoring(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, within the context."""
    training = network.training
    try:
        with torch.inference_mode():
            network.eval()
            yield
    finally:
        network.train(training)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Sets PyTorch's number of threads within the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# ---------------------------------------------------------------------- evaluator

METRICS = ("parameters", "flops", "latency")


class CostEvaluator(Evaluator):
    """Adds the cost of networks to the metrics of an evaluator, and fails architectures that exceed a limit.

    The costs are those of the networks that the evaluator makes, for examples of the size that the task has. An
    architecture whose measured costs exceed a limit is not evaluated at all, which saves its training.

    Each architecture is measured once, so its latency stays the same throughout a search. Being a measurement, it is
    slightly different in another search.

    Args:
        evaluator: the evaluator of the architectures. To measure costs, it must have networks; limits on metrics that
            it reports itself, as tables do, need none.
        metrics: some of ``"parameters"``, ``"flops"`` (of one image) and ``"latency"`` (seconds of a batch, on the
            evaluator's device).
        limits: upper limits of metrics, by name; an architecture above a limit is a failed evaluation.
        latency: fields of `LatencySettings`.

    Raises:
        ValueError: a metric or field is unknown, or the evaluator has no networks; during evaluation, if a limit is set
            on a metric that is not reported.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        *,
        metrics: Iterable[str] = ("parameters", "flops"),
        limits: Mapping[str, float] | None = None,
        latency: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(evaluator.space)
        self.evaluator, self.metrics, self.limits = evaluator, tuple(metrics), dict(limits or {})
        self.stateful, self.fidelities = evaluator.stateful, evaluator.fidelities
        self.part_size = evaluator.part_size
        if unknown := [name for name in self.metrics if name not in METRICS]:
            raise ValueError(f"metrics must be some of {', '.join(METRICS)}; got {unknown}")
        if self.metrics and not hasattr(evaluator.unwrapped, "new_network"):
            raise ValueError(
                f"metrics {list(self.metrics)} are measured on networks, of which {type(evaluator.unwrapped).__name__} "
                "has none; metrics=() sets limits on the metrics that it reports itself"
            )
        for name, limit in self.limits.items():
            if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 0:
                raise ValueError(f"limits[{name!r}] must be a number that is not negative, got {limit!r}")
        try:
            self.latency = LatencySettings(**(latency or {}))
        except TypeError as error:
            known = ", ".join(LatencySettings.__dataclass_fields__)
            raise ValueError(f"latency must hold fields among {known}; got {dict(latency or {})}") from error
        self._known: dict[tuple[int, ...], tuple[float, ...]] = {}

    @property
    def unwrapped(self) -> Evaluator:
        return self.evaluator.unwrapped

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        """Evaluates with additional metrics; architectures above a limit fail."""
        costs = dict(zip(self.metrics, self._costs(tokens).T, strict=True))
        fits = ~np.array([bool(excess) for excess in self._excesses(costs, len(tokens))], dtype=bool)
        scored = self.evaluator.evaluate(
            tokens[fits], fidelity=fidelity, parents=None if parents is None else parents[fits]
        )
        metrics = {**{name: _spread(column, fits, np.nan) for name, column in scored.metrics.items()}, **costs}
        if unknown := [name for name in self.limits if name not in metrics]:
            raise ValueError(f"limits are set on {unknown}, but the metrics are {', '.join(metrics) or 'none'}")
        excesses = self._excesses(metrics, len(tokens))  # now including the evaluator's own metrics
        own = _spread(np.array(scored.reasons, dtype=object), fits, "")
        failed = _spread(scored.failed, fits, True) | np.array([bool(excess) for excess in excesses], dtype=bool)
        accuracy = np.where(failed, 0.0, _spread(scored.accuracy, fits, 0.0))
        reasons = [excess or reason for excess, reason in zip(excesses, own, strict=True)]
        return Evaluations(accuracy, metrics, failed, tuple(reasons))

    def _excesses(self, metrics: Mapping[str, Floats], n: int) -> list[str]:
        """For each of n architectures, the limit that it exceeds as text; empty if it exceeds none of these metrics."""
        reasons = [""] * n
        for name, limit in self.limits.items():
            if name not in metrics:
                continue
            for row in np.flatnonzero(metrics[name] > limit):
                reasons[row] = f"{name} {metrics[name][row]:,.6g} is over the limit of {limit:,.6g}"
        return reasons

    def _costs(self, tokens: Tokens) -> Floats:
        """float64[B, metrics]."""
        keys = [tuple(row) for row in tokens.tolist()]
        for key in keys:
            if self.metrics and key not in self._known:
                self._known[key] = self._measured(self.space.architecture(key))
        costs = [self._known.get(key, ()) for key in keys]
        return np.array(costs, dtype=np.float64).reshape(len(keys), len(self.metrics))

    def _measured(self, architecture: Architecture) -> tuple[float, ...]:
        evaluator: Any = self.evaluator.unwrapped
        shape = evaluator.task.input_shape
        network = evaluator.new_network(architecture, evaluator.task, 0)
        measures: dict[str, Callable[[], float]] = {
            "parameters": lambda: count_parameters(network),
            "flops": lambda: count_flops(network, shape),
            "latency": lambda: measure_latency(network.to(evaluator.device), shape, self.latency),
        }
        return tuple(float(measures[name]()) for name in self.metrics)

    def fingerprint(self) -> dict[str, Any]:
        """The evaluator's fingerprint, with the metrics and the limits.

        Raises:
            ValueError: latency is measured, which is not reproducible.
        """
        if "latency" in self.metrics:
            raise ValueError("latency is measured anew in every search: store the evaluator that CostEvaluator wraps")
        own = {"metrics": list(self.metrics), "limits": self.limits}
        return {"evaluator": "cost", **own, "of": self.evaluator.fingerprint()}

    # ------------------------------------------------------------------ delegation

    def update(self, tokens: Tokens) -> dict[str, float]:
        return self.evaluator.update(tokens)

    def state_dict(self) -> dict[str, Any]:
        """The evaluator's state and the measured costs, since a latency cannot be reproduced."""
        known = [[list(key), list(costs)] for key, costs in self._known.items()]
        return {"evaluator": self.evaluator.state_dict(), "known": known}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.evaluator.load_state_dict(state["evaluator"])
        self._known = {tuple(key): tuple(costs) for key, costs in state["known"]}


def _spread(column: NDArray[Any], rows: NDArray[np.bool_], absent: Any) -> NDArray[Any]:
    """Expands a column of some rows to all rows."""
    spread = np.full(len(rows), absent, dtype=column.dtype)
    spread[rows] = column
    return spread
