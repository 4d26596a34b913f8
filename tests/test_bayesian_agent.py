"""The loop of agents with a predictor: warm-up, fits, nothing twice, what is pending, and how it is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from agent_checks import answered, foreign

from nas_gym.agents import Bayesian, LocalSearch, PredictorAgent, load_hyperparameters, make_agent
from nas_gym.agents.predictor_based.agent import PredictorHyperparameters
from nas_gym.envs.construction_vector import ConstructionVectorEnv
from nas_gym.evaluators import FunctionEvaluator
from nas_gym.predictors import StandardisedPredictor
from nas_gym.spaces import Bench201Space, SearchSpace, make_space

BENCH = make_space("bench201")
CONV = BENCH.operations.index("nor_conv_3x3")


def share_of_convolutions(tokens):
    return 0.6 + 0.3 * (tokens == CONV).mean(axis=1)


def vector(num_envs: int, space: SearchSpace = BENCH, function=share_of_convolutions) -> ConstructionVectorEnv:
    return ConstructionVectorEnv(num_envs, space=space, evaluator=FunctionEvaluator(space, function))


def forms(space: SearchSpace, tokens) -> list[str]:
    return [space.canonical(space.architecture(row)) for row in tokens]


class Noting(StandardisedPredictor):
    """Predicts the share of one choice, and notes what it was fitted to."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space)
        self.calls: list[tuple[str, int]] = []

    def fit_standardised(self, tokens, values):
        self.calls.append(("fit", len(tokens)))

    def update_standardised(self, tokens, values):
        self.calls.append(("update", len(tokens)))

    def predict_standardised(self, tokens):
        return (tokens == CONV).mean(axis=1), np.ones(len(tokens))


class Noted(PredictorAgent):
    """The shortest agent of its kind."""

    predictor: Noting
    Hyperparameters = PredictorHyperparameters

    def _make_predictor(self) -> Noting:
        return Noting(self.space)

    def _pool(self):
        return self.current_space.sample(self.rng, 200)

    def _scores(self, pool):
        return self.predictor.predict(pool)[0]


SETTINGS = {"warm_up": 6, "batch_size": 2, "refit_every": 5}


def test_warm_up_then_fits_and_updates():
    agent = Noted(vector(2), 0, SETTINGS)
    first = agent.learn(6)
    assert len(set(forms(BENCH, first.tokens))) == 6
    assert agent.predictor.calls == []
    chosen = agent.learn(8).tokens[6:]
    # A fit to start with, and one five trials later or more; before each batch an update.
    assert agent.predictor.calls == [
        ("fit", 6),
        ("update", 6),
        ("update", 8),
        ("update", 10),
        ("fit", 12),
        ("update", 12),
    ]
    assert (chosen == CONV).mean() > 2 * (first.tokens == CONV).mean()


def test_the_best_new_ones_of_the_pool_are_proposed():
    agent = Noted(vector(2), 0, SETTINGS)
    agent.learn(6)
    known = set(forms(BENCH, agent.tokens))
    other = Noted(vector(2))
    other.load_state_dict(agent.state_dict())
    pool = other._pool()
    asked = agent.ask(4).tokens
    scores = (pool == CONV).mean(axis=1)
    expected: list[Any] = []
    for row in pool[np.argsort(-scores, kind="stable")]:
        form = forms(BENCH, [row])[0]
        if form not in known and len(expected) < 4:
            known.add(form)
            expected.append(row)
    np.testing.assert_array_equal(asked, expected)


@pytest.mark.parametrize("name", ["bayesian", "dyna"])
def test_nothing_is_tried_twice(name):
    """In a space of three nodes: 125 sequences, of which many compute the same, until all are known."""
    space = Bench201Space(nodes=3)
    functions = len(set(forms(space, space.enumerate())))
    agent = make_agent(name, vector(2, space), 1)
    found = forms(space, agent.learn(functions + 4).tokens)
    assert len(set(found[: functions // 2])) == functions // 2
    assert len(set(found)) > 0.9 * functions


@pytest.mark.parametrize("name", ["bayesian", "dyna"])
def test_pending_proposals_are_not_proposed_again_and_may_be_withdrawn(name):
    agent = make_agent(name, vector(2), 0, {"warm_up": 4})
    agent.tell(answered(proposal := agent.ask(8), share_of_convolutions(proposal.tokens)))
    proposals = [agent.ask(2), agent.ask(2)]
    assert len(agent.pending) == 4
    assert len(set(forms(BENCH, np.concatenate([agent.tokens, agent.pending])))) == 12
    # Told out of order, and of a trial that it has not proposed.
    agent.tell(answered(proposals[1], np.array([0.7, 0.8])))
    agent.tell(foreign(np.full((1, 6), CONV), np.array([0.9])))
    np.testing.assert_array_equal(agent.pending, proposals[0].tokens)
    assert agent.best(1).tolist() == [[CONV] * 6]
    agent.withdraw()
    assert len(agent.pending) == 0
    assert not agent._seen & set(forms(BENCH, proposals[0].tokens))


@pytest.mark.parametrize("name", ["bayesian", "dyna"])
def test_pending_trials_are_kept(name):
    agent = make_agent(name, vector(2), 3, {"warm_up": 4})
    agent.tell(answered(proposal := agent.ask(9), share_of_convolutions(proposal.tokens)))
    agent.ask(2)
    other = make_agent(name, vector(2), 99, {"warm_up": 4})
    other.load_state_dict(agent.state_dict())
    np.testing.assert_array_equal(other.pending, agent.pending)
    np.testing.assert_array_equal(other.ask(3).tokens, agent.ask(3).tokens)


def test_ranks_are_learned_from_by_default():
    """An increasing function of the rewards changes nothing."""
    found = [
        Bayesian(vector(2, function=lambda tokens, f=f: f(share_of_convolutions(tokens))), 0).learn(30).tokens
        for f in (np.asarray, np.exp)
    ]
    np.testing.assert_array_equal(*found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"acquisition": "upper-confidence-bound"},
        {"acquisition": "thompson"},
        {"predictor": "bayesian-linear"},
        {"predictor": "ensemble"},
        {"target": "raw"},
    ],
)
def test_it_beats_local_search(settings):
    """Any predictor and any acquisition function, where the value is a sum of the decisions'."""

    def regret(make):
        return np.mean([0.9 - make(seed).learn(20).best_reward for seed in range(6)])

    assert regret(lambda seed: Bayesian(vector(2), seed, settings)) < regret(lambda seed: LocalSearch(vector(2), seed))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("warm_up", 0),
        ("batch_size", 1.5),
        ("target", "log"),
        ("acquisition", "luck"),
        ("exploration", -1.0),
        ("pool_random", 0),
        ("pool_mutants", -1),
        ("predictor_settings", 3),
    ],
)
def test_hyperparameters_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        load_hyperparameters("bayesian", overrides={field: value})


def test_unknown_predictors_are_refused():
    with pytest.raises(ValueError, match="unknown predictor 'oracle'"):
        Bayesian(vector(2), hyperparameters={"predictor": "oracle"})
