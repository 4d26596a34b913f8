"""Growing networks: the space of transformations, Gymnasium's contract, rewards, and native against scalar."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from env_checks import assert_same, draw_actions, stacked
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from nas_gym.agents import Agent, load_hyperparameters, make_agent
from nas_gym.envs import ConstructionVectorEnv, MaskedObservation
from nas_gym.envs.transformation import OBSERVATIONS, REWARDS, TransformationEnv, growth_picture
from nas_gym.envs.transformation_vector import TransformationVectorEnv
from nas_gym.envs.vector_wrappers import MaskedObservation as VectorMaskedObservation
from nas_gym.evaluators import Evaluations, FunctionEvaluator
from nas_gym.spaces import Tokens, TransformationSpace, make_space
from nas_gym.spaces.layer_space import Deepen, Stop, Widen
from nas_gym.spaces.layers import DENSENET, PLAIN, Convolution, FullyConnected

IDS = ("NAS-Transform-v0", "NAS-Transform-Dense-v0")
SMALL = TransformationSpace(widths=(16, 32, 64), units=(64, 128), kernels=(1, 3), depth=2, max_transformations=5)
DENSE = TransformationSpace("densenet", kernels=(3,), depth=6, max_transformations=4, max_parameters=40_000)
SPACES = (SMALL, DENSE)
STOP = SMALL.stop
VECTOR = {"name": "vector", "weights": {"accuracy": 1.0, "parameters": -1e-6}, "worst": [0.0, -1.0]}


class Hashed(FunctionEvaluator):
    """A number in [0, 1) for each network, without pattern; one in five fails. It keeps its batches."""

    def __init__(self, space: TransformationSpace) -> None:
        super().__init__(space)
        self.batches: list[Tokens] = []

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        self.space.check(tokens)
        self.batches.append(tokens)
        words = [str(self.space.network(row)) for row in tokens]
        accuracy = np.array([sum((i + 1) * ord(c) for i, c in enumerate(word)) * 7919 % 1009 / 1009 for word in words])
        failed = accuracy < 0.2
        parameters = np.array([float(self.space.layer_space.parameters(self.space.network(row))) for row in tokens])
        return Evaluations(np.where(failed, 0.0, accuracy), {"parameters": parameters}, failed)


def make(space: TransformationSpace = SMALL, **arguments: Any) -> TransformationEnv:
    return TransformationEnv(space, evaluator=Hashed(space), **arguments)


def choice(space: TransformationSpace, action: Any) -> int:
    return space.actions.index(action)


# ---------------------------------------------------------------------- the space


@pytest.mark.parametrize("space", SPACES)
def test_sequences_follow_the_layers(space: TransformationSpace) -> None:
    """Masks and networks are those of the layer space, walked by hand."""
    tokens = space.sample(np.random.default_rng(0), 20)
    space.check(tokens)
    for row in tokens:
        layers, networks, stopped = space.layer_space.start, [space.layer_space.start], False
        for position, token in enumerate(row):
            legal = np.arange(space.num_choices) == space.stop if stopped else space.layer_space.legal(layers)
            np.testing.assert_array_equal(space.legal(row[None], position)[0], legal)
            stopped |= token == space.stop
            if not stopped:
                layers = space.layer_space.apply(layers, space.actions[token])
                networks.append(layers)
        assert space.history(row) == networks
        assert space.graph(space.architecture(row)) == layers.graph()
        assert space.layer_space.parameters(layers) <= space.max_parameters
    assert {len(space.taken(row)) for row in tokens} > {1}


def test_a_sequence_by_hand() -> None:
    names = [Deepen(0, 0, 3), Widen(0), Widen(4), Deepen(3, 0, None), Stop()]
    tokens = np.array([choice(SMALL, action) for action in names])
    network = SMALL.network(tokens)
    assert network.layers[:2] == (Convolution(3, 32), Convolution(3, 16))
    assert network.layers[-2:] == (FullyConnected(64), FullyConnected(64))
    assert str(network) != str(PLAIN)
    # Behind the inserted layer the second block's stands at 3, so that layer 4 is a pool, which has no width.
    assert not SMALL.legal(tokens[None], 2)[0, tokens[2]]


@pytest.mark.parametrize("space", SPACES)
def test_forms_round_trip(space: TransformationSpace) -> None:
    assert make_space(json.loads(json.dumps(space.to_dict()))) == space
    for row in space.sample(np.random.default_rng(1), 5):
        architecture = space.architecture(row)
        assert space.parse(str(architecture)) == architecture
        assert str(architecture).split()[-1] == "stop" or len(space.taken(row)) == space.length


def test_own_starts() -> None:
    space = TransformationSpace(PLAIN.replaced(0, Convolution(5, 16)).to_json())
    assert space.layer_space.start.layers[0] == Convolution(5, 16)
    assert make_space(json.loads(json.dumps(space.to_dict()))) == space


@pytest.mark.parametrize("space", SPACES)
def test_mutation_and_crossover_stay_legal(space: TransformationSpace) -> None:
    rng = np.random.default_rng(2)
    first, second = space.sample(rng, 8), space.sample(rng, 8)
    space.check(space.mutate(first, rng))
    space.check(space.crossover(first, second, rng))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"start": "resnet"}, "start must be one of plain, densenet, or the JSON of layers; got 'resnet'"),
        ({"start": "{}"}, "not the JSON of a sequence of layers"),
        ({"max_transformations": 0}, "max_transformations must be a positive integer, got 0"),
        ({"kernels": (2,)}, "kernels must be odd"),
        ({"max_parameters": 10}, "start has 28,218 parameters"),
    ],
)
def test_spaces_that_are_none(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransformationSpace(**fields)


# ---------------------------------------------------------------------- Gymnasium's contract


@pytest.mark.slow
@pytest.mark.parametrize("observation", OBSERVATIONS)
@pytest.mark.parametrize("name", IDS)
def test_checkers(name: str, observation: str) -> None:
    from stable_baselines3.common.env_checker import check_env as check_for_stable_baselines

    for reward, on_invalid in zip(REWARDS, ("remap", "penalise"), strict=True):
        env = gymnasium.make(
            name,
            evaluator="constant",
            observation=observation,
            reward=reward,
            on_invalid=on_invalid,
            render_mode="ansi",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check_env(env.unwrapped)
            check_for_stable_baselines(env, warn=True)


def test_ids() -> None:
    plain, dense = (gymnasium.make(name, evaluator="constant").unwrapped for name in IDS)
    assert isinstance(plain, TransformationEnv)
    assert (plain.search_space.layer_space.start, dense.search_space.layer_space.start) == (PLAIN, DENSENET)
    assert plain.search_space.length == 64
    vector = gymnasium.make_vec(IDS[0], num_envs=2, evaluator="constant")
    assert isinstance(vector, TransformationVectorEnv)
    assert isinstance(vector, ConstructionVectorEnv)


def test_without_torch() -> None:
    code = """
