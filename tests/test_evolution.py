"""Evolution and local search: what they may ask for, given what they were told."""

from __future__ import annotations

import itertools

import hypothesis
import numpy as np
import pytest
from agent_checks import foreign
from hypothesis import strategies as st
from scipy import stats

from nas_gym.agents import (
    LocalSearch,
    RandomSearch,
    RegularizedEvolution,
    TournamentEvolution,
    agent_name,
    load_hyperparameters,
)
from nas_gym.agents.baselines.local_search import neighbours
from nas_gym.envs.construction import ConstructionEnv
from nas_gym.envs.construction_vector import ConstructionVectorEnv
from nas_gym.evaluators import FunctionEvaluator
from nas_gym.spaces import PRESETS, Bench201Space, BenchGraphSpace, make_space

BENCH = make_space("bench201")
TINY = Bench201Space(nodes=3)  # 125 sequences
GRAPH = BenchGraphSpace(operations=("gcn", "fc", "skip"))  # all skips are illegal
CONV = BENCH.operations.index("nor_conv_3x3")


def environment(space=BENCH, function=None) -> ConstructionEnv:
    return ConstructionEnv(space, evaluator=FunctionEvaluator(space, function or checksum))


def checksum(tokens):
    """A different score in [0, 1] for nearly every sequence."""
    return (tokens @ (7 ** np.arange(tokens.shape[1], dtype=np.int64) % 1009)) % 1009 / 1009


def distance(first, second) -> np.ndarray:
    return (np.asarray(first) != np.asarray(second)).sum(axis=-1)


# ------------------------------------------------------------------ regularized evolution


def evolve(n: int, space=BENCH, env=None, function=None, **settings) -> RegularizedEvolution:
    agent = RegularizedEvolution(env or environment(space, function), 3, settings)
    agent.learn(n)
    return agent


def test_the_best_of_the_living_is_mutated() -> None:
    """Where all compete, each child differs in one decision from the best of the last ten."""
    result = evolve(300, population_size=10, sample_size=10).result
    for i in range(10, 300):
        parent = result.tokens[i - 10 + result.rewards[i - 10 : i].argmax()]
        assert distance(parent, result.tokens[i]) == 1
    # Some best died of age: it had a better reward than those that followed as parents.
    best = [result.rewards[i - 10 : i].max() for i in range(10, 300)]
    assert (np.diff(best) < 0).any()


def test_small_samples_are_drawn_from_all_the_living() -> None:
    """With a sample of one, every living member is a parent as often; with three, by the chance that it is the best."""
    agent = RegularizedEvolution(environment(), 0, {"population_size": 5, "sample_size": 3})
    # Five members that no single mutation brings together, the later the better.
    members = np.array([[k] * 6 for k in range(5)])
    agent.ask(5)
    agent.tell(foreign(members, np.arange(5.0)))
    children = agent.ask(2000).tokens
    parents = np.array([distance(members, child).argmin() for child in children])
    assert (distance(members[parents], children) == 1).all()
    # The chance that member k is the best of three different ones of five: C(k, 2) / C(5, 3).
    counts = np.bincount(parents, minlength=5)
    assert counts[:2].sum() == 0
    assert stats.chisquare(counts[2:], 2000 * np.array([1, 3, 6]) / 10).pvalue > 1e-3
    agent.hyperparameters = type(agent.hyperparameters)(population_size=5, sample_size=1)
    parents = np.array([distance(members, child).argmin() for child in agent.ask(2000).tokens])
    assert stats.chisquare(np.bincount(parents, minlength=5)).pvalue > 1e-3


def test_the_first_population_is_random() -> None:
    agent = RegularizedEvolution(environment(), 0, {"population_size": 40, "sample_size": 5})
    first = agent.ask(39).tokens
    agent.tell(foreign(first, np.ones(39)))
    pairs = [distance(a, b) for a, b in itertools.combinations(first, 2)]
    assert np.mean(pairs) == pytest.approx(6 * 4 / 5, abs=0.15)
    one, child = agent.ask(2).tokens  # the last of the first population, and the first child
    assert distance(first, one).min() > 1
    assert distance(first, child).min() == 1


