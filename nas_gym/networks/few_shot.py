"""Several supernets of a space, one for each choice of a decision (Zhao et al. 2021, "Few-Shot NAS")."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from nas_gym.networks.network import Network
from nas_gym.spaces import Tokens


class FewShotNetwork(nn.Module):
    """Copies of a supernet, of which each architecture uses the one of its choice.

    Args:
        supernet: whose weights the copies start from.
        position: of the decision.
    """

    def __init__(self, supernet: Network, position: int) -> None:
        super().__init__()
        self.position = position
        self.supernets = nn.ModuleList(copy.deepcopy(supernet) for _ in supernet.space.decisions[position].choices)

    def forward(self, images: Tensor, tokens: Tokens) -> Tensor:
        """Logits float[B, N, classes] of images float[N, C, H, W] and architectures int64[B, T]."""
        logits: dict[int, Tensor] = {}
        for choice in np.unique(tokens[:, self.position]).tolist():
            rows = np.flatnonzero(tokens[:, self.position] == choice)
            logits |= dict(zip(rows.tolist(), self.supernets[choice](images, tokens[rows]), strict=True))
        return torch.stack([logits[row] for row in range(len(tokens))])
