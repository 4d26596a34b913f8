"""Many networks of one space, each with its own weights, as one program.

A supernet's code routes the architectures, but each of its layers is replaced by one layer that holds those of all the
networks that have it: convolutions become groups of one convolution, normalisations channels of one, classifiers one
batched matrix product. Source: Wang et al. 2021, "Horizontally Fused Training Array" (MLSys), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from nas_gym.networks.bank import Bank, Choices, DropPath, Indices, Maps, parts_of
from nas_gym.networks.network import ArchitectureNorm, Network

LAYERS = (nn.Sequential, nn.Conv2d, nn.Linear, ArchitectureNorm)


def can_batch(networks: Sequence[nn.Module]) -> bool:
    """Whether networks can be a `NetworkBatch`: they differ in their architectures alone, in a space that allows it."""
    first = networks[0]
    if not isinstance(first, Network) or not first.batchable or first.settings.auxiliary:
        return False
    return all(_surroundings(network) == _surroundings(first) for network in networks)


def _surroundings(network: nn.Module) -> tuple[object, ...]:
    if not isinstance(network, Network):
        return ()
    return network.space, network.image_shape, network.num_classes, network.settings


class NetworkBatch(nn.Module):
    """K networks of one architecture each, with copies of their weights; `give_back` writes the trained weights back.

    Each computes the same as alone, up to rounding. Weights that do not reach a network's output have no gradient when
    it runs alone; here the gradient is zero, so weight decay shrinks them.

    Args:
        networks: K networks for which `can_batch` holds.
        generators: of the random numbers that drop paths, one per network.
        device: where they run.
    """

    def __init__(
        self, networks: Sequence[Network], generators: Sequence[torch.Generator], device: torch.device
    ) -> None:
        super().__init__()
        first = networks[0]
        self.networks = tuple(networks)
        self.tokens = np.array([network.architecture.tokens for network in networks if network.architecture])
        with torch.device("meta"):  # what no architecture holds never gets memory
            program = type(first)(first.space, first.image_shape, first.num_classes, first.settings)
        self.drop_path = OwnDropPath(generators)
        self.stacks: list[Stack] = []
        self._held = [dict(network.named_modules()) for network in networks]
        self._replace(program, "")
        self.program = program.to(device)
        self.stacked = [stack for stack in self.stacks if isinstance(stack.tensor, nn.Parameter)]
        rows = np.concatenate([stack.rows for stack in self.stacked])
        self.rows = torch.from_numpy(rows).to(device)

    def logits(self, images: Tensor) -> tuple[Tensor, None]:
        """Logits float[K * N, classes] of each network's own images, float[K * N, C, H, W]; no auxiliary ones."""
        self.program.layout.images = len(images) // len(self.networks)
        return self.program.run(images, self.tokens)[0], None

    def forward(self, images: Tensor) -> Tensor:
        """Logits float[K, N, classes] of the same images float[N, C, H, W] for every network."""
        logits, _ = self.logits(images.repeat(len(self.networks), 1, 1, 1))
        return logits.view(len(self.networks), len(images), -1)

    @torch.no_grad()
    def clip_gradients(self, largest: float) -> Tensor:
        """Clips the norm of each network's gradient to `largest`; returns the norms, float[K], as they were."""
        gradients = []
        for stack in self.stacked:
            assert isinstance(stack.tensor, nn.Parameter)
            # Where none of the networks' copies reaches its output.
            gradient = torch.zeros_like(stack.tensor) if stack.tensor.grad is None else stack.tensor.grad
            gradients.append(parts_of(gradient, len(stack.rows)))
        parts = [torch.linalg.vector_norm(gradient, dim=list(range(1, gradient.dim()))) for gradient in gradients]
        squares = torch.zeros(len(self.networks), device=self.rows.device)
        norms = squares.index_add_(0, self.rows, torch.cat(parts).square()).sqrt()
        factors = (largest / (norms + 1e-6)).clamp(max=1.0)[self.rows]
        each = torch.split(factors, [len(stack.rows) for stack in self.stacked])
        for gradient, factor in zip(gradients, each, strict=True):
            gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))
        return norms

    def give_back(self) -> None:
        """Writes weights and statistics into the networks."""
        for stack in self.stacks:
            stack.give_back()

    def _replace(self, module: nn.Module, path: str) -> None:
        """Replaces the layers in a supernet's module by those of the networks that have them."""
        for name, child in list(module.named_children()):
            inner = f"{path}{name}"
            if isinstance(child, DropPath):
                setattr(module, name, self.drop_path)
            elif isinstance(child, LAYERS):
                rows = np.array([row for row, held in enumerate(self._held) if inner in held])
                if not len(rows):
                    delattr(module, name)
                    continue
                merged = self._merged(child, inner, rows)
                setattr(module, name, merged if isinstance(merged, Linears) else GroupedLayer(merged, len(rows)))
            else:
                if isinstance(child, Bank):
                    child = SortedBank({int(key): choice for key, choice in child.choices.items()}, child.drop_path)
                    setattr(module, name, child)
                self._replace(child, f"{inner}.")

    def _merged(self, layer: nn.Module, path: str, rows: Indices) -> nn.Module:
        """One layer for those of the networks `rows`, whose channels stand side by side, with their weights."""
        count = len(rows)
        if isinstance(layer, nn.Sequential):
            parts = [self._merged(part, f"{path}.{name}", rows) for name, part in layer.named_children()]
            return nn.Sequential(*parts)
        merged: nn.Module
        if isinstance(layer, nn.Conv2d):
            merged = skip_init(  # type: ignore[no-untyped-call]
                nn.Conv2d,
                count * layer.in_channels,
                count * layer.out_channels,
                layer.kernel_size,
                layer.stride,
                layer.padding,
                layer.dilation,
                count * layer.groups,
                layer.bias is not None,
            )
        elif isinstance(layer, nn.Linear):
            merged = Linears(count, layer.in_features, layer.out_features)
        elif isinstance(layer, ArchitectureNorm):
            merged = skip_init(nn.BatchNorm2d, count * len(layer.weight), layer.eps)  # type: ignore[no-untyped-call]
        else:
            return layer
        self.stacks += [self._stack(merged, name, path, rows) for name in merged.state_dict()]
        return merged

    def _stack(self, merged: nn.Module, name: str, path: str, rows: Indices) -> Stack:
        own, places = [], []
        for row in rows:
            tensor: Tensor = getattr(self._held[row][path], name)
            place: list[slice | Indices] = [slice(size) for size in tensor.shape]
            channels = self.networks[row].channels_read(path)
            if channels is not None and len(place) > 1:
                place[1] = channels
            own.append(tensor)
            places.append(tuple(place))
        stack = Stack(merged, name, rows, own, places)
        stack.load()
        return stack


