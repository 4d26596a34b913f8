"""Files that at any moment are whole: written beside their place and moved there; and read with one clear error."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives another path to write to, of the same suffix, and moves it to this one if nothing is raised."""
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a file that at any moment holds all of the text or what was there before."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def read_mapping(path: Path) -> dict[str, Any]:
    """Reads a YAML file that holds a mapping.

    Raises:
        ValueError: it does not.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{str(path)!r} must hold a mapping, got {values!r}")
    return values


def load_tensors(path: str | os.PathLike[str]) -> Any:
    """Reads what `torch.save` wrote, on the CPU: tensors, and plain data alone.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, corrupted, or holds objects of other types.
    """
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, UnpicklingError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{os.fspath(path)!r} is no whole file of tensors: {reason}") from error


def file_name(text: str) -> str:
    """What every file system takes for a name of a file in a folder; not ``.`` and ``..``, which are folders."""
    name = re.sub(r"[^\w.-]+", "-", text)
    return name if name.strip(".") else "-" * max(len(name), 1)
