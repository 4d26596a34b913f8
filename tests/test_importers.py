"""CSV files and NATS-Bench folders as tables, and everything that can be wrong with them."""

from __future__ import annotations

import bz2
import csv
import itertools
import pickle
import sys
import tracemalloc
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.experiments.cli.app import console
from nas_gym.experiments.cli.main import main
from nas_gym.spaces import Bench201Space, BenchGraphSpace, make_space
from nas_gym.tables import Table
from nas_gym.tables.importers import import_csv
from nas_gym.tables.nats_bench import import_nats_bench

DATA = Path(__file__).parents[2] / "shared/data"
CSV = DATA / "nas_bench_201_12_epochs.csv"
SAMPLES = {
    "tss": DATA / "nats_bench_sample/NATS-tss-v1_0-3ffb9-simple",
    "sss": DATA / "nats_bench_sample/NATS-sss-v1_0-50262-simple",
}
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the benchmark data are not here")

SPACE = Bench201Space(nodes=2, operations=("none", "skip_connect", "nor_conv_1x1"))
LINES = [
    "architecture,a_valid,a_test,a_seconds",
    "|none~0|,10,11,1.5",
    "|nor_conv_1x1~0|,90,80,2",
    "|skip_connect~0|,50,51,1",
]


def write(tmp_path: Path, lines: list[str]) -> Path:
    path = tmp_path / "f.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def imported(tmp_path: Path, lines: list[str] = LINES, **options) -> Table:
    return import_csv(write(tmp_path, lines), tmp_path / "t.npz", SPACE, **{"percent": True, **options})


# ------------------------------------------------------------------ CSV


def test_csv(tmp_path) -> None:
    table = imported(tmp_path, epochs=12, licence="MIT")
    assert table.space == SPACE
    assert table.tasks == ("a",)
    assert table.provenance["licence"] == "MIT"
    assert table.provenance["source"].startswith("f.csv")
    evaluator = TabularEvaluator(SPACE, table=table)
    tokens = np.array([[0], [1], [2]])
    found = evaluator.evaluate(tokens)
    np.testing.assert_allclose(found.accuracy, [0.1, 0.5, 0.9])
    np.testing.assert_allclose(evaluator.test(tokens), [0.11, 0.51, 0.8])
    np.testing.assert_allclose(found.metrics["seconds"], [18, 12, 24])
    assert found.metrics["epochs"].tolist() == [12, 12, 12]
    again = imported(tmp_path, epochs=12, licence="MIT")
    assert again.path.read_bytes() == table.path.read_bytes()


def test_csv_named_columns_and_fractions(tmp_path) -> None:
    lines = ["x,net,y,n", "0.25,|none~0|,0.5,7", "0.5,|nor_conv_1x1~0|,0.125,8", "1,|skip_connect~0|,0,9"]
    tasks = {"first": {"valid": "x", "parameters": "n"}, "second": {"valid": "y"}}
    table = imported(tmp_path, lines, tasks=tasks, architecture=("net",), percent=False)
    assert table.tasks == ("first", "second")
    tokens = np.array([[0], [1], [2]])
    first = TabularEvaluator(SPACE, table=table, task="first").evaluate(tokens)
    assert first.accuracy.tolist() == [0.25, 1.0, 0.5]
    assert first.metrics["parameters"].tolist() == [7, 9, 8]
    assert "epochs" not in first.metrics
    second = TabularEvaluator(SPACE, table=table, task="second").evaluate(tokens)
    assert second.accuracy.tolist() == [0.5, 0.0, 0.125]


