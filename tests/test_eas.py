"""EAS: what its actors decide, how likely that is, what they learn, and that it can be taken up again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from agent_checks import answered, foreign
from rich.console import Console
from torch.nn import functional

from nas_gym.agents import EAS, Agent, load_hyperparameters, make_agent
from nas_gym.agents.policy_gradient.eas import DeeperRound, EASHyperparameters, Growth, WiderRound
from nas_gym.envs.construction_vector import ConstructionVectorEnv
from nas_gym.envs.transformation import TransformationEnv
from nas_gym.envs.transformation_vector import TransformationVectorEnv
from nas_gym.evaluators import FunctionEvaluator
from nas_gym.experiments.run import recorder
from nas_gym.experiments.run.config import RunConfig
from nas_gym.experiments.run.record import TrialRecord
from nas_gym.experiments.run.recorder import Recorder
from nas_gym.experiments.run.run import Run
from nas_gym.experiments.run.trials import read_trials
from nas_gym.spaces import Tokens, TransformationSpace
from nas_gym.spaces.layer_space import Deepen, Widen
from nas_gym.spaces.layers import Convolution, FullyConnected, GlobalPool, Layers, Pool

SPACE = TransformationSpace(widths=(16, 32, 64), units=(64, 128), depth=3, max_transformations=20)
# Limits that are met within an episode: widths, depth, and the number of parameters.
START = Layers((Convolution(3, 8), Pool("max"), Convolution(3, 8), GlobalPool(), FullyConnected(8)))
TIGHT = TransformationSpace(
    START.to_json(), widths=(8, 12, 16), units=(8, 12), kernels=(1, 3), depth=2, max_parameters=2200
)
DENSE = TransformationSpace("densenet", kernels=(3,), max_transformations=12)
SPACES = {"plain": SPACE, "tight": TIGHT, "dense": DENSE}
TIGHT_SIX = dataclasses.replace(TIGHT, max_transformations=6)
FEW = {"wider_rounds": 2, "deeper_rounds": 1}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def widest(space: TransformationSpace) -> Any:
    """Scores by the width of the first layer, in [0, 1]."""

    def function(tokens: Tokens) -> np.ndarray:
        layers: Any = [space.network(row).layers[0] for row in tokens]
        return np.array([layer.width / space.widths[-1] for layer in layers])

    return function


def make(
    space: TransformationSpace = SPACE,
    seed: int = 0,
    num_envs: int = 5,
    restart_after: int | None = None,
    **hyperparameters: Any,
) -> EAS:
    evaluator = FunctionEvaluator(space, widest(space))
    envs = TransformationVectorEnv(
        num_envs, space=space, evaluator=evaluator, objective="accuracy", restart_after=restart_after
    )
    return EAS(envs, seed, hyperparameters)


@torch.no_grad()
def probability(agent: EAS, episode: Growth) -> float:
    """The log-probability of an episode's decisions, from its actions' meaning, one network and decision at a time."""
    space, controller = agent.space, agent.controller
    total = 0.0
    for each in episode.rounds:
        layers = space.layer_space.decode(each.layers)
        tokens, lengths = torch.from_numpy(each.layers[None, : len(layers)]), torch.tensor([len(layers)])
        hidden, state = controller.encode(tokens, lengths)
        if isinstance(each, WiderRound):
            logits = controller.wider(hidden)[0, :, 0]
            for layer in range(len(layers)):
                if each.counted[layer]:
                    p = float(torch.sigmoid(logits[layer]))
                    total += np.log(p if each.decisions[layer] else 1 - p)
            continue
        options = [space.actions[a] for a in np.flatnonzero(space.layer_space.legal(layers))]
        kernels = space.kernels
        deeper = [
            (action.block, action.position, 0 if action.kernel is None else kernels.index(action.kernel))
            for action in options
            if isinstance(action, Deepen)
        ]
        taken: tuple[int, ...] = ()
        previous = torch.zeros(1, dtype=torch.int64)
        for step, decision in enumerate(each.decisions.tolist()):
            allowed = {option[step] for option in deeper if option[:step] == taken}
            state = controller.decoder(functional.embedding(previous, controller.decision_embeddings[step]), state)
            scores = controller.heads[step](state[0])[0]
            weights = {index: float(scores[index].exp()) for index in allowed}
            total += np.log(weights[decision] / sum(weights.values()))
            taken, previous = (*taken, decision), torch.tensor([decision])
        assert taken in deeper
    return total


# ---------------------------------------------------------------------- rounds


@pytest.mark.parametrize("name", SPACES)
def test_rounds_are_the_actions(name: str) -> None:
    """Played by hand, the decisions lead to the actions; only decisions that could have an effect count."""
    space = SPACES[name]
    agent = make(space)
    proposal = agent.ask(12)
    tokens = proposal.tokens
    space.check(tokens)
    for row, number in zip(tokens, proposal.ids.tolist(), strict=True):
        episode = agent._asked[number]
        assert episode.tokens.tolist() == row.tolist()
        network, actions = space.layer_space.start, list[int]()
        wider = [each for each in episode.rounds if isinstance(each, WiderRound)]
        deeper = [each for each in episode.rounds if isinstance(each, DeeperRound)]
        assert [*wider, *deeper] == episode.rounds
        assert (len(wider), len(deeper) <= 5) == (4, True)
        for each in episode.rounds:
            assert space.layer_space.decode(each.layers) == network
            full = len(actions) == space.length
            legal = space.layer_space.legal(network) & (not full)
            if isinstance(each, WiderRound):
                could = [legal[space.actions.index(Widen(layer))] for layer in range(space.layer_space.length)]
                assert not (each.counted & ~np.array(could)).any()
                chosen = [Widen(int(layer)) for layer in np.flatnonzero(each.decisions & each.counted)]
            else:
                block, position, kernel = each.decisions.tolist()
                connected = isinstance(network.layers[network.blocks[block][0]], FullyConnected)
                chosen = [Deepen(block, position, None if connected else space.kernels[kernel])]
            for action in chosen:
                network = space.layer_space.apply(network, action)
                actions.append(space.actions.index(action))
        assert episode.actions == actions == list(space.taken(row))
    assert len({row.tobytes() for row in tokens}) > 6


def test_the_number_of_transformations_is_a_limit() -> None:
    space = dataclasses.replace(SPACE, max_transformations=3)
    tokens = make(space).ask(20).tokens
    space.check(tokens)
    assert max(len(space.taken(row)) for row in tokens) == 3


@pytest.mark.parametrize("name", SPACES)
def test_log_probabilities(name: str) -> None:
    agent = make(SPACES[name])
    agent.ask(6)
    asked = list(agent._asked.values())
    found, entropy = agent._evaluate(asked)
    expected = [probability(agent, episode) for episode in asked]
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-4)
    assert 0 < entropy.item() < np.log(5)


# ---------------------------------------------------------------------- learning


def test_an_update_is_a_step_of_adam_on_the_papers_loss() -> None:
    agent, other = make(batch_size=6, entropy_weight=0.1), make(batch_size=6, entropy_weight=0.1)
    proposal = agent.ask(6)
    assert other.ask(6).tokens.tolist() == proposal.tokens.tolist()
    rewards = np.array([0.1, 0.5, 0.2, 0.9, 0.3, 0.4])
    statistics = agent.tell(answered(proposal, rewards))
    weights = 0.95 ** np.arange(5, -1, -1)
    baseline = (weights * rewards).sum() / weights.sum()
    assert statistics["train/baseline"] == pytest.approx(baseline)
    log_probs, entropy = other._evaluate(list(other._asked.values()))
    loss = -sum((r - baseline) * log_probs[i] for i, r in enumerate(rewards)) / 6 - 0.1 * entropy
    optimizer = torch.optim.Adam(other.controller.parameters(), lr=2e-3)
    loss.backward()
    optimizer.step()
    for one, two in zip(agent.controller.parameters(), other.controller.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6)
    assert (agent._asked, agent._reported) == ({}, [])


def test_it_waits_for_a_batch_and_passes_over_what_it_did_not_ask_for() -> None:
    agent = make(batch_size=4)
    proposal = agent.ask(6)
    assert agent.tell(answered(proposal.rows(slice(3)), np.ones(3))) == {}
    assert agent.tell(foreign(SPACE.sample(np.random.default_rng(0), 5), np.ones(5))) == {}
    assert agent.tell(answered(proposal.rows(slice(3)), np.ones(3))) == {}, "told twice, it counts once"
    assert agent.tell(answered(proposal.rows(slice(3, 6)), np.zeros(3)))["train/n_updates"] == 1.0


def test_equal_networks_are_told_apart() -> None:
    """Different decisions may make the same network: told backwards, each gets its own reward."""
    agent = make(TIGHT, batch_size=100)
    proposal = agent.ask(100)
    places: dict[bytes, int] = {}
    pairs = [(places.setdefault(row.tobytes(), number), number) for number, row in enumerate(proposal.tokens)]
    rows = next(pair for pair in pairs if pair[0] != pair[1])
    first, second = (agent._asked[row] for row in rows)
    assert probability(agent, first) != pytest.approx(probability(agent, second))
    agent.tell(answered(proposal.rows(np.array([rows[1]])), np.array([0.8])))
    agent.tell(answered(proposal.rows(np.array([rows[0]])), np.array([0.2])))
    assert agent._reported == [(second, 0.8), (first, 0.2)]


def test_what_was_withdrawn_is_passed_over() -> None:
    agent = make(batch_size=2)
    lost = agent.ask(2)
    agent.withdraw()
    assert agent.tell(answered(lost, np.ones(2))) == {}
    assert agent.tell(answered(agent.ask(2), np.ones(2)))["train/n_updates"] == 1.0


def test_it_learns() -> None:
    """Rewarded for the first layer's width alone, it comes to widen it in every episode."""
    agent = make(num_envs=10, learning_rate=2e-2, **FEW)
    rewards = agent.learn(200).rewards
    assert rewards[:20].mean() < 0.8 < 0.95 < rewards[-50:].mean()


