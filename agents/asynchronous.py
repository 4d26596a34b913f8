"""Search without waiting: the agent asks for the next architecture as soon as a worker is free."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from nas_gym.evaluators import Evaluator
from nas_gym.spaces import Tokens

from .agent import Agent, Budget, Callback, SearchResult, attribute, play

STALENESS: dict[str, int | None] = {
    "random": None,
    "regularized-evolution": None,
    "tournament": None,
    "reinforce": 1,
    "ppo": 1,
}
"""Agents that can ask before they are told, and how many updates of theirs may lie in between; None sets no limit.

An evolution takes parents from whatever it has been told. A policy gradient is that of the policy that has sampled, and
a bias if it is not (Mnih et al. 2016, "Asynchronous Methods for Deep Reinforcement Learning", accept it); one update's
difference is small, and more is not allowed.
"""


@dataclass(frozen=True, eq=False)
class _Asked:
    """An architecture that is being evaluated, int64[1, T].

    Attributes:
        number: in the order of asking.
        tokens: the architecture.
        updates: of the agent, when it asked.
        future: is done when the evaluation has ended; architectures that are equal may share it.
    """

    number: int
    tokens: Tokens
    updates: int
    future: Future[Any]


def learn_asynchronously(
    agent: Agent,
    trials: int,
    callback: Callback | None = None,
    seconds: float | None = None,
    staleness: int | None = None,
) -> SearchResult:
    """Searches as `Agent.learn` does, but keeps all workers of the evaluator busy: trials count in the order in which
    they end.

    That order is not the same twice, and so neither is the search. Each architecture that has been evaluated is played
    through the environment like any other. What is told by the end of a straggler that an agent must not learn from too
    late, waits for it, and is told together with it; the workers go on meanwhile.

    Args:
        agent: one of `STALENESS`, in an environment whose evaluator has workers (`DistributedEvaluator`).
        trials: see `Agent.learn`.
        callback: see `Agent.learn`.
        seconds: see `Agent.learn`.
        staleness: how many updates of the agent may lie between asking and telling; None takes that of `STALENESS`.

    Raises:
        ValueError: the agent is not one that can, the evaluator is stateful, or staleness is less than 1; otherwise as
            `Agent.learn`.
    """
    evaluator = _evaluator(agent)
    limit = STALENESS[agent.name] if staleness is None else staleness
    if limit is not None and limit < 1:
        raise ValueError(f"staleness must be at least 1, got {limit}")
    budget, callback = Budget(trials, seconds), callback or Callback()
    numbers = count()
    running: list[_Asked] = []
    ended: list[_Asked] = []
    while not budget.spent:
        while len(running) < min(evaluator.workers, budget.trials - len(ended)):
            callback.before_trials(agent)
            updates, tokens = _updates(agent), agent.ask(1)
            running.append(_Asked(next(numbers), tokens, updates, evaluator.begin(tokens)))
        wait([asked.future for asked in running], return_when=FIRST_COMPLETED)
        ended += [asked for asked in running if asked.future.done()]
        running = [asked for asked in running if asked not in ended]
        if limit is not None and any(_updates(agent) - asked.updates >= limit for asked in running):
            continue
        tokens = np.concatenate([asked.tokens for asked in sorted(ended, key=lambda asked: asked.number)])
        ended = []
        new = budget.take(SearchResult(agent.space, tokens, *play(agent.env, tokens)))
        if not len(new) or not agent.record(new, callback):
            break
    return agent.result


def _evaluator(agent: Agent) -> Evaluator:
    """What evaluates the architectures of the agent's environment."""
    if agent.name not in STALENESS:
        raise ValueError(f"agent {agent.name!r} cannot ask before it is told; those that can: {', '.join(STALENESS)}")
    evaluator: Evaluator = attribute(agent.env, "schedule").evaluator
    if evaluator.stateful:
        raise ValueError(f"evaluator {type(evaluator.unwrapped).__name__} is stateful: its trials cannot overlap")
    return evaluator


def _updates(agent: Agent) -> int:
    return int(getattr(agent, "updates", 0))