def test_asked_before_anything_is_told() -> None:
    agent = RegularizedEvolution(environment(), 0, {"population_size": 3, "sample_size": 2})
    asked = np.concatenate([agent.ask(4).tokens, agent.ask(4).tokens])
    BENCH.check(asked)
    agent.tell(foreign(asked[2:3], np.ones(1)))
    assert distance(asked[2], agent.ask(5).tokens).tolist() == [1] * 5


def test_evolution_in_batches() -> None:
    env = ConstructionVectorEnv(7, space=GRAPH, evaluator=FunctionEvaluator(GRAPH, checksum))
    result = evolve(100, env=env, population_size=10, sample_size=10).result
    GRAPH.check(result.tokens)
    for i in range(14, 98):
        told = i - i % 7  # the batch was asked for at once
        parent = result.tokens[told - 10 + result.rewards[told - 10 : told].argmax()]
        changed = np.flatnonzero(parent != result.tokens[i])
        assert len(changed) == 1 or (changed[0] > 0 and len(changed) == 2)  # the second made legal again


def test_evolution_settings() -> None:
    assert load_hyperparameters("regularized-evolution").population_size == 20
    assert load_hyperparameters("regularized-evolution", "NAS-Bench201-v0").population_size == 15
    for settings, message in [
        ({"population_size": 0}, "population_size must be an integer of at least 1, got 0"),
        ({"sample_size": 2.5}, "sample_size must be an integer of at least 1, got 2.5"),
        ({"population_size": 4, "sample_size": 5}, "sample_size must be at most population_size 4, got 5"),
    ]:
        with pytest.raises(ValueError, match=message):
            RegularizedEvolution(environment(), 0, settings)


# ------------------------------------------------------------------ crossover

CROSSED = {
    **PRESETS,
    "bench_graph of 3": GRAPH,
    "chain of 3": make_space({"name": "chain", "layers": 3, "depth": "stop"}),
}


@pytest.mark.slow
@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(name=st.sampled_from(sorted(CROSSED)), seed=st.integers(0, 2**32))
def test_children_take_after_their_parents(name: str, seed: int) -> None:
    """A legal child, in which every decision is that of a parent, unless both have become illegal."""
    space, rng = CROSSED[name], np.random.default_rng(seed)
    first, second = space.sample(rng, 4), space.sample(rng, 4)
    kept = first.copy(), second.copy()
    children = space.crossover(first, second, rng)
    space.check(children)
    for position in range(space.length):
        legal = space.legal(children, position)
        inherited = (children[:, position] == first[:, position]) | (children[:, position] == second[:, position])
        rows = np.arange(4)
        possible = legal[rows, first[:, position]] | legal[rows, second[:, position]]
        assert (inherited == possible)[possible].all()
    np.testing.assert_array_equal((first, second), kept)
    same = np.random.default_rng(seed)
    parents = space.sample(same, 4), space.sample(same, 4)
    np.testing.assert_array_equal(space.crossover(*parents, same), children)
    np.testing.assert_array_equal(space.crossover(first, first, rng), first)


def test_each_parent_gives_half() -> None:
    first, second = np.zeros((4000, 6), dtype=np.int64), np.full((4000, 6), 3)
    children = BENCH.crossover(first, second, np.random.default_rng(0))
    combinations = (children == 3) @ 2 ** np.arange(6)
    assert stats.chisquare(np.bincount(combinations, minlength=64)).pvalue > 1e-3  # all 64 are as likely


def test_a_choice_that_is_lost_is_the_other_parents() -> None:
    """In three nodes, all skips are illegal: the last operation comes from the parent that has another one."""
    skip = GRAPH.operations.index("skip")
    first = np.array([[0, skip, skip, skip, 0]] * 500)
    second = np.array([[1, skip, skip, 1, skip]] * 500)
    children = GRAPH.crossover(first, second, np.random.default_rng(0))
    third = children[:, 3] == skip
    assert 150 < third.sum() < 350
    assert (children[third, 4] == 0).all()
    assert set(children[~third, 4].tolist()) == {0, skip}


# ------------------------------------------------------------------ tournament evolution


def compete(n: int, num_envs: int = 1, **settings) -> TournamentEvolution:
    env = ConstructionVectorEnv(num_envs, space=BENCH, evaluator=FunctionEvaluator(BENCH, checksum))
    agent = TournamentEvolution(env, 3, settings)
    agent.learn(n)
    return agent


