"""LM Studio's official Python client, async and sync, with the real runtime and the demo models."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import lmstudio
import pytest
from lmstudio import AsyncClient, Chat, Client

from tests.house.conftest import House, OpenHouse

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
COLD: Any = {"temperature": 0.0}
ENDLESS: Any = {"structured": {"type": "gbnf", "gbnfGrammar": 'root ::= "a" root'}}  # until the context is full
RED = base64.b64decode(  # 10×10 pixels
    "iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAYAAACNMs+9AAAAFUlEQVR42mP8z8BQz0AEYBxVSF+FABJADveWkH6oAAAAAElFTkSuQmCC"
)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def get_weather(city: str) -> str:
    """Get the weather of a city"""
    return f"sunny in {city}"


@pytest.fixture
async def host(open_house: OpenHouse) -> AsyncIterator[str]:
    async with open_house() as house:
        yield host_of(house)


def host_of(house: House) -> str:
    return house.url.removeprefix("http://")


async def test_models_of_the_asynchronous_client(host: str) -> None:
    async with AsyncClient(host) as client:
        keys = {one.model_key: one.type for one in await client.list_downloaded_models()}
        assert keys == {"demo-chat": "llm", "demo-vision": "llm", "demo-embed": "embedding"}
        assert await client.llm.list_loaded() == []
        progress: list[float] = []
        model = await client.llm.model("demo-chat", on_load_progress=progress.append)
        assert (progress[0], progress[-1]) == (0.0, 1.0)
        assert (await client.llm.model()).identifier == "demo-chat"
        info = await model.get_info()
        assert (info.model_key, info.vision) == ("demo-chat", False)
        config: Any = {"contextLength": 256, "llamaKCacheQuantizationType": "q8_0", "flashAttention": True}
        other = await client.llm.load_new_instance("demo-chat", "mine", config=config, ttl=60)
        assert other.identifier == "mine"
        assert await other.get_context_length() == 256
        loaded = await other.get_load_config()
        assert (loaded.context_length, loaded.flash_attention) == (256, True)
        assert loaded.llama_k_cache_quantization_type == "q8_0"
        assert [one.identifier for one in await client.list_loaded_models()] == ["demo-chat", "mine"]
        await model.unload()
        with pytest.raises(lmstudio.LMStudioModelNotFoundError):
            await model.respond(QUESTION)
        with pytest.raises(lmstudio.LMStudioServerError, match=r"generic\.pathNotFound"):
            await client.llm.model("none")
        with pytest.raises(lmstudio.LMStudioPresetNotFoundError):
            await other.respond(QUESTION, preset="mine")


async def test_answers_of_the_asynchronous_client(host: str) -> None:
    async with AsyncClient(host) as client:
        model = await client.llm.model("demo-chat")
        result = await model.respond(QUESTION, config=COLD)
        thoughts, _, answer = result.content.partition("</think>")
        assert (thoughts.startswith("<think>"), answer) == (True, ANSWER)
        stats = result.stats
        assert (stats.stop_reason, stats.predicted_tokens_count) == ("eosFound", 30)
        assert stats.total_tokens_count == 30 + (stats.prompt_tokens_count or 0)
        kinds = set()
        progress: list[float] = []
        stream = await model.respond_stream(QUESTION, config=COLD, on_prompt_processing_progress=progress.append)
        async for fragment in stream:
            kinds.add(fragment.reasoning_type)
        assert stream.result().content == result.content
        assert kinds == {"reasoningStartTag", "reasoning", "reasoningEndTag", "none"}
        assert (progress[0], progress[-1], progress) == (0.0, 1.0, sorted(progress))
        stream = await model.complete_stream("One, two,", config=ENDLESS)
        async for _ in stream:
            await stream.cancel()
        assert stream.result().stats.stop_reason == "userStopped"
        for config, reason in (
            ({"maxTokens": 3}, "maxPredictedTokensReached"),
            ({"stopStrings": ["capital"]}, "stopStringFound"),
        ):
            assert (await model.respond(QUESTION, config=COLD | config)).stats.stop_reason == reason
        parsed = (await model.respond(QUESTION, response_format=SCHEMA, config=COLD | {"maxTokens": 60})).parsed
        assert isinstance(parsed, dict)
        assert list(parsed) == ["city"]


async def test_tools_pictures_and_texts_of_the_asynchronous_client(host: str) -> None:
    async with AsyncClient(host) as client:
        model = await client.llm.model("demo-chat")
        said: list[Any] = []
        question = "What is the weather in Paris?"
        act = await model.act(question, [get_weather], config=COLD, on_message=said.append, max_prediction_rounds=3)
        assert act.rounds == 2
        assert said[1].content[0].content == '"sunny in Paris"'
        vision = await client.llm.model("demo-vision")
        chat = Chat()
        chat.add_user_message("What color is this?", images=[await client.prepare_image(RED)])
        assert "red" in (await vision.respond(chat, config=COLD | {"maxTokens": 40})).content.casefold()
        tokens = await model.tokenize([ANSWER, QUESTION])
        assert len(tokens[0]) == await model.count_tokens(ANSWER)  # type: ignore[arg-type]
        prompt = await model.apply_prompt_template(QUESTION)
        assert prompt.startswith("<|im_start|>user\n" + QUESTION)
        embedding = await client.embedding.model("demo-embed")
        vectors: Any = await embedding.embed([QUESTION, "Bananas are yellow.", "Where is Paris?"] * 5)
        assert [len(vector) for vector in vectors] == [192] * 15
        alike, apart = (sum(a * b for a, b in zip(vectors[0], vectors[at], strict=True)) for at in (3, 1))
        assert alike > 0.99 > apart


async def test_the_synchronous_client(host: str) -> None:
    def talk() -> None:
        with Client(host) as client:
            model = client.llm.model("demo-chat")
            assert [one.identifier for one in client.list_loaded_models()] == ["demo-chat"]
            assert model.respond(QUESTION, config=COLD).content.endswith(ANSWER)
            with model.complete_stream("One, two,", config=ENDLESS) as stream:
                for _ in stream:
                    stream.cancel()
            assert stream.result().stats.stop_reason == "userStopped"
            assert model.act("What is the weather in Paris?", [get_weather], config=COLD).rounds == 2
            assert model.count_tokens(ANSWER) > 3
            assert len(client.embedding.model("demo-embed").embed(ANSWER)) == 192
            model.unload()
            assert client.llm.list_loaded() == []

    await asyncio.to_thread(talk)


async def test_a_token_is_told_by_its_halves(open_house: OpenHouse) -> None:
    token = "sk-lm-abcdefgh:ABCDEFGHIJKLMNOPQRST"
    free = {"rate_limits": {"requests_per_minute": None}}
    doors = {"ollama": {"port": 0}, "lmstudio": {"port": 0, "api_keys": [token], **free}}
    async with open_house({"proxies": doors}) as house:
        halves = {"authVersion": 1, "clientIdentifier": "abcdefgh", "clientPasskey": token.partition(":")[2]}
        with pytest.raises((lmstudio.LMStudioServerError, ValueError)):  # 1.5 cannot read a refusal
            async with AsyncClient(host_of(house)):
                pass
        client = AsyncClient(host_of(house))
        client._auth_details.update(halves)
        async with client:
            assert len(await client.list_downloaded_models()) == 3
