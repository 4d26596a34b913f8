"""The zoo of search agents. They see environments and search spaces only; those with networks are imported on use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .agent import AGENTS, Agent, Callback, SearchResult, agent_class, load_hyperparameters, make_agent, play

if TYPE_CHECKING:
    from .controllers import LSTMController
    from .eas import EAS
    from .local_search import LocalSearch
    from .ppo import PPO
    from .random_search import RandomSearch
    from .regularized_evolution import RegularizedEvolution
    from .reinforce import Reinforce
    from .successive_halving import SuccessiveHalving
    from .tournament_evolution import TournamentEvolution

_LAZY = {
    "EAS": ".eas",
    "LSTMController": ".controllers",
    "LocalSearch": ".local_search",
    "PPO": ".ppo",
    "RandomSearch": ".random_search",
    "RegularizedEvolution": ".regularized_evolution",
    "Reinforce": ".reinforce",
    "SuccessiveHalving": ".successive_halving",
    "TournamentEvolution": ".tournament_evolution",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name], __name__), name)


__all__ = [
    "AGENTS",
    "EAS",
    "PPO",
    "Agent",
    "Callback",
    "LSTMController",
    "LocalSearch",
    "RandomSearch",
    "RegularizedEvolution",
    "Reinforce",
    "SearchResult",
    "SuccessiveHalving",
    "TournamentEvolution",
    "agent_class",
    "load_hyperparameters",
    "make_agent",
    "play",
]
