"""Settings from outside: mappings, as YAML and the command line give them, to dataclasses; and checks of them."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any, TypeVar

T = TypeVar("T")

SEEDS = 2**63
"""Seeds are below this: signed integers of 64 bits, as all that is seeded takes them."""


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """The message about a name that is not known, with the one that may be meant.

    Args:
        kind: what it should be the name of, such as ``"agent"``.
        name: the name.
        known: those that there are.
    """
    known = list(known)
    return f"unknown {kind} {name!r}; known: {', '.join(known) or 'none'}{did_you_mean(name, known)}"


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """``; did you mean 'train'?``, or nothing where no known name is like it."""
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def check_seed(seed: Any, name: str = "seed") -> None:
    """Complains of what is no seed.

    Raises:
        ValueError: it is not an integer in [0, 2**63).
    """
    if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= int(seed) < SEEDS:
        raise ValueError(f"{name} must be an integer in [0, 2**63), got {seed!r}")


def check_fields(settings: Any, names: str, wanted: str, fits: Callable[[Any], bool]) -> None:
    """Complains of fields of a dataclass that are not of their type or out of range.

    Args:
        settings: the dataclass. The annotations of the fields must be text, as in modules with postponed evaluation.
        names: of the fields, separated by spaces.
        wanted: what they must be.
        fits: whether a value of the field's type is in range.

    Raises:
        ValueError: one of them is not.
    """
    types = {known.name: str(known.type).split(" | ") for known in dataclasses.fields(settings)}
    for name in names.split():
        value, kind = getattr(settings, name), types[name][0]
        left_out = value is None and "None" in types[name]
        number = {"int": Integral, "float": Real}.get(kind)
        if number is not None and not left_out and (not isinstance(value, number) or isinstance(value, bool)):
            plain = "an integer" if kind == "int" else "a number"
            raise ValueError(f"{name} must be {plain}{', or None' * ('None' in types[name])}, got {value!r}")
        if (
            (isinstance(value, bool) and kind != "bool")
            or (isinstance(value, str) and kind != "str")
            or not fits(value)
        ):
            raise ValueError(f"{name} must be {wanted}, got {value!r}")


def check_known(given: Iterable[str], known: Iterable[str], owner: str, kind: str) -> None:
    """Complains of names that are not known.

    Args:
        given: names of settings.
        known: those that there are.
        owner: whose settings they are, such as ``"agent 'ppo'"``.
        kind: what they are called, such as ``"hyperparameter"``.

    Raises:
        ValueError: some of them are unknown.
    """
    known = sorted(known)
    if wrong := sorted(set(given) - set(known)):
        hint = did_you_mean(wrong[0], known)
        raise ValueError(
            f"{owner} has no {kind} {', '.join(map(repr, wrong))}; known: {', '.join(known) or 'none'}{hint}"
        )


def field_names(kind: type[Any]) -> list[str]:
    """The names of a dataclass's fields, in their order."""
    return [field.name for field in dataclasses.fields(kind)]


def from_mapping(made: type[T], values: Mapping[str, Any], owner: str, kind: str = "setting") -> T:
    """Makes a dataclass of a mapping of some of its fields.

    Args:
        made: the dataclass.
        values: fields by name.
        owner: see `check_known`.
        kind: see `check_known`.

    Raises:
        ValueError: a field is unknown, or its value is refused by the dataclass.
    """
    check_known(values, field_names(made), owner, kind)
    return made(**values)


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The values that differ between two mappings, by their keys; those of mappings in them behind a dot."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in {**after, **before}:
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found |= {f"{key}.{name}": pair for name, pair in differences(old, new).items()}
        elif old != new:
            found[key] = old, new
    return found
