"""NAS-Bench-Graph: the package's own tables, as the package itself reads them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.spaces import PRESETS, BenchGraphSpace
from nas_gym.tables import bench_graph, class_rows, open_table
from nas_gym.tables.bench_graph import PROTEINS, TASKS, identity

package = pytest.importorskip("nas_bench_graph")
SPACE, SMALL = PRESETS["bench_graph"], PRESETS["bench_graph:proteins"]
assert isinstance(SPACE, BenchGraphSpace)
assert isinstance(SMALL, BenchGraphSpace)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache of this module's own."""
    folder = tmp_path_factory.mktemp("cache") / "new"
    before = os.environ.get("NAS_GYM_CACHE")
    os.environ["NAS_GYM_CACHE"] = str(folder)
    yield folder
    del os.environ["NAS_GYM_CACHE"]
    if before is not None:
        os.environ["NAS_GYM_CACHE"] = before


def hashes(space: BenchGraphSpace, tokens: np.ndarray) -> list[int]:
    networks = [space.decode(row) for row in tokens]
    return [package.Arch(list(net.links), list(net.operations)).valid_hash() for net in networks]


@pytest.mark.slow
@pytest.mark.parametrize(("space", "classes"), [(SPACE, 26_206), (SMALL, 2_021)], ids=["all", "proteins"])
def test_identity_is_the_packages(space: BenchGraphSpace, classes: int) -> None:
    """Equal exactly where the package's hashes are, on every sequence."""
    tokens = space.enumerate()
    identities = [identity(space, row) for row in tokens]
    pairs = set(zip(identities, hashes(space, tokens), strict=True))
    assert len(pairs) == len({ours for ours, _ in pairs}) == len({theirs for _, theirs in pairs}) == classes


@pytest.mark.slow
def test_identity_is_canonical() -> None:
    rows, _ = class_rows(SMALL)
    ours, _ = class_rows(SMALL, lambda row: identity(SMALL, row))
    assert np.array_equal(rows, ours)


@pytest.mark.slow
def test_identity_is_canonical_everywhere() -> None:
    rows, _ = class_rows(SPACE)
    ours, _ = class_rows(SPACE, lambda row: identity(SPACE, row))
    assert np.array_equal(rows, ours)


@pytest.mark.slow
@pytest.mark.parametrize("task", [*TASKS, PROTEINS])
def test_every_answer_is_the_packages(task: str) -> None:
    records = package.light_read(task)
    evaluator = TabularEvaluator(SPACE, task=task)
    space = evaluator.space
    assert space == (SMALL if task == PROTEINS else SPACE)
    tokens = space.sample(np.random.default_rng(0), 2000)
    found, test = evaluator.evaluate(tokens), evaluator.test(tokens)
    wanted = [records[key] for key in hashes(space, tokens)]
    assert found.accuracy.tolist() == [record["valid_perf"] for record in wanted]
    assert test.tolist() == [record["perf"] for record in wanted]
    assert found.metrics["latency"].tolist() == [record["latency"] for record in wanted]
    # In millions, and on one task here and there a third off a whole number.
    np.testing.assert_allclose(
        found.metrics["parameters"], [record["para"] * 1e6 for record in wanted], rtol=0, atol=0.34
    )
    assert set(found.metrics) == {"latency", "parameters"}
    # The published optimum, of validation and of test, is there and can be reached.
    everything = space.enumerate()
    assert evaluator.optimum == max(record["valid_perf"] for record in records.values())
    assert evaluator.evaluate(everything).accuracy.max() == evaluator.optimum
    assert evaluator.test(everything).max() == max(record["perf"] for record in records.values())


@pytest.mark.slow
def test_kept_in_the_cache(cache: Path, monkeypatch) -> None:
    table = open_table("nas-bench-graph", "cora")
    assert table.path.parent == cache
    assert table.provenance["licence"] == "Apache-2.0"
    assert table.tasks == TASKS
    assert open_table("nas-bench-graph").path == table.path
    assert open_table("nas-bench-graph", "proteins").path != table.path
    monkeypatch.setattr(bench_graph, "convert", None)  # is not called again
    assert open_table("nas-bench-graph", "arxiv").path == table.path


@pytest.mark.slow
def test_errors(tmp_path, monkeypatch) -> None:
    with pytest.raises(ValueError, match=r"task 'mutag' is not in NAS-Bench-Graph; tasks: cora, .*, proteins"):
        open_table("nas-bench-graph", "mutag")
    with pytest.raises(ValueError, match="task None is not in table"):
        TabularEvaluator(SPACE)
    for read, message in [({}, "is not a NAS-Bench-Graph table"), ({11111: {"perf": 1}}, "is not a .*valid_perf")]:
        monkeypatch.setattr(bench_graph, "read_plain_dict", lambda path, what, read=read: read)
        with pytest.raises(ValueError, match=rf"cora\.bench {message}"):
            bench_graph.convert(tmp_path / "t.npz", "0", SPACE.operations, ("cora",))
    lacking = dict(list(package.light_read("cora").items())[1:])
    monkeypatch.setattr(bench_graph, "read_plain_dict", lambda path, what: lacking)
    with pytest.raises(ValueError, match="it has 26205 architectures; 26206 different ones are expected"):
        bench_graph.convert(tmp_path / "t.npz", "0", SPACE.operations, ("cora",))
    monkeypatch.setattr(bench_graph, "BENCH_GRAPH", "nothing-of-the-kind")
    with pytest.raises(ValueError, match="needs the package: pip install"):
        bench_graph.open_bench_graph("cora")