def test_networks_grow_out_of_the_best_one() -> None:
    agent = make(batch_size=5, restart_after=10)
    first = agent.learn(10)
    best = SPACE.taken(first.tokens[first.best_trial])
    assert agent.prefix == best != ()
    following = agent.ask(5).tokens
    assert (following[:, : len(best)] == best).all()
    SPACE.check(following)
    assert make(batch_size=5).learn(10).rewards.tolist() == first.rewards.tolist()


# ---------------------------------------------------------------------- play and keeping


def test_it_plays_all_environments() -> None:
    evaluator = FunctionEvaluator(SPACE, widest(SPACE))
    scalar = EAS(TransformationEnv(SPACE, evaluator=evaluator, objective="accuracy"), 0).learn(6)
    np.testing.assert_array_equal(scalar.rewards, widest(SPACE)(scalar.tokens))
    gains = EAS(TransformationVectorEnv(3, space=SPACE, evaluator=evaluator, reward="gain", objective="accuracy"), 0)
    result = gains.learn(6)
    np.testing.assert_allclose(result.rewards, widest(SPACE)(result.tokens) - 16 / 64)


def test_other_spaces_are_refused() -> None:
    with pytest.raises(ValueError, match=r"eas grows networks, as in NAS-Transform-v0; .*bench201"):
        make_agent("eas", ConstructionVectorEnv(2, space="bench201", evaluator="constant"))


