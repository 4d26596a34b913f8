"""REINFORCE and its variants, against the textbook's gradients and simple second implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from agent_checks import foreign
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from nas_gym.agents import RandomSearch, Reinforce, Trials, load_hyperparameters
from nas_gym.agents.policy_gradient.memory import MovingAverage, PriorityQueue, Ranks
from nas_gym.agents.policy_gradient.reinforce import ReinforceHyperparameters
from nas_gym.envs.construction_vector import ConstructionVectorEnv
from nas_gym.evaluators import FunctionEvaluator
from nas_gym.spaces import Bench201Space, SearchSpace, make_space

BENCH = make_space("bench201")
THREE = Bench201Space(nodes=2, operations=("none", "skip_connect", "avg_pool_3x3"))
CONV = BENCH.operations.index("nor_conv_3x3")
SOFTMAXES = {"lstm": False, "learning_rate": 0.1, "max_grad_norm": None}

# No ranks, no replay, revisits: what the formulas here are of; and ENAS recurrent's bound, under which it learns soon.
FEW_SETTINGS = {"preset": "paper", "tanh_constant": 2.5, "operation_tanh_reduction": 1.0}


def reinforce(env, seed=0, hyperparameters=None):
    """The agent, with settings that differ little from the defaults of its dataclass."""
    given = hyperparameters if isinstance(hyperparameters, ReinforceHyperparameters) else None
    return Reinforce(env, seed, given or {**FEW_SETTINGS, **(hyperparameters or {})})


def checksum(tokens):
    """A different score in [0, 1] for nearly every sequence."""
    return (tokens @ (7 ** np.arange(tokens.shape[1], dtype=np.int64) % 1009)) % 1009 / 1009


def share_of_convolutions(tokens):
    return 0.6 + 0.3 * (tokens == CONV).mean(axis=1)


def vector(num_envs: int, space: SearchSpace = BENCH, function=checksum) -> ConstructionVectorEnv:
    return ConstructionVectorEnv(num_envs, space=space, evaluator=FunctionEvaluator(space, function))


# ---------------------------------------------------------------------- the parts


def test_moving_averages_are_corrected_for_their_start():
    values = np.random.default_rng(0).normal(size=(2, 23))
    average = MovingAverage(0.9, 2)
    found = [average.update(part) for part in np.split(values, [1, 10, 10 + 4], axis=1)]
    for means, n in zip(found, (1, 10, 14, 23), strict=True):
        weights = 0.9 ** np.arange(n)[::-1]
        np.testing.assert_allclose(means, [np.average(row[:n], weights=weights) for row in values])
    # Adam's form of the same: a moment that starts at zero, divided by 1 - decay^n.
    moment = 0.0
    for value in values[1]:
        moment = 0.9 * moment + 0.1 * value
    assert found[-1][1] == pytest.approx(moment / (1 - 0.9**23))


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6), min_size=1, max_size=5))
def test_ranks_are_those_among_all_values_so_far(batches):
    ranks, seen = Ranks(2), []
    for batch in batches:
        seen += batch
        found = ranks.update(np.array([batch, [-value for value in batch]], dtype=float))
        expected = (rankdata(seen)[-len(batch) :] - 0.5) / len(seen)
        np.testing.assert_allclose(found[0], expected)
        np.testing.assert_allclose(found[1], 1 - expected)


def test_ranks_of_many_values_are_those_of_sorting_all():
    """Also where the latest are kept apart from most, and after the values are read and set again."""
    ranks, seen, rng = Ranks(), np.empty(0), np.random.default_rng(0)
    for update in range(300):
        batch = rng.integers(0, 50, size=rng.integers(1, 8)) / 50
        seen = np.append(seen, batch)
        expected = ((seen < batch[:, None]).sum(axis=1) + (seen <= batch[:, None]).sum(axis=1)) / (2 * len(seen))
        assert np.array_equal(ranks.update(batch[None])[0], expected)
        assert len(ranks) == len(seen)
        if update % 50 == 0:
            ranks.sorted = ranks.sorted
    assert np.array_equal(ranks.sorted[0], np.sort(seen))


@given(st.lists(st.lists(st.tuples(st.integers(0, 6), st.floats(0, 1)), min_size=1, max_size=6), max_size=5))
def test_the_queue_holds_the_best_different_architectures(batches):
    queue, best = PriorityQueue(2, 3, 2), [{}, {}]
    for batch in batches:
        names, rewards = (np.array(column) for column in zip(*batch, strict=True))
        tokens = np.stack([names, names % 3], axis=1)
        queue.update(np.stack([tokens, tokens]), np.stack([rewards, 1 - rewards]))
        for known, scores in zip(best, (rewards, 1 - rewards), strict=True):
            for name, reward in zip(names.tolist(), scores.tolist(), strict=True):
                known[name] = max(reward, known.get(name, -1.0))
    for row, known in enumerate(best):
        filled = queue.rewards[row] > -np.inf
        assert queue.rewards[row][filled].tolist() == sorted(known.values(), reverse=True)[:3]
        held = queue.tokens[row][filled][:, 0].tolist()
        assert [known[name] for name in held] == queue.rewards[row][filled].tolist()
        assert len(set(held)) == len(held) == min(3, len(known))


# ---------------------------------------------------------------------- the update


def test_the_gradient_of_a_single_softmax_is_the_textbook_one():
    settings = {"tanh_constant": None, "entropy_weight": 0.3, "max_grad_norm": None, "baseline_decay": 0.8}
    agent = reinforce(vector(1, THREE), hyperparameters=settings)
    head = agent.controller.heads[0]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.tensor([[[0.5, -0.2, 0.1]]]))
    p = np.exp([0.5, -0.2, 0.1]) / np.exp([0.5, -0.2, 0.1]).sum()
    chosen = np.array([0, 2, 2, 1, 0, 0, 1, 2, 2, 2])
    rewards = np.linspace(0.1, 0.9, 10) ** 2
    statistics = agent.tell(foreign(chosen[:, None], rewards))

    entropy = -(p * np.log(p)).sum()
    returns = rewards + 0.3 * entropy
    advantages = returns - np.average(returns, weights=0.8 ** np.arange(10)[::-1])
    gradient = (advantages[:, None] * (p - np.eye(3)[chosen])).mean(axis=0)
    np.testing.assert_allclose(head.bias.grad[0, 0], gradient, atol=1e-6)
    assert statistics["train/entropy_loss"] == pytest.approx(-entropy)
    assert statistics["train/advantage_std"] == pytest.approx(advantages.std())
    assert statistics["train/policy_loss"] == pytest.approx(-(advantages * np.log(p[chosen])).mean(), abs=1e-6)
    # The first step of Adam without momentum is the learning rate along the gradient's sign.
    moved = head.bias[0, 0].detach().numpy() - [0.5, -0.2, 0.1]
    np.testing.assert_allclose(moved, -3.5e-3 * np.sign(gradient), rtol=1e-3)


def test_an_update_waits_for_a_batch_and_takes_all_that_is_there():
    tokens = BENCH.sample(np.random.default_rng(0), 27)
    one, other = (reinforce(vector(1), hyperparameters={"batch_size": 20}) for _ in range(2))
    assert one.tell(foreign(tokens[:19], checksum(tokens[:19]))) == {}
    assert one.tell(foreign(tokens[19:], checksum(tokens[19:]))) == other.tell(foreign(tokens, checksum(tokens))) != {}
    assert one.tell(foreign(tokens[:19], checksum(tokens[:19]))) == {}


def test_gradients_are_clipped():
    agents = [reinforce(vector(1), hyperparameters={"max_grad_norm": bound}) for bound in (None, 1e-3)]
    tokens = BENCH.sample(np.random.default_rng(0), 10)
    norms = [agent.tell(foreign(tokens, checksum(tokens)))["train/grad_norm"] for agent in agents]
    assert norms[0] == norms[1] > 1e-3
    found = [sum(p.grad.square().sum() for p in a.controller.parameters() if p.numel()) ** 0.5 for a in agents]
    assert found[0].item() == pytest.approx(norms[0], rel=1e-5)
    assert found[1].item() == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.slow
def test_reinforce_beats_random_search():
    settings = load_hyperparameters("reinforce", overrides=FEW_SETTINGS)
    for seed in range(4):
        learned = reinforce(vector(10, function=share_of_convolutions), seed, settings).learn(300)
        random = RandomSearch(vector(10, function=share_of_convolutions), seed).learn(300)
        assert learned.rewards[-100:].mean() > 0.85  # of 0.6 to 0.9; uniform sampling gives 0.66
        assert random.rewards[-100:].mean() < 0.69
        assert learned.best_reward > random.best_reward
        assert learned.best == BENCH.architecture([CONV] * 6)


@pytest.mark.slow
def test_reinforce_learns_where_to_point():
    """Reward for reading the network's first input everywhere, which only attention over anchors can express."""
    space = make_space("cell:enas")
    pointing = [t for t, decision in enumerate(space.decisions) if decision.kind == "input"]
    env = vector(10, space, lambda tokens: (tokens[:, pointing] == 0).mean(axis=1))
    rewards = reinforce(env, hyperparameters={"tanh_constant": None, "learning_rate": 0.01}).learn(300).rewards
    assert rewards[-50:].mean() > rewards[:50].mean() + 0.2


