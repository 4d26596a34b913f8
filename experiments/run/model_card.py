"""The model card of a run: what was searched by what, what came of it, and the command that does it again."""

from __future__ import annotations

import dataclasses
import math
import platform
import shlex
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_gym.agents import Agent, SearchResult
from nas_gym.agents.budget import simulated_seconds
from nas_gym.agents.pareto import COSTS
from nas_gym.envs.rendering import to_text
from nas_gym.evaluators import MultiTaskEvaluator
from nas_gym.evaluators.ranking_quality import ARCHITECTURES
from nas_gym.experiments.run.config import RunConfig
from nas_gym.experiments.run.pairs import pairs
from nas_gym.experiments.run.target import Target

if TYPE_CHECKING:
    from nas_gym.experiments.run.comparison_result import Comparison

PACKAGES = ("nas-gym", "gymnasium", "numpy", "torch")


def model_card(
    config: RunConfig,
    agent: Agent,
    record: Mapping[str, Any],
    comparison: Comparison | None,
    wall_seconds: float,
) -> str:
    """The card of a finished run, in Markdown.

    Args:
        config: what the run was asked to do.
        agent: what has searched.
        record: what its best.json holds.
        comparison: of what was found; None if there is none.
        wall_seconds: how long the search took.
    """
    best = agent.result.space.parse(record["best"]["text"])
    return "\n".join(
        [
            f"# {config.env}, searched by {agent.name}",
            "",
            "![The best architecture](architecture.png)",
            "",
            "## Result",
            "",
            *_result(record["best"], agent.result),
            "",
            *_comparison(comparison),
            "",
            "The best architecture, in one line and in words:",
            "",
            "```text",
            str(best),
            "",
            to_text(best).rstrip(),
            "```",
            "",
            "## What was searched",
            "",
            *bullets(_searched(config, agent)),
            "",
            "## By what",
            "",
            f"The agent `{agent.name}`: {(type(agent).__doc__ or '').partition(chr(10))[0]}",
            "",
            *bullets(_hyperparameters(agent.hyperparameters)),
            "",
            *_tradeoff(config, agent.result),
            "## Budget used",
            "",
            *bullets(_budget(config, agent.result, wall_seconds)),
            "",
            "## Environment",
            "",
            *versions(),
            "",
            "## How to reproduce it",
            "",
            "```sh",
            command(config),
            "```",
            "",
            _reproducibility(config),
            "",
        ]
    )


def _reproducibility(config: RunConfig) -> str:
    if config.asynchronous:
        return "An asynchronous search is not the same twice: its trials come in the order in which workers end them."
    exception = ", but for latencies, which are measured" if _measures_latency(config) else ""
    return f"With these versions it gives the same trials.csv, to the bit where networks run on a CPU{exception}."


def bullets(facts: Mapping[str, Any]) -> list[str]:
    """Facts as a list in Markdown, a line each."""
    return [f"- {name}: {fact}" for name, fact in facts.items()]


def versions() -> list[str]:
    """Python and the packages that results depend on, as a list in Markdown."""
    return bullets({"Python": platform.python_version(), **{package: _version(package) for package in PACKAGES}})


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed, but on the path"


def _result(best: Mapping[str, Any], result: SearchResult) -> list[str]:
    """The found architecture: its trial, its accuracies, and its costs as the search knows them."""
    fidelity = f" (fidelity {best['fidelity']:.3g})" if "fidelity" in best else ""
    known = {name: float(result.metrics[name][best["trial"]]) for name in COSTS if name in result.metrics}
    costs = [f"{name} {_amount(name, value)}" for name, value in known.items() if math.isfinite(value)]
    return [
        "| trial | reward | validation accuracy in the search | test accuracy |",
        "|---|---|---|---|",
        f"| {best['trial']} | {best['reward']:.4f} | {best['accuracy']:.4f}{fidelity} | "
        f"{_or_dash(best.get('test_accuracy'), '.4f')} |",
        *(["", f"Its cost in the search: {', '.join(costs)}."] if costs else []),
    ]


