"""Random actions, legal and not, on every environment: what must hold whatever an agent does."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from nas_gym.envs import masked_sample
from nas_gym.evaluators import FunctionEvaluator
from nas_gym.registration import ENVIRONMENTS
from nas_gym.spaces import SearchSpace, Tokens, TransformationSpace, make_space

NUM_ENVS, STEPS = 500, 200  # 10^5 actions
SCALAR_STEPS = 1500
WORST = 0.0

ids = pytest.mark.parametrize("row", ENVIRONMENTS, ids=[row.id for row in ENVIRONMENTS])


def score(tokens: Tokens) -> NDArray[np.float64]:
    """A number in (0, 1) for each sequence, never that of a penalty."""
    return (1 + (tokens + 1) @ (np.arange(1, tokens.shape[1] + 1) * 7919) % 997) / 1000


def evaluator(space: SearchSpace) -> FunctionEvaluator:
    def checked(tokens: Tokens) -> NDArray[np.float64]:
        space.check(tokens)
        return score(tokens)

    return FunctionEvaluator(space, checked)


def random_actions(masks: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    """Each row legal or anything at all, half and half in half of the steps, else legal for nearly all."""
    illegal = rng.random(len(masks)) < (0.5 if rng.random() < 0.5 else 0.002)
    return np.where(illegal, rng.integers(masks.shape[1], size=len(masks)), masked_sample(masks, rng))


@pytest.mark.slow
@ids
@pytest.mark.parametrize("on_invalid", ["remap", "penalise"])
@pytest.mark.parametrize("mode", AutoresetMode)
def test_native(row: Any, mode: AutoresetMode, on_invalid: str) -> None:
    space = make_space(row.space)
    num_envs = 20 if isinstance(space, TransformationSpace) else NUM_ENVS  # whose masks take a while each
    envs = gymnasium.make_vec(
        row.id,
        num_envs=num_envs,
        evaluator=evaluator(space),
        objective="accuracy",
        autoreset_mode=mode,
        on_invalid=on_invalid,
        observation="tokens" if on_invalid == "remap" else "onehot",
    )
    rng = np.random.default_rng(7)
    rows = np.arange(num_envs)
    observations, infos = envs.reset(seed=0)
    waiting = np.zeros(num_envs, dtype=bool)  # those that the next step restarts, whatever the action
    episodes = illegal = 0
    for _ in range(STEPS):
        masks = envs.action_masks()
        assert masks.any(axis=1).all()
        assert envs.observation_space.contains(observations)
        actions = random_actions(masks, rng)
        expected_invalid = ~masks[rows, actions] & ~waiting
        observations, rewards, terminations, truncations, infos = envs.step(actions)
        assert not truncations.any()
        assert infos["action_mask"].dtype == np.int8
        np.testing.assert_array_equal(infos["action_mask"] != 0, envs.action_masks())
        last = infos.get("final_info", infos)
        flags = np.where(terminations, last["invalid_action"], infos["invalid_action"])
        np.testing.assert_array_equal(flags, expected_invalid)
        assert not rewards[~terminations].any()
        assert not (terminations & waiting).any()
        if on_invalid == "penalise":
            assert terminations[expected_invalid].all()
        if terminations.any():
            assert last["_architecture"].tolist() == terminations.tolist()
            architectures = last["architecture"][terminations]
            penalised = flags[terminations] & (on_invalid == "penalise")
            check_ended(space, architectures, penalised)
            expected = np.where(penalised, WORST, score(np.maximum(architectures, 0)))
            np.testing.assert_array_equal(rewards[terminations], expected)
        episodes += terminations.sum()
        illegal += expected_invalid.sum()
        waiting = terminations & (mode is AutoresetMode.NEXT_STEP)
        if mode is AutoresetMode.DISABLED and terminations.any():
            observations, _ = envs.reset(options={"reset_mask": terminations})
    assert episodes >= num_envs
    if (space.choice_counts < space.num_choices).any():
        assert illegal > 0
    elif space.prefix_free:
        assert illegal == 0


def check_ended(space: SearchSpace, architectures: Tokens, penalised: NDArray[np.bool_]) -> None:
    """What ended whole is legal; what a penalty ended is undecided from some decision on."""
    space.check(architectures[~penalised])
    undecided = architectures == -1
    assert undecided[penalised, -1].all()
    assert (np.diff(undecided.astype(int), axis=1) >= 0).all()


@pytest.mark.slow
@ids
@pytest.mark.parametrize("on_invalid", ["remap", "penalise"])
def test_scalar(row: Any, on_invalid: str) -> None:
    space = make_space(row.space)
    env = gymnasium.make(row.id, evaluator=evaluator(space), objective="accuracy", on_invalid=on_invalid)
    rng = np.random.default_rng(8)
    observation, info = env.reset(seed=0)
    episodes = 0
    for _ in range(SCALAR_STEPS):
        mask = env.unwrapped.action_masks()
        assert mask.any()
        assert env.observation_space.contains(observation)
        np.testing.assert_array_equal(info["action_mask"] != 0, mask)
        action = random_actions(mask[None], rng)[0]
        observation, reward, terminated, truncated, info = env.step(action)
        assert not truncated
        assert info["invalid_action"] == (not mask[action])
        if not terminated:
            assert reward == 0
            assert not (info["invalid_action"] and on_invalid == "penalise")
            continue
        episodes += 1
        penalised = info["invalid_action"] and on_invalid == "penalise"
        check_ended(space, info["architecture"][None], np.array([penalised]))
        assert reward == (WORST if penalised else score(info["architecture"][None])[0])
        observation, info = env.reset()
    assert episodes > 5
