"""Contrastive training (InfoNCE): a sentence finds the one that means the same among all sentences of its batch."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from torch.nn import functional

from ..recipe import stage
from .encoder import Encoder, padded
from .sentences import Meaning, Triple, training_triples
from .wordpiece import Tokenizer, vocabulary

STEPS = 500
BATCH = 128  # triples
RATE, WARM_UP, DECAY = 1.5e-3, 50, 0.01
TEMPERATURE = 0.05
_SEED = 2026
_SAMPLE, _AT_LEAST = 20_000, 8  # triples from which the words are counted, and how often one of them must occur
_BUCKETS = 4  # a batch goes through in parts of about the same length, to pad less


def train(steps: int = STEPS) -> tuple[Tokenizer, Encoder]:
    torch.manual_seed(_SEED)
    torch.set_num_threads(1)
    tokenize = Tokenizer(_words())
    encoder = Encoder(len(tokenize.pieces))
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    triples = training_triples(_SEED)
    with stage("training", steps) as progress:
        for _ in range(steps):
            loss = _loss(encoder, tokenize, list(itertools.islice(triples, BATCH)))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            progress(f"loss {loss.item():.3f}")
    return tokenize, encoder.eval()


def encode(encoder: Encoder, tokenize: Tokenizer, sentences: list[str]) -> Tensor:
    """(sentences, width), each of length 1."""
    ids = [tokenize(sentence) for sentence in sentences]
    order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
    size = -(-len(order) // _BUCKETS)
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    vectors = torch.cat([encoder(padded([ids[place] for place in part])) for part in parts])
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    return vectors[back]


def _words() -> tuple[str, ...]:
    triples = itertools.islice(training_triples(_SEED + 1), _SAMPLE)
    return vocabulary((text for triple in triples for text in (triple.anchor, triple.same)), at_least=_AT_LEAST)


def _loss(encoder: Encoder, tokenize: Tokenizer, triples: list[Triple]) -> Tensor:
    """Of both directions, anchor to same and same to anchor; a chance repetition of a meaning is no contrast."""
    anchors, same, different = (
        [getattr(triple, part) for triple in triples] for part in ("anchor", "same", "different")
    )
    numbers: dict[Meaning, int] = {}
    meant, other = (
        torch.tensor([numbers.setdefault(getattr(triple, part), len(numbers)) for triple in triples])
        for part in ("meaning", "other")
    )
    one, two, three = encode(encoder, tokenize, anchors + same + different).chunk(3)
    size = len(triples)
    repeated = meant[:, None] == torch.cat((meant, other))
    repeated[:, :size] &= ~torch.eye(size, dtype=torch.bool)
    target = torch.arange(size)
    losses = [
        functional.cross_entropy((a @ torch.cat((b, three)).T / TEMPERATURE).masked_fill(repeated, -math.inf), target)
        for a, b in ((one, two), (two, one))
    ]
    return torch.stack(losses).mean()


def _rate(step: int, steps: int) -> float:
    """Warm up, then fall along a cosine to nothing."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (step - WARM_UP) / max(1, steps - WARM_UP)))