def _comparison(comparison: Comparison | None) -> list[str]:
    """What was found against random architectures and networks made by hand."""
    if comparison is None:
        return ["Nothing was trained or looked up to compare it with."]
    from nas_gym.experiments.run.comparison_result import HEADINGS

    differences = {
        "random": "found - mean of the random architectures",
        "reference": "found - best network made by hand, by validation accuracy",
    }
    found = {text: comparison.difference(role) for role, text in differences.items()}
    return [
        "## Comparison",
        "",
        "![Test accuracy against cost](comparison.png)" if comparison.found.cost(comparison.cost) is not None else "",
        "",
        f"| {' | '.join(HEADINGS)} |",
        f"|{'---|' * len(HEADINGS)}",
        *(f"| {' | '.join(row)} |" for row in comparison.table()),
        "",
        *bullets({text: difference for text, difference in found.items() if difference is not None}),
        "",
        comparison.conclusion,
        "",
        _how(comparison),
    ]


def _how(comparison: Comparison) -> str:
    if comparison.source == "table":
        return (
            "The accuracies are those of the table, after its last epoch. The interval is Student's, over the random "
            "architectures; the found one's accuracy is taken for exact."
        )
    training = comparison.training
    return (
        f"All networks were trained alike: {training['epochs']} epochs of {training['images']:,} images in batches of "
        f"{training['batch_size']}, the found one and those made by hand with {len(comparison.found.rows)} seeds each. "
        "The found architecture was chosen by validation accuracy, in trainings that are "
        "not counted; those counted have new seeds. Networks made by hand are as wide as comes closest to its "
        f"{training['fitted_to']} without exceeding them. The test split was evaluated once, after all trainings. A "
        "failed training counts as 0. The intervals of differences are Welch's: over the seeds of the found network, "
        "over the random architectures with a seed each, and over the seeds of the network made by hand."
    )


def _or_dash(value: Any, form: str = "") -> str:
    return "-" if value is None else format(value, form)


def _searched(config: RunConfig, agent: Agent) -> dict[str, Any]:
    evaluator = agent.problem.evaluator.unwrapped
    if isinstance(evaluator, MultiTaskEvaluator):
        evaluator = next(iter(evaluator.evaluators.values())).unwrapped  # all are alike but for their tasks
    space, arguments = agent.space, config.environment_arguments()
    table = getattr(evaluator, "table", None)
    facts = {
        "environment": f"`{config.env}`",
        "space": f"`{arguments['space']}`, {space.length} decisions, {space.size:,} architectures",
        "task": arguments.get("task") or ", ".join(arguments.get("tasks", ())) or "-",
        "evaluator": f"{type(evaluator).__name__}" + (f", table `{table.path.name}`" if table is not None else ""),
    }
    if config.target is not None:
        facts["target"] = config.target
    if evaluator.stateful:
        facts["schedule"] = arguments["schedule"]
        facts |= _ranking(agent.problem.schedule.quality())
    if arguments.get("evaluator_kwargs"):
        facts["evaluator's arguments"] = arguments["evaluator_kwargs"]
    used = ", ".join(f"{fidelity:.3g}" for fidelity in sorted(set(agent.result.fidelities.tolist())))
    epochs = getattr(evaluator, "epochs", None)
    facts["fidelity"] = f"{used}, where 1 is {'the full budget' if epochs is None else f'{epochs} epochs'}"
    return facts


def _ranking(quality: Mapping[str, float]) -> dict[str, str]:
    """How well shared weights rank, by the tags of its scalars; with many tasks, those name the task."""
    meanings = {
        "agreement": "rank correlation of the rewards on two halves of the scoring examples",
        "rank_correlation": "rank correlation of the rewards with the table of the space",
    }
    facts = {}
    for tag, value in quality.items():
        _, *task, name = tag.split("/")
        facts[" of ".join([meanings[name], *task])] = f"{value:.2f}, of {ARCHITECTURES} uniform architectures"
    return facts


def _hyperparameters(settings: Any) -> dict[str, Any]:
    return {f"`{name}`": value for name, value in dataclasses.asdict(settings).items()} or {"hyperparameters": "none"}


