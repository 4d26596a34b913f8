"""Networks layer by layer under transformations: what can be made wider or deeper, and what becomes of it."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nas_gym.spaces.layer_arrays import EXACT, LayerArrays
from nas_gym.spaces.layers import (
    ABSENT,
    PLAIN,
    Convolution,
    DenseConvolution,
    FullyConnected,
    Layer,
    Layers,
    Shape,
    Weighted,
)


@dataclass(frozen=True, slots=True)
class Widen:
    """Widens layer `layer` of the sequence to the next width in its list."""

    layer: int


@dataclass(frozen=True, slots=True)
class Deepen:
    """Inserts a layer into a block, after the one at a position, of the same kind and width.

    Attributes:
        block: index in `Layers.blocks`.
        position: position in the block.
        kernel: kernel size of the new layer; None in a block of fully connected layers.
    """

    block: int
    position: int
    kernel: int | None


@dataclass(frozen=True, slots=True)
class Stop:
    """Finishes the network."""


Action = Widen | Deepen | Stop


@dataclass(frozen=True)
class LayerSpace:
    """The networks that a start network can grow into by making layers wider and blocks deeper.

    Source: Cai et al. 2018, "Efficient Architecture Search by Network Transformation". The lists of kernels, widths,
    units and growths are those of its published code (for widths and units the longer ones), which searches DenseNets
    with kernel 3 only. As in the paper, a new layer has the width of the layer that it follows.

    Args:
        start: the start network.
        image_shape: (channels, height, width).
        num_classes: number of logits.
        kernels: kernel sizes of new convolutions.
        widths: widths of convolutions, increasing.
        units: widths of fully connected layers, increasing.
        growths: growth rates of dense convolutions, increasing.
        depth: maximum number of layers per block.
        max_parameters: maximum number of parameters of a network.

    Raises:
        ValueError: a list is empty or not increasing, a kernel is even, the start network exceeds the limits, or
            `max_parameters` is 2^53 or more.
    """

    start: Layers = PLAIN
    image_shape: Shape = (1, 28, 28)
    num_classes: int = 10
    kernels: tuple[int, ...] = (1, 3, 5)
    widths: tuple[int, ...] = (16, 32, 64, 96, 128, 192, 256, 320, 384, 448, 512, 576, 640)
    units: tuple[int, ...] = (64, 128, 256, 384, 512, 640, 768, 896, 1024, 1152, 1280)
    growths: tuple[int, ...] = tuple(range(4, 50, 2))
    depth: int = 6
    max_parameters: int = 10_000_000

    def __post_init__(self) -> None:
        for name in ("kernels", "widths", "units", "growths"):
            values = getattr(self, name)
            if not values or values[0] < 1 or any(a >= b for a, b in itertools.pairwise(values)):
                raise ValueError(f"{name} must be positive and rising, got {values!r}")
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ValueError(f"kernels must be odd, got {self.kernels!r}")
        if self.num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {self.num_classes}")
        longest = max(map(len, self.start.blocks), default=0)
        if not 1 <= longest <= self.depth:
            raise ValueError(f"start needs blocks of 1 to depth {self.depth} layers; its longest has {longest}")
        if self.max_parameters >= EXACT:
            raise ValueError(f"max_parameters must be below 2**53, got {self.max_parameters}")
        parameters = self.parameters(self.start)
        if parameters > self.max_parameters:
            raise ValueError(f"start has {parameters:,} parameters; max_parameters is {self.max_parameters:,}")

    @cached_property
    def length(self) -> int:
        """The maximum number of layers of a network, including pools."""
        weighted = sum(map(len, self.start.blocks))
        return len(self.start) - weighted + self.depth * len(self.start.blocks)

    @cached_property
    def actions(self) -> tuple[Action, ...]:
        """All actions within the limits, in a fixed order: wider, deeper, stop."""
        actions: list[Action] = [Widen(layer) for layer in range(self.length)]
        for block, places in enumerate(self.start.blocks):
            connected = isinstance(self.start.layers[places[0]], FullyConnected)
            kernels: tuple[int | None, ...] = (None,) if connected else self.kernels
            pairs = itertools.product(range(self.depth - 1), kernels)
            actions += [Deepen(block, position, kernel) for position, kernel in pairs]
        return (*actions, Stop())

    def parameters(self, layers: Layers) -> int:
        """The number of trainable parameters, computed from the sequence alone."""
        return layers.parameters(self.image_shape, self.num_classes)

    @cached_property
    def arrays(self) -> LayerArrays:
        """The rules as tables, for many networks at once."""
        return LayerArrays(
            self.start,
            self.vocabulary,
            self._wider,
            self._deeper,
            len(self.kernels),
            self.depth,
            self.image_shape,
            self.num_classes,
            self.max_parameters,
        )

    def legal(self, layers: Layers) -> NDArray[np.bool_]:
        """Which `actions` are legal for a network, bool[n]. Stopping is always legal.

        Raises:
            ValueError: it is not a network of the space.
        """
        mask: NDArray[np.bool_] = self.arrays.legal(self.arrays.encode(layers))[0]
        return mask

    def apply(self, layers: Layers, action: Action) -> Layers:
        """The network after an action; `Stop` leaves it as it is.

        Raises:
            ValueError: it is not a network of the space, or the action is not legal; the message gives the reason.
        """
        if isinstance(action, Stop):
            return layers
        choice = self._choices.get(action)
        if choice is None or not self.legal(layers)[choice]:
            raise ValueError(f"{action} is not legal for {layers}: {self._reason(layers, action)}")
        return self.arrays.decode(self.arrays.grown(self.arrays.encode(layers), np.array([choice])))[0]

    @cached_property
    def _choices(self) -> dict[Action, int]:
        return {action: choice for choice, action in enumerate(self.actions)}

    def _reason(self, layers: Layers, action: Widen | Deepen) -> str:
        """Why an action is not legal."""
        if isinstance(action, Widen):
            if not 0 <= action.layer < len(layers):
                return f"it has {len(layers)} layers"
            layer = layers.layers[action.layer]
            if not isinstance(layer, Weighted):
                return f"{layer} has no width"
            wider = self._wider(layer)
            if wider is None:
                return f"the greatest width is {self._widths(layer)[-1]}"
            return self._excess(layers.replaced(action.layer, wider))
        if not 0 <= action.block < len(layers.blocks):
            return f"it has {len(layers.blocks)} blocks"
        block = layers.blocks[action.block]
        if not 0 <= action.position < len(block):
            return f"block {action.block} has {len(block)} layers"
        if len(block) >= self.depth:
            return f"block {action.block} has {len(block)} layers, which is the maximum"
        index = block[action.position]
        connected = isinstance(layers.layers[index], FullyConnected)
        if connected and action.kernel is not None:
            return "a fully connected layer has no kernel"
        if not connected and action.kernel not in self.kernels:
            return f"kernels are {', '.join(map(str, self.kernels))}"
        new = self._deeper(layers.layers[index])[0 if connected else self.kernels.index(action.kernel or 0)]
        return self._excess(layers.inserted(index + 1, new))

    def _excess(self, layers: Layers) -> str:
        return f"it would have {self.parameters(layers):,} parameters, more than {self.max_parameters:,}"

    def _widths(self, layer: Weighted) -> tuple[int, ...]:
        match layer:
            case Convolution():
                return self.widths
            case DenseConvolution():
                return self.growths
            case FullyConnected():
                return self.units

    def _wider(self, layer: Layer) -> Layer | None:
        """The layer with the next width of its list; None if there is none."""
        if not isinstance(layer, Weighted):
            return None
        width = next((width for width in self._widths(layer) if width > layer.width), None)
        return None if width is None else dataclasses.replace(layer, width=width)

    def _deeper(self, layer: Layer) -> list[Layer]:
        """The new layers that may follow a layer in its block."""
        match layer:
            case FullyConnected():
                return [layer]
            case Convolution() | DenseConvolution():
                return [dataclasses.replace(layer, kernel=kernel) for kernel in self.kernels]
            case _:
                return []

    @cached_property
    def vocabulary(self) -> tuple[Layer, ...]:
        """All layers that networks of the space can contain; a token is an index into it."""
        vocabulary: list[Layer] = []
        for kind, choices in (
            (Convolution, self.widths),
            (DenseConvolution, self.growths),
        ):
            first = [layer for layer in self.start if isinstance(layer, kind)]
            kernels = sorted({*self.kernels, *(layer.kernel for layer in first)})
            widths = sorted({*choices, *(layer.width for layer in first)})
            vocabulary += [kind(kernel, width) for kernel in kernels for width in widths if first]
        units = [layer.width for layer in self.start if isinstance(layer, FullyConnected)]
        vocabulary += [FullyConnected(width) for width in sorted({*self.units, *units}) if units]
        return (*vocabulary, *dict.fromkeys(layer for layer in self.start if not isinstance(layer, Weighted)))

    def encode(self, layers: Layers) -> tuple[NDArray[np.int64], int]:
        """Encodes a network as one token per layer, as in the encoder of Cai et al. 2018.

        Returns:
            int64[length], indices into `vocabulary`, `ABSENT` after the last layer; and the number of layers.

        Raises:
            ValueError: a layer is not in the vocabulary, or there are too many layers.
        """
        if len(layers) > self.length:
            raise ValueError(f"{layers} has {len(layers)} layers; networks of the space have up to {self.length}")
        for index, layer in enumerate(layers):
            if layer not in self.arrays.token:
                raise ValueError(f"layer {index} of {layers}, {layer}, is not in the space's vocabulary")
        tokens = np.full(self.length, ABSENT, dtype=np.int64)
        tokens[: len(layers)] = [self.arrays.token[layer] for layer in layers]
        return tokens, len(layers)

    def decode(self, tokens: NDArray[np.int64]) -> Layers:
        """Decodes the output of `encode`, int64[length].

        Raises:
            ValueError: a token is invalid, or a layer follows an absent one.
        """
        present = np.asarray(tokens) != ABSENT
        count = int(present.sum())
        if not present[:count].all():
            raise ValueError(f"tokens have a layer after an absent one: {np.asarray(tokens).tolist()}")
        known = [int(token) for token in tokens[:count]]
        if any(not 0 <= token < len(self.vocabulary) for token in known):
            raise ValueError(f"tokens must be in [0, {len(self.vocabulary)}) or {ABSENT}, got {known}")
        return Layers(tuple(self.vocabulary[token] for token in known))
