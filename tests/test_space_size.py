"""The size space of NATS-Bench."""

from __future__ import annotations

import pytest

from nas_gym.spaces import PRESETS, SizeSpace


def test_published_size() -> None:
    assert PRESETS["size"].size == 8**5 == 32_768


def test_the_benchmarks_string() -> None:
    space = PRESETS["size"]
    assert isinstance(space, SizeSpace)
    architecture = space.parse("8:16:24:32:64")
    assert architecture.tokens == (0, 1, 2, 3, 7)
    assert str(architecture) == "8:16:24:32:64"
    assert space.decode(architecture.tokens) == (8, 16, 24, 32, 64)


@pytest.mark.parametrize("text", ["8:16:24:32", "8:16:24:32:64:64", "8:16:24:32:65", "8 16 24 32 64", ""])
def test_other_strings_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not 5 widths joined by ':', each of 8, 16, 24, 32, 40, 48, 56, 64"):
        PRESETS["size"].parse(text)


def test_two_stages_halve_the_resolution() -> None:
    space = SizeSpace()
    assert space.reductions == (False, True, False, True, False)
    assert SizeSpace(8).reductions == (False, False, True, False, False, True, False, False)
    graph = space.graph(space.parse("8:16:24:32:64"))
    assert [node.operation for node in graph.nodes] == [
        "input",
        "conv_3x3_8",
        "cell_8",
        "residual_16/2",
        "cell_24",
        "residual_32/2",
        "cell_64",
        "output",
    ]
    assert graph.edges == tuple((i, i + 1) for i in range(7))


def test_every_architecture_is_a_class_of_its_own() -> None:
    space = SizeSpace(5, (8, 16, 24))
    rows = [[i // 3**k % 3 for k in range(5)] for i in range(243)]
    assert len({space.canonical(space.architecture(row)) for row in rows}) == 243
