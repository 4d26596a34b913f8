"""The macro space of ENAS."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from graph_checks import described

from nas_gym.spaces import PRESETS, MacroSpace
from nas_gym.spaces.macro import MacroLayer


def test_published_size() -> None:
    """Pham et al. 2018, section 2.3: 6^L * 2^(L (L - 1) / 2), about 1.6 * 10^29 for 12 layers."""
    space = PRESETS["macro"]
    assert space.size == 6**12 * 2**66
    assert f"{space.size:.1e}" == "1.6e+29"
    assert space.length == 12 + 66


def test_decisions() -> None:
    space = MacroSpace(3, ("a", "b"))
    assert [(d.name, d.kind, d.group, d.choices, d.targets) for d in space.decisions] == [
        ("layer_0/operation", "operation", 0, ("a", "b"), None),
        ("layer_1/operation", "operation", 1, ("a", "b"), None),
        ("layer_1/skip_0", "skip", 1, ("none", "connect"), (None, 0)),
        ("layer_2/operation", "operation", 2, ("a", "b"), None),
        ("layer_2/skip_0", "skip", 2, ("none", "connect"), (None, 0)),
        ("layer_2/skip_1", "skip", 2, ("none", "connect"), (None, 1)),
    ]


def test_decode_and_graph() -> None:
    space = MacroSpace(3, ("a", "b"))
    architecture = space.parse("b | a none | a connect connect")
    assert space.decode(architecture.tokens) == (MacroLayer("b", ()), MacroLayer("a", ()), MacroLayer("a", (0, 1)))
    graph = space.graph(architecture)
    assert described(graph) == [
        ("input", "input", []),
        ("layer_0/operation", "b", ["input"]),
        ("layer_1/operation", "a", ["layer_0/operation"]),
        ("layer_2/operation", "a", ["layer_1/operation"]),
        ("layer_2", "concat", ["layer_2/operation", "layer_0/operation", "layer_1/operation"]),
        ("output", "output", ["layer_2"]),
    ]


def test_later_layers_read_what_skips_have_joined() -> None:
    space = MacroSpace(4, ("a",))
    graph = space.graph(space.parse("a | a connect | a none none | a none connect none"))
    reads = {
        node.name: [graph.nodes[source].name for source in sources]
        for node, sources in zip(graph.nodes, graph.predecessors(), strict=True)
    }
    assert reads["layer_2/operation"] == ["layer_1"]
    assert reads["layer_3"] == ["layer_3/operation", "layer_1"]


def test_arrays_agree_with_the_names() -> None:
    space = PRESETS["macro"]
    assert isinstance(space, MacroSpace)
    names = [decision.name for decision in space.decisions]
    assert [names[column] for column in space.operation_columns] == [f"layer_{layer}/operation" for layer in range(12)]
    tokens = space.sample(np.random.default_rng(0), 20)
    skips = space.skips(tokens)
    for layer, source in itertools.product(range(12), repeat=2):
        expected = tokens[:, names.index(f"layer_{layer}/skip_{source}")] == 1 if source < layer else np.zeros(20, bool)
        np.testing.assert_array_equal(skips[:, layer, source], expected)


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_every_architecture_is_a_class_of_its_own(layers: int) -> None:
    """The operations are a chain, so there is no other numbering of the layers."""
    space = MacroSpace(layers, ("a", "b"))
    rows = itertools.product(*(range(len(decision.choices)) for decision in space.decisions))
    assert len({space.canonical(space.architecture(row)) for row in rows}) == space.size
