"""Deriving a network from a run: what is trained, which one wins, what is looked up, and a file that runs alone."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file

from nas_gym.agents import SearchResult
from nas_gym.evaluators.training import TrainingSettings, fit
from nas_gym.experiments.cli.app import console
from nas_gym.experiments.cli.main import main
from nas_gym.experiments.derive import derivation as derive
from nas_gym.experiments.derive.derivation import Derivation, DeriveConfig, best_trials
from nas_gym.experiments.derive.export import Classifier, export
from nas_gym.experiments.intervals import MeanInterval
from nas_gym.experiments.run.config import RunConfig
from nas_gym.experiments.run.progress import Interrupted
from nas_gym.experiments.run.run import Run
from nas_gym.files import write_json
from nas_gym.networks import NetworkSettings, make_network
from nas_gym.spaces import Architecture, make_space
from nas_gym.tasks import make_task

pytestmark = pytest.mark.slow  # tables are built, or networks trained, for all of the tests together

SPACE = make_space("bench201")
SMALL = {"train_images": 100, "network": {"channels": 4, "reductions": 1}, "training": {"epochs": 2, "batch_size": 25}}
QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 30 random architectures of the bundled table."""
    folder = tmp_path_factory.mktemp("run") / "searched"
    Run(folder, RunConfig(env="NAS-Bench201-v0", agent="random", trials=30), QUIET).execute()
    return folder