@pytest.mark.parametrize(
    ("options", "advantages"),
    [
        ({"baseline": "none"}, lambda r: r),
        ({"baseline": "none", "reward": "cubed"}, lambda r: r**3),
        ({"baseline": "none", "reward": "tan"}, lambda r: np.tan(r * np.pi / 2)),
        ({"baseline": "none", "reward": "rank"}, lambda r: (rankdata(r) - 0.5) / len(r)),
        ({"baseline": "leave-one-out"}, lambda r: np.array([v - np.delete(r, i).mean() for i, v in enumerate(r)])),
        ({"baseline": "critic"}, lambda r: r),  # it starts at zero
    ],
)
def test_variants_weigh_the_gradient_by_their_advantages(options, advantages):
    agent = reinforce(vector(1, THREE), hyperparameters={**SOFTMAXES, "entropy_weight": 0.0, **options})
    with torch.no_grad():
        agent.controller.logits.copy_(torch.tensor([[[0.5, -0.2, 0.1]]]))
    p = np.exp([0.5, -0.2, 0.1]) / np.exp([0.5, -0.2, 0.1]).sum()
    chosen = np.array([0, 2, 2, 1, 0, 0, 1, 2, 2, 2])
    rewards = np.linspace(0.1, 0.9, 10) ** 2
    agent.tell(foreign(chosen[:, None], rewards))
    gradient = (advantages(rewards)[:, None] * (p - np.eye(3)[chosen])).mean(axis=0)
    np.testing.assert_allclose(agent.controller.logits.grad[0, 0], gradient, atol=1e-6)


