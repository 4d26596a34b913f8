"""Search spaces. Needs numpy only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from nas_gym.spaces.bench101 import Bench101Space
from nas_gym.spaces.bench201 import Bench201Space
from nas_gym.spaces.bench_graph import PROTEINS_OPERATIONS, BenchGraphSpace
from nas_gym.spaces.cell import DARTS, ENAS, NASNET, CellSpace
from nas_gym.spaces.chain import ChainSpace
from nas_gym.spaces.graph import ArchitectureGraph, Node
from nas_gym.spaces.hierarchical import HierarchicalSpace
from nas_gym.spaces.macro import MacroSpace
from nas_gym.spaces.mobile import MobileSpace
from nas_gym.spaces.size import SizeSpace
from nas_gym.spaces.space import UNDECIDED, Architecture, Decision, SearchSpace, SpaceSpec, Tokens, draw
from nas_gym.spaces.transformation import TransformationSpace

SPACES: dict[str, type[SearchSpace]] = {
    space.name: space
    for space in (
        CellSpace,
        Bench201Space,
        ChainSpace,
        MacroSpace,
        SizeSpace,
        Bench101Space,
        HierarchicalSpace,
        BenchGraphSpace,
        MobileSpace,
        TransformationSpace,
    )
}
PRESETS: dict[str, SearchSpace] = {
    "cell": ENAS,
    "cell:enas": ENAS,
    "cell:nasnet": NASNET,
    "cell:darts": DARTS,
    "bench201": Bench201Space(),
    "chain": ChainSpace(),
    "chain:strides": ChainSpace(strides=(1, 2, 3)),
    "chain:stop": ChainSpace(layers=15, depth="stop"),  # the depth of the paper's first network, section 4.1
    "chain:schedule": ChainSpace(layers=20, depth="schedule"),  # eight stages of 1,600 trials: the paper's 12,800
    "macro": MacroSpace(),
    "size": SizeSpace(),
    "bench101": Bench101Space(),
    "hierarchical": HierarchicalSpace(),
    "bench_graph": BenchGraphSpace(),
    "bench_graph:proteins": BenchGraphSpace(operations=PROTEINS_OPERATIONS),
    "mobile": MobileSpace(),
    "transformation": TransformationSpace(),
    "transformation:densenet": TransformationSpace("densenet", kernels=(3,)),
}


def make_space(spec: SpaceSpec) -> SearchSpace:
    """Makes a search space.

    Args:
        spec: a space; the name of a preset (``"cell:darts"``); or a mapping with the ``name`` of a space and its
            fields (``{"name": "cell", "nodes": 4}``), as returned by `SearchSpace.to_dict`.

    Raises:
        ValueError: the name or a field is unknown.
    """
    if isinstance(spec, SearchSpace):
        return spec
    if isinstance(spec, str):
        if spec not in PRESETS:
            raise ValueError(f"unknown space {spec!r}; known: {', '.join(PRESETS)}")
        return PRESETS[spec]
    if not isinstance(spec, Mapping) or spec.get("name") not in list(SPACES):
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
    "Bench101Space",
    "Bench201Space",
    "BenchGraphSpace",
    "CellSpace",
    "ChainSpace",
    "Decision",
    "HierarchicalSpace",
    "MacroSpace",
    "MobileSpace",
    "Node",
    "SearchSpace",
    "SizeSpace",
    "Tokens",
    "TransformationSpace",
    "draw",
    "make_space",
]
