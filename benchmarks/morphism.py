"""Milliseconds and bytes of one transformation of a network of ten million parameters.

    python benchmarks/morphism.py [--threads 2]

Milliseconds are medians, by the clock and of the processor: on a busy machine the second tell more. Bytes are those of
the child's tensors that are not the parent's own: all that a transformation allocates and keeps.
"""

from __future__ import annotations

import platform
import statistics
import time

import torch
import tyro

from nas_gym.networks.layers import LayerNetwork
from nas_gym.networks.morphism import transform
from nas_gym.spaces.layer_space import Action, Deepen, LayerSpace, Widen
from nas_gym.spaces.layers import Convolution, FullyConnected, GlobalPool, Layers, Pool

LARGE = Layers(
    (
        *[Convolution(3, 64)] * 2,
        Pool("max"),
        *[Convolution(3, 128)] * 2,
        Pool("max"),
        *[Convolution(3, 256)] * 3,
        Pool("max"),
        *[Convolution(3, 512)] * 3,
        GlobalPool(),
        *[FullyConnected(1152)] * 2,
    )
)
SPACE = LayerSpace(LARGE, (3, 32, 32), max_parameters=20_000_000)
CASES: dict[str, tuple[Action, int]] = {  # an action, and the number of images that set the batch norm
    "widen the first layer": (Widen(0), 0),
    "widen a layer in the middle": (Widen(7), 0),
    "widen the largest layer": (Widen(11), 0),
    "widen a fully connected layer": (Widen(14), 0),
    "deepen the first block": (Deepen(0, 1, 3), 0),
    "deepen the last block": (Deepen(3, 2, 3), 0),
    "deepen the last, 8 images": (Deepen(3, 2, 3), 8),
    "deepen the last, 64 images": (Deepen(3, 2, 3), 64),
    "deepen the fully connected": (Deepen(4, 1, None), 0),
}


def new_bytes(child: LayerNetwork, parent: LayerNetwork) -> int:
    """Of the tensors that the child does not share."""
    shared = {tensor.untyped_storage().data_ptr() for tensor in parent.state_dict().values()}
    tensors = child.state_dict().values()
    return sum(tensor.nbytes for tensor in tensors if tensor.untyped_storage().data_ptr() not in shared)


def main(threads: int = 1, repeats: int = 15) -> None:
    """Prints the table.

    Args:
        threads: of torch.
        repeats: of each case, after one to warm up.
    """
    torch.set_num_threads(threads)
    parent = LayerNetwork(LARGE, SPACE.image_shape, SPACE.num_classes).eval()
    total = sum(tensor.nbytes for tensor in parent.state_dict().values())
    print(f"torch {torch.__version__}, {threads} threads, {platform.processor() or platform.machine()}")
    print(f"{SPACE.parameters(LARGE):,} parameters, {total / 2**20:.1f} MiB: {LARGE}")
    print(f"{'action':<30} {'clock':>9} {'processor':>9} {'new':>10} {'shared':>7}")
    for name, (action, number) in CASES.items():
        images = torch.randn(number, *SPACE.image_shape) if number else None
        clock, processor = [], []
        for _ in range(repeats + 1):
            generator = torch.Generator().manual_seed(0)
            start = time.perf_counter(), time.process_time()
            child = transform(parent, action, SPACE, generator=generator, noise=1e-2, images=images)
            clock.append(1e3 * (time.perf_counter() - start[0]))
            processor.append(1e3 * (time.process_time() - start[1]))
        new = new_bytes(child, parent)
        shared = 1 - new / sum(tensor.nbytes for tensor in child.state_dict().values())
        times = " ".join(f"{statistics.median(each[1:]):>6.1f} ms" for each in (clock, processor))
        print(f"{name:<30} {times} {new / 2**20:>6.2f} MiB {shared:>7.1%}", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
