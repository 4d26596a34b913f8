"""Autoregressive LSTM policies over any search space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_gym.spaces import SearchSpace

State = list[tuple[Tensor, Tensor]]
"""(hidden, cell) of each LSTM layer, each [n, H]."""


@dataclass(frozen=True)
class ChoiceBias:
    """A prior on choices, as ENAS micro has on separable convolutions. Biases that match the same choice add up.

    Attributes:
        pattern: shell pattern over ``"decision=choice"``, such as ``"normal/*/operation_*=sep_conv_*"``.
        initial: where the learned bias of a matching choice starts. It stands inside the tanh, and all decisions of
            a kind share it; decisions that point have none.
        fixed: added to the logit of a matching choice after the tanh, never learned.
    """

    pattern: str
    initial: float = 0.0
    fixed: float = 0.0


@dataclass(frozen=True)
class _Kind:
    """Decisions that share parameters."""

    points: bool
    size: int  # the most choices of one of them
    positions: tuple[int, ...]


class _Pointer(nn.Module):
    """Additive attention over anchors: the logit of a choice is v . tanh(W_anchor anchor + W_query hidden)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.anchor = nn.Linear(hidden_size, hidden_size, bias=False)
        self.query = nn.Linear(hidden_size, hidden_size, bias=False)
        self.vector = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, hidden: Tensor, anchors: Tensor, columns: Tensor) -> Tensor:
        """Logits [n, P, C] of P decisions: hidden [n, P, H], anchors [n, G, H], the anchor of each choice [P, C]."""
        keys = self.anchor(anchors).index_select(1, columns.flatten()).unflatten(1, columns.shape)
        scores: Tensor = self.vector(torch.tanh(keys + self.query(hidden)[:, :, None]))
        return scores.squeeze(-1)


