"""The loop of the agents that train a network of all architectures at once: an epoch, a cell, a trial."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from nas_gym.agents.agent import Agent
from nas_gym.agents.differentiable.selection import by_removal
from nas_gym.agents.trial import Proposal, Trials
from nas_gym.evaluators.relaxed import RelaxedEvaluator
from nas_gym.settings import check_fields
from nas_gym.spaces import Tokens
from nas_gym.spaces.edges import Edges
from nas_gym.types import Floats

BETAS = (0.5, 0.999)
"""Of Adam (Liu et al. 2019, appendix A.1.1)."""

SELECTIONS = ("strength", "removal")


@dataclass(frozen=True)
class RelaxedHyperparameters:
    """What all agents of relaxed networks have.

    Attributes:
        horizon: trials of the search, which schedules go by; where it is not given, those of the run (Liu et al. 2019,
            appendix A.1.1: 50 epochs).
        steps_per_trial: of the weights before each trial; None takes an epoch of the half that they learn from.
    """

    horizon: int = 50
    steps_per_trial: int | None = None

    def __post_init__(self) -> None:
        self._check("horizon", "a positive integer", lambda v: v > 0)
        self._check("steps_per_trial", "a positive integer, or None", lambda v: v is None or v > 0)

    def _check(self, names: str, wanted: str, fits: Callable[[Any], bool]) -> None:
        check_fields(self, names, wanted, fits)


class RelaxedAgent(Agent):
    """Trains a relaxed network, and after each epoch tries the architecture that it would end with.

    A trial is scored like any other, with the weights as they are then.

    Attributes:
        evaluator: the relaxed network, its weights and data.
        edges: of its space.
        epoch: trials that were proposed so far.
    """

    Hyperparameters: ClassVar[type[Any]] = RelaxedHyperparameters
    relaxed = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        evaluator = self.problem.evaluator.unwrapped
        assert isinstance(evaluator, RelaxedEvaluator)
        self.evaluator: RelaxedEvaluator = evaluator
        self.edges: Edges = evaluator.edges
        self.steps_per_trial = self.hyperparameters.steps_per_trial or evaluator.steps_per_epoch
        evaluator.plan_updates(self.hyperparameters.horizon * self.steps_per_trial)
        self.epoch = 0
        self._done = 0  # steps of the epoch

    @property
    def progress(self) -> float:
        """How much of the horizon is over, in [0, 1]."""
        horizon: int = self.hyperparameters.horizon
        return min(self.epoch / horizon, 1.0)

    # ------------------------------------------------------------------ what a subclass says

    @abstractmethod
    def train(self) -> dict[str, float]:
        """One step of the weights, and of what else there is; returns scalars to log."""

    @abstractmethod
    def derive(self) -> Tokens:
        """The architecture int64[T] that the search would end with now."""

    # ------------------------------------------------------------------ the loop

    def prepare(self) -> Iterator[dict[str, float]]:
        """The steps that are left of the epoch."""
        while self._done < self.steps_per_trial:
            statistics = self.train()
            self._done += 1
            yield {**statistics, "pending_steps": float(self.steps_per_trial - self._done)}

    def ask(self, n: int) -> Proposal:
        """Trains for n epochs, or what is left of the first of them; proposes what each of them ends with."""
        found = []
        for _ in range(n):
            for _ in self.prepare():
                pass
            found.append(self.derive())
            self.epoch, self._done = self.epoch + 1, 0
        return self.propose(np.array(found, dtype=np.int64).reshape(n, self.space.length))

    def tell(self, trials: Trials) -> dict[str, float]:
        """Learns nothing from scores: the agent has gradients."""
        del trials
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "epoch": self.epoch, "done": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.epoch, self._done = int(state["epoch"]), int(state["done"])


@dataclass(frozen=True)
class DifferentiableHyperparameters(RelaxedHyperparameters):
    """What all agents that descend the gradient of a mixture have.

    Attributes:
        learning_rate: of Adam for the architecture's parameters (Liu et al. 2019, appendix A.1.1: 3e-4).
        weight_decay: of Adam (appendix A.1.1: 1e-3).
        initial_mean: of the architecture's parameters.
        initial_deviation: of them (the authors' code: 1e-3).
        max_skips: identities in each cell at most (Chen et al. 2019, P-DARTS: 2); None sets no limit.
        selection: which operation of an edge is taken: that of most ``"strength"``, by the method's own weights; or the
            one whose ``"removal"`` costs most (Wang et al. 2021, DARTS-PT).
    """

    learning_rate: float = 3e-4
    weight_decay: float = 1e-3
    initial_mean: float = 0.0
    initial_deviation: float = 1e-3
    max_skips: int | None = None
    selection: str = "strength"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("learning_rate", "positive", lambda v: 0 < v < math.inf)
        self._check("weight_decay initial_deviation", "finite and not negative", lambda v: 0 <= v < math.inf)
        self._check("initial_mean", "finite", math.isfinite)
        self._check("max_skips", "an integer, not negative, or None", lambda v: v is None or v >= 0)
        self._check("selection", f"one of {', '.join(SELECTIONS)}", lambda v: v in SELECTIONS)


class DifferentiableAgent(RelaxedAgent):
    """Owns parameters of each operation on each edge, makes a mixture of them, and descends its gradient.

    The loop is that of DARTS of first order: in a step, the parameters descend the loss of a held-out minibatch, then
    the weights that of a training minibatch.

    Attributes:
        parameters: float64[E, O], which Adam changes.
    """

    Hyperparameters: ClassVar[type[Any]] = DifferentiableHyperparameters

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings = self.hyperparameters
        drawn = self.rng.normal(settings.initial_mean, settings.initial_deviation, self.edges.shape)
        self.parameters = torch.from_numpy(drawn).requires_grad_()
        self.optimiser = torch.optim.Adam(
            [self.parameters], settings.learning_rate, BETAS, weight_decay=settings.weight_decay
        )

    def mixture(self) -> Tensor:
        """The weights of the operations, float64[E, O], as a function of the parameters; drawn, where it is random."""
        return torch.softmax(self.parameters, dim=1)

    def strengths(self) -> Floats:
        """By which an architecture is derived, and that are logged: float64[E, O]."""
        strengths: Floats = torch.softmax(self.parameters, dim=1).detach().numpy()
        return strengths

    def train(self) -> dict[str, float]:
        mixture = self.mixture()
        loss, gradient = self.evaluator.mixture_gradient(as_array(mixture))
        self.descend(mixture, gradient)
        statistics, _ = self.evaluator.relaxed_step(as_array(self.mixture()))
        return {**statistics, "train/held_out_loss": loss}

    def descend(self, mixture: Tensor, gradient: Floats, penalty: Tensor | None = None) -> None:
        """One step of the parameters, unless the gradient is not finite.

        Args:
            mixture: float64[E, O], as a function of the parameters.
            gradient: of the loss by the mixture, float64[E, O].
            penalty: what is added to the loss, float64[].
        """
        self.optimiser.zero_grad()
        mixture.backward(torch.from_numpy(gradient), retain_graph=penalty is not None)  # type: ignore[no-untyped-call]
        if penalty is not None:
            penalty.backward()  # type: ignore[no-untyped-call]
        if self.parameters.grad is not None and torch.isfinite(self.parameters.grad).all():
            self.optimiser.step()

    def derive(self) -> Tokens:
        settings, strengths = self.hyperparameters, self.strengths()
        if settings.selection == "removal":
            strengths = by_removal(self.evaluator, strengths, self.rng)
        return self.edges.tokens_with_skips(strengths, settings.max_skips)

    def tell(self, trials: Trials) -> dict[str, float]:
        """Returns the strengths as scalars, ``mixture/EDGE/OPERATION``."""
        del trials
        strengths = self.strengths()
        return {
            f"mixture/{edge}/{operation}": float(strengths[row, column])
            for row, edge in enumerate(self.edges.names)
            for column, operation in enumerate(self.edges.operations)
        }

    def gumbel(self) -> Tensor:
        """Standard Gumbel noise, float64[E, O]."""
        return torch.from_numpy(self.rng.gumbel(size=self.edges.shape))

    def state_dict(self) -> dict[str, Any]:
        adam = {name: value.clone() for name, value in self.optimiser.state.get(self.parameters, {}).items()}
        return {**super().state_dict(), "parameters": self.parameters.detach().clone(), "adam": adam}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        with torch.no_grad():
            self.parameters.copy_(state["parameters"])
        adam = {name: value.clone() for name, value in state["adam"].items()}
        self.optimiser.state.clear()
        if adam:
            self.optimiser.state[self.parameters] = adam


def as_array(mixture: Tensor) -> Floats:
    """The numbers of a mixture."""
    numbers: Floats = mixture.detach().numpy().copy()
    return numbers
