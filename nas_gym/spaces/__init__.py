"""Search spaces. Needs numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas_gym.registry import Registry
from nas_gym.settings import from_mapping, unknown
from nas_gym.spaces.architecture import Architecture
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
from nas_gym.spaces.space import UNDECIDED, Decision, SearchSpace, SpaceSpec, Tokens, draw
from nas_gym.spaces.transformation import TransformationSpace

_KINDS: tuple[type[SearchSpace], ...] = (
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
SPACES: Registry[type[SearchSpace]] = Registry("kind of space", {kind.name: kind for kind in _KINDS})
"""The classes of spaces by name."""

_PRESETS: dict[str, SearchSpace] = {
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
PRESETS: Registry[SearchSpace] = Registry("space", _PRESETS)
"""Spaces by name."""


def register_space(kind: type[SearchSpace], presets: Mapping[str, SearchSpace] | None = None) -> None:
    """Makes a kind of space known by its `name`, to environments, tables, saved architectures and the command line.

    Args:
        kind: the class.
        presets: spaces of this kind by name; by default the kind's own name stands for the space with all fields at
            their defaults.

    Raises:
        ValueError: it is no class of spaces.
    """
    if not isinstance(kind, type) or not issubclass(kind, SearchSpace):
        raise ValueError(f"kind must be a class of search spaces, got {kind!r}")
    SPACES.register(kind.name, kind)
    for name, space in ({kind.name: kind()} if presets is None else presets).items():
        PRESETS.register(name, space)


def make_space(spec: SpaceSpec) -> SearchSpace:
    """Makes a search space.

    Args:
        spec: a space; the name of a preset (``"cell:darts"``), or where a space stands, ``module:NAME``; or a mapping
            with the ``name`` of a kind of space and its fields (``{"name": "cell", "nodes": 4}``), as returned by
            `SearchSpace.to_dict`; the kind must be registered, so the module that registers it must be imported.

    Raises:
        ValueError: the name or a field is unknown.
    """
    if isinstance(spec, SearchSpace):
        return spec
    if isinstance(spec, str):
        found: Any = PRESETS[spec]
        if isinstance(found, type) and issubclass(found, SearchSpace):
            found = found()
        if not isinstance(found, SearchSpace):
            raise ValueError(f"{spec!r} is no search space, but {found!r}")
        return found
    if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
        raise ValueError(f"a space needs a 'name' among {', '.join(SPACES)}; got {spec!r}")
    if spec["name"] not in SPACES:  # nothing is imported: the mapping may be a file's
        raise ValueError(
            f"unknown kind of space {spec['name']!r}; known: {', '.join(SPACES)}. Import the module that defines it, "
            "which must call `register_space`"
        )
    fields = {key: _frozen(value) for key, value in spec.items() if key != "name"}
    return from_mapping(SPACES[spec["name"]], fields, f"space {spec['name']!r}", "field")


def saved_space(spec: Any) -> SearchSpace:
    """Makes a search space that a file names: as `make_space`, but nothing is imported that the file chooses.

    Args:
        spec: the name of a preset, or what `SearchSpace.to_dict` returned.

    Raises:
        ValueError: the name or a field is unknown.
    """
    if isinstance(spec, str) and spec not in PRESETS:
        raise ValueError(unknown("space", spec, PRESETS))
    return make_space(spec)


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
    "register_space",
    "saved_space",
]
