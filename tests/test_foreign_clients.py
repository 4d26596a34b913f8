"""Algorithms of Stable-Baselines3 and sb3-contrib train on every environment, with nothing in between."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sb3_contrib
import stable_baselines3
import torch
from stable_baselines3.common.env_util import make_vec_env

from nas_gym.registration import ENVIRONMENTS

STEPS = 2000
NUM_ENVS = 4

ROLLOUT = {"n_steps": 125, "policy_kwargs": {"net_arch": [16]}}
SMALL = {**ROLLOUT, "batch_size": 250, "n_epochs": 2}
CLIENTS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "PPO": (stable_baselines3.PPO, "MlpPolicy", SMALL),
    "A2C": (stable_baselines3.A2C, "MlpPolicy", ROLLOUT),
    "DQN": (
        stable_baselines3.DQN,
        "MlpPolicy",
        {"learning_starts": 200, "train_freq": 8, "policy_kwargs": {"net_arch": [16]}},
    ),
    "MaskablePPO": (sb3_contrib.MaskablePPO, "MlpPolicy", SMALL),
    "RecurrentPPO": (
        sb3_contrib.RecurrentPPO,
        "MlpLstmPolicy",
        {**SMALL, "policy_kwargs": {"net_arch": [16], "lstm_hidden_size": 8}},
    ),
    "TRPO": (sb3_contrib.TRPO, "MlpPolicy", {**ROLLOUT, "batch_size": 250, "n_critic_updates": 2}),
}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("name", [row.id for row in ENVIRONMENTS])
def test_client_trains(name: str, client: str) -> None:
    algorithm, policy, arguments = CLIENTS[client]
    envs = make_vec_env(name, n_envs=NUM_ENVS, seed=0, env_kwargs={"evaluator": "constant", "objective": "accuracy"})
    model = algorithm(policy, envs, seed=0, device="cpu", **arguments)
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    model.learn(STEPS)
    assert model.num_timesteps >= STEPS
    episodes = list(model.ep_info_buffer)
    assert episodes
    assert {episode["r"] for episode in episodes} == {0.5}, "each ends with the accuracy of the constant evaluator"
    moved = zip(before, model.policy.parameters(), strict=True)
    assert any(not torch.equal(old, new) for old, new in moved)
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())
    observation = envs.reset()
    actions, _ = model.predict(observation)
    assert actions.shape == (NUM_ENVS,)
    assert np.isin(actions, range(envs.action_space.n)).all()
