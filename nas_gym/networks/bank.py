"""The modules of a decision, which architectures use by choice or by weight, and the maps that they read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any

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
        if len(choice) == 1 and not isinstance(choice, Tensor):
            return self._run(str(choice[0]), states[source[0]].whole, [0])
        if on_gpu(states[0].whole) and len(choice) > 1 and not isinstance(choice, Tensor):
            return self.sorted(states, source, choice)
        outputs: dict[int, Tensor] = {}
        for used, rows in self._users(choice):
            together = self._run(str(used), join([states[source[row]].parts[row] for row in rows]), rows)
            for row, part in zip(rows, cut(together, len(rows)), strict=True):
                term = part * choice[row, used] if isinstance(choice, Tensor) else part
                outputs[row] = outputs[row] + term if row in outputs else term
        return join([outputs[row] for row in range(len(choice))])

    def sorted(self, states: Sequence[Maps], source: Indices, choice: Indices) -> Tensor:
        """As `forward`, by few copies of everything: the architectures are sorted by source, then by choice."""
        outputs, orders = [], []
        read = np.unique(source).tolist()
        for shape in {states[s].whole.shape: None for s in read}:  # cells reduce some of their states
            groups = [(s, np.flatnonzero(source == s)) for s in read if states[s].whole.shape == shape]
            rows = np.concatenate([group for _, group in groups])
            by_choice = np.argsort(choice[rows], kind="stable")
            x = join([take(states[s].whole, group, len(choice)) for s, group in groups])
            x, rows = permuted(x, by_choice), rows[by_choice]
            used, counts = np.unique(choice[rows], return_counts=True)
            pieces = torch.split(x, (counts * (len(x) // len(rows))).tolist())
            users = np.split(rows, np.cumsum(counts)[:-1])
            outputs += [self._run(str(c), piece, r.tolist()) for c, piece, r in zip(used, pieces, users, strict=True)]
            orders.append(rows)
        return permuted(join(outputs), np.argsort(np.concatenate(orders)))

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


def on_gpu(x: Tensor) -> bool:
    """Whether starting an operation costs more than copying a feature map, as it does everywhere but on CPUs."""
    return x.device.type != "cpu"


def parts_of(x: Tensor, count: int) -> Tensor:
    """[count * N, ...] -> [count, N, ...]."""
    return x.view(count, len(x) // count, *x.shape[1:])


def permuted(x: Tensor, order: Indices) -> Tensor:
    """The architectures of float[B * N, C, H, W] in another order."""
    return _Rows.of(x, order, len(order))


def take(x: Tensor, rows: Indices, batch: int) -> Tensor:
    """The images of the architectures `rows`, each there once, out of float[batch * N, C, H, W]."""
    if on_gpu(x):
        return _Rows.of(x, rows, batch)
    if len(rows) == batch and (rows == np.arange(batch)).all():
        return x
    parts = x.chunk(batch)
    return join([parts[row] for row in rows])


def constant(values: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor that is not to be changed. What went to the device lately is not sent again."""
    return _sent(values.tobytes(), values.dtype.str, device).view(values.shape)


@lru_cache(maxsize=4096)
def _sent(values: bytes, dtype: str, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # it may be used in training later
        return torch.from_numpy(np.frombuffer(values, dtype).copy()).to(device)


class _Rows(torch.autograd.Function):
    """Copies architectures, in one operation forward and in one or two backward, where parts would need one for each.

    Torch's own backward pass adds up rows that are there several times, by atomic additions. Here none is.
    """

    @staticmethod
    def of(x: Tensor, rows: Indices, batch: int) -> Tensor:
        """The architectures `rows` out of float[batch * N, C, H, W]."""
        if len(rows) == batch and (rows == np.arange(batch)).all():
            return x
        taken: Tensor = _Rows.apply(x, constant(rows, x.device), batch)
        return taken

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, batch: int) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.batch = batch
        return _rows_in_memory(x, batch, lambda whole: whole.index_select(0, rows))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (rows,), batch = ctx.saved_tensors, ctx.batch

        def scattered(part: Tensor) -> Tensor:
            whole = torch.empty if len(rows) == batch else torch.zeros
            return whole(batch, part.shape[1], dtype=part.dtype, device=part.device).index_copy_(0, rows, part)

        return _rows_in_memory(gradient, len(rows), scattered), None, None


def _rows_in_memory(x: Tensor, count: int, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Changes [count, values of an architecture in the order of memory], and keeps the order."""
    lies = x if x.is_contiguous() else x.permute(0, 2, 3, 1)  # as channels-last images do
    changed = change(lies.reshape(count, x.numel() // count))
    whole = changed.view(len(changed) * (len(x) // count), *lies.shape[1:])
    return whole if lies is x else whole.permute(0, 3, 1, 2)
