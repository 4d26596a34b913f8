"""Algorithms of Stable-Baselines3 as agents: that they are theirs, to the bit, and behave as ours."""

from __future__ import annotations

import csv
import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_checks import answered, foreign
from gymnasium.vector import SyncVectorEnv
from rich.console import Console

from nas_gym.agents import AGENTS, Callback, SearchResult, load_hyperparameters, make_agent
from nas_gym.agents.registry import FOLDER
from nas_gym.agents.stable_baselines.agent import SB3Agent, executed
from nas_gym.envs.construction import ConstructionEnv
from nas_gym.envs.construction_vector import ConstructionVectorEnv
from nas_gym.envs.stable_baselines import SB3VecEnv
from nas_gym.evaluators import FunctionEvaluator
from nas_gym.experiments.cli import search
from nas_gym.experiments.cli.main import main
from nas_gym.experiments.run.config import RunConfig
from nas_gym.experiments.run.progress import Interrupted
from nas_gym.experiments.run.record import RECORD, read_rows
from nas_gym.experiments.run.recorder import Recorder
from nas_gym.experiments.run.run import Run
from nas_gym.experiments.run.trials import trial_rows
from nas_gym.spaces import BenchGraphSpace, SearchSpace, make_space

NAMES = [name for name in AGENTS if name.startswith("sb3:")]
OFF_POLICY = ["sb3:dqn", "sb3:qrdqn"]
ON_POLICY = [name for name in NAMES if name not in OFF_POLICY]
BENCH = make_space("bench201")  # every choice is legal
GRAPH = BenchGraphSpace(operations=("gcn", "fc", "skip"))  # nine wirings, fewer operations, no skip everywhere
CHAIN = make_space({"name": "chain", "layers": 3, "depth": "stop"})  # episodes end early
CONV = BENCH.operations.index("nor_conv_3x3")


def checksum(tokens):
    """A different score in [0, 1] for nearly every sequence."""
    return (tokens @ (7 ** np.arange(tokens.shape[1], dtype=np.int64) % 1009)) % 1009 / 1009


def vector(num_envs: int, space: SearchSpace = BENCH, function=checksum, **arguments: Any) -> ConstructionVectorEnv:
    return ConstructionVectorEnv(num_envs, space=space, evaluator=FunctionEvaluator(space, function), **arguments)


def small(name: str, **settings: Any) -> dict[str, Any]:
    """Settings of a network that is quick to train."""
    network: dict[str, Any] = {"net_arch": [16]}
    if name == "sb3:recurrent-ppo":
        network |= {"lstm_hidden_size": 8}
    if name == "sb3:qrdqn":
        network |= {"n_quantiles": 4}
    if name in OFF_POLICY:
        settings = {"learning_starts": 20, "gradient_steps": 2, "buffer_size": 500, **settings}
    return {"policy_kwargs": network, **settings}


def parameters(model: Any) -> list[torch.Tensor]:
    return [value.clone() for value in model.policy.state_dict().values()]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


