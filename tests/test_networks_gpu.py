"""How supernets and batches of networks run on GPUs, on a CPU: it must come to what a CPU computes in its own way."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from toy_tasks import toy_task

from nas_gym.evaluators.training import TrainingSettings, fit
from nas_gym.networks import (
    NETWORKS,
    Network,
    NetworkSettings,
    bank,
    bench101,
    make_network,
    make_supernet,
    mobile,
    network,
)
from nas_gym.networks.network import ArchitectureNorm
from nas_gym.spaces import make_space

SPACES = ("cell:enas", "bench201", "chain:stop", "macro", "size", "bench101", "hierarchical", "mobile")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (bank, network, bench101, mobile):
        monkeypatch.setattr(module, "on_gpu", lambda x: True)


def supernet(name: str) -> Network:
    made = make_supernet(make_space(name), (1, 8, 8), 3, NetworkSettings(channels=8, reductions=1))
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():  # scale and shift of batch norm too
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return made.double()


def outputs(made: Network, tokens: np.ndarray) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    made = copy.deepcopy(made)
    logits = made(torch.randn(3, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), tokens)
    logits.flatten(0, 1).square().sum().backward()
    return logits.detach(), {name: p.grad for name, p in made.named_parameters() if p.grad is not None}


def test_all_kinds_of_spaces_are_here() -> None:
    own = {name for name in NETWORKS if str(NETWORKS.place(name)).startswith("nas_gym.")}  # other tests register theirs
    assert {make_space(name).name for name in SPACES} == own


@pytest.mark.slow
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("name", SPACES)
def test_logits_and_gradients_are_those_of_a_cpu(name: str, affine: bool, monkeypatch) -> None:
    made = supernet(name)
    if not affine:
        for module in made.modules():
            if isinstance(module, ArchitectureNorm):
                module.weight.data.fill_(1.0)
                module.bias.data.fill_(0.0)
                module.requires_grad_(False)
    tokens = make_space(name).sample(np.random.default_rng(0), 6)
    logits, gradients = outputs(made, tokens)
    for module in made.modules():
        if isinstance(module, ArchitectureNorm):
            module.affine = affine
    as_on_a_gpu(monkeypatch)
    again, others = outputs(made, tokens)
    torch.testing.assert_close(again, logits, rtol=1e-9, atol=1e-9)
    assert {name for name, gradient in gradients.items() if gradient.any()} <= others.keys()
    scale = max(float(gradient.abs().max()) for gradient in gradients.values())
    for key, gradient in others.items():
        torch.testing.assert_close(gradient, gradients[key], rtol=1e-7, atol=1e-9 * scale)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cell:enas", "bench201"])
def test_trainings_together_are_those_of_a_cpu(name: str, monkeypatch) -> None:
    space, task = make_space(name), toy_task()
    tokens = space.sample(np.random.default_rng(0), 4)
    settings = TrainingSettings(epochs=2, batch_size=16, drop_path=0.3)

    def losses() -> np.ndarray:
        shape, wide = task.input_shape, NetworkSettings(4, 1, 1)
        made = [
            make_network(space.architecture(row), shape, task.num_outputs, wide, seed=i) for i, row in enumerate(tokens)
        ]
        return np.array([curve.loss for curve in fit(made, task, settings, seeds=range(4), batched=True)])

    wanted = losses()
    as_on_a_gpu(monkeypatch)
    np.testing.assert_allclose(losses(), wanted, rtol=1e-4)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("rows", [[2, 0], [1, 0, 2], [0, 1, 2]])
def test_rows_are_copied_as_indexing_does(rows: list[int], memory: torch.memory_format, monkeypatch) -> None:
    as_on_a_gpu(monkeypatch)
    x = torch.randn(6, 4, 3, 5, dtype=torch.float64).contiguous(memory_format=memory).requires_grad_()
    taken = bank.take(x, np.array(rows), 3)
    assert taken.is_contiguous(memory_format=memory)
    wanted = x.view(3, 2, 4, 3, 5)[rows].flatten(0, 1)
    assert torch.equal(taken, wanted)
    weights = torch.randn_like(taken)
    (ours,), (theirs,) = (torch.autograd.grad((each * weights).sum(), x) for each in (taken, wanted))
    assert torch.equal(ours, theirs)


def test_what_was_sent_in_inference_can_be_trained_with() -> None:
    rows = np.array([2, 0, 1])
    with torch.inference_mode():
        bank.permuted(torch.zeros(3, 1, 1, 1), rows)
    x = torch.zeros(3, 1, 1, 1, requires_grad=True)
    bank.permuted(x, rows).sum().backward()
    assert x.grad is not None
