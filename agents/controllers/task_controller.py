"""An LSTM controller that knows the task (Wong et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nas_gym.agents.controllers.lstm import LSTMController
from nas_gym.spaces import SearchSpace


class TaskController(LSTMController):
    """An LSTM controller that knows the task at each step: the task's embedding is joined to that of the last action.

    Source: Wong et al. 2018, section 3 and figure 1.

    Args:
        space: the search space.
        tasks: K, how many there are.
        generators: see `LSTMController`.
        hidden_size: see `LSTMController`; half of it is the size of the embeddings, of actions and of tasks.
        **arguments: those of `LSTMController`.

    Attributes:
        task_embedding: float[S, K, H / 2].
        tasks: int64[n], the task of each sequence that is built or scored next; or int64[1], that of all of them.
    """

    def __init__(
        self,
        space: SearchSpace,
        tasks: int,
        *,
        generators: Sequence[torch.Generator],
        hidden_size: int = 50,
        **arguments: Any,
    ) -> None:
        context_size = hidden_size // 2
        super().__init__(space, generators=generators, hidden_size=hidden_size, context_size=context_size, **arguments)
        self.task_embedding = nn.Parameter(torch.empty(self.policies, tasks, context_size))
        self.tasks = torch.zeros(1, dtype=torch.int64)
        with torch.no_grad():
            for row, generator in zip(self.task_embedding, generators, strict=True):
                row.uniform_(-1.0, 1.0, generator=generator)  # far enough apart that tasks differ from the start

    def _input(self, embedding: Tensor) -> Tensor:
        context = self.task_embedding.index_select(1, self.tasks.to(embedding.device))
        while context.ndim < embedding.ndim:  # a task is the same at all decisions
            context = context[:, :, None]
        return torch.cat([embedding, context.expand(*embedding.shape[:-1], -1)], dim=-1)

    @torch.no_grad()
    def next_distribution(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """As `Controller.next_distribution`; of the first task, where those set are of other sequences."""
        if len(self.tasks) not in (1, tokens.shape[1]):
            self.tasks = self.tasks[:1]
        return super().next_distribution(tokens, positions)

    @torch.no_grad()
    def add_task(self, spread: float, generators: Sequence[torch.Generator]) -> None:
        """Appends an embedding, drawn from the normal distribution that those learned have."""
        known = self.task_embedding
        center, deviation = known.mean(1), known.std(1, correction=0)
        noise = torch.stack([torch.randn(known.shape[2], generator=generator) for generator in generators])
        drawn = center + spread * deviation * noise.to(known)
        self.task_embedding = nn.Parameter(torch.cat([known, drawn[:, None]], dim=1))
