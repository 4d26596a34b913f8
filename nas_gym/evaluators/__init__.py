"""Architectures in, evaluations out. Evaluators that need torch are imported when they are made."""

from __future__ import annotations

from nas_gym.evaluators.config import EVALUATORS, EvaluatorConfig, make_evaluator, register_evaluator
from nas_gym.evaluators.distributed import DistributedEvaluator
from nas_gym.evaluators.evaluator import Evaluations, Evaluator, FunctionEvaluator, Schedule
from nas_gym.evaluators.guarded import GuardedEvaluator
from nas_gym.evaluators.multitask import MultiTaskEvaluator, MultiTaskSchedule
from nas_gym.evaluators.objective import OBJECTIVES, AccuracyObjective, Objective, make_objective
from nas_gym.evaluators.schedules import DEFAULT_SCHEDULE, SCHEDULES, ScheduleSettings, make_schedule
from nas_gym.evaluators.simulated import ClusterConditions, SimulatedCluster
from nas_gym.evaluators.store import EvaluationStore, StoredEvaluator

__all__ = [
    "DEFAULT_SCHEDULE",
    "EVALUATORS",
    "OBJECTIVES",
    "SCHEDULES",
    "AccuracyObjective",
    "ClusterConditions",
    "DistributedEvaluator",
    "EvaluationStore",
    "Evaluations",
    "Evaluator",
    "EvaluatorConfig",
    "FunctionEvaluator",
    "GuardedEvaluator",
    "MultiTaskEvaluator",
    "MultiTaskSchedule",
    "Objective",
    "Schedule",
    "ScheduleSettings",
    "SimulatedCluster",
    "StoredEvaluator",
    "make_evaluator",
    "make_objective",
    "make_schedule",
    "register_evaluator",
]