def test_csv_with_a_column_for_each_decision(tmp_path) -> None:
    """On a space with illegal sequences; the accuracy spells the choices."""
    space = BenchGraphSpace(links=((0, 0), (0, 1)), operations=("gcn", "fc", "skip"))
    names = [decision.name for decision in space.decisions]
    lines = [",".join([*names, "t_valid"])]
    for sequence in space.enumerate()[::-1]:
        words = [decision.choices[token] for decision, token in zip(space.decisions, sequence, strict=True)]
        lines.append(",".join([*words, f"0.{sequence[0]}{sequence[1]}{sequence[2]}1"]))
    path = write(tmp_path, lines)
    table = import_csv(path, tmp_path / "t.npz", space, architecture=names)
    assert (table.rows >= 0).sum() == space.size == 16
    tokens = space.enumerate()
    found = TabularEvaluator(space, table=table).evaluate(tokens).accuracy
    np.testing.assert_allclose(found, [float(f"0.{a}{b}{c}1") for a, b, c in tokens])
    write(tmp_path, [*lines, "00,skip,skip,0.5"])
    with pytest.raises(ValueError, match=r"f\.csv, row 18: unknown architecture: .*not legal for decision 'node_2'"):
        import_csv(path, tmp_path / "t.npz", space, architecture=names)
    write(tmp_path, [lines[0], "00,gcn,gan,0.5"])
    with pytest.raises(ValueError, match=r"f\.csv, row 2: 'gan' is not a choice of 'node_2'; choices: gcn, fc, skip"):
        import_csv(path, tmp_path / "t.npz", space, architecture=names)
    with pytest.raises(ValueError, match="one for each of the 3 decisions"):
        import_csv(path, tmp_path / "t.npz", space, architecture=names[:2])


def test_csv_in_part(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"f\.csv lacks 2 of 3 architectures, the first of them \|none~0\|"):
        imported(tmp_path, [LINES[0], LINES[2]])
    table = imported(tmp_path, [LINES[0], LINES[2]], partial=True)
    found = TabularEvaluator(SPACE, table=table).evaluate(np.array([[0], [1], [2]]))
    assert found.failed.tolist() == [True, True, False]
    assert found.accuracy.tolist() == [0.0, 0.0, 0.9]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("|none~0|,1,1,1", "row 4: its architecture is already in row 2"),
        ("|gelu~0|,1,1,1", "row 4: unknown architecture: .*gelu"),
        ("|skip_connect~0|,1,1", "row 4: it has 3 cells, the header has 4; is the file cut short"),
        ("|skip_connect~0|,1,1,1,1", "row 4: it has 5 cells"),
        ("|skip_connect~0|,1,x,1", "row 4: 'x' is not a number"),
        ("|skip_connect~0|,,1,1", "row 4: '' is not a number"),
        ("|skip_connect~0|,nan,1,1", r"row 4: nan is not in \[0, 1\d*\]"),
        ("|skip_connect~0|,101,1,1", r"row 4: 101 is not in \[0, 100\]"),
        ("|skip_connect~0|,1,1,-1", r"row 4: -1 is not in \[0, inf\]"),
        ("|skip_connect~0|,1,1,inf", "row 4: inf is not in"),
        ('|skip_connect~0|,1,1,"2', "row 4: unexpected end of data"),
        ("|skip_connect~0|,1,1,1\n|skip_connect~0|,1,1,1", "row 5: its architecture is already in row 4"),
    ],
)
def test_csv_errors(tmp_path, line: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"f\.csv, {message}"):
        imported(tmp_path, [*LINES[:3], line])
    assert not (tmp_path / "t.npz").exists()


def test_csv_other_errors(tmp_path) -> None:
    with pytest.raises(
        ValueError, match=r"row 2: 10 is not in \[0, 1\]; accuracies in percent are imported with percent"
    ):
        imported(tmp_path, percent=False)
    with pytest.raises(ValueError, match="no column 'net'; columns: architecture, a_valid"):
        imported(tmp_path, architecture=("net",))
    with pytest.raises(ValueError, match="no column 'b'"):
        imported(tmp_path, tasks={"a": {"valid": "b"}})
    with pytest.raises(ValueError, match="task 'a' takes 'valid' and of"):
        imported(tmp_path, tasks={"a": {"test": "a_test"}})
    with pytest.raises(ValueError, match="task 'a' takes 'valid' and of"):
        imported(tmp_path, tasks={"a": {"valid": "a_valid", "loss": "a_test"}})
    with pytest.raises(ValueError, match="no column named TASK_valid"):
        imported(tmp_path, ["architecture,x", "|none~0|,1"])
    with pytest.raises(ValueError, match="no header"):
        imported(tmp_path, ["a,a"])
    (tmp_path / "f.csv").write_bytes(b"architecture,a_valid\n|none~0|,\xff\n")
    with pytest.raises(ValueError, match=r"f\.csv, row"):
        import_csv(tmp_path / "f.csv", tmp_path / "t.npz", SPACE)
    (tmp_path / "f.csv").write_bytes(b"")
    with pytest.raises(ValueError, match="no header"):
        import_csv(tmp_path / "f.csv", tmp_path / "t.npz", SPACE)


