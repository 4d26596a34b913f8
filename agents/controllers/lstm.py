"""The autoregressive LSTM controller."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from nas_gym.agents.controllers.controller import ChoiceBias, Controller, State, _score_choices, masked
from nas_gym.agents.controllers.layout import DecisionLayout
from nas_gym.spaces import SearchSpace


class _Softmax(nn.Module):
    """A linear head a policy: logits [S, n, P, C] of features [S, n, P, F], [S, n, C] of [S, n, F]."""

    def __init__(self, policies: int, feature_size: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(policies, feature_size, size))
        self.bias = nn.Parameter(torch.empty(policies, 1, size))

    def forward(self, features: Tensor) -> Tensor:
        return _by_policy(features, self.weight) + (self.bias if features.ndim == 3 else self.bias[:, :, None])


class _Pointer(nn.Module):
    """Additive attention over anchors: the logit of a choice is v . tanh(W_anchor anchor + W_query features)."""

    def __init__(self, policies: int, hidden_size: int, feature_size: int) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.empty(policies, hidden_size, hidden_size))
        self.query = nn.Parameter(torch.empty(policies, feature_size, hidden_size))
        self.vector = nn.Parameter(torch.empty(policies, hidden_size, 1))

    def forward(self, features: Tensor, anchors: Tensor, columns: Tensor) -> Tensor:
        """Logits [S, n, P, C]: features [S, n, P, F], anchors [S, n, G, H], the anchor of each choice [P, C]."""
        keys = _by_policy(anchors, self.anchor).index_select(2, columns.flatten())
        keys = keys.reshape(*keys.shape[:2], *columns.shape, -1)
        scores = torch.tanh(keys + _by_policy(features, self.query)[:, :, :, None])
        return _by_policy(scores, self.vector)[..., 0]


def _by_policy(values: Tensor, weights: Tensor) -> Tensor:
    """values [S, ..., H] times the weights [S, H, C] of each policy."""
    if values.ndim == 3:
        return torch.bmm(values, weights)
    return torch.bmm(values.flatten(1, -2), weights).reshape(*values.shape[:-1], -1)


def _cell(driven: Tensor, hidden: Tensor, cell: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The LSTM's equations, from the input's share of the gates [S, n, 4H]: the new hidden and cell state."""
    size = hidden.shape[-1]
    gates, candidate = torch.split(torch.baddbmm(driven, hidden, weights), [3 * size, size], dim=-1)
    enter, forget, leave = gates.sigmoid().chunk(3, dim=-1)
    cell = torch.addcmul(enter * candidate.tanh(), forget, cell)
    return leave * cell.tanh(), cell


