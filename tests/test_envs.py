"""The construction environments: Gymnasium's contract, the rules of an episode, and native against scalar."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
import pytest
from env_checks import assert_same, draw_actions, stacked
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from nas_gym.envs import ConstructionEnv, ConstructionVectorEnv
from nas_gym.evaluators import Evaluations, FunctionEvaluator, Schedule, make_objective
from nas_gym.registration import ENVIRONMENTS
from nas_gym.spaces import SearchSpace, Tokens, make_space

SHORT_CHAIN = {"name": "chain", "layers": 3, "depth": "stop"}  # 14 decisions, and any of three depths
SPACES = (
    "cell:darts",
    "cell:enas",
    "bench201",
    "size",
    "bench101",
    "bench_graph",
    "mobile",
    SHORT_CHAIN,
)
OBSERVATIONS = ("onehot", "tokens")
ON_INVALID = ("remap", "penalise")
IDS = [spec.id for spec in ENVIRONMENTS]
PRESET = {spec.id: spec.space for spec in ENVIRONMENTS}


def scramble(tokens: Tokens) -> NDArray[np.float64]:
    """A number in [0, 1) for each sequence, without pattern, and the same alone and in a batch."""
    digest = np.full(len(tokens), 17, dtype=np.int64)
    for column in tokens.T:
        digest = (digest * 1_000_003 + column + 1) % 1_000_000_007
    return digest / 1_000_000_007


class ScramblingEvaluator(FunctionEvaluator):
    """Accuracy by `scramble`, one metric, some failures; it keeps the batches that it was asked for."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space)
        self.batches: list[Tokens] = []

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        self.space.check(tokens)
        self.batches.append(tokens)
        accuracy = scramble(tokens)
        failed = accuracy < 0.2
        parameters = 1.0 + tokens.sum(axis=1)
        return Evaluations(np.where(failed, 0.0, accuracy), {"parameters": parameters}, failed)


def make(space: Any = "bench201", **arguments: Any) -> ConstructionEnv:
    return ConstructionEnv(space, evaluator=ScramblingEvaluator(make_space(space)), **arguments)


def make_native(space: Any = "bench201", num_envs: int = 3, **arguments: Any) -> ConstructionVectorEnv:
    return ConstructionVectorEnv(num_envs, space=space, evaluator=ScramblingEvaluator(make_space(space)), **arguments)


def play(env: gymnasium.Env[Any, Any], rng: np.random.Generator) -> tuple[float, dict[str, Any], list[int]]:
    """One episode of random legal choices; returns its reward, last info, and choices."""
    _, info = env.reset()
    choices: list[int] = []
    terminated = False
    while not terminated:
        choices.append(int(rng.choice(np.flatnonzero(info["action_mask"]))))
        _, reward, terminated, truncated, info = env.step(choices[-1])
        assert not truncated
        assert reward == 0 or terminated
    return float(reward), info, choices


# ---------------------------------------------------------------------- Gymnasium's contract


