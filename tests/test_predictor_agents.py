"""BOGCN, BANANAS and NPENAS: what they choose from, what they choose, several objectives, and what they find."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from agent_checks import answered
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nas_gym.agents import Agent, agent_class, load_hyperparameters, make_agent
from nas_gym.agents.pareto import hypervolume, nondominated
from nas_gym.agents.predictor_based.objectives import Known, PredictorPerObjective, by_fronts, by_gain
from nas_gym.envs.construction_vector import ConstructionVectorEnv
from nas_gym.evaluators import Evaluations, Evaluator
from nas_gym.predictors import make_predictor
from nas_gym.spaces import Bench201Space, SearchSpace, Tokens
from nas_gym.types import Floats

BENCH = Bench201Space()
NAMES = ("bananas", "bogcn", "npenas")
QUICK: dict[str, Any] = {"predictor_settings": {"epochs": 5, "width": 8}}
VECTOR = {"name": "vector", "weights": {"accuracy": 1.0, "convolutions": -0.5}, "worst": (0.0, -3.0)}


def live(tokens: Tokens, *operations: str) -> Floats:
    """How many of these operations are on a path to the output: what architectures that compute the same agree in."""
    graphs = [BENCH.graph(BENCH.architecture(row)).contracted() for row in tokens]
    return np.array([sum(node.operation in operations for node in graph.nodes) for graph in graphs], dtype=np.float64)


class Weighed(Evaluator):
    """Convolutions make architectures accurate, those of 3x3 more so, and heavy."""

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        share = (live(tokens, "nor_conv_3x3") + 0.5 * live(tokens, "nor_conv_1x1")) / 6
        return Evaluations(0.5 + 0.4 * share, {"convolutions": -2 * weight(self.space, tokens)})


def weight(space: SearchSpace, tokens: Tokens) -> Floats:
    """What a trial would be given for the second objective of `VECTOR`."""
    return -0.5 * live(tokens, "nor_conv_1x1", "nor_conv_3x3")


def env(**arguments: Any) -> ConstructionVectorEnv:
    return ConstructionVectorEnv(5, space=BENCH, evaluator=Weighed(BENCH), **arguments)


def agent(name: str, seed: int = 0, objective: Any = "accuracy", **hyperparameters: Any) -> Any:
    return make_agent(name, env(objective=objective), seed, {**QUICK, **hyperparameters})


# ---------------------------------------------------------------------- candidates and choice


@pytest.mark.parametrize("name", NAMES)
def test_candidates_are_near_the_best(name: str) -> None:
    made = agent(name, pool_random=1, pool_parents=3, pool_mutants=4)
    made.learn(20)
    pool = made._pool()
    assert pool.shape == (1 + 12, 6)
    parents = np.repeat(made.best(3), 4, axis=0)
    assert ((pool[1:] != parents).sum(axis=1) == 1).all()


def test_npenas_takes_the_highest_predictions_and_bogcn_the_highest_improvement() -> None:
    for name in ("npenas", "bogcn"):
        made = agent(name)
        made.learn(20)
        pool = made._pool()
        mean, deviation = made.predictor.predict(pool)
        scores = made._scores(pool)
        if name == "npenas":
            np.testing.assert_array_equal(scores, mean)
        else:
            gain = np.random.default_rng(0).normal(mean, deviation, (40_000, len(pool))) - made.values.max()
            np.testing.assert_allclose(scores, np.maximum(gain, 0).mean(axis=0), atol=0.02)


def test_bananas_samples_each_candidate_on_its_own() -> None:
    made = agent("bananas")
    made.learn(20)
    pool = made._pool()
    mean, deviation = made.predictor.predict(pool)
    draws = np.array([made._scores(pool) for _ in range(300)])
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.25 * deviation.max())
    np.testing.assert_allclose(draws.std(axis=0), deviation, rtol=0.3)
    assert abs(np.corrcoef(draws[:, 0], draws[:, 1])[0, 1]) < 0.2


@pytest.mark.parametrize("name", NAMES)
def test_nothing_twice(name: str) -> None:
    result = agent(name).learn(40)
    forms = {BENCH.canonical(BENCH.architecture(row)) for row in result.tokens}
    assert len(forms) == 40


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_better_than_chance(name: str) -> None:
    """With the shipped settings: convolutions of 3x3 are better."""
    found = [make_agent(name, env(), seed).learn(60).best_reward for seed in range(2)]
    chance = [make_agent("random", env(), seed).learn(60).best_reward for seed in range(2)]
    assert min(found) > max(chance)


@pytest.mark.parametrize("name", NAMES)
def test_settings_of_the_papers_and_for_small_budgets(name: str) -> None:
    shipped, paper = (load_hyperparameters(name, overrides=given) for given in ({}, {"preset": "paper"}))
    assert paper == agent_class(name).Hyperparameters()
    assert paper.batch_size == paper.refit_every == (100 if name == "bogcn" else 10)
    assert shipped.warm_up <= 20
    assert shipped.batch_size <= 10
    made = agent(name, preset="paper", warm_up=10, refit_every=10)
    assert type(made.predictor).__name__ == ("MLPEnsemble" if name == "bananas" else "GCN")
    with pytest.raises(ValueError, match="predictor_settings must be a mapping"):
        load_hyperparameters(name, overrides={"predictor_settings": 3})


# ---------------------------------------------------------------------- several objectives

clouds = st.tuples(st.integers(1, 8), st.integers(1, 3)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.integers(-2, 4).map(float))
)


@settings(max_examples=100, deadline=None)
@given(clouds)
def test_fronts_are_peeled(points: Floats) -> None:
    fronts = by_fronts(points)
    assert sorted(np.concatenate(fronts).tolist()) == list(range(len(points)))
    for depth, front in enumerate(fronts):
        left = np.concatenate(fronts[depth:])
        assert set(left[nondominated(points[left])].tolist()) == set(front.tolist())


@settings(max_examples=50, deadline=None)
@given(clouds, st.integers(1, 4))
def test_each_choice_adds_most(points: Floats, n: int) -> None:
    known = points[: max(1, len(points) // 2)]
    chosen = by_gain(points, known, n)
    assert len(set(chosen.tolist())) == len(chosen) == min(n, len(points))
    reference = known.min(axis=0) - 0.1 * np.ptp(known, axis=0) - np.finfo(np.float64).eps
    for step in range(len(chosen)):
        volumes = [
            hypervolume(np.vstack([known, points[chosen[:step]], points[[row]]]), reference)
            for row in range(len(points))
            if row not in chosen[:step]
        ]
        found = hypervolume(np.vstack([known, points[chosen[: step + 1]]]), reference)
        assert found == pytest.approx(max(volumes))


def test_a_predictor_for_each_objective() -> None:
    tokens = BENCH.sample(np.random.default_rng(0), 30)
    values = np.stack([tokens.sum(axis=1).astype(float), weight(BENCH, tokens)], axis=1)
    parts = [make_predictor("bayesian-linear", BENCH), Known(BENCH, f"{__name__}:weight")]
    mean, deviation = PredictorPerObjective(BENCH, parts).fit(tokens[:20], values[:20]).predict(tokens)
    alone = make_predictor("bayesian-linear", BENCH).fit(tokens[:20], values[:20, 0]).predict(tokens)
    np.testing.assert_array_equal([mean[:, 0], deviation[:, 0]], alone)
    np.testing.assert_array_equal(mean[:, 1], values[:, 1])
    assert not deviation[:, 1].any()


@pytest.mark.parametrize("known", [(), ("", f"{__name__}:weight")], ids=["predicted", "known"])
def test_bogcn_of_vector_rewards(known: tuple[str, ...], tmp_path: Any) -> None:
    made = agent("bogcn", objective=VECTOR, known=known)
    result = made.learn(20)
    assert result.rewards.shape == (20, 2)
    front = {row.tobytes() for row in made.tokens[nondominated(made.rewards)]}
    assert {row.tobytes() for row in made.best(len(front))} == front
    made.save(tmp_path / "agent.pt")
    expected = made.learn(15)
    read = Agent.load(tmp_path / "agent.pt", env(objective=VECTOR))
    np.testing.assert_array_equal(read.learn(15).tokens, expected.tokens)
    assert len({BENCH.canonical(BENCH.architecture(row)) for row in expected.tokens}) == 35


def test_pending_trials_of_vector_rewards_are_believed() -> None:
    made = agent("bogcn", objective=VECTOR)
    proposal = made.ask(10)
    evaluations = Weighed(BENCH).evaluate(proposal.tokens)
    rewards = np.stack([evaluations.accuracy, -0.5 * evaluations.metrics["convolutions"]], axis=1)
    made.tell(answered(proposal, rewards))
    made.ask(4)
    made.ask(3)
    assert made.values.shape == (14, 2)


@pytest.mark.slow
def test_fronts_are_better_than_chance() -> None:
    """By the hypervolume, which a known cost does not lower."""
    reference = (0.5, -3.1)

    def volume(name: str, seed: int, **hyperparameters: Any) -> float:
        made = make_agent(name, env(objective=VECTOR), seed, hyperparameters)
        return hypervolume(made.learn(50).rewards, reference)

    random_tokens = [BENCH.sample(np.random.default_rng(seed), 50) for seed in range(3)]
    chance = [
        hypervolume(np.stack([Weighed(BENCH).evaluate(t).accuracy, weight(BENCH, t)], axis=1), reference)
        for t in random_tokens
    ]
    predicted = [volume("bogcn", seed) for seed in range(2)]
    known = [volume("bogcn", seed, known=("", f"{__name__}:weight")) for seed in range(2)]
    assert min(predicted) > max(chance)
    assert min(known) > max(chance)


@pytest.mark.parametrize(
    ("objective", "known", "message"),
    [
        (VECTOR, ("",), r"known must have an entry for each of 2 objectives, got \(''\,\)"),
        ("accuracy", ("", ""), "known must have an entry for each of several objectives"),
        (VECTOR, ("", "nowhere:weight"), "known must name functions, 'module:function', got 'nowhere:weight'"),
        (VECTOR, (1, 2), "known must be texts, one for each objective"),
        (VECTOR, "weight", "known must be texts, one for each objective"),
    ],
)
def test_what_is_no_known_objective(objective: Any, known: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        agent("bogcn", objective=objective, known=known)


@pytest.mark.parametrize("name", ["bananas", "npenas"])
def test_others_refuse_vector_rewards(name: str) -> None:
    with pytest.raises(ValueError, match="the rewards of env are vectors of 2 numbers"):
        agent(name, objective=VECTOR)
