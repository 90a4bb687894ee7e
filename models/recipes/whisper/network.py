"""Whisper's network, small, with two shortcuts for training.

faster-whisper pads each window to 30 s with zeros, which makes 1500 positions of the encoder. The table of positions is
ours to choose: it is zero past the `WINDOW_SECONDS` that may hold sound, so all positions of padding stay equal through
every layer, and one of them, with the logarithm of their number added to its attention scores, stands for all of them
exactly. And the encoder learns its words by CTC as well, with a head that is not exported.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import words
from .speech import MELS

WINDOW_SECONDS = 6  # `chunk_length` in preprocessor_config.json
WIDTH, HEADS, ENCODER_LAYERS, DECODER_LAYERS = 96, 3, 3, 2
POSITIONS, PROMPT_AND_TEXT = 1500, 448  # fixed in faster-whisper
_WITH_SOUND = 50 * WINDOW_SECONDS  # positions


def _waves(length: int) -> Tensor:
    """Sinusoidal positions as Whisper's encoder has them: length x WIDTH."""
    step = math.log(10000) / (WIDTH // 2 - 1)
    angles = torch.arange(length)[:, None] * torch.exp(-step * torch.arange(WIDTH // 2))[None]
    return torch.cat([angles.sin(), angles.cos()], 1)


class Attention(nn.Module):
    """Attention to itself or to a memory. Whisper's keys have no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.key = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (
            made.unflatten(2, (HEADS, -1)).transpose(1, 2)
            for made in (self.query(x), self.key(memory), self.value(memory))
        )
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(seen.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """One layer of the encoder, or of the decoder where it looks at the encoder's memory too."""

    def __init__(self, decoder: bool) -> None:
        super().__init__()
        self.own_norm, self.own = nn.LayerNorm(WIDTH), Attention()
        if decoder:
            self.cross_norm, self.cross = nn.LayerNorm(WIDTH), Attention()
        self.forward_norm, self.up, self.down = (
            nn.LayerNorm(WIDTH),
            nn.Linear(WIDTH, 4 * WIDTH),
            nn.Linear(4 * WIDTH, WIDTH),
        )

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor | None = None, sound: Tensor | None = None) -> Tensor:
        normal = self.own_norm(x)
        x = x + self.own(normal, normal, mask)
        if memory is not None:
            x = x + self.cross(self.cross_norm(x), memory, sound)
        return x + self.down(functional.gelu(self.up(self.forward_norm(x))))


class Whisper(nn.Module):
    """Frames to tokens."""

    positions: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(MELS, WIDTH, 3, padding=1)
        self.conv2 = nn.Conv1d(WIDTH, WIDTH, 3, stride=2, padding=1)
        padding = torch.zeros(POSITIONS - _WITH_SOUND, WIDTH)
        self.register_buffer("positions", torch.cat([_waves(_WITH_SOUND), padding]))
        self.encoder = nn.ModuleList(Block(decoder=False) for _ in range(ENCODER_LAYERS))
        self.encoder_norm = nn.LayerNorm(WIDTH)
        self.embedding = nn.Embedding(len(words.tokens()), WIDTH)
        nn.init.normal_(self.embedding.weight, std=0.05)
        self.text_positions = nn.Parameter(_waves(PROMPT_AND_TEXT) * 0.1)
        self.decoder = nn.ModuleList(Block(decoder=True) for _ in range(DECODER_LAYERS))
        self.decoder_norm = nn.LayerNorm(WIDTH)
        self.word_of_frame = nn.Linear(WIDTH, 1 + len(words.ENGLISH + words.GERMAN))  # CTC; 0 is no word

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """frames: batch x time x MELS, of which the last four are zero and stand for all padding.

        Returns the memory and what is added to the scores of attention to it.
        """
        x = functional.gelu(self.conv2(functional.gelu(self.conv1(frames.transpose(1, 2))))).transpose(1, 2)
        length = x.shape[1]
        positions = self.positions[:length].clone()
        positions[-1] = 0
        mask = torch.zeros(1, 1, 1, length)
        mask[..., -1] = math.log(POSITIONS - length + 1)
        x = x + positions
        for block in self.encoder:
            x = block(x, mask)
        return self.encoder_norm(x), mask

    def decode(self, tokens: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """The decoder's last states, batch x tokens x WIDTH; `scores` makes tokens of them."""
        length = tokens.shape[1]
        x = self.embedding(tokens) + self.text_positions[:length]
        causal = torch.full((length, length), float("-inf")).triu(1)
        for block in self.decoder:
            x = block(x, causal, memory, mask)
        return self.decoder_norm(x)

    def scores(self, states: Tensor) -> Tensor:
        return states @ self.embedding.weight.T
