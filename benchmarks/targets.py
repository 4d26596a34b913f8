"""How well searches meet a target for the cost of networks: the share of the last trials that do.

    python benchmarks/targets.py [--agent reinforce] [--seeds 5] [--targets parameters:20k flops:600k]

On NAS-Bench-201's bundled table. Each search has 300 trials with a target (`nas-gym train --target`); its last 50 are
compared with as many architectures drawn uniformly. The interval is Student's over seeds, of the difference. With
`--variant soft` the objective is MnasNet's other variant, with the exponent -0.07 on both sides of the target.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import tyro
from scipy import stats

from nas_gym.agents import SearchResult
from nas_gym.experiments.run import RunConfig
from nas_gym.experiments.run.target import Target

ENV, LAST = "NAS-Bench201-v0", 50


def search(agent: str, target: str, variant: str, seed: int) -> SearchResult:
    """The trials of `nas-gym train --target`, or of the objective's other variant."""
    parsed = Target.parse(target)
    soft = {"name": "soft-constraint", "metric": parsed.metric, "target": parsed.value}
    arguments: dict[str, Any] = {"target": target} if variant == "hard" else {"env_kwargs": {"objective": soft}}
    config = RunConfig(env=ENV, agent=agent, seed=seed, trials=300, **arguments)
    return config.make_agent(config.make_env()).learn(config.trials)


def main(
    agent: str = "reinforce",
    targets: tuple[str, ...] = ("parameters:20k", "parameters:30k", "flops:600k", "flops:1M"),
    seeds: int = 5,
    variant: Literal["hard", "soft"] = "hard",
) -> None:
    """Prints a Markdown table."""
    print("| target | random | last 50 trials | difference, 95 % interval | accuracy of these, and of random ones |")
    print("|---|---|---|---|---|")
    for text in targets:
        target = Target.parse(text)
        shares, accuracies = [], []
        for seed in range(seeds):
            result = search(agent, text, variant, seed)
            tokens = result.space.sample(np.random.default_rng([1, seed]), LAST)
            drawn = RunConfig(env=ENV).evaluator.make(result.space).evaluate(tokens)
            columns = [
                (result.metrics[target.metric][-LAST:], result.metrics["accuracy"][-LAST:]),
                (drawn.metrics[target.metric], drawn.accuracy),
            ]
            shares.append([float((cost <= target.value).mean()) for cost, _ in columns])
            accuracies.append([float(accuracy.mean()) for _, accuracy in columns])
        ours, theirs = np.array(shares).T
        bounds = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
        accuracy = np.mean(accuracies, axis=0)
        print(
            f"| `{text}` | {theirs.mean():.2f} | {ours.mean():.2f} | {ours.mean() - theirs.mean():+.2f} "
            f"[{bounds.low:+.2f}, {bounds.high:+.2f}] | {accuracy[0]:.4f}, {accuracy[1]:.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    tyro.cli(main)
