"""How an attack is reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass
class Outcome:
    """What came of the tries of one attack.

    Attributes:
        attack: what was done, as a row of docs/reliability.md names it.
        unharmed: tries after which the result equals that without the attack, to the bit.
        refused: tries that ended in one clear error, with nothing lost.
        silent: tries with a wrong result and no error.
        tracebacks: tries that ended in an error that does not name the file, argument or process at fault.
        lost: tries after which finished trials or files were gone.
        hung: tries that did not end in time.
        note: anything else the table says.
        examples: the first few tries that went wrong, for whoever has to mend them.
    """

    attack: str
    unharmed: int = 0
    refused: int = 0
    silent: int = 0
    tracebacks: int = 0
    lost: int = 0
    hung: int = 0
    note: str = ""
    examples: list[str] = field(default_factory=list)

    @property
    def tries(self) -> int:
        """How many there were."""
        return self.unharmed + self.refused + self.silent + self.tracebacks + self.lost + self.hung

    @property
    def survived(self) -> bool:
        """Whether none of them did harm."""
        return self.tries == self.unharmed + self.refused


Attack = Callable[[Path, np.random.Generator], Outcome]
"""An attack: a fresh folder to work in, and a source of randomness, give an outcome."""
