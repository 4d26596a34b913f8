"""The LSTM controller against a slow second implementation in numpy, enumeration and statistics."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from nas_gym.agents.controllers import ChoiceBias, LSTMController
from nas_gym.spaces import ArchitectureGraph, Bench201Space, CellSpace, Decision, SearchSpace, make_space

TINY_BENCH = Bench201Space(nodes=3, operations=("none", "skip_connect", "avg_pool_3x3"))
TINY_CELL = CellSpace(nodes=2, operations=("sep_conv_3x3", "skip_connect"), distinct_inputs=True)


@dataclass(frozen=True)
class SkipSpace(SearchSpace):
    """Layers with an operation, then one skip bit for each earlier layer and for the network's input (group -1)."""

    layers: int = 3

    name = "skip"

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:  # type: ignore[override]
        decisions = []
        for layer in range(self.layers):
            decisions.append(Decision(f"layer_{layer}/operation", "operation", layer, ("conv", "pool", "none")))
            for earlier in range(-1, layer):
                skip = Decision(f"layer_{layer}/skip_{earlier}", "skip", layer, ("absent", "connect"), (None, earlier))
                decisions.append(skip)
        return tuple(decisions)

    @property
    def size(self) -> int:
        return int(np.prod(self.choice_counts))

    def graph(self, architecture: object) -> ArchitectureGraph:
        raise NotImplementedError


SPACES = {
    "bench201": make_space("bench201"),
    "cell": make_space("cell"),
    "darts": make_space("cell:darts"),
    "nasnet": CellSpace(nodes=2, combine=("add", "concat")),
    "skip": SkipSpace(),
}