@pytest.mark.slow
@pytest.mark.parametrize("observation", OBSERVATIONS)
@pytest.mark.parametrize("on_invalid", ON_INVALID)
@pytest.mark.parametrize("name", IDS)
def test_checkers(name: str, on_invalid: str, observation: str) -> None:
    from stable_baselines3.common.env_checker import check_env as check_for_stable_baselines

    space = make_space(PRESET[name])
    env = gymnasium.make(
        name,
        evaluator=FunctionEvaluator(space, scramble),
        observation=observation,
        on_invalid=on_invalid,
        render_mode="ansi",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
        check_for_stable_baselines(env, warn=True)


@pytest.mark.parametrize("space", SPACES)
def test_spaces_of_observations(space: Any) -> None:
    onehot, tokens = make(space), make(space, observation="tokens")
    length, width = onehot.search_space.length, onehot.search_space.num_choices
    assert onehot.observation_space == gymnasium.spaces.Box(0, 1, (length * width,), np.float32)
    assert tokens.observation_space == gymnasium.spaces.Box(-1, width - 1, (length,), np.int64)
    assert onehot.action_space == gymnasium.spaces.Discrete(width)
    native = make_native(space)
    assert native.observation_space.shape == (3, length * width)
    assert native.action_space == gymnasium.spaces.MultiDiscrete([width] * 3)


# ---------------------------------------------------------------------- an episode


@pytest.mark.parametrize("space", SPACES)
def test_episode(space: Any) -> None:
    """Observations spell out the choices, masks are the space's, and the reward is that of the architecture."""
    env, tokens_env = make(space), make(space, observation="tokens")
    env.action_space.seed(0)
    for _ in range(5):
        observation, info = env.reset()
        tokens_observation, _ = tokens_env.reset()
        tokens = np.full((1, env.search_space.length), -1, dtype=np.int64)
        for position in range(env.search_space.length):
            np.testing.assert_array_equal(observation, env.search_space.one_hot(tokens)[0].reshape(-1))
            np.testing.assert_array_equal(tokens_observation, tokens[0])
            legal = env.search_space.legal(tokens, position)[0]
            np.testing.assert_array_equal(info["action_mask"], legal.astype(np.int8))
            assert info["action_mask"].dtype == np.int8
            np.testing.assert_array_equal(env.action_masks(), legal)
            assert env.action_masks().dtype == np.bool_
            choice = tokens[0, position] = env.action_space.sample(mask=info["action_mask"])
            observation, reward, terminated, truncated, info = env.step(choice)
            tokens_observation, *_ = tokens_env.step(choice)
            stopped = choice == env.search_space.stop_choices[position]
            assert terminated == (stopped or position == env.search_space.length - 1)
            assert not truncated
            assert not info["invalid_action"]
            if not terminated:
                assert reward == 0.0
                assert info.keys() == {"action_mask", "invalid_action"}
            if stopped:
                tokens[0, position + 1 :] = env.search_space.absent_choices[position + 1 :]
                break
        env.search_space.check(tokens)
        evaluations = ScramblingEvaluator(env.search_space).evaluate(tokens)
        assert reward == make_objective("accuracy")(evaluations)[0]
        np.testing.assert_array_equal(observation, env.search_space.one_hot(tokens)[0].reshape(-1))
        np.testing.assert_array_equal(info["architecture"], tokens[0])
        assert info["architecture"].dtype == np.int64
        assert info["evaluation"] == {name: float(column[0]) for name, column in evaluations.columns().items()}
        assert info["action_mask"].all()
        assert env.action_masks().all()


def test_objective() -> None:
    env, cubed = make(), make(objective="accuracy-cubed")
    reward, info, choices = play(env, np.random.default_rng(3))
    cubed.reset()
    for choice in choices:
        _, cubed_reward, *_ = cubed.step(choice)
    assert info["evaluation"]["failed"] == 0.0
    assert cubed_reward == pytest.approx(reward**3)


def test_remap_takes_the_legal_choice_of_that_rank() -> None:
    """In `darts` the first decision offers one state of A, the second those above the first."""
    env = make("cell:darts", observation="tokens")
    width = env.search_space.num_choices
    for action in range(width):
        _, info = env.reset()
        legal = np.flatnonzero(info["action_mask"])
        observation, _, terminated, _, info = env.step(action)
        assert info["invalid_action"] == (action not in legal)
        assert observation[0] == (action if action in legal else legal[action % len(legal)])
        assert not terminated


@pytest.mark.parametrize("objective", ["accuracy", "accuracy-tan"])
def test_penalise(objective: str) -> None:
    env = make("cell:darts", observation="tokens", on_invalid="penalise", objective=objective)
    env.reset()
    env.step(0)
    observation, reward, terminated, truncated, info = env.step(0)  # the second input must lie above the first
    assert terminated
    assert not truncated
    assert reward == env.objective.worst
    assert (info["invalid_action"].dtype, info["invalid_action"].shape) == (np.bool_, ())
    assert info["invalid_action"]
    assert info["evaluation"] == {"accuracy": 0.0, "failed": 1.0}
    np.testing.assert_array_equal(info["architecture"], observation)
    assert info["architecture"].tolist() == [0] + [-1] * (env.search_space.length - 1)
    assert info["action_mask"].all()
    assert isinstance(env.evaluator, ScramblingEvaluator)
    assert env.evaluator.batches == []


def test_failed_evaluation_is_worst() -> None:
    env = make()
    rng = np.random.default_rng(0)
    episodes = [play(env, rng) for _ in range(60)]
    failed = [(reward, info) for reward, info, _ in episodes if info["evaluation"]["failed"]]
    assert 0 < len(failed) < 60
    assert all(reward == env.objective.worst and info["evaluation"]["accuracy"] == 0.0 for reward, info in failed)


@pytest.mark.parametrize("space", SPACES)
def test_reset_with_a_prefix(space: Any) -> None:
    env, played = make(space), make(space)
    stops = env.search_space.stop_choices
    samples = env.search_space.sample(np.random.default_rng(5), 50)
    architecture = samples[np.argmin((samples == stops).any(axis=1))]  # one that is not stopped
    length = len(architecture) // 2
    prefix = architecture[:length]
    observation, info = env.reset(options={"architecture": prefix.tolist()})
    played.reset()
    for choice in prefix:
        expected_observation, *_, expected_info = played.step(choice)
    np.testing.assert_array_equal(observation, expected_observation)
    np.testing.assert_array_equal(info["action_mask"], expected_info["action_mask"])
    for choice in architecture[length:]:
        assert info["action_mask"][choice]
        _, _, terminated, _, info = env.step(choice)
    assert terminated
    assert info["architecture"].tolist() == architecture.tolist()
    observation, _ = env.reset()
    assert not observation.any()


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ([0] * 32, "fewer than 32 integers"),
        ([0, 0], r"\[1\] = 0 is not legal for decision 'normal/node_0/input_2'; legal: \[1\]"),
        ([-1], r"\[0\] = -1 is not legal"),
        ([0.5], "fewer than 32 integers"),
        ([[0, 1]], "fewer than 32 integers"),
    ],
)
def test_prefix_that_is_not_legal(prefix: list[Any], message: str, vector: bool) -> None:
    env = make_native("cell:darts") if vector else make("cell:darts")
    env.reset()
    with pytest.raises(ValueError, match=message):
        env.reset(options={"architecture": prefix})


