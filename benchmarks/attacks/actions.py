"""Any integer of the action space, legal or not, in the environments of transformations."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np

import nas_gym  # noqa: F401  # registers the environments
from benchmarks.attacks.outcome import Attack, Outcome

IDS = ("NAS-Transform-v0", "NAS-Transform-Dense-v0")
ACTIONS = 1_000_000
NUM_ENVS = 1000


def random_actions(
    folder: Path, rng: np.random.Generator, *, env_id: str, actions: int = ACTIONS, num_envs: int = NUM_ENVS
) -> Outcome:
    """Plays uniformly random actions without a mask; a try is one action."""
    del folder
    outcome = Outcome(f"random actions without a mask in {env_id}")
    envs = gym.make_vec(env_id, num_envs=num_envs, evaluator="constant", vectorization_mode="vector_entry_point")
    envs.action_space.seed(int(rng.integers(2**31)))
    observation, _ = envs.reset(seed=int(rng.integers(2**31)))
    while outcome.tries < actions:
        chosen = envs.action_space.sample()
        try:
            observation, rewards, *_ = envs.step(chosen)
        except Exception as error:
            outcome.tracebacks += num_envs
            outcome.examples = [*outcome.examples, f"{type(error).__name__}: {error}"][:5]
            observation, _ = envs.reset()
            continue
        wrong = 0 if _legal(envs, observation, rewards) else _wrong(envs, observation, rewards)
        outcome.silent += wrong
        outcome.unharmed += num_envs - wrong
    envs.close()
    return outcome


def _legal(envs: gym.vector.VectorEnv, observation: np.ndarray, rewards: np.ndarray) -> bool:
    """Whether all observations lie in their space, and all rewards are finite."""
    return bool(envs.observation_space.contains(observation) and np.isfinite(rewards).all())


def _wrong(envs: gym.vector.VectorEnv, observation: np.ndarray, rewards: np.ndarray) -> int:
    """How many sub-environments have an observation outside of its space, or a reward that is not finite."""
    outside = [not envs.single_observation_space.contains(row) for row in observation]
    return int((np.array(outside) | ~np.isfinite(rewards)).sum()) or len(rewards)


ATTACKS: list[Attack] = [partial(random_actions, env_id=env_id) for env_id in IDS]
