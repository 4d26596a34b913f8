"""Network morphisms: a network made wider or deeper that computes the same function (Net2Net, EAS).

A morphism is linear in the tensors of the network: every tensor of the child is one of the parent's with rows repeated
(the channels that it makes) and columns repeated and divided (the channels that it reads), or it is new. So it is
planned first, as a mapping from the child's tensors to their `Origin`, and the plan is then carried out on whatever has
the shapes of the parent's tensors: on its weights and statistics, and on the momentum of its optimiser.

Sources: Chen et al. 2016, "Net2Net: Accelerating Learning via Knowledge Transfer"; for DenseNets, Cai et al. 2018,
"Efficient Architecture Search by Network Transformation". There, a new layer of a dense block repeats channels that are
there already, so that for all that reads it the block has become wider.

What holds, up to rounding:

- In evaluation the child is equal to its parent on every image, without `noise`.
- In training a wider child is equal to its parent too, for repeated channels have equal statistics.
- In training a deeper child is equal to its parent only on the batch of `images` that its batch norm was set by: on
  another the new layer normalises by statistics that differ a little. Without `images` it normalises to mean 0 and
  variance 1, until it has learnt better. New fully connected layers have no batch norm, so they hold for any batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from nas_gym.networks.layers import ConvolutionLayer, DenseConvolutionLayer, LayerNetwork, channels_last
from nas_gym.networks.origins import Origin, Replicas
from nas_gym.spaces.layer_space import Action, Deepen, LayerSpace, Stop, Widen
from nas_gym.spaces.layers import (
    BOTTLENECK,
    Convolution,
    DenseConvolution,
    FullyConnected,
    Layer,
    Layers,
    Shape,
    Weighted,
)

EPS = 1e-5  # of batch norm


def transform(
    network: LayerNetwork,
    action: Action,
    space: LayerSpace,
    *,
    generator: torch.Generator,
    noise: float = 0.0,
    images: Tensor | None = None,
    clone: bool = False,
) -> LayerNetwork:
    """The network after an action, with the same function.

    The parent is not changed. Tensors that the action leaves alone are held by both networks, so neither may be trained
    while the other is still needed: a forward in training mode already moves the statistics of batch norm. Evaluate
    both as you like, let go of the parent, or ask for a `clone`.

    Args:
        network: the parent.
        action: one that `space.legal(network.layers)` allows.
        space: it knows the next width.
        generator: draws the channels that are repeated, and the noise; on the CPU.
        noise: standard deviation of what is added to the weights of new channels and new layers, so that equal ones
            become different; in units of that of the tensor's weights (Cai et al. 2018: 1e-2 wider, 1e-3 deeper).
        images: float[N, C, H, W], normalised, whose statistics set the batch norm of a new layer.
        clone: whether the child gets tensors of its own throughout.

    Returns:
        The child, in the parent's mode, on its device. After `Stop`, the parent itself, or its clone.

    Raises:
        ValueError: the action is not legal, or noise is negative.
    """
    if isinstance(action, Stop):
        return network.clone() if clone else network
    child = plan(network, action, space, generator=generator).network(
        network, generator=generator, noise=noise, images=images
    )
    return child.clone() if clone else child


def plan(network: LayerNetwork, action: Widen | Deepen, space: LayerSpace, *, generator: torch.Generator) -> Morphism:
    """The morphism of an action, for those who carry an optimiser's state along as well.

    Raises:
        ValueError: the action is not legal.
    """
    layers = space.apply(network.layers, action)
    if isinstance(action, Widen):
        return wider(network, action.layer, _weighted(layers, action.layer).width, generator=generator)
    index = network.layers.blocks[action.block][action.position] + 1
    return deeper(network, index, _weighted(layers, index), generator=generator)


def wider(network: LayerNetwork, index: int, width: int, *, generator: torch.Generator) -> Morphism:
    """Net2Wider: layer `index` gets more channels, which repeat random ones of its own.

    Raises:
        ValueError: the layer has no width, or no smaller one.
    """
    layer = _weighted(network.layers, index)
    if width <= layer.width:
        raise ValueError(f"width must be greater than {layer.width}, that of layer {index}; got {width}")
    return _morphism(network, network.layers.replaced(index, replace(layer, width=width)), generator, widened=index)


def deeper(network: LayerNetwork, index: int, layer: Weighted, *, generator: torch.Generator) -> Morphism:
    """Net2Deeper: a layer is put before layer `index`, which passes on what it is given.

    Args:
        network: the parent.
        index: from 1 to the number of layers.
        layer: as wide as what it is given. A dense convolution of any width: it adds channels that repeat random ones
            of those that it is given.
        generator: draws these; on the CPU.

    Raises:
        ValueError: the layer does not fit there, or does not follow a ReLU or a pooling of what follows one: only of
            what is not negative can it be an identity.
    """
    if not 1 <= index <= len(network.layers):
        raise ValueError(f"index must be in [1, {len(network.layers)}], behind a layer; got {index}")
    if not any(isinstance(before, Weighted) for before in network.layers.layers[:index]):
        raise ValueError(f"{layer} cannot be put before layer {index}: no layer with weights stands before that")
    given = network.layers.shapes(network.image_shape)[index]
    size = math.prod(given) if isinstance(layer, FullyConnected) else given[0]
    if not isinstance(layer, DenseConvolution) and layer.width != size:
        raise ValueError(f"{layer} before layer {index} cannot be an identity: it is given {size} channels")
    return _morphism(network, network.layers.inserted(index, layer), generator, inserted=index)


def _weighted(layers: Layers, index: int) -> Weighted:
    if not 0 <= index < len(layers) or not isinstance(layers.layers[index], Weighted):
        raise ValueError(f"layer {index} of {layers} has no width")
    layer = layers.layers[index]
    assert isinstance(layer, Weighted)
    return layer


@dataclass(frozen=True, eq=False)
class Morphism:
    """From the tensors of a parent to those of its child.

    Attributes:
        layers: the child's.
        origins: by the child's names, tensors that come from the parent.
        fresh: by the child's names, tensors of a new layer.
        widened: the layer that became wider, if one did.
        inserted: the layer that is new, if one is.
    """

    layers: Layers
    origins: Mapping[str, Origin]
    fresh: Mapping[str, Tensor]
    widened: int | None = None
    inserted: int | None = None

    def network(
        self,
        parent: LayerNetwork,
        *,
        generator: torch.Generator,
        noise: float = 0.0,
        images: Tensor | None = None,
    ) -> LayerNetwork:
        """The child; for the arguments, and for whose the tensors are, see `transform`."""
        if noise < 0:
            raise ValueError(f"noise must be at least 0, got {noise}")
        held, like = parent.state_dict(), parent.classifier.weight
        tensors = {name: origin.of(held[origin.name]) for name, origin in self.origins.items()}
        for name, tensor in self.fresh.items():
            tensors[name] = tensor.to(like.device, like.dtype if tensor.is_floating_point() else None, copy=True)
        if noise:
            self._disturb(tensors, noise, generator)
        child = LayerNetwork(self.layers, parent.image_shape, parent.num_classes, tensors=tensors)
        if images is not None and self.inserted is not None:
            _set_statistics(child, self.inserted, images)
        return child.train(parent.training)

    def momentum(self, buffers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Buffers of the child's optimiser from those of its parent's, by the names of the parameters.

        Momentum is the velocity of the weights, so it changes as they do: rows repeated, columns repeated and divided.
        Under it alone the child's function goes on moving as its parent's would have. (Gradients change the other way,
        rows divided and columns not.) New layers are left out: they are at rest. What the action leaves alone is
        shared, as the tensors of the networks are.
        """
        return {
            name: origin.of(buffers[origin.name]) for name, origin in self.origins.items() if origin.name in buffers
        }

    def optimiser_state(self, state: Mapping[str, Any], parent: LayerNetwork, child: LayerNetwork) -> dict[str, Any]:
        """The `state_dict` of an SGD optimiser of the child's parameters from that of its parent's.

        Its buffers are its own, copies where `momentum` shares them: they are there to be written to.

        Raises:
            ValueError: several groups of parameters, or a state that is not momentum, of which nothing is known.
        """
        if len(state["param_groups"]) != 1:
            raise ValueError(f"state must have one group of parameters, got {len(state['param_groups'])}")
        if unknown := {key for values in state["state"].values() for key in values} - {"momentum_buffer"}:
            raise ValueError(f"state must be that of SGD, with momentum_buffer alone; got {sorted(unknown)}")
        parents, children = ([name for name, _ in network.named_parameters()] for network in (parent, child))
        kept = {parents[index]: values.get("momentum_buffer") for index, values in state["state"].items()}
        buffers = {name: buffer for name, buffer in kept.items() if buffer is not None}
        carried = {
            name: tensor.clone() if tensor.data_ptr() == buffers[self.origins[name].name].data_ptr() else tensor
            for name, tensor in self.momentum(buffers).items()
        }
        return {
            "state": {i: {"momentum_buffer": carried[name]} for i, name in enumerate(children) if name in carried},
            "param_groups": [{**state["param_groups"][0], "params": list(range(len(children)))}],
        }

    def _disturb(self, tensors: dict[str, Tensor], noise: float, generator: torch.Generator) -> None:
        """Adds noise to new filters and matrices, in place; they are the child's own."""
        for name, tensor in tensors.items():
            rows = None if name in self.fresh else self.origins[name].rows
            if tensor.ndim > 1 and (name in self.fresh or rows is not None):
                new = tensor if rows is None else tensor[rows.channels :]
                drawn = torch.randn(new.shape, generator=generator).to(tensor)
                new.add_(drawn, alpha=noise * float(tensor.std(correction=0)))


