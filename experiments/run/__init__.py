"""A run: one search in a folder of its own."""

from nas_gym.experiments.run.config import RunConfig, read_config, read_space
from nas_gym.experiments.run.progress import Interrupted
from nas_gym.experiments.run.run import Run, load_best
from nas_gym.experiments.run.trials import read_trials

__all__ = ["Interrupted", "Run", "RunConfig", "load_best", "read_config", "read_space", "read_trials"]
