"""Hypernetworks: as shared weights while nothing is generated, exact gradients, and a state that is complete."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from toy_tasks import toy_task

from nas_gym.evaluators import make_evaluator
from nas_gym.evaluators.hypernetwork import (
    Codes,
    Generated,
    GeneratedSupernet,
    HypernetworkEvaluator,
    HypernetworkSettings,
    Picture,
)
from nas_gym.evaluators.shared_weights import SharedWeightEvaluator
from nas_gym.networks import NetworkSettings, make_supernet
from nas_gym.spaces import SearchSpace, Tokens, make_space

SPACES = ["cell:enas", "cell:nasnet", "bench201", "chain", "macro"]
SMALL: dict[str, Any] = {"channels": 4, "batch_size": 16, "learning_rate": 0.05, "device": "cpu"}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def evaluator(name: str, seed: int = 0, **settings: Any) -> HypernetworkEvaluator:
    space = make_space(name)
    return HypernetworkEvaluator(space, toy_task(48, 45), seed=seed, **{**SMALL, "layers": 2, **settings})


def shared_weights(name: str, **settings: Any) -> SharedWeightEvaluator:
    return SharedWeightEvaluator(make_space(name), toy_task(48, 45), **{**SMALL, **settings})


def draw(space: SearchSpace, n: int, seed: int = 0) -> Tokens:
    return space.sample(np.random.default_rng(seed), n)


def generated(made: HypernetworkEvaluator) -> dict[str, Generated]:
    return {name: module for name, module in made.supernet.named_modules() if isinstance(module, Generated)}


def randomise(made: HypernetworkEvaluator) -> None:
    """Generated weights that are not zero."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for module in generated(made).values():
            module.matrix.copy_(torch.randn(module.matrix.shape, generator=generator))


# ------------------------------------------------------------------ weights


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_a_constant_hypernetwork_is_shared_weights(name: str) -> None:
    """It generates zero, which it goes on to do in training if its last layer is kept from learning."""
    made, plain = evaluator(name), shared_weights(name)
    for module in generated(made).values():
        module.matrix.requires_grad_(False)
    tokens = draw(made.space, 4)
    for step, tolerance in enumerate((1e-6, 1e-3, 1e-3)):  # batch norm of few values magnifies what rounding leaves
        left, right = made.evaluate(tokens), plain.evaluate(tokens)
        np.testing.assert_allclose(left.metrics["loss"], right.metrics["loss"], rtol=tolerance)
        batch = draw(made.space, 2, seed=step)
        assert made.update(batch)["weights/loss"] == pytest.approx(plain.update(batch)["weights/loss"], rel=tolerance)


