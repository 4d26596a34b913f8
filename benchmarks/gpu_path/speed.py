"""Architectures per second: supernets, small networks trained at once, tables."""

from __future__ import annotations

import dataclasses
import shutil
import statistics
import time
from functools import partial

import numpy as np
import torch

from benchmarks.gpu_path.bench import (
    BATCHABLE,
    PROXY,
    PROXY_PIXELS,
    SPACES,
    Bench,
    Row,
    present,
    small_networks_of,
    with_ratios,
)
from nas_gym.evaluators.from_scratch import FromScratchEvaluator
from nas_gym.evaluators.shared_weights import SharedWeightEvaluator
from nas_gym.evaluators.training import fit
from nas_gym.spaces import make_space
from nas_gym.tables.builder import Shard, build_shards


def supernets(bench: Bench) -> list[Row]:
    """Steps of supernets, training and scoring, for many architectures at once against one after another."""
    rows: list[Row | None] = []
    for name in SPACES:
        for kind in ("training", "scoring"):
            each = [
                bench.once(f"supernet {name} {kind} {at_once}", partial(supernet_rate, bench, name, kind, at_once))
                for at_once in (1, *bench.sizes.at_once)
            ]
            rows += with_ratios(each)
    return present(rows)


def supernet_rate(bench: Bench, name: str, kind: str, at_once: int) -> Row:
    """Architectures per second."""
    space, sizes = make_space(name), bench.sizes
    task = bench.noise(max(sizes.scored, sizes.batch), sizes.pixels)
    options = {"batch_size": sizes.batch, "score_images": sizes.scored, "architectures_at_once": at_once}
    evaluator = SharedWeightEvaluator(space, task, device=bench.device.type, **options)
    tokens = space.sample(np.random.default_rng(0), sizes.singly if at_once == 1 else at_once)
    failed = 0.0

    def run() -> None:
        nonlocal failed
        for first in range(0, len(tokens), at_once):
            group = tokens[first : first + at_once]
            if kind == "training":
                failed += evaluator.update(group)["weights/skipped"]
            else:
                failed += float(evaluator.evaluate(group).failed.sum())

    seconds = [bench.timed(run) for _ in range(1 + sizes.repeats)][1:]
    return {"architectures_per_second": len(tokens) / statistics.median(seconds), "failed": failed}


def small_networks(bench: Bench) -> list[Row]:
    """Small networks trained at once, each with weights of its own, against one after another.

    `tuned` has cuDNN try its algorithms. `from-scratch` is the evaluator, from tokens to scores, with augmentation.
    """
    rows: list[Row | None] = []
    for name in BATCHABLE:
        each = [bench.once(f"networks {name} 1", partial(network_rate, bench, name, 1))]
        for count in bench.sizes.together:
            each.append(bench.once(f"networks {name} {count}", partial(network_rate, bench, name, count)))
            each.append(bench.once(f"networks {name} {count} tuned", partial(network_rate, bench, name, count, True)))
            each.append(bench.once(f"from-scratch {name} {count}", partial(from_scratch_rate, bench, name, count)))
        rows += with_ratios(each)
    return present(rows)


def network_rate(bench: Bench, name: str, together: int, tuned: bool = False) -> Row:
    """Networks per second; how many were trained at once is less than asked for where memory did not suffice."""
    count, batch = bench.sizes.alone if together == 1 else together, PROXY.training.batch_size
    networks = small_networks_of(name, make_space(name).sample(np.random.default_rng(0), count))
    settings = dataclasses.replace(PROXY.training, epochs=1, record=())
    train = partial(fit, networks, settings=settings, seeds=range(count), batched=together > 1)
    warm, task = (bench.noise(steps * batch, PROXY_PIXELS) for steps in (2, bench.sizes.steps))
    with torch.backends.cudnn.flags(enabled=True, benchmark=tuned):
        train(task=warm)
        start = time.perf_counter()
        curves = train(task=task)
        seconds = time.perf_counter() - start
    failed = sum(curve.failed for curve in curves)
    return {
        "architectures_per_second": count / seconds,
        "together": max(curve.together for curve in curves),
        "failed": failed,
    }


def from_scratch_rate(bench: Bench, name: str, count: int) -> Row:
    """Architectures per second of the evaluator."""
    task = bench.noise(bench.sizes.steps * PROXY.training.batch_size, PROXY_PIXELS)
    settings = {"epochs": 1, "batch_size": PROXY.training.batch_size}
    evaluator = FromScratchEvaluator(make_space(name), task, device=bench.device.type, training=settings)
    tokens = evaluator.space.sample(np.random.default_rng(0), count)
    start = time.perf_counter()
    failed = int(evaluator.evaluate(tokens).failed.sum())
    return {"architectures_per_second": count / (time.perf_counter() - start), "failed": failed}


def table(bench: Bench) -> list[Row]:
    """The rate at which a table of NAS-Bench-201 is built, on the builder's settings."""
    return present([bench.once("table bench201", partial(table_rate, bench))])


def table_rate(bench: Bench) -> Row:
    """Architectures per second, from tokens to lines of a shard."""
    space, count, folder = make_space("bench201"), bench.sizes.table, bench.out / "table"
    shutil.rmtree(folder, ignore_errors=True)
    images = PROXY.train_images if bench.sizes.steps > 1 else PROXY.training.batch_size
    task, shard = bench.noise(images or 0, PROXY_PIXELS), Shard(folder / "shard.csv", 0, tuple(range(count)))
    tokens = space.sample(np.random.default_rng(0), count)
    start = time.perf_counter()
    build_shards(space, tokens, [shard], PROXY, task, together=count)
    rate = count / (time.perf_counter() - start)
    return {"architectures_per_second": rate, "hours_for_5425_classes": 5425 / rate / 3600}
