"""Zero-cost proxies: scores of networks with random weights, from one minibatch and no training.

Definitions: Abdelfattah et al. 2021, "Zero-Cost Proxies for Lightweight NAS" (ICLR), as in the authors' code; naswot:
Mellor et al. 2021, "Neural Architecture Search without Training" (ICML), likewise. Weights are those of convolutions
and linear layers. Higher is better for all of them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nas_gym.evaluators.cost import count_flops, count_parameters
from nas_gym.evaluators.evaluator import Evaluations
from nas_gym.evaluators.from_scratch import completed, network_of
from nas_gym.evaluators.task_evaluator import TaskEvaluator
from nas_gym.evaluators.training import memory_reason
from nas_gym.networks import Network, NetworkSettings
from nas_gym.settings import check_fields, unknown
from nas_gym.spaces import Architecture, SearchSpace, Tokens
from nas_gym.tasks import Split, Task
from nas_gym.types import Floats


def synflow(network: nn.Module, task: Task, batch: Split) -> float:
    """Σ |w · ∂R/∂w|, where R is the sum of the outputs for an input of ones with absolute weights (Tanaka et al. 2020).

    In double precision and without batch norm, which would divide the products of weights by themselves.
    """
    linear = copy.deepcopy(network).double().eval()
    for name, module in list(linear.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            linear.set_submodule(name, nn.Identity())
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.abs_()
    weights, ones = weights_of(linear), torch.ones(1, *task.input_shape, dtype=torch.float64, device=task.device)
    return saliency(weights, gradients(linear(ones).sum(), weights))


def snip(network: nn.Module, task: Task, batch: Split) -> float:
    """Σ |w · ∂L/∂w| of the loss L on a minibatch (Lee et al. 2019)."""
    weights = weights_of(network)
    return saliency(weights, gradients(task.loss(network(task.inputs(batch)), batch.targets), weights))


def grad_norm(network: nn.Module, task: Task, batch: Split) -> float:
    """The sum over layers of the norm of ∂L/∂w, of the loss L on a minibatch."""
    found = gradients(task.loss(network(task.inputs(batch)), batch.targets), weights_of(network))
    return float(sum(gradient.norm().double() for gradient in found))


def naswot(network: nn.Module, task: Task, batch: Split) -> float:
    """log det of Σ C Cᵀ + (1 - C) (1 - C)ᵀ over the ReLUs, with C the 0/1 codes of the images, [images, units].

    An entry counts the units on which two images agree. As in the authors' code, a ReLU counts if a gradient reaches
    it, so those on paths that lead nowhere do not.
    """
    with RecordedReLUs() as recorded:
        outputs = network(task.inputs(batch)).sum()
    reached = torch.autograd.grad(outputs, recorded.outputs, allow_unused=True)
    agree = torch.zeros(len(batch), len(batch), dtype=torch.float64, device=task.device)
    for output, gradient in zip(recorded.outputs, reached, strict=True):
        if gradient is not None:
            code = (output.flatten(1) > 0).double()
            agree += code @ code.T + (1 - code) @ (1 - code).T
    return float(torch.linalg.slogdet(agree).logabsdet)


def jacob_cov(network: nn.Module, task: Task, batch: Split) -> float:
    """-Σ (log(v + k) + 1 / (v + k)), v the eigenvalues of the correlations between images of the inputs' gradients."""
    inputs = task.inputs(batch).requires_grad_()
    (jacobian,) = gradients(network(inputs).sum(), [inputs])
    correlations = torch.corrcoef(jacobian.flatten(1).double())
    if not correlations.isfinite().all():
        return math.nan
    shifted = torch.linalg.eigvalsh(correlations) + 1e-5
    return -float((shifted.log() + 1 / shifted).sum())


def parameters(network: nn.Module, task: Task, batch: Split) -> float:
    """The number of parameters."""
    return float(count_parameters(network))


def flops(network: nn.Module, task: Task, batch: Split) -> float:
    """The floating-point operations for one image."""
    return float(count_flops(network, task.input_shape))


PROXIES: dict[str, Callable[[nn.Module, Task, Split], float]] = {
    proxy.__name__: proxy for proxy in (synflow, naswot, jacob_cov, snip, grad_norm, parameters, flops)
}
"""Proxies by name; each takes a network in training mode, the task, and a minibatch of its train split."""


