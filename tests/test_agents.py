"""Agents: playing through environments, learning, saving, and what REINFORCE computes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_checks import answered
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from nas_gym.agents import (
    AGENTS,
    PPO,
    Agent,
    Callback,
    PolicyAgent,
    Proposal,
    RandomSearch,
    RegularizedEvolution,
    Reinforce,
    SearchResult,
    Trials,
    agent_class,
    agent_name,
    load_hyperparameters,
    make_agent,
    play,
    register_agent,
)
from nas_gym.agents.registry import shipped
from nas_gym.envs.construction import ConstructionEnv
from nas_gym.envs.construction_vector import ConstructionVectorEnv
from nas_gym.evaluators import Evaluations, FunctionEvaluator, make_objective
from nas_gym.registration import ENTRY_POINT, ENVIRONMENTS, VECTOR_ENTRY_POINT
from nas_gym.spaces import Bench201Space, SearchSpace, make_space

BENCH = make_space("bench201")
DARTS = make_space("cell:darts")
CONV = BENCH.operations.index("nor_conv_3x3")
TRAINING = ("eas", "darts", "drnas", "gdas", "rsps", "snas")  # train networks, so they play no tables: see test_eas.py
EVERYWHERE = [name for name in AGENTS if name not in TRAINING]
ACTING = [
    *("random", "dyna", "gflownet", "multitask", "ppo", "reinforce"),
    *(name for name in AGENTS if name.startswith(("sb3:", "torchrl:"))),
]


def checksum(tokens):
    """A different score in [0, 1] for nearly every sequence."""
    return (tokens @ (7 ** np.arange(tokens.shape[1], dtype=np.int64) % 1009)) % 1009 / 1009


class Measured(FunctionEvaluator):
    """Scores by the checksum, tells a metric, and fails where the sum of the tokens is a multiple of four."""

    def evaluate(self, tokens, *, fidelity=None, parents=None):
        failed = tokens.sum(1) % 4 == 0
        return Evaluations(checksum(tokens), {"parameters": tokens.sum(1).astype(float)}, failed)


class Indifferent(FunctionEvaluator):
    """Scores the same with any share of the budget: what every agent can play."""

    fidelities = (1 / 9, 1 / 3, 1.0)


def vector(num_envs: int, space: SearchSpace = BENCH, function=checksum, **arguments: Any) -> ConstructionVectorEnv:
    return ConstructionVectorEnv(num_envs, space=space, evaluator=Indifferent(space, function), **arguments)


def share_of_convolutions(tokens):
    return 0.6 + 0.3 * (tokens == CONV).mean(axis=1)


# ---------------------------------------------------------------------- playing


def environments(mode: AutoresetMode, **arguments: Any):
    yield ConstructionVectorEnv(3, autoreset_mode=mode, **arguments)
    yield SyncVectorEnv([lambda: ConstructionEnv(**arguments)] * 3, autoreset_mode=mode)


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("n", [1, 3, 8])
def test_play_is_the_same_in_every_environment_even_out_of_step(mode, n):
    tokens = DARTS.sample(np.random.default_rng(0), n)
    tokens[n // 3 :: 3, 1] = 0  # an illegal second input: penalised, the episode ends early
    tokens[1::4, 9] = 0
    arguments = {"space": DARTS, "evaluator": Measured(DARTS), "on_invalid": "penalise", "observation": "tokens"}
    played = play(gym.wrappers.TimeLimit(ConstructionEnv(**arguments), 100), tokens)
    rewards, columns = played.rewards, played.metrics
    legal = np.array([DARTS.legal(tokens, t)[np.arange(n), tokens[:, t]] for t in range(DARTS.length)]).all(axis=0)
    assert legal.any() == (n > 1)
    assert not legal.all()
    failed = ~legal | (tokens.sum(1) % 4 == 0)
    np.testing.assert_array_equal(rewards, np.where(failed, 0.0, checksum(tokens)))
    np.testing.assert_array_equal(columns["failed"], failed)
    # A metric that no trial has is none.
    parameters = columns.get("parameters", np.full(n, np.nan))
    np.testing.assert_array_equal(parameters, np.where(legal, tokens.sum(1), np.nan))
    for env in environments(mode, **arguments):
        found = play(env, tokens)
        np.testing.assert_array_equal(found.tokens, tokens)
        np.testing.assert_array_equal(found.rewards, rewards)
        np.testing.assert_array_equal(found.failed, failed)
        assert found.metrics.keys() == columns.keys()
        for name, column in columns.items():
            np.testing.assert_array_equal(found.metrics[name], column)


def test_an_agent_plays_scalar_environments_and_ids():
    kwargs = {"space": BENCH, "evaluator": "constant"}
    gym.register("Constant-v0", ENTRY_POINT, vector_entry_point=VECTOR_ENTRY_POINT, kwargs=kwargs)
    try:
        for env in ("Constant-v0", gym.make("Constant-v0"), SyncVectorEnv([lambda: gym.make("Constant-v0")] * 2)):
            result = Reinforce(env).learn(5)
            assert result.rewards.tolist() == result.metrics["accuracy"].tolist() == [0.5] * 5
    finally:
        del gym.registry["Constant-v0"]


@pytest.mark.parametrize("env", ["CartPole-v1", 3, None])
def test_environments_without_a_search_space_are_refused(env):
    env = gym.make(env) if isinstance(env, str) else env
    with pytest.raises(ValueError, match="env must be"):
        RandomSearch(env)


# ---------------------------------------------------------------------- learning


def test_the_budget_is_cut_by_index():
    told = []

    class Spy(RandomSearch):
        def tell(self, trials):
            told.extend(trials.ids.tolist())
            return super().tell(trials)

    agent = Spy(vector(4))
    result = agent.learn(10)
    asked = RandomSearch(vector(4))
    np.testing.assert_array_equal(result.tokens, np.concatenate([asked.ask(4).tokens for _ in range(3)])[:10])
    np.testing.assert_array_equal(result.rewards, checksum(result.tokens))
    assert told == list(range(10))
    assert len(agent.learn(3)) == agent.trials == 13
    assert len(agent.learn(0)) == 13
    with pytest.raises(ValueError, match="-1"):
        agent.learn(-1)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERYWHERE)
def test_ask_and_tell_equal_learn(name):
    learned = make_agent(name, vector(5), seed=3).learn(40)
    agent = make_agent(name, vector(5), seed=3)
    batches = []
    for _ in range(8):
        proposal = agent.ask(5)
        batches.append(proposal.tokens)
        agent.tell(answered(proposal, checksum(proposal.tokens)))
    np.testing.assert_array_equal(np.concatenate(batches), learned.tokens)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERYWHERE)
def test_seeds_decide_and_global_ones_do_not(name):
    def search(seed: int, global_seed: int):
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)
        before = torch.get_rng_state(), np.random.get_state()[1].tolist()
        agent = make_agent(name, vector(5), seed=seed)
        tokens = agent.learn(30).tokens
        if isinstance(agent, PolicyAgent):
            agent.act(np.full(6, -1))
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1] == np.random.get_state()[1].tolist()
        return tokens

    first = search(0, 1)
    np.testing.assert_array_equal(first, search(0, 2))
    assert (first != search(1, 1)).any()


def test_callbacks_see_new_trials_and_may_stop_the_search():
    calls = []

    class Recorder(Callback):
        def before_trials(self, agent):
            calls.append(("before", agent.trials))

        def after_trials(self, agent, trials, statistics):
            calls.append(("after", agent.trials, len(trials), sorted(statistics)[:1]))
            np.testing.assert_array_equal(agent.result.tokens[-len(trials) :], trials.tokens)
            return agent.trials < 12

    Reinforce(vector(6), hyperparameters={"batch_size": 12}).learn(100, Recorder())
    assert calls == [
        ("before", 0),
        ("after", 6, 6, []),
        ("before", 6),
        ("after", 12, 6, ["train/advantage_std"]),
    ]


def test_search_result():
    tokens = np.array([[0] * 6, [1] * 6, [0] * 6, [2] * 6])
    result = SearchResult(BENCH, tokens, np.array([0.1, 0.7, 0.1, 0.7]), {"accuracy": np.arange(4.0)})
    assert result.best == BENCH.architecture([1] * 6)
    assert result.best_reward == 0.7
    assert result.unique_architectures == 3
    assert result.rows(slice(1, 3)).metrics["accuracy"].tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="without trials"):
        _ = result.rows(slice(0)).best


# ---------------------------------------------------------------------- keeping


def assert_plain(value: Any) -> None:
    if isinstance(value, dict):
        assert all(isinstance(key, str | int) for key in value)
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            assert_plain(item)
    else:
        assert value is None or isinstance(value, torch.Tensor | int | float | str)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERYWHERE)
def test_a_saved_agent_continues_to_the_bit(name, tmp_path):
    agent = make_agent(name, vector(4, DARTS), seed=5)
    agent.learn(18)  # not a multiple of the controller's batch: episodes are pending
    acts = isinstance(agent, PolicyAgent)
    assert acts == (name in ACTING)
    if acts:
        agent.act(np.full(DARTS.length, -1))
    agent.save(tmp_path / "agent.pt")
    assert_plain(torch.load(tmp_path / "agent.pt", weights_only=True))
    state = agent.state_dict()
    action = agent.act(np.full(DARTS.length, -1)) if acts else None
    expected = agent.learn(30)

    read = Agent.load(tmp_path / "agent.pt", vector(4, DARTS))
    restored = make_agent(name, vector(4, DARTS), seed=99)
    restored.load_state_dict(state)
    for other in (read, restored):
        assert type(other) is type(agent)
        assert other.trials == 18
        assert not acts or other.act(np.full(DARTS.length, -1)) == action
        found = other.learn(30)
        np.testing.assert_array_equal(found.tokens, expected.tokens)
        np.testing.assert_array_equal(found.rewards, expected.rewards)
        np.testing.assert_array_equal(found.metrics["accuracy"], expected.metrics["accuracy"])
    if isinstance(agent, Reinforce):
        for one, other in zip(agent.controller.parameters(), read.controller.parameters(), strict=True):
            assert torch.equal(one, other)


def test_hyperparameters_are_saved_and_wrong_files_refused(tmp_path):
    agent = Reinforce(vector(2), hyperparameters={"hidden_size": 16, "choice_bias": [{"pattern": "*", "fixed": 0.5}]})
    agent.save(tmp_path / "agent.pt")
    assert Reinforce.load(tmp_path / "agent.pt", vector(2)).hyperparameters == agent.hyperparameters
    with pytest.raises(ValueError, match="'reinforce', not 'random'"):
        RandomSearch.load(tmp_path / "agent.pt", vector(2))
    with pytest.raises(ValueError, match="is of the space"):
        Reinforce.load(tmp_path / "agent.pt", vector(2, Bench201Space(nodes=3)))


def test_a_save_that_breaks_off_leaves_the_old_file(tmp_path, monkeypatch):
    agent = RandomSearch(vector(2))
    agent.learn(2)
    agent.save(tmp_path / "agent.pt")

    def breaks(record, file):
        file.write(b"half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", breaks)
    with pytest.raises(KeyboardInterrupt):
        agent.save(tmp_path / "agent.pt")
    assert Agent.load(tmp_path / "agent.pt", vector(2)).trials == 2


# ---------------------------------------------------------------------- acting


@pytest.mark.slow
@pytest.mark.parametrize("name", ACTING)
@pytest.mark.parametrize("observation", ["onehot", "tokens"])
@pytest.mark.parametrize("deterministic", [False, True])
def test_act_builds_legal_architectures(name, observation, deterministic):
    arguments = {"space": DARTS, "evaluator": Indifferent(DARTS), "observation": observation, "on_invalid": "penalise"}
    env = ConstructionEnv(**arguments)
    agent = make_agent(name, env, seed=1)
    seen, info = env.reset()
    ended = False
    while not ended:
        action = agent.act(seen, info["action_mask"], deterministic)
        assert action.shape == ()
        seen, _, ended, _, info = env.step(action)
        assert not info["invalid_action"]
    DARTS.check(info["architecture"][None])
    assert agent.act(seen, info["action_mask"]) == 0

    envs = ConstructionVectorEnv(4, **arguments)
    seen, infos = envs.reset()
    for _ in range(DARTS.length):
        seen, _, ended, _, infos = envs.step(agent.act(seen, infos["action_mask"], deterministic))
    assert ended.all()
    assert infos["evaluation"]["failed"].tolist() == [0.0] * 4


def test_act_follows_the_policy_and_the_mask():
    agent = Reinforce(vector(1), hyperparameters={"tanh_constant": None}, seed=2)
    with torch.no_grad():
        agent.controller.heads[0].bias.copy_(torch.tensor([[[0.0, 3.0, 2.0, 0.0, 0.0]]]))
    prefixes = np.array([[1, 2, -1, -1, -1, -1]] * 20_000)
    expected = agent.policy(prefixes[:1], np.array([2]))[0]
    np.testing.assert_allclose(np.bincount(agent.act(prefixes), minlength=5) / len(prefixes), expected, atol=0.015)
    assert agent.act(prefixes[0], deterministic=True) == 1
    assert agent.act(prefixes[0], np.array([1, 0, 1, 1, 1]), deterministic=True) == 2
    assert set(agent.act(prefixes[:500], np.array([[1, 0, 0, 1, 0]] * 500)).tolist()) == {0, 3}
    with pytest.raises(ValueError, match="no legal action"):
        agent.act(prefixes[0], np.zeros(5))
    with pytest.raises(ValueError, match="one-hot"):
        agent.act(np.zeros(7))


def test_a_random_agent_acts_uniformly_over_sequences():
    agent = RandomSearch(vector(1, DARTS))
    empty = np.full((30_000, DARTS.length), -1)
    empty[:, :4] = [0, 1, 0, 0]  # the second node: pairs (0, 1), (0, 2), (1, 2)
    shares = np.bincount(agent.act(empty), minlength=3) / len(empty)
    np.testing.assert_allclose(shares[:3], [2 / 3, 1 / 3, 0], atol=0.015)


# ---------------------------------------------------------------------- by name


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_has_settings_for_every_environment(name):
    made = agent_class(name).Hyperparameters
    for env_id in (None, *(spec.id for spec in ENVIRONMENTS)):
        assert isinstance(load_hyperparameters(name, env_id), made)
    with pytest.raises(ValueError, match="has no hyperparameter"):
        load_hyperparameters(name, overrides={"unknown": 1})


def test_overrides_go_over_the_file():
    assert load_hyperparameters("reinforce", "NAS-Cell-v0").tanh_constant == 2.5
    assert load_hyperparameters("reinforce", "NAS-Cell-v0", {"tanh_constant": None}).tanh_constant is None
    assert load_hyperparameters("regularized-evolution", "NAS-Bench201-v0").population_size == 15
    assert load_hyperparameters("regularized-evolution", "Another-v0").population_size == 20
    paper = {"preset": "paper", "sample_size": 7}
    settings = load_hyperparameters("regularized-evolution", "NAS-Bench201-v0", paper)
    assert (settings.population_size, settings.sample_size) == (100, 7)
    with pytest.raises(ValueError, match="agent 'random' has no preset 'papr'; known: paper, default"):
        load_hyperparameters("random", overrides={"preset": "papr"})


class OwnEvolution(RegularizedEvolution):
    """Regularized evolution under a name of its own."""


def test_settings_may_depend_on_the_budget():
    """The first mapping whose bounds are not exceeded counts, for both bounds."""
    small, large = {"max_trials": 50, "population_size": 5, "sample_size": 2}, {"population_size": 40, "sample_size": 9}
    few = {"max_decisions": 6, "population_size": 8, "sample_size": 3}
    register_agent("by-budget", OwnEvolution, {"default": [small, few, large]})

    def size(**budget):
        return load_hyperparameters("by-budget", "Another-v0", **budget).population_size

    assert size(trials=50, decisions=20) == 5
    assert size(trials=51, decisions=6) == 8
    assert size(trials=51, decisions=7) == 40
    assert size(decisions=7) == 40, "150 trials where nothing is said"
    assert OwnEvolution(vector(2)).hyperparameters.population_size == 8, "six decisions"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", 0),
        ("batch_size", 2.5),
        ("learning_rate", "1e-3"),
        ("learning_rate", float("nan")),
        ("adam_epsilon", 0.0),
        ("temperature", -1.0),
        ("baseline_decay", 1.0),
        ("entropy_weight", -1e-4),
        ("choice_bias", [{"patern": "*"}]),
    ],
)
def test_hyperparameters_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        load_hyperparameters("reinforce", overrides={field: value})


def test_unknown_agents_are_refused():
    with pytest.raises(
        ValueError, match="unknown agent 'annealing'; known: random, bananas, bayesian, bogcn, bohb, darts, drnas, "
    ):
        make_agent("annealing", vector(1))
    with pytest.raises(ValueError, match=r"unknown agent 'reinforced'; .*; did you mean 'reinforce'\?"):
        make_agent("reinforced", vector(1))
    with pytest.raises(ValueError, match=r"'nas_gym.agents:Nobody' is no place of one either"):
        make_agent("nas_gym.agents:Nobody", vector(1))
    with pytest.raises(ValueError, match=r"'nas_gym\.agents:play' is no agent"):
        make_agent("nas_gym.agents:play", vector(1))


def test_names_stand_in_the_order_of_their_files():
    names = list(shipped())
    own = [name for name in names if ":" not in name]
    assert names[0] == "random"
    assert own[1:] == sorted(own[1:])
    assert names[len(own) :] == sorted(set(names) - set(own))
    for name in names:
        assert agent_name(AGENTS[name]) == name


@dataclass(frozen=True)
class Shift:
    shift: int = 1

    def __post_init__(self) -> None:
        if self.shift < 0:
            raise ValueError(f"shift must not be negative, got {self.shift}")


class Counting(Agent):
    """Proposes sequences in the order of their numbers; not registered."""

    Hyperparameters = Shift
    vector_rewards = True

    def ask(self, n):
        numbers = self.hyperparameters.shift + self._proposed + np.arange(n)
        return self.propose(np.stack(np.unravel_index(numbers, (5,) * 6), axis=1))

    def tell(self, trials):
        return {}


def test_agents_of_others_go_by_where_they_stand(tmp_path):
    place = f"{Counting.__module__}:{Counting.__qualname__}"
    agent = make_agent(place, vector(3), hyperparameters={"shift": 7})
    assert type(agent) is Counting
    assert agent.name == agent_name(Counting) == place
    assert BENCH.index(agent.learn(5).tokens).tolist() == list(range(7, 12))
    agent.save(tmp_path / "agent.pt")
    read = Agent.load(tmp_path / "agent.pt", vector(3))
    assert type(read) is Counting
    # The last batch of the first call has been cut: what it proposed is not proposed again.
    assert BENCH.index(read.learn(2).tokens).tolist() == [*range(7, 12), 13, 14]


@pytest.mark.parametrize("part", [Counting, f"{Counting.__module__}:{Counting.__qualname__}"])
def test_agents_of_others_are_registered(part, monkeypatch):
    monkeypatch.setattr(AGENTS, "_places", dict(AGENTS._places))
    monkeypatch.setattr("nas_gym.agents.registry._registered", {})
    register_agent("counting", part, {"default": {"shift": 2}, "NAS-Bench201-v0": {"shift": 3}, "far": {"shift": 99}})
    assert list(AGENTS)[-1] == "counting"
    assert AGENTS["counting"] is agent_class("counting") is Counting
    assert make_agent("counting", vector(1)).name == agent_name(Counting) == "counting"
    assert load_hyperparameters("counting") == load_hyperparameters(Counting, "NAS-Cell-v0") == Shift(2)
    assert load_hyperparameters("counting", "NAS-Bench201-v0") == Shift(3)
    assert load_hyperparameters("counting", "NAS-Bench201-v0", {"preset": "far"}) == Shift(99)
    assert load_hyperparameters("counting", "NAS-Bench201-v0", {"preset": "paper"}) == Shift()
    with pytest.raises(ValueError, match="agent 'counting' has no preset 'near'; known: paper, default, "):
        load_hyperparameters("counting", None, {"preset": "near"})
    with pytest.raises(ValueError, match="shift must not be negative, got -1"):
        make_agent("counting", vector(1), hyperparameters={"shift": -1})
    with pytest.raises(ValueError, match="must be the part itself or 'module:Name', got 'counting'"):
        register_agent("other", "counting")


def test_the_papers_settings_are_the_defaults():
    for name in AGENTS:
        assert load_hyperparameters(name, "NAS-Bench201-v0", {"preset": "paper"}) == agent_class(name).Hyperparameters()
    assert load_hyperparameters("reinforce", None, {"preset": "paper", "hidden_size": 3}).hidden_size == 3


def test_importing_the_agents_does_not_import_torch():
    code = "import sys, nas_gym.agents as agents; print('torch' in sys.modules, *agents.AGENTS)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", *shipped()]


# ---------------------------------------------------------------------- identities


def test_proposals_have_identities_of_their_own():
    agent = RandomSearch(vector(1))
    ids = [*agent.ask(3).ids.tolist(), *agent.ask(0).ids.tolist(), *agent.ask(2).ids.tolist()]
    assert ids == [0, 1, 2, 3, 4]
    other = RandomSearch(vector(1))
    other.load_state_dict(agent.state_dict())
    assert other.ask(1).ids.tolist() == [5]


def test_rows_and_columns_of_proposals():
    tokens = BENCH.sample(np.random.default_rng(0), 4)
    proposal = Proposal(
        np.arange(4), tokens, np.array([0.1, 0.2, 0.3, 1.0]), np.array(["a", "b", "a", "b"]), tokens[::-1]
    )
    parts = [proposal.rows(slice(1, 4)), proposal.rows(np.array([0]))]
    assert len(parts[0]) == 3
    whole = Proposal.concatenate(parts)
    for name in ("ids", "tokens", "fidelities", "tasks", "parents"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(proposal, name)[[1, 2, 3, 0]])
    assert whole.options()[0] == {"fidelity": 0.2, "task": "b", "parent": tuple(tokens[2].tolist())}
    bare = Proposal(np.arange(2), tokens[:2])
    assert bare.options() == []
    assert bare.rows(np.array([True, False])).parents is None
    trials = Trials(np.arange(4), tokens, np.arange(4.0), {"failed": np.array([0.0, 1.0, np.nan, 0.0])})
    assert trials.failed.tolist() == [False, True, False, False]
    assert trials.rows(np.array([3, 1])).failed.tolist() == [False, True]
    assert not Trials(np.arange(4), tokens, np.arange(4.0)).failed.any()


def test_trials_have_the_identities_of_their_proposals():
    agent = RandomSearch(vector(3))
    agent.ask(7)
    proposal = agent.ask(5)
    assert play(agent.env, proposal).ids.tolist() == [7, 8, 9, 10, 11]
    assert play(agent.env, proposal.tokens).ids.tolist() == [-1] * 5


# ---------------------------------------------------------------------- parents


class Inheriting(FunctionEvaluator):
    """Notes the parent that each architecture is to inherit from."""

    def __init__(self, space: SearchSpace, parents: dict[bytes, Any]) -> None:
        super().__init__(space, checksum)
        self.parents = parents

    def evaluate(self, tokens, *, fidelity=None, parents=None):
        for row, child in enumerate(tokens):
            self.parents[child.tobytes()] = None if parents is None else tuple(parents[row].tolist())
        return super().evaluate(tokens)


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("n", [1, 3, 8])
def test_parents_reach_the_evaluator(mode, n):
    """In environments of either form, children of parents of their own, and children of one."""
    rng = np.random.default_rng(n)
    tokens, parents = DARTS.sample(rng, n), DARTS.sample(rng, n)
    alike = np.repeat(parents[:1], n, axis=0)
    kinds = [
        lambda **arguments: ConstructionEnv(**arguments),
        lambda **arguments: ConstructionVectorEnv(3, autoreset_mode=mode, **arguments),
        lambda **arguments: SyncVectorEnv([lambda: ConstructionEnv(**arguments)] * 3, autoreset_mode=mode),
    ]
    for make in kinds:
        for wanted in (parents, alike):
            seen: dict[bytes, Any] = {}
            env = make(space=DARTS, evaluator=Inheriting(DARTS, seen))
            trials = play(env, Proposal(np.arange(n), tokens, parents=wanted))
            np.testing.assert_array_equal(trials.rewards, checksum(tokens))
            expected = {tokens[row].tobytes(): tuple(wanted[row].tolist()) for row in range(n)}
            assert {child: parent for child, parent in seen.items() if child in expected} == expected


# ---------------------------------------------------------------------- vector rewards, several seeds


class Weighed(FunctionEvaluator):
    """Scores by the checksum, and tells how heavy an architecture is."""

    def evaluate(self, tokens, *, fidelity=None, parents=None):
        return Evaluations(checksum(tokens), {"weight": tokens.sum(axis=1).astype(float)})


VECTOR = {"name": "vector", "weights": {"accuracy": 1.0, "weight": -0.1}, "worst": (0.0, -10.0)}


@pytest.mark.parametrize(
    "make",
    [
        lambda **arguments: ConstructionEnv(**arguments),
        lambda **arguments: ConstructionVectorEnv(4, **arguments),
    ],
    ids=["scalar", "native"],
)
def test_vector_rewards(make, tmp_path):
    """SyncVectorEnv holds one number a reward only."""
    arguments = {"space": BENCH, "evaluator": Weighed(BENCH), "objective": VECTOR}
    agent = Counting(make(**arguments))
    result = agent.learn(10)
    assert result.rewards.shape == (10, 2)
    assert result.rewards.dtype == np.float64
    expected = make_objective(VECTOR)(Weighed(BENCH).evaluate(result.tokens)).astype(np.float32)
    np.testing.assert_array_equal(result.rewards, expected)
    assert len(np.unique(result.rewards[:, 1])) > 1
    agent.save(tmp_path / "agent.pt")
    np.testing.assert_array_equal(Agent.load(tmp_path / "agent.pt", make(**arguments)).result.rewards, expected)
    with pytest.raises(ValueError, match="the rewards of env are vectors of 2 numbers; RandomSearch learns from one"):
        RandomSearch(make(**arguments))


def test_ppo_refuses_several_seeds():
    with pytest.raises(ValueError, match=r"seed must be one integer for the agent 'ppo', got \[0, 1\]"):
        PPO(vector(4), [0, 1])
