"""How one try of an attack on a file is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.attacks.outcome import Outcome

EXAMPLES = 5


def count(outcome: Outcome, what: str, action: Callable[[], Any], named: str, expected: Any = None) -> None:
    """Counts what comes of one try.

    Args:
        outcome: where it is counted.
        what: the try, for the examples of those that went wrong.
        action: reads what was attacked, and returns what it read as plain values.
        named: the text that an error must contain: the name of the file.
        expected: what is read without the attack; None if nothing may be read.
    """
    try:
        found = action()
    except ValueError as error:
        if named in str(error):
            outcome.refused += 1
            return
        outcome.tracebacks += 1
        what += f": {type(error).__name__}: {error}"
    except Exception as error:  # whatever the attacked code lets through
        outcome.tracebacks += 1
        what += f": {type(error).__name__}: {error}"
    else:
        if expected is not None and found == expected:
            outcome.unharmed += 1
            return
        outcome.silent += 1
        what += ": no error"
    if len(outcome.examples) < EXAMPLES:
        outcome.examples.append(what)


def flip_bit(data: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """The bytes with one bit flipped, and which."""
    damaged, bit = bytearray(data), int(rng.integers(8 * len(data)))
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged), f"bit {bit % 8} of byte {bit // 8} of {len(data)}"


def cut(data: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """The bytes without their end, and where they end."""
    end = int(rng.integers(len(data)))
    return data[:end], f"cut after {end} of {len(data)} bytes"