@pytest.fixture(scope="module")
def derived(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Derivation:
    torch.set_num_threads(1)
    made = derivation(searched, tmp_path_factory.mktemp("out") / "derived")
    made.execute()
    return made


def derivation(run: Path, out: Path, **changes: Any) -> Derivation:
    config = DeriveConfig(**{"top": 2, "seeds": (0, 3), "task": "digits", "settings": SMALL, **changes})
    return Derivation(run, config, out=out, device="cpu", console=QUIET)


def record(made: Derivation) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((made.out / "derived.json").read_text())
    return found


# ------------------------------------------------------------------ which architectures


def result(texts: list[str], rewards: list[float], **metrics: list[float]) -> SearchResult:
    tokens = np.array([SPACE.parse(text).tokens for text in texts])
    return SearchResult(SPACE, tokens, np.array(rewards), {name: np.array(column) for name, column in metrics.items()})


PLAIN = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|nor_conv_1x1~2|"  # nothing reaches node 2
ALONE = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
SKIPS = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"  # computes what ALONE does
CONVOLVES = "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"


def test_the_best_are_different_and_have_not_failed() -> None:
    assert SPACE.canonical(SPACE.parse(ALONE)) == SPACE.canonical(SPACE.parse(SKIPS))
    trials = result([ALONE, SKIPS, CONVOLVES, PLAIN], [0.3, 0.5, 0.4, 0.9], failed=[0, 0, 0, 1])
    assert best_trials(trials, 3) == [1, 2]
    assert best_trials(trials, 1) == [1]
    cheap = result([ALONE, SKIPS, CONVOLVES], [0.3, 0.5, 0.4], failed=[0, 0, 0], fidelity=[1, 0.5, 1])
    assert best_trials(cheap, 3) == [2, 0]
    with pytest.raises(ValueError, match="the run has no best trial: all have failed"):
        best_trials(result([ALONE], [0.0], failed=[1]), 1)


# ------------------------------------------------------------------ training and choosing


def test_each_is_trained_with_each_seed_as_fit_does(derived) -> None:
    task = make_task("digits", seed=0, train_limit=100)
    for row in record(derived)["architectures"]:
        architecture = Architecture.from_json(json.dumps(row["architecture"]))
        assert row["text"] == str(architecture)
        assert row["trial"] in derived.trials
        for training in row["trainings"]:
            seed = training["seed"]
            network = make_network(architecture, (1, 8, 8), 10, NetworkSettings(4, 1, 1), seed)
            settings = TrainingSettings(epochs=2, batch_size=25, record=("valid", "test"))
            (curve,) = fit([network], task, settings, seeds=[seed])
            assert training["valid_accuracy"] == curve.accuracy["valid"][-1]
            assert training["test_accuracy"] == curve.accuracy["test"][-1]
            saved = load_file(derived.out / f"trial{row['trial']}_seed{seed}.safetensors")
            assert all(torch.equal(saved[name], tensor) for name, tensor in network.state_dict().items())
        assert [training["seed"] for training in row["trainings"]] == [0, 3]


def test_the_winner_has_the_best_validation_accuracy(derived) -> None:
    found = record(derived)
    means = [np.mean([one["valid_accuracy"] for one in row["trainings"]]) for row in found["architectures"]]
    assert found["winner"] == int(np.argmax(means))
    for row, mean in zip(found["architectures"], means, strict=True):
        assert row["valid"]["mean"] == mean
    card = (derived.out / "model_card.md").read_text()
    winner = found["architectures"][found["winner"]]
    assert f"| winner | {winner['trial']} | {winner['search_accuracy']:.4f} | {MeanInterval(**winner['valid'])}" in card
    assert winner["text"] in card


def test_a_failed_training_counts_as_nothing(searched, tmp_path, monkeypatch) -> None:
    """The architecture whose seeds have failed does not win, whatever its luck with the others."""
    made = derivation(searched, tmp_path / "out")
    monkeypatch.setattr(
        derive,
        "score",
        lambda network, task, split: pytest.fail("the validation split") if split is task.valid else 0.5,
    )
    accuracies = {made.trials[0]: (0.9, None), made.trials[1]: (0.6, 0.6)}
    for trial, pair in accuracies.items():
        for seed, accuracy in zip((0, 3), pair, strict=True):
            row = {"valid_accuracy": accuracy, "failed": None if accuracy else "diverged", "seconds": 1.0}
            write_json(made._stem(trial, seed).with_suffix(".json"), row)
            network = made._network(trial, seed)
            derive.save_weights(network, made._stem(trial, seed).with_suffix(".safetensors"), {})
    found = made.execute()
    assert found["winner"] == 1
    assert [row["test"]["mean"] for row in found["architectures"]] == [0.25, 0.5]


def test_all_failed_is_said(searched, tmp_path) -> None:
    settings = {**SMALL, "training": {"epochs": 3, "batch_size": 25, "learning_rate": 1e30, "gradient_clip": 1e30}}
    made = derivation(searched, tmp_path / "out", settings=settings, top=1)
    with pytest.raises(ValueError, match=r"every training has failed \(diverged"):
        made.execute()
    assert not (tmp_path / "out" / "derived.json").exists()


def test_student_s_interval() -> None:
    """Against the tables: t = 4.3027 for two degrees of freedom."""
    estimate = MeanInterval.of([0.7, 0.8, 0.9])
    assert estimate.mean == pytest.approx(0.8)
    assert estimate.high == pytest.approx(min(0.8 + 4.30265 * 0.1 / np.sqrt(3), 1.0))
    assert estimate.low == pytest.approx(0.8 - 4.30265 * 0.1 / np.sqrt(3), abs=1e-5)
    assert str(MeanInterval.of([0.5])) == "0.5000"
    assert str(estimate) == "0.8000 [0.5516, 1.0000]"


# ------------------------------------------------------------------ going on


def test_finished_trainings_are_kept_and_the_test_split_is_met_once(searched, tmp_path, derived, monkeypatch) -> None:
    trained, looked = [], []
    train, score = derive.Training, derive.score

    def interrupted(*arguments: Any, seed: int, **options: Any) -> Any:
        trained.append(seed)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return train(*arguments, seed=seed, **options)

    def counted(network: Any, task: Any, split: Any) -> float:
        assert split is task.test
        looked.append(len(trained))
        return score(network, task, split)

    monkeypatch.setattr(derive, "Training", interrupted)
    monkeypatch.setattr(derive, "score", counted)
    with pytest.raises(KeyboardInterrupt):
        derivation(searched, tmp_path / "out").execute()
    assert looked == []
    again = derivation(searched, tmp_path / "out")
    found = again.execute()
    assert len(trained) == 5, "two before the stop, one cut off, two after"
    assert looked == [5] * 4, "when all are trained"
    strip = lambda rows: [{**row, "trainings": [{**t, "seconds": 0} for t in row["trainings"]]} for row in rows]  # noqa: E731
    assert strip(found["architectures"]) == strip(record(derived)["architectures"])
    assert derivation(searched, tmp_path / "out").execute() == found
    assert len(looked) == 4


def test_a_training_that_is_cut_off_goes_on_from_its_epoch(searched, tmp_path, derived, monkeypatch) -> None:
    done, advance = [], derive.Training.advance

    def stopped(training: Any, epochs: int) -> None:
        advance(training, epochs)
        done.append(epochs)
        if len(done) == 3:  # the first epoch of the second training
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(derive.Training, "advance", stopped)
    with pytest.raises(Interrupted):
        derivation(searched, tmp_path / "out").execute()
    assert [path.stem for path in (tmp_path / "out").glob("*.pt")] == [f"trial{derived.trials[0]}_seed3"]
    derivation(searched, tmp_path / "out").execute()
    assert done == [1, 2] * 4
    assert [path.name for path in (tmp_path / "out").glob("*.pt")] == []
    for path in derived.out.glob("trial*.safetensors"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_settings_do_not_meet_in_one_folder(searched, derived) -> None:
    with pytest.raises(ValueError, match="holds results of other settings"):
        derivation(searched, derived.out, seeds=(0, 1))
    kept = yaml.safe_load((derived.out / "config.yaml").read_text())
    assert kept == {"top": 2, "seeds": [0, 3], "task": "digits", "settings": SMALL, "trials": derived.trials}


# ------------------------------------------------------------------ what comes out


def test_the_program_runs_without_the_package(derived, tmp_path) -> None:
    """In a process that cannot import it; for one image, and for many."""
    found = record(derived)
    winner = found["architectures"][found["winner"]]
    seed = max(winner["trainings"], key=lambda one: one["valid_accuracy"])["seed"]
    task = make_task("digits", seed=0, train_limit=100)
    network = derived._trained(winner["trial"], seed)
    images = task.test.inputs[:37]
    with torch.no_grad():
        wanted = network(task.normalise(images))
    torch.save(images, tmp_path / "images.pt")
    code = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "nas_gym":
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
import torch
torch.set_num_threads(1)
about = {{"classes": "", "architecture": ""}}
program = torch.export.load({str(derived.out / "network.pt2")!r}, extra_files=about)
images = torch.load({str(tmp_path / "images.pt")!r}, weights_only=True)
module = program.module()
logits = module(images)
assert torch.allclose(module(images[:1]), logits[:1], atol=1e-5)
torch.save(logits, {str(tmp_path / "logits.pt")!r})
print(about["classes"])
assert not any(name.startswith("nas_gym") for name in sys.modules)
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout.splitlines()[-1]) == list("0123456789")
    logits = torch.load(tmp_path / "logits.pt", weights_only=True)
    torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=1e-5)
    assert wanted.std() > 0.01


