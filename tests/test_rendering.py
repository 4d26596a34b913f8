"""Pictures and texts of architectures: geometry, files, words, and what stays out of the process."""

from __future__ import annotations

import itertools
import re
import struct
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zlib
from pathlib import Path

import numpy as np
import pytest

from nas_gym.envs.architecture_text import label
from nas_gym.envs.graph_layout import Layout, layout
from nas_gym.envs.rendering import decisions_text, draw, draw_rgb, save_picture, to_text
from nas_gym.spaces import PRESETS, UNDECIDED, ArchitectureGraph, Bench201Space, CellSpace, Node, SearchSpace

SPACES = {name: PRESETS[name] for name in ("cell:enas", "cell:nasnet", "cell:darts", "bench201")}
presets = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def graphs(space: SearchSpace, n: int, seed: int = 0) -> list[ArchitectureGraph]:
    return [space.graph(space.architecture(row)) for row in space.sample(np.random.default_rng(seed), n)]


def extremes() -> list[ArchitectureGraph]:
    """The widest cell, the deepest one, and graphs that no preset gives."""
    enas = CellSpace()
    wide = [0, 0, 0, 0] * 10
    deep = [token for _ in range(2) for node in range(5) for token in (node + 1, node + 1, 1, 1)]
    strange = ArchitectureGraph(
        (
            Node("x", "input", "a"),
            Node("c", "my_own_operation", "a"),
            Node("y", "input", "b"),
            Node("o", "output", "b"),
        ),
        ((0, 1), (0, 1), (1, 3), (2, 3)),
    )
    alone = ArchitectureGraph((Node("x", "input"),), ())
    return [*(enas.graph(enas.architecture(tokens)) for tokens in (wide, deep)), strange, alone]


# ------------------------------------------------------------------ geometry


def assert_readable(graph: ArchitectureGraph, plan: Layout) -> None:
    boxes = [
        (b.x - b.width / 2, b.y - b.height / 2, b.x + b.width / 2 + b.note, b.y + b.height / 2) for b in plan.boxes
    ]
    assert len(boxes) == len(graph.nodes)
    for (i, one), (j, two) in itertools.combinations(enumerate(boxes), 2):
        apart = one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]
        assert apart, f"{graph.nodes[i].name} and {graph.nodes[j].name} overlap"
    for left, lower, right, upper in boxes:
        assert left >= 0
        assert lower >= 0
        assert right <= plan.width
        assert upper <= plan.height
    for node, (left, lower, right, upper) in zip(graph.nodes, boxes, strict=True):
        panel = plan.panels.get(node.cluster, plan.panels.get(""))
        assert panel is not None
        assert panel[0] < left
        assert right < panel[2]
        assert panel[1] < lower
        assert upper < panel[3]
    for (source, target), route in zip(graph.edges, plan.routes, strict=True):
        heights = [y for _, upper, lower in route for y in (upper, lower)]
        assert all(one >= two - 1e-9 for one, two in itertools.pairwise(heights)), "an edge runs down, never back"
        first, last = plan.boxes[source], plan.boxes[target]
        assert route[0][:2] == pytest.approx((first.x, first.y - first.height / 2))
        assert route[-1][2] == pytest.approx(last.y + last.height / 2)
        assert abs(route[-1][0] - last.x) < last.width / 2
        # Where an edge can be: on its strokes, and in the hull of each bend between two of them.
        areas = [(x, lower, x, upper) for x, upper, lower in route]
        areas += [(min(x, u), end, max(x, u), start) for (x, _, start), (u, end, _) in itertools.pairwise(route)]
        for (left, lower, right, upper), box in itertools.product(areas, boxes):
            beside = right <= box[0] or box[2] <= left or upper <= box[1] + 1e-9 or box[3] <= lower + 1e-9
            assert beside, "an edge runs through a box"


@pytest.mark.slow
@presets
def test_boxes_do_not_overlap_and_edges_run_around_them(space: SearchSpace) -> None:
    for graph in graphs(space, 25):
        assert_readable(graph, layout(graph))


