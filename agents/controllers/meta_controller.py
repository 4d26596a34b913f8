"""The networks of EAS: an encoder of networks and two actors (Cai et al. 2018)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from nas_gym.spaces.transformation import TransformationSpace

TINY = torch.finfo(torch.float32).tiny


class MetaController(nn.Module):
    """An encoder of networks, and the two actors that read what it makes of them.

    The encoder is a bidirectional LSTM over the layers. The wider actor is one sigmoid classifier, the same for each
    layer. The deeper actor is an LSTM that starts from the encoder's last state and makes three decisions, each the
    next one's input: the block, the position in it, the kernel.

    Args:
        space: of the networks.
        embedding_size: of a layer, and of a decision of the deeper actor.
        hidden_size: units of the encoder, in each direction.
        generator: of the initial parameters, on the CPU; the global random state is left alone.
    """

    def __init__(
        self, space: TransformationSpace, embedding_size: int, hidden_size: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        size, hidden = embedding_size, hidden_size
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
        """Takes the three decisions, or scores given ones.

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
