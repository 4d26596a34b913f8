"""What TensorBoard shows of a run beside its curves: the settings, and the best architecture."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_gym.agents import Agent
from nas_gym.envs.rendering import draw_rgb
from nas_gym.experiments.run.config import CONFIG, RunConfig
from nas_gym.spaces import Architecture

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

METRICS = ("search/best_reward", "rollout/ep_rew_mean", "search/unique_architectures")
"""The curves by which the tab of hyperparameters compares runs."""


def write_settings(writer: SummaryWriter, folder: Path, config: RunConfig, agent: Agent) -> None:
    """Writes config.yaml as text, and the hyperparameters, for the tab that compares runs by them."""
    from torch.utils.tensorboard.summary import hparams

    writer.add_text("config", f"```yaml\n{(folder / CONFIG).read_text()}\n```")
    values: dict[str, Any] = {name: getattr(config, name) for name in ("env", "agent", "task", "trials", "seed")}
    values |= dataclasses.asdict(agent.hyperparameters)
    plain = {name: value if isinstance(value, int | float | str) else str(value) for name, value in values.items()}
    file: Any = writer.file_writer
    for summary in hparams(plain, dict.fromkeys(METRICS, 0.0)):  # type: ignore[no-untyped-call]
        file.add_summary(summary)


def write_architecture(writer: SummaryWriter, architecture: Architecture, trials: int) -> None:
    """Writes the picture of the best architecture so far."""
    picture = draw_rgb(architecture.space, np.array(architecture.tokens, dtype=np.int64))
    writer.add_image("search/best_architecture", picture, trials, dataformats="HWC")