import sys, gymnasium, nas_gym
gymnasium.make("NAS-Transform-v0", evaluator="constant").reset(seed=0)
gymnasium.make_vec("NAS-Transform-v0", num_envs=2, evaluator="constant").reset(seed=0)
print(sorted({"torch", "matplotlib", "stable_baselines3"} & set(sys.modules)))
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


@pytest.mark.parametrize("space", SPACES)
def test_episode(space: TransformationSpace) -> None:
    """Observations spell out the network, masks are its legal actions, the reward is the tangent of its accuracy."""
    layers = space.layer_space
    envs = {observation: make(space, observation=observation) for observation in OBSERVATIONS}
    rng = np.random.default_rng(3)
    lengths = set()
    for _ in range(6):
        network, actions = layers.start, list[int]()
        seen = {name: env.reset() for name, env in envs.items()}
        terminated = False
        while True:
            tokens, length = layers.encode(network)
            assert layers.decode(seen["tokens"][0][:-1]) == network
            assert seen["tokens"][0][-1] == len([a for a in actions if a != space.stop])
            onehot = seen["onehot"][0][:-1].reshape(layers.length, -1)
            np.testing.assert_array_equal(onehot.sum(axis=1), np.arange(layers.length) < length)
            np.testing.assert_array_equal(onehot[:length].argmax(axis=1), tokens[:length])
            assert seen["onehot"][0][-1] == np.float32(seen["tokens"][0][-1] / space.length)
            assert seen["actions"][0][: len(actions)].tolist() == actions
            np.testing.assert_array_equal(seen["dict"][0]["layers"], tokens)
            assert seen["dict"][0]["length"] == length
            assert seen["dict"][0]["transformations"] == seen["tokens"][0][-1]
            for name, env in envs.items():
                assert env.observation_space.contains(seen[name][0])
                legal = np.ones(space.num_choices) if terminated else layers.legal(network)
                np.testing.assert_array_equal(seen[name][-1]["action_mask"], legal)
                np.testing.assert_array_equal(env.action_masks(), legal)
            if terminated:
                break
            stops = rng.random() < 0.2
            actions.append(space.stop if stops else int(rng.choice(np.flatnonzero(layers.legal(network)))))
            network = layers.apply(network, space.actions[actions[-1]])
            seen = {name: env.step(actions[-1]) for name, env in envs.items()}
            terminated = seen["tokens"][2]
            assert terminated == (actions[-1] == space.stop or len(actions) == space.length)
            assert terminated or all(step[1] == 0 for step in seen.values())
        lengths.add(len(actions))
        info = seen["tokens"][-1]
        filled = actions + [space.stop] * (space.length - len(actions))
        assert info["architecture"].tolist() == filled
        assert space.network(info["architecture"]) == network
        evaluation = Hashed(space).evaluate(np.array([filled]))
        assert info["evaluation"] == {name: float(column[0]) for name, column in evaluation.columns().items()}
        expected = np.tan(evaluation.accuracy[0] * np.pi / 2)
        assert all(step[1] == pytest.approx(expected) for step in seen.values())
    assert len(lengths) > 1


