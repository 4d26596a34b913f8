"""Monte Carlo tree search: bounds by their formulas, means by brute force, and where the visits go."""

from __future__ import annotations

import math

import numpy as np
import pytest
from agent_checks import answered, foreign
from scipy import stats

from nas_gym.agents import MCTS, RandomSearch
from nas_gym.agents.planning.mcts import Node, complete
from nas_gym.envs.construction_vector import ConstructionVectorEnv
from nas_gym.evaluators import FunctionEvaluator
from nas_gym.spaces import Bench201Space, BenchGraphSpace, make_space

BENCH = make_space("bench201")
TABLE = Bench201Space(nodes=3, operations=("nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"))  # 27, and no twins
SIZE = make_space("size")  # five decisions of eight choices
GRAPH = BenchGraphSpace(operations=("gcn", "fc", "skip"))  # all skips are illegal
BEST = (2, 0, 1, 5, 4)


def closeness(tokens):
    """1 at the best architecture, less by what the decisions differ from it."""
    length = tokens.shape[1]
    return 1 - np.abs(tokens - np.array(BEST[:length])).sum(axis=1) / 6 / length


def checksum(tokens):
    return (tokens @ (7 ** np.arange(tokens.shape[1], dtype=np.int64) % 1009)) % 1009 / 1009


def native(space=TABLE, function=closeness, num_envs: int = 1) -> ConstructionVectorEnv:
    return ConstructionVectorEnv(num_envs, space=space, evaluator=FunctionEvaluator(space, function))


def visits(agent: MCTS) -> dict[tuple[int, ...], int]:
    return {prefix: node.visits for prefix, node in agent._tree.items()}


# ------------------------------------------------------------------ where it goes


@pytest.mark.parametrize(
    "settings",
    [{"selection": "puct", "exploration": 0.5}, {"selection": "uct", "exploration": 0.1}],
    ids=["puct", "uct"],
)
def test_it_finds_the_best_and_visits_concentrate_on_it(settings) -> None:
    """Once all 27 rewards are known, descents cost nothing: most of them end in the best architecture."""
    agent = MCTS(native(), 0, {"reward": "raw", **settings})
    agent.tell(foreign(TABLE.enumerate(), closeness(TABLE.enumerate())))
    for _ in range(40):
        agent.ask(1)
    counts = visits(agent)
    for depth in (1, 2, 3):
        level = {prefix: count for prefix, count in counts.items() if len(prefix) == depth}
        assert max(level, key=level.__getitem__) == BEST[:depth]
    assert counts[BEST[:3]] > counts[()] / 2


def test_without_exploration_it_is_greedy() -> None:
    """With c = 0 each choice is that of the best mean, wherever one is better than the mean of its parent."""
    agent = MCTS(native(SIZE, checksum), 0, {"selection": "puct", "exploration": 0.0, "reward": "raw"})
    agent.learn(40)
    for prefix, parent in list(agent._tree.items()):
        children = {k: agent._tree[*prefix, k] for k in range(8) if (*prefix, k) in agent._tree}
        if children:
            best = max(children, key=lambda k: children[k].mean)
            if children[best].mean > parent.mean:
                assert {agent._choose(prefix) for _ in range(10)} == {best}


def test_bounds() -> None:
    parent, children = Node(9, 4.5, 1), [Node(4, 2.8), Node(3, 0.6, 1), Node()]
    prior = np.array([0.5, 0.3, 0.2])
    uct = MCTS(native(), 0, {"selection": "uct", "exploration": 0.3})._bounds(parent, children, prior)
    log = math.log(10)
    expected = [0.7 + 0.6 * math.sqrt(2 * log / 4), 0.2 + 0.6 * math.sqrt(2 * log / 4), math.inf]
    np.testing.assert_allclose(uct, expected)
    puct = MCTS(native(), 0, {"selection": "puct", "exploration": 0.3})._bounds(parent, children, prior)
    root = math.sqrt(10)
    np.testing.assert_allclose(puct, [0.7 + 0.15 * root / 5, 0.2 + 0.09 * root / 5, 0.5 + 0.06 * root])


def test_all_children_are_visited_once_before_any_is_twice() -> None:
    agent = MCTS(native(SIZE), 3, {"preset": "paper"})
    assert sorted(agent.learn(8).tokens[:, 0].tolist()) == list(range(8))


# ------------------------------------------------------------------ what it knows