@pytest.mark.parametrize("graph", extremes(), ids=["wide", "deep", "across clusters", "one node"])
def test_extreme_graphs_are_readable_too(graph: ArchitectureGraph) -> None:
    assert_readable(graph, layout(graph))
    draw(graph).canvas.draw()  # type: ignore[attr-defined]


def test_layers_follow_the_longest_path() -> None:
    """A chain of three beside a shortcut: four layers below the input, equal gaps or more for each."""
    names = ("input", "a", "b", "c", "output")
    nodes = tuple(Node(n, {"input": "input", "output": "output"}.get(n, "conv_3x3")) for n in names)
    plan = layout(ArchitectureGraph(nodes, ((0, 1), (1, 2), (2, 3), (3, 4), (0, 4))))
    assert len({round(box.y, 6) for box in plan.boxes}) == 5
    assert [len(route) for route in plan.routes] == [2, 2, 2, 2, 5], "the shortcut passes three layers"


def test_a_planar_drawing_is_found() -> None:
    """Two crossed chains come out uncrossed."""
    words = [
        ("x", "input"),
        ("y", "input"),
        ("a", "conv"),
        ("b", "conv"),
        ("c", "conv"),
        ("d", "conv"),
        ("o", "output"),
    ]
    nodes = tuple(Node(name, operation) for name, operation in words)
    plan = layout(ArchitectureGraph(nodes, ((0, 3), (1, 2), (2, 5), (3, 4), (4, 6), (5, 6))))
    x = {node.name: box.x for node, box in zip(nodes, plan.boxes, strict=True)}
    assert (x["x"] < x["y"]) == (x["b"] < x["a"]) == (x["c"] < x["d"])


def test_clusters_stand_side_by_side() -> None:
    plan = layout(graphs(SPACES["cell:enas"], 1)[0])
    assert list(plan.panels) == ["normal", "reduction"]
    assert plan.panels["normal"][2] < plan.panels["reduction"][0]


@pytest.mark.slow
@presets
def test_words_fit_into_their_boxes(space: SearchSpace) -> None:
    for graph in graphs(space, 2, seed=1):
        figure, plan = draw(graph), layout(graph)
        figure.canvas.draw()  # type: ignore[attr-defined]
        for text in figure.axes[0].texts:
            extent = text.get_window_extent()
            (left, lower), (right, upper) = figure.axes[0].transData.inverted().transform(extent.get_points())
            inside = [
                b
                for b in plan.boxes
                if b.x - b.width / 2 <= left
                and right <= b.x + b.width / 2 + b.note + 0.05
                and b.y - 0.17 <= lower
                and upper <= b.y + 0.17
            ]
            title = any(abs(upper - panel[3]) < 0.35 for panel in plan.panels.values())
            assert inside or title, f"{text.get_text()!r} stands in no box"


# ------------------------------------------------------------------ files


