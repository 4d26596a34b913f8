"""Neural predictors: symmetries, the regression against scikit-learn, the loss by hand, seeds, and what they learn."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau
from sklearn.linear_model import BayesianRidge
from torch import Tensor

from nas_gym.predictors import make_predictor
from nas_gym.predictors.bayesian_regression import BayesianRegression
from nas_gym.predictors.gates import GATES, pairwise_margin_loss
from nas_gym.predictors.gcn import GCN, as_tensors
from nas_gym.predictors.graphs import GraphBatch
from nas_gym.predictors.mlp_ensemble import MLPEnsemble
from nas_gym.predictors.network import NetworkPredictor
from nas_gym.spaces import Bench201Space, Tokens, make_space
from nas_gym.types import Floats

BENCH201 = Bench201Space()
QUICK: dict[str, dict[str, Any]] = {
    "gates": {"epochs": 3, "width": 8, "layers": 3},
    "gcn": {"epochs": 3, "width": 8},
    "lstm": {"epochs": 3, "width": 8},
    "mlp-ensemble": {"epochs": 3, "width": 8},
}
GCNS = [{"global_node": one, "bidirectional": other} for one in (False, True) for other in (False, True)]
every = pytest.mark.parametrize("name", QUICK)
graphs = pytest.mark.parametrize(("kind", "settings"), [*((GCN, settings) for settings in GCNS), (GATES, {})], ids=str)


def data(n: int, seed: int = 0) -> tuple[Tokens, Floats]:
    """Architectures, and the number of their convolutions, the last edge's twice, with some noise."""
    rng = np.random.default_rng(seed)
    tokens = BENCH201.sample(rng, n)
    convolutions = np.isin(tokens, [2, 3])
    return tokens, convolutions.sum(axis=1) + convolutions[:, -1] + 0.1 * rng.normal(size=n)


def live_convolutions(row: NDArray[np.int64]) -> float:
    graph = BENCH201.graph(BENCH201.architecture(row)).contracted()
    depth = [0]
    for sources in graph.predecessors()[1:]:
        depth.append(1 + max(depth[source] for source in sources))
    return sum("conv" in node.operation for node in graph.nodes) + 0.5 * depth[-1]


def quick(name: str, **settings: Any) -> Any:
    return make_predictor(name, BENCH201, **{**QUICK[name], **settings})


def permuted(batch: GraphBatch, rng: np.random.Generator) -> GraphBatch:
    """The same graphs with nodes, and padding, in another order."""
    order = np.argsort(rng.random(batch.symbols.shape), axis=1)
    rows = np.arange(len(order))[:, None]
    adjacency = batch.adjacency[rows[:, :, None], order[:, :, None], order[:, None, :]]
    return GraphBatch(adjacency, batch.symbols[rows, order], batch.outputs[rows, order])


# ---------------------------------------------------------------------- symmetries


@graphs
def test_the_order_of_nodes_and_padding_do_not_matter(kind: type[NetworkPredictor], settings: dict[str, Any]) -> None:
    """Neither in evaluation nor in training, where batch normalisation looks at all nodes."""
    tokens, values = data(30)
    fitted = kind(BENCH201, epochs=3, width=8, **settings).fit(tokens, values)
    encoding = fitted._encoding  # type: ignore[attr-defined]
    batch = encoding.encode(tokens)
    padded = encoding.encode(tokens, nodes=batch.symbols.shape[1] + 4)
    for training in (False, True):
        fitted.network.train(training)
        with torch.no_grad():
            expected = fitted.network.features(*as_tensors(batch))
            assert expected.std(dim=0).max() > 0.01
            for other in (
                padded,
                permuted(batch, np.random.default_rng(0)),
                permuted(padded, np.random.default_rng(1)),
            ):
                torch.testing.assert_close(fitted.network.features(*as_tensors(other)), expected, rtol=1e-4, atol=1e-5)


