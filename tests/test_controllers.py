"""Controllers against a slow second implementation in numpy, enumeration and statistics."""

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

from nas_gym.agents.controllers.controller import ChoiceBias, Controller
from nas_gym.agents.controllers.lstm import LSTMController
from nas_gym.agents.controllers.softmaxes import IndependentSoftmaxes
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
        raise AssertionError("controllers need no graph")


SPACES = {
    "bench201": make_space("bench201"),
    "cell": make_space("cell"),
    "darts": make_space("cell:darts"),
    "nasnet": CellSpace(nodes=2, combine=("add", "concat")),
    "skip": SkipSpace(),
}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scaled(controller: Controller, scale: float) -> Controller:
    """In float64, with parameters scaled up, so that distributions are far from uniform."""
    with torch.no_grad():
        for parameter in controller.double().parameters():
            parameter *= scale
    return controller


def make(space: SearchSpace, scale: float = 1.0, *seeds: int, **arguments) -> LSTMController:
    """A controller for each seed."""
    return scaled(LSTMController(space, generators=list(map(generator, seeds or (0,))), **arguments), scale)


def softmaxes(space: SearchSpace, scale: float = 1.0, *seeds: int) -> IndependentSoftmaxes:
    return scaled(IndependentSoftmaxes(space, generators=list(map(generator, seeds or (0,)))), 1e3 * scale)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def reference(controller: LSTMController, tokens: list[int], policy: int = 0) -> list[np.ndarray]:
    """The distribution of each decision along one sequence, step by step, from the space's own words alone."""
    parameters = {name: value[policy].detach().numpy() for name, value in controller.named_parameters()}
    decisions, H = controller.space.decisions, controller.hidden_size
    layers = len(parameters["input_weights"])
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
            gates = x @ parameters["input_weights"][layer] + h[layer] @ parameters["hidden_weights"][layer]
            i, f, o, g = np.split(gates, 4)
            c[layer] = sigmoid(f) * c[layer] + sigmoid(i) * np.tanh(g)
            h[layer] = x = sigmoid(o) * np.tanh(c[layer])
        if t and last[decisions[t - 1].group] == t - 1:
            anchors[decisions[t - 1].group] = x.copy()
        head = f"heads.{kinds.index(decision.kind)}"
        bound = controller.tanh_constant
        if decision.targets is None:
            logits = x @ parameters[f"{head}.weight"] + parameters[f"{head}.bias"][0]
            bound = bound / controller.operation_tanh_reduction if bound else None
            x = embeddings[decision.kind][tokens[t]]
        else:
            logits = np.array(
                [
                    np.tanh(anchors[k] @ parameters[f"{head}.anchor"] + x @ parameters[f"{head}.query"])
                    @ parameters[f"{head}.vector"][:, 0]
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
def test_evaluate_and_next_distribution_equal_the_reference(name, arguments):
    space = SPACES[name]
    controller = make(space, 8.0, 0, 1, hidden_size=16, **arguments)
    tokens = controller.sample(3, [generator(1), generator(2)])
    log_probs, entropies, features = controller.evaluate(tokens)
    assert features.shape == (2, 3, space.length, 16)
    positions = torch.tensor([0, space.length // 2, space.length - 1])
    prefixes = torch.where(torch.arange(space.length) < positions[:, None], tokens, -1)
    following = controller.next_distribution(prefixes, positions.expand(2, -1)).numpy()
    for policy, row in itertools.product(range(2), range(3)):
        sequence = tokens[policy, row].tolist()
        distributions = reference(controller, sequence, policy)
        expected = [np.log(p[token]) for p, token in zip(distributions, sequence, strict=True)]
        np.testing.assert_allclose(log_probs[policy, row].detach(), expected, atol=1e-9)
        expected = [-sum(q * np.log(q) for q in p if q > 0) for p in distributions]
        np.testing.assert_allclose(entropies[policy, row].detach(), expected, atol=1e-9)
        np.testing.assert_allclose(following[policy, row], distributions[positions[row]], atol=1e-9)


@pytest.mark.parametrize("name", ["bench201", "darts"])
def test_independent_softmaxes_are_softmaxes_of_their_logits(name):
    space = SPACES[name]
    controller = softmaxes(space, 1.0, 0, 1)
    tokens = controller.sample(4, [generator(1), generator(2)])
    log_probs, entropies, features = controller.evaluate(tokens)
    assert features.shape == (2, 4, space.length, controller.feature_size)
    steps = torch.arange(space.length)[:, None].expand(-1, 4)
    for policy in range(2):
        for t in range(space.length):
            legal = space.legal(tokens[policy].numpy(), t)
            weights = np.exp(controller.logits[policy, t].detach().numpy()) * legal
            expected = weights / weights.sum(axis=1, keepdims=True)
            chosen = expected[np.arange(4), tokens[policy, :, t]]
            np.testing.assert_allclose(log_probs[policy, :, t].exp().detach(), chosen)
            logarithms = np.log(np.where(expected > 0, expected, 1.0))
            np.testing.assert_allclose(entropies[policy, :, t].detach(), -(expected * logarithms).sum(axis=1))
            found = controller.next_distribution(tokens, steps[t].expand(2, -1))[policy]
            np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("made", [make, softmaxes])
def test_policies_of_one_program_are_what_they_are_alone(name, made):
    """Parameters and samples to the bit, the gradients of each policy's own loss up to rounding."""
    space, seeds = SPACES[name], (3, 4, 5)
    together = made(space, 1.0, *seeds).float()
    tokens = together.sample(6, [generator(seed) for seed in seeds], temperature=1.5)
    together.evaluate(tokens)[0].sum().backward()
    for row, seed in enumerate(seeds):
        alone = made(space, 1.0, seed).float()
        assert torch.equal(alone.sample(6, [generator(seed)], temperature=1.5)[0], tokens[row])
        alone.evaluate(tokens[row : row + 1])[0].sum().backward()
        for one, other in zip(alone.parameters(), together.parameters(), strict=True):
            assert torch.equal(one[0], other[row])
            if one.numel():
                torch.testing.assert_close(one.grad[0], other.grad[row])


def test_a_policy_without_generator_draws_nothing_and_disturbs_none():
    controller = make(SPACES["darts"], 10.0, 0, 1)
    expected = controller.sample(5, [generator(7), generator(8)])
    lent = generator(8)
    assert torch.equal(controller.sample(5, [None, lent])[1], expected[1])


def test_temperature_flattens():
    controller = make(SPACES["bench201"], 30.0, tanh_constant=None)
    counts = [
        len(torch.unique(controller.sample(500, [generator(0)], temperature=temperature)[0], dim=0))
        for temperature in (0.1, 1.0, 100.0)
    ]
    assert counts[0] < counts[1] < counts[2]


@pytest.mark.slow
@pytest.mark.parametrize("space", [TINY_BENCH, TINY_CELL, SkipSpace(2)], ids=["bench", "cell", "skip"])
def test_probabilities_of_all_sequences_sum_to_one(space):
    sequences = np.array(list(itertools.product(*(range(count) for count in space.choice_counts))))
    legal = np.all([space.legal(sequences, t)[range(len(sequences)), sequences[:, t]] for t in range(space.length)], 0)
    assert legal.sum() == space.size
    for controller in (make(space, 10.0), softmaxes(space)):
        log_probs, _, _ = controller.evaluate(torch.from_numpy(sequences[legal])[None])
        assert log_probs.sum(2).exp().sum().item() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("space", [TINY_BENCH, SkipSpace(2)], ids=["bench", "skip"])
@pytest.mark.parametrize("made", [make, softmaxes])
def test_sampled_frequencies_follow_the_distribution(space, made):
    controller = make(space, 10.0, tanh_constant=2.0) if made is make else softmaxes(space, 0.7)
    n = 20_000
    tokens = controller.sample(n, [generator(3)])
    counts = Counter(map(tuple, tokens[0].tolist()))
    sequences = np.array(list(itertools.product(*(range(count) for count in space.choice_counts))))
    probabilities = controller.evaluate(torch.from_numpy(sequences)[None])[0][0].sum(1).exp().detach().numpy()
    assert probabilities.max() > 3 * probabilities.min()
    observed = [counts[tuple(sequence)] for sequence in sequences.tolist()]
    assert chisquare(observed, probabilities / probabilities.sum() * n).pvalue > 1e-3


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 20), st.sampled_from([0.0, 1.0, 30.0, 1000.0]), st.booleans())
def test_masks_are_never_violated(seed, n, scale, deterministic):
    space = SPACES["darts"]
    controller = make(space, scale, seed, hidden_size=8, tanh_constant=None)
    tokens = controller.sample(n, [generator(seed)], deterministic=deterministic)
    space.check(tokens[0].numpy())
    log_probs, entropies, _ = controller.evaluate(tokens)
    assert torch.isfinite(log_probs).all()
    assert (entropies > -1e-12).all()


def test_deterministic_sampling_takes_the_likeliest_choice():
    controller = make(SPACES["darts"], 10.0)
    tokens = controller.sample(2, [torch.Generator()], deterministic=True)[0]
    assert tokens[0].tolist() == tokens[1].tolist()
    for distribution, token in zip(reference(controller, tokens[0].tolist()), tokens[0].tolist(), strict=True):
        assert distribution[token] == distribution.max()


@pytest.mark.parametrize("name", SPACES)
def test_gradient_equals_finite_differences(name):
    controller = make(SPACES[name], 5.0, hidden_size=8)
    tokens = controller.sample(4, [generator(0)])

    def value() -> torch.Tensor:
        log_probs, entropies, _ = controller.evaluate(tokens)
        return (log_probs.sum(2) * torch.tensor([1.0, -2.0, 0.5, 3.0])).sum() + entropies.sum()

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
        controller.sample(2, [generator(0)])
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
            if parameter.shape != (1, 1, 5):
                parameter.zero_()
    for cell, fixed in (("normal", 0.25), ("reduction", 0.0)):
        t = next(t for t, d in enumerate(SPACES["cell"].decisions) if d.name == f"{cell}/node_3/operation_2")
        tokens = torch.zeros(1, 1, SPACES["cell"].length, dtype=torch.int64)
        found = controller.next_distribution(tokens, torch.tensor([[t]]))[0, 0, :5].numpy()
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
