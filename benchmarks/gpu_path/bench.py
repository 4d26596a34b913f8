"""What the pieces of benchmarks/gpu.py share: how large they are, where results are kept, when a call is to end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nas_gym.experiments.run import Interrupted
from nas_gym.files import file_name, read_json, write_json
from nas_gym.networks import Network, make_network
from nas_gym.spaces import Tokens, make_space
from nas_gym.tables.builder import BuildSettings
from nas_gym.tasks import Augmentation, ImageTask, Split

SPACES = ("cell:enas", "bench201", "chain:stop", "macro", "size", "bench101", "hierarchical", "mobile")
"""Those with supernets."""
BATCHABLE = ("bench201", "cell:enas", "size")
"""Those whose networks are trained together."""
PROXY = BuildSettings()
"""Small networks and their training: the table builder's."""
PROXY_PIXELS = 12

Row = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How large the pieces are.

    Attributes:
        pixels: side of the images of supernets.
        batch: images of a step of a supernet.
        scored: images that a supernet scores on.
        equal: architectures, and networks, that are compared in the tests of equality.
        at_once: architectures of a step of a supernet.
        singly: architectures of the loop over single ones.
        repeats: of each measurement of supernets, after one that does not count.
        together: small networks trained at once.
        alone: small networks trained one after another.
        steps: of each training of a small network.
        table: architectures of the table.
        trials: of the search.
        environment: arguments of the environment of the search.
        derivation: fields of `FromScratchSettings`, of the final training.
    """

    pixels: int = 28
    batch: int = 64
    scored: int = 1000
    equal: int = 8
    at_once: tuple[int, ...] = (8, 64, 256)
    singly: int = 16
    repeats: int = 3
    together: tuple[int, ...] = (100, 400)
    alone: int = 4
    steps: int = 100
    table: int = 400
    trials: int = 2000
    # The network of ENAS's search (the authors' code: 20 channels, 6 layers, batches of 160), and the schedule that
    # ranks best here (docs/evaluators.md).
    environment: Mapping[str, Any] = field(
        default_factory=lambda: {
            "schedule": {"name": "uniform", "warmup_steps": 8000},
            "evaluator_kwargs": {
                "channels": 20,
                "cells_per_stage": 2,
                "reductions": 2,
                "stem_stride": 1,
                "batch_size": 160,
                "augment": True,
                "score_images": 5000,
                "score_batch": 500,
            },
        }
    )
    # DARTS, section 3.2 (cutout, drop path 0.2, auxiliary classifier 0.4; 36 channels, 20 cells, 600 epochs), with
    # fewer and wider cells, fewer epochs and larger batches, for each operation takes a while to be started.
    derivation: Mapping[str, Any] = field(
        default_factory=lambda: {
            "cutout": 8,
            "network": {"channels": 64, "cells_per_stage": 2, "reductions": 2, "auxiliary": True},
            "training": {
                "epochs": 150,
                "batch_size": 256,
                "learning_rate": 0.1,
                "weight_decay": 3e-4,
                "drop_path": 0.2,
            },
        }
    )


TINY = Sizes(
    pixels=8,
    batch=4,
    scored=8,
    equal=2,
    at_once=(2,),
    singly=2,
    repeats=1,
    together=(2,),
    alone=1,
    steps=1,
    table=2,
    trials=4,
    environment={
        "space": {"name": "cell", "nodes": 2},
        "schedule": {"name": "uniform", "warmup_steps": 2},
        "evaluator_kwargs": {
            "channels": 4,
            "batch_size": 8,
            "score_images": 10,
            "score_batch": 10,
            "task_kwargs": {"image_size": 8},
        },
    },
    derivation={
        "cutout": 2,
        "network": {"channels": 4, "reductions": 1, "auxiliary": True},
        "training": {"epochs": 2, "batch_size": 50, "drop_path": 0.2},
    },
)


class Bench:
    """What the pieces share: where results are kept, and when a call is to end.

    Args:
        out: folder of the results.
        device: where networks run.
        sizes: of the pieces.
        images: folder of Fashion-MNIST; None looks where `make_task` does.
        seconds: of this call, at most.

    Attributes:
        measuring: whether what is missing is measured; else only what is known is told.
        left: parts that this call had no time for, or no time to finish.
        errors: of this call, by the names of the parts.
        skipped: why pieces were left out.
    """

    def __init__(self, out: Path, device: torch.device, sizes: Sizes, images: Path | None, seconds: float) -> None:
        self.out, self.device, self.sizes, self.images = out, device, sizes, images
        self.end = time.monotonic() + seconds
        self.measuring = True
        self.left: list[str] = []
        self.errors: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        (out / "parts").mkdir(parents=True, exist_ok=True)

    def once(self, name: str, measure: Callable[[], Row]) -> Row | None:
        """What a part measured, now or in an earlier call, with its seconds and its peak of memory; None if it has not.

        Seconds are those of all the calls that it took.
        """
        path = self.out / "parts" / f"{file_name(name)}.json"
        unfinished = path.with_suffix(".spent")  # by calls that were cut off
        if path.exists():
            return {"part": name, **read_json(path)}
        if not self.measuring:
            return None
        if time.monotonic() > self.end:
            self.left.append(name)
            return None
        spent = read_json(unfinished) if unfinished.exists() else {"seconds": 0.0, "peak_gib": None}
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        start, found = time.monotonic(), None
        try:
            found = measure()
        except Interrupted:
            self.end = 0.0
            self.left.append(name)
        except Exception as error:  # the other parts may work
            traceback.print_exc()
            self.errors[name] = f"{type(error).__name__}: {error}"
        spent["seconds"] += time.monotonic() - start
        if self.device.type == "cuda":
            spent["peak_gib"] = max(spent["peak_gib"] or 0.0, torch.cuda.max_memory_allocated() / 2**30)
        if found is None:
            write_json(unfinished, spent)
            return None
        write_json(path, {**found, **spent})
        unfinished.unlink(missing_ok=True)
        print(f"{name}: {json.dumps(found)}", flush=True)
        return {"part": name, **found, **spent}

    def timed(self, run: Callable[[], object]) -> float:
        """Seconds of a run, to the end of what it started on the device."""
        start = time.perf_counter()
        run()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    @contextlib.contextmanager
    def stopping(self) -> Iterator[None]:
        """Asks what is done within to stop, by a signal, when the call is to end."""
        seconds = min(max(self.end - time.monotonic(), 0.0), threading.TIMEOUT_MAX)
        timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def noise(self, images: int, pixels: int) -> ImageTask:
        """Ten classes of noise; it costs what images cost."""
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randint(0, 256, (images, 1, pixels, pixels), generator=generator).to(torch.uint8)
        split = Split(inputs, torch.arange(images) % 10)
        augmentation = Augmentation(padding=2, flip=True)
        task = ImageTask("noise", split, split, split, tuple("0123456789"), (0.5,), (0.3,), augmentation)
        return task.to(self.device)


def small_networks_of(name: str, tokens: Tokens) -> list[Network]:
    """The networks of architectures int64[B, T], as the table builder makes them."""
    space, shape = make_space(name), (1, PROXY_PIXELS, PROXY_PIXELS)
    return [make_network(space.architecture(row), shape, 10, PROXY.network, i) for i, row in enumerate(tokens)]


def present(rows: Sequence[Row | None]) -> list[Row]:
    """Those of parts that did not fail."""
    return [row for row in rows if row is not None]


def with_ratios(rows: Sequence[Row | None]) -> list[Row | None]:
    """Adds what the rate of the first row, one architecture at a time, is to be multiplied by."""
    alone = rows[0]
    if alone is None:
        return list(rows)
    rate = alone["architectures_per_second"]
    return [row and {**row, "times": row["architectures_per_second"] / rate} for row in rows]