def test_the_weights_tell_what_they_are_of(derived) -> None:
    with safe_open(derived.out / "network.safetensors", "pt") as file:
        about = file.metadata()
    found = record(derived)
    architecture = Architecture.from_json(about["architecture"])
    assert str(architecture) == found["architectures"][found["winner"]]["text"]
    shape, classes = json.loads(about["image_shape"]), json.loads(about["classes"])
    settings = NetworkSettings(**json.loads(about["network"]))
    network = make_network(architecture, tuple(shape), len(classes), settings)
    network.load_state_dict(load_file(derived.out / "network.safetensors"))
    task = make_task("digits", seed=0, train_limit=100)
    assert (json.loads(about["mean"]), json.loads(about["std"])) == (list(task.mean), list(task.std))


@pytest.mark.parametrize(
    "name",
    [
        "bench101",
        "bench201",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("cell:enas", "chain:stop", "macro", "size", "hierarchical", "mobile")
        ),
    ],
)
def test_every_kind_of_network_is_exported(name, tmp_path) -> None:
    """As a program for any number of images, the auxiliary classifier left behind."""
    space, task = make_space(name), make_task("digits")
    architecture = space.architecture(space.sample(np.random.default_rng(3), 1)[0])
    network = make_network(architecture, task.image_shape, 10, NetworkSettings(8, 1, 1, auxiliary=name == "cell:enas"))
    export(network.eval(), task, tmp_path / "network.pt2", {"classes": "[]"})
    module = torch.export.load(tmp_path / "network.pt2").module()
    with torch.no_grad():
        for n in (1, 5):
            images = task.test.inputs[:n]
            torch.testing.assert_close(module(images), network(task.normalise(images)), atol=1e-5, rtol=1e-4)


