"""Export of a trained network as a program that needs only PyTorch to run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from nas_gym.files import replacing
from nas_gym.networks import Network
from nas_gym.tasks import ImageTask


class Classifier(nn.Module):
    """A network preceded by the normalisation of its task: takes raw pixels and returns logits.

    Args:
        network: of one architecture.
        task: the task that it was trained on.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: Network, task: ImageTask) -> None:
        super().__init__()
        mean, std = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (task.mean, task.std))
        self.network = network
        self.register_buffer("scale", (1 / (255 * std)).float())
        self.register_buffer("shift", (-mean / std).float())

    def forward(self, images: Tensor) -> Tensor:
        """Logits float[N, classes] of uint8[N, C, H, W]."""
        logits: Tensor = self.network(images.to(torch.float32) * self.scale + self.shift)
        return logits


def export(network: Network, task: ImageTask, path: Path, about: Mapping[str, str]) -> None:
    """Writes a network as an exported program for any batch size, which needs only PyTorch to run.

    Args:
        network: of one architecture, on the CPU.
        task: the task that it was trained on.
        path: the file to write, with suffix .pt2 by convention.
        about: further text files to store in it, by name.
    """
    classifier = (
        Classifier(network, task).eval().to(memory_format=torch.contiguous_format)
    )  # the layout of loaded weights
    images = torch.zeros(2, *task.image_shape, dtype=torch.uint8)
    with torch.no_grad():
        program = torch.export.export(classifier, (images,), dynamic_shapes=({0: torch.export.Dim("images", min=1)},))
    with replacing(path) as temporary:
        torch.export.save(program, temporary, extra_files=dict(about))
