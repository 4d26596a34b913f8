"""Files that at any moment are whole: written beside their place and moved there; and read with one clear error."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHECKSUM = "checksum"  # its key in JSON files


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives another path to write to, of the same suffix, and moves it to this one if nothing is raised.

    Both the file and its new name are on the disk when this ends.

    Raises:
        OSError: the file cannot be written, for example on a full disk; it names `path`, which is what it was before.
    """
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        with naming(path):
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Has errors of the operating system name the file or folder that they are about, which a full disk's do not."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def write_text(path: Path, text: str) -> None:
    """Writes a file that at any moment holds all of the text or what was there before."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a mapping with its checksum, for `read_json`; at any moment the file is whole."""
    text = json.dumps(values, indent=2)
    write_text(path, json.dumps({**json.loads(text), CHECKSUM: checksum(text)}, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads what `write_json` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or was changed.
    """
    try:
        values = json.loads(path.read_text())
        if values.pop(CHECKSUM) != checksum(json.dumps(values, indent=2)):
            raise ValueError("its checksum is wrong")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is damaged, or was changed: {error}") from error
    found: dict[str, Any] = values
    return found


def checksum(content: str | bytes) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a content."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:16]


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


def save_tensors(path: Path, value: Any) -> None:
    """Writes tensors and plain data for `load_tensors`; at any moment the file holds all of it or what was before."""
    import torch

    buffer = io.BytesIO()  # torch does not say why it cannot write
    torch.save(value, buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_tensors(path: str | os.PathLike[str]) -> Any:
    """Reads what `save_tensors` wrote, on the CPU: tensors, and plain data alone.

    Raises:
        OSError: there is no such file, or it cannot be opened.
        ValueError: the file is truncated, corrupted, or holds objects of other types.
    """
    import torch

    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:  # torch does not look at the checksums
                damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"the checksum of {damaged!r} is wrong")
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # of a dozen types, as the damage has it
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{os.fspath(path)!r} is damaged, or no file of tensors: {reason}") from error


def file_name(text: str) -> str:
    """What every file system takes for a name of a file in a folder; not ``.`` and ``..``, which are folders."""
    name = re.sub(r"[^\w.-]+", "-", text)
    return name if name.strip(".") else "-" * max(len(name), 1)