def test_seeds_decide_and_global_ones_do_not() -> None:
    def search(seed: int, global_seed: int) -> list[list[int]]:
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        tokens = make(seed=seed).learn(20).tokens
        assert torch.equal(before, torch.get_rng_state())
        return tokens.tolist()

    assert search(0, 1) == search(0, 2) != search(1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("trials", [4, 10, 13])
def test_it_goes_on_from_a_file(trials: int, tmp_path: Path) -> None:
    """Interrupted anywhere, also between an update and the next, it comes to the same end."""
    whole = make(restart_after=8)
    whole.learn(trials)
    whole.ask(3)
    whole.save(tmp_path / "agent.pt")
    loaded = Agent.load(tmp_path / "agent.pt", make(restart_after=8).env)
    assert isinstance(loaded, EAS)
    assert loaded.hyperparameters == whole.hyperparameters
    expected, found = whole.learn(20), loaded.learn(20)
    assert found.tokens.tolist() == expected.tokens.tolist()
    assert found.rewards.tolist() == expected.rewards.tolist()
    for one, two in zip(whole.controller.parameters(), loaded.controller.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("embedding_size", 0),
        ("wider_rounds", -1),
        ("deeper_rounds", 1.5),
        ("batch_size", True),
        ("learning_rate", -1.0),
        ("learning_rate", "1e-3"),
        ("entropy_weight", -1.0),
        ("baseline_decay", 1.0),
    ],
)
def test_hyperparameters_out_of_range(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{field} must be .*, got"):
        EASHyperparameters(**{field: value})


def test_shipped_settings_are_the_papers() -> None:
    settings = load_hyperparameters("eas", "NAS-Transform-v0")
    assert (settings.embedding_size, settings.hidden_size) == (16, 50)
    assert (settings.wider_rounds, settings.deeper_rounds, settings.batch_size) == (4, 5, 10)
    assert (settings.learning_rate, settings.entropy_weight, settings.baseline_decay) == (2e-3, 1e-5, 0.95)


# ---------------------------------------------------------------------- runs


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["eas", "random"])
def test_a_killed_run_goes_on_to_the_bit(agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With networks that inherit from networks before the checkpoint, and trials on record beyond it."""
    config = RunConfig(
        env="NAS-Transform-v0",
        agent=agent,
        trials=14,
        num_envs=3,
        seed=1,
        device="cpu",
        hyperparameters={"batch_size": 4, **FEW} if agent == "eas" else {},
        env_kwargs={
            "space": TIGHT_SIX.to_dict(),
            "restart_after": 6,
            "evaluator_kwargs": {
                "inherit": "nearest",
                "start_epochs": 1,
                "epochs": 1,
                "batch_size": 32,
                "train_images": 64,
                "memory": 0,
            },
        },
        retrain_epochs=1 if agent == "eas" else 0,
        compare_found=1,
        compare_random=2,
        compare_seeds=2,
    )
    record = Run(tmp_path / "whole", config, Console(quiet=True)).execute()
    whole = (tmp_path / "whole" / "trials.csv").read_bytes()
    assert len(whole.splitlines()) == 15
    assert len(set(read_trials(tmp_path / "whole").metrics["epochs"])) > 1
    if agent == "eas":
        assert 0 < record["best"]["test_accuracy"] < 1

    class Killed(Exception):
        pass

    saves, save, add = 0, Recorder.save, TrialRecord.add

    def save_twice(recorder: Recorder, last: bool = False) -> None:
        nonlocal saves
        saves += 1
        if saves <= 2:
            save(recorder, last)

    def die(record: TrialRecord, trials: Any, seconds: float) -> None:
        add(record, trials, seconds)
        if record._trials >= 12:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(recorder, "CHECKPOINT_SECONDS", -1.0)
        patched.setattr(Recorder, "save", save_twice)
        patched.setattr(TrialRecord, "add", die)
        with pytest.raises(Killed):
            Run(tmp_path / "run", config, Console(quiet=True)).execute()
    assert len(read_trials(tmp_path / "run")) == 12
    again = Run(tmp_path / "run", console=Console(quiet=True))
    assert again.execute() == record
    assert (tmp_path / "run" / "trials.csv").read_bytes() == whole