def _budget(config: RunConfig, result: SearchResult, wall_seconds: float) -> dict[str, Any]:
    facts = {
        "trials": f"{len(result):,} of at most {config.trials:,}, of {result.unique_architectures:,} architectures",
        "failed trials": f"{int(result.metrics['failed'].sum()):,}",
        "wall time of the search": f"{wall_seconds:,.1f} s",
    }
    if "seconds" in result.metrics:
        limit = f" of at most {config.simulated_seconds:,.0f} s" if config.simulated_seconds is not None else ""
        facts["simulated training time"] = f"{simulated_seconds(result.metrics).sum():,.0f} s{limit}"
    return facts


# ---------------------------------------------------------------------- accuracy against a cost


def traded_cost(config: RunConfig, result: SearchResult) -> str | None:
    """The cost that the accuracies of a run stand against: its objective's, or the first that differs among trials."""
    if "task" in result.metrics:
        return None  # the accuracies of different tasks do not compare
    wanted = None if config.cost_target is None else config.cost_target.metric
    known = [name for name in (wanted, *COSTS) if name in result.metrics]
    return next((name for name in known if len(_points(result, name)) > 1), None)


def _points(result: SearchResult, cost: str) -> set[float]:
    comparable = ~(result.metrics["failed"] > 0) & (result.fidelities == result.fidelities.max())
    values = result.metrics[cost][comparable]
    return set(values[np.isfinite(values)].tolist())


def _tradeoff(config: RunConfig, result: SearchResult) -> list[str]:
    """The Pareto front of a run whose evaluator reports a cost."""
    cost = traded_cost(config, result)
    if cost is None:
        return []
    front = result.pareto_front("accuracy", cost)
    front = front[np.argsort(result.metrics[cost][front], kind="stable")]
    most = max(_points(result, cost))
    share = result.hypervolume({"accuracy": 0.0, cost: most}) / most
    target = config.cost_target
    return [
        f"## Accuracy against {cost}",
        "",
        f"![Accuracy against {cost}](pareto.png)",
        "",
        "The Pareto front: no other trial is as good in both and better in one. The least accurate tenth of the trials "
        "may lie below the picture.",
        "",
        f"| trial | accuracy | {cost} |",
        "|---|---|---|",
        *(
            f"| {trial} | {result.metrics['accuracy'][trial]:.4f} | {_amount(cost, result.metrics[cost][trial])} |"
            for trial in front.tolist()
        ),
        "",
        *([] if target is None else [_kept(result, target), ""]),
        f"Its hypervolume is {share:.4f}, as a share of the rectangle between accuracy 0 at the highest {cost} tried "
        f"({_amount(cost, most)}) and accuracy 1 at none.",
        "",
    ]


def _kept(result: SearchResult, target: Target) -> str:
    """How many trials have met the target, in all and in the end."""
    met = result.metrics[target.metric] <= target.value
    last = met[-min(50, len(met)) :]
    return (
        f"The target of {_amount(target.metric, target.value)} was met by {met.sum()} of {len(met)} trials, and by "
        f"{last.sum()} of the last {len(last)}."
    )


def _amount(cost: str, value: float) -> str:
    return f"{1000 * value:.4g} ms" if cost == "latency" else f"{value:,.0f}" if cost in COSTS else f"{value:.4g}"


def _measures_latency(config: RunConfig) -> bool:
    return "latency" in (config.evaluator.cost or {}).get("metrics", ())


# ---------------------------------------------------------------------- the command


def command(config: RunConfig) -> str:
    """The `nas-gym train` command line of a run, in a folder of its own."""
    words = ["nas-gym", "train"]
    for field in dataclasses.fields(config):
        value, option = getattr(config, field.name), f"--{field.name.replace('_', '-')}"
        if field.name in ("hyperparameters", "env_kwargs"):
            continue
        if value == field.default and field.name not in ("env", "agent", "trials", "seed", "device"):
            continue
        if value is True:
            words.append(option)
        elif value is not None and value is not False:
            words += [option, str(value)]
    if config.hyperparameters:
        words += ["--params", *pairs(config.hyperparameters)]
    if config.env_kwargs:
        words += ["--env-params", *pairs(config.env_kwargs)]
    return shlex.join(words)
