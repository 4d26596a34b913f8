"""The multi-task agent: its controller, what it learns of several tasks, and how it goes on to new ones."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from nas_gym.agents import Agent, Reinforce, Trials, make_agent
from nas_gym.agents.controllers.task_controller import TaskController
from nas_gym.agents.policy_gradient.multitask import MultiTask
from nas_gym.agents.policy_gradient.multitask_settings import MultiTaskHyperparameters
from nas_gym.agents.policy_gradient.task_memory import RunningMoments
from nas_gym.envs.problem import Problem
from nas_gym.evaluators import FunctionEvaluator, MultiTaskEvaluator
from nas_gym.spaces import CellSpace, make_space

BENCH = make_space("bench201")
FAST: dict[str, Any] = {"learning_rate": 0.02, "batch_size": 5, "hidden_size": 16, "replay_size": 0, "revisits": True}
OPERATIONS = {"first": 0, "second": 1, "third": 2}


def share(operation: int):
    """The share of decisions that choose an operation."""
    return lambda tokens: (tokens == operation).mean(axis=1)


def make_env(*tasks: str, num_envs: int = 10, space: Any = BENCH, **arguments: Any) -> gym.vector.VectorEnv:
    """Each task rewards an operation of its own."""
    evaluator = MultiTaskEvaluator({task: FunctionEvaluator(space, share(OPERATIONS[task])) for task in tasks})
    base = {"bench201": "NAS-Bench201-v0", "cell": "NAS-Cell-v0"}[space.name.partition(":")[0]]
    return gym.make_vec(
        "NAS-MultiTask-v0", num_envs=num_envs, base=base, tasks=tasks, space=space, evaluator=evaluator, **arguments
    )


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


# ---------------------------------------------------------------------- the controller


def test_the_controller_is_the_one_of_the_paper() -> None:
    """Against the equations written again in numpy: [action; task] into two LSTM layers, and [output; input] scored."""
    controller = TaskController(
        BENCH, 3, generators=generators(1, 2), hidden_size=8, layers=2, tanh_constant=None, skip=True
    ).double()
    tokens = BENCH.sample(np.random.default_rng(0), 8).reshape(2, 4, 6)
    tasks = [2, 0, 1, 2]
    controller.tasks = torch.tensor(tasks)
    log_probs, _, features = controller.evaluate(torch.from_numpy(tokens))
    weights = {name: value.detach().numpy() for name, value in controller.named_parameters()}
    for policy in range(2):
        for row, task in enumerate(tasks):
            state = [(np.zeros(8), np.zeros(8))] * 2
            embedding = weights["start"][policy]
            for t, token in enumerate(tokens[policy, row]):
                entered = x = np.concatenate([embedding, weights["task_embedding"][policy, task]])
                for layer, (hidden, cell) in enumerate(state):
                    gates = (
                        x @ weights["input_weights"][policy, layer] + hidden @ weights["hidden_weights"][policy, layer]
                    )
                    enter, forget, leave = 1 / (1 + np.exp(-gates[:24].reshape(3, 8)))
                    cell = enter * np.tanh(gates[24:]) + forget * cell
                    x = leave * np.tanh(cell)
                    state[layer] = x, cell
                scored = np.concatenate([x, entered])
                np.testing.assert_allclose(features[policy, row, t].detach(), scored, atol=1e-12)
                logits = scored @ weights["heads.0.weight"][policy] + weights["heads.0.bias"][policy, 0]
                expected = logits[token] - np.log(np.exp(logits).sum())
                np.testing.assert_allclose(log_probs[policy, row, t].detach(), expected, atol=1e-12)
                embedding = weights["embedding"][policy, token]


@pytest.mark.slow
@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("space", [BENCH, CellSpace(nodes=2)], ids=["bench201", "pointing"])
def test_steps_and_whole_sequences_agree(space, skip) -> None:
    """What samples are scored with one choice after another is what they are scored with at once."""
    controller = TaskController(space, 2, generators=generators(3), hidden_size=8, layers=2, skip=skip).double()
    for parameter in controller.parameters():
        parameter.data.mul_(10)
    for task in (0, 1):
        controller.tasks = torch.tensor([task])
        tokens = controller.sample(7, generators(0))
        space.check(tokens[0].numpy())
        log_probs = controller.evaluate(tokens)[0].detach()
        for t in range(space.length):
            positions = torch.full((1, 7), t)
            chosen = controller.next_distribution(tokens, positions).gather(2, tokens[:, :, t, None])[..., 0]
            np.testing.assert_allclose(log_probs[:, :, t].exp(), chosen, atol=1e-12)
    assert not torch.equal(
        log_probs, (setattr(controller, "tasks", torch.tensor([0])), controller.evaluate(tokens)[0])[1]
    )


# ---------------------------------------------------------------------- learning


def test_moments_are_weighted_means_and_variances() -> None:
    rng = np.random.default_rng(0)
    moments, seen = RunningMoments(2, 0.9), np.empty((2, 0))
    for n in (1, 4, 2, 7):
        new = rng.normal(3, 2, (2, n))
        moments.update(new)
        seen = np.concatenate([seen, new], axis=1)
        weights = 0.9 ** np.arange(seen.shape[1])[::-1]
        mean = np.average(seen, axis=1, weights=weights)
        variance = np.average((seen - mean[:, None]) ** 2, axis=1, weights=weights)
        np.testing.assert_allclose(moments.mean, mean)
        np.testing.assert_allclose(moments.variance, variance, atol=1e-12)
        np.testing.assert_allclose(
            moments.normalised(seen), (seen - mean[:, None]) / (np.sqrt(variance)[:, None] + 1e-8), rtol=1e-5
        )
    new = RunningMoments(2, 0.9)
    new.start_like([moments, moments], 5.0)
    np.testing.assert_allclose([new.mean, new.variance], [moments.mean, moments.variance])


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["reinforce", "ppo"])
def test_opposite_tasks_are_told_apart_by_the_embedding_alone(algorithm) -> None:
    found = {}
    for told in (True, False):
        settings = {**FAST, "algorithm": algorithm, "task_embedding": told}
        agent = MultiTask(make_env("first", "second", num_envs=20), 0, settings)
        result = agent.learn(800)
        tasks = result.metrics["task"]
        np.testing.assert_array_equal(tasks, np.arange(800) % 2)
        found[told] = [result.rewards[-200:][tasks[-200:] == task].mean() for task in (0, 1)]
    assert min(found[True]) > 0.8
    assert sum(found[False]) < 1.1  # an architecture's shares of two operations


def test_first_step_of_ppo_is_reinforce() -> None:
    updated = []
    for algorithm in ("reinforce", "ppo"):
        agent = MultiTask(make_env("first", "third"), 0, {**FAST, "algorithm": algorithm, "epochs": 1})
        agent.learn(20)
        updated.append(torch.cat([parameter.flatten() for parameter in agent.controller.parameters()]))
        assert agent.updates == 2
    torch.testing.assert_close(*updated)


def test_advantages_are_normalised_for_each_task_or_for_all_together() -> None:
    rewards = np.array([[0.9, 0.1, 0.8, 0.2, 0.7, 0.3]])
    tasks = np.array([0, 1, 0, 1, 0, 1])
    settings = {"moment_decay": 0.0, "reward": "raw"}
    for each in (True, False):
        agent = MultiTask(
            make_env("first", "second"), 0, {**settings, "per_task_normalisation": each, "moment_decay": 0.999999}
        )
        advantages = agent._advantages(rewards, tasks)
        for task in (0, 1):
            assert (abs(advantages[0, tasks == task].mean()) < 1e-3) == each
        assert abs(advantages.mean()) < 1e-3


@pytest.mark.slow
def test_many_seeds_are_each_one_alone() -> None:
    settings = {**FAST, "replay_size": 3, "revisits": False}
    together = MultiTask(make_env("first", "second", num_envs=30), [3, 4, 5], settings)
    pretrained = together.learn_each(60)
    together.transfer("third", make_env("third", num_envs=30), hyperparameters={"warm_start_size": 4})
    results = together.learn_each(30)
    for seed, before, after in zip([3, 4, 5], pretrained, results, strict=True):
        alone = MultiTask(make_env("first", "second"), seed, settings)
        np.testing.assert_array_equal(before.tokens, alone.learn(60).tokens)
        alone.transfer("third", make_env("third"), hyperparameters={"warm_start_size": 4})
        np.testing.assert_array_equal(after.tokens, alone.learn(30).tokens)
        assert after.unique_architectures == 30


# ---------------------------------------------------------------------- transfer


@pytest.fixture(scope="module")
def pretrained() -> MultiTask:
    agent = MultiTask(make_env("first", "second"), 0, {**FAST, "replay_size": 3, "replay_weight": 0.1})
    agent.learn(100)
    return agent


def test_embedding_alone_leaves_all_else_as_it_was(pretrained) -> None:
    agent = copy.deepcopy(pretrained)
    agent.transfer("third", make_env("third"), "embedding")
    before = {name: value.clone() for name, value in agent.controller.state_dict().items()}
    agent.learn(50)
    after = agent.controller.state_dict()
    for name, value in after.items():
        learned = name == "task_embedding"
        assert torch.equal(value[:, :2] if learned else value, before[name][:, :2] if learned else before[name]), name
    assert not torch.equal(after["task_embedding"][:, 2], before["task_embedding"][:, 2])
    assert agent.tasks == ("first", "second", "third")
    assert len(agent.result) == 50


def test_all_learns_the_new_task(pretrained) -> None:
    agent = copy.deepcopy(pretrained)
    agent.transfer("third", make_env("third"))
    rewards = agent.learn(300).rewards
    assert rewards[-50:].mean() > rewards[:50].mean() + 0.2


def test_scratch_is_an_agent_of_the_new_task_alone(pretrained) -> None:
    agent = copy.deepcopy(pretrained)
    agent.transfer("third", make_env("third"), "scratch", {"hidden_size": 8})
    assert agent.tasks == ("third",)
    assert agent.controller.hidden_size == 8
    assert not agent._warm_start.size
    assert abs(agent.learn(50).rewards[:10].mean() - 0.2) < 0.15  # one of five operations


def test_a_new_embedding_is_drawn_around_those_learned(pretrained) -> None:
    agent = copy.deepcopy(pretrained)
    agent.transfer("third", make_env("third"), hyperparameters={"embedding_spread": 0.0})
    embeddings = agent.controller.task_embedding.detach()[0]
    torch.testing.assert_close(embeddings[2], embeddings[:2].mean(0))


def test_the_warm_start_is_the_best_by_mean_rank(pretrained) -> None:
    """Against the definition, one architecture after another."""
    agent = copy.deepcopy(pretrained)
    tried = np.unique(np.concatenate([memory.tokens[0] for memory in agent.memories]), axis=0)
    ranks = np.zeros(len(tried))
    for task, memory in enumerate(agent.memories):
        agent.controller.tasks = torch.tensor([task])
        likelihood = agent.controller.evaluate(torch.from_numpy(tried)[None])[0].sum(2)[0].double().detach().numpy()
        rewards = {}
        for row, reward in zip(memory.tokens[0].tolist(), memory.rewards[0], strict=True):
            rewards[tuple(row)] = reward
        for index, row in enumerate(tried.tolist()):
            values, own = (
                (memory.rewards[0], rewards[tuple(row)]) if tuple(row) in rewards else (likelihood, likelihood[index])
            )
            ranks[index] += (np.mean(values < own) + np.mean(values <= own)) / 2
    best = agent.warm_start(5)[0]
    places = [tried.tolist().index(row) for row in best.tolist()]
    np.testing.assert_allclose(ranks[places], np.sort(ranks)[::-1][:5])
    agent.transfer("third", make_env("third"), hyperparameters={"warm_start_size": 5, "revisits": False})
    result = agent.learn(20)
    np.testing.assert_array_equal(result.tokens[:5], best)
    assert result.unique_architectures == 20


def test_saved_and_loaded_it_goes_on_the_same(tmp_path, pretrained) -> None:
    pretrained.save(tmp_path / "agent.pt")
    results = []
    for agent in (copy.deepcopy(pretrained), MultiTask.load(tmp_path / "agent.pt", make_env("third"))):
        agent.transfer("third", make_env("third"), hyperparameters={"warm_start_size": 3})
        agent.learn(7)  # in the midst of a batch
        agent.save(tmp_path / "midst.pt")
        loaded = Agent.load(tmp_path / "midst.pt", make_env("third"))
        results += [agent.learn(30).tokens, loaded.learn(30).tokens]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)
    with pytest.raises(ValueError, match=r"env offers third, not first, second; `transfer` begins a new task"):
        MultiTask.load(tmp_path / "agent.pt", make_env("third")).ask(1)


@pytest.mark.slow
def test_an_agent_goes_on_from_a_file(tmp_path, pretrained) -> None:
    path = tmp_path / "agent.pt"
    pretrained.save(path)
    settings = {**FAST, "hidden_size": 50, "warm_start_size": 3}

    def made(seed: int = 5, **arguments: Any) -> MultiTask:
        return MultiTask.from_pretrained(path, make_env("third"), seed, settings, **arguments)

    agent = made()
    assert agent.tasks == ("first", "second", "third")
    assert agent.mode == "all"
    assert agent.hyperparameters.hidden_size == pretrained.hyperparameters.hidden_size
    assert agent.trials == 0
    result = agent.learn(40)
    np.testing.assert_array_equal(result.tokens[:3], pretrained.warm_start(3)[0])
    np.testing.assert_array_equal(result.tokens, made().learn(40).tokens)
    assert not np.array_equal(result.tokens, made(6).learn(40).tokens)
    assert made(mode="embedding").mode == "embedding"
    assert made(mode="scratch").tasks == ("third",)
    with pytest.raises(ValueError, match="mode must be one of all, embedding, scratch; got 'none'"):
        made(mode="none")
    with pytest.raises(ValueError, match=r"holds an agent 'multitask' of .*, not one of"):
        MultiTask.from_pretrained(path, make_env("third", space=CellSpace(nodes=1)), 0, settings)
    with pytest.raises(ValueError, match="new_task must be none of first, second; got 'first'"):
        MultiTask.from_pretrained(path, make_env("first"), 0, settings)
    with pytest.raises(ValueError, match="agent 'reinforce' does not transfer to new tasks; 'multitask' and 'dyna' do"):
        Reinforce.from_pretrained(path, make_env("third"))
    other = make_agent("random", make_env("third"))
    other.save(tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"holds an agent 'random' of .*, not one of"):
        MultiTask.from_pretrained(tmp_path / "other.pt", make_env("third"))


@pytest.mark.parametrize("mode", ["all", "embedding", "scratch"])
def test_a_transferred_agent_loads_without_the_file_that_it_came_from(tmp_path, pretrained, mode) -> None:
    source = tmp_path / "source.pt"
    pretrained.save(source)
    agent = MultiTask.from_pretrained(source, make_env("third"), 5, {**FAST, "warm_start_size": 3}, mode=mode)
    agent.learn(12)
    agent.save(tmp_path / "agent.pt")
    source.unlink()
    loaded = Agent.load(tmp_path / "agent.pt", make_env("third"))
    assert isinstance(loaded, MultiTask)
    assert (loaded.tasks, loaded.playing, loaded.mode) == (agent.tasks, agent.playing, mode)
    np.testing.assert_array_equal(loaded.learn(30).tokens, agent.learn(30).tokens)
    for one, other in zip(loaded.controller.parameters(), agent.controller.parameters(), strict=True):
        assert torch.equal(one, other)


# ---------------------------------------------------------------------- identities


def test_trials_are_told_of_their_own_task_in_any_order() -> None:
    """Told in parts and backwards, each reward joins the memory of the task that its architecture was proposed for."""
    agent = MultiTask(make_env("first", "second"), 0, {**FAST, "batch_size": 100})
    proposal = agent.ask(6)
    assert proposal.tasks is not None
    assert proposal.tasks.tolist() == ["first", "second"] * 3
    rewards = np.arange(6) / 10
    for row in reversed(range(6)):
        part = proposal.rows(np.array([row]))
        agent.tell(Trials(part.ids, part.tokens, rewards[[row]]))
    for memory, numbers in zip(agent.memories, ([4, 2, 0], [5, 3, 1]), strict=True):
        np.testing.assert_array_equal(memory.tokens[0], proposal.tokens[numbers])
        np.testing.assert_array_equal(memory.rewards[0], rewards[numbers])


def test_what_was_withdrawn_or_not_asked_for_is_passed_over() -> None:
    agent = MultiTask(make_env("first", "second"), 0, {**FAST, "batch_size": 2})
    lost = agent.ask(4)
    agent.withdraw()
    assert agent.tell(Trials(lost.ids, lost.tokens, np.ones(4))) == {}
    assert agent.tell(Trials(np.full(4, -1), lost.tokens, np.ones(4))) == {}
    assert not any(memory.rewards.size for memory in agent.memories)
    proposal = agent.ask(4)
    assert agent.tell(Trials(proposal.ids, proposal.tokens, np.ones(4)))["train/n_updates"] == 1.0


# ---------------------------------------------------------------------- play


@pytest.mark.parametrize("form", ["onehot", "tokens", "dict"])
def test_acts_for_the_task_that_the_observation_tells(form, pretrained) -> None:
    agent = copy.deepcopy(pretrained)
    env = make_env("second", "first", num_envs=8, observation=form)  # in another order than it has learned them
    agent.problem = Problem(env)
    observation, info = env.reset(seed=0)
    assert len(set(info["task"].tolist())) == 2
    actions = agent.act(observation, deterministic=True)
    for task in (0, 1):
        agent.controller.tasks = torch.tensor([agent.tasks.index(("second", "first")[task])])
        likeliest = agent.policy(np.zeros((1, 6), dtype=np.int64), np.zeros(1, dtype=np.int64))[0].argmax()
        assert set(actions[info["task"] == task].tolist()) == {likeliest}
    one = {name: part[0] for name, part in observation.items()} if form == "dict" else observation[0]
    assert agent.act(one, deterministic=True) == actions[0]
    agent.problem = Problem(make_env("second", "third", observation=form))
    observation, info = agent.env.reset(seed=0)
    assert 1 in info["task"]
    with pytest.raises(ValueError, match="the agent knows first, second; the observation is of another task"):
        agent.act(observation)


def test_the_entropy_after_updates(pretrained) -> None:
    """Updates score other numbers of sequences than are played for the estimate."""
    agent = make_agent("multitask", "NAS-Bench201-v0", hyperparameters={"replay_size": 2})
    before = agent.entropy()
    agent.learn(20)
    assert 0 < agent.entropy() < before + 1


def test_an_environment_of_one_task_will_do() -> None:
    env = gym.make_vec("NAS-Bench201-v0", num_envs=5)
    agent = MultiTask(env, 0, FAST)
    assert agent.tasks == agent.problem.task_names == ("fashion-mnist",)
    assert len(agent.learn(20)) == 20
    assert agent.act(env.reset()[0]).shape == (5,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("first",), "new_task must be none of first, second; got 'first'"),
        (("fourth",), "new_task must be one that env offers, third; got 'fourth'"),
        (("third", None, "some"), "mode must be one of all, embedding, scratch; got 'some'"),
        (("third", None, "all", {"layers": 3}), "a trained controller's layers cannot change"),
        (("third", None, "all", {"layer": 3}), "agent 'multitask' has no hyperparameter 'layer'"),
    ],
)
def test_transfer_refuses(pretrained, arguments, message) -> None:
    agent = copy.deepcopy(pretrained)
    agent.problem = Problem(make_env("third"))
    with pytest.raises(ValueError, match=message):
        agent.transfer(*arguments)
    with pytest.raises(ValueError, match="env must be of the space"):
        agent.transfer("third", make_env("third", space=CellSpace(nodes=1)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden_size": 15},
        {"algorithm": "a2c"},
        {"lstm": False},
        {"warm_start_size": -1},
        {"moment_decay": 1.0},
        {"epochs": 0},
        {"clip_range": 0.0},
        {"moment_prior": -1.0},
        {"skip": 1},
    ],
)
def test_hyperparameters_refuse(wrong) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"^{name} must be"):
        MultiTaskHyperparameters(**wrong)