def test_replay_raises_the_likelihood_of_the_best():
    """With a constant reward and a baseline, nothing but the replayed architecture is learned."""
    options = {**SOFTMAXES, "entropy_weight": 0.0, "replay_size": 1, "replay_weight": 2.0, "batch_size": 2}
    agent = reinforce(vector(1, THREE), hyperparameters={**options, "baseline": "leave-one-out"})
    agent.tell(foreign(np.array([[1], [1]]), np.array([0.7, 0.7])))
    p = agent.policy(np.full((1, 1), -1), np.array([0]))[0]
    assert p[1] > 0.35
    with torch.no_grad():
        agent.controller.logits.zero_()
    agent.tell(foreign(np.array([[0], [0]]), np.array([0.2, 0.2])))
    np.testing.assert_allclose(agent.controller.logits.grad[0, 0], 2.0 * (1 / 3 - np.eye(3)[1]), atol=1e-6)


@pytest.mark.slow
def test_the_critic_learns_the_mean_reward_and_leaves_the_features_alone():
    options = {"baseline": "critic", "entropy_weight": 0.0, "learning_rate": 0.02, "batch_size": 8}
    agent = reinforce(vector(1), hyperparameters=options)
    tokens = BENCH.sample(np.random.default_rng(0), 8)
    for _ in range(300):
        statistics = agent.tell(foreign(tokens, np.full(8, 0.6)))
    assert statistics["train/baseline"] == pytest.approx(0.6, abs=0.02)
    agent.optimizer.zero_grad()
    _, _, features = agent.controller.evaluate(torch.from_numpy(tokens)[None])
    agent._values(features.detach()).sum().backward()
    assert all(parameter.grad is None for parameter in agent.controller.parameters())


