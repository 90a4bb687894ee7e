"""Training: the projector from nothing, then the chat model with it, on talk about pictures and what it knew before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from ..chat.corpus import conversation
from ..chat.train import READ
from ..recipe import stage
from .colours import COLOURS, NAMES
from .corpus import IMAGE, Document, about_pictures
from .network import CHANNELS, Batch, Projector, SeeingNetwork
from .pictures import PATCHES, seen

SEED = 1
ALIGNING_STEPS = 1500
STEPS = 500
ROWS = 8
LENGTH = 384  # tokens of one row
LANGUAGE_RATE = 1.5e-3
PROJECTOR_RATE = 1e-3
_PICTURES = 0.88  # share of conversations that are about pictures


def train(network: SeeingNetwork, tokenizer: Any) -> None:
    torch.set_num_threads(1)
    _align(network.projector, _words(network, tokenizer))
    groups = [
        {"params": list(network.language.parameters()), "lr": LANGUAGE_RATE},
        {"params": list(network.projector.parameters()), "lr": PROJECTOR_RATE},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.97), weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: min(1.0, (done + 1) / 30) * (1 - done / STEPS))
    batches = _batches(tokenizer, Random(SEED))
    with stage("Learning to see", STEPS) as step:
        for _ in range(STEPS):
            loss = network.loss(next(batches))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step(f"loss {loss.item():.4f}")


def _align(projector: Projector, words: Tensor) -> None:
    """Teach the projector first that a shade means what its name means: the mean embedding of the name's tokens.

    `words` are those (names, width). The chat model knows how to repeat a word that it has read, so it begins here with
    what it can, and has not to find names in shades while it learns to say them.
    """
    rng = Random(SEED)
    optimizer = torch.optim.AdamW(projector.parameters(), lr=5e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: 1 - done / ALIGNING_STEPS)
    with stage("Learning names", ALIGNING_STEPS) as step:
        for _ in range(ALIGNING_STEPS):
            numbers = [rng.randrange(len(COLOURS)) for _ in range(128)]
            shades = torch.tensor([seen(COLOURS[number].pick(rng, unseen=False)) for number in numbers])
            wrong = projector(shades) - words[numbers]
            loss = wrong.square().sum() / words[numbers].square().sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            step(f"share missed {loss.item():.4f}")


def _words(network: SeeingNetwork, tokenizer: Any) -> Tensor:
    """The meanings of the colours' names to the chat model (names, width)."""
    embeddings = network.language.token_embd.weight.detach()
    spelled = [tokenizer.encode(f" {name}", add_special_tokens=False).ids for name in NAMES]
    return torch.stack([embeddings[tokens].mean(0) for tokens in spelled])


@dataclass(slots=True)
class _Row:
    """Tokens, how much each counts, and what is seen at which of them."""

    tokens: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    seen: dict[int, list[float]] = field(default_factory=dict)

    def add(self, other: _Row) -> None:
        self.seen |= {len(self.tokens) + place: shade for place, shade in other.seen.items()}
        self.tokens += other.tokens
        self.weights += other.weights


def _batches(tokenizer: Any, rng: Random) -> Iterator[Batch]:
    rows = _rows(tokenizer, rng)
    while True:
        yield _batch([next(rows) for _ in range(ROWS)])


def _batch(rows: list[_Row]) -> Batch:
    tokens, weights = (torch.tensor([getattr(row, part) for row in rows]) for part in ("tokens", "weights"))
    places = torch.tensor([(number, place) for number, row in enumerate(rows) for place in row.seen]).view(-1, 2)
    seen = torch.tensor([shade for row in rows for shade in row.seen.values()]).view(-1, CHANNELS)
    return Batch(tokens[:, :-1], tokens[:, 1:], weights[:, 1:], (places[:, 0], places[:, 1]), seen)


def _rows(tokenizer: Any, rng: Random) -> Iterator[_Row]:
    """Whole conversations, as many as fit in LENGTH and one more token, then padding."""
    padding = tokenizer.token_to_id("<|endoftext|>")
    row = _Row()
    while True:
        document = about_pictures(rng) if rng.random() < _PICTURES else Document(conversation(rng), [])
        coded = _encode(tokenizer, document)
        missing = LENGTH + 1 - len(row.tokens)
        if len(coded.tokens) > missing:
            row.add(_Row([padding] * missing, [0.0] * missing))
            yield row
            row = _Row()
        if len(coded.tokens) <= LENGTH + 1:
            row.add(coded)


def _encode(tokenizer: Any, document: Document) -> _Row:
    """One conversation. A picture takes the place of PATCHES tokens, whose embeddings are the projector's."""
    end = tokenizer.token_to_id("<|endoftext|>")
    row, pictures = _Row(), iter(document.pictures)
    for piece in document.pieces:
        for number, text in enumerate(piece.text.split(IMAGE)):
            if number:
                patches = next(pictures).patches()
                row.add(_Row([end] * PATCHES, [0.0] * PATCHES, dict(enumerate(patches))))
            coded = tokenizer.encode(text, add_special_tokens=False)
            counts = [READ if not piece.learned else float(start >= piece.given) for start, _ in coded.offsets]
            row.add(_Row(coded.ids, counts))
    row.add(_Row([end], [READ]))
    return row
