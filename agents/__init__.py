"""The zoo of search agents. They see environments and search spaces only; those with networks are imported on use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .agent import Agent, make_agent
from .budget import Budget
from .callback import Callback
from .play import play
from .policy import PolicyAgent
from .registry import AGENTS, agent_class, agent_name, load_hyperparameters, register_agent
from .result import SearchResult
from .trial import Proposal, Trials

if TYPE_CHECKING:
    from .baselines.bohb import BOHB
    from .baselines.local_search import LocalSearch
    from .baselines.random_search import RandomSearch
    from .baselines.successive_halving import SuccessiveHalving
    from .baselines.tpe import TPE
    from .controllers.controller import Controller
    from .controllers.lstm import LSTMController
    from .controllers.softmaxes import IndependentSoftmaxes
    from .differentiable.agent import DifferentiableAgent, RelaxedAgent
    from .differentiable.darts import DARTS
    from .differentiable.drnas import DrNAS
    from .differentiable.gdas import GDAS
    from .differentiable.rsps import RSPS
    from .differentiable.snas import SNAS
    from .evolution.nsga2 import NSGA2
    from .evolution.regularized_evolution import RegularizedEvolution
    from .evolution.tournament_evolution import TournamentEvolution
    from .planning.gflownet import GFlowNet
    from .planning.mcts import MCTS
    from .policy_gradient.dyna import Dyna
    from .policy_gradient.eas import EAS
    from .policy_gradient.multitask import MultiTask
    from .policy_gradient.ppo import PPO
    from .policy_gradient.reinforce import Reinforce
    from .predictor_based.agent import PredictorAgent
    from .predictor_based.bananas import Bananas
    from .predictor_based.bayesian import Bayesian
    from .predictor_based.bogcn import BOGCN
    from .predictor_based.npenas import NPENAS
    from .stable_baselines.off_policy import SB3DQN, SB3QRDQN
    from .stable_baselines.on_policy import SB3A2C, SB3PPO, SB3TRPO, SB3MaskablePPO, SB3RecurrentPPO

_LAZY = {
    "DARTS": ".differentiable.darts",
    "DifferentiableAgent": ".differentiable.agent",
    "DrNAS": ".differentiable.drnas",
    "GDAS": ".differentiable.gdas",
    "RSPS": ".differentiable.rsps",
    "RelaxedAgent": ".differentiable.agent",
    "SNAS": ".differentiable.snas",
    "BOGCN": ".predictor_based.bogcn",
    "Bananas": ".predictor_based.bananas",
    "Bayesian": ".predictor_based.bayesian",
    "BOHB": ".baselines.bohb",
    "Controller": ".controllers.controller",
    "Dyna": ".policy_gradient.dyna",
    "EAS": ".policy_gradient.eas",
    "GFlowNet": ".planning.gflownet",
    "IndependentSoftmaxes": ".controllers.softmaxes",
    "LSTMController": ".controllers.lstm",
    "LocalSearch": ".baselines.local_search",
    "MCTS": ".planning.mcts",
    "MultiTask": ".policy_gradient.multitask",
    "NPENAS": ".predictor_based.npenas",
    "NSGA2": ".evolution.nsga2",
    "PPO": ".policy_gradient.ppo",
    "PredictorAgent": ".predictor_based.agent",
    "RandomSearch": ".baselines.random_search",
    "RegularizedEvolution": ".evolution.regularized_evolution",
    "Reinforce": ".policy_gradient.reinforce",
    "SB3A2C": ".stable_baselines.on_policy",
    "SB3DQN": ".stable_baselines.off_policy",
    "SB3MaskablePPO": ".stable_baselines.on_policy",
    "SB3PPO": ".stable_baselines.on_policy",
    "SB3QRDQN": ".stable_baselines.off_policy",
    "SB3RecurrentPPO": ".stable_baselines.on_policy",
    "SB3TRPO": ".stable_baselines.on_policy",
    "SuccessiveHalving": ".baselines.successive_halving",
    "TPE": ".baselines.tpe",
    "TournamentEvolution": ".evolution.tournament_evolution",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name], __name__), name)


__all__ = [
    "AGENTS",
    "BOGCN",
    "BOHB",
    "DARTS",
    "EAS",
    "GDAS",
    "MCTS",
    "NPENAS",
    "NSGA2",
    "PPO",
    "RSPS",
    "SB3A2C",
    "SB3DQN",
    "SB3PPO",
    "SB3QRDQN",
    "SB3TRPO",
    "SNAS",
    "TPE",
    "Agent",
    "Bananas",
    "Bayesian",
    "Budget",
    "Callback",
    "Controller",
    "DifferentiableAgent",
    "DrNAS",
    "Dyna",
    "GFlowNet",
    "IndependentSoftmaxes",
    "LSTMController",
    "LocalSearch",
    "MultiTask",
    "PolicyAgent",
    "PredictorAgent",
    "Proposal",
    "RandomSearch",
    "RegularizedEvolution",
    "Reinforce",
    "RelaxedAgent",
    "SB3MaskablePPO",
    "SB3RecurrentPPO",
    "SearchResult",
    "SuccessiveHalving",
    "TournamentEvolution",
    "Trials",
    "agent_class",
    "agent_name",
    "load_hyperparameters",
    "make_agent",
    "play",
    "register_agent",
]
