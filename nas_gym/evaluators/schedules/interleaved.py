"""The weights train on uniform draws first, then on every finished batch before it is scored."""

from __future__ import annotations

import numpy as np

from nas_gym.evaluators.evaluator import Evaluations
from nas_gym.evaluators.schedules.uniform import UniformSchedule
from nas_gym.spaces import Tokens


class InterleavedSchedule(UniformSchedule):
    """A warm-up on uniform architectures, then every finished batch trains the weights before it is scored."""

    def score(self, tokens: Tokens, fidelity: float | None = None, parents: Tokens | None = None) -> Evaluations:
        for _ in self.prepare():
            pass
        size = self.settings.architectures_per_step
        steps = []
        for _ in range(self.settings.steps_per_trial):
            shuffled = self.rng.permutation(tokens)
            steps += [self.evaluator.update(shuffled[first : first + size]) for first in range(0, len(tokens), size)]
        self._statistics = {
            name: float(np.mean([step[name] for step in steps])) for name in (steps[0] if steps else ())
        }
        return super().score(tokens, fidelity, parents)
