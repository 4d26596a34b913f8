"""The weights of a network in a file, checked when they are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from nas_gym.files import CHECKSUM, replacing


def save_weights(network: nn.Module, path: Path, about: Mapping[str, str]) -> None:
    """Writes the weights as safetensors, with what is known about them and a checksum of both."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    content = save(weights, metadata={**about, CHECKSUM: _checksum(weights, about)})
    with replacing(path) as temporary:
        temporary.write_bytes(_with_sorted_header(content))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Reads what `save_weights` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or was changed.
    """
    if not path.exists():
        raise FileNotFoundError(f"there are no weights at {str(path)!r}")
    try:
        with safe_open(path, "pt") as file:
            about = dict(file.metadata() or {})
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
        if about.pop(CHECKSUM, None) != _checksum(weights, about):
            raise ValueError("its checksum is wrong")
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is damaged, or was changed: {error}") from error
    return weights


def _checksum(weights: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    digest = hashlib.sha256(repr(sorted(about.items())).encode())
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.clone().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _with_sorted_header(content: bytes) -> bytes:
    """A file of safetensors, whose metadata stand in an order that differs from time to time, as one that is the same.

    The format is the length of the header in 8 bytes, the header as JSON, and the data, aligned to 8 bytes.
    """
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]
