"""The networks of the space in own_space.py: of one architecture, or of all with shared weights."""

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from nas_gym.networks import Network, make_operation
from nas_gym.networks.bank import Bank, Maps
from nas_gym.networks.network import Head, Stem
from nas_gym.spaces import Tokens


class OwnNetwork(Network):
    """Stem, average pooling, the layers, classifier."""

    unused_settings = ("cells_per_stage", "auxiliary")

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Makes the modules: for each layer a bank of the operations that it may have, one of which each image uses."""
        channels = self.settings.channels
        self.stem = Stem(image_shape[0], channels, self.settings.stem_stride, self.norm)
        self.layers = nn.ModuleList()
        for allowed in self.allowed:  # one operation in a network of its own, all of them in a supernet
            names = {choice: self.space.operations[choice] for choice in allowed}
            operations = {c: make_operation(name, channels, channels, 1, self.norm) for c, name in names.items()}
            self.layers.append(Bank(operations))
        self.head = Head(channels, num_classes)

    def run(self, images: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor | None]:
        """Logits for int64[B, T] architectures, one behind the other."""
        x = F.avg_pool2d(self.stem(images), 2**self.settings.reductions)
        x = self.expanded(x, len(tokens))
        first = np.zeros(len(tokens), dtype=np.int64)  # each layer reads the only state that there is
        for layer, choices in zip(self.layers, tokens.T, strict=True):
            x = layer([Maps(x, len(tokens))], first, choices)
        return self.head(x), None