def weights_of(network: nn.Module) -> list[Tensor]:
    """The weights of convolutions and linear layers."""
    return [module.weight for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def gradients(of: Tensor, tensors: list[Tensor]) -> tuple[Tensor, ...]:
    """The gradient with respect to each tensor, zero where it has no influence."""
    return torch.autograd.grad(of, tensors, allow_unused=True, materialize_grads=True)


def saliency(weights: list[Tensor], found: tuple[Tensor, ...]) -> float:
    """The sum of the absolute products of weights and gradients."""
    return float(sum((w.detach() * gradient).abs().double().sum() for w, gradient in zip(weights, found, strict=True)))


class RecordedReLUs(TorchFunctionMode):
    """Keeps the outputs of all ReLUs of weighted inputs in its context, functional calls included."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (F.relu, torch.relu) and out.requires_grad:
            self.outputs.append(out)
        return out


# ---------------------------------------------------------------------- evaluator


@dataclass(frozen=True)
class ZeroCostSettings:
    """Which proxy, and of what network.

    Attributes:
        proxy: one of `PROXIES`.
        images: of the train split, in the minibatch (Mellor et al. 2021: 128).
        network: the macro architecture, or a mapping of fields of `NetworkSettings`.
    """

    proxy: str = "synflow"
    images: int = 128
    network: NetworkSettings = field(default_factory=lambda: NetworkSettings(channels=8))

    def __post_init__(self) -> None:
        if self.proxy not in PROXIES:
            raise ValueError(unknown("proxy", self.proxy, PROXIES))
        check_fields(self, "images", "at least 2", lambda v: v >= 2)
        object.__setattr__(self, "network", completed("network", self.network, NetworkSettings(channels=8)))


class ZeroCostEvaluator(TaskEvaluator):
    """Scores architectures by a proxy, without training.

    The proxy's value is the metric of its name. The accuracy is no accuracy but an increasing function of the value,
    `squashed` to [0, 1], so that every objective and every agent can rank architectures by it; the objective
    ``{"name": "linear", "weights": {"synflow": 1}, "worst": 0}`` takes the value itself. A value that is not finite is
    a failed evaluation. Initial weights and the minibatch depend on the seed alone, so that a value depends on the
    architecture and the seed.

    Args:
        space: the search space.
        task: the task, or its name.
        arguments: those of `TaskEvaluator`; the settings are fields of `ZeroCostSettings`.

    Raises:
        ValueError: an unknown task, device or setting, or a space without networks.
    """

    name = "zero-cost"
    Settings = ZeroCostSettings
    settings: ZeroCostSettings

    def __init__(self, space: SearchSpace, task: Task | str = "digits", **arguments: Any) -> None:
        super().__init__(space, task, **arguments)
        generator = torch.Generator(self.device).manual_seed(self.seed)
        self.batch = self.task.train.take(self.task.order(generator)[: self.settings.images])
        self.new_network(space.architecture(space.sample(np.random.default_rng(0), 1)[0]), self.task, 0)  # complains

    def new_network(self, architecture: Architecture, task: Task, seed: int) -> Network:
        """The network of an architecture for a task, with random weights."""
        return network_of(architecture, task, self.settings.network, seed)

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        """The value of the proxy for int64[B, T], as a metric of its name; repeated architectures are scored once."""
        del fidelity, parents
        self.space.check(tokens)
        keys = [tuple(row) for row in tokens.tolist()]
        known = {key: self._value(self.space.architecture(key)) for key in dict.fromkeys(keys)}
        values = np.array([known[key][0] for key in keys], dtype=np.float64)
        reasons = tuple(known[key][1] for key in keys)
        failed = np.array([reason != "" for reason in reasons], dtype=bool)
        return Evaluations(np.where(failed, 0.0, squashed(values)), {self.settings.proxy: values}, failed, reasons)

    def _value(self, architecture: Architecture) -> tuple[float, str]:
        """The value, NaN where it failed, and the reason why."""
        proxy = self.settings.proxy
        try:
            network = self.new_network(architecture, self.task, self.seed).to(self.device).train()
            value = PROXIES[proxy](network, self.task, self.batch)
        except (RuntimeError, MemoryError) as error:
            return math.nan, memory_reason(error)
        return (value, "") if math.isfinite(value) else (math.nan, f"{proxy} is not finite")


def squashed(values: Floats) -> Floats:
    """(1 + s / (1 + |s|)) / 2 with s = sign(x) log(1 + |x|): increasing, from the real line to [0, 1].

    Proxies range over many orders of magnitude; this keeps them apart in double precision.
    """
    s = np.sign(values) * np.log1p(np.abs(values))
    bounded: Floats = (1 + s / (1 + np.abs(s))) / 2
    return bounded
