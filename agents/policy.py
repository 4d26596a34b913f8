"""Agents that have a policy: a distribution of the next decision after those taken."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_gym.agents.agent import Agent
from nas_gym.spaces import UNDECIDED, Tokens, draw
from nas_gym.types import Floats


class PolicyAgent(Agent):
    """An agent that can also act in an environment, one decision at a time."""

    @abstractmethod
    def policy(self, tokens: Tokens, positions: NDArray[np.int64]) -> Floats:
        """The probabilities float64[B, A] of the next choice after prefixes.

        Args:
            tokens: int64[B, T]; only columns before a row's position are read.
            positions: int64[B], the decision to be taken in each row.
        """

    def act(
        self, observation: NDArray[Any], action_mask: NDArray[Any] | None = None, deterministic: bool = False
    ) -> NDArray[np.int64]:
        """Chooses the next action from what the environment shows, one-hot or tokens.

        Args:
            observation: one observation, or a batch [B, ...].
            action_mask: [A] or [B, A], nonzero where legal; without it, what the space finds legal.
            deterministic: take the likeliest legal action instead of drawing one.

        Returns:
            int64, 0-dimensional for one observation, or [B]. An episode that is over gets action 0.

        Raises:
            ValueError: the observation is of neither form, or a mask forbids everything.
        """
        tokens = self._tokens(np.asarray(observation))
        single = tokens.ndim == 1
        tokens = np.atleast_2d(tokens)
        positions = (tokens != UNDECIDED).sum(axis=1)
        playing = positions < self.space.length
        actions = np.zeros(len(tokens), dtype=np.int64)
        tokens, positions = tokens[playing], positions[playing]
        if len(tokens):
            legal = self.space.legal(tokens, positions)
            if action_mask is not None:
                legal &= np.atleast_2d(np.asarray(action_mask, dtype=bool))[playing]
            if not legal.any(axis=1).all():
                raise ValueError(f"action_mask leaves no legal action: {action_mask!r}")
            # A legal choice may underflow to zero; a tiny share keeps it possible.
            weights = np.where(legal, self.policy(tokens, positions) + np.finfo(np.float64).tiny, 0.0)
            actions[playing] = weights.argmax(axis=1) if deterministic else draw(weights, self.rng)
        return actions[0] if single else actions

    def entropy(self, episodes: int = 256) -> float:
        """The entropy of the policy over whole architectures, in nats, estimated by episodes that it plays.

        Args:
            episodes: how many; the same are drawn at each call, and the agent's own randomness is left alone.
        """
        space, rng = self.current_space, np.random.default_rng(0)
        tokens, log_probs = np.zeros((episodes, space.length), dtype=np.int64), np.zeros(episodes)
        for t in range(space.length):
            probabilities = self.policy(tokens, np.full(episodes, t))
            weights = np.where(space.legal(tokens, t), probabilities + np.finfo(np.float64).tiny, 0.0)
            tokens[:, t] = draw(weights, rng)
            log_probs += np.log(weights[np.arange(episodes), tokens[:, t]] / weights.sum(axis=1))
        return float(-log_probs.mean())

    def _tokens(self, observation: NDArray[Any]) -> Tokens:
        """int64[..., T] of an observation of either form, -1 where undecided."""
        length, choices = self.space.length, self.space.num_choices
        if np.issubdtype(observation.dtype, np.floating) and observation.shape[-1:] == (length * choices,):
            onehot = observation.reshape(*observation.shape[:-1], length, choices)
            return np.where(onehot.any(axis=-1), onehot.argmax(axis=-1), UNDECIDED)
        if observation.dtype.kind in "iuf" and observation.shape[-1:] == (length,):
            return observation.astype(np.int64)
        raise ValueError(
            f"observation must be one-hot, floats of shape (..., {length * choices}), or tokens, numbers of shape "
            f"(..., {length}); got {observation.dtype} of shape {observation.shape}"
        )
