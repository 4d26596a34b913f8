"""The comparison at the end of a run: who is chosen, what is trained and counted, and what the numbers say."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fidelity_checks import curves_table
from rich.progress import Progress
from scipy import stats
from toy_tasks import toy_task

from nas_gym.agents import SearchResult
from nas_gym.evaluators.cost import count_flops, count_parameters
from nas_gym.evaluators.from_scratch import FromScratchEvaluator
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.evaluators.training import fit, score
from nas_gym.experiments.intervals import Difference
from nas_gym.experiments.run import RunConfig, trainings
from nas_gym.experiments.run.comparison import (
    candidates,
    look_up,
    meets_target,
    random_architectures,
    references,
    rewards,
    train,
)
from nas_gym.experiments.run.comparison_result import Comparison, Row, amount
from nas_gym.experiments.run.progress import Interrupted
from nas_gym.experiments.run.trainings import STEPS, default_training
from nas_gym.files import read_json
from nas_gym.networks.references import make_reference
from nas_gym.spaces import make_space

SPACE = make_space({"name": "bench201", "nodes": 3})
CONFIG = RunConfig(
    env="NAS-Bench201-v0", retrain_epochs=1, compare_found=2, compare_random=3, compare_seeds=2, seed=5, device="cpu"
)

# ------------------------------------------------------------------ the interval of a difference


@pytest.mark.parametrize("seed", range(5))
def test_welch_s_interval(seed) -> None:
    rng = np.random.default_rng(seed)
    ours, theirs = rng.normal(0.8, 0.01, 2 + seed), rng.normal(0.7, 0.05, 10)
    found, wanted = Difference.of(ours, theirs), stats.ttest_ind(ours, theirs, equal_var=False)
    assert found.value == pytest.approx(ours.mean() - theirs.mean())
    assert (found.low, found.high) == pytest.approx(wanted.confidence_interval(0.95))
    assert (found.sign != 0) == (wanted.pvalue < 0.05)


def test_the_interval_of_one_exact_accuracy() -> None:
    theirs = [0.7, 0.75, 0.6, 0.72]
    mean = stats.ttest_1samp(theirs, 0.0).confidence_interval(0.95)
    found = Difference.of([0.8], theirs)
    assert (found.low, found.high) == pytest.approx((0.8 - mean.high, 0.8 - mean.low))


def test_accuracies_that_do_not_vary_have_no_interval() -> None:
    assert Difference.of([0.5], [0.25, 0.25]) == Difference(0.25, None, None)
    assert str(Difference(0.25, None, None)) == "+25.00 points"
    assert str(Difference(0.0125, -0.01, 0.035)) == "+1.25 points [-1.00, +3.50]"
    assert Difference.of([0.5, 0.6], [0.25, 0.25]).sign == 0
    assert Difference.of([0.5], [0.25, 0.26]).sign == 1
    assert Difference.of([0.1], [0.25, 0.26]).sign == -1


@pytest.mark.slow
def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Three trainings of one network against ten random architectures with a training each, simulated."""
    rng, truth = np.random.default_rng(0), 0.02
    covered = 0
    for _ in range(2000):
        ours = rng.normal(0.82, 0.009, 3)
        theirs = rng.normal(0.80, 0.02, 10) + rng.normal(0, 0.009, 10)
        found = Difference.of(ours, theirs)
        covered += found.low <= truth <= found.high
    assert 0.94 < covered / 2000 < 0.965


# ------------------------------------------------------------------ what a comparison says


def row(role: str, name: str, valid: float | None, test: float, **changes: Any) -> Row:
    return Row(role, name, name, 0, valid, test, parameters=changes.pop("parameters", 1000.0), **changes)


def compared(found: float, drawn: float, plain: float, mobile: float, *, mobile_valid: float = 0.4) -> Comparison:
    noise = (-0.001, 0.001, 0.0)
    rows = [row("found", "trial 7", 0.5, found + each) for each in noise]
    rows += [row("random", f"random {n}", 0.3, drawn + each, parameters=2000.0) for n, each in enumerate(noise)]
    rows += [row("reference", "plain", 0.39, plain + each) for each in noise]
    rows += [row("reference", "mobile", mobile_valid, mobile + each) for each in noise]
    rows += [row("candidate", "trial 7", 0.9, 0.1), row("candidate", "trial 8", 0.9, 0.1)]
    return Comparison("training", 7, tuple(rows))


