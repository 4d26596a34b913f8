"""Settings from outside: mappings, as YAML and the command line give them, to dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


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
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"{owner} has no {kind} {', '.join(map(repr, unknown))}; known: {', '.join(known) or 'none'}")


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
