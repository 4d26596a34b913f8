"""Networks that inherit weights: whose, that nothing is lost on the way, and that all of it can be made again."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv

from nas_gym.envs.transformation import TransformationEnv
from nas_gym.envs.transformation_vector import TransformationVectorEnv
from nas_gym.evaluators import Schedule, make_evaluator, make_objective, make_schedule, morphism
from nas_gym.evaluators.morphism import MorphismEvaluator
from nas_gym.evaluators.training import TrainingSettings, fit, score
from nas_gym.evaluators.weight_store import WeightStore
from nas_gym.networks.layers import LayerNetwork
from nas_gym.spaces import Tokens, TransformationSpace, make_space
from nas_gym.spaces.layer_space import Deepen, Widen
from nas_gym.spaces.layers import Convolution, FullyConnected, GlobalPool, Layers, Pool
from nas_gym.tasks import make_task

START = Layers((Convolution(3, 4), Pool("max"), Convolution(3, 6), GlobalPool(), FullyConnected(8)))
SPACE = TransformationSpace(
    START.to_json(), (1, 8, 8), widths=(4, 6, 8, 10), units=(8, 12), kernels=(1, 3), depth=2, max_transformations=4
)
TASK = make_task("digits", train_limit=256, valid_limit=100)
QUICK: dict[str, Any] = {"start_epochs": 2, "epochs": 1, "batch_size": 32}
START_EPOCHS, EPOCHS = 2, 1


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def make(seed: int = 0, **arguments: Any) -> MorphismEvaluator:
    return MorphismEvaluator(SPACE, TASK, seed=seed, device="cpu", **{**QUICK, **arguments})


def tokens(*sequences: tuple[Any, ...]) -> Tokens:
    """Sequences of actions, each filled with stops."""
    rows = [[SPACE.actions.index(action) for action in sequence] for sequence in sequences]
    return np.array([row + [SPACE.stop] * (SPACE.length - len(row)) for row in rows])


STOPPED, WIDER, DEEPER = (), (Widen(0),), (Deepen(0, 0, 3),)
BOTH = (Widen(0), Widen(2), Deepen(1, 0, 3))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[list[Layers]]:
    """The networks of each call of `fit`."""
    calls: list[list[Layers]] = []

    def spy(networks: Any, *arguments: Any, **options: Any) -> Any:
        if networks:
            calls.append([network.layers for network in networks])
        return fit(networks, *arguments, **options)

    monkeypatch.setattr(morphism, "fit", spy)
    return calls


# ---------------------------------------------------------------------- inheritance


def test_the_start_network_is_trained_from_random_weights() -> None:
    evaluator = make(seed=3)
    found = evaluator.evaluate(tokens(STOPPED))
    network: Any = LayerNetwork(START, TASK.image_shape, 10, seed=evaluator._seed("weights", START))
    settings = TrainingSettings(epochs=2, learning_rate=0.05, batch_size=32, weight_decay=1e-4)
    (curve,) = fit([network], TASK, settings, seeds=[evaluator._seed("training", START)])
    assert found.accuracy[0] == curve.accuracy["valid"][-1] == score(network, TASK, TASK.valid)
    assert found.metrics["parameters"][0] == sum(parameter.numel() for parameter in network.parameters())
    assert found.metrics["epochs"][0] == START_EPOCHS


@pytest.mark.parametrize("actions", [WIDER, DEEPER, BOTH])
def test_a_network_begins_with_its_ancestors_function(actions: tuple[Any, ...]) -> None:
    evaluator = make(wider_noise=0.0, deeper_noise=0.0)
    evaluator.evaluate(tokens(STOPPED))
    row = tokens(actions)[0]
    visit = evaluator._inheritance(SPACE.history(row), SPACE.taken(row), None)
    child = evaluator._grown(SPACE.network(row), visit).eval()
    parent = LayerNetwork(START, TASK.image_shape, 10, tensors=evaluator._weights.get(morphism._digest(START))).eval()
    images = TASK.normalise(TASK.valid.inputs)
    torch.testing.assert_close(child(images), parent(images), rtol=0, atol=1e-4)
    assert child.layers == SPACE.network(row) != START
    noisy = make(wider_noise=0.5, deeper_noise=0.5)
    noisy.evaluate(tokens(STOPPED))
    assert (noisy._grown(child.layers, visit).eval()(images) - parent(images)).abs().max() > 1e-3


def test_training_leaves_the_ancestor_as_it_is() -> None:
    evaluator = make()
    evaluator.evaluate(tokens(STOPPED))
    name = morphism._digest(START)
    before = {key: tensor.clone() for key, tensor in evaluator._weights.get(name).items()}
    evaluator.evaluate(tokens(WIDER, DEEPER, BOTH))
    assert all(torch.equal(before[key], tensor) for key, tensor in evaluator._weights.get(name).items())


def test_the_nearest_ancestor_is_inherited_from() -> None:
    evaluator = make(inherit="nearest")
    assert evaluator.evaluate(tokens(BOTH)).metrics["epochs"].tolist() == [START_EPOCHS + EPOCHS]
    evaluator = make(inherit="nearest")
    found = evaluator.evaluate(tokens(BOTH[:1], BOTH[:2]))  # of one batch: both from the start
    assert found.metrics["epochs"].tolist() == [START_EPOCHS + EPOCHS] * 2
    assert evaluator.evaluate(tokens(BOTH)).metrics["epochs"].tolist() == [START_EPOCHS + 2 * EPOCHS]
    visit = evaluator._visits[SPACE.network(tokens(BOTH)[0])]
    assert visit.ancestor == SPACE.network(tokens(BOTH[:2])[0])
    assert [SPACE.actions[index] for index in visit.actions] == [BOTH[2]]


def test_all_networks_have_had_the_same_training() -> None:
    evaluator, other = make(), make()
    for n in range(1, 4):
        found = evaluator.evaluate(tokens(BOTH[:n]))
        assert found.metrics["epochs"].tolist() == [START_EPOCHS + EPOCHS]
    # What was evaluated before is of no account.
    assert other.evaluate(tokens(BOTH)).accuracy.tolist() == found.accuracy.tolist()


def test_parents_may_be_named(trained: list[list[Layers]]) -> None:
    evaluator = make(inherit="nearest")
    evaluator.evaluate(tokens(BOTH[:2]))
    evaluator.evaluate(tokens(BOTH), parents=tokens(STOPPED))
    assert evaluator._visits[SPACE.network(tokens(BOTH)[0])].ancestor == START
    evaluator = make()
    evaluator.evaluate(tokens(BOTH), parents=tokens(BOTH[:1]))
    assert evaluator._visits[SPACE.network(tokens(BOTH)[0])].ancestor == SPACE.network(tokens(BOTH[:1])[0])
    with pytest.raises(ValueError, match="does not lie on the way"):
        evaluator.evaluate(tokens(DEEPER), parents=tokens(WIDER))


def test_a_network_is_trained_once_however_it_is_reached(trained: list[list[Layers]]) -> None:
    evaluator = make()
    one, other = (Widen(0), Widen(2)), (Widen(2), Widen(0))
    found = evaluator.evaluate(tokens(one, other, DEEPER, one))
    assert [len(call) for call in trained] == [1, 2]  # the start, then what is new as one batch
    assert found.accuracy[0] == found.accuracy[1] == found.accuracy[3]
    again = evaluator.evaluate(tokens(other, DEEPER))
    assert again.accuracy.tolist() == found.accuracy[1:3].tolist()
    assert len(trained) == 2


@pytest.mark.slow
def test_small_learning_rates_keep_what_was_learned() -> None:
    """A grown network, trained as good as not at all, scores as its ancestor does; one with random weights does not."""
    still = {"learning_rate": 1e-6, "wider_noise": 0.0, "deeper_noise": 0.0}
    evaluator = make(start_epochs=30, start_learning_rate=0.2, augment=False, **still)
    wanted = tokens(STOPPED, WIDER, (Deepen(2, 0, None),))
    found = evaluator.evaluate(wanted)
    assert np.abs(found.accuracy[1:] - found.accuracy[0]).max() <= 0.05
    fresh = evaluator.new_network(SPACE.architecture(wanted[1]), TASK, seed=0)
    assert fresh.layers == SPACE.network(wanted[1])
    assert found.accuracy[0] > 0.3 + score(fresh, TASK, TASK.valid)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- determinism


def test_the_seed_decides() -> None:
    wanted = tokens(WIDER, DEEPER, BOTH)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = make().evaluate(wanted)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert make().evaluate(wanted).accuracy.tolist() == first.accuracy.tolist()
    assert make(seed=1).evaluate(wanted).accuracy.tolist() != first.accuracy.tolist()
    apart = make()
    singly = [apart.evaluate(tokens(actions)).accuracy[0] for actions in (BOTH, DEEPER)]
    assert singly == first.accuracy[[2, 1]].tolist()


@pytest.mark.parametrize("reward", ["paper", "gain"])
def test_native_equals_scalar(reward: str) -> None:
    # Different first actions, so that no network of a step is another's ancestor.
    rows = tokens((Widen(0), Widen(0)), (Deepen(0, 0, 1), Widen(0)))
    evaluator = make()
    sync = SyncVectorEnv([lambda: TransformationEnv(SPACE, evaluator=evaluator, reward=reward)] * 2)
    native = TransformationVectorEnv(2, space=SPACE, evaluator=make(), reward=reward)
    sync.reset()
    native.reset()
    for step in range(3):
        expected, actual = sync.step(rows[:, step]), native.step(rows[:, step])
        assert actual[1].tolist() == expected[1].tolist()
        assert actual[2].tolist() == expected[2].tolist()
    assert actual[2].all()


# ---------------------------------------------------------------------- the store


@pytest.mark.slow
def test_weights_go_to_files_and_come_back(tmp_path: Path) -> None:
    wanted = [tokens(BOTH[:1], DEEPER), tokens(BOTH[:2]), tokens(BOTH)]
    roomy, poor = make(inherit="nearest"), make(inherit="nearest", memory=0, weights_dir=str(tmp_path))
    for batch in wanted:
        expected, found = roomy.evaluate(batch), poor.evaluate(batch)
        assert found.accuracy.tolist() == expected.accuracy.tolist()
    names = {morphism._digest(layers) for layers in poor._visits}
    (folder,) = tmp_path.iterdir()
    files = {path.stem for path in folder.glob("*.safetensors")}
    assert len(files) == len(names) - 1  # the last one is still in memory
    assert files < names
    del poor
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_store() -> None:
    store = WeightStore(memory=100)
    tensors = {name: {"x": torch.full((10,), float(i))} for i, name in enumerate("abc")}
    for name, value in tensors.items():
        store.put(name, value)
        tensors[name]["x"] = value["x"].clone()
        value["x"].fill_(-1)  # what was put is a copy
    assert store.bytes_held == 80  # a went to a file
    assert all(name in store for name in "abc")
    assert "d" not in store
    for name, index in (("b", 1), ("a", 0), ("c", 2), ("b", 1)):
        assert torch.equal(store.get(name)["x"], torch.full((10,), float(index)))
        assert store.bytes_held == 80
    with pytest.raises(KeyError):
        store.get("d")
    with pytest.raises(ValueError, match="memory must not be negative"):
        WeightStore(-1)


def test_it_goes_on_from_its_state(tmp_path: Path, trained: list[list[Layers]]) -> None:
    """Weights that are not at hand are made again, along the whole ancestry, and nothing else is."""
    whole = make(inherit="nearest")
    whole.evaluate(tokens(BOTH[:1], DEEPER))
    whole.evaluate(tokens(BOTH[:2]))
    torch.save(whole.state_dict(), tmp_path / "state.pt")
    expected = whole.evaluate(tokens(BOTH, STOPPED, DEEPER))
    resumed = make(inherit="nearest")
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    trained.clear()
    assert resumed.evaluate(tokens(BOTH[:2], DEEPER)).metrics["epochs"].tolist() == [4, 3]
    assert trained == []
    found = resumed.evaluate(tokens(BOTH, STOPPED, DEEPER))
    for name, column in expected.columns().items():
        assert found.columns()[name].tolist() == column.tolist()
    assert trained == [[SPACE.network(tokens(BOTH[:n])[0])] for n in range(4)]
    assert resumed.state_dict() == whole.state_dict()


def test_networks_can_be_had() -> None:
    """With the weights that they were scored with, and with those that they began with."""
    evaluator = make(wider_noise=0.0)
    (accuracy,) = evaluator.evaluate(tokens(WIDER)).accuracy
    trained: Any = evaluator.trained_network(tokens(WIDER)[0])
    assert score(trained, TASK, TASK.valid) == accuracy
    grown: Any = evaluator.grown_network(tokens(WIDER)[0])
    start: Any = evaluator.trained_network(tokens(STOPPED)[0])
    assert grown.layers == trained.layers != start.layers
    assert score(grown, TASK, TASK.valid) == pytest.approx(score(start, TASK, TASK.valid), abs=0.011)
    for parameter in trained.parameters():
        parameter.data.zero_()  # it is a copy
    assert score(evaluator.trained_network(tokens(WIDER)[0]), TASK, TASK.valid) == accuracy  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has not been evaluated, or has failed"):
        evaluator.trained_network(tokens(DEEPER)[0])


# ---------------------------------------------------------------------- failures


def test_networks_that_diverge_fail() -> None:
    evaluator = make(learning_rate=1e30, inherit="nearest")
    found = evaluator.evaluate(tokens(STOPPED, WIDER))
    assert found.failed.tolist() == [False, True]
    assert "diverged" in found.reasons[1]
    assert make_objective("accuracy-tan")(found)[1] == make_objective("accuracy-tan").worst
    assert evaluator.evaluate(tokens(WIDER)).failed.all()
    row = tokens((Widen(0), Widen(0)))[0]
    assert evaluator._inheritance(SPACE.history(row), SPACE.taken(row), None).ancestor == START


def test_networks_without_memory_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    evaluator = make()
    evaluator.evaluate(tokens(WIDER))
    monkeypatch.setattr(morphism, "transform", refuse)
    found = evaluator.evaluate(tokens(WIDER, DEEPER))
    assert found.reasons == ("", "out of memory")
    assert found.metrics["parameters"][1] > 0


def test_a_start_that_fails() -> None:
    found = make(start_learning_rate=1e30).evaluate(tokens(WIDER, STOPPED))
    assert found.failed.all()
    assert "start network has failed: diverged" in found.reasons[0]


# ---------------------------------------------------------------------- arguments


def test_by_name() -> None:
    evaluator = make_evaluator("morphism", SPACE, "digits", {"seed": 5, "device": "cpu", "epochs": 2})
    assert isinstance(evaluator, MorphismEvaluator)
    assert (evaluator.settings.epochs, evaluator.seed, evaluator.task.name) == (2, 5, "digits")
    assert evaluator.stateful
    # It has no weights that a schedule could train.
    for name in ("interleaved", "enas"):
        assert type(make_schedule(name, evaluator)) is Schedule
    limited = make(train_images=64)
    assert (len(limited._proxy.train), len(limited.task.train)) == (64, 256)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epoch": 1}, r"morphism has no setting \['epoch'\]"),
        ({"inherit": "all"}, "inherit must be one of 'start', 'nearest'; got 'all'"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"deeper_noise": -1.0}, "deeper_noise must be finite and not negative, got -1.0"),
        ({"train_images": 3}, "train_images must be a batch of 32 or more, got 3"),
        ({"device": "abacus"}, "device 'abacus' is not available"),
    ],
)
def test_arguments_that_are_none(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MorphismEvaluator(SPACE, TASK, **{**QUICK, **arguments})


def test_other_spaces_and_small_images_are_refused() -> None:
    with pytest.raises(ValueError, match="space must be a TransformationSpace"):
        MorphismEvaluator(make_space("bench201"), TASK)
    deep = Layers((Convolution(3, 4), *[Pool("max")] * 4, GlobalPool()))
    with pytest.raises(ValueError, match="needs maps of at least"):
        MorphismEvaluator(TransformationSpace(deep.to_json()), TASK)
    evaluator = make()
    with pytest.raises(ValueError, match="is not legal"):
        evaluator.evaluate(np.zeros((1, SPACE.length), dtype=np.int64) + 1)
    assert len(evaluator.evaluate(np.empty((0, SPACE.length), dtype=np.int64))) == 0
