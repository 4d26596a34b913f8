"""Architectures as torch modules."""

from nas_gym.networks.network import Network, NetworkSettings
from nas_gym.networks.operations import OPERATIONS, make_operation
from nas_gym.networks.supernet import NETWORKS, make_network, make_supernet

__all__ = [
    "NETWORKS",
    "OPERATIONS",
    "Network",
    "NetworkSettings",
    "make_network",
    "make_operation",
    "make_supernet",
]
