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
