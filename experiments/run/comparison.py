"""The end of a run: its best architectures, random ones and networks made by hand, trained alike or looked up.

The best `compare_found` architectures of the search that compute different functions are trained once each, and the one
with the best reward by its validation accuracy is chosen. It is trained again with `compare_seeds` new seeds, and so is
each network made by hand, as wide as fits its parameters (or its operations, where they are the target);
`compare_random` architectures, drawn uniformly among those that meet the target, are trained once each. Then the test
split is evaluated, once.

Where a table has the accuracies, nothing is trained, and there are no networks made by hand.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_gym.agents.result import SearchResult
from nas_gym.evaluators import Evaluations, make_objective
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.experiments.run.comparison_result import Comparison, Row
from nas_gym.experiments.run.config import RunConfig
from nas_gym.experiments.run.progress import Progress
from nas_gym.experiments.run.trials import best_trials
from nas_gym.files import read_json, replacing, write_json
from nas_gym.spaces import Architecture, SearchSpace, Tokens

if TYPE_CHECKING:
    from nas_gym.experiments.run.trainings import Contestant, Trainings

FOLDER, WEIGHTS = "comparison", "best.safetensors"


PATIENCE = 100
"""Draws for each random architecture that is to meet a target."""


def random_architectures(
    config: RunConfig, space: SearchSpace, trials: int, fits: Callable[[Tokens], bool] | None = None
) -> Tokens:
    """Architectures int64[compare_random, T] drawn uniformly, independently of the search.

    Args:
        config: of the run.
        space: as it is at the end of the search.
        trials: of the search.
        fits: whether an architecture int64[T] may be drawn; where too few do, all may.
    """
    rng, count = np.random.default_rng([config.seed, trials]), config.compare_random
    drawn = space.sample(rng, count)
    if fits is None:
        return drawn
    candidates = (row for _ in range(PATIENCE) for row in space.sample(rng, count))
    kept = list(islice(filter(fits, candidates), count))
    return np.array(kept) if len(kept) == count else drawn


def meets_target(config: RunConfig, evaluator: Any) -> Callable[[Tokens], bool] | None:
    """Whether an architecture int64[T] costs at most the target of a run; None where that cannot be counted."""
    target = config.cost_target
    if target is None:
        return None
    if isinstance(evaluator, TabularEvaluator):
        return lambda tokens: bool(evaluator.evaluate(tokens[None]).metrics[target.metric][0] <= target.value)
    if not evaluator.trains or target.metric not in ("parameters", "flops"):
        return None
    from nas_gym.evaluators.cost import count_flops, count_parameters

    def fits(tokens: Tokens) -> bool:
        network = evaluator.new_network(evaluator.space.architecture(tokens), evaluator.task, 0)
        if target.metric == "parameters":
            return count_parameters(network) <= target.value
        return count_flops(network, evaluator.task.input_shape) <= target.value

    return fits


def candidates(result: SearchResult, count: int) -> list[int]:
    """The trials that the found architecture is chosen from; the first one, if all have failed."""
    sound = ~(result.metrics.get("failed", np.zeros(len(result))) > 0)
    return best_trials(result, count) if sound.any() else [result.best_trial]


def rewards(config: RunConfig, result: SearchResult, trials: Sequence[int], accuracies: Sequence[float]) -> list[float]:
    """What the objective of a run makes of other validation accuracies, at the costs that the trials had."""
    objective = make_objective(config.environment_arguments().get("objective", "accuracy"))
    own = ("accuracy", "failed")
    metrics = {name: column[list(trials)] for name, column in result.metrics.items() if name not in own}
    return [float(value) for value in objective(Evaluations(np.array(accuracies), metrics))]


# ---------------------------------------------------------------------- look-up


def look_up(
    config: RunConfig, result: SearchResult, trials: Sequence[int], evaluator: TabularEvaluator, drawn: Tokens
) -> Comparison | None:
    """The comparison by the accuracies of a table; None if it has none for the test split.

    Of the candidates the first is the found one: the table's validation accuracies are those of the search.

    Args:
        config: of the run.
        result: of the search.
        trials: the candidates, best first.
        evaluator: of the table.
        drawn: int64[n, T], the random architectures.
    """
    if evaluator.table.array(evaluator.task, "test") is None:
        return None
    roles = ["found", *["candidate"] * (len(trials) - 1), *["random"] * len(drawn)]
    names = [*(f"trial {trial}" for trial in trials), *(f"random {number}" for number in range(len(drawn)))]
    tokens = np.concatenate([result.tokens[trials], drawn])
    valid, test = evaluator.evaluate(tokens), evaluator.test(tokens)
    rows = []
    for number, (role, name) in enumerate(zip(roles, names, strict=True)):
        costs = {
            cost: float(valid.metrics[cost][number])
            for cost in ("parameters", "flops", "latency")
            if cost in valid.metrics
        }
        if math.isfinite(test[number]):  # else the table does not have it
            text, accuracy = str(result.space.architecture(tokens[number])), float(valid.accuracy[number])
            rows.append(Row(role, name, text, None, accuracy, float(test[number]), **costs))
    if not rows or rows[0].role != "found":
        return None
    return Comparison("table", trials[0], tuple(rows), compared_cost(config))


# ---------------------------------------------------------------------- training


def train(
    folder: Path,
    config: RunConfig,
    result: SearchResult,
    trials: Sequence[int],
    evaluator: Any,
    drawn: Tokens,
    progress: Progress,
    stop: list[int],
) -> Comparison:
    """The comparison by training; what an earlier call has trained is not trained again.

    Args:
        folder: of the run.
        config: of the run.
        result: of the search.
        trials: the candidates, best first.
        evaluator: what has searched: it makes networks for its task.
        drawn: int64[n, T], the random architectures.
        progress: the bars to show.
        stop: turns non-empty when the run is to stop.

    Raises:
        Interrupted: the run was asked to stop.
        ValueError: a file of an earlier training is damaged.
    """
    from nas_gym.experiments.run.trainings import Contestant, Trainings
    from nas_gym.networks.references import REFERENCES

    total = len(trials) + len(drawn) + config.compare_seeds * (1 + len(REFERENCES))
    trainings = Trainings(folder / FOLDER, evaluator.task, config.retrain_epochs, progress, stop)
    trainings.expect(total)

    def contestant(role: str, name: str, architecture: Architecture, seed: int) -> Contestant:
        make = partial(evaluator.new_network, architecture)
        return Contestant(role, name, str(architecture), seed, make, {"architecture": architecture.to_json()})

    # Candidates share a seed, which compares them alike; all that is counted has a seed of its own.
    architectures = [result.space.architecture(result.tokens[trial]) for trial in trials]
    tried = [
        contestant("candidate", f"trial {trial}", architecture, config.seed)
        for trial, architecture in zip(trials, architectures, strict=True)
    ]
    tried_results = trainings.train(tried)
    accuracies = [each["valid_accuracy"] or 0.0 for each in tried_results]
    chosen = int(np.argmax(rewards(config, result, trials, accuracies)))
    winner, found = trials[chosen], architectures[chosen]

    seeds = iter(range(config.seed + 1, config.seed + 1 + total))
    counted = [contestant("found", f"trial {winner}", found, next(seeds)) for _ in range(config.compare_seeds)]
    for number, tokens in enumerate(drawn):
        counted.append(contestant("random", f"random {number}", result.space.architecture(tokens), next(seeds)))
    fitted = "flops" if compared_cost(config) == "flops" else "parameters"  # a latency cannot be counted
    for name, text, make in references(evaluator, found, trainings.task, fitted):
        counted += [Contestant("reference", name, text, next(seeds), make) for _ in range(config.compare_seeds)]
    trainings.expect(len(tried) + len(counted))
    results = trainings.train(counted)

    rows = _evaluate(trainings, [*counted, *tried], [*results, *tried_results])
    best = max(range(config.compare_seeds), key=lambda number: results[number]["valid_accuracy"] or 0.0)
    with replacing(folder / WEIGHTS) as temporary:
        shutil.copyfile(trainings.weights(counted[best]), temporary)
    return Comparison("training", winner, rows, compared_cost(config), {**trainings.description, "fitted_to": fitted})


def _evaluate(
    trainings: Trainings, contestants: Sequence[Contestant], results: Sequence[dict[str, Any]]
) -> tuple[Row, ...]:
    """The rows of all trainings; the test split is evaluated once, and so is latency measured."""
    path = trainings.folder / "evaluated.json"
    if not path.exists() or read_json(path)["of"] != results:
        rows = trainings.rows(contestants, results)
        write_json(path, {"of": results, "rows": [asdict(row) for row in rows]})
    return tuple(Row(**row) for row in read_json(path)["rows"])


def compared_cost(config: RunConfig) -> str:
    """What accuracy stands against: the metric of the run's target, or the parameters."""
    return "parameters" if config.cost_target is None else config.cost_target.metric


def references(
    evaluator: Any, found: Architecture, task: Any, cost: str
) -> Iterator[tuple[str, str, Callable[[Any, int], Any]]]:
    """The networks made by hand that come closest to the cost of a found one without exceeding it.

    They share its reductions and the stride of its stem. A kind is left out if its narrowest network costs more, and
    all are if the task is not one of images.

    Yields:
        The name, the network as text, and what makes it for a task, with random weights of a seed.
    """
    from nas_gym.evaluators.cost import count_flops, count_parameters
    from nas_gym.networks.references import REFERENCES, fitted_width, make_reference

    shape, outputs = task.input_shape, task.num_outputs
    if len(shape) != 3:
        return
    measure = count_parameters if cost == "parameters" else partial(count_flops, input_shape=shape)
    network = evaluator.new_network(found, task, 0)
    settings, budget = getattr(network, "settings", None), measure(network)
    for name in REFERENCES:
        try:
            width = fitted_width(name, shape, outputs, settings, measure, budget)
        except ValueError:
            continue

        def make(task: Any, seed: int, name: str = name, width: int = width) -> Any:
            return make_reference(name, width, task.input_shape, task.num_outputs, settings, seed)

        yield name, f"{name} of width {width}", make
