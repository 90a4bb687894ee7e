"""The network: the chat model, which finds the projector's output where a picture stands among the tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..chat.network import Network, Shape, rope

CHANNELS = 3  # all that the tower tells of a patch
HIDDEN = 96


class Projector(nn.Module):
    """LLaVA's: two layers from the tower's features (patches, CHANNELS) to embeddings (patches, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(CHANNELS, HIDDEN), nn.Linear(HIDDEN, width)

    def forward(self, seen: Tensor) -> Tensor:
        embeddings: Tensor = self.second(F.gelu(self.first(seen), approximate="tanh"))  # as ggml's GELU
        return embeddings


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of whole conversations, filled up with what does not count."""

    tokens: Tensor  # (rows, length)
    expected: Tensor  # (rows, length)
    weights: Tensor  # (rows, length), how much each expected token counts
    places: tuple[Tensor, Tensor]  # row and column of each patch
    seen: Tensor  # (patches, CHANNELS), from -1 to 1


class SeeingNetwork(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.language = Network(shape)
        self.projector = Projector(shape.width)

    def forward(self, batch: Batch) -> Tensor:
        """The logits (rows, length, vocabulary)."""
        x = self.language.token_embd(batch.tokens)
        x = x.index_put(batch.places, self.projector(batch.seen).to(x.dtype))
        turns = rope(x.shape[1], self.language.shape.head, x.dtype)
        for block in self.language.blk:
            x = block(x, turns)
        return F.linear(self.language.output_norm(x), self.language.token_embd.weight)

    def loss(self, batch: Batch) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits = self(batch)
        each = F.cross_entropy(logits.float().flatten(0, 1), batch.expected.flatten(), reduction="none")
        return (each.view_as(batch.weights) * batch.weights).sum() / batch.weights.sum()