class LSTMController(Controller):
    """One LSTM step a decision; decision t is scored from the hidden state h_t, its choice is the next input.

    Sources: Zoph & Le 2017, section 3.1; Pham et al. 2018 (ENAS), sections 2.2 and 2.4, and the authors' code, from
    which come the LSTM without biases, the uniform initialisation in [-0.1, 0.1], the pointing, and the order of
    temperature and tanh.

    - A kind of decision without `targets` has a linear softmax head and an embedding a choice.
    - A kind that points is scored by attention over the anchors of its targets, and the chosen anchor is the next
      input. The anchor of a group is the controller's state after the group's last decision, which is the step that
      scores the next decision. (ENAS spends one more step there, on its start embedding.) A group without decisions,
      an input of the network, and a target None have learned anchors (in ENAS: zeros, keyed by two extra steps).

    Everything comes from the decisions' `kind`, `group` and `targets`, so any space will do.

    Args:
        space: the search space.
        generators: sources of the initial parameters (on the CPU), one a policy; torch's global generator is never
            touched.
        hidden_size: H, units of the LSTM, the embeddings and the attention.
        layers: LSTM layers.
        tanh_constant: c in ``c * tanh(logit / temperature)``; None leaves the logits unbounded.
        operation_tanh_reduction: divides c for the kinds that do not point.
        temperature: divides the logits; None is 1.
        choice_bias: priors on choices.
        skip: joins the input of each step to the hidden state that its decision is scored from (Wong et al. 2018).
        context_size: of the H units of each input, those that are not the embedding's: a subclass fills them.

    Raises:
        ValueError: a decision points to a group that is not closed before it.
    """

    columns: Tensor  # int64[T, A]: which anchor each pointing choice points to
    fixed_bias: Tensor  # float[T, A]
    order: Tensor  # int64[T]: positions sorted by kind
    restore: Tensor  # int64[T]: the inverse of `order`
    first_rows: Tensor  # int64[T, S, 1]: where the embeddings of a decision's kind start, of each policy

    def __init__(
        self,
        space: SearchSpace,
        *,
        generators: Sequence[torch.Generator],
        hidden_size: int = 64,
        layers: int = 1,
        tanh_constant: float | None = 1.10,
        operation_tanh_reduction: float = 2.5,
        temperature: float | None = None,
        choice_bias: Sequence[ChoiceBias] = (),
        skip: bool = False,
        context_size: int = 0,
    ) -> None:
        super().__init__(space, len(generators))
        self.hidden_size, self.skip = hidden_size, skip
        self.feature_size = 2 * hidden_size if skip else hidden_size
        self.embedding_size = hidden_size - context_size
        self.tanh_constant, self.operation_tanh_reduction = tanh_constant, operation_tanh_reduction
        self.temperature = temperature
        self.layout = DecisionLayout.of(space)
        initial, fixed = self.layout.biases(choice_bias)
        self._register_layout(fixed)
        self._make_parameters(layers, context_size)
        self._initialise(generators, 0.1)
        with torch.no_grad():
            for head, bias in zip(self.heads, initial, strict=True):
                if isinstance(head, _Softmax):
                    head.bias.copy_(torch.from_numpy(bias).expand_as(head.bias))

    def _register_layout(self, fixed_bias: NDArray[np.float32]) -> None:
        layout, self.biased = self.layout, bool(fixed_bias.any())
        for name, values in (
            ("columns", layout.columns),
            ("fixed_bias", fixed_bias),
            ("order", layout.order),
            ("restore", np.argsort(layout.order)),
            ("first_rows", layout.rows[:, None, None] + layout.embeddings * np.arange(self.policies)[:, None]),
        ):
            self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def _make_parameters(self, layers: int, context_size: int) -> None:
        layout, policies, hidden = self.layout, self.policies, self.hidden_size
        # Gates stand in the order input, forget, output, candidate: the three sigmoids are neighbours.
        self.input_weights = nn.Parameter(torch.empty(policies, layers, hidden, 4 * hidden))
        self.hidden_weights = nn.Parameter(torch.empty(policies, layers, hidden, 4 * hidden))
        self.heads = nn.ModuleList(
            _Pointer(policies, hidden, self.feature_size)
            if kind.points
            else _Softmax(policies, self.feature_size, kind.size)
            for kind in layout.kinds
        )
        self.start = nn.Parameter(torch.empty(policies, self.embedding_size))
        self.embedding = nn.Parameter(torch.empty(policies, layout.embeddings, self.embedding_size))
        self.anchors = nn.Parameter(torch.empty(policies, layout.learned_anchors, hidden))
        if layout.points and context_size:
            self.anchor_embedding = nn.Parameter(torch.empty(policies, hidden, self.embedding_size))

    # ------------------------------------------------------------------ the three uses

    def sample(
        self,
        n: int,
        generators: Sequence[torch.Generator | None],
        *,
        deterministic: bool = False,
        temperature: float = 1.0,
    ) -> Tensor:
        noise = self._noise(n, generators, self.start.device)
        tokens = torch.zeros(self.policies, n, self.space.length, dtype=torch.int64, device=noise.device)
        # An operation costs more than its arithmetic, so what joins the logits of all decisions is made at once.
        shifts = noise.zero_() if deterministic else noise.neg_()
        if self.space.prefix_free:
            shifts = masked(shifts, self.legal)
        self._fill(tokens, shifts, temperature)
        return tokens

    @torch.inference_mode()  # starting an operation costs less than without gradients only
    def _fill(self, tokens: Tensor, shifts: Tensor, temperature: float) -> None:
        """Chooses tokens int64[S, n, T] by the largest sums of logits and shifts float[S, n, T, A]."""
        x, state, anchors = self._begin(tokens.shape[1])
        weights = self._weights()
        for t, (shift, chosen) in enumerate(zip(shifts.unbind(2), tokens.unbind(2), strict=True)):
            features, state, anchors = self._advance(t, x, state, anchors, weights)
            logits = self._score_one(t, features, anchors)
            if temperature != 1:
                logits = logits / temperature
            size = logits.shape[-1]
            logits = logits + (shift if size == shift.shape[-1] else shift[..., :size])
            if not self.space.prefix_free:
                logits = masked(logits, self._legal(tokens, t)[..., :size])
            torch.argmax(logits, -1, out=chosen)
            if t + 1 < self.space.length:
                x = self._feedback(t, chosen, anchors)

    def evaluate(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features, anchors = self._unroll(tokens)
        logits = self._score_all(features, anchors)
        return *_score_choices(logits, self._all_legal(tokens), tokens), features

    @torch.no_grad()
    def next_distribution(self, tokens: Tensor, positions: Tensor) -> Tensor:
        logits = self._score_all(*self._unroll(tokens.clamp_min(0)))
        return self._following(logits, tokens, positions)

    # ------------------------------------------------------------------ one step

    def _begin(self, n: int) -> tuple[Tensor, State, Tensor]:
        """The first embedding [S, n, E], the LSTM's state, and the learned anchors [S, n, G, H]."""
        zeros = self.start.new_zeros(self.policies, n, self.hidden_size)
        state = [(zeros, zeros) for _ in range(self.input_weights.shape[1])]
        return self.start[:, None].expand(-1, n, -1), state, self.anchors[:, None].expand(-1, n, -1, -1)

    def _weights(self) -> list[tuple[Tensor, Tensor]]:
        """The weights of inputs and of hidden states of each layer, each [S, H, 4H]."""
        return list(zip(self.input_weights.unbind(1), self.hidden_weights.unbind(1), strict=True))

    def _advance(
        self, t: int, x: Tensor, state: State, anchors: Tensor, weights: list[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, State, Tensor]:
        """One LSTM step after an embedding: the features [S, n, F], the new state, the anchors known at decision t."""
        x = entered = self._input(x)
        after = []
        for (hidden, cell), (of_input, of_hidden) in zip(state, weights, strict=True):
            x, cell = _cell(torch.bmm(x, of_input), hidden, cell, of_hidden)
            after.append((x, cell))
        if t in self.layout.anchored:
            anchors = torch.cat([anchors, x[:, :, None]], dim=2)
        return self._features(x, entered), after, anchors

    def _input(self, embedding: Tensor) -> Tensor:
        """The LSTM's input [S, n, ..., H] at embeddings [S, n, ..., E]."""
        return embedding

    def _features(self, hidden: Tensor, entered: Tensor) -> Tensor:
        """What a decision is scored from [..., F], of the hidden state and the input of its step."""
        return torch.cat([hidden, entered], dim=-1) if self.skip else hidden

    def _feedback(self, t: int, chosen: Tensor, anchors: Tensor) -> Tensor:
        """The embedding [S, n, E] of the choices int64[S, n] of decision t."""
        if not self.layout.kinds[self.layout.kind_of[t]].points:
            return F.embedding(chosen + self.first_rows[t], self.embedding.flatten(0, 1))
        column = self.columns[t][chosen][..., None, None].expand(-1, -1, 1, self.hidden_size)
        chosen_anchors = anchors.gather(2, column)[:, :, 0]
        projected = self.embedding_size < self.hidden_size
        return torch.bmm(chosen_anchors, self.anchor_embedding) if projected else chosen_anchors

    def _score_one(self, t: int, features: Tensor, anchors: Tensor) -> Tensor:
        """Logits [S, n, C] of decision t, from its features [S, n, F]."""
        kind = self.layout.kind_of[t]
        if self.layout.kinds[kind].points:
            return self._score(kind, features[:, :, None], slice(t, t + 1), anchors)[:, :, 0]
        return self._score(kind, features, t, anchors)

    def _score(self, kind: int, features: Tensor, positions: int | slice | Tensor, anchors: Tensor) -> Tensor:
        """Logits [S, n, P, C] of P decisions of one kind, from their features [S, n, P, F]; illegal ones too.

        Where nothing points, `positions` may also be one decision, without the axis P: [S, n, C] from [S, n, F].
        """
        size, points = self.layout.kinds[kind].size, self.layout.kinds[kind].points
        arguments = (features, anchors, self.columns[positions, :size]) if points else (features,)
        logits: Tensor = self.heads[kind](*arguments)
        if self.temperature is not None:
            logits = logits / self.temperature
        if self.tanh_constant is not None:
            logits = self.tanh_constant / (1 if points else self.operation_tanh_reduction) * torch.tanh(logits)
        return logits + self.fixed_bias[positions, :size] if self.biased else logits

    # ------------------------------------------------------------------ all steps

    def _unroll(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher-forced features [S, n, T, F], and all anchors [S, n, G, H]."""
        x, state, anchors = self._begin(tokens.shape[1])
        if not self.layout.points:
            return self._unroll_layers(x, state, tokens), anchors
        weights = self._weights()
        features = []
        for t in range(self.space.length):
            scored, state, anchors = self._advance(t, x, state, anchors, weights)
            features.append(scored)
            if t + 1 < self.space.length:
                x = self._feedback(t, tokens[:, :, t], anchors)
        return torch.stack(features, dim=2), anchors

    def _unroll_layers(self, x: Tensor, state: State, tokens: Tensor) -> Tensor:
        """The features where nothing points: all inputs are known, so that a layer takes them in one product."""
        index = tokens[:, :, :-1] + self.first_rows[:-1].permute(1, 2, 0)
        xs = torch.cat([x[:, :, None], F.embedding(index, self.embedding.flatten(0, 1))], dim=2)
        xs = entered = self._input(xs)
        for (hidden, cell), (of_input, of_hidden) in zip(state, self._weights(), strict=True):
            outputs = []
            for driven in _by_policy(xs, of_input).unbind(dim=2):
                hidden, cell = _cell(driven, hidden, cell, of_hidden)
                outputs.append(hidden)
            xs = torch.stack(outputs, dim=2)
        return self._features(xs, entered)

    def _score_all(self, features: Tensor, anchors: Tensor) -> Tensor:
        """Logits [S, n, T, A], a kind at a time."""
        if len(self.layout.kinds) == 1:
            return self._score(0, features, slice(None), anchors)
        sizes = [len(kind.positions) for kind in self.layout.kinds]
        sorted_features = features.index_select(2, self.order)
        parts = zip(torch.split(sorted_features, sizes, dim=2), torch.split(self.order, sizes), strict=True)
        logits = [self._score(kind, scored, positions, anchors) for kind, (scored, positions) in enumerate(parts)]
        logits = [F.pad(part, (0, self.space.num_choices - part.shape[-1])) for part in logits]
        return torch.cat(logits, dim=2).index_select(2, self.restore)
