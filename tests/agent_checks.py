"""Trials as agents are told of them, for tests."""

from __future__ import annotations

import numpy as np

from nas_gym.agents import Proposal, Trials
from nas_gym.spaces import Tokens


def answered(proposal: Proposal, rewards: np.ndarray) -> Trials:
    """The trials of a proposal."""
    return Trials(proposal.ids, proposal.tokens, rewards)


def foreign(tokens: Tokens, rewards: np.ndarray) -> Trials:
    """Trials that the agent has not proposed."""
    return Trials(np.full(len(tokens), -1), tokens, rewards)