def test_the_best_network_made_by_hand_is_chosen_by_validation_accuracy() -> None:
    comparison = compared(0.8, 0.7, plain=0.9, mobile=0.75)
    assert comparison.group("reference").name == "mobile"
    assert comparison.difference("reference").value == pytest.approx(0.05)
    assert compared(0.8, 0.7, plain=0.9, mobile=0.75, mobile_valid=0.3).group("reference").name == "plain"


def test_candidates_are_not_counted() -> None:
    comparison = compared(0.8, 0.7, 0.6, 0.6)
    assert comparison.found.test.mean == pytest.approx(0.8)
    assert [(group.role, group.name, len(group.rows)) for group in comparison.groups] == [
        ("found", "found", 3),
        ("random", "random", 3),
        ("reference", "plain", 3),
        ("reference", "mobile", 3),
    ]


def test_the_conclusion_says_what_is_shown_and_what_is_not() -> None:
    costs = "architectures drawn at random, on average, with 0.5 times their parameters"
    assert compared(0.8, 0.7, 0.6, 0.8).conclusion == (
        f"The found architecture is more accurate than {costs}; it is not shown to be more or less accurate than the "
        "mobile network, the best of those made by hand."
    )
    assert compared(0.8, 0.8, 0.6, 0.9).conclusion == (
        f"The found architecture is not shown to be more or less accurate than {costs}; it is less accurate than the "
        "mobile network, the best of those made by hand."
    )


def test_the_summary_is_json_without_times() -> None:
    summary = compared(0.8, 0.7, 0.6, 0.6).summary()
    assert json.loads(json.dumps(summary)) == summary
    assert not {"seconds", "latency"} & summary["groups"][0].keys()
    assert summary["differences"]["random"]["value"] == pytest.approx(0.1)
    assert [group["networks"] for group in summary["groups"]] == [1, 3, 1, 1]


def test_the_csv_holds_every_row() -> None:
    comparison = Comparison("training", 0, (row("found", "trial 0", None, 0.0, latency=0.01), row("random", "a", 1, 1)))
    rows = list(csv.DictReader(io.StringIO(comparison.csv())))
    assert [each["valid_accuracy"] for each in rows] == ["", "1"]
    assert rows[0]["latency"] == "0.01"
    assert list(rows[0]) == list(Row.__dataclass_fields__)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("flops", 1_433_267, "1.43M"),
        ("parameters", 20_050, "20.1k"),
        ("parameters", 999, "999"),
        ("latency", 0.00234, "2.34 ms"),
        ("flops", None, "-"),
    ],
)
def test_amounts(name, value, text) -> None:
    assert amount(name, value) == text


# ------------------------------------------------------------------ how long is trained