def read_png(path: Path) -> tuple[int, int]:
    """Checks every chunk's checksum and the pixels' length; gives width and height."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    position, pixels, kinds = 8, b"", []
    while position < len(data):
        (length,), kind = struct.unpack(">I", data[position : position + 4]), data[position + 4 : position + 8]
        body = data[position + 8 : position + 8 + length]
        assert zlib.crc32(kind + body) == struct.unpack(">I", data[position + 8 + length : position + 12 + length])[0]
        kinds.append(kind)
        pixels += body if kind == b"IDAT" else b""
        position += 12 + length
    assert (kinds[0], kinds[-1]) == (b"IHDR", b"IEND")
    width, height = struct.unpack(">II", data[16:24])
    assert len(zlib.decompress(pixels)) == height * (1 + 4 * width)
    return width, height


@pytest.mark.slow
@presets
def test_png_is_whole(space: SearchSpace, tmp_path: Path) -> None:
    architecture = space.architecture(space.sample(np.random.default_rng(2), 1)[0])
    save_picture(architecture, tmp_path / "cell.png")
    width, height = read_png(tmp_path / "cell.png")
    plan = layout(space.graph(architecture))
    assert (width, height) == pytest.approx((150 * plan.width, 150 * plan.height), abs=2)


@pytest.mark.slow
@presets
def test_svg_holds_every_label_as_text(space: SearchSpace, tmp_path: Path) -> None:
    for row in space.sample(np.random.default_rng(3), 2):
        architecture = space.architecture(row)
        save_picture(architecture, str(tmp_path / "cell.SVG"))
        root = ElementTree.parse(tmp_path / "cell.SVG").getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
        for node in space.graph(architecture).nodes:
            short = node.name.removeprefix(f"{node.cluster}/").replace("_", " ")
            assert (short if node.operation == "input" else label(node.operation)) in texts
            if node.operation == "sum":
                assert short in texts
        operations = [label(n.operation) for n in space.graph(architecture).nodes if n.operation != "input"]
        assert all(texts.count(operation) == operations.count(operation) for operation in operations)


@pytest.mark.slow
def test_files_are_the_same_to_the_byte(tmp_path: Path) -> None:
    space = SPACES["cell:darts"]
    architecture = space.architecture(space.sample(np.random.default_rng(4), 1)[0])
    for suffix in ("png", "svg"):
        one, two = tmp_path / f"one.{suffix}", tmp_path / f"two.{suffix}"
        save_picture(architecture, one)
        save_picture(architecture, two)
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("name", ["cell.pdf", "cell", "png"])
def test_other_suffixes_are_refused(name: str, tmp_path: Path) -> None:
    architecture = Bench201Space().architecture([0] * 6)
    with pytest.raises(ValueError, match=rf"path must end in \.png or \.svg, got .*{re.escape(name)}"):
        save_picture(architecture, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_matplotlib_comes_late_and_pyplot_never() -> None:
    code = """if True:
        import sys
        from nas_gym.envs import graph_layout, rendering
        from nas_gym.spaces import Bench201Space
        assert "matplotlib" not in sys.modules
        space = Bench201Space()
        graph_layout.layout(space.graph(space.architecture([1] * 6)))
        rendering.to_text(space.architecture([1] * 6))
        assert "matplotlib" not in sys.modules
        import numpy
        rendering.draw_rgb(space, numpy.array([1, 1, 1, -1, -1, -1]))
        assert "matplotlib.pyplot" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------ undecided and highlighted


def node_patches(graph: ArchitectureGraph, **how: object) -> dict[str, object]:
    """The patch of each node, by the node's name."""
    patches = [patch for patch in draw(graph, **how).axes[0].patches if patch.get_zorder() == 3]  # type: ignore[arg-type]
    return {node.name: patch for node, patch in zip(graph.nodes, patches, strict=True)}


def test_undecided_nodes_are_dashed_and_the_highlight_is_strong() -> None:
    space = Bench201Space()
    graph = space.graph(space.architecture([1, 2, 3, 4, 0, 1]))
    undecided = frozenset({"edge_1_3", "edge_2_3"})
    patches = node_patches(graph, undecided=undecided, highlight="edge_0_3")
    widths = {name: patch.get_linewidth() for name, patch in patches.items()}  # type: ignore[attr-defined]
    dashed = {name for name, patch in patches.items() if patch.get_linestyle() not in ("-", "solid")}  # type: ignore[attr-defined]
    assert dashed == undecided
    assert max(widths, key=widths.__getitem__) == "edge_0_3"
    assert sorted(widths.values())[-2] < widths["edge_0_3"]
    texts = [text.get_text() for text in draw(graph, undecided=undecided, title="half a cell").axes[0].texts]
    assert texts.count("?") == 2
    assert "none" not in texts
    assert "half a cell" in texts
    assert len({p.get_linewidth() for p in node_patches(graph).values()}) == 1  # type: ignore[attr-defined]


