"""An agent of one's own: simulated annealing.

Compare it with random search on a table:

    PYTHONPATH=examples/extending nas-gym benchmark --agents random own_agent:Annealing --envs NAS-BenchGraph-v0:cora
"""

from dataclasses import dataclass

import numpy as np

from nas_gym.agents import Agent, Proposal, Trials


@dataclass(frozen=True)
class AnnealingHyperparameters:
    """Hyperparameters of simulated annealing.

    Attributes:
        temperature: of the first trial, in units of the reward.
        decay: factor on the temperature after each trial.
    """

    temperature: float = 0.05
    decay: float = 0.97


class Annealing(Agent):
    """Mutates one architecture, and moves to a worse one with a probability that falls with the trials."""

    Hyperparameters = AnnealingHyperparameters
    tokens = None

    def ask(self, n: int) -> Proposal:
        """Proposes n mutations of the current architecture."""
        if self.tokens is None:
            return self.propose(self.space.sample(self.rng, n))
        return self.propose(self.space.mutate(np.repeat(self.tokens[None], n, axis=0), self.rng))

    def tell(self, trials: Trials) -> dict[str, float]:
        """Moves to each architecture that is better, and to worse ones by chance."""
        for tokens, reward in zip(trials.tokens, trials.rewards, strict=True):
            if self.tokens is None or self.rng.random() < np.exp(min(0.0, reward - self.reward) / self.temperature):
                self.tokens, self.reward = tokens, reward
            self.updates += 1
        return {"train/temperature": self.temperature}

    @property
    def temperature(self) -> float:
        """Of the next trial."""
        return self.hyperparameters.temperature * self.hyperparameters.decay**self.updates

    def state_dict(self):
        """Adds what `tell` keeps, so that a search with shared weights can be resumed."""
        current = None if self.tokens is None else (self.tokens.tolist(), float(self.reward))
        return {**super().state_dict(), "current": current, "updates": self.updates}

    def load_state_dict(self, state):
        """Restores it."""
        super().load_state_dict(state)
        self.updates = state["updates"]
        if state["current"] is not None:
            tokens, self.reward = state["current"]
            self.tokens = np.array(tokens)