@pytest.mark.parametrize("images", [1, 9, 60, 150, 997, 8000, 20_000, 50_000, 10**6])
def test_default_trainings_are_of_about_equal_length(images) -> None:
    settings, used = default_training(images, None)
    steps = max(used // settings.batch_size, 1) * settings.epochs
    assert used <= images
    assert 2 <= settings.epochs <= 60
    assert 8 <= settings.batch_size <= 128
    assert steps <= 1.25 * STEPS
    assert steps >= 0.75 * STEPS or images < 50
    assert settings.record == ("valid",), "the test split is not looked at"
    given, whole = default_training(images, 7)
    assert (given.epochs, whole) == (7, images)


# ------------------------------------------------------------------ who is compared


def search(rewards: list[float], **metrics: list[float]) -> SearchResult:
    tokens = np.array([[3, 2, 1], [2, 2, 3], [3, 0, 2], [1, 3, 3]])[: len(rewards)]
    columns = {"accuracy": np.array(rewards), "failed": np.zeros(len(rewards))}
    columns |= {name: np.array(column) for name, column in metrics.items()}
    return SearchResult(SPACE, tokens, np.array(rewards), columns)


def test_candidates() -> None:
    assert candidates(search([0.3, 0.5, 0.4]), 2) == [1, 2]
    assert candidates(search([0.3, 0.5], failed=[1, 1]), 2) == [1], "one that has failed, if all have"


def test_rewards_of_other_accuracies() -> None:
    """The choice among candidates is by the objective: at equal accuracy the one that meets the target is better."""
    result = search([0.3, 0.5, 0.4], flops=[1e6, 4e6, 2e6])
    config = RunConfig(env="NAS-Bench201-v0", target="flops:2M")
    assert rewards(config, result, [1, 2], [0.8, 0.8]) == [0.4, 0.8]
    assert rewards(CONFIG, result, [1, 2], [0.8, 0.7]) == [0.8, 0.7]


@pytest.mark.slow
def test_random_architectures_are_drawn_uniformly() -> None:
    drawn = np.concatenate(
        [random_architectures(RunConfig(seed=seed, compare_random=10), SPACE, 30) for seed in range(250)]
    )
    counts = np.bincount(SPACE.index(drawn), minlength=125)
    assert stats.chisquare(counts).pvalue > 0.01


def test_random_architectures_meet_the_target(evaluator, tmp_path) -> None:
    """All of them do, whether networks are counted or looked up; if hardly any architecture does, they need not."""
    config = RunConfig(**{**vars(CONFIG), "env": "NAS-Bench201-v0", "target": "parameters:1000", "compare_random": 8})
    free = random_architectures(config, SPACE, 30)
    sizes = [count_parameters(evaluator.new_network(SPACE.architecture(row), evaluator.task, 0)) for row in free]
    middle = sorted(sizes)[3]
    config = dataclasses.replace(config, target=f"parameters:{middle}")
    fits = meets_target(config, evaluator)
    assert [fits(row) for row in free] == [size <= middle for size in sizes]
    assert all(map(fits, random_architectures(config, SPACE, 30, fits)))
    nothing = dataclasses.replace(config, target="parameters:1")
    np.testing.assert_array_equal(random_architectures(nothing, SPACE, 30, meets_target(nothing, evaluator)), free)
    assert meets_target(CONFIG, evaluator) is None
    assert meets_target(dataclasses.replace(config, target="latency:1ms"), evaluator) is None
    bundled = TabularEvaluator(make_space("bench201"))
    tokens = bundled.space.sample(np.random.default_rng(0), 30)
    known = bundled.evaluate(tokens).metrics["parameters"] <= middle
    assert [meets_target(config, bundled)(row) for row in tokens] == known.tolist()


def test_look_up(tmp_path) -> None:
    """By the table's own columns; the test accuracies are the squares of the others, as the table was made."""
    evaluator = TabularEvaluator(SPACE, table=curves_table(tmp_path / "table.npz"))
    tokens = SPACE.sample(np.random.default_rng(0), 20)
    accuracy = evaluator.evaluate(tokens).accuracy
    result = SearchResult(SPACE, tokens, accuracy, {"accuracy": accuracy, "failed": np.zeros(20)})
    drawn = random_architectures(CONFIG, SPACE, 20)
    comparison = look_up(CONFIG, result, candidates(result, 2), evaluator, drawn)
    assert comparison.winner == int(np.argmax(accuracy))
    assert [row.role for row in comparison.rows] == ["found", "candidate", "random", "random", "random"]
    assert all(row.test_accuracy == pytest.approx(row.valid_accuracy**2) for row in comparison.rows)
    chance = evaluator.evaluate(drawn).accuracy ** 2
    wanted = stats.ttest_1samp(chance, 0.0).confidence_interval(0.95)
    found = comparison.difference("random")
    assert found.value == pytest.approx(max(accuracy) ** 2 - chance.mean())
    assert found.high == pytest.approx(max(accuracy) ** 2 - wanted.low)
    assert comparison.group("reference") is None
    assert comparison.difference("reference") is None


# ------------------------------------------------------------------ trainings


@pytest.fixture(scope="module")
def evaluator() -> FromScratchEvaluator:
    settings = {"network": {"channels": 4, "reductions": 1}, "training": {"epochs": 1}}
    return FromScratchEvaluator(SPACE, toy_task(train=32), device="cpu", **settings)


RESULT = search([0.3, 0.5, 0.4])


def compare(folder: Path, evaluator: FromScratchEvaluator, stop: list[int] | None = None, **changes: Any) -> Comparison:
    config = RunConfig(**{**vars(CONFIG), **changes})
    drawn = random_architectures(config, SPACE, len(RESULT))
    folder.mkdir(exist_ok=True)
    with Progress(disable=True) as progress:
        stop = [] if stop is None else stop
        return train(folder, config, RESULT, candidates(RESULT, 2), evaluator, drawn, progress, stop)


@pytest.fixture(scope="module")
def finished(evaluator, tmp_path_factory) -> tuple[Path, Comparison]:
    folder = tmp_path_factory.mktemp("run")
    return folder, compare(folder, evaluator)


def test_each_training_is_that_of_fit(finished, evaluator) -> None:
    """Of the found network, a random one and one made by hand, trained again here."""
    _, comparison = finished
    settings, _ = default_training(32, 1)
    names = {"found": 0, "random": 1, "reference": 0}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for role, number in names.items():
        row = [each for each in comparison.rows if each.role == role][number]
        if role == "reference":
            width = int(row.architecture.rpartition(" ")[2])
            settings_of_found = evaluator.settings.network
            network = make_reference(row.name, width, (1, 6, 6), 3, settings_of_found, row.seed)
        else:
            network = evaluator.new_network(SPACE.parse(row.architecture), evaluator.task, row.seed)
        (curve,) = fit([network], evaluator.task, settings, seeds=[row.seed])
        assert row.valid_accuracy == curve.accuracy["valid"][-1]
        assert row.test_accuracy == score(network, evaluator.task, evaluator.task.test)
        assert row.parameters == count_parameters(network)
        assert row.flops == count_flops(network, (1, 6, 6))
        assert row.latency > 0
    torch.set_num_threads(threads)


def test_who_is_trained_with_which_seed(finished) -> None:
    _, comparison = finished
    counted = [row for row in comparison.rows if row.role != "candidate"]
    tried = [row for row in comparison.rows if row.role == "candidate"]
    assert [row.role for row in counted] == ["found"] * 2 + ["random"] * 3 + ["reference"] * 6
    assert [row.seed for row in counted] == list(range(6, 17)), "each its own"
    assert {row.name for row in tried} == {"trial 1", "trial 2"}
    assert {row.seed for row in tried} == {5}, "candidates share one"
    best = max(tried, key=lambda row: row.valid_accuracy)
    assert comparison.winner == int(best.name.split()[1])
    assert {row.name for row in counted if row.role == "found"} == {best.name}


def test_networks_made_by_hand_cost_what_was_found(finished, evaluator) -> None:
    _, comparison = finished
    by_hand = [row for row in comparison.rows if row.role == "reference"]
    assert {row.name for row in by_hand} == {"residual", "mobile", "plain"}
    assert all(row.parameters <= comparison.found.cost("parameters") for row in by_hand)
    found = SPACE.parse(comparison.found.rows[0].architecture)
    budget = count_flops(evaluator.new_network(found, evaluator.task, 0), (1, 6, 6))
    for _, _, make in references(evaluator, found, evaluator.task, "flops"):
        assert 0.5 * budget < count_flops(make(evaluator.task, 0), (1, 6, 6)) <= budget


def test_the_weights_are_those_of_the_found_network_s_best_training(finished) -> None:
    folder, comparison = finished
    best = max((row for row in comparison.rows if row.role == "found"), key=lambda row: row.valid_accuracy)
    name = f"{best.name.replace(' ', '')}_seed{best.seed}.safetensors"
    assert (folder / "best.safetensors").read_bytes() == (folder / "comparison" / name).read_bytes()


def without_times(folder: Path) -> dict[str, Any]:
    """The content of all files of a comparison."""
    contents: dict[str, Any] = {path.name: path.read_bytes() for path in folder.rglob("*.safetensors")}
    for path in (folder / "comparison").glob("*.json"):
        values = read_json(path)
        for each in (values, *values.get("rows", []), *(values["of"] if isinstance(values["of"], list) else [])):
            each.pop("seconds", None)
            each.pop("latency", None)
        contents[path.name] = values
    return contents


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 9, 30])
def test_it_goes_on_in_the_middle(finished, evaluator, tmp_path, monkeypatch, steps) -> None:
    """Stopped at some step, of the first candidate or of a network made by hand, it ends with the same files."""
    reference, comparison = finished
    stop: list[int] = []
    done: list[int] = []
    original = trainings.Trainings._on_step

    def on_step(self: trainings.Trainings) -> None:
        done.append(1)
        if len(done) == steps:
            stop.append(2)
        original(self)

    with monkeypatch.context() as patched:
        patched.setattr(trainings.Trainings, "_on_step", on_step)
        with pytest.raises(Interrupted):
            compare(tmp_path, evaluator, stop)
    assert not (tmp_path / "best.safetensors").exists()
    finished_then = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "comparison").iterdir()}
    again = compare(tmp_path, evaluator)
    assert without_times(tmp_path) == without_times(reference)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "comparison").iterdir()}
    assert {name: kept[name] for name in finished_then if name.endswith(".json")} == {
        name: time for name, time in finished_then.items() if name.endswith(".json")
    }
    assert again.summary() == comparison.summary()


