"""Architectures as torch modules."""

from nas_gym.networks.batch import NetworkBatch, can_batch
from nas_gym.networks.network import Network, NetworkSettings
from nas_gym.networks.operations import OPERATIONS, make_operation
from nas_gym.networks.supernet import NETWORKS, make_network, make_supernet

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
]