CURVES = [
    "architecture,early,late,end,test,time",
    "|none~0|,0.1,0.2,0.3,0.31,2",
    "|nor_conv_1x1~0|,0.7,0.6,0.9,0.8,3",
    "|skip_connect~0|,0.4,0.5,0.55,0.5,1",
]


def test_csv_with_learning_curves(tmp_path) -> None:
    """Columns in any order of epochs; the expected numbers are read by the csv module from the same lines."""
    tasks = {
        "a": {"valid": {12: "late", 4: "early", 200: "end"}, "test": {200: "test"}, "seconds": "time"},
        "b": {"valid": "end", "test": "test"},
    }
    table = imported(tmp_path, CURVES, tasks=tasks, percent=False, epochs=90)
    assert table.epochs == {"a": (4, 12, 200), "b": (90,)}
    lines = list(csv.DictReader(CURVES))
    tokens = np.array([SPACE.parse(line["architecture"]).tokens for line in lines])
    for epochs, column in ((4, "early"), (12, "late"), (200, "end")):
        evaluator = TabularEvaluator(SPACE, table=table, task="a", epochs=epochs)
        found = evaluator.evaluate(tokens)
        assert found.accuracy.tolist() == [float(line[column]) for line in lines]
        assert found.metrics["seconds"].tolist() == [epochs * float(line["time"]) for line in lines]
        assert evaluator.test(tokens).tolist() == [float(line["test"]) for line in lines]
        assert np.isnan(evaluator.test(tokens, epochs=4)).all()
    full = TabularEvaluator(SPACE, table=table, task="a")
    assert full.fidelities == (4 / 200, 12 / 200, 1.0)
    assert full.evaluate(tokens, fidelity=12 / 200).accuracy.tolist() == [0.2, 0.6, 0.5]
    single = TabularEvaluator(SPACE, table=table, task="b")
    assert single.evaluate(tokens).accuracy.tolist() == [0.3, 0.9, 0.55]
    # A single column of the same epochs is the same table, whichever way it is given.
    other = {"b": {"valid": {90: "end"}, "test": {90: "test"}}}
    first = imported(tmp_path, CURVES, tasks={"b": tasks["b"]}, percent=False, epochs=90).checksum
    assert imported(tmp_path, CURVES, tasks=other, percent=False).checksum == first


def test_csv_with_a_curve_of_percents(tmp_path) -> None:
    lines = [CURVES[0], "|none~0|,10,20,30,31,2", "|nor_conv_1x1~0|,70,60,90,80,3", "|skip_connect~0|,40,50,55,50,1"]
    table = imported(tmp_path, lines, tasks={"a": {"valid": {1: "early", 2: "late"}}})
    np.testing.assert_allclose(np.sort(table.task("a").valid[:, 0], axis=0), [[0.1, 0.2], [0.4, 0.5], [0.7, 0.6]])


