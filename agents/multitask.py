"""One controller for many tasks, and its transfer to a new one: the agent of Wong et al. 2018."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas_gym.spaces import SearchSpace, Tokens, make_space

from . import policy_gradient
from .agent import Env, Floats, attribute, read_record
from .controllers import LSTMController
from .policy_gradient import ControllerHyperparameters, PolicyGradientAgent, Ranks, tried_tensor
from .ppo import clipped
from .reinforce import MovingAverage, PriorityQueue

ALGORITHMS = ("reinforce", "ppo")
MODES = ("all", "embedding", "scratch")
FORM = (*policy_gradient.FORM, "skip")
RECENT = 100  # trials that `rollout/<task>/ep_rew_mean` averages, as in Stable-Baselines3


@dataclass(frozen=True)
class MultiTaskHyperparameters(ControllerHyperparameters):
    """Defaults are those of Wong et al. 2018, "Transfer Learning with Neural AutoML", section 3, where it tells them.

    Attributes:
        hidden_size: units of the LSTM, half of them at its input for the embedding of the last action, half for that of
            the task (Wong et al.: 50, of 25 and 25).
        layers: layers of the LSTM (Wong et al.: 2).
        learning_rate: of Adam (Wong et al.: 1e-4).
        adam_beta1: Adam's own (Kingma & Ba 2015: 0.9).
        batch_size: an update is due when so many episodes of each task have been told.
        tanh_constant: Wong et al. bound no logits.
        algorithm: ``"reinforce"`` (Williams 1992) makes one step of an update; ``"ppo"`` (Schulman et al. 2017) makes
            `epochs`, with the probability ratios clipped.
        epochs: steps of an update of PPO (Schulman et al. 2017, for Atari, table 5: 3).
        clip_range: of PPO's probability ratios (Schulman et al. 2017, section 6.1: 0.2).
        entropy_weight: of the mean entropy of a decision in the objective (Schulman et al. 2017: 0.01).
        task_embedding: False has all tasks share one embedding, so that the policy cannot tell them apart.
        skip: the LSTM's input joins its output before the softmax (Wong et al., section 3: a skip connection across
            the RNN).
        per_task_normalisation: each task has a baseline and a variance of its own, by which the advantages of its
            episodes are normalised (Wong et al., section 3); False has one baseline and one variance for all tasks.
        moment_decay: of these two, moving averages, an episode at a time.
        warm_start: a new task's baseline and variance start at the mean of those of the tasks before, which counts as
            so many of its own episodes.
        embedding_spread: a new task's embedding is drawn around the mean of those learned, each coordinate with so
            many of their standard deviations.
        replay_size: of each task so many of its best architectures are kept, whose likelihood each update raises
            (Abolafia et al. 2018; see `ReinforceHyperparameters`); 0 replays none, as in Wong et al.
        replay_weight: of their mean log-likelihood in the objective.
        recall: so many of the first architectures of a new task are those that seem best for the tasks before, among
            all that were tried on them (see `recalled`); 0, as in Wong et al., samples from the start.
        pretrained: file of a saved agent, which goes on to the task of the environment as `transfer` says. The form of
            its controller is the file's, whatever the settings here. None starts anew.
        mode: of that transfer.
    """

    hidden_size: int = 50
    layers: int = 2
    learning_rate: float = 1e-4
    adam_beta1: float = 0.9
    tanh_constant: float | None = None
    operation_tanh_reduction: float = 1.0
    algorithm: str = "reinforce"
    epochs: int = 3
    clip_range: float = 0.2
    entropy_weight: float = 0.01
    task_embedding: bool = True
    skip: bool = True
    per_task_normalisation: bool = True
    moment_decay: float = 0.95
    warm_start: float = 5.0
    embedding_spread: float = 1.0
    replay_size: int = 0
    replay_weight: float = 1.0
    recall: int = 0
    pretrained: str | None = None
    mode: str = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("task_embedding skip per_task_normalisation", "true or false", lambda v: isinstance(v, bool))
        self._check("lstm", "true: the task is told to an LSTM", lambda v: v is True)
        self._check("hidden_size", "even: half of it is the task's", lambda v: v % 2 == 0)
        self._check("algorithm", f"one of {', '.join(ALGORITHMS)}", lambda v: v in ALGORITHMS)
        self._check("epochs", "a positive integer", lambda v: isinstance(v, int) and v > 0)
        self._check("replay_size recall", "an integer, not negative", lambda v: isinstance(v, int) and v >= 0)
        self._check("moment_decay", "in [0, 1)", lambda v: 0 <= v < 1)
        self._check("clip_range", "positive", lambda v: 0 < v < math.inf)
        self._check("mode", f"one of {', '.join(MODES)}", lambda v: v in MODES)
        weights = "entropy_weight warm_start embedding_spread replay_weight"
        self._check(weights, "finite and not negative", lambda v: 0 <= v < math.inf)


class TaskController(LSTMController):
    """An LSTM controller that is told the task at each step: its embedding is joined to that of the last action.

    Source: Wong et al. 2018, section 3 and figure 1.

    Args:
        space: the search space.
        tasks: K, how many there are.
        generators: see `LSTMController`.
        hidden_size: see `LSTMController`; half of it is the size of the embeddings, of actions and of tasks.
        **arguments: those of `LSTMController`.

    Attributes:
        task_embedding: float[S, K, H / 2].
        tasks: int64[n], the task of each sequence that is built or scored next; or int64[1], that of all of them.
    """

    def __init__(
        self,
        space: SearchSpace,
        tasks: int,
        *,
        generators: Sequence[torch.Generator],
        hidden_size: int = 50,
        **arguments: Any,
    ) -> None:
        context_size = hidden_size // 2
        super().__init__(space, generators=generators, hidden_size=hidden_size, context_size=context_size, **arguments)
        self.task_embedding = nn.Parameter(torch.empty(self.policies, tasks, context_size))
        self.tasks = torch.zeros(1, dtype=torch.int64)
        with torch.no_grad():
            for row, generator in zip(self.task_embedding, generators, strict=True):
                row.uniform_(-1.0, 1.0, generator=generator)  # far enough apart for tasks to be told at once

    def _input(self, embedding: Tensor) -> Tensor:
        context = self.task_embedding.index_select(1, self.tasks.to(embedding.device))
        while context.ndim < embedding.ndim:  # a task is the same at all decisions
            context = context[:, :, None]
        return torch.cat([embedding, context.expand(*embedding.shape[:-1], -1)], dim=-1)

    @torch.no_grad()
    def add_task(self, spread: float, generators: Sequence[torch.Generator]) -> None:
        """Appends an embedding, drawn from the normal distribution that those learned have."""
        known = self.task_embedding
        center, deviation = known.mean(1), known.std(1, correction=0)
        noise = torch.stack([torch.randn(known.shape[2], generator=generator) for generator in generators])
        drawn = center + spread * deviation * noise.to(known)
        self.task_embedding = nn.Parameter(torch.cat([known, drawn[:, None]], dim=1))


class Moments:
    """Moving mean and variance of S series, corrected for their start as Adam's are.

    Args:
        size: S.
        decay: a value's weight at the next one.
    """

    def __init__(self, size: int, decay: float) -> None:
        self.size = size
        self.averages = MovingAverage(decay, 2 * size)  # of values, then of their squares

    @property
    def mean(self) -> Floats:
        """float64[S]."""
        mean: Floats = self.averages.total[: self.size] / self.averages.weight
        return mean

    @property
    def variance(self) -> Floats:
        """float64[S]."""
        squares = self.averages.total[self.size :] / self.averages.weight
        variance: Floats = np.maximum(squares - self.mean**2, 0.0)
        return variance

    def update(self, values: Floats) -> None:
        """Takes in float64[S, n], one after another."""
        self.averages.update(np.concatenate([values, values**2]))

    def start_like(self, others: Sequence[Moments], weight: float) -> None:
        """Starts at the mean of others' means and variances, as if they had come from so many values."""
        mean = np.mean([other.mean for other in others], axis=0)
        variance = np.mean([other.variance for other in others], axis=0)
        self.averages.total, self.averages.weight = weight * np.concatenate([mean, variance + mean**2]), weight

    def normalised(self, values: Floats) -> Floats:
        """float64[S, n] minus the means, over the standard deviations."""
        normalised: Floats = (values - self.mean[:, None]) / (np.sqrt(self.variance)[:, None] + 1e-8)
        return normalised