def make(space: SearchSpace, scale: float = 1.0, seed: int = 0, **arguments) -> LSTMController:
    """A controller in float64 whose parameters are scaled up, so that its distributions are far from uniform."""
    controller = LSTMController(space, generator=torch.Generator().manual_seed(seed), **arguments).double()
    with torch.no_grad():
        for parameter in controller.parameters():
            parameter *= scale
    return controller


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def reference(controller: LSTMController, tokens: list[int]) -> list[np.ndarray]:
    """The distribution of each decision along one sequence, step by step, from the space's own words alone."""
    parameters = {name: value.detach().numpy() for name, value in controller.named_parameters()}
    decisions, H = controller.space.decisions, controller.hidden_size
    layers = controller.lstm.num_layers
    kinds = list(dict.fromkeys(decision.kind for decision in decisions))
    last = {decision.group: t for t, decision in enumerate(decisions)}
    learned = list(
        dict.fromkeys(target for decision in decisions for target in decision.targets or () if target not in last)
    )
    anchors = {target: parameters["anchors"][row] for row, target in enumerate(learned)}
    embeddings, row = {}, 0
    for kind in kinds:
        same = [decision for decision in decisions if decision.kind == kind]
        if same[0].targets is None:
            size = max(len(decision.choices) for decision in same)
            embeddings[kind] = parameters["embedding"][row : row + size]
            row += size

    h, c = np.zeros((layers, H)), np.zeros((layers, H))
    x, distributions = parameters["start"], []
    for t, decision in enumerate(decisions):
        for layer in range(layers):
            gates = parameters[f"lstm.weight_ih_l{layer}"] @ x + parameters[f"lstm.weight_hh_l{layer}"] @ h[layer]
            i, f, g, o = np.split(gates, 4)
            c[layer] = sigmoid(f) * c[layer] + sigmoid(i) * np.tanh(g)
            h[layer] = x = sigmoid(o) * np.tanh(c[layer])
        if t and last[decisions[t - 1].group] == t - 1:
            anchors[decisions[t - 1].group] = x.copy()
        head = f"heads.{kinds.index(decision.kind)}"
        bound = controller.tanh_constant
        if decision.targets is None:
            logits = parameters[f"{head}.weight"] @ x + parameters[f"{head}.bias"]
            bound = bound / controller.operation_tanh_reduction if bound else None
            x = embeddings[decision.kind][tokens[t]]
        else:
            logits = np.array(
                [
                    parameters[f"{head}.vector.weight"][0]
                    @ np.tanh(parameters[f"{head}.anchor.weight"] @ anchors[k] + parameters[f"{head}.query.weight"] @ x)
                    for k in decision.targets
                ]
            )
            x = anchors[decision.targets[tokens[t]]]
        logits = logits / (controller.temperature or 1.0)
        logits = bound * np.tanh(logits) if bound else logits
        prefix = np.array(tokens)[None]
        legal = controller.space.legal(prefix, t)[0]
        full = np.full(controller.space.num_choices, -np.inf)
        full[: len(decision.choices)] = logits[: len(decision.choices)]
        full += controller.fixed_bias[t].numpy()
        full[~legal] = -np.inf
        weights = np.exp(full - full.max())
        distributions.append(weights / weights.sum())
    return distributions


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize(
    "arguments",
    [
        {"tanh_constant": None},
        {"layers": 2, "temperature": 5.0, "tanh_constant": 2.5},
        {
            "choice_bias": (
                ChoiceBias("*operation*=*pool*", 0.5, 0.25),
                ChoiceBias("*=connect", fixed=1.0),
            )
        },
    ],
    ids=["plain", "deep", "biased"],
)
def test_evaluate_sample_and_next_distribution_equal_the_reference(name, arguments):
    space = SPACES[name]
    controller = make(space, 8.0, hidden_size=16, **arguments)
    tokens, sampled_log_probs, sampled_entropies = controller.sample(3, torch.Generator().manual_seed(1))
    log_probs, entropies, features = controller.evaluate(tokens)
    assert features.shape == (3, space.length, 16)
    torch.testing.assert_close(log_probs, sampled_log_probs)
    torch.testing.assert_close(entropies, sampled_entropies)
    positions = torch.tensor([0, space.length // 2, space.length - 1])
    prefixes = torch.where(torch.arange(space.length) < positions[:, None], tokens, -1)
    following = controller.next_distribution(prefixes, positions).numpy()
    for row in range(3):
        distributions = reference(controller, tokens[row].tolist())
        expected = [np.log(p[token]) for p, token in zip(distributions, tokens[row].tolist(), strict=True)]
        np.testing.assert_allclose(log_probs[row].detach(), expected, atol=1e-9)
        expected = [-sum(q * np.log(q) for q in p if q > 0) for p in distributions]
        np.testing.assert_allclose(entropies[row].detach(), expected, atol=1e-9)
        np.testing.assert_allclose(following[row], distributions[positions[row]], atol=1e-9)


@pytest.mark.parametrize("space", [TINY_BENCH, TINY_CELL, SkipSpace(2)], ids=["bench", "cell", "skip"])
def test_probabilities_of_all_sequences_sum_to_one(space):
    sequences = np.array(list(itertools.product(*(range(count) for count in space.choice_counts))))
    legal = np.all([space.legal(sequences, t)[range(len(sequences)), sequences[:, t]] for t in range(space.length)], 0)
    assert legal.sum() == space.size
    log_probs, _, _ = make(space, 10.0).evaluate(torch.from_numpy(sequences[legal]))
    assert log_probs.sum(1).exp().sum().item() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("space", [TINY_BENCH, SkipSpace(2)], ids=["bench", "skip"])
def test_sampled_frequencies_follow_the_distribution(space):
    controller = make(space, 10.0, tanh_constant=2.0)
    n = 20_000
    tokens, _, _ = controller.sample(n, torch.Generator().manual_seed(3))
    counts = Counter(map(tuple, tokens.tolist()))
    sequences = np.array(list(itertools.product(*(range(count) for count in space.choice_counts))))
    probabilities = controller.evaluate(torch.from_numpy(sequences))[0].sum(1).exp().detach().numpy()
    assert probabilities.max() > 3 * probabilities.min()
    observed = [counts[tuple(sequence)] for sequence in sequences.tolist()]
    assert chisquare(observed, probabilities / probabilities.sum() * n).pvalue > 1e-3


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 20), st.sampled_from([0.0, 1.0, 30.0, 1000.0]), st.booleans())
def test_masks_are_never_violated(seed, n, scale, deterministic):
    space = SPACES["darts"]
    controller = make(space, scale, seed, hidden_size=8, tanh_constant=None)
    tokens, log_probs, entropies = controller.sample(n, torch.Generator().manual_seed(seed), deterministic)
    space.check(tokens.numpy())
    assert torch.isfinite(log_probs).all()
    assert (entropies > -1e-12).all()