@pytest.mark.parametrize(
    ("columns", "epochs"),
    [
        ({"valid": {0: "early"}}, None),
        ({"valid": {-1: "early"}}, None),
        ({"valid": {"4": "early"}}, None),
        ({"valid": {4.0: "early"}}, None),
        ({"valid": {True: "early"}}, None),
        ({"valid": {}}, None),
        ({"valid": "early"}, 0),
        ({"valid": {4: "early", 12: "late"}, "test": "test"}, None),
        ({"valid": {4: "early", 12: "late"}, "test": "test"}, 4),
        ({"valid": {4: "early", 12: "late"}, "test": {4: "test"}}, None),
        ({"valid": {4: "early"}, "test": {4: "early", 12: "test"}}, None),
        ({"valid": "early", "test": {12: "test"}}, None),
        ({"valid": {4: "early"}, "seconds": {4: "time"}}, None),
    ],
    ids=str,
)
def test_csv_with_epochs_that_do_not_fit(tmp_path, columns, epochs) -> None:
    with pytest.raises(
        ValueError, match="task 'a': epochs must be positive integers, of 'valid' and 'test' alone"
    ) as told:
        imported(tmp_path, CURVES, tasks={"a": columns}, percent=False, epochs=epochs)
    assert str(columns) in str(told.value)
    assert not (tmp_path / "t.npz").exists()


def test_csv_with_a_test_at_the_last_epochs(tmp_path) -> None:
    """A single column stands at `epochs`."""
    columns = {"valid": {4: "early", 12: "late"}, "test": "test"}
    table = imported(tmp_path, CURVES, tasks={"a": columns}, percent=False, epochs=12)
    assert table.epochs == {"a": (4, 12)}
    tokens = np.array([[0], [1], [2]])
    assert TabularEvaluator(SPACE, table=table).test(tokens).tolist() == [0.31, 0.5, 0.8]


@needs_data
def test_csv_of_bench201(tmp_path) -> None:
    table = import_csv(CSV, tmp_path / "t.npz", "bench201", percent=True, epochs=12)
    assert table.tasks == ("cifar10", "cifar100", "imagenet16")
    space = make_space("bench201")
    with CSV.open(newline="") as file:
        lines = list(csv.DictReader(file))
    tokens = np.array([space.parse(line["architecture"]).tokens for line in lines[::50]])
    for task in table.tasks:
        evaluator = TabularEvaluator(space, table=table, task=task)
        assert evaluator.evaluate(tokens).accuracy.tolist() == [
            float(line[f"{task}_valid"]) / 100 for line in lines[::50]
        ]
        assert evaluator.test(tokens).tolist() == [float(line[f"{task}_test"]) / 100 for line in lines[::50]]
        assert evaluator.optimum == max(float(line[f"{task}_valid"]) for line in lines) / 100


# ------------------------------------------------------------------ NATS-Bench

BENCH = make_space("bench201")
TEXTS = [BENCH.format(row) for row in BENCH.sample(np.random.default_rng(0), 40)]


def nats_record(number: int, text: str, seeds: dict[int, tuple[int, ...]]) -> dict:
    """A file's content, in the shape of the official ones; accuracies tell where they come from."""
    sets = {"cifar10-valid": 1, "cifar10": 2, "cifar100": 3, "ImageNet16-120": 4}
    record = OrderedDict()
    for length, known in seeds.items():
        results = {}
        for (dataset, mark), seed in itertools.product(sets.items(), known):
            names = {"cifar10-valid": ["x-valid", "ori-test"], "cifar10": ["ori-test"]}.get(
                dataset, ["x-valid", "x-test", "ori-test"]
            )
            curves = {
                f"{name}@{epoch}": mark * 10 + names.index(name) + seed / 1e4 + epoch / 1e3 + number / 1e5
                for name in names
                for epoch in range(length)
                if length <= 12 or epoch == length - 1
            }
            results[dataset, seed] = {
                "eval_acc1es": curves,
                "train_times": OrderedDict((epoch, 2.0 * mark) for epoch in range(length)),
                "eval_times": {f"{name}@{epoch}": 0.25 * mark for name in names for epoch in range(length)},
                "params": np.float64(0.129306),
                "flop": 15.64737 if seed == 888 else 15.0,
                "latency": [np.float64(0.01), np.float64(-1.0)],
            }
        record[str(length)] = {"arch_index": number, "arch_str": text, "all_results": results}
    return record


