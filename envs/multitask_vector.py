"""Native vector form of the multi-task environment."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.utils.seeding import np_random
from numpy.typing import NDArray

from nas_gym.envs.checks import checked_reset_mask, checked_seed
from nas_gym.envs.columns import column, only, rows_of
from nas_gym.envs.construction_vector import ConstructionVectorEnv
from nas_gym.envs.multitask import MultiTaskEnv
from nas_gym.evaluators import Schedule
from nas_gym.types import Bools

DRAWN_AT_ONCE = 32  # random numbers


class MultiTaskVectorEnv(ConstructionVectorEnv):
    """N copies of a `MultiTaskEnv` that share the tasks' evaluators and are stepped together, each on its own task.

    Equal, step for step, to `gymnasium.vector.SyncVectorEnv` of N scalar environments, with the same two differences as
    `ConstructionVectorEnv`: the architectures completed in the same step are evaluated as one batch per task (and
    fidelity), and `infos["final_obs"]` is one array, or a dict of arrays with the observation ``"dict"``.

    Args:
        num_envs: N, at least 1.
        **arguments: `autoreset_mode` and `max_episode_steps` as for `ConstructionVectorEnv`, and those of
            `MultiTaskEnv`, except the render mode ``"human"``.

    Raises:
        ValueError: an argument is invalid.
    """

    scalar = MultiTaskEnv
    _single: MultiTaskEnv

    def __init__(self, num_envs: int = 1, **arguments: Any) -> None:
        super().__init__(num_envs, **arguments)
        self.tasks, self.evaluators = self._single.tasks, self._single.evaluators
        self._tasks = np.zeros(num_envs, dtype=np.int64)
        self._generators: list[np.random.Generator] = []  # one for each sub-environment, from the first reset on
        # Each generator draws numbers for several episodes at once; those before `_drawn` have been used.
        self._shares = np.empty((num_envs, DRAWN_AT_ONCE))
        self._drawn = np.full(num_envs, DRAWN_AT_ONCE)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """As `ConstructionVectorEnv.reset`, on the task ``options["task"]``, or on random tasks.

        Each sub-environment has its own random generator. An int seeds the first with that number, the second with the
        next number, and so on.

        Raises:
            ValueError: as for `ConstructionVectorEnv.reset`, or `options["task"]` is not one of the tasks.
        """
        checked_seed(seed, self.num_envs)
        self._seed(seed, checked_reset_mask(options, self.num_envs, self._started))
        return super().reset(seed=seed, options=options)

    def _seed(self, seed: int | Sequence[int | None] | None, mask: Bools) -> None:
        if not self._generators:
            self._generators = [np_random()[0] for _ in range(self.num_envs)]
        seeds = range(seed, seed + self.num_envs) if isinstance(seed, int) else seed or [None] * self.num_envs
        for row in np.flatnonzero(mask).tolist():
            if seeds[row] is not None:
                self._generators[row] = np_random(seeds[row])[0]
                self._drawn[row] = DRAWN_AT_ONCE

    def _begin(self, mask: Bools, options: Mapping[str, Any]) -> None:
        chosen = self._single.chosen_task(options)
        super()._begin(mask, options)
        self._tasks[mask] = self._single.task_of(self._draw(np.flatnonzero(mask))) if chosen is None else chosen

    def _draw(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """The next random number of each of these sub-environments, in [0, 1)."""
        for row in rows[self._drawn[rows] == DRAWN_AT_ONCE].tolist():
            self._generators[row].random(out=self._shares[row])
            self._drawn[row] = 0
        shares: NDArray[np.float64] = self._shares[rows, self._drawn[rows]]
        self._drawn[rows] += 1
        return shares

    def _batches(self, scored: Bools) -> list[tuple[Bools, float | None]]:
        tasks = range(len(self.tasks))
        split = [
            (together & (self._tasks == task), fidelity)
            for together, fidelity in super()._batches(scored)
            for task in tasks
        ]
        return [(together, fidelity) for together, fidelity in split if together.any()]

    def _scorer(self, together: Bools) -> Schedule:
        task = self.tasks[self._tasks[int(np.argmax(together))]]  # all have the same task
        return self._single.schedule.schedules[task]

    def _score(self, ended: Bools, penalised: Bools, rewards: NDArray[np.float64]) -> dict[str, Any]:
        ending = super()._score(ended, penalised, rewards)
        tasks = only(self._tasks.astype(np.float64), rows_of(ended))
        return {**ending, "evaluation": {**ending["evaluation"], **dict(column("task", tasks, ended))}}

    def _restart_at_once(self, ended: Bools, invalid: Bools, ending: dict[str, Any]) -> dict[str, Any]:
        final = self._observe()  # the next episodes may be on other tasks
        infos = super()._restart_at_once(ended, invalid, ending)
        rows = rows_of(ended)
        shown = {key: only(part, rows) for key, part in final.items()} if isinstance(final, dict) else None
        return {**infos, "final_obs": only(final, rows) if shown is None else shown}

    def _observe(self) -> Any:
        return self._single.observe(super()._observe(), self._tasks.copy())

    def _infos(self, invalid: Bools) -> dict[str, Any]:
        told = column("task", self._tasks.copy(), np.ones(self.num_envs, dtype=bool))
        return {**super()._infos(invalid), **dict(told)}

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """As `ConstructionVectorEnv.state_dict`: the states of the generators that draw the tasks."""
        for generator, drawn in zip(self._generators, self._drawn.tolist(), strict=False):
            bits: Any = generator.bit_generator
            bits.advance(drawn - DRAWN_AT_ONCE)  # gives back the numbers that were not used
        self._drawn[:] = DRAWN_AT_ONCE
        # As text, because a generator's state holds 128-bit integers, which not every format supports.
        return {"generators": [json.dumps(generator.bit_generator.state) for generator in self._generators]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As `ConstructionVectorEnv.load_state_dict`."""
        self._generators = [np_random()[0] for _ in state["generators"]]
        for generator, text in zip(self._generators, state["generators"], strict=True):
            generator.bit_generator.state = json.loads(text)
        self._drawn[:] = DRAWN_AT_ONCE
