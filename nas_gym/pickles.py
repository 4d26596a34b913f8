"""The one place where pickles are read: plain data only, and nothing that a file asks for is run."""

from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path
from typing import Any


class Inert:
    """Stands in for the numpy objects that a pickle names: keeps their arguments and state, runs nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _float64(dtype: Any, raw: Any) -> float:
    """A pickled numpy scalar as a float."""
    if not isinstance(dtype, Inert) or dtype.arguments[0] != "f8" or dtype.state[1] != "<":
        raise pickle.UnpicklingError("it holds a numpy scalar that is no little-endian float64")
    number: float = struct.unpack("<d", raw)[0]
    return number


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): Inert,
    ("numpy", "dtype"): Inert,
    ("collections", "OrderedDict"): dict,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): Inert for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _float64 for core in ("core", "_core")},
}


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, strings, lists, dicts, numpy's float64 scalars (as floats) and its arrays (as `Inert`).

    `pickle.load` runs any code that a file asks for. Here a file can ask for nothing: every name that it may use
    stands for plain data, and any other is refused.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no plain data needs")
        return _KNOWN[module, name]


def read_plain_dict(path: Path, what: str, data: bytes | None = None, encoding: str = "ASCII") -> dict[Any, Any]:
    """Reads a pickled dict of plain data.

    Args:
        path: the file.
        what: what it should be, for error messages: ``"a CIFAR file"``.
        data: its content, where it was compressed; read from the file by default.
        encoding: how strings of Python 2 are read, as in `pickle.load`.

    Raises:
        ValueError: the file is no such pickle, or asks for anything but plain data.
    """
    try:
        content = _PlainUnpickler(io.BytesIO(path.read_bytes() if data is None else data), encoding=encoding).load()
    except Exception as error:  # whatever its bytes make of the stack machine: nothing narrower is promised
        raise ValueError(f"{path} cannot be read as {what}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} cannot be read as {what}: it holds no dict but a {type(content).__name__}")
    return content