@pytest.mark.parametrize("vector", [False, True])
def test_prefix_that_stops(vector: bool) -> None:
    env = make_native(SHORT_CHAIN) if vector else make(SHORT_CHAIN)
    env.reset(options={"architecture": [0, 0, 0, 0]})
    with pytest.raises(ValueError, match=r"\[3\] = 1 stops at 'layer_1/stop'"):
        env.reset(options={"architecture": [0, 0, 0, 1]})


def test_stop_ends_the_episode() -> None:
    """Whatever the depth, the architecture is a whole and legal one, and its observation spells it out."""
    for depth, choices in ((1, [1, 2, 3, 1]), (2, [1, 2, 3, 0, 1, 0, 1, 2, 1]), (3, [0] * 14)):
        for observation_mode in OBSERVATIONS:
            env = make(SHORT_CHAIN, observation=observation_mode)
            env.reset()
            for choice in choices:
                observation, _, terminated, _, info = env.step(choice)
                assert terminated == (info.get("architecture") is not None)
            assert terminated
            tokens = info["architecture"]
            env.search_space.check(tokens[None])
            assert env.search_space.depths(tokens[None]) == depth
            assert tokens[: len(choices)].tolist() == choices
            expected = tokens if observation_mode == "tokens" else env.search_space.one_hot(tokens).reshape(-1)
            np.testing.assert_array_equal(observation, expected)
            assert info["action_mask"].all()


def test_agents_play_variable_lengths() -> None:
    """Given architectures are played in both faces of the environment, in all autoreset modes."""
    from nas_gym.agents.play import play

    space = make_space("chain:stop")
    rng = np.random.default_rng(0)
    tokens = space.sample(rng, 1).repeat(12, axis=0)
    for row, depth in zip(tokens[1:], rng.integers(1, 15, size=11), strict=True):
        stop = np.flatnonzero(space.stop_choices >= 0)[depth - 1]
        row[stop:] = space.absent_choices[stop:]
        row[stop] = space.stop_choices[stop]
    space.check(tokens)
    expected = make_objective("accuracy")(ScramblingEvaluator(space).evaluate(tokens))
    envs = [make("chain:stop"), *(make_native("chain:stop", 5, autoreset_mode=mode) for mode in AutoresetMode)]
    for env in envs:
        np.testing.assert_array_equal(play(env, tokens).rewards, expected)