def test_start_with_actions() -> None:
    env = make(observation="tokens")
    prefix = [choice(SMALL, Widen(0)), choice(SMALL, Deepen(1, 0, 3))]
    observation, info = env.reset(options={"architecture": prefix})
    assert SMALL.layer_space.decode(observation[:-1]) == SMALL.network(prefix)
    assert observation[-1] == 2
    np.testing.assert_array_equal(info["action_mask"], SMALL.legal_actions(SMALL.network(prefix)))
    for wrong in ([STOP], [choice(SMALL, Widen(1))], prefix * 3):
        with pytest.raises(ValueError, match="options"):
            env.reset(options={"architecture": wrong})


def test_illegal_actions() -> None:
    illegal = choice(SMALL, Widen(1))  # a pool
    env = make(observation="tokens")
    _, info = env.reset()
    legal = np.flatnonzero(info["action_mask"])
    observation, *_, info = env.step(illegal)
    assert info["invalid_action"]
    assert SMALL.layer_space.decode(observation[:-1]) == SMALL.network([legal[illegal % len(legal)]])
    for reward in REWARDS:
        env = make(on_invalid="penalise", reward=reward)
        env.reset()
        start = env.values(np.full((1, SMALL.length), -1))[0]
        _, earned, terminated, _, info = env.step(illegal)
        assert terminated
        assert earned == env.objective.worst - (start if reward == "gain" else 0)
        assert info["evaluation"] == {"accuracy": 0.0, "failed": 1.0}


@pytest.mark.parametrize("objective", ["accuracy", "accuracy-tan"])
def test_gains_add_up(objective: str) -> None:
    """Each step's reward is the difference of two networks' objectives, so that an episode's is last minus first."""
    env = make(reward="gain", objective=objective)
    rng = np.random.default_rng(4)
    for _ in range(5):
        _, info = env.reset()
        values = [env.values(np.full((1, SMALL.length), STOP))[0]]
        taken, terminated = list[int](), False
        while not terminated:
            taken.append(int(rng.choice(np.flatnonzero(info["action_mask"]))))
            _, reward, terminated, _, info = env.step(taken[-1])
            values.append(env.values(np.array([taken + [STOP] * (SMALL.length - len(taken))]))[0])
            assert reward == values[-1] - values[-2]
        if taken[-1] == STOP:
            assert reward == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"observation": "pixels"},
            "observation must be one of 'onehot', .*, 'actions'; got 'pixels'",
        ),
        ({"restart_after": 0}, "restart_after must be a positive integer or None, got 0"),
        ({"restart_after": 2.0}, "restart_after must be a positive integer or None, got 2.0"),
        ({"restart_after": 2, "objective": VECTOR}, "restart_after needs an objective of one number"),
        ({"reward": "loss"}, "reward must be one of 'paper', 'gain'; got 'loss'"),
        ({"space": "bench201"}, "space must be a TransformationSpace"),
        ({"on_invalid": "raise"}, "on_invalid must be one of"),
    ],
)
@pytest.mark.parametrize("native", [False, True])
def test_arguments_that_are_not_understood(arguments: dict[str, Any], message: str, native: bool) -> None:
    arguments = {"evaluator": "constant", **arguments}
    with pytest.raises(ValueError, match=message):
        TransformationVectorEnv(2, **arguments) if native else TransformationEnv(**arguments)


