"""PPO: advantages against their definition, the clipped objective against Stable-Baselines3's, and what it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from agent_checks import foreign
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.buffers import RolloutBuffer

from nas_gym.agents import PPO, RandomSearch
from nas_gym.agents.policy_gradient.ppo import PPOHyperparameters, advantages_and_returns
from nas_gym.envs.construction_vector import ConstructionVectorEnv
from nas_gym.evaluators import FunctionEvaluator
from nas_gym.spaces import SearchSpace, make_space

BENCH = make_space("bench201")
DARTS = make_space("cell:darts")
CONV = BENCH.operations.index("nor_conv_3x3")

FEW_SETTINGS = {"preset": "paper", "tanh_constant": 2.5, "operation_tanh_reduction": 1.0}  # no ranks, revisits


def ppo(env, seed=0, hyperparameters=None):
    """The agent, with settings that differ little from the defaults of its dataclass."""
    given = hyperparameters if isinstance(hyperparameters, PPOHyperparameters) else None
    return PPO(env, seed, given or {**FEW_SETTINGS, **(hyperparameters or {})})


def share_of_convolutions(tokens):
    return 0.6 + 0.3 * (tokens == CONV).mean(axis=1)


def vector(num_envs: int, space: SearchSpace = BENCH, function=share_of_convolutions) -> ConstructionVectorEnv:
    return ConstructionVectorEnv(num_envs, space=space, evaluator=FunctionEvaluator(space, function))


# ---------------------------------------------------------------------- advantages


@given(st.integers(0, 1000), st.floats(0, 1), st.floats(0, 1))
def test_advantages_equal_those_of_stable_baselines3(seed, discount, gae_lambda):
    rng = np.random.default_rng(seed)
    n, length = 3, 5
    rewards, values = rng.normal(size=n), rng.normal(size=(n, length))
    advantages, returns = advantages_and_returns(rewards, values, discount, gae_lambda)
    from gymnasium.spaces import Box, Discrete

    buffer = RolloutBuffer(length, Box(0, 1), Discrete(2), gamma=discount, gae_lambda=gae_lambda, n_envs=n)
    for t in range(length):
        earned = rewards if t == length - 1 else np.zeros(n)
        value = torch.from_numpy(values[:, t])
        buffer.add(np.zeros((n, 1)), np.zeros((n, 1)), earned, np.full(n, t == 0), value, torch.zeros(n))
    buffer.compute_returns_and_advantage(torch.zeros(n), np.ones(n))
    np.testing.assert_allclose(advantages.T, buffer.advantages, atol=1e-5)
    np.testing.assert_allclose(returns.T, buffer.returns, atol=1e-5)


def test_without_discount_an_advantage_is_reward_minus_value():
    values = np.random.default_rng(0).normal(size=(4, 6))
    advantages, returns = advantages_and_returns(np.arange(4.0), values, 1.0, 1.0)
    np.testing.assert_allclose(advantages, np.arange(4.0)[:, None] - values)
    np.testing.assert_allclose(returns, np.repeat(np.arange(4.0)[:, None], 6, axis=1), atol=1e-12)


# ---------------------------------------------------------------------- the update


def test_the_first_step_is_the_policy_gradient():
    """At the policy that sampled, the clipped objective's gradient is that of advantage times log-probability."""
    options = {"lstm": False, "epochs": 1, "minibatch_size": 8, "batch_size": 8, "entropy_weight": 0.0}
    agent = ppo(vector(8), hyperparameters={**options, "normalise_advantages": False, "max_grad_norm": None})
    with torch.no_grad():
        agent.controller.logits.normal_(generator=torch.Generator().manual_seed(0))
        agent.critic[0, -1] = 0.7
    tokens = BENCH.sample(np.random.default_rng(0), 8)
    p = agent.controller.logits[0].softmax(-1).detach().numpy()
    rewards = np.linspace(0.5, 0.9, 8)
    agent.tell(foreign(tokens, rewards))
    advantages, _ = advantages_and_returns(rewards, np.full((8, 6), 0.7), 1.0, 0.95)
    gradient = (advantages[..., None] * (p - np.eye(5)[tokens])).mean(axis=0) / 6
    np.testing.assert_allclose(agent.controller.logits.grad[0], gradient, atol=1e-6)


