"""A BERT of three layers as llama.cpp computes it: norms after the residuals, GELU by tanh, pooling by the mean."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .wordpiece import PAD

WIDTH, LAYERS, HEADS, INNER, CONTEXT = 192, 3, 6, 512, 512
NORM_EPSILON = 1e-12
_TOKEN_SPREAD, _POSITION_SPREAD = 0.1, 0.05


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.after_attention, self.after_feed_forward = (nn.LayerNorm(WIDTH, NORM_EPSILON) for _ in range(2))

    def forward(self, hidden: Tensor, visible: Tensor) -> Tensor:
        """(batch, length, width) with (batch, 1, 1, length) of what is no padding."""
        query, key, value = (
            made(hidden).unflatten(-1, (HEADS, -1)).transpose(1, 2) for made in (self.query, self.key, self.value)
        )
        seen = functional.scaled_dot_product_attention(query, key, value, visible).transpose(1, 2).flatten(2)
        hidden = self.after_attention(hidden + self.output(seen))
        inner = functional.gelu(self.up(hidden), approximate="tanh")
        made: Tensor = self.after_feed_forward(hidden + self.down(inner))
        return made


class Encoder(nn.Module):
    """Positions are sinusoids that training leaves alone, so that those beyond its longest text are none the worse."""

    positions: Tensor

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, WIDTH)
        nn.init.normal_(self.tokens.weight, std=_TOKEN_SPREAD)
        self.register_buffer("positions", _sinusoids() * _POSITION_SPREAD)
        self.norm = nn.LayerNorm(WIDTH, NORM_EPSILON)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, length), padded, to (batch, width) of length 1."""
        real = ids != PAD
        hidden = self.norm(self.tokens(ids) + self.positions[: ids.shape[1]])
        for layer in self.layers:
            hidden = layer(hidden, real[:, None, None, :])
        weights = real.unsqueeze(-1).to(hidden.dtype)
        return functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)


def padded(texts: list[list[int]]) -> Tensor:
    longest = max(map(len, texts))
    return torch.tensor([text + [PAD] * (longest - len(text)) for text in texts])


def _sinusoids() -> Tensor:
    angles = torch.arange(CONTEXT)[:, None] * torch.exp(torch.arange(0, WIDTH, 2) * (-math.log(10_000.0) / WIDTH))
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)
