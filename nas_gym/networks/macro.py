"""Networks of the macro space of ENAS (Pham et al. 2018, section 2.3)."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from nas_gym.networks.bank import Bank, Maps
from nas_gym.networks.network import Head, Network, Stem, masked
from nas_gym.networks.operations import FactorisedReduction, make_operation
from nas_gym.spaces import MacroSpace, Tokens
from nas_gym.types import Bools


class MacroNetwork(Network):
    """Stem, layers, classifier.

    A layer applies its operation to the output of the layer before, adds the outputs of the layers that its skip bits
    choose, and normalises the sum, as the authors' code does under shared weights. The layers make stages of equal
    length; before a stage a factorised reduction, with weights of its own, brings each output that is still to be read
    to the stage's resolution and channels.

    Raises:
        ValueError: there are not more layers than reductions.
    """

    space: MacroSpace
    unused_settings = ("cells_per_stage", "auxiliary")

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        layers, reductions, channels = self.space.layers, self.settings.reductions, self.settings.channels
        if reductions >= layers:
            raise ValueError(f"reductions must be fewer than the {layers} layers of the space, got {reductions}")
        skips = self._held_skips()
        stages = np.arange(layers) * (reductions + 1) // layers
        self.stem = Stem(image_shape[0], channels, self.settings.stem_stride, self.norm)
        self.reductions = nn.ModuleDict()  # by the layer before which they stand, then by what they reduce
        self.operations, self.norms = nn.ModuleList(), nn.ModuleList()
        for layer, column in enumerate(self.space.operation_columns):
            if layer and stages[layer] > stages[layer - 1]:
                sources = still_read(skips, layer)
                self.reductions[str(layer)] = nn.ModuleDict(
                    {str(source): FactorisedReduction(channels, 2 * channels, self.norm) for source in sources}
                )
                channels *= 2
            operations = {
                choice: make_operation(self.space.operations[choice], channels, channels, 1, self.norm)
                for choice in self.allowed[column]
            }
            # Without skips the operation is the only path, which must not be dropped.
            self.operations.append(Bank(operations, self.drop_path if skips[:, layer].any() else None))
            self.norms.append(self.norm(channels))
        self.head = Head(channels, num_classes)

    def _held_skips(self) -> Bools:
        """bool[1, layers, layers], the skips of the architecture held; all there can be in a supernet."""
        every_bit = np.ones((1, self.space.length), dtype=np.int64)
        return self.space.skips(every_bit if self.architecture is None else np.asarray(self.architecture.tokens)[None])

    def run(self, images: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor | None]:
        skips, first = self.space.skips(tokens), np.zeros(len(tokens), dtype=np.int64)
        x = self.expanded(self.stem(images), len(tokens))
        outputs: dict[int, Tensor] = {}
        for layer, column in enumerate(self.space.operation_columns):
            if str(layer) in self.reductions:
                outputs = {s: self._reduced(outputs[s], layer, s) for s in still_read(skips, layer)}
                x = outputs[layer - 1]
            x = self.operations[layer]([Maps(x, len(tokens))], first, tokens[:, column])
            for source in np.flatnonzero(skips[:, layer].any(axis=0)).tolist():
                x = x + masked(outputs[source], skips[:, layer, source])
            x = outputs[layer] = self.norms[layer](x)
        return self.head(x), None

    def _reduced(self, output: Tensor, layer: int, source: int) -> Tensor:
        reduced: Tensor = self.reductions.get_submodule(f"{layer}.{source}")(output)
        return reduced


def still_read(skips: Bools, layer: int) -> list[int]:
    """The outputs that `layer` or a later one reads: the output before it, and those of skips bool[B, to, from]."""
    return [s for s in range(layer) if s == layer - 1 or skips[:, layer:, s].any()]
