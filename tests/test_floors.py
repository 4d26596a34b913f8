"""Imports run downward only: experiments -> agents -> envs -> nas_gym, and within nas_gym from room to room.

The imports are read, not run: those in functions and those for type checkers count like all others (only circles leave
the latter out). Names that are looked up at run time (``"nas_gym.evaluators.tabular:TabularEvaluator"``) do not: that
is how a lower module reaches what is registered with it.
"""

from __future__ import annotations

import ast
import graphlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {
    "nas_gym": "nas_gym",
    "envs": "nas_gym.envs",
    "agents": "nas_gym.agents",
    "experiments": "nas_gym.experiments",
}
"""From the lowest to the highest: folder, and the package that it is."""

ROOMS: dict[str, set[str]] = {
    "spaces": set(),
    "networks": {"spaces"},
    "tasks": {"spaces"},
    "predictors": {"spaces"},
    "tables": {"spaces"},
    "evaluators": {"spaces", "networks", "tasks", "predictors", "tables", "__init__"},  # __init__: the version
    "tables.builder": {"spaces", "networks", "tasks", "tables", "evaluators"},  # trains what tables hold
}
"""What each room within nas_gym may import, besides itself and the modules that import nothing of the package."""

LAZY = {
    ("nas_gym.spaces.architecture", "nas_gym.spaces"): "an architecture's JSON names its space",
}
"""Imports that look up on purpose, within a function, and why."""

LINES = 400

Kind = Literal["module", "function", "types"]


class Import(NamedTuple):
    """One import statement's edge: `kind` says when it happens, "types" being never."""

    importer: str
    imported: str
    kind: Kind
    line: int


