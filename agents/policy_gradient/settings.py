"""The hyperparameters that all policy gradients have."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nas_gym.agents.controllers.controller import ChoiceBias
from nas_gym.settings import check_fields

CONTROLLER_FIELDS = ("hidden_size", "layers", "tanh_constant", "operation_tanh_reduction", "temperature", "choice_bias")
"""Hyperparameters that the LSTM controller takes as they are."""
REWARDS = ("raw", "cubed", "tan", "rank")


@dataclass(frozen=True)
class ControllerHyperparameters:
    """The controller and its optimiser. Defaults are those of ENAS micro (Pham et al. 2018, section 3.2 and appendix,
    and the authors' code), but for `adam_epsilon` and `max_grad_norm`.

    Attributes:
        lstm: False takes independent softmaxes in place of the LSTM (Dong & Yang 2020, section 4: REINFORCE).
        hidden_size: units of the LSTM (ENAS: 64; Zoph & Le 2017: 35; ENAS recurrent: 100).
        layers: layers of the LSTM (ENAS: 1; Zoph & Le 2017: 2).
        learning_rate: of Adam (ENAS micro: 3.5e-3; macro 1e-3; Zoph & Le 2017: 6e-4).
        adam_beta1: ENAS's code: 0, no momentum.
        adam_epsilon: Adam's own (Kingma & Ba 2015: 1e-8). ENAS's code has 1e-3, which smothers the small gradients of
            rewards that differ by a few hundredths: over 300 trials the controller then hardly leaves uniform sampling.
        batch_size: an update takes all episodes since the last one, as soon as they are this many
            (ENAS micro: 10; macro: 20).
        tanh_constant: the LSTM's logits are bounded to plus or minus this by a tanh (ENAS micro: 1.10; macro: 1.5;
            recurrent: 2.5); None leaves them unbounded.
        operation_tanh_reduction: the bound of decisions that do not point is divided by this (ENAS micro: 2.5).
        temperature: the LSTM's logits are divided by this before the tanh (ENAS micro: None; recurrent: 5.0).
        max_grad_norm: the gradient's norm is clipped to this; None does not clip. ENAS's code leaves the controller
            unclipped and clips its children at 5.0; NNI's ENAS trainer clips the controller at 5.0.
        choice_bias: priors on choices. ENAS micro's, for its two separable convolutions: a learned bias that starts at
            10 in both cells, and in the normal cell 0.25 added to them and taken from the other operations. It is made
            for thousands of updates, and so not the default: it saturates the tanh.
        reward: what is learned from: ``"raw"`` rewards; ``"cubed"`` (Zoph & Le 2017, section 4.1); ``"tan"``, the
            tangent of reward times pi / 2 (Cai et al. 2018, section 4.1); ``"rank"``, the share of all rewards so far
            that are lower, in [0, 1] (fitness shaping: Wierstra et al. 2014, "Natural Evolution Strategies").
        revisits: False proposes no architecture twice, as long as others are left: what was tried is drawn again, from
            distributions that grow flatter with each refusal (local search without revisits: White et al. 2021).
    """

    lstm: bool = True
    hidden_size: int = 64
    layers: int = 1
    learning_rate: float = 3.5e-3
    adam_beta1: float = 0.0
    adam_epsilon: float = 1e-8
    batch_size: int = 10
    tanh_constant: float | None = 1.10
    operation_tanh_reduction: float = 2.5
    temperature: float | None = None
    max_grad_norm: float | None = 5.0
    choice_bias: tuple[ChoiceBias, ...] = ()
    reward: str = "raw"
    revisits: bool = True

    def __post_init__(self) -> None:
        self._check("lstm revisits", "true or false", lambda v: isinstance(v, bool))
        self._check("hidden_size layers batch_size", "a positive integer", lambda v: isinstance(v, int) and v > 0)
        self._check("learning_rate adam_epsilon operation_tanh_reduction", "positive", lambda v: 0 < v < math.inf)
        bounds = "tanh_constant temperature max_grad_norm"
        self._check(bounds, "positive or None", lambda v: v is None or 0 < v < math.inf)
        self._check("adam_beta1", "in [0, 1)", lambda v: 0 <= v < 1)
        self._check("reward", f"one of {', '.join(REWARDS)}", lambda v: v in REWARDS)
        try:
            biases = tuple(ChoiceBias(**bias) if isinstance(bias, Mapping) else bias for bias in self.choice_bias)
        except TypeError as error:
            raise ValueError(f"choice_bias takes pattern, initial and fixed; got {self.choice_bias!r}") from error
        object.__setattr__(self, "choice_bias", biases)

    def _check(self, names: str, wanted: str, fits: Callable[[Any], bool]) -> None:
        check_fields(self, names, wanted, fits)
