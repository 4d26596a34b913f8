"""Mappings as words of a command line, ``key:value``; dots in keys nest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml


def parse_pairs(pairs: Sequence[str]) -> dict[str, Any]:
    """Reads ``key:value`` pairs; values as YAML has them, dots in keys nest.

    Raises:
        ValueError: a pair without a colon, or a key both with a value and with keys under it.
    """
    parsed: dict[str, Any] = {}
    for pair in pairs:
        key, colon, value = pair.partition(":")
        if not colon or not key:
            raise ValueError(f"expected key:value, got {pair!r}")
        *outer, last = key.split(".")
        inner = parsed
        for name in outer:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise ValueError(f"{pair!r} puts a key under a value given before")
        if isinstance(inner.get(last), dict):
            raise ValueError(f"{pair!r} gives a value to a key with keys under it")
        try:
            inner[last] = _number(yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise ValueError(f"{pair!r} has no value that YAML can read") from error
    return parsed


def _number(value: Any) -> Any:
    """YAML 1.1 takes 1e-3, without a dot, for text; people mean a number."""
    if isinstance(value, list):
        return [_number(item) for item in value]
    if isinstance(value, dict):
        return {key: _number(item) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def pairs(values: Mapping[str, Any]) -> list[str]:
    """``key:value`` pairs that `parse_pairs` reads as these values; dots in keys nest."""
    found = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found += [f"{key}.{pair}" for pair in pairs(value)]
        else:
            found.append(f"{key}:{_text(value)}")
    return found


def _text(value: Any) -> str:
    """A value as YAML reads it, without quotes where it needs none."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z/.][\w./:-]*", value) and yaml.safe_load(value) == value:
        return value
    # A list around it keeps PyYAML from ending the document after a lone word.
    return yaml.safe_dump([value], default_flow_style=True, sort_keys=False, width=float("inf"))[1:-2]
