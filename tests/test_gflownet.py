"""GFlowNet: log Z and the distribution that it learns against those of a whole table."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from agent_checks import foreign

from nas_gym.agents import Agent, GFlowNet
from nas_gym.envs.construction_vector import ConstructionVectorEnv
from nas_gym.evaluators import FunctionEvaluator
from nas_gym.spaces import Bench201Space, BenchGraphSpace, make_space

TINY = Bench201Space(nodes=3)  # 125 sequences
GRAPH = BenchGraphSpace(operations=("gcn", "fc", "skip"))  # all skips are illegal
PLAIN = {"beta": 1.0, "final_beta": 1.0, "reward": "raw"}


def checksum(tokens):
    """A different score in (0, 1) for every sequence."""
    return ((tokens @ (7 ** np.arange(tokens.shape[1], dtype=np.int64) % 1009)) % 1009 + 1) / 1011


def native(space=TINY, num_envs: int = 1) -> ConstructionVectorEnv:
    return ConstructionVectorEnv(num_envs, space=space, evaluator=FunctionEvaluator(space, checksum))


def probabilities(agent: GFlowNet, tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        log_probs, _, _ = agent.controller.evaluate(torch.from_numpy(tokens)[None])
    return log_probs[0].sum(1).double().exp().numpy()


@pytest.mark.slow
def test_log_z_and_the_frequencies_are_those_of_the_table() -> None:
    """The policy is the distribution R^beta / Z, and 20,000 samples of it look like it."""
    beta = 3.0
    settings = {"learning_rate": 0.02, "beta": beta, "final_beta": beta, "reward": "raw", "replay_size": 0}
    agent = GFlowNet(native(), 0, {**settings, "hidden_size": 32, "epochs": 300, "batch_size": 125})
    everything = TINY.enumerate()
    agent.tell(foreign(everything, checksum(everything)))
    target = checksum(everything) ** beta
    exact = target / target.sum()
    assert agent.log_z == pytest.approx(math.log(target.sum()), abs=0.02)
    assert np.abs(probabilities(agent, everything) - exact).sum() / 2 < 0.02
    drawn = agent.controller.sample(20_000, agent.generators)[0].numpy()
    shares = np.bincount(TINY.index(drawn), minlength=125) / len(drawn)
    expected = np.sqrt(2 / np.pi * exact * (1 - exact) / len(drawn)).sum() / 2  # of an exact sampler
    assert np.abs(shares - exact).sum() / 2 < expected + 0.02


@pytest.mark.slow
def test_its_own_samples_are_enough() -> None:
    """From what it samples and replays, it comes close to the distribution, without seeing the table."""
    agent = GFlowNet(
        native(GRAPH, 20),
        0,
        {**PLAIN, "learning_rate": 0.02, "batch_size": 20, "replay_size": 40, "revisits": True, "hidden_size": 32},
    )
    agent.learn(1200)
    everything = GRAPH.enumerate()
    target = checksum(everything)
    uniform = np.abs(1 / len(target) - target / target.sum()).sum() / 2
    distance = np.abs(probabilities(agent, everything) - target / target.sum()).sum() / 2
    assert distance < uniform / 2
    assert agent.log_z == pytest.approx(math.log(target.sum()), abs=0.1)


def test_the_loss_is_that_of_trajectory_balance() -> None:
    agent = GFlowNet(native(), 0, {**PLAIN, "beta": 2.0, "final_beta": 2.0})
    tokens = TINY.sample(np.random.default_rng(0), 9)
    rewards = np.array([0.0, *checksum(tokens)[1:]])
    found = agent._losses(tokens, rewards).detach().numpy()
    logs = np.log(probabilities(agent, tokens))
    expected = (math.log(125) + logs - 2 * np.log(np.maximum(rewards, 1e-6))) ** 2
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_uniform_policy_is_right_where_all_rewards_are_one() -> None:
    agent = GFlowNet(native(), 0, PLAIN)
    with torch.no_grad():
        for parameter in agent.controller.parameters():
            parameter.zero_()
    np.testing.assert_allclose(agent._losses(TINY.enumerate(), np.ones(125)).detach().numpy(), 0.0, atol=1e-8)


def test_beta_is_annealed_geometrically() -> None:
    agent = GFlowNet(native(), 0, {"beta": 1.0, "final_beta": 16.0, "annealing_trials": 40, "batch_size": 10})
    seen = []
    for _ in range(6):
        seen.append(agent.beta)
        agent.learn(10)
    np.testing.assert_allclose(seen, [1, 2, 4, 8, 16, 16])


def test_ranks_are_those_among_all_trials() -> None:
    agent = GFlowNet(native(), 0, {"reward": "rank", "batch_size": 100})
    tokens = TINY.enumerate()[:4]
    agent.tell(foreign(tokens, np.array([0.1, 0.4, 0.2, 0.3])))
    assert agent._transformed(np.array([[0.4, 0.1]])).tolist() == [[0.875, 0.125]]


def test_what_a_smaller_space_has_seen_is_not_replayed() -> None:
    """A space that grows: every update stays finite."""
    space = make_space({"name": "chain", "layers": 3, "depth": "schedule", "every": 8, "start": 1, "growth": 1})
    agent = GFlowNet(native(space, 4), 0)
    agent.learn(32)
    assert math.isfinite(agent.log_z)
    assert all(torch.isfinite(parameter).all() for parameter in agent.controller.parameters())


def test_it_goes_on_to_the_bit(tmp_path) -> None:
    agent = GFlowNet(native(num_envs=3), 1)
    agent.learn(20)
    agent.save(tmp_path / "agent.pt")
    read = Agent.load(tmp_path / "agent.pt", native(num_envs=3))
    assert agent.learn(20).tokens.tolist() == read.learn(20).tokens.tolist()
    assert agent.log_z == read.log_z


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"beta": 0.0}, "beta must be positive, got 0"),
        ({"flow_learning_rate": math.inf}, "flow_learning_rate must be positive, got inf"),
        ({"epochs": 0}, "epochs must be a positive integer, got 0"),
        ({"replay_size": -1}, "replay_size must be an integer, not negative, got -1"),
    ],
)
def test_settings(wrong, message) -> None:
    with pytest.raises(ValueError, match=message):
        GFlowNet(native(), 0, wrong)
    with pytest.raises(ValueError, match="seed must be one integer for the agent 'gflownet', got 2 of them"):
        GFlowNet(native(), [0, 1])