@pytest.mark.slow
@presets
def test_frames_of_half_decided_architectures(space: SearchSpace) -> None:
    tokens = space.sample(np.random.default_rng(5), 1)[0]
    frames = []
    for decided in (0, 1, 3, space.length // 2 + 1, space.length):
        partial = tokens.copy()
        partial[decided:] = UNDECIDED
        before = partial.copy()
        frame = draw_rgb(space, partial)
        np.testing.assert_array_equal(partial, before)
        assert frame.dtype == np.uint8
        assert frame.shape == (800, 1600, 3)
        assert frame.flags.c_contiguous
        margin = np.concatenate([frame[:5].ravel(), frame[-5:].ravel(), frame[:, :5].ravel(), frame[:, -5:].ravel()])
        assert (margin == 255).all(), "nothing is cut off"
        assert (frame < 255).any()
        frames.append(frame)
    np.testing.assert_array_equal(frames[-1], draw_rgb(space, tokens))
    assert all((one != two).any() for one, two in itertools.pairwise(frames)), "each decision shows"


def test_an_undecided_combination_is_a_question() -> None:
    space = PRESETS["cell:nasnet"]
    graph = space.graph(space.architecture([0] * space.length))
    patches = node_patches(graph, undecided=frozenset({"normal/node_2/combine"}), highlight="reduction/node_0/combine")
    dashed = {name for name, patch in patches.items() if patch.get_linestyle() not in ("-", "solid")}  # type: ignore[attr-defined]
    assert dashed == {"normal/node_2"}
    assert patches["reduction/node_0"].get_linewidth() > patches["normal/node_2"].get_linewidth()  # type: ignore[attr-defined]


# ------------------------------------------------------------------ words


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        ("sep_conv_3x3", "sep conv 3x3"),
        ("sep_conv_3x3/2", "sep conv 3x3 /2"),
        ("skip_connect", "skip"),
        ("skip_connect/2", "skip /2"),
        ("nor_conv_1x1", "conv 1x1"),
        ("conv_1x7_7x1", "conv 1x7 7x1"),
        ("none", "none"),
        ("sum", "+"),
    ],
)
def test_labels(operation: str, words: str) -> None:
    assert label(operation) == words


def test_text_of_a_cell() -> None:
    space = CellSpace(nodes=2, combine=("add", "concat"))
    normal = [0, 1, 0, 4, 0, 2, 0, 2, 3, 0]  # node_1 reads node_0
    reduction = [1, 1, 4, 4, 1, 0, 1, 0, 1, 0]  # both are loose ends
    assert to_text(space.architecture(normal + reduction)) == "\n".join(
        [
            "normal cell",
            "  node_0 = sep conv 3x3(input_0) + skip(input_1)",
            "  node_1 = avg pool 3x3(node_0) + max pool 3x3(input_0)",
            "  output = concat(node_1)",
            "reduction cell",
            "  node_0 = concat(skip /2(input_1), skip /2(input_1))",
            "  node_1 = sep conv 3x3 /2(input_0) + sep conv 5x5 /2(input_1)",
            "  output = concat(node_0, node_1)",
        ]
    )


def test_text_of_a_bench201_cell() -> None:
    architecture = Bench201Space().parse(
        "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|"
    )
    assert to_text(architecture) == "\n".join(
        [
            "node_1 = conv 3x3(input)",
            "node_2 = none(input) + skip(node_1)",
            "node_3 = avg pool 3x3(input) + conv 1x1(node_1) + skip(node_2)",
            "output = node_3",
        ]
    )


def test_text_of_decisions() -> None:
    space = CellSpace(nodes=1)
    assert decisions_text(space, np.array([0, 1, 3, -1, -1, -1, -1, -1])) == "\n".join(
        [
            "normal/node_0: input_1 = input_0, input_2 = input_1, operation_1 = max_pool_3x3, operation_2 = ?",
            "reduction/node_0: input_1 = ?, input_2 = ?, operation_1 = ?, operation_2 = ?",
        ]
    )
    assert decisions_text(Bench201Space(), np.array([3, 1, -1, -1, -1, -1])) == "\n".join(
        [
            "edge_0_1 = nor_conv_3x3",
            "edge_0_2 = skip_connect, edge_1_2 = ?",
            "edge_0_3 = ?, edge_1_3 = ?, edge_2_3 = ?",
        ]
    )
