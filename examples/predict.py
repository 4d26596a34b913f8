"""Bayesian optimisation on a table of NAS-Bench-201, and how well its predictor ranks cells that it has not seen.

Takes seconds on a CPU.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from scipy.stats import spearmanr

import nas_gym  # noqa: F401  # registers the environments
from nas_gym.agents import Bayesian
from nas_gym.predictors import make_predictor


def main(trials: int = 100, seed: int = 0) -> float:
    """Returns the rank correlation of predictions with accuracies, over cells drawn at random."""
    env = gym.make_vec("NAS-Bench201-v0", num_envs=5)
    result = Bayesian(env, seed=seed, hyperparameters={"predictor": "gaussian-process"}).learn(trials)
    print(result)

    predictor = make_predictor("gaussian-process", result.space)
    predictor.fit(result.tokens, result.rewards)
    others = result.space.sample(np.random.default_rng(seed), 1000)
    accuracies = env.unwrapped.evaluator.evaluate(others).accuracy
    correlation = float(spearmanr(predictor.predict(others)[0], accuracies).statistic)
    print(f"fitted to these, the predictor ranks {len(others)} cells with a correlation of {correlation:.3f}")
    return correlation


if __name__ == "__main__":
    main()
