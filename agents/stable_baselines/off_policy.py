"""DQN and QR-DQN."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import sb3_contrib
import stable_baselines3
import torch
from numpy.typing import NDArray

from nas_gym.agents.stable_baselines.agent import Columns, Rollout, SB3Agent
from nas_gym.agents.stable_baselines.settings import settings_of
from nas_gym.spaces import Tokens
from nas_gym.types import Floats


class SB3OffPolicyAgent(SB3Agent):
    """An algorithm that learns the value of actions from a memory of all decisions, and explores by chance."""

    COUNTERS = (*SB3Agent.COUNTERS, "_n_calls", "exploration_rate")

    def _rollout_arguments(self) -> dict[str, Any]:
        return {"train_freq": self.hyperparameters.batch_size * self.space.length}

    def _step(self, observations: NDArray[Any], legal: NDArray[np.bool_], memory: Any) -> tuple[Columns, Any]:
        model = self.model
        model._last_obs = observations
        actions, _ = model._sample_action(model.learning_starts, None, len(observations))
        return {"actions": actions.astype(np.int64)}, None

    def _count(self, steps: int) -> None:
        self.model.num_timesteps += steps
        self._progress()
        for _ in range(steps):
            self.model._on_step()

    def _update(self, reported: list[tuple[Rollout, float]], decisions: int) -> None:
        model = self.model
        for episode, reward in reported:
            observations = episode.columns["observations"]
            following = np.concatenate([observations[1:], self._observe(episode.tokens[None])])
            for step, action in enumerate(episode.columns["actions"]):
                last = step == len(episode) - 1
                earned, done = np.array([reward if last else 0.0]), np.array([last])
                model.replay_buffer.add(
                    observations[step : step + 1], following[step : step + 1], action, earned, done, [{}]
                )
        if model.num_timesteps > model.learning_starts:
            steps = model.gradient_steps if model.gradient_steps >= 0 else decisions
            if steps:
                model.train(batch_size=model.batch_size, gradient_steps=steps)

    def _probabilities(self, prefixes: Tokens, positions: NDArray[np.int64], legal: NDArray[np.bool_]) -> Floats:
        """Greedy but for the exploration rate, as the algorithm predicts; while it only explores, uniform."""
        model, choices = self.model, self.space.num_choices
        rate = 1.0 if model.num_timesteps < model.learning_starts else model.exploration_rate
        best = model.policy._predict(self._tensor(self._observe(prefixes)), deterministic=True).cpu().numpy()
        greedy = best.reshape(-1, 1) == np.arange(choices)
        return np.asarray(rate / choices + (1 - rate) * greedy, dtype=np.float64)

    REPLAY: ClassVar[tuple[str, ...]] = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")

    def state_dict(self) -> dict[str, Any]:
        """The replay buffer as well."""
        buffer = self.model.replay_buffer
        filled = buffer.buffer_size if buffer.full else buffer.pos
        replay = {name: torch.from_numpy(getattr(buffer, name)[:filled].copy()) for name in self.REPLAY}
        return {**super().state_dict(), "replay": {"pos": buffer.pos, "full": buffer.full, **replay}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        buffer = self.model.replay_buffer
        buffer.pos, buffer.full = int(state["replay"]["pos"]), bool(state["replay"]["full"])
        for name in self.REPLAY:
            getattr(buffer, name)[: len(state["replay"][name])] = state["replay"][name].numpy()


class SB3DQN(SB3OffPolicyAgent):
    """Deep Q-learning of Stable-Baselines3: the value of every choice, learned from replayed decisions.

    Source: Mnih et al. 2015, "Human-level control through deep reinforcement learning"; Raffin et al. 2021,
    "Stable-Baselines3".
    """

    algorithm = stable_baselines3.DQN
    Hyperparameters = settings_of(stable_baselines3.DQN, "n_steps")


class SB3QRDQN(SB3OffPolicyAgent):
    """Quantile-regression DQN of sb3-contrib: the distribution of the value of every choice.

    Source: Dabney et al. 2018, "Distributional Reinforcement Learning with Quantile Regression"; Raffin et al. 2021,
    "Stable-Baselines3".
    """

    algorithm = sb3_contrib.QRDQN
    Hyperparameters = settings_of(sb3_contrib.QRDQN, "n_steps")