def _morphism(
    network: LayerNetwork,
    layers: Layers,
    generator: torch.Generator,
    *,
    widened: int | None = None,
    inserted: int | None = None,
) -> Morphism:
    """Walks through the child's layers with what became of the channels that the next one reads."""
    origins: dict[str, Origin] = {}
    fresh: dict[str, Tensor] = {}
    shape: Shape = network.image_shape  # in the parent
    replicas: Replicas | None = None  # None: the channels are the parent's
    parents = iter(enumerate(network.layers))
    for index, layer in enumerate(layers):
        child = f"body.{index}"
        if index == inserted:
            new, replicas = _identity(child, layer, shape, generator)
            fresh |= new
            continue
        source, before = next(parents)
        parent = f"body.{source}"
        if isinstance(layer, Convolution):
            rows = _drawn(before, layer, 1, generator) if index == widened else None
            origins |= _convolution(child, parent, rows, replicas)
            replicas = rows
        elif isinstance(layer, DenseConvolution):
            inner = _drawn(before, layer, BOTTLENECK, generator) if index == widened else None
            rows = _drawn(before, layer, 1, generator) if index == widened else None
            origins |= _convolution(f"{child}.bottleneck", f"{parent}.bottleneck", inner, replicas)
            origins |= _convolution(f"{child}.growth", f"{parent}.growth", rows, inner)
            if replicas is not None or rows is not None:
                replicas = (replicas or _same(shape[0])).followed_by(rows or _same(layer.width))
        elif isinstance(layer, FullyConnected):
            columns = replicas and replicas.flattened(math.prod(shape[1:]))
            replicas = _drawn(before, layer, 1, generator) if index == widened else None
            origins |= _linear(f"{child}.linear", f"{parent}.linear", replicas, columns)
        shape = before.output(shape)
    columns = replicas and replicas.flattened(math.prod(shape[1:]))
    origins |= _linear("classifier", "classifier", None, columns)
    return Morphism(layers, origins, fresh, widened, inserted)


