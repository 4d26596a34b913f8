"""Architectures as torch modules. torch is imported with the first of them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nas_gym.networks.registry import NETWORKS, register_network

if TYPE_CHECKING:
    from nas_gym.networks.batch import NetworkBatch, can_batch
    from nas_gym.networks.network import Network, NetworkSettings
    from nas_gym.networks.operations import OPERATIONS, make_operation
    from nas_gym.networks.supernet import make_network, make_supernet

_HOMES = {
    "OPERATIONS": "operations",
    "Network": "network",
    "NetworkBatch": "batch",
    "NetworkSettings": "network",
    "can_batch": "batch",
    "make_network": "supernet",
    "make_operation": "operations",
    "make_supernet": "supernet",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


__all__ = [
    "NETWORKS",
    "OPERATIONS",
    "Network",
    "NetworkBatch",
    "NetworkSettings",
    "can_batch",
    "make_network",
    "make_operation",
    "make_supernet",
    "register_network",
]
