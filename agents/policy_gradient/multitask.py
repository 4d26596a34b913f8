"""One controller for many tasks, and its transfer to a new one: the agent of Wong et al. 2018."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas_gym.agents.agent import read_record
from nas_gym.agents.controllers.task_controller import TaskController
from nas_gym.agents.policy_gradient.agent import PolicyGradientAgent, means
from nas_gym.agents.policy_gradient.multitask_settings import (
    CONTROLLER_FIELDS,
    MODES,
    MultiTaskHyperparameters,
    changed,
)
from nas_gym.agents.policy_gradient.ppo import clipped
from nas_gym.agents.policy_gradient.task_memory import TaskMemory
from nas_gym.agents.result import History
from nas_gym.agents.trial import Proposal, Trials
from nas_gym.envs.problem import Env, Problem
from nas_gym.spaces import Tokens, make_space
from nas_gym.types import Floats

RECENT = 100  # trials that `rollout/<task>/ep_rew_mean` averages, as in Stable-Baselines3


class MultiTask(PolicyGradientAgent):
    """An LSTM controller that learns many tasks at once, each with a learned embedding, and goes on to new ones.

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
        self._task_of: dict[int, int] = {}  # of proposals by their ids, until their trials come
        self._tasks_pending = np.empty(0, dtype=np.int64)  # of the episodes that no update has used
        self._warm_start = np.empty((self.seeds, 0, self.space.length), dtype=np.int64)  # still to be proposed

    def _make_controller(self) -> TaskController:
        self.tasks = self.playing = self.problem.task_names
        return self._new_controller()

    def _new_controller(self) -> TaskController:
        return TaskController(
            self.space,
            len(self.tasks),
            generators=self.generators,
            **{name: getattr(self.hyperparameters, name) for name in CONTROLLER_FIELDS},
        )

    def _renew_controller(self) -> None:
        self.controller = self._new_controller().to(self.device)
        self.critic = self._make_critic()

    def _new_memory(self) -> TaskMemory:
        return TaskMemory(
            self.seeds,
            self.space.length,
            moment_decay=self.hyperparameters.moment_decay,
            replay_size=self.hyperparameters.replay_size,
        )

    # ------------------------------------------------------------------ transfer

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        env: Env | str,
        seed: int = 0,
        hyperparameters: Mapping[str, Any] | MultiTaskHyperparameters | None = None,
        device: str = "cpu",
        mode: str = "all",
    ) -> Self:
        """Takes over a saved agent, but for its random state, and goes on to the task of the environment.

        The arguments are those of `Agent.from_pretrained`. The fields of the controller are the file's, whatever the
        hyperparameters say.

        Raises:
            ValueError: the file is corrupted or holds another agent, or one of another space; or as `transfer`.
        """
        agent, record = cls(env, seed, hyperparameters, device), read_record(path)
        if record["agent"] != agent.name or make_space(record["space"]) != agent.space:
            raise ValueError(
                f"{os.fspath(path)!r} holds an agent {record['agent']!r} of {record['space']}, not one of {agent.space}"
            )
        fixed = {name: record["hyperparameters"][name] for name in CONTROLLER_FIELDS}
        agent.hyperparameters = dataclasses.replace(agent.hyperparameters, **fixed)
        agent.load_state_dict({**record["state"], "rng": json.dumps(agent.rng.bit_generator.state)})
        agent.generators = [torch.Generator().manual_seed(seed)]
        agent.transfer(agent.problem.task_names[0], mode=mode)
        return agent

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
        problem = self.problem if env is None else Problem(env)
        if new_task not in problem.task_names:
            raise ValueError(f"new_task must be one that env offers, {', '.join(problem.task_names)}; got {new_task!r}")
        if problem.space != self.space:
            raise ValueError(f"env must be of the space {self.space}, got {problem.space}")
        self.hyperparameters = changed(self.hyperparameters, hyperparameters or {}, mode)
        self.problem, self.playing = problem, (new_task,)
        if mode == "scratch":
            self.tasks, self.memories = (), []
        self._warm_start = self.warm_start(self.hyperparameters.warm_start_size)
        self.tasks = (*self.tasks, new_task)
        self.memories.append(self._memory_of_new_task())
        if mode == "scratch":
            self._renew_controller()
        else:
            self.controller.add_task(self.hyperparameters.embedding_spread, self.generators)
        self._freeze(mode)
        self._history, self._pending, self._asked, self.updates = History(self.space), [], 0, 0
        self._task_of, self._tasks_pending = {}, self._tasks_pending[:0]

    def _memory_of_new_task(self) -> TaskMemory:
        """An empty one, but for its moments, which are those of the tasks before, or shared with them."""
        settings, memory = self.hyperparameters, self._new_memory()
        if not self.memories:
            return memory
        if not settings.per_task_normalisation:
            memory.moments = self.memories[0].moments
        elif settings.moment_prior:
            memory.moments.start_like([known.moments for known in self.memories], settings.moment_prior)
        return memory

    def _freeze(self, mode: str) -> None:
        """Has the optimiser, a new one, learn what the mode says."""
        self.mode = mode
        for parameter in self.controller.parameters():
            parameter.requires_grad_(mode != "embedding" or parameter is self.controller.task_embedding)
        self.optimizer = self._make_optimizer()

    # ------------------------------------------------------------------ ask and tell

    def ask(self, n: int) -> Proposal:
        """Samples n architectures from the controller of each seed, for the tasks in turn."""
        offered = self.problem.task_names
        if missing := [task for task in self.playing if task not in offered]:
            raise ValueError(f"env offers {', '.join(offered)}, not {', '.join(missing)}; `transfer` begins a new task")
        known = np.array([self.tasks.index(task) for task in self.playing])
        tasks = known[(self._asked + np.arange(n)) % len(known)]
        self._asked += n
        tokens = np.empty((self.seeds, n, self.space.length), dtype=np.int64)
        for task in np.unique(tasks).tolist():
            self._turn_to(np.array([task]))
            self._tried = self.memories[task].tried
            tokens[:, tasks == task] = self._next_architectures(int((tasks == task).sum()))
        each = np.tile(tasks, self.seeds)
        named = np.array(self.tasks)[each] if self.problem.tasks else None
        proposal = self.propose(tokens.reshape(-1, self.space.length), tasks=named)
        self._task_of.update(zip(proposal.ids.tolist(), each.tolist(), strict=True))
        return proposal

    def withdraw(self) -> None:
        """Forgets the tasks of proposals without a trial so far."""
        self._task_of.clear()

    def _next_architectures(self, n: int) -> Tokens:
        """n architectures per seed for the controller's current task: what is left of the warm start, then samples."""
        first, self._warm_start = self._warm_start[:, :n], self._warm_start[:, n:]
        for tried, rows in zip(self._tried, first, strict=True):
            tried.update(row.tobytes() for row in rows)
        left = n - first.shape[1]
        return np.concatenate([first, self._sample(left)], axis=1) if left else first

    def warm_start(self, count: int) -> Tokens:
        """The architectures that seem best for all tasks known, int64[S, at most count, T], among all tried on them.

        They are sorted by their mean rank over the tasks, in [0, 1]. On a task that it was tried on, an architecture
        has its rank among the rewards there; on another one, that of its likelihood under that task's policy.
        """
        tried = [
            np.unique(np.concatenate(rows), axis=0) for rows in zip(*(m.tokens for m in self.memories), strict=True)
        ]
        count = min(count, *map(len, tried)) if tried else 0
        best = np.empty((self.seeds, count, self.space.length), dtype=np.int64)
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

    def tell(self, trials: Trials) -> dict[str, float]:
        """As `PolicyGradientAgent.tell`, of its own proposals; an update is due after `batch_size` episodes a task."""
        trials = trials.rows(np.array([number in self._task_of for number in trials.ids.tolist()], dtype=bool))
        tasks = np.array([self._task_of.pop(number) for number in trials.ids.tolist()], dtype=np.int64)
        self._keep(trials)
        tokens, rewards = self._pending[-1]
        tasks = tasks[: rewards.shape[1]]  # those of every seed
        for task in np.unique(tasks).tolist():
            self.memories[task].take_in(tokens[:, tasks == task], rewards[:, tasks == task])
        self._tasks_pending = np.concatenate([self._tasks_pending, tasks])
        if len(self._tasks_pending) < self.hyperparameters.batch_size * len(self.playing):
            return {}
        played = {task: self.memories[self.tasks.index(task)] for task in self.playing}
        recent = {f"rollout/{task}/ep_rew_mean": own.rewards[:, -RECENT:].mean(axis=1) for task, own in played.items()}
        return means({**self._update_on_pending(), **(recent if len(recent) > 1 else {})})

    def _turn_to(self, tasks: NDArray[np.int64]) -> None:
        """Tells the controller the tasks int64[n] of what it builds or scores next."""
        rows = tasks if self.hyperparameters.task_embedding else np.zeros_like(tasks)
        self.controller.tasks = torch.from_numpy(rows)

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
        scalars = {"policy_loss": policy_loss, "entropy_loss": -entropy, "grad_norm": grad_norm}
        statistics = {f"train/{name}": value.detach().double().cpu().numpy() for name, value in scalars.items()}
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
        """As `Agent.act`; the observation holds the task in any of the three forms of `NAS-MultiTask-v0`.

        Where it does not, in an environment of one task, the task is the first that the agent plays.

        Raises:
            ValueError: as there; or the task is one that the agent does not know.
        """
        decided, tasks = self._decided_and_task(observation)
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

    def _decided_and_task(self, observation: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """What is decided [..., n], and the agent's numbers of the tasks int64[...]."""
        offered = self.problem.tasks
        if isinstance(observation, Mapping):
            decided, number = np.asarray(observation["observation"]), np.asarray(observation["task"])
        elif not offered:
            decided = np.asarray(observation)
            return decided, np.full(decided.shape[:-1], self.tasks.index(self.playing[0]))
        else:
            array = np.asarray(observation)
            onehot = np.issubdtype(array.dtype, np.floating)
            decided, last = np.split(array, [-len(offered) if onehot else -1], axis=-1)
            number = last.argmax(axis=-1) if onehot else last[..., 0]
        numbers = np.array([self.tasks.index(task) if task in self.tasks else -1 for task in offered])[number]
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
            "warm_start": torch.from_numpy(self._warm_start),
            "task_of": dict(self._task_of),
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
        self._asked, self._warm_start = int(state["asked"]), state["warm_start"].numpy()
        self._task_of, self._tasks_pending = dict(state["task_of"]), state["tasks_pending"].numpy()
