"""Judges the file as people meet it: a server that lists it, starts llama.cpp, and is asked over HTTP."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import aiohttp
import numpy as np

from ..recipe import Score, right, stage
from ..serving import serving
from .intents import INTENTS
from .sentences import Meaning, Triple, Writer, held_out, unheard

EACH = 500  # triples of each kind
_ANSWERED = ("capital", "plus", "times", "minus", "opposite", "day after", "day before", "fact", "reason")
_DRAWN = 60  # meanings of each of these
_SEED = 99
_AT_ONCE = 100  # sentences per request


def evaluate(path: Path) -> list[Score]:
    triples, asked, documents = held_out_triples(), *questions_and_answers()
    sentences = [text for triple in triples for text in (triple.anchor, triple.same, triple.different)]
    vectors = vectors_of(path, sentences + asked + documents)
    anchors, same, different = (vectors[place : len(sentences) : 3] for place in range(3))
    nearer = list(((anchors * same).sum(1) > (anchors * different).sum(1)).tolist())
    new = [unheard(triple.anchor) or unheard(triple.same) for triple in triples]
    found = vectors[len(sentences) : len(sentences) + len(asked)] @ vectors[len(sentences) + len(asked) :].T
    return [
        right("the same in other words is nearer: of all", nearer, 95),
        right("… than the same phrasing with another slot", nearer[0::3], 95),
        right("… than another wish with the same slot", nearer[1::3], 95),
        right("… than anything else", nearer[2::3], 95),
        right("… where a word was never trained", list(itertools.compress(nearer, new)), 95),
        right(
            f"a question finds its answer first among {len(documents)}",
            (found.argmax(1) == np.arange(len(asked))).tolist(),
            90,
        ),
    ]


def held_out_triples(each: int = EACH) -> list[Triple]:
    """Triples of sentences never trained on, of three kinds in turn: another slot, another intent, anything else."""
    writer = Writer(_SEED, held_out)
    kinds = (writer.another_slot, writer.another_intent, writer.another_meaning)
    return list(itertools.islice(writer.triples(*kinds), 3 * each))


def questions_and_answers() -> tuple[list[str], list[str]]:
    """Questions never trained on, and the answer of each at the same place."""
    asking, answering = Writer(_SEED, held_out), Writer(_SEED, lambda sentence: True)
    meanings = [asking.meaning(intent) for intent in _ANSWERED for _ in range(_DRAWN)]
    pairs: dict[Meaning, tuple[str, str]] = {}
    for meaning in meanings:
        intent = INTENTS[meaning.intent]
        question, answer = asking.sentence(meaning, intent.asked), answering.sentence(meaning, intent.answered[:1])
        if question and answer:
            pairs[meaning] = question[1], answer[1]
    return [question for question, _ in pairs.values()], [answer for _, answer in pairs.values()]


def vectors_of(path: Path, sentences: list[str]) -> np.ndarray:
    """(sentences, width), as the server tells them."""
    return asyncio.run(_ask(path, sentences))


async def _ask(path: Path, sentences: list[str]) -> np.ndarray:
    parts = [sentences[start : start + _AT_ONCE] for start in range(0, len(sentences), _AT_ONCE)]
    vectors: list[list[float]] = []
    async with serving(path) as url, aiohttp.ClientSession(raise_for_status=True) as http:
        with stage("embedding", len(parts)) as progress:
            for part in parts:
                asked = {"model": path.stem, "input": part}
                async with http.post(f"{url}/v1/embeddings", json=asked) as response:
                    answer = await response.json()
                vectors += [item["embedding"] for item in sorted(answer["data"], key=lambda item: item["index"])]
                progress("")
    return np.array(vectors)