def write_nats(folder: Path, numbers=range(40), **changes) -> Path:
    folder.mkdir(exist_ok=True)

    def put(name: str, content: object) -> None:
        (folder / f"{name}.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps(content, protocol=4)))

    put("meta", {"meta_archs": TEXTS, "total_archs": len(TEXTS), "evaluated_indexes": set()})
    for number in numbers:
        seeds = changes.get("seeds", {12: (777, 888), 200: (888, 999)})
        put(f"{number:06d}", nats_record(number, changes.get("text", TEXTS[number]), seeds))
    return folder


def test_nats_bench(tmp_path) -> None:
    folder = write_nats(tmp_path / "tss", numbers=[0, 3])
    table = import_nats_bench(folder, tmp_path / "t.npz", partial=True)
    assert table.space == BENCH
    assert table.epochs == dict.fromkeys(["cifar10", "cifar100", "imagenet16-120"], (*range(1, 13), 200))
    rows = table.rows[BENCH.index(np.array([BENCH.parse(TEXTS[n]).tokens for n in (0, 3)]))]
    assert sorted(rows) == [0, 1]
    assert (table.rows >= 0).sum() == 2
    # The value is 10 x data set + split + seed / 1e4 + epoch / 1e3 + architecture / 1e5, in percent.
    where = {"cifar10": (10, 20), "cifar100": (30, 31), "imagenet16-120": (40, 41)}
    for task, splits in where.items():
        read = table.task(task)
        for split, base in zip((read.valid, read.test), splits, strict=True):
            assert split.shape == (2, 3, 13)  # seeds 777, 888, 999
            assert np.isnan(split[:, 2, :12]).all()
            assert np.isnan(split[:, 0, 12]).all()
            for row, number in zip(rows, (0, 3), strict=True):
                wanted = base + 0.0777 + np.arange(12) / 1e3 + number / 1e5
                np.testing.assert_allclose(split[row, 0, :12], wanted / 100, rtol=1e-6)
                np.testing.assert_allclose(split[row, 2, 12], (base + 0.0999 + 0.199 + number / 1e5) / 100, rtol=1e-6)
        mark = splits[0] // 10
        assert read.seconds.tolist() == [2.0 * mark] * 2
        assert read.validation_seconds.tolist() == [0.25 * mark] * 2
        assert read.parameters.tolist() == [129_306.0] * 2
        assert read.flops.tolist() == [31_294_740.0] * 2  # twice, and that of seed 888
        assert read.latency.tolist() == [0.01] * 2


def test_nats_bench_in_part(tmp_path) -> None:
    folder = write_nats(tmp_path / "tss", numbers=[0])
    with pytest.raises(ValueError, match=r"tss lacks 15,624 of 15,625 architectures, the first of them \|none~0\|"):
        import_nats_bench(folder, tmp_path / "t.npz")


@pytest.mark.slow
def test_nats_bench_streams(tmp_path) -> None:
    """Memory holds one file at a time."""
    folder = write_nats(tmp_path / "tss")
    import_nats_bench(folder, tmp_path / "t.npz", partial=True)
    peaks = []
    for count in (2, 40):
        for path in sorted(folder.glob("0*"))[count:]:
            path.rename(tmp_path / path.name)
        tracemalloc.start()
        import_nats_bench(folder, tmp_path / "t.npz", partial=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        for path in tmp_path.glob("0*"):
            path.rename(folder / path.name)
    assert (
        peaks[1] < peaks[0] + 40 * 40 * 13 * 4 * 3
    )  # the arrays grow, a little; a file's content is 100 times as large


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('run')",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no bz2", "000001.*is not a complete bz2 file"),
        (
            bz2.compress(pickle.dumps(nats_record(1, TEXTS[1], {12: (777,)})))[:-20],
            "000001.*is not a complete bz2 file",
        ),
        (
            bz2.compress(pickle.dumps(nats_record(1, TEXTS[1], {12: (777,)}))[:-20]),
            "000001.*cannot be read as a NATS-Bench",
        ),
        (bz2.compress(pickle.dumps({"12": Evil()})), "000001.*cannot be read.*asks for builtins.exec"),
        (bz2.compress(pickle.dumps([1])), "000001.*it holds no dict but a list"),
        (bz2.compress(pickle.dumps({"12": 3})), "000001.*is not a NATS-Bench record: TypeError"),
        (
            bz2.compress(pickle.dumps(nats_record(1, TEXTS[2], {12: (777,)}))),
            r"000001.*NATS-Bench record.*it is of \|",
        ),
        (
            bz2.compress(pickle.dumps({"12": {"arch_str": TEXTS[1]}})),
            "000001.*is not a NATS-Bench record: KeyError: 'all_",
        ),
        (
            bz2.compress(pickle.dumps({"12": {"arch_str": TEXTS[1], "all_results": {}}})),
            "NATS-Bench record: ZeroDivision",
        ),
    ],
)
def test_nats_bench_damage(tmp_path, content: bytes, message: str) -> None:
    folder = write_nats(tmp_path / "tss", numbers=[0, 2])
    (folder / "000001.pickle.pbz2").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        import_nats_bench(folder, tmp_path / "t.npz", partial=True)
    assert not (tmp_path / "t.npz").exists()


