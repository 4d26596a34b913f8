"""Architectures per second of `reinforce` on a table, beside the loop that is usual elsewhere, in the same run.

    python benchmarks/agents.py [--table PATH --task cifar10] [--seeds 64] [--trials 150]
    python benchmarks/agents.py --growth [--marks 1000 10000 40000 100000]

The usual loop samples one architecture at a time from six softmaxes of five logits, looks its accuracy up, and makes
one step of Adam (Dong & Yang 2020, "NAS-Bench-201", section 4; the learning rate is the best of ours for it).
`reinforce` plays the environment, its batch at a time; all its seeds can be one program. Rates are medians of the
repeats; regret is (optimum - best) / (optimum - worst), as interquartile mean over the seeds.

The second form measures whether a trial comes to cost more as a search goes on: the processor time of a trial in
batches of ten, environment included, over the last tenth before each mark, and the growth of the process's peak memory
between the first and the last mark. Each agent runs in a process of its own, with its settings for NAS-Bench-201 unless
told otherwise, on random rewards of cells of five nodes, of which there are 9.8 million: none runs out of them.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import tyro
from scipy import stats
from tuning import learn_seeds
from vector_env import table_evaluator

from nas_gym.agents import Agent, Callback, SearchResult, load_hyperparameters, make_agent
from nas_gym.envs.problem import make_vector
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.spaces import Bench201Space, make_space

ENVIRONMENT = "NAS-Bench201-v0"
VARIANTS: dict[str, dict[str, Any]] = {  # of the settings that are shipped
    "as shipped: softmaxes, batches of 5": {},
    # Slower steps refuse fewer proposals as tried already.
    "softmaxes, batches of 16, rate 0.2": {"batch_size": 16, "learning_rate": 0.2, "replay_size": 5},
    "LSTM, batches of 16": {
        "lstm": True,
        "hidden_size": 32,
        "tanh_constant": None,
        "learning_rate": 0.05,
        "batch_size": 16,
    },
}

# The agents whose cost is followed, their settings, and up to how many trials: some fit a model to all trials so far,
# others compute the canonical form of every architecture.
GROWING: dict[str, tuple[str, dict[str, Any], int]] = {
    "random": ("random", {}, 10**6),
    "local search": ("local-search", {}, 10**6),
    "regularized evolution": ("regularized-evolution", {}, 10**6),
    "tournament": ("tournament", {}, 10**6),
    "nsga2": ("nsga2", {}, 10**6),
    "reinforce": ("reinforce", {"revisits": True}, 10**6),
    "reinforce without revisits": ("reinforce", {}, 10**6),
    "reinforce, LSTM": ("reinforce", {"lstm": True, **VARIANTS["LSTM, batches of 16"], "batch_size": 10}, 10**6),
    "ppo": ("ppo", {}, 10**6),
    "gflownet": ("gflownet", {}, 10**6),
    "mcts": ("mcts", {}, 10**5),
    "tpe": ("tpe", {}, 10**4),
    "bananas": ("bananas", {}, 10**3),
    "npenas": ("npenas", {}, 10**3),
}


class Clock(Callback):
    """Notes processor time in seconds and peak memory in bytes when a search has come to some numbers of trials."""

    def __init__(self, marks: list[int]) -> None:
        self.marks, self.times, self.memory, self.trials = marks, {0: time.process_time()}, {}, 0

    def after_trials(self, agent: Agent, trials: SearchResult, statistics: dict[str, float]) -> None:
        self.trials += len(trials)
        if self.trials in self.marks:
            self.times[self.trials] = time.process_time()
            self.memory[self.trials] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def growth_of(label: str, marks: list[int]) -> str:
    """A row of the table: milliseconds of a trial before each mark, and kilobytes of a trial in between."""
    torch.set_num_threads(1)
    name, options, most = GROWING[label]
    marks = [mark for mark in marks if mark <= most]
    clock = Clock([trials for mark in marks for trials in (mark - mark // 10, mark)])
    space = Bench201Space(nodes=5)
    env = make_vector(ENVIRONMENT, 10, space=space, evaluator=table_evaluator(space))
    make_agent(name, env, 0, options).learn(marks[-1], clock)
    costs = [1e3 * (clock.times[mark] - clock.times[mark - mark // 10]) / (mark // 10) for mark in marks]
    kept = (clock.memory[marks[-1]] - clock.memory[marks[0]]) / max(marks[-1] - marks[0], 1)
    return " | ".join([label, *(f"{cost:.3f}" for cost in costs), f"{kept / 1e3:.2f}"])


def print_growth(marks: list[int], agents: list[str]) -> None:
    """Prints a row for each agent."""
    print(f"| agent | {' | '.join(f'{mark:,}' for mark in marks)} | kB a trial |")
    for label in agents:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(f"| {pool.apply(growth_of, (label, marks))} |", flush=True)


def usual_loop(evaluator: TabularEvaluator, seed: int, trials: int, learning_rate: float = 0.1) -> float:
    """The best accuracy of one search."""
    torch.manual_seed(seed)
    logits = torch.nn.Parameter(1e-3 * torch.randn(6, 5))
    optimizer = torch.optim.Adam([logits], lr=learning_rate)
    best, numerator, denominator = 0.0, 0.0, 0.0
    for _ in range(trials):
        policy = torch.distributions.Categorical(logits=logits)
        actions = policy.sample()
        reward = float(evaluator.evaluate(actions.numpy()[None]).accuracy[0])
        numerator, denominator = 0.9 * numerator + 0.1 * reward, 0.9 * denominator + 0.1
        loss = -policy.log_prob(actions).sum() * (reward - numerator / denominator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        best = max(best, reward)
    return best


def searches(evaluator: TabularEvaluator, seeds: int, trials: int, options: dict[str, Any]) -> list[float]:
    """The best accuracies of `reinforce`, all seeds in one program."""
    settings = load_hyperparameters("reinforce", ENVIRONMENT, options)
    results = learn_seeds("reinforce", evaluator, range(seeds), trials, settings, ENVIRONMENT)
    return [result.best_reward for result in results]


def measured(run: Callable[[], list[float]], architectures: int, repeats: int) -> tuple[float, list[float]]:
    """The median rate, and what the last run found."""
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        found = run()
        rates.append(architectures / (time.perf_counter() - start))
    return statistics.median(rates), found


def main(
    table: str | None = None,
    task: str | None = None,
    seeds: int = 64,
    trials: int = 150,
    repeats: int = 5,
    threads: int = 1,
    growth: bool = False,
    marks: tuple[int, ...] = (1_000, 10_000, 40_000, 100_000),
    agents: tuple[str, ...] = tuple(GROWING),
) -> None:
    """Prints the rates.

    Args:
        table: path of a table of NAS-Bench-201; the environment's own by default.
        task: of the table.
        seeds: of the searches in one program, and of those that tell the regret.
        trials: architectures a search.
        repeats: of each measurement.
        threads: of torch.
        growth: measure how the cost of a trial grows.
        marks: numbers of trials at which it is measured, multiples of 100.
        agents: whose.
    """
    if growth:
        print_growth(list(marks), list(agents))
        return
    torch.set_num_threads(threads)
    evaluator = TabularEvaluator(make_space("bench201"), table=table, task=task)

    def regret(best: list[float]) -> str:
        regrets = evaluator.normalised_regret(np.array(best))
        return f"{stats.trim_mean(regrets, 0.25):.4f}"

    def loop(count: int) -> list[float]:
        return [usual_loop(evaluator, seed, trials) for seed in range(count)]

    usual, _ = measured(lambda: loop(4), 4 * trials, repeats)
    print(
        f"{evaluator.table.path.name}, {evaluator.task}; {trials} trials, {threads} threads, torch {torch.__version__}"
    )
    print(f"{'':56} {'architectures/s':>15} {'ratio':>6} {'regret':>8}")
    print(f"{'usual loop, one seed after another':56} {usual:15,.0f} {1:6.1f} {regret(loop(seeds)):>8}", flush=True)
    for name, options in VARIANTS.items():
        for count in (1, seeds):
            rate, found = measured(
                lambda count=count, options=options: searches(evaluator, count, trials, options),
                count * trials,
                repeats,
            )
            best = found if count == seeds else searches(evaluator, seeds, trials, options)
            label = f"{name}, {count} seeds in one program" if count > 1 else f"{name}, one seed"
            print(f"{label:56} {rate:15,.0f} {rate / usual:6.1f} {regret(best):>8}", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