def _same(channels: int) -> Replicas:
    return Replicas(torch.arange(channels), channels)


def _drawn(before: Layer, layer: Weighted, factor: int, generator: torch.Generator) -> Replicas:
    assert isinstance(before, Weighted)
    return Replicas.drawn(factor * before.width, factor * layer.width, generator)


def _convolution(child: str, parent: str, rows: Replicas | None, columns: Replicas | None) -> dict[str, Origin]:
    """Of a `ConvolutionLayer`."""
    by_channel = ("weight", "bias", "running_mean", "running_var")
    return {
        f"{child}.convolution.weight": Origin(f"{parent}.convolution.weight", rows, columns),
        **{f"{child}.norm.{name}": Origin(f"{parent}.norm.{name}", rows) for name in by_channel},
        f"{child}.norm.num_batches_tracked": Origin(f"{parent}.norm.num_batches_tracked"),
    }


def _linear(child: str, parent: str, rows: Replicas | None, columns: Replicas | None) -> dict[str, Origin]:
    """Of a linear layer."""
    weight = Origin(f"{parent}.weight", rows, columns)
    return {f"{child}.weight": weight, f"{child}.bias": Origin(f"{parent}.bias", rows)}


def _identity(
    name: str, layer: Layer, shape: Shape, generator: torch.Generator
) -> tuple[dict[str, Tensor], Replicas | None]:
    """The tensors of a layer that passes on what it is given, and what becomes of the channels behind it."""
    match layer:
        case Convolution():
            return _convolution_identity(name, _centred(torch.eye(layer.width), layer.kernel)), None
        case DenseConvolution():
            # All units of the bottleneck repeat some channel, and the new channels are the first of them: the weights
            # of the others are 0, but they have a gradient, so that no noise is needed to make use of them.
            repeated = torch.randint(shape[0], (BOTTLENECK * layer.width,), generator=generator)
            chosen = torch.nn.functional.one_hot(repeated, shape[0]).float()
            first = torch.eye(layer.width, BOTTLENECK * layer.width)
            tensors = _convolution_identity(f"{name}.bottleneck", _centred(chosen, 1))
            tensors |= _convolution_identity(f"{name}.growth", _centred(first, layer.kernel))
            index = torch.cat([torch.arange(shape[0]), repeated[: layer.width]])
            return tensors, Replicas(index, shape[0])
        case FullyConnected():
            return {
                f"{name}.linear.weight": torch.eye(layer.width),
                f"{name}.linear.bias": torch.zeros(layer.width),
            }, None
        case _:
            raise AssertionError(layer)