def test_means_are_those_of_the_trials_below() -> None:
    """Each node counts the trials below it since it joined the tree, and the known rewards that were met again."""
    agent = MCTS(native(SIZE, checksum), 1, {"preset": "paper", "exploration": 0.1, "simulations": 1})
    joined: dict[tuple[int, ...], int] = {(): 0}
    for trial in range(60):
        before = set(agent._tree)
        agent.learn(1)
        joined |= dict.fromkeys(set(agent._tree) - before, trial)
    tokens, rewards = agent.result.tokens, agent.result.rewards
    again = 0
    for prefix, node in agent._tree.items():
        below = (tokens[:, : len(prefix)] == prefix).all(axis=1) & (np.arange(60) >= joined[prefix])
        assert node.pending == 0
        if node.visits == below.sum():
            assert node.mean == pytest.approx(rewards[below].mean() if below.any() else 0.0)
        else:
            again += 1
            assert node.visits > below.sum()
    assert again < len(agent._tree) / 2


@pytest.mark.parametrize("num_envs", [1, 10])
def test_no_twin_is_proposed(num_envs: int) -> None:
    agent = MCTS(native(BENCH, checksum, num_envs), 0)
    result = agent.learn(150)
    assert len({BENCH.canonical(BENCH.architecture(row)) for row in result.tokens}) == 150
    assert not any(node.pending for node in agent._tree.values()), "nothing is counted as pending any more"


def test_a_space_that_is_exhausted_is_played_again() -> None:
    result = MCTS(native(), 0).learn(40)
    assert result.unique_architectures == 27


def test_a_batch_counts_as_visits_until_it_is_withdrawn() -> None:
    agent = MCTS(native(SIZE), 0)
    asked = agent.ask(8)
    assert sorted(asked.tokens[:, 0].tolist()) == list(range(8)), "a child that waits is none without visits"
    agent.tell(answered(asked.rows(slice(3)), np.ones(3)))
    agent.withdraw()
    assert not any(node.pending for node in agent._tree.values())
    assert agent._tree[()].visits == 3
    assert len(agent._known) == 3


def test_leaves_are_completed_uniformly() -> None:
    drawn = complete(GRAPH, (0,), 6000, np.random.default_rng(0))
    GRAPH.check(drawn)
    everything = GRAPH.enumerate()
    wanted = np.sort(GRAPH.index(everything[everything[:, 0] == 0]))
    counts = np.array([(GRAPH.index(drawn) == index).sum() for index in wanted])
    assert counts.sum() == 6000
    assert stats.chisquare(counts).pvalue > 1e-3


def test_ranks_do_not_depend_on_the_scale_of_rewards() -> None:
    settings = {"selection": "puct", "reward": "rank"}
    plain = MCTS(native(SIZE), 0, settings).learn(60).tokens
    scaled = MCTS(native(SIZE, lambda tokens: closeness(tokens) ** 5 / 100), 0, settings).learn(60).tokens
    np.testing.assert_array_equal(plain, scaled)


def test_a_predictor_completes_better_than_chance() -> None:
    settings = {"selection": "puct", "reward": "rank"}
    guided = {**settings, "predictor": "bayesian-linear"}

    def mean(agent) -> float:
        return float(np.mean([agent(seed).learn(60).rewards[20:].mean() for seed in range(2)]))

    random = mean(lambda seed: RandomSearch(native(SIZE, num_envs=5), seed))
    alone = mean(lambda seed: MCTS(native(SIZE, num_envs=5), seed, settings))
    assert random < alone < mean(lambda seed: MCTS(native(SIZE, num_envs=5), seed, guided))


@pytest.mark.parametrize("kind", ["softmaxes", "lstm"])
def test_a_learned_prior_imitates_the_visits(kind: str) -> None:
    """After each prefix of the tree, it comes to the shares of the trials; and it is kept."""
    settings = {"selection": "puct", "reward": "raw", "exploration": 1.0, "prior": kind, "prior_steps": 100}
    agent = MCTS(native(num_envs=9), 0, settings)
    agent.learn(27)
    first, legal = agent.result.tokens[:, 0], np.arange(3)
    np.testing.assert_allclose(agent._prior_of((), legal), np.bincount(first, minlength=3) / 27, atol=0.05)
    other = MCTS(native(num_envs=9), 1, settings)
    other.load_state_dict(agent.state_dict())
    np.testing.assert_array_equal(other._prior_of((1,), legal), agent._prior_of((1,), legal))
    np.testing.assert_array_equal(other.learn(9).tokens, agent.learn(9).tokens)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"selection": "best"}, "selection must be one of uct, puct, got 'best'"),
        ({"exploration": -1.0}, "exploration must be finite and not negative, got -1"),
        ({"prior": "oracle"}, "prior must be one of uniform, softmaxes, lstm, got 'oracle'"),
        ({"reward": "cubed"}, "reward must be one of raw, rank, got 'cubed'"),
        ({"simulations": 0}, "simulations must be at least 1, got 0"),
        ({"predictor": "oracle"}, "unknown predictor 'oracle'"),
    ],
)
def test_settings(wrong, message) -> None:
    with pytest.raises(ValueError, match=message):
        MCTS(native(), 0, wrong)