def read_imports(source: str, name: str, *, is_package: bool, modules: Iterable[str]) -> Iterator[Import]:
    """The imports of a module's source; of names in a package, the module where the name is one of `modules`."""
    package = name if is_package else name.rpartition(".")[0]

    def visit(node: ast.AST, kind: Kind) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(name, alias.name, kind, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            for found in dict.fromkeys(f"{base}.{alias.name}" for alias in node.names):
                yield Import(name, found if found in modules else base, kind, node.lineno)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            for statement in node.body:
                yield from visit(statement, "types")
            for statement in node.orelse:
                yield from visit(statement, kind)
        else:
            inner = "function" if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else kind
            for child in ast.iter_child_nodes(node):
                yield from visit(child, inner)

    return visit(ast.parse(source), "module")


def circle(edges: Iterable[tuple[str, str]]) -> list[str]:
    """The modules of one circle, the first again at the end; empty if there is none."""
    graph = graphlib.TopologicalSorter[str]()
    for importer, imported in edges:
        if importer != imported:
            graph.add(importer, imported)
    try:
        graph.prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


@cache
def modules() -> dict[str, Path]:
    """Every module of the package, by name."""
    found = {}
    for folder, package in FLOORS.items():
        for path in (ROOT / folder).rglob("*.py"):  # does not follow links
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


@cache
def imports() -> tuple[Import, ...]:
    """Every import in the package."""
    return tuple(
        edge
        for name, path in modules().items()
        for edge in read_imports(
            path.read_text(encoding="utf-8"), name, is_package=path.name == "__init__.py", modules=modules()
        )
    )


def of_the_package(edge: Import) -> bool:
    return edge.imported.split(".")[0] == "nas_gym"


def told(edges: Iterable[Import]) -> list[str]:
    """The edges as lines that lead to the statement."""
    return [f"{modules()[edge.importer].relative_to(ROOT)}:{edge.line} imports {edge.imported}" for edge in edges]


def floor(name: str) -> int:
    """The height of a module's floor."""
    packages = list(FLOORS.values())
    return max(i for i, package in enumerate(packages) if f"{name}.".startswith(f"{package}."))


def room(name: str) -> str:
    """Where in nas_gym a module of the lowest floor is: a key of ROOMS, or itself if it is in no folder."""
    parts = name.split(".")[1:] or ["__init__"]
    deep = ".".join(parts[:2])
    return deep if deep in ROOMS else parts[0]


def test_the_imports_of_a_source() -> None:
    source = """
import os, nas_gym.a.b as b
from typing import TYPE_CHECKING
from . import b, c
from .b import thing, other
from .. import a
if TYPE_CHECKING:
    from nas_gym.a import b
else:
    import first
class Class:
    import second
    async def method(self):
        try:
            from ..envs.x import y
        finally:
            pass
"""
    known = {"nas_gym.a", "nas_gym.a.b", "nas_gym.envs.x"}
    expected = [
        ("os", "module", 2),
        ("nas_gym.a.b", "module", 2),
        ("typing", "module", 3),
        ("nas_gym.a.b", "module", 4),
        ("nas_gym.a", "module", 4),
        ("nas_gym.a.b", "module", 5),
        ("nas_gym.a.b", "module", 5),
        ("nas_gym.a", "module", 6),
        ("nas_gym.a.b", "types", 8),
        ("first", "module", 10),
        ("second", "module", 12),
        ("nas_gym.envs.x", "function", 15),
    ]
    found = [edge[1:] for edge in read_imports(source, "nas_gym.a.m", is_package=False, modules=known)]
    assert found == [(name, kind, line) for name, kind, line in expected]
    # The same names from a package, which is one level higher.
    (edge,) = read_imports("from . import b", "nas_gym.a", is_package=True, modules=known)
    assert edge == ("nas_gym.a", "nas_gym.a.b", "module", 1)


def test_circles_are_found() -> None:
    chain = [("a", "b"), ("b", "c"), ("a", "c"), ("a", "a")]
    assert circle(chain) == []
    found = circle([*chain, ("c", "d"), ("d", "b")])
    assert found[0] == found[-1]
    assert set(found) == {"b", "c", "d"}


def test_everything_is_read() -> None:
    """The rules below would hold of nothing."""
    assert len(modules()) > 50
    assert {floor(name) for name in modules()} == {0, 1, 2, 3}
    assert {"module", "function", "types"} == {edge.kind for edge in imports()}
    unknown = {edge for edge in imports() if of_the_package(edge) and edge.imported not in modules()}
    assert told(unknown) == []


def test_imports_run_downward() -> None:
    up = [edge for edge in imports() if of_the_package(edge) and floor(edge.imported) > floor(edge.importer)]
    assert told(up) == []


def test_relative_imports_stay_on_their_floor() -> None:
    """In the repository the folders are side by side: static tools that open one there find nothing above it."""
    beyond = []
    for name, path in modules().items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        depth = package.count(".") - FLOORS[path.relative_to(ROOT).parts[0]].count(".") + 1
        beyond += [
            f"{path.relative_to(ROOT)}:{node.lineno}"
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and node.level > depth
        ]
    assert beyond == []


def test_rooms_of_the_lowest_floor() -> None:
    single = {path.stem for path in (ROOT / "nas_gym").glob("*.py")} - {"__init__", "registration"}
    wrong = []
    for edge in imports():
        if floor(edge.importer) or not of_the_package(edge) or room(edge.importer) in {"__init__", "registration"}:
            continue  # the registry puts everything together
        allowed = (
            single if room(edge.importer) in single else {room(edge.importer), *ROOMS[room(edge.importer)], *single}
        )
        if room(edge.imported) not in allowed:
            wrong.append(edge)
    assert told(wrong) == []


def test_what_the_rooms_know_of_the_world() -> None:
    """Spaces need NumPy only, so that an environment starts without torch; nothing but the registry knows Gymnasium."""
    lowest = [edge for edge in imports() if floor(edge.importer) == 0 and not of_the_package(edge)]
    for_spaces = {*sys.stdlib_module_names, "numpy"}
    wrong = [e for e in lowest if room(e.importer) == "spaces" and e.imported.split(".")[0] not in for_spaces]
    wrong += [e for e in lowest if room(e.importer) != "registration" and e.imported.split(".")[0] == "gymnasium"]
    assert told(wrong) == []


@pytest.mark.parametrize(
    "kinds", [pytest.param({"module"}, id="at import time"), pytest.param({"module", "function"}, id="ever")]
)
def test_there_are_no_circles(kinds: set[Kind]) -> None:
    """An import in a function hides a circle from Python, not from a reader: it may save time, but not look up.

    Imports for type checkers are left out: they are annotations, and never run.
    """
    edges = {(e.importer, e.imported) for e in imports() if e.kind in kinds and of_the_package(e)}
    assert circle(edges - LAZY.keys()) == []


def test_the_exceptions_are_needed() -> None:
    found = {edge[:2]: edge.kind for edge in imports() if edge[:2] in LAZY}
    assert found == dict.fromkeys(LAZY, "function")
    for exception in LAZY:
        assert circle({edge[:2] for edge in imports() if edge.kind == "module"} | {exception})


@pytest.mark.slow
def test_nobody_imports_the_folders_by_their_own_names() -> None:
    """`import agents` finds the folder in a clone or an editable install, as a second copy, and nothing elsewhere."""
    wrong = []
    for folder in (*FLOORS, "tests", "examples", "benchmarks", "docs"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                wrong += [f"{path}: {name}" for name in names if name.split(".")[0] in {*FLOORS} - {"nas_gym"}]
    assert wrong == []


def test_files_are_short_or_say_why_not() -> None:
    long = {}
    for path in (*modules().values(), *(ROOT / "examples").glob("*.py"), ROOT / "setup.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        reason = any(re.match(rf"# Longer than {LINES} lines: \S", line) for line in lines[:30])
        if len(lines) > LINES and not reason:
            long[str(path.relative_to(ROOT))] = len(lines)
    assert long == {}