@graphs
def test_what_computes_the_same_is_predicted_the_same(kind: type[NetworkPredictor], settings: dict[str, Any]) -> None:
    """1x1 then 3x3 over either inner node, and one convolution with skip connections around nothing."""
    alike = np.array([[2, 0, 0, 0, 3, 0], [0, 2, 0, 0, 0, 3], [2, 0, 1, 0, 0, 3], [1, 0, 2, 0, 0, 3]])
    assert len({BENCH201.canonical(BENCH201.architecture(row)) for row in alike}) == 1
    mean, deviation = kind(BENCH201, epochs=3, width=8, **settings).fit(*data(30)).predict(alike)
    np.testing.assert_allclose(mean, mean[0], rtol=1e-5)
    np.testing.assert_allclose(deviation, deviation[0], rtol=1e-5)


@pytest.mark.parametrize("name", ["gcn", "gates"])
def test_edges_and_operations_matter(name: str) -> None:
    different = np.array([[2, 0, 0, 0, 3, 0], [3, 0, 0, 0, 2, 0], [2, 0, 0, 3, 1, 0], [2, 0, 0, 0, 2, 0]])
    mean, _ = quick(name).fit(*data(30)).predict(different)
    assert len(np.unique(mean.round(6))) == len(different)


# ---------------------------------------------------------------------- regression


@pytest.mark.parametrize("n", [20, 100])
def test_posterior_of_scikit_learn(n: int) -> None:
    """On the features of a network, at equal precisions."""
    tokens, values = data(n)
    fitted = GCN(BENCH201, epochs=3, width=16).fit(tokens, values)
    features, standardised = fitted._features, (values - values.mean()) / values.std()
    theirs = BayesianRidge(
        fit_intercept=False, alpha_1=0, alpha_2=0, lambda_1=0, lambda_2=0, tol=1e-10, max_iter=1000
    ).fit(features, standardised)
    fitted.regression.weight_precision, fitted.regression.noise_precision = theirs.lambda_, theirs.alpha_
    new = data(50, seed=1)[0]
    mean, deviation = theirs.predict(fitted._see(new), return_std=True)
    found = fitted.predict(new)
    np.testing.assert_allclose(found[0], values.mean() + values.std() * mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found[1], values.std() * deviation, rtol=1e-6)


def test_posterior_by_the_textbook() -> None:
    """A = a I + b F'F, mean b A^-1 F't, variance 1/b + f' A^-1 f."""
    rng = np.random.default_rng(0)
    features, new, values = rng.normal(size=(15, 4)), rng.normal(size=(6, 4)), rng.normal(size=15)
    regression = BayesianRegression()
    regression.regress(features @ features.T, values)
    a, b = regression.weight_precision, regression.noise_precision
    inverse = np.linalg.inv(a * np.eye(4) + b * features.T @ features)
    mean, variance = regression.posterior(new @ features.T, (new**2).sum(axis=1))
    np.testing.assert_allclose(mean, new @ (b * inverse @ features.T @ values), rtol=1e-8)
    np.testing.assert_allclose(variance, 1 / b + np.einsum("ij,jk,ik->i", new, inverse, new), rtol=1e-8)


@pytest.mark.parametrize("name", ["gates", "gcn", "lstm"])
def test_update_keeps_the_network_and_fits_the_regression(name: str) -> None:
    tokens, values = data(40)
    fitted = quick(name).fit(tokens[:20], values[:20])
    weights = [parameter.clone() for parameter in fitted.network.parameters()]
    before = fitted.predict(tokens[20:])
    after = fitted.update(tokens, values).predict(tokens[20:])
    assert all(torch.equal(*pair) for pair in zip(weights, fitted.network.parameters(), strict=True))
    assert np.abs(after[0] - values[20:]).mean() < np.abs(before[0] - values[20:]).mean()
    assert after[1].mean() != before[1].mean()