class TaskMemory:
    """What the agents of S seeds remember of a task.

    Attributes:
        moments: of what is learned from.
        ranks: of the rewards.
        queue: the best architectures.
        tokens: int64[S, n, T], all architectures that were told.
        rewards: float64[S, n], theirs.
        tried: of each seed, the architectures proposed.
    """

    def __init__(self, size: int, length: int, settings: MultiTaskHyperparameters) -> None:
        self.moments = Moments(size, settings.moment_decay)
        self.ranks = Ranks(size)
        self.queue = PriorityQueue(size, settings.replay_size, length)
        self.tokens, self.rewards = np.empty((size, 0, length), dtype=np.int64), np.empty((size, 0))
        self.tried: list[set[bytes]] = [set() for _ in range(size)]

    def take_in(self, tokens: Tokens, rewards: Floats) -> None:
        """Remembers int64[S, n, T] of rewards float64[S, n]."""
        self.queue.update(tokens, rewards)
        self.tokens = np.concatenate([self.tokens, tokens], axis=1)
        self.rewards = np.concatenate([self.rewards, rewards], axis=1)

    def ranked(self, seed: int, tokens: Tokens, likelihood: Floats) -> Floats:
        """Ranks float64[n] in [0, 1] of int64[n, T] in the eyes of a seed: by reward if told, else by likelihood."""
        ranks = {
            row.tobytes(): rank for row, rank in zip(self.tokens[seed], relative_ranks(self.rewards[seed]), strict=True)
        }
        supposed = relative_ranks(likelihood)
        return np.array([ranks.get(row.tobytes(), rank) for row, rank in zip(tokens, supposed, strict=True)])

    def state_dict(self) -> dict[str, Any]:
        """All of it, as tensors and numbers."""
        arrays = {"moments": self.moments.averages.total, "ranks": self.ranks.sorted}
        trials = {"tokens": self.tokens, "rewards": self.rewards}
        queue = {"queue_tokens": self.queue.tokens, "queue_rewards": self.queue.rewards}
        tensors = {name: torch.from_numpy(array.copy()) for name, array in {**arrays, **trials, **queue}.items()}
        return {**tensors, "weight": self.moments.averages.weight, "tried": [tried_tensor(rows) for rows in self.tried]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to where `state_dict` was taken."""
        self.moments.averages.total, self.moments.averages.weight = state["moments"].numpy(), state["weight"]
        self.ranks.sorted = state["ranks"].numpy()
        self.tokens, self.rewards = state["tokens"].numpy(), state["rewards"].numpy()
        self.queue.tokens, self.queue.rewards = state["queue_tokens"].numpy(), state["queue_rewards"].numpy()
        self.tried = [{row.tobytes() for row in rows.numpy()} for rows in state["tried"]]


class MultiTask(PolicyGradientAgent):
    """An LSTM controller that learns many tasks at once, told which by a learned embedding, and goes on to new ones.

    It proposes architectures for the tasks of its environment (`NAS-MultiTask-v0`) in turn. With r an episode's reward,
    transformed as `reward` says, and m and s the moving mean and standard deviation of its task, the new episodes taken
    in, the objective of REINFORCE is

        mean over episodes of the sum over decisions of (r - m) / s * log pi(choice | choices before, task)
        + entropy_weight * mean entropy + replay_weight * mean log-likelihood of the tasks' best.

    Source: Wong et al. 2018, "Transfer Learning with Neural AutoML", section 3.

    Attributes:
        tasks: names of all tasks that the controller has an embedding of.
        playing: those that it proposes architectures for.

    Raises:
        ValueError: as `Agent`.
    """

    name = "multitask"
    Hyperparameters = MultiTaskHyperparameters
    hyperparameters: MultiTaskHyperparameters
    controller: TaskController

    def __init__(
        self,
        env: Env | str,
        seed: int | Sequence[int] = 0,
        hyperparameters: Mapping[str, Any] | MultiTaskHyperparameters | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(env, seed, hyperparameters, device)
        self.memories = [self._new_memory() for _ in self.tasks]
        self.mode = "all"
        self._asked = 0  # episodes; the next one's task follows from it
        self._tasks_asked = np.empty(0, dtype=np.int64)  # of the last architectures asked for
        self._tasks_pending = np.empty(0, dtype=np.int64)  # of the episodes that no update has used
        self._recalled = np.empty((len(self.generators), 0, self.space.length), dtype=np.int64)  # still to be proposed
        if self.hyperparameters.pretrained is not None:
            self._start_from(self.hyperparameters.pretrained, seed)

    def _make_controller(self) -> TaskController:
        self.tasks = self.playing = tasks_of(self.env)
        return self._new_controller()

    def _new_controller(self) -> TaskController:
        return TaskController(
            self.space,
            len(self.tasks),
            generators=self.generators,
            **{name: getattr(self.hyperparameters, name) for name in FORM},
        )

    def _renew_controller(self) -> None:
        self.controller = self._new_controller().to(self.device)
        self.critic = self._make_critic()

    def _new_memory(self) -> TaskMemory:
        return TaskMemory(len(self.generators), self.space.length, self.hyperparameters)

    # ------------------------------------------------------------------ transfer

    def _start_from(self, path: str, seed: int | Sequence[int]) -> None:
        """Takes over a saved agent, but for its random state, and goes on to the task of the environment."""
        if not isinstance(seed, int):
            raise ValueError(f"pretrained needs one seed, got {len(seed)}")
        record = read_record(path)
        if record["agent"] != self.name or make_space(record["space"]) != self.space:
            raise ValueError(
                f"{path!r} holds an agent {record['agent']!r} of {record['space']}, not one of {self.space}"
            )
        form = {name: record["hyperparameters"][name] for name in FORM}
        self.hyperparameters = dataclasses.replace(self.hyperparameters, **form)
        random_states = {"rng": json.dumps(self.rng.bit_generator.state)}
        self.load_state_dict({**record["state"], **random_states})
        self.generators = [torch.Generator().manual_seed(seed)]
        self.transfer(tasks_of(self.env)[0], mode=self.hyperparameters.mode)

    def transfer(
        self,
        new_task: str,
        env: Env | None = None,
        mode: str = "all",
        hyperparameters: Mapping[str, Any] | None = None,
    ) -> None:
        """Goes on to a task that it has not seen, whose embedding it draws at random; its history begins anew.

        Args:
            new_task: name of the task.
            env: where it is played; by default the environment that the agent has.
            mode: what is learned on it: ``"all"`` parameters; its ``"embedding"`` alone, so that the policies of other
                tasks stay what they are; or everything from ``"scratch"``, which forgets all other tasks.
            hyperparameters: those that change. But from scratch, those of the controller's form stay.

        Raises:
            ValueError: the task is known already, the environment does not offer it or has another space, an unknown
                mode, or hyperparameters that are not understood.
        """
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}; got {mode!r}")
        if new_task in self.tasks:
            raise ValueError(f"new_task must be none of {', '.join(self.tasks)}; got {new_task!r}")
        env = self.env if env is None else env
        if new_task not in tasks_of(env):
            raise ValueError(f"new_task must be one that env offers, {', '.join(tasks_of(env))}; got {new_task!r}")
        if attribute(env, "search_space") != self.space:
            raise ValueError(f"env must be of the space {self.space}, got {attribute(env, 'search_space')}")
        self.hyperparameters = changed(self.hyperparameters, hyperparameters or {}, mode)
        self.env, self.playing = env, (new_task,)
        if mode == "scratch":
            self.tasks, self.memories = (), []
        self._recalled = self.recalled(self.hyperparameters.recall)
        self.tasks = (*self.tasks, new_task)
        self.memories.append(self._memory_of_new_task())
        if mode == "scratch":
            self._renew_controller()
        else:
            self.controller.add_task(self.hyperparameters.embedding_spread, self.generators)
        self._freeze(mode)
        self._history, self._pending, self._asked, self.updates = [], [], 0, 0
        self._tasks_pending = self._tasks_pending[:0]

    def _memory_of_new_task(self) -> TaskMemory:
        """An empty one, but for its moments, which are those of the tasks before, or shared with them."""
        settings, memory = self.hyperparameters, self._new_memory()
        if not self.memories:
            return memory
        if not settings.per_task_normalisation:
            memory.moments = self.memories[0].moments
        elif settings.warm_start:
            memory.moments.start_like([known.moments for known in self.memories], settings.warm_start)
        return memory

    def _freeze(self, mode: str) -> None:
        """Has the optimiser, a new one, learn what the mode says."""
        self.mode = mode
        for parameter in self.controller.parameters():
            parameter.requires_grad_(mode != "embedding" or parameter is self.controller.task_embedding)
        self.optimizer = self._make_optimizer()

    # ------------------------------------------------------------------ ask and tell

    def ask_each(self, n: int) -> Tokens:
        """Samples n architectures from the controller of each seed, int64[S, n, T], for the tasks in turn."""
        offered = tasks_of(self.env)
        if missing := [task for task in self.playing if task not in offered]:
            raise ValueError(f"env offers {', '.join(offered)}, not {', '.join(missing)}; `transfer` begins a new task")
        known = np.array([self.tasks.index(task) for task in self.playing])
        self._tasks_asked = known[(self._asked + np.arange(n)) % len(known)]
        self._asked += n
        if attribute(self.env, "tasks") is not None:
            self.reset_options = {"task": np.array(self.tasks)[self._tasks_asked]}
        tokens = np.empty((len(self.generators), n, self.space.length), dtype=np.int64)
        for task in np.unique(self._tasks_asked).tolist():
            self._turn_to(np.array([task]))
            self._tried = self.memories[task].tried
            chosen = self._tasks_asked == task
            tokens[:, chosen] = self._propose(int(chosen.sum()))
        return tokens

    def _propose(self, n: int) -> Tokens:
        """n architectures a seed for the task that the controller is told: what it recalls, then samples."""
        recalled, self._recalled = self._recalled[:, :n], self._recalled[:, n:]
        for tried, rows in zip(self._tried, recalled, strict=True):
            tried.update(row.tobytes() for row in rows)
        left = n - recalled.shape[1]
        return np.concatenate([recalled, super().ask_each(left)], axis=1) if left else recalled

    def recalled(self, count: int) -> Tokens:
        """The architectures that seem best for all tasks known, int64[S, at most count, T], among all tried on them.

        They are sorted by their mean rank over the tasks, in [0, 1]. On a task that it was tried on, an architecture
        has its rank among the rewards there; on another one, that of its likelihood under that task's policy.
        """
        tried = [
            np.unique(np.concatenate(rows), axis=0) for rows in zip(*(m.tokens for m in self.memories), strict=True)
        ]
        count = min(count, *map(len, tried)) if tried else 0
        best = np.empty((len(self.generators), count, self.space.length), dtype=np.int64)
        if not count:
            return best
        most = max(map(len, tried))
        candidates = np.array([np.resize(rows, (most, self.space.length)) for rows in tried])  # short ones repeat
        likelihoods = [self._likelihood(candidates, task) for task in range(len(self.tasks))]
        for seed, rows in enumerate(tried):
            ranks = [
                memory.ranked(seed, rows, likelihood[seed, : len(rows)])
                for memory, likelihood in zip(self.memories, likelihoods, strict=True)
            ]
            best[seed] = rows[np.argsort(-np.mean(ranks, axis=0), kind="stable")[:count]]
        return best

    @torch.no_grad()
    def _likelihood(self, tokens: Tokens, task: int) -> Floats:
        """The log-likelihoods float64[S, n] of int64[S, n, T] under the policy of a task."""
        self._turn_to(np.array([task]))
        log_probs, _, _ = self.controller.evaluate(torch.from_numpy(tokens).to(self.device))
        likelihood: Floats = log_probs.sum(2).double().cpu().numpy()
        return likelihood

    def tell_each(self, tokens: Tokens, rewards: Floats) -> dict[str, Floats]:
        """Tells rewards of the architectures last asked for, or of the first of them; see `PolicyGradientAgent`."""
        tasks = self._tasks_asked[: rewards.shape[1]]
        for task in np.unique(tasks).tolist():
            self.memories[task].take_in(tokens[:, tasks == task], rewards[:, tasks == task])
        self._pending.append((tokens, rewards))
        self._tasks_pending = np.concatenate([self._tasks_pending, tasks])
        if len(self._tasks_pending) < self.hyperparameters.batch_size * len(self.playing):
            return {}
        recent = {
            f"rollout/{task}/ep_rew_mean": self._memory(task).rewards[:, -RECENT:].mean(axis=1) for task in self.playing
        }
        return {**self._update_on_pending(), **(recent if len(recent) > 1 else {})}

    def _memory(self, task: str) -> TaskMemory:
        return self.memories[self.tasks.index(task)]

    def _turn_to(self, tasks: NDArray[np.int64]) -> None:
        """Tells the controller the tasks int64[n] of what it builds or scores next."""
        told = tasks if self.hyperparameters.task_embedding else np.zeros_like(tasks)
        self.controller.tasks = torch.from_numpy(told)

    # ------------------------------------------------------------------ learning

    def _update(self, tokens: Tokens, rewards: Floats) -> dict[str, Floats]:
        settings, n = self.hyperparameters, tokens.shape[1]
        tasks, self._tasks_pending = self._tasks_pending, self._tasks_pending[:0]
        advantages = self._advantages(rewards, tasks)
        best, shares, best_tasks = self._best(tokens[:, :1])
        episodes = torch.from_numpy(np.concatenate([tokens, best], axis=1)).to(self.device)
        self._turn_to(np.concatenate([tasks, best_tasks]))
        weights, old = torch.from_numpy(advantages).to(self.critic)[..., None], None
        for _ in range(settings.epochs if settings.algorithm == "ppo" else 1):
            log_probs, entropies, _ = self.controller.evaluate(episodes)
            old = log_probs[:, :n].detach() if old is None else old
            policy_loss = -self._surrogate(log_probs[:, :n], old, weights).sum(2).mean(1)
            likelihood = (log_probs[:, n:].sum(2) * torch.from_numpy(shares).to(log_probs)).sum(1)
            entropy = entropies[:, :n].mean((1, 2))
            loss = policy_loss - settings.entropy_weight * entropy - settings.replay_weight * likelihood
            grad_norm = self._step(loss)
            self.updates += 1
        told = {"policy_loss": policy_loss, "entropy_loss": -entropy, "grad_norm": grad_norm}
        statistics = {f"train/{name}": value.detach().double().cpu().numpy() for name, value in told.items()}
        return {**statistics, "train/n_updates": np.full(len(rewards), float(self.updates))}

    def _surrogate(self, log_probs: Tensor, old: Tensor, advantages: Tensor) -> Tensor:
        """What is to rise, float[S, n, T]."""
        settings = self.hyperparameters
        if settings.algorithm == "reinforce":
            return advantages * log_probs
        return clipped((log_probs - old).exp(), advantages, settings.clip_range)

    def _advantages(self, rewards: Floats, tasks: NDArray[np.int64]) -> Floats:
        """The rewards float64[S, n], transformed, and normalised by the moments of their tasks."""
        learned = np.empty_like(rewards)
        each = [(self.memories[task], tasks == task) for task in np.unique(tasks).tolist()]
        for memory, chosen in each:
            self.ranks = memory.ranks
            learned[:, chosen] = self._transformed(rewards[:, chosen])
        if not self.hyperparameters.per_task_normalisation:
            each = [(self.memories[0], np.ones_like(tasks, dtype=bool))]
        for memory, chosen in each:
            memory.moments.update(learned[:, chosen])
            learned[:, chosen] = memory.moments.normalised(learned[:, chosen])
        return learned

    def _best(self, stand_in: Tokens) -> tuple[Tokens, Floats, NDArray[np.int64]]:
        """The best of the tasks that are played: int64[S, m, T], each one's weight [S, m], and their tasks [m]."""
        playing = np.array([self.tasks.index(task) for task in self.playing])
        queues = [self.memories[task].queue for task in playing]
        filled = np.concatenate([queue.rewards > -np.inf for queue in queues], axis=1)
        tokens = np.concatenate([queue.tokens for queue in queues], axis=1)
        shares: Floats = filled / np.maximum(filled.sum(axis=1, keepdims=True), 1)
        # Places that are not filled yet hold no legal sequence.
        tasks = playing.repeat(self.hyperparameters.replay_size)
        return np.where(filled[..., None], tokens, stand_in), shares, tasks

    # ------------------------------------------------------------------ play

    def act(self, observation: Any, action_mask: NDArray[Any] | None = None, deterministic: bool = False) -> Any:
        """As `Agent.act`; the observation tells the task in any of the three forms of `NAS-MultiTask-v0`.

        Where it does not, in an environment of one task, the task is the first that the agent plays.

        Raises:
            ValueError: as there; or the task is one that the agent does not know.
        """
        decided, tasks = self._told_apart(observation)
        if tasks.ndim == 0:
            self._turn_to(tasks[None])
            return super().act(decided, action_mask, deterministic)
        actions = np.zeros(len(tasks), dtype=np.int64)
        for task in np.unique(tasks).tolist():
            self._turn_to(np.array([task]))
            chosen = tasks == task
            masks = None if action_mask is None else np.asarray(action_mask)[chosen]
            actions[chosen] = super().act(decided[chosen], masks, deterministic)
        return actions

    def _told_apart(self, observation: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """What is decided [..., n], and the agent's numbers of the tasks int64[...]."""
        offered = attribute(self.env, "tasks")
        if isinstance(observation, Mapping):
            decided, told = np.asarray(observation["observation"]), np.asarray(observation["task"])
        elif offered is None:
            decided = np.asarray(observation)
            return decided, np.full(decided.shape[:-1], self.tasks.index(self.playing[0]))
        else:
            array = np.asarray(observation)
            onehot = np.issubdtype(array.dtype, np.floating)
            decided, last = np.split(array, [-len(offered) if onehot else -1], axis=-1)
            told = last.argmax(axis=-1) if onehot else last[..., 0]
        numbers = np.array([self.tasks.index(task) if task in self.tasks else -1 for task in offered])[told]
        if (numbers < 0).any():
            raise ValueError(f"the agent knows {', '.join(self.tasks)}; the observation is of another task")
        return decided, np.asarray(numbers)

    # ------------------------------------------------------------------ keeping

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "tasks": list(self.tasks),
            "playing": list(self.playing),
            "mode": self.mode,
            "memories": [memory.state_dict() for memory in self.memories],
            "asked": self._asked,
            "recalled": torch.from_numpy(self._recalled),
            "tasks_asked": torch.from_numpy(self._tasks_asked),
            "tasks_pending": torch.from_numpy(self._tasks_pending),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.tasks, self.playing = tuple(state["tasks"]), tuple(state["playing"])
        self._renew_controller()
        self._freeze(state["mode"])
        super().load_state_dict(state)
        self.memories = [self._new_memory() for _ in self.tasks]
        for memory, kept in zip(self.memories, state["memories"], strict=True):
            memory.load_state_dict(kept)
            if not self.hyperparameters.per_task_normalisation:
                memory.moments = self.memories[0].moments
        self._asked, self._recalled = int(state["asked"]), state["recalled"].numpy()
        self._tasks_asked, self._tasks_pending = state["tasks_asked"].numpy(), state["tasks_pending"].numpy()


def tasks_of(env: Env) -> tuple[str, ...]:
    """The tasks of an environment: of `NAS-MultiTask-v0` its own, of any other one the name of its task."""
    tasks = attribute(env, "tasks")
    if tasks is not None:
        return tuple(tasks)
    task = getattr(attribute(env, "evaluator").unwrapped, "task", "task")
    return (task if isinstance(task, str) else task.name,)


def relative_ranks(values: Floats) -> Floats:
    """The share of the values float64[n] that are lower, equal ones counted half."""
    ranks: Floats = Ranks().update(values[None])[0]
    return ranks


def changed(settings: MultiTaskHyperparameters, changes: Mapping[str, Any], mode: str) -> MultiTaskHyperparameters:
    """The settings with some that differ.

    Raises:
        ValueError: an unknown one, one out of range, or one that a trained controller's form follows from.
    """
    known = {field.name for field in dataclasses.fields(settings)}
    if unknown := sorted(set(changes) - known):
        raise ValueError(f"agent 'multitask' has no hyperparameter {unknown}; known: {', '.join(sorted(known))}")
    replaced = dataclasses.replace(settings, **changes)
    fixed = [name for name in FORM if getattr(replaced, name) != getattr(settings, name)]
    if fixed and mode != "scratch":
        raise ValueError(
            f"a trained controller's {', '.join(fixed)} cannot change; only the mode 'scratch' makes a new one"
        )
    return replaced