@dataclass(frozen=True)
class Stack:
    """A parameter or statistic of a merged layer: those of several networks, along its first axis.

    A network whose own is smaller has zeros in what is left: they add nothing, and stay.

    Attributes:
        layer: the merged layer.
        name: of the tensor.
        rows: int64[R], the networks.
        own: their own tensors.
        places: where these lie in their R-th parts of the whole.
    """

    layer: nn.Module
    name: str
    rows: Indices
    own: list[Tensor]
    places: list[tuple[slice | Indices, ...]]

    @property
    def tensor(self) -> Tensor:
        """The whole."""
        tensor: Tensor = getattr(self.layer, self.name)
        return tensor

    @torch.no_grad()
    def load(self) -> None:
        """From the networks."""
        self.tensor.zero_()
        if self.tensor.dim():  # else a count of batches
            for part, own, place in zip(self.tensor.chunk(len(self.rows)), self.own, self.places, strict=True):
                part[place] = own.to(part.device)

    @torch.no_grad()
    def give_back(self) -> None:
        """To the networks."""
        tensor = self.tensor.cpu()
        parts = tensor.chunk(len(self.rows)) if tensor.dim() else [tensor] * len(self.rows)
        for part, own, place in zip(parts, self.own, self.places, strict=True):
            own.copy_(part[place] if place else own + part)  # a count goes on


class GroupedLayer(nn.Module):
    """One layer whose channels are those of R architectures side by side."""

    def __init__(self, layer: nn.Module, architectures: int) -> None:
        super().__init__()
        self.layer, self.architectures = layer, architectures

    def forward(self, x: Tensor) -> Tensor:
        """From float[R * N, C, H, W], architectures first, to float[R * N, C', H', W']."""
        side_by_side = parts_of(x, self.architectures).transpose(0, 1).flatten(1, 2)
        out: Tensor = self.layer(side_by_side)
        apart = out.view(len(out), self.architectures, -1, *out.shape[2:])
        return apart.transpose(0, 1).flatten(0, 1)


class Linears(nn.Module):
    """R linear layers: float[R * N, in] -> float[R * N, out]."""

    def __init__(self, count: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.count = count
        self.weight = nn.Parameter(torch.empty(count * out_features, in_features))
        self.bias = nn.Parameter(torch.empty(count * out_features))

    def forward(self, x: Tensor) -> Tensor:
        x, weight, bias = (parts_of(each, self.count) for each in (x, self.weight, self.bias))
        return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2)).flatten(0, 1)


class SortedBank(Bank):
    """A bank that sorts the architectures by choice if all read the same state.

    This copies the whole batch twice, where gathering launches a small kernel for each of hundreds of architectures.
    """

    def forward(self, states: Sequence[Maps], source: Indices, choice: Choices) -> Tensor:
        if isinstance(choice, Tensor) or (source != source[0]).any():
            return super().forward(states, source, choice)
        return self.sorted(states, source, choice)


class OwnDropPath(DropPath):
    """Drops each network's paths by random numbers of its own, the same that it draws alone."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.generators = tuple(generators)

    def draw(self, x: Tensor, rows: Sequence[int] | None) -> Tensor:
        drawn = self.generators if rows is None else [self.generators[row] for row in rows]
        images = len(x) // len(drawn)
        return torch.cat([torch.rand(images, 1, 1, 1, device=x.device, generator=each) for each in drawn])
