"""What TensorBoard shows of a run: its curves, the settings, and the best architecture."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nas_gym.agents import Agent
from nas_gym.envs.rendering import draw_rgb
from nas_gym.experiments.run.config import CONFIG, RunConfig
from nas_gym.files import naming
from nas_gym.spaces import Architecture

logger = logging.getLogger("nas_gym")

METRICS = ("search/best_reward", "rollout/ep_rew_mean", "search/unique_architectures")
"""The curves by which the tab of hyperparameters compares runs."""


class Curves:
    """TensorBoard's file of events. Without the package tensorboard nothing is written, and a warning tells so.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            logger.warning("no curves are written, for tensorboard cannot be imported: %s", error)
        else:
            self._writer = SummaryWriter(str(folder))

    def settings(self, config: RunConfig, agent: Agent) -> None:
        """Writes config.yaml as text, and the hyperparameters, for the tab that compares runs by them."""
        if self._writer is None:
            return
        from torch.utils.tensorboard.summary import hparams

        self._writer.add_text("config", f"```yaml\n{(self.folder / CONFIG).read_text()}\n```")
        values: dict[str, Any] = {name: getattr(config, name) for name in ("env", "agent", "task", "trials", "seed")}
        values |= dataclasses.asdict(agent.hyperparameters)
        plain = {name: value if isinstance(value, int | float | str) else str(value) for name, value in values.items()}
        for summary in hparams(plain, dict.fromkeys(METRICS, 0.0)):  # type: ignore[no-untyped-call]
            self._writer.file_writer.add_summary(summary)

    def scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Writes those whose name is a tag, with a slash."""
        if self._writer is None:
            return
        with naming(self.folder):
            for tag, value in scalars.items():
                if "/" in tag:
                    self._writer.add_scalar(tag, value, step)

    def architecture(self, architecture: Architecture, trials: int) -> None:
        """Writes the picture of the best architecture so far."""
        if self._writer is None:
            return
        picture = draw_rgb(architecture.space, np.array(architecture.tokens, dtype=np.int64))
        with naming(self.folder):
            self._writer.add_image("search/best_architecture", picture, trials, dataformats="HWC")

    def flush(self) -> None:
        """Brings all to the disk."""
        if self._writer is not None:
            with naming(self.folder):
                self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        if self._writer is not None:
            with naming(self.folder):
                self._writer.close()
