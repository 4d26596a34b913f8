"""From spaces to networks: a supernet with shared weights, or a network of one architecture."""

from __future__ import annotations

from nas_gym.networks.network import Network, NetworkSettings
from nas_gym.networks.registry import NETWORKS
from nas_gym.spaces import Architecture, SearchSpace


def make_supernet(
    space: SearchSpace,
    image_shape: tuple[int, ...],
    num_classes: int,
    settings: NetworkSettings | None = None,
    seed: int = 0,
) -> Network:
    """All operations of a space once, shared by all its architectures.

    Args:
        space: the search space.
        image_shape: (channels, height, width).
        num_classes: number of logits.
        settings: the macro architecture.
        seed: of the initial weights.

    Returns:
        A module from images float[N, C, H, W] and tokens int64[B, T] to logits float[B, N, classes].

    Raises:
        ValueError: the space has no networks, or the inputs are not images, or too small.
    """
    network = _network_class(space)
    return network(space, image_shape, num_classes, settings or NetworkSettings(), seed=seed)


def make_network(
    architecture: Architecture,
    image_shape: tuple[int, ...],
    num_classes: int,
    settings: NetworkSettings | None = None,
    seed: int = 0,
) -> Network:
    """The network of one architecture, from images float[N, C, H, W] to logits float[N, classes].

    Its parameters have the names that they have in the supernet of the space.

    Raises:
        ValueError: the space has no networks, or the inputs are not images, or too small.
    """
    network = _network_class(architecture.space)
    return network(
        architecture.space,
        image_shape,
        num_classes,
        settings or NetworkSettings(),
        architecture=architecture,
        seed=seed,
    )


def _network_class(space: SearchSpace) -> type[Network]:
    if space.name not in NETWORKS:
        raise ValueError(f"space {space.name!r} has no image networks; spaces that have: {', '.join(NETWORKS)}")
    return NETWORKS[space.name]