def test_step_needs_a_running_episode() -> None:
    env = make()
    with pytest.raises(ResetNeeded, match="reset"):
        env.step(0)
    play(env, np.random.default_rng(0))
    with pytest.raises(ResetNeeded, match="reset"):
        env.step(0)


@pytest.mark.parametrize("action", [-1, 5, 1.5, None, "0"])
def test_action_that_is_none(action: Any) -> None:
    env = make()
    env.reset()
    with pytest.raises(ValueError, match=r"action must be an integer in \[0, 5\)"):
        env.step(action)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"observation": "pixels"}, "observation must be one of 'onehot', 'tokens', 'float-tokens'; got 'pixels'"),
        ({"on_invalid": "raise"}, "on_invalid must be one of 'remap', 'penalise'; got 'raise'"),
        ({"render_mode": "film"}, "render_mode must be one of None, 'ansi', 'rgb_array', 'human'; got 'film'"),
        ({"space": "nowhere"}, "unknown space 'nowhere'"),
        ({"evaluator": "oracle"}, "unknown evaluator 'oracle'"),
        ({"objective": "speed"}, "unknown objective 'speed'"),
        ({"schedule": "never"}, "unknown schedule 'never'"),
    ],
)
@pytest.mark.parametrize("native", [False, True])
def test_arguments_that_are_not_understood(arguments: dict[str, Any], message: str, native: bool) -> None:
    arguments = {"space": "bench201", "evaluator": "constant", **arguments}
    with pytest.raises(ValueError, match=message):
        ConstructionVectorEnv(2, **arguments) if native else ConstructionEnv(**arguments)


def test_seed_gives_the_same_generator_and_the_same_episode() -> None:
    env = make()
    first = env.reset(seed=7)[0], env.np_random.random()
    second = env.reset(seed=7)[0], env.np_random.random()
    np.testing.assert_array_equal(first[0], second[0])
    assert first[1] == second[1]


def test_what_is_returned_is_a_copy() -> None:
    """Writing into everything that was handed out changes nothing that comes after."""
    rng = np.random.default_rng(0)
    for space in SPACES:
        for observation_mode in OBSERVATIONS:
            env, spoiled = (make(space, observation=observation_mode) for _ in range(2))
            env.reset()
            observation, info = spoiled.reset()
            for _ in range(env.search_space.length):
                observation[:] = 7
                info["action_mask"][:] = 0
                spoiled.action_masks()[:] = False
                action = int(rng.integers(env.search_space.num_choices))
                expected = env.step(action)
                observation, reward, terminated, truncated, info = spoiled.step(action)
                assert_same((observation, reward, terminated, truncated, info), expected)
                if terminated:
                    break


# ---------------------------------------------------------------------- sharing


def test_scalar_environments_share_an_evaluator() -> None:
    evaluator = ScramblingEvaluator(make_space("bench201"))
    made = gymnasium.make("NAS-Bench201-v0", evaluator=evaluator)
    assert made.unwrapped.evaluator is evaluator
    assert gymnasium.make(made.spec).unwrapped.evaluator is evaluator
    envs = SyncVectorEnv([lambda: gymnasium.make("NAS-Bench201-v0", evaluator=evaluator) for _ in range(3)])
    envs.reset()
    for _ in range(6):
        envs.step(np.zeros(3, dtype=np.int64))
    assert [len(batch) for batch in evaluator.batches] == [1, 1, 1]


def test_a_schedule_brings_its_evaluator() -> None:
    schedule = Schedule(ScramblingEvaluator(make_space("bench201")))
    for env in (
        gymnasium.make("NAS-Bench201-v0", schedule=schedule).unwrapped,
        gymnasium.make_vec("NAS-Bench201-v0", 2, schedule=schedule).unwrapped,
    ):
        assert env.schedule is schedule
        assert env.evaluator is schedule.evaluator
    with pytest.raises(ValueError, match="not the schedule's own"):
        make(schedule=schedule)