@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_masks_in_the_observation(observation: str) -> None:
    env = MaskedObservation(make(observation=observation))
    envs = VectorMaskedObservation(
        TransformationVectorEnv(2, space=SMALL, evaluator="constant", observation=observation)
    )
    for _ in range(3):
        (seen, info), (batch, infos) = env.reset(), envs.reset()
        terminated = False
        while not terminated:
            assert env.observation_space.contains(seen)
            assert envs.observation_space.contains(batch)
            np.testing.assert_array_equal(seen["action_mask"], info["action_mask"] != 0)
            np.testing.assert_array_equal(batch["action_mask"], infos["action_mask"] != 0)
            action = int(env.action_space.sample(mask=info["action_mask"]))
            seen, _, terminated, _, info = env.step(action)
            batch, *_, infos = envs.step(np.array([action, STOP]))


# ---------------------------------------------------------------------- starting from the best


def best_of(space: TransformationSpace, tokens: Tokens, values: NDArray[np.float64]) -> tuple[int, ...]:
    """By hand: the actions of the best network that leaves something to be done."""
    found: tuple[float, tuple[int, ...]] = -np.inf, ()
    for row, value in zip(tokens.tolist(), values, strict=True):
        taken = [token for token in row if token != space.stop]
        layers = space.layer_space
        network = space.network(row)
        grows = any(
            not isinstance(action, Stop) and legal
            for action, legal in zip(layers.actions, layers.legal(network), strict=True)
        )
        if value > found[0] and grows and len(taken) < space.length:
            found = value, tuple(taken)
    return found[1]


@pytest.mark.parametrize("space", SPACES)
def test_the_part_that_grows_out_of_the_best(space: TransformationSpace) -> None:
    rng = np.random.default_rng(8)
    tokens = space.sample(rng, 30)
    for n in (1, 2, 5, 30):
        values = rng.integers(3, size=n).astype(float)  # with ties
        part = space.growing_from_best(tokens[:n], values)
        assert part.prefix == best_of(space, tokens[:n], values)
        assert make_space(json.loads(json.dumps(part.to_dict()))) == part
        drawn = part.sample(rng, 5)
        space.check(drawn)
        part.check(drawn)
        part.check(part.mutate(tokens, rng))
        assert (drawn[:, : len(part.prefix)] == part.prefix).all()
        assert part.growing_from_best(tokens, np.arange(30.0)) == space.growing_from_best(tokens, np.arange(30.0))


@pytest.mark.parametrize("prefix", [(STOP,), (-1,), (0,) * 5, (0,) * 3, (999,)])
def test_prefixes_that_are_none(prefix: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="prefix must be fewer than 5 choices that are legal in this order"):
        TransformationSpace(
            widths=(16, 32, 64), units=(64, 128), kernels=(1, 3), depth=2, max_transformations=5, prefix=prefix
        )


def restarting(reward: str, on_invalid: str) -> dict[str, Any]:
    """Arguments of an environment whose episodes start from the best, which is the largest network."""
    space = dataclasses.replace(SMALL, max_transformations=8)

    def size(tokens: Tokens) -> np.ndarray:
        return np.array([float(space.layer_space.parameters(space.network(row))) for row in tokens]) / 1e6

    return {
        "space": space,
        "evaluator": FunctionEvaluator(space, size),
        "reward": reward,
        "on_invalid": on_invalid,
        "observation": "dict",
        "restart_after": 4,
        "objective": "accuracy",
    }


@pytest.mark.slow
@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize("on_invalid", ["remap", "penalise"])
def test_starts_are_those_of_the_scalar_environment(mode: AutoresetMode, reward: str, on_invalid: str) -> None:
    """Of one sub-environment; of several, the scalar ones would each start from the best of their own."""
    arguments = restarting(reward, on_invalid)
    native = TransformationVectorEnv(1, autoreset_mode=mode, **arguments)
    sync = SyncVectorEnv([lambda: TransformationEnv(**arguments)], autoreset_mode=mode)
    rng = np.random.default_rng(9)
    assert_same(native.reset(seed=1), sync.reset(seed=1))
    starts = set[tuple[int, ...]]()
    for _ in range(90):
        actions = draw_actions(native.action_masks(), 0.1, rng)
        actions[rng.random(1) < 0.5] = STOP
        assert_same(native.step(actions), stacked(sync.step(actions)))
        starts.add(native.restarts.prefix)
    assert len(starts) > 2