def members(agent: TournamentEvolution) -> list[tuple[int, ...]]:
    return sorted(tuple(row) for row in agent.state_dict()["population"]["tokens"].tolist())


def test_losers_die_and_the_best_lives() -> None:
    """With every child, one of the two that are last dies: a tournament of all but one spares one at most."""
    agent = compete(10, population_size=10, sample_size=10)
    for _ in range(150):
        before = members(agent)
        agent.learn(1)
        rewards = {row: checksum(np.array([row]))[0] for row in before}
        child = tuple(agent.result.tokens[-1].tolist())
        alive = sorted([*before, child])
        rewards[child] = agent.result.rewards[-1]
        after = members(agent)
        assert len(after) == 10
        (dead,) = [row for row in set(alive) if alive.count(row) > after.count(row)]
        assert rewards[dead] in sorted(rewards[row] for row in alive)[:2]
    assert max(rewards[row] for row in after) == agent.result.best_reward


def test_pairs_choose_parents_and_losers_by_chance() -> None:
    """With pairs of five, member k is the better one with the chance k / 10, and the worse one with (4 - k) / 10."""
    settings = {"population_size": 5, "sample_size": 2, "crossover_probability": 0.0}
    agent = TournamentEvolution(environment(), 0, settings)
    told = np.array([[k] * 6 for k in range(5)])
    agent.ask(5)
    agent.tell(foreign(told, np.arange(5.0)))
    children = agent.ask(2000).tokens
    parents = np.array([distance(told, child).argmin() for child in children])
    assert (distance(told[parents], children) == 1).all()
    counts = np.bincount(parents, minlength=5)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:], 2000 * np.arange(1, 5) / 10).pvalue > 1e-3
    state, dead = agent.state_dict(), []
    for seed in range(1500):
        agent.load_state_dict(state)
        agent.rng = np.random.default_rng(seed)
        agent.tell(foreign(np.array([[0, 1, 2, 3, 4, 0]]), np.array([5.0])))
        missing = {k for k in range(5) if (k,) * 6 not in members(agent)}
        dead.append(missing.pop())
    # Of six, the sixth the best: 15 pairs.
    assert stats.chisquare(np.bincount(dead, minlength=5), 1500 * np.arange(5, 0, -1) / 15).pvalue > 1e-3


def test_crossed_children() -> None:
    """Of two members that have nothing in common; one that is like a parent is mutated."""
    settings = {"population_size": 2, "sample_size": 2, "crossover_probability": 1.0}
    agent = TournamentEvolution(environment(), 0, settings)
    agent.ask(2)
    agent.tell(foreign(np.array([[0] * 6, [1] * 6]), np.array([0.2, 0.2])))
    agent.hyperparameters = type(agent.hyperparameters)(population_size=3, crossover_probability=1.0)
    agent.tell(foreign(np.array([[2] * 6]), np.array([0.1])))  # never wins against another
    children = agent.ask(3001).tokens[1:]  # the third of the first population comes before them
    assert (distance(children, 0) > 0).all()
    assert (distance(children, 1) > 0).all()
    mixed = (children <= 1).all(axis=1)
    # The parents differ with a chance of a half, and then 62 of 64 children are mixed; of mutants, one in four is.
    assert mixed.mean() == pytest.approx(31 / 64 + 33 / 64 / 4, abs=0.03)
    assert (np.minimum(distance(children, 0), distance(children, 1))[~mixed] == 1).all()


@pytest.mark.parametrize("num_envs", [1, 7, 50])
def test_tournaments_in_batches(num_envs: int) -> None:
    agent = compete(200, num_envs, population_size=12)
    assert len(members(agent)) == 12
    BENCH.check(agent.result.tokens)
    assert np.array_equal(agent.result.tokens, compete(200, num_envs, population_size=12).result.tokens)