def test_evaluator_of_another_space() -> None:
    with pytest.raises(ValueError, match="the evaluator is of space"):
        ConstructionEnv("bench201", evaluator=ScramblingEvaluator(make_space("cell:enas")))


# ---------------------------------------------------------------------- rendering


def test_render_ansi() -> None:
    env = make(render_mode="ansi")
    env.reset()
    env.step(3)
    env.step(0)
    assert env.render().splitlines() == [
        "edge_0_1 = nor_conv_3x3",
        "edge_0_2 = none, edge_1_2 = ?",
        "edge_0_3 = ?, edge_1_3 = ?, edge_2_3 = ?",
    ]
    native = make_native(render_mode="ansi", num_envs=2)
    native.reset()
    native.step([3, 1])
    assert [text.splitlines()[0] for text in native.render()] == ["edge_0_1 = nor_conv_3x3", "edge_0_1 = skip_connect"]


def test_render_without_a_mode_warns() -> None:
    env = make()
    env.reset()
    with pytest.warns(UserWarning, match="ansi, rgb_array, human"):
        assert env.render() is None


def test_render_lists() -> None:
    """Gymnasium collects what every step shows."""
    for mode, kind in (("ansi_list", str), ("rgb_array_list", np.ndarray)):
        env = gymnasium.make("NAS-Size-v0", evaluator="constant", render_mode=mode)
        env.reset()
        for action in range(5):
            env.step(action)
        frames = env.render()
        assert [type(frame) for frame in frames] == [kind] * 6
        assert all((one != two) if mode == "ansi_list" else (one != two).any() for one, two in pairwise(frames))
        assert env.render() == []


