"""Masks and rewards in the forms of other libraries, drawing from masks, and the environment of Stable-Baselines3."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

import nas_gym
from nas_gym.envs import (
    ConstructionEnv,
    ConstructionVectorEnv,
    MaskedObservation,
    VectorReward,
    masked_sample,
    vector_wrappers,
)
from nas_gym.evaluators import Evaluations, FunctionEvaluator
from nas_gym.spaces import SearchSpace, Tokens, make_space

SHORT_CHAIN = {"name": "chain", "layers": 3, "depth": "stop"}
SPACES = ("bench201", "cell:darts", SHORT_CHAIN)
OBJECTIVES = {"accuracy": 1.0, "loss": -1.0, "parameters": -0.5}
WORST = (-1.0, -100.0, -1000.0)
REWARDS = gymnasium.spaces.Box(np.array(WORST, np.float32), np.array([1.0, 0.0, 0.0], np.float32))


class ThreeMetrics(FunctionEvaluator):
    """Accuracy, loss and parameters without pattern; some architectures fail."""

    def evaluate(self, tokens: Tokens, *, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        digest = (tokens + 1) @ (np.arange(1, tokens.shape[1] + 1) * 7919) % 101
        failed = digest % 5 == 0
        metrics = {"loss": digest / 10.0, "parameters": 1.0 + tokens.sum(axis=1)}
        return Evaluations(np.where(failed, 0.0, digest / 101), metrics, failed)


def make(space: Any, **arguments: Any) -> ConstructionEnv:
    return ConstructionEnv(space, evaluator=ThreeMetrics(make_space(space)), **arguments)


def make_native(space: Any, num_envs: int = 4, **arguments: Any) -> ConstructionVectorEnv:
    return ConstructionVectorEnv(num_envs, space=space, evaluator=ThreeMetrics(make_space(space)), **arguments)


# ---------------------------------------------------------------------- drawing from masks


def masks(n: int, width: int, seed: int = 0) -> NDArray[np.bool_]:
    rng = np.random.default_rng(seed)
    mask = rng.random((n, width)) < rng.random((n, 1))
    mask[np.arange(n), rng.integers(width, size=n)] = True
    return mask


@pytest.mark.parametrize("width", [1, 2, 5, 18, 255, 256, 300])
def test_samples_are_legal(width: int) -> None:
    for seed, mask in enumerate((masks(3000, width), np.ones((50, width), dtype=bool), masks(1, width))):
        rng = np.random.default_rng(seed)
        for form in (mask, mask.astype(np.int8), -3 * mask.astype(np.int8), np.asfortranarray(mask), mask[::-1]):
            drawn = masked_sample(form, rng)
            assert drawn.dtype == np.int64
            assert drawn.shape == (len(mask),)
            assert form[np.arange(len(form)), drawn].all()


def test_samples_are_uniform() -> None:
    """Chi-square over the legal actions of each of many masks, at a level that 64 tests pass together."""
    from scipy.stats import chisquare

    rng = np.random.default_rng(1)
    for mask in [*masks(63, 7, seed=2), np.ones(7, dtype=bool)]:
        drawn = masked_sample(np.tile(mask, (7000, 1)), rng)
        counts = np.bincount(drawn, minlength=7)
        assert counts[~mask].sum() == 0
        assert mask.sum() == 1 or chisquare(counts[mask]).pvalue > 1e-4
    mixed = masks(40_000, 3, seed=3)  # different rows in one call
    drawn = masked_sample(mixed, rng)
    for pattern in np.unique(mixed, axis=0):
        counts = np.bincount(drawn[(mixed == pattern).all(axis=1)], minlength=3)[pattern]
        assert pattern.sum() == 1 or chisquare(counts).pvalue > 1e-4


@pytest.mark.slow
def test_extreme_random_numbers_stay_legal() -> None:
    """The largest number that the generator can give still falls on the last legal action."""

    class Largest:
        def random(self, n: int, dtype: Any) -> NDArray[np.float32]:
            return np.full(n, 1 - 2**-24, dtype=dtype)

    for legal in range(1, 256):
        mask = np.zeros((1, 300), dtype=bool)
        mask[:, :legal] = True
        assert masked_sample(mask, Largest())[0] == legal - 1  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones(3, dtype=bool), "bool or int8 of shape"),
        (np.ones((3, 2)), "bool or int8 of shape"),
        ([[True, False]], "bool or int8 of shape"),
        (np.array([[True, True], [False, False]]), r"mask\[1\] allows no action"),
        (np.ones((3, 0), dtype=bool), r"mask\[0\] allows no action"),
    ],
)
def test_masks_that_are_none(mask: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        masked_sample(mask, np.random.default_rng(0))


# ---------------------------------------------------------------------- masked observations


@pytest.mark.parametrize("observation", ["onehot", "tokens"])
@pytest.mark.parametrize("space", SPACES)
def test_masked_observation(space: Any, observation: str) -> None:
    env, plain = MaskedObservation(make(space, observation=observation)), make(space, observation=observation)
    rng = np.random.default_rng(0)
    shown, info = env.reset(seed=3)
    expected, _ = plain.reset(seed=3)
    for _ in range(60):
        assert env.observation_space.contains(shown)
        assert shown.keys() == {"observation", "action_mask"}
        np.testing.assert_array_equal(shown["observation"], expected)
        np.testing.assert_array_equal(shown["action_mask"], plain.action_masks())
        np.testing.assert_array_equal(shown["action_mask"], info["action_mask"].astype(bool))
        shown["action_mask"][:] = False
        action = rng.choice(np.flatnonzero(plain.action_masks()))
        shown, reward, terminated, _, info = env.step(action)
        expected, expected_reward, *_ = plain.step(action)
        assert reward == expected_reward
        if terminated:
            assert shown["action_mask"].all()
            shown, info = env.reset()
            expected, _ = plain.reset()


@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version")
def test_masked_observation_by_gymnasium() -> None:
    env = MaskedObservation(gymnasium.make("NAS-Bench101-v0", evaluator="constant"), mask_key="mask")
    assert list(env.observation_space) == ["mask", "observation"]
    assert env.spec is not None
    again = gymnasium.make(env.spec)
    assert again.observation_space == env.observation_space
    check_env(MaskedObservation(make("bench201")), skip_render_check=True)
    with pytest.raises(ValueError, match="must have action_masks"):
        MaskedObservation(gymnasium.make("CartPole-v1"))
    with pytest.raises(ValueError, match="must differ, got 'mask' for both"):
        MaskedObservation(make("bench201"), "mask", "mask")


@pytest.mark.slow
@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("space", SPACES)
def test_masked_observations_equal_those_of_scalar_environments(space: Any, mode: AutoresetMode) -> None:
    native = vector_wrappers.MaskedObservation(make_native(space, 3, autoreset_mode=mode))
    sync = SyncVectorEnv([lambda: MaskedObservation(make(space)) for _ in range(3)], autoreset_mode=mode)
    assert native.single_observation_space == sync.single_observation_space
    assert native.observation_space == sync.observation_space
    rng = np.random.default_rng(0)
    shown, expected = native.reset(seed=1)[0], sync.reset(seed=1)[0]
    endings = 0
    for _ in range(100):
        assert native.observation_space.contains(shown)
        assert shown.keys() == expected.keys()
        for key, column in expected.items():
            np.testing.assert_array_equal(shown[key], column)
        actions = masked_sample(shown["action_mask"], rng)
        shown, _, terminations, _, infos = native.step(actions)
        expected, *_, expected_infos = sync.step(actions)
        if mode is AutoresetMode.SAME_STEP and terminations.any():
            for row in np.flatnonzero(terminations):
                for key, value in expected_infos["final_obs"][row].items():
                    np.testing.assert_array_equal(infos["final_obs"][key][row], value)
        if mode is AutoresetMode.DISABLED and terminations.any():
            reset = {"options": {"reset_mask": terminations}}
            shown, expected = native.reset(**reset)[0], sync.reset(options={"reset_mask": terminations.copy()})[0]
        endings += terminations.sum()
    assert endings > 5


@pytest.mark.parametrize(
    ("client", "observation_key", "mask_key", "dtype"),
    [
        ("for_rllib", "observations", "action_mask", np.float32),
        ("for_tianshou", "obs", "mask", np.bool_),
        ("for_torchrl", "observation", "action_mask", np.bool_),
    ],
)
def test_forms_of_clients(client: str, observation_key: str, mask_key: str, dtype: Any) -> None:
    wrap = getattr(MaskedObservation, client)
    env, envs = wrap(make("cell:darts")), wrap(make_native("cell:darts", 2))
    assert isinstance(envs, vector_wrappers.MaskedObservation)
    assert envs.autoreset_mode is AutoresetMode.NEXT_STEP
    assert envs.single_observation_space == env.observation_space
    (shown, info), (batch, _) = env.reset(), envs.reset()
    for _ in range(3):
        assert env.observation_space.contains(shown)
        assert envs.observation_space.contains(batch)
        assert shown.keys() == {observation_key, mask_key}
        assert shown[mask_key].dtype == batch[mask_key].dtype == dtype
        for row in range(2):
            np.testing.assert_array_equal(batch[mask_key][row], shown[mask_key])
            np.testing.assert_array_equal(batch[observation_key][row], shown[observation_key])
        action = int(info["action_mask"].argmax())
        (shown, *_, info), (batch, *_) = env.step(action), envs.step([action, action])
    with pytest.raises(ValueError, match=r"vector_wrappers\.MaskedObservation wraps those"):
        MaskedObservation(make_native("cell:darts", 2))


@pytest.mark.parametrize("env_id", ["NAS-Cell-v0", "NAS-MultiTask-v0", "NAS-Transform-v0"])
def test_float_tokens_are_the_tokens(env_id: str) -> None:
    for make_one in (gymnasium.make, gymnasium.make_vec):
        for mode in ("SameStep", "NextStep"):
            modes = {} if make_one is gymnasium.make else {"autoreset_mode": mode}
            tokens, floats = (
                make_one(env_id, evaluator="constant", observation=observation, **modes)
                for observation in ("tokens", "float-tokens")
            )
            assert floats.observation_space.dtype == np.float32
            np.testing.assert_array_equal(floats.observation_space.high, tokens.observation_space.high)
            steps = [(env.reset(seed=0), env.step(env.action_space.sample() * 0)) for env in (tokens, floats)]
            for (expected, *_), (shown, *_) in zip(*steps, strict=True):
                assert floats.observation_space.contains(shown)
                np.testing.assert_array_equal(shown, expected)


# ---------------------------------------------------------------------- vector rewards


def expected_rewards(space: SearchSpace, architecture: NDArray[np.int64]) -> NDArray[np.float32]:
    if (architecture < 0).any():
        return np.array(WORST, dtype=np.float32)
    evaluation = ThreeMetrics(space).evaluate(architecture[None])
    rewards = [factor * evaluation.columns()[name][0] for name, factor in OBJECTIVES.items()]
    return np.array(WORST if evaluation.failed[0] else rewards, dtype=np.float32)


@pytest.mark.parametrize("space", SPACES)
def test_vector_reward(space: Any) -> None:
    env = VectorReward(make(space, on_invalid="penalise"), OBJECTIVES, WORST)
    for holder in (env, env.unwrapped):
        assert holder.reward_dim == 3
        assert holder.reward_space == REWARDS
    rng = np.random.default_rng(0)
    failures = 0
    for _ in range(40):
        _, info = env.reset()
        terminated = False
        while not terminated:
            action = masked_sample(info["action_mask"][None], rng)[0] if rng.random() < 0.98 else rng.integers(5)
            _, reward, terminated, _, info = env.step(action)
            assert env.reward_space.contains(reward)
            if not terminated:
                assert not reward.any()
        expected = expected_rewards(env.unwrapped.search_space, info["architecture"])
        np.testing.assert_array_equal(reward, expected)
        failures += (expected == WORST).all()
    assert 0 < failures < 40


@pytest.mark.slow
@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("space", SPACES)
def test_vector_rewards_of_the_native_environment(space: Any, mode: AutoresetMode) -> None:
    envs = make_native(space, 5, autoreset_mode=mode, on_invalid="penalise")
    envs = vector_wrappers.VectorReward(envs, OBJECTIVES, WORST)
    assert envs.reward_space == envs.unwrapped.reward_space == REWARDS
    assert envs.reward_dim == 3
    rng = np.random.default_rng(0)
    envs.reset()
    endings = 0
    for _ in range(120):
        actions = masked_sample(envs.unwrapped.action_masks(), rng)
        actions = np.where(rng.random(5) < 0.02, rng.integers(5, size=5), actions)
        _, rewards, terminations, _, infos = envs.step(actions)
        assert rewards.dtype == np.float32
        assert rewards.shape == (5, 3)
        assert not rewards[~terminations].any()
        for row in np.flatnonzero(terminations):
            architecture = infos.get("final_info", infos)["architecture"][row]
            np.testing.assert_array_equal(rewards[row], expected_rewards(envs.unwrapped.search_space, architecture))
        endings += terminations.sum()
        if mode is AutoresetMode.DISABLED and terminations.any():
            envs.reset(options={"reset_mask": terminations})
    assert endings > 10


@pytest.mark.parametrize("vector", [False, True])
def test_objectives_that_are_none(vector: bool) -> None:
    wrapper: Any = vector_wrappers.VectorReward if vector else VectorReward
    env = make_native("size") if vector else make("size")
    with pytest.raises(ValueError, match="weights must map columns"):
        wrapper(env, {}, ())
    with pytest.raises(ValueError, match="worst must be 3 numbers, one for each weight"):
        wrapper(env, OBJECTIVES, (0.0,))
    wrapped = wrapper(env, {"latency": -1.0}, (-9.0,))
    wrapped.reset()
    action = np.ones(4, dtype=np.int64) if vector else 1
    for _ in range(4):
        wrapped.step(action)
    with pytest.raises(ValueError, match="metric 'latency', but the evaluator reports accuracy, loss, parameters"):
        wrapped.step(action)


def test_vector_reward_by_gymnasium() -> None:
    env = VectorReward(gymnasium.make("NAS-Size-v0", evaluator="constant"), {"accuracy": 2.0}, [0.0])
    assert env.spec is not None
    assert gymnasium.make(env.spec).get_wrapper_attr("reward_dim") == 1


# ---------------------------------------------------------------------- Stable-Baselines3


@pytest.mark.slow
@pytest.mark.parametrize("on_invalid", ["remap", "penalise"])
@pytest.mark.parametrize(
    ("observation", "mode"), [("onehot", "SameStep"), ("tokens", "NextStep"), ("float-tokens", "Disabled")]
)
@pytest.mark.parametrize("space", SPACES)
def test_sb3_rollouts_equal_those_of_scalar_environments(
    space: Any, observation: str, mode: str, on_invalid: str
) -> None:
    from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

    from nas_gym.envs.stable_baselines import SB3VecEnv

    arguments = {"observation": observation, "on_invalid": on_invalid}
    native = VecMonitor(SB3VecEnv(make_native(space, 6, autoreset_mode=mode, **arguments)))
    dummy = VecMonitor(DummyVecEnv([lambda: make(space, **arguments)] * 6))
    assert native.observation_space == dummy.observation_space
    assert native.action_space == dummy.action_space
    rng = np.random.default_rng(0)
    for envs in (native, dummy):
        envs.seed(4)
        envs.set_options({"architecture": [0, 1]})
    shown, expected = native.reset(), dummy.reset()
    endings = illegal = 0
    for _ in range(120):
        np.testing.assert_array_equal(shown, expected)
        assert shown.dtype == expected.dtype
        same_infos(native.venv.reset_infos, dummy.venv.reset_infos)
        masks = np.stack(native.env_method("action_masks"))
        np.testing.assert_array_equal(masks, np.stack(dummy.env_method("action_masks")))
        actions = masked_sample(masks, rng)
        actions = np.where(rng.random(6) < 0.05, rng.integers(masks.shape[1], size=6), actions)
        illegal += (~masks[np.arange(6), actions]).sum()
        shown, rewards, dones, infos = native.step(actions)
        expected, expected_rewards, expected_dones, expected_infos = dummy.step(actions)
        np.testing.assert_array_equal(rewards, expected_rewards)
        assert rewards.dtype == expected_rewards.dtype
        np.testing.assert_array_equal(dones, expected_dones)
        for done, info, expected_info in zip(dones, infos, expected_infos, strict=True):
            if done:
                for each in (info, expected_info):
                    each["episode"].pop("t")
                same_infos([info], [expected_info])
            else:
                assert info == ({"invalid_action": True} if expected_info["invalid_action"] else {})
        endings += dones.sum()
    assert endings > 10
    assert (illegal > 0) == (space != "bench201")


def same_infos(actual: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    for one, other in zip(actual, expected, strict=True):
        assert one.keys() == other.keys()
        for key, value in other.items():
            assert type(one[key]) is (bool if key == "invalid_action" else type(value)), key
            if isinstance(value, dict):
                assert one[key] == value
            else:
                np.testing.assert_array_equal(one[key], value)


def test_sb3_attributes_and_methods() -> None:
    from nas_gym.envs.stable_baselines import SB3VecEnv

    envs = SB3VecEnv(gymnasium.make_vec("NAS-Size-v0", num_envs=3, evaluator="constant", render_mode="rgb_array"))
    assert envs.has_attr("action_masks")
    assert not envs.has_attr("colour")
    assert envs.get_attr("render_mode") == ["rgb_array"] * 3
    assert envs.get_attr("search_space", 1) == [make_space("size")]
    assert envs.env_is_wrapped(gymnasium.Wrapper, [0, 2]) == [False, False]
    envs.set_attr("label", 7)
    assert envs.get_attr("label") == [7, 7, 7]
    with pytest.raises(ValueError, match="'label' can only be set for all"):
        envs.set_attr("label", 8, indices=1)
    with pytest.raises(AttributeError, match="action_masks, render; got 'step'"):
        envs.env_method("step", 0)
    envs.reset()
    assert [mask.tolist() for mask in envs.env_method("action_masks", indices=[2])] == [[True] * 8]
    images = envs.get_images()
    assert [image.shape for image in images] == [(1600, 800, 3)] * 3
    assert envs.render().shape == (3200, 1600, 3)  # tiled, two by two
    envs.set_options([{"architecture": [1]}, {}, {}])
    with pytest.raises(ValueError, match="options must be the same"):
        envs.reset()
    envs.close()


def test_sb3_takes_native_environments_alone() -> None:
    from nas_gym.envs.stable_baselines import SB3VecEnv

    with pytest.raises(ValueError, match="envs must be a ConstructionVectorEnv"):
        SB3VecEnv(SyncVectorEnv([lambda: make("size")]))


def test_make_sb3_vec() -> None:
    """As `make_vec_env` of scalar environments, through wrappers and time limits."""
    from stable_baselines3.common.env_util import make_vec_env

    arguments = {"evaluator": "constant", "objective": "accuracy"}
    native = nas_gym.make_sb3_vec(
        "NAS-Cell-v0", 3, wrapper=MaskedObservation.for_rllib, max_episode_steps=7, **arguments
    )
    scalar = make_vec_env(
        lambda: MaskedObservation.for_rllib(gymnasium.make("NAS-Cell-v0", max_episode_steps=7, **arguments)), 3
    )
    assert native.unwrapped.envs.unwrapped.autoreset_mode is AutoresetMode.SAME_STEP
    assert native.observation_space == scalar.observation_space
    shown, expected = native.reset(), scalar.reset()
    for step in range(15):
        for key in ("observations", "action_mask"):
            np.testing.assert_array_equal(shown[key], expected[key])
        actions = [int(mask.argmax()) for mask in expected["action_mask"]]
        shown, _, dones, infos = native.step(np.array(actions))
        expected, _, expected_dones, expected_infos = scalar.step(actions)
        np.testing.assert_array_equal(dones, expected_dones)
        assert dones.all() == (step % 7 == 6)
        for info, expected_info in zip(infos, expected_infos, strict=True):
            assert info.get("TimeLimit.truncated", False) == expected_info["TimeLimit.truncated"]
            if dones.all():
                assert info["episode"]["l"] == expected_info["episode"]["l"] == 7
                last, wanted = info["terminal_observation"], expected_info["terminal_observation"]
                np.testing.assert_array_equal(last["observations"], wanted["observations"])
                np.testing.assert_array_equal(last["action_mask"], wanted["action_mask"])


@pytest.mark.slow
def test_maskable_ppo_learns_on_many_environments() -> None:
    """256 sub-environments, whose reward is the share of choices 1 among the decisions: every choice counts."""
    from sb3_contrib import MaskablePPO
    from stable_baselines3.common.vec_env import VecMonitor

    from nas_gym.envs.stable_baselines import SB3VecEnv

    space = make_space("cell:darts")
    evaluator = FunctionEvaluator(space, lambda tokens: (tokens == 1).mean(axis=1))
    envs = SB3VecEnv(gymnasium.make_vec("NAS-Cell-v0", num_envs=256, space=space, evaluator=evaluator))
    invalid = []

    class Watched(VecMonitor):
        def step_wait(self) -> Any:
            step = super().step_wait()
            invalid.append(sum("invalid_action" in info and info["invalid_action"] for info in step[3]))
            return step

    model = MaskablePPO("MlpPolicy", Watched(envs), n_steps=32, batch_size=1024, n_epochs=4, seed=0, device="cpu")
    first = model.learn(256 * 32).ep_info_buffer
    before = np.mean([episode["r"] for episode in first])
    model.learn(256 * 32 * 12, reset_num_timesteps=False)
    after = np.mean([episode["r"] for episode in model.ep_info_buffer])
    assert sum(invalid) == 0
    assert after > before + 0.1
