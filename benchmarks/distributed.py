"""What workers bring: throughput, overhead of an evaluation, and a search whose workers are killed.

    python benchmarks/distributed.py [--workers 1 2] [--evaluations 32]

1. Overhead: an evaluator that takes no time, one architecture after another (each waits for the one before) and as a
   batch: milliseconds of an evaluation.
2. Throughput: evaluations that wait for a tenth of a second, as for a device elsewhere, and small trainings from
   scratch on the digits, in this process and with workers, of one thread each.
3. Kills: an asynchronous search of twice as many trials, in which a worker gets SIGKILL every second. No trial may be
   lost, and each must have the result that it has in this process.
"""

from __future__ import annotations

import os
import signal
import time

import gymnasium as gym
import numpy as np
import tyro

from nas_gym.agents import Agent, Callback, SearchResult, make_agent
from nas_gym.evaluators import DistributedEvaluator, Evaluations, Evaluator, FunctionEvaluator
from nas_gym.evaluators.from_scratch import FromScratchEvaluator
from nas_gym.experiments.run.asynchronous import learn_asynchronously
from nas_gym.spaces import Tokens, make_space

SPACE = make_space("bench201")


class OfProcess(Evaluator):
    """Adds to an evaluator's metrics the process that it runs in."""

    def __init__(self, evaluator: Evaluator) -> None:
        super().__init__(evaluator.space)
        self.evaluator = evaluator

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        evaluations = self.evaluator.evaluate(tokens)
        evaluations.metrics["process"] = np.full(len(tokens), float(os.getpid()))
        return evaluations


class Waiting(Evaluator):
    """Waits for a tenth of a second an architecture."""

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        time.sleep(0.1 * len(tokens))
        return Evaluations(np.full(len(tokens), 0.5))


def waiting() -> Evaluator:
    """What waits."""
    return OfProcess(Waiting(SPACE))


def trainer() -> Evaluator:
    """Trainings of some tenths of a second."""
    import torch

    torch.set_num_threads(1)
    return OfProcess(FromScratchEvaluator(SPACE, "digits", train_images=512, score_images=128, training={"epochs": 2}))


def nothing() -> Evaluator:
    """Takes no time."""
    return OfProcess(FunctionEvaluator(SPACE))


def get_ready(evaluator: Evaluator) -> None:
    """Evaluates until every worker has begun."""
    seen = set[float]()
    while len(seen) < evaluator.workers:
        seen |= set(evaluator.evaluate(SPACE.enumerate()[:4]).metrics["process"].tolist())


def milliseconds(evaluator: Evaluator, tokens: Tokens, at_once: int) -> float:
    """Of an evaluation, where so many are asked for at once."""
    start = time.perf_counter()
    for first in range(0, len(tokens), at_once):
        evaluator.evaluate(tokens[first : first + at_once])
    return 1000 * (time.perf_counter() - start) / len(tokens)


def overhead(workers: tuple[int, ...]) -> None:
    """Prints what an evaluation takes beyond its own time."""
    tokens = SPACE.enumerate()[:512]
    print(f"{'overhead of an evaluation, in ms':36}{'one by one':>16}{'in a batch':>16}")
    for count in workers:
        with DistributedEvaluator(nothing, count) as evaluator:
            get_ready(evaluator)
            each = [milliseconds(evaluator, tokens, at_once) for at_once in (1, len(tokens))]
        print(f"{_name(count):36}{each[0]:16.2f}{each[1]:16.2f}", flush=True)


def throughput(workers: tuple[int, ...], evaluations: int) -> None:
    """Prints evaluations a second."""
    tokens = SPACE.sample(np.random.default_rng(0), evaluations)
    print(f"{'evaluations a second':36}{'that wait':>16}{'that train':>16}")
    for count in (0, *workers):
        rates = []
        for make in (waiting, trainer):
            evaluator = DistributedEvaluator(make, count) if count else make()
            get_ready(evaluator)
            rates.append(1000 / milliseconds(evaluator, tokens, evaluations))
            if isinstance(evaluator, DistributedEvaluator):
                evaluator.close()
        print(f"{_name(count):36}{rates[0]:16.2f}{rates[1]:16.2f}", flush=True)


def _name(workers: int) -> str:
    return f"{workers} worker{'s' * (workers > 1)}" if workers else "in this process"


class Killer(Callback):
    """Kills, every so many seconds, the process of a worker that is at work.

    Attributes:
        killed: the processes.
    """

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds, self.last, self.killed = seconds, time.monotonic(), list[int]()

    def after_trials(self, agent: Agent, trials: SearchResult, statistics: dict[str, float]) -> None:
        """The worker of the last trial has ended it; the one before is in the midst of another."""
        processes = agent.result.metrics["process"].astype(int).tolist()
        others = [process for process in processes if process not in (processes[-1], *self.killed)]
        if others and time.monotonic() - self.last > self.seconds:
            os.kill(others[-1], signal.SIGKILL)
            self.last = time.monotonic()
            self.killed.append(others[-1])


def kills(trials: int) -> None:
    """Prints what became of a search whose workers are killed."""
    with DistributedEvaluator(trainer, 2, attempts=10) as evaluator:
        env = gym.make_vec("NAS-Bench201-v0", num_envs=1, evaluator=evaluator)
        agent = make_agent("regularized-evolution", env, 0, {"population_size": 10, "sample_size": 3})
        killer = Killer()
        start = time.perf_counter()
        result = learn_asynchronously(agent, trials, killer)
        elapsed = time.perf_counter() - start
    here = trainer().evaluate(result.tokens)
    equal = int((here.accuracy == result.rewards).sum())
    print(f"search of {trials} trials in {elapsed:.1f} s: {len(killer.killed)} processes killed, {evaluator.lost} lost")
    print(f"trials: {len(result)} of {trials}, {equal} of them as in this process, {int(here.failed.sum())} failed")


def main(workers: tuple[int, ...] = (1, 2), evaluations: int = 32) -> None:
    """Prints all three.

    Args:
        workers: their numbers.
        evaluations: for the throughput.
    """
    overhead(workers)
    throughput(workers, evaluations)
    kills(2 * evaluations)


if __name__ == "__main__":
    tyro.cli(main)
