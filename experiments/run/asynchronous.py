"""Search without waiting: the agent proposes the next architecture as soon as a worker is free."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from nas_gym.agents import Agent, Budget, Callback, Proposal, SearchResult, play
from nas_gym.evaluators import Evaluator


@dataclass(frozen=True, eq=False)
class _Running:
    """An architecture that is being evaluated.

    Attributes:
        proposal: of one row.
        updates: of the agent, when it proposed.
        future: is done when the evaluation has ended; architectures that are equal may share it.
    """

    proposal: Proposal
    updates: int
    future: Future[Any]


def learn_asynchronously(
    agent: Agent,
    trials: int,
    callback: Callback | None = None,
    seconds: float | None = None,
    staleness: int | None = None,
    poll: Callable[[], None] = lambda: None,
) -> SearchResult:
    """Searches as `Agent.learn` does, but keeps all workers of the evaluator busy: trials count in the order in which
    they end.

    That order is not the same twice, and so neither is the search. Each architecture that has been evaluated is played
    through the environment like any other. Trials that end before a straggler which would become too stale for the
    agent wait for it, and are learned from together with it; the workers go on meanwhile.

    Args:
        agent: one whose `staleness` is not 0, in an environment whose evaluator has workers (`DistributedEvaluator`).
        trials: see `Agent.learn`.
        callback: see `Agent.learn`.
        seconds: see `Agent.learn`.
        staleness: how many updates of the agent may lie between a proposal and its trial; None takes the agent's.
        poll: called about twice a second while workers are waited for; what it raises ends the search, and the
            architectures that are being evaluated are given up.

    Raises:
        ValueError: the agent cannot search so, the evaluator is stateful, or staleness is less than 1; otherwise as
            `Agent.learn`.
    """
    evaluator = _evaluator(agent)
    limit = agent.staleness if staleness is None else staleness
    if limit is not None and limit < 1:
        raise ValueError(f"staleness must be at least 1, got {limit}")
    budget, callback = Budget(trials, seconds), callback or Callback()
    agent.withdraw()
    running: list[_Running] = []
    ended: list[_Running] = []
    while not budget.spent:
        while len(running) < min(evaluator.workers, budget.trials - len(ended)):
            callback.before_trials(agent)
            updates, proposal = agent.updates, agent.ask(1)
            callback.proposed(agent, proposal)
            running.append(_Running(proposal, updates, _begin(evaluator, proposal)))
        done = set(evaluator.wait([each.future for each in running], poll))
        ended += [each for each in running if each.future in done]
        running = [each for each in running if each.future not in done]
        if limit is not None and any(agent.updates - each.updates >= limit for each in running):
            continue
        ended.sort(key=lambda each: int(each.proposal.ids[0]))
        new = budget.take(play(agent.env, Proposal.concatenate([each.proposal for each in ended])))
        ended = []
        if not len(new) or not agent.record(new, callback):
            break
    return agent.result


def check_asynchronous(agent: type[Agent], name: str) -> None:
    """Complains of agents that need the trials of each batch before they propose the next.

    Raises:
        ValueError: the agent is one of these.
    """
    if agent.staleness == 0:
        raise ValueError(
            f"agent {name!r} cannot search asynchronously: it needs the trials of each batch before it proposes the "
            "next (its `staleness` is 0)"
        )


def _begin(evaluator: Evaluator, proposal: Proposal) -> Future[Any]:
    fidelity = None if proposal.fidelities is None else evaluator.nearest_fidelity(float(proposal.fidelities[0]))
    return evaluator.begin(proposal.tokens, fidelity=fidelity)


def _evaluator(agent: Agent) -> Evaluator:
    """What evaluates the architectures of the agent's environment."""
    check_asynchronous(type(agent), agent.name)
    evaluator = agent.problem.evaluator
    if evaluator.stateful:
        raise ValueError(f"evaluator {type(evaluator.unwrapped).__name__} is stateful: its trials cannot overlap")
    return evaluator
