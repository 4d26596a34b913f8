"""Episodes that `max_episode_steps` ends: the native vector form and SyncVectorEnv are equal, agents refuse them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from env_checks import assert_same, draw_actions, stacked
from gymnasium.vector import AutoresetMode

from nas_gym.agents import make_agent

ROWS: list[tuple[str, int, dict[str, Any]]] = [
    ("NAS-Bench201-v0", 4, {}),
    ("NAS-Bench201-v0", 6, {}),  # truncated and terminated in the same step
    ("NAS-Chain-v0", 5, {"on_invalid": "penalise"}),
    ("NAS-MultiTask-v0", 3, {"observation": "dict"}),
    ("NAS-Transform-v0", 3, {"restart_after": 2, "observation": "tokens"}),
    ("NAS-Transform-v0", 3, {"reward": "gain"}),
]


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize(("env_id", "steps", "arguments"), ROWS)
def test_native_equals_time_limits(env_id: str, steps: int, arguments: dict[str, Any], mode: AutoresetMode) -> None:
    arguments = {"evaluator": "constant", "max_episode_steps": steps, "disable_env_checker": True, **arguments}
    num_envs = 1 if "restart_after" in arguments else 3
    modes = {"autoreset_mode": mode}
    sync = gymnasium.make_vec(env_id, num_envs, vectorization_mode="sync", vector_kwargs=modes, **arguments)
    del arguments["disable_env_checker"]
    native = gymnasium.make_vec(env_id, num_envs, **modes, **arguments)
    rng = np.random.default_rng(0)
    expected, actual = sync.reset(seed=5), native.reset(seed=5)
    assert_same(actual, expected)
    truncated = 0
    for step in range(25):
        actions = draw_actions(native.action_masks(), 0.1, rng)
        expected, actual = stacked(sync.step(actions)), native.step(actions)
        assert_same(actual, expected)
        truncated += expected[3].sum()
        ended = expected[2] | expected[3]
        reset = ended if mode is AutoresetMode.DISABLED else (np.arange(num_envs) == 0) & (step == 7)
        if reset.any():  # which moves the sub-environments apart where they are in lockstep
            options = {"architecture": [0]} if step == 7 else {}
            expected = sync.reset(options={**options, "reset_mask": reset.copy()})
            assert_same(native.reset(options={**options, "reset_mask": reset}), expected)
    assert truncated > 2


@pytest.mark.parametrize("steps", [0, True, 2.5, "3"])
def test_limits_that_are_none(steps: Any) -> None:
    with pytest.raises(ValueError, match="max_episode_steps must be at least 1"):
        gymnasium.make_vec("NAS-Bench201-v0", 2, evaluator="constant", max_episode_steps=steps)


@pytest.mark.parametrize("make", [gymnasium.make, gymnasium.make_vec])
def test_agents_need_whole_episodes(make: Any) -> None:
    agent = make_agent("random", make("NAS-Bench201-v0", evaluator="constant", max_episode_steps=3))
    with pytest.raises(ValueError, match="env truncates episodes after 3 of 6 decisions"):
        agent.learn(6)
    whole = make("NAS-Bench201-v0", evaluator="constant", max_episode_steps=6)
    assert len(make_agent("random", whole).learn(6)) == 6
