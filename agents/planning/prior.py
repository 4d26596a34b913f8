"""The prior of a tree search: a controller that imitates where the visits go."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nas_gym.agents.controllers.controller import Controller
from nas_gym.agents.controllers.lstm import LSTMController
from nas_gym.agents.controllers.softmaxes import IndependentSoftmaxes
from nas_gym.spaces import SearchSpace, Tokens
from nas_gym.types import Floats


class LearnedPrior:
    """A controller that is trained to choose as the search has chosen.

    With N(s, a) visits of choice a after prefix s, its loss at s is that of AlphaZero's policy, the sum over a of
    -N(s, a) / N(s) log p(a | s) (Silver et al. 2017, equation 1). Each path of the search adds one to N along it: the
    mean over paths of the sum of -log p is the sum of these losses, each weighed by its share of the visits.

    Args:
        space: the search space.
        kind: ``"softmaxes"`` or ``"lstm"``.
        learning_rate: of Adam.
        seed: of the initial parameters.
        device: where the controller runs.
    """

    def __init__(self, space: SearchSpace, kind: str, learning_rate: float, seed: int, device: str) -> None:
        generators = [torch.Generator().manual_seed(seed)]
        made: Controller
        if kind == "lstm":
            made = LSTMController(space, generators=generators, hidden_size=32, tanh_constant=None)
        else:
            made = IndependentSoftmaxes(space, generators=generators)
        self.controller, self.device = made.to(device), device
        self.optimizer = torch.optim.Adam(self.controller.parameters(), lr=learning_rate)

    def __call__(self, prefix: Tokens, position: int) -> Floats:
        """The probabilities of the choices after a prefix, float64[A], of int64[T]."""
        tokens = torch.from_numpy(prefix)[None, None].to(self.device)
        where = torch.tensor([[position]], device=self.device)
        return self.controller.next_distribution(tokens, where)[0, 0].double().cpu().numpy()

    def imitate(self, paths: Tokens, depths: NDArray[np.int64]) -> float:
        """One step of the optimiser.

        Args:
            paths: int64[n, T], whole sequences.
            depths: int64[n], how many decisions of each were taken within the tree.

        Returns:
            The loss before it.
        """
        within = torch.from_numpy(np.arange(paths.shape[1]) < depths[:, None]).to(self.device)
        log_probs, _, _ = self.controller.evaluate(torch.from_numpy(paths)[None].to(self.device))
        loss = -log_probs[0].masked_fill(~within, 0.0).sum(1).mean()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.detach())

    def state_dict(self) -> dict[str, Any]:
        """The parameters and the optimiser's state."""
        parts = {"controller": self.controller, "optimizer": self.optimizer}
        return {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to where `state_dict` was taken."""
        self.controller.load_state_dict(state["controller"])
        self.optimizer.load_state_dict(state["optimizer"])
