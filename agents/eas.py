"""EAS: a controller that reads a network layer by layer and decides where it is to grow (Cai et al. 2018)."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from nas_gym.spaces import Tokens
from nas_gym.spaces.layers import Deepen, Layers, Widen
from nas_gym.spaces.transformation import TransformationSpace

from .agent import Agent, Env, Floats
from .reinforce import MovingAverage

Bools = NDArray[np.bool_]
TINY = torch.finfo(torch.float32).tiny


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


# ---------------------------------------------------------------------- the controller


class MetaController(nn.Module):
    """An encoder of networks, and the two actors that read what it makes of them.

    The encoder is a bidirectional LSTM over the layers. The wider actor is one sigmoid classifier, the same for each
    layer. The deeper actor is an LSTM that starts from the encoder's last state and makes three decisions, each the
    next one's input: the block, the position in it, the kernel.

    Args:
        space: of the networks.
        settings: sizes.
        generator: of the initial parameters, on the CPU; the global random state is left alone.
    """

    def __init__(self, space: TransformationSpace, settings: EASHyperparameters, generator: torch.Generator) -> None:
        super().__init__()
        size, hidden = settings.embedding_size, settings.hidden_size
        layers = space.layer_space
        choices = (len(layers.start.blocks), max(layers.depth - 1, 1), len(layers.kernels))
        with torch.device("meta"):  # nothing is drawn for values that are replaced below
            self.layer_embedding = nn.Parameter(torch.empty(len(layers.vocabulary), size))
            self.encoder = nn.LSTM(size, hidden, batch_first=True, bidirectional=True)
            self.wider = nn.Linear(2 * hidden, 1)
            self.decoder = nn.LSTMCell(size, 2 * hidden)
            # The first input stands for that nothing is decided yet.
            counts = (1, *choices[:-1])
            self.decision_embeddings = nn.ParameterList(nn.Parameter(torch.empty(count, size)) for count in counts)
            self.heads = nn.ModuleList(nn.Linear(2 * hidden, count) for count in choices)
        self.to_empty(device="cpu")
        for name, parameter in self.named_parameters():
            if "embedding" in name:  # of variance 1, as in the published code
                nn.init.uniform_(parameter, -math.sqrt(3), math.sqrt(3), generator=generator)
            elif parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter, generator=generator)
            else:
                nn.init.zeros_(parameter)

    def encode(self, layers: Tensor, lengths: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Reads networks.

        Args:
            layers: int64[n, L], tokens; what is behind the last layer is not read.
            lengths: int64[n], on the CPU.

        Returns:
            Hidden states [n, L, 2H], and the last ones and cells of both directions, [n, 2H] each.
        """
        embedded = F.embedding(layers.clamp_min(0), self.layer_embedding)
        packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        hidden, last = self.encoder(packed)
        padded, _ = pad_packed_sequence(hidden, batch_first=True, total_length=layers.shape[1])
        final, cell = (state.transpose(0, 1).flatten(1) for state in last)
        return padded, (final, cell)

    def widen(self, layers: Tensor, lengths: Tensor) -> Tensor:
        """Logits [n, L] of making each layer wider."""
        hidden, _ = self.encode(layers, lengths)
        logits: Tensor = self.wider(hidden)[..., 0]
        return logits

    def deepen(
        self,
        layers: Tensor,
        lengths: Tensor,
        legal: Tensor,
        *,
        chosen: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Takes the three decisions, or tells how likely given ones are.

        Args:
            layers: int64[n, L].
            lengths: int64[n], on the CPU.
            legal: bool[n, blocks, positions, kernels], somewhere True in each row.
            chosen: int64[n, 3], decisions that were taken; None draws them.
            noise: float[n, 3, largest number of choices], uniform in [0, 1), to draw with.

        Returns:
            Decisions int64[n, 3], their log-probabilities and the entropies of their distributions, [n, 3] each.
        """
        _, state = self.encode(layers, lengths)
        rows = torch.arange(len(layers), device=layers.device)
        previous = torch.zeros_like(rows)
        found, log_probs, entropies = [], [], []
        for step, (embedding, head) in enumerate(zip(self.decision_embeddings, self.heads, strict=True)):
            state = self.decoder(F.embedding(previous, embedding), state)
            mask = legal.flatten(2).any(dim=2) if legal.ndim > 2 else legal
            distribution = F.log_softmax(head(state[0]).masked_fill(~mask, -torch.inf), dim=1)
            if chosen is not None:
                previous = chosen[:, step]
            else:
                assert noise is not None
                gumbel = -torch.log(-torch.log(noise[:, step, : mask.shape[1]].clamp_min(TINY)))
                previous = (distribution + gumbel).argmax(dim=1)
            found.append(previous)
            log_probs.append(distribution[rows, previous])
            # Minus infinity times zero has no gradient.
            entropies.append(-(distribution.exp() * distribution.masked_fill(~mask, 0.0)).sum(dim=1))
            legal = legal[rows, previous]
        return torch.stack(found, dim=1), torch.stack(log_probs, dim=1), torch.stack(entropies, dim=1)


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


class Episode:
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


# ---------------------------------------------------------------------- the agent


class EAS(Agent):
    """Grows networks by a wider and a deeper actor that read them layer by layer, trained by the policy gradient.

    A network comes to be in rounds. In a wider round it is decided for each layer at once whether it is to become
    wider; the layers chosen are widened one by one, first to last. In a deeper round one layer is inserted. Then it
    stops. A decision that can have no effect, because the layer or the network is at its limit, does not count.

    With R the environment's reward and b the moving average of rewards, those of the batch taken in first, the loss is
    the mean over episodes of - (R - b) * log pi(all decisions), less the share of the entropy.

    `tell` learns from what `ask` has given since the last update; other networks are passed over, because it is not
    known by which decisions they came to be.

    Source: Cai et al. 2018, "Efficient Architecture Search by Network Transformation", and the authors' code.
    """

    name = "eas"
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
        self.controller = MetaController(self.space, self.hyperparameters, self.generator).to(device)
        self.optimizer = torch.optim.Adam(self.controller.parameters(), lr=self.hyperparameters.learning_rate)
        self.average = MovingAverage(self.hyperparameters.baseline_decay)
        self.updates = 0
        self._asked: list[Episode] = []
        self._told: list[tuple[Episode, float]] = []
        self._widen, self._deepen = _action_tables(self.space)

    # ------------------------------------------------------------------ ask

    @property
    def prefix(self) -> tuple[int, ...]:
        """The actions that make the network that the next ones grow out of."""
        space = self.open_space
        assert isinstance(space, TransformationSpace)
        return space.prefix

    def ask(self, n: int) -> Tokens:
        """Grows n networks, in step."""
        prefix = self.prefix
        episodes = [Episode(self.space, prefix) for _ in range(n)]
        with torch.no_grad():
            for _ in range(self.hyperparameters.wider_rounds):
                self._grow_wider(episodes)
            for _ in range(self.hyperparameters.deeper_rounds):
                self._grow_deeper(
                    [episode for episode in episodes if episode.legal[self._deepen[self._deepen >= 0]].any()]
                )
        self._asked += episodes
        return np.array([episode.tokens for episode in episodes], dtype=np.int64).reshape(n, self.space.length)

    def _grow_wider(self, episodes: Sequence[Episode]) -> None:
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

    def _grow_deeper(self, episodes: Sequence[Episode]) -> None:
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

    def tell(self, tokens: Tokens, rewards: Floats) -> dict[str, float]:
        """Keeps the episodes until there are `batch_size` of them, then makes one update on all that it keeps."""
        for row, reward in zip(tokens, rewards, strict=True):
            found = next((i for i, asked in enumerate(self._asked) if np.array_equal(asked.tokens, row)), None)
            if found is not None:
                self._told.append((self._asked.pop(found), float(reward)))
        if len(self._told) < self.hyperparameters.batch_size:
            return {}
        told, self._told, self._asked = self._told, [], []
        return self._update(told)

    def _update(self, told: Sequence[tuple[Episode, float]]) -> dict[str, float]:
        rewards = np.array([reward for _, reward in told])
        baseline = float(self.average.update(rewards[None])[0])
        log_probs, entropy = self._evaluate([episode for episode, _ in told])
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

    def _evaluate(self, episodes: Sequence[Episode]) -> tuple[Tensor, Tensor]:
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

    # ------------------------------------------------------------------ play

    def policy(self, tokens: Tokens, positions: NDArray[np.int64]) -> Floats:
        """What comes next, over all ways in which the actions so far may have been decided in rounds.

        Which round an action belongs to does not show: a round may have widened nothing. So the probabilities of all
        that agree with the actions are carried along.
        """
        return np.stack([self._following(row[:position]) for row, position in zip(tokens, positions, strict=True)])

    @torch.no_grad()
    def _following(self, actions: Tokens) -> Floats:
        """float64[A]: the distribution of the action after these."""
        following, done = np.zeros(self.space.num_choices), len(actions)
        if self.space.stop in actions:
            following[self.space.stop] = 1.0
            return following
        prefix = self.prefix
        begun = prefix[:done] == tuple(actions[: len(prefix)].tolist())
        if begun and done < len(prefix):
            following[prefix[done]] = 1.0
            return following
        first = len(prefix) if begun else 0
        rounds = Rounds(self, self.space.history(actions))
        states = {(0, first, -1): 1.0}
        for step in range(first, done):
            seen: dict[tuple[int, int, int], float] = defaultdict(float)
            for state, weight in states.items():
                for action, after, probability in rounds.next_actions(*state, step):
                    if action == actions[step] or (action == Rounds.DEEPEN and actions[step] in self._deepen):
                        seen[after] += weight * probability
            states = {state: weight / sum(seen.values()) for state, weight in seen.items()}
        for state, weight in states.items():
            for action, _, probability in rounds.next_actions(*state, done):
                if action == Rounds.DEEPEN:
                    following += weight * probability * rounds.deeper(done)
                else:
                    following[action] += weight * probability
        if not states:  # the agent never does what was done here
            following[:] = self.space.legal_actions(self.space.network(actions))
        total: float = following.sum()
        return following / total

    # ------------------------------------------------------------------ keeping

    def state_dict(self) -> dict[str, Any]:
        """Parameters, optimiser, baseline, episodes that wait, and random states, beside the history."""
        return {
            **super().state_dict(),
            # Copies: both would go on changing with the agent.
            "controller": copy.deepcopy(self.controller.state_dict()),
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "generator": self.generator.get_state(),
            "average": [torch.from_numpy(self.average.total.copy()), self.average.weight],
            "updates": self.updates,
            "asked": [_episode_state(episode) for episode in self._asked],
            "told": [[_episode_state(episode), reward] for episode, reward in self._told],
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
        self._asked = [self._episode(kept) for kept in state["asked"]]
        self._told = [(self._episode(kept), float(reward)) for kept, reward in state["told"]]

    def _episode(self, state: Mapping[str, Any]) -> Episode:
        episode = Episode(self.space, state["actions"])
        for kept in state["rounds"]:
            kind = WiderRound if "counted" in kept else DeeperRound
            episode.rounds.append(kind(**{name: tensor.numpy() for name, tensor in kept.items()}))
        return episode


def _episode_state(episode: Episode) -> dict[str, Any]:
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


class Rounds:
    """The rounds of an agent as single actions, on the way that one network has taken.

    Where the agent stands is told by three numbers: the round; the number of actions before it began, which tells the
    network that it was decided on; and the last layer that it has widened, -1 if none.

    Args:
        agent: whose rounds.
        history: the networks, from the start on.
    """

    DEEPEN = -1  # stands for all actions that insert a layer

    def __init__(self, agent: EAS, history: Sequence[Layers]) -> None:
        self.agent, self.history = agent, history
        layers = agent._encoded(history)
        wider = agent.controller.widen(*agent._read(layers)).sigmoid().double().cpu().numpy()
        self.layers, self.legal = layers, np.stack([agent.space.legal_actions(network) for network in history])
        self.wider = np.where(self.legal[:, agent._widen], wider, 0.0)

    def next_actions(
        self, number: int, begin: int, last: int, step: int
    ) -> Iterator[tuple[int, tuple[int, int, int], float]]:
        """The actions that may follow on the first `step`, where each leads to, and its probability."""
        settings, table = self.agent.hyperparameters, self.agent._widen
        left = 1.0
        while number < settings.wider_rounds:
            for layer in range(last + 1, len(table)):
                # What has come to be illegal since the round began has no effect.
                chance = self.wider[begin, layer] * self.legal[step, table[layer]]
                if chance:
                    yield int(table[layer]), (number, begin, layer), left * chance
                left *= 1.0 - chance
            number, begin, last = number + 1, step, -1
        some = self.legal[step, self.agent._deepen[self.agent._deepen >= 0]].any()
        if number < settings.wider_rounds + settings.deeper_rounds and some:
            yield self.DEEPEN, (number + 1, step + 1, -1), left
        else:
            yield self.agent.space.stop, (number, step, -1), left

    def deeper(self, step: int) -> Floats:
        """The distribution of what is inserted into the network after so many actions, float64[A]."""
        agent, following = self.agent, np.zeros(self.agent.space.num_choices)
        legal = self.legal[step, agent._deepen] & (agent._deepen >= 0)
        chosen = np.argwhere(legal)
        rows = self.layers[[step]].repeat(len(chosen), axis=0), legal[None].repeat(len(chosen), axis=0)
        _, log_probs, _ = agent.controller.deepen(
            *agent._read(rows[0]), agent._tensor(rows[1]), chosen=agent._tensor(chosen)
        )
        following[agent._deepen[legal]] = log_probs.sum(dim=1).double().exp().cpu().numpy()
        return following
