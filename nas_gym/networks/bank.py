"""The modules of a decision, which architectures use by choice or by weight, and the maps that they read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Indices = NDArray[np.int64]
Choices = Indices | Tensor
"""Choices of B architectures, int64[B, ...]; or weights of the A choices of each decision, float[B, ..., A]."""


class DropPath(nn.Module):
    """Drops whole paths of single images in training (ScheduledDropPath of NASNet, section 4).

    Attributes:
        probability: of dropping; the training loop raises it linearly.
        generator: source of randomness, so that networks trained side by side do not disturb each other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.probability = 0.0
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor, rows: Sequence[int] | None = None) -> Tensor:
        """Drops images of float[R * N, C, H, W], those of the architectures `rows`; of all without."""
        if not self.training or self.probability == 0.0:
            return x
        keep = 1.0 - self.probability
        kept = self.draw(x, rows) < keep
        return x * (kept / keep).to(x.dtype)

    def draw(self, x: Tensor, rows: Sequence[int] | None) -> Tensor:
        """Uniform random numbers, float[R * N, 1, 1, 1]."""
        del rows
        return torch.rand(len(x), 1, 1, 1, device=x.device, generator=self.generator)


class Maps:
    """Feature maps of a batch of architectures.

    Args:
        whole: float[B * N, C, H, W], architectures first.
        batch: B.
    """

    def __init__(self, whole: Tensor, batch: int) -> None:
        self.whole, self.batch = whole, batch

    @cached_property
    def parts(self) -> tuple[Tensor, ...]:
        """float[N, C, H, W] of each architecture: views, so that gathering costs one copy."""
        return cut(self.whole, self.batch)


class Bank(nn.Module):
    """The modules of one decision, of which each architecture uses one, or a weighted sum of several.

    Args:
        modules: by choice index; those that are allowed.
        drop_path: applied to what has weights or pools; identities are never dropped.
    """

    def __init__(self, modules: dict[int, nn.Module], drop_path: DropPath | None = None) -> None:
        super().__init__()
        self.choices = nn.ModuleDict({str(choice): module for choice, module in modules.items()})
        self.drop_path = drop_path

    def forward(self, states: Sequence[Maps], source: Indices, choice: Choices) -> Tensor:
        """Runs each module once, on all the images of the architectures that use it.

        Args:
            states: what the architectures may read.
            source: int64[B], the state that each architecture reads.
            choice: int64[B], the module that each architecture uses; or float[B, choices], the weight that each module
                has in its output. A module is skipped where its weight is zero, which then has no gradient.

        Returns:
            float[B * N, C', H', W'], architectures first.
        """
        outputs: dict[int, Tensor] = {}
        for used, rows in self._users(choice):
            together = self._run(str(used), join([states[source[row]].parts[row] for row in rows]), rows)
            for row, part in zip(rows, cut(together, len(rows)), strict=True):
                term = part * choice[row, used] if isinstance(choice, Tensor) else part
                outputs[row] = outputs[row] + term if row in outputs else term
        return join([outputs[row] for row in range(len(choice))])

    def _users(self, choice: Choices) -> Iterator[tuple[int, list[int]]]:
        """The modules that are used, and the architectures that use each."""
        if not isinstance(choice, Tensor):
            for used in np.unique(choice).tolist():
                yield used, np.flatnonzero(choice == used).tolist()
            return
        held = [int(key) for key in self.choices]
        uses = choice.detach().cpu().numpy()[:, held] != 0
        uses[~uses.any(axis=1), 0] = True  # an architecture without any weight still needs an output, of zeros
        for used, column in zip(held, uses.T, strict=True):
            if column.any():
                yield used, np.flatnonzero(column).tolist()

    def _run(self, choice: str, x: Tensor, rows: Sequence[int]) -> Tensor:
        module = self.choices[choice]
        out: Tensor = module(x)
        return out if self.drop_path is None or isinstance(module, nn.Identity) else self.drop_path(out, rows)


def join(parts: list[Tensor]) -> Tensor:
    """Concatenates along the batch, without a copy where there is one part."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def cut(x: Tensor, parts: int) -> tuple[Tensor, ...]:
    """Equal parts along the batch; the whole where it is one, so that a network can be exported for any batch."""
    return (x,) if parts == 1 else x.chunk(parts)
