"""What a controller is: policies over a search space."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nas_gym.spaces import UNDECIDED, SearchSpace

State = list[tuple[Tensor, Tensor]]
"""(hidden, cell) of each LSTM layer, each [S, n, H]."""


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


class Controller(nn.Module, ABC):
    """S independent policies over one search space, in one program.

    Every parameter has a first axis of S: a policy's results are those that it would have alone, up to rounding.

    Args:
        space: the search space.
        policies: S.

    Attributes:
        space: the search space; another stage of it may be set, of the same decisions under other masks.
        feature_size: F, of the features that each decision is scored from.
    """

    legal: Tensor  # bool[T, A]: what a free decision may choose, and of the others the choices within their count

    def __init__(self, space: SearchSpace, policies: int) -> None:
        super().__init__()
        self.space, self.policies = space, policies
        self.feature_size = 0
        legal = np.arange(space.num_choices) < space.choice_counts[:, None]
        for t in np.flatnonzero(space.free).tolist():
            legal[t] = space.legal(np.full((1, space.length), UNDECIDED), t)[0]
        self.register_buffer("legal", torch.from_numpy(legal), persistent=False)

    @abstractmethod
    def sample(
        self,
        n: int,
        generators: Sequence[torch.Generator | None],
        *,
        deterministic: bool = False,
        temperature: float = 1.0,
    ) -> Tensor:
        """Builds n sequences by each policy.

        Args:
            n: how many.
            generators: each policy's source of randomness, on the CPU, so that every device draws the same; a policy
                without one draws nothing, and its sequences mean nothing.
            deterministic: take the likeliest choice of each decision.
            temperature: divides the logits; above 1 it flattens the distributions.

        Returns:
            tokens int64[S, n, T].
        """

    @abstractmethod
    def evaluate(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores filled sequences in one pass, with gradients.

        Args:
            tokens: int64[S, n, T], legal.

        Returns:
            log-probabilities float[S, n, T], entropies float[S, n, T] in nats, and the features float[S, n, T, F] that
            each decision was scored from.
        """

    @abstractmethod
    def next_distribution(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """The probabilities of the next choice after prefixes.

        Args:
            tokens: int64[S, n, T]; only columns before a row's position are read.
            positions: int64[S, n], the decision to be taken in each row.

        Returns:
            float[S, n, A], zero where illegal.
        """

    # ------------------------------------------------------------------ masks and draws

    def _initialise(self, generators: Sequence[torch.Generator], bound: float) -> None:
        """Draws each policy's parameters uniformly from its own generator."""
        with torch.no_grad():
            for parameter in self.parameters():
                for row, generator in zip(parameter, generators, strict=True):
                    row.uniform_(-bound, bound, generator=generator)

    def _noise(self, n: int, generators: Sequence[torch.Generator | None], device: torch.device) -> Tensor:
        """Negative Gumbel noise [S, n, T, A]: the logarithm of exponential noise; a floor keeps it finite."""
        noise = torch.ones(self.policies, n, *self.legal.shape)
        for row, generator in zip(noise, generators, strict=True):
            if generator is not None:
                row.exponential_(generator=generator)
        return noise.clamp_min_(1e-30).log_().to(device)

    def _legal(self, tokens: Tensor, t: int) -> Tensor:
        """What decision t may choose after the tokens [S, n, T]: bool[A], or bool[S, n, A] on the tokens' device."""
        if self.space.free[t]:
            return self.legal[t]
        legal = self.space.legal(tokens.flatten(0, 1).cpu().numpy(), t)
        return torch.from_numpy(legal).reshape(*tokens.shape[:2], -1).to(tokens.device)

    def _bound(self) -> list[int]:
        """The decisions whose legal choices depend on earlier ones."""
        bound: list[int] = np.flatnonzero(~self.space.free).tolist()
        return bound

    def _all_legal(self, tokens: Tensor) -> Tensor:
        """What each decision may choose: bool[T, A] or bool[S, n, T, A]."""
        if self.space.prefix_free:
            return self.legal
        legal = self.legal.repeat(*tokens.shape[:2], 1, 1)
        for t in self._bound():
            legal[:, :, t] = self._legal(tokens, t)
        return legal

    def _following(self, logits: Tensor, tokens: Tensor, positions: Tensor) -> Tensor:
        """Probabilities [S, n, A] at the positions, of logits [S, n, T, A]."""
        index = positions[:, :, None, None].expand(-1, -1, 1, logits.shape[-1])
        chosen = logits.gather(2, index)[:, :, 0]
        rows = tokens.flatten(0, 1).cpu().numpy(), positions.flatten().cpu().numpy()
        legal = torch.from_numpy(self.space.legal(*rows)).reshape(chosen.shape).to(logits.device)
        return masked(chosen, legal).softmax(-1)


def masked(logits: Tensor, legal: Tensor) -> Tensor:
    """Logits with minus infinity where illegal."""
    return logits.masked_fill(~legal, -math.inf)


def _score_choices(logits: Tensor, legal: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The log-probabilities of the chosen tokens, and the entropies, each float[S, n, T]."""
    log_distribution = masked(logits, legal).log_softmax(-1)
    log_probs = log_distribution.expand(*tokens.shape, -1).gather(3, tokens[..., None])[..., 0]
    # Choices of probability zero (logarithm -inf) add nothing.
    finite = masked_zero(log_distribution, legal)
    entropies = -(log_distribution.exp() * finite).sum(-1)
    return log_probs, entropies.expand(tokens.shape)


def masked_zero(values: Tensor, legal: Tensor) -> Tensor:
    """Values with zero where illegal."""
    return values.masked_fill(~legal, 0.0)
