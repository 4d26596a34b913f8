"""NSGA-II: a population that moves towards the whole Pareto front at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_gym.agents.evolution.population import PopulationAgent, check_population
from nas_gym.agents.pareto import nondominated
from nas_gym.agents.trial import Trials
from nas_gym.spaces import Tokens
from nas_gym.types import Floats

REDRAWS = 10  # mutations of children that have been proposed before, until they may be proposed again


@dataclass(frozen=True)
class NSGA2Hyperparameters:
    """Defaults are those of Deb et al. 2002, section IV.

    Attributes:
        population_size: architectures that survive a selection, the parents of the next ones (Deb et al. 2002: 100).
        sample_size: how many of these, all different, meet in a tournament (Deb et al. 2002: 2).
        crossover_probability: of a child, to have two parents (Deb et al. 2002: 0.9).
        generation_size: children between two selections (Deb et al. 2002: as many as survive, 100). With 1, each child
            competes as soon as it has been tried (Durillo et al. 2009, "On the Effect of the Steady-State Selection
            Scheme in Multi-Objective Genetic Algorithms").
    """

    population_size: int = 100
    sample_size: int = 2
    crossover_probability: float = 0.9
    generation_size: int = 100

    def __post_init__(self) -> None:
        check_population(self.population_size, self.sample_size, least=2)
        probability, size = self.crossover_probability, self.generation_size
        if isinstance(probability, bool | str) or not 0 <= probability <= 1:
            raise ValueError(f"crossover_probability must be in [0, 1], got {probability!r}")
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"generation_size must be an integer of at least 1, got {size!r}")


class NSGA2(PopulationAgent):
    """Keeps the architectures that few others dominate, and among equals those in the emptier parts of the front.

    Parents are the best of tournaments by the crowded comparison: the lower front wins and, within a front, the larger
    crowding distance. A child has two parents, from each of which it takes its decisions at random, or one, in which
    one decision is changed; a child that has been proposed before is mutated until it is new. After every
    `generation_size` children, parents and children compete, and the first `population_size` by the same comparison
    survive. Until then the parents stay the same.

    Rewards are vectors, of which more is better in every column. Single numbers are vectors of one column: then this is
    a genetic algorithm in which the best survive.

    Source: Deb et al. 2002, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", section III.
    """

    vector_rewards = True
    Hyperparameters = NSGA2Hyperparameters
    hyperparameters: NSGA2Hyperparameters

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rewards = np.empty((0, self.problem.reward_dimensions or 1))
        self._proposed_before: set[bytes] = set()

    # ------------------------------------------------------------------ children

    def _children(self, n: int) -> Tokens:
        mothers, fathers = self._winners(n), self._winners(n)
        crossed = self.rng.random(n) < self.hyperparameters.crossover_probability
        children = mothers.copy()
        children[crossed] = self.current_space.crossover(mothers[crossed], fathers[crossed], self.rng)
        children[~crossed] = self.current_space.mutate(mothers[~crossed], self.rng)
        for row in range(n):
            for _ in range(REDRAWS):
                if children[row].tobytes() not in self._proposed_before:
                    break
                children[row : row + 1] = self.current_space.mutate(children[row : row + 1], self.rng)
            self._proposed_before.add(children[row].tobytes())
        return children

    def _winners(self, n: int) -> Tokens:
        """The best of each of n tournaments of the parents, int64[n, T]."""
        parents = self._rewards[: self.hyperparameters.population_size]
        place = np.empty(len(parents), dtype=np.int64)
        place[crowded_order(parents)] = np.arange(len(parents))
        shuffled = self.rng.random((n, len(parents))).argsort(axis=1)
        members = shuffled[:, : self.hyperparameters.sample_size]
        winners: Tokens = self._population[members[np.arange(n), place[members].argmin(axis=1)]]
        return winners

    # ------------------------------------------------------------------ survivors

    def tell(self, trials: Trials) -> dict[str, float]:
        """Takes the architectures into the population; selects when a generation is complete."""
        self._proposed_before.update(row.tobytes() for row in trials.tokens)
        self._join(trials.tokens, trials.rewards.reshape(len(trials), -1))
        return {"train/front_size": float(nondominated(self._rewards).sum())} if len(self._rewards) else {}

    def _join(self, tokens: Tokens, rewards: Floats) -> None:
        """One after another, so that it does not matter in what batches they come."""
        alive = self.hyperparameters.population_size
        for row in range(len(tokens)):
            self._population = np.concatenate([self._population, tokens[row : row + 1]])
            self._rewards = np.concatenate([self._rewards, rewards[row : row + 1]])
            if len(self._population) >= alive + self.hyperparameters.generation_size:
                survivors = crowded_order(self._rewards)[:alive]
                self._population, self._rewards = self._population[survivors], self._rewards[survivors]

    def state_dict(self) -> dict[str, Any]:
        import torch

        known = [np.frombuffer(row, dtype=np.int64) for row in sorted(self._proposed_before)]
        tokens = np.array(known, dtype=np.int64).reshape(-1, self.space.length)
        return {**super().state_dict(), "proposed_before": torch.from_numpy(tokens)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._proposed_before = {row.tobytes() for row in state["proposed_before"].numpy()}


def fronts(points: Floats) -> NDArray[np.int64]:
    """The front of each point, int64[n]: 0 for those that none dominates, 1 for those that only these do, and so on.

    Fast non-dominated sorting (Deb et al. 2002, section III-A), of O(n² k) operations.

    Args:
        points: float64[n, k]; larger is better in every column.
    """
    as_good: NDArray[np.bool_] = np.all(points[:, None] >= points[None], axis=2)
    dominates = as_good & ~as_good.T
    dominators = dominates.sum(axis=0)
    found = np.full(len(points), -1)
    front = 0
    while (found < 0).any():
        members = (dominators == 0) & (found < 0)
        found[members] = front
        dominators -= dominates[members].sum(axis=0)
        front += 1
    return found


def crowding_distances(points: Floats) -> Floats:
    """The crowding distance of each point of a front, float64[n] (Deb et al. 2002, section III-B).

    The sum over the columns of the distance between a point's two neighbours, as a share of the column's range;
    infinite for the ends of a column. A column whose values are all equal adds nothing.

    Args:
        points: float64[n, k].
    """
    distances = np.zeros(len(points))
    for column in points.T:
        order = np.argsort(column, kind="stable")
        extent = column[order[-1]] - column[order[0]]
        if extent > 0:
            distances[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / extent
            distances[order[[0, -1]]] = np.inf
    return distances


def crowded_order(points: Floats) -> NDArray[np.int64]:
    """The points from the best to the worst by the crowded comparison: by front, then by crowding distance, int64[n].

    Args:
        points: float64[n, k].
    """
    front, distances = fronts(points), np.empty(len(points))
    for number in np.unique(front):
        distances[front == number] = crowding_distances(points[front == number])
    order: NDArray[np.int64] = np.lexsort((-distances, front))
    return order