@pytest.mark.slow
@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize("on_invalid", ["remap", "penalise"])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_episodes_start_from_the_best(mode: AutoresetMode, reward: str, on_invalid: str, num_envs: int) -> None:
    """Told again from all episodes that have ended."""
    arguments = restarting(reward, on_invalid)
    space = arguments["space"]

    def size(tokens: Tokens) -> int:
        return space.layer_space.parameters(space.network(tokens))

    native = TransformationVectorEnv(num_envs, autoreset_mode=mode, **arguments)
    rng = np.random.default_rng(9)
    native.reset(seed=1)
    tokens, values, earned = list[Any](), list[float](), np.zeros(num_envs)
    starts = [()] * num_envs
    waiting, different = np.zeros(num_envs, dtype=bool), set[tuple[int, ...]]()
    for _ in range(90):
        prefix = native.restarts.prefix
        actions = draw_actions(native.action_masks(), 0.1, rng)
        actions[rng.random(num_envs) < 0.5] = STOP
        started = waiting
        observations, rewards, ended, _, infos = native.step(actions)
        earned += rewards
        told = infos.get("final_info", infos)
        for row in np.flatnonzero(ended):
            tokens.append(told["architecture"][row])
            accuracy = told["evaluation"]["accuracy"][row]
            whole = (tokens[-1] != -1).all()
            values.append(accuracy if whole else -np.inf)
            assert tokens[-1][: len(starts[row])].tolist() == list(starts[row])
            begun = size(starts[row]) / 1e6
            assert earned[row] == pytest.approx(accuracy - (begun if reward == "gain" else 0.0))
            earned[row] = 0.0
        known = len(values) - len(values) % 4
        found = (
            best_of(space, np.where(np.array(tokens) < 0, STOP, tokens)[:known], np.array(values[:known]))
            if known
            else ()
        )
        assert native.restarts.prefix == found
        different.add(found)
        begins = ended if mode is AutoresetMode.SAME_STEP else started
        at = found if mode is AutoresetMode.SAME_STEP else prefix
        for row in np.flatnonzero(begins):
            starts[row] = at
            assert space.layer_space.decode(observations["layers"][row]) == space.network(at)
            assert observations["transformations"][row] == len(at)
            np.testing.assert_array_equal(infos["action_mask"][row], space.legal_actions(space.network(at)))
        waiting = ended if mode is AutoresetMode.NEXT_STEP else waiting
    assert len(values) > 20
    assert len(different) > 2
    # What was asked for goes before.
    observations, _ = native.reset(options={"architecture": []})
    assert (observations["transformations"] == 0).all()
    state, other = native.state_dict(), TransformationVectorEnv(num_envs, **arguments)
    other.load_state_dict(json.loads(json.dumps(state)))
    assert_same(other.reset(), native.reset())
    assert other.state_dict() == state


