"""Playing given architectures: an environment builds them, one decision a step, and scores them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from nas_gym.agents.trial import Proposal, Trials
from nas_gym.envs.problem import Env, Problem
from nas_gym.spaces import Tokens
from nas_gym.types import Floats

FROM_START: dict[str, Any] = {"architecture": ()}
"""Options of a reset after which a whole sequence is played, wherever the environment would start."""


def play(env: Env, proposal: Proposal | Tokens) -> Trials:
    """Builds given architectures in an environment, one decision a step.

    The sub-environments of a vector need not be in step: each takes the next architecture when its episode ends. One
    that finds none left repeats the last until the others are done; what it earns is discarded.

    Args:
        env: a construction environment, or a vector of them in any autoreset mode.
        proposal: what an agent has asked for; or architectures int64[n, T] alone, whose identities are -1.

    Returns:
        The trials, in the order of the proposals.
    """
    if not isinstance(proposal, Proposal):
        proposal = Proposal(np.full(len(proposal), -1), proposal)
    dimensions = Problem(env).reward_dimensions
    rewards = np.zeros(len(proposal) if dimensions is None else (len(proposal), dimensions))
    if isinstance(env, VectorEnv):
        columns = _play_in_vector(env, proposal, rewards)
    else:
        columns = _play_in_scalar(env, proposal, rewards)
    return Trials(proposal.ids, proposal.tokens, rewards, columns)


def _play_in_scalar(env: gym.Env[Any, Any], proposal: Proposal, rewards: Floats) -> dict[str, Floats]:
    """Fills in the rewards; returns the columns of ``info["evaluation"]``."""
    n, options = len(proposal), proposal.options()
    columns: dict[str, Floats] = {}
    for row, sequence in enumerate(proposal.tokens):
        env.reset(options={**FROM_START, **(options[row] if options else {})})
        for position, token in enumerate(sequence):
            _, reward, terminated, truncated, info = env.step(token)
            rewards[row] += reward
            if terminated or truncated:
                _check_whole(terminated, position + 1, len(sequence))
                break
        for name, value in info["evaluation"].items():
            columns.setdefault(name, np.full(n, np.nan))[row] = value
    return columns


def _play_in_vector(env: VectorEnv[Any, Any, Any], proposal: Proposal, rewards: Floats) -> dict[str, Floats]:
    """As `_play_in_scalar`."""
    n, options, tokens = len(proposal), proposal.options(), proposal.tokens
    mode = env.metadata["autoreset_mode"]
    columns: dict[str, Floats] = {}
    row = np.arange(env.num_envs)  # the architecture that each sub-environment plays
    queued, unfinished = env.num_envs, n
    position, earned = np.zeros_like(row), np.zeros((env.num_envs, *rewards.shape[1:]))
    # Without waiting for NEXT_STEP's extra step, architectures are scored in the same batches in every mode.
    by_hand = mode != AutoresetMode.SAME_STEP or Problem(env).restart_after is not None
    env.reset(options=FROM_START)
    if options:
        _reset_at(env, np.ones(env.num_envs, dtype=bool), [options[index] for index in np.minimum(row, n - 1)])
    while unfinished:
        _, reward, terminated, truncated, infos = env.step(tokens[np.minimum(row, n - 1), position])
        earned += reward
        position += 1
        done = terminated | truncated
        if not done.any():
            continue
        _check_whole(terminated[done].all(), position[done].min(), tokens.shape[1])
        evaluation = (infos["final_info"] if mode == AutoresetMode.SAME_STEP else infos)["evaluation"]
        counted = np.flatnonzero(done & (row < n))
        rewards[row[counted]] = earned[counted]
        for name, column in evaluation.items():
            if not name.startswith("_"):
                present = counted[evaluation.get(f"_{name}", done)[counted]]
                columns.setdefault(name, np.full(n, np.nan))[row[present]] = column[present]
        unfinished -= len(counted)
        ended = int(done.sum())
        row[done] = np.arange(queued, queued + ended)
        queued += ended
        position[done], earned[done] = 0, 0.0
        if unfinished and options:
            _reset_at(env, done, [options[index] for index in np.minimum(row, n - 1)])
        elif unfinished and by_hand:
            env.reset(options={**FROM_START, "reset_mask": done})
    return columns


def _check_whole(terminated: bool, steps: int, decisions: int) -> None:
    """Refuses an episode that was truncated before its architecture was complete."""
    if not terminated:
        raise ValueError(f"env truncates episodes after {steps} of {decisions} decisions; agents need whole ones")


def _reset_at(env: VectorEnv[Any, Any, Any], mask: NDArray[np.bool_], options: list[dict[str, Any]]) -> None:
    """Resets the masked sub-environments, each with its own options; those that have the same, at once."""
    left = mask.copy()
    while left.any():
        shared = options[int(left.argmax())]
        alike = left & np.array([own == shared for own in options])
        env.reset(options={**FROM_START, "reset_mask": alike, **shared})
        left &= ~alike
