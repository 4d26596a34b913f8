"""Architectures scored per second: the supernet's batched forward against a loop over single architectures.

    python benchmarks/supernet.py [--devices cpu cuda] [--threads 2]

Same weights, same images, same architectures, in one process; the two take turns. Rows whose activations would take
more than half of the memory are left out.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from nas_gym.evaluators.training import mixed_precision
from nas_gym.networks import Network, NetworkSettings, make_supernet
from nas_gym.spaces import Tokens, make_space

SPACES = ("cell:enas", "bench201")
SIZES = (8, 14)  # digits; Fashion-MNIST behind a stem of stride 2
SETTINGS = NetworkSettings(channels=8, cells_per_stage=1, reductions=1)  # those of the shared-weight evaluator
ALIVE = 16  # full-size activations of a forward that are held at once, generously


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """How long a run takes, to the end of what it started on the device."""
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def fits(device: torch.device, batch: int, images: int, size: int) -> bool:
    """Whether the activations take less than half of the memory."""
    needed = 4 * ALIVE * batch * images * SETTINGS.channels * size**2
    if device.type == "cuda":
        return needed < torch.cuda.mem_get_info()[0] / 2
    return needed < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2


@torch.no_grad()
def compare(network: Network, images: Tensor, tokens: Tokens, singles: int, repeats: int) -> list[tuple[float, float]]:
    """Architectures per second, (batched, one at a time), of each repeat; the loop scores the first `singles`."""
    device = images.device

    def batched() -> Tensor:
        with mixed_precision(device):
            return network(images, tokens).argmax(dim=-1)

    def loop() -> list[Tensor]:
        with mixed_precision(device):
            return [network(images, tokens[row : row + 1]).argmax(dim=-1) for row in range(singles)]

    seconds(batched, device), seconds(loop, device)
    return [(len(tokens) / seconds(batched, device), singles / seconds(loop, device)) for _ in range(repeats)]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", nargs="+", default=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--images", type=int, default=64, help="of a minibatch")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 64, 256], help="architectures")
    parser.add_argument("--singles", type=int, default=16, help="architectures of the loop, at most, a repeat")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} threads, {arguments.images} images, medians")
    for name in arguments.devices:
        device = torch.device(name)
        cuda, processor = device.type == "cuda", platform.processor() or platform.machine()
        print(f"\n{name}: {torch.cuda.get_device_name() if cuda else processor}")
        print(f"{'space':<10} {'pixels':>7} {'batch':>6} {'batched/s':>10} {'singly/s':>10} {'ratio':>7}")
        for space_name in SPACES:
            space = make_space(space_name)
            for size in SIZES:
                network = make_supernet(space, (1, size, size), 10, SETTINGS).to(device).eval()
                images = torch.randn(arguments.images, 1, size, size, device=device)
                for batch in arguments.batch_sizes:
                    label = f"{space_name:<10} {f'{size}x{size}':>7} {batch:>6}"
                    if not fits(device, batch, arguments.images, size):
                        print(f"{label} does not fit into memory")
                        continue
                    tokens = space.sample(np.random.default_rng(0), batch)
                    rates = compare(network, images, tokens, min(batch, arguments.singles), arguments.repeats)
                    together, singly = map(statistics.median, zip(*rates, strict=True))
                    print(f"{label} {together:>10,.1f} {singly:>10,.1f} {together / singly:>7.2f}", flush=True)


if __name__ == "__main__":
    main()
