"""Networks as sequences of layers, and the actions that make them wider and deeper (Cai et al. 2018).

Here a network is not built layer by layer but grown from a start network by actions that preserve its function
(`nas_gym.networks.morphism`). All actions within the limits of a `LayerSpace` are enumerated once, so that an
environment can offer them as one masked categorical choice.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nas_gym.spaces.graph import CONCAT, INPUT, OUTPUT, ArchitectureGraph, GraphBuilder, Node

Shape = tuple[int, int, int]  # channels, height, width
ABSENT = -1
"""The token of positions after the last layer."""


@dataclass(frozen=True, slots=True)
class Convolution:
    """Convolution with "same" padding, batch norm, ReLU.

    Attributes:
        kernel: height and width of the filters, odd.
        width: number of filters.
    """

    kernel: int
    width: int

    def __post_init__(self) -> None:
        _check_kernel(self)
        _check_positive(self, "width")

    def __str__(self) -> str:
        return f"conv_{self.kernel}x{self.kernel}_{self.width}"

    def output(self, shape: Shape) -> Shape:
        """The output shape for an input shape."""
        return self.width, *shape[1:]

    def parameters(self, shape: Shape) -> int:
        """The number of parameters for an input shape."""
        return shape[0] * self.kernel**2 * self.width + 2 * self.width


BOTTLENECK = 4
"""Filters of a dense convolution's 1x1 convolution, as a multiple of its width (Huang et al. 2017, section 3)."""


@dataclass(frozen=True, slots=True)
class DenseConvolution:
    """A layer of a DenseNet, whose output is concatenated with its input (Huang et al. 2017, DenseNet-B).

    A 1x1 convolution to `BOTTLENECK` times the width, then a convolution to the width. Both are followed by batch norm
    and ReLU, as in `Convolution`; in the paper they are preceded by them. As a result the concatenated values are never
    negative, and a new layer can replicate some of them (see `nas_gym.networks.morphism`).

    Attributes:
        kernel: height and width of the second convolution's filters, odd.
        width: number of channels that it adds, the growth rate.
    """

    kernel: int
    width: int

    def __post_init__(self) -> None:
        _check_kernel(self)
        _check_positive(self, "width")

    def __str__(self) -> str:
        return f"dense_conv_{self.kernel}x{self.kernel}_{self.width}"

    def output(self, shape: Shape) -> Shape:
        """As in `Convolution`."""
        return shape[0] + self.width, *shape[1:]

    def parameters(self, shape: Shape) -> int:
        """As in `Convolution`."""
        bottleneck = Convolution(1, BOTTLENECK * self.width)
        return bottleneck.parameters(shape) + Convolution(self.kernel, self.width).parameters(bottleneck.output(shape))