# ------------------------------------------------------------------ they are Stable-Baselines3's


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size:UserWarning")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("space", [BENCH, GRAPH], ids=["free", "masked"])
def test_an_agent_is_the_algorithm_to_the_bit(name, space) -> None:
    """Stable-Baselines3's own loop on our vector environment, in rollouts of one episode each, ends in the same place.

    Off-policy algorithms explore in all sub-environments of a vector or in none: there it is one environment, trained
    after every episode. Schedules run down; minibatches do not divide a rollout; illegal actions are remapped.
    """
    num_envs, trials = (1, 24) if name in OFF_POLICY else (4, 40)
    settings = small(name, batch_size=num_envs, schedule_trials=trials, learning_rate="lin_1e-2")
    if name in OFF_POLICY:
        settings |= {"gradient_steps": -1, "n_steps": 3, "target_update_interval": 50}
    elif name != "sb3:a2c":
        settings |= {"minibatch_size": 9, "n_critic_updates" if name == "sb3:trpo" else "n_epochs": 2}
    agent = make_agent(name, vector(num_envs, space), 3, settings)
    played: list[np.ndarray] = []

    def record(tokens):
        played.append(tokens)
        return checksum(tokens)

    assert isinstance(agent, SB3Agent)
    arguments = agent.hyperparameters.arguments()
    rollouts = {"train_freq": (1, "episode")} if name in OFF_POLICY else {"n_steps": space.length}
    envs = SB3VecEnv(vector(num_envs, space, record))
    model: Any = agent.algorithm(agent.policy_name, envs, seed=3, device="cpu", **rollouts, **arguments)
    start = parameters(model)
    assert same(start, parameters(agent.model))
    agent.learn(trials)
    model.learn(trials * space.length)
    np.testing.assert_array_equal(np.concatenate(played), agent.result.tokens)
    assert same(parameters(model), parameters(agent.model))
    assert not same(start, parameters(model))
    assert model._n_updates == agent.model._n_updates > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is ignored because a custom .replay_buffer_class:UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_a_saved_model_loads_in_stable_baselines(name, tmp_path) -> None:
    """There it predicts the same, and goes on learning in an environment of ours."""
    agent = make_agent(name, vector(5), 0, small(name, batch_size=5))
    agent.learn(20)
    agent.model.save(tmp_path / "model.zip")  # type: ignore[attr-defined]
    env = ConstructionEnv(BENCH, evaluator=FunctionEvaluator(BENCH, checksum))
    model = type(agent.model).load(tmp_path / "model.zip", env=env, device="cpu")  # type: ignore[attr-defined]
    before = parameters(model)
    assert same(before, parameters(agent.model))  # type: ignore[attr-defined]
    observations = BENCH.one_hot(BENCH.sample(np.random.default_rng(0), 20)).reshape(20, -1)
    predicted = [one.predict(observations, deterministic=True)[0].tolist() for one in (model, agent.model)]  # type: ignore[attr-defined]
    assert predicted[0] == predicted[1]
    model.learn(60)
    assert not same(before, parameters(model))


# ------------------------------------------------------------------ episodes of different lengths


def advantages(rewards: np.ndarray, values: np.ndarray, gamma: float, smoothing: float) -> np.ndarray:
    """Generalised advantage estimation of one episode, from its definition (Schulman et al. 2016, equation 16)."""
    deltas = rewards + gamma * np.append(values[1:], 0.0) - values
    decay = (gamma * smoothing) ** np.arange(len(deltas))
    return np.array([deltas[step:] @ decay[: len(deltas) - step] for step in range(len(deltas))])


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_POLICY)
def test_rollouts_are_whole_episodes(name, monkeypatch) -> None:
    agent: Any = make_agent(name, vector(6, CHAIN), 1, small(name, batch_size=12, gamma=0.9, gae_lambda=0.8))
    kept: list[Any] = []
    train = agent.model.train

    def look() -> None:
        buffer = agent.model.rollout_buffer
        kept.append({key: getattr(buffer, key).copy() for key in ("rewards", "values", "advantages", "episode_starts")})
        train()

    monkeypatch.setattr(agent.model, "train", look)
    agent.learn(6)
    result = agent.learn(6)
    (rollout,) = kept
    stops = CHAIN.stop_choices
    lengths = [next((t + 1 for t in range(CHAIN.length) if row[t] == stops[t]), CHAIN.length) for row in result.tokens]
    assert len(set(lengths)) > 1
    ends = np.cumsum(lengths)
    assert ends[-1] == len(rollout["rewards"])
    for begin, end, reward in zip(ends - lengths, ends, result.rewards, strict=True):
        rewards, values = (rollout[key][begin:end].flatten().astype(float) for key in ("rewards", "values"))
        np.testing.assert_allclose(rewards, [*np.zeros(end - begin - 1), reward], rtol=1e-6)
        wanted = advantages(rewards, values, 0.9, 0.8)
        np.testing.assert_allclose(rollout["advantages"][begin:end].flatten(), wanted, atol=1e-5)
        assert rollout["episode_starts"][begin:end].flatten().tolist() == [1.0] + [0.0] * (end - begin - 1)
    CHAIN.check(result.tokens)


