"""Whether a GPU computes what it should."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
from collections.abc import Iterable, Iterator
from functools import partial
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu_path.bench import BATCHABLE, PROXY, PROXY_PIXELS, SPACES, Bench, Row, present, small_networks_of
from nas_gym.evaluators import training
from nas_gym.evaluators.training import fit
from nas_gym.networks import Network, NetworkSettings, make_supernet
from nas_gym.spaces import Tokens, make_space


def equality(bench: Bench) -> list[Row]:
    """Is a batch what its members are alone, bfloat16 nearly float32, and CUDA what the CPU is?

    Numbers are the length of the difference over that of the vector. `equal` tells whether all are within tolerance: in
    float32 1e-3 for logits and losses and 1e-2 for gradients, in bfloat16 0.25 for logits and 0.05 for losses. Before
    any training the gradients of deep networks are chaotic, so those in bfloat16 are only told.
    """
    rows = [bench.once(f"equality supernet {name}", partial(equal_supernets, bench, name)) for name in SPACES]
    rows += [bench.once(f"equality training {name}", partial(equal_trainings, bench, name)) for name in BATCHABLE]
    return present(rows)


def equal_supernets(bench: Bench, name: str) -> Row:
    """Logits and gradients of a supernet: of a batch against a loop, in bfloat16, on both devices."""
    space, sizes = make_space(name), bench.sizes
    tokens = space.sample(np.random.default_rng(0), sizes.equal)
    shape = (1, sizes.pixels, sizes.pixels)
    images = torch.randn(min(sizes.batch, 16), *shape, generator=torch.Generator().manual_seed(0))
    network = make_supernet(space, shape, 10, NetworkSettings(channels=8, reductions=1))

    def run(groups: Iterable[Tokens], device: torch.device, half: bool = False) -> tuple[Tensor, Tensor]:
        return logits_and_gradient(copy.deepcopy(network).to(device), images.to(device), groups, half)

    together = run([tokens], bench.device)
    rows = [tokens[row : row + 1] for row in range(len(tokens))]
    comparisons = {
        "single": (run(rows, bench.device), 1e-3, 1e-2),
        "bfloat16": (run([tokens], bench.device, half=True), 0.25, math.inf),
    }
    if bench.device.type == "cuda":
        comparisons["cpu"] = (run([tokens], torch.device("cpu")), 1e-3, 1e-2)
    found: Row = {"equal": True}
    for kind, (other, *tolerances) in comparisons.items():
        for what, ours, theirs, tolerance in zip(("logits", "gradient"), together, other, tolerances, strict=True):
            found[f"{kind} {what}"] = difference(ours, theirs)
            found["equal"] &= found[f"{kind} {what}"] < tolerance
    return found


def logits_and_gradient(
    network: Network, images: Tensor, groups: Iterable[Tokens], half: bool
) -> tuple[Tensor, Tensor]:
    """Of a supernet, on the CPU: logits of all architectures, and the gradient of the mean cross-entropy."""
    labels = torch.arange(len(images), device=images.device) % 10
    with full_precision(), torch.autocast(images.device.type, torch.bfloat16, enabled=half):
        logits = torch.cat([network(images, group) for group in groups]).float()
    F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits))).backward()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]
    return logits.detach().cpu(), torch.cat([gradient.flatten() for gradient in gradients]).cpu()


def equal_trainings(bench: Bench, name: str) -> Row:
    """Losses of small networks trained together against those of each alone, in bfloat16, on both devices.

    A step takes all images, so that their order, which each device draws by a generator of its own, does not matter.
    """
    space, task = make_space(name), bench.noise(bench.sizes.batch, PROXY_PIXELS)
    tokens = space.sample(np.random.default_rng(0), bench.sizes.equal)
    settings = dataclasses.replace(PROXY.training, epochs=3, batch_size=len(task.train), record=())

    def losses(device: torch.device, batched: bool, half: bool = False) -> Tensor:
        networks = small_networks_of(name, tokens)
        exact = full_precision() if not half else contextlib.nullcontext()
        with exact:
            curves = fit(networks, task.to(device), settings, seeds=range(len(tokens)), batched=batched)
        return torch.from_numpy(np.array([curve.loss for curve in curves]))

    together = losses(bench.device, True)
    found: Row = {"single": difference(together, losses(bench.device, False))}
    limits = {"single": 1e-3}
    if bench.device.type == "cuda":
        found["bfloat16"] = difference(together, losses(bench.device, True, half=True))
        found["cpu"] = difference(together, losses(torch.device("cpu"), True))
        limits |= {"bfloat16": 0.05, "cpu": 1e-3}
    return {"equal": all(found[kind] < limit for kind, limit in limits.items()), **found}


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The length of a difference, over that of a vector."""
    return float((ours - theirs).norm() / theirs.norm())


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Neither TensorFloat-32 in convolutions nor bfloat16 in trainings."""
    flags = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with flags, mock.patch.object(training, "mixed_precision", return_value=contextlib.nullcontext()):
        yield
