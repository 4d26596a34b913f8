"""Complete sequences of decisions."""

from __future__ import annotations

import json
import operator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from nas_gym.spaces.space import SearchSpace


@dataclass(frozen=True, slots=True)
class Architecture:
    """A complete sequence of decisions: frozen, hashable, with text and JSON forms that round-trip.

    Attributes:
        space: the search space.
        tokens: one choice index per decision, length T.
    """

    space: SearchSpace
    tokens: tuple[int, ...]

    def __post_init__(self) -> None:
        try:
            tokens = tuple(operator.index(token) for token in self.tokens)
        except TypeError:
            raise ValueError(f"tokens must be a sequence of integers, got {self.tokens!r}") from None
        object.__setattr__(self, "tokens", tokens)
        self.space.check(np.asarray(tokens, dtype=np.int64)[None])

    def __str__(self) -> str:
        return self.space.format(self.tokens)

    def _repr_svg_(self) -> Any:  # for Jupyter; by name, since spaces need nothing that draws
        return import_module("nas_gym.envs.rendering").svg(self)

    def to_json(self) -> str:
        return json.dumps({"space": self.space.to_dict(), "tokens": list(self.tokens)})

    @staticmethod
    def from_json(text: str) -> Architecture:
        """Reads the output of `to_json`.

        Raises:
            ValueError: the text is not such JSON, its space is of no registered kind, or its tokens are not legal.
        """
        from nas_gym.spaces import saved_space

        try:
            record = json.loads(text)
            space, tokens = record["space"], record["tokens"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"not an architecture's JSON (an object with 'space' and 'tokens'): {text!r}") from error
        return Architecture(saved_space(space), tokens)
