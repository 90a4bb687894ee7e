"""The demo embedding model that ships, through a door, and the sentences that it was and was not trained on."""

from __future__ import annotations

import base64
import itertools
import json
import struct
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import gguf
import numpy as np
import openai
import pytest

from llamarunner.catalog import Capability, Catalog
from llamarunner.config import Settings, bundled
from models.recipes.embed import sentences
from models.recipes.embed.evaluation import held_out_triples, questions_and_answers
from models.recipes.embed.wordpiece import Tokenizer
from tests.house.conftest import House, OpenHouse, open_house

__all__ = ["open_house"]  # the fixture

PATH = bundled("models") / "demo-embed.gguf"
NOWHERE = dict.fromkeys(("ollama", "lmstudio", "huggingface", "llama_cpp"), False)
STRANGE = ("Norway, 17 + 4?", "naïve CAFÉ", "foo_bar(x) = {y: [1,2]};\ta\nb", "“isn't” 5°C — €3", "", "llama" * 40)


@pytest.fixture
async def house(open_house: OpenHouse) -> AsyncIterator[House]:
    async with open_house({"models": {"demo-embed": {"threads": 1}}}) as house:
        yield house


@pytest.fixture
async def client(house: House) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=house.url + "/v1", api_key="any", max_retries=0) as client:
        yield client


async def vectors(client: openai.AsyncOpenAI, texts: list[str]) -> np.ndarray:
    answer = await client.embeddings.create(model="demo-embed", input=texts)
    return np.array([item.embedding for item in answer.data])


def test_file_is_small() -> None:
    assert PATH.stat().st_size <= 2_000_000


async def test_what_means_the_same_is_nearer(client: openai.AsyncOpenAI) -> None:
    """A part of what `python -m models.recipes evaluate demo-embed` asks."""
    triples = held_out_triples(20)
    texts = [text for triple in triples for text in (triple.anchor, triple.same, triple.different)]
    found = await vectors(client, texts)
    same, different = ((found[0::3] * found[place::3]).sum(1) for place in (1, 2))
    wrong = [triple for triple, right in zip(triples, same > different, strict=True) if not right]
    assert len(wrong) <= len(triples) * 0.05, wrong


async def test_questions_find_their_answers(client: openai.AsyncOpenAI) -> None:
    documents = [
        "The capital of France is Paris.",
        "The capital of Germany is Berlin.",
        "A llama is a woolly animal from South America.",
        "7 + 8 = 15",
        "The day after Monday is Tuesday.",
    ]
    questions = [
        "Which city is France's capital?",
        "What city is Germany governed from?",
        "what are llamas",
        "How much is seven plus eight?",
        "Which weekday follows Monday?",
    ]
    found = await vectors(client, documents + questions)
    assert (found[5:] @ found[:5].T).argmax(1).tolist() == [0, 1, 2, 3, 4]


async def test_vectors_have_length_one_and_the_order_of_the_input(client: openai.AsyncOpenAI) -> None:
    texts = questions_and_answers()[1][:9]
    batch = await vectors(client, texts)
    assert np.linalg.norm(batch, axis=1) == pytest.approx(1, abs=1e-3)
    single = np.concatenate([await vectors(client, [text]) for text in texts])
    assert (batch @ single.T).argmax(1).tolist() == list(range(len(texts)))
    assert (batch * single).sum(1) == pytest.approx(1, abs=1e-3)


async def test_base64_says_what_the_numbers_say(house: House, client: openai.AsyncOpenAI) -> None:
    texts = ["What is the moon?", "Set a timer for 5 minutes."]
    plain = await client.embeddings.create(model="demo-embed", input=texts, encoding_format="float")
    asked = {"model": "demo-embed", "input": texts, "encoding_format": "base64"}
    async with aiohttp.ClientSession() as http, http.post(f"{house.url}/v1/embeddings", json=asked) as response:
        packed = await response.json()
    assert len(packed["data"]) == len(texts)
    for numbers, item in zip(plain.data, packed["data"], strict=True):
        data = base64.b64decode(item["embedding"])
        assert list(struct.unpack(f"<{len(data) // 4}f", data)) == pytest.approx(numbers.embedding, abs=1e-4)


async def test_it_embeds_and_does_not_chat(client: openai.AsyncOpenAI) -> None:
    catalog = Catalog(Settings.model_validate({"catalog": {"discover": NOWHERE}}))
    catalog.scan()
    entry = catalog.find("demo-embed")
    assert (entry.capabilities, entry.error) == ({Capability.EMBEDDING}, None)
    messages: list[Any] = [{"role": "user", "content": "Hello"}]
    with pytest.raises(openai.BadRequestError, match="cannot generate text"):
        await client.chat.completions.create(model="demo-embed", messages=messages)


async def test_recipe_spells_as_llama_cpp_does(house: House) -> None:
    pieces = tuple(gguf.GGUFReader(PATH).fields["tokenizer.ggml.tokens"].contents())
    tokenize = Tokenizer(pieces)
    texts = (*STRANGE, *(triple.anchor for triple in held_out_triples(5)))
    async with aiohttp.ClientSession() as http:
        for text in texts:
            asked = {"model": "demo-embed", "content": text}
            async with http.post(f"{house.url}/tokenize", json=asked) as response:
                assert json.loads(await response.text())["tokens"] == tokenize(text)[1:-1], text


def test_what_is_judged_was_never_trained_on() -> None:
    """No sentence of the evaluation, however punctuated, is among those drawn for training."""
    judged = {text for triple in held_out_triples() for text in (triple.anchor, triple.same, triple.different)}
    judged |= set(questions_and_answers()[0])
    trained = {
        " ".join(sentences.plain(text))
        for triple in itertools.islice(sentences.training_triples(2026), 10_000)
        for text in (triple.anchor, triple.same, triple.different)
    }
    assert len(judged) > 2000
    assert not {" ".join(sentences.plain(text)) for text in judged} & trained
    assert not {"norway", "quinn", "pizza", "46"} & {word for text in trained for word in text.split()}


def test_triples_say_what_they_claim() -> None:
    triples = held_out_triples(100)
    assert triples == held_out_triples(100)
    for triple in triples:
        assert triple.anchor != triple.same
        assert triple.meaning != triple.other
    slots, intents = triples[0::3], triples[1::3]
    assert all(triple.meaning.intent == triple.other.intent for triple in slots)
    for triple in intents:
        assert triple.meaning.intent != triple.other.intent
        assert {value for _, value in triple.meaning.slots} & {value for _, value in triple.other.slots}
    for triple in slots:
        changed = {value for _, value in triple.other.slots} - {value for _, value in triple.meaning.slots}
        assert len(changed) <= 1


async def test_a_text_beyond_the_context_is_the_clients_mistake(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        await client.embeddings.create(model="demo-embed", input="word " * 10_000)
    assert refusal.value.code == "context_length_exceeded"
