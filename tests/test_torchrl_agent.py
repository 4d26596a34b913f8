"""PPO of TorchRL as an agent: what its parts are handed, and that it learns. Its contract is that of every agent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torchrl")

from nas_gym.agents import AGENTS, make_agent, play, registry
from nas_gym.envs import ConstructionVectorEnv
from nas_gym.evaluators import FunctionEvaluator
from nas_gym.spaces import make_space

SHORT_CHAIN = {"name": "chain", "layers": 3, "depth": "stop"}


def agent_of(space: Any, **hyperparameters: Any) -> Any:
    made = make_space(space)
    evaluator = FunctionEvaluator(made, lambda tokens: (tokens == 1).mean(axis=1))
    env = ConstructionVectorEnv(10, space=made, evaluator=evaluator)
    return make_agent("torchrl:ppo", env, seed=0, hyperparameters=hyperparameters)


@pytest.mark.parametrize("space", ["cell:darts", SHORT_CHAIN])
def test_a_rollout_is_what_was_played(space: Any) -> None:
    """One step a decision; without discount, return and advantage are those of the reward at the end."""
    agent = agent_of(space)
    proposal = agent.ask(10)
    assert len(np.unique(proposal.tokens, axis=0)) > 5, "choices are drawn"
    trials = play(agent.env, proposal)
    rollout = agent._rollout(list(zip(trials.tokens, trials.rewards.tolist(), strict=True)))
    ends = np.flatnonzero(rollout["next", "done"].numpy())
    assert len(ends) == 10
    first = 0
    for end, tokens, reward in zip(ends.tolist(), trials.tokens, trials.rewards, strict=True):
        decided = rollout["action"][first : end + 1].numpy()
        np.testing.assert_array_equal(decided, tokens[: len(decided)])
        assert len(decided) == agent.space.length or decided[-1] == agent.space.stop_choices[len(decided) - 1]
        assert rollout["action_mask"][np.arange(first, end + 1), decided].all()
        np.testing.assert_allclose(rollout["value_target"][first : end + 1], reward, atol=1e-6)
        values = rollout["state_value"][first : end + 1]
        np.testing.assert_allclose(rollout["advantage"][first : end + 1], reward - values, atol=1e-6)
        probabilities = agent.policy(np.tile(tokens, (len(decided), 1)), np.arange(len(decided)))
        chosen = probabilities[np.arange(len(decided)), decided]
        np.testing.assert_allclose(np.log(chosen), rollout["action_log_prob"][first : end + 1], atol=1e-5)
        first = end + 1


@pytest.mark.slow
def test_it_learns() -> None:
    rewards = agent_of("cell:darts", epochs=4, minibatch_size=80).learn(400).rewards
    assert rewards[-50:].mean() > rewards[:50].mean() + 0.05


@pytest.mark.parametrize("setting", ["epochs", "clip_epsilon", "entropy_coeff", "lmbda"])
def test_settings_that_are_none(setting: str) -> None:
    with pytest.raises(ValueError, match=f"{setting} must be"):
        agent_of(SHORT_CHAIN, **{setting: -1})


def test_it_needs_torchrl(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "torchrl:ppo" in AGENTS
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    assert "torchrl:ppo" not in registry.shipped.__wrapped__()