def test_update_of_an_ensemble_changes_nothing() -> None:
    tokens, values = data(40)
    fitted = quick("mlp-ensemble").update(tokens[:20], values[:20])  # without a fit before it, it is one
    before = fitted.predict(tokens)
    np.testing.assert_array_equal(fitted.update(tokens, values).predict(tokens), before)


# ---------------------------------------------------------------------- loss


def test_pairwise_margin_loss_by_hand() -> None:
    scores, values = torch.tensor([0.5, 0.45, 0.0, 2.0]), torch.tensor([3.0, 2.0, 1.0, 1.0])
    # Of different values are (0, 1), better by .05, (1, 2), better by .45, and (0, 2), better by .5.
    partners = torch.tensor([[1, 2, 3, 2], [0, 1, 0, 3]])
    expected = (0.05 + 0.0 + 0.0) / 3
    loss = pairwise_margin_loss(scores, scores[partners], values, values[partners], 0.1)
    assert loss.item() == pytest.approx(expected)
    wrong = pairwise_margin_loss(-scores, -scores[partners], values, values[partners], 0.1)
    assert wrong.item() == pytest.approx((0.15 + 0.55 + 0.6) / 3)
    assert pairwise_margin_loss(scores, scores[None], values, values[None], 0.1).item() == 0.0