@pytest.mark.parametrize("name", OFF_POLICY)
def test_the_replay_buffer_holds_every_decision(name) -> None:
    """Followed from an episode's start to its end, its observations are the prefixes of the architecture."""
    agent: Any = make_agent(name, vector(6, CHAIN), 1, small(name, batch_size=6))
    result = agent.learn(18)
    buffer, at = agent.model.replay_buffer, 0
    for tokens, reward in zip(result.tokens, result.rewards, strict=True):
        seen = np.full(CHAIN.length, -1)
        done = False
        while not done:
            step = int((seen >= 0).sum())
            np.testing.assert_array_equal(buffer.observations[at, 0], CHAIN.one_hot(seen[None]).flatten())
            remapped = executed(CHAIN.legal(seen[None], step))[0, buffer.actions[at, 0, 0]]
            assert remapped == tokens[step]
            seen[step] = tokens[step]
            done = tokens[step] == CHAIN.stop_choices[step] or step == CHAIN.length - 1
            seen = tokens if done else seen
            np.testing.assert_array_equal(buffer.next_observations[at, 0], CHAIN.one_hot(seen[None]).flatten())
            assert buffer.dones[at, 0] == done
            assert buffer.rewards[at, 0] == np.float32(reward if done else 0.0)
            at += 1
    assert at == buffer.pos == agent.model.num_timesteps


@pytest.mark.slow
@pytest.mark.parametrize("decisions", [8, 9, 10])
def test_no_minibatch_of_one_decision(decisions) -> None:
    """Its advantage would have no standard deviation, and the network would be lost."""
    space = make_space({"name": "bench201", "nodes": 2})  # one decision
    for name in ("sb3:maskable-ppo", "sb3:recurrent-ppo"):
        agent: Any = make_agent(name, vector(1, space), 0, small(name, batch_size=decisions, minibatch_size=4))
        agent.learn(2 * decisions)
        assert all(value.isfinite().all() for value in parameters(agent.model))
        assert agent.model.batch_size == 4
        one: Any = make_agent(name, vector(1, space), 0, small(name, batch_size=1, minibatch_size=4))
        one.learn(6)
        assert one.model.num_timesteps == 6
        assert all(value.isfinite().all() for value in parameters(one.model))


# ------------------------------------------------------------------ choices