@pytest.mark.slow
@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize(
    "name", ["random", "reinforce", "ppo", "local-search", "regularized-evolution", "sb3:maskable-ppo"]
)
def test_agents_grow_networks_out_of_the_best(name: str, mode: AutoresetMode) -> None:
    for reward in REWARDS:
        arguments = {"space": SMALL, "evaluator": Hashed(SMALL), "reward": reward, "restart_after": 10}
        envs = TransformationVectorEnv(5, autoreset_mode=mode, **arguments)
        agent = make_agent(name, envs, 0, load_hyperparameters(name, None))
        result = agent.learn(15)
        SMALL.check(result.tokens)
        evaluation = Hashed(SMALL).evaluate(result.tokens)
        np.testing.assert_array_equal(result.metrics["accuracy"], evaluation.accuracy)
        prefix = best_of(SMALL, result.tokens[:10], evaluation.accuracy[:10])
        assert prefix != ()
        assert (result.tokens[10:, : len(prefix)] == prefix).all()
        assert not (result.tokens[:10, : len(prefix)] == prefix).all()
        # All rewards are told from where the space starts, so that they compare.
        start = envs.objective(Hashed(SMALL).evaluate(np.full((1, SMALL.length), STOP)))[0]
        expected = envs.objective(evaluation) - (start if reward == "gain" else 0)
        np.testing.assert_allclose(result.rewards, expected, rtol=1e-9, atol=1e-12)
        scalar = make_agent(name, TransformationEnv(**arguments), 0, load_hyperparameters(name, None)).learn(12)
        prefix = best_of(SMALL, scalar.tokens[:10], scalar.rewards[:10])
        assert (scalar.tokens[10:, : len(prefix)] == prefix).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["random", "reinforce", "ppo", "local-search", "tournament", "mcts", "gflownet", "sb3:maskable-ppo"]
)
def test_agents_that_were_saved_grow_on(name: str, tmp_path: Path) -> None:
    """Saved with episodes that wait, before and after the first restart, an agent comes to the same end."""
    arguments = {"space": SMALL, "evaluator": Hashed(SMALL), "restart_after": 6}
    settings = {"batch_size": 8} if name in ("reinforce", "ppo", "sb3:maskable-ppo") else {}
    for trials in (4, 6, 10):
        whole = make_agent(name, TransformationVectorEnv(2, **arguments), 0, load_hyperparameters(name, None, settings))
        whole.learn(trials)
        whole.save(tmp_path / "agent.pt")
        loaded = Agent.load(tmp_path / "agent.pt", TransformationVectorEnv(2, **arguments))
        expected = whole.learn(14)
        assert loaded.learn(14).tokens.tolist() == expected.tokens.tolist()
        prefix = best_of(SMALL, expected.tokens[:6], expected.rewards[:6])
        assert prefix != ()
        assert (expected.tokens[6:12, : len(prefix)] == prefix).all()


# ---------------------------------------------------------------------- native against scalar


@pytest.mark.slow
@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize("on_invalid", ["remap", "penalise"])
def test_native_equals_scalar(mode: AutoresetMode, reward: str, on_invalid: str) -> None:
    for observation, space in zip(OBSERVATIONS, (SMALL, DENSE, DENSE, SMALL, SMALL), strict=True):
        arguments = {
            "space": space,
            "evaluator": Hashed(space),
            "reward": reward,
            "on_invalid": on_invalid,
            "observation": observation,
        }
        sync = SyncVectorEnv([lambda a=arguments: TransformationEnv(**a)] * 3, autoreset_mode=mode)
        native = TransformationVectorEnv(3, autoreset_mode=mode, **arguments)
        rng = np.random.default_rng(5)
        prefix = space.taken(space.sample(rng, 1)[0])[:2]
        options = {"architecture": prefix}
        assert_same(native.reset(seed=1, options=dict(options)), sync.reset(seed=1, options=dict(options)))
        endings, apart = 0, 0
        for step in range(30):
            actions = draw_actions(native.action_masks(), 0.1, rng)
            expected = stacked(sync.step(actions))
            assert_same(native.step(actions), expected)
            endings, apart = endings + expected[2].sum(), apart + (0 < expected[2].sum() < 3)
            mask = expected[2] if mode is AutoresetMode.DISABLED else np.arange(3) == step % 3
            if mask.any() and (mode is AutoresetMode.DISABLED or step % 11 == 10):
                options = {"reset_mask": mask, "architecture": prefix}
                assert_same(native.reset(options=dict(options)), sync.reset(options=dict(options)))
        assert endings > 6
        assert apart > 0


@pytest.mark.parametrize("reward", REWARDS)
def test_one_batch_a_step(reward: str) -> None:
    """What has to be trained after a step is handed over at once; what was scored already may be looked up again."""
    evaluator = Hashed(SMALL)
    native = TransformationVectorEnv(
        8, space=SMALL, evaluator=evaluator, reward=reward, autoreset_mode=AutoresetMode.SAME_STEP
    )
    rng = np.random.default_rng(6)
    native.reset()
    known = {SMALL.layer_space.start}
    for _ in range(15):
        evaluator.batches.clear()
        *_, terminations, _, infos = native.step(draw_actions(native.action_masks(), 0.0, rng))
        first, *later = ({SMALL.network(row) for row in batch} for batch in evaluator.batches or [[]])
        known |= first
        assert all(batch <= known for batch in later)
        assert len(evaluator.batches) == (terminations.any() if reward == "paper" else 1 + terminations.any())
        if reward == "gain":
            assert len(evaluator.batches[0]) == 8
        elif terminations.any():
            np.testing.assert_array_equal(evaluator.batches[0], infos["final_info"]["architecture"][terminations])


