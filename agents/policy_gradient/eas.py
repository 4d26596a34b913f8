"""EAS: a controller that reads a network layer by layer and decides where it is to grow (Cai et al. 2018)."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nas_gym.agents.agent import Agent
from nas_gym.agents.controllers.meta_controller import MetaController
from nas_gym.agents.policy_gradient.memory import MovingAverage
from nas_gym.agents.trial import Proposal, Trials
from nas_gym.envs.problem import Env
from nas_gym.spaces import Tokens
from nas_gym.spaces.layer_space import Deepen, Widen
from nas_gym.spaces.layers import Layers
from nas_gym.spaces.transformation import TransformationSpace
from nas_gym.types import Bools


@dataclass(frozen=True)
class EASHyperparameters:
    """Defaults are those of Cai et al. 2018, section "Experiments", and of its published code.

    Attributes:
        embedding_size: of a layer, and of a decision of the deeper actor (16).
        hidden_size: units of the encoder, in each direction (50).
        wider_rounds: how often the wider actor decides on all layers of a network (code: 4).
        deeper_rounds: how often the deeper actor then inserts a layer (code: 5).
        learning_rate: of Adam (2e-3).
        entropy_weight: of the mean entropy of a decision, in the objective (code: 1e-5).
        baseline_decay: of the moving average of rewards, an episode at a time (0.95).
        batch_size: networks behind an update (10).
    """

    embedding_size: int = 16
    hidden_size: int = 50
    wider_rounds: int = 4
    deeper_rounds: int = 5
    learning_rate: float = 2e-3
    entropy_weight: float = 1e-5
    baseline_decay: float = 0.95
    batch_size: int = 10

    def __post_init__(self) -> None:
        for name, least in (
            ("embedding_size", 1),
            ("hidden_size", 1),
            ("wider_rounds", 0),
            ("deeper_rounds", 0),
            ("batch_size", 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        for name, below in (("learning_rate", math.inf), ("entropy_weight", math.inf), ("baseline_decay", 1.0)):
            value = getattr(self, name)
            if isinstance(value, bool | str) or not 0 <= value < below:
                raise ValueError(f"{name} must be in [0, {below}), got {value!r}")


@dataclass
class WiderRound:
    """The decisions of the wider actor on one network.

    Attributes:
        layers: int64[L], the network's tokens.
        decisions: bool[L], which layers were to become wider.
        counted: bool[L], for which the decision could have an effect.
    """

    layers: Tokens
    decisions: Bools
    counted: Bools


@dataclass
class DeeperRound:
    """The decisions of the deeper actor on one network.

    Attributes:
        layers: int64[L], the network's tokens.
        decisions: int64[3], block, position and kernel.
        legal: bool[blocks, positions, kernels], what there was to choose from.
    """

    layers: Tokens
    decisions: NDArray[np.int64]
    legal: Bools


class Growth:
    """A network in growth, and how it came to be.

    Args:
        space: of the network.
        actions: that make the network that it grows out of.
    """

    def __init__(self, space: TransformationSpace, actions: Sequence[int]) -> None:
        self.space, self.actions = space, list(actions)
        self.network: Layers = space.network(self.actions)
        self.rounds: list[WiderRound | DeeperRound] = []

    @property
    def tokens(self) -> Tokens:
        """The actions, int64[T], and then stops."""
        return np.array(self.actions + [self.space.stop] * (self.space.length - len(self.actions)), dtype=np.int64)

    @property
    def legal(self) -> Bools:
        """bool[A], which actions there are left to take."""
        full = len(self.actions) == self.space.length
        return np.zeros(self.space.num_choices, dtype=bool) if full else self.space.legal_actions(self.network)

    def take(self, action: int) -> bool:
        """Takes an action; whether it was legal."""
        if not self.legal[action]:
            return False
        self.actions.append(action)
        self.network = self.space.layer_space.apply(self.network, self.space.actions[action])
        return True


class EAS(Agent):
    """Grows networks by a wider and a deeper actor that read them layer by layer, trained by the policy gradient.

    A network comes to be in rounds. In a wider round it is decided for each layer at once whether it is to become
    wider; the layers chosen are widened one by one, first to last. In a deeper round one layer is inserted. Then it
    stops. A decision that can have no effect, because the layer or the network is at its limit, does not count.

    With R the environment's reward and b the moving average of rewards, those of the batch taken in first, the loss is
    the mean over episodes of - (R - b) * log pi(all decisions), less the share of the entropy.

    `tell` learns from what `ask` has proposed since the last update; other networks are passed over, because the
    decisions behind them are not known.

    Source: Cai et al. 2018, "Efficient Architecture Search by Network Transformation", and the authors' code.
    """

    Hyperparameters = EASHyperparameters
    hyperparameters: EASHyperparameters
    space: TransformationSpace

    def __init__(
        self,
        env: Env | str,
        seed: int = 0,
        hyperparameters: Mapping[str, Any] | EASHyperparameters | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(env, seed, hyperparameters, device)
        if not isinstance(self.space, TransformationSpace):
            name = self.space.name
            raise ValueError(f"eas grows networks, as in NAS-Transform-v0; the environment has the space {name!r}")
        self.generator = torch.Generator().manual_seed(seed)
        sizes = self.hyperparameters.embedding_size, self.hyperparameters.hidden_size
        self.controller = MetaController(self.space, *sizes, self.generator).to(device)
        self.optimizer = torch.optim.Adam(self.controller.parameters(), lr=self.hyperparameters.learning_rate)
        self.average = MovingAverage(self.hyperparameters.baseline_decay)
        self._asked: dict[int, Growth] = {}  # by the ids of their proposals
        self._reported: list[tuple[Growth, float]] = []
        self._widen, self._deepen = _action_tables(self.space)

    # ------------------------------------------------------------------ ask

    @property
    def prefix(self) -> tuple[int, ...]:
        """The actions that make the network that the next ones grow out of."""
        space = self.current_space
        assert isinstance(space, TransformationSpace)
        return space.prefix

    def ask(self, n: int) -> Proposal:
        """Grows n networks, in step."""
        prefix = self.prefix
        episodes = [Growth(self.space, prefix) for _ in range(n)]
        with torch.no_grad():
            for _ in range(self.hyperparameters.wider_rounds):
                self._grow_wider(episodes)
            for _ in range(self.hyperparameters.deeper_rounds):
                self._grow_deeper(
                    [episode for episode in episodes if episode.legal[self._deepen[self._deepen >= 0]].any()]
                )
        tokens = np.array([episode.tokens for episode in episodes], dtype=np.int64)
        proposal = self.propose(tokens.reshape(n, self.space.length))
        self._asked.update(zip(proposal.ids.tolist(), episodes, strict=True))
        return proposal

    def _grow_wider(self, episodes: Sequence[Growth]) -> None:
        if not episodes:
            return
        layers = self._encoded([episode.network for episode in episodes])
        probabilities = self.controller.widen(*self._read(layers)).sigmoid().cpu()
        drawn = torch.rand(probabilities.shape, generator=self.generator) < probabilities
        for episode, tokens, decisions in zip(episodes, layers, drawn.numpy(), strict=True):
            counted = episode.legal[self._widen]
            for layer in np.flatnonzero(decisions & counted):
                counted[layer] = episode.take(int(self._widen[layer]))  # the network may have come to its limit
            episode.rounds.append(WiderRound(tokens, decisions, counted))

    def _grow_deeper(self, episodes: Sequence[Growth]) -> None:
        if not episodes:
            return
        layers = self._encoded([episode.network for episode in episodes])
        legal = np.stack([episode.legal[self._deepen] & (self._deepen >= 0) for episode in episodes])
        noise = torch.rand(len(episodes), 3, max(self._deepen.shape), generator=self.generator)
        decided, _, _ = self.controller.deepen(*self._read(layers), self._tensor(legal), noise=noise.to(self.device))
        for episode, tokens, decisions, options in zip(episodes, layers, decided.cpu().numpy(), legal, strict=True):
            episode.take(int(self._deepen[tuple(decisions)]))
            episode.rounds.append(DeeperRound(tokens, decisions, options))

    def _encoded(self, networks: Sequence[Layers]) -> Tokens:
        return np.stack([self.space.layer_space.encode(network)[0] for network in networks])

    def _read(self, layers: Tokens) -> tuple[Tensor, Tensor]:
        """Networks as the encoder takes them: tokens, and numbers of layers."""
        return self._tensor(layers), torch.from_numpy((layers >= 0).sum(axis=1))

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    # ------------------------------------------------------------------ tell

    def withdraw(self) -> None:
        """Forgets the networks without a reward so far."""
        self._asked.clear()

    def tell(self, trials: Trials) -> dict[str, float]:
        """Keeps the episodes until there are `batch_size` of them, then makes one update on all that it keeps."""
        for number, reward in zip(trials.ids.tolist(), trials.rewards.tolist(), strict=True):
            if number in self._asked:
                self._reported.append((self._asked.pop(number), reward))
        if len(self._reported) < self.hyperparameters.batch_size:
            return {}
        reported, self._reported = self._reported, []
        self._asked.clear()  # they come of a policy that is no more
        return self._update(reported)

    def _update(self, reported: Sequence[tuple[Growth, float]]) -> dict[str, float]:
        rewards = np.array([reward for _, reward in reported])
        baseline = float(self.average.update(rewards[None])[0])
        log_probs, entropy = self._evaluate([episode for episode, _ in reported])
        policy_loss = -(self._tensor(rewards - baseline).float() * log_probs).mean()
        loss = policy_loss - self.hyperparameters.entropy_weight * entropy
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.updates += 1
        return {
            "train/policy_loss": float(policy_loss.detach()),
            "train/entropy_loss": -float(entropy.detach()),
            "train/baseline": baseline,
            "train/advantage_std": float(rewards.std()),
            "train/n_updates": float(self.updates),
        }

    def _evaluate(self, episodes: Sequence[Growth]) -> tuple[Tensor, Tensor]:
        """The log-probability of each episode's decisions, [n], and the mean entropy of a decision."""
        total = torch.zeros(len(episodes), device=self.device)
        entropies = []
        for kind, evaluate in ((WiderRound, self._evaluate_wider), (DeeperRound, self._evaluate_deeper)):
            found = [
                (row, each) for row, episode in enumerate(episodes) for each in episode.rounds if type(each) is kind
            ]
            if found:
                log_probs, entropy = evaluate([each for _, each in found])
                total = total.index_add(0, torch.tensor([row for row, _ in found], device=self.device), log_probs)
                entropies.append(entropy)
        every = torch.cat(entropies) if entropies else total.new_zeros(1)
        return total, every.mean() if len(every) else every.sum()

    def _evaluate_wider(self, rounds: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """The log-probability of each round, and the entropy of each decision that counted."""
        layers, decisions, counted = (
            np.stack([getattr(each, name) for each in rounds]) for name in ("layers", "decisions", "counted")
        )
        logits = self.controller.widen(*self._read(layers))
        counting = self._tensor(counted)
        log_probs = -F.binary_cross_entropy_with_logits(logits, self._tensor(decisions).float(), reduction="none")
        entropies = F.binary_cross_entropy_with_logits(logits, logits.sigmoid(), reduction="none")
        return torch.where(counting, log_probs, 0.0).sum(dim=1), entropies[counting]

    def _evaluate_deeper(self, rounds: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """As `_evaluate_wider`."""
        layers, decisions, legal = (
            np.stack([getattr(each, name) for each in rounds]) for name in ("layers", "decisions", "legal")
        )
        _, log_probs, entropies = self.controller.deepen(
            *self._read(layers), self._tensor(legal), chosen=self._tensor(decisions)
        )
        return log_probs.sum(dim=1), entropies.flatten()

    # ------------------------------------------------------------------ keeping

    def state_dict(self) -> dict[str, Any]:
        """Parameters, optimiser, baseline, pending episodes, random states and the history."""
        return {
            **super().state_dict(),
            # Copies: both would go on changing with the agent.
            "controller": copy.deepcopy(self.controller.state_dict()),
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "generator": self.generator.get_state(),
            "average": [torch.from_numpy(self.average.total.copy()), self.average.weight],
            "updates": self.updates,
            "asked": {number: _episode_state(episode) for number, episode in self._asked.items()},
            "reported": [[_episode_state(episode), reward] for episode, reward in self._reported],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to where `state_dict` was taken."""
        super().load_state_dict(state)
        self.controller.load_state_dict(state["controller"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.generator.set_state(state["generator"])
        total, self.average.weight = state["average"]
        self.average.total = total.numpy().copy()
        self.updates = int(state["updates"])
        self._asked = {number: self._episode(kept) for number, kept in state["asked"].items()}
        self._reported = [(self._episode(kept), float(reward)) for kept, reward in state["reported"]]

    def _episode(self, state: Mapping[str, Any]) -> Growth:
        episode = Growth(self.space, state["actions"])
        for kept in state["rounds"]:
            kind = WiderRound if "counted" in kept else DeeperRound
            episode.rounds.append(kind(**{name: tensor.numpy() for name, tensor in kept.items()}))
        return episode


def _episode_state(episode: Growth) -> dict[str, Any]:
    rounds = [
        {field.name: torch.from_numpy(getattr(each, field.name)) for field in dataclasses.fields(each)}
        for each in episode.rounds
    ]
    return {"actions": list(episode.actions), "rounds": rounds}


def _action_tables(space: TransformationSpace) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which action each decision stands for: int64[L] of the wider actor, int64[blocks, positions, kernels] of the
    deeper one, -1 where there is none.
    """
    layers = space.layer_space
    widen = np.full(layers.length, -1)
    deepen = np.full((len(layers.start.blocks), layers.depth - 1, len(layers.kernels)), -1)
    for index, action in enumerate(space.actions):
        match action:
            case Widen(layer):
                widen[layer] = index
            case Deepen(block, position, None):
                deepen[block, position, 0] = index
            case Deepen(block, position, kernel):
                deepen[block, position, layers.kernels.index(kernel)] = index
    return widen, deepen