def _centred(matrix: Tensor, kernel: int) -> Tensor:
    """Filters float[out, in, kernel, kernel] that mix channels pixel by pixel."""
    outputs, inputs = matrix.shape
    filters = torch.zeros(outputs, kernel, kernel, inputs)
    filters[:, kernel // 2, kernel // 2] = matrix
    return filters.movedim(-1, 1)


def _convolution_identity(name: str, filters: Tensor) -> dict[str, Tensor]:
    """A `ConvolutionLayer` whose batch norm, in evaluation, changes nothing."""
    width = len(filters)
    return {
        f"{name}.convolution.weight": filters,
        f"{name}.norm.weight": torch.full((width,), math.sqrt(1 + EPS)),
        f"{name}.norm.bias": torch.zeros(width),
        f"{name}.norm.running_mean": torch.zeros(width),
        f"{name}.norm.running_var": torch.ones(width),
        f"{name}.norm.num_batches_tracked": torch.tensor(0),
    }


@torch.no_grad()
def _set_statistics(network: LayerNetwork, index: int, images: Tensor) -> None:
    """Sets the batch norm of layer `index` so that it changes nothing, in training on these images neither."""
    x = channels_last(images.to(network.classifier.weight))
    for module in network.body[:index].train():
        # Statistics that the parent may hold too must not move.
        buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
        x = functional_call(module, buffers, (x,))
    new = network.body[index]
    parts = {ConvolutionLayer: [new], DenseConvolutionLayer: [*new.children()]}.get(type(new), [])
    for part in parts:
        assert isinstance(part, ConvolutionLayer)
        x = part.convolution(x)
        variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
        part.norm.load_state_dict(
            {
                "weight": torch.sqrt(variance + part.norm.eps),
                "bias": mean,
                "running_mean": mean,
                "running_var": variance,
                "num_batches_tracked": torch.tensor(0),
            }
        )
        x = torch.relu(x)
