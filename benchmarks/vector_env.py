"""Decisions per second of the native vector environment, of SyncVectorEnv and of AsyncVectorEnv, on one core.

    python benchmarks/vector_env.py [--env NAS-Bench201-v0] [--sizes 64 1024 4096 65536]
    python benchmarks/vector_env.py --all

The first compares all modes in one environment. The second prints a table of all environments: with token observations,
SAME_STEP, and actions drawn from the masks, in processor time without the drawing.

All score by one table lookup an architecture. All hand out copied observations and masks. Actions are fixed, or drawn
from the masks of the step before, drawing included. A rate counts decisions, not calls: the time of resets is in it,
the calls that only reset are not. It is the median over repeats that run one after the other in this process.

The floor is what the memory would allow: the bytes that one step hands out, observations and masks read and written,
the rest written, over the bandwidth of copying a block of that size here.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from nas_gym.envs import masked_sample
from nas_gym.evaluators import FunctionEvaluator
from nas_gym.registration import ENVIRONMENTS
from nas_gym.spaces import SearchSpace, Tokens, make_space

MODES = (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED)
KINDS = ("fixed", "drawn")
LARGEST_TABLE = 2**20 - 3  # entries, a prime number


def table_evaluator(space: SearchSpace) -> FunctionEvaluator:
    """A gather from a table by an index in mixed radix, folded where the table would grow too large."""
    counts = space.choice_counts.tolist()
    size = min(math.prod(counts), LARGEST_TABLE)
    folded = math.prod(counts) > size
    table = np.random.default_rng(0).random(size)
    radix = np.array([math.prod(counts[position + 1 :]) % size for position in range(space.length)])

    def lookup(tokens: Tokens) -> NDArray[np.float64]:
        index = tokens @ radix
        found: NDArray[np.float64] = table[index % size if folded else index]
        return found

    return FunctionEvaluator(space, lookup)


def rates(envs: Any, mode: AutoresetMode, kind: str, seconds: float, repeats: int, fastest: int) -> list[float]:
    """Decisions per second of each repeat.

    Args:
        envs: a vector environment.
        mode: its autoreset mode.
        kind: ``"fixed"`` or ``"drawn"`` actions.
        seconds: that a repeat takes, about.
        repeats: how many.
        fastest: calls a second that are not exceeded, for the first guess.
    """
    rng = np.random.default_rng(0)
    _, infos = envs.reset(seed=0)
    mask = infos["action_mask"]
    fixed = masked_sample(mask, rng)  # remapped where they are not legal
    waiting = np.zeros(envs.num_envs, dtype=bool)
    decisions = 0

    def play(calls: int) -> None:
        nonlocal mask, waiting, decisions
        for _ in range(calls):
            actions = fixed if kind == "fixed" else masked_sample(mask, rng)
            _, _, terminations, _, infos = envs.step(actions)
            mask = infos["action_mask"]
            decisions += envs.num_envs
            if mode is AutoresetMode.SAME_STEP:
                continue
            if mode is AutoresetMode.NEXT_STEP:
                decisions -= int(waiting.sum())
                waiting = terminations
            elif terminations.any():
                _, infos = envs.reset(options={"reset_mask": terminations})
                mask = np.where(terminations[:, None], infos["action_mask"], mask)

    results, calls = [], 1
    for repeat in range(-2, repeats):  # the first two guess the number of calls
        decisions, start = 0, time.perf_counter()
        play(calls)
        elapsed = time.perf_counter() - start
        results.append(decisions / elapsed)
        if repeat < 0:
            calls = max(1, min(int(calls * seconds / elapsed), int(fastest * seconds)))
    return results[2:]


def scalar_rate(make: Callable[[], gym.Env[Any, Any]], seconds: float, repeats: int) -> float:
    """Decisions per second of one environment, with drawn actions that were drawn beforehand."""
    env = make()
    actions = np.random.default_rng(0).integers(env.action_space.n, size=1000).tolist()  # type: ignore[attr-defined]
    results = []
    for _ in range(repeats):
        decisions, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            env.reset()
            terminated = False
            while not terminated:
                _, _, terminated, _, _ = env.step(actions[decisions % 1000])
                decisions += 1
        results.append(decisions / (time.perf_counter() - start))
    return statistics.median(results)


def floor(envs: Any) -> tuple[int, float, float]:
    """Bytes of a decision, the bandwidth of copying such a block in bytes a second, and decisions per second."""
    envs.reset()
    observations, *columns, infos = envs.step(np.zeros(envs.num_envs, dtype=np.int64))
    masks = infos["action_mask"]
    written = sum(array.nbytes for array in (observations, *columns, *infos.values()))
    moved = written + observations.nbytes + masks.nbytes
    block = np.zeros(moved // 2, dtype=np.uint8)
    target = np.empty_like(block)
    durations = []
    for _ in range(max(20, min(2000, 2**30 // moved))):
        start = time.perf_counter()
        np.copyto(target, block)
        durations.append(time.perf_counter() - start)
    bandwidth = 2 * block.nbytes / statistics.median(durations)
    return moved // envs.num_envs, bandwidth, envs.num_envs * bandwidth / moved


def stepping_rate(envs: Any, steps: int) -> float:
    """Decisions per second of processor time, without the time in which actions are drawn from the masks."""
    rng = np.random.default_rng(0)
    _, infos = envs.reset(seed=0)
    spent = 0.0
    for _ in range(steps):
        actions = masked_sample(infos["action_mask"], rng)
        start = time.process_time()
        *_, infos = envs.step(actions)
        spent += time.process_time() - start
    return steps * envs.num_envs / spent


def print_all(num_envs: int, sync_envs: int, repeats: int) -> None:
    """Prints a markdown table of all environments.

    Args:
        num_envs: sub-environments of the native vector environments.
        sync_envs: those of `SyncVectorEnv`, whose rate hardly depends on their number.
        repeats: of the native ones, each of at least four episodes; the median counts.
    """
    print(f"| id | decisions | native, {num_envs:,} at once | SyncVectorEnv, {sync_envs} at once | ratio |")
    print("|---|---:|---:|---:|---:|")
    for spec in ENVIRONMENTS:
        space = make_space(spec.space)
        settings = {"evaluator": table_evaluator(space), "observation": "tokens"}

        def make(id: str = spec.id, settings: dict[str, Any] = settings) -> gym.Env[Any, Any]:
            return gym.make(id, **settings, disable_env_checker=True).unwrapped

        native = gym.make_vec(spec.id, num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **settings)
        steps = max(4 * space.length, 200)
        rate = statistics.median(stepping_rate(native, steps) for _ in range(repeats))
        one_by_one = SyncVectorEnv([make] * sync_envs, autoreset_mode=AutoresetMode.SAME_STEP)
        sync = stepping_rate(one_by_one, 2 * space.length)
        ratio = float(f"{rate / sync:.2g}")
        print(f"| {spec.id} | {space.length} | {rate / 1e6:.3g} | {sync / 1e6:.2g} | {ratio:,.0f} |", flush=True)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="NAS-Bench201-v0")
    parser.add_argument("--all", action="store_true", help="a table of all environments")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 1024, 4096, 65536], help="numbers of environments")
    parser.add_argument("--observation", nargs="+", default=["tokens", "onehot"])
    parser.add_argument("--sync-up-to", type=int, default=4096)
    parser.add_argument("--async-up-to", type=int, default=64, help="each is a process")
    parser.add_argument("--seconds", type=float, default=0.3, help="a repeat")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if arguments.all:
        print_all(4096, 256, arguments.repeats)
        return
    space = make_space(gym.spec(arguments.env).kwargs["space"])
    evaluator = table_evaluator(space)
    print(
        f"{arguments.env}: {space.length} decisions of at most {space.num_choices} choices; gymnasium "
        f"{gym.__version__}, numpy {np.__version__}, one core, {arguments.repeats} repeats of {arguments.seconds} s"
    )
    for observation in arguments.observation:
        settings = {"evaluator": evaluator, "observation": observation}

        def make(settings: dict[str, Any] = settings) -> gym.Env[Any, Any]:
            return gym.make(arguments.env, **settings, disable_env_checker=True).unwrapped

        def measured(envs: Any, mode: AutoresetMode, kind: str) -> float:
            budget = arguments.seconds, arguments.repeats
            return statistics.median(rates(envs, mode, kind, *budget, fastest=100_000))

        print(f"\n{observation}; scalar {scalar_rate(make, *(arguments.seconds, arguments.repeats)) / 1e6:.3f} M/s")
        print(f"{'':>7}{'':>7}" + "".join(f"{mode.value:>11}" for mode in MODES) + "   millions of decisions a second")
        header = f"{'n':>7}{'actions':>7}" + f"{'native':>11}" * 3
        print(f"{header}{'sync':>9}{'async':>9}{'best/sync':>11}{'floor':>8}   bytes at bandwidth")
        for n in arguments.sizes:
            native = {mode: gym.make_vec(arguments.env, n, autoreset_mode=mode, **settings) for mode in MODES}
            size, bandwidth, bound = floor(native[AutoresetMode.NEXT_STEP])
            references: list[Any] = [None, None]
            if n <= arguments.sync_up_to:
                references[0] = SyncVectorEnv([make] * n, autoreset_mode=AutoresetMode.SAME_STEP)
            if n <= arguments.async_up_to:
                references[1] = AsyncVectorEnv([make] * n, autoreset_mode=AutoresetMode.SAME_STEP)
            for kind in KINDS:
                found = [measured(envs, mode, kind) for mode, envs in native.items()]
                sync, parallel = (
                    measured(envs, AutoresetMode.SAME_STEP, kind) if envs else float("nan") for envs in references
                )
                numbers = "".join(f"{rate / 1e6:>11.1f}" for rate in found)
                others = "".join(f"{rate / 1e6:>9.4f}" if rate == rate else f"{'-':>9}" for rate in (sync, parallel))
                ratio = f"{max(found) / sync:>11.0f}" if sync == sync else f"{'-':>11}"
                tail = f"{bound / 1e6:>8.0f}   {size} B at {bandwidth / 1e9:.1f} GB/s"
                print(f"{n:>7}{kind:>7}{numbers}{others}{ratio}{tail}", flush=True)
            for envs in (*native.values(), *references):
                if envs is not None:
                    envs.close()


if __name__ == "__main__":
    main()