def test_no_architecture_is_proposed_twice_until_all_are_tried():
    options = {**SOFTMAXES, "learning_rate": 1.0, "revisits": False, "batch_size": 7}
    tiny = Bench201Space(nodes=3, operations=("none", "skip_connect", "avg_pool_3x3"))
    agent = reinforce(vector(7, tiny), hyperparameters=options)
    result = agent.learn(21)
    assert result.unique_architectures == 21
    result = agent.learn(70)
    assert result.unique_architectures >= 26  # of 27: then it comes back to what it knows
    assert result.rewards[-1] >= 0


@pytest.mark.parametrize(
    "options", [{}, {**SOFTMAXES, "revisits": False, "reward": "rank", "replay_size": 3, "batch_size": 4}]
)
def test_searches_in_one_program_equal_those_alone(options):
    made = load_hyperparameters("reinforce", None, options)
    n = made.batch_size
    together = reinforce(vector(3 * n), [5, 6, 7], made)
    for seed, found in zip((5, 6, 7), together.learn_each(50), strict=True):
        alone = reinforce(vector(n), seed, made).learn(50)
        np.testing.assert_array_equal(found.tokens, alone.tokens)
        np.testing.assert_array_equal(found.rewards, alone.rewards)
        np.testing.assert_array_equal(found.metrics["accuracy"], alone.metrics["accuracy"])


def test_several_seeds_are_asked_and_told_seed_by_seed():
    options = {"batch_size": 4}
    together, alone = reinforce(vector(1), [5, 6], options), [reinforce(vector(1), seed, options) for seed in (5, 6)]
    assert together.seeds == 2
    for _ in range(3):
        proposal = together.ask(4)
        assert proposal.ids.tolist() == (proposal.ids[0] + np.arange(8)).tolist()
        np.testing.assert_array_equal(proposal.tokens, np.concatenate([agent.ask(4).tokens for agent in alone]))
        trials = Trials(proposal.ids, proposal.tokens, checksum(proposal.tokens))
        each = [alone[k].tell(trials.rows(slice(4 * k, 4 * k + 4))) for k in range(2)]
        for tag, value in together.tell(trials).items():
            assert value == pytest.approx(np.mean([statistics[tag] for statistics in each]), rel=1e-5)


def test_growing_spaces_are_learned_with_replay():
    """What is best at one stage is not replayed at the next, where it may be illegal."""
    space = make_space("chain:schedule")
    options = {"hidden_size": 4, "replay_size": 3, "batch_size": 2, "learning_rate": 0.1}
    agent = reinforce(vector(2, space), hyperparameters=options)
    first = space.at_trial(0)
    second = next(space.at_trial(trial) for trial in range(0, 20_000, 100) if space.at_trial(trial) != first)
    agent.controller.space = first
    for stage in (first, second):
        if agent.controller.space != stage:
            agent._grow(stage)
        tokens = agent.controller.sample(2, agent.generators)[0].numpy()
        assert np.isfinite(agent.tell(foreign(tokens, np.array([0.3, 0.5])))["train/policy_loss"])
        assert all(torch.isfinite(parameter).all() for parameter in agent.controller.parameters())


# ---------------------------------------------------------------------- the settings


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("baseline", "median"),
        ("reward", "squared"),
        ("replay_size", -1),
        ("replay_size", 1.5),
        ("replay_weight", float("nan")),
        ("revisits", 1),
        ("lstm", "no"),
    ],
)
def test_variants_that_do_not_exist_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        ReinforceHyperparameters(**{field: value})


def test_leave_one_out_needs_another_episode():
    with pytest.raises(ValueError, match="batch_size must be at least 2"):
        ReinforceHyperparameters(baseline="leave-one-out", batch_size=1)
