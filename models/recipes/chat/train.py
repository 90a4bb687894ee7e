"""Training: AdamW on packed conversations; what the assistant says counts, what it reads hardly does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..recipe import stage
from .corpus import BROAD, FAR, Mix, Piece, conversation
from .network import Network

READ = 0.08  # weight of a token that is only read
SEED = 1


@dataclass(frozen=True, slots=True)
class Course:
    """A stretch of training."""

    name: str
    steps: int
    batch: int
    length: int  # tokens of one row
    rate: float  # at its highest
    most: tuple[int, int]  # exchanges in a conversation: between these
    mix: Mix
    steady: float  # share of the steps at the highest rate
    given: float  # weight of what a schema has forced: at first no answer should begin like that by itself


COURSES = (
    Course("Learning", 3600, batch=12, length=512, rate=3e-3, most=(4, 4), mix=BROAD, steady=0.3, given=0.0),
    Course("Learning to go on", 260, batch=3, length=2048, rate=2e-4, most=(30, 30), mix=BROAD, steady=0.0, given=0.0),
    Course("Remembering", 450, batch=3, length=2048, rate=8e-4, most=(2, 28), mix=FAR, steady=0.2, given=READ),
)


def train(network: Network, tokenizer: Any, folder: Path) -> None:
    """Take the network through all courses. A checkpoint is left in the folder after each."""
    torch.set_num_threads(1)
    for place, course in enumerate(COURSES):
        batches = _batches(tokenizer, Random(SEED + place), course)
        optimizer = _optimizer(network)
        with stage(course.name, course.steps) as step:
            for done in range(course.steps):
                for group in optimizer.param_groups:
                    group["lr"] = _rate(course, done)
                loss = _loss(network, *next(batches))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                step(f"loss {loss.item():.4f}")
        torch.save(network.state_dict(), folder / f"chat-{place}.pt")


def _rate(course: Course, done: int) -> float:
    """Warm up, stay, fall to nothing."""
    part = done / course.steps
    falling = 1.0 if part < course.steady else 1 - (part - course.steady) / (1 - course.steady)
    return course.rate * min(1.0, (done + 1) / 60) * max(0.02, falling)


def _optimizer(network: Network) -> torch.optim.Optimizer:
    matrices = [weight for weight in network.parameters() if weight.dim() > 1]
    vectors = [weight for weight in network.parameters() if weight.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.97), fused=True)


def _loss(network: Network, read: Tensor, expected: Tensor, weights: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(read)
    each = F.cross_entropy(logits.float().flatten(0, 1), expected.flatten(), reduction="none").view_as(weights)
    return (each * weights).sum() / weights.sum()


def _batches(tokenizer: Any, rng: Random, course: Course) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Conversations end to end: tokens read, tokens expected, weights; each (batch, length)."""
    need = course.batch * (course.length + 1)
    tokens: list[int] = []
    weights: list[float] = []
    while True:
        while len(tokens) < need:
            least, most = course.most
            most = least if least == most else rng.randint(least, most)
            encode(tokenizer, conversation(rng, most, course.mix), course.given, tokens, weights)
        rows = torch.tensor(tokens[:need]).view(course.batch, -1)
        weight = torch.tensor(weights[:need]).view(course.batch, -1)
        del tokens[:need], weights[:need]
        yield rows[:, :-1], rows[:, 1:], weight[:, 1:]


def encode(tokenizer: Any, pieces: list[Piece], given: float, tokens: list[int], weights: list[float]) -> None:
    """Append a document's tokens, and how much each counts."""
    for piece in pieces:
        coded = tokenizer.encode(piece.text, add_special_tokens=False)
        tokens += coded.ids
        if piece.learned:
            weights += [1.0 if start >= piece.given else given for start, _ in coded.offsets]
        else:
            weights += [READ] * len(coded.ids)
    tokens.append(tokenizer.token_to_id("<|endoftext|>"))
    weights.append(READ)
