"""Many networks of a layer space as one array: which transformations are legal, and what they make of the networks.

Each pool has a slot, and each block as many as it may have layers; the layers of a block fill its first slots. All
properties of a network then follow from its tokens by slot, for all networks at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_gym.spaces.layers import ABSENT, DenseConvolution, FullyConnected, Layer, Layers, Shape, Weighted

Networks = NDArray[np.int64]
"""int64[slots, B], the token of the layer in each slot of B networks; the size of the vocabulary in empty slots."""
Floats = NDArray[np.floating[Any]]
EXACT = 2**53
"""Whole numbers below this are exact in float64."""


class LayerArrays:
    """The rules of transformations, as tables.

    A layer with c input channels has ``c * p + f`` parameters and hands on ``keep * c + w`` channels, where p, f, keep
    and w depend on the layer alone. Making it wider changes the number of parameters by a product with the channels
    before it, and by a product with those parameters that read a channel after it.

    Args:
        start: the start network.
        vocabulary: all layers; a token is an index into it.
        wider: the layer with the next width, None if there is none.
        deeper: the new layers that may follow a layer in its block, one per kernel size.
        kernels: the number of kernel sizes.
        depth: maximum number of layers per block.
        image_shape: (channels, height, width).
        num_classes: number of logits.
        max_parameters: maximum number of parameters, below `EXACT`.

    Attributes:
        start: int64[slots, 1], the start network.
    """

    def __init__(
        self,
        start: Layers,
        vocabulary: Sequence[Layer],
        wider: Callable[[Layer], Layer | None],
        deeper: Callable[[Layer], Sequence[Layer]],
        kernels: int,
        depth: int,
        image_shape: Shape,
        num_classes: int,
        max_parameters: int,
    ) -> None:
        self.vocabulary, self.depth = tuple(vocabulary), depth
        self.token = {layer: token for token, layer in enumerate(vocabulary)}
        self.empty = len(self.vocabulary)
        self._channels, self._num_classes, self._max_parameters = image_shape[0], num_classes, max_parameters
        self._arrange(start, kernels)
        self._tabulate(wider, deeper, kernels)
        shapes = start.shapes(image_shape)
        self._classifier_area = shapes[-1][1] * shapes[-1][2]
        # The first fully connected layer reads every pixel.
        connected = [index for index, layer in enumerate(start) if isinstance(layer, FullyConnected)]
        self._flattens = [self._slots_of(start)[connected[0]]] if connected else []
        self._flat_area = shapes[connected[0]][1] * shapes[connected[0]][2] if connected else 1
        self.start = self.encode(start)

    def _arrange(self, start: Layers, kernels: int) -> None:
        """Gives each pool a slot and each block `depth`, and finds the slots of the insertions."""
        self._pools: dict[int, Layer] = {}  # by slot
        self._blocks: list[int] = []  # the first slot of each
        self._kinds = [isinstance(start.layers[block.start], FullyConnected) for block in start.blocks]
        insertions: list[tuple[int, int, int]] = []  # the slot before, the last slot of the block, the kernel
        slot = 0
        for index, layer in enumerate(start):
            if not isinstance(layer, Weighted):
                self._pools[slot] = layer
                slot += 1
            elif index in (block.start for block in start.blocks):
                self._blocks.append(slot)
                last = slot + self.depth - 1
                choices = 1 if isinstance(layer, FullyConnected) else kernels
                insertions += [(before, last, kernel) for before in range(slot, last) for kernel in range(choices)]
                slot += self.depth
        self.slots = slot
        self._before, self._last, self._kernel = np.array(insertions, dtype=np.int64).reshape(-1, 3).T

    def _tabulate(
        self, wider: Callable[[Layer], Layer | None], deeper: Callable[[Layer], Sequence[Layer]], kernels: int
    ) -> None:
        """Tables by token, the last column for empty slots."""
        layers = self.vocabulary
        # Floats are faster than integers. Sums of positive numbers are exact up to a bound, and rounded to no less than
        # the bound beyond it, so that they compare with the maximum as the exact ones do.
        number = np.float32 if self._max_parameters < 2**24 else np.float64
        costs: Floats = np.array([*map(_cost, layers), (0, 0, 1, 0)]).T.astype(number)  # p, f, keep, w
        self._wider = np.full(len(layers) + 1, self.empty)
        self._deeper = np.full((kernels, len(layers) + 1), self.empty)
        for token, layer in enumerate(layers):
            grown = wider(layer)
            if grown is not None:
                self._wider[token] = self.token[grown]
            for kernel, new in enumerate(deeper(layer)):
                self._deeper[kernel, token] = self.token[new]
        gained = costs[:, self._wider] - costs
        gained[1, self._wider == self.empty] = np.inf  # more than is ever allowed
        self._layer_table = np.concatenate([costs, gained[[0, 1, 3]]])
        # A new layer reads the channels of the one before: the width, or, where it keeps them, all, for the same p.
        _, _, keep, w = costs
        new_p, new_f = costs[:2, self._deeper]
        self._new_costs = np.where(self._deeper == self.empty, np.inf, new_f + (1 - keep) * w * new_p)

    # ------------------------------------------------------------------ forms

    def _slots_of(self, layers: Layers) -> list[int]:
        """The slot of each layer.

        Raises:
            ValueError: they are not pools and blocks like those of the start network.
        """
        slots = [0] * len(layers)
        starts = dict(zip(layers.blocks, self._blocks, strict=False))
        for block, first in starts.items():
            for position, index in enumerate(block[: self.depth]):
                slots[index] = first + position
        pools = [index for index, layer in enumerate(layers) if not isinstance(layer, Weighted)]
        for index, slot in zip(pools, self._pools, strict=False):
            slots[index] = slot
        pools_alike = [layers.layers[index] for index in pools] == list(self._pools.values())
        kinds = [isinstance(layers.layers[block.start], FullyConnected) for block in layers.blocks]
        fits = kinds == self._kinds and all(len(block) <= self.depth for block in layers.blocks)
        if not (pools_alike and fits and slots == sorted(set(slots))):
            raise ValueError(f"{layers} has other blocks or pools than the networks of the space")
        return slots

    def encode(self, layers: Layers) -> Networks:
        """A network as an array, int64[slots, 1].

        Raises:
            ValueError: it is not a network of the space.
        """
        if (unknown := next((layer for layer in layers if layer not in self.token), None)) is not None:
            raise ValueError(f"{layers} is not a network of the space, whose vocabulary is without {unknown}")
        networks = np.full((self.slots, 1), self.empty, dtype=np.int64)
        networks[self._slots_of(layers), 0] = [self.token[layer] for layer in layers]
        return networks

    def decode(self, networks: Networks) -> list[Layers]:
        """The networks as sequences of layers."""
        columns = networks.T.tolist()
        return [Layers(tuple(self.vocabulary[token] for token in row if token != self.empty)) for row in columns]

    def sequences(self, networks: Networks) -> NDArray[np.int64]:
        """int64[B, slots], the tokens in the order of the layers, `ABSENT` after the last layer."""
        tokens = np.full((networks.shape[1], self.slots + 1), ABSENT, dtype=np.int64)
        self._write_in_sequence(networks, np.where(networks == self.empty, ABSENT, networks), tokens)
        return tokens[:, : self.slots]

    def _write_in_sequence(self, networks: Networks, values: NDArray[Any], rows: NDArray[Any]) -> None:
        """Writes values by slot, [slots, B], by layer into the first columns of contiguous rows, [B, more than slots].

        The value of an empty slot is overwritten by that of the next layer.
        """
        cells, width = rows.reshape(-1), rows.shape[1]
        cell = np.arange(len(rows)) * width
        for value, present in zip(values, networks != self.empty, strict=True):
            cells[cell] = value
            cell += present

    # ------------------------------------------------------------------ transformations

    def legal(self, networks: Networks) -> NDArray[np.bool_]:
        """Which actions are legal, bool[B, A]: wider by layer, insertions, stop."""
        count, wider, deeper = self.parameters(networks)
        room = self._max_parameters - count
        legal = np.empty((networks.shape[1], self.slots + len(deeper) + 1), dtype=bool)
        legal[:, : self.slots] = False
        self._write_in_sequence(networks, wider <= room, legal)
        np.less_equal(deeper, room, out=legal[:, self.slots : -1].T)
        legal[:, -1] = True
        return legal

    def parameters(self, networks: Networks) -> tuple[Floats, Floats, Floats]:
        """The number of parameters, and the increase by each transformation; inf where it is not possible.

        Returns:
            [B]; [slots, B] of a wider layer in each slot; [D, B] of the insertions. Exact up to the maximum.
        """
        p, f, keep, w, more_p, more_f, more_w = np.take(self._layer_table, networks, axis=1)
        for slot in self._flattens:
            p[slot] *= self._flat_area
            more_p[slot] *= self._flat_area
        channels = np.empty((self.slots + 1, networks.shape[1]), dtype=p.dtype)  # before each slot
        channels[0] = self._channels
        count = f.sum(axis=0)
        for slot in range(self.slots):
            count += channels[slot] * p[slot]
            np.multiply(keep[slot], channels[slot], out=channels[slot + 1])
            channels[slot + 1] += w[slot]
        count += (channels[-1] * self._classifier_area + 1) * self._num_classes
        readers = np.empty_like(p)  # the parameters that read a channel after each slot
        readers[-1] = self._num_classes * self._classifier_area
        for slot in range(self.slots - 1, 0, -1):
            np.multiply(keep[slot], readers[slot], out=readers[slot - 1])
            readers[slot - 1] += p[slot]
        wider = channels[:-1] * more_p + more_f + readers * more_w
        kept = keep * (channels[1:] * p + readers * w)
        deeper = self._new_costs.take(networks[self._before] + self._kernel[:, None] * (self.empty + 1))
        deeper += kept[self._before]
        deeper[networks[self._last] != self.empty] = np.inf
        return count, wider, deeper

    def grown(self, networks: Networks, choices: NDArray[np.int64]) -> Networks:
        """The networks after legal actions int64[B]."""
        networks = networks.copy()
        layer, slots = np.full(len(choices), -1), np.zeros(len(choices), dtype=np.int64)
        for present in networks != self.empty:
            layer += present
            slots += layer < choices
        columns = np.flatnonzero(choices < self.slots)
        slots = slots[columns]
        networks[slots, columns] = self._wider[networks[slots, columns]]

        columns = np.flatnonzero((choices >= self.slots) & (choices < self.slots + len(self._before)))
        inserted = choices[columns] - self.slots
        before, last = np.full((2, len(choices)), self.slots)  # nothing moves where nothing is inserted
        before[columns], last[columns] = self._before[inserted], self._last[inserted]
        slot = np.arange(1, self.slots)[:, None]
        np.copyto(networks[1:], networks[:-1].copy(), where=(before < slot) & (slot <= last))
        slots = before[columns] + 1
        networks[slots, columns] = self._deeper[self._kernel[inserted], networks[slots, columns]]
        return networks


def _cost(layer: Layer) -> tuple[int, int, int, int]:
    """p, f, keep and w of a layer; of a fully connected one, p for inputs of one pixel."""
    f = layer.parameters((0, 1, 1))
    p = layer.parameters((1, 1, 1)) - f
    width = layer.width if isinstance(layer, Weighted) else 0
    return p, f, int(not isinstance(layer, Weighted) or isinstance(layer, DenseConvolution)), width