def test_a_network_of_layers_is_exported(tmp_path) -> None:
    from nas_gym.evaluators.from_scratch import FromScratchEvaluator

    space = make_space("transformation")
    evaluator = FromScratchEvaluator(space, "digits", device="cpu")
    network = evaluator.new_network(
        space.architecture(space.sample(np.random.default_rng(0), 1)[0]), evaluator.proxy, 0
    ).eval()
    export(network, evaluator.proxy, tmp_path / "network.pt2", {})
    images = evaluator.proxy.test.inputs[:3]
    with torch.no_grad():
        wanted = Classifier(network, evaluator.proxy)(images)
    torch.testing.assert_close(torch.export.load(tmp_path / "network.pt2").module()(images), wanted)


# ------------------------------------------------------------------ the command


def test_the_command(searched, derived, tmp_path, monkeypatch, capsys) -> None:
    """The card's command makes the same again."""
    card = (derived.out / "model_card.md").read_text()
    (line,) = re.search(r"```sh\n(.*?)\n```", card, re.DOTALL).group(1).splitlines()
    words = shlex.split(line)
    assert words[:3] == ["nas-gym", "derive", str(searched)]
    monkeypatch.setattr(sys, "argv", [*words, "--device", "cpu", "--out", str(tmp_path / "out")])
    monkeypatch.setattr(console, "width", 200)
    main()
    assert "winner" in capsys.readouterr().out
    assert (tmp_path / "out" / "model_card.md").read_text() == card
    assert (tmp_path / "out" / "config.yaml").read_text() == (derived.out / "config.yaml").read_text()
    again, first = (load_file(out / "network.safetensors") for out in (tmp_path / "out", derived.out))
    assert again.keys() == first.keys()
    assert all(torch.equal(again[name], first[name]) for name in first)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top": 0}, "top must be at least 1, got 0"),
        ({"seeds": ()}, r"seeds must be one or more, all different, got \(\)"),
        ({"seeds": (1, 1)}, r"seeds must be one or more, all different, got \(1, 1\)"),
        ({"task": "pets"}, "unknown task 'pets'"),
        ({"settings": {"epochs": 3}}, r"from-scratch has no setting \['epochs'\]"),
        ({"settings": {"network": {"width": 3}}}, r"network has no field \['width'\]"),
    ],
)
def test_bad_input_leaves_no_folder(searched, tmp_path, changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        derivation(searched, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_run(tmp_path) -> None:
    with pytest.raises(ValueError, match="holds no run"):
        derivation(tmp_path, tmp_path / "out")


def test_a_space_without_image_networks(tmp_path) -> None:
    Run(tmp_path / "run", RunConfig(env="NAS-BenchGraph-v0", agent="random", trials=3), QUIET).execute()
    for task in (None, "digits"):
        with pytest.raises(ValueError, match="has nothing to derive: space 'bench_graph' has no image networks"):
            derivation(tmp_path / "run", tmp_path / "out", task=task)