@pytest.mark.parametrize("space", [GRAPH, CHAIN, make_space("bench101")], ids=lambda space: space.name)
def test_an_illegal_action_becomes_what_it_becomes_in_the_environment(space) -> None:
    rng = np.random.default_rng(0)
    for position in rng.integers(space.length, size=8).tolist():
        prefix = space.sample(rng, 1)[0, :position]
        if (prefix == space.stop_choices[:position]).any():
            continue
        env = ConstructionEnv(space, evaluator="constant", observation="tokens")
        for action in range(space.num_choices):
            env.reset(options={"architecture": prefix})
            after = env.step(action)[0]
            assert executed(env.search_space.legal(after[None], position))[0, action] == after[position]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_policy_is_what_is_asked_for(name) -> None:
    """Shares among many architectures of the first choice, and of the last ones after a common prefix."""
    agent: Any = make_agent(
        name,
        vector(10, GRAPH),
        5,
        small(name, learning_rate=0.01, **({"exploration_final_eps": 0.4} if name in OFF_POLICY else {})),
    )
    agent.learn(100)
    n = 1000 if name in OFF_POLICY else 4000
    # Where exploration is for all episodes at once, each episode by itself.
    tokens = np.concatenate([agent.ask(1).tokens for _ in range(n)]) if name in OFF_POLICY else agent.ask(n).tokens
    GRAPH.check(tokens)
    for position in range(GRAPH.length):
        prefix = tokens[np.lexsort(tokens[:, :position].T)[n // 2] if position else 0]
        alike = (tokens[:, :position] == prefix[:position]).all(axis=1)
        expected = agent.policy(prefix[None], np.array([position]))[0]
        assert expected.sum() == pytest.approx(1.0, abs=1e-6)
        assert (expected[~GRAPH.legal(prefix[None], position)[0]] == 0).all()
        shares = np.bincount(tokens[alike, position], minlength=GRAPH.num_choices) / alike.sum()
        np.testing.assert_allclose(shares, expected, atol=4 * np.sqrt(0.25 / alike.sum()))


def test_masked_actions_are_never_drawn() -> None:
    agent: Any = make_agent("sb3:maskable-ppo", vector(50, GRAPH), 0)
    agent.ask(50)
    for episode in agent._asked.values():
        np.testing.assert_array_equal(episode.columns["actions"], episode.tokens)
    other: Any = make_agent("sb3:ppo", vector(50, GRAPH), 0)
    other.ask(50)
    assert any((episode.columns["actions"] != episode.tokens).any() for episode in other._asked.values())


def test_the_lstm_remembers() -> None:
    """The policy after a prefix is that of a network that has seen its decisions one after the other."""
    agent: Any = make_agent("sb3:recurrent-ppo", vector(10), 0, small("sb3:recurrent-ppo"))
    agent.learn(30)
    tokens = BENCH.sample(np.random.default_rng(1), 1)
    state, starts = None, np.ones(1)
    for position in range(BENCH.length):
        seen = np.where(np.arange(BENCH.length) < position, tokens, -1)
        observation = BENCH.one_hot(seen).reshape(1, -1)
        action, state = agent.model.predict(observation, state, starts, deterministic=True)
        starts = np.zeros(1)
        assert agent.policy(tokens, np.array([position]))[0].argmax() == action[0]


# ------------------------------------------------------------------ as agents


def test_all_seven_are_there() -> None:
    algorithms = ("ppo", "a2c", "dqn", "maskable-ppo", "recurrent-ppo", "trpo", "qrdqn")
    assert sorted(f"sb3:{algorithm}" for algorithm in algorithms) == sorted(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_settings_update_often_and_learn(name) -> None:
    """At least ten changes of the policy in 150 trials of six decisions, and better architectures in the end."""
    before: list[list[torch.Tensor]] = []
    changes: list[bool] = []

    class Watch(Callback):
        def after_trials(self, agent: Any, trials: SearchResult, statistics: dict[str, float]) -> bool | None:
            after = parameters(agent.model)
            changes.append(bool(before) and not same(before[-1], after))
            before.append(after)
            assert len(before) == 1 or changes[-1] == any(tag.startswith("train/") for tag in statistics)
            return True

    env = vector(load_hyperparameters(name).batch_size, BENCH, lambda tokens: 0.6 + 0.3 * (tokens == CONV).mean(axis=1))
    rewards = make_agent(name, env).learn(150, Watch()).rewards
    assert sum(changes) >= 10
    assert rewards[-50:].mean() > 0.68  # uniform sampling gives 0.66, with a standard error of 0.007


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_stopped_and_continued_it_is_one_search(name) -> None:
    class Stop(Callback):
        def after_trials(self, agent: Any, trials: SearchResult, statistics: dict[str, float]) -> bool | None:
            return agent.trials < 20

    whole, parted = (make_agent(name, vector(5), 2, small(name, batch_size=10)) for _ in range(2))
    assert len(parted.learn(40, Stop())) == 20
    parted.learn(20)
    np.testing.assert_array_equal(whole.learn(40).tokens, parted.result.tokens)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_global_generators_are_neither_read_nor_changed(name) -> None:
    def search(seed: int) -> np.ndarray:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        env = vector(5)
        env.single_action_space.seed(seed)
        drawn = env.single_action_space.np_random.bit_generator.state
        agent = make_agent(name, env, 7, small(name, batch_size=5))
        tokens = agent.learn(20).tokens
        agent.policy(tokens, np.zeros(20, dtype=np.int64))
        assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
        assert env.single_action_space.np_random.bit_generator.state == drawn
        return tokens

    np.testing.assert_array_equal(search(1), search(2))


def test_what_was_not_asked_for_is_passed_over() -> None:
    one, other = (make_agent("sb3:ppo", vector(1), 0, small("sb3:ppo", batch_size=4)) for _ in range(2))
    asked = one.ask(4)
    np.testing.assert_array_equal(asked.tokens, other.ask(4).tokens)
    assert one.tell(foreign(BENCH.sample(np.random.default_rng(0), 50), np.ones(50))) == {}
    trials = answered(asked, checksum(asked.tokens))
    assert one.tell(trials) == other.tell(trials) != {}


@pytest.mark.parametrize("name", NAMES)
def test_what_was_withdrawn_is_passed_over(name) -> None:
    agent: Any = make_agent(name, vector(1), 0, small(name, batch_size=5))
    lost = agent.ask(5)
    agent.withdraw()
    before = parameters(agent.model)
    assert agent.tell(answered(lost, np.ones(5))) == {}
    assert not agent._reported
    assert same(before, parameters(agent.model))
    agent.tell(answered(agent.ask(3), np.ones(3)))
    assert len(agent._reported) == 3


@pytest.mark.parametrize("name", NAMES)
def test_equal_architectures_are_told_apart(name) -> None:
    """An illegal action and the legal one that it becomes: told backwards, each gets its own reward."""
    space = make_space({"name": "chain", "layers": 1, "depth": "stop"})
    agent: Any = make_agent(name, vector(1, space), 0, small(name, batch_size=100))
    proposal = agent.ask(60)
    different = [
        (one, two)
        for one in range(60)
        for two in range(one)
        if (proposal.tokens[one] == proposal.tokens[two]).all() and proposal.ids[one] != proposal.ids[two]
    ]
    assert different
    one, two = different[0]
    for row, reward in ((one, 0.25), (two, 0.75)):  # the later one first
        episode = agent._asked[int(proposal.ids[row])]
        agent.tell(answered(proposal.rows(np.array([row])), np.array([reward])))
        assert agent._reported[-1][0] is episode
        assert agent._reported[-1][1] == reward


@pytest.mark.parametrize("name", ["sb3:ppo", "sb3:dqn"])
def test_environments_of_every_kind(name) -> None:
    constant = {"evaluator": "constant", "disable_env_checker": True}

    def scalar() -> Any:
        return gym.make("NAS-Bench201-v0", **constant)

    tokens: Any = make_agent(name, vector(2, observation="tokens"), 0, small(name, batch_size=2))
    assert tokens.model.observation_space == tokens.env.single_observation_space
    for env in (scalar(), SyncVectorEnv([scalar] * 2), vector(3, autoreset_mode="NextStep"), tokens.env):
        assert len(make_agent(name, env, 0, small(name, batch_size=2)).learn(6)) == 6
    by_id = make_agent(name, "NAS-BenchGraph-v0", 0, small(name))
    assert by_id.learn(20).metrics["accuracy"].min() > 0


# ------------------------------------------------------------------ hyperparameters


@pytest.mark.parametrize(
    ("name", "field", "value", "message"),
    [
        (
            "sb3:ppo",
            "n_steps",
            5,
            "agent 'sb3:ppo' has no hyperparameter 'n_steps'; known: batch_size",
        ),
        ("sb3:a2c", "n_epochs", 5, "agent 'sb3:a2c' has no hyperparameter"),
        ("sb3:dqn", "train_freq", 5, "agent 'sb3:dqn' has no hyperparameter"),
        ("sb3:ppo", "batch_size", 0, "batch_size must be an integer of at least 1, got 0"),
        ("sb3:ppo", "minibatch_size", 2.5, "minibatch_size must be an integer of at least 1, got 2.5"),
        (
            "sb3:ppo",
            "learning_rate",
            "log_1e-3",
            "learning_rate must be a number, or a linear schedule such as",
        ),
        ("sb3:ppo", "clip_range", "lin_x", "clip_range must be a number, or a linear schedule"),
        ("sb3:ppo", "learning_rate", -1.0, "learning_rate must be a number that is not negative, got -1.0"),
        ("sb3:ppo", "learning_rate", float("nan"), "learning_rate must be a number"),
        ("sb3:ppo", "gamma", 1.5, r"gamma must be in \[0, 1\], got 1.5"),
        ("sb3:ppo", "normalize_advantage", 1, "normalize_advantage must be true or false, got 1"),
        ("sb3:ppo", "target_kl", "x", "target_kl must be a number that is not negative, or None, got 'x'"),
        ("sb3:dqn", "gradient_steps", -2, "gradient_steps must be an integer of at least -1"),
        ("sb3:dqn", "max_grad_norm", -0.5, "max_grad_norm must be a number that is not negative, got -0.5"),
        ("sb3:dqn", "schedule_trials", 0, "schedule_trials must be an integer of at least 1"),
        ("sb3:ppo", "policy_kwargs", "dict(net_arch=[64])", "policy_kwargs must be a mapping, or None"),
        (
            "sb3:ppo",
            "policy_kwargs",
            {"activation_fn": "Wave"},
            "policy_kwargs.activation_fn must be a name",
        ),
        ("sb3:ppo", "policy_kwargs", {"activation_fn": "functional"}, "must be a name in torch.nn"),
        ("sb3:ppo", "policy_kwargs", {"depth": 3}, "PPO refuses the hyperparameters .*depth"),
        ("sb3:ppo", "minibatch_size", 1, "PPO refuses the hyperparameters .*greater than 1"),
    ],
)
def test_hyperparameters_that_are_refused(name, field, value, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_agent(name, vector(1), 0, {field: value})


def test_numbers_of_either_kind_are_taken() -> None:
    assert load_hyperparameters("sb3:dqn", overrides={"max_grad_norm": 0.5}).max_grad_norm == 0.5
    assert load_hyperparameters("sb3:ppo", overrides={"ent_coef": 1, "clip_range_vf": None}).ent_coef == 1
    whole: Any = make_agent("sb3:maskable-ppo", vector(2), 0, {"minibatch_size": None, "batch_size": 2})
    assert len(whole.learn(4)) == 4


def test_seeds_that_stable_baselines_does_not_take() -> None:
    with pytest.raises(ValueError, match=r"seed must be in \[0, 2\*\*32\).*got 4294967296"):
        make_agent("sb3:ppo", vector(1), 2**32)


@pytest.mark.parametrize("name", NAMES)
def test_files_hold_what_differs(name) -> None:
    """Every value in a file has its reason, and is another than the algorithm's own."""
    shipped = load_hyperparameters(name)
    own = type(shipped)()
    path = FOLDER.joinpath(*name.split(":")).with_suffix(".yaml")
    lines = path.read_text().splitlines()
    given = [line for line in lines if line.startswith("  ") and ":" in line]
    assert all("#" in line for line in given if not line.rstrip().endswith("policy_kwargs:"))
    for line in given:
        field = line.strip().partition(":")[0]
        if not line.startswith("   ") and field != "batch_size":  # which stands in every file
            assert getattr(shipped, field) != getattr(own, field), field
    arguments = shipped.arguments()
    assert {"learning_rate", "gamma", "policy_kwargs"} <= arguments.keys()
    assert not {"minibatch_size", "schedule_trials"} & arguments.keys()


def test_schedules_run_down_over_their_trials() -> None:
    settings = small("sb3:ppo", batch_size=5, learning_rate="lin_1e-2", schedule_trials=40, clip_range="lin_0.2")
    rates: list[tuple[float, float]] = []

    class Watch(Callback):
        def after_trials(self, agent: Any, trials: SearchResult, statistics: dict[str, float]) -> bool | None:
            rates.append((statistics["train/learning_rate"], statistics["train/clip_range"]))
            return True

    make_agent("sb3:ppo", vector(5), 0, settings).learn(50, Watch())
    left = np.array([35, 30, 25, 20, 15, 10, 5, 0, 0, 0]) / 40
    np.testing.assert_allclose(rates, np.stack([0.01 * left, 0.2 * left], axis=1), atol=1e-12)
    exploring = {"exploration_fraction": 0.5, "exploration_final_eps": 0.05, "schedule_trials": 40}
    agent: Any = make_agent("sb3:dqn", vector(5), 0, small("sb3:dqn", **exploring))
    agent.learn(10)
    assert agent.model.exploration_rate == pytest.approx(1 - 0.95 * 10 / 20)
    agent.learn(50)
    assert agent.model.exploration_rate == 0.05


# ------------------------------------------------------------------ runs


def config(name: str, trials: int = 60, **changes: Any) -> RunConfig:
    return replace(
        RunConfig(
            env="NAS-BenchGraph-v0", agent=name, trials=trials, seed=4, hyperparameters=small(name, batch_size=10)
        ),
        **changes,
    )


def execute(folder: Path, config: RunConfig | None = None) -> Run:
    run = Run(folder, config, Console(quiet=True))
    run.execute()
    return run


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def interrupted(folder: Path, config: RunConfig, batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is asked to stop in its batch of that number."""
    after = Recorder.after_trials
    seen: list[int] = []

    def stop(self: Recorder, *arguments: Any) -> bool | None:
        seen.append(1)
        if len(seen) == batches:
            self.stop.append(signal.SIGTERM)
        return after(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "after_trials", stop)
        with pytest.raises(Interrupted):
            execute(folder, config)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_run_ends_like_a_whole_one(name, tmp_path, monkeypatch) -> None:
    whole = execute(tmp_path / "whole", config(name))
    interrupted(tmp_path / "parted", config(name), 3, monkeypatch)
    assert len(rows_of(tmp_path / "parted" / "trials.csv")) == 30
    parted = execute(tmp_path / "parted")
    for file in ("trials.csv", "best.json"):
        assert (tmp_path / "parted" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert same(parameters(whole.agent.model), parameters(parted.agent.model))  # type: ignore[attr-defined]
    # A finished run, executed again, has the agent of its end: to export the model.
    again = execute(tmp_path / "whole")
    assert same(parameters(whole.agent.model), parameters(again.agent.model))  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sb3:ppo", "sb3:recurrent-ppo", "sb3:qrdqn"])
@pytest.mark.parametrize("batches", [2, 3])
def test_with_shared_weights_it_goes_on_from_its_checkpoint(name, batches, tmp_path, monkeypatch) -> None:
    """After an update, and where episodes wait for one."""
    shared = config(
        name,
        trials=24,
        env="NAS-Bench201-v0",
        task="digits",
        num_envs=4,
        hyperparameters=small(name, batch_size=8),
        env_kwargs={
            "evaluator": "shared-weights",
            "evaluator_kwargs": {"channels": 4, "batch_size": 16, "score_images": 64},
            "schedule": {"warmup_steps": 3},
        },
        retrain_epochs=0,
    )
    whole = execute(tmp_path / "whole", shared)
    interrupted(tmp_path / "parted", shared, batches, monkeypatch)
    assert (tmp_path / "parted" / "checkpoint.pt").exists()
    parted = execute(tmp_path / "parted")
    assert (tmp_path / "parted" / "trials.csv").read_bytes() == (tmp_path / "whole" / "trials.csv").read_bytes()
    assert same(parameters(whole.agent.model), parameters(parted.agent.model))  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sb3:dqn", "sb3:maskable-ppo"])
def test_a_killed_command_is_resumed(name, tmp_path) -> None:
    def command(*arguments: str | Path) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "nas_gym.experiments.cli.main", *map(str, arguments)]
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    options = ["train", "--env", "NAS-BenchGraph-v0", "--agent", name, "--trials", "400", "--seed", "4", "--run-dir"]
    process = command(*options, tmp_path / "run")
    end = time.monotonic() + 240
    while not ((tmp_path / "run" / RECORD).exists() and read_rows(tmp_path / "run" / RECORD).rows):
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert 0 < len(read_rows(tmp_path / "run" / RECORD).rows) < 400
    resumed = command("resume", tmp_path / "run")
    output = resumed.communicate()[0]
    assert resumed.returncode == 0, output
    num_envs = load_hyperparameters(name).batch_size
    whole = make_agent(name, gym.make_vec("NAS-BenchGraph-v0", num_envs=num_envs), 4).learn(400)
    assert rows_of(tmp_path / "run" / "trials.csv") == list(trial_rows(whole))


def test_the_default_folder_has_no_colon(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = ["nas-gym", "train", "--env", "NAS-BenchGraph-v0", "--agent", "sb3:a2c", "--trials", "10"]
    monkeypatch.setattr(sys, "argv", line)
    monkeypatch.setattr(search, "console", Console(quiet=True))
    main()
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("NAS-BenchGraph-v0_sb3-a2c_")


# ------------------------------------------------------------------ the other way round


@pytest.mark.slow
def test_rl_zoo_trains_on_our_environments(tmp_path) -> None:
    for module in ("rl_zoo3", "requests"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    (tmp_path / "ppo.yaml").write_text(
        "NAS-BenchGraph-v0: {policy: MlpPolicy, n_timesteps: 200, n_envs: 10, n_steps: 5, batch_size: 25}\n"
    )
    line = ["--gym-packages", "nas_gym", "--algo", "ppo", "--env", "NAS-BenchGraph-v0", "--conf-file", "ppo.yaml"]
    line += ["--eval-freq", "100", "--eval-episodes", "2", "--log-folder", "logs", "--seed", "0", "--num-threads", "1"]
    finished = subprocess.run(
        [sys.executable, "-m", "rl_zoo3.train", *line], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    folder = tmp_path / "logs" / "ppo" / "NAS-BenchGraph-v0_1"
    assert (folder / "NAS-BenchGraph-v0.zip").exists()
    rewards = np.load(folder / "evaluations.npz")["results"]
    assert rewards.shape[1] == 2
    assert ((rewards > 0) & (rewards < 1)).all()
