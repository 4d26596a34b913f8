"""What can be searched. Numpy only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from nas_gym.spaces.bench201 import Bench201Space
from nas_gym.spaces.cell import DARTS, ENAS, NASNET, CellSpace
from nas_gym.spaces.graph import ArchitectureGraph, Node
from nas_gym.spaces.space import UNDECIDED, Architecture, Decision, SearchSpace, SpaceSpec, Tokens, draw

SPACES: dict[str, type[SearchSpace]] = {space.name: space for space in (CellSpace, Bench201Space)}
PRESETS: dict[str, SearchSpace] = {
    "cell": ENAS,
    "cell:enas": ENAS,
    "cell:nasnet": NASNET,
    "cell:darts": DARTS,
    "bench201": Bench201Space(),
}


def make_space(spec: SpaceSpec) -> SearchSpace:
    """Makes a search space.

    Args:
        spec: a space; the name of a preset (``"cell:darts"``); or a mapping with the ``name`` of a space and its
            fields (``{"name": "cell", "nodes": 4}``), as `SearchSpace.to_dict` gives.

    Raises:
        ValueError: an unknown name or field.
    """
    if isinstance(spec, SearchSpace):
        return spec
    if isinstance(spec, str):
        if spec not in PRESETS:
            raise ValueError(f"unknown space {spec!r}; known: {', '.join(PRESETS)}")
        return PRESETS[spec]
    if not isinstance(spec, Mapping) or spec.get("name") not in SPACES:
        raise ValueError(f"a space needs a 'name' among {', '.join(SPACES)}; got {spec!r}")
    space = SPACES[spec["name"]]
    fields = {field.name for field in dataclasses.fields(space)}  # type: ignore[arg-type]
    unknown = set(spec) - fields - {"name"}
    if unknown:
        raise ValueError(f"space {spec['name']!r} has no field {sorted(unknown)}; fields: {sorted(fields)}")
    return space(**{key: _frozen(value) for key, value in spec.items() if key != "name"})


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


__all__ = [
    "PRESETS",
    "SPACES",
    "UNDECIDED",
    "Architecture",
    "ArchitectureGraph",
    "Bench201Space",
    "CellSpace",
    "Decision",
    "Node",
    "SearchSpace",
    "Tokens",
    "draw",
    "make_space",
]
