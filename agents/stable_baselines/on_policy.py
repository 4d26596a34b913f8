"""PPO, A2C, TRPO, masked and recurrent PPO."""

from __future__ import annotations

from typing import Any

import numpy as np
import sb3_contrib
import stable_baselines3
import torch
from numpy.typing import NDArray
from sb3_contrib.common.recurrent.type_aliases import RNNStates

from nas_gym.agents.stable_baselines.agent import Columns, Rollout, SB3Agent
from nas_gym.agents.stable_baselines.settings import settings_of
from nas_gym.spaces import UNDECIDED, Tokens
from nas_gym.types import Floats


class SB3OnPolicyAgent(SB3Agent):
    """An algorithm that learns from each rollout once, and by its policy alone."""

    def _rollout_arguments(self) -> dict[str, Any]:
        return {"n_steps": self.hyperparameters.batch_size * self.space.length}

    def _step(self, observations: NDArray[Any], legal: NDArray[np.bool_], memory: Any) -> tuple[Columns, Any]:
        with torch.no_grad():
            found = self.model.policy(self._tensor(observations))
        return self._columns(*found), None

    @staticmethod
    def _columns(actions: torch.Tensor, values: torch.Tensor, log_probs: torch.Tensor) -> Columns:
        columns = {"actions": actions, "values": values.flatten(), "log_probs": log_probs}
        return {name: column.cpu().numpy() for name, column in columns.items()}

    def _update(self, reported: list[tuple[Rollout, float]], decisions: int) -> None:
        model = self.model
        # One episode behind the other, as one sub-environment would have played them. The algorithms read the
        # rollouts of several in the same order, one sub-environment after the other.
        model.rollout_buffer = buffer = self._make_buffer(decisions)
        for episode, reward in reported:
            for step in range(len(episode)):
                at = {name: column[step : step + 1] for name, column in episode.columns.items()}
                buffer.add(
                    at["observations"],
                    at["actions"][:, None],
                    np.array([reward if step == len(episode) - 1 else 0.0]),
                    np.array([step == 0]),
                    torch.from_numpy(at["values"]),
                    torch.from_numpy(at["log_probs"]),
                    **self._extras(at),
                )
        buffer.compute_returns_and_advantage(torch.zeros(1), np.ones(1))
        model.num_timesteps += decisions
        self._progress()
        self._train(decisions)

    def _train(self, decisions: int) -> None:
        size = getattr(self.model, "batch_size", None)
        if size is not None:
            # A last minibatch of one would have no standard deviation of advantages, and spoil the network.
            self.model.batch_size = next(b for b in range(size, size + decisions + 2) if decisions % b != 1)
        self.model.train()
        if size is not None:
            self.model.batch_size = size

    def _make_buffer(self, size: int) -> Any:
        model = self.model
        return type(model.rollout_buffer)(
            size,
            model.observation_space,
            model.action_space,
            device=model.device,
            gae_lambda=model.gae_lambda,
            gamma=model.gamma,
        )

    def _extras(self, at: Columns) -> dict[str, Any]:
        """Further arguments of the buffer's `add`, from the columns of one decision."""
        return {}

    def _probabilities(self, prefixes: Tokens, positions: NDArray[np.int64], legal: NDArray[np.bool_]) -> Floats:
        return probabilities_of(self.model.policy.get_distribution(self._tensor(self._observe(prefixes))))


def probabilities_of(distribution: Any) -> Floats:
    """The probabilities float64[B, A] of a categorical distribution of Stable-Baselines3."""
    found: Floats = distribution.distribution.probs.double().cpu().numpy()
    return found


class SB3PPO(SB3OnPolicyAgent):
    """Proximal policy optimisation of Stable-Baselines3: clipped steps, several passes over each rollout.

    Source: Schulman et al. 2017, "Proximal Policy Optimization Algorithms"; Raffin et al. 2021, "Stable-Baselines3".
    """

    algorithm = stable_baselines3.PPO
    Hyperparameters = settings_of(stable_baselines3.PPO)


class SB3A2C(SB3OnPolicyAgent):
    """Advantage actor-critic of Stable-Baselines3: one gradient step a rollout.

    Source: Mnih et al. 2016, "Asynchronous Methods for Deep Reinforcement Learning", here synchronous; Raffin et al.
    2021, "Stable-Baselines3".
    """

    algorithm = stable_baselines3.A2C
    Hyperparameters = settings_of(stable_baselines3.A2C)


