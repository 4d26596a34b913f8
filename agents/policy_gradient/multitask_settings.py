"""The hyperparameters of the multi-task agent (Wong et al. 2018)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas_gym.agents.policy_gradient.settings import CONTROLLER_FIELDS as LSTM_FIELDS
from nas_gym.agents.policy_gradient.settings import ControllerHyperparameters
from nas_gym.settings import check_known, field_names

ALGORITHMS = ("reinforce", "ppo")
MODES = ("all", "embedding", "scratch")
CONTROLLER_FIELDS = (*LSTM_FIELDS, "skip")


@dataclass(frozen=True)
class MultiTaskHyperparameters(ControllerHyperparameters):
    """Defaults are those of Wong et al. 2018, "Transfer Learning with Neural AutoML", section 3, where it
    states them.

    Attributes:
        hidden_size: units of the LSTM, half of them at its input for the embedding of the last action, half for that of
            the task (Wong et al.: 50, of 25 and 25).
        layers: layers of the LSTM (Wong et al.: 2).
        learning_rate: of Adam (Wong et al.: 1e-4).
        adam_beta1: Adam's own (Kingma & Ba 2015: 0.9).
        batch_size: an update is due after so many episodes of each task.
        tanh_constant: Wong et al. bound no logits.
        algorithm: ``"reinforce"`` (Williams 1992) makes one step of an update; ``"ppo"`` (Schulman et al. 2017) makes
            `epochs`, with the probability ratios clipped.
        epochs: steps of an update of PPO (Schulman et al. 2017, for Atari, table 5: 3).
        clip_range: of PPO's probability ratios (Schulman et al. 2017, section 6.1: 0.2).
        entropy_weight: of the mean entropy of a decision in the objective (Schulman et al. 2017: 0.01).
        task_embedding: False has all tasks share one embedding, so that the policy cannot distinguish them.
        skip: the LSTM's input joins its output before the softmax (Wong et al., section 3: a skip connection across
            the RNN).
        per_task_normalisation: each task has a baseline and a variance of its own, by which the advantages of its
            episodes are normalised (Wong et al., section 3); False has one baseline and one variance for all tasks.
        moment_decay: of these two, moving averages, an episode at a time.
        moment_prior: a new task's baseline and variance start at the mean of those of the tasks before, which counts as
            so many of its own episodes.
        embedding_spread: a new task's embedding is drawn around the mean of those learned, each coordinate with so
            many of their standard deviations.
        replay_size: of each task so many of its best architectures are kept, whose likelihood each update raises
            (Abolafia et al. 2018; see `ReinforceHyperparameters`); 0 replays none, as in Wong et al.
        replay_weight: of their mean log-likelihood in the objective.
        warm_start_size: so many of the first architectures of a new task are those that seem best for the tasks
            before, among all that were tried on them (see `MultiTask.warm_start`); 0, as in Wong et al., samples from
            the start.
    """

    hidden_size: int = 50
    layers: int = 2
    learning_rate: float = 1e-4
    adam_beta1: float = 0.9
    tanh_constant: float | None = None
    operation_tanh_reduction: float = 1.0
    algorithm: str = "reinforce"
    epochs: int = 3
    clip_range: float = 0.2
    entropy_weight: float = 0.01
    task_embedding: bool = True
    skip: bool = True
    per_task_normalisation: bool = True
    moment_decay: float = 0.95
    moment_prior: float = 5.0
    embedding_spread: float = 1.0
    replay_size: int = 0
    replay_weight: float = 1.0
    warm_start_size: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("task_embedding skip per_task_normalisation", "true or false", lambda v: isinstance(v, bool))
        self._check("lstm", "true: the task is an input of an LSTM", lambda v: v is True)
        self._check("hidden_size", "even: half of it is the task's", lambda v: v % 2 == 0)
        self._check("algorithm", f"one of {', '.join(ALGORITHMS)}", lambda v: v in ALGORITHMS)
        self._check("epochs", "a positive integer", lambda v: isinstance(v, int) and v > 0)
        self._check("replay_size warm_start_size", "an integer, not negative", lambda v: isinstance(v, int) and v >= 0)
        self._check("moment_decay", "in [0, 1)", lambda v: 0 <= v < 1)
        self._check("clip_range", "positive", lambda v: 0 < v < math.inf)
        weights = "entropy_weight moment_prior embedding_spread replay_weight"
        self._check(weights, "finite and not negative", lambda v: 0 <= v < math.inf)


def changed(settings: MultiTaskHyperparameters, changes: Mapping[str, Any], mode: str) -> MultiTaskHyperparameters:
    """The settings with some that differ.

    Raises:
        ValueError: an unknown one, one out of range, or one that a trained controller's form follows from.
    """
    check_known(changes, field_names(type(settings)), "agent 'multitask'", "hyperparameter")
    replaced = dataclasses.replace(settings, **changes)
    fixed = [name for name in CONTROLLER_FIELDS if getattr(replaced, name) != getattr(settings, name)]
    if fixed and mode != "scratch":
        raise ValueError(
            f"a trained controller's {', '.join(fixed)} cannot change; only the mode 'scratch' makes a new one"
        )
    return replaced