@pytest.mark.parametrize("shape", [(4, 3, 1, 1), (4, 3, 3, 5)])
def test_a_generated_weight_by_hand(shape: tuple[int, ...]) -> None:
    """A 1x1 convolution is added to; another is followed by one plus a generated 1x1 convolution."""
    torch.manual_seed(0)
    shared, codes = torch.randn(shape), Codes()
    module = Generated(shared, 2, 1, codes)
    codes.current = torch.tensor([[9.0, 9.0], [0.5, -2.0]])
    with torch.no_grad():
        module.matrix.normal_()
    matrix = 0.5 * module.matrix[..., 0] - 2 * module.matrix[..., 1]
    x = torch.randn(1, 3, 5, 7)
    if shape[2:] == (1, 1):
        wanted = shared + matrix[:, :, None, None]
    else:
        wanted = torch.einsum("oi,ichw->ochw", torch.eye(4) + matrix, shared)
        behind = nn.functional.conv2d(nn.functional.conv2d(x, shared), (torch.eye(4) + matrix)[:, :, None, None])
        torch.testing.assert_close(nn.functional.conv2d(x, wanted), behind, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(module(shared), wanted * shared.norm() / wanted.norm())
    assert float(module(shared).detach().norm()) == pytest.approx(float(shared.norm()), rel=1e-5)


@pytest.mark.slow
def test_gradients_are_those_of_finite_differences() -> None:
    space = make_space("macro")
    network = make_supernet(space, (1, 6, 6), 3, NetworkSettings(channels=2, reductions=1))
    torch.manual_seed(0)
    supernet = GeneratedSupernet(network, HypernetworkSettings(layers=2, growth=3, code=4)).double()
    with torch.no_grad():
        for module in supernet.modules():
            if isinstance(module, Generated):
                module.matrix.normal_()
    images, tokens = torch.randn(4, 1, 6, 6, dtype=torch.float64), draw(space, 2)

    def loss() -> torch.Tensor:
        out: torch.Tensor = supernet(images, tokens).square().mean()
        return out

    loss().backward()  # type: ignore[no-untyped-call]
    rng, checked = np.random.default_rng(0), 0
    for name, parameter in supernet.named_parameters():
        if parameter.grad is None or not ("hypernetwork" in name or "matrix" in name):
            continue
        place = int(rng.integers(parameter.numel()))
        flat, slope = parameter.data.view(-1), float(parameter.grad.view(-1)[place])
        kept, ends = float(flat[place]), []
        for step in (1e-6, -1e-6):
            flat[place] = kept + step
            ends.append(float(loss().detach()))
        flat[place] = kept
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(slope, rel=1e-3, abs=1e-6), name
        checked += 1
    assert checked > 5


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_every_generated_weight_depends_on_the_architecture(name: str) -> None:
    made = evaluator(name)
    tokens = draw(made.space, 2)
    supernet = made.supernet
    assert isinstance(supernet, GeneratedSupernet)
    first, second = supernet.hypernetwork(supernet.picture(tokens))
    assert not torch.allclose(first, second)
    np.testing.assert_allclose(first.norm(dim=1).detach(), 1, rtol=1e-5)
    randomise(made)
    columns = {module.column for module in generated(made).values()}
    inputs = {0, 1, 7, 8} if name.startswith("cell") else set()  # of the cells, before their five nodes
    assert columns == {decision.group for decision in made.space.decisions} | inputs
    together = made.evaluate(tokens)
    for row in (0, 1):
        alone = made.evaluate(tokens[[row]])
        np.testing.assert_allclose(alone.metrics["loss"], together.metrics["loss"][[row]], rtol=1e-6)


def test_columns_of_a_cell_belong_to_its_nodes() -> None:
    """The first node of the normal cell has the column behind those of the two inputs, whichever cell it is in."""
    made = evaluator("cell:enas", channels=4, reductions=1)
    columns = {name.partition("network.")[2]: module.column for name, module in generated(made).items()}
    found = {name.partition(".choices")[0]: column for name, column in columns.items()}
    assert found["cells.0.operations.0"] == found["cells.0.operations.1"] == found["cells.2.operations.0"] == 2
    assert found["cells.0.operations.9"] == 6
    assert found["cells.1.operations.9"] == 13
    assert not any(name.startswith(("stem", "head")) for name in columns)


def test_a_picture_by_hand() -> None:
    space = make_space({"name": "macro", "layers": 2, "operations": ("conv_3x3", "max_pool_3x3")})
    picture = Picture(space)
    one, two = picture(np.array([[1, 0, 1], [0, 1, 0]]))
    assert one[:-1].tolist() == [[0, 1], [1, 0], [0, 0], [0, 1]]  # operations 0 and 1; skip_0 absent, and connected
    assert two[:-1].tolist() == [[1, 0], [0, 1], [0, 1], [0, 0]]
    assert torch.equal(one[-1], two[-1])


# ------------------------------------------------------------------ training and state


def states(made: HypernetworkEvaluator) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in made.supernet.state_dict().values()]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cell:enas", "chain"])
def test_training_follows_from_the_seed_and_is_resumed(name: str, tmp_path: Path) -> None:
    runs = [evaluator(name, seed=seed) for seed in (0, 0, 1)]
    for made in runs:
        for step in range(3):
            made.update(draw(made.space, 2, seed=step))
    first, again, other = map(states, runs)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    torch.save(runs[0].state_dict(), tmp_path / "state.pt")
    runs[2].seed = 0
    runs[2].load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    tokens = draw(runs[0].space, 3, seed=9)
    for made in (runs[0], runs[2]):
        made.update(tokens)
    assert all(torch.equal(a, b) for a, b in zip(states(runs[0]), states(runs[2]), strict=True))
    left, right = runs[0].evaluate(tokens), runs[2].evaluate(tokens)
    assert left.metrics["loss"].tolist() == right.metrics["loss"].tolist()


@pytest.mark.slow
def test_training_generates_weights_and_learns() -> None:
    made = evaluator("cell:enas", learning_rate=0.1)
    before = copy.deepcopy(made.state_dict())
    tokens = draw(made.space, 4)
    losses = [made.update(tokens)["weights/loss"] for _ in range(12)]
    assert losses[-1] < 0.7 * losses[0]
    assert any(module.matrix.abs().max() > 1e-3 for module in generated(made).values())
    scores = made.evaluate(tokens)
    assert made.evaluate(tokens).metrics["loss"].tolist() == scores.metrics["loss"].tolist()
    made.load_state_dict(before)
    assert made.evaluate(tokens).metrics["loss"].tolist() != scores.metrics["loss"].tolist()


def test_each_supernet_of_few_shot_has_a_hypernetwork_of_its_own() -> None:
    made = evaluator("bench201")
    randomise(made)
    tokens = draw(made.space, 4)
    before = made.evaluate(tokens)
    made.split(0)
    assert made.evaluate(tokens).metrics["loss"].tolist() == pytest.approx(before.metrics["loss"].tolist(), rel=1e-5)
    assert len({id(module.codes) for module in generated(made).values()}) == len(made.space.decisions[0].choices)


# ------------------------------------------------------------------ refusals


def test_other_spaces_and_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="hypernetworks are for spaces cell, bench201, chain, macro; got space 'size'"):
        make_evaluator("hypernetwork", make_space("size"), "digits")
    with pytest.raises(ValueError, match="growth must be at least 1, got 0"):
        make_evaluator("hypernetwork", make_space("macro"), "digits", {"growth": 0})
    with pytest.raises(ValueError, match=r"hypernetwork has no setting \['depth'\]"):
        make_evaluator("hypernetwork", make_space("macro"), "digits", {"depth": 3})