def test_render_for_humans(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture for the reset and one for each step; without a display nothing is shown and nothing is said."""
    import matplotlib.pyplot as plt

    from nas_gym.envs.rendering import Window

    shown: list[NDArray[np.uint8]] = []
    show = Window.show

    def record(self: Window, picture: NDArray[np.uint8], seconds: float) -> None:
        shown.append(picture)
        show(self, picture, seconds)

    monkeypatch.setattr(Window, "show", record)
    plt.switch_backend("agg")
    before = plt.get_fignums()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make("NAS-Size-v0", evaluator="constant", render_mode="human")
        env.reset()
        for action in range(5):
            env.step(action)
        assert len(shown) == 6
        np.testing.assert_array_equal(shown[-1], _picture("size", [0, 1, 2, 3, 4]))
        assert len(plt.get_fignums()) == len(before) + 1
        env.close()
        env.close()
    assert plt.get_fignums() == before
    with pytest.raises(ValueError, match="'human' shows one environment"):
        make_native(render_mode="human")


def _picture(space: Any, tokens: list[int]) -> NDArray[np.uint8]:
    from nas_gym.envs.rendering import draw_rgb

    return draw_rgb(make_space(space), np.array(tokens))


@pytest.mark.slow
@pytest.mark.parametrize("space", SPACES)
def test_render_rgb_array(space: Any) -> None:
    env = make(space, render_mode="rgb_array")
    env.reset()
    empty = env.render()
    for choice in env.search_space.sample(np.random.default_rng(0), 1)[0]:
        *_, terminated, _, _ = env.step(choice)
        if terminated:
            break
    full = env.render()
    for picture in (empty, full):
        assert picture.dtype == np.uint8
        assert sorted(picture.shape) == [3, 800, 1600]
    assert empty.shape == full.shape
    assert (empty != full).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("space", "kind", "upright"),
    [
        ("chain", "filters", False),
        ("chain:stop", "filters", True),
        ("macro", "operation", True),
        ("size", "width", True),
        ("bench101", "operation", False),
        ("hierarchical", "operation", False),
        ("bench_graph", "operation", False),
        ("mobile", "expansion", True),
    ],
)
def test_what_is_decided_is_in_the_picture(space: str, kind: str, upright: bool) -> None:
    """Half way through, another choice for what a node does is another picture; nothing is cut off."""
    made = make_space(space)
    tokens = made.sample(np.random.default_rng(11), 1)[0]
    position = next(p for p in range(made.length // 2, made.length) if made.decisions[p].kind == kind)
    tokens[position + 1 :] = -1
    legal = np.flatnonzero(made.legal(tokens[None], position)[0])
    if space == "hierarchical":
        legal = legal[1:]  # none is no node
    pictures = []
    for choice in legal[:2]:
        tokens[position] = choice
        pictures.append(_picture(space, tokens.tolist()))
        assert pictures[-1].shape == ((1600, 800, 3) if upright else (800, 1600, 3))
        edges = (pictures[-1][0], pictures[-1][-1], pictures[-1][:, 0], pictures[-1][:, -1])
        assert all((edge == 255).all() for edge in edges)
    assert (pictures[0] != pictures[1]).any()


def test_labels_of_widths() -> None:
    from nas_gym.envs.architecture_text import label

    assert label("conv_3x5_36") == "conv 3x5, 36"
    assert label("conv_3x5_36/2x1") == "conv 3x5, 36 /2x1"
    assert label("residual_40/2") == "residual, 40 /2"
    assert label("mbconv_5x5_e6_se0.25") == "mbconv 5x5 e6 se0.25"


# ---------------------------------------------------------------------- native against scalar


def pair(space: Any, num_envs: int, mode: AutoresetMode, **arguments: Any) -> tuple[SyncVectorEnv, Any]:
    evaluator = ScramblingEvaluator(make_space(space))
    scalar = [lambda: ConstructionEnv(space, evaluator=evaluator, **arguments) for _ in range(num_envs)]
    return SyncVectorEnv(scalar, autoreset_mode=mode), make_native(space, num_envs, autoreset_mode=mode, **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("on_invalid", ON_INVALID)
@pytest.mark.parametrize("space", SPACES)
def test_native_equals_scalar(space: Any, on_invalid: str, mode: AutoresetMode) -> None:
    """In lockstep and out of it: penalties, and under DISABLED resets of some, break the step."""
    length = make_space(space).length
    for observation in OBSERVATIONS:
        sync, native = pair(space, 4, mode, on_invalid=on_invalid, observation=observation)
        rng = np.random.default_rng(len(space))
        assert_same(native.reset(seed=3), sync.reset(seed=3))
        endings, apart = 0, 0
        for step in range(max(150, 4 * length)):
            actions = draw_actions(native.action_masks(), 0.3 / length if step < 3 * length else 0.5, rng)
            expected = stacked(sync.step(actions))
            assert_same(native.step(actions), expected)
            np.testing.assert_array_equal(native.action_masks(), expected[-1]["action_mask"].astype(bool))
            ended = expected[2]
            assert (expected[1][~ended] == 0).all()
            endings += ended.sum()
            apart += 0 < ended.sum() < 4
            if mode is AutoresetMode.DISABLED:
                mask = ended | (rng.random(4) < 0.1 / length)
                if mask.any():
                    # Gymnasium's environment takes the mask out of the options that it is handed.
                    reset = {} if mask.all() else {"reset_mask": mask}
                    assert_same(native.reset(options=dict(reset)), sync.reset(options=dict(reset)))
        assert endings > 8
        # Where every choice is legal, episodes end together unless some are reset alone.
        if space in ("bench201", "size") and mode is not AutoresetMode.DISABLED:
            assert apart == 0
        if space == SHORT_CHAIN or (space in ("cell:darts", "cell:enas") and on_invalid == "penalise"):
            assert apart > 0


@pytest.mark.slow
@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("space", SPACES)
def test_native_equals_scalar_from_a_prefix(space: Any, mode: AutoresetMode) -> None:
    """Some restart behind a prefix while the others go on; later episodes start from nothing."""
    for observation in OBSERVATIONS:
        sync, native = pair(space, 3, mode, observation=observation)
        rng = np.random.default_rng(1)
        length = native.search_space.length
        prefix = native.search_space.sample(rng, 1)[0, : length - 2]
        assert_same(
            native.reset(options={"architecture": prefix}),
            sync.reset(options={"architecture": prefix}),
        )
        mask = np.array([True, False, True])
        for step in range(2 * length):
            if step % 5 == 1 and (mode is not AutoresetMode.DISABLED or step == 1):
                options = {"architecture": prefix[:3].tolist(), "reset_mask": mask}
                assert_same(native.reset(options=dict(options)), sync.reset(options=dict(options)))
            actions = draw_actions(native.action_masks(), 0.2, rng)
            expected = stacked(sync.step(actions))
            assert_same(native.step(actions), expected)
            if mode is AutoresetMode.DISABLED and expected[2].any():
                options = {"reset_mask": expected[2]}
                assert_same(native.reset(options=dict(options)), sync.reset(options=dict(options)))


@pytest.mark.parametrize("observation", OBSERVATIONS)
@pytest.mark.parametrize("on_invalid", ON_INVALID)
def test_one_batch_for_all_that_end_in_a_step(on_invalid: str, observation: str) -> None:
    arguments = {"on_invalid": on_invalid, "observation": observation, "autoreset_mode": "SameStep"}
    native = make_native("cell:darts", 64, **arguments)
    rng = np.random.default_rng(0)
    native.reset()
    for _ in range(3 * native.search_space.length):
        native.evaluator.batches.clear()
        *_, terminations, _, infos = native.step(draw_actions(native.action_masks(), 0.01, rng))
        completed = np.zeros(64, dtype=bool)
        if terminations.any():
            completed = (infos["final_info"]["architecture"] >= 0).all(axis=1) & terminations
        assert len(native.evaluator.batches) == completed.any()
        if completed.any():
            np.testing.assert_array_equal(native.evaluator.batches[0], infos["final_info"]["architecture"][completed])


@pytest.mark.slow
@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("space", SPACES)
def test_what_the_native_environment_returns_is_a_copy(space: Any, mode: AutoresetMode) -> None:
    def spoil(value: Any) -> None:
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, np.ndarray):
                assert item.base is None
                item[:] = 1
            elif isinstance(item, dict):
                spoil(item)

    rng = np.random.default_rng(0)
    for observation in OBSERVATIONS:
        arguments = {"autoreset_mode": mode, "observation": observation, "on_invalid": "penalise"}
        native, spoiled = make_native(space, **arguments), make_native(space, **arguments)
        native.reset()
        spoil(spoiled.reset())
        for _ in range(2 * native.search_space.length):
            actions = draw_actions(native.action_masks(), 0.02, rng)
            expected, actual = native.step(actions), spoiled.step(actions)
            assert_same(actual, expected)
            spoil(actual)
            spoil((spoiled.action_masks(),))
            np.testing.assert_array_equal(spoiled.action_masks(), native.action_masks())
            if mode is AutoresetMode.DISABLED and expected[2].any():
                native.reset(options={"reset_mask": expected[2]})
                spoil(spoiled.reset(options={"reset_mask": expected[2].copy()}))


def test_evaluator_may_keep_what_it_is_handed() -> None:
    native = make_native(num_envs=2)
    native.reset()
    for _ in range(6):
        *_, infos = native.step([1, 2])
    infos["architecture"][:] = 0
    for _ in range(3):
        native.step([4, 4])
    assert native.evaluator.batches[0].tolist() == [[1] * 6, [2] * 6]


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_autoreset_mode_by_value(mode: str) -> None:
    envs = gymnasium.make_vec("NAS-Bench201-v0", num_envs=4, evaluator="constant", autoreset_mode=mode)
    assert isinstance(envs, ConstructionVectorEnv)
    assert envs.metadata["autoreset_mode"] is AutoresetMode(mode)
    assert "autoreset_mode" not in ConstructionEnv.metadata


def test_next_step_is_the_default_as_in_gymnasium() -> None:
    for env_id in ("NAS-Bench201-v0", "NAS-Transform-v0", "NAS-MultiTask-v0"):
        native = gymnasium.make_vec(env_id, num_envs=2, evaluator="constant")
        sync = gymnasium.make_vec(env_id, num_envs=2, evaluator="constant", vectorization_mode="sync")
        assert native.metadata["autoreset_mode"] is sync.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP


def test_same_step_renders_what_has_been_built() -> None:
    """The picture after the last decision is that of the architecture, not of the next episode's start."""
    arguments = {"evaluator": "constant", "render_mode": "rgb_array", "render_size": 64}
    same, other = (
        gymnasium.make_vec("NAS-Bench201-v0", 2, autoreset_mode=mode, **arguments) for mode in ("SameStep", "NextStep")
    )
    same.reset(), other.reset()
    for step in range(6):
        same.step([1, step % 5]), other.step([1, step % 5])
        np.testing.assert_array_equal(same.render(), other.render())
        assert same.render()[0].shape == (32, 64, 3)
    other.step([0, 0])  # which starts the next episode
    same.step([1, 2]), other.step([1, 2])
    np.testing.assert_array_equal(same.render(), other.render())


def test_vector_wrappers_of_gymnasium() -> None:
    envs = gymnasium.wrappers.vector.RecordEpisodeStatistics(make_native(num_envs=2))
    envs.reset(seed=0)
    for _ in range(6):
        _, rewards, *_, infos = envs.step(np.array([1, 2]))
    np.testing.assert_array_equal(infos["episode"]["r"], rewards)
    assert infos["episode"]["l"].tolist() == [6, 6]


def test_native_needs_running_episodes() -> None:
    for mode in AutoresetMode:
        with pytest.raises(ResetNeeded, match=r"sub-environments \[0, 1, 2\]"):
            make_native(autoreset_mode=mode).step([0, 0, 0])
    native = make_native(autoreset_mode="Disabled")
    with pytest.raises(ResetNeeded, match="first reset"):
        native.reset(options={"reset_mask": np.array([True, False, False])})
    native.reset()
    for _ in range(6):
        native.step([0, 1, 2])
    native.reset(options={"reset_mask": np.array([True, False, True])})
    with pytest.raises(ResetNeeded, match=r"sub-environments \[1\]"):
        native.step([0, 0, 0])


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([0, 1], r"integers of shape \(3,\), got int64 of shape \(2,\)"),
        ([0.0, 1.0, 2.0], r"integers of shape \(3,\), got float64"),
        ([0, 1, 5], r"in \[0, 5\), got actions\[2\] = 5"),
        ([0, -1, 5], r"in \[0, 5\), got actions\[1\] = -1"),
    ],
)
def test_native_actions_that_are_none(actions: list[Any], message: str) -> None:
    native = make_native()
    native.reset()
    with pytest.raises(ValueError, match=message):
        native.step(actions)