def test_nats_bench_other_folders(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"is not a NATS-Bench folder: it has no meta\.pickle\.pbz2"):
        import_nats_bench(tmp_path, tmp_path / "t.npz")
    folder = write_nats(tmp_path / "tss", numbers=[])
    with pytest.raises(ValueError, match="has no files of architectures"):
        import_nats_bench(folder, tmp_path / "t.npz", partial=True)
    (folder / "meta.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps({"meta_archs": [1]})))
    with pytest.raises(ValueError, match="holds no list of architectures"):
        import_nats_bench(folder, tmp_path / "t.npz")


@needs_data
@pytest.mark.parametrize("kind", SAMPLES)
def test_official_samples_answer_as_the_official_package_does(tmp_path, kind: str) -> None:
    official = pytest.importorskip("nats_bench")
    api = official.create(str(SAMPLES[kind]), kind, fast_mode=True, verbose=False)
    table = import_nats_bench(SAMPLES[kind], tmp_path / "t.npz", partial=True)
    tokens = table.space.enumerate()
    tokens = tokens[table.rows[table.space.index(tokens)] >= 0]
    assert len(tokens) == 3
    last = {"tss": 200, "sss": 90}[kind]
    names = {"cifar10": "cifar10-valid", "cifar100": "cifar100", "imagenet16-120": "ImageNet16-120"}
    for task, dataset in names.items():
        for epochs in (2, 7, 12, last):
            evaluator = TabularEvaluator(table.space, table=table, task=task, epochs=epochs)
            found = evaluator.evaluate(tokens)
            test = evaluator.test(tokens, epochs=epochs)
            for row, sequence in enumerate(tokens):
                number = api.query_index_by_arch(table.space.format(sequence))
                schedule = "12" if epochs <= 12 else str(last)
                query = {"iepoch": epochs - 1, "hp": schedule, "is_random": False}
                validation = api.get_more_info(number, dataset, **query)
                reported = api.get_more_info(number, dataset.removesuffix("-valid"), **query)
                assert found.accuracy[row] == pytest.approx(validation["valid-accuracy"] / 100, rel=1e-6)
                assert test[row] == pytest.approx(reported["test-accuracy"] / 100, rel=1e-6)
                seconds = validation["train-all-time"] + validation["valid-per-time"]
                assert found.metrics["seconds"][row] == pytest.approx(seconds, rel=1e-6)
                cost = api.get_cost_info(number, dataset, hp="12")
                assert found.metrics["parameters"][row] == pytest.approx(cost["params"] * 1e6)
                assert found.metrics["flops"][row] == pytest.approx(cost["flops"] * 2e6)
                assert found.metrics["latency"][row] == pytest.approx(cost["latency"])


@needs_data
def test_official_sample_agrees_with_the_csv(tmp_path) -> None:
    """Both tell the accuracies after 12 epochs, rounded to a thousandth of a percent in the CSV file."""
    official = import_nats_bench(SAMPLES["tss"], tmp_path / "o.npz", partial=True)
    other = import_csv(CSV, tmp_path / "c.npz", "bench201", percent=True, epochs=12)
    tokens = BENCH.enumerate()
    tokens = tokens[official.rows >= 0]
    for task, same in {"cifar10": "cifar10", "cifar100": "cifar100", "imagenet16-120": "imagenet16"}.items():
        ours = TabularEvaluator(BENCH, table=official, task=task, epochs=12)
        theirs = TabularEvaluator(BENCH, table=other, task=same)
        np.testing.assert_allclose(ours.evaluate(tokens).accuracy, theirs.evaluate(tokens).accuracy, atol=6e-6)
        np.testing.assert_allclose(ours.test(tokens, epochs=12), theirs.test(tokens), atol=6e-6)


# ------------------------------------------------------------------ the command


@pytest.mark.slow
def test_commands(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "width", 300)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["nas-gym", "table", *arguments])
        code = 0
        try:
            main()
        except SystemExit as error:
            code = int(error.code or 0)
        return code, "".join(capsys.readouterr())

    texts = [BENCH.format(row) for row in BENCH.enumerate()[:5]]
    write(tmp_path, ["architecture,a_valid,a_test", *(f"{text},{i}0,{i}1" for i, text in enumerate(texts))])
    code, output = run("import", "csv", "f.csv", "--space", "bench201", "--percent", "--partial", "--licence", "CC0")
    assert code == 0
    assert "licence: CC0" in output
    assert "5 for 15,625 architectures" in output
    assert ["a", "1", "-", "0.2000", "0.4000", "0.2100", "0.4100", ""] in [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines()
    ]
    assert run("info", "f.npz") == (0, output)
    assert Table("f.npz").tasks == ("a",)
    options = [
        "--space",
        "bench201",
        "--percent",
        "--partial",
        "--out",
        "g.npz",
        "--tasks",
        "x:valid=a_test",
        "y:valid=a_valid",
    ]
    code, output = run("import", "csv", "f.csv", *options)
    assert code == 0
    assert Table("g.npz").tasks == ("x", "y")
    code, output = run("import", "csv", "f.csv", *options[:-2], "x:valid@4=a_test,valid@12=a_valid,test@12=a_test")
    assert code == 0
    assert Table("g.npz").epochs == {"x": (4, 12)}
    np.testing.assert_allclose(np.sort(Table("g.npz").task("x").valid[:, 0], axis=0)[1], [0.11, 0.1])
    for wrong in ("y=a_valid", "y:valid=a_valid,valid=a_test", "y:valid@1=a_valid,valid@1=a_test", "y:valid@=a_test"):
        code, output = run("import", "csv", "f.csv", *options[:-1], wrong)
        assert code == 2
        assert "expected TASK:QUANTITY=COLUMN" in output
        assert repr(wrong) in output
    code, output = run("import", "csv", "f.csv", "--space", "bench201", "--partial")
    assert (code, "imported with percent" in output) == (2, True)
    write_nats(tmp_path / "tss", numbers=[4])
    code, output = run("import", "nats-bench", "tss", "--partial")
    assert code == 0
    assert "Dong et al. 2021" in output
    assert Table("tss.npz").tasks == ("cifar10", "cifar100", "imagenet16-120")
    code, output = run("info", "h.npz")
    assert (code, "'h.npz' is neither a file nor" in output) == (2, True)


def test_csv_of_fractions_is_not_in_percent(tmp_path) -> None:
    """They would become accuracies of a hundredth."""
    fractions = [LINES[0], "|none~0|,0.1,0.11,1.5", "|nor_conv_1x1~0|,0.9,0.8,2", "|skip_connect~0|,0.5,0.51,1"]
    with pytest.raises(ValueError, match=r"f.csv: no accuracy is over 0.9, so they are fractions: leave out percent"):
        imported(tmp_path, fractions)
