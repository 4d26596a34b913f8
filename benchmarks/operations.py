"""Operations of a step of a supernet on a GPU, for one architecture and for many at once, counted without a GPU.

    python benchmarks/operations.py [--at-once 64] [--spaces cell:enas ...]

Where networks are small, a GPU waits for the next operation, so that their number is the time. They are counted on
tensors without data, forward and backward, with the evaluator's default network; views, and index tensors that are sent
to the device, are left out. Prints the table of docs/gpu.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from benchmarks.gpu_path.bench import SPACES
from nas_gym.evaluators.shared_weights import SharedWeightSettings
from nas_gym.networks import Network, make_supernet
from nas_gym.networks.layers import channels_last
from nas_gym.networks.network import ArchitectureNorm
from nas_gym.spaces import Tokens, make_space

SHAPE = (1, 28, 28)
SINGLES = 8  # architectures that the operations of a single one are averaged over
FREE = {
    *("view", "_unsafe_view", "transpose", "permute", "expand", "slice", "split", "split_with_sizes", "detach"),
    *("alias", "unsqueeze", "squeeze", "select", "t", "as_strided", "empty", "empty_like", "lift_fresh", "_to_copy"),
}


class Counter(TorchDispatchMode):
    """Counts what a GPU would be given to do."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        name = function.__name__.partition(".")[0]
        self.total += name not in FREE
        found = function(*arguments, **(named or {}))
        if name in ("convolution", "convolution_backward"):  # cuDNN keeps the order, tensors without data do not
            return tree_map_only(torch.Tensor, channels_last, found)
        return found


def supernet(name: str) -> Network:
    """A supernet without data, as the evaluator makes it by default."""
    network = make_supernet(make_space(name), SHAPE, 10, SharedWeightSettings().network(SHAPE)).to("meta")
    for module in network.modules():
        if isinstance(module, ArchitectureNorm):
            module.affine = False
            module.requires_grad_(False)
    return network


def count(run: Callable[[Tokens], None], groups: Iterable[Tokens]) -> float:
    """The mean number of operations."""
    counts = []
    for group in groups:
        with Counter() as counter:
            run(group)
        counts.append(counter.total)
    return float(np.mean(counts))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--spaces", nargs="+", default=list(SPACES))
    arguments = parser.parse_args()
    print(
        f"| space | training: one | {arguments.at_once} at once | times fewer | scoring: one | at once | times fewer |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in arguments.spaces:
        network, images = supernet(name), torch.zeros(64, *SHAPE, device="meta")
        tokens = make_space(name).sample(np.random.default_rng(0), arguments.at_once)

        def train(group: Tokens, network: Network = network, images: torch.Tensor = images) -> None:
            network.zero_grad(set_to_none=True)
            network(images, group).sum().backward()

        def score(group: Tokens, network: Network = network, images: torch.Tensor = images) -> None:
            with torch.no_grad():
                network(images, group)

        cells = []
        for run in (train, score):
            one, many = count(run, [row[None] for row in tokens[:SINGLES]]), count(run, [tokens])
            cells += [f"{one:,.0f}", f"{many:,.0f}", f"{one * arguments.at_once / many:.1f}"]
        print(f"| `{name}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
