"""The end of a run: its best architecture and one drawn uniformly are retrained or looked up, and drawn."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from nas_gym.agents import Agent
from nas_gym.evaluators import Evaluator, MultiTaskEvaluator
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.experiments.run.config import RunConfig
from nas_gym.experiments.run.model_card import model_card, traded_cost
from nas_gym.experiments.run.progress import Interrupted
from nas_gym.files import read_json, write_json, write_text
from nas_gym.spaces import Architecture


class Retraining:
    """The end of a run.

    Args:
        folder: of the run.
        config: what the run was asked to do.
        agent: what has searched.
        seconds: how long that has taken.
        progress: the bars to show.
        stop: turns non-empty when the run is to stop.
    """

    def __init__(
        self, folder: Path, config: RunConfig, agent: Agent, seconds: float, progress: Progress, stop: list[int]
    ) -> None:
        self.folder, self.config, self.seconds, self.progress, self.stop = folder, config, seconds, progress, stop
        self.agent, self.result = agent, agent.result
        self.task: str | None = None  # of the best architecture, where there are many
        self.evaluator: Any = self._evaluator()

    def _evaluator(self) -> Evaluator:
        """What has evaluated the best architecture."""
        evaluator = self.agent.problem.evaluator.unwrapped
        if isinstance(evaluator, MultiTaskEvaluator):
            number = int(self.result.metrics["task"][self.result.best_trial])
            self.task, of_task = list(evaluator.evaluators.items())[number]
            return of_task.unwrapped
        return evaluator

    def execute(self) -> dict[str, Any]:
        """Retrains, looks up, draws, and writes best.json and the model card.

        Returns:
            What best.json holds: a record for the ``best`` architecture, and one for a ``random`` one.

        Raises:
            Interrupted: the run was asked to stop; what is finished is not done again.
        """
        chosen = {"best": self.result.best, "random": self._random()}
        record = {role: self._record(role, architecture) for role, architecture in chosen.items()}
        draw_architecture(chosen["best"], self.folder / "architecture")
        for role, row in self._retrain(chosen).items():
            record[role]["retrained"] = row
        for role, row in self._look_up(chosen).items():
            record[role]["table"] = row
        write_text(self.folder / "best.json", json.dumps(record, indent=2) + "\n")
        cost = traded_cost(self.config, self.result)
        if cost is not None:
            from nas_gym.experiments.plotting import pareto_picture, write_figures

            write_figures([pareto_picture(self.result, cost)], self.folder)
        card = model_card(self.config, self.agent, self.evaluator, record, self.seconds)
        write_text(self.folder / "model_card.md", card)
        return record

    def _random(self) -> Architecture:
        """An architecture drawn uniformly, which shows how much the search has brought."""
        space = self.agent.space.at_trial(self.agent.trials)
        (tokens,) = space.sample(np.random.default_rng([self.config.seed, len(self.result)]), 1)
        return self.result.space.architecture(tokens)

    def _record(self, role: str, architecture: Architecture) -> dict[str, Any]:
        result, trial = self.result, self.result.best_trial if role == "best" else None
        fidelity = 1.0 if trial is None else float(result.fidelities[trial])
        return {
            "trial": trial,
            "reward": None if trial is None else float(result.rewards[trial]),
            "accuracy": None if trial is None else float(result.metrics["accuracy"][trial]),
            **({"fidelity": fidelity} if fidelity < 1 else {}),
            "text": str(architecture),
            "architecture": json.loads(architecture.to_json()),
            **({} if self.task is None else {"task": self.task}),
        }

    def _look_up(self, chosen: Mapping[str, Architecture]) -> dict[str, dict[str, Any]]:
        """The test accuracies of the chosen architectures, where the evaluator's table has them."""
        evaluator = self.evaluator
        if not isinstance(evaluator, TabularEvaluator) or evaluator.table.array(evaluator.task, "test") is None:
            return {}
        tokens = np.array([architecture.tokens for architecture in chosen.values()])
        accuracies = [None if math.isnan(accuracy) else accuracy for accuracy in evaluator.test(tokens).tolist()]
        return {role: {"test_accuracy": accuracy} for role, accuracy in zip(chosen, accuracies, strict=True)}

    def _retrain(self, chosen: Mapping[str, Architecture]) -> dict[str, dict[str, Any]]:
        """Trains the chosen architectures from scratch, in the evaluator's own network, and looks up the test split."""
        if not self.evaluator.trains or self.config.retrain_epochs == 0:
            return {}
        rows = {}
        for role, architecture in chosen.items():
            # Each one is done for good when its file is there: a run killed here does not train it again.
            path = self.folder / f"{role}.retrained.json"
            if not path.exists():
                write_json(path, self._retrain_one(role, architecture))
            rows[role] = read_json(path)
        return rows

    def _retrain_one(self, role: str, architecture: Architecture) -> dict[str, Any]:
        from nas_gym.evaluators.training import TrainingSettings, fit
        from nas_gym.experiments.run.weights import save_weights

        task = self.evaluator.task.with_validation_in_training()
        network: Any = self.evaluator.new_network(architecture, task, self.config.seed)
        training = TrainingSettings(record=("test",), record_all_epochs=False)
        steps = max(len(task.train) // training.batch_size, 1)
        epochs = self.config.retrain_epochs or min(max(round(1000 / steps), 2), 20)
        training = dataclasses.replace(training, epochs=epochs)
        bar = self.progress.add_task(f"retraining the {role} one", total=epochs * steps, note="")

        def on_step() -> None:
            self.progress.advance(bar)
            if self.stop:
                raise Interrupted

        (curve,) = fit([network], task, training, seeds=[self.config.seed], on_step=on_step)
        save_weights(network, self.folder / f"{role}.safetensors", {"architecture": architecture.to_json()})
        return {
            "test_accuracy": None if curve.failed else float(curve.accuracy["test"][-1]),
            "failed": curve.reason or None,
            "epochs": epochs,
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "weights": f"{role}.safetensors",
        }


def draw_architecture(architecture: Architecture, stem: Path) -> list[Path]:
    """Draws an architecture as PNG and as SVG; returns both paths."""
    from nas_gym.envs.rendering import save_picture

    paths = [stem.with_name(f"{stem.name}{suffix}") for suffix in (".png", ".svg")]
    for path in paths:
        save_picture(architecture, path)
    return paths