def test_what_the_native_environment_returns_is_a_copy() -> None:
    native, spoiled = (TransformationVectorEnv(3, space=SMALL, evaluator=Hashed(SMALL), reward="gain") for _ in "ab")
    rng = np.random.default_rng(7)
    native.reset(), spoiled.reset()
    for _ in range(8):
        actions = draw_actions(native.action_masks(), 0.0, rng)
        expected, actual = native.step(actions), spoiled.step(actions)
        assert_same(actual, expected)
        for array in (*actual[:4], actual[4]["action_mask"], spoiled.action_masks()):
            array[:] = 0


# ---------------------------------------------------------------------- pictures


@pytest.mark.slow
def test_render() -> None:
    env = make(render_mode="ansi")
    env.reset()
    env.step(choice(SMALL, Widen(0)))
    first, second = env.render().splitlines()
    assert first.startswith("1 transformations, ")
    assert second == str(SMALL.network([choice(SMALL, Widen(0))]))
    picture = growth_picture(PLAIN, SMALL.network([choice(SMALL, Widen(0))]))
    assert picture.shape == (1600, 800, 3)
    left, right = picture[:, :400], picture[:, 400:]
    assert (left != 255).any()
    assert (right != 255).any()
    assert (left != right).any()
    np.testing.assert_array_equal(growth_picture(PLAIN, PLAIN)[100:, :400], growth_picture(PLAIN, PLAIN)[100:, :400])
    native = TransformationVectorEnv(2, space=SMALL, evaluator="constant", render_mode="rgb_array")
    native.reset()
    assert [frame.shape for frame in native.render()] == [(1600, 800, 3)] * 2


# ---------------------------------------------------------------------- agents


@pytest.mark.slow
@pytest.mark.parametrize("observation", OBSERVATIONS)
@pytest.mark.parametrize("client", ["PPO", "MaskablePPO"])
def test_stable_baselines_play_it(client: str, observation: str) -> None:
    import sb3_contrib
    import stable_baselines3
    import torch

    from nas_gym.envs.stable_baselines import SB3VecEnv

    torch.set_num_threads(1)
    arguments = {"space": SMALL, "evaluator": Hashed(SMALL), "observation": observation, "restart_after": 10}
    envs = SB3VecEnv(TransformationVectorEnv(4, reward="gain", **arguments))
    algorithm = getattr(sb3_contrib, client, None) or getattr(stable_baselines3, client)
    policy = "MultiInputPolicy" if observation == "dict" else "MlpPolicy"
    model = algorithm(policy, envs, n_steps=8, batch_size=16, n_epochs=1, seed=0, device="cpu")
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    model.learn(64)
    assert any((old != new).any() for old, new in zip(before, model.policy.parameters(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["random", "reinforce", "ppo", "local-search", "regularized-evolution", "sb3:maskable-ppo"]
)
def test_agents_of_sequences_play_it(name: str) -> None:
    """The reward of a trial is that of its network, however rewards come in."""
    for reward, observation in zip(REWARDS, ("onehot", "dict"), strict=True):
        arguments = {"space": SMALL, "evaluator": Hashed(SMALL), "observation": observation}
        envs = TransformationVectorEnv(5, reward=reward, **arguments)
        result = make_agent(name, envs, 0, load_hyperparameters(name, None)).learn(15)
        SMALL.check(result.tokens)
        evaluation = Hashed(SMALL).evaluate(result.tokens)
        start = envs.objective(Hashed(SMALL).evaluate(np.full((1, SMALL.length), STOP)))[0]
        expected = envs.objective(evaluation) - (start if reward == "gain" else 0)
        np.testing.assert_allclose(result.rewards, expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(result.metrics["accuracy"], evaluation.accuracy)


def test_agents_act_on_actions() -> None:
    envs = TransformationVectorEnv(3, space=SMALL, evaluator="constant", observation="actions")
    agent = make_agent("random", envs, 0)
    observations, infos = envs.reset()
    for _ in range(10):
        actions = agent.act(observations, infos["action_mask"])
        assert infos["action_mask"][np.arange(3), actions].all()
        observations, *_, infos = envs.step(actions)
