"""Dyna: what it plays in the model, what it tries, what it does without a model, and how it is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from agent_checks import foreign

from nas_gym.agents import Agent, Dyna, Reinforce, load_hyperparameters
from nas_gym.agents.policy_gradient.dyna import LEARNERS
from nas_gym.envs.construction_vector import ConstructionVectorEnv
from nas_gym.evaluators import FunctionEvaluator
from nas_gym.predictors import Ensemble, Predictor, StandardisedPredictor, make_predictor
from nas_gym.spaces import SearchSpace, make_space

BENCH = make_space("bench201")
GRAPH = make_space("bench_graph")
CONV = BENCH.operations.index("nor_conv_3x3")


def share_of_convolutions(tokens):
    return 0.6 + 0.3 * (tokens == CONV).mean(axis=1)


def vector(num_envs: int, space: SearchSpace = BENCH, function=share_of_convolutions) -> ConstructionVectorEnv:
    return ConstructionVectorEnv(num_envs, space=space, evaluator=FunctionEvaluator(space, function))


class Oracle(StandardisedPredictor):
    """Knows the share of convolutions, and is as sure of it as it is told."""

    reliable = True

    def fit_standardised(self, tokens, values):
        pass

    def predict_standardised(self, tokens):
        return 4.0 * (tokens == CONV).mean(axis=1), np.zeros(len(tokens))


class Doubtful(Oracle):
    """Says itself that it is not to be relied on."""

    reliable = False


def with_model(model: type[Predictor], seed: int = 0, **settings) -> Dyna:
    return Dyna(vector(2), seed, {"predictor": f"{__name__}:{model.__name__}", "pool_random": 0, **settings})


# ---------------------------------------------------------------------- in the model


def test_the_return_of_an_episode_in_the_model():
    """mean + exploration * deviation - temperature * log-probability, learned from as REINFORCE would."""
    temperatures = {"horizon": 40, "temperature": 0.3, "final_temperature": 0.05}
    agent = Dyna(vector(2), 0, {**temperatures, "updates": 1, "episodes": 8})
    agent.learn(12)
    told = []

    class Spy(Reinforce):
        def tell(self, trials):
            told.append((trials.tokens, trials.rewards))
            return super().tell(trials)

    before = {name: value.clone() for name, value in agent.learner.controller.state_dict().items()}
    agent.learner.__class__ = Spy
    agent.learn(2)
    (tokens, returns), settings = told[0], agent.hyperparameters
    assert len(tokens) == 8
    log_probs = torch.log_softmax(before["logits"][0], dim=-1)[np.arange(6), tokens].sum(1).double().numpy()
    mean, deviation = agent.predictor.predict(tokens)
    temperature = 0.3 * (0.05 / 0.3) ** (14 / 40)
    assert agent.temperature == pytest.approx(temperature)
    expected = mean + settings.exploration * deviation - temperature * log_probs
    np.testing.assert_allclose(returns, expected, atol=1e-5)


def test_the_temperature_falls_to_the_horizon():
    agent = Dyna(vector(2), 0, {"horizon": 20, "temperature": 0.4, "final_temperature": 0.1})
    assert agent.temperature == pytest.approx(0.4)
    agent.tell(foreign(BENCH.sample(agent.rng, 1), np.zeros(1)))
    assert agent.temperature == pytest.approx(0.4 * 0.25 ** (1 / 20))
    agent.tell(foreign(BENCH.sample(agent.rng, 19), np.zeros(19)))
    assert agent.temperature == pytest.approx(0.1)
    agent.tell(foreign(BENCH.sample(agent.rng, 19), np.zeros(19)))
    assert agent.temperature == pytest.approx(0.1)


def test_the_horizon_is_that_of_the_run():
    assert load_hyperparameters("dyna", trials=60).horizon == 60
    assert load_hyperparameters("dyna", overrides={"horizon": 80}, trials=60).horizon == 80
    assert load_hyperparameters("dyna").horizon == 150


def test_the_policy_becomes_that_of_the_model():
    """The policy that maximises return plus entropy times t is the softmax of reward / t: here of each decision."""
    agent = with_model(Oracle, updates=150, temperature=0.5, final_temperature=0.5, learning_rate=0.05, episodes=64)
    agent.tell(foreign(agent.ask(10).tokens, np.linspace(0, 1, 10)))
    scale = agent.values.std() * 4 / 6
    expected = torch.softmax(torch.tensor([scale / 0.5 * (choice == CONV) for choice in range(5)]), dim=0)
    found = torch.softmax(agent.learner.controller.logits[0], dim=-1).mean(dim=0)
    np.testing.assert_allclose(found.detach(), expected, atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"learner": "ppo"}, {"lstm": True, "learning_rate": 0.02}])
def test_it_learns_with_every_learner(settings):
    agent = Dyna(vector(2), 1, settings)
    agent.learn(60)
    drawn = agent.learner.ask(200).tokens
    assert (drawn == CONV).mean() > 0.6, "0.2 at random"
    assert agent.result.best_reward == pytest.approx(0.9)
    assert isinstance(agent.learner, LEARNERS[agent.hyperparameters.learner])


# ---------------------------------------------------------------------- real trials


def test_a_batch_is_the_best_draw_and_a_draw_as_it_comes():
    agent = with_model(Oracle, pool_parents=0, draws=32, greedy_share=0.5)
    agent.tell(foreign(agent.ask(10).tokens, np.linspace(0, 1, 10)))
    other = with_model(Oracle, pool_parents=0, draws=32, greedy_share=0.5)
    other.load_state_dict(agent.state_dict())
    drawn = other.learner.ask(32).tokens
    new = [row for row in drawn if other._form(row) not in other._seen]
    best = max(new, key=lambda row: (row == CONV).sum())
    following = next(row for row in new if other._form(row) != other._form(best))
    np.testing.assert_array_equal(agent.ask(2).tokens, [best, following])


def test_without_a_reliable_model_it_learns_from_real_rewards_alone():
    agent = with_model(Doubtful, warm_up=4)
    drawn = agent.ask(6).tokens
    before = agent.learner.updates
    statistics = agent.tell(foreign(drawn, share_of_convolutions(drawn)))
    assert statistics["train/model_is_reliable"] == 0
    assert agent.learner.updates == before + 1
    other = with_model(Doubtful, warm_up=4)
    other.load_state_dict(agent.state_dict())
    np.testing.assert_array_equal(agent.ask(3).tokens, other.learner.ask(64).tokens[:3])


def test_the_model_of_noise_is_not_reliable_and_that_of_a_function_is():
    rng = np.random.default_rng(0)
    tokens = GRAPH.sample(rng, 80)
    ensemble = make_predictor("ensemble", GRAPH)
    assert isinstance(ensemble, Ensemble)
    assert ensemble.reliable
    ensemble.fit(tokens, (tokens[:, 1:] == 1).sum(axis=1) + 0.1 * rng.normal(size=80))
    assert ensemble.reliable
    assert ensemble.chosen == ["gaussian-process", "bayesian-linear"]
    assert min(ensemble.scores.values()) > 0.3
    strict = make_predictor("ensemble", GRAPH, threshold=0.5)
    assert isinstance(strict, Ensemble)
    strict.fit(tokens, rng.normal(size=80))
    assert not strict.reliable
    assert len(strict.chosen) == 1, "predictions are asked for all the same"
    assert np.isfinite(strict.predict(tokens)).all()


def test_the_ensemble_is_the_mixture_of_its_members():
    rng = np.random.default_rng(0)
    tokens, new = GRAPH.sample(rng, 60), GRAPH.sample(rng, 30)
    values = 3.0 + (tokens[:, 1:] == 1).sum(axis=1) + 0.1 * rng.normal(size=60)
    ensemble = make_predictor("ensemble", GRAPH).fit(tokens, values)
    parts = [
        make_predictor(name, GRAPH).fit(tokens, values).predict(new) for name in ("gaussian-process", "bayesian-linear")
    ]
    means, deviations = (np.array(column) for column in zip(*parts, strict=True))
    found = ensemble.predict(new)
    np.testing.assert_allclose(found[0], means.mean(axis=0), atol=1e-8)
    second_moment = (deviations**2 + means**2).mean(axis=0)
    np.testing.assert_allclose(found[1] ** 2, second_moment - means.mean(axis=0) ** 2, atol=1e-7)


# ---------------------------------------------------------------------- keeping


@pytest.mark.slow
@pytest.mark.parametrize("learner", LEARNERS)
def test_a_saved_agent_goes_on_to_the_bit(learner, tmp_path):
    """Between two fits of the model, and within a batch."""
    settings = {"learner": learner, "batch_size": 4}
    agent = Dyna(vector(3), 0, settings)
    agent.learn(26)
    agent.save(tmp_path / "agent.pt")
    expected = agent.learn(20)
    read = Agent.load(tmp_path / "agent.pt", vector(3))
    np.testing.assert_array_equal(read.learn(20).tokens, expected.tokens)
    assert isinstance(read, Dyna)
    for one, other in zip(agent.learner.controller.parameters(), read.learner.controller.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("horizon", 0),
        ("updates", -1),
        ("temperature", 0.0),
        ("greedy_share", 1.5),
        ("learner", "ars"),
        ("learner_settings", {"unknown": 1}),
        ("learning_rate", -1.0),
        ("predictor_settings", "none"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match="unknown" if field == "learner_settings" else field):
        load_hyperparameters("dyna", overrides={field: value})