def test_gates_is_trained_to_order_by_margins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for any increasing function of the values: only the order reaches the network."""
    tokens, values = data(30)
    one, other = (quick("gates").fit(tokens, changed) for changed in (values, np.exp(values)))
    for first, second in zip(one.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(first, second)


def test_exponential_weight_by_hand() -> None:
    """BONAS: exp(u - 1) times the squared error."""
    outputs, values = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 2.0])
    expected = (np.exp(-1) * 1 + np.exp(-0.5) * 1 + 1 * 4) / 3
    assert GCN(BENCH201, exponential_weight=True)._loss(outputs, values).item() == pytest.approx(expected)
    assert GCN(BENCH201)._loss(outputs, values).item() == pytest.approx(2.0)


# ---------------------------------------------------------------------- every network


@every
def test_fits_follow_from_seed_and_values(name: str) -> None:
    tokens, values = data(30)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = quick(name).fit(tokens, values).predict(tokens)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    refitted = quick(name).fit(tokens[:9], values[:9]).fit(tokens, values)
    np.testing.assert_array_equal(refitted.predict(tokens), first)
    assert (quick(name, seed=1).fit(tokens, values).predict(tokens)[0] != first[0]).any()
    assert all(column.dtype == np.float64 and column.shape == (30,) for column in first)
    assert (first[1] >= 0).all()


@every
def test_predictions_do_not_depend_on_the_batch(name: str) -> None:
    tokens, values = data(30)
    fitted = quick(name).fit(tokens, values)
    one_by_one = [np.concatenate(fitted.predict(row[None])) for row in tokens]
    np.testing.assert_allclose(np.array(one_by_one).T, fitted.predict(tokens), rtol=1e-3, atol=1e-5)
    mean, deviation = fitted.predict(tokens[:0])
    assert mean.shape == deviation.shape == (0,)


@every
def test_affine_changes_of_values(name: str) -> None:
    tokens, values = data(30)
    mean, deviation = quick(name).fit(tokens, values).predict(tokens)
    changed, changed_deviation = quick(name).fit(tokens, 1000 * values - 50).predict(tokens)
    np.testing.assert_allclose(changed, 1000 * mean - 50, rtol=1e-2, atol=1)
    np.testing.assert_allclose(changed_deviation, 1000 * deviation, rtol=1e-2, atol=1)


@every
@pytest.mark.parametrize("n", [1, 2, 9])
def test_equal_values(name: str, n: int) -> None:
    """Also of a single architecture that has a single node."""
    tokens = np.concatenate([np.zeros((1, 6), dtype=np.int64), data(8)[0]])[:n]
    mean, deviation = quick(name).fit(tokens, np.full(n, 0.7)).predict(tokens)
    assert np.isfinite([mean, deviation]).all()
    np.testing.assert_allclose(mean, 0.7, atol=3.0)


@every
@pytest.mark.slow
def test_what_it_has_not_seen_is_ranked(name: str) -> None:
    """With the settings that it is shipped with: how many convolutions are live, and how long the longest path is."""
    tokens = BENCH201.sample(np.random.default_rng(0), 260)
    values = np.array([live_convolutions(row) for row in tokens])
    mean, deviation = make_predictor(name, BENCH201).fit(tokens[:60], values[:60]).predict(tokens[60:])
    assert kendalltau(mean, values[60:]).statistic > 0.5
    assert (deviation > 0).mean() > 0.9


@every
@pytest.mark.parametrize("space", ["cell:darts", "macro", "bench101", "hierarchical", "transformation"])
def test_other_spaces(name: str, space: str) -> None:
    made = make_space(space)
    tokens = made.sample(np.random.default_rng(0), 12)
    fitted = make_predictor(name, made, **QUICK[name]).fit(tokens[:8], np.arange(8.0))
    assert np.isfinite(fitted.predict(tokens)).all()


def test_one_hot_encoding_of_the_ensemble() -> None:
    tokens, values = data(30)
    paths, choices = (quick("mlp-ensemble", encoding=name).fit(tokens, values) for name in ("paths", "one-hot"))
    assert choices.network.weights[0].shape[1] == 30
    assert (paths.predict(tokens)[0] != choices.predict(tokens)[0]).all()


def test_members_of_an_ensemble_are_networks_of_their_own() -> None:
    """Side by side they compute what each computes alone."""
    tokens, values = data(20)
    fitted: MLPEnsemble = quick("mlp-ensemble", members=3).fit(tokens, values)
    inputs = fitted._encode(tokens)
    with torch.no_grad():
        together = fitted.network(inputs)
        for member in range(3):
            hidden: Tensor = inputs
            pairs = list(zip(fitted.network.weights, fitted.network.biases, strict=True))
            for depth, (weight, bias) in enumerate(pairs):
                hidden = (torch.relu(hidden) if depth else hidden) @ weight[member] + bias[member]
            torch.testing.assert_close(together[member], hidden[:, 0])
    mean, deviation = fitted.predict(tokens)
    values_of = values.mean() + values.std() * together.numpy().astype(np.float64)
    np.testing.assert_allclose(mean, values_of.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(deviation, values_of.std(axis=0), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("gcn", "epochs", 0),
        ("gcn", "learning_rate", -1.0),
        ("gcn", "seed", -1),
        ("gcn", "dropout", 1.0),
        ("gcn", "layers", 0),
        ("gcn", "bidirectional", 2),
        ("gates", "margin", 0.0),
        ("gates", "pairs", 0),
        ("lstm", "width", 0),
        ("mlp-ensemble", "members", 0),
        ("mlp-ensemble", "encoding", "graph"),
        ("mlp-ensemble", "weight_decay", -0.1),
    ],
)
def test_settings_out_of_range(name: str, setting: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{setting} must be"):
        make_predictor(name, BENCH201, **{setting: value})


def test_dropout_and_weight_decay_take_part() -> None:
    tokens, values = data(30)
    plain = quick("gcn").fit(tokens, values).predict(tokens)[0]
    for settings in ({"dropout": 0.5}, {"weight_decay": 0.1}, {"cosine": True}):
        fitted = quick("gcn", **settings).fit(tokens, values)
        assert (fitted.predict(tokens)[0] != plain).any()
        np.testing.assert_array_equal(fitted.predict(tokens), fitted.predict(tokens))
    assert replace(fitted.settings, cosine=False) == quick("gcn").settings


def test_names_are_known_without_torch() -> None:
    program = "import sys, nas_gym.predictors as p; print(len(p.PREDICTORS) >= 6, 'torch' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout.split() == ["True", "False"]