def test_native_takes_actions_of_any_integer_type() -> None:
    for dtype in (np.int8, np.uint8, np.int32, np.uint64):
        native = make_native(observation="tokens")
        native.reset()
        observations, *_ = native.step(np.array([4, 0, 2], dtype=dtype))
        assert observations[:, 0].tolist() == [4, 0, 2]


@pytest.mark.parametrize(
    ("reset", "message"),
    [
        ({"seed": [1, 2]}, "list of 3, got a list of 2"),
        ({"options": {"reset_mask": [True, False, True]}}, "reset_mask"),
        ({"options": {"reset_mask": np.ones(2, dtype=bool)}}, "reset_mask"),
        ({"options": {"reset_mask": np.zeros(3, dtype=bool)}}, "reset_mask"),
        ({"options": {"reset_mask": np.ones(3, dtype=np.int8)}}, "reset_mask"),
    ],
)
def test_native_resets_that_are_not_understood(reset: dict[str, Any], message: str) -> None:
    native = make_native()
    native.reset()
    with pytest.raises(ValueError, match=message):
        native.reset(**reset)


def test_native_seeds() -> None:
    native = make_native()
    native.reset(seed=5)
    first = native.np_random.random()
    native.reset(seed=[5, 6, 7])
    assert native.np_random.random() == first
    native.reset(seed=[None, 6, 7])


def test_native_arguments() -> None:
    with pytest.raises(ValueError, match="autoreset_mode must be"):
        make_native(autoreset_mode="sometimes")
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        make_native(num_envs=0)
    with pytest.raises(TypeError, match="colour"):
        make_native(colour="red")