@dataclass(frozen=True, slots=True)
class Pool:
    """Max or average pooling, padded by ``(kernel - 1) // 2``; averages exclude the padding.

    Attributes:
        kind: ``"max"`` or ``"avg"``.
        kernel: side of the pooling window, in pixels.
        stride: in pixels.
    """

    kind: Literal["max", "avg"]
    kernel: int = 2
    stride: int = 2

    def __post_init__(self) -> None:
        if self.kind not in ("max", "avg"):
            raise ValueError(f"kind of Pool must be 'max' or 'avg', got {self.kind!r}")
        _check_positive(self, "kernel")
        _check_positive(self, "stride")

    @property
    def padding(self) -> int:
        """Pixels on each side."""
        return (self.kernel - 1) // 2

    def __str__(self) -> str:
        return f"{self.kind}_pool_{self.kernel}x{self.kernel}/{self.stride}"

    def output(self, shape: Shape) -> Shape:
        """As in `Convolution`.

        Raises:
            ValueError: the input is smaller than the pooling window.
        """
        channels, *sides = shape
        height, width = ((side + 2 * self.padding - self.kernel) // self.stride + 1 for side in sides)
        if min(height, width) < 1:
            raise ValueError(f"{self} needs maps of at least {self.kernel - 2 * self.padding} pixels, got {sides}")
        return channels, height, width

    def parameters(self, shape: Shape) -> int:
        """Always 0."""
        del shape
        return 0


@dataclass(frozen=True, slots=True)
class GlobalPool:
    """Global average pooling."""

    def __str__(self) -> str:
        return "global_avg_pool"

    def output(self, shape: Shape) -> Shape:
        """As in `Convolution`."""
        return shape[0], 1, 1

    def parameters(self, shape: Shape) -> int:
        """Always 0."""
        del shape
        return 0


@dataclass(frozen=True, slots=True)
class FullyConnected:
    """Fully connected layer with ReLU. Feature maps are flattened channel by channel.

    Attributes:
        width: number of units.
    """

    width: int

    def __post_init__(self) -> None:
        _check_positive(self, "width")

    def __str__(self) -> str:
        return f"fully_connected_{self.width}"

    def output(self, shape: Shape) -> Shape:
        """As in `Convolution`; a unit is a channel of one pixel."""
        del shape
        return self.width, 1, 1

    def parameters(self, shape: Shape) -> int:
        """As in `Convolution`."""
        channels, height, width = shape
        return (channels * height * width + 1) * self.width


def _check_positive(layer: Layer, field: str) -> None:
    value = getattr(layer, field)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{field} of {type(layer).__name__} must be a positive integer, got {value!r}")


def _check_kernel(layer: Layer) -> None:
    _check_positive(layer, "kernel")
    kernel = getattr(layer, "kernel")  # noqa: B009
    if kernel % 2 == 0:  # an even kernel has no centre, so it cannot represent the identity
        raise ValueError(f"kernel of {type(layer).__name__} must be odd, got {kernel}")


Weighted = Convolution | DenseConvolution | FullyConnected
Layer = Weighted | Pool | GlobalPool
KINDS: dict[str, type[Layer]] = {
    "convolution": Convolution,
    "dense_convolution": DenseConvolution,
    "pool": Pool,
    "global_pool": GlobalPool,
    "fully_connected": FullyConnected,
}


@dataclass(frozen=True)
class Layers:
    """A network as a sequence of layers, followed by a linear classifier: frozen and hashable.

    Raises:
        ValueError: an item is not a layer, or a layer other than a fully connected one follows a global pool or a fully
            connected layer.
    """

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        spatial = True
        for index, layer in enumerate(self.layers):
            if not isinstance(layer, Layer):
                kinds = ", ".join(kind.__name__ for kind in KINDS.values())
                raise ValueError(f"layers[{index}] must be one of {kinds}; got {layer!r}")
            if not spatial and not isinstance(layer, FullyConnected):
                raise ValueError(
                    f"layers[{index}] = {layer} cannot follow {self.layers[index - 1]}: only fully_connected can"
                )
            spatial = spatial and not isinstance(layer, GlobalPool | FullyConnected)

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __str__(self) -> str:
        """The names of the layers, with blocks and pools separated by ``|``."""
        words = [" ".join(map(str, group)) for _, group in itertools.groupby(self.layers, _family)]
        return " | ".join(words)

    @cached_property
    def blocks(self) -> tuple[range, ...]:
        """The indices of the layers of each block: a run of convolutions between pools, or of fully connected layers.

        Source: Cai et al. 2018, where pools separate the blocks of a network.
        """
        blocks, start = [], 0
        for family, group in itertools.groupby(self.layers, _family):
            stop = start + len(list(group))
            if family != _POOLING:
                blocks.append(range(start, stop))
            start = stop
        return tuple(blocks)

    def shapes(self, image_shape: Shape) -> tuple[Shape, ...]:
        """The shape of the images, and of the output of each layer.

        Raises:
            ValueError: the images are too small for the pools.
        """
        shapes = [image_shape]
        for layer in self.layers:
            shapes.append(layer.output(shapes[-1]))
        return tuple(shapes)

    def parameters(self, image_shape: Shape, num_classes: int) -> int:
        """The number of trainable parameters, including those of the classifier.

        Raises:
            ValueError: the images are too small for the pools.
        """
        total, shape = 0, image_shape
        for layer in self.layers:
            total += layer.parameters(shape)
            shape = layer.output(shape)
        return total + FullyConnected(num_classes).parameters(shape)

    def replaced(self, index: int, layer: Layer) -> Layers:
        """Returns the layers with the one at `index` replaced."""
        return Layers((*self.layers[:index], layer, *self.layers[index + 1 :]))

    def inserted(self, index: int, layer: Layer) -> Layers:
        """Returns the layers with a new one inserted before `index`."""
        return Layers((*self.layers[:index], layer, *self.layers[index:]))

    def graph(self) -> ArchitectureGraph:
        """One node per layer, such as ``conv_3x3_16`` or ``max_pool_2x2/2``, plus a concatenation for dense layers."""
        builder = GraphBuilder()
        source = builder.add(Node("input", INPUT))
        for index, layer in enumerate(self.layers):
            node = builder.add(Node(f"layer_{index}", str(layer)), source)
            dense = isinstance(layer, DenseConvolution)
            source = builder.add(Node(f"layer_{index}/concat", CONCAT), source, node) if dense else node
        builder.add(Node("output", OUTPUT), source)
        return builder.build()

    def canonical_hash(self) -> str:
        """A hash that is equal for sequences that compute the same functions (see `ArchitectureGraph.canonical`)."""
        return self.graph().canonical_hash()

    def to_json(self) -> str:
        names = {kind: name for name, kind in KINDS.items()}
        records = [{"layer": names[type(layer)], **dataclasses.asdict(layer)} for layer in self.layers]
        return json.dumps({"layers": records})

    @staticmethod
    def from_json(text: str) -> Layers:
        """Reads the output of `to_json`.

        Raises:
            ValueError: the text is not such JSON, or a layer, field or value is invalid.
        """
        try:
            records = json.loads(text)["layers"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"not the JSON of a sequence of layers (an object with 'layers'): {text!r}") from error
        if not isinstance(records, list):
            raise ValueError(f"'layers' must be a list of objects, got {records!r}")
        return Layers(tuple(_read(index, record) for index, record in enumerate(records)))


def _read(index: int, record: Any) -> Layer:
    name = record.get("layer") if isinstance(record, dict) else None
    if not isinstance(name, str) or name not in KINDS:
        raise ValueError(f"layers[{index}] needs a 'layer' among {', '.join(KINDS)}; got {record!r}")
    values = {field: value for field, value in record.items() if field != "layer"}
    fields = {field.name for field in dataclasses.fields(KINDS[name])}
    if set(values) != fields:
        raise ValueError(f"layers[{index}], a {name}, has the fields {sorted(fields)}; got {sorted(values)}")
    return KINDS[name](**values)


_POOLING = "pooling"


def _family(layer: Layer) -> str:
    if isinstance(layer, Convolution | DenseConvolution):
        return "convolutions"
    return "fully connected" if isinstance(layer, FullyConnected) else _POOLING


PLAIN = Layers(
    (
        Convolution(3, 16),
        Pool("max"),
        Convolution(3, 32),
        Pool("max"),
        Convolution(3, 64),
        GlobalPool(),
        FullyConnected(64),
    )
)
"""A small start network similar to that of Cai et al. 2018, with global pooling instead of flattening.

For images of 8x8 pixels or more.
"""

DENSENET = Layers(
    (
        Convolution(3, 16),
        *[DenseConvolution(3, 8)] * 3,
        Convolution(1, 20),
        Pool("avg"),
        *[DenseConvolution(3, 8)] * 3,
        GlobalPool(),
    )
)
"""A small DenseNet-BC of two dense blocks; the transition halves the channels (Huang et al. 2017, section 3)."""


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
        ValueError: a list is empty or not increasing, a kernel is even, or the start network exceeds the limits.
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

    def legal(self, layers: Layers) -> NDArray[np.bool_]:
        """Which `actions` are legal for a network, bool[n]. Stopping is always legal."""
        return np.array([not isinstance(self._result(layers, action), str) for action in self.actions])

    def apply(self, layers: Layers, action: Action) -> Layers:
        """The network after an action; `Stop` leaves it as it is.

        Raises:
            ValueError: the action is not legal; the message gives the reason.
        """
        result = self._result(layers, action)
        if isinstance(result, str):
            raise ValueError(f"{action} is not legal for {layers}: {result}")
        return result

    def _result(self, layers: Layers, action: Action) -> Layers | str:
        """The network after an action, or the reason why it is illegal."""
        match action:
            case Widen():
                result = self._wider(layers, action)
            case Deepen():
                result = self._deeper(layers, action)
            case _:
                return layers
        if isinstance(result, str):
            return result
        parameters = self.parameters(result)
        if parameters > self.max_parameters:
            return f"it would have {parameters:,} parameters, more than {self.max_parameters:,}"
        return result

    def _wider(self, layers: Layers, action: Widen) -> Layers | str:
        if not 0 <= action.layer < len(layers):
            return f"it has {len(layers)} layers"
        layer = layers.layers[action.layer]
        if not isinstance(layer, Weighted):
            return f"{layer} has no width"
        choices = self._choices(layer)
        width = next((choice for choice in choices if choice > layer.width), None)
        if width is None:
            return f"the greatest width is {choices[-1]}"
        return layers.replaced(action.layer, dataclasses.replace(layer, width=width))

    def _choices(self, layer: Weighted) -> tuple[int, ...]:
        match layer:
            case Convolution():
                return self.widths
            case DenseConvolution():
                return self.growths
            case FullyConnected():
                return self.units

    def _deeper(self, layers: Layers, action: Deepen) -> Layers | str:
        if not 0 <= action.block < len(layers.blocks):
            return f"it has {len(layers.blocks)} blocks"
        block = layers.blocks[action.block]
        if not 0 <= action.position < len(block):
            return f"block {action.block} has {len(block)} layers"
        if len(block) >= self.depth:
            return f"block {action.block} has {len(block)} layers, which is the maximum"
        layer = layers.layers[block[action.position]]
        if isinstance(layer, FullyConnected):
            if action.kernel is not None:
                return "a fully connected layer has no kernel"
        elif action.kernel not in self.kernels:
            return f"kernels are {', '.join(map(str, self.kernels))}"
        else:
            assert isinstance(layer, Convolution | DenseConvolution)
            layer = dataclasses.replace(layer, kernel=action.kernel)
        return layers.inserted(block[action.position] + 1, layer)

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

    @cached_property
    def _tokens(self) -> dict[Layer, int]:
        return {layer: token for token, layer in enumerate(self.vocabulary)}

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
            if layer not in self._tokens:
                raise ValueError(f"layer {index} of {layers}, {layer}, is not in the space's vocabulary")
        tokens = np.full(self.length, ABSENT, dtype=np.int64)
        tokens[: len(layers)] = [self._tokens[layer] for layer in layers]
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
