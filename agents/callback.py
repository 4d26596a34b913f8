"""What a search calls around every batch of trials."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas_gym.agents.agent import Agent
    from nas_gym.agents.result import SearchResult
    from nas_gym.agents.trial import Proposal


class Callback:
    """What `Agent.learn` calls around every batch of trials. Its methods do nothing until they are overridden."""

    def before_trials(self, agent: Agent) -> None:
        """Called before the agent asks for the next batch: the moment to run training that is due beforehand."""

    def proposed(self, agent: Agent, proposal: Proposal) -> None:
        """Called when the agent has proposed a batch, before it is evaluated."""

    def after_trials(self, agent: Agent, trials: SearchResult, statistics: dict[str, float]) -> bool | None:
        """Called after the agent has learned from a batch, and so the moment to log and to save.

        Args:
            agent: the agent; `agent.result` is the whole history.
            trials: the new trials alone.
            statistics: what the agent's `tell` returned, by TensorBoard tag.

        Returns:
            False to stop the search here.
        """
        return True