class LSTMController(nn.Module):
    """One LSTM step a decision; decision t is scored from the hidden state h_t, its choice is the next input.

    Sources: Zoph & Le 2017, section 3.1; Pham et al. 2018 (ENAS), sections 2.2 and 2.4 and the authors' code, whence
    the LSTM without biases, the uniform initialisation in [-0.1, 0.1], the pointing, and the order of temperature and
    tanh.

    - A kind of decision without `targets` has a linear softmax head and an embedding a choice.
    - A kind that points is scored by attention over the anchors of its targets, and the chosen anchor is the next
      input. The anchor of a group is the controller's state after the group's last decision, which is the step that
      scores the next decision. (ENAS spends one more step there, on its start embedding.) A group without decisions,
      an input of the network, and a target None have learned anchors (in ENAS: zeros, keyed by two extra steps).

    Everything comes from the decisions' `kind`, `group` and `targets`, so any space will do.

    Args:
        space: the search space.
        hidden_size: H, units of the LSTM, the embeddings and the attention.
        layers: LSTM layers.
        tanh_constant: c in ``c * tanh(logit / temperature)``; None leaves the logits unbounded.
        operation_tanh_reduction: divides c for the kinds that do not point.
        temperature: divides the logits; None is 1.
        choice_bias: priors on choices.
        generator: source of the initial parameters (on the CPU); torch's global generator is never touched.

    Raises:
        ValueError: a decision points to a group that is not closed before it.
    """

    legal: Tensor  # bool[T, A]: choices within each decision's count; all there is to it in a prefix-free space
    columns: Tensor  # int64[T, A]: which anchor each pointing choice points to
    rows: Tensor  # int64[T]: where the embeddings of a decision's kind start
    fixed_bias: Tensor  # float[T, A]
    order: Tensor  # int64[T]: positions sorted by kind
    restore: Tensor  # int64[T]: the inverse of `order`

    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator,
        hidden_size: int = 64,
        layers: int = 1,
        tanh_constant: float | None = 1.10,
        operation_tanh_reduction: float = 2.5,
        temperature: float | None = None,
        choice_bias: Sequence[ChoiceBias] = (),
    ) -> None:
        super().__init__()
        self.space, self.hidden_size = space, hidden_size
        self.tanh_constant, self.operation_tanh_reduction = tanh_constant, operation_tanh_reduction
        self.temperature = temperature
        decisions, shape = space.decisions, (space.length, space.num_choices)

        keys = [(decision.kind, decision.targets is not None) for decision in decisions]
        self.kinds = []
        for key in dict.fromkeys(keys):
            positions = tuple(t for t, other in enumerate(keys) if other == key)
            size = max(len(decisions[t].choices) for t in positions)
            self.kinds.append(_Kind(key[1], size, positions))
        self.kind_of = [list(dict.fromkeys(keys)).index(key) for key in keys]
        order = np.concatenate([kind.positions for kind in self.kinds])

        # Anchors are numbered in the order in which they come to be: the learned ones first.
        closing = {decision.group: t for t, decision in enumerate(decisions)}
        targets = dict.fromkeys(target for decision in decisions for target in decision.targets or ())
        learned = [target for target in targets if target not in closing]
        closed = sorted((target for target in targets if target in closing), key=lambda group: closing[group])
        self.anchored = {closing[group] + 1 for group in closed}
        number = {target: index for index, target in enumerate([*learned, *closed])}
        self.points = bool(targets)

        columns = np.zeros(shape, dtype=np.int64)
        for t, decision in enumerate(decisions):
            for choice, target in enumerate(decision.targets or ()):
                if target in closing and closing[target] >= t:
                    raise ValueError(f"decision {decision.name!r} points to group {target}, which is not closed yet")
                columns[t, choice] = number[target]
        sizes = [0 if kind.points else kind.size for kind in self.kinds]
        rows = np.array([sum(sizes[:kind]) for kind in self.kind_of])
        initial, fixed = self._biases(choice_bias)
        for name, values in (
            ("legal", np.arange(shape[1]) < space.choice_counts[:, None]),
            ("columns", columns),
            ("rows", rows),
            ("fixed_bias", fixed),
            ("order", order),
            ("restore", np.argsort(order)),
        ):
            self.register_buffer(name, torch.from_numpy(values), persistent=False)

        # Modules draw their parameters from the global generator unless they are made without storage.
        with torch.device("meta"):
            self.lstm = nn.LSTM(hidden_size, hidden_size, layers, bias=False, batch_first=True)
            self.heads = nn.ModuleList(
                _Pointer(hidden_size) if kind.points else nn.Linear(hidden_size, kind.size) for kind in self.kinds
            )
        self.lstm.to_empty(device="cpu")
        self.heads.to_empty(device="cpu")
        self.start = nn.Parameter(torch.empty(hidden_size))
        self.embedding = nn.Parameter(torch.empty(sum(sizes), hidden_size))
        self.anchors = nn.Parameter(torch.empty(len(learned), hidden_size))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1, generator=generator)
        with torch.no_grad():
            for head, bias in zip(self.heads, initial, strict=True):
                if isinstance(head, nn.Linear):
                    head.bias.copy_(torch.from_numpy(bias))

    def _biases(self, choice_bias: Sequence[ChoiceBias]) -> tuple[list[np.ndarray], np.ndarray]:
        """The start of each kind's learned biases, and the fixed ones, float32[T, A]."""
        decisions, shape = self.space.decisions, (self.space.length, self.space.num_choices)
        initial = [np.zeros(kind.size, dtype=np.float32) for kind in self.kinds]
        fixed = np.zeros(shape, dtype=np.float32)
        for bias in choice_bias:
            matched = np.zeros(shape, dtype=bool)
            for t, decision in enumerate(decisions):
                for choice, word in enumerate(decision.choices):
                    matched[t, choice] = fnmatchcase(f"{decision.name}={word}", bias.pattern)
            fixed[matched] += bias.fixed
            for kind, learned in zip(self.kinds, initial, strict=True):
                learned[matched[list(kind.positions), : kind.size].any(axis=0)] += bias.initial
        return initial, fixed

    # ------------------------------------------------------------------ the three uses

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Builds n sequences in T LSTM steps.

        Args:
            n: how many.
            generator: source of randomness, on the CPU, so that every device draws the same.
            deterministic: take the likeliest choice of each decision.

        Returns:
            tokens int64[n, T], log-probabilities float[n, T], entropies float[n, T] in nats.
        """
        length, choices = self.columns.shape
        device = self.start.device
        tokens = torch.zeros(n, length, dtype=torch.int64, device=device)
        # Gumbel noise, as minus the logarithm of exponential noise; the floor keeps it finite.
        noise = torch.empty(length, n, choices).exponential_(generator=generator).clamp_min_(1e-30).log_().to(device)
        x, state, anchors = self._begin(n)
        scored = []
        for t in range(length):
            hidden, state, anchors = self._advance(t, x, state, anchors)
            logits = self._score(self.kind_of[t], hidden[:, None], slice(t, t + 1), anchors)[:, 0]
            legal = self.legal[t] if self.space.prefix_free else self._legal(tokens, t)
            log_distribution = logits.masked_fill(~legal, -math.inf).log_softmax(-1)
            chosen = (log_distribution if deterministic else log_distribution - noise[t]).argmax(-1)
            tokens[:, t] = chosen
            scored.append((log_distribution.gather(1, chosen[:, None])[:, 0], _entropy(log_distribution)))
            x = self._feedback(t, chosen, anchors)
        log_probs, entropies = (torch.stack(column, dim=1) for column in zip(*scored, strict=True))
        return tokens, log_probs, entropies

    def evaluate(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores filled sequences in one teacher-forced pass, with gradients.

        Args:
            tokens: int64[n, T], legal.

        Returns:
            log-probabilities float[n, T], entropies float[n, T] in nats, and the features float[n, T, H] that each
            decision was scored from.
        """
        features, anchors = self._unroll(tokens)
        logits = self._score_all(features, anchors)
        if self.space.prefix_free:
            legal = self.legal
        else:
            legal = torch.stack([self._legal(tokens, t) for t in range(self.space.length)], dim=1)
        log_distribution = logits.masked_fill(~legal, -math.inf).log_softmax(-1)
        log_probs = log_distribution.gather(2, tokens[:, :, None])[:, :, 0]
        return log_probs, _entropy(log_distribution), features

    @torch.no_grad()
    def next_distribution(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """The probabilities of the next choice after prefixes.

        Args:
            tokens: int64[n, T]; only columns before a row's position are read.
            positions: int64[n], the decision to be taken in each row.

        Returns:
            float[n, A], zero where illegal.
        """
        features, anchors = self._unroll(tokens.clamp_min(0))
        logits = self._score_all(features, anchors)[torch.arange(len(tokens), device=tokens.device), positions]
        legal = torch.from_numpy(self.space.legal(tokens.cpu().numpy(), positions.cpu().numpy())).to(logits.device)
        return logits.masked_fill(~legal, -math.inf).softmax(-1)

    # ------------------------------------------------------------------ one step

    def _begin(self, n: int) -> tuple[Tensor, State, Tensor]:
        """The first input [n, H], the LSTM's state, and the learned anchors [n, G, H]."""
        zeros = self.start.new_zeros(n, self.hidden_size)
        state = [(zeros, zeros) for _ in range(self.lstm.num_layers)]
        return self.start.expand(n, -1), state, self.anchors.expand(n, -1, -1)

    def _advance(self, t: int, x: Tensor, state: State, anchors: Tensor) -> tuple[Tensor, State, Tensor]:
        """One LSTM step on x [n, H]: the hidden state h_t, the new state, and the anchors known at decision t."""
        after = []
        for memory, weights in zip(state, self.lstm.all_weights, strict=True):
            hidden, cell = torch.lstm_cell(x, memory, *weights)
            after.append((hidden, cell))
            x = hidden
        if t in self.anchored:
            anchors = torch.cat([anchors, x[:, None]], dim=1)
        return x, after, anchors

    def _feedback(self, t: int, chosen: Tensor, anchors: Tensor) -> Tensor:
        """The input [n, H] after the choices int64[n] of decision t."""
        if not self.kinds[self.kind_of[t]].points:
            return F.embedding(chosen + self.rows[t], self.embedding)
        column = self.columns[t][chosen][:, None, None].expand(-1, 1, self.hidden_size)
        return anchors.gather(1, column)[:, 0]

    def _score(self, kind: int, hidden: Tensor, positions: slice | Tensor, anchors: Tensor) -> Tensor:
        """Logits [n, P, A] of P decisions of one kind, from their hidden states [n, P, H]; illegal ones too."""
        size, points = self.kinds[kind].size, self.kinds[kind].points
        arguments = (hidden, anchors, self.columns[positions, :size]) if points else (hidden,)
        logits: Tensor = self.heads[kind](*arguments)
        if self.temperature is not None:
            logits = logits / self.temperature
        if self.tanh_constant is not None:
            logits = self.tanh_constant / (1 if points else self.operation_tanh_reduction) * torch.tanh(logits)
        return F.pad(logits + self.fixed_bias[positions, :size], (0, self.space.num_choices - size))

    def _legal(self, tokens: Tensor, t: int) -> Tensor:
        """bool[n, A] on the tokens' device."""
        return torch.from_numpy(self.space.legal(tokens.cpu().numpy(), t)).to(tokens.device)

    # ------------------------------------------------------------------ all steps

    def _unroll(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher-forced hidden states [n, T, H], and all anchors [n, G, H]."""
        x, state, anchors = self._begin(len(tokens))
        if not self.points:  # every input is known beforehand
            inputs = F.embedding((tokens + self.rows)[:, :-1], self.embedding)
            return self.lstm(torch.cat([x[:, None], inputs], dim=1))[0], anchors
        features = []
        for t in range(self.space.length):
            hidden, state, anchors = self._advance(t, x, state, anchors)
            features.append(hidden)
            x = self._feedback(t, tokens[:, t], anchors)
        return torch.stack(features, dim=1), anchors

    def _score_all(self, features: Tensor, anchors: Tensor) -> Tensor:
        """Logits [n, T, A], a kind at a time."""
        sizes = [len(kind.positions) for kind in self.kinds]
        sorted_features = features.index_select(1, self.order)
        parts = zip(torch.split(sorted_features, sizes, dim=1), torch.split(self.order, sizes), strict=True)
        logits = [self._score(kind, hidden, positions, anchors) for kind, (hidden, positions) in enumerate(parts)]
        return torch.cat(logits, dim=1).index_select(1, self.restore)


def _entropy(log_distribution: Tensor) -> Tensor:
    """Entropy over the last axis in nats; choices of probability zero (logarithm -inf) add nothing."""
    finite = log_distribution.masked_fill(log_distribution == -math.inf, 0.0)
    return -(log_distribution.exp() * finite).sum(-1)
