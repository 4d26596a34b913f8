"""What growing networks by EAS brings: against random growth, and against training from scratch.

    OMP_NUM_THREADS=1 python benchmarks/transformations.py

For each seed, the same trained start network is grown, through the environment, with the same number of networks and
the same training of each

- by ``eas``;
- by ``random``, transformations drawn uniformly from the legal ones;
- on demand by ``untrained``, EAS without updates, which owes nothing to learning, and ``paper``, with its settings.

Reported for each are the mean validation accuracy of the last third of the networks; the best network's parameters,
its validation accuracy in the search, and its test accuracies, looked up when the search is over: of the very weights
that the search has trained, and after training from scratch, for all alike. Then, over the seeds, means and mean
differences, with Student's 95 % intervals: for equal numbers of networks, and within the processor time of the faster
of two searches. The training of the start network counts.

Last, what inheriting weights saves. The best architecture of EAS is also trained from the weights inherited from the
start network, with the search's learning rate, for a third of the epochs. Told is after how many epochs, and seconds of
the processor, each comes for the first time to the validation accuracy that training from scratch ends with, without
the cost of the start network, which serves all networks of a search.

Searches run side by side, each in a process of its own with one thread. Each is written to a file as it ends: killed at
any moment, the same command goes on.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from scipy import stats

from nas_gym.agents import Agent, make_agent
from nas_gym.agents.callback import Callback
from nas_gym.agents.result import SearchResult
from nas_gym.envs.transformation_vector import TransformationVectorEnv
from nas_gym.evaluators.morphism import MorphismEvaluator
from nas_gym.evaluators.training import fit, score
from nas_gym.spaces import Tokens, TransformationSpace
from nas_gym.spaces.layers import Convolution, FullyConnected, GlobalPool, Layers, Pool
from nas_gym.tasks import make_task

# Ten updates instead of the paper's hundreds. Its four wider rounds come first, and under `max_parameters` they may
# leave little to the deeper ones; the learning rate is five times the paper's. Chosen with seeds 1000 and 1001.
SETTINGS = {"wider_rounds": 1, "deeper_rounds": 10, "learning_rate": 0.01}
AGENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "eas": ("eas", SETTINGS),
    "random": ("random", {}),
    "untrained": ("eas", {**SETTINGS, "learning_rate": 0.0}),
    "paper": ("eas", {"preset": "paper"}),
}


_CONVOLUTIONS = Convolution(3, 8), Pool("max"), Convolution(3, 16), Pool("max"), Convolution(3, 32)
START = Layers((*_CONVOLUTIONS, GlobalPool(), FullyConnected(64)))


@dataclass(frozen=True)
class Protocol:
    """What each search may spend.

    Attributes:
        task: an image task.
        trials: networks a search.
        image_size: pixels to which images are resized; None leaves them.
        train_images: the number of training images; None takes them all.
        valid_images: the number of validation images; None takes them all.
        start: the start network, by name or as the JSON of its layers.
        inherit: whose weights a network inherits, ``"start"`` or ``"nearest"``; see `MorphismSettings`.
        epochs: of training for each grown network.
        learning_rate: of that training.
        batch_size: images a step.
        augment: whether training images are augmented.
        start_epochs: of training for the start network; so few leave growing networks much to gain.
        start_learning_rate: of that training.
        restart_after: networks after which the next ones grow out of the best so far; None never.
        scratch_epochs: of the training from scratch at the end; 0 leaves it out.
        max_parameters: of a network.
        max_transformations: of a network.
    """

    task: str = "glyphs"
    trials: int = 100
    image_size: int | None = 10
    train_images: int | None = 1240
    valid_images: int | None = 1240
    start: str = START.to_json()
    inherit: str = "start"
    epochs: int = 2
    learning_rate: float = 0.05
    batch_size: int = 64
    augment: bool = False
    start_epochs: int = 8
    start_learning_rate: float = 0.1
    restart_after: int | None = None
    scratch_epochs: int = 0
    max_parameters: int = 50_000
    max_transformations: int = 50


@dataclass(frozen=True)
class Network:
    """What is reported of a network, with the weights of the search."""

    parameters: float
    valid: float
    test: float


@dataclass(frozen=True)
class Reached:
    """When a training came to an accuracy, None and all its seconds if it did not; and the best that it came to."""

    epochs: int | None
    seconds: float
    best: float


@dataclass(frozen=True)
class Search:
    """What came of a search.

    Attributes:
        start: the start network.
        best: the best one found.
        accuracies: of its networks on the validation split, in order.
        seconds: of the processor, from the start of the search to each network's end; networks that were trained as one
            batch end together.
        retrained: test accuracy of the best one, trained from scratch; None if it was not.
        target: the validation accuracy that this training ends with, if inheriting is compared with it.
        scratch: when it came to that.
        heir: when training from inherited weights did.
    """

    start: Network
    best: Network
    accuracies: list[float]
    seconds: list[float]
    retrained: float | None = None
    target: float | None = None
    scratch: Reached | None = None
    heir: Reached | None = None

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Search:
        """Reads what `dataclasses.asdict` made."""
        parts: dict[str, type[Any]] = {"start": Network, "best": Network, "scratch": Reached, "heir": Reached}
        return cls(**{key: parts[key](**part) if key in parts and part else part for key, part in row.items()})

    def within(self, seconds: float) -> NDArray[np.float64]:
        """The accuracies of the networks scored within so many seconds of the processor, of a batch at least."""
        return np.array(self.accuracies)[np.array(self.seconds) <= max(seconds, self.seconds[0])]


@dataclass
class Clock(Callback):
    """Notes when, by the processor, each trial was over."""

    started: float = field(default_factory=time.process_time)
    seconds: list[float] = field(default_factory=list)

    def after_trials(self, agent: Agent, trials: SearchResult, statistics: dict[str, float]) -> bool:
        """See `Callback`."""
        self.seconds += [time.process_time() - self.started] * len(trials)
        return True


def search(arm: str, seed: int, protocol: Protocol) -> Search:
    """Searches, and looks up what was found."""
    torch.set_num_threads(1)
    task = make_task(
        protocol.task,
        seed=seed,
        image_size=protocol.image_size,
        train_limit=protocol.train_images,
        valid_limit=protocol.valid_images,
    )
    space = TransformationSpace(
        start=protocol.start,
        image_shape=task.image_shape,
        num_classes=task.num_classes,
        max_parameters=protocol.max_parameters,
        max_transformations=protocol.max_transformations,
    )
    shared = {one.name for one in dataclasses.fields(MorphismEvaluator.Settings)} - {"train_images", "inherit"}
    settings = {name: value for name, value in vars(protocol).items() if name in shared}
    evaluator = MorphismEvaluator(space, task, seed=seed, inherit=protocol.inherit, **settings)
    envs = TransformationVectorEnv(10, space=space, evaluator=evaluator, restart_after=protocol.restart_after)
    agent, hyperparameters = AGENTS[arm]
    clock = Clock()
    result = make_agent(agent, envs, seed, hyperparameters=hyperparameters).learn(protocol.trials, clock)
    best = result.tokens[result.best_trial]
    start = np.full(space.length, space.stop)
    found = Search(
        network(evaluator, start), network(evaluator, best), result.metrics["accuracy"].tolist(), clock.seconds
    )
    if not protocol.scratch_epochs:
        return found
    # Its start network is trained again, to the same weights: so the heir inherits from that one alone.
    heirs = MorphismEvaluator(space, task, seed=seed, inherit="start", **settings)
    return retrain(found, heirs, best, protocol.scratch_epochs, seed, compare=agent == "eas")


def network(evaluator: MorphismEvaluator, tokens: Tokens) -> Network:
    """Parameters, validation and test accuracy with the weights of the search."""
    found = evaluator.evaluate(tokens[None])
    trained: Any = evaluator.trained_network(tokens)
    test = score(trained, evaluator.task, evaluator.task.test)
    return Network(float(found.metrics["parameters"][0]), float(found.accuracy[0]), test)


def retrain(
    found: Search, evaluator: MorphismEvaluator, tokens: Tokens, epochs: int, seed: int, *, compare: bool
) -> Search:
    """Trains the best network from scratch; with `compare` also as an heir, to see when both come to its accuracy."""
    fresh: Any = evaluator.new_network(evaluator.space.architecture(tokens), evaluator.task, seed)
    settings = dataclasses.replace(evaluator.settings.training(start=True), epochs=epochs, record_all_epochs=compare)
    curves = fit([fresh], evaluator.task, settings, seeds=[seed], clock=time.process_time)
    found = dataclasses.replace(found, retrained=score(fresh, evaluator.task, evaluator.task.test))
    if not compare:
        return found
    settings = evaluator.settings.training(start=False)
    settings = dataclasses.replace(settings, epochs=max(1, epochs // 3), record_all_epochs=True)
    heir: Any = evaluator.grown_network(tokens)
    curves += fit([heir], evaluator.task, settings, seeds=[seed], clock=time.process_time)
    target = float(curves[0].accuracy["valid"][-1])
    reached = []
    for curve in curves:
        accuracies = curve.accuracy["valid"]
        first = np.flatnonzero(accuracies >= target)
        needed = int(first[0]) + 1 if len(first) else None
        seconds = curve.seconds * (needed or len(accuracies)) / len(accuracies)
        reached.append(Reached(needed, seconds, float(accuracies.max())))
    return dataclasses.replace(found, target=target, scratch=reached[0], heir=reached[1])


# ---------------------------------------------------------------------- file


def read(path: Path, protocol: Protocol) -> dict[tuple[str, int], Search]:
    """The searches with these settings that are done, by agent and seed; drops a line that was being written."""
    text = path.read_text() if path.exists() else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text := text[: text.rfind("\n") + 1])
    rows = [json.loads(line) for line in text.splitlines()]
    return {
        (row["agent"], row["seed"]): Search.from_json(row["search"])
        for row in rows
        if row["settings"] == _settings(row["agent"], protocol)
    }


def _settings(arm: str, protocol: Protocol) -> dict[str, Any]:
    """What decides, with the seed, what comes of a search."""
    return {"hyperparameters": AGENTS[arm][1], **dataclasses.asdict(protocol)}


def write(path: Path, protocol: Protocol, arm: str, seed: int, found: Search) -> None:
    """Adds a line."""
    row = {"agent": arm, "seed": seed, "settings": _settings(arm, protocol), "search": dataclasses.asdict(found)}
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


# ---------------------------------------------------------------------- report


def interval(values: Sequence[float], form: str = "+.4f") -> str:
    """The mean with Student's 95 % interval."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:{form}} (one seed: no interval)"
    low, high = stats.t.interval(0.95, len(values) - 1, mean, stats.sem(values))
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def late(accuracies: Sequence[float] | NDArray[np.float64]) -> float:
    """The mean of the last third."""
    return float(np.mean(accuracies[len(accuracies) * 2 // 3 :]))


def show(seed: int, name: str, row: Network, found: Search | None = None) -> None:
    """Prints a row of the table."""
    line = f"{seed:4d} {name:<9} {row.parameters:10,.0f} {row.valid:7.4f} {row.test:7.4f}"
    if found is not None:
        retrained = "" if found.retrained is None else f"{found.retrained:9.4f}"
        line += f" {late(found.accuracies):10.4f} {found.seconds[-1]:7.1f} {retrained}"
    print(line, flush=True)


def show_saving(found: Search) -> None:
    """Prints when the best network came to its accuracy."""
    if found.target is None or found.scratch is None or found.heir is None:
        return
    words = []
    for name, when in (("from scratch", found.scratch), ("with inherited weights", found.heir)):
        needed = f"{when.epochs} epochs, {when.seconds:.1f} s" if when.epochs else f"not in {when.seconds:.1f} s"
        words.append(f"{name} {needed}, best {when.best:.4f}")
    print(f"     to {found.target:.4f}: {'; '.join(words)}", flush=True)


def summarise(found: Mapping[str, Sequence[Search]]) -> None:
    """Prints the means over the seeds."""
    first, *others = found
    ours = found[first]
    print(f"means with Student's 95 % intervals, {len(ours)} seeds:")
    measures: dict[str, Mapping[str, list[Any]]] = {
        "validation accuracy, last third": {arm: [late(one.accuracies) for one in found[arm]] for arm in found},
        "validation accuracy, best": {arm: [one.best.valid for one in found[arm]] for arm in found},
        "its test accuracy in the search": {arm: [one.best.test for one in found[arm]] for arm in found},
        "its test accuracy from scratch": {arm: [one.retrained for one in found[arm]] for arm in found},
        "processor seconds": {arm: [one.seconds[-1] for one in found[arm]] for arm in found},
    }
    print(f"  start, validation accuracy: {interval([one.start.valid for one in ours], '.4f')}")
    for name, values in measures.items():
        if any(value is None for value in values[first]):
            continue
        form = ".4f" if "accuracy" in name else ".1f"
        print(f"  {name}: " + "; ".join(f"{arm} {interval(values[arm], form)}" for arm in values))
        for arm in others:
            print(f"    {first} - {arm} {interval(np.subtract(values[first], values[arm]).tolist(), f'+{form}')}")
    print("  within the processor time of the faster of two searches:")
    for arm in others:
        pairs = [
            [row.within(min(one.seconds[-1], other.seconds[-1])) for row in (one, other)]
            for one, other in zip(ours, found[arm], strict=True)
        ]
        for name, measure in (("last third", late), ("best", np.max)):
            differences = [float(measure(one) - measure(other)) for one, other in pairs]
            print(f"    validation accuracy, {name}, {first} - {arm} {interval(differences)}")


def summarise_saving(eas: Sequence[Search]) -> None:
    """Prints what inheriting weights saves."""
    pairs = [(one.scratch, one.heir) for one in eas if one.scratch is not None and one.heir is not None]
    if not pairs:
        return
    both = [(scratch, heir) for scratch, heir in pairs if scratch.epochs and heir.epochs]
    within = f"{len(both)} of {len(pairs)} came to the accuracy of training from scratch in a third of its epochs"
    print(f"with inherited weights {within}")
    if both:
        epochs = [heir.epochs / scratch.epochs for scratch, heir in both]  # type: ignore[operator]
        seconds = [heir.seconds / scratch.seconds for scratch, heir in both]
        print(f"  and took {interval(epochs, '.3f')} of its epochs and {interval(seconds, '.3f')} of its seconds")


def main(
    protocol: Protocol,
    seeds: int = 5,
    first_seed: int = 0,
    processes: int = 2,
    agents: tuple[str, ...] = ("eas", "random"),
    file: Path = Path("runs/transformations.jsonl"),
) -> None:
    """Makes the searches that are missing and prints the tables.

    Args:
        protocol: what each search may spend.
        seeds: how many, each of a search of either agent.
        first_seed: the first of them.
        processes: searches side by side.
        agents: names in `AGENTS`; the first is compared with the others.
        file: where searches are kept, a line of JSON each.
    """
    numbers = range(first_seed, first_seed + seeds)
    done = read(file, protocol)
    missing = [(arm, seed) for seed in numbers for arm in agents if (arm, seed) not in done]
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(search, arm, seed, protocol): (arm, seed) for arm, seed in missing}
        for ended in as_completed(running):
            done[running[ended]] = ended.result()
            write(file, protocol, *running[ended], ended.result())
    print(
        f"{protocol}\n{'seed':>4} {'network':<9} {'parameters':>10} {'valid':>7} {'test':>7} {'last third':>10} "
        f"{'seconds':>7} {'retrained':>9}"
    )
    for seed in numbers:
        show(seed, "start", done[agents[0], seed].start)
        for arm in agents:
            show(seed, arm, done[arm, seed].best, done[arm, seed])
        show_saving(done[agents[0], seed])
    summarise({arm: [done[arm, seed] for seed in numbers] for arm in agents})
    summarise_saving([done[agents[0], seed] for seed in numbers])


if __name__ == "__main__":
    tyro.cli(main)