class SB3TRPO(SB3OnPolicyAgent):
    """Trust region policy optimisation of sb3-contrib: natural gradient steps of bounded divergence.

    Source: Schulman et al. 2015, "Trust Region Policy Optimization"; Raffin et al. 2021, "Stable-Baselines3".
    """

    algorithm = sb3_contrib.TRPO
    Hyperparameters = settings_of(sb3_contrib.TRPO)


class SB3MaskablePPO(SB3OnPolicyAgent):
    """Proximal policy optimisation of sb3-contrib over legal choices only.

    Source: Huang & Ontanon 2022, "A Closer Look at Invalid Action Masking in Policy Gradient Algorithms"; Schulman et
    al. 2017.
    """

    algorithm = sb3_contrib.MaskablePPO
    Hyperparameters = settings_of(sb3_contrib.MaskablePPO)

    def _step(self, observations: NDArray[Any], legal: NDArray[np.bool_], memory: Any) -> tuple[Columns, Any]:
        with torch.no_grad():
            found = self.model.policy(self._tensor(observations), action_masks=legal)
        return {**self._columns(*found), "action_masks": legal}, None

    def _extras(self, at: Columns) -> dict[str, Any]:
        return {"action_masks": at["action_masks"]}

    def _probabilities(self, prefixes: Tokens, positions: NDArray[np.int64], legal: NDArray[np.bool_]) -> Floats:
        observations = self._tensor(self._observe(prefixes))
        return probabilities_of(self.model.policy.get_distribution(observations, action_masks=legal))


STATES = ("hidden_pi", "cell_pi", "hidden_vf", "cell_vf")


class SB3RecurrentPPO(SB3OnPolicyAgent):
    """Proximal policy optimisation of sb3-contrib with an LSTM, which remembers the decisions so far.

    Source: Schulman et al. 2017; Raffin et al. 2021, "Stable-Baselines3".
    """

    algorithm = sb3_contrib.RecurrentPPO
    policy_name = "MlpLstmPolicy"
    Hyperparameters = settings_of(sb3_contrib.RecurrentPPO)

    def _step(self, observations: NDArray[Any], legal: NDArray[np.bool_], memory: Any) -> tuple[Columns, Any]:
        n = len(observations)
        states = self._no_memory(n) if memory is None else memory
        starts = torch.full((n,), float(memory is None), device=self.model.device)
        with torch.no_grad():
            *found, following = self.model.policy(self._tensor(observations), states, starts)
        # Noted as they were before the step: what the update starts from.
        before = zip(STATES, (*states.pi, *states.vf), strict=True)
        noted = {name: state.transpose(0, 1).cpu().numpy().copy() for name, state in before}
        return {**self._columns(*found), **noted}, following

    def _no_memory(self, n: int) -> RNNStates:
        lstm = self.model.policy.lstm_actor
        pi, vf = (
            tuple(torch.zeros(lstm.num_layers, n, lstm.hidden_size, device=self.model.device) for _ in range(2))
            for _ in range(2)
        )
        return RNNStates(pi, vf)

    def _make_buffer(self, size: int) -> Any:
        model = self.model
        lstm = model.policy.lstm_actor
        return type(model.rollout_buffer)(
            size,
            model.observation_space,
            model.action_space,
            (size, lstm.num_layers, 1, lstm.hidden_size),
            device=model.device,
            gae_lambda=model.gae_lambda,
            gamma=model.gamma,
        )

    def _extras(self, at: Columns) -> dict[str, Any]:
        hidden_pi, cell_pi, hidden_vf, cell_vf = (torch.from_numpy(at[name]).transpose(0, 1) for name in STATES)
        return {"lstm_states": RNNStates((hidden_pi, cell_pi), (hidden_vf, cell_vf))}

    def _probabilities(self, prefixes: Tokens, positions: NDArray[np.int64], legal: NDArray[np.bool_]) -> Floats:
        """Decides again what the prefixes have decided, for the memory of it."""
        found = np.zeros(legal.shape)
        states = self._no_memory(len(prefixes)).pi
        for position in range(int(positions.max(initial=-1)) + 1):
            seen = np.where(np.arange(self.space.length) < position, prefixes, UNDECIDED)
            starts = torch.full((len(prefixes),), float(position == 0), device=self.model.device)
            distribution, states = self.model.policy.get_distribution(self._tensor(self._observe(seen)), states, starts)
            here = positions == position
            found[here] = probabilities_of(distribution)[here]
        return found
