"""The networks of search spaces by name. Free of torch, so that a package can register its networks at no cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas_gym.registry import Registry
from nas_gym.spaces import SearchSpace

if TYPE_CHECKING:
    from nas_gym.networks.network import Network

NETWORKS: Registry[type[Network]] = Registry(
    "network",
    {
        "cell": "nas_gym.networks.cell:CellNetwork",
        "bench201": "nas_gym.networks.bench201:Bench201Network",
        "chain": "nas_gym.networks.chain:ChainNetwork",
        "bench101": "nas_gym.networks.bench101:Bench101Network",
        "macro": "nas_gym.networks.macro:MacroNetwork",
        "size": "nas_gym.networks.size:SizeNetwork",
        "mobile": "nas_gym.networks.mobile:MobileNetwork",
        "hierarchical": "nas_gym.networks.hierarchical:HierarchicalNetwork",
    },
)
"""The classes of networks by the names of their kinds of space (`SearchSpace.name`)."""


def register_network(space: type[SearchSpace] | str, network: type[Network] | str) -> None:
    """Registers the networks of a kind of space.

    Args:
        space: the class of the spaces, or its `name`.
        network: the class of the networks, or where to import it from, ``module:Class``.

    Raises:
        ValueError: the name is empty, or `network` is text that is not of that form.
    """
    NETWORKS.register(space if isinstance(space, str) else space.name, network)