def test_tournament_settings() -> None:
    assert load_hyperparameters("tournament").population_size == 30
    for settings, message in [
        ({"population_size": 1}, "population_size must be an integer of at least 2, got 1"),
        ({"sample_size": 1}, "sample_size must be an integer of at least 2, got 1"),
        ({"population_size": 4, "sample_size": 5}, "sample_size must be at most population_size 4, got 5"),
        ({"crossover_probability": 1.5}, r"crossover_probability must be in \[0, 1\], got 1.5"),
        ({"crossover_probability": True}, r"crossover_probability must be in \[0, 1\], got True"),
    ]:
        with pytest.raises(ValueError, match=message):
            TournamentEvolution(environment(), 0, settings)


# ------------------------------------------------------------------ local search


def climb(n: int, space=BENCH, function=None, env=None) -> LocalSearch:
    agent = LocalSearch(env or environment(space, function), 1)
    agent.learn(n)
    return agent


def test_climbs_by_the_rules() -> None:
    """Each trial is an untried neighbour of the top; where none is left, a new start, which becomes the top."""
    result = climb(400).result
    tried: list[tuple[int, ...]] = []
    top, starts = 0, 0
    for i, sequence in enumerate(result.tokens):
        around = {tuple(row) for row in neighbours(BENCH, result.tokens[top], np.random.default_rng(0))} - set(tried)
        if i and around:
            assert tuple(sequence) in around
            if result.rewards[i] > result.rewards[top]:
                top = i
        else:
            top = i if not i or not around else top
            starts += 1
        tried.append(tuple(sequence))
    assert len(set(tried)) == 400
    assert starts > 2


def test_tries_everything_once() -> None:
    result = climb(150, TINY).result
    assert len({tuple(row) for row in result.tokens[:125].tolist()}) == 125
    assert result.unique_architectures == 125


@pytest.mark.parametrize("num_envs", [5, 64])
def test_local_search_in_batches(num_envs: int) -> None:
    env = ConstructionVectorEnv(num_envs, space=GRAPH, evaluator=FunctionEvaluator(GRAPH, checksum))
    result = climb(320, env=env).result
    assert result.unique_architectures == 320
    again = climb(320, env=env).result
    assert np.array_equal(result.tokens, again.tokens)


def test_a_batch_that_is_never_told_does_no_harm() -> None:
    """A truncated last batch, or a worker that died."""
    agent = climb(100, TINY)
    lost = agent.ask(10).tokens
    agent.learn(15)
    assert agent.result.unique_architectures == 115
    assert not {tuple(row) for row in lost.tolist()} & {tuple(row) for row in agent.result.tokens.tolist()}


@pytest.mark.parametrize("space", [BENCH, TINY])
def test_neighbours_of_free_spaces(space) -> None:
    tokens = space.sample(np.random.default_rng(0), 1)[0]
    everything = space.enumerate()
    wanted = everything[distance(everything, tokens) == 1]
    found = neighbours(space, tokens, np.random.default_rng(0))
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, wanted.tolist()))


@pytest.mark.parametrize("name", ["cell:darts", "bench_graph", "chain:stop", "bench101", "hierarchical"])
def test_neighbours_of_dependent_spaces(name: str) -> None:
    space = make_space(name)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        tokens = space.sample(rng, 1)[0]
        found = neighbours(space, tokens, rng)
        space.check(found)
        first = (found != tokens).argmax(axis=1)
        legal = [space.legal(tokens[None], position)[0].sum() - 1 for position in range(space.length)]
        assert np.bincount(first, minlength=space.length).tolist() == legal
        # A later decision changed only where its old choice had become illegal.
        for row, start in zip(found, first, strict=True):
            for position in range(start + 1, space.length):
                if row[position] != tokens[position]:
                    assert not space.legal(row[None], position)[0, tokens[position]]


# ------------------------------------------------------------------ all


@pytest.mark.slow
def test_better_than_chance() -> None:
    """On a smooth landscape: the share of convolutions."""

    def share(tokens):
        return (tokens == CONV).mean(axis=1)

    means = {}
    for made in (RandomSearch, RegularizedEvolution, TournamentEvolution, LocalSearch):
        settings = {"population_size": 10, "sample_size": 3} if made is RegularizedEvolution else None
        best = [made(environment(BENCH, share), seed, settings).learn(60).best_reward for seed in range(10)]
        means[agent_name(made)] = np.mean(best)
    assert means["local-search"] == 1.0
    assert means["regularized-evolution"] > means["random"] + 0.1
    assert means["tournament"] > means["random"] + 0.1
