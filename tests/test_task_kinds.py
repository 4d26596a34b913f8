"""Tasks of other kinds than images, through the code that all kinds share."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_gym.evaluators.from_scratch import FromScratchEvaluator
from nas_gym.evaluators.morphism import MorphismEvaluator
from nas_gym.evaluators.shared_weights import SharedWeightEvaluator
from nas_gym.evaluators.training import TrainingSettings, fit, score
from nas_gym.networks import Network, NetworkSettings, make_network
from nas_gym.networks.bank import DropPath
from nas_gym.spaces import make_space
from nas_gym.tasks import Split, Task
from nas_gym.tasks.task import Reduction, digest

SPACE = make_space("bench201")
TRAINING = TrainingSettings(epochs=3, batch_size=16, learning_rate=0.02, record=("train", "valid"))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@dataclass(frozen=True, eq=False)
class RegressionTask(Task):
    """Two numbers from float inputs [n, 1, 6, 6]; the score is 1 / (1 + mean squared error)."""

    noise: float = 0.1

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.train.inputs.shape[1:])

    @property
    def num_outputs(self) -> int:
        return 2

    def inputs(self, batch: Split) -> Tensor:
        return batch.inputs

    def augment(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        return inputs + self.noise * torch.randn(inputs.shape, generator=generator)

    def loss(
        self, outputs: Tensor, targets: Tensor, *, reduction: Reduction = "mean", label_smoothing: float = 0.0
    ) -> Tensor:
        if label_smoothing:
            raise ValueError(f"label_smoothing must be 0, for targets are not classes; got {label_smoothing}")
        errors = (outputs - targets).square().mean(dim=1)
        return errors.mean() if reduction == "mean" else errors

    def measure(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).double().square().mean(dim=1)

    def score(self, mean: float) -> float:
        return 1 / (1 + mean)

    def fingerprint(self) -> dict[str, Any]:
        return {"name": self.name, "examples": digest(self.train, self.valid), "noise": self.noise}


def regression(seed: int = 0) -> RegressionTask:
    """The means of the upper and of the lower half, in units of their deviation."""
    generator = torch.Generator().manual_seed(seed)

    def split(n: int) -> Split:
        inputs = torch.randn(n, 1, 6, 6, generator=generator)
        return Split(inputs, inputs.view(n, 2, 18).mean(dim=2) * math.sqrt(18))

    return RegressionTask("regression", split(64), split(40), split(40))


def scored_by_hand(outputs: Tensor, split: Split) -> float:
    return 1 / (1 + float(np.mean((outputs.detach().double().numpy() - split.targets.double().numpy()) ** 2)))


def networks(count: int) -> list[Network]:
    tokens = SPACE.sample(np.random.default_rng(1), count)
    settings = NetworkSettings(4, 1, 1)
    return [make_network(SPACE.architecture(row), (1, 6, 6), 2, settings, seed) for seed, row in enumerate(tokens)]


# ------------------------------------------------------------------ the training loop


def test_regression_is_learnt_and_scored_by_its_own_formula() -> None:
    task, (network,) = regression(), networks(1)
    untrained = score(network, task, task.valid)
    (curve,) = fit([network], task, dataclasses.replace(TRAINING, epochs=20), seeds=[0])
    assert curve.loss[-1] < 0.3 * curve.loss[0]
    assert curve.accuracy["valid"][-1] > untrained + 0.1
    for name in ("train", "valid"):
        split = getattr(task, name)
        assert curve.accuracy[name][-1] == pytest.approx(scored_by_hand(network(split.inputs), split), rel=1e-6)


def test_the_first_loss_by_hand() -> None:
    task, (network,) = regression(), networks(1)
    with torch.no_grad():
        expected = float((network.train()(task.train.inputs) - task.train.targets).square().mean())
    (curve,) = fit([networks(1)[0]], task, TrainingSettings(1, 64, augment=False, record=()), seeds=[0])
    assert curve.loss.tolist() == [pytest.approx(expected, rel=1e-5)]


def test_networks_trained_together_are_as_if_alone() -> None:
    """Augmented, each with its own order."""
    task, ours, theirs = regression(), networks(3), networks(3)
    settings = dataclasses.replace(TRAINING, epochs=1)
    together = fit(ours, task, settings, seeds=[4, 5, 6], batched=True)
    for seed, network, curve in zip((4, 5, 6), theirs, together, strict=True):
        (alone,) = fit([network], task, settings, seeds=[seed])
        assert (curve.together, alone.together) == (3, 1)
        np.testing.assert_allclose(curve.loss, alone.loss, rtol=1e-3)
        np.testing.assert_allclose(curve.accuracy["valid"], alone.accuracy["valid"], rtol=1e-3)
    assert len({float(curve.accuracy["valid"][-1]) for curve in together}) == 3


def test_what_a_task_cannot_do_it_refuses() -> None:
    with pytest.raises(ValueError, match=r"label_smoothing must be 0, for targets are not classes; got 0.1"):
        fit(networks(1), regression(), dataclasses.replace(TRAINING, label_smoothing=0.1), seeds=[0])


def test_the_order_of_an_epoch_is_the_tasks() -> None:
    class Ordered(RegressionTask):
        def order(self, generator: torch.Generator) -> Tensor:
            return torch.arange(len(self.train))

        def inputs(self, batch: Split) -> Tensor:
            seen.append(batch.inputs)
            return batch.inputs

    seen: list[Tensor] = []
    task = Ordered(*(getattr(regression(), name) for name in ("name", "train", "valid", "test")))
    fit(networks(1), task, TrainingSettings(2, 16, record=()), seeds=[0])
    assert torch.equal(torch.cat(seen), torch.cat([task.train.inputs] * 2))


# ------------------------------------------------------------------ evaluators


def test_from_scratch() -> None:
    task = regression()
    training = {"epochs": 2, "batch_size": 16}
    made = FromScratchEvaluator(
        SPACE, task, device="cpu", train_images=48, score_images=30, network={"channels": 4}, training=training
    )
    assert (len(made.proxy.train), len(made.proxy.valid)) == (48, 30)
    tokens = SPACE.sample(np.random.default_rng(0), 2)
    scored = made.evaluate(tokens)
    for row, accuracy in zip(tokens, scored.accuracy, strict=True):
        network = made.new_network(SPACE.architecture(row), made.proxy, 0)
        fit([network], made.proxy, made.settings.training, seeds=[0])
        assert accuracy == pytest.approx(scored_by_hand(network(made.proxy.valid.inputs), made.proxy.valid), rel=1e-6)
    for setting in ({"image_size": 3}, {"cutout": 2}):
        with pytest.raises(ValueError, match="must be None, for task 'regression' is not one of images"):
            FromScratchEvaluator(SPACE, task, device="cpu", network={"channels": 4}, **setting)


@pytest.mark.slow
def test_shared_weights() -> None:
    task = regression()
    made = SharedWeightEvaluator(SPACE, task, device="cpu", channels=4, batch_size=16, score_batch=20)
    tokens = SPACE.sample(np.random.default_rng(0), 3)
    losses = [made.update(tokens)["weights/loss"] for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])
    scored = made.evaluate(tokens)
    for row, accuracy, loss in zip(tokens, scored.accuracy, scored.metrics["loss"], strict=True):
        outputs = torch.cat([made.supernet(part, row[None])[0] for part in task.valid.inputs.split(20)])
        assert accuracy == pytest.approx(scored_by_hand(outputs, task.valid), rel=1e-5)
        assert loss == pytest.approx(1 / accuracy - 1, rel=1e-5)


def test_morphism() -> None:
    task, space = regression(), make_space("transformation")
    made = MorphismEvaluator(space, task, device="cpu", start_epochs=1, epochs=1, batch_size=16)
    tokens = space.sample(np.random.default_rng(0), 1)
    outputs = made.evaluate(tokens).accuracy, made.trained_network(tokens[0]).eval()(task.valid.inputs)
    assert outputs[0][0] == pytest.approx(scored_by_hand(outputs[1], task.valid), rel=1e-5)


def test_fingerprints_are_the_tasks_own() -> None:
    task, other = regression(), regression(seed=1)
    changed = [
        other,
        dataclasses.replace(task, noise=0.2),
        dataclasses.replace(task, name="other"),
        dataclasses.replace(task, valid=other.valid),
        task.with_validation_in_training(),
    ]
    prints = [SharedWeightEvaluator(SPACE, each, device="cpu").fingerprint()["task"] for each in (task, *changed)]
    assert all(prints.count(each) == 1 for each in prints)
    assert dataclasses.replace(task, test=other.test).fingerprint() == prints[0]


def test_validation_joins_training() -> None:
    task = regression()
    merged = task.with_validation_in_training()
    assert isinstance(merged, RegressionTask)
    assert torch.equal(merged.train.inputs, torch.cat([task.train.inputs, task.valid.inputs]))
    assert torch.equal(merged.train.targets, torch.cat([task.train.targets, task.valid.targets]))
    assert (len(merged.valid), merged.test) == (0, task.test)


# ------------------------------------------------------------------ tokens, with a network of their own

CHAIN = np.array([[0.8, 0.1, 0.1], [0.2, 0.2, 0.6], [0.1, 0.7, 0.2]])


@dataclass(frozen=True, eq=False)
class TokenTask(Task):
    """The next of three tokens, at each of L places: inputs and targets are int64[n, L]; scored by 1 / perplexity."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.train.inputs.shape[1:])

    @property
    def num_outputs(self) -> int:
        return 3

    def inputs(self, batch: Split) -> Tensor:
        return batch.inputs

    def loss(
        self, outputs: Tensor, targets: Tensor, *, reduction: Reduction = "mean", label_smoothing: float = 0.0
    ) -> Tensor:
        each = F.cross_entropy(outputs.mT, targets, reduction="none", label_smoothing=label_smoothing).mean(dim=1)
        return each.mean() if reduction == "mean" else each

    def measure(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.loss(outputs, targets, reduction="none").double()

    def score(self, mean: float) -> float:
        return math.exp(-mean)

    def fingerprint(self) -> dict[str, Any]:
        return {"name": self.name, "tokens": digest(self.train, self.valid)}


class Bigrams(nn.Module):
    """Logits of the next token by the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 3)
        nn.init.zeros_(self.table.weight)
        self.drop_path = DropPath()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table(tokens)

    def logits(self, tokens: Tensor) -> tuple[Tensor, None]:
        return self(tokens), None


def tokens_of_a_chain() -> TokenTask:
    rng = np.random.default_rng(0)

    def split(n: int) -> Split:
        text = [0]
        for draw in rng.random(20 * n):
            text.append(int(np.searchsorted(CHAIN[text[-1]].cumsum(), draw)))
        stream = torch.tensor(text)
        return Split(stream[:-1].view(n, 20), stream[1:].view(n, 20))

    return TokenTask("chain", split(200), split(100), split(100))


def test_a_language_model_reaches_the_perplexity_of_its_source() -> None:
    """Which is the exponential of the chain's entropy rate; before it has learnt, the perplexity is 3."""
    task, model = tokens_of_a_chain(), Bigrams()
    network: Any = model
    assert score(network, task, task.valid) == pytest.approx(1 / 3)
    settings = TrainingSettings(20, 20, learning_rate=1.0, weight_decay=0, record=("valid",))
    (curve,) = fit([network], task, settings, seeds=[0])
    values, vectors = np.linalg.eig(CHAIN.T)
    stationary = np.real(vectors[:, np.argmax(np.real(values))])
    stationary /= stationary.sum()
    entropy = -float((stationary[:, None] * CHAIN * np.log(CHAIN)).sum())
    assert curve.accuracy["valid"][-1] == pytest.approx(math.exp(-entropy), abs=0.02)
    np.testing.assert_allclose(torch.softmax(model.table.weight, dim=1).detach(), CHAIN, atol=0.06)


def test_networks_of_images_refuse_tokens() -> None:
    task = tokens_of_a_chain()
    for evaluator, space in (
        (FromScratchEvaluator, SPACE),
        (SharedWeightEvaluator, SPACE),
        (MorphismEvaluator, make_space("transformation")),
    ):
        message = r"inputs must be images, of shape \(channels, height, width\); got shape \(20,\)"
        with pytest.raises(ValueError, match=message):
            evaluator(space, task, device="cpu")