def test_deterministic_sampling_takes_the_likeliest_choice():
    controller = make(SPACES["darts"], 10.0)
    tokens, _, _ = controller.sample(2, torch.Generator(), deterministic=True)
    assert tokens[0].tolist() == tokens[1].tolist()
    for distribution, token in zip(reference(controller, tokens[0].tolist()), tokens[0].tolist(), strict=True):
        assert distribution[token] == distribution.max()


@pytest.mark.parametrize("name", SPACES)
def test_gradient_equals_finite_differences(name):
    controller = make(SPACES[name], 5.0, hidden_size=8)
    tokens, _, _ = controller.sample(4, torch.Generator().manual_seed(0))

    def value() -> torch.Tensor:
        log_probs, entropies, _ = controller.evaluate(tokens)
        return (log_probs.sum(1) * torch.tensor([1.0, -2.0, 0.5, 3.0])).sum() + entropies.sum()

    parameters = [parameter for parameter in controller.parameters() if parameter.numel()]
    gradients = torch.autograd.grad(value(), parameters)
    directions = [torch.randn(p.shape, generator=torch.Generator().manual_seed(i)) for i, p in enumerate(parameters)]
    slope = sum((gradient * direction).sum() for gradient, direction in zip(gradients, directions, strict=True))
    ends = []
    with torch.no_grad():
        for step in (1e-6, -2e-6):
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter += step * direction
            ends.append(value())
    assert float(slope) == pytest.approx(float(ends[0] - ends[1]) / 2e-6, rel=1e-5)


def test_parameters_come_from_the_generator_alone():
    def parameters(global_seed: int) -> list[torch.Tensor]:
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        controller = make(SPACES["cell"])
        controller.sample(2, torch.Generator().manual_seed(0))
        assert torch.equal(before, torch.get_rng_state())
        return list(controller.parameters())

    assert all(torch.equal(one, other) for one, other in zip(parameters(1), parameters(2), strict=True))
    weights = parameters(1)[0]
    assert weights.abs().max() <= 0.1
    assert weights.std().item() == pytest.approx(0.2 / 12**0.5, rel=0.02)


def test_kinds_share_parameters_whatever_the_depth():
    def count(nodes: int) -> int:
        return sum(parameter.numel() for parameter in make(CellSpace(nodes=nodes)).parameters())

    assert count(2) == count(5)


def test_biases_of_enas_micro():
    biases = (
        ChoiceBias("*/operation_*=sep_conv_*", initial=10.0),
        ChoiceBias("normal/*/operation_*=sep_conv_*", fixed=0.25),
        ChoiceBias("normal/*/operation_*=*pool*", fixed=-0.25),
        ChoiceBias("normal/*/operation_*=skip_connect", fixed=-0.25),
    )
    controller = make(SPACES["cell"], choice_bias=biases)
    with torch.no_grad():  # only biases stay
        for parameter in controller.parameters():
            if parameter.shape != (5,):
                parameter.zero_()
    for cell, fixed in (("normal", 0.25), ("reduction", 0.0)):
        t = next(t for t, d in enumerate(SPACES["cell"].decisions) if d.name == f"{cell}/node_3/operation_2")
        tokens = torch.zeros(1, SPACES["cell"].length, dtype=torch.int64)
        found = controller.next_distribution(tokens, torch.tensor([t]))[0, :5].numpy()
        logits = np.array([1.10 / 2.5 * np.tanh(10) + fixed] * 2 + [-fixed] * 3)
        np.testing.assert_allclose(found, np.exp(logits) / np.exp(logits).sum(), rtol=1e-6)


def test_pointing_to_an_open_group_is_refused():
    @dataclass(frozen=True)
    class Forward(SkipSpace):
        @cached_property
        def decisions(self) -> tuple[Decision, ...]:  # type: ignore[override]
            return (Decision("a", "input", 0, ("self",), (0,)), Decision("b", "operation", 0, ("conv", "pool")))

    with pytest.raises(ValueError, match="'a' points to group 0, which is not closed yet"):
        make(Forward())
