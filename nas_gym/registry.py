"""Parts by name: search spaces, networks, tasks, evaluators, predictors and agents, of this package and of others.

A part is registered as an object, or as the place where it is found, ``module:Name``, which is imported when the part
is first asked for. Installed packages register theirs by an entry point in the group ``nas_gym``: a function without
arguments, which is called before names of parts that are not this package's own are looked up.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from nas_gym.settings import unknown

T = TypeVar("T")

GROUP = "nas_gym"


class Registry(Generic[T]):
    """Parts of one kind by name, in the order of registration.

    Args:
        kind: what the parts are called in messages, such as ``"agent"``.
        places: the package's own: objects, or where they are found.
    """

    def __init__(self, kind: str, places: Mapping[str, T | str]) -> None:
        self.kind = kind
        self._places: dict[str, T | str] = dict(places)

    def register(self, name: str, part: T | str) -> None:
        """Adds a part, or replaces the one of that name.

        Args:
            name: what it is asked for by.
            part: the part itself, or where it is found, ``module:Name``.

        Raises:
            ValueError: the name is empty, or the place is not of that form.
        """
        if not isinstance(name, str) or not name:
            raise ValueError(f"the name of a {self.kind} must be text, got {name!r}")
        if isinstance(part, str) and not all(part.partition(":")):
            raise ValueError(f"{self.kind} {name!r} must be the part itself or 'module:Name', got {part!r}")
        self._places[name] = part

    def __iter__(self) -> Iterator[str]:
        register_installed()
        return iter(list(self._places))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        if name not in self._places:
            register_installed()
        return name in self._places

    def __getitem__(self, name: str) -> T:
        """The part of a name; of ``module:Name``, what stands there.

        Raises:
            ValueError: there is none.
        """
        if name in self:
            part = self._places[name]
            return self._imported(part) if isinstance(part, str) else part
        if isinstance(name, str) and all(name.partition(":")):
            try:
                return self._imported(name)
            except (ImportError, AttributeError) as error:
                raise ValueError(f"{self._unknown(name)}; {name!r} is no place of one either: {error}") from error
        raise ValueError(self._unknown(name))

    def keys(self) -> Iterator[str]:
        """The names."""
        return iter(self)

    def items(self) -> Iterator[tuple[str, T]]:
        """Names and parts; all that are registered by their place are imported."""
        return ((name, self[name]) for name in self)

    def place(self, name: str) -> str | T:
        """What was registered by a name: the part, or where it is found.

        Raises:
            ValueError: there is none.
        """
        if name not in self:
            raise ValueError(self._unknown(name))
        return self._places[name]

    def name_of(self, part: T) -> str | None:
        """The name that a class or function is registered by; None where it is not."""
        home = f"{getattr(part, '__module__', '')}:{getattr(part, '__qualname__', '')}"
        return next((name for name in self if self._places[name] is part or self._places[name] == home), None)

    def _imported(self, place: str) -> T:
        module, _, name = place.partition(":")
        part: T = getattr(importlib.import_module(module), name)
        return part

    def _unknown(self, name: object) -> str:
        return unknown(self.kind, name, self)


@functools.cache
def register_installed() -> None:
    """Calls what installed packages have as entry points of the group ``nas_gym``, once."""
    from importlib.metadata import entry_points  # slow to import

    for entry in entry_points(group=GROUP):
        try:
            entry.load()()
        except Exception as error:  # another package's fault must not stop those who do not use it
            import logging

            logging.getLogger("nas_gym").warning("entry point %s of group %s failed: %r", entry.name, GROUP, error)