@pytest.mark.slow
@pytest.mark.parametrize("cores", [1, 3])
def test_results_do_not_depend_on_the_number_of_cores(finished, evaluator, tmp_path, monkeypatch, cores) -> None:
    monkeypatch.setattr(trainings, "_cores", lambda: cores)
    threads = torch.get_num_threads()
    compare(tmp_path, evaluator)
    assert without_times(tmp_path) == without_times(finished[0])
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_the_test_split_is_evaluated_when_all_trainings_are_over(evaluator, tmp_path, monkeypatch) -> None:
    seen = []

    def spied(network: Any, task: Any, split: Any) -> float:
        assert split is task.test
        assert len(list((tmp_path / "comparison").glob("*seed*.json"))) == 13
        seen.append(1)
        return 0.5

    monkeypatch.setattr(trainings, "score", spied)
    compare(tmp_path, evaluator)
    assert len(seen) == 13
    compare(tmp_path, evaluator)
    assert len(seen) == 13, "once"


@pytest.mark.slow
def test_other_settings_train_anew(evaluator, tmp_path) -> None:
    first = compare(tmp_path, evaluator, compare_random=2)
    second = compare(tmp_path, evaluator, retrain_epochs=2, compare_random=2)
    assert (first.training["epochs"], second.training["epochs"]) == (1, 2)
    assert read_json(tmp_path / "comparison" / "random0_seed8.json")["of"]["epochs"] == 2


@pytest.mark.slow
def test_a_damaged_result_is_told(evaluator, tmp_path) -> None:
    compare(tmp_path, evaluator)
    path = tmp_path / "comparison" / "random0_seed8.json"
    path.write_text(path.read_text().replace("0.", "1.", 1))
    with pytest.raises(ValueError, match=r"random0_seed8\.json' is damaged"):
        compare(tmp_path, evaluator)


@pytest.mark.slow
def test_failed_trainings_count_as_nothing(evaluator, tmp_path, monkeypatch) -> None:
    broken = default_training(32, 1)[0].__class__(
        epochs=1, batch_size=8, learning_rate=1e30, gradient_clip=math.inf, record_all_epochs=False
    )
    monkeypatch.setattr(trainings, "default_training", lambda images, epochs: (broken, images))
    comparison = compare(tmp_path, evaluator)
    assert {row.valid_accuracy for row in comparison.rows} == {None}
    assert comparison.difference("random") == Difference(0.0, None, None)


def test_tasks_that_are_not_of_images_have_no_networks_made_by_hand(evaluator) -> None:
    class Vectors:
        input_shape, num_outputs = (7,), 3

    assert list(references(evaluator, RESULT.best, Vectors(), "parameters")) == []
