"""A controller without memory: one softmax per decision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas_gym.agents.controllers.controller import Controller, _score_choices, masked
from nas_gym.spaces import SearchSpace


class IndependentSoftmaxes(Controller):
    """One free logit a choice, whatever the other decisions are: REINFORCE's policy in NAS-Bench-201.

    Its features are which decision it is, so that a critic on them is one learned value a decision.

    Source: Dong & Yang 2020, "NAS-Bench-201", section 4 and the authors' code: logits that start near zero.

    Args:
        space: the search space.
        generators: sources of the initial parameters (on the CPU), one a policy.
    """

    def __init__(self, space: SearchSpace, *, generators: Sequence[torch.Generator]) -> None:
        super().__init__(space, len(generators))
        self.feature_size = space.length
        self.logits = nn.Parameter(torch.empty(self.policies, space.length, space.num_choices))
        self._initialise(generators, 1e-3)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        generators: Sequence[torch.Generator | None],
        *,
        deterministic: bool = False,
        temperature: float = 1.0,
    ) -> Tensor:
        noise = self._noise(n, generators, self.logits.device)
        perturbed = (self.logits / temperature)[:, None] - (0 if deterministic else 1) * noise
        tokens = masked(perturbed, self.legal).argmax(-1)
        for t in self._bound():
            tokens[:, :, t] = masked(perturbed[:, :, t], self._legal(tokens, t)).argmax(-1)
        return tokens

    def evaluate(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scored = _score_choices(self.logits[:, None], self._all_legal(tokens), tokens)
        features = torch.eye(self.feature_size, device=tokens.device).expand(*tokens.shape, -1)
        return *scored, features

    @torch.no_grad()
    def next_distribution(self, tokens: Tensor, positions: Tensor) -> Tensor:
        logits = self.logits[:, None].expand(-1, tokens.shape[1], -1, -1)
        return self._following(logits, tokens, positions)
