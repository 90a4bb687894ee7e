"""The network: Qwen3's architecture as llama.cpp runs it (normed queries and keys, rotate-half RoPE, gated SiLU)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-6
ROPE_BASE = 10_000.0


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes. About 1.75 M parameters."""

    vocabulary: int
    width: int = 160
    layers: int = 5
    heads: int = 5
    head: int = 32  # width of one
    feed_forward: int = 448
    context: int = 2048  # tokens


class Norm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), EPSILON)


class Block(nn.Module):
    """Attention and feed-forward, each added to what it reads. Tensors are called as in GGUF."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, inner = shape.width, shape.heads * shape.head
        self.heads, self.head = shape.heads, shape.head
        self.attn_norm, self.ffn_norm = Norm(width), Norm(width)
        self.attn_q_norm, self.attn_k_norm = Norm(shape.head), Norm(shape.head)
        self.attn_q, self.attn_k, self.attn_v = (nn.Linear(width, inner, bias=False) for _ in range(3))
        self.attn_output = nn.Linear(inner, width, bias=False)
        self.ffn_gate, self.ffn_up = (nn.Linear(width, shape.feed_forward, bias=False) for _ in range(2))
        self.ffn_down = nn.Linear(shape.feed_forward, width, bias=False)

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
        batch, length, _ = x.shape
        h = self.attn_norm(x)
        q, k, v = (
            linear(h).view(batch, length, self.heads, self.head) for linear in (self.attn_q, self.attn_k, self.attn_v)
        )
        q, k = (rotate(norm(y).transpose(1, 2), turns) for norm, y in ((self.attn_q_norm, q), (self.attn_k_norm, k)))
        seen = F.scaled_dot_product_attention(q, k, v.transpose(1, 2), is_causal=True)
        x = x + self.attn_output(seen.transpose(1, 2).reshape(batch, length, -1))
        h = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h))


class Network(nn.Module):
    """Tokens (batch, length) to logits (batch, length, vocabulary). Input and output embeddings are the same."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocabulary, shape.width)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.output_norm = Norm(shape.width)
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                small = 0.4 if name.endswith(("attn_output.weight", "ffn_down.weight")) else 1.0
                nn.init.normal_(weight, std=0.02 if name.startswith("token") else small / math.sqrt(weight.shape[-1]))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token_embd(tokens)
        turns = rope(tokens.shape[1], self.shape.head, x.dtype)
        for block in self.blk:
            x = block(x, turns)
        return F.linear(self.output_norm(x), self.token_embd.weight)


def rope(length: int, head: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines (length, head) of rotary positions."""
    speeds = ROPE_BASE ** (-torch.arange(0, head, 2).float() / head)
    angles = torch.outer(torch.arange(length).float(), speeds).repeat(1, 2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (i, i + half)."""
    cos, sin = turns
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin
