"""A model that starts from other tasks: against the density written out, and in the agent that searches with it."""

from __future__ import annotations

import numpy as np
import pytest

from nas_gym.agents import Agent, Dyna, make_agent
from nas_gym.envs.construction_vector import ConstructionVectorEnv
from nas_gym.evaluators import FunctionEvaluator
from nas_gym.predictors import counts, make_predictor, normal_scores
from nas_gym.predictors.source_tasks import REFERENCE, SourceTasks
from nas_gym.spaces import PRESETS, SearchSpace

BENCH = PRESETS["bench201"]
GRAPH = PRESETS["bench_graph"]


def value(tokens, operation: int = 3):
    """Between 0 and 1: what one operation gives, each decision with its own weight."""
    return (tokens == operation) @ np.arange(1, 7) / 21


def source(operation: int, n: int = 150, seed: int = 0):
    tokens = BENCH.sample(np.random.default_rng(seed), n)
    return tokens, value(tokens, operation)


def vector(num_envs: int = 2, space: SearchSpace = BENCH) -> ConstructionVectorEnv:
    return ConstructionVectorEnv(num_envs, space=space, evaluator=FunctionEvaluator(space, value))


# ---------------------------------------------------------------------- the model


def test_the_posterior_is_that_of_the_sum():
    """Weights of the sources, a constant, a Gaussian process and noise, as one normal distribution of all values."""
    sources = [source(3), source(1, seed=1)]
    model = SourceTasks(BENCH, sources, weight_deviation=0.5, offset_deviation=2.0)
    known = BENCH.sample(np.random.default_rng(2), 25)
    scores = normal_scores(value(known))
    model.fit(known, scores)
    new = BENCH.sample(np.random.default_rng(3), 40)
    everything = np.concatenate([known, new])

    reference = BENCH.sample(np.random.default_rng(0), REFERENCE)
    told = []
    for tokens, rewards in sources:
        fitted = make_predictor("bayesian-linear", BENCH).fit(tokens, normal_scores(rewards))
        at_reference = fitted.predict(reference)[0]
        told.append((fitted.predict(everything)[0] - at_reference.mean()) / at_reference.std())
    prior = np.mean(told, axis=0)
    covariance = np.zeros((65, 65))
    for i, one in enumerate(everything):
        for j, other in enumerate(everything):
            differ = (one != other).sum()
            differ_in_count = 0.5 * ((counts(BENCH, one[None]) - counts(BENCH, other[None])) ** 2).sum()
            covariance[i, j] = 0.5**2 * sum(f[i] * f[j] for f in told) + 2.0**2
            covariance[i, j] += np.exp(-(differ + model.weight * differ_in_count) / model.length)
    gain = covariance[25:, :25] @ np.linalg.inv(covariance[:25, :25] + model.noise * np.eye(25))
    mean, deviation = model.predict(new)
    np.testing.assert_allclose(mean, prior[25:] + gain @ (scores - prior[:25]), atol=1e-6)
    variance = np.diag(covariance[25:, 25:] - gain @ covariance[:25, 25:])
    np.testing.assert_allclose(deviation, np.sqrt(variance), atol=1e-6)


def test_without_trials_it_predicts_what_the_sources_do():
    model = SourceTasks(BENCH, [source(3)])
    new = BENCH.sample(np.random.default_rng(3), 200)
    assert np.corrcoef(model.predict(new)[0], value(new))[0, 1] > 0.95


def test_an_unrelated_source_is_unlearned():
    """After some trials a model whose source rewards another operation predicts nearly as well as one without."""
    new = BENCH.sample(np.random.default_rng(3), 500)
    known = BENCH.sample(np.random.default_rng(2), 60)
    misled = SourceTasks(BENCH, [source(1)])
    assert np.corrcoef(misled.predict(new)[0], value(new))[0, 1] < 0
    misled.fit(known, normal_scores(value(known)))
    assert np.corrcoef(misled.predict(new)[0], value(new))[0, 1] > 0.9


def test_no_source_is_an_error():
    with pytest.raises(ValueError, match="sources must be the trials of at least one task"):
        SourceTasks(BENCH, [])
    with pytest.raises(ValueError, match="weight_deviation"):
        SourceTasks(BENCH, [source(3)], weight_deviation=-1.0)


# ---------------------------------------------------------------------- the agent


def test_it_needs_fewer_trials():
    """With a related task the first trials are good already; without, they are random."""
    alone, helped = Dyna(vector(), 0), Dyna(vector(), 0)
    helped.start_from([source(3)])
    assert helped.learn(10).rewards.mean() > alone.learn(10).rewards.mean() + 0.3


@pytest.mark.slow
def test_a_saved_agent_keeps_its_sources(tmp_path):
    agent = Dyna(vector(), 0)
    agent.start_from([source(3), source(1)])
    agent.learn(14)
    agent.save(tmp_path / "agent.pt")
    expected = agent.learn(10).tokens
    np.testing.assert_array_equal(Agent.load(tmp_path / "agent.pt", vector()).learn(10).tokens, expected)


def test_any_agents_trials_are_a_source(tmp_path):
    other = make_agent("random", vector())
    assert other.learn(30).tokens.shape == (30, 6)
    other.save(tmp_path / "random.pt")
    agent = Dyna.from_pretrained(tmp_path / "random.pt", vector())
    ((tokens, rewards),) = agent.sources
    np.testing.assert_array_equal(tokens, other.result.tokens)
    np.testing.assert_array_equal(rewards, other.result.rewards)
    assert Dyna.from_pretrained(tmp_path / "random.pt", vector(), mode="scratch").sources == ()


def test_what_is_no_source_is_refused(tmp_path):
    make_agent("random", vector()).save(tmp_path / "new.pt")
    with pytest.raises(ValueError, match="without trials"):
        Dyna.from_pretrained(tmp_path / "new.pt", vector())
    with pytest.raises(ValueError, match="mode of dyna must be all or scratch, got 'embedding'"):
        Dyna.from_pretrained(tmp_path / "new.pt", vector(), mode="embedding")
    graph = ConstructionVectorEnv(
        1, space=GRAPH, evaluator=FunctionEvaluator(GRAPH, lambda tokens: tokens.mean(axis=1))
    )
    with pytest.raises(ValueError, match="is of the space"):
        Dyna.from_pretrained(tmp_path / "new.pt", graph)
    (tmp_path / "none.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="damaged"):
        Dyna.from_pretrained(tmp_path / "none.pt", vector())
