"""Weights of many networks, of which only some fit into memory."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


class WeightStore:
    """Weights of networks by name: in memory up to a limit, beyond it the least recently used are in files.

    Args:
        memory: maximal bytes in memory; the most recently used weights stay there in any case.
        folder: where a folder for the files is created when needed; it is deleted with the store.
    """

    def __init__(self, memory: int, folder: str | Path | None = None) -> None:
        if memory < 0:
            raise ValueError(f"memory must not be negative, got {memory}")
        self.memory, self.folder = memory, folder
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self._held: OrderedDict[str, dict[str, Tensor]] = OrderedDict()
        self._files: dict[str, Path] = {}
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._held or name in self._files

    def put(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Stores copies of tensors."""
        # In the memory layout of files, so that results do not depend on whether weights were in one.
        form = torch.contiguous_format
        self._held[name] = {key: tensor.detach().cpu().clone(memory_format=form) for key, tensor in tensors.items()}
        self._held.move_to_end(name)
        self._spill()

    def get(self, name: str) -> Mapping[str, Tensor]:
        """The tensors of a name, on the CPU; they must not be changed in place.

        Raises:
            KeyError: nothing is stored under that name.
        """
        if name not in self._held:
            self._held[name] = load_file(self._files[name])
        self._held.move_to_end(name)
        tensors = self._held[name]
        self._spill()
        return tensors

    @property
    def bytes_held(self) -> int:
        """Bytes of weights in memory."""
        return sum(tensor.nbytes for tensors in self._held.values() for tensor in tensors.values())

    def _spill(self) -> None:
        while len(self._held) > 1 and self.bytes_held > self.memory:
            name, tensors = self._held.popitem(last=False)
            if name not in self._files:  # weights never change
                if self._directory is None:
                    self._directory = tempfile.TemporaryDirectory(prefix="weights_", dir=self.folder)
                self._files[name] = Path(self._directory.name) / f"{name}.safetensors"
                save_file(tensors, self._files[name])