def test_probabilities_stay_near_those_that_sampled():
    """The gradient ends where ratios leave the range: a huge learning rate over many epochs moves no further."""
    tokens = BENCH.sample(np.random.default_rng(0), 8)
    ratios = {}
    for clip_range in (0.1, 1e6):
        options = {"lstm": False, "learning_rate": 0.05, "epochs": 60, "minibatch_size": 8, "batch_size": 8}
        clipped = {"clip_range": clip_range, "target_kl": None, "entropy_weight": 0.0, "adam_beta1": 0.0}
        agent = ppo(vector(8), hyperparameters={**options, **clipped})
        before = agent.controller.evaluate(torch.from_numpy(tokens)[None])[0].detach()
        agent.tell(foreign(tokens, np.linspace(0, 1, 8)))
        after = agent.controller.evaluate(torch.from_numpy(tokens)[None])[0].detach()
        ratios[clip_range] = (after - before).exp().max().item()
    assert ratios[0.1] < 1.7 < 2.5 < ratios[1e6]


def test_an_update_ends_at_the_target_divergence():
    def steps(target: float | None) -> float:
        options = {"learning_rate": 0.05, "epochs": 12, "batch_size": 8, "minibatch_size": 8, "target_kl": target}
        agent = ppo(vector(8), hyperparameters=options)
        return agent.tell(foreign(BENCH.sample(np.random.default_rng(0), 8), np.linspace(0, 1, 8)))["train/n_updates"]

    assert steps(None) == 12
    assert 1 < steps(0.05) < 12


def test_entropy_weight_falls_linearly():
    options = {"batch_size": 10, "entropy_weight": 0.2, "final_entropy_weight": 0.1, "entropy_trials": 40}
    agent = ppo(vector(10), hyperparameters=options)
    found = [agent._entropy_weight()]
    for _ in range(5):
        agent.learn(10)
        found.append(agent._entropy_weight())
    np.testing.assert_allclose(found, [0.2, 0.175, 0.15, 0.125, 0.1, 0.1])


def test_minibatches_hold_every_episode_once_an_epoch(monkeypatch):
    agent = ppo(vector(5), hyperparameters={"batch_size": 5, "minibatch_size": 2, "epochs": 3, "target_kl": None})
    seen = []
    original = agent._minibatch

    def spy(tokens, *others):
        assert all(part.shape == tokens.shape for part in others)
        seen.extend(map(tuple, tokens[0].tolist()))
        return original(tokens, *others)

    monkeypatch.setattr(agent, "_minibatch", spy)
    tokens = BENCH.sample(np.random.default_rng(3), 5)
    agent.tell(foreign(tokens, np.linspace(0, 1, 5)))
    for epoch in range(3):
        assert sorted(seen[5 * epoch : 5 * epoch + 5]) == sorted(map(tuple, tokens.tolist()))


@pytest.mark.slow
def test_ppo_learns_under_masks_and_beats_random_search():
    settings = {"learning_rate": 0.01, "tanh_constant": None, "batch_size": 10, "epochs": 4, "hidden_size": 32}
    pointing = [t for t, decision in enumerate(DARTS.decisions) if decision.kind == "input"]
    for space, score in (
        (BENCH, share_of_convolutions),
        (DARTS, lambda tokens: (tokens[:, pointing] == 0).mean(axis=1)),
    ):
        learned = ppo(vector(10, space, score), 0, settings).learn(300).rewards[-50:].mean()
        random = RandomSearch(vector(10, space, score), 0).learn(300).rewards.mean()
        assert learned > random + 0.08


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", 0), ("clip_range", 0.0), ("gae_lambda", 1.5), ("target_kl", -1.0), ("entropy_trials", 0)],
)
def test_hyperparameters_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        PPOHyperparameters(**{field: value})
